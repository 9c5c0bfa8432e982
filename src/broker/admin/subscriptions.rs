//! What an administrator does to subscriptions: delete them, move them, skip what they have not acknowledged.

use std::sync::Arc;

use crate::broker::machine::Broker;
use crate::broker::storage::Log;
use crate::broker::subscription::Subscription;
use crate::topic::TopicName;

impl Broker {
    /// Deletes a subscription; consumers that are connected to it are closed.
    pub(in crate::broker) fn remove_subscription(&mut self, topic: &Arc<str>, name: &Arc<str>) {
        let Some(mut removed) = self.topics.get_mut(topic).and_then(|found| found.subscriptions.remove(name)) else {
            return;
        };
        for key in removed.remove_all() {
            self.close_consumer(key, None);
        }
    }

    /// The subscription starts again at `offset`, of a batch at the members of `words`; its consumers are closed.
    pub(in crate::broker) fn reset_subscription(&mut self, topic: &str, name: &str, offset: u64, words: &[i64]) {
        let index_acks = self.config.acknowledgment_at_batch_index_level_enabled;
        let Some(found) = self.topics.get_mut(topic) else { return };
        let Some(sub) = found.subscriptions.get_mut(name) else { return };
        let words = if index_acks { words } else { &[] };
        sub.reset(offset, words, found.log.get(offset).map(|entry| &entry.info));
        for key in sub.remove_all() {
            self.close_consumer(key, None);
        }
    }

    /// Acknowledges the next `count` entries that are not acknowledged, delivered or not.
    pub(in crate::broker) fn skip_entries(&mut self, topic: &Arc<str>, name: &Arc<str>, count: u64) {
        let Some(found) = self.topics.get(topic) else { return };
        let Some(sub) = found.subscriptions.get(name) else { return };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let last = unacknowledged(sub, &found.log).take(count).last();
        let offset = last.map_or(0, |last| last + 1);
        self.acknowledge_below(topic, name, offset);
    }

    /// Acknowledges every entry below `offset`.
    pub(in crate::broker) fn acknowledge_below(&mut self, topic: &Arc<str>, name: &Arc<str>, offset: u64) {
        let Some(sub) = self.topics.subscription_mut(topic, name) else { return };
        sub.acknowledge_below(offset, None);
        self.dispatch(topic, Some(name));
    }

    /// All that is stored counts as acknowledged, and is dropped.
    pub(in crate::broker) fn truncate(&mut self, topic: &Arc<str>) {
        let Some(found) = self.topics.get(topic) else { return };
        let (end, names): (_, Vec<_>) = (found.log.end(), found.subscriptions.keys().cloned().collect());
        for name in names {
            self.acknowledge_below(topic, &name, end);
        }
        self.topics.trim(topic);
    }

    /// Partitions from `first_new` on get the durable subscriptions of the first one, from their first message on.
    pub(in crate::broker) fn copy_subscriptions(&mut self, topic: &TopicName, first_new: u32) {
        let Some(first) = self.topics.get(topic.partition(0).as_str()) else { return };
        let durable = first.subscriptions.iter().filter(|(_, sub)| sub.is_durable());
        let names: Vec<_> = durable.map(|(name, _)| Arc::clone(name)).collect();
        for index in first_new..self.topics.partitions(topic).unwrap_or(0) {
            let Some(found) = self.topics.get_mut(topic.partition(index).as_str()) else { continue };
            for name in &names {
                let start = found.log.first();
                found.subscriptions.entry(Arc::clone(name)).or_insert_with(|| Subscription::new(true, start));
            }
        }
    }
}

/// Offsets of the entries that are not acknowledged, in order.
pub(in crate::broker) fn unacknowledged<'a>(sub: &'a Subscription, log: &Log) -> impl Iterator<Item = u64> + use<'a> {
    let first = sub.cursor.mark_delete().max(log.first());
    (first..log.end()).filter(|offset| !sub.cursor.is_acked(*offset))
}
