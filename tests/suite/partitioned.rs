//! Partitioned topics: the same calls, several topics behind them.

use super::*;
use pulsar_native::hash::java_string_hash;

const PARTITIONS: u32 = 4;

async fn subscribe(client: &Client, topic: &str) -> Consumer {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(100));
    subscribed(builder).await
}

async fn producer(client: &Client, topic: &str) -> Producer {
    let builder = client.producer(topic).batching(false);
    let producer = created(builder).await;
    assert_eq!(producer.partitions(), PARTITIONS);
    producer
}

pub async fn keys_go_where_java_sends_them(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("by-key", PARTITIONS).await;
    assert_eq!(within("the count", client.partitions(&topic)).await.expect("a count"), PARTITIONS);
    assert_eq!(within("the count", client.partitions(target.topic("plain"))).await.expect("a count"), 0);
    let mut consumer = subscribe(&client, &topic).await;
    let producer = producer(&client, &topic).await;
    for number in 0..40 {
        let key = format!("key-{number}");
        let partition = java_string_hash(&key) % PARTITIONS;
        let id = send(&producer, Message::new("x").with_key(&key)).await;
        assert_eq!(id.partition(), Some(partition), "{key}");
        let message = receive(&mut consumer).await;
        assert_eq!((message.key(), message.id()), (Some(key.as_str()), id));
        assert_eq!(message.topic(), format!("{topic}-partition-{partition}"));
    }
}

pub async fn round_robin(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("round-robin", PARTITIONS).await;
    let mut counts = BTreeMap::new();
    for id in send_all(&producer(&client, &topic).await, (0..80).map(|number| number.to_string())).await {
        *counts.entry(id.partition()).or_insert(0) += 1;
    }
    assert_eq!(counts, (0..4).map(|partition| (Some(partition), 20)).collect());
}

pub async fn merged_and_acknowledged(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("merged", PARTITIONS).await;
    let mut consumer = subscribe(&client, &topic).await;
    let producer = producer(&client, &topic).await;
    send_all(&producer, (0..400).map(|number| number.to_string())).await;
    let mut all = BTreeSet::new();
    let mut by_partition: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for message in receive_all(&mut consumer, 400).await {
        let number: usize = message.to_string_lossy().parse().expect("a number");
        assert!(all.insert(number), "{number} came twice");
        by_partition.entry(message.id().partition()).or_default().push(number);
        consumer.ack(&message).expect("acknowledged");
    }
    assert_eq!(by_partition.len(), PARTITIONS as usize);
    assert!(by_partition.values().all(|numbers| numbers.is_sorted()), "in order within a partition");
    for partition in 0..PARTITIONS {
        drained(target, &format!("{topic}-partition-{partition}"), "s").await;
    }
}

pub async fn one_partition_by_name(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("by-name", PARTITIONS).await;
    let partition = format!("{topic}-partition-2");
    let producer = created(client.producer(&partition)).await;
    assert_eq!(producer.partitions(), 0, "a partition is no partitioned topic");
    let mut consumer = subscribe(&client, &partition).await;
    let id = send(&producer, "x").await;
    assert_eq!(id.partition(), Some(2));
    let message = receive(&mut consumer).await;
    assert_eq!((message.id(), message.topic()), (id, partition.as_str()));
    consumer.ack(&message).expect("acknowledged");
    drained(target, &partition, "s").await;
}

pub async fn nack_comes_from_its_partition(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("nack", PARTITIONS).await;
    let mut consumer = subscribe(&client, &topic).await;
    let producer = producer(&client, &topic).await;
    send_all(&producer, (0..8).map(|number| number.to_string())).await;
    let messages = receive_all(&mut consumer, 8).await;
    for message in &messages[1..] {
        consumer.acker().ack_id(&message.id()).expect("acknowledged");
    }
    consumer.nack(&messages[0]).expect("noted");
    let again = receive(&mut consumer).await;
    assert_eq!(
        (again.id(), again.to_string_lossy(), again.redelivery_count()),
        (messages[0].id(), messages[0].to_string_lossy(), 1)
    );
    consumer.ack(&again).expect("acknowledged");
    for partition in 0..PARTITIONS {
        drained(target, &format!("{topic}-partition-{partition}"), "s").await;
    }
}
