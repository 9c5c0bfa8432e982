//! What the simulator sees of a broker and does to it.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::ids::{ConsumerKey, ProducerKey};
use crate::broker::machine::Broker;
use crate::broker::storage::EntryPosition;
use crate::topic::TopicName;

/// A stored entry and its id.
#[derive(Debug, Clone)]
pub(crate) struct InspectedEntry {
    pub(crate) ledger_id: u64,
    pub(crate) entry_id: u64,
    /// Of the topic, −1 for none.
    pub(crate) partition: i32,
    pub(crate) bytes: Bytes,
}

/// What is stored and connected.
impl Broker {
    /// The entries of a topic, oldest first.
    pub(crate) fn stored_entries(&self, topic: &str) -> Vec<InspectedEntry> {
        let name = TopicName::parse(topic).ok();
        let Some(found) = name.and_then(|name| self.topics.get(name.as_str())) else { return Vec::new() };
        let entries = (found.log.first()..found.log.end()).filter_map(|offset| found.log.get(offset));
        let inspected = entries.map(|entry| InspectedEntry {
            ledger_id: entry.position.ledger as u64,
            entry_id: entry.position.entry as u64,
            partition: found.partition(),
            bytes: entry.bytes.clone(),
        });
        inspected.collect()
    }

    /// Whether a subscription has acknowledged an entry, or one member of a batch. `None` if any of them is unknown.
    pub(crate) fn is_acknowledged(
        &self,
        topic: &str,
        subscription: &str,
        (ledger_id, entry_id): (u64, u64),
        member: Option<u32>,
    ) -> Option<bool> {
        let name = TopicName::parse(topic).ok()?;
        let found = self.topics.get(name.as_str())?;
        let cursor = &found.subscriptions.get(subscription)?.cursor;
        let offset = found.log.offset(EntryPosition::from_wire(ledger_id, entry_id))?;
        Some(match member {
            Some(member) => cursor.is_member_acked(offset, member),
            None => cursor.is_acked(offset),
        })
    }

    /// Each producer with its topic and its name.
    pub(crate) fn connected_producers(&self) -> Vec<(Arc<str>, ProducerKey, Arc<str>)> {
        let mut all = Vec::new();
        for (topic, found) in self.topics.iter() {
            let named = found.producers.iter().map(|(key, name)| (Arc::clone(topic), key, Arc::clone(name)));
            all.extend(named);
        }
        all
    }

    /// Whether this broker has generated the name of a producer.
    pub(crate) fn has_generated(&self, name: &str) -> bool {
        name.starts_with(&self.generated_name_prefix())
    }

    /// Each consumer with its topic.
    pub(crate) fn connected_consumers(&self) -> Vec<(Arc<str>, ConsumerKey)> {
        let mut all = Vec::new();
        for (topic, found) in self.topics.iter() {
            let keys = found.subscriptions.values().flat_map(|sub| sub.consumers.keys());
            all.extend(keys.map(|key| (Arc::clone(topic), key)));
        }
        all
    }

    /// The key of the tokens and a role that may do everything; `None` while authentication is off.
    pub(crate) fn superuser_credentials(&self) -> Option<(Vec<u8>, String)> {
        let key = self.config.token_secret_key.clone()?;
        Some((key, self.config.super_user_roles.first()?.clone()))
    }
}

/// What goes wrong.
impl Broker {
    /// Closes one producer, as a broker that moves its topic.
    pub(crate) fn close_connected_producer(&mut self, topic: &Arc<str>, key: ProducerKey) {
        self.close_producer(topic, key, None);
    }

    /// Closes one consumer, as a broker that moves its topic.
    pub(crate) fn close_connected_consumer(&mut self, key: ConsumerKey) {
        self.evict_consumer(key, None);
    }

    /// The credentials of every connection expire now.
    pub(crate) fn expire_credentials(&mut self) {
        let now_ms = self.now.wall_ms;
        for connection in self.connections.iter_mut() {
            if let Some(identity) = &mut connection.credentials.identity {
                identity.expires_ms = Some(now_ms);
            }
        }
    }
}
