//! The topics of the broker, and what is known of them by name.
//!
//! [`TopicTable`] holds them; [`Topic`] is one of them. [`Ownership`] says which of them clients may use, [`Brokers`] which broker of
//! the cluster serves it, [`Schemas`]
//! what their messages look like, [`TopicListWatchers`] which clients to notify when one is created or deleted.

mod backlog;
mod brokers;
mod ownership;
mod pattern;
mod producers;
pub(crate) mod schemas;
mod sequence_ids;
mod topic;
mod watchers;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::brokers::{BROKERS_MAX, Brokers, Directions};
pub(crate) use self::ownership::Ownership;
pub(crate) use self::pattern::TopicPattern;
pub(crate) use self::producers::{Admission, OpeningProducer};
pub(crate) use self::schemas::Schemas;
pub(crate) use self::sequence_ids::SentFrame;
#[cfg(feature = "tap")]
pub(crate) use self::sequence_ids::SequenceIds;
pub(crate) use self::topic::Topic;
pub(crate) use self::watchers::{TopicListWatcher, TopicListWatchers, WatcherKey};
use crate::broker::policies::PolicySet;
use crate::broker::storage::{EntryInfo, EntryPosition};
use crate::broker::subscription::Subscription;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::topic::TopicName;

/// Topics of one broker; creating one more is refused.
pub(crate) const TOPICS_MAX: usize = 100_000;

/// What is said where one more is refused. No setting changes it, as `maxTopicsPerNamespace` would that of a real broker.
pub(crate) fn too_many_topics() -> String {
    format!(
        "Exceed maximum number of topics: the embedded broker holds {TOPICS_MAX}, partitions among them, and has no \
         setting for more (of a real one, maxTopicsPerNamespace)"
    )
}

/// Most partitions of one topic.
pub(crate) const PARTITIONS_MAX: u32 = 10_000;

/// All topics of the broker, and the bytes they hold together.
#[derive(Debug)]
pub(crate) struct TopicTable {
    by_name: BTreeMap<Arc<str>, Topic>,
    /// Partitioned topics by their base name.
    partitioned: BTreeMap<String, u32>,
    /// Properties that administrators set, by name; of topics and partitioned topics that exist.
    properties: BTreeMap<String, BTreeMap<String, String>>,
    next_ledger: i64,
    /// Bytes of entries over all topics.
    stored_bytes: usize,
    /// Bytes of entries that may be stored over all topics.
    stored_bytes_max: usize,
}

impl TopicTable {
    pub(crate) fn new(stored_bytes_max: usize) -> Self {
        Self {
            by_name: BTreeMap::new(),
            partitioned: BTreeMap::new(),
            properties: BTreeMap::new(),
            next_ledger: 1,
            stored_bytes: 0,
            stored_bytes_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    #[cfg(feature = "sim")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Topic)> {
        self.by_name.iter()
    }

    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        self.by_name.keys().map(Arc::clone).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.by_name.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The name as the table holds it, to be shared.
    pub(crate) fn key(&self, name: &str) -> Option<Arc<str>> {
        self.by_name.get_key_value(name).map(|(key, _)| Arc::clone(key))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.by_name.get_mut(name)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        self.by_name.values_mut()
    }

    pub(crate) fn subscription(&self, topic: &str, name: &str) -> Option<&Subscription> {
        self.get(topic)?.subscriptions.get(name)
    }

    pub(crate) fn subscription_mut(&mut self, topic: &str, name: &str) -> Option<&mut Subscription> {
        self.get_mut(topic)?.subscriptions.get_mut(name)
    }

    /// The topics a name stands for: the partitions of a partitioned topic, and the topic of that name itself.
    pub(crate) fn resolve(&self, topic: &str) -> Vec<Arc<str>> {
        let Ok(name) = TopicName::parse(topic) else { return Vec::new() };
        let partitions = self.partitions(&name).unwrap_or(0);
        let names = (0..partitions).map(|index| name.partition(index)).chain(std::iter::once(name.clone()));
        names.filter_map(|name| self.key(name.as_str())).collect()
    }

    /// Names of a namespace's topics, partitions one by one, in order.
    pub(crate) fn names_of(&self, namespace: &str, mode: Mode, pattern: Option<&TopicPattern>) -> Vec<String> {
        let is_of_mode = |name: &TopicName| match mode {
            Mode::Persistent => name.is_persistent(),
            Mode::NonPersistent => !name.is_persistent(),
            Mode::All => true,
        };
        self.by_name
            .values()
            .map(|topic| &topic.name)
            .filter(|name| name.namespace() == namespace && is_of_mode(name))
            .filter(|name| pattern.is_none_or(|pattern| pattern.matches(name)))
            .map(ToString::to_string)
            .collect()
    }
}

/// Creation and deletion.
impl TopicTable {
    /// Number of partitions of a partitioned topic, by its base name.
    pub(crate) fn partitions(&self, base: &TopicName) -> Option<u32> {
        self.partitioned.get(base.as_str()).copied()
    }

