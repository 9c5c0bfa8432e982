//! TOPIC_MIGRATED: a cluster that is left for another one (PIP-188).
//!
//! | client | when it is sent away |
//! | --- | --- |
//! | a producer | at once |
//! | a consumer | once its subscription has acknowledged all that is stored here |
//! | PRODUCER, and SUBSCRIBE of a subscription without a backlog | instead of the answer |
//!
//! Each gets TOPIC_MIGRATED, then CLOSE_PRODUCER or CLOSE_CONSUMER. A real broker looks for drained subscriptions from time
//! to time, this one after each acknowledgement. What the links of geo-replication hold back does not count here.

use std::sync::Arc;

use crate::broker::ids::{ConnId, ConsumerKey, ProducerKey};
use crate::broker::machine::Broker;
use crate::pb;
use crate::pb::command_topic_migrated::ResourceType;

/// Where the cluster has migrated to.
#[derive(Debug, Clone)]
pub(in crate::broker) struct MigratedTo {
    url: Option<String>,
    url_tls: Option<String>,
}

impl Broker {
    /// The cluster has migrated to that of these service URLs; without any, it has not, or not any more.
    pub fn migrate(&mut self, url: Option<&str>, url_tls: Option<&str>) {
        let to = MigratedTo { url: url.map(str::to_owned), url_tls: url_tls.map(str::to_owned) };
        self.migrated_to = Some(to).filter(|to| to.url.is_some() || to.url_tls.is_some());
        if self.migrated_to.is_none() {
            return;
        }
        for name in self.topics() {
            let Some(topic) = self.topics.key(&name) else { continue };
            let Some(found) = self.topics.get_mut(&topic) else { continue };
            let waiting = found.producers.take_queue();
            for key in waiting.into_iter().map(|queued| queued.key).chain(found.producers.keys()).collect::<Vec<_>>() {
                self.send_producer_away(&topic, key);
            }
            self.send_drained_away(&topic);
        }
    }

    /// A PRODUCER; whether it was sent away.
    pub(super) fn migrates_producer(&mut self, topic: &Arc<str>, key: ProducerKey) -> bool {
        let is_migrated = self.migrated_to.is_some();
        if is_migrated {
            self.send_producer_away(topic, key);
        }
        is_migrated
    }

    /// A SUBSCRIBE; whether it was sent away.
    pub(super) fn migrates_consumer(&mut self, topic: &str, subscription: &str, key: ConsumerKey) -> bool {
        let Some(found) = self.topics.get(topic).filter(|_| self.migrated_to.is_some()) else { return false };
        let sub = found.subscriptions.get(subscription);
        if sub.is_some_and(|sub| sub.cursor.mark_delete() < found.log.end()) {
            return false;
        }
        self.send_migrated(key.conn, ResourceType::Consumer, key.id);
        self.close_consumer(key, None);
        true
    }

    /// Consumers whose subscription has nothing left here are sent away.
    pub(in crate::broker) fn send_drained_away(&mut self, topic: &Arc<str>) {
        let Some(found) = self.topics.get(topic).filter(|_| self.migrated_to.is_some()) else { return };
        let end = found.log.end();
        let drained = found.subscriptions.values().filter(|sub| sub.cursor.mark_delete() >= end);
        for key in drained.flat_map(|sub| sub.consumers.keys()).collect::<Vec<_>>() {
            self.send_migrated(key.conn, ResourceType::Consumer, key.id);
            self.evict_consumer(key, None);
        }
    }

    fn send_producer_away(&mut self, topic: &Arc<str>, key: ProducerKey) {
        self.send_migrated(key.conn, ResourceType::Producer, key.id);
        self.close_producer(topic, key, None);
    }

    fn send_migrated(&mut self, conn: ConnId, kind: ResourceType, resource_id: u64) {
        let Some(to) = &self.migrated_to else { return };
        let migrated = pb::CommandTopicMigrated {
            resource_id,
            resource_type: kind.into(),
            broker_service_url: to.url.clone(),
            broker_service_url_tls: to.url_tls.clone(),
        };
        self.connections.send(conn, migrated);
    }
}
