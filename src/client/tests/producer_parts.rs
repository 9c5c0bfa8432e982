//! Partitions that a producer gains while it sends.

use std::collections::BTreeMap;

use std::sync::{Arc, Mutex};

use super::*;
use crate::broker::FaultEvent;
use crate::error::ServerCode;
use crate::{Message, ProducerBuilder, ProducerEvent, ProducerInterceptor};

fn growing(client: &Client) -> ProducerBuilder {
    client.producer("t").batching(false).auto_update_partitions_interval(Duration::from_secs(1))
}

/// Keeps the numbers of partitions that it is told.
#[derive(Clone, Default)]
struct Partitions(Arc<Mutex<Vec<u32>>>);

impl ProducerInterceptor for Partitions {
    fn on_partitions_change(&self, topic: &str, partitions: u32) {
        assert_eq!(topic, "persistent://public/default/t");
        self.0.lock().expect("no panic").push(partitions);
    }
}

/// Clones send from several tasks while partitions are added: every message is stored once, those of a task in order
/// within each partition, and the new partitions get their share.
#[tokio::test(start_paused = true)]
async fn partitions_are_added_under_traffic() {
    const SENDERS: u32 = 3;
    const MESSAGES: u32 = 3000;
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 2).start().await.expect("a free port");
    let client = connected(&broker).await;
    let told = Partitions::default();
    let producer = within("the producer", growing(&client).intercept(told.clone()).create()).await.expect("created");
    let mut events = producer.events();
    let mut sending = Vec::new();
    for sender in 0..SENDERS {
        let producer = producer.clone();
        sending.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for number in 0..MESSAGES {
                let id = within("a receipt", producer.send(format!("{sender} {number}"))).await;
                ids.push(id.expect("stored"));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ids
        }));
    }
    for partitions in [3, 7] {
        assert!(broker.create_partitioned_topic("t", partitions));
        until("the growth", || producer.partitions() == partitions).await;
    }
    assert_eq!(*told.0.lock().expect("no panic"), [3, 7]);
    for partition in 2..7 {
        let ProducerEvent::PartitionAdded { topic } = events.try_recv().expect("an event") else {
            panic!("another event")
        };
        assert_eq!(*topic, full(&format!("t-partition-{partition}")));
    }
    let mut by_partition = BTreeMap::new();
    for (sender, ids) in sending.into_iter().enumerate() {
        let mut last = BTreeMap::new();
        for id in within("the sender", ids).await.expect("no panic") {
            *by_partition.entry(id.partition()).or_insert(0u32) += 1;
            let before = last.insert(id.partition(), id.clone());
            assert!(before.is_none_or(|before| before < id), "sender {sender} out of order");
        }
    }
    assert_eq!(by_partition.values().sum::<u32>(), SENDERS * MESSAGES);
    assert!(
        (0..7).all(|partition| by_partition.get(&Some(partition)).is_some_and(|sent| *sent > 20)),
        "{by_partition:?}"
    );
    for partition in 0..7 {
        let stats = broker.stats(&format!("t-partition-{partition}")).expect("the partition");
        assert_eq!(stats.publishers.len(), 1, "partition {partition}");
    }
    within("the close", producer.close()).await.expect("closed");
    for partition in 0..7 {
        let stats = broker.stats(&format!("t-partition-{partition}")).expect("the partition");
        assert_eq!(stats.publishers.len(), 0, "partition {partition}");
    }
    within("the close", client.close()).await.expect("closed");
}

/// A partition that is refused leaves the producer as it was, and is attached once it is not refused any more.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_refused_gets_no_messages() {
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 1).start().await.expect("a free port");
    let client = connected(&broker).await;
    let producer = within("the producer", growing(&client).create()).await.expect("created");
    let mut events = producer.events();
    let fault = broker.faults().on(FaultEvent::Producer).on_topic("t-partition-2").always();
    fault.refuse_request(ServerCode::AUTHORIZATION_ERROR);
    assert!(broker.create_partitioned_topic("t", 3));
    let Some(ProducerEvent::PartitionNotAdded { topic, error }) = within("the event", events.recv()).await else {
        panic!("another event")
    };
    assert_eq!((&*topic, error.topic()), (full("t-partition-2").as_str(), Some(&*topic)));
    assert_eq!(producer.partitions(), 1);
    assert!(producer.is_connected(), "those that were found with it are closed again");
    for key in 0..20 {
        let message = Message::new("x").with_key(key.to_string());
        assert_eq!(within("a receipt", producer.send(message)).await.expect("stored").partition(), Some(0));
    }
    broker.faults().clear();
    until("the growth", || producer.partitions() == 3).await;
    within("the close", client.close()).await.expect("closed");
}

/// A producer that was dropped, closed or drained asks no more, and keeps nothing.
#[tokio::test(start_paused = true)]
async fn the_look_for_partitions_ends_with_the_producer() {
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 1).start().await.expect("a free port");
    let client = connected(&broker).await;
    let dropped = within("the producer", growing(&client).create()).await.expect("created");
    let closed = within("the producer", growing(&client).create()).await.expect("created");
    let quiet = growing(&client).auto_update_partitions(false);
    let quiet = within("the producer", quiet.create()).await.expect("created");
    drop(dropped);
    within("the close", closed.close()).await.expect("closed");
    assert!(broker.create_partitioned_topic("t", 2));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((closed.partitions(), quiet.partitions()), (1, 1));
    assert!(broker.stats("t-partition-1").is_none_or(|stats| stats.publishers.is_empty()));
    within("the close", client.close()).await.expect("closed");
}

/// The first message of a lazily started partition waits while that is refused, and so does a final refusal end it.
#[tokio::test(start_paused = true)]
async fn a_lazy_partition_that_is_refused_is_tried_again() {
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 2).start().await.expect("a free port");
    let client = connected(&broker).await;
    let router = |message: &Message, _: u32| message.key().map_or(0, |key| key.parse().expect("a number"));
    let builder = client.producer("t").lazy_start_partitioned_producers(true).message_router(router);
    let producer = within("the producer", builder.create()).await.expect("created");
    let lazy = u32::from(*producer.state().parts[0].topic == full("t-partition-0"));
    let to_lazy = || Message::new("x").with_key(lazy.to_string());
    let name = format!("t-partition-{lazy}");
    let fault = |code| broker.faults().on(FaultEvent::Producer).on_topic(&name).always().refuse_request(code);
    fault(ServerCode::AUTHORIZATION_ERROR);
    let started = tokio::time::Instant::now();
    let error = within("the time-out", producer.send(to_lazy())).await.expect_err("refused");
    assert_eq!(started.elapsed().as_secs(), 30, "the send timeout: {error}");
    assert!(error.to_string().contains("AuthorizationError"), "{error}");
    assert!(producer.connection_error().is_some(), "the state says why");
    broker.faults().clear();
    until("the attach", || producer.is_connected()).await;
    let id = within("a receipt", producer.send(to_lazy())).await.expect("stored");
    assert_eq!(id.partition(), Some(lazy));
    within("the close", client.close()).await.expect("closed");
}
