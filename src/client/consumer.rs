//! The consumer's handle: it receives, and asks the broker about the subscription.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::acker::{Acker, ConsumerShared};
use super::clock;
use super::events::ConsumerEvents;
use super::message::ReceivedMessage;
use super::parts::{Parts, all};
use super::receive::Receiver;
use crate::error::Result;
use crate::id::MessageId;
use crate::machine::consumer::{Consumer as Machine, SeekTo};
use crate::machine::{Deferred, Reply};
use crate::pb;

/// Receives the messages of one subscription and acknowledges them.
///
/// It is received from by one owner; [`Self::acker`] gives a cloneable handle that acknowledges from many tasks.
/// Several topics, and the partitions of one, are one consumer: their messages come merged, in order within a
/// partition. If one of them ends for good, that is an [event](Self::events), and the messages of the others keep
/// coming.
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
/// It is a [`Stream`] of messages as well, and [`process`](Self::process) runs work on many of them at a time.
///
/// Dropping it, and every [`Acker`] made from it, sends the acknowledgements that wait and closes it at the broker; the
/// subscription stays. What was not acknowledged is delivered again, to this subscription's other consumers or to its
/// next one. While an `Acker` lives the broker goes on delivering up to `receiver_queue_size` messages:
/// [`Self::close`] ends it at once.
pub struct Consumer {
    acker: Acker,
    receiver: Receiver,
}

impl Consumer {
    pub(super) fn new(shared: Arc<ConsumerShared>) -> Self {
        let receiver = Receiver::new(shared.clone());
        Self { acker: Acker { shared }, receiver }
    }

    fn parts(&self) -> &Parts<Machine> {
        &self.acker.shared.parts
    }

    /// What it shares with its ackers.
    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<ConsumerShared> {
        &self.acker.shared
    }

    /// The next message; waits for one.
    ///
    /// What concerns one topic of several, or one message, is an [event](Self::events) and no error, so
    /// `while let Ok(message) = consumer.receive().await` ends with the consumer and not before.
    ///
    /// # Errors
    /// Why the consumer has ended: it was closed, or the last of its topics and partitions has ended for good.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message and changes nothing.
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
    /// As of [`Self::receive`].
    pub fn try_receive(&mut self) -> Result<Option<ReceivedMessage>> {
        self.receiver.try_next().transpose()
    }

    /// Waits for one message and returns up to `messages_max` that have arrived by then.
    ///
    /// # Errors
    /// As of [`Self::receive`], when there is no message before the error.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    #[doc(alias = "batchReceive")]
    pub async fn receive_many(&mut self, messages_max: usize) -> Result<Vec<ReceivedMessage>> {
        let mut messages = Vec::new();
        if messages_max > 0 {
            messages.push(self.receive().await?);
        }
        while messages.len() < messages_max {
            // An end is still there for the next call.
            let Some(Ok(message)) = self.receiver.try_next() else { break };
            messages.push(message);
        }
        Ok(messages)
    }

