//! The memory of entries that wait for the application: how many each consumer of a client may have on their way.
//!
//! Pulsar counts permits in messages, and a broker answers a permit with an entry of any size. So the budget is kept by
//! the sizes that were seen: each consumer has an equal share of the limit, and grants no more permits than entries of the
//! mean size fit into what its share has left. The mean rises by a quarter of the difference and falls by a 64th, so that
//! a few large entries among small ones count. A consumer begins with one permit, and may have one more than the
//! entries it has received so far, which doubles them with each round trip: nothing is known of the size of the first ones.
//!
//! Shares get smaller as consumers come, and what was granted cannot be taken back. So a consumer also grants no more than
//! what all of them leave free of the limit: those that came first may have more than their share until it is received.
//!
//! A consumer with nothing queued always has a permit, so none is ever stuck.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// By how much the mean rises at once, as a part of the difference.
const RISE_DIVISOR: u64 = 4;

/// By how much the mean falls at once, as a part of the difference.
const FALL_DIVISOR: u64 = 64;

/// What all consumers of a client share.
#[derive(Debug)]
pub struct ReceiveBudget {
    limit: usize,
    /// Consumers that have not ended: one for each topic or partition.
    consumers: AtomicUsize,
    /// What is here and on its way to all of them, bytes, by the sizes that each has seen.
    used: AtomicU64,
}

impl ReceiveBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { limit: limit.get(), consumers: AtomicUsize::new(0), used: AtomicU64::new(0) })
    }

    /// What a consumer may use that uses `own`, bytes: an equal part of the limit, and no more than the others leave of it.
    fn share(&self, own: u64) -> u64 {
        let part = (self.limit / self.consumers.load(Ordering::Relaxed).max(1)) as u64;
        let others = self.used.load(Ordering::Relaxed).saturating_sub(own);
        part.min((self.limit as u64).saturating_sub(others))
    }
}

/// What one consumer knows of its entries. Belongs to the consumer, under its lock.
#[derive(Debug)]
pub(super) struct ReceiveShare {
    budget: Arc<ReceiveBudget>,
    /// The most that it may use, bytes, as it was at its last input: that others come and go, and what they use, wakes no
    /// task.
    share: u64,
    /// What it has counted of the budget, bytes.
    used: u64,
    /// Of an entry, bytes.
    entry_bytes: u64,
    /// Of a message, bytes: less where entries are batches.
    message_bytes: u64,
    /// Entries that have arrived.
    entries: u64,
}

impl ReceiveShare {
    pub(super) fn new(budget: Arc<ReceiveBudget>) -> Self {
        budget.consumers.fetch_add(1, Ordering::Relaxed);
        Self { share: budget.share(0), used: 0, budget, entry_bytes: 0, message_bytes: 0, entries: 0 }
    }

    /// Something has happened to the consumer, after which it looks whether permits are to be granted.
    pub(super) fn on_input(&mut self) {
        self.share = self.budget.share(self.used);
    }

    /// So many messages are on their way, or here.
    pub(super) fn count(&mut self, outstanding: i64, here: i64) {
        let [outstanding, here] = [outstanding, here].map(|messages| u64::try_from(messages).unwrap_or(0));
        let of_entries = outstanding.saturating_mul(self.entry_bytes);
        let used = here.saturating_mul(self.message_bytes).saturating_add(of_entries);
        if used > self.used {
            self.budget.used.fetch_add(used - self.used, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.used - used, Ordering::Relaxed);
        }
        self.used = used;
    }

    /// An entry has arrived, for which the broker has charged `permits`.
    pub(super) fn observe(&mut self, bytes: usize, permits: u32) {
        let bytes = bytes as u64;
        self.entry_bytes = follow(self.entry_bytes, bytes);
        self.message_bytes = follow(self.message_bytes, bytes / u64::from(permits.max(1)));
        self.entries = self.entries.saturating_add(1);
    }

    /// How many entries of the mean size the whole share takes: at least one, and no more than experience allows.
    pub(super) fn entries_max(&self) -> i64 {
        self.entries_in(self.share).max(1)
    }

    fn entries_in(&self, bytes: u64) -> i64 {
        let entries = (bytes / self.entry_bytes.max(1)).min(self.entries.saturating_add(1));
        i64::try_from(entries).unwrap_or(i64::MAX)
    }

