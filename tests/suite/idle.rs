//! Why nothing comes: each reason, brought about.

use super::relay::Relay;
use super::*;
use pulsar_native::{AttachState, IdleReason};

/// How many messages a consumer may leave unacknowledged where [`target::Feature::FewUnacknowledged`] is on.
pub const FEW: u64 = 10;

/// The reason, once it is one that `wanted` accepts.
async fn idle(consumer: &Consumer, wanted: impl Fn(&IdleReason) -> bool) -> IdleReason {
    let look = || async {
        let why = consumer.why_idle().await;
        assert_eq!(why.parts.len(), 1, "{why}");
        why.parts[0].reason.clone()
    };
    until("the reason", look, wanted).await
}

fn shared(client: &Client, topic: &str) -> ConsumerBuilder {
    client.consumer(topic, "s").subscription_type(SubscriptionType::Shared)
}

pub async fn nothing_to_receive(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("idle");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    assert_eq!(idle(&consumer, |_| true).await, IdleReason::NoBacklog);
    let producer = created(client.producer(&topic)).await;
    send(&producer, "one").await;
    let message = receive(&mut consumer).await;
    let awaiting = |reason: &IdleReason| matches!(reason, IdleReason::AwaitingAcknowledgement { backlog: 1, .. });
    idle(&consumer, awaiting).await;
    target.confirm(&consumer, &message).await;
    idle(&consumer, |reason| *reason == IdleReason::NoBacklog).await;
    target.cluster().terminate(&topic).await;
    idle(&consumer, |reason| *reason == IdleReason::EndOfTopic).await;
    within("the close", consumer.close()).await.expect("closed");
    let closed = idle(&consumer, |_| true).await;
    assert!(matches!(closed, IdleReason::NotAttached(AttachState::Finished { error: None, .. })), "{closed}");
}

pub async fn the_application_does_not_receive(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("not-receiving");
    let mut consumer = subscribed(shared(&client, &topic).receiver_queue_size(5)).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, numbered(20).iter().map(String::as_str)).await;
    idle(&consumer, |reason| matches!(reason, IdleReason::NotReceiving { queued_messages: 5, .. })).await;
    receive_all(&mut consumer, 20).await;
    idle(&consumer, |reason| matches!(reason, IdleReason::AwaitingAcknowledgement { backlog: 20, .. })).await;
}

pub async fn another_consumer_is_active(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("standby");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Failover);
    let first = subscribed(builder.clone().name("a")).await;
    let second = subscribed(builder.name("b")).await;
    let both = || async { (first.is_active(), second.is_active()) };
    let decided = |active: &(Option<bool>, Option<bool>)| matches!(active, (Some(a), Some(b)) if a != b);
    let (of_first, _) = until("the broker's choice", both, decided).await;
    let (active, standby, name) = if of_first == Some(true) { (first, second, "a") } else { (second, first, "b") };
    let active_consumer = target.is_http().then(|| name.to_owned());
    let expected = |reason: &IdleReason| match reason {
        IdleReason::NotActive { active_consumer: told, .. } => *told == active_consumer,
        _ => false,
    };
    idle(&standby, expected).await;
    assert_eq!(idle(&active, |_| true).await, IdleReason::NoBacklog);
}

pub async fn too_much_is_not_acknowledged(target: &Target) {
    let target = target.with(target::Feature::FewUnacknowledged).await;
    let client = target.client().await;
    let topic = target.topic("blocked");
    let mut consumer = subscribed(shared(&client, &topic)).await;
    let acker = consumer.acker();
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, numbered(40).iter().map(String::as_str)).await;
    let messages = receive_all(&mut consumer, FEW as usize).await;
    let limit = target.is_http().then_some(FEW);
    let blocked = |reason: &IdleReason| match reason {
        IdleReason::BlockedOnUnacknowledged { unacknowledged, limit: told, .. } => {
            *unacknowledged >= FEW && *told == limit
        }
        _ => false,
    };
    // What the broker sent beyond its limit waits in the queue, and hides the block.
    let consumer = tokio::sync::Mutex::new(consumer);
    let look = || async {
        let mut consumer = consumer.lock().await;
        while consumer.try_receive().expect("no error").is_some() {}
        consumer.why_idle().await.parts[0].reason.clone()
    };
    until("the block", look, blocked).await;
    for message in &messages {
        acker.ack(message).expect("acknowledged");
    }
}

pub async fn messages_are_delayed(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("delayed");
    let consumer = subscribed(shared(&client, &topic)).await;
    let producer = created(client.producer(&topic)).await;
    send(&producer, Message::new("later").with_deliver_after(Duration::from_secs(3600))).await;
    let delayed = target.is_http().then_some(1);
    let expected = |reason: &IdleReason| match reason {
        IdleReason::Withheld { backlog: 1, delayed: told, .. } => *told == delayed,
        _ => false,
    };
    idle(&consumer, expected).await;
}

pub async fn keys_lie_with_another_consumer(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("held-keys");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::KeyShared).receiver_queue_size(1);
    let (first, second) = (subscribed(builder.clone()).await, subscribed(builder).await);
    let producer = created(client.producer(&topic).batching(false)).await;
    for number in 0..10 {
        send(&producer, Message::new(number.to_string()).with_key("one key")).await;
    }
    let look = || async {
        let (first, second) = (first.why_idle().await, second.why_idle().await);
        (first.parts[0].reason.clone(), second.parts[0].reason.clone())
    };
    let is_full = |reason: &IdleReason| matches!(reason, IdleReason::NotReceiving { .. });
    let is_held = |reason: &IdleReason| match reason {
        IdleReason::Withheld { held_elsewhere, .. } => {
            if target.is_http() {
                held_elsewhere.is_some_and(|held| held > 0)
            } else {
                held_elsewhere.is_none()
            }
        }
        _ => false,
    };
    until("one to hold the key", look, |(a, b)| is_full(a) && is_held(b) || is_held(a) && is_full(b)).await;
}

pub async fn no_broker_has_it(target: &Target) {
    let relay = Relay::to(target).await;
    let client = relay.client(target, Duration::from_secs(600)).await;
    let consumer = subscribed(client.consumer(target.topic("away"), "s")).await;
    relay.refuse(true);
    relay.cut();
    let is_tried_again = |reason: &IdleReason| match reason {
        IdleReason::NotAttached(AttachState::Detached { error: Some(error), attempt, .. }) => {
            *attempt >= 2 && error.kind() == ErrorKind::Connection
        }
        _ => false,
    };
    idle(&consumer, is_tried_again).await;
    relay.refuse(false);
    idle(&consumer, |reason| *reason == IdleReason::NoBacklog).await;
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}
