//! The consumer's handle: receiving, and requests about the subscription.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::acker::Acker;
use super::consumer_shared::ConsumerShared;
use super::dead_letter::{DeadLetters, LetterQueue};
use super::drain::{DrainReport, Limit, drain_consumer};
use super::events::ConsumerEvents;
use super::growth::{self, AutoUpdate};
use super::message::ReceivedMessage;
use super::parts::{Part, Parts, all};
use super::receive::{BatchReceivePolicy, Gather, Receiver};
use super::state::{HandleState, StateWatch};
use super::subscribe::Followed;
use super::why_idle::WhyIdle;
use super::workers::Tasks;
use crate::error::{Error, Result};
use crate::id::MessageId;
use crate::machine::consumer::{Consumer as Machine, ConsumerStats, SeekTo};
use crate::machine::{Deferred, EndpointId};

/// The most messages that [`Consumer::receive_many`] returns.
const RECEIVE_MANY_MAX: usize = 100_000;

/// Receives the messages of one subscription and acknowledges them.
///
/// One owner receives from it; [`Self::acker`] gives a cloneable handle that acknowledges from many tasks. Several
/// topics, and the partitions of one, are read by one consumer: their messages are merged and stay in order within a
/// partition. If one of them ends permanently, that is reported as an [event](Self::events), and the others continue.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// let mut consumer = client.consumer("orders", "billing").subscribe().await?;
/// while let Ok(message) = consumer.receive().await {
///     println!("{}: {}", message.id(), message.to_string_lossy());
///     consumer.ack(&message)?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// It is also a [`Stream`] of messages, and [`process`](Self::process) runs work on many of them at a time.
///
/// Dropping it, and every [`Acker`] made from it, sends the acknowledgements that wait and closes it at the broker; the
/// subscription stays. What was not acknowledged is delivered again, to this subscription's other consumers or to its
/// next one. While an `Acker` lives the broker goes on delivering up to `receiver_queue_size` messages:
/// [`Self::close`] ends it at once.
pub struct Consumer {
    acker: Acker,
    receiver: Receiver,
    /// What ends with the consumer: the sending of its dead letters, where what is not sent then is not acknowledged; the looks
    /// for new partitions; the pattern that its topics follow.
    _tasks: Vec<Tasks<()>>,
}

impl Consumer {
    pub(super) fn new(
        shared: Arc<ConsumerShared>,
        letters: Option<LetterQueue>,
        growth: Option<AutoUpdate>,
        followed: Option<Followed>,
    ) -> Self {
        shared.client().handles().add_consumer(&shared);
        let receiver = Receiver::new(shared.clone());
        let forward = |(letters, queue): (Arc<DeadLetters>, _)| {
            let mut task = shared.new_tasks();
            task.spawn(letters.forward(queue));
            task
        };
        let letters = shared.dead_letters.clone().zip(letters).map(forward);
        let follow = |auto_update| {
            let seed = shared.growth_seed();
            shared.client().spawn(growth::follow(Arc::downgrade(&shared), auto_update, seed))
        };
        let growth = growth.map(follow);
        let pattern = followed.map(|pattern| shared.follow(pattern));
        let tasks = [letters, growth, pattern].into_iter().flatten().collect();
        Self { acker: Acker { shared }, receiver, _tasks: tasks }
    }

    pub(super) fn parts(&self) -> &Parts<Machine> {
        &self.acker.shared.parts
    }

    /// The position of a reader in each part.
    pub(super) fn reading_positions(&mut self) -> Vec<(Arc<Part<Machine>>, SeekTo)> {
        self.receiver.reading_positions().map(|(part, from)| (part.clone(), from)).collect()
    }

    /// The positions of parts that have left are kept now: not after a seek, which they would undo.
    pub(super) fn pass_positions(&mut self) {
        self.receiver.pass_positions();
    }

    /// Gives nothing of a part until [`Self::release_parts`]: what has come of it, and comes, stays where it is, up to
    /// the size of its queue.
    pub(super) fn hold_part(&mut self, id: EndpointId) {
        self.receiver.hold(id);
    }

    /// Gives messages of all parts again.
    pub(super) fn release_parts(&mut self) {
        self.receiver.release();
    }

