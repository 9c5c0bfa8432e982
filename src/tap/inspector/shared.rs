//! What outlives a connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::SequenceIds;

/// Topics whose producers are remembered, and subscriptions whose deliveries are; what comes later is not judged.
const NAMES_MAX: usize = 20_000;

/// Ledgers of one subscription; beyond it the first is forgotten.
const LEDGERS_MAX: usize = 256;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Shared {
    /// Nothing was missed since the capture began.
    pub(super) is_whole: bool,
    topics: Table<Arc<str>, SequenceIds>,
    subscriptions: Table<(Arc<str>, Arc<str>), Delivered>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { is_whole: true, topics: Table::default(), subscriptions: Table::default() }
    }
}

impl Shared {
    /// The number of the sequence ids of a topic.
    pub(super) fn topic(&mut self, topic: &Arc<str>) -> Option<usize> {
        self.topics.index(topic.clone())
    }

    pub(super) fn sequences(&mut self, index: Option<usize>) -> Option<&mut SequenceIds> {
        self.topics.values.get_mut(index?)
    }

    /// The number of what a subscription was sent.
    pub(super) fn subscription(&mut self, topic: &Arc<str>, name: &Arc<str>) -> Option<usize> {
        self.subscriptions.index((topic.clone(), name.clone()))
    }

    pub(super) fn delivered(&mut self, index: Option<usize>) -> Option<&mut Delivered> {
        self.subscriptions.values.get_mut(index?)
    }
}

/// Values by name, and by their number.
#[derive(Debug)]
struct Table<K, V> {
    indices: BTreeMap<K, usize>,
    values: Vec<V>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { indices: BTreeMap::new(), values: Vec::new() }
    }
}

impl<K: Ord, V: Default> Table<K, V> {
    fn index(&mut self, key: K) -> Option<usize> {
        let next = self.values.len();
        if let Some(index) = self.indices.get(&key) {
            return Some(*index);
        }
        if next >= NAMES_MAX {
            return None;
        }
        self.indices.insert(key, next);
        self.values.push(V::default());
        Some(next)
    }
}

/// How far a subscription was sent each ledger, over all of its consumers.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// The last entry of each.
    ledgers: BTreeMap<u64, u64>,
    is_forgetful: bool,
}

impl Delivered {
    pub(super) fn note(&mut self, ledger: u64, entry: u64) {
        if let Some(last) = self.ledgers.get_mut(&ledger) {
            *last = (*last).max(entry);
            return;
        }
        if self.ledgers.len() >= LEDGERS_MAX {
            self.is_forgetful = true;
            self.ledgers.pop_first();
        }
        self.ledgers.insert(ledger, entry);
    }

    /// Whether an entry may have been sent.
    pub(super) fn may_have(&self, ledger: u64, entry: u64) -> bool {
        self.is_forgetful || self.ledgers.get(&ledger).is_some_and(|last| entry <= *last)
    }
}
