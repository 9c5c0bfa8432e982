//! Brokers of older releases, where they make a difference beyond what they refuse.

use std::sync::Arc;

use pulsar_native::broker::PulsarVersion;
use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use tokio::sync::Notify;

use super::support::*;

const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Pipes to a broker that can be cut off: both ends stay open, and nothing passes any more.
#[derive(Clone)]
struct Pipes {
    broker: EmbeddedBroker,
    cut: Arc<Notify>,
}

impl Dialer for Pipes {
    fn dial<'a>(&'a self, _: &'a Target) -> DialFuture<'a> {
        Box::pin(async {
            let (client, mut near) = tokio::io::duplex(64 * 1024);
            let (mut far, cut) = (self.broker.connect(), self.cut.clone());
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.notified() => std::future::pending().await,
                }
            });
            Ok(Box::new(client) as Box<dyn Socket>)
        })
    }
}

/// Releases before 3.0 do not ask a connection whether it is alive when its producer's name is wanted: their keep-alive
/// finds the dead one. Until then the name is refused, and what is pending waits.
#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_until_the_keep_alive_of_an_older_broker_frees_it() {
    for (version, frees_within) in [(PulsarVersion::V2_6, 60), (PulsarVersion::V2_11, 60), (PulsarVersion::V3_0, 6)] {
        let broker = EmbeddedBroker::like(version).start().await.expect("a free port");
        let pipes = Pipes { broker: broker.clone(), cut: Arc::default() };
        let client = Client::builder(broker.url()).dialer(pipes.clone()).seed(7);
        let client = client.keep_alive_interval(Duration::from_secs(2)).max_backoff_interval(BACKOFF_MAX).connect();
        let client = within("the connection", client).await.expect("a client");
        let builder = client.producer(TOPIC).batching(false).send_timeout(Duration::from_secs(120));
        let producer = created(builder).await;
        send(&producer, "before").await;
        let name = producer.name();
        pipes.cut.notify_waiters();
        let started = Instant::now();
        let pending = enqueue(&producer, "held").await;
        let sent = within_time(Duration::from_secs(100), "the receipt", pending.into_future()).await;
        sent.expect("held, and sent");
        // Two keep-alive intervals of the client, what the broker takes, and a step of the back-off.
        let bound = Duration::from_secs(4 + frees_within) + BACKOFF_MAX + SLACK;
        assert!(started.elapsed() <= bound, "{version}: {:?}", started.elapsed());
        assert_eq!(producer.name(), name, "{version}");
        within("the close", client.close()).await.expect("closed");
        stop_and_check_but_for_the_cut(&broker).await;
    }
}

/// The dead connection did not answer the broker's PING, which was the cut's doing.
async fn stop_and_check_but_for_the_cut(broker: &EmbeddedBroker) {
    let of_client = |violation: &pulsar_native::broker::ConformanceViolation| {
        violation.rule != pulsar_native::broker::Rule::PongMissing
    };
    let violations: Vec<_> = broker.violations().into_iter().filter(of_client).collect();
    assert_eq!(violations, []);
    within("the broker to stop", broker.stop()).await;
}
