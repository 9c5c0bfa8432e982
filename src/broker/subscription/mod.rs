//! One subscription: what it has acknowledged, what it sends next, its consumers, and what each of them holds.
//!
//! | part | decides |
//! | --- | --- |
//! | [`Cursor`] | what is acknowledged |
//! | [`ReadQueue`] | which entry is sent next |
//! | `UnackedEntries` | which consumer holds which entry, and how often it was sent before |
//! | [`SubscribedConsumers`] | permits and counts of each consumer |
//! | [`ActiveConsumer`] | Exclusive, Failover: which consumer is active |
//! | [`RoundRobin`] | Shared: the consumers in round robin |
//! | `KeyRing`, `KeyRanges` | Key_Shared: whose key it is |
//!
//! [`Subscription`] keeps them in step. Sending is in [`dispatch`](super::dispatch).

mod active;
mod consumer;
pub(crate) mod key_hashing;
mod read_queue;
mod round_robin;
mod unacked;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::active::ActiveConsumer;
pub(crate) use self::consumer::{Activity, KeyRange, SubscribedConsumer, SubscribedConsumers};
use self::key_hashing::{KeyRanges, KeyRing, auto_split_slot, sticky_slot};
pub(crate) use self::read_queue::ReadQueue;
pub(crate) use self::round_robin::RoundRobin;
use self::unacked::UnackedEntries;
use crate::broker::ids::ConsumerKey;
use crate::broker::policies::RateLimiter;
use crate::broker::refusal::refuse;
use crate::broker::storage::{Cursor, EntryInfo, Log};
use crate::pb::ServerError;
use crate::pb::command_subscribe::SubType;
use crate::wire::command::Refusal;

/// Consumers of one subscription; one more gets ConsumerBusy.
const CONSUMERS_MAX: usize = 10_000;

/// How messages are shared among the consumers. The first consumer of a subscription without any decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharingMode {
    pub(crate) sub_type: SubType,
    /// Key_Shared: ranges are chosen by the consumers.
    pub(crate) is_sticky: bool,
    /// Key_Shared: a key may move while messages of it are unacknowledged.
    pub(crate) allows_out_of_order: bool,
    /// Key_Shared: points of each consumer on the ring that divides the keys; `None`: they are divided into ranges.
    pub(crate) ring_points: Option<u32>,
}

impl SharingMode {
    /// Exclusive and Failover: one consumer is active, and a rewind is the only redelivery.
    pub(crate) fn is_single_active(self) -> bool {
        matches!(self.sub_type, SubType::Exclusive | SubType::Failover)
    }
}

/// What has become of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryFate {
    /// All its messages are acknowledged.
    Acknowledged,
    /// A consumer has it; `again`: not for the first time.
    Held { consumer: Arc<str>, again: bool },
    /// It is set aside until then, ms since 1970.
    Delayed { due_ms: u64 },
    /// It is still to be sent; `again`: it was sent before.
    Waiting { again: bool },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Subscription {
    is_durable: bool,
    mode: SharingMode,
    pub(crate) cursor: Cursor,
    pub(crate) queue: ReadQueue,
    unacked: UnackedEntries,
    pub(crate) consumers: SubscribedConsumers,
    pub(crate) active: ActiveConsumer,
    pub(crate) rotation: RoundRobin,
    ring: KeyRing,
    ranges: KeyRanges,
    /// What its creator, or an administrator, noted about it.
    pub(crate) properties: BTreeMap<String, String>,
    /// Messages delivered, redeliveries included.
    msg_out: u64,
    /// Delivery stopped at the limit of unacknowledged messages, until half of them are acknowledged.
    blocked_on_unacked: bool,
    /// Messages of these that had been delivered before.
    redelivered: u64,
    activity: Activity,
    pub(crate) dispatch_rate: RateLimiter,
    /// A timer for the next delivery within the dispatch rates is set.
    pub(crate) is_throttled: bool,
}

