//! The settings of a broker as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::authentication::Providers;
use super::commands::IdentityProvider;
use super::like::PulsarVersion;
use super::policies::{DelayedDelivery, Policies, PolicySet, SchemaCompatibilityStrategy};
use crate::topic::TopicName;
use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;

/// `maxUnackedMessagesPerSubscription` of `broker.conf`.
const MAX_UNACKED_MESSAGES_PER_SUBSCRIPTION: u64 = 200_000;

/// What the broker does with a stored entry whose `MessageMetadata` cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DamagedEntries {
    /// Stored and receipted, then dropped and acknowledged when it is due for delivery, as Pulsar 4.0.8 does.
    #[default]
    Drop,
    /// Stored and delivered as it is, to try out a consumer.
    Deliver,
    /// Refused with SEND_ERROR `NotAllowedError`, to find a producer that damages entries.
    Refuse,
}

/// The settings of a broker, for tests that drive the [`Broker`](crate::broker::machine::Broker) without a runtime.
/// [`EmbeddedBrokerBuilder`](crate::broker::EmbeddedBrokerBuilder) sets the same ones and documents their meaning.
///
/// Names are those of Pulsar's `broker.conf` where it has such a setting. Defaults are those of Pulsar 4.0.8, except
/// `acknowledgment_at_batch_index_level_enabled`, which is on as in 4.2.
#[derive(Clone)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// [`like`](crate::broker::EmbeddedBroker::like): 4.0.
    pub like: PulsarVersion,
    /// [`token_secret_key`](crate::broker::EmbeddedBrokerBuilder::token_secret_key); `None` without tokens.
    pub token_secret_key: Option<Vec<u8>>,
    /// [`tls_authentication`](crate::broker::EmbeddedBrokerBuilder::tls_authentication): false.
    pub tls_authentication: bool,
    /// [`basic_user`](crate::broker::EmbeddedBrokerBuilder::basic_user), with their passwords: none.
    pub basic_users: BTreeMap<String, String>,
    /// [`authentication_provider`](crate::broker::EmbeddedBrokerBuilder::authentication_provider): none.
    pub(crate) authentication_providers: Providers,
    /// [`super_user_roles`](crate::broker::EmbeddedBrokerBuilder::super_user_roles): `admin`.
    pub super_user_roles: BTreeSet<String>,
    /// [`anonymous_user_role`](crate::broker::EmbeddedBrokerBuilder::anonymous_user_role): none.
    pub anonymous_user_role: Option<String>,
    /// `tenant/namespace` names that exist: `public/default`.
    pub namespaces: BTreeSet<String>,
    /// [`any_namespace`](crate::broker::EmbeddedBrokerBuilder::any_namespace): false.
    pub any_namespace: bool,
    /// Partitioned topics by their full base name; those that `create_partitioned_topic` refuses are not created.
    pub partitioned_topics: BTreeMap<String, u32>,
    /// [`allow_auto_topic_creation`](crate::broker::EmbeddedBrokerBuilder::allow_auto_topic_creation): true.
    pub allow_auto_topic_creation: bool,
    /// Members of a batch can be acknowledged one by one: true.
    pub acknowledgment_at_batch_index_level_enabled: bool,
    /// [`broker_deduplication_enabled`](crate::broker::EmbeddedBrokerBuilder::broker_deduplication_enabled): false.
    pub broker_deduplication_enabled: bool,
    /// [`max_message_size`](crate::broker::EmbeddedBrokerBuilder::max_message_size), bytes: 5 MiB.
    pub max_message_size: u32,
    /// [`keep_alive_interval`](crate::broker::EmbeddedBrokerBuilder::keep_alive_interval): 30 s.
    pub keep_alive_interval: Duration,
    /// Time between checks for expired credentials: 60 s.
    pub authentication_refresh_check: Duration,
    /// How long a connection may stay silent when another one asks for the name of its producer: 5 s.
    pub connection_liveness_check_timeout: Duration,
    /// How long a new active consumer of a Failover subscription waits before it is active: 1 s.
    pub active_consumer_failover_delay_time: Duration,
    /// [`max_stored_bytes`](crate::broker::EmbeddedBrokerBuilder::max_stored_bytes): 256 MiB.
    pub max_stored_bytes: usize,
    /// Unacknowledged messages of a Shared or Key_Shared consumer at which delivery to it stops: 50,000.
    pub max_unacked_messages_per_consumer: u64,
    /// Whether Key_Shared divides keys by a ring, or else into ranges: true.
    pub subscription_key_shared_use_consistent_hashing: bool,
    /// Points of each consumer on that ring: 100.
    pub subscription_key_shared_consistent_hashing_replica_points: u32,
    /// Bytes waiting for one connection at which delivery to it stops: 4 MiB.
    pub pulsar_channel_write_buffer_high_water_mark: usize,
    /// Broker entry metadata goes to clients that can parse it (protocol version 18 and the feature flag): false.
    pub exposing_broker_entry_metadata_to_client_enabled: bool,
    /// What happens to entries whose metadata cannot be read: [`DamagedEntries::Drop`].
    pub damaged_entries: DamagedEntries,
    /// [`broker_policies`](crate::broker::EmbeddedBrokerBuilder::broker_policies): none beyond the settings.
    pub policies: PolicySet,
    /// Policies of namespaces, by `tenant/namespace`: none.
    pub namespace_policies: BTreeMap<String, PolicySet>,
    /// Policies of topics, by their full base name: none.
    pub topic_policies: BTreeMap<String, PolicySet>,
    /// [`policy_check_interval`](crate::broker::EmbeddedBrokerBuilder::policy_check_interval): 1 s.
    pub policy_check_interval: Duration,
    /// Whether a sequence id that deduplication drops is a violation too, where applications choose none themselves: false.
    pub(crate) judges_deduplicated: bool,
    /// First part of generated producer names: `standalone`.
    pub cluster_name: String,
    /// [`broker_service_url_tls`](crate::broker::EmbeddedBrokerBuilder::broker_service_url_tls): none.
    pub broker_service_url_tls: Option<String>,
    /// The `http://` URL of the REST interface, which its lookups name: none.
    pub web_service_url: Option<String>,
    /// The `https://` URL of the REST interface, which its lookups name: none.
    pub web_service_url_tls: Option<String>,
    /// The authority, in PEM, of the certificate that was made for this broker: none.
    pub ca_pem: Option<String>,
    /// [`oauth2_client`](crate::broker::EmbeddedBrokerBuilder::oauth2_client): no clients.
    pub(in crate::broker) identity_provider: IdentityProvider,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            like: PulsarVersion::default(),
            token_secret_key: None,
            tls_authentication: false,
            basic_users: BTreeMap::new(),
            authentication_providers: Providers::default(),
            super_user_roles: BTreeSet::from(["admin".to_owned()]),
            anonymous_user_role: None,
            namespaces: BTreeSet::from(["public/default".to_owned()]),
            any_namespace: false,
            partitioned_topics: BTreeMap::new(),
            allow_auto_topic_creation: true,
            acknowledgment_at_batch_index_level_enabled: true,
            broker_deduplication_enabled: false,
            max_message_size: MAX_MESSAGE_SIZE_DEFAULT,
            keep_alive_interval: Duration::from_secs(30),
            authentication_refresh_check: Duration::from_secs(60),
            connection_liveness_check_timeout: Duration::from_secs(5),
            active_consumer_failover_delay_time: Duration::from_secs(1),
            max_stored_bytes: 256 * 1024 * 1024,
            max_unacked_messages_per_consumer: 50_000,
            subscription_key_shared_use_consistent_hashing: true,
            subscription_key_shared_consistent_hashing_replica_points: 100,
            pulsar_channel_write_buffer_high_water_mark: 4 * 1024 * 1024,
            exposing_broker_entry_metadata_to_client_enabled: false,
            damaged_entries: DamagedEntries::default(),
            policies: PolicySet::default(),
            namespace_policies: BTreeMap::new(),
            topic_policies: BTreeMap::new(),
            policy_check_interval: Duration::from_secs(1),
            judges_deduplicated: false,
            cluster_name: "standalone".to_owned(),
            broker_service_url_tls: None,
            web_service_url: None,
            web_service_url_tls: None,
            ca_pem: None,
            identity_provider: IdentityProvider::default(),
        }
    }
}

