//! The handle that acknowledges.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::consumer_shared::ConsumerShared;
use super::drain::{DrainReport, Limit, drain_consumer};
use super::events::ConsumerEvent;
use super::message::ReceivedMessage;
use super::parts::Part;
use super::why_idle::WhyIdle;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{CONFIRMED_IDS_MAX, Consumer as Machine, ConsumerStats};
use crate::machine::{Deferred, Reply};

/// A part and the ids of its messages.
type PartIds = (Arc<Part<Machine>>, Vec<MessagePosition>);

/// Acknowledges the messages of one consumer; cheap to clone and to share between tasks and threads. It keeps the
/// consumer open at the broker until it is dropped, or the consumer closed.
///
/// ```no_run
/// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
/// let acker = consumer.acker();
/// while let Ok(message) = consumer.receive().await {
///     let acker = acker.clone();
///     tokio::spawn(async move {
///         println!("{}", message.to_string_lossy());
///         acker.ack(&message)
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "an acker keeps its consumer open at the broker"]
pub struct Acker {
    pub(super) shared: Arc<ConsumerShared>,
}

impl Acker {
    /// The part that the message came from. If it has been removed since, its endpoint refuses the call.
    #[inline]
    fn part_of<'a>(&self, message: &'a ReceivedMessage) -> Result<&'a Part<Machine>> {
        let part = message.part();
        if self.shared.parts.owns(part) {
            return Ok(part);
        }
        Err(self.foreign_message(message))
    }

    #[cold]
    fn foreign_message(&self, message: &ReceivedMessage) -> Error {
        let what = format!("message {} of {} did not come from this consumer", message.id(), message.topic());
        Error::local(ErrorKind::InvalidArgument, what).with_topic(&self.shared.topics[0])
    }

    /// The ids grouped by part, at most [`CONFIRMED_IDS_MAX`] in a group.
    fn by_part(&self, ids: &[MessageId]) -> Result<Vec<PartIds>> {
        let mut found = BTreeMap::new();
        for id in ids {
            let part = self.shared.part_of_id(id)?;
            found.entry(part.id()).or_insert_with(|| (part, Vec::new())).1.push(id.position());
        }
        let mut groups = Vec::new();
        for (part, ids) in found.into_values() {
            groups.extend(ids.chunks(CONFIRMED_IDS_MAX).map(|ids| (part.clone(), ids.to_vec())));
        }
        Ok(groups)
    }

    /// The result, told to the interceptors.
    #[inline]
    fn tell_acked(&self, acked: Result<()>, ids: impl FnOnce() -> Vec<MessageId>) -> Result<()> {
        if let Some(interceptors) = &self.shared.interceptors {
            interceptors.on_acknowledge(&ids(), &acked);
        }
        acked
    }

    /// The same of a cumulative one.
    fn tell_acked_cumulative(&self, acked: Result<()>, id: impl FnOnce() -> MessageId) -> Result<()> {
        if let Some(interceptors) = &self.shared.interceptors {
            interceptors.on_acknowledge_cumulative(&id(), &acked);
        }
        acked
    }

    /// Acknowledges one message (ACK, individual): it will not be delivered to this subscription again.
    ///
    /// It is sent together with others, within the group time. Can be called from any thread; never waits.
    ///
    /// # Errors
    /// - The reason why the consumer, or its topic or partition that the message came from, has ended:
    ///   [`Closed`](ErrorKind::Closed) after a close.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the message came from another consumer.
    /// - [`QueueFull`](ErrorKind::QueueFull): more than 65,536 entries wait for a connection. The message stays
    ///   unacknowledged and can be acknowledged later.
    #[inline]
    pub fn ack(&self, message: &ReceivedMessage) -> Result<()> {
        let part = self.part_of(message)?;
        if let Some(opened_at) = message.timed_since() {
            record_processing(part, opened_at);
        }
        let acked = part.endpoint.with(|consumer| consumer.ack(&message.position(), clock::now));
        self.tell_acked(acked, || vec![message.id()])
    }

    /// [`Self::ack`] by id, for ids that the application has stored.
    ///
    /// # Errors
    /// Same as [`Self::ack`], and:
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the id has no topic and the consumer reads several; it is of a
    ///   topic that the consumer does not read; or it names no partition and the topic is partitioned.
    pub fn ack_id(&self, id: &MessageId) -> Result<()> {
        let part = self.shared.part_of_id(id)?;
        let acked = part.endpoint.with(|consumer| consumer.ack(&id.position(), clock::now));
        self.tell_acked(acked, || vec![id.clone()])
    }

    /// [`Self::ack_id`] for many messages.
    ///
    /// # Errors
    /// Same as [`Self::ack_id`]. After [`InvalidArgument`](ErrorKind::InvalidArgument) none is acknowledged; after any
    /// other error some may be.
    pub fn ack_ids(&self, ids: &[MessageId]) -> Result<()> {
        for (part, ids) in self.by_part(ids)? {
            let acked = part.endpoint.with(|consumer| ids.iter().try_for_each(|id| consumer.ack(id, clock::now)));
            self.tell_acked(acked, || ids_of(&part, &ids))?;
        }
        Ok(())
    }

    /// Acknowledges all messages of the (partition of the) topic up to and including this one (ACK, cumulative).
    ///
    /// # Errors
    /// [`NotAllowed`](ErrorKind::NotAllowed) on Shared and Key_Shared subscriptions, where the broker would ignore
    /// it; otherwise same as [`Self::ack`].
    pub fn ack_cumulative(&self, message: &ReceivedMessage) -> Result<()> {
        let part = self.part_of(message)?;
        let acked = part.endpoint.with(|consumer| consumer.ack_cumulative(&message.position(), clock::now));
        self.tell_acked_cumulative(acked, || message.id())
    }

    /// [`Self::ack_cumulative`] by id, for ids that the application has stored.
    ///
    /// # Errors
    /// Same as [`Self::ack_cumulative`] and [`Self::ack_id`].
    pub fn ack_cumulative_id(&self, id: &MessageId) -> Result<()> {
        let part = self.shared.part_of_id(id)?;
        let acked = part.endpoint.with(|consumer| consumer.ack_cumulative(&id.position(), clock::now));
        self.tell_acked_cumulative(acked, || id.clone())
    }

    /// Acknowledges one message and waits until the broker has confirmed it (ACK with a `request_id`, ACK_RESPONSE).
    ///
    /// # Errors
    /// - The broker's refusal.
    /// - [`Unsupported`](ErrorKind::Unsupported): brokers before Pulsar 2.8 confirm nothing, or do not say that they do.
    ///   Nothing is acknowledged; [`Self::ack`] does it.
    /// - [`TimedOut`](ErrorKind::TimedOut): no confirmation within the operation timeout, reconnects included. The
    ///   message may be delivered again.
    /// - Otherwise same as [`Self::ack`].
    ///
    /// # Cancel safety
    /// Once it was polled, the acknowledgement is sent even if the future is dropped.
    pub async fn ack_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        let acked = confirm(self.part_of(message)?, &[message.position()], false).await;
        self.tell_acked(acked, || vec![message.id()])
    }

    /// [`Self::ack_confirmed`] by id, for ids that the application has stored.
    ///
    /// # Errors
    /// Same as [`Self::ack_confirmed`] and [`Self::ack_id`].
    ///
    /// # Cancel safety
    /// Same as [`Self::ack_confirmed`].
    pub async fn ack_id_confirmed(&self, id: &MessageId) -> Result<()> {
        let part = self.shared.part_of_id(id)?;
        let acked = confirm(&part, &[id.position()], false).await;
        self.tell_acked(acked, || vec![id.clone()])
    }

    /// [`Self::ack_id_confirmed`] for many messages, up to 10,000 of a partition in one request.
    ///
    /// # Errors
    /// Same as [`Self::ack_id_confirmed`]: the first failure, after all requests were answered. After
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) none is acknowledged.
    ///
    /// # Cancel safety
    /// Same as [`Self::ack_confirmed`].
    pub async fn ack_ids_confirmed(&self, ids: &[MessageId]) -> Result<()> {
        let groups = self.by_part(ids)?;
        let asked: Vec<_> = groups.iter().map(|(part, ids)| confirm(part, ids, false)).collect();
        let mut all_acked = Ok(());
        for ((part, ids), confirmation) in groups.iter().zip(asked) {
            let acked = self.tell_acked(confirmation.await, || ids_of(part, ids));
            all_acked = all_acked.and(acked);
        }
        all_acked
    }

    /// [`Self::ack_cumulative`], waiting until the broker has confirmed it.
    ///
    /// # Errors
    /// Same as [`Self::ack_cumulative`] and [`Self::ack_confirmed`].
    ///
    /// # Cancel safety
    /// Same as [`Self::ack_confirmed`].
    pub async fn ack_cumulative_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        let acked = confirm(self.part_of(message)?, &[message.position()], true).await;
        self.tell_acked_cumulative(acked, || message.id())
    }

    /// [`Self::ack_cumulative_confirmed`] by id, for ids that the application has stored.
    ///
    /// # Errors
    /// Same as [`Self::ack_cumulative_confirmed`] and [`Self::ack_id`].
    ///
    /// # Cancel safety
    /// Same as [`Self::ack_confirmed`].
    pub async fn ack_cumulative_id_confirmed(&self, id: &MessageId) -> Result<()> {
        let part = self.shared.part_of_id(id)?;
        let acked = confirm(&part, &[id.position()], true).await;
        self.tell_acked_cumulative(acked, || id.clone())
    }

    /// [`Consumer::why_idle`](super::Consumer::why_idle), for a task beside the one that receives.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the requests.
    pub async fn why_idle(&self) -> WhyIdle {
        self.shared.why_idle().await
    }

    /// [`Consumer::stats`](super::Consumer::stats), for a task beside the one that receives.
    pub fn stats(&self) -> ConsumerStats {
        let mut stats = ConsumerStats::default();
        self.shared.parts.iter().for_each(|part| stats.merge(&part.read(Machine::stats)));
        stats
    }

    /// The orderly end of the consumer, within `limit`: nothing more is received, the work that runs is finished, what was
    /// acknowledged is confirmed, and the consumer is closed at the broker. To be called beside the task that receives.
    ///
    /// Each receive gets an error of kind [`Closed`](ErrorKind::Closed), with which a loop and a worker pool end. What is
    /// waited for:
    /// - of [`process`](super::Consumer::process) and [`process_by_key`](super::Consumer::process_by_key), the work on the
    ///   messages that they have received, but for those that wait for a retry;
    /// - of a loop over [`receive`](super::Consumer::receive), that it receives again. What the loop has given to other
    ///   tasks is not known: use a pool, or wait for them first.
    ///
    /// A batch that was begun is handed out to its end first, because brokers without batch index acknowledgement would
    /// deliver all of it again. Then dead letters are stored, acknowledgements sent, and the
    /// answer to CLOSE_CONSUMER confirms those. A quarter of the limit, at most 5 s, is kept for that. Messages that
    /// were received and not handed out are delivered again, to other consumers or the next one.
    ///
    /// ```no_run
    /// # async fn example(consumer: pulsar_native::Consumer) {
    /// let acker = consumer.acker();
    /// tokio::spawn(async move {
    ///     let _asked_to_stop = tokio::signal::ctrl_c().await;
    ///     println!("{}", acker.drain(std::time::Duration::from_secs(20)).await);
    /// });
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Nothing is received any more once it was polled. Dropping the future leaves the rest undone;
    /// [`Consumer::close`](super::Consumer::close) ends it.
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        drain_consumer(&self.shared, true, Limit::new(self.shared.client(), limit)).await
    }

    /// Negatively acknowledges a message: after the redelivery delay the broker is asked to deliver it again
    /// (REDELIVER_UNACKNOWLEDGED_MESSAGES).
    ///
    /// The unit is the entry: all members of its batch that are not acknowledged by then are redelivered. On Exclusive
    /// and Failover subscriptions everything after the last acknowledged message is, because the broker can only
    /// rewind there. After the consumer has ended it does nothing and returns `Ok`: unacknowledged messages are redelivered
    /// anyway.
    ///
    /// Until then each entry takes up to 30 bytes among its neighbours, and 80 where it is far from others: a million take 30
    /// to 80 MB. Beyond two million on a topic or partition everything that is not acknowledged is requested at once.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the message came from another consumer.
    pub fn nack(&self, message: &ReceivedMessage) -> Result<()> {
        let part = self.part_of(message)?;
        part.endpoint.with(|consumer| consumer.nack(&message.position(), message.redelivery_count(), clock::now()));
        Ok(())
    }

    /// Sends a copy of the message to the retry topic, to be delivered after `delay`, and acknowledges the message once
    /// the copy is stored. The consumer reads that topic too, see
    /// [`retry_enabled`](super::ConsumerBuilder::retry_enabled). What comes from there has the property `RECONSUMETIMES`; a
    /// message that was sent there as often as the policy allows goes to the dead-letter topic instead.
    ///
    /// The copy has the payload, key, ordering key, event time and properties of the message, those of a
    /// [dead letter](super::ConsumerBuilder::dead_letter_policy), `RECONSUMETIMES` and `DELAY_TIME` (ms). Its delay works on
    /// Shared subscriptions only (`deliver_at_time`); with a zero delay it comes at once.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): retry is not enabled, or the message came from another consumer.
    /// - The copy was not stored: the message is negatively acknowledged, and comes again.
    /// - The copy is stored, and the acknowledgement was refused: both come.
    ///
    /// # Cancel safety
    /// If the future is dropped the copy may be stored and the message is not acknowledged.
    pub async fn reconsume_later(&self, message: &ReceivedMessage, delay: Duration) -> Result<()> {
        self.reconsume_later_with::<String, String>(message, [], delay).await
    }

    /// [`Self::reconsume_later`] with properties of your own, which replace those of the same names.
    ///
    /// # Errors
    /// Same as [`Self::reconsume_later`].
    ///
    /// # Cancel safety
    /// Same as [`Self::reconsume_later`].
    pub async fn reconsume_later_with<K: Into<String>, V: Into<String>>(
        &self,
        message: &ReceivedMessage,
        properties: impl IntoIterator<Item = (K, V)>,
        delay: Duration,
    ) -> Result<()> {
        self.retry(message, properties, delay).await?;
        self.ack(message)
    }

    /// [`Self::reconsume_later`], acknowledging everything up to and including the message. Exclusive and Failover only.
    /// Messages before it are not sent again.
    ///
    /// # Errors
    /// Same as [`Self::reconsume_later`] and [`Self::ack_cumulative`].
    ///
    /// # Cancel safety
    /// Same as [`Self::reconsume_later`].
    pub async fn reconsume_later_cumulative(&self, message: &ReceivedMessage, delay: Duration) -> Result<()> {
        if !self.shared.config.subscription_type.is_in_order() {
            let what = "reconsume_later_cumulative needs an Exclusive or Failover subscription";
            return Err(Error::local(ErrorKind::NotAllowed, what).with_topic(&message.part().topic));
        }
        self.retry::<String, String>(message, [], delay).await?;
        self.ack_cumulative(message)
    }

    async fn retry<K: Into<String>, V: Into<String>>(
        &self,
        message: &ReceivedMessage,
        properties: impl IntoIterator<Item = (K, V)>,
        delay: Duration,
    ) -> Result<()> {
        self.part_of(message)?;
        let Some(letters) = &self.shared.dead_letters else {
            let what = "the consumer has no retry topic: see ConsumerBuilder::retry_enabled";
            return Err(Error::local(ErrorKind::InvalidArgument, what).with_topic(&message.part().topic));
        };
        let own: Vec<_> = properties.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let stored = letters.retry(message, own, delay).await;
        if stored.is_err() {
            self.nack(message)?;
        }
        stored
    }

    /// [`Self::nack`] with a delay of its own, instead of the consumer's.
    ///
    /// # Errors
    /// Same as [`Self::nack`].
    pub fn nack_after(&self, message: &ReceivedMessage, delay: Duration) -> Result<()> {
        let part = self.part_of(message)?;
        part.endpoint.with(|consumer| consumer.nack_after(&message.position(), delay, clock::now()));
        Ok(())
    }

    /// Sends a message to the dead-letter topic, and acknowledges it once it is stored there.
    pub(super) fn give_up(&self, message: &ReceivedMessage, reason: String) -> Result<()> {
        self.part_of(message)?;
        if let Some(letters) = &self.shared.dead_letters {
            letters.push(message, Some(reason));
            return Ok(());
        }
        let what = "the consumer has no dead-letter topic: see ConsumerBuilder::dead_letter_policy";
        let error = Error::local(ErrorKind::InvalidArgument, what).with_topic(&message.part().topic);
        self.shared.events.push(ConsumerEvent::DeadLetterFailed { message: message.id(), error });
        self.nack(message)
    }

    /// [`Self::nack`] by id, for ids that the application has stored.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the id has no topic and the consumer reads several; it is of a
    ///   topic that the consumer does not read; or it names no partition and the topic is partitioned.
    pub fn nack_id(&self, id: &MessageId) -> Result<()> {
        let part = self.shared.part_of_id(id)?;
        part.endpoint.with(|consumer| consumer.nack(&id.position(), 0, clock::now()));
        Ok(())
    }

    /// [`Self::nack_id`] for many messages.
    ///
    /// # Errors
    /// Same as [`Self::nack_id`]; then no redelivery is requested.
    pub fn nack_ids(&self, ids: &[MessageId]) -> Result<()> {
        for (part, ids) in self.by_part(ids)? {
            part.endpoint.with(|consumer| {
                ids.iter().for_each(|id| consumer.nack(id, 0, clock::now()));
            });
        }
        Ok(())
    }
}

#[cold]
fn record_processing(part: &Part<Machine>, opened_at: Instant) {
    let took = clock::now().at.saturating_duration_since(opened_at);
    part.endpoint.with(|consumer| consumer.record_processing(took));
}

fn ids_of(part: &Part<Machine>, positions: &[MessagePosition]) -> Vec<MessageId> {
    positions.iter().map(|id| MessageId::from_position(*id).with_topic(part.topic.clone())).collect()
}

/// Requests the confirmation of at most [`CONFIRMED_IDS_MAX`] ids.
fn confirm(part: &Part<Machine>, ids: &[MessagePosition], cumulative: bool) -> Reply<()> {
    let (to, reply) = Reply::pair();
    part.endpoint.with_deferred(&mut Deferred::new(), |consumer, deferred| {
        consumer.ack_confirmed(ids, cumulative, to, clock::now(), deferred);
    });
    reply
}

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acker({} of {})", self.shared.config.subscription, self.shared.topics.join(", "))
    }
}
