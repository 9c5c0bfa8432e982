//! Which topics clients may use: those of namespaces that a LOOKUP made this broker the owner of.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::topic::TopicName;

/// Namespaces that this broker owns at once; lookups in further ones do not make it their owner.
const NAMESPACES_MAX: usize = 10_000;

/// Looked-up topics that are remembered; when they are full, every topic counts as looked up.
const LOOKED_UP_MAX: usize = 100_000;

/// How long a PRODUCER or SUBSCRIBE may be on its way behind the answer to its lookup. Within it a topic that is deleted
/// meanwhile counts as looked up.
const REQUEST_DELAY_MAX: Duration = Duration::from_secs(10);

/// Deleted topics that are remembered for it.
const DELETED_MAX: usize = 10_000;

/// What LOOKUPs were answered for.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    namespaces: BTreeSet<String>,
    /// Topics looked up since they were created.
    looked_up: BTreeSet<Arc<str>>,
    /// Those that were deleted within [`REQUEST_DELAY_MAX`], the oldest first.
    deleted: VecDeque<(Instant, Arc<str>)>,
}

impl Ownership {
    /// Clients are sent here for this topic.
    pub(crate) fn acquire(&mut self, topic: &TopicName) {
        if self.namespaces.len() < NAMESPACES_MAX {
            self.namespaces.insert(topic.namespace().to_owned());
        }
        if self.looked_up.len() < LOOKED_UP_MAX {
            self.looked_up.insert(Arc::from(topic.as_str()));
        }
    }

    /// Whether this broker owns the topic's namespace.
    pub(crate) fn owns(&self, topic: &TopicName) -> bool {
        self.namespaces.contains(topic.namespace())
    }

    /// Whether a client can know that the topic is here.
    pub(crate) fn was_looked_up(&self, topic: &TopicName, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= REQUEST_DELAY_MAX;
        self.looked_up.contains(topic.as_str())
            || self.looked_up.len() >= LOOKED_UP_MAX
            || self.deleted.iter().any(|(at, name)| **name == *topic.as_str() && is_recent(*at))
    }

    /// The topic is deleted: it has to be looked up again.
    pub(crate) fn on_deleted(&mut self, topic: &str, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) > REQUEST_DELAY_MAX;
        while self.deleted.len() >= DELETED_MAX || self.deleted.front().is_some_and(|(at, _)| is_old(*at)) {
            self.deleted.pop_front();
        }
        self.deleted.extend(self.looked_up.take(topic).map(|name| (now, name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_topic_is_looked_up_again_but_for_requests_on_their_way() {
        let (mut ownership, start) = (Ownership::default(), Instant::now());
        let topic = TopicName::parse("persistent://public/default/t").expect("a name");
        assert!(!ownership.was_looked_up(&topic, start));
        ownership.acquire(&topic);
        ownership.on_deleted(topic.as_str(), start);
        assert!(ownership.was_looked_up(&topic, start + REQUEST_DELAY_MAX));
        let later = start + REQUEST_DELAY_MAX + Duration::from_millis(1);
        assert!(!ownership.was_looked_up(&topic, later));
        ownership.acquire(&topic);
        assert!(ownership.was_looked_up(&topic, later));
    }
}