impl BrokerConfig {
    /// Whether clients have to authenticate: there is a method for it.
    pub(crate) fn authenticates(&self) -> bool {
        self.token_secret_key.is_some()
            || self.tls_authentication
            || !self.basic_users.is_empty()
            || !self.authentication_providers.is_empty()
    }

    /// The policies at the start: those that are set, over what the settings say.
    pub(crate) fn initial_policies(&self) -> Policies {
        let settings = PolicySet {
            deduplication_enabled: Some(self.broker_deduplication_enabled),
            max_unacked_messages_per_consumer: Some(self.max_unacked_messages_per_consumer),
            max_unacked_messages_per_subscription: Some(MAX_UNACKED_MESSAGES_PER_SUBSCRIPTION),
            delayed_delivery: Some(DelayedDelivery::new(true)),
            schema_compatibility_strategy: Some(SchemaCompatibilityStrategy::Full),
            schema_validation_enforced: Some(false),
            is_allow_auto_update_schema: Some(true),
            ..PolicySet::default()
        };
        let mut policies = Policies::new(self.policies.over(&settings));
        for (namespace, own) in &self.namespace_policies {
            policies.set_namespace(namespace, own.clone());
        }
        for (topic, own) in &self.topic_policies {
            if let Ok(name) = TopicName::parse(topic) {
                policies.set_topic(&name, own.clone());
            }
        }
        policies
    }

    /// Whether a namespace exists, as in `tenant/namespace`.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.any_namespace || self.namespaces.contains(namespace)
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("like", &self.like)
            .field("token_secret_key", &self.token_secret_key.as_ref().map(|_| "<secret>"))
            .field("super_user_roles", &self.super_user_roles)
            .field("namespaces", &self.namespaces)
            .field("partitioned_topics", &self.partitioned_topics)
            .field("broker_deduplication_enabled", &self.broker_deduplication_enabled)
            .field("max_message_size", &self.max_message_size)
            .finish_non_exhaustive()
    }
}
