//! What a consumer says besides messages, and that messages go on whatever that is.

use pulsar_native::hash::java_string_hash;
use pulsar_native::{ConsumerEvent, ConsumerEvents};
use tokio::sync::mpsc;

use super::forms::Form;
use super::support::*;

/// The broker ends the topic's consumers for good: they are closed, and refused when they come back.
fn end_consumers(stage: &Stage, topic: &str) {
    stage.broker.faults().on(FaultEvent::Subscribe).on_topic(topic).refuse_request(ServerCode::TOPIC_NOT_FOUND);
    stage.broker.faults().close_consumers(topic, None);
}

async fn ended(events: &mut ConsumerEvents) -> (String, ErrorKind) {
    match within("an event", events.recv()).await {
        Some(ConsumerEvent::TopicEnded { topic, error, .. }) => (topic.to_string(), error.kind()),
        other => panic!("not the end of a part: {other:?}"),
    }
}

/// Sends numbers to each topic and waits until all have been received.
async fn exchange(stage: &Stage, topics: &[String], texts: &mut mpsc::UnboundedReceiver<String>) {
    let mut expected = Vec::new();
    for topic in topics {
        let producer = stage.producer(topic).await;
        confirmed(enqueue_numbers(&producer, 0..10).await).await;
        expected.extend(numbers(0..10));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.push(within("a message", texts.recv()).await.expect("it receives"));
    }
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

/// In every form of receiving: one event for the part that ended, the others go on, the last end is the whole's.
#[tokio::test(start_paused = true)]
async fn one_part_ends_and_the_others_continue() {
    for form in Form::ALL {
        for partitioned in [false, true] {
            let broker = EmbeddedBroker::builder().partitioned_topic("parts", 3);
            let stage = Stage::with(broker, |builder| builder).await;
            let topic = |number| match partitioned {
                true => format!("persistent://public/default/parts-partition-{number}"),
                false => format!("persistent://public/default/t{number}"),
            };
            let topics: Vec<_> = (0..3).map(topic).collect();
            let builder = match partitioned {
                true => stage.client.consumer("parts", "s"),
                false => stage.client.consumer(&topics[..], "s"),
            };
            let consumer = subscribed(builder).await;
            let mut events = consumer.events();
            let (sender, mut texts) = mpsc::unbounded_channel();
            let receiving = spawn(form.run(consumer, sender));
            exchange(&stage, &topics, &mut texts).await;

            end_consumers(&stage, &topics[1]);
            assert_eq!(ended(&mut events).await, (topics[1].clone(), ErrorKind::TopicNotFound), "{form:?}");
            exchange(&stage, &[topics[0].clone(), topics[2].clone()], &mut texts).await;
            assert!(events.try_recv().is_none(), "{form:?}: the end is reported once");

            end_consumers(&stage, &topics[2]);
            assert_eq!(ended(&mut events).await.0, topics[2], "{form:?}");
            exchange(&stage, &topics[..1], &mut texts).await;
            assert!(!receiving.is_finished(), "{form:?}");

            end_consumers(&stage, &topics[0]);
            assert_eq!(ended(&mut events).await.0, topics[0], "{form:?}");
            let end = within("the end", receiving).await.expect("no panic");
            assert_eq!((end.kind(), end.topic()), (ErrorKind::TopicNotFound, Some(&*topics[0])), "{form:?}: {end}");
            assert!(within("the end", events.recv()).await.is_none(), "{form:?}: no event after the end");
            stage.close_and_check().await;
        }
    }
}

/// A close is no news to the application that asked for it, of the consumer or of the whole client.
#[tokio::test(start_paused = true)]
async fn a_close_gives_no_events() {
    for whole_client in [false, true] {
        let stage = Stage::new().await;
        let builder = stage.client.consumer(["a", "b"], "s");
        let mut consumer = subscribed(builder).await;
        let mut events = consumer.events();
        if whole_client {
            within("the close", stage.client.close()).await.expect("closed");
        } else {
            within("the close", consumer.close()).await.expect("closed");
            within("a second close", consumer.close()).await.expect("closed already");
        }
        failed(within("the end", consumer.receive()).await, ErrorKind::Closed);
        failed(within("the end", consumer.receive()).await, ErrorKind::Closed);
        assert!(within("the end", events.recv()).await.is_none());
        if !whole_client {
            stage.close_and_check().await;
        }
    }
}

/// A dropped consumer ends its events, though an acker keeps it open at the broker.
#[tokio::test(start_paused = true)]
async fn events_end_with_the_consumer_that_finds_them() {
    let stage = Stage::new().await;
    let consumer = stage.consumer(TOPIC).await;
    let (mut events, acker) = (consumer.events(), consumer.acker());
    let reading = spawn(async move { events.recv().await.is_none() });
    drop(consumer);
    assert!(within("the end", reading).await.expect("no panic"));
    assert_eq!(stage.attached(TOPIC), (0, 1));
    drop(acker);
    stage.close_and_check().await;
}

/// Sends to a partition that has ended fail, and no others do; a flush says so once.
#[tokio::test(start_paused = true)]
async fn one_partition_of_a_producer_ends_and_the_others_continue() {
    let broker = EmbeddedBroker::builder().partitioned_topic("parts", 3);
    let stage = Stage::with(broker, |builder| builder).await;
    let producer = stage.producer("parts").await;
    let key_of = |partition| (0..).map(|number| number.to_string()).find(|key| java_string_hash(key) % 3 == partition);
    let keys: Vec<_> = (0..3).map(|partition| key_of(partition).expect("a key")).collect();
    let message = |partition: usize| Message::new("x").with_key(&keys[partition]);
    let end = |partition: usize| {
        let topic = format!("persistent://public/default/parts-partition-{partition}");
        stage.broker.faults().on(FaultEvent::Producer).on_topic(&topic).refuse_request(ServerCode::TOPIC_NOT_FOUND);
        stage.broker.faults().close_producers(&topic, None);
    };
    end(1);
    until("the end", || producer.is_connected(), |connected| !connected).await;
    let refused = within("the refusal", producer.send(message(1))).await.expect_err("it has ended");
    assert_eq!(refused.error().kind(), ErrorKind::TopicNotFound, "{refused}");
    for partition in [0, 2, 0, 2] {
        send(&producer, message(partition)).await;
    }
    failed(within("the flush", producer.flush()).await, ErrorKind::TopicNotFound);
    for _ in 0..2 {
        let pending = enqueue(&producer, message(0)).await;
        within("the flush", producer.flush()).await.expect("nothing failed since");
        confirmed(vec![pending]).await;
    }
    for partition in [0, 2] {
        end(partition);
        let refused = within("the refusal", producer.send(message(partition))).await.expect_err("it has ended");
        assert_eq!(refused.error().kind(), ErrorKind::TopicNotFound, "{refused}");
    }
    for _ in 0..2 {
        failed(within("the flush", producer.flush()).await, ErrorKind::TopicNotFound);
    }
    within("the close", producer.close()).await.expect("it is over already");
    drop(producer);
    stage.close_and_check().await;
}
