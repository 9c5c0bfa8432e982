//! Sends the entries of a topic to the consumers of one subscription.
//!
//! Permits count messages but gate entries: an entry goes out whole while permits are above zero. How far they are
//! overdrawn differs by type, as on a real broker: Exclusive, Failover and Key_Shared read up to `permits` *entries* in
//! one go and send all of them, Shared counts while it sends.
//!
//! | type | the consumer of the next entry | file |
//! | --- | --- | --- |
//! | Exclusive, Failover | the active one | `single_active` |
//! | Shared | each in turn, of the best priority level that can take more | `shared` |
//! | Key_Shared | the one that the entry's key belongs to | `key_shared` |
//! | any, non-persistent topic | the same, if it can take the entry now | `non_persistent` |

mod key_shared;
mod mixed_batch;
mod non_persistent;
mod shared;
mod single_active;

use crate::broker::config::DamagedEntries;
use crate::broker::conformance::Conformance;
use crate::broker::connections::Connections;
use crate::broker::ids::ConsumerKey;
use crate::broker::policies::{PolicySet, RateLimiter};
use crate::broker::storage::{CompactedLog, Log, StoredEntry};
use crate::broker::subscription::Subscription;
use crate::pb::command_subscribe::SubType;
use crate::wire::hot::MessageHead;

pub(crate) use self::non_persistent::{TransientEntry, dispatch_transient};

/// Entries of one read of a single-active or Key_Shared subscription.
const READ_ENTRIES_MAX: u64 = 100;

/// What delivery needs to know beyond the subscription.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchContext {
    /// ms since 1970.
    pub(crate) now_ms: u64,
    /// The topic's partition number, −1 for none.
    pub(crate) partition: i32,
    pub(crate) unacked_max: UnackedLimits,
    /// Whether messages may be delayed.
    pub(crate) delays: bool,
    pub(crate) broker_entry_metadata: bool,
    pub(crate) damaged_entries: DamagedEntries,
}

/// Unacknowledged messages of Shared and Key_Shared at which delivery stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnackedLimits {
    consumer: u64,
    subscription: u64,
}

impl UnackedLimits {
    pub(crate) fn of(policies: &PolicySet) -> Self {
        let limit = |set: Option<u64>| set.filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        Self {
            consumer: limit(policies.max_unacked_messages_per_consumer),
            subscription: limit(policies.max_unacked_messages_per_subscription),
        }
    }
}

/// One subscription being dispatched.
pub(crate) struct Dispatcher<'a> {
    pub(crate) sub: &'a mut Subscription,
    pub(crate) log: &'a Log,
    pub(crate) compacted: &'a CompactedLog,
    pub(crate) connections: &'a mut Connections,
    pub(crate) conformance: &'a mut Conformance,
    /// That of the topic; the subscription has its own.
    pub(crate) topic_rate: &'a mut RateLimiter,
    pub(crate) context: DispatchContext,
    /// Entries that may go out before the rates are asked again.
    pub(crate) allowance: u64,
}

/// What has to happen later for a subscription to go on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dispatched {
    /// When a delayed entry is due, ms since 1970, if no timer is set for that time yet.
    pub(crate) delayed_until_ms: Option<u64>,
    /// The rates let nothing more through, and no timer is set yet.
    pub(crate) is_throttled: bool,
}

impl<'a> Dispatcher<'a> {
    /// Sends what can be sent.
    pub(crate) fn dispatch(mut self) -> Dispatched {
        let was_throttled = self.sub.is_throttled;
        if !self.reads_compacted() {
            self.sub.queue.skip_trimmed(self.log);
        }
        match self.sub.sub_type() {
            SubType::Exclusive | SubType::Failover => self.dispatch_single_active(),
            SubType::Shared => self.dispatch_shared(),
            SubType::KeyShared => self.dispatch_key_shared(),
        }
        self.sub.queue.note_progress();
        let is_throttled = self.sub.is_throttled && !was_throttled;
        Dispatched { delayed_until_ms: self.sub.queue.take_timer(), is_throttled }
    }