impl Subscription {
    /// A subscription without consumers that starts at the offset `start`.
    pub(crate) fn new(is_durable: bool, start: u64) -> Self {
        Self {
            is_durable,
            mode: SharingMode {
                sub_type: SubType::Exclusive,
                is_sticky: false,
                allows_out_of_order: false,
                ring_points: None,
            },
            cursor: Cursor::at(start),
            queue: ReadQueue::at(start),
            unacked: UnackedEntries::default(),
            consumers: SubscribedConsumers::default(),
            active: ActiveConsumer::default(),
            rotation: RoundRobin::default(),
            ring: KeyRing::default(),
            ranges: KeyRanges::default(),
            properties: BTreeMap::new(),
            msg_out: 0,
            blocked_on_unacked: false,
            redelivered: 0,
            activity: Activity::default(),
            dispatch_rate: RateLimiter::default(),
            is_throttled: false,
        }
    }

    /// False for the subscription of a reader, which goes with its consumer.
    pub(crate) fn is_durable(&self) -> bool {
        self.is_durable
    }

    pub(crate) fn sub_type(&self) -> SubType {
        self.mode.sub_type
    }

    pub(crate) fn is_single_active(&self) -> bool {
        self.mode.is_single_active()
    }

    /// Notes when something happened with a consumer.
    pub(crate) fn note(&mut self, key: ConsumerKey, note: impl Fn(&mut Activity)) {
        note(&mut self.activity);
        if let Some(consumer) = self.consumers.get_mut(key) {
            note(&mut consumer.activity);
        }
    }

    /// Over all its consumers, also those that have gone.
    pub(crate) fn activity(&self) -> Activity {
        self.activity
    }

    pub(crate) fn msg_out(&self) -> u64 {
        self.msg_out
    }

    /// Messages that went out although they had gone out before, each time.
    pub(crate) fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// What has become of an entry that is stored.
    pub(crate) fn fate(&self, offset: u64) -> EntryFate {
        let was_delivered = self.unacked.was_held(offset);
        if self.cursor.is_acked(offset) {
            EntryFate::Acknowledged
        } else if let Some(key) = self.unacked.holder(offset) {
            let name = self.consumers.get(key).map(|consumer| Arc::clone(&consumer.name));
            EntryFate::Held { consumer: name.unwrap_or_default(), again: was_delivered }
        } else if let Some(due_ms) = self.queue.delayed_until(offset) {
            EntryFate::Delayed { due_ms }
        } else {
            EntryFate::Waiting { again: was_delivered }
        }
    }

    /// Messages that were delivered and are not acknowledged, over all consumers.
    pub(crate) fn unacked_messages(&self) -> u64 {
        self.unacked.messages()
    }

    /// Whether the limit of unacknowledged messages, over all consumers, lets more go out.
    pub(crate) fn may_hold_more(&mut self, unacked_max: u64) -> bool {
        self.blocked_on_unacked = consumer::is_blocked(self.blocked_on_unacked, self.unacked.messages(), unacked_max);
        !self.blocked_on_unacked
    }

    /// Delivery stopped at the limit of unacknowledged messages.
    pub(crate) fn is_blocked_on_unacked(&self) -> bool {
        self.blocked_on_unacked
    }

    /// Entries that are not acknowledged, delivered or not.
    pub(crate) fn backlog_entries(&self, log: &Log) -> u64 {
        let from = self.cursor.mark_delete().max(log.first());
        (from..log.end()).filter(|offset| !self.cursor.is_acked(*offset)).count() as u64
    }

    /// Bytes of the entries that are not acknowledged, delivered or not.
    pub(crate) fn backlog_bytes(&self, log: &Log) -> u64 {
        let from = self.cursor.mark_delete().max(log.first());
        let entries = (from..log.end()).filter(|offset| !self.cursor.is_acked(*offset));
        entries.filter_map(|offset| log.get(offset)).map(|entry| entry.bytes.len() as u64).sum()
    }

