//! What may be said at one place about topics: [`PolicySet`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::types::{
    AuthAction, AutoTopicCreation, BacklogQuota, BacklogQuotaType, DelayedDelivery, DispatchRate,
    InactiveTopicPolicies, PersistencePolicies, PublishRate, RetentionPolicies, SchemaCompatibilityStrategy,
};

/// What a client wants of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Produce,
    Consume,
    /// Know where it is and how many partitions it has: for those that may produce or consume.
    LookUp,
}

impl Access {
    pub(crate) fn is_granted(self, policies: &PolicySet, role: &str) -> bool {
        match self {
            Self::Produce => policies.allows(role, AuthAction::Produce),
            Self::Consume => policies.allows(role, AuthAction::Consume),
            Self::LookUp => [Self::Produce, Self::Consume].iter().any(|access| access.is_granted(policies, role)),
        }
    }
}

/// The policies that a namespace or a topic sets; `None` leaves one to what is above: topic, namespace, settings of the
/// broker. The names are those of Pulsar's admin API, in snake case.
///
/// Policies without effect on this broker are kept and shown all the same, and say so.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
///
/// use pulsar_native::broker::EmbeddedBroker;
///
/// let broker = EmbeddedBroker::builder().start().await?;
/// let is_set = broker.set_namespace_policies("public/default", |policies| {
///     policies.message_ttl = Some(Duration::from_secs(30));
/// });
/// assert!(is_set);
/// assert!(broker.set_topic_policies("orders", |policies| policies.deduplication_enabled = Some(true)));
/// assert_eq!(broker.effective_policies("orders").message_ttl, Some(Duration::from_secs(30)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct PolicySet {
    /// Whether repeated sequence ids of a producer name are dropped (`deduplicationEnabled`).
    pub deduplication_enabled: Option<bool>,
    /// Messages older than this count as acknowledged (`messageTTL`); zero: never.
    pub message_ttl: Option<Duration>,
    /// What of the acknowledged messages is kept (`retention`).
    pub retention: Option<RetentionPolicies>,
    /// Limits on what is not acknowledged, by kind (`backlogQuota`).
    pub backlog_quotas: BTreeMap<BacklogQuotaType, BacklogQuota>,
    /// Unacknowledged messages of a Shared or Key_Shared consumer at which delivery to it stops
    /// (`maxUnackedMessagesPerConsumer`); 0: no limit.
    pub max_unacked_messages_per_consumer: Option<u64>,
    /// Unacknowledged messages of a Shared or Key_Shared subscription at which delivery stops
    /// (`maxUnackedMessagesPerSubscription`); 0: no limit.
    pub max_unacked_messages_per_subscription: Option<u64>,
    /// Whether messages may be delayed (`delayedDelivery`).
    pub delayed_delivery: Option<DelayedDelivery>,
    /// Limits on publishing (`publishRate`): the connection of a producer beyond it is not read until there is a token again.
    pub publish_rate: Option<PublishRate>,
    /// Limits on delivery from a topic (`dispatchRate`), over all subscriptions. What is beyond it waits for a second.
    pub dispatch_rate: Option<DispatchRate>,
    /// Limits on delivery to a subscription (`subscriptionDispatchRate`). What is beyond it waits for a second.
    pub subscription_dispatch_rate: Option<DispatchRate>,
    /// What a new version of a schema has to fit (`schemaCompatibilityStrategy`).
    pub schema_compatibility_strategy: Option<SchemaCompatibilityStrategy>,
    /// Whether a producer needs a schema where the topic has one (`schemaValidationEnforced`).
    pub schema_validation_enforced: Option<bool>,
    /// Whether a producer may bring a new version of a schema (`isAllowAutoUpdateSchema`).
    pub is_allow_auto_update_schema: Option<bool>,
    /// Producers of one topic (`maxProducersPerTopic`); 0: no limit.
    pub max_producers_per_topic: Option<u32>,
    /// Consumers of one topic, over its subscriptions (`maxConsumersPerTopic`); 0: no limit.
    pub max_consumers_per_topic: Option<u32>,
    /// Consumers of one subscription (`maxConsumersPerSubscription`); 0: no limit.
    pub max_consumers_per_subscription: Option<u32>,
    /// Subscriptions of one topic (`maxSubscriptionsPerTopic`); 0: no limit.
    pub max_subscriptions_per_topic: Option<u32>,
    /// Bytes of a message (`maxMessageSize`); more is refused. 0: the limit of the broker.
    pub max_message_size: Option<u32>,
    /// Bytes of a backlog at which a topic is compacted on its own (`compactionThreshold`); 0: never. No effect: compaction is
    /// asked for.
    pub compaction_threshold: Option<u64>,
    /// When inactive topics are deleted (`inactiveTopicPolicies`). No effect: they stay.
    pub inactive_topic_policies: Option<InactiveTopicPolicies>,
    /// How entries are replicated over bookies (`persistence`). No effect: there are none.
    pub persistence: Option<PersistencePolicies>,
    /// Whether topics are created when they are used (`autoTopicCreation`); of namespaces alone. The number of partitions has
    /// no effect: they are made without.
    pub auto_topic_creation: Option<AutoTopicCreation>,
    /// What roles may do that are not super users (`permissions`). Those of a topic add to those of its namespace.
    pub permissions: BTreeMap<String, BTreeSet<AuthAction>>,
    /// Roles by name of a subscription (`grant-subscription-permission`): others may not attach consumers to it; of namespaces
    /// alone. Subscriptions without an entry are for all that may consume.
    pub subscription_permissions: BTreeMap<String, BTreeSet<String>>,
}

