//! Events of producers and consumers: topics and partitions that come and end, unreadable messages, what the broker notifies.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::unreadable::UnreadableMessage;
use crate::error::{Error, ErrorKind};
use crate::id::MessageId;
use crate::machine::consumer::{IdleReason, IncompleteReason, TopicObserver};
use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::producer::SendObserver;

mod queue;

pub(super) use queue::EventQueue;

/// An event of a consumer: see [`Consumer::events`](super::Consumer::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// A topic, or a partition of one, has ended permanently: the broker refused to attach to it again with a code that
    /// is final, usually because it was deleted. The others continue; the consumer has ended once the last one has. A
    /// right that was withdrawn ends nothing: the consumer tries again, see
    /// [`Consumer::connection_error`](super::Consumer::connection_error).
    ///
    /// Each end is reported once. An end that the application requested, by a close or an unsubscribe, is not reported.
    /// Topics of a [pattern](super::Topics::pattern) are [removed](Self::TopicRemoved) instead.
    #[non_exhaustive]
    TopicEnded {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// Why it has ended.
        error: Error,
    },
    /// A message arrived that this client cannot read: encrypted, a chunk, an unknown codec, too large, a batch
    /// of too many. It stays
    /// unacknowledged, unless [`ConsumerBuilder::unreadable_message_policy`] says otherwise: the application may
    /// acknowledge it, or leave it to a client that can read it.
    ///
    /// It is reported each time it is delivered, so also after a reconnect.
    ///
    /// [`ConsumerBuilder::unreadable_message_policy`]: super::ConsumerBuilder::unreadable_message_policy
    Unreadable(UnreadableMessage),
    /// Chunks of a message were dropped: the others did not come. They come again after the delay of a negative
    /// acknowledgement, or on an Exclusive or Failover subscription with the next attach, unless
    /// [`auto_ack_incomplete_chunked_messages`](super::ConsumerBuilder::auto_ack_incomplete_chunked_messages) is on.
    #[non_exhaustive]
    IncompleteChunkedMessage {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// What all chunks of the message have in common (`uuid`): the name of the producer and the sequence id.
        uuid: Arc<str>,
        /// How many chunks have come, and were dropped.
        received_chunks: usize,
        /// How many the message has (`num_chunks_from_msg`).
        chunks: u32,
        /// Why they were dropped.
        reason: IncompleteReason,
        /// Whether they were acknowledged, so that they do not come again.
        acknowledged: bool,
    },
    /// Failover: this consumer has become the active one of a topic or partition, or is no longer: the broker says so
    /// after each attach and whenever it changes (ACTIVE_CONSUMER_CHANGE), and one that is detached is not active. Only
    /// changes are reported; the first notification is one.
    #[non_exhaustive]
    ActiveChanged {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// Whether it is the active one now.
        is_active: bool,
    },
    /// A topic or partition was terminated, and all its messages are acknowledged: none comes any more
    /// (REACHED_END_OF_TOPIC). The consumer stays attached.
    #[non_exhaustive]
    EndOfTopic {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
    },
    /// No message has come for the [`stall_timeout`](super::ConsumerBuilder::stall_timeout), although there is a backlog
    /// and the broker may send. It is reported once, until a message has come, and not while the application works on what
    /// it has received and does not ask for more.
    #[non_exhaustive]
    Stalled {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// For how long no message has come.
        quiet_for: Duration,
        /// Why, as far as the binary protocol tells: [`Consumer::why_idle`](super::Consumer::why_idle) may know more.
        reason: IdleReason,
    },
    /// A message was given up, and could not be stored in the dead-letter topic. It is negatively acknowledged, and comes
    /// again. See [`ConsumerBuilder::dead_letter_policy`](super::ConsumerBuilder::dead_letter_policy).
    #[non_exhaustive]
    DeadLetterFailed {
        /// The message.
        message: MessageId,
        /// Why it was not stored.
        error: Error,
    },
    /// A topic or partition has joined the consumer after it was created: see
    /// [`ConsumerBuilder::auto_update_partitions`](super::ConsumerBuilder::auto_update_partitions) and
    /// [`Topics::pattern`](super::Topics::pattern).
    #[non_exhaustive]
    TopicAdded {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
    },
    /// A topic that the consumer had joined by its [pattern](super::Topics::pattern) is gone, or a partition of it: it was
    /// deleted. It joins again if it is made again.
    #[non_exhaustive]
    TopicRemoved {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
    },
    /// A topic or partition was found after the consumer was created, and could not be attached within the operation
    /// timeout, or was refused. It is tried again with the next look.
    #[non_exhaustive]
    TopicNotAdded {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// Why.
        error: Error,
    },
}

