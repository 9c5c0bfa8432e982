//! A queue of deadlines, one for each key: which is next, and which are due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Instant;

use super::{Deadline, Now};

/// Outdated entries in the heap beyond [`OUTDATED_FACTOR`] times the keys before it is built anew.
const OUTDATED_ENTRIES: usize = 64;

/// See [`OUTDATED_ENTRIES`].
const OUTDATED_FACTOR: usize = 4;

/// Places for keys, beyond [`SPARSE_FACTOR`] times the keys, before they are given back.
const SPARSE_ENTRIES: usize = 256;

/// See [`SPARSE_ENTRIES`].
const SPARSE_FACTOR: usize = 8;

/// One deadline for each key, in a heap from which outdated entries are removed when they come up.
///
/// A deadline that moves later is not pushed again: the heap's entry fires, is compared with the key's own deadline,
/// and goes back with it. One that moves earlier, or is set again after it was cleared, leaves an outdated entry
/// behind; when these are most of the heap, it is built anew from the keys, so it is bounded by the keys.
#[derive(Debug)]
pub struct Deadlines<K> {
    wanted: HashMap<K, KeyDeadline>,
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

#[derive(Debug)]
struct KeyDeadline {
    deadline: Deadline,
    /// The earliest entry for this key in the heap.
    queued_at: Instant,
}

impl<K> Default for Deadlines<K>
where
    K: Ord,
{
    fn default() -> Self {
        Self { wanted: HashMap::new(), heap: BinaryHeap::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Deadlines<K> {
    /// Sets or clears the deadline of `key`.
    pub fn set(&mut self, key: K, deadline: Option<Deadline>) {
        let Some(deadline) = deadline else {
            self.wanted.remove(&key);
            if self.wanted.capacity() > SPARSE_FACTOR * self.wanted.len() + SPARSE_ENTRIES {
                self.shrink();
            }
            return;
        };
        if let Some(slot) = self.wanted.get_mut(&key) {
            slot.deadline = deadline;
            if slot.queued_at <= deadline.at {
                return;
            }
            slot.queued_at = deadline.at;
        } else {
            self.wanted.insert(key, KeyDeadline { deadline, queued_at: deadline.at });
        }
        self.heap.push(Reverse((deadline.at, key)));
        if self.heap.len() > OUTDATED_FACTOR * self.wanted.len() + OUTDATED_ENTRIES {
            self.rebuild();
        }
    }

    fn rebuild(&mut self) {
        self.heap.clear();
        for (key, slot) in &mut self.wanted {
            slot.queued_at = slot.deadline.at;
            self.heap.push(Reverse((slot.deadline.at, *key)));
        }
    }

    /// Gives back what an earlier number of keys took.
    #[cold]
    fn shrink(&mut self) {
        self.wanted.shrink_to(2 * self.wanted.len());
        self.rebuild();
        self.heap.shrink_to(2 * self.wanted.len());
    }

    /// The deadline of `key`.
    pub fn get(&self, key: &K) -> Option<Deadline> {
        self.wanted.get(key).map(|slot| slot.deadline)
    }

    /// When the next key may be due. It can be early: then [`Self::pop_due`] gives nothing.
    pub fn next(&self) -> Option<Deadline> {
        let Reverse((at, key)) = self.heap.peek()?;
        let why = self.wanted.get(key).map_or("outdated", |slot| slot.deadline.why);
        Some(Deadline::new(*at, why))
    }

    /// Takes one key whose deadline has come; it has none from then on.
    pub fn pop_due(&mut self, now: Now) -> Option<K> {
        while let Some(&Reverse((at, key))) = self.heap.peek() {
            if at > now.at {
                return None;
            }
            self.heap.pop();
            let Some(slot) = self.wanted.get_mut(&key) else { continue };
            if slot.queued_at != at {
                continue;
            }
            if slot.deadline.is_due(now) {
                self.wanted.remove(&key);
                return Some(key);
            }
            slot.queued_at = slot.deadline.at;
            self.heap.push(Reverse((slot.deadline.at, key)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moved_deadlines_fire_once_at_their_last_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let now = |ms| Now { at: at(ms), wall_ms: 0 };
        let mut deadlines = Deadlines::default();
        deadlines.set(1, Some(Deadline::new(at(10), "a")));
        deadlines.set(1, Some(Deadline::new(at(30), "a")));
        deadlines.set(2, Some(Deadline::new(at(40), "b")));
        deadlines.set(2, Some(Deadline::new(at(20), "b")));
        deadlines.set(3, Some(Deadline::new(at(5), "c")));
        deadlines.set(3, None);
        assert_eq!(deadlines.pop_due(now(15)), None);
        assert_eq!(deadlines.pop_due(now(25)), Some(2));
        assert_eq!(deadlines.pop_due(now(25)), None);
        assert_eq!(deadlines.pop_due(now(50)), Some(1));
        assert_eq!(deadlines.pop_due(now(50)), None);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn many_deadlines_that_are_cleared_give_their_memory_back() {
        let at = Instant::now();
        let mut deadlines = Deadlines::default();
        let count = 100_000;
        (0..count).for_each(|key| deadlines.set(key, Some(Deadline::new(at, "attach"))));
        (1..count).for_each(|key| deadlines.set(key, None));
        let places = deadlines.wanted.capacity() + deadlines.heap.capacity();
        assert!(places <= 2 * SPARSE_ENTRIES, "{places} places for one key");
        assert_eq!(deadlines.pop_due(Now { at, wall_ms: 0 }), Some(0));
    }

    #[test]
    fn deadlines_that_come_and_go_leave_a_bounded_heap() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let now = |ms| Now { at: at(ms), wall_ms: 0 };
        let mut deadlines = Deadlines::default();
        deadlines.set(2, Some(Deadline::new(at(5_000), "stays")));
        for ms in 0..20_000 {
            // A send, its receipt, and a lingering batch before it: set far away, moved near, cleared.
            deadlines.set(1, Some(Deadline::new(at(ms + 30_000), "far")));
            deadlines.set(1, Some(Deadline::new(at(ms + 25_000), "near")));
            deadlines.set(1, None);
            assert!(deadlines.heap.len() <= 100, "{} entries for two keys", deadlines.heap.len());
        }
        deadlines.set(1, Some(Deadline::new(at(6_000), "last")));
        assert_eq!(deadlines.pop_due(now(4_999)), None);
        assert_eq!(deadlines.pop_due(now(5_000)), Some(2));
        assert_eq!(deadlines.pop_due(now(6_000)), Some(1));
        assert_eq!(deadlines.pop_due(now(90_000)), None);
    }
}
