//! A bounded queue of what a tap saw, between the tasks that forward traffic and a thread that looks at it.
//!
//! Whoever forwards never waits here. Bytes that find no room are dropped and counted, and the reader is told of them in their place, as
//! [`SegmentEvent::Missing`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::capture::{Direction, Segment, SegmentEvent};

/// What a segment costs besides its bytes, so that empty ones are bounded too.
const SEGMENT_COST_BYTES: usize = 128;

/// Something a tap tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TapItem {
    /// Traffic.
    Segment(Segment),
    /// For people: a broker that was met, a lookup over HTTP, a broker that cannot be reached.
    Note(String),
}

/// The end of a queue that is read; [`Iterator::next`] blocks its thread until there is something, and ends when the tap has stopped.
#[derive(Debug)]
pub struct TapFeed {
    shared: Arc<Shared>,
    taken: VecDeque<TapItem>,
}

/// The end that is written.
#[derive(Debug)]
pub(crate) struct TapQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<TapItem>,
    bytes: usize,
    /// Bytes that were dropped and are not told of yet.
    dropped: BTreeMap<(u64, Direction), u64>,
    is_closed: bool,
}

/// A queue that holds at most so many bytes.
pub(crate) fn queue(bytes_max: usize) -> (TapQueue, TapFeed) {
    let shared = Arc::new(Shared { state: Mutex::default(), filled: Condvar::new(), bytes_max });
    (TapQueue { shared: Arc::clone(&shared) }, TapFeed { shared, taken: VecDeque::new() })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TapQueue {
    pub(crate) fn note(&self, text: String) {
        let mut state = self.shared.lock();
        if state.bytes.saturating_add(text.len()) <= self.shared.bytes_max {
            state.put(TapItem::Note(text));
            self.shared.filled.notify_one();
        }
    }

    pub(crate) fn push(&self, segment: Segment) {
        let mut state = self.shared.lock();
        if let SegmentEvent::Bytes { direction, bytes } = &segment.event {
            let has_room = state.bytes + SEGMENT_COST_BYTES + bytes.len() <= self.shared.bytes_max;
            if !has_room {
                *state.dropped.entry((segment.connection, *direction)).or_default() += bytes.len() as u64;
                return;
            }
        }
        state.tell_dropped(segment.connection, segment.at);
        state.put(TapItem::Segment(segment));
        self.shared.filled.notify_one();
    }
}

impl Drop for TapQueue {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

impl State {
    fn put(&mut self, item: TapItem) {
        self.bytes += cost(&item);
        self.items.push_back(item);
    }

    fn tell_dropped(&mut self, connection: u64, at: SystemTime) {
        if self.dropped.is_empty() {
            return;
        }
        for direction in [Direction::ToBroker, Direction::ToClient] {
            if let Some(count) = self.dropped.remove(&(connection, direction)) {
                self.put(TapItem::Segment(Segment {
                    connection,
                    at,
                    event: SegmentEvent::Missing { direction, count },
                }));
            }
        }
    }
}

fn cost(item: &TapItem) -> usize {
    match item {
        TapItem::Segment(Segment { event: SegmentEvent::Bytes { bytes, .. }, .. }) => SEGMENT_COST_BYTES + bytes.len(),
        TapItem::Segment(_) => SEGMENT_COST_BYTES,
        TapItem::Note(text) => text.len(),
    }
}

impl Iterator for TapFeed {
    type Item = TapItem;

    fn next(&mut self) -> Option<TapItem> {
        if self.taken.is_empty() {
            let mut state = self.shared.lock();
            while state.items.is_empty() && !state.is_closed {
                state = self.shared.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.items, &mut self.taken);
            state.bytes = 0;
        }
        self.taken.pop_front()
    }
}

impl TapFeed {
    /// The next item if there is one; never waits.
    pub fn try_next(&mut self) -> Option<TapItem> {
        let is_there = !self.taken.is_empty() || !self.shared.lock().items.is_empty();
        if is_there { self.next() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn bytes(count: usize) -> Segment {
        let event = SegmentEvent::Bytes { direction: Direction::ToClient, bytes: Bytes::from(vec![0; count]) };
        Segment { connection: 7, at: SystemTime::UNIX_EPOCH, event }
    }

    #[test]
    fn what_finds_no_room_is_told_of_in_its_place() {
        let (queue, mut feed) = queue(1_000);
        queue.push(bytes(600));
        queue.push(bytes(300));
        queue.push(bytes(400));
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(600))));
        queue.push(bytes(5));
        let missing = SegmentEvent::Missing { direction: Direction::ToClient, count: 700 };
        assert_eq!(feed.next(), Some(TapItem::Segment(Segment { event: missing, ..bytes(1) })));
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(5))));
        assert_eq!(feed.try_next(), None);
        drop(queue);
        assert_eq!(feed.next(), None);
    }
}
