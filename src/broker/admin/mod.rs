//! What an administrator does to a broker: create, unload, terminate and delete topics, mint tokens, read statistics.
//!
//! [`faults`] scripts what goes wrong, `upkeep` is what policies ask for in time, `stored` and `story` show tests what is stored
//! and what became of it.

mod brokers;
mod faults;
#[cfg(feature = "sim")]
mod inspection;
mod policies;
mod stats;
mod stored;
mod story;
mod subscriptions;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use self::stats::{ConnectedConsumerStats, SubscriptionStats, TopicStats};
pub use self::stored::StoredMessage;
pub(super) use self::subscriptions::unacknowledged;
use super::authentication::token;
use super::connections::ProducerSlot;
use super::ids::ConnId;
use super::machine::Broker;
use super::refusal::refuse;
use super::topics::PARTITIONS_MAX;
use crate::pb::ServerError;
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// Topics.
impl Broker {
    /// Creates a topic that is not partitioned, or one partition. False for a bad name, a namespace that does not exist,
    /// the base name of a partitioned topic, a partition beyond the last, a topic that exists, or one more than 100,000.
    pub fn create_topic(&mut self, topic: &str) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        let is_taken = self.topics.contains(name.as_str()) || self.topics.partitions(&name).is_some();
        let is_fit = self.config.has_namespace(name.namespace()) && !self.topics.is_beyond_last(&name);
        if is_taken || !is_fit || !self.topics.has_room_for(1) {
            return false;
        }
        self.insert_topic(&name);
        true
    }

    /// Creates a partitioned topic, or adds partitions to one. False for a bad name, a namespace that does not exist,
    /// fewer partitions than before, none, or more than 10,000; or more than 100,000 topics in all.
    pub fn create_partitioned_topic(&mut self, topic: &str, partitions: u32) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        let before = self.topics.partitions(&name).unwrap_or(0);
        let has_room = self.topics.has_room_for(partitions.saturating_sub(before) as usize);
        let is_good_count = (1..=PARTITIONS_MAX).contains(&partitions) && partitions >= before && has_room;
        if !is_good_count || name.partition_index().is_some() || !self.config.has_namespace(name.namespace()) {
            return false;
        }
        self.topics.set_partitions(&name, partitions);
        for index in before..partitions {
            let partition = name.partition(index);
            if !self.topics.contains(partition.as_str()) {
                self.insert_topic(&partition);
            }
        }
        true
    }

    /// Unloads a topic as a broker does to move it: producers and consumers are closed, later entries go to another
    /// ledger. Stored entries and durable subscriptions stay. A partitioned topic's name unloads all its partitions.
    pub fn unload(&mut self, topic: &str) {
        self.unload_to(topic, None);
    }

    /// The same, and producers and consumers get the address to connect to without a lookup: `assignedBrokerServiceUrl`
    /// of CLOSE_PRODUCER and CLOSE_CONSUMER, `assignedBrokerServiceUrlTls` for a `pulsar+ssl://` URL. It may be this broker.
    pub fn transfer(&mut self, topic: &str, url: &str) {
        self.unload_to(topic, Some(url));
    }

    pub(super) fn unload_to(&mut self, topic: &str, url: Option<&str>) {
        for topic in self.topics.resolve(topic) {
            // A lookup answered just before still counts: its client cannot know of the unload, and the topic is
            // where it was.
            self.close_endpoints(&topic, url);
            self.topics.unload(&topic);
        }
    }

    /// Ends a topic: no further messages; consumers get REACHED_END_OF_TOPIC when they have acknowledged the last one.
    pub fn terminate(&mut self, topic: &str) {
        for topic in self.topics.resolve(topic) {
            let refusal = refuse(ServerError::TopicTerminatedError, "Topic was already terminated");
            self.close_producers(&topic, None, &refusal);
            if let Some(found) = self.topics.get_mut(&topic) {
                found.is_terminated = true;
            }
            self.dispatch(&topic, None);
        }
    }

    /// Deletes a topic with its entries and subscriptions; a partitioned one with all its partitions.
    pub fn delete_topic(&mut self, topic: &str) {
        for topic in self.topics.resolve(topic) {
            self.close_endpoints(&topic, None);
            self.ownership.on_deleted(&topic, self.now.at);
            if let Some(removed) = self.topics.remove(&topic) {
                self.on_topic_list_changed(&removed.name, false);
            }
        }
        if let Ok(name) = TopicName::parse(topic) {
            self.topics.forget_partitions(&name);
            self.policies.forget_topic(&name);
            self.kept_policies.forget(name.as_str());
        }
    }

    /// Compacts a topic, or all partitions of one: consumers with `read_compacted` get of each key the last value. False for a
    /// topic that does not exist or is not persistent.
    pub fn compact(&mut self, topic: &str) -> bool {
        let topics = self.topics.resolve(topic);
        for topic in &topics {
            self.topics.compact(topic);
        }
        !topics.is_empty() && TopicName::parse(topic).is_ok_and(|name| name.is_persistent())
    }

    /// Deletes all versions of a topic's schema; the number that the deletion takes, also without a schema.
    /// `None` for a bad name, or where 1,000 versions and deletions are before it.
    pub fn delete_schema(&mut self, topic: &str) -> Option<u64> {
        self.schemas.delete(topic, self.now.wall_ms)
    }

    fn close_endpoints(&mut self, topic: &Arc<str>, url: Option<&str>) {
        let refusal = refuse(ServerError::ServiceNotReady, "Topic is temporarily unavailable");
        self.close_producers(topic, url, &refusal);
        let Some(found) = self.topics.get_mut(topic) else { return };
        let keys: Vec<_> = found.subscriptions.values_mut().flat_map(|sub| sub.remove_all()).collect();
        for key in keys {
            self.close_consumer(key, url);
        }
    }

    /// Producers get CLOSE_PRODUCER, those that wait for exclusivity an error.
    fn close_producers(&mut self, topic: &Arc<str>, url: Option<&str>, refusal: &Refusal) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let connected = found.producers.keys();
        for queued in found.producers.take_queue() {
            self.connections.set_producer(queued.key, ProducerSlot::ClosedByBroker { at: self.now.at });
            self.send_refusal(queued.key.conn, queued.request_id, refusal.clone());
        }
        for key in connected {
            self.close_producer(topic, key, url);
        }
    }
}