    /// Names of the partitioned topics, in order.
    pub(crate) fn partitioned_names(&self) -> impl Iterator<Item = &str> {
        self.partitioned.keys().map(String::as_str)
    }

    /// What administrators noted about a topic or partitioned topic.
    pub(crate) fn properties(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.properties.get(name)
    }

    pub(crate) fn set_properties(&mut self, name: &str, properties: BTreeMap<String, String>) {
        self.properties.insert(name.to_owned(), properties);
    }

    pub(crate) fn set_partitions(&mut self, base: &TopicName, partitions: u32) {
        self.partitioned.insert(base.as_str().to_owned(), partitions);
    }

    pub(crate) fn forget_partitions(&mut self, base: &TopicName) {
        self.partitioned.remove(base.as_str());
        self.properties.remove(base.as_str());
    }

    /// Whether the name is that of a partition beyond the last one.
    pub(crate) fn is_beyond_last(&self, name: &TopicName) -> bool {
        let is_beyond = |index| self.partitions(&name.base()).is_some_and(|partitions| index >= partitions);
        name.partition_index().is_some_and(is_beyond)
    }

    /// Whether there is room for so many more topics.
    pub(crate) fn has_room_for(&self, topics: usize) -> bool {
        self.len() + topics <= TOPICS_MAX
    }

    /// Creates a topic, in a ledger of its own.
    pub(crate) fn create(&mut self, name: &TopicName, policies: Arc<PolicySet>) -> Arc<str> {
        let key: Arc<str> = Arc::from(name.as_str());
        let ledger = self.next_ledger();
        self.by_name.insert(Arc::clone(&key), Topic::new(name.clone(), ledger, policies));
        key
    }

    /// Takes a topic out with all it holds.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Topic> {
        let topic = self.by_name.remove(name)?;
        self.stored_bytes -= topic.log.bytes() + topic.compacted.bytes();
        self.properties.remove(name);
        Some(topic)
    }

    /// The topic's later entries go to another ledger; subscriptions that are not durable go.
    pub(crate) fn unload(&mut self, name: &str) {
        let ledger = self.next_ledger();
        if let Some(topic) = self.by_name.get_mut(name) {
            topic.log.roll(ledger);
            topic.subscriptions.retain(|_, sub| sub.is_durable());
        }
    }

    fn next_ledger(&mut self) -> i64 {
        let ledger = self.next_ledger;
        self.next_ledger += 1;
        ledger
    }
}

/// Entries, within the limit on bytes.
impl TopicTable {
    /// Appends an entry to a topic's log. [`make_room`](Self::make_room) comes first.
    pub(crate) fn store(
        &mut self,
        topic: &str,
        entry: &[u8],
        info: EntryInfo,
        messages: u64,
        now_ms: u64,
    ) -> Option<EntryPosition> {
        let found = self.by_name.get_mut(topic)?;
        found.published.count(info.messages(), entry.len());
        self.stored_bytes += entry.len();
        let offset = found.log.append(Bytes::copy_from_slice(entry), info, messages, now_ms);
        Some(found.log.position(offset))
    }

    /// Makes room for `bytes` more by dropping entries that every subscription has acknowledged: of this topic first,
    /// then of all. False if that is not enough.
    pub(crate) fn make_room(&mut self, topic: &Arc<str>, bytes: usize) -> bool {
        if self.has_room(bytes) {
            return true;
        }
        let others: Vec<Arc<str>> = self.by_name.keys().filter(|other| *other != topic).map(Arc::clone).collect();
        for name in std::iter::once(Arc::clone(topic)).chain(others) {
            if let Some(found) = self.by_name.get_mut(&name) {
                self.stored_bytes -= found.trim();
            }
            if self.has_room(bytes) {
                return true;
            }
        }
        false
    }

    /// Makes the compacted view of a topic anew. Its bytes count as stored.
    pub(crate) fn compact(&mut self, topic: &str) {
        let Some(found) = self.by_name.get_mut(topic) else { return };
        let compacted = found.compacted.compact(&found.log);
        self.stored_bytes = self.stored_bytes + compacted.bytes() - found.compacted.bytes();
        found.compacted = compacted;
        found.log.keep_positions();
    }

    /// Drops what no retention keeps of a topic.
    pub(crate) fn apply_retention(&mut self, topic: &str, now_ms: u64) {
        if let Some(found) = self.by_name.get_mut(topic) {
            self.stored_bytes -= found.apply_retention(now_ms);
        }
    }

    /// Drops the entries of a topic that every subscription has acknowledged.
    pub(crate) fn trim(&mut self, topic: &str) {
        if let Some(found) = self.by_name.get_mut(topic) {
            self.stored_bytes -= found.trim();
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.stored_bytes.saturating_add(bytes) <= self.stored_bytes_max
    }
}
