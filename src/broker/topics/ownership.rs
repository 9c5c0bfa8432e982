//! Which topics clients may use: those of namespaces that a LOOKUP made this broker the owner of.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::topic::TopicName;

/// Namespaces that this broker owns at once; lookups in further ones do not make it their owner.
const NAMESPACES_MAX: usize = 10_000;

/// Looked-up topics that are remembered; when they are full, every topic counts as looked up.
const LOOKED_UP_MAX: usize = 100_000;

/// What LOOKUPs were answered for.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    namespaces: BTreeSet<String>,
    /// Topics looked up since they were created.
    looked_up: BTreeSet<Arc<str>>,
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
    pub(crate) fn was_looked_up(&self, topic: &TopicName) -> bool {
        self.looked_up.contains(topic.as_str()) || self.looked_up.len() >= LOOKED_UP_MAX
    }

    /// The topic is deleted.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.looked_up.remove(topic);
    }
}
