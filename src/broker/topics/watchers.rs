//! Topic list watchers (WATCH_TOPIC_LIST): the clients to be notified when a topic is created or deleted.

use std::collections::BTreeMap;

use super::pattern::TopicPattern;
use crate::broker::ids::ConnId;
use crate::topic::TopicName;

/// A watcher: its connection, and the `watcher_id` it goes by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatcherKey {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
}

/// What one client watches: the persistent topics of a namespace whose names match.
#[derive(Debug, Clone)]
pub(crate) struct TopicListWatcher {
    pub(crate) namespace: String,
    pub(crate) pattern: TopicPattern,
}

impl TopicListWatcher {
    fn matches(&self, name: &TopicName) -> bool {
        name.is_persistent() && self.namespace == name.namespace() && self.pattern.matches(name)
    }
}

/// All watchers of the broker.
#[derive(Debug, Default)]
pub(crate) struct TopicListWatchers {
    by_key: BTreeMap<WatcherKey, TopicListWatcher>,
}

impl TopicListWatchers {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Watchers of one connection.
    pub(crate) fn count_of(&self, conn: ConnId) -> usize {
        self.by_key.range(WatcherKey { conn, id: 0 }..=WatcherKey { conn, id: u64::MAX }).count()
    }

    pub(crate) fn contains(&self, key: WatcherKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(crate) fn insert(&mut self, key: WatcherKey, watcher: TopicListWatcher) {
        self.by_key.insert(key, watcher);
    }

    pub(crate) fn remove(&mut self, key: WatcherKey) {
        self.by_key.remove(&key);
    }

    pub(crate) fn remove_connection(&mut self, conn: ConnId) {
        self.by_key.retain(|key, _| key.conn != conn);
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
    }

    /// The watchers that a change of this topic concerns.
    pub(crate) fn matching(&self, name: &TopicName) -> Vec<(WatcherKey, TopicListWatcher)> {
        let matching = self.by_key.iter().filter(|(_, watcher)| watcher.matches(name));
        matching.map(|(key, watcher)| (*key, watcher.clone())).collect()
    }
}
