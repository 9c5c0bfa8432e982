//! Entries that are to be requested again at a time of their own, unless they are acknowledged before.
//!
//! The times are rounded up to buckets, so that a burst takes one timer and few frames. An entry is held twice: with its
//! bucket, by which it is found when it is acknowledged, and as one bit in its bucket. Neighbours share the words of 64
//! bits. That is 30 bytes at most for each of many neighbours, and 80 for an entry that is alone: `tests/leaks/` measures both.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use super::position::EntryPosition;
use crate::machine::Now;

/// The most entries that wait.
const ENTRIES_MAX: usize = 1 << 21;

/// The widest bucket, in milliseconds.
const BUCKET_MS_MAX: u64 = 256;

/// Sorts as [`EntryPosition`] does.
type Ledger = i64;

/// See the module.
#[derive(Debug)]
pub(super) struct Delayed {
    bucket_ms: u64,
    /// Buckets are counted from here.
    base: Instant,
    /// What each entry waits for, by ledger and entry.
    waits: BTreeMap<Ledger, BTreeMap<i64, Wait>>,
    buckets: BTreeMap<u32, Bucket>,
    len: usize,
}

/// The entries of a bucket: a bit for each of 64 neighbours, by ledger and word.
type Bucket = BTreeMap<(Ledger, i64), u64>;

/// The number of a bucket, and why the entry is in it. In four bytes, because there may be a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait(u32);

impl Wait {
    const BUCKET_MAX: u32 = u32::MAX >> 1;

    fn new(bucket: u32, reason: WaitReason) -> Self {
        Self(bucket.min(Self::BUCKET_MAX) << 1 | u32::from(reason == WaitReason::Nacked))
    }

    fn bucket(self) -> u32 {
        self.0 >> 1
    }

    fn reason(self) -> WaitReason {
        if self.0 & 1 == 1 { WaitReason::Nacked } else { WaitReason::Delivered }
    }
}

/// Why an entry is to be requested again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// It was given to the application, which has the acknowledgement timeout to acknowledge it.
    Delivered,
    /// It is negatively acknowledged.
    Nacked,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// In order.
    pub(super) positions: Vec<EntryPosition>,
    /// Those of them that were not acknowledged in time; in order.
    pub(super) timed_out: Vec<EntryPosition>,
}

impl Delayed {
    /// `shortest`: the shortest delay that is to be expected.
    pub(super) fn new(shortest: Duration, now: Now) -> Self {
        let shortest_ms = u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX);
        let bucket_ms = (shortest_ms / 4).clamp(1, BUCKET_MS_MAX);
        Self { bucket_ms, base: now.at, waits: BTreeMap::new(), buckets: BTreeMap::new(), len: 0 }
    }

    /// Notes an entry, to be due after `delay`. False if there is no room for it.
    ///
    /// | waits already | noted | |
    /// | --- | --- | --- |
    /// | no | either | it waits from now on |
    /// | delivered | nacked | the new delay replaces the timeout |
    /// | delivered | delivered | the timeout counts from the first member of a batch |
    /// | nacked | either | the delay counts from the first time |
    pub(super) fn insert(&mut self, position: EntryPosition, reason: WaitReason, delay: Duration, now: Now) -> bool {
        let due = now.at.saturating_duration_since(self.base).saturating_add(delay);
        // Rounded up, so that nothing is due before its delay.
        let bucket = due.as_nanos().div_ceil(u128::from(self.bucket_ms) * 1_000_000);
        let wait = Wait::new(u32::try_from(bucket).unwrap_or(Wait::BUCKET_MAX), reason);
        let (ledger, entry) = key(position);
        match self.waits.entry(ledger).or_default().entry(entry) {
            Entry::Occupied(mut occupied) => {
                let before = *occupied.get();
                if (before.reason(), reason) != (WaitReason::Delivered, WaitReason::Nacked) {
                    return true;
                }
                occupied.insert(wait);
                self.clear_bit(before.bucket(), ledger, entry);
            }
            Entry::Vacant(vacant) => {
                if self.len >= ENTRIES_MAX {
                    return false;
                }
                vacant.insert(wait);
                self.len += 1;
            }
        }
        *self.buckets.entry(wait.bucket()).or_default().entry((ledger, entry >> 6)).or_default() |= bit(entry);
        true
    }

    /// The entry is acknowledged.
    pub(super) fn remove(&mut self, position: EntryPosition) {
        if self.len == 0 {
            return;
        }
        let (ledger, entry) = key(position);
        if let Some(wait) = self.forget(ledger, entry) {
            self.clear_bit(wait.bucket(), ledger, entry);
        }
    }

    /// Everything up to and including `up_to` is acknowledged.
    pub(super) fn remove_up_to(&mut self, up_to: EntryPosition) {
        let (last_ledger, last_entry) = key(up_to);
        while let Some((&ledger, entries)) = self.waits.first_key_value() {
            let covered = |&(entry, _): &(&i64, _)| ledger < last_ledger || *entry <= last_entry;
            let Some((&entry, _)) = entries.first_key_value().filter(covered) else { return };
            if ledger > last_ledger {
                return;
            }
            self.remove(EntryPosition { ledger_id: ledger as u64, entry_id: entry as u64 });
        }
    }

    /// When the next bucket is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let (bucket, _) = self.buckets.first_key_value()?;
        self.base.checked_add(Duration::from_millis(u64::from(*bucket).saturating_mul(self.bucket_ms)))
    }

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now: Now) -> Due {
        let mut due = Due::default();
        while self.due_at().is_some_and(|at| at <= now.at) {
            let Some((_, bucket)) = self.buckets.pop_first() else { break };
            for ((ledger, word), mut bits) in bucket {
                while bits != 0 {
                    let entry = word << 6 | i64::from(bits.trailing_zeros());
                    bits &= bits - 1;
                    let wait = self.forget(ledger, entry);
                    let position = EntryPosition { ledger_id: ledger as u64, entry_id: entry as u64 };
                    if wait.is_some_and(|wait| wait.reason() == WaitReason::Delivered) {
                        due.timed_out.push(position);
                    }
                    due.positions.push(position);
                }
            }
        }
        due.positions.sort_unstable();
        due.timed_out.sort_unstable();
        due
    }

    fn forget(&mut self, ledger: Ledger, entry: i64) -> Option<Wait> {
        let entries = self.waits.get_mut(&ledger)?;
        let wait = entries.remove(&entry)?;
        if entries.is_empty() {
            self.waits.remove(&ledger);
        }
        self.len -= 1;
        Some(wait)
    }

    fn clear_bit(&mut self, bucket: u32, ledger: Ledger, entry: i64) {
        let Some(words) = self.buckets.get_mut(&bucket) else { return };
        if let Entry::Occupied(mut word) = words.entry((ledger, entry >> 6)) {
            *word.get_mut() &= !bit(entry);
            if *word.get() == 0 {
                word.remove();
            }
        }
        if words.is_empty() {
            self.buckets.remove(&bucket);
        }
    }
}

