//! Requests of a consumer about its subscription: statistics, the last message, seek, unsubscribe.

#[cfg(doc)]
use super::acker::Acker;
use super::clock;
use super::consumer::Consumer;
use super::parts::all;
use crate::error::Result;
use crate::id::MessageId;
use crate::machine::Deferred;
use crate::machine::consumer::{Consumer as Machine, SeekTo};
use crate::pb;

impl Consumer {
    /// The broker's statistics of the subscription and this consumer (CONSUMER_STATS): backlog, unacknowledged
    /// messages, permits; summed over the topics and partitions.
    ///
    /// The broker's figures are those of its last statistics round, which may be a minute old in a production
    /// broker; backlog and unacknowledged are current.
    ///
    /// # Errors
    /// The broker's refusal; [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn broker_stats(&self) -> Result<BrokerStats> {
        let mut stats = BrokerStats::default();
        for reply in
            self.parts().ask_each(|consumer, reply, deferred| consumer.broker_stats(reply, clock::now(), deferred))
        {
            stats.add(&reply.await?);
        }
        Ok(stats)
    }

    /// The id of the last message (GET_LAST_MESSAGE_ID) of each topic and partition.
    ///
    /// # Errors
    /// The broker's refusal (`MetadataError`; on a non-persistent topic `UnknownError`);
    /// [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn last_message_ids(&self) -> Result<Vec<MessageId>> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.last_message_id(reply, clock::now(), deferred);
        };
        let mut ids = Vec::new();
        for (part, reply) in self.parts().ask_those(|_| false, ask) {
            ids.push(MessageId::from_position(reply.await?.id).with_topic(part.topic.clone()));
        }
        Ok(ids)
    }

    /// Moves the subscription to another position in the topic (SEEK) and returns once messages from there are
    /// delivered. Messages received before and not acknowledged are forgotten.
    ///
    /// A seek to an id makes that message the next one, and moves only the topic and partition that the id is of: with
    /// several topics it needs its [topic](MessageId::topic), with several partitions its partition. A seek to a time, to
    /// the start or to the end moves all topics and partitions, and so do the ids [`EARLIEST`](MessageId::EARLIEST) and
    /// [`LATEST`](MessageId::LATEST) without a topic. To move each elsewhere: [`seek_each`](Self::seek_each).
    ///
    /// # Errors
    /// - The broker's refusal; another seek under way; [`TimedOut`](crate::ErrorKind::TimedOut) after the operation
    ///   timeout. Of several topics and partitions the others have moved.
    /// - For an id, [`InvalidArgument`](crate::ErrorKind::InvalidArgument) as with [`Acker::ack_id`]; nothing has moved.
    ///
    /// # Cancel safety
    /// Once it was polled, the seek is requested even if the future is dropped.
    pub async fn seek(&mut self, to: SeekTo) -> Result<()> {
        self.pass_positions();
        let replies = self.shared().seek(&to)?;
        all(replies).await
    }

    /// Moves each topic and partition to the position that `position` gives for its full name, as
    /// [`seek`](Self::seek) moves one; those for which it gives `None` stay where they are. Java's
    /// `seek(Function<String, Object>)`.
    ///
    /// `position` is asked for each topic and partition that the consumer reads at the moment, before any of them moves.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: pulsar_native::Consumer, kept: std::collections::HashMap<String, pulsar_native::MessageId>) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::SeekTo;
    ///
    /// // Behind the last message that was worked on; a partition that is not among them from its beginning.
    /// consumer
    ///     .seek_each(|topic| match kept.get(topic) {
    ///         Some(id) => Some(SeekTo::Message { id: id.clone(), inclusive: false }),
    ///         None => Some(SeekTo::Earliest),
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - As with [`seek`](Self::seek): the first failure, after all have been asked. The others have moved.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument): an id of another topic or partition than the one it is
    ///   given for; nothing has moved.
    ///
    /// # Cancel safety
    /// Once it was polled, the seeks are requested even if the future is dropped.
    pub async fn seek_each(&mut self, position: impl FnMut(&str) -> Option<SeekTo>) -> Result<()> {
        self.pass_positions();
        let replies = self.shared().seek_each(position)?;
        all(replies).await
    }

    /// Deletes the subscription (UNSUBSCRIBE) and ends this consumer. It must be the subscription's last consumer:
    /// while others are connected the broker refuses, and the consumer continues. With several topics or partitions, it
    /// continues on those where the broker refused.
    ///
    /// # Errors
    /// The broker's refusal (`MetadataError` when other consumers are connected);
    /// [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Once it was polled, the request is sent even if the future is dropped.
    pub async fn unsubscribe(&self) -> Result<()> {
        self.delete_subscription(false).await
    }

    /// Deletes the subscription as [`Self::unsubscribe`] does, also while other consumers are connected: the broker
    /// disconnects them. Brokers before Pulsar 3.3 do not know the force, and refuse as they do without.
    ///
    /// # Errors
    /// The broker's refusal; [`TimedOut`](crate::ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Once it was polled, the request is sent even if the future is dropped.
    pub async fn force_unsubscribe(&self) -> Result<()> {
        self.delete_subscription(true).await
    }

    async fn delete_subscription(&self, force: bool) -> Result<()> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.unsubscribe(force, reply, clock::now(), deferred);
        };
        // A partition that is found meanwhile would make the subscription again.
        self.shared().set_leaving(true);
        let deleted = all(self.parts().ask_each(ask)).await;
        self.shared().set_leaving(deleted.is_ok());
        deleted
    }
}

/// The broker's statistics of a subscription and one of its consumers (CONSUMER_STATS_RESPONSE).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Entries of the subscription that are not acknowledged, delivered or not (`msgBacklog`). The broker counts
    /// entries here: a batch is one.
    pub backlog: u64,
    /// Messages delivered to this consumer and not acknowledged (`unackedMessages`). Counted on Shared and
    /// Key_Shared subscriptions only.
    pub unacknowledged: u64,
    /// Messages the broker may still send to this consumer (`availablePermits`). The broker's value is below zero after
    /// a batch larger than the permits left; that is reported as 0.
    pub available_permits: u64,
    /// Whether the broker has stopped delivering because too much is unacknowledged
    /// (`blockedConsumerOnUnackedMsgs`).
    pub blocked_on_unacknowledged: bool,
    /// Messages per second delivered to this consumer (`msgRateOut`).
    pub delivered_per_second: f64,
}

impl BrokerStats {
    fn add(&mut self, stats: &pb::CommandConsumerStatsResponse) {
        self.backlog += stats.msg_backlog();
        self.unacknowledged += stats.unacked_messages();
        // The protocol's field is unsigned; the broker's count is signed.
        self.available_permits += u64::try_from(stats.available_permits() as i64).unwrap_or(0);
        self.blocked_on_unacknowledged |= stats.blocked_consumer_on_unacked_msgs();
        self.delivered_per_second += stats.msg_rate_out();
    }
}
