//! The consumers that are connected to one subscription.

use std::sync::Arc;

use crate::broker::connections::EndpointDescription;
use crate::broker::ids::ConsumerKey;

/// A range of sticky slots, both ends included, as its consumer sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: i32,
    pub(crate) end: i32,
}

impl KeyRange {
    pub(crate) fn is_ordered(self) -> bool {
        self.start <= self.end
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    pub(crate) fn contains(self, slot: u32) -> bool {
        (i64::from(self.start)..=i64::from(self.end)).contains(&i64::from(slot))
    }
}

/// When something last happened, ms since 1970; 0: never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Activity {
    pub(crate) flow_ms: u64,
    /// A message was sent.
    pub(crate) consumed_ms: u64,
    pub(crate) acked_ms: u64,
}

/// One connected consumer.
#[derive(Debug)]
pub(crate) struct SubscribedConsumer {
    pub(crate) key: ConsumerKey,
    pub(crate) name: Arc<str>,
    /// `priority_level`: lower values are served first.
    pub(crate) priority: i32,
    /// Messages that may be sent; below zero after an entry held more messages than permits.
    pub(crate) permits: i64,
    /// Messages delivered and not acknowledged.
    pub(crate) unacked: u64,
    /// Delivery stopped at the limit of unacknowledged messages, until half of them are acknowledged.
    pub(crate) blocked_on_unacked: bool,
    /// Messages delivered, redeliveries included.
    pub(crate) msg_out: u64,
    /// `consumer_epoch`, stamped into every MESSAGE of Exclusive and Failover.
    pub(crate) epoch: Option<u64>,
    /// Sticky key ranges; empty for none.
    pub(crate) ranges: Vec<KeyRange>,
    /// `read_compacted`: it gets of each key the last value where the topic is compacted.
    pub(crate) reads_compacted: bool,
    /// A FLOW has come.
    pub(crate) has_flowed: bool,
    /// REACHED_END_OF_TOPIC was sent.
    pub(crate) end_of_topic_sent: bool,
    pub(crate) description: EndpointDescription,
    pub(crate) activity: Activity,
}

impl SubscribedConsumer {
    pub(crate) fn new(key: ConsumerKey, name: &str) -> Self {
        Self {
            key,
            name: Arc::from(name),
            priority: 0,
            permits: 0,
            unacked: 0,
            blocked_on_unacked: false,
            msg_out: 0,
            epoch: None,
            ranges: Vec::new(),
            reads_compacted: false,
            has_flowed: false,
            end_of_topic_sent: false,
            description: EndpointDescription::default(),
            activity: Activity::default(),
        }
    }

    /// Whether one of its ranges holds this slot.
    pub(crate) fn owns(&self, slot: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(slot))
    }

    /// FLOW.
    pub(crate) fn add_permits(&mut self, messages: u32) {
        self.permits = self.permits.saturating_add(i64::from(messages));
        self.has_flowed = true;
    }

    /// Whether the limit of unacknowledged messages lets more go out. Once reached, half of them have to be
    /// acknowledged first.
    pub(crate) fn may_hold_more(&mut self, unacked_max: u64) -> bool {
        self.blocked_on_unacked = is_blocked(self.blocked_on_unacked, self.unacked, unacked_max);
        !self.blocked_on_unacked
    }

    /// Counts messages that went out and are unacknowledged from now on.
    pub(super) fn charge(&mut self, messages: u32) {
        self.count_sent(messages);
        self.unacked += u64::from(messages);
    }

    /// Counts messages that went out and need no acknowledgement.
    pub(super) fn count_sent(&mut self, messages: u32) {
        self.permits -= i64::from(messages);
        self.msg_out += u64::from(messages);
    }

    pub(super) fn discharge(&mut self, messages: u32) {
        self.unacked = self.unacked.saturating_sub(u64::from(messages));
    }
}

/// Whether a limit of unacknowledged messages stops delivery: once reached, half of them have to be acknowledged first.
pub(super) fn is_blocked(was_blocked: bool, unacked: u64, unacked_max: u64) -> bool {
    unacked >= unacked_max || (was_blocked && unacked > unacked_max / 2)
}

/// The consumers of one subscription, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct SubscribedConsumers {
    in_order: Vec<SubscribedConsumer>,
}

impl SubscribedConsumers {
    pub(crate) fn len(&self) -> usize {
        self.in_order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, SubscribedConsumer> {
        self.in_order.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, SubscribedConsumer> {
        self.in_order.iter_mut()
    }

    pub(crate) fn keys(&self) -> Vec<ConsumerKey> {
        self.in_order.iter().map(|consumer| consumer.key).collect()
    }

    pub(crate) fn get(&self, key: ConsumerKey) -> Option<&SubscribedConsumer> {
        self.in_order.iter().find(|consumer| consumer.key == key)
    }

    pub(crate) fn get_mut(&mut self, key: ConsumerKey) -> Option<&mut SubscribedConsumer> {
        self.in_order.iter_mut().find(|consumer| consumer.key == key)
    }

    pub(crate) fn at(&self, index: usize) -> Option<&SubscribedConsumer> {
        self.in_order.get(index)
    }

    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut SubscribedConsumer> {
        self.in_order.get_mut(index)
    }

    pub(crate) fn index_of(&self, key: ConsumerKey) -> Option<usize> {
        self.in_order.iter().position(|consumer| consumer.key == key)
    }

    pub(super) fn push(&mut self, consumer: SubscribedConsumer) {
        self.in_order.push(consumer);
    }

    pub(super) fn remove(&mut self, key: ConsumerKey) {
        self.in_order.retain(|consumer| consumer.key != key);
    }
}

impl<'a> IntoIterator for &'a SubscribedConsumers {
    type Item = &'a SubscribedConsumer;
    type IntoIter = std::slice::Iter<'a, SubscribedConsumer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
