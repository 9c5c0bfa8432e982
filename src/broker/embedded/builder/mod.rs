//! The settings of an [`EmbeddedBroker`], one call each: here its behaviour, in [`access`] its authentication and TLS.

mod access;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::EmbeddedBroker;
use super::listeners::Listeners;
use crate::broker::config::{BrokerConfig, DamagedEntries};
use crate::broker::like::PulsarVersion;
use crate::broker::policies::PolicySet;
use crate::broker::topics::{BROKERS_MAX, PARTITIONS_MAX};
use crate::topic::TopicName;

impl EmbeddedBroker {
    /// The settings of a broker that plays an older release of Pulsar: its protocol version, its feature flags, and none
    /// of the commands and fields that it does not know. Settings and what is stored stay those of this broker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::{EmbeddedBroker, PulsarVersion};
    /// use pulsar_native::{AccessMode, Client, ErrorKind};
    ///
    /// let broker = EmbeddedBroker::like(PulsarVersion::V2_6).start().await?;
    /// let client = Client::builder(broker.url()).connect().await?;
    /// let error = client.producer("orders").access_mode(AccessMode::Exclusive).create().await.expect_err("since 2.8");
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok(())
    /// # }
    /// ```
    pub fn like(version: PulsarVersion) -> EmbeddedBrokerBuilder {
        Self::builder().play(version)
    }

    /// The settings, to be changed one by one, and to be started.
    pub fn builder() -> EmbeddedBrokerBuilder {
        EmbeddedBrokerBuilder {
            config: BrokerConfig::default(),
            listeners: Listeners::on((Ipv4Addr::LOCALHOST, 0).into()),
            bad_setting: None,
        }
    }
}

/// Builds an [`EmbeddedBroker`]; created by [`EmbeddedBroker::builder`].
///
/// Settings have the names of Pulsar's `broker.conf` in snake case where it has them, and the defaults of Pulsar 4.0.8,
/// except [`acknowledgment_at_batch_index_level_enabled`](Self::acknowledgment_at_batch_index_level_enabled).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use pulsar_native::broker::EmbeddedBroker;
///
/// let broker = EmbeddedBroker::builder()
///     .partitioned_topic("orders", 3)
///     .broker_deduplication_enabled(true)
///     .start()
///     .await?;
/// assert_eq!(broker.topics().len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing listens before `start`"]
pub struct EmbeddedBrokerBuilder {
    config: BrokerConfig,
    listeners: Listeners,
    /// What is wrong with a setting; `start` reports it.
    bad_setting: Option<String>,
}

/// For [`setting`](Self::setting), which hears of things one by one.
impl EmbeddedBrokerBuilder {
    pub(super) fn play(mut self, version: PulsarVersion) -> Self {
        self.config.like = version;
        self
    }

    /// What is done again and again needs some time in between.
    fn refuse_zero(mut self, name: &str, interval: Duration) -> Self {
        if interval.is_zero() {
            self.bad_setting = Some(format!("{name} cannot be zero"));
        }
        self
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &BrokerConfig {
        &self.config
    }
}

/// Where it listens.
impl EmbeddedBrokerBuilder {
    /// Where to listen. Default 127.0.0.1 and a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listeners.binary = address;
        self
    }

    /// How many brokers the cluster has, 1 to 16, the others at free ports. They share all topics; each topic has one owner,
    /// and lookups elsewhere are redirected. [`EmbeddedBroker::move_topic`], [`stop_broker`](EmbeddedBroker::stop_broker)
    /// and [`start_broker`](EmbeddedBroker::start_broker) are what happens to them. Default 1. Several have no TLS, and one
    /// REST interface for all.
    pub fn brokers(mut self, brokers: usize) -> Self {
        if !(1..=BROKERS_MAX).contains(&brokers) {
            self.bad_setting = Some(format!("a cluster cannot have {brokers} brokers, only 1 to {BROKERS_MAX}"));
        }
        self.listeners.more_brokers = brokers.saturating_sub(1);
        self
    }

