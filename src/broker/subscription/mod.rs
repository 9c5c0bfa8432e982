//! One subscription: its cursor, its consumers, and what each of them holds unacknowledged.
//!
//! Delivery is in [`dispatch`](super::dispatch); this file keeps the books.

pub(crate) mod key_hashing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::broker::machine::ConnId;
use crate::broker::storage::cursor::Cursor;
use crate::broker::storage::log::EntryFacts;
use crate::broker::subscription::key_hashing::{self as hashing, Ring};
use crate::pb::command_subscribe::SubType;

/// Names of former holders remembered for one entry; acks of further ones look unfounded to the judge.
const HOLDERS_MAX: usize = 100;

/// A consumer: its connection, and the `consumer_id` it goes by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConsumerKey {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
}

/// One connected consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) key: ConsumerKey,
    pub(crate) name: Arc<str>,
    pub(crate) priority: i32,
    /// Messages that may be sent; below zero after an entry of several messages went out on fewer.
    pub(crate) permits: i64,
    /// Messages delivered and not acknowledged.
    pub(crate) unacked: u64,
    /// Delivery stopped at the limit of unacknowledged messages, until half of them are acknowledged.
    pub(crate) over_unacked: bool,
    pub(crate) msg_out: u64,
    /// `consumer_epoch`, stamped into every MESSAGE of Exclusive and Failover.
    pub(crate) epoch: Option<u64>,
    /// Sticky key ranges, ends included.
    pub(crate) ranges: Vec<(i32, i32)>,
    /// A FLOW has come.
    pub(crate) flowed: bool,
    /// REACHED_END_OF_TOPIC was sent.
    pub(crate) told_end: bool,
}

impl Consumer {
    pub(crate) fn owns(&self, slot: u32) -> bool {
        self.ranges
            .iter()
            .any(|(start, end)| i64::from(*start) <= i64::from(slot) && i64::from(slot) <= i64::from(*end))
    }
}

/// An entry that one consumer holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) consumer: ConsumerKey,
    /// Messages of it not acknowledged.
    pub(crate) messages: u32,
    /// Key_Shared slot, 0 elsewhere.
    pub(crate) slot: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) durable: bool,
    pub(crate) sub_type: SubType,
    /// Key_Shared: ranges are chosen by the consumers.
    pub(crate) sticky: bool,
    /// Key_Shared: a key may move while messages of it are unacknowledged.
    pub(crate) out_of_order: bool,
    pub(crate) cursor: Cursor,
    /// The next offset that was never read, or not since the last rewind.
    pub(crate) read: u64,
    /// The highest `read` ever: what a cumulative ack may name.
    pub(crate) read_max: u64,
    /// Offsets below `read` that are to be sent (again). Bounded by the entries stored.
    pub(crate) replay: BTreeSet<u64>,
    /// Delayed entries by due time.
    pub(crate) delayed: BTreeSet<(u64, u64)>,
    /// The due time that a timer was set for.
    pub(crate) delayed_timer_ms: Option<u64>,
    /// Entries held by consumers. Bounded by the entries stored.
    pub(crate) pending: BTreeMap<u64, Pending>,
    redeliveries: BTreeMap<u64, u32>,
    /// Consumers that were sent an entry and no longer hold it: an ack of theirs may still come.
    former_holders: BTreeMap<u64, Vec<Arc<str>>>,
    /// Consumers in order of arrival.
    pub(crate) consumers: Vec<Consumer>,
    /// Exclusive and Failover: who is served.
    pub(crate) active: Option<ConsumerKey>,
    /// The active consumer's fail-over delay is over.
    pub(crate) active_ready: bool,
    /// Counts changes of the active consumer, so that a late timer is known.
    pub(crate) active_turn: u64,
    /// Shared: whose turn it is.
    pub(crate) turn: usize,
    /// Shared: the consumer that gets all chunks of a message.
    pub(crate) chunk_owners: BTreeMap<Arc<str>, ConsumerKey>,
    slot_owners: BTreeMap<u32, (ConsumerKey, u32)>,
    ring: Ring,
    pub(crate) msg_out: u64,
}