    /// Messages that are not acknowledged, delivered or not.
    pub(crate) fn backlog_messages(&self, log: &Log) -> u64 {
        let left = |offset| log.get(offset).map_or(0, |entry| self.cursor.left(offset, entry.info.messages()));
        (self.cursor.mark_delete().max(log.first())..log.end()).map(|offset| u64::from(left(offset))).sum()
    }
}

/// Consumers that join and leave.
impl Subscription {
    /// Whether one more consumer of this mode fits to those that are connected. `limit` is that of the policies; 0: none.
    pub(crate) fn check_join(&self, is_durable: bool, mode: SharingMode, limit: Option<u32>) -> Result<(), Refusal> {
        if self.is_durable != is_durable {
            let kind = if self.is_durable { "non-durable" } else { "durable" };
            let text = format!("Durability of the subscription differs from this {kind} consumer");
            return Err(refuse(ServerError::NotAllowedError, text));
        }
        if self.consumers.is_empty() {
            return Ok(());
        }
        let busy = |text: &str| Err(refuse(ServerError::ConsumerBusy, text));
        if self.mode.sub_type != mode.sub_type {
            return busy("Subscription is of different type");
        }
        match mode.sub_type {
            SubType::Exclusive => return busy("Exclusive consumer is already connected"),
            SubType::KeyShared if self.mode != mode => return busy("Subscription is of different type"),
            SubType::KeyShared | SubType::Shared | SubType::Failover => {}
        }
        let limit = limit.filter(|limit| *limit > 0).map_or(CONSUMERS_MAX, |limit| CONSUMERS_MAX.min(limit as usize));
        if self.consumers.len() >= limit {
            return busy("Subscription reached max consumers limit");
        }
        Ok(())
    }

