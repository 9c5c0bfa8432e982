//! What an operator does to a broker: make, unload, terminate and delete topics, mint tokens, look at statistics.

pub(crate) mod stats;

use std::sync::Arc;
use std::time::Duration;

use crate::broker::admin::stats::{ConsumerStats, SubscriptionStats, TopicStats};
use crate::broker::connections::ProducerSlot;
use crate::broker::connections::token as auth;
use crate::broker::machine::Broker;
use crate::broker::subscription::{ConsumerKey, Subscription};
use crate::broker::topics::topic::{ProducerKey, Topic};
use crate::pb::ServerError;
use crate::topic::TopicName;

/// Most partitions of one topic.
pub(crate) const PARTITIONS_MAX: u32 = 10_000;

impl Broker {
    /// Makes a topic that is not partitioned, or one partition. False for a bad name, a namespace that does not exist,
    /// the base name of a partitioned topic, a partition beyond the last, or a topic that exists.
    pub fn create_topic(&mut self, topic: &str) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        let taken = self.topics.contains_key(name.as_str()) || self.partitioned.contains_key(name.as_str());
        if taken || !self.namespace_exists(name.namespace()) || !self.may_exist(&name) {
            return false;
        }
        self.make_topic(&name);
        true
    }

    /// Makes a partitioned topic, or gives one more partitions. False for a bad name, a namespace that does not exist,
    /// fewer partitions than before, none, or more than 10,000.
    pub fn create_partitioned_topic(&mut self, topic: &str, partitions: u32) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        let before = self.partitioned.get(name.as_str()).copied().unwrap_or(0);
        let good = (1..=PARTITIONS_MAX).contains(&partitions) && partitions >= before;
        if !good || name.partition_index().is_some() || !self.namespace_exists(name.namespace()) {
            return false;
        }
        self.partitioned.insert(name.as_str().to_owned(), partitions);
        for index in before..partitions {
            let partition = name.partition(index);
            if !self.topics.contains_key(partition.as_str()) {
                self.make_topic(&partition);
            }
        }
        true
    }

    /// Unloads a topic as a broker does to move it: producers and consumers are closed, later entries go to another
    /// ledger. Stored entries and durable subscriptions stay. A partitioned topic's name unloads all its partitions.
    pub fn unload(&mut self, topic: &str) {
        self.unload_to(topic, None);
    }

    /// The same, and producers and consumers are told where to go without a lookup: `assignedBrokerServiceUrl` of
    /// CLOSE_PRODUCER and CLOSE_CONSUMER. It may be this broker.
    pub fn transfer(&mut self, topic: &str, url: &str) {
        self.unload_to(topic, Some(url));
    }

    fn unload_to(&mut self, topic: &str, url: Option<&str>) {
        for topic in self.resolve(topic) {
            // A lookup answered just before counts: its client cannot know yet, and the topic is where it was.
            self.close_endpoints(&topic, url);
            let ledger = self.next_ledger;
            self.next_ledger += 1;
            if let Some(found) = self.topics.get_mut(&topic) {
                found.log.roll(ledger);
                found.subscriptions.retain(|_, sub| sub.durable);
            }
        }
    }

    /// Ends a topic: no further messages; consumers are told when they have acknowledged the last one.
    pub fn terminate(&mut self, topic: &str) {
        for topic in self.resolve(topic) {
            self.close_producers(&topic, None, ServerError::TopicTerminatedError, "Topic was already terminated");
            if let Some(found) = self.topics.get_mut(&topic) {
                found.terminated = true;
            }
            self.pump(&topic, None);
        }
    }

    /// Deletes a topic with its entries and subscriptions; a partitioned one with all its partitions.
    pub fn delete_topic(&mut self, topic: &str) {
        for topic in self.resolve(topic) {
            self.close_endpoints(&topic, None);
            self.looked_up.remove(&topic);
            if let Some(found) = self.topics.remove(&topic) {
                self.stored_bytes -= found.log.bytes();
                self.topic_list_changed(&found.name, false);
            }
        }
        if let Ok(name) = TopicName::parse(topic) {
            self.partitioned.remove(name.as_str());
        }
    }

    /// A token for `subject`, without an end or good for `valid_for` from now, rounded up to a whole second; one of no
    /// time at all has expired already. `None` while authentication is off.
    pub fn mint_token(&self, subject: &str, valid_for: Option<Duration>) -> Option<String> {
        let key = self.config.token_key.as_ref()?;
        let now_ms = self.now.wall_ms;
        let expires_ms = valid_for.map(|valid| match u64::try_from(valid.as_millis()) {
            // Tokens count in whole seconds: the last one that is over.
            Ok(_) if valid.is_zero() => now_ms / 1000 * 1000,
            Ok(valid_ms) => now_ms.saturating_add(valid_ms),
            Err(_) => u64::MAX,
        });
        Some(auth::mint(key, subject, expires_ms))
    }

    /// Statistics of one topic, or of one partition.
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        let name = TopicName::parse(topic).ok()?;
        let found = self.topics.get(name.as_str())?;
        Some(TopicStats {
            msg_in_counter: found.msg_in,
            bytes_in_counter: found.bytes_in,
            entries: found.log.end() - found.log.first(),
            storage_size: found.log.bytes() as u64,
            publishers: found.producers.values().map(|producer| producer.name.to_string()).collect(),
            subscriptions: found
                .subscriptions
                .iter()
                .map(|(name, sub)| (name.to_string(), sub_stats(found, sub)))
                .collect(),
            terminated: found.terminated,
        })
    }

    /// Ends every connection without a word.
    pub fn close_all(&mut self) {
        for conn in self.conns.ids() {
            self.conns.close(conn);
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.conns.ids().len()
    }

    /// Names of all topics, partitions one by one.
    pub fn topics(&self) -> Vec<String> {
        self.topics.keys().map(ToString::to_string).collect()
    }

    /// The topics a name stands for: the partitions of a partitioned topic, or itself.
    fn resolve(&self, topic: &str) -> Vec<Arc<str>> {
        let Ok(name) = TopicName::parse(topic) else { return Vec::new() };
        let partitions = self.partitioned.get(name.as_str()).copied().unwrap_or(0);
        let names = (0..partitions).map(|index| name.partition(index)).chain(std::iter::once(name.clone()));
        names.filter_map(|name| self.topics.get_key_value(name.as_str()).map(|(key, _)| Arc::clone(key))).collect()
    }

    fn close_endpoints(&mut self, topic: &Arc<str>, url: Option<&str>) {
        self.close_producers(topic, url, ServerError::ServiceNotReady, "Topic is temporarily unavailable");
        let Some(found) = self.topics.get_mut(topic) else { return };
        let mut keys: Vec<ConsumerKey> = Vec::new();
        for sub in found.subscriptions.values_mut() {
            let of_sub: Vec<ConsumerKey> = sub.consumers.iter().map(|consumer| consumer.key).collect();
            for key in &of_sub {
                sub.remove(*key);
            }
            sub.active = None;
            keys.extend(of_sub);
        }
        for key in keys {
            self.close_consumer(key, url);
        }
    }

    /// Producers get CLOSE_PRODUCER, those that wait for exclusivity an error.
    fn close_producers(&mut self, topic: &Arc<str>, url: Option<&str>, error: ServerError, text: &str) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let keys: Vec<ProducerKey> = found.producers.keys().copied().collect();
        for waiting in std::mem::take(&mut found.waiting) {
            if let Some(connection) = self.conns.get_mut(waiting.key.conn) {
                connection.producers.insert(waiting.key.id, ProducerSlot::ClosedByBroker { at: self.now.at });
            }
            self.error(waiting.key.conn, waiting.request_id, error, text);
        }
        for key in keys {
            self.close_producer(topic, key, url);
        }
    }
}

