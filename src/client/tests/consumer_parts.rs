//! Topics that join and leave a consumer while messages flow.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::*;
use crate::broker::FaultEvent;
use crate::client::ConsumerEvent;
use crate::client::consumer_shared::ConsumerShared;
use crate::error::{ErrorKind, Result, ServerCode};

/// Attaches one more topic, as what looks for topics does it.
async fn joined(consumer: &Consumer, topic: &str) -> Result<()> {
    joined_to(consumer.shared(), topic).await
}

async fn joined_to(shared: &ConsumerShared, topic: &str) -> Result<()> {
    let mut attached = Vec::new();
    for part in shared.open_joining(vec![(topic.into(), -1)])? {
        attached.push((part.id, part.attached.await));
    }
    let result = attached[0].1.clone();
    shared.settle_joining(attached);
    result
}

/// Removes a topic; `false` if there is no such part.
async fn removed(consumer: &Consumer, topic: &str) -> Result<bool> {
    let parts = &consumer.shared().parts;
    match parts.of_topic(topic).and_then(|part| parts.remove(part.id())) {
        Some(closed) => closed.await.map(|()| true),
        None => Ok(false),
    }
}

/// Publishes a number each virtual millisecond until it is aborted.
fn publishing(producer: Producer) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0.. {
            send_numbers(&producer, number..number + 1).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

fn number(message: &ReceivedMessage) -> u32 {
    std::str::from_utf8(message.payload()).expect("text").parse().expect("a number")
}

/// Every topic's numbers come in order and without a gap, from its first one on, however many topics join meanwhile.
#[tokio::test(start_paused = true)]
async fn topics_join_under_traffic() {
    for queue_size in [0, 1, 1000] {
        let (_broker, client) = stage().await;
        let topics = ["t0", "t1", "t2", "t3"];
        let mut sending = Vec::new();
        for topic in topics {
            sending.push(publishing(producer(&client, topic).await));
        }
        let mut consumer = consumer(&client, "t0", queue_size).await;
        let mut next = BTreeMap::<String, u32>::new();
        for round in 0..400 {
            if round % 100 == 50 && round / 100 < 3 {
                let topic = full(topics[1 + round / 100]);
                within("the part", joined(&consumer, &topic)).await.expect("subscribed");
            }
            let message = receive(&mut consumer).await;
            let expected = next.entry(message.topic().to_owned()).or_default();
            assert_eq!(number(&message), *expected, "of {} with a queue of {queue_size}", message.topic());
            *expected += 1;
            consumer.ack(&message).expect("acknowledged");
        }
        assert_eq!(next.len(), topics.len(), "all of them gave messages: {next:?}");
        sending.iter().for_each(tokio::task::JoinHandle::abort);
        within("the close", client.close()).await.expect("closed");
    }
}

/// A topic that leaves stops at once, its subscription stays, and the others miss nothing.
#[tokio::test(start_paused = true)]
async fn a_topic_leaves_under_traffic() {
    let (broker, client) = stage().await;
    let mut sending = Vec::new();
    for topic in ["stays", "leaves"] {
        sending.push(publishing(producer(&client, topic).await));
    }
    let mut consumer = consumer(&client, "stays", 10).await;
    within("the part", joined(&consumer, &full("leaves"))).await.expect("subscribed");
    let (mut next, mut kept) = (0, None);
    while kept.is_none() || next < 50 {
        let message = receive(&mut consumer).await;
        if message.topic() == full("leaves") {
            kept = Some(message);
            continue;
        }
        assert_eq!(number(&message), next);
        next += 1;
        consumer.ack(&message).expect("acknowledged");
    }
    assert!(within("the close", removed(&consumer, &full("leaves"))).await.expect("closed"));
    assert!(!within("nothing", removed(&consumer, &full("leaves"))).await.expect("not there any more"));
    assert_eq!(consumers(&broker, "leaves"), 0);
    for _ in 0..200 {
        let message = receive(&mut consumer).await;
        assert_eq!((message.topic(), number(&message)), (full("stays").as_str(), next));
        next += 1;
        consumer.ack(&message).expect("acknowledged");
    }
    let kept = kept.expect("a message of the topic that left");
    assert_eq!(consumer.ack(&kept).expect_err("it left").kind(), ErrorKind::Closed);
    // It comes again as if it had never been here: from its first message on.
    within("the part", joined(&consumer, &full("leaves"))).await.expect("subscribed");
    let first = loop {
        let message = receive(&mut consumer).await;
        if message.topic() == full("leaves") {
            break message;
        }
    };
    assert_eq!(number(&first), 0);
    consumer.ack(&first).expect("acknowledged");
    let mut events = consumer.events();
    let events: Vec<_> = std::iter::from_fn(|| events.try_recv()).collect();
    let [ConsumerEvent::TopicAdded { topic: first, .. }, ConsumerEvent::TopicAdded { topic: again, .. }] = &events[..]
    else {
        panic!("it joined twice, and a part that was removed has not ended: {events:?}");
    };
    assert_eq!((&**first, &**again), (full("leaves").as_str(), full("leaves").as_str()));
    sending.iter().for_each(tokio::task::JoinHandle::abort);
    within("the close", client.close()).await.expect("closed");
}

/// A receive that waits takes part in what joins after it began to wait.
#[tokio::test(start_paused = true)]
async fn a_receive_that_waits_gets_the_message_of_a_topic_that_joins() {
    for queue_size in [0, 1000] {
        let (_broker, client) = stage().await;
        send_numbers(&producer(&client, "new").await, 0..1).await;
        let mut consumer = consumer(&client, "empty", queue_size).await;
        let shared = consumer.shared().clone();
        let receiving = tokio::spawn(async move { receive(&mut consumer).await.topic().to_owned() });
        tokio::time::sleep(Duration::from_secs(1)).await;
        within("the part", joined_to(&shared, &full("new"))).await.expect("subscribed");
        assert_eq!(within("the message", receiving).await.expect("no panic"), full("new"), "{queue_size}");
        drop(shared);
        within("the close", client.close()).await.expect("closed");
    }
}

/// Nothing is left of a part that was removed once its last message is dropped.
#[tokio::test(start_paused = true)]
async fn parts_that_were_removed_leave_nothing_behind() {
    const ROUNDS: usize = 200;
    let (broker, client) = stage().await;
    send_numbers(&producer(&client, "comes-and-goes").await, 0..1).await;
    let stays = producer(&client, "stays").await;
    let mut consumer = consumer(&client, "stays", 1000).await;
    let mut parts: Vec<Weak<_>> = Vec::new();
    for _ in 0..ROUNDS {
        within("the part", joined(&consumer, &full("comes-and-goes"))).await.expect("subscribed");
        let message = receive(&mut consumer).await;
        let part = consumer.shared().parts.iter().last().expect("the one that was added");
        parts.push(Arc::downgrade(&part));
        drop(part);
        assert!(within("the close", removed(&consumer, &full("comes-and-goes"))).await.expect("closed"));
        send_numbers(&stays, 0..1).await;
        let other = receive(&mut consumer).await;
        assert_eq!(other.topic(), full("stays"));
        consumer.ack(&other).expect("acknowledged");
        assert!(parts.last().and_then(Weak::upgrade).is_some(), "its message holds it");
        drop(message);
    }
    assert_eq!(parts.iter().filter_map(Weak::upgrade).count(), 0);
    assert_eq!(consumer.shared().parts.iter().count(), 1);
    until("the acknowledgements", || backlog(&broker, "stays") == 0).await;
    within("the close", client.close()).await.expect("closed");
}

/// A topic that cannot be attached leaves the consumer as it was.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_refused_does_not_join() {
    let (_broker, client) = stage().await;
    let mut consumer = consumer(&client, "t", 1000).await;
    let topic = "persistent://public/no-such-namespace/t";
    let refused = within("the refusal", joined(&consumer, topic)).await.expect_err("no namespace");
    assert_eq!(refused.topic(), Some(topic), "{refused}");
    assert_eq!(consumer.shared().parts.iter().count(), 1);
    send_numbers(&producer(&client, "t").await, 5..6).await;
    assert_eq!(number(&receive(&mut consumer).await), 5);
    let event = consumer.events().try_recv().expect("an event");
    let ConsumerEvent::TopicNotAdded { topic: told, .. } = &event else { panic!("it was never a part: {event:?}") };
    assert_eq!(&**told, topic);
    assert!(consumer.events().try_recv().is_none());
    within("the close", client.close()).await.expect("closed");
}

