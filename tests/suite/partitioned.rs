//! Partitioned topics: the same calls, several topics behind them.

use super::target::Offer;
use super::*;
use pulsar_native::hash::java_string_hash;
use pulsar_native::{AccessMode, Error, MessageRoutingMode};

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

/// Messages without a key share one partition, also while others are added; those with a key go where Java sends them.
pub async fn one_partition_for_all(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("single", PARTITIONS).await;
    let builder = client.producer(&topic).batching(false).message_routing_mode(MessageRoutingMode::SinglePartition);
    let producer = created(builder.auto_update_partitions_interval(Duration::from_secs(1))).await;
    let mut used = BTreeSet::new();
    for partitions in [PARTITIONS, 2 * PARTITIONS] {
        if partitions > PARTITIONS {
            target.cluster().grow(&topic, partitions).await;
        }
        until("the partitions", async || producer.partitions(), |&found| found == partitions).await;
        used.extend(
            send_all(&producer, (0..20).map(|number| number.to_string())).await.iter().map(MessageId::partition),
        );
    }
    assert_eq!(used.len(), 1, "{used:?}");
    let id = send(&producer, Message::new("x").with_key("key")).await;
    let expected = java_string_hash("key") % (2 * PARTITIONS);
    assert_eq!(id.partition(), Some(expected));
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

/// Code of the application chooses the partition; what it does wrong is an error of that send alone.
pub async fn routed_by_the_application(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("routed", PARTITIONS).await;
    let router = |message: &Message, partitions: u32| match message.key() {
        Some("last") => partitions - 1,
        Some("beyond") => partitions,
        Some("panic") => panic!("the router's own"),
        _ => 1,
    };
    let producer = created(client.producer(&topic).message_router(router)).await;
    for (key, partition) in [("last", PARTITIONS - 1), ("x", 1), ("y", 1), ("last", PARTITIONS - 1)] {
        assert_eq!(send(&producer, Message::new("m").with_key(key)).await.partition(), Some(partition), "{key}");
    }
    assert_eq!(send(&producer, "without a key").await.partition(), Some(1));
    for (key, why) in [("beyond", "a partition that is not there"), ("panic", "the message router panicked")] {
        let message = || Message::new("m").with_key(key);
        let error = within("the refusal", producer.send(message())).await.expect_err(key);
        assert_eq!((error.error().kind(), error.may_be_stored()), (ErrorKind::InvalidArgument, false), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(producer.try_enqueue(message()).expect_err(key).to_string().contains(why));
        assert_eq!(send(&producer, "the next one").await.partition(), Some(1));
    }
    let plain = created(client.producer(target.topic("plain")).message_router(|_: &Message, _: u32| 7)).await;
    assert_eq!(send(&plain, "without partitions").await.partition(), None);
}

/// A producer that starts lazily attaches each partition with its first message, and grows like any other.
pub async fn attached_by_their_first_message(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("lazy", PARTITIONS).await;
    let builder = client.producer(&topic).batching(false).lazy_start_partitioned_producers(true);
    let router = |message: &Message, _: u32| message.key().expect("a key").parse().expect("a number");
    let interval = Duration::from_secs(1);
    let producer = created(builder.message_router(router).auto_update_partitions_interval(interval)).await;
    assert_eq!(producer.partitions(), PARTITIONS);
    assert_eq!(producer.state().parts.len(), 1, "the one that shows that the topic is not refused");
    assert!(producer.is_connected());
    let to = |partition: u32| Message::new("x").with_key(partition.to_string());
    // Several at once begin it once, and none is lost.
    let ids = send_all(&producer, (0..20).map(|number| to(number % 2 + 1))).await;
    assert!(ids.iter().enumerate().all(|(number, id)| id.partition() == Some(number as u32 % 2 + 1)));
    let started = producer.state().parts.len();
    assert!((2..=3).contains(&started), "{started}");
    let of = |partition: u32| format!("{topic}-partition-{partition}");
    for partition in 1..=2 {
        assert_eq!(target.stats(&of(partition)).await.publishers.len(), 1, "{partition}");
        assert_eq!(target.stats(&of(partition)).await.messages_in, 10);
    }
    within("partitions to be added", target.cluster().grow(&topic, PARTITIONS + 2)).await;
    super::growth::sends_to(&producer, PARTITIONS + 2).await;
    assert_eq!(producer.state().parts.len(), started, "no message has come to them");
    assert_eq!(send(&producer, to(PARTITIONS + 1)).await.partition(), Some(PARTITIONS + 1));
    assert_eq!(target.stats(&of(PARTITIONS + 1)).await.publishers, [producer.name()]);
    within("the close", producer.close()).await.expect("closed");
    let error = within("the refusal", producer.send(to(PARTITIONS))).await.expect_err("closed");
    assert_eq!(error.error().kind(), ErrorKind::Closed, "{error}");
    assert!(target.stats(&of(PARTITIONS)).await.publishers.is_empty());
}

/// One partition is taken by another: whoever comes for all of them is refused, is told which one it is, and leaves nothing behind
/// on the others.
pub async fn a_partition_that_is_refused_is_named(target: &Target) {
    let (client, other) = (target.client().await, target.client().await);
    let topic = target.partitioned_topic("refused", 2).await;
    let [free, taken] = [0, 1].map(|index| format!("{topic}-partition-{index}"));
    let check = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        let line = error.to_string();
        assert!(line.contains(&taken) && !line.contains(&free), "names the partition: {line}");
    };
    let holder = subscribed(other.consumer(&taken, "s")).await;
    check(within("the refusal", client.consumer(&topic, "s").subscribe()).await.expect_err("one is taken"));
    until("no consumer to be left", || target.subscription(&free, "s"), |seen| seen.consumers.is_empty()).await;
    within("the close", holder.close()).await.expect("closed");
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    assert!(consumer.state().is_attached() && consumer.state().parts.len() == 2, "{:?}", consumer.state());
    if !target.offers(Offer::AccessModes) {
        return;
    }
    let holder = created(other.producer(&taken).access_mode(AccessMode::Exclusive)).await;
    check(within("the refusal", client.producer(&topic).create()).await.expect_err("one is taken"));
    until("no producer to be left", || target.stats(&free), |seen| seen.publishers.is_empty()).await;
    within("the close", holder.close()).await.expect("closed");
    let producer = created(client.producer(&topic)).await;
    assert!(producer.state().is_attached() && producer.partitions() == 2, "{:?}", producer.state());
}
