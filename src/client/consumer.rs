//! The consumer's handles: one that receives, and one, cloneable, that acknowledges.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::message::ReceivedMessage;
use super::receive::Receiver;
use super::{Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessageId;
use crate::machine::consumer::{Consumer as Machine, ConsumerConfig, SeekTo};
use crate::machine::{Deferred, Endpoint, ReadyList, Reply, ReplyTo};
use crate::pb;

/// Receives the messages of one subscription and acknowledges them.
///
/// It is received from by one owner; [`Self::acker`] gives a cloneable handle that acknowledges from many tasks. A
/// partitioned topic is one consumer: its partitions' messages come merged, in order within a partition.
///
/// Dropping it, and every [`Acker`] made from it, sends the acknowledgements that wait and closes it at the broker; the
/// subscription stays. What was not acknowledged is delivered again, to this subscription's other consumers or to its
/// next one. While an `Acker` lives the broker goes on delivering up to `receiver_queue_size` messages:
/// [`Self::close`] ends it at once.
pub struct Consumer {
    acker: Acker,
    receiver: Receiver,
}

/// Acknowledges the messages of one consumer; cheap to clone and to share between tasks and threads. It keeps the
/// consumer open at the broker until it is dropped, or the consumer closed.
#[derive(Clone)]
pub struct Acker {
    shared: Arc<Handle>,
}

struct Handle {
    endpoints: Vec<Arc<Endpoint<Machine>>>,
    /// The full names it was made for; not empty.
    topics: Vec<Arc<str>>,
    /// The topic, or partition of one, of each endpoint.
    parts: Vec<Arc<str>>,
    config: Arc<ConsumerConfig>,
    /// Keeps the tasks alive that carry out what the endpoints decide.
    _client: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut deferred = Deferred::new();
        for endpoint in &self.endpoints {
            endpoint.with(&mut deferred, |consumer, deferred| consumer.close(None, clock::now(), deferred));
        }
    }
}

