//! The policies of topics: what the broker's settings say, what a namespace says, what a topic says itself.
//!
//! [`Policies`] holds them. The value that counts for a topic is that of the topic, else that of its namespace, else that of
//! the broker's settings; [`Policies::effective`] is the one place that says so. What a policy does is with the behaviour.

mod rates;
mod set;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use self::rates::RateLimiter;
pub(crate) use self::set::Access;
pub use self::set::PolicySet;
pub use self::types::{
    AuthAction, AutoTopicCreation, BacklogQuota, BacklogQuotaPolicy, BacklogQuotaType, DelayedDelivery, DispatchRate,
    InactiveTopicDeleteMode, InactiveTopicPolicies, PersistencePolicies, PublishRate, RetentionPolicies,
    SchemaCompatibilityStrategy,
};
use crate::topic::TopicName;

/// Namespaces with policies of their own; one more is refused.
const NAMESPACES_MAX: usize = 10_000;

/// Topics with policies of their own; one more is refused.
const TOPICS_MAX: usize = 100_000;

/// Policies at one place, and what they come to there.
#[derive(Debug, Clone)]
struct Scope {
    own: PolicySet,
    effective: Arc<PolicySet>,
}

/// The policies of the broker, of namespaces and of topics. See the [module](self).
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    broker: Arc<PolicySet>,
    /// By `tenant/namespace`.
    namespaces: BTreeMap<String, Scope>,
    /// By full name, without the suffix of a partition.
    topics: BTreeMap<String, Scope>,
}

impl Policies {
    /// `broker` has the value of each policy that no namespace and no topic sets.
    pub(crate) fn new(broker: PolicySet) -> Self {
        Self { broker: Arc::new(broker), namespaces: BTreeMap::new(), topics: BTreeMap::new() }
    }

    /// What counts for a topic: its own policies before those of its namespace before the broker's.
    pub(crate) fn effective(&self, topic: &TopicName) -> &Arc<PolicySet> {
        let own = self.topics.get(topic.base().as_str()).map(|scope| &scope.effective);
        own.unwrap_or_else(|| self.effective_of_namespace(topic.namespace()))
    }

    /// What counts for the topics of a namespace that have no policies of their own.
    pub(crate) fn effective_of_namespace(&self, namespace: &str) -> &Arc<PolicySet> {
        self.namespaces.get(namespace).map_or(&self.broker, |scope| &scope.effective)
    }

    /// Whether any topic can have a policy that has to be looked after in time.
    pub(crate) fn need_checks(&self) -> bool {
        let own = self.namespaces.values().chain(self.topics.values()).map(|scope| &scope.own);
        std::iter::once(&*self.broker).chain(own).any(PolicySet::needs_checks)
    }

    /// What a namespace sets itself.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Option<&PolicySet> {
        self.namespaces.get(namespace).map(|scope| &scope.own)
    }

    /// What a topic sets itself; those of a partitioned topic are those of all its partitions.
    pub(crate) fn of_topic(&self, topic: &TopicName) -> Option<&PolicySet> {
        self.topics.get(topic.base().as_str()).map(|scope| &scope.own)
    }

    /// Sets what a namespace says; false if there is no room for one more.
    pub(crate) fn set_namespace(&mut self, namespace: &str, own: PolicySet) -> bool {
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(namespace) {
            return false;
        }
        let effective = Arc::new(own.over(&self.broker));
        for (topic, scope) in &mut self.topics {
            if TopicName::parse(topic).is_ok_and(|topic| topic.namespace() == namespace) {
                scope.effective = Arc::new(scope.own.over(&effective));
            }
        }
        self.namespaces.insert(namespace.to_owned(), Scope { own, effective });
        true
    }

    /// Sets what a topic says; false if there is no room for one more.
    pub(crate) fn set_topic(&mut self, topic: &TopicName, own: PolicySet) -> bool {
        let base = topic.base();
        if self.topics.len() >= TOPICS_MAX && !self.topics.contains_key(base.as_str()) {
            return false;
        }
        let effective = Arc::new(own.over(self.effective_of_namespace(base.namespace())));
        self.topics.insert(base.as_str().to_owned(), Scope { own, effective });
        true
    }

    /// The namespace is deleted.
    pub(crate) fn forget_namespace(&mut self, namespace: &str) {
        if self.namespaces.contains_key(namespace) {
            self.set_namespace(namespace, PolicySet::default());
            self.namespaces.remove(namespace);
        }
    }

    /// The topic is deleted.
    pub(crate) fn forget_topic(&mut self, topic: &TopicName) {
        self.topics.remove(topic.as_str());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ttl(seconds: u64) -> PolicySet {
        PolicySet { message_ttl: Some(Duration::from_secs(seconds)), ..PolicySet::default() }
    }

    fn name(topic: &str) -> TopicName {
        TopicName::parse(topic).expect("a name")
    }

    #[test]
    fn a_topic_goes_before_its_namespace_and_that_before_the_broker() {
        let mut policies = Policies::new(ttl(1));
        let (one, other) = (name("persistent://public/default/one"), name("persistent://public/default/other"));
        let of =
            |policies: &Policies, topic: &TopicName| policies.effective(topic).message_ttl.map(|ttl| ttl.as_secs());
        assert_eq!(of(&policies, &one), Some(1));
        assert!(policies.set_topic(&one, PolicySet { deduplication_enabled: Some(true), ..PolicySet::default() }));
        assert!(policies.set_namespace("public/default", ttl(2)));
        assert_eq!((of(&policies, &one), of(&policies, &other)), (Some(2), Some(2)), "set before or after the topic's");
        assert_eq!(policies.effective(&one).deduplication_enabled, Some(true));
        assert!(policies.set_topic(&one, ttl(3)));
        assert_eq!((of(&policies, &one.partition(4)), of(&policies, &other)), (Some(3), Some(2)), "partitions too");
        policies.forget_topic(&one);
        policies.forget_namespace("public/default");
        assert_eq!((of(&policies, &one), policies.of_namespace("public/default")), (Some(1), None));
    }

    #[test]
    fn quotas_of_two_kinds_come_from_two_places_and_permissions_add_up() {
        let quota = |size| BacklogQuota::new(size, BacklogQuotaPolicy::ProducerException);
        let mut policies = Policies::new(PolicySet::default());
        let topic = name("persistent://public/default/t");
        let mut namespace = PolicySet::default();
        namespace.backlog_quotas.insert(BacklogQuotaType::MessageAge, quota(1));
        namespace.backlog_quotas.insert(BacklogQuotaType::DestinationStorage, quota(2));
        namespace.grant("reader", [AuthAction::Consume]);
        assert!(policies.set_namespace("public/default", namespace));
        let mut own = PolicySet::default();
        own.backlog_quotas.insert(BacklogQuotaType::DestinationStorage, quota(3));
        own.grant("reader", [AuthAction::Produce]);
        assert!(policies.set_topic(&topic, own));
        let effective = policies.effective(&topic);
        let sizes: Vec<_> = effective.backlog_quotas.values().map(|quota| quota.limit_size).collect();
        assert_eq!(sizes, [3, 1]);
        assert!(effective.allows("reader", AuthAction::Consume) && effective.allows("reader", AuthAction::Produce));
        assert!(!effective.allows("reader", AuthAction::Functions) && !effective.allows("other", AuthAction::Consume));
    }
}