    /// Why a part gives nothing more, once all of it was received.
    pub(super) fn end_of_part(&self, id: EndpointId) -> Option<&Error> {
        self.receiver.end_of(id)
    }

    /// What it shares with its ackers.
    pub(super) fn shared(&self) -> &Arc<ConsumerShared> {
        &self.acker.shared
    }

    /// The next message; waits for one.
    ///
    /// A problem with one topic of several, or with one message, is an [event](Self::events) and not an error, so
    /// `while let Ok(message) = consumer.receive().await` ends only when the consumer has ended.
    ///
    /// # Errors
    /// The reason why the consumer has ended: it was closed, or the last of its topics and partitions has ended
    /// permanently.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message and has no other effect.
    #[inline]
    pub fn receive(&mut self) -> impl Future<Output = Result<ReceivedMessage>> {
        Receive { consumer: self }
    }

    #[inline]
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedMessage>> {
        self.receiver.poll(cx)
    }

    /// The next message that has arrived already, if any.
    ///
    /// # Errors
    /// Same as [`Self::receive`].
    pub fn try_receive(&mut self) -> Result<Option<ReceivedMessage>> {
        self.receiver.try_next().transpose()
    }

    /// Waits for one message and returns up to `messages_max` that have arrived by then: none for 0, and 100,000 at most,
    /// so that it ends although messages keep arriving.
    ///
    /// # Errors
    /// Same as [`Self::receive`], if no message arrived before the error.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    #[doc(alias = "batchReceive")]
    pub async fn receive_many(&mut self, messages_max: usize) -> Result<Vec<ReceivedMessage>> {
        let mut messages = Vec::new();
        if messages_max > 0 {
            messages.push(self.receive().await?);
        }
        while messages.len() < messages_max.min(RECEIVE_MANY_MAX) {
            // The next call gets the error that ends the consumer.
            let Some(Ok(message)) = self.receiver.try_next() else { break };
            messages.push(message);
        }
        Ok(messages)
    }

    /// Waits until the messages that have come reach a limit of the policy, and returns them; none if the time is over
    /// before one has come.
    ///
    /// # Errors
    /// Same as [`Self::receive`], if no message came before the error.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message: the next receive gets those that had come.
    #[doc(alias = "batchReceive")]
    pub async fn receive_batch(&mut self, policy: &BatchReceivePolicy) -> Result<Vec<ReceivedMessage>> {
        let timer = self.shared().new_timer();
        Gather::new(&mut self.receiver, policy, timer).await
    }

    /// Requests no more messages of the broker until [`resume`](Self::resume); those it was asked for before still come,
    /// up to `receiver_queue_size`. The consumer stays attached, and
    /// [`why_idle`](Self::why_idle) says that it is paused. Pauses do not add up.
    pub fn pause(&self) {
        self.shared().set_paused(true);
    }

    /// Requests messages again.
    pub fn resume(&self) {
        self.shared().set_paused(false);
    }