impl Consumer {
    pub(super) fn new(
        client: Arc<Shared>,
        topics: Vec<Arc<str>>,
        config: Arc<ConsumerConfig>,
        endpoints: Vec<Arc<Endpoint<Machine>>>,
        generations: Vec<Arc<AtomicU64>>,
        inbox: Arc<ReadyList>,
    ) -> Self {
        let receiver = Receiver::new(&endpoints, generations, inbox, config.receiver_queue_size);
        let part = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |consumer, _| consumer.topic().clone())
        };
        let parts = endpoints.iter().map(part).collect();
        let shared = Handle { endpoints, topics, parts, config, _client: client };
        Self { acker: Acker { shared: Arc::new(shared) }, receiver }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint<Machine>>] {
        &self.acker.shared.endpoints
    }

    /// The next message; waits for one.
    ///
    /// # Errors
    /// The reason when the consumer has ended for good, after the messages that were here. An error of kind
    /// [`Unsupported`](ErrorKind::Unsupported) concerns one message that this build cannot read (an unknown codec,
    /// end-to-end encryption, a chunk): it stays unacknowledged, and the next call goes on.
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

    /// The next message that is here already, if any.
    ///
    /// # Errors
    /// As of [`Self::receive`].
    pub fn try_receive(&mut self) -> Result<Option<ReceivedMessage>> {
        self.receiver.try_next().transpose()
    }

    /// Waits for one message and takes up to `messages_max` that are here by then.
    ///
    /// # Errors
    /// As of [`Self::receive`], when there is no message before the error.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    pub async fn receive_many(&mut self, messages_max: usize) -> Result<Vec<ReceivedMessage>> {
        let mut messages = vec![self.receive().await?];
        while messages.len() < messages_max {
            match self.receiver.try_next() {
                Some(Ok(message)) => messages.push(message),
                Some(Err(error)) => {
                    self.receiver.hold(error);
                    break;
                }
                None => break,
            }
        }
        Ok(messages)
    }

    /// A handle that acknowledges, for other tasks.
    pub fn acker(&self) -> Acker {
        self.acker.clone()
    }

    /// Acknowledges one message; see [`Acker::ack`].
    ///
    /// # Errors
    /// As of [`Acker::ack`].
    pub fn ack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack(message)
    }

    /// Acknowledges all messages up to and including this one; see [`Acker::ack_cumulative`].
    ///
    /// # Errors
    /// As of [`Acker::ack_cumulative`].
    pub fn ack_cumulative(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_cumulative(message)
    }

    /// Acknowledges one message and waits for the broker's word; see [`Acker::ack_confirmed`].
    ///
    /// # Errors
    /// As of [`Acker::ack_confirmed`].
    pub async fn ack_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.ack_confirmed(message).await
    }

    /// Asks for the message again after the delay; see [`Acker::nack`].
    ///
    /// # Errors
    /// As of [`Acker::nack`].
    pub fn nack(&self, message: &ReceivedMessage) -> Result<()> {
        self.acker.nack(message)
    }

    /// Asks for all messages again that this consumer has and has not acknowledged
    /// (REDELIVER_UNACKNOWLEDGED_MESSAGES without ids).
    pub fn redeliver_unacknowledged(&self) {
        let mut deferred = Deferred::new();
        for endpoint in self.endpoints() {
            endpoint.with(&mut deferred, |consumer, _| consumer.redeliver_unacknowledged());
        }
    }

    /// What the broker says of the subscription and this consumer (CONSUMER_STATS): backlog, unacknowledged,
    /// permits; summed over the partitions.
    ///
    /// The broker's figures are those of its last statistics round, which may be a minute old in a production
    /// broker; backlog and unacknowledged are current.
    ///
    /// # Errors
    /// The broker's refusal; no answer within the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the question.
    pub async fn stats(&self) -> Result<ConsumerStats> {
        let mut stats = ConsumerStats::default();
        for reply in self.acker.ask_each(|consumer, reply, deferred| consumer.stats(reply, clock::now(), deferred)) {
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
    /// Dropping the future forgets the question.
    pub async fn last_message_ids(&self) -> Result<Vec<MessageId>> {
        let mut ids = Vec::new();
        for reply in
            self.acker.ask_each(|consumer, reply, deferred| consumer.last_message_id(reply, clock::now(), deferred))
        {
            ids.push(reply.await?.id);
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
                let endpoint = self.acker.endpoint_of_id(id)?;
                endpoint.with(&mut Deferred::new(), |consumer, deferred| {
                    consumer.seek(to, reply_to, clock::now(), deferred)
                });
                vec![reply]
            }
            _ => self.acker.ask_each(|consumer, reply, deferred| consumer.seek(to, reply, clock::now(), deferred)),
        };
        all(replies).await
    }

    /// Deletes the subscription (UNSUBSCRIBE). It must be the subscription's last consumer, or `force` it: then the
    /// others are disconnected.
    ///
    /// # Errors
    /// The broker's refusal (`MetadataError` when other consumers are connected); no answer within the operation
    /// timeout. The consumer is over all the same.
    ///
    /// # Cancel safety
    /// The request is on its way once this was polled.
    pub async fn unsubscribe(self, force: bool) -> Result<()> {
        let replies =
            self.acker.ask_each(|consumer, reply, deferred| consumer.unsubscribe(force, reply, clock::now(), deferred));
        all(replies).await
    }

    /// Sends the acknowledgements that wait, closes the consumer and waits for the broker's answer. The subscription
    /// stays.
    ///
    /// If the connection is lost before that answer, the consumer is closed all the same, and whether the broker got
    /// those acknowledgements is not known: their messages may be delivered again. [`Acker::ack_confirmed`] tells.
    ///
    /// # Errors
    /// No answer within the operation timeout.
    ///
    /// # Cancel safety
    /// The close goes on when the future is dropped.
    pub async fn close(self) -> Result<()> {
        let mut deferred = Deferred::new();
        let mut replies = Vec::new();
        for endpoint in self.endpoints() {
            let (to, reply) = Reply::pair();
            endpoint.with(&mut deferred, |consumer, deferred| consumer.close(Some(to), clock::now(), deferred));
            replies.push(reply);
        }
        drop(deferred);
        all(replies).await
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
        self.acker.shared.config.consumer_name.as_deref().unwrap_or_default()
    }

    /// Failover: whether this consumer is the active one, of any partition, as far as the broker has said
    /// (ACTIVE_CONSUMER_CHANGE). `None` before it has, and on other subscriptions.
    pub fn is_active(&self) -> Option<bool> {
        let active =
            |endpoint: &Arc<Endpoint<Machine>>| endpoint.with(&mut Deferred::new(), |consumer, _| consumer.is_active());
        self.endpoints().iter().filter_map(active).reduce(|a, b| a || b)
    }

    /// Whether every part of the topic is terminated and acknowledged to its end (REACHED_END_OF_TOPIC): nothing will
    /// come any more.
    pub fn has_reached_end_of_topic(&self) -> bool {
        let ended = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |consumer, _| consumer.has_reached_end_of_topic())
        };
        self.endpoints().iter().all(ended)
    }

    /// Whether every part of it is attached to a broker at the moment.
    pub fn is_connected(&self) -> bool {
        let attached = |endpoint: &Arc<Endpoint<Machine>>| {
            endpoint.with(&mut Deferred::new(), |consumer, _| consumer.is_attached())
        };
        self.endpoints().iter().all(attached)
    }
}

