//! Events of a consumer: topics and partitions that come and end, unreadable messages, what the broker notifies.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::unreadable::UnreadableMessage;
use crate::error::Error;
use crate::machine::consumer::TopicObserver;

mod queue;

pub(super) use queue::EventQueue;
use queue::QueuedEvent;

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
    /// Failover: this consumer has become the active one of a topic or partition, or is no longer
    /// (ACTIVE_CONSUMER_CHANGE). The broker says so after each attach; only changes are reported.
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
    /// A topic or partition has joined the consumer after it was created.
    #[non_exhaustive]
    TopicAdded {
        /// The full name of the topic, or of the partition.
        topic: Arc<str>,
    },
}

/// The events of one consumer, each of which goes to one reader: created by [`Consumer::events`](super::Consumer::events).
///
/// Ends of topics and unreadable messages are found as messages are received, everything else when it happens. Events
/// wait until they are read: up to 1000, and up to 16 MiB of payload
/// of unreadable messages; above that the oldest is dropped. It does not keep the consumer open. It is also a
/// [`Stream`], which ends with the consumer.
#[must_use = "events that are not read are dropped"]
pub struct ConsumerEvents {
    queue: Arc<EventQueue<ConsumerEvent>>,
}

impl ConsumerEvents {
    pub(super) fn new(queue: Arc<EventQueue<ConsumerEvent>>) -> Self {
        Self { queue }
    }

    /// The next event; waits for one. `None` after the last event, once the consumer has ended or was dropped.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<ConsumerEvent> {
        poll_fn(|cx| self.queue.poll_take(cx)).await
    }

    /// The next event that is already available, if any.
    pub fn try_recv(&mut self) -> Option<ConsumerEvent> {
        self.queue.try_take()
    }

    /// How many events were dropped because too many waited to be read.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

impl Stream for ConsumerEvents {
    type Item = ConsumerEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_take(cx)
    }
}

impl fmt::Debug for ConsumerEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConsumerEvents({} waiting, {} dropped)", self.queue.len(), self.queue.dropped())
    }
}

impl QueuedEvent for ConsumerEvent {
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Unreadable(unreadable) => unreadable.payload().len(),
            _ => 0,
        }
    }
}

/// Turns what the broker notifies about one topic or partition into events.
pub(super) struct EventSource {
    pub(super) topic: Arc<str>,
    pub(super) queue: Arc<EventQueue<ConsumerEvent>>,
}

impl TopicObserver for EventSource {
    fn on_active_change(&self, is_active: bool) {
        self.queue.push(ConsumerEvent::ActiveChanged { topic: self.topic.clone(), is_active });
    }

    fn on_end_of_topic(&self) {
        self.queue.push(ConsumerEvent::EndOfTopic { topic: self.topic.clone() });
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventSource({})", self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::queue::EVENTS_MAX;
    use super::*;
    use crate::error::ErrorKind;

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