fn key(position: EntryPosition) -> (Ledger, i64) {
    (position.ledger_id as i64, position.entry_id as i64)
}

/// The bit of an entry in its word.
fn bit(entry: i64) -> u64 {
    1 << (entry & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ledger_id: u64, entry_id: u64) -> EntryPosition {
        EntryPosition { ledger_id, entry_id }
    }

    fn delayed() -> (Delayed, Now) {
        let now = Now { at: Instant::now(), wall_ms: 0 };
        (Delayed::new(Duration::from_secs(1), now), now)
    }

    fn later(now: Now, ms: u64) -> Now {
        Now { at: now.at + Duration::from_millis(ms), ..now }
    }

    #[test]
    fn each_entry_is_due_once_after_its_own_delay() {
        let (mut delayed, now) = delayed();
        for (entry, ms) in [(0, 1000), (63, 5000), (64, 1000), (u64::MAX, 2000)] {
            assert!(delayed.insert(at(3, entry), WaitReason::Nacked, Duration::from_millis(ms), now));
        }
        assert_eq!(delayed.take_due(later(now, 999)), Due::default());
        assert_eq!(delayed.take_due(later(now, 1250)).positions, [at(3, 0), at(3, 64)]);
        assert_eq!(delayed.take_due(later(now, 10_000)).positions, [at(3, u64::MAX), at(3, 63)]);
        assert_eq!((delayed.due_at(), delayed.len, delayed.waits.len()), (None, 0, 0));
    }

    #[test]
    fn a_nack_replaces_the_timeout_and_nothing_replaces_a_nack() {
        let (mut delayed, now) = delayed();
        let ms = Duration::from_millis;
        delayed.insert(at(1, 1), WaitReason::Delivered, ms(1000), now);
        delayed.insert(at(1, 1), WaitReason::Nacked, ms(5000), now);
        delayed.insert(at(1, 1), WaitReason::Nacked, ms(1000), now);
        delayed.insert(at(1, 2), WaitReason::Delivered, ms(1000), now);
        let due = delayed.take_due(later(now, 2000));
        assert_eq!((due.positions, due.timed_out), (vec![at(1, 2)], vec![at(1, 2)]));
        let due = delayed.take_due(later(now, 6000));
        assert_eq!((due.positions, due.timed_out), (vec![at(1, 1)], vec![]));
    }

    #[test]
    fn what_is_acknowledged_is_not_due() {
        let (mut delayed, now) = delayed();
        for position in [at(1, 5), at(2, 0), at(2, 1), at(2, 2), at(3, 0)] {
            delayed.insert(position, WaitReason::Nacked, Duration::from_secs(1), now);
        }
        delayed.remove(at(9, 9));
        delayed.remove(at(3, 0));
        delayed.remove_up_to(at(2, 1));
        assert_eq!(delayed.len, 1);
        assert_eq!(delayed.take_due(later(now, 2000)).positions, [at(2, 2)]);
        assert!(delayed.buckets.is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let (mut delayed, now) = delayed();
        delayed.len = ENTRIES_MAX;
        assert!(!delayed.insert(at(1, 1), WaitReason::Nacked, Duration::ZERO, now));
    }

    #[test]
    fn the_longest_delay_is_not_due_within_a_year() {
        let (mut delayed, now) = delayed();
        delayed.insert(at(1, 1), WaitReason::Nacked, Duration::MAX, now);
        assert!(delayed.due_at().is_some_and(|at| at > now.at + Duration::from_secs(365 * 86_400)));
    }
}