impl Topic {
    /// Entries that a subscription has not acknowledged.
    pub(crate) fn backlog_entries(&self, name: &str) -> u64 {
        let Some(sub) = self.subscriptions.get(name) else { return 0 };
        let from = sub.cursor.mark().max(self.log.first());
        (from..self.log.end()).filter(|offset| !sub.cursor.is_acked(*offset)).count() as u64
    }
}

fn sub_stats(topic: &Topic, sub: &Subscription) -> SubscriptionStats {
    let from = sub.cursor.mark().max(topic.log.first());
    let left =
        |offset| topic.log.get(offset).map_or(0, |entry| u64::from(sub.cursor.left(offset, entry.facts.messages())));
    let consumers: Vec<ConsumerStats> = sub
        .consumers
        .iter()
        .map(|consumer| ConsumerStats {
            consumer_name: consumer.name.to_string(),
            available_permits: consumer.permits,
            unacked_messages: consumer.unacked,
            msg_out_counter: consumer.msg_out,
        })
        .collect();
    SubscriptionStats {
        subscription_type: sub.sub_type.as_str_name().to_owned(),
        msg_backlog: (from..topic.log.end()).map(left).sum(),
        unacked_messages: consumers.iter().map(|consumer| consumer.unacked_messages).sum(),
        msg_out_counter: sub.msg_out,
        durable: sub.durable,
        consumers,
    }
}