    /// What happens to the consumer besides messages: a topic or partition that has ended, a message that cannot be
    /// read. Several readers share the events: each gets a part of them.
    ///
    /// Events are found while messages are received, whichever form of receiving that is.
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
    /// As of [`Acker::ack`].
    #[inline]
    pub fn ack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack(message)
    }

    /// Acknowledges one message by its id; see [`Acker::ack_id`].
    ///
    /// # Errors
    /// As of [`Acker::ack_id`].
    pub fn ack_id(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_id(id)
    }

    /// Acknowledges many messages by their ids; see [`Acker::ack_ids`].
    ///
    /// # Errors
    /// As of [`Acker::ack_ids`].
    pub fn ack_ids(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.ack_ids(ids)
    }

    /// Acknowledges all messages up to and including this one; see [`Acker::ack_cumulative`].
    ///
    /// # Errors
    /// As of [`Acker::ack_cumulative`].
    pub fn ack_cumulative(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_cumulative(message)
    }

    /// Acknowledges all messages up to and including the one with this id; see [`Acker::ack_cumulative_id`].
    ///
    /// # Errors
    /// As of [`Acker::ack_cumulative_id`].
    pub fn ack_cumulative_id(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_cumulative_id(id)
    }

    /// Acknowledges one message and waits for the broker's confirmation; see [`Acker::ack_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_confirmed`].
    ///
    /// # Cancel safety
    /// As of [`Acker::ack_confirmed`].
    pub async fn ack_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_confirmed(message).await
    }

    /// Acknowledges one message by its id and waits for the broker's confirmation; see [`Acker::ack_id_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_id_confirmed`].
    ///
    /// # Cancel safety
    /// As of [`Acker::ack_id_confirmed`].
    pub async fn ack_id_confirmed(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_id_confirmed(id).await
    }

    /// Acknowledges many messages by their ids and waits for the broker's confirmation; see
    /// [`Acker::ack_ids_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_ids_confirmed`].
    ///
    /// # Cancel safety
    /// As of [`Acker::ack_ids_confirmed`].
    pub async fn ack_ids_confirmed(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.ack_ids_confirmed(ids).await
    }

    /// Acknowledges all messages up to and including this one and waits for the broker's confirmation; see
    /// [`Acker::ack_cumulative_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_cumulative_confirmed`].
    ///
    /// # Cancel safety
    /// As of [`Acker::ack_cumulative_confirmed`].
    pub async fn ack_cumulative_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_cumulative_confirmed(message).await
    }

    /// Acknowledges all messages up to and including the one with this id and waits for the broker's confirmation; see
    /// [`Acker::ack_cumulative_id_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_cumulative_id_confirmed`].
    ///
    /// # Cancel safety
    /// As of [`Acker::ack_cumulative_id_confirmed`].
    pub async fn ack_cumulative_id_confirmed(&self, id: &MessageId) -> Result<()> {
        self.acker.ack_cumulative_id_confirmed(id).await
    }

    /// Asks for the message again after the redelivery delay; see [`Acker::nack`].
    ///
    /// # Errors
    /// As of [`Acker::nack`].
    pub fn nack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.nack(message)
    }

    /// Asks for the message with this id again after the redelivery delay; see [`Acker::nack_id`].
    ///
    /// # Errors
    /// As of [`Acker::nack_id`].
    pub fn nack_id(&self, id: &MessageId) -> Result<()> {
        self.acker.nack_id(id)
    }

    /// Asks for many messages again after the redelivery delay; see [`Acker::nack_ids`].
    ///
    /// # Errors
    /// As of [`Acker::nack_ids`].
    pub fn nack_ids(&self, ids: &[MessageId]) -> Result<()> {
        self.acker.nack_ids(ids)
    }

    /// Asks for all messages again that this consumer has and has not acknowledged
    /// (REDELIVER_UNACKNOWLEDGED_MESSAGES without ids).
    pub fn redeliver_unacknowledged_messages(&self) {
        let mut deferred = Deferred::new();
        for part in self.parts().iter() {
            part.endpoint.with_deferred(&mut deferred, |consumer, _| consumer.redeliver_unacknowledged_messages());
        }
    }

    /// The broker's statistics of the subscription and this consumer (CONSUMER_STATS): backlog, unacknowledged,
    /// permits; summed over the partitions.
    ///
    /// The broker's figures are those of its last statistics round, which may be a minute old in a production
    /// broker; backlog and unacknowledged are current.
    ///
    /// # Errors
    /// The broker's refusal; no answer within the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn stats(&self) -> Result<ConsumerStats> {
        let mut stats = ConsumerStats::default();
        for reply in self.parts().ask_each(|consumer, reply, deferred| consumer.stats(reply, clock::now(), deferred)) {
            stats.add(&reply.await?);
        }
        Ok(stats)
    }

    /// The id of the topic's last message (GET_LAST_MESSAGE_ID), of each partition.
    ///
    /// # Errors
    /// The broker's refusal (`MetadataError`; on a non-persistent topic `UnknownError`); no answer within the
    /// operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn last_message_ids(&self) -> Result<Vec<MessageId>> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.last_message_id(reply, clock::now(), deferred);
        };
        let mut ids = Vec::new();
        for (part, reply) in self.parts().ask_those(|_| false, ask) {
            ids.push(MessageId::at(reply.await?.id).with_topic(part.topic.clone()));
        }
        Ok(ids)
    }

    /// Moves the subscription to another place in the topic (SEEK) and ends once messages from there are on their
    /// way: what was received before and not acknowledged is forgotten.
    ///
    /// To an id: that message is the next one. A partitioned topic is sought in the partition that the id names; to
    /// a time, to the start and to the end all partitions are.
    ///
    /// # Errors
    /// The broker's refusal; another seek under way; no answer within the operation timeout.
    ///
    /// # Cancel safety
    /// The seek is on its way once this was polled.
    pub async fn seek(&mut self, to: SeekTo) -> Result<()> {
        let replies = match &to {
            SeekTo::Message { id, .. } => {
                let (reply_to, reply) = Reply::pair();
                let part = self.acker.part_of_id(id)?;
                part.endpoint.with_deferred(&mut Deferred::new(), |consumer, deferred| {
                    consumer.seek(to, reply_to, clock::now(), deferred)
                });
                vec![reply]
            }
            to => {
                let seek = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
                    consumer.seek(to.clone(), reply, clock::now(), deferred);
                };
                self.parts().ask_each(seek)
            }
        };
        all(replies).await
    }

    /// Deletes the subscription (UNSUBSCRIBE), and ends this consumer with it. It must be the subscription's last one:
    /// while others are connected the broker refuses, and everything stays as it is. Of several topics or partitions,
    /// those that are refused stay.
    ///
    /// # Errors
    /// The broker's refusal (`MetadataError` when other consumers are connected); no answer within the operation
    /// timeout.
    ///
    /// # Cancel safety
    /// The request is on its way once this was polled.
    pub async fn unsubscribe(&self) -> Result<()> {
        self.delete_subscription(false).await
    }

    /// [`Self::unsubscribe`] also while other consumers are connected: the broker disconnects them.
    ///
    /// # Errors
    /// The broker's refusal; no answer within the operation timeout.
    ///
    /// # Cancel safety
    /// The request is on its way once this was polled.
    pub async fn force_unsubscribe(&self) -> Result<()> {
        self.delete_subscription(true).await
    }

    async fn delete_subscription(&self, force: bool) -> Result<()> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.unsubscribe(force, reply, clock::now(), deferred);
        };
        all(self.parts().ask_each(ask)).await
    }

    /// Sends the acknowledgements that wait, closes the consumer at the broker (CLOSE_CONSUMER) and waits for the
    /// answer. The subscription stays. Further acknowledgements, by any [`Acker`], are refused.
    ///
    /// If the connection is lost before that answer, the consumer is closed all the same, and whether the broker got
    /// those acknowledgements is not known: their messages may be delivered again. [`Acker::ack_confirmed`] tells.
    ///
    /// # Errors
    /// No answer within the operation timeout. The consumer is over all the same.
    ///
    /// # Cancel safety
    /// The close goes on when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        all(self.parts().close()).await
    }

    /// The full names of the topics it was made for.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.acker.shared.topics.iter().map(|topic| &**topic)
    }

    /// The name of the subscription.
    pub fn subscription(&self) -> &str {
        &self.acker.shared.config.subscription
    }

    /// The consumer's name.
    pub fn name(&self) -> &str {
        self.acker.shared.config.name.as_deref().unwrap_or_default()
    }

    /// Failover: whether this consumer is the active one, of any partition, as far as the broker has said
    /// (ACTIVE_CONSUMER_CHANGE). `None` before it has, and on other subscriptions.
    pub fn is_active(&self) -> Option<bool> {
        self.parts().iter().filter_map(|part| part.read(Machine::is_active)).reduce(|a, b| a || b)
    }

    /// Whether every part of the topic is terminated and acknowledged to its end (REACHED_END_OF_TOPIC): nothing will
    /// come any more.
    pub fn has_reached_end_of_topic(&self) -> bool {
        self.parts().iter().all(|part| part.read(Machine::has_reached_end_of_topic))
    }

    /// Whether every part of it is attached to a broker at the moment.
    pub fn is_connected(&self) -> bool {
        self.parts().are_attached()
    }
}

