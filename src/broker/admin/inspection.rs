//! What the simulator sees of a broker and does to it.

use std::sync::Arc;

use crate::broker::ids::{ConsumerKey, ProducerKey};
use crate::broker::machine::Broker;

/// What is connected.
impl Broker {
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