impl PolicySet {
    /// Lets a role do these things, and no others (`grant-permission`).
    pub fn grant(&mut self, role: impl Into<String>, actions: impl IntoIterator<Item = AuthAction>) {
        self.permissions.insert(role.into(), actions.into_iter().collect());
    }

    /// Takes from a role all that it may do here (`revoke-permission`).
    pub fn revoke(&mut self, role: &str) {
        self.permissions.remove(role);
    }

    /// Whether the permissions let this role do it. A super user may do it anyway.
    #[must_use]
    pub fn allows(&self, role: &str, action: AuthAction) -> bool {
        self.permissions.get(role).is_some_and(|actions| actions.contains(&action))
    }

    /// Whether it says what has to be looked after in time.
    pub(super) fn needs_checks(&self) -> bool {
        self.message_ttl.is_some_and(|ttl| !ttl.is_zero())
            || self.retention.is_some()
            || !self.backlog_quotas.is_empty()
    }

    /// These policies; those of `outer` where there is none.
    pub(crate) fn over(&self, outer: &Self) -> Self {
        let mut backlog_quotas = outer.backlog_quotas.clone();
        backlog_quotas.extend(self.backlog_quotas.clone());
        let mut permissions = outer.permissions.clone();
        for (role, actions) in &self.permissions {
            permissions.entry(role.clone()).or_default().extend(actions);
        }
        let mut subscription_permissions = outer.subscription_permissions.clone();
        subscription_permissions.extend(self.subscription_permissions.clone());
        Self {
            deduplication_enabled: self.deduplication_enabled.or(outer.deduplication_enabled),
            message_ttl: self.message_ttl.or(outer.message_ttl),
            retention: self.retention.or(outer.retention),
            backlog_quotas,
            max_unacked_messages_per_consumer: self
                .max_unacked_messages_per_consumer
                .or(outer.max_unacked_messages_per_consumer),
            max_unacked_messages_per_subscription: self
                .max_unacked_messages_per_subscription
                .or(outer.max_unacked_messages_per_subscription),
            delayed_delivery: self.delayed_delivery.or(outer.delayed_delivery),
            publish_rate: self.publish_rate.or(outer.publish_rate),
            dispatch_rate: self.dispatch_rate.or(outer.dispatch_rate),
            subscription_dispatch_rate: self.subscription_dispatch_rate.or(outer.subscription_dispatch_rate),
            schema_compatibility_strategy: self.schema_compatibility_strategy.or(outer.schema_compatibility_strategy),
            schema_validation_enforced: self.schema_validation_enforced.or(outer.schema_validation_enforced),
            is_allow_auto_update_schema: self.is_allow_auto_update_schema.or(outer.is_allow_auto_update_schema),
            max_producers_per_topic: self.max_producers_per_topic.or(outer.max_producers_per_topic),
            max_consumers_per_topic: self.max_consumers_per_topic.or(outer.max_consumers_per_topic),
            max_consumers_per_subscription: self
                .max_consumers_per_subscription
                .or(outer.max_consumers_per_subscription),
            max_subscriptions_per_topic: self.max_subscriptions_per_topic.or(outer.max_subscriptions_per_topic),
            max_message_size: self.max_message_size.or(outer.max_message_size),
            compaction_threshold: self.compaction_threshold.or(outer.compaction_threshold),
            inactive_topic_policies: self.inactive_topic_policies.or(outer.inactive_topic_policies),
            persistence: self.persistence.or(outer.persistence),
            auto_topic_creation: self.auto_topic_creation.or(outer.auto_topic_creation),
            permissions,
            subscription_permissions,
        }
    }
}
