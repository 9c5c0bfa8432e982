//! Shared: selects consumers in round robin.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::ids::ConsumerKey;

/// Chunked messages of a subscription whose consumer is remembered; beyond it one is forgotten.
const CHUNKED_MAX: usize = 10_000;

/// Consumers take turns by their index. All chunks of a message go to the consumer that got the first.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    turn: usize,
    chunk_owners: BTreeMap<Arc<str>, ConsumerKey>,
}

impl RoundRobin {
    /// Indices of `consumers` consumers, starting with the next one to be served.
    pub(crate) fn order(&self, consumers: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.turn.checked_rem(consumers).unwrap_or(0);
        (first..consumers).chain(0..first)
    }

    pub(crate) fn advance(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    pub(crate) fn set(&mut self, index: usize) {
        self.turn = index;
    }

    /// The consumer of a chunked message: the one that got its first chunk, else `next`.
    pub(crate) fn chunk_owner(&mut self, uuid: &Arc<str>, next: ConsumerKey) -> ConsumerKey {
        if self.chunk_owners.len() >= CHUNKED_MAX {
            self.chunk_owners.pop_first();
        }
        *self.chunk_owners.entry(Arc::clone(uuid)).or_insert(next)
    }

    /// The last chunk went out.
    pub(crate) fn end_chunks(&mut self, uuid: &Arc<str>) {
        self.chunk_owners.remove(uuid);
    }

    /// A consumer is gone; its chunked messages go to others.
    pub(super) fn remove(&mut self, key: ConsumerKey) {
        self.chunk_owners.retain(|_, owner| *owner != key);
    }

    /// The last consumer is gone.
    pub(super) fn restart(&mut self) {
        self.turn = 0;
    }
}