    /// Whether the rates let one more entry through. Tokens are of messages, and as many entries are read at once as there are
    /// tokens: batches overdraw the rate.
    fn is_within_rates(&mut self) -> bool {
        if self.allowance == 0 && !self.sub.is_throttled {
            let now_ms = self.context.now_ms;
            self.allowance = self.topic_rate.available(now_ms).min(self.sub.dispatch_rate.available(now_ms));
        }
        self.sub.is_throttled |= self.allowance == 0;
        self.allowance > 0
    }

    /// Whether the consumer that gets the messages wants of each key the last value.
    fn reads_compacted(&self) -> bool {
        let active = self.sub.active.active().and_then(|key| self.sub.consumers.get(key));
        active.is_some_and(|consumer| consumer.reads_compacted)
    }

    fn next_unread(&mut self) -> Option<(u64, &'a StoredEntry)> {
        if self.reads_compacted() {
            return self.sub.queue.next_unread_compacted(&self.sub.cursor, self.log, self.compacted);
        }
        self.sub.queue.next_unread(&self.sub.cursor, self.log)
    }

    /// Whether this consumer of a Shared or Key_Shared subscription can be sent more.
    fn can_take(&mut self, index: usize) -> bool {
        if !self.sub.may_hold_more(self.context.unacked_max.subscription) {
            return false;
        }
        let Some(consumer) = self.sub.consumers.at_mut(index) else { return false };
        consumer.may_hold_more(self.context.unacked_max.consumer)
            && consumer.permits > 0
            && self.connections.has_room(consumer.key.conn)
    }

    /// A marker is acknowledged instead of sent, and so is an entry whose metadata cannot be read, unless the settings want
    /// it delivered.
    fn drop_if_undeliverable(&mut self, offset: u64, entry: &StoredEntry) -> bool {
        let is_damaged = !entry.info.readable && self.context.damaged_entries != DamagedEntries::Deliver;
        let is_dropped = is_damaged || entry.info.is_marker;
        if is_dropped {
            self.sub.acknowledge(offset);
        }
        is_dropped
    }

    /// An entry whose delivery time has not come is set aside.
    fn delay_if_early(&mut self, offset: u64, entry: &StoredEntry) -> bool {
        match entry.info.deliver_at_ms {
            Some(due_ms) if self.context.delays && due_ms > self.context.now_ms => {
                self.sub.queue.delay(offset, due_ms);
                true
            }
            _ => false,
        }
    }

    fn take_from_rates(&mut self, messages: u32, entry: &StoredEntry) {
        for rate in [&mut *self.topic_rate, &mut self.sub.dispatch_rate] {
            rate.take(u64::from(messages), entry.bytes.len());
        }
        self.allowance -= 1;
    }

    /// Sends an entry. `slot` is that of its key under Key_Shared, 0 elsewhere.
    fn send(&mut self, offset: u64, entry: &StoredEntry, key: ConsumerKey, slot: u32) {
        let head = MessageHead {
            consumer_id: key.id,
            ledger_id: entry.position.ledger as u64,
            entry_id: entry.position.entry as u64,
            partition: self.context.partition,
            redelivery_count: self.sub.redelivery_count(offset),
            ack_set: self.sub.cursor.ack_set(offset).into(),
            consumer_epoch: self.sub.consumers.get(key).and_then(|consumer| consumer.epoch),
        };
        self.judge_batch(entry, key, head.redelivery_count);
        let messages = self.sub.cursor.left(offset, entry.info.messages());
        self.take_from_rates(messages, entry);
        let copies = self.connections.send_message(key.conn, &head, entry, self.context.broker_entry_metadata);
        self.sub.record_delivery(offset, key, messages, slot);
        self.sub.note(key, |activity| activity.consumed_ms = self.context.now_ms);
        for _ in 1..copies {
            self.sub.charge_duplicate(key, messages);
        }
    }
}