async fn all(replies: Vec<Reply<()>>) -> Result<()> {
    let mut result = Ok(());
    for reply in replies {
        result = result.and(reply.await);
    }
    result
}

impl Acker {
    #[inline]
    fn endpoint_of(&self, message: &ReceivedMessage) -> Result<&Arc<Endpoint<Machine>>> {
        let at = message.source();
        if self.shared.parts.get(at).is_some_and(|part| message.is_of(part)) {
            return Ok(&self.shared.endpoints[at]);
        }
        Err(self.not_ours(message))
    }

    #[cold]
    fn not_ours(&self, message: &ReceivedMessage) -> Error {
        let what = format!("message {} of {} did not come from this consumer", message.id(), message.topic());
        Error::local(ErrorKind::InvalidArgument, what).with_topic(&self.shared.topics[0])
    }

    /// The endpoint that an id belongs to: an id names a partition, but no topic.
    fn endpoint_of_id(&self, id: &MessageId) -> Result<&Arc<Endpoint<Machine>>> {
        let endpoints = &self.shared.endpoints;
        if self.shared.topics.len() > 1 {
            let what = "an id does not say which of several topics it is of: use the message itself";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let found = match (endpoints.len(), usize::try_from(id.partition)) {
            (1, _) => endpoints.first(),
            (_, Ok(partition)) => endpoints.get(partition),
            (_, Err(_)) => None,
        };
        found.ok_or_else(|| {
            let what = format!("message id {id} names no partition of this consumer");
            Error::local(ErrorKind::InvalidArgument, what).with_topic(&self.shared.topics[0])
        })
    }

    /// Acknowledges one message (ACK, individual): it will not be delivered to this subscription again.
    ///
    /// It goes out with others, within the group time. Works from any thread, never waits.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) when the consumer has ended; [`InvalidArgument`](ErrorKind::InvalidArgument)
    /// for a message of another consumer.
    #[inline]
    pub fn ack(&self, message: &ReceivedMessage) -> Result<()> {
        let endpoint = self.endpoint_of(message)?;
        endpoint.with(&mut Deferred::new(), |consumer, _| consumer.ack(&message.id(), clock::now))
    }

    /// [`Self::ack`] by id alone, as kept by the application.
    ///
    /// # Errors
    /// As of [`Self::ack`]; and when a partitioned topic's id names no partition.
    pub fn ack_id(&self, id: &MessageId) -> Result<()> {
        let endpoint = self.endpoint_of_id(id)?;
        endpoint.with(&mut Deferred::new(), |consumer, _| consumer.ack(id, clock::now))
    }

    /// Acknowledges all messages of the (partition of the) topic up to and including this one (ACK, cumulative).
    ///
    /// # Errors
    /// [`NotAllowed`](ErrorKind::NotAllowed) on Shared and Key_Shared subscriptions, where the broker would ignore
    /// it; else as of [`Self::ack`].
    pub fn ack_cumulative(&self, message: &ReceivedMessage) -> Result<()> {
        let endpoint = self.endpoint_of(message)?;
        endpoint.with(&mut Deferred::new(), |consumer, _| consumer.ack_cumulative(&message.id(), clock::now))
    }

    /// Acknowledges one message and waits until the broker has confirmed it (ACK with a `request_id`, ACK_RESPONSE).
    ///
    /// # Errors
    /// The broker's refusal; no confirmation within the operation timeout, reconnects included: the message may
    /// then be delivered again.
    ///
    /// # Cancel safety
    /// The acknowledgement is on its way once this was polled.
    pub async fn ack_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        let endpoint = self.endpoint_of(message)?;
        self.confirm(endpoint, message.id(), false).await
    }

