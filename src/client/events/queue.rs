//! The bounded queue between those who notice an event and its readers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The most events that wait to be read. Above it the oldest is dropped and counted.
pub(super) const EVENTS_MAX: usize = 1000;

/// The most payload of unreadable messages that wait to be read, bytes; a single larger one is kept. Above it the
/// oldest event is dropped and counted.
const EVENT_PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// See the module.
pub(in crate::client) struct EventQueue<E> {
    state: Mutex<State<E>>,
}

struct State<E> {
    /// With the payload that each keeps in memory, bytes.
    events: VecDeque<(E, usize)>,
    /// Payload of the waiting events, bytes.
    payload_bytes: usize,
    dropped: u64,
    /// Tasks that wait for the next event, each once.
    readers: Vec<Waker>,
    /// Topics and partitions that have not ended, where they are counted.
    sources: usize,
    /// The handle has ended or was dropped: no more events are added.
    is_closed: bool,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        let (events, readers) = (VecDeque::new(), Vec::new());
        Self {
            state: Mutex::new(State { events, payload_bytes: 0, dropped: 0, readers, sources: 0, is_closed: false }),
        }
    }
}

impl<E> fmt::Debug for EventQueue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventQueue({} waiting, {} dropped)", self.len(), self.dropped())
    }
}

impl<E> State<E> {
    fn take(&mut self) -> Option<E> {
        let (event, payload_bytes) = self.events.pop_front()?;
        self.payload_bytes -= payload_bytes;
        Some(event)
    }
}

impl<E> EventQueue<E> {
    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::client) fn push(&self, event: E) {
        self.push_with_payload(event, 0);
    }

    /// Adds an event that keeps so many bytes of payload in memory.
    pub(in crate::client) fn push_with_payload(&self, event: E, payload_bytes: usize) {
        self.change(|state| {
            let mut dropped = Vec::new();
            if state.is_closed {
                dropped.push(event);
                return dropped;
            }
            state.payload_bytes += payload_bytes;
            state.events.push_back((event, payload_bytes));
            let is_full = |state: &State<E>| {
                state.events.len() > EVENTS_MAX
                    || (state.payload_bytes > EVENT_PAYLOAD_BYTES_MAX && state.events.len() > 1)
            };
            while is_full(state) {
                state.dropped += 1;
                dropped.extend(state.take());
            }
            dropped
        });
    }

    /// One more topic or partition tells of events.
    pub(in crate::client) fn add_source(&self) {
        self.change(|state| state.sources += 1);
    }

    /// One of them has ended. The last one ends the queue.
    pub(in crate::client) fn end_source(&self) {
        self.change(|state| {
            state.sources = state.sources.saturating_sub(1);
            state.is_closed |= state.sources == 0;
        });
    }

    /// Ends the queue: readers get the events that wait, then the end.
    pub(in crate::client) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    pub(super) fn try_take(&self) -> Option<E> {
        self.state().take()
    }

    pub(super) fn len(&self) -> usize {
        self.state().events.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Changes the state, then wakes the readers and drops what `change` returned, without the lock.
    fn change<R>(&self, change: impl FnOnce(&mut State<E>) -> R) {
        let mut state = self.state();
        let changed = change(&mut state);
        let readers = std::mem::take(&mut state.readers);
        drop(state);
        readers.into_iter().for_each(Waker::wake);
        drop(changed);
    }

    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<E>> {
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
