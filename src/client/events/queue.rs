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
    /// From the first event or reader on: most handles have none, and live for long.
    traffic: Option<Box<Traffic<E>>>,
    /// Topics and partitions that have not ended, where they are counted.
    sources: usize,
    /// The handle has ended or was dropped: no more events are added.
    is_closed: bool,
}

struct Traffic<E> {
    /// With the payload that each keeps in memory, bytes.
    events: VecDeque<(E, usize)>,
    /// Payload of the waiting events, bytes.
    payload_bytes: usize,
    dropped: u64,
    /// Tasks that wait for the next event, each once.
    readers: Vec<Waker>,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { state: Mutex::new(State { traffic: None, sources: 0, is_closed: false }) }
    }
}

impl<E> fmt::Debug for EventQueue<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventQueue({} waiting, {} dropped)", self.len(), self.dropped())
    }
}

impl<E> State<E> {
    fn traffic(&mut self) -> &mut Traffic<E> {
        self.traffic.get_or_insert_with(|| {
            Box::new(Traffic { events: VecDeque::new(), payload_bytes: 0, dropped: 0, readers: Vec::new() })
        })
    }

    fn take(&mut self) -> Option<E> {
        self.traffic.as_mut()?.take()
    }
}

impl<E> Traffic<E> {
    fn take(&mut self) -> Option<E> {
        let (event, payload_bytes) = self.events.pop_front()?;
        self.payload_bytes -= payload_bytes;
        Some(event)
    }

    fn is_full(&self) -> bool {
        self.events.len() > EVENTS_MAX || (self.payload_bytes > EVENT_PAYLOAD_BYTES_MAX && self.events.len() > 1)
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
            let traffic = state.traffic();
            traffic.payload_bytes += payload_bytes;
            traffic.events.push_back((event, payload_bytes));
            while traffic.is_full() {
                traffic.dropped += 1;
                dropped.extend(traffic.take());
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
        self.state().traffic.as_ref().map_or(0, |traffic| traffic.events.len())
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state().traffic.as_ref().map_or(0, |traffic| traffic.dropped)
    }

    /// Changes the state, then wakes the readers and drops what `change` returned, without the lock.
    fn change<R>(&self, change: impl FnOnce(&mut State<E>) -> R) {
        let mut state = self.state();
        let changed = change(&mut state);
        let readers = state.traffic.as_mut().map(|traffic| std::mem::take(&mut traffic.readers)).unwrap_or_default();
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
        let readers = &mut state.traffic().readers;
        if !readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            readers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