    /// [`Self::ack_cumulative`], waiting until the broker has confirmed it.
    ///
    /// # Errors
    /// As of [`Self::ack_cumulative`] and [`Self::ack_confirmed`].
    ///
    /// # Cancel safety
    /// The acknowledgement is on its way once this was polled.
    pub async fn ack_cumulative_confirmed(&self, message: &ReceivedMessage) -> Result<()> {
        let endpoint = self.endpoint_of(message)?;
        self.confirm(endpoint, message.id(), true).await
    }

    async fn confirm(&self, endpoint: &Endpoint<Machine>, id: MessageId, cumulative: bool) -> Result<()> {
        let (to, reply) = Reply::pair();
        let mut deferred = Deferred::new();
        endpoint.with(&mut deferred, |consumer, deferred| {
            consumer.ack_confirmed(&[id], cumulative, to, clock::now(), deferred)
        });
        drop(deferred);
        reply.await
    }

    /// Negatively acknowledges a message: after the redelivery delay it is asked for again
    /// (REDELIVER_UNACKNOWLEDGED_MESSAGES).
    ///
    /// The unit is the entry: all members of its batch that are not acknowledged by then come again. On Exclusive
    /// and Failover subscriptions everything after the last acknowledged message does, because the broker can only
    /// rewind there.
    ///
    /// # Errors
    /// As of [`Self::ack`].
    pub fn nack(&self, message: &ReceivedMessage) -> Result<()> {
        let endpoint = self.endpoint_of(message)?;
        endpoint.with(&mut Deferred::new(), |consumer, _| consumer.nack(&message.id(), clock::now()));
        Ok(())
    }

    fn ask_each<T>(&self, ask: impl Fn(&mut Machine, ReplyTo<T>, &mut Deferred)) -> Vec<Reply<T>> {
        let mut deferred = Deferred::new();
        let mut replies = Vec::new();
        for endpoint in &self.shared.endpoints {
            let (to, reply) = Reply::pair();
            endpoint.with(&mut deferred, |consumer, deferred| ask(consumer, to, deferred));
            replies.push(reply);
        }
        replies
    }
}

/// The future of [`Consumer::receive`]: written out, so that it is inlined where it is awaited.
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

/// What the broker says of a subscription and one of its consumers (CONSUMER_STATS_RESPONSE).
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

impl fmt::Debug for Acker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acker({} of {})", self.shared.config.subscription, self.shared.topics.join(", "))
    }
}
