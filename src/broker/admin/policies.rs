//! Policies of namespaces and topics, as an administrator sets them.

use std::sync::Arc;

use crate::broker::machine::Broker;
use crate::broker::policies::PolicySet;
use crate::topic::TopicName;

impl Broker {
    /// Changes what a namespace sets, from now on. False for a namespace that does not exist, or one too many (10,000 may have
    /// policies).
    pub fn set_namespace_policies(&mut self, namespace: &str, change: impl FnOnce(&mut PolicySet)) -> bool {
        if !self.config.has_namespace(namespace) {
            return false;
        }
        let mut own = self.policies.of_namespace(namespace).cloned().unwrap_or_default();
        change(&mut own);
        let is_set = self.policies.set_namespace(namespace, own);
        self.on_policies_changed();
        is_set
    }

    /// Changes what a topic sets, from now on; those of a partitioned topic are those of its partitions. False for a bad name, a
    /// namespace that does not exist, or one too many (100,000 topics may have policies). They go with the topic.
    pub fn set_topic_policies(&mut self, topic: &str, change: impl FnOnce(&mut PolicySet)) -> bool {
        let Ok(name) = TopicName::parse(topic) else { return false };
        if !self.config.has_namespace(name.namespace()) {
            return false;
        }
        let mut own = self.policies.of_topic(&name).cloned().unwrap_or_default();
        change(&mut own);
        let is_set = self.policies.set_topic(&name, own);
        self.on_policies_changed();
        is_set
    }

    /// A namespace sets nothing any more: it is deleted.
    pub fn forget_namespace_policies(&mut self, namespace: &str) {
        self.policies.forget_namespace(namespace);
        self.on_policies_changed();
    }

    /// What a namespace sets itself.
    pub fn namespace_policies(&self, namespace: &str) -> PolicySet {
        self.policies.of_namespace(namespace).cloned().unwrap_or_default()
    }

    /// What a topic sets itself.
    pub fn topic_policies(&self, topic: &str) -> PolicySet {
        let own = TopicName::parse(topic).ok().and_then(|name| self.policies.of_topic(&name).cloned());
        own.unwrap_or_default()
    }

    /// What counts for a topic, whether it exists or not: of each policy what the topic says, else its namespace, else the
    /// settings of the broker.
    pub fn effective_policies(&self, topic: &str) -> PolicySet {
        TopicName::parse(topic)
            .map_or_else(|_| PolicySet::default(), |name| PolicySet::clone(self.policies.effective(&name)))
    }

    /// Every topic gets what counts for it now.
    fn on_policies_changed(&mut self) {
        for topic in self.topics.iter_mut() {
            topic.policies = Arc::clone(self.policies.effective(&topic.name));
            if topic.policies.deduplication_enabled != Some(true) {
                topic.sequence_ids.forget_stored();
            }
        }
        self.plan_policy_check();
    }
}