/// Connections.
impl Broker {
    /// Ends every connection without notice.
    pub fn close_all(&mut self) {
        for conn in self.connections.ids() {
            self.connections.close(conn);
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many topic list watchers there are, over all connections.
    pub fn topic_list_watchers(&self) -> usize {
        self.watchers.len()
    }

    /// A token for `subject`, without an end or good for `valid_for` from now, rounded up to a whole second; one of no
    /// time at all has expired already. `None` without a secret key.
    pub fn mint_token(&self, subject: &str, valid_for: Option<Duration>) -> Option<String> {
        let key = self.config.token_secret_key.as_ref()?;
        let now_ms = self.now.wall_ms;
        let expires_ms = valid_for.map(|valid| match u64::try_from(valid.as_millis()) {
            // Tokens count in whole seconds: the last one that is over.
            Ok(_) if valid.is_zero() => now_ms / 1000 * 1000,
            Ok(valid_ms) => now_ms.saturating_add(valid_ms),
            Err(_) => u64::MAX,
        });
        Some(token::mint(key, subject, expires_ms))
    }

    /// A token for `subject` that is good only `starts_in` from now, by the broker's clock; see [`mint_token`](Self::mint_token).
    pub fn mint_early_token(&self, subject: &str, starts_in: Duration) -> Option<String> {
        let key = self.config.token_secret_key.as_ref()?;
        let starts_ms = self.now.wall_ms.saturating_add(u64::try_from(starts_in.as_millis()).unwrap_or(u64::MAX));
        Some(token::mint_early(key, subject, starts_ms))
    }

    /// Changes which roles may do everything, from the next request of each client on.
    pub fn set_super_user_roles(&mut self, roles: BTreeSet<String>) {
        self.config.super_user_roles = roles;
    }

    /// Whether the driver of this connection leaves what its peer sends unread, because of a fault.
    pub fn reads_paused(&self, conn: ConnId) -> bool {
        self.connections.get(conn).is_some_and(|connection| connection.reads_paused())
    }
}