    /// Answers over HTTP too: [`EmbeddedBroker::http_url`]. That is Pulsar's admin API, with the paths, bodies and status codes
    /// of Pulsar 4.0.8, and the lookups of clients with an `http://` service URL; `docs/broker.md` lists the paths. What is not
    /// served is answered with 501 and names itself. Credentials are those of the binary port. With TLS on, over HTTPS as
    /// well. Default false.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::EmbeddedBroker;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let broker = EmbeddedBroker::builder().http(true).start().await?;
    /// let url = broker.http_url().expect("it was asked for");
    /// // PUT /admin/v2/persistent/{tenant}/{namespace}/{topic}/partitions, by any HTTP client.
    /// let mut socket = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await?;
    /// let request = "PUT /admin/v2/persistent/public/default/orders/partitions HTTP/1.0\r\nContent-Length: 1\r\n\r\n3";
    /// socket.write_all(request.as_bytes()).await?;
    /// let mut answer = String::new();
    /// socket.read_to_string(&mut answer).await?;
    ///
    /// assert!(answer.starts_with("HTTP/1.0 204"), "{answer}");
    /// assert_eq!(broker.topics().len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn http(mut self, serves: bool) -> Self {
        self.listeners.serves_http = serves;
        self
    }

    /// Where to listen for HTTP if that is on. Default a free port of the address of [`listen`](Self::listen).
    pub fn http_listen(mut self, address: SocketAddr) -> Self {
        self.listeners.http = Some(address);
        self
    }

    /// The `pulsar+ssl://` address that lookups name besides the plain one (`brokerServiceUrlTls`), where a TLS proxy in
    /// front of the broker listens. Default the broker's own, where TLS is on.
    pub fn broker_service_url_tls(mut self, url: impl Into<String>) -> Self {
        self.config.broker_service_url_tls = Some(url.into());
        self
    }
}

/// Topics.
impl EmbeddedBrokerBuilder {
    /// Makes a namespace, as in `tenant/namespace`. `public/default` always exists.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.config.namespaces.insert(namespace.into());
        self
    }

    /// Whether every well-formed namespace exists. Default false.
    pub fn any_namespace(mut self, any: bool) -> Self {
        self.config.any_namespace = any;
        self
    }

    /// Makes a partitioned topic of 1 to 10,000 partitions, and its namespace.
    pub fn partitioned_topic(mut self, topic: impl AsRef<str>, partitions: u32) -> Self {
        match TopicName::parse(topic.as_ref()) {
            Ok(name) if name.partition_index().is_some() => {
                self.bad_setting = Some(format!("{name} is a partition; it cannot have partitions itself"));
            }
            Ok(name) if !(1..=PARTITIONS_MAX).contains(&partitions) => {
                self.bad_setting =
                    Some(format!("{name} cannot have {partitions} partitions, only 1 to {PARTITIONS_MAX}"));
            }
            Ok(name) => {
                self.config.namespaces.insert(name.namespace().to_owned());
                self.config.partitioned_topics.insert(name.as_str().to_owned(), partitions);
            }
            Err(error) => self.bad_setting = Some(error.to_string()),
        }
        self
    }

    /// Whether PRODUCER and SUBSCRIBE create a topic that does not exist. Default true.
    #[doc(alias = "allowAutoTopicCreation")]
    pub fn allow_auto_topic_creation(mut self, allow: bool) -> Self {
        self.config.allow_auto_topic_creation = allow;
        self
    }
}

/// Policies.
impl EmbeddedBrokerBuilder {
    /// What counts where neither the topic nor its namespace says anything: the settings of `broker.conf` that are defaults of
    /// policies. They go before settings of the same meaning here. Default as in Pulsar 4.0.8.
    pub fn broker_policies(mut self, change: impl FnOnce(&mut PolicySet)) -> Self {
        change(&mut self.config.policies);
        self
    }

    /// Time between two looks at time to live, retention and backlog quotas, for which a real broker takes one to five minutes.
    /// [`EmbeddedBroker::advance`] looks at once. Default 1 s.
    #[doc(alias("backlogQuotaCheckIntervalInSeconds", "messageExpiryCheckIntervalInMinutes"))]
    pub fn policy_check_interval(mut self, interval: Duration) -> Self {
        self.config.policy_check_interval = interval;
        self.refuse_zero("policy_check_interval", interval)
    }

    /// What a namespace sets for its topics; makes the namespace. [`EmbeddedBroker::set_namespace_policies`] changes it later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use pulsar_native::broker::EmbeddedBroker;
    ///
    /// let broker = EmbeddedBroker::builder()
    ///     .namespace_policies("public/orders", |policies| policies.deduplication_enabled = Some(true))
    ///     .start()
    ///     .await?;
    /// let policies = broker.effective_policies("persistent://public/orders/new");
    /// assert_eq!(policies.deduplication_enabled, Some(true));
    /// # Ok(())
    /// # }
    /// ```
    pub fn namespace_policies(mut self, namespace: impl Into<String>, change: impl FnOnce(&mut PolicySet)) -> Self {
        let namespace = namespace.into();
        self.config.namespaces.insert(namespace.clone());
        change(self.config.namespace_policies.entry(namespace).or_default());
        self
    }

