//! A bounded queue of traffic, between those who forward it or show it and a thread that looks at it.
//!
//! The writing side never waits here. What finds no room is left out, and told of once there is room again:
//!
//! | segment without room | what is told |
//! | --- | --- |
//! | `Bytes`, `Missing` | [`SegmentEvent::Missing`] in their place |
//! | `Opened` | an `Opened` that is partial, with the first segment that finds room |
//! | `Closed` of a connection that is known | itself: there are at most two of each |
//! | all of a connection | a note that counts such connections, and the beginning and the end of the last one |

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// The end of a queue that is written, which never waits. Dropped, it ends the feed.
///
/// A program that hands segments on to a slow thread of its own, such as one that writes a file, uses another one behind the feed of the
/// tap.
#[derive(Debug)]
pub struct TapQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    bytes_max: usize,
    /// What all items cost that were not given to the reader yet. It grows under the lock only.
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<TapItem>,
    /// Connections that are open, and of which something was left out.
    untold: BTreeMap<u64, Untold>,
    /// Connections of which nothing was told: how many, and the last one.
    unseen: Option<(u64, Unseen)>,
    is_closed: bool,
}

/// What was left out of one connection since something of it found room.
#[derive(Debug)]
struct Untold {
    /// Client and broker, if the connection itself is not told of.
    opened: Option<(SocketAddr, SocketAddr)>,
    missing: [u64; 2],
    /// Directions that ended; of a connection that is not told of.
    is_closed: [bool; 2],
    at: SystemTime,
}

#[derive(Debug)]
struct Unseen {
    connection: u64,
    at: SystemTime,
    client: SocketAddr,
    broker: SocketAddr,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, cost: usize) -> bool {
        self.bytes.load(Ordering::Relaxed).saturating_add(cost) <= self.bytes_max
    }

    fn put(&self, state: &mut State, item: TapItem) {
        self.bytes.fetch_add(cost(&item), Ordering::Relaxed);
        state.items.push_back(item);
    }

    fn put_segment(&self, state: &mut State, connection: u64, at: SystemTime, event: SegmentEvent) {
        self.put(state, TapItem::Segment(Segment { connection, at, event }));
    }

    /// Puts what was left out of this connection, up to what comes now.
    fn tell(&self, state: &mut State, connection: u64) {
        let Some(Untold { opened, missing, is_closed, at }) = state.untold.remove(&connection) else { return };
        if let Some((client, broker)) = opened {
            self.put_segment(state, connection, at, SegmentEvent::Opened { client, broker, is_partial: true });
        }
        for direction in [Direction::ToBroker, Direction::ToClient] {
            let count = missing[index(direction)];
            if count > 0 {
                self.put_segment(state, connection, at, SegmentEvent::Missing { direction, count });
            }
            if is_closed[index(direction)] {
                self.put_segment(state, connection, at, SegmentEvent::Closed { direction, is_reset: false });
            }
        }
    }

    /// Puts what stands for the connections of which nothing was told.
    fn tell_unseen(&self, state: &mut State) {
        let Some((count, Unseen { connection, at, client, broker })) = state.unseen.take() else { return };
        let text = format!("{count} connections are not shown: what looks at them is too slow");
        self.put(state, TapItem::Note(text));
        // So that whoever judges knows that there is traffic it did not see.
        self.put_segment(state, connection, at, SegmentEvent::Opened { client, broker, is_partial: true });
        let event = SegmentEvent::Closed { direction: Direction::ToBroker, is_reset: true };
        self.put_segment(state, connection, at, event);
    }
}

impl TapQueue {
    /// A queue for about `bytes_max` bytes, and the end that is read. It holds more by the ends of the connections that are open, 512
    /// bytes for each.
    #[must_use]
    pub fn with_feed(bytes_max: usize) -> (Self, TapFeed) {
        let (state, bytes) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { state, filled: Condvar::new(), bytes_max, bytes });
        (Self { shared: Arc::clone(&shared) }, TapFeed { shared, taken: VecDeque::new() })
    }

    /// Hands a note over; it is left out if there is no room.
    pub(crate) fn note(&self, text: String) {
        let mut state = self.shared.lock();
        if self.shared.has_room(note_cost(&text)) {
            self.shared.put(&mut state, TapItem::Note(text));
            self.shared.filled.notify_one();
        }
    }

    /// Hands a segment over. Without room it is left out, and told of as [`SegmentEvent::Missing`] later.
    pub fn push(&self, segment: Segment) {
        let mut state = self.shared.lock();
        if self.shared.has_room(segment_cost(&segment)) {
            self.shared.tell_unseen(&mut state);
        } else if !state.is_end_of_known(&segment) {
            return state.leave_out(&segment);
        }
        self.shared.tell(&mut state, segment.connection);
        self.shared.put(&mut state, TapItem::Segment(segment));
        self.shared.filled.notify_one();
    }
}

impl Drop for TapQueue {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let untold: Vec<u64> = state.untold.keys().copied().collect();
        untold.into_iter().for_each(|connection| self.shared.tell(&mut state, connection));
        self.shared.tell_unseen(&mut state);
        state.is_closed = true;
        self.shared.filled.notify_one();
    }
}

impl State {
    /// Without it whoever reads would keep the connection for ever.
    fn is_end_of_known(&self, segment: &Segment) -> bool {
        let is_known = self.untold.get(&segment.connection).is_none_or(|untold| untold.opened.is_none());
        is_known && matches!(segment.event, SegmentEvent::Closed { .. })
    }

