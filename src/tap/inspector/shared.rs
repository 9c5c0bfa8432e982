//! What outlives a connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::{SentFrame, SequenceIds};
use crate::tap::budget::{Budget, Share};

/// Topics whose producers are remembered, and subscriptions whose deliveries are; what comes later is not judged.
const NAMES_MAX: usize = 20_000;

/// Ledgers of one subscription; beyond it the first is forgotten.
const LEDGERS_MAX: usize = 256;

/// What is known of the endpoints of all connections, and what waits on them, bytes.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// What outlives connections, bytes. It is never given back as a whole, so it has a bound of its own.
const HISTORY_BYTES_MAX: usize = 256 << 20;

/// Frames that are not whole yet, of all connections, bytes.
const UNFINISHED_BYTES_MAX: usize = 256 << 20;

/// What a name takes without its letters, and one ledger of a subscription, bytes.
const NAME_BYTES: usize = 128;
const LEDGER_BYTES: usize = 48;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Shared {
    /// Nothing was missed since the capture began.
    pub(super) is_whole: bool,
    topics: Table<Arc<str>, SequenceIds>,
    subscriptions: Table<(Arc<str>, Arc<str>), Delivered>,
    /// What the tables hold.
    share: Share,
    pub(super) kept: Budget,
    pub(super) unfinished: Budget,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(KEPT_BYTES_MAX, HISTORY_BYTES_MAX, UNFINISHED_BYTES_MAX)
    }
}

impl Shared {
    /// The bounds are in bytes: of what is known of connections, of what outlives them, and of frames that are not whole.
    pub(super) fn new(kept_max: usize, history_max: usize, unfinished_max: usize) -> Self {
        Self {
            is_whole: true,
            topics: Table::default(),
            subscriptions: Table::default(),
            share: Budget::new(history_max).share(),
            kept: Budget::new(kept_max),
            unfinished: Budget::new(unfinished_max),
        }
    }

    /// The number of the sequence ids of a topic.
    pub(super) fn topic(&mut self, topic: &Arc<str>) -> Option<usize> {
        self.topics.index(topic.clone(), topic.len(), &mut self.share)
    }

    /// What an epoch is compared with; `None` for a producer of whom nothing is known.
    pub(super) fn epoch(&self, topic: Option<usize>, name: &str) -> Option<u64> {
        self.topics.values.get(topic?)?.epoch(name)
    }

    pub(super) fn raise_epoch(&mut self, topic: Option<usize>, name: &str, epoch: u64) {
        if let Some(sequences) = topic.and_then(|index| self.topics.values.get_mut(index)) {
            sequences.raise_epoch(name, epoch);
        }
    }

    /// A producer with no past.
    pub(super) fn start(&mut self, topic: Option<usize>, name: Arc<str>, epoch: u64) {
        self.change_sequences(topic, |sequences, is_full| {
            sequences.forget_sent(&name);
            if !is_full {
                sequences.start(name, epoch);
            }
        });
    }

    /// Whether a SEND has an id that is new or its own.
    pub(super) fn note_sent(&mut self, topic: Option<usize>, name: &str, frame: &SentFrame) -> bool {
        let is_fine = self.change_sequences(topic, |sequences, is_full| {
            if is_full {
                sequences.forget_sent(name);
            }
            sequences.note_sent(name, frame)
        });
        is_fine.unwrap_or(true)
    }

    fn change_sequences<T>(
        &mut self,
        topic: Option<usize>,
        change: impl FnOnce(&mut SequenceIds, bool) -> T,
    ) -> Option<T> {
        let sequences = self.topics.values.get_mut(topic?)?;
        let before = sequences.sent_bytes();
        let result = change(sequences, self.share.is_full());
        self.share.change(before, sequences.sent_bytes());
        Some(result)
    }

    /// The number of what a subscription was sent.
    pub(super) fn subscription(&mut self, topic: &Arc<str>, name: &Arc<str>) -> Option<usize> {
        let size = topic.len() + name.len();
        self.subscriptions.index((topic.clone(), name.clone()), size, &mut self.share)
    }

    pub(super) fn delivered(&self, index: Option<usize>) -> Option<&Delivered> {
        self.subscriptions.values.get(index?)
    }

    /// A subscription was sent an entry.
    pub(super) fn note_delivered(&mut self, index: Option<usize>, ledger: u64, entry: u64) {
        let Some(delivered) = index.and_then(|index| self.subscriptions.values.get_mut(index)) else { return };
        let before = delivered.ledgers.len();
        delivered.note(ledger, entry, self.share.is_full());
        self.share.change(before * LEDGER_BYTES, delivered.ledgers.len() * LEDGER_BYTES);
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
    /// `size`: of the key, bytes.
    fn index(&mut self, key: K, size: usize, share: &mut Share) -> Option<usize> {
        let next = self.values.len();
        if let Some(index) = self.indices.get(&key) {
            return Some(*index);
        }
        if next >= NAMES_MAX || share.is_full() {
            return None;
        }
        self.indices.insert(key, next);
        self.values.push(V::default());
        share.change(0, NAME_BYTES + size);
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
    fn note(&mut self, ledger: u64, entry: u64, is_full: bool) {
        if let Some(last) = self.ledgers.get_mut(&ledger) {
            *last = (*last).max(entry);
            return;
        }
        if is_full || self.ledgers.len() >= LEDGERS_MAX {
            self.is_forgetful = true;
            self.ledgers.pop_first();
        }
        if is_full {
            return;
        }
        self.ledgers.insert(ledger, entry);
    }

    /// Whether an entry may have been sent.
    pub(super) fn may_have(&self, ledger: u64, entry: u64) -> bool {
        self.is_forgetful || self.ledgers.get(&ledger).is_some_and(|last| entry <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_connections_is_bounded() {
        const BYTES_MAX: usize = 50_000;
        let mut shared = Shared::new(usize::MAX, BYTES_MAX, usize::MAX);
        for number in 0..1_000u64 {
            let topic: Arc<str> = format!("topic-{}", number % 40).into();
            let (index, name) = (shared.topic(&topic), Arc::<str>::from(format!("producer-{number}")));
            shared.start(index, Arc::clone(&name), 0);
            for sequence_id in (0..20).chain([3]) {
                let crc32c = sequence_id as u32;
                let frame = SentFrame { sequence_id, highest_sequence_id: sequence_id, crc32c, is_chunk: false };
                assert!(shared.note_sent(index, &name, &frame));
            }
            let index = shared.subscription(&topic, &name);
            shared.note_delivered(index, number, 7);
            assert!(shared.delivered(index).is_none_or(|delivered| delivered.may_have(number, 7)));
            assert!(shared.share.bytes() < BYTES_MAX + 1_000, "{}", shared.share.bytes());
        }
        assert!(shared.share.is_full() || shared.share.bytes() > BYTES_MAX / 2);
    }
}