    /// Whether none of these ranges is another consumer's.
    pub(crate) fn check_ranges(&self, ranges: &[KeyRange]) -> Result<(), Refusal> {
        let conflicts = |consumer: &&SubscribedConsumer| {
            ranges.iter().any(|range| consumer.ranges.iter().any(|other| range.overlaps(*other)))
        };
        match self.consumers.iter().find(conflicts) {
            Some(other) => {
                let text = format!("Range conflict with consumer {} ({})", other.key.id, other.name);
                Err(refuse(ServerError::ConsumerAssignError, text))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, mode: SharingMode, mut consumer: SubscribedConsumer) {
        if self.consumers.is_empty() {
            self.mode = mode;
        }
        if !self.is_single_active() {
            consumer.epoch = None;
        }
        let key = consumer.key;
        self.consumers.push(consumer);
        if self.divides_keys() {
            self.ranges.add(key);
            self.rebuild_ring();
        }
    }

    /// Takes a consumer out; what it held is sent again, with its redelivery count unchanged. False if it is not here.
    pub(crate) fn remove(&mut self, key: ConsumerKey) -> bool {
        if self.consumers.get(key).is_none() {
            return false;
        }
        if !self.is_single_active() {
            for offset in self.unacked.held_by(key) {
                self.release(offset);
            }
        } else if self.active.selected() == Some(key) {
            self.rewind();
        }
        self.consumers.remove(key);
        self.rotation.remove(key);
        if self.consumers.is_empty() {
            self.rewind();
            self.unacked.forget_redeliveries();
            self.queue.clear_delayed();
            self.rotation.restart();
        }
        self.ranges.remove(key);
        if self.divides_keys() {
            self.rebuild_ring();
        }
        true
    }

    /// Takes all consumers out.
    pub(crate) fn remove_all(&mut self) -> Vec<ConsumerKey> {
        let keys = self.consumers.keys();
        for key in &keys {
            self.remove(*key);
        }
        self.active.clear();
        keys
    }

    /// Key_Shared without ranges of the consumers' choice.
    fn divides_keys(&self) -> bool {
        self.mode.sub_type == SubType::KeyShared && !self.mode.is_sticky
    }

    fn rebuild_ring(&mut self) {
        if let Some(points) = self.mode.ring_points {
            self.ring = KeyRing::of(&self.consumers, points);
        }
    }

    /// Exclusive and Failover: selects the active consumer; true if it changed.
    pub(crate) fn choose_active(&mut self, topic: &str, partition: Option<u32>) -> bool {
        let chosen = match self.mode.sub_type {
            SubType::Exclusive => self.consumers.at(0).map(|consumer| consumer.key),
            SubType::Failover => active::failover_choice(&self.consumers, topic, partition),
            SubType::Shared | SubType::KeyShared => None,
        };
        let is_changed = self.active.choose(chosen);
        if is_changed {
            self.rewind();
        }
        is_changed
    }

    /// Key_Shared: the slot of a key, and the consumer it belongs to.
    pub(crate) fn owner_of(&self, key_hash: u32) -> (u32, Option<ConsumerKey>) {
        if self.mode.is_sticky {
            let slot = sticky_slot(key_hash);
            (slot, self.consumers.iter().find(|consumer| consumer.owns(slot)).map(|consumer| consumer.key))
        } else if self.mode.ring_points.is_some() {
            let slot = auto_split_slot(key_hash);
            (slot, self.ring.owner(slot))
        } else {
            let slot = sticky_slot(key_hash);
            (slot, self.ranges.owner(slot))
        }
    }

    /// Key_Shared: whether a consumer other than `target` holds unacknowledged messages of this slot.
    pub(crate) fn is_draining(&self, slot: u32, target: ConsumerKey) -> bool {
        !self.mode.allows_out_of_order && self.unacked.slot_holder(slot).is_some_and(|holder| holder != target)
    }
}

/// Entries that are sent, acknowledged and sent again.
impl Subscription {
    /// An entry went out to a consumer, which holds it from now on. `slot` is 0 but for Key_Shared.
    pub(crate) fn record_delivery(&mut self, offset: u64, key: ConsumerKey, messages: u32, slot: u32) {
        self.unacked.hold(offset, key, messages, slot);
        self.msg_out += u64::from(messages);
        if self.unacked.was_held(offset) {
            self.redelivered += u64::from(messages);
        }
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.charge(messages);
        }
    }

    /// A fault duplicated an entry: the copy costs permits, too.
    pub(crate) fn charge_duplicate(&mut self, key: ConsumerKey, messages: u32) {
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.permits -= i64::from(messages);
        }
    }

