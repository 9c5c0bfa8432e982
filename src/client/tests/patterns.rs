//! Consumers of a pattern, where the broker forgets them, topics come back, or the application leaves.

use super::*;
use crate::Topics;
use crate::broker::FaultEvent;
use crate::client::ConsumerEvent;
use crate::error::{ErrorKind, ServerCode};

async fn matching(client: &Client, pattern: &str) -> Consumer {
    let builder = client.consumer(Topics::pattern(pattern), "s");
    within("a consumer", builder.subscribe()).await.expect("a consumer")
}

fn parts(consumer: &Consumer) -> Vec<String> {
    let mut parts: Vec<_> = consumer.state().parts.iter().map(|part| part.topic.to_string()).collect();
    parts.sort_unstable();
    parts
}

/// A broker that forgets a watch announces nothing more, and does not say so: the list makes up for it.
#[tokio::test(start_paused = true)]
async fn the_list_finds_what_is_not_announced() {
    let (broker, client) = stage().await;
    let consumer = matching(&client, "t-.*").await;
    assert!(broker.create_topic(&full("t-1")));
    until("the first topic", || parts(&consumer) == [full("t-1")]).await;
    broker.faults().drop_topic_list_watchers();
    assert!(broker.create_topic(&full("t-2")));
    broker.delete_topic(&full("t-1"));
    let started = tokio::time::Instant::now();
    until("the change", || parts(&consumer) == [full("t-2")]).await;
    assert!(started.elapsed() < Duration::from_secs(62), "{:?}", started.elapsed());
    assert!(broker.stats(&full("t-1")).is_none(), "it stays deleted");
    within("the close", client.close()).await.expect("closed");
}

/// What comes between the broker's list and its first announcement is in neither: a second list finds it, a moment later.
#[tokio::test(start_paused = true)]
async fn a_second_list_finds_what_came_while_the_watch_began() {
    let (broker, client) = stage().await;
    let builder =
        client.consumer(Topics::pattern("t-.*"), "s").pattern_auto_discovery_period(Duration::from_secs(3600));
    let consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
    until("the watch", || broker.topic_list_watchers() == 1).await;
    broker.faults().on(FaultEvent::TopicListUpdate).drop_request();
    assert!(broker.create_topic(&full("t-1")));
    let started = tokio::time::Instant::now();
    until("the topic", || parts(&consumer) == [full("t-1")]).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    within("the close", client.close()).await.expect("closed");
}

/// A topic that is deleted and made again while nothing is heard of it is another one, read from its beginning.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_again_at_once_is_read_from_its_beginning() {
    let (broker, client) = stage().await;
    assert!(broker.create_topic(&full("t-1")));
    let mut consumer = matching(&client, "t-.*").await;
    broker.delete_topic(&full("t-1"));
    assert!(broker.create_topic(&full("t-1")));
    send_numbers(&producer(&client, "t-1").await, 0..3).await;
    for number in 0..3 {
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), number.to_string());
        consumer.ack(&message).expect("acknowledged");
    }
    within("the close", client.close()).await.expect("closed");
}

/// One that is refused is tried again with the next list.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_refused_joins_later() {
    let (broker, client) = stage().await;
    let consumer = matching(&client, "t-.*").await;
    let mut events = consumer.events();
    let fault = broker.faults().on(FaultEvent::Subscribe).on_topic("t-1").times(1);
    fault.refuse_request(ServerCode::AUTHORIZATION_ERROR);
    assert!(broker.create_topic(&full("t-1")));
    let Some(ConsumerEvent::TopicNotAdded { topic, .. }) = within("the event", events.recv()).await else { panic!() };
    assert_eq!(*topic, full("t-1"));
    let Some(ConsumerEvent::TopicAdded { topic }) = within("the event", events.recv()).await else { panic!() };
    assert_eq!(*topic, full("t-1"));
    within("the close", client.close()).await.expect("closed");
}

/// After an unsubscribe the consumer has ended, and no topic joins.
#[tokio::test(start_paused = true)]
async fn an_unsubscribe_ends_it() {
    let (broker, client) = stage().await;
    assert!(broker.create_topic(&full("t-1")));
    let mut consumer = matching(&client, "t-.*").await;
    within("the answer", consumer.unsubscribe()).await.expect("deleted");
    assert_eq!(within("the end", consumer.receive()).await.expect_err("left").kind(), ErrorKind::Closed);
    assert!(broker.create_topic(&full("t-2")));
    tokio::time::sleep(Duration::from_secs(200)).await;
    for topic in ["t-1", "t-2"] {
        assert!(broker.stats(&full(topic)).is_some_and(|stats| stats.subscriptions.is_empty()), "{topic}");
    }
    within("the close", client.close()).await.expect("closed");
}