/// The future of [`Consumer::receive`]: a type of its own, so that its poll is inlined where it is awaited.
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

    /// The messages as [`Consumer::receive`] gives them. The error that ends the consumer is the last item.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.receiver.is_over() {
            return Poll::Ready(None);
        }
        self.receiver.poll(cx).map(Some)
    }
}

/// The broker's statistics of a subscription and one of its consumers (CONSUMER_STATS_RESPONSE).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Entries of the subscription that are not acknowledged, delivered or not (`msgBacklog`). The broker counts
    /// entries here: a batch is one.
    pub backlog: u64,
    /// Messages delivered to this consumer and not acknowledged (`unackedMessages`). Counted on Shared and
    /// Key_Shared subscriptions only.
    pub unacknowledged: u64,
    /// Messages the broker may still send to this consumer (`availablePermits`); below zero after a batch larger than
    /// what was left, where it counts as none.
    pub available_permits: u64,
    /// Whether the broker has stopped delivering because too much is unacknowledged
    /// (`blockedConsumerOnUnackedMsgs`).
    pub blocked_on_unacknowledged: bool,
    /// Messages a second delivered to this consumer (`msgRateOut`).
    pub delivered_per_second: f64,
}

impl ConsumerStats {
    fn add(&mut self, stats: &pb::CommandConsumerStatsResponse) {
        self.backlog += stats.msg_backlog();
        self.unacknowledged += stats.unacked_messages();
        // The protocol's field is unsigned, the broker's count is not.
        self.available_permits += u64::try_from(stats.available_permits() as i64).unwrap_or(0);
        self.blocked_on_unacknowledged |= stats.blocked_consumer_on_unacked_msgs();
        self.delivered_per_second += stats.msg_rate_out();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({} of {})", self.subscription(), self.acker.shared.topics.join(", "))
    }
}