impl Subscription {
    pub(crate) fn new(durable: bool, start: u64) -> Self {
        Self {
            durable,
            sub_type: SubType::Exclusive,
            sticky: false,
            out_of_order: false,
            cursor: Cursor::at(start),
            read: start,
            read_max: start,
            replay: BTreeSet::new(),
            delayed: BTreeSet::new(),
            delayed_timer_ms: None,
            pending: BTreeMap::new(),
            redeliveries: BTreeMap::new(),
            former_holders: BTreeMap::new(),
            consumers: Vec::new(),
            active: None,
            active_ready: false,
            active_turn: 0,
            turn: 0,
            chunk_owners: BTreeMap::new(),
            slot_owners: BTreeMap::new(),
            ring: Ring::default(),
            msg_out: 0,
        }
    }

    /// Exclusive and Failover: one consumer is served, and a rewind is the only redelivery.
    pub(crate) fn is_single_active(&self) -> bool {
        matches!(self.sub_type, SubType::Exclusive | SubType::Failover)
    }

    pub(crate) fn consumer(&self, key: ConsumerKey) -> Option<&Consumer> {
        self.consumers.iter().find(|consumer| consumer.key == key)
    }

    pub(crate) fn consumer_mut(&mut self, key: ConsumerKey) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|consumer| consumer.key == key)
    }

    pub(crate) fn add(&mut self, consumer: Consumer) {
        self.consumers.push(consumer);
        self.remap();
    }

    /// Takes a consumer out; what it held goes to the others with its redelivery count unchanged.
    pub(crate) fn remove(&mut self, key: ConsumerKey) -> bool {
        let Some(index) = self.consumers.iter().position(|consumer| consumer.key == key) else { return false };
        if !self.is_single_active() {
            for offset in self.held_by(key) {
                self.release(offset, false);
            }
        } else if self.active == Some(key) {
            self.rewind();
        }
        self.consumers.remove(index);
        self.chunk_owners.retain(|_, owner| *owner != key);
        if self.consumers.is_empty() {
            self.rewind();
            self.redeliveries.clear();
            self.delayed.clear();
            self.turn = 0;
        }
        self.remap();
        true
    }

    fn remap(&mut self) {
        if self.sub_type == SubType::KeyShared && !self.sticky {
            self.ring = Ring::of(&self.consumers);
        }
    }

    /// The consumer a key hash belongs to, and the slot it falls in.
    pub(crate) fn owner_of(&self, hashing_scheme: u32) -> (u32, Option<ConsumerKey>) {
        if self.sticky {
            let slot = hashing::sticky_slot(hashing_scheme);
            (slot, self.consumers.iter().find(|consumer| consumer.owns(slot)).map(|consumer| consumer.key))
        } else {
            let slot = hashing::auto_split_slot(hashing_scheme);
            (slot, self.ring.owner(slot))
        }
    }

    /// Key_Shared: whether another consumer holds unacknowledged messages of this slot.
    pub(crate) fn is_draining(&self, slot: u32, target: ConsumerKey) -> bool {
        !self.out_of_order && self.slot_owners.get(&slot).is_some_and(|(owner, _)| *owner != target)
    }

    /// Chooses the active consumer by priority, name, and partition or ring; true if it changed.
    pub(crate) fn choose_active(&mut self, topic: &str, partition: Option<u32>) -> bool {
        let chosen = match self.sub_type {
            SubType::Exclusive => self.consumers.first().map(|consumer| consumer.key),
            SubType::Failover => {
                let top = self.consumers.iter().map(|consumer| consumer.priority).min();
                let mut candidates: Vec<_> = self.consumers.iter().filter(|one| Some(one.priority) == top).collect();
                candidates.sort_by(|a, b| a.name.cmp(&b.name));
                hashing::active_candidate(topic, partition, &candidates)
                    .and_then(|index| candidates.get(index))
                    .map(|consumer| consumer.key)
            }
            SubType::Shared | SubType::KeyShared => None,
        };
        if chosen == self.active {
            return false;
        }
        self.active = chosen;
        self.active_ready = false;
        self.active_turn += 1;
        self.rewind();
        true
    }

    /// Books an entry as sent to a consumer and charges its permits.
    pub(crate) fn deliver(&mut self, offset: u64, key: ConsumerKey, messages: u32, slot: u32) {
        self.pending.insert(offset, Pending { consumer: key, messages, slot });
        if slot != 0 {
            self.slot_owners.entry(slot).or_insert((key, 0)).1 += 1;
        }
        self.msg_out += u64::from(messages);
        if let Some(consumer) = self.consumer_mut(key) {
            consumer.permits -= i64::from(messages);
            consumer.unacked += u64::from(messages);
            consumer.msg_out += u64::from(messages);
        }
    }

    pub(crate) fn redelivery_count(&self, offset: u64) -> u32 {
        if self.is_single_active() { 0 } else { self.redeliveries.get(&offset).copied().unwrap_or(0) }
    }

    /// Takes an entry out of the books: it is acknowledged.
    pub(crate) fn settle(&mut self, offset: u64) {
        self.unhold(offset);
        self.redeliveries.remove(&offset);
        self.former_holders.remove(&offset);
        self.replay.remove(&offset);
    }

    /// The same for every entry below `offset`.
    pub(crate) fn settle_below(&mut self, offset: u64) {
        let held: Vec<u64> = self.pending.range(..offset).map(|(offset, _)| *offset).collect();
        for offset in held {
            self.unhold(offset);
        }
        self.redeliveries = self.redeliveries.split_off(&offset);
        self.former_holders = self.former_holders.split_off(&offset);
        self.replay = self.replay.split_off(&offset);
        self.read = self.read.max(offset);
        self.read_max = self.read_max.max(offset);
    }

    /// Some members of a held batch were acknowledged; `left` are not.
    pub(crate) fn shrink(&mut self, offset: u64, left: u32) {
        let Some(pending) = self.pending.get_mut(&offset) else { return };
        let done = pending.messages.saturating_sub(left);
        pending.messages = left;
        let key = pending.consumer;
        if let Some(consumer) = self.consumer_mut(key) {
            consumer.unacked = consumer.unacked.saturating_sub(u64::from(done));
        }
    }

    /// Shared and Key_Shared: an entry goes back to be sent again.
    pub(crate) fn release(&mut self, offset: u64, counted: bool) {
        let Some(pending) = self.pending.get(&offset) else { return };
        let key = pending.consumer;
        self.remember_holder(offset, key);
        self.unhold(offset);
        if counted {
            *self.redeliveries.entry(offset).or_insert(0) += 1;
        }
        self.replay.insert(offset);
    }

    /// Offsets a consumer holds, in order.
    pub(crate) fn held_by(&self, key: ConsumerKey) -> Vec<u64> {
        self.pending.iter().filter(|(_, pending)| pending.consumer == key).map(|(offset, _)| *offset).collect()
    }

    /// Reading starts again at the first unacknowledged entry.
    pub(crate) fn rewind(&mut self) {
        let held: Vec<(u64, ConsumerKey)> =
            self.pending.iter().map(|(offset, held)| (*offset, held.consumer)).collect();
        for (offset, key) in held {
            self.remember_holder(offset, key);
            self.unhold(offset);
        }
        self.replay.clear();
        self.read = self.cursor.mark();
    }

    /// Whether this consumer, or an earlier one of its name, was ever sent the entry.
    pub(crate) fn was_delivered(&self, offset: u64, key: ConsumerKey) -> bool {
        let name = self.consumer(key).map(|consumer| &consumer.name);
        // Its old connection may be dead without the broker knowing: what that one holds was sent to it, too.
        let holds = |holder: ConsumerKey| {
            holder == key || (name.is_some() && self.consumer(holder).map(|consumer| &consumer.name) == name)
        };
        self.cursor.is_acked(offset)
            || self.pending.get(&offset).is_some_and(|pending| holds(pending.consumer))
            || self.former_holders.get(&offset).is_some_and(|names| name.is_some_and(|name| names.contains(name)))
    }

    /// SEEK: stands at `offset`, and nothing was ever delivered.
    pub(crate) fn reset(&mut self, offset: u64, words: &[i64], facts: Option<&EntryFacts>) {
        self.rewind();
        self.cursor.reset(offset, words, facts.map_or(1, EntryFacts::messages));
        self.read = self.cursor.mark();
        self.read_max = self.read;
        self.redeliveries.clear();
        self.delayed.clear();
    }

    fn unhold(&mut self, offset: u64) {
        let Some(pending) = self.pending.remove(&offset) else { return };
        if let Some((_, count)) = self.slot_owners.get_mut(&pending.slot) {
            *count -= 1;
            if *count == 0 {
                self.slot_owners.remove(&pending.slot);
            }
        }
        if let Some(consumer) = self.consumer_mut(pending.consumer) {
            consumer.unacked = consumer.unacked.saturating_sub(u64::from(pending.messages));
        }
    }

    fn remember_holder(&mut self, offset: u64, key: ConsumerKey) {
        let Some(name) = self.consumer(key).map(|consumer| Arc::clone(&consumer.name)) else { return };
        let names = self.former_holders.entry(offset).or_default();
        if !names.contains(&name) && names.len() < HOLDERS_MAX {
            names.push(name);
        }
    }
}
