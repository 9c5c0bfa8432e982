//! Drains beside receives that wait on other threads.

use std::time::Duration;

use pulsar_native::ErrorKind;
use pulsar_native::testing::TestBroker;

/// The stop wakes the receive, which finds its end while the drain looks whether a message is in hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receive_that_waits_has_nothing_in_hand() {
    let broker = TestBroker::start().await;
    for _ in 0..1000 {
        let mut consumer = broker.client().consumer("orders", "s").subscribe().await.expect("subscribed");
        let acker = consumer.acker();
        let waiting = tokio::spawn(async move { consumer.receive().await });
        let report = acker.drain(Duration::from_secs(20)).await;
        assert!(report.is_complete(), "{report}");
        let error = waiting.await.expect("no panic").expect_err("nothing was sent");
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}
