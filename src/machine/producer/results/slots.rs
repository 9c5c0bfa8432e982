//! Results that several sends or batches share.

use std::sync::Arc;

use super::{ResultsKind, SendResults};

/// How many sends outside batches share one allocation.
pub(crate) const SEND_SLOTS: u8 = 64;

/// How many batches of different keys share one allocation, so that the reference count which each message changes stays in the
/// cache where every message has another key. The wakers of all of them are one list, which is searched.
pub(super) const KEY_BATCH_SLOTS: u8 = 8;

/// Gives out one slot after the other, and allocates for all of them together.
#[derive(Debug)]
pub(crate) struct SendSlots {
    partition: i32,
    kind: ResultsKind,
    free: u8,
    results: Option<Arc<SendResults>>,
}

impl SendSlots {
    pub(crate) fn new(partition: i32, kind: ResultsKind) -> Self {
        Self { partition, kind, free: 0, results: None }
    }

    /// Whether no slot of the present results is free.
    #[inline]
    pub(crate) fn is_used_up(&self) -> bool {
        self.free == 0
    }

    /// Results of which a slot is free; `open` makes them where there are none.
    pub(crate) fn results(&mut self, open: impl FnOnce(i32, ResultsKind) -> Arc<SendResults>) -> &Arc<SendResults> {
        if self.free == 0 {
            self.free = self.kind.slots();
            self.results = None;
        }
        self.results.get_or_insert_with(|| open(self.partition, self.kind))
    }

    /// Takes a slot of [`results`](Self::results), of which one is free.
    #[inline]
    pub(crate) fn take(&mut self) -> u32 {
        let slot = self.kind.slots() - self.free;
        self.free -= 1;
        u32::from(slot)
    }

    /// Results with a slot for a batch, and the index of its first member.
    pub(crate) fn take_batch(&mut self) -> (Arc<SendResults>, u32) {
        // Many of them are open at a time, each for the messages of another key.
        let results = self.results(|partition, kind| SendResults::new(partition, kind, false)).clone();
        let first = self.take() << self.kind.member_bits();
        (results, first)
    }
}