/// An event of a producer: see [`Producer::events`](super::Producer::events).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProducerEvent {
    /// The topic, or a partition of it, has ended permanently, with this error. Messages that are routed to such a partition
    /// are refused, as by the Java client; the others go on. Each end is reported once; one that the application
    /// requested is not.
    #[non_exhaustive]
    TopicEnded {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// Why it has ended.
        error: Error,
    },
    /// The oldest message that has no receipt has waited for the
    /// [`stall_timeout`](super::ProducerBuilder::stall_timeout). It is reported once, until a message that was accepted later
    /// has waited as long.
    #[non_exhaustive]
    SendOverdue {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
        /// For how long it has waited.
        waiting: Duration,
        /// Where the producer is attached, or why it is not.
        state: AttachState,
    },
    /// A partition that was added to the topic is attached: messages go to it, too, from now on. See
    /// [`ProducerBuilder::auto_update_partitions`](super::ProducerBuilder::auto_update_partitions).
    #[non_exhaustive]
    PartitionAdded {
        /// The full name of the partition.
        topic: Arc<str>,
    },
    /// A partition that was added to the topic could not be attached within the operation timeout, or was refused. No
    /// message goes to it, nor to the others that were found with it. They are tried again with the next look.
    #[non_exhaustive]
    PartitionNotAdded {
        /// The full name of the partition.
        topic: Arc<str>,
        /// Why.
        error: Error,
    },
    /// Messages cannot be encrypted and are sent in the clear, as
    /// [`ProducerCryptoFailureAction::Send`](crate::ProducerCryptoFailureAction::Send) says. It is reported once, until they are
    /// encrypted again.
    #[non_exhaustive]
    SentUnencrypted {
        /// Why they cannot be encrypted.
        error: Error,
    },
}

/// The events of one producer or consumer, each of which goes to one reader: made by
/// [`Consumer::events`](super::Consumer::events) and [`Producer::events`](super::Producer::events).
///
/// A consumer finds ends of topics and unreadable messages as messages are received, everything else when it happens.
/// Events wait until they are read: up to 1000, and up to 16 MiB of payload
/// of unreadable messages; above that the oldest is dropped. It does not keep the handle open. It is also a
/// [`Stream`], which ends with the handle.
#[must_use = "events that are not read are dropped"]
pub struct Events<E> {
    queue: Arc<EventQueue<E>>,
}

/// The events of a consumer.
pub type ConsumerEvents = Events<ConsumerEvent>;

/// The events of a producer.
pub type ProducerEvents = Events<ProducerEvent>;

impl<E> Events<E> {
    pub(super) fn new(queue: Arc<EventQueue<E>>) -> Self {
        Self { queue }
    }

    /// The next event; waits for one. `None` after the last event, once the handle has ended or was dropped.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<E> {
        poll_fn(|cx| self.queue.poll_take(cx)).await
    }

    /// The next event that is already available, if any.
    pub fn try_recv(&mut self) -> Option<E> {
        self.queue.try_take()
    }

    /// How many events were dropped because too many waited to be read.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

impl<E> Stream for Events<E> {
    type Item = E;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_take(cx)
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} waiting, {} dropped)", self.queue.len(), self.queue.dropped())
    }
}

impl TopicObserver for EventQueue<ConsumerEvent> {
    fn on_active_change(&self, topic: &Arc<str>, is_active: bool) {
        self.push(ConsumerEvent::ActiveChanged { topic: topic.clone(), is_active });
    }

    fn on_end_of_topic(&self, topic: &Arc<str>) {
        self.push(ConsumerEvent::EndOfTopic { topic: topic.clone() });
    }

    fn on_stall(&self, topic: &Arc<str>, reason: IdleReason, quiet_for: Duration) {
        self.push(ConsumerEvent::Stalled { topic: topic.clone(), quiet_for, reason });
    }
}

impl SendObserver for EventQueue<ProducerEvent> {
    fn on_overdue(&self, topic: &Arc<str>, waiting: Duration, state: AttachState) {
        self.push(ProducerEvent::SendOverdue { topic: topic.clone(), waiting, state });
    }

    fn on_end(&self, topic: &Arc<str>, error: Error) {
        // What the application asked for is no news to it.
        if error.kind() != ErrorKind::Closed {
            self.push(ProducerEvent::TopicEnded { topic: topic.clone(), error });
        }
        self.end_source();
    }
}

#[cfg(test)]
mod tests {
    use super::queue::EVENTS_MAX;
    use super::*;

    fn ended(number: usize) -> ConsumerEvent {
        ConsumerEvent::TopicEnded {
            topic: number.to_string().into(),
            error: Error::local(ErrorKind::TopicNotFound, "deleted"),
        }
    }

    fn topics(events: &mut ConsumerEvents) -> Vec<String> {
        let topic = |event| match event {
            ConsumerEvent::TopicEnded { topic, .. } => topic.to_string(),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| events.try_recv()).map(topic).collect()
    }

    #[test]
    fn the_oldest_events_give_way_and_are_counted() {
        let queue = Arc::new(EventQueue::default());
        let mut events = ConsumerEvents::new(queue.clone());
        (0..EVENTS_MAX + 3).for_each(|number| queue.push(ended(number)));
        assert_eq!(events.dropped(), 3);
        let topics = topics(&mut events);
        assert_eq!((topics.len(), topics[0].as_str()), (EVENTS_MAX, "3"));
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_event_and_learns_of_the_end() {
        let queue = Arc::new(EventQueue::default());
        let mut events = ConsumerEvents::new(queue.clone());
        let reading = tokio::spawn(async move {
            let first = events.recv().await;
            (first.is_some(), events.recv().await.is_none())
        });
        tokio::task::yield_now().await;
        queue.push(ended(1));
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(reading.await.expect("no panic"), (true, true));
    }

    #[test]
    fn events_that_wait_outlive_the_end() {
        let queue = Arc::new(EventQueue::default());
        let mut events = ConsumerEvents::new(queue.clone());
        queue.push(ended(7));
        queue.close();
        assert_eq!(topics(&mut events), ["7"]);
    }
}
