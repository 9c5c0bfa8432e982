//! Key_Shared: each entry to the consumer that its key belongs to, the entries of a key in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dispatcher, READ_ENTRIES_MAX};
use crate::broker::ids::ConsumerKey;
use crate::broker::storage::StoredEntry;

/// Entries that may wait for their key's consumer before reading ahead stops.
const WAITING_ENTRIES_MAX: usize = 2_000;

/// One read: what each consumer may still get in it, and which keys have to wait.
struct Round {
    /// Entries; at the start as many as the consumer had permits.
    allowances: BTreeMap<ConsumerKey, u64>,
    /// Slots of which an entry had to wait: later ones of the same key wait to the end of the round, to keep its order.
    waiting_slots: BTreeSet<u32>,
    sent: u64,
}

impl Round {
    fn is_over(&self) -> bool {
        self.sent >= READ_ENTRIES_MAX || self.allowances.values().all(|left| *left == 0)
    }
}

impl Dispatcher<'_> {
    /// Reads again and again until a round sends nothing.
    pub(super) fn dispatch_key_shared(&mut self) {
        loop {
            let mut allowances = BTreeMap::new();
            for index in 0..self.sub.consumers.len() {
                if self.can_take(index) {
                    if let Some(consumer) = self.sub.consumers.at(index) {
                        allowances.insert(consumer.key, consumer.permits.unsigned_abs());
                    }
                }
            }
            if self.key_shared_round(Round { allowances, waiting_slots: BTreeSet::new(), sent: 0 }) == 0 {
                return;
            }
        }
    }

    /// One read: entries to be sent again first, then unread ones. Returns how many were sent.
    fn key_shared_round(&mut self, mut round: Round) -> u64 {
        let mut last = None;
        while !round.is_over() {
            let Some(offset) = self.next_of_round(last).filter(|_| self.is_within_rates()) else { break };
            last = Some(offset);
            let Some(entry) = self.log.get(offset) else {
                self.sub.queue.forget(offset);
                continue;
            };
            self.sub.queue.take(offset);
            if self.sub.cursor.is_acked(offset)
                || self.drop_if_undeliverable(offset, entry)
                || self.delay_if_early(offset, entry)
            {
                continue;
            }
            self.send_or_wait(offset, entry, &mut round);
        }
        round.sent
    }

    /// The next entry of a round that came to `last`. Unread ones are left alone while too many wait already.
    fn next_of_round(&mut self, last: Option<u64>) -> Option<u64> {
        match self.sub.queue.next_replay(last) {
            Some(offset) => Some(offset),
            None if self.sub.queue.replay_len() < WAITING_ENTRIES_MAX => self.next_unread().map(|(offset, _)| offset),
            None => None,
        }
    }

    /// Sends an entry to the consumer of its key. It waits instead if
    /// - the key belongs to no consumer, or an earlier entry of it waits in this round,
    /// - another consumer still holds unacknowledged entries of the key,
    /// - the consumer has no permits left, or its connection no room.
    fn send_or_wait(&mut self, offset: u64, entry: &StoredEntry, round: &mut Round) {
        let (slot, owner) = self.sub.owner_of(entry.info.key_hash);
        let is_free = |key: &ConsumerKey| !round.waiting_slots.contains(&slot) && !self.sub.is_draining(slot, *key);
        if let Some(key) = owner.filter(is_free) {
            let left = round.allowances.get_mut(&key).filter(|left| **left > 0);
            if let Some(left) = left.filter(|_| self.connections.has_room(key.conn)) {
                *left -= 1;
                round.sent += 1;
                return self.send(offset, entry, key, slot);
            }
        }
        round.waiting_slots.insert(slot);
        self.sub.queue.put_back(offset);
    }
}
