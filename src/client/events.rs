//! Events of a consumer: topics and partitions that have ended, unreadable messages.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::unreadable::UnreadableMessage;
use crate::error::Error;

/// The most events that wait to be read. Above it the oldest is dropped and counted.
const EVENTS_MAX: usize = 1000;

/// The most payload of unreadable messages that wait to be read, bytes; a single larger one is kept. Above it the
/// oldest event is dropped and counted.
const EVENT_PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

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
        topic: String,
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
}

/// The events of one consumer, each of which goes to one reader: created by [`Consumer::events`](super::Consumer::events).
///
/// Events are produced as messages are received, and wait until they are read: up to 1000, and up to 16 MiB of payload
/// of unreadable messages; above that the oldest is dropped. It does not keep the consumer open. It is also a
/// [`Stream`], which ends with the consumer.
#[must_use = "events that are not read are dropped"]
pub struct ConsumerEvents {
    queue: Arc<EventQueue>,
}

impl ConsumerEvents {
    pub(super) fn new(queue: Arc<EventQueue>) -> Self {
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
        self.queue.state().take()
    }

    /// How many events were dropped because too many waited to be read.
    pub fn dropped(&self) -> u64 {
        self.queue.state().dropped
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
        let state = self.queue.state();
        write!(f, "ConsumerEvents({} waiting, {} dropped)", state.events.len(), state.dropped)
    }
}

/// The queue of events between the receiver, which produces them, and their readers.
#[derive(Default)]
pub(super) struct EventQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    events: VecDeque<ConsumerEvent>,
    /// Payload of the waiting events, bytes.
    payload_bytes: usize,
    dropped: u64,
    /// Tasks that wait for the next event, each once.
    readers: Vec<Waker>,
    /// The consumer has ended or was dropped: no more events are added.
    is_closed: bool,
}

impl State {
    fn take(&mut self) -> Option<ConsumerEvent> {
        let event = self.events.pop_front()?;
        self.payload_bytes -= payload_bytes(&event);
        Some(event)
    }
}

impl EventQueue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, event: ConsumerEvent) {
        self.change(|state| {
            state.payload_bytes += payload_bytes(&event);
            state.events.push_back(event);
            let is_full = |state: &State| {
                state.events.len() > EVENTS_MAX
                    || (state.payload_bytes > EVENT_PAYLOAD_BYTES_MAX && state.events.len() > 1)
            };
            let mut dropped = Vec::new();
            while is_full(state) {
                state.dropped += 1;
                dropped.extend(state.take());
            }
            dropped
        });
    }

    /// Ends the queue: readers get the events that wait, then the end.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    /// Changes the state, then wakes the readers and drops what `change` returned, without the lock.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) {
        let mut state = self.state();
        let changed = change(&mut state);
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        readers.into_iter().for_each(Waker::wake);
        drop(changed);
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<ConsumerEvent>> {
        let mut state = self.state();
        let event = state.take();
        if event.is_some() || state.is_closed {
            return Poll::Ready(event);
        }
        if !state.readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            state.readers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

fn payload_bytes(event: &ConsumerEvent) -> usize {
    match event {
        ConsumerEvent::TopicEnded { .. } => 0,
        ConsumerEvent::Unreadable(unreadable) => unreadable.payload().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn ended(number: usize) -> ConsumerEvent {
        ConsumerEvent::TopicEnded {
            topic: number.to_string(),
            error: Error::local(ErrorKind::TopicNotFound, "deleted"),
        }
    }

    fn topics(events: &mut ConsumerEvents) -> Vec<String> {
        let topic = |event| match event {
            ConsumerEvent::TopicEnded { topic, .. } => topic,
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
