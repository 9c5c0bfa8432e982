//! Assertions that come true, and the story that is told when they do not.

use std::time::Duration;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::testing::TestBroker;
use pulsar_native::{Consumer, InitialPosition, Message, SubscriptionType};

const TOPIC: &str = "persistent://public/default/orders";

async fn consumer(broker: &TestBroker) -> Consumer {
    let builder = broker.client().consumer(TOPIC, "billing").subscription_type(SubscriptionType::Shared);
    let builder = builder.initial_position(InitialPosition::Earliest).name("worker");
    builder.negative_ack_redelivery_delay(Duration::from_millis(100)).subscribe().await.expect("subscribed")
}

/// What an assertion says that does not come true.
async fn failure(assertion: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(assertion).await.expect_err("it is not true").into_panic();
    *panic.downcast::<String>().expect("a text")
}

#[tokio::test]
async fn assertions_wait_until_they_are_true() {
    let broker = TestBroker::start().await;
    let published = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.assert_published(TOPIC, 2).await })
    };
    let producer = broker.client().producer(TOPIC).create().await.expect("created");
    let first = producer.send(Message::new("one").with_key("k").with_property("a", "b")).await.expect("sent");
    producer.send("two").await.expect("sent");
    published.await.expect("it came true");

    let mut consumer = consumer(&broker).await;
    let message = consumer.receive().await.expect("received");
    broker.assert_backlog(TOPIC, "billing", 2).await;
    consumer.nack(&message).expect("noted");
    broker.assert_redelivered(TOPIC, "billing", 1).await;
    for _ in 0..2 {
        let message = consumer.receive().await.expect("received");
        consumer.ack(&message).expect("acknowledged");
    }
    broker.assert_acked(TOPIC, "billing", &first).await;
    broker.assert_backlog("orders", "billing", 0).await;
    broker.assert_no_violations();

    let stored = broker.stored_messages("orders");
    let payloads: Vec<_> = stored.iter().map(|message| message.payload.clone()).collect();
    assert_eq!(payloads, ["one", "two"]);
    assert_eq!((stored[0].key.as_deref(), stored[1].key.as_deref()), (Some("k"), None));
    assert_eq!(stored[0].properties, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(stored[0].id, first);
}

#[tokio::test]
async fn partitions_count_together() {
    let broker = TestBroker::start_with(EmbeddedBroker::builder().partitioned_topic(TOPIC, 3)).await;
    let producer = broker.client().producer(TOPIC).batching(false).create().await.expect("created");
    for number in 0..6 {
        producer.send(format!("{number}")).await.expect("sent");
    }
    broker.assert_published(TOPIC, 6).await;
    assert_eq!(broker.stored_messages(TOPIC).len(), 6);
    let mut consumer = consumer(&broker).await;
    for _ in 0..6 {
        let message = consumer.receive().await.expect("received");
        consumer.ack(&message).expect("acknowledged");
        broker.assert_acked(TOPIC, "billing", &message.id()).await;
    }
    broker.assert_backlog(TOPIC, "billing", 0).await;
}

#[tokio::test]
async fn an_assertion_that_fails_tells_what_became_of_each_message() {
    let broker = TestBroker::start().await;
    let producer = broker.client().producer(TOPIC).name("shop").create().await.expect("created");
    for text in ["one", "two"] {
        producer.send(text).await.expect("sent");
    }
    let mut consumer = consumer(&broker).await;
    let message = consumer.receive().await.expect("received");
    consumer.ack(&message).expect("acknowledged");
    broker.assert_backlog(TOPIC, "billing", 1).await;

    let patience = Duration::from_millis(50);
    let handle = broker.clone();
    let text = failure(async move { handle.assert_backlog(TOPIC, "billing", 0).within(patience).await }).await;
    for part in [
        "assertions.rs:",
        "0 messages not acknowledged by billing on persistent://public/default/orders: there are 1 after 50ms",
        "2 messages published, 2 entries stored, producers shop, open",
        "subscription billing (Shared): 1 messages not acknowledged, 2 delivered, of these 0 again",
        "consumer worker on connection 1:",
        ": acknowledged",
        ": sent to worker",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let handle = broker.clone();
    let text = failure(async move { handle.assert_published("odrers", 1).within(patience).await }).await;
    assert!(text.contains("odrers does not exist; there are 1 topics: persistent://public/default/orders"), "{text}");
    // What cannot become true any more does not wait.
    let handle = broker.clone();
    let text = failure(async move { handle.assert_published(TOPIC, 1).within(Duration::from_secs(3600)).await }).await;
    assert!(text.contains("1 messages published to persistent://public/default/orders: 2 were"), "{text}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_opened_is_seen_as_it_is_stored() {
    let broker = TestBroker::start().await;
    let producer = broker.client().producer(TOPIC).create().await.expect("created");
    let id = producer.send(Message::new("one").with_key("k")).await.expect("sent");
    assert!(broker.stored_messages(TOPIC)[0].is_open);
    assert!(broker.faults().corrupt_stored_entry(TOPIC, 0), "there is an entry");
    let stored = broker.stored_messages(TOPIC);
    assert_eq!((stored.len(), stored[0].is_open, &stored[0].id), (1, false, &id));
    assert!(!stored[0].payload.is_empty());
}
