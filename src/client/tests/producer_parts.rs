//! Partitions that a producer gains while it sends.

use std::collections::BTreeMap;

use std::sync::{Arc, Mutex};

use super::*;
use crate::{Message, ProducerInterceptor};

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
    const MESSAGES: u32 = 300;
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 2).start().await.expect("a free port");
    let client = connected(&broker).await;
    let told = Partitions::default();
    let producer =
        within("the producer", client.producer("t").intercept(told.clone()).create()).await.expect("created");
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
    assert!(broker.create_partitioned_topic("t", 7));
    for partition in 2..7 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        within("the partition", producer.add_partition()).await.expect("attached");
        assert_eq!(producer.partitions(), partition + 1);
    }
    assert_eq!(*told.0.lock().expect("no panic"), [3, 4, 5, 6, 7]);
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

/// A partition that is refused leaves the producer as it was.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_refused_gets_no_messages() {
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 1).allow_auto_topic_creation(false);
    let broker = broker.start().await.expect("a free port");
    let client = connected(&broker).await;
    let producer = producer(&client, "t").await;
    within("the refusal", producer.add_partition()).await.expect_err("the broker has no such partition");
    assert_eq!(producer.partitions(), 1);
    assert!(producer.is_connected());
    for key in 0..20 {
        let message = Message::new("x").with_key(key.to_string());
        assert_eq!(within("a receipt", producer.send(message)).await.expect("stored").partition(), Some(0));
    }
    within("the close", client.close()).await.expect("closed");
}