    /// How many permits the broker may have, if `queued` messages wait to be taken and `taken` ones were.
    pub(super) fn outstanding_max(&self, queued: i64, taken: i64) -> i64 {
        let here = queued.saturating_add(taken).unsigned_abs().saturating_mul(self.message_bytes);
        let least = i64::from(queued == 0 && !mutation!(NoLeastPermit));
        self.entries_in(self.share.saturating_sub(here)).max(least)
    }
}

/// The mean after one more value.
fn follow(mean: u64, value: u64) -> u64 {
    if value >= mean {
        // The first one is all that is known.
        if mean == 0 { value } else { mean + (value - mean).div_ceil(RISE_DIVISOR) }
    } else {
        mean - (mean - value).div_ceil(FALL_DIVISOR)
    }
}

impl Drop for ReceiveShare {
    fn drop(&mut self) {
        self.count(0, 0);
        self.budget.consumers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn share(limit: usize) -> ReceiveShare {
        ReceiveShare::new(ReceiveBudget::new(NonZeroUsize::new(limit).expect("a limit")))
    }

    #[test]
    fn permits_double_with_each_round_trip_up_to_the_share() {
        let mut share = share(100_000);
        let mut granted = Vec::new();
        for _ in 0..12 {
            let permits = share.outstanding_max(0, 0);
            granted.push(permits);
            (0..permits).for_each(|_| share.observe(100, 1));
        }
        assert_eq!(granted[..5], [1, 2, 4, 8, 16]);
        assert_eq!(granted[11], 1000, "100,000 / 100");
    }

    #[test]
    fn large_entries_leave_few_permits_and_what_is_here_counts() {
        let mut share = share(20 * MIB);
        (0..100).for_each(|_| share.observe(5 * MIB, 1));
        assert_eq!((share.entries_max(), share.outstanding_max(0, 0)), (4, 4));
        assert_eq!((share.outstanding_max(1, 2), share.outstanding_max(4, 0), share.outstanding_max(9, 0)), (1, 0, 0));
        assert_eq!(share.outstanding_max(0, 9), 1, "with nothing queued there is always one");
    }

    #[test]
    fn a_permit_counts_as_an_entry_where_entries_are_batches() {
        let mut share = share(MIB);
        (0..100).for_each(|_| share.observe(100_000, 1000));
        assert_eq!(share.outstanding_max(0, 0), 10);
        assert_eq!(share.outstanding_max(5000, 0), 5, "half of the share is here");
    }

    #[test]
    fn the_share_is_divided_among_the_consumers_that_have_not_ended() {
        let mut first = share(10 * MIB);
        (0..100).for_each(|_| first.observe(MIB, 1));
        let second = ReceiveShare::new(first.budget.clone());
        first.on_input();
        assert_eq!(first.entries_max(), 5);
        drop(second);
        assert_eq!(first.entries_max(), 5, "until something happens to it");
        first.on_input();
        assert_eq!(first.entries_max(), 10);
    }

    #[test]
    fn those_that_come_one_after_the_other_stay_within_the_limit_together() {
        let first = share(MIB);
        let mut shares = vec![];
        for _ in 0..100 {
            let mut one = ReceiveShare::new(first.budget.clone());
            let mut queued = 0;
            loop {
                let permits = one.outstanding_max(queued, 0);
                if permits == 0 {
                    break;
                }
                (0..permits).for_each(|_| one.observe(1000, 1));
                queued += permits;
                one.count(0, queued);
            }
            shares.push((one, queued));
        }
        let all: i64 = shares.iter().map(|(_, queued)| queued).sum();
        assert!(all <= 1048 + 100, "{all} entries of 1,000 bytes, and one of each");
        assert!(shares.iter().all(|(_, queued)| *queued > 0));
        shares.clear();
        assert_eq!(first.budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn few_large_entries_among_small_ones_are_not_forgotten() {
        let mut share = share(8 * MIB);
        for number in 0..1000 {
            share.observe(if number % 50 == 0 { MIB } else { 100 }, 1);
        }
        assert!(share.entries_max() < 100, "{}", share.entries_max());
        (0..2000).for_each(|_| share.observe(100, 1));
        assert!(share.entries_max() > 2000, "{}", share.entries_max());
    }
}
