//! What a producer and a consumer without work take, with what the embedded broker has of each. `docs/performance.md` has what is
//! the client's part.

use super::*;

/// Fills the tables of client and broker that double: what is theirs shows less.
const COUNT: usize = 1_700;

/// Bytes of each of many on one client. A client before it has made the topics and subscriptions.
fn bytes_each<T, F>(create: impl Fn(&Client, String) -> F) -> usize
where
    F: Future<Output = Result<T, pulsar_native::Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let mut bytes = 0;
        for _ in 0..2 {
            let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).connect().await;
            let client = client.expect("a client");
            let topic = |number| format!("persistent://public/default/idle-{number}");
            // The first one brings its connection with it.
            let first = create(&client, topic(COUNT)).await.expect("attached");
            let mut all = Vec::with_capacity(COUNT);
            let before = held();
            for number in 0..COUNT {
                all.push(create(&client, topic(number)).await.expect("attached"));
            }
            bytes = held().saturating_sub(before) / COUNT;
            drop((first, all));
            client.close().await.expect("closed");
        }
        broker.stop().await;
        bytes
    })
}

#[test]
fn an_idle_producer_takes_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = bytes_each(|client, topic| client.producer(topic).create());
    assert!(bytes < 2_750, "a producer takes {bytes} bytes");
}

#[test]
fn an_idle_consumer_takes_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes =
        bytes_each(|client, topic| client.consumer(topic, "s").subscription_type(SubscriptionType::Shared).subscribe());
    assert!(bytes < 3_600, "a consumer takes {bytes} bytes");
}
