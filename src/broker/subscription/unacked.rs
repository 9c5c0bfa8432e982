//! What the consumers of one subscription hold: entries that were sent and are not acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::ids::ConsumerKey;

/// Names of former holders remembered for one entry; acks of further ones count as violations.
const HOLDERS_MAX: usize = 100;

/// An entry that one consumer holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldEntry {
    pub(super) consumer: ConsumerKey,
    /// Messages of it not acknowledged.
    pub(super) messages: u32,
    /// Key_Shared slot, 0 elsewhere.
    slot: u32,
}

/// Held entries and their history, by offset. Bounded by the entries stored.
#[derive(Debug, Default)]
pub(super) struct UnackedEntries {
    held: BTreeMap<u64, HeldEntry>,
    /// How often an entry was sent before, as `redelivery_count` of MESSAGE counts.
    redeliveries: BTreeMap<u64, u32>,
    /// Consumers that were sent an entry and no longer hold it: an ack of theirs may still come.
    former_holders: BTreeMap<u64, Vec<Arc<str>>>,
    /// Key_Shared: the consumer that holds entries of a slot, and how many.
    slot_holders: BTreeMap<u32, (ConsumerKey, u32)>,
    /// Messages of all held entries.
    messages: u64,
}

impl UnackedEntries {
    pub(super) fn hold(&mut self, offset: u64, consumer: ConsumerKey, messages: u32, slot: u32) {
        self.messages += u64::from(messages);
        if let Some(before) = self.held.insert(offset, HeldEntry { consumer, messages, slot }) {
            self.messages -= u64::from(before.messages);
        }
        if slot != 0 {
            self.slot_holders.entry(slot).or_insert((consumer, 0)).1 += 1;
        }
    }

    /// Messages that are held, over all consumers.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    pub(super) fn holder(&self, offset: u64) -> Option<ConsumerKey> {
        self.held.get(&offset).map(|held| held.consumer)
    }

    /// The consumer that holds unacknowledged entries of this slot.
    pub(super) fn slot_holder(&self, slot: u32) -> Option<ConsumerKey> {
        self.slot_holders.get(&slot).map(|(consumer, _)| *consumer)
    }

    /// Offsets a consumer holds, in order.
    pub(super) fn held_by(&self, key: ConsumerKey) -> Vec<u64> {
        self.held.iter().filter(|(_, held)| held.consumer == key).map(|(offset, _)| *offset).collect()
    }

    /// All that is held, in order.
    pub(super) fn all(&self) -> Vec<(u64, ConsumerKey)> {
        self.held.iter().map(|(offset, held)| (*offset, held.consumer)).collect()
    }

    /// What is held below `offset`, in order.
    pub(super) fn below(&self, offset: u64) -> Vec<u64> {
        self.held.range(..offset).map(|(offset, _)| *offset).collect()
    }

    /// Takes an entry from its holder.
    pub(super) fn unhold(&mut self, offset: u64) -> Option<HeldEntry> {
        let held = self.held.remove(&offset)?;
        self.messages -= u64::from(held.messages);
        if let Some((_, entries)) = self.slot_holders.get_mut(&held.slot) {
            *entries -= 1;
            if *entries == 0 {
                self.slot_holders.remove(&held.slot);
            }
        }
        Some(held)
    }

    /// Only `left` messages of a held entry are still unacknowledged: returns its holder and how many were acknowledged.
    pub(super) fn shrink(&mut self, offset: u64, left: u32) -> Option<(ConsumerKey, u32)> {
        let held = self.held.get_mut(&offset)?;
        let acknowledged = held.messages.saturating_sub(left);
        self.messages -= u64::from(held.messages.saturating_sub(left));
        held.messages = held.messages.min(left);
        Some((held.consumer, acknowledged))
    }

    pub(super) fn redelivery_count(&self, offset: u64) -> u32 {
        self.redeliveries.get(&offset).copied().unwrap_or(0)
    }

    pub(super) fn count_redelivery(&mut self, offset: u64) {
        *self.redeliveries.entry(offset).or_insert(0) += 1;
    }

    pub(super) fn forget_redeliveries(&mut self) {
        self.redeliveries.clear();
    }

    pub(super) fn remember_holder(&mut self, offset: u64, name: Arc<str>) {
        let names = self.former_holders.entry(offset).or_default();
        if !names.contains(&name) && names.len() < HOLDERS_MAX {
            names.push(name);
        }
    }

    pub(super) fn was_held_by(&self, offset: u64, name: &Arc<str>) -> bool {
        self.former_holders.get(&offset).is_some_and(|names| names.contains(name))
    }

    /// Whether any consumer was sent the entry and no longer holds it.
    pub(super) fn was_held(&self, offset: u64) -> bool {
        self.former_holders.contains_key(&offset)
    }

    /// Drops the history of an acknowledged entry; [`unhold`](Self::unhold) takes it from its holder.
    pub(super) fn forget(&mut self, offset: u64) {
        self.redeliveries.remove(&offset);
        self.former_holders.remove(&offset);
    }

    /// Drops the history of every entry below `offset`.
    pub(super) fn forget_below(&mut self, offset: u64) {
        self.redeliveries = self.redeliveries.split_off(&offset);
        self.former_holders = self.former_holders.split_off(&offset);
    }
}
