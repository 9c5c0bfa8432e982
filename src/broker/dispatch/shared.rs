//! Shared: consumers in turn.

use super::Dispatcher;
use crate::broker::ids::ConsumerKey;
use crate::broker::storage::StoredEntry;

/// Entries in a row that one consumer gets before the next one's turn.
const RUN_ENTRIES: u32 = 20;

impl Dispatcher<'_> {
    pub(super) fn dispatch_shared(&mut self) {
        // Chunks whose consumer cannot take more now: they wait for it, others are sent meanwhile.
        let mut waiting = Vec::new();
        let mut run = 0;
        while let Some((offset, entry)) = self.sub.queue.next_entry(&self.sub.cursor, self.log) {
            let Some(next) = self.next_in_turn(&mut run).filter(|_| self.is_within_rates()) else { break };
            self.sub.queue.take(offset);
            if self.drop_if_undeliverable(offset, entry) || self.delay_if_early(offset, entry) {
                continue;
            }
            let Some(key) = self.chunk_consumer(entry, next) else {
                waiting.push(offset);
                continue;
            };
            self.send(offset, entry, key, 0);
            if key == next {
                run += 1;
            }
        }
        for offset in waiting {
            self.sub.queue.put_back(offset);
        }
        if run > 0 {
            self.sub.rotation.advance();
        }
    }

    /// The next consumer in round robin, among those of the best priority level that have permits. `run` counts the entries
    /// it got in a row; after [`RUN_ENTRIES`] the next one is selected.
    fn next_in_turn(&mut self, run: &mut u32) -> Option<ConsumerKey> {
        let able: Vec<bool> = (0..self.sub.consumers.len()).map(|index| self.can_take(index)).collect();
        let consumers = &self.sub.consumers;
        let best = consumers.iter().zip(&able).filter(|(_, able)| **able).map(|(one, _)| one.priority).min()?;
        if *run >= RUN_ENTRIES {
            self.sub.rotation.advance();
            *run = 0;
        }
        for (step, index) in self.sub.rotation.order(consumers.len()).enumerate() {
            let Some(consumer) = consumers.at(index).filter(|one| able[index] && one.priority == best) else {
                continue;
            };
            // Those before it cannot take anything: they lose their turn.
            if step > 0 {
                self.sub.rotation.set(index);
                *run = 0;
            }
            return Some(consumer.key);
        }
        None
    }

    /// All chunks of a message go to the consumer that got the first; `None` while that one cannot take more.
    fn chunk_consumer(&mut self, entry: &StoredEntry, next: ConsumerKey) -> Option<ConsumerKey> {
        let Some(chunk) = &entry.info.chunk else { return Some(next) };
        let owner = self.sub.rotation.chunk_owner(&chunk.uuid, next);
        let index = self.sub.consumers.index_of(owner)?;
        if !self.can_take(index) {
            return None;
        }
        if chunk.is_last {
            self.sub.rotation.end_chunks(&chunk.uuid);
        }
        Some(owner)
    }
}