    fn leave_out(&mut self, segment: &Segment) {
        let (connection, at) = (segment.connection, segment.at);
        let none = || Untold { opened: None, missing: [0; 2], is_closed: [false; 2], at };
        let untold = self.untold.entry(connection).or_insert_with(none);
        untold.at = at;
        let (direction, is_reset) = match &segment.event {
            SegmentEvent::Opened { client, broker, .. } => return untold.opened = Some((*client, *broker)),
            SegmentEvent::Bytes { direction, bytes } => {
                return untold.missing[index(*direction)] += bytes.len() as u64;
            }
            SegmentEvent::Missing { direction, count } => return untold.missing[index(*direction)] += count,
            SegmentEvent::Closed { direction, is_reset } => (*direction, *is_reset),
        };
        untold.is_closed[index(direction)] = true;
        if !is_reset && untold.is_closed != [true; 2] {
            return;
        }
        if let Some((client, broker)) = self.untold.remove(&connection).and_then(|untold| untold.opened) {
            let before = self.unseen.take().map_or(0, |(count, _)| count);
            self.unseen = Some((before + 1, Unseen { connection, at, client, broker }));
        }
    }
}

fn index(direction: Direction) -> usize {
    match direction {
        Direction::ToBroker => 0,
        Direction::ToClient => 1,
    }
}

fn cost(item: &TapItem) -> usize {
    match item {
        TapItem::Segment(segment) => segment_cost(segment),
        TapItem::Note(text) => note_cost(text),
    }
}

fn segment_cost(segment: &Segment) -> usize {
    match &segment.event {
        SegmentEvent::Bytes { bytes, .. } => SEGMENT_COST_BYTES + bytes.len(),
        _ => SEGMENT_COST_BYTES,
    }
}

fn note_cost(text: &str) -> usize {
    SEGMENT_COST_BYTES + text.len()
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
        }
        // What is taken counts until it is given.
        let item = self.taken.pop_front()?;
        self.shared.bytes.fetch_sub(cost(&item), Ordering::Relaxed);
        Some(item)
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

    fn segment(connection: u64, event: SegmentEvent) -> Segment {
        Segment { connection, at: SystemTime::UNIX_EPOCH, event }
    }

    fn bytes(count: usize) -> Segment {
        segment(7, SegmentEvent::Bytes { direction: Direction::ToClient, bytes: Bytes::from(vec![0; count]) })
    }

    fn opened(connection: u64, is_partial: bool) -> Segment {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        segment(connection, SegmentEvent::Opened { client: address, broker: address, is_partial })
    }

    fn closed(connection: u64, is_reset: bool) -> Segment {
        segment(connection, SegmentEvent::Closed { direction: Direction::ToBroker, is_reset })
    }

    fn missing(count: u64) -> Segment {
        segment(7, SegmentEvent::Missing { direction: Direction::ToClient, count })
    }

    fn segments(feed: TapFeed) -> Vec<Segment> {
        let segment = |item| match item {
            TapItem::Segment(segment) => Some(segment),
            TapItem::Note(_) => None,
        };
        feed.filter_map(segment).collect()
    }

    #[test]
    fn what_finds_no_room_is_told_of_in_its_place() {
        let (queue, mut feed) = TapQueue::with_feed(1_000);
        queue.push(bytes(800));
        queue.push(bytes(300));
        queue.push(missing(400));
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(800))));
        queue.push(bytes(5));
        assert_eq!(feed.next(), Some(TapItem::Segment(missing(700))));
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(5))));
        assert_eq!(feed.try_next(), None);
        queue.push(bytes(2_000));
        drop(queue);
        assert_eq!(segments(feed), [missing(2_000)]);
    }

    #[test]
    fn what_the_reader_has_taken_counts_until_it_is_given() {
        let (queue, mut feed) = TapQueue::with_feed(1_000);
        queue.push(bytes(300));
        queue.push(bytes(301));
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(300))));
        queue.push(bytes(600));
        drop(queue);
        assert_eq!(segments(feed), [bytes(301), missing(600)]);
    }

    #[test]
    fn a_connection_without_room_is_told_of_later_as_partial() {
        let (queue, mut feed) = TapQueue::with_feed(1_000);
        queue.push(opened(1, false));
        queue.push(bytes(700));
        queue.push(opened(7, false));
        queue.push(bytes(9));
        queue.push(closed(7, false));
        queue.push(closed(1, true));
        assert_eq!(feed.by_ref().take(2).count(), 2);
        queue.push(bytes(3));
        drop(queue);
        assert_eq!(segments(feed), [closed(1, true), opened(7, true), closed(7, false), missing(9), bytes(3)]);
    }

    #[test]
    fn any_number_of_connections_without_room_costs_no_memory() {
        let (queue, mut feed) = TapQueue::with_feed(1_000);
        queue.push(bytes(800));
        for connection in 10..20_010 {
            queue.push(opened(connection, false));
            queue.push(closed(connection, true));
        }
        let held = queue.shared.lock();
        assert_eq!((held.items.len(), held.untold.len()), (1, 0));
        drop(held);
        assert_eq!(feed.next(), Some(TapItem::Segment(bytes(800))));
        queue.push(bytes(1));
        let Some(TapItem::Note(text)) = feed.next() else { panic!("a note") };
        assert!(text.starts_with("20000 connections"), "{text}");
        drop(queue);
        assert_eq!(segments(feed), [opened(20_009, true), closed(20_009, true), bytes(1)]);
    }
}