    /// What a topic sets for itself; makes its namespace, not the topic. [`EmbeddedBroker::set_topic_policies`] changes it
    /// later.
    pub fn topic_policies(mut self, topic: impl AsRef<str>, change: impl FnOnce(&mut PolicySet)) -> Self {
        match TopicName::parse(topic.as_ref()) {
            Ok(name) => {
                self.config.namespaces.insert(name.namespace().to_owned());
                change(self.config.topic_policies.entry(name.base().as_str().to_owned()).or_default());
            }
            Err(error) => self.bad_setting = Some(error.to_string()),
        }
        self
    }
}

/// Messages.
impl EmbeddedBrokerBuilder {
    /// `max_message_size` of CONNECTED, bytes. Default 5 MiB.
    #[doc(alias = "maxMessageSize")]
    pub fn max_message_size(mut self, bytes: u32) -> Self {
        self.config.max_message_size = bytes;
        self
    }

    /// Whether repeated sequence ids of a producer name are dropped. Default false.
    #[doc(alias = "brokerDeduplicationEnabled")]
    pub fn broker_deduplication_enabled(mut self, enabled: bool) -> Self {
        self.config.broker_deduplication_enabled = enabled;
        self
    }

    /// Whether members of a batch can be acknowledged one by one. Default true, as in Pulsar 4.2; off in 4.0.
    #[doc(alias = "acknowledgmentAtBatchIndexLevelEnabled")]
    pub fn acknowledgment_at_batch_index_level_enabled(mut self, enabled: bool) -> Self {
        self.config.acknowledgment_at_batch_index_level_enabled = enabled;
        self
    }

    /// How long a new active consumer of a Failover subscription waits before it is active. Default 1 s.
    #[doc(alias = "activeConsumerFailoverDelayTimeMillis")]
    pub fn active_consumer_failover_delay_time(mut self, delay: Duration) -> Self {
        self.config.active_consumer_failover_delay_time = delay;
        self
    }

    /// Unacknowledged messages of a Shared or Key_Shared consumer at which delivery to it stops. Default 50,000.
    #[doc(alias = "maxUnackedMessagesPerConsumer")]
    pub fn max_unacked_messages_per_consumer(mut self, messages: u64) -> Self {
        self.config.max_unacked_messages_per_consumer = messages;
        self
    }

    /// Whether Key_Shared divides the keys by consistent hashing; if not, each consumer that joins gets half of the largest range
    /// of them. Default true.
    #[doc(alias = "subscriptionKeySharedUseConsistentHashing")]
    pub fn subscription_key_shared_use_consistent_hashing(mut self, uses: bool) -> Self {
        self.config.subscription_key_shared_use_consistent_hashing = uses;
        self
    }

    /// Points of each consumer on the ring of consistent hashing: the more, the more evenly keys are divided. At least 1.
    /// Default 100.
    #[doc(alias = "subscriptionKeySharedConsistentHashingReplicaPoints")]
    pub fn subscription_key_shared_consistent_hashing_replica_points(mut self, points: u32) -> Self {
        self.config.subscription_key_shared_consistent_hashing_replica_points = points.max(1);
        self
    }

    /// Bytes of entries kept over all topics. Default 256 MiB. Above it acknowledged entries are dropped; where that
    /// is not enough, producers are closed and refused as by a backlog quota.
    pub fn max_stored_bytes(mut self, bytes: usize) -> Self {
        self.config.max_stored_bytes = bytes;
        self
    }

    /// Whether clients that can parse it get broker entry metadata. Default false.
    #[doc(alias = "exposingBrokerEntryMetadataToClientEnabled")]
    pub fn exposing_broker_entry_metadata_to_client_enabled(mut self, enabled: bool) -> Self {
        self.config.exposing_broker_entry_metadata_to_client_enabled = enabled;
        self
    }

    /// What happens to entries whose metadata cannot be read. Default [`DamagedEntries::Drop`].
    pub fn damaged_entries(mut self, damaged: DamagedEntries) -> Self {
        self.config.damaged_entries = damaged;
        self
    }

    /// Listens and serves, on the current tokio runtime.
    ///
    /// # Errors
    /// If an address cannot be listened on, a partitioned topic cannot be created (the name is invalid, or the number of
    /// partitions is out of range), the number of [`brokers`](Self::brokers) is, an interval is zero, or the certificate and its key are not usable.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done leaves nothing behind.
    pub async fn start(self) -> io::Result<EmbeddedBroker> {
        if let Some(text) = self.bad_setting {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        EmbeddedBroker::start(self.config, self.listeners).await
    }
}
