//! What is told of the messages of a consumer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::ReceivedMessage;
use crate::client::events::{ConsumerEvent, EventQueue};
use crate::error::{Error, Result};
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{IdleReason, TopicObserver};

/// Sees the messages of a consumer and what becomes of them: see
/// [`ConsumerBuilder::intercept`](crate::ConsumerBuilder::intercept). Java: `ConsumerInterceptor`.
///
/// Several are called in the order in which they were added. They are shared by the consumer and its
/// [`Acker`](crate::Acker)s and called from many threads at a time. No lock of the client is held. What blocks in one delays
/// that call, and in [`on_negative_acks_send`](Self::on_negative_acks_send) and
/// [`on_ack_timeout_send`](Self::on_ack_timeout_send) a connection. A panic is reported by the panic hook and has no other
/// effect; the others are called.
///
/// Unlike in Java a message cannot be changed: it is ranges over the bytes that the broker has sent, which all messages of a batch share,
/// and a copy of its own would be one more indirection for each message of a consumer without interceptors. What is to be
/// decoded or replaced, such as an encrypted property, is done by a function that the application calls on what it receives.
///
/// ```no_run
/// use pulsar_native::{ConsumerInterceptor, Error, MessageId, ReceivedMessage};
///
/// struct Log;
///
/// impl ConsumerInterceptor for Log {
///     fn before_consume(&self, message: &ReceivedMessage) {
///         eprintln!("{} is worked on", message.id());
///     }
///
///     fn on_acknowledge(&self, id: &MessageId, result: Result<(), &Error>) {
///         eprintln!("{id} is done: {result:?}");
///     }
/// }
///
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// let consumer = client.consumer("orders", "billing").intercept(Log).subscribe().await?;
/// # Ok(())
/// # }
/// ```
pub trait ConsumerInterceptor: Send + Sync + 'static {
    /// A message is about to be given to the application, by whatever method that receives, on its task. Once for each
    /// delivery, also if the receive is dropped that had gathered it, and another one returns it. Not for a message that goes
    /// to the dead-letter topic instead. Default: nothing.
    fn before_consume(&self, message: &ReceivedMessage) {
        let _ = message;
    }

    /// A message was acknowledged by itself, on the task that did it: the acknowledgement is noted, to be sent with
    /// others; by the methods `_confirmed`, the broker has answered. By this client as well: for a retry, or a dead letter that
    /// is stored (on a connection's task). With an error it is not acknowledged. Not called if a future is dropped before
    /// its end, nor for a message of another consumer. Default: nothing.
    fn on_acknowledge(&self, id: &MessageId, result: Result<(), &Error>) {
        let _ = (id, result);
    }

    /// The same of an acknowledgement of all messages up to this one.
    fn on_acknowledge_cumulative(&self, id: &MessageId, result: Result<(), &Error>) {
        let _ = (id, result);
    }

    /// The delay of these negative acknowledgements is over: the broker is asked for them again. On a connection's task; ids
    /// are those of whole entries, of one topic or partition. Not called where the broker delivers everything again anyway:
    /// after a reconnect, a seek, [`redeliver_unacknowledged_messages`](crate::Consumer::redeliver_unacknowledged_messages).
    /// Default: nothing.
    fn on_negative_acks_send(&self, ids: &[MessageId]) {
        let _ = ids;
    }

    /// The same of messages that were not acknowledged within [`ack_timeout`](crate::ConsumerBuilder::ack_timeout).
    fn on_ack_timeout_send(&self, ids: &[MessageId]) {
        let _ = ids;
    }
}

/// Those of one consumer, in the order of the calls; at least one.
#[derive(Clone)]
pub(in crate::client) struct ConsumerInterceptors(Vec<Arc<dyn ConsumerInterceptor>>);

impl ConsumerInterceptors {
    /// One more behind those that there are.
    pub(in crate::client) fn add(to: &mut Option<Arc<Self>>, interceptor: impl ConsumerInterceptor) {
        let all = to.get_or_insert_with(|| Arc::new(Self(Vec::new())));
        Arc::make_mut(all).0.push(Arc::new(interceptor));
    }

    fn each(&self, tell: impl Fn(&dyn ConsumerInterceptor)) {
        for interceptor in &self.0 {
            super::call(|| tell(&**interceptor));
        }
    }

    #[cold]
    pub(in crate::client) fn before_consume(&self, message: &ReceivedMessage) {
        self.each(|interceptor| interceptor.before_consume(message));
    }

    #[cold]
    pub(in crate::client) fn on_acknowledge(&self, ids: &[MessageId], result: &Result<()>) {
        let result = result.as_ref().copied();
        ids.iter().for_each(|id| self.each(|interceptor| interceptor.on_acknowledge(id, result)));
    }

    #[cold]
    pub(in crate::client) fn on_acknowledge_cumulative(&self, id: &MessageId, result: &Result<()>) {
        self.each(|interceptor| interceptor.on_acknowledge_cumulative(id, result.as_ref().copied()));
    }
}

/// The events of a topic or partition, and redeliveries for interceptors.
pub(in crate::client) struct RedeliverySource {
    pub(in crate::client) events: Arc<EventQueue<ConsumerEvent>>,
    pub(in crate::client) partition: i32,
    pub(in crate::client) interceptors: Arc<ConsumerInterceptors>,
}

impl RedeliverySource {
    fn ids(&self, topic: &Arc<str>, positions: &[MessagePosition]) -> Vec<MessageId> {
        let id = |position: &MessagePosition| {
            let position = MessagePosition { partition: self.partition, ..*position };
            MessageId::from_position(position).with_topic(topic.clone())
        };
        positions.iter().map(id).collect()
    }
}

impl TopicObserver for RedeliverySource {
    fn on_active_change(&self, topic: &Arc<str>, is_active: bool) {
        self.events.on_active_change(topic, is_active);
    }

    fn on_end_of_topic(&self, topic: &Arc<str>) {
        self.events.on_end_of_topic(topic);
    }

    fn on_stall(&self, topic: &Arc<str>, reason: IdleReason, quiet_for: Duration) {
        self.events.on_stall(topic, reason, quiet_for);
    }

    fn wants_redeliveries(&self) -> bool {
        true
    }

    fn on_redelivery(&self, topic: &Arc<str>, nacked: &[MessagePosition], timed_out: &[MessagePosition]) {
        let (nacked, timed_out) = (self.ids(topic, nacked), self.ids(topic, timed_out));
        if !nacked.is_empty() {
            self.interceptors.each(|interceptor| interceptor.on_negative_acks_send(&nacked));
        }
        if !timed_out.is_empty() {
            self.interceptors.each(|interceptor| interceptor.on_ack_timeout_send(&timed_out));
        }
    }
}

impl fmt::Debug for RedeliverySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedeliverySource({:?})", self.events)
    }
}
