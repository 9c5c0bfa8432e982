//! Waits with a bound that say what they waited for, and the few steps that every script is made of.

use std::fmt::Debug;
use std::future::{Future, IntoFuture};

use super::*;

use crate::common::within::look_until;
pub(crate) use crate::common::within::within_time;

/// How long anything may take. A wait that reaches it is a failure, so a long one costs nothing.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The outcome of `future`, which must come.
pub async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    within_time(WAIT_TIMEOUT, what, future).await
}

/// Looks again and again until `condition` says yes; the last look goes into the failure. For what a broker shows to an
/// operator only, without announcing a change.
pub async fn until<T: Debug, F: Future<Output = T>>(
    what: &str,
    look: impl Fn() -> F,
    condition: impl Fn(&T) -> bool,
) -> T {
    let seen = look_until(WAIT_TIMEOUT, Duration::from_millis(20), look, condition).await;
    seen.unwrap_or_else(|seen| panic!("waited {WAIT_TIMEOUT:?} for {what}; last seen: {seen:?}"))
}

/// Waits until the broker has an acknowledgement for every message of the subscription.
pub async fn drained(target: &Target, topic: &str, subscription: &str) {
    let look = || target.subscription(topic, subscription);
    until("an empty backlog", look, |seen| seen.backlog == 0 && seen.unacked == 0).await;
}

pub async fn created(builder: ProducerBuilder) -> Producer {
    within("a producer", builder.create()).await.expect("a producer")
}

pub async fn subscribed(builder: ConsumerBuilder) -> Consumer {
    within("a consumer", builder.subscribe()).await.expect("a consumer")
}

pub async fn send(producer: &Producer, message: impl Into<Message> + Send) -> MessageId {
    within("a receipt", producer.send(message)).await.expect("the message is stored")
}

/// Sends them together and waits for all receipts.
pub async fn send_all<M: Into<Message> + Send>(
    producer: &Producer,
    messages: impl IntoIterator<Item = M>,
) -> Vec<MessageId> {
    let mut pending = Vec::new();
    for message in messages {
        pending.push(within("capacity", producer.enqueue(message)).await.expect("the message is accepted"));
    }
    let mut ids = Vec::new();
    for one in pending {
        ids.push(within("a receipt", one).await.expect("the message is stored"));
    }
    ids
}

pub async fn receive(consumer: &mut Consumer) -> ReceivedMessage {
    let what = format!("a message on {consumer:?}");
    within(&what, consumer.receive()).await.expect("a message")
}

/// Receives `count` messages and acknowledges none.
pub async fn receive_all(consumer: &mut Consumer, count: usize) -> Vec<ReceivedMessage> {
    let mut messages = Vec::with_capacity(count);
    for at in 0..count {
        let what = format!("message {at} of {count} on {consumer:?}");
        messages.push(within(&what, consumer.receive()).await.expect("a message"));
    }
    messages
}

/// The payloads of the next `count` messages, none of them acknowledged.
pub async fn texts(consumer: &mut Consumer, count: usize) -> Vec<String> {
    receive_all(consumer, count).await.iter().map(|message| message.to_string_lossy().into_owned()).collect()
}