    /// An entry of a non-persistent topic went out: it costs permits and is not held.
    pub(crate) fn record_transient_delivery(&mut self, key: ConsumerKey, messages: u32) {
        self.msg_out += u64::from(messages);
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.count_sent(messages);
        }
    }

    /// How often an entry was sent before. Exclusive and Failover do not count.
    pub(crate) fn redelivery_count(&self, offset: u64) -> u32 {
        if self.is_single_active() { 0 } else { self.unacked.redelivery_count(offset) }
    }

    /// Acknowledges a whole entry.
    pub(crate) fn acknowledge(&mut self, offset: u64) {
        self.cursor.ack(offset);
        self.settle(offset);
    }

    /// Acknowledges the messages of an entry of `members` that `words` leave out; the entry with the last of them.
    pub(crate) fn acknowledge_members(&mut self, offset: u64, words: &[i64], members: u32) {
        if self.cursor.ack_members(offset, words, members) {
            self.settle(offset);
        } else {
            self.shrink(offset, members);
        }
    }

    /// Acknowledges every entry below `offset`; with `words`, of the entry there the messages that they leave out.
    pub(crate) fn acknowledge_below(&mut self, offset: u64, words: Option<(&[i64], u32)>) {
        self.cursor.ack_below(offset);
        if let Some((words, members)) = words {
            if !self.cursor.ack_members(offset, words, members) {
                self.shrink(offset, members);
            }
        }
        self.settle_below(self.cursor.mark_delete());
    }

    /// Entries that were stored more than `ttl_ms` ago count as acknowledged. True if there were any.
    pub(crate) fn expire(&mut self, log: &Log, now_ms: u64, ttl_ms: u64) -> bool {
        let mark = self.cursor.mark_delete();
        let end = log.stored_since(mark, now_ms.saturating_sub(ttl_ms));
        if end > mark {
            self.acknowledge_below(end, None);
        }
        end > mark
    }

    fn settle(&mut self, offset: u64) {
        self.unhold(offset);
        self.unacked.forget(offset);
        self.queue.forget(offset);
    }

    fn settle_below(&mut self, offset: u64) {
        for held in self.unacked.below(offset) {
            self.unhold(held);
        }
        self.unacked.forget_below(offset);
        self.queue.settle_below(offset);
    }

    /// Some messages of a held entry were acknowledged: its holder has the fewer unacknowledged.
    fn shrink(&mut self, offset: u64, members: u32) {
        let left = self.cursor.left(offset, members);
        let Some((key, acknowledged)) = self.unacked.shrink(offset, left) else { return };
        if let Some(consumer) = self.consumers.get_mut(key) {
            consumer.discharge(acknowledged);
        }
    }

    /// Offsets a consumer holds, in order.
    pub(crate) fn held_by(&self, key: ConsumerKey) -> Vec<u64> {
        self.unacked.held_by(key)
    }

    pub(crate) fn is_held_by(&self, offset: u64, key: ConsumerKey) -> bool {
        self.unacked.holder(offset) == Some(key)
    }

    /// Shared and Key_Shared: a held entry is sent again because its consumer asked for it, which counts.
    pub(crate) fn redeliver(&mut self, offset: u64) {
        if self.release(offset) {
            self.unacked.count_redelivery(offset);
        }
    }

    /// Shared and Key_Shared: a held entry goes back to be sent again.
    fn release(&mut self, offset: u64) -> bool {
        let Some(key) = self.unacked.holder(offset) else { return false };
        self.remember_holder(offset, key);
        self.unhold(offset);
        self.queue.put_back(offset);
        true
    }

    /// Reading starts again at the first unacknowledged entry.
    pub(crate) fn rewind(&mut self) {
        for (offset, key) in self.unacked.all() {
            self.remember_holder(offset, key);
            self.unhold(offset);
        }
        self.queue.rewind(self.cursor.mark_delete());
    }

    /// SEEK: starts again at `offset`, of a batch at the members of `words`, as if nothing had been delivered.
    pub(crate) fn reset(&mut self, offset: u64, words: &[i64], info: Option<&EntryInfo>) {
        self.rewind();
        self.cursor.reset(offset, words, info.map_or(1, EntryInfo::messages));
        self.queue.reset(self.cursor.mark_delete());
        self.unacked.forget_redeliveries();
    }

    /// Whether this consumer, or an earlier one of its name, was ever sent the entry.
    pub(crate) fn was_delivered(&self, offset: u64, key: ConsumerKey) -> bool {
        let name_of = |key| self.consumers.get(key).map(|consumer| &consumer.name);
        let name = name_of(key);
        // Its old connection may be dead without the broker knowing: what that one holds was sent to it, too.
        let holds = |holder: ConsumerKey| holder == key || (name.is_some() && name_of(holder) == name);
        self.cursor.is_acked(offset)
            || self.unacked.holder(offset).is_some_and(holds)
            || name.is_some_and(|name| self.unacked.was_held_by(offset, name))
    }

    fn unhold(&mut self, offset: u64) {
        let Some(held) = self.unacked.unhold(offset) else { return };
        if let Some(consumer) = self.consumers.get_mut(held.consumer) {
            consumer.discharge(held.messages);
        }
    }

    fn remember_holder(&mut self, offset: u64, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.get(key) {
            self.unacked.remember_holder(offset, Arc::clone(&consumer.name));
        }
    }
}
