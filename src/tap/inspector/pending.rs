//! What waits, in the order of its coming, and found by its id: a peer chooses the ids, and may answer in any order.

use std::collections::{BTreeMap, BTreeSet};

/// See the [module](self). Several entries may have one id.
#[derive(Debug)]
pub(super) struct Pending<T> {
    /// By the number of its coming: its id, and what it is.
    entries: BTreeMap<u64, (u64, T)>,
    /// Id and number.
    ids: BTreeSet<(u64, u64)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ids: BTreeSet::new() }
    }
}

impl<T> Pending<T> {
    /// `number` is above all before.
    pub(super) fn insert(&mut self, number: u64, id: u64, value: T) {
        self.entries.insert(number, (id, value));
        self.ids.insert((id, number));
    }

    /// The number of the first one with this id.
    pub(super) fn find(&self, id: u64) -> Option<u64> {
        first(&self.ids, id)
    }

    /// The number of the oldest one.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(number, _)| *number)
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    pub(super) fn remove_oldest(&mut self) {
        if let Some(number) = self.oldest() {
            self.remove(number);
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let (id, value) = self.entries.remove(&number)?;
        self.ids.remove(&(id, number));
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The lowest number with an id.
pub(super) fn first(ids: &BTreeSet<(u64, u64)>, id: u64) -> Option<u64> {
    ids.range((id, 0)..=(id, u64::MAX)).next().map(|(_, number)| *number)
}