/// After a close nothing joins, and a consumer without topics has an end as well.
#[tokio::test(start_paused = true)]
async fn nothing_joins_a_closed_consumer() {
    let (broker, client) = stage().await;
    let mut consumer = consumer(&client, "t", 1000).await;
    assert!(within("the close", removed(&consumer, &full("t"))).await.expect("closed"));
    assert!(consumer.try_receive().expect("not ended").is_none(), "without topics it waits for one");
    within("the close", consumer.close()).await.expect("closed");
    let refused = within("the refusal", joined(&consumer, &full("late"))).await.expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert_eq!(within("the end", consumer.receive()).await.expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(consumers(&broker, "late"), 0);
    within("the close", client.close()).await.expect("closed");
}

/// Partitions that are added join, with what was published to them before; one that is refused is tried again.
#[tokio::test(start_paused = true)]
async fn partitions_join_and_nothing_of_them_is_missed() {
    for (position, expected) in [(InitialPosition::Earliest, vec![7, 8]), (InitialPosition::Latest, vec![8])] {
        let broker = EmbeddedBroker::builder().partitioned_topic("t", 1).start().await.expect("a free port");
        let client = connected(&broker).await;
        let builder = client.consumer("t", "s").auto_update_partitions_interval(Duration::from_secs(5));
        let builder = builder.initial_position_of_added(position);
        let mut consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
        let mut events = consumer.events();
        let fault = broker.faults().on(FaultEvent::Subscribe).on_topic("t-partition-1").times(2);
        fault.refuse_request(ServerCode::AUTHORIZATION_ERROR);
        assert!(broker.create_partitioned_topic("t", 2));
        let new = producer(&client, "t-partition-1").await;
        send_numbers(&new, 7..8).await;
        for _ in 0..2 {
            let event = within("the event", events.recv()).await;
            let Some(ConsumerEvent::TopicNotAdded { topic, error }) = event else { panic!("another event: {event:?}") };
            assert_eq!((&*topic, error.topic()), (full("t-partition-1").as_str(), Some(&*topic)));
        }
        let Some(ConsumerEvent::TopicAdded { topic }) = within("the event", events.recv()).await else {
            panic!("another event")
        };
        assert_eq!(*topic, full("t-partition-1"));
        send_numbers(&new, 8..9).await;
        for number_of in expected {
            let message = receive(&mut consumer).await;
            assert_eq!((number(&message), message.topic()), (number_of, &*topic));
            consumer.ack(&message).expect("acknowledged");
        }
        within("the close", client.close()).await.expect("closed");
    }
}

/// A subscription that is deleted is not made again by a partition that is found later.
#[tokio::test(start_paused = true)]
async fn no_partition_joins_after_an_unsubscribe() {
    let broker = EmbeddedBroker::builder().partitioned_topic("t", 1).start().await.expect("a free port");
    let client = connected(&broker).await;
    let builder = client.consumer("t", "s").auto_update_partitions_interval(Duration::from_secs(1));
    let consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
    within("the answer", consumer.unsubscribe()).await.expect("deleted");
    assert!(broker.create_partitioned_topic("t", 3));
    tokio::time::sleep(Duration::from_secs(10)).await;
    for partition in 0..3 {
        let stats = broker.stats(&format!("t-partition-{partition}")).expect("the partition");
        assert!(stats.subscriptions.is_empty(), "{partition}");
    }
    within("the close", client.close()).await.expect("closed");
}