    /// The events of the consumer: a topic or partition has ended, a message cannot be read. Each event goes to one
    /// reader, if there are several.
    ///
    /// Events are produced while messages are received, by any of the methods that receive.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::ConsumerEvent;
    ///
    /// let mut events = consumer.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.recv().await {
    ///         match event {
    ///             ConsumerEvent::TopicEnded { topic, error, .. } => eprintln!("{topic} has ended: {error}"),
    ///             ConsumerEvent::Unreadable(message) => eprintln!("{message:?}"),
    ///             other => eprintln!("{other:?}"),
    ///         }
    ///     }
    /// });
    /// while let Ok(message) = consumer.receive().await {
    ///     consumer.ack(&message)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> ConsumerEvents {
        ConsumerEvents::new(self.acker.shared.events.clone())
    }

    /// A cloneable handle that acknowledges, for other tasks.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Acknowledges one message; see [`Acker::ack`].
    ///
    /// # Errors
    /// Same as [`Acker::ack`].
    #[inline]
    pub fn ack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack(message)
    }

    /// Acknowledges one message by its id; see [`Acker::ack_id`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_id`].
    pub fn ack_id(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_id(id)
    }

    /// Acknowledges many messages by their ids; see [`Acker::ack_ids`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_ids`].
    pub fn ack_ids(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.ack_ids(ids)
    }

    /// Acknowledges all messages up to and including this one; see [`Acker::ack_cumulative`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_cumulative`].
    pub fn ack_cumulative(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_cumulative(message)
    }

    /// Acknowledges all messages up to and including the one with this id; see [`Acker::ack_cumulative_id`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_cumulative_id`].
    pub fn ack_cumulative_id(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_cumulative_id(id)
    }

    /// Acknowledges one message and waits for the broker's confirmation; see [`Acker::ack_confirmed`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::ack_confirmed`].
    pub async fn ack_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_confirmed(message).await
    }

    /// Acknowledges one message by its id and waits for the broker's confirmation; see [`Acker::ack_id_confirmed`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_id_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::ack_id_confirmed`].
    pub async fn ack_id_confirmed(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_id_confirmed(id).await
    }

    /// Acknowledges many messages by their ids and waits for the broker's confirmation; see
    /// [`Acker::ack_ids_confirmed`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_ids_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::ack_ids_confirmed`].
    pub async fn ack_ids_confirmed(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.ack_ids_confirmed(ids).await
    }

    /// Acknowledges all messages up to and including this one and waits for the broker's confirmation; see
    /// [`Acker::ack_cumulative_confirmed`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_cumulative_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::ack_cumulative_confirmed`].
    pub async fn ack_cumulative_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_cumulative_confirmed(message).await
    }

    /// Acknowledges all messages up to and including the one with this id and waits for the broker's confirmation; see
    /// [`Acker::ack_cumulative_id_confirmed`].
    ///
    /// # Errors
    /// Same as [`Acker::ack_cumulative_id_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::ack_cumulative_id_confirmed`].
    pub async fn ack_cumulative_id_confirmed(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_cumulative_id_confirmed(id).await
    }

    /// Requests the redelivery of a message after the redelivery delay; see [`Acker::nack`].
    ///
    /// # Errors
    /// Same as [`Acker::nack`].
    pub fn nack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.nack(message)
    }

    /// Sends the message to the retry topic, to come again after `delay`; see [`Acker::reconsume_later`].
    ///
    /// # Errors
    /// Same as [`Acker::reconsume_later`].
    ///
    /// # Cancel safety
    /// Same as [`Acker::reconsume_later`].
    pub async fn reconsume_later(&self, message: &ReceivedMessage, delay: Duration) -> Result<()> {
        self.acker.reconsume_later(message, delay).await
    }

    /// Requests the redelivery of the message with this id after the redelivery delay; see [`Acker::nack_id`].
    ///
    /// # Errors
    /// Same as [`Acker::nack_id`].
    pub fn nack_id(&self, id: &MessageId) -> Result<()> {
        self.acker.nack_id(id)
    }

    /// Requests the redelivery of many messages after the redelivery delay; see [`Acker::nack_ids`].
    ///
    /// # Errors
    /// Same as [`Acker::nack_ids`].
    pub fn nack_ids(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.nack_ids(ids)
    }

    /// Requests the redelivery of all messages that were delivered to this consumer and not acknowledged
    /// (REDELIVER_UNACKNOWLEDGED_MESSAGES without ids).
    pub fn redeliver_unacknowledged_messages(&self) {
        let mut deferred = Deferred::new();
        for part in self.parts().iter() {
            part.endpoint.with_deferred(&mut deferred, |consumer, _| consumer.redeliver_unacknowledged_messages());
        }
    }

    /// What this consumer has counted since it was created. Costs one lock for each topic and partition. While the
    /// consumer is lent to a receive, [`Acker::stats`] does the same.
    pub fn stats(&self) -> ConsumerStats {
        self.acker.stats()
    }

    /// Sends the acknowledgements that wait, closes the consumer at the broker (CLOSE_CONSUMER) and waits for the
    /// answer. The subscription stays. Further acknowledgements, by any [`Acker`], are refused.
    ///
    /// If the connection is lost before that answer, the consumer is closed too, but whether the broker got those
    /// acknowledgements is not known: their messages may be delivered again. Use [`Acker::ack_confirmed`] to be sure.
    ///
    /// # Errors
    /// - [`TimedOut`](crate::ErrorKind::TimedOut): the acknowledgements were not sent, or CLOSE_CONSUMER was not
    ///   answered, within the operation timeout.
    /// - The broker's refusal of CLOSE_CONSUMER.
    ///
    /// The consumer has ended in either case.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        all(self.shared().close()).await
    }

    /// [`Acker::drain`], by the task that receives: what it has received is done with, so nothing is waited for but dead
    /// letters and the close.
    ///
    /// # Cancel safety
    /// Same as [`Acker::drain`].
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        drain_consumer(self.shared(), false, Limit::new(self.shared().client(), limit)).await
    }

    /// The full names of the topics it was created for, or the pattern.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.acker.shared.topics.iter().map(|topic| &**topic)
    }

    /// The name of the subscription.
    pub fn subscription(&self) -> &str {
        &self.acker.shared.config.subscription
    }

    /// The consumer's name.
    pub fn name(&self) -> &str {
        self.acker.shared.name()
    }

    /// Whether this consumer of a Failover subscription is the active one, on any partition, by the broker's last
    /// notification (ACTIVE_CONSUMER_CHANGE); while it is not attached it is not. `None` before the first notification, and on
    /// other subscriptions.
    pub fn is_active(&self) -> Option<bool> {
        self.parts().iter().filter_map(|part| part.read(Machine::is_active)).reduce(|a, b| a || b)
    }

    /// Whether every topic and partition is terminated and acknowledged to its end (REACHED_END_OF_TOPIC): no more
    /// messages will arrive.
    pub fn has_reached_end_of_topic(&self) -> bool {
        self.parts().iter().all(|part| part.read(Machine::has_reached_end_of_topic))
    }

    /// Why no message comes, if none does: asked of this client's own ledger, then of the broker (CONSUMER_STATS,
    /// GET_LAST_MESSAGE_ID), and of the REST interface where the service URL is `http://` or `https://`, or
    /// [`ClientBuilder::admin_url`](super::ClientBuilder::admin_url) names one, and the role may read it.
    ///
    /// While the consumer is lent to a receive, [`Acker::why_idle`] does the same.
    ///
    /// ```no_run
    /// # async fn example(consumer: pulsar_native::Consumer) {
    /// println!("{}", consumer.why_idle().await);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future abandons the requests.
    pub async fn why_idle(&self) -> WhyIdle {
        self.acker.why_idle().await
    }

    /// Where each topic and partition is attached, or why it is not.
    pub fn state(&self) -> HandleState {
        self.parts().state()
    }

    /// [`Self::state`] now and after each change.
    pub fn watch_state(&self) -> StateWatch<HandleState> {
        let shared = Arc::downgrade(&self.acker.shared);
        StateWatch::new(self.parts().state_signal(), move || {
            let shared = shared.upgrade()?;
            let state = shared.parts.state();
            // Other topics of a pattern may come.
            let may_go_on = shared.joining.follows_pattern && shared.end_of_set().is_none();
            let is_last = state.is_finished() && !may_go_on;
            Some((state, is_last))
        })
    }

    /// Whether every topic and partition is attached to a broker at the moment.
    pub fn is_connected(&self) -> bool {
        self.parts().are_attached()
    }

    /// Why the first topic or partition that is not attached is not attached: the failure of the last attempt.
    /// `None` while [connected](Self::is_connected), and until an attempt has failed. Attempts go on until the consumer is
    /// closed, unless a failure is final.
    pub fn connection_error(&self) -> Option<Error> {
        self.parts().iter().find_map(|part| part.read(|machine| machine.last_failure().cloned()))
    }
}

/// The future of [`Consumer::receive`]: a named type, so that its poll is inlined where it is awaited.
struct Receive<'a> {
    consumer: &'a mut Consumer,
}

impl Future for Receive<'_> {
    type Output = Result<ReceivedMessage>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.consumer.receiver.poll(cx)
    }
}

impl Stream for Consumer {
    type Item = Result<ReceivedMessage>;

    /// The messages that [`Consumer::receive`] returns. The error that ends the consumer is the last item.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.receiver.is_over() {
            return Poll::Ready(None);
        }
        self.receiver.poll(cx).map(Some)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({} of {})", self.subscription(), self.acker.shared.topics.join(", "))
    }
}
