//! The settings of an [`EmbeddedBroker`], one call each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use tokio_rustls::rustls::ServerConfig;

use super::EmbeddedBroker;
use super::listeners::Listeners;
#[cfg(feature = "tls")]
use super::tls::TlsIdentity;
use crate::broker::authentication::AuthenticationProvider;
use crate::broker::commands::OAuth2Client;
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

    #[cfg(feature = "tls")]
    pub(super) fn tls_certificate_file(mut self, path: PathBuf) -> Self {
        let (_, key) = self.tls_files();
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate: path, key });
        self
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls_key_file(mut self, path: PathBuf) -> Self {
        let (certificate, _) = self.tls_files();
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate, key: path });
        self
    }

    /// Those named so far; empty paths for none.
    #[cfg(feature = "tls")]
    fn tls_files(&mut self) -> (PathBuf, PathBuf) {
        match self.listeners.tls_identity.take() {
            Some(TlsIdentity::Files { certificate, key }) => (certificate, key),
            _ => (PathBuf::new(), PathBuf::new()),
        }
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
    /// of Pulsar 4.0.8, and the lookups of clients with an `http://` service URL; `docs/broker.md` lists the doors. What is not
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

/// TLS: any one of `tls_config`, `tls_cert_file` and `tls_self_signed` turns it on; the last call counts. The broker then
/// listens for it beside the plain address, and lookups name both. The clients' side is
/// [`ClientBuilder::ca_file`](crate::ClientBuilder::ca_file).
#[cfg(feature = "tls")]
impl EmbeddedBrokerBuilder {
    /// Serves TLS by a configuration of rustls, [`client::rustls`](crate::client::rustls), as it is: certificate, client
    /// certificates, versions. Default no TLS.
    pub fn tls_config(mut self, config: Arc<ServerConfig>) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::Config(config));
        self
    }

    /// Serves TLS with a certificate, followed by those that sign it, and its key, both PEM. Default no TLS.
    /// [`start`](Self::start) reads the files.
    #[doc(alias("tlsCertificateFilePath", "tlsKeyFilePath"))]
    pub fn tls_cert_file(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::Files { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Serves TLS with a certificate made by [`start`](Self::start), for `localhost`, the loopback addresses and the
    /// address of [`listen`](Self::listen); [`EmbeddedBroker::ca_pem`] is the authority to trust. Default no TLS.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::Client;
    /// use pulsar_native::broker::EmbeddedBroker;
    ///
    /// let broker = EmbeddedBroker::builder().tls_self_signed().start().await?;
    /// let ca_file = std::env::temp_dir().join(format!("ca-{}.pem", std::process::id()));
    /// std::fs::write(&ca_file, broker.ca_pem().expect("made by the broker"))?;
    /// let url = broker.tls_url().expect("TLS is on");
    /// let client = Client::builder(url).ca_file(&ca_file).connect().await?;
    /// client.producer("orders").create().await?.send("one").await?;
    /// # std::fs::remove_file(ca_file)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "self-signed")]
    pub fn tls_self_signed(mut self) -> Self {
        self.listeners.tls_identity = Some(TlsIdentity::SelfSigned);
        self
    }

    /// The authorities, PEM, whose certificates clients may show over TLS. A client with another one, or one that has
    /// expired, is not let in; one without is, unless
    /// [`tls_require_trusted_client_cert_on_connect`](Self::tls_require_trusted_client_cert_on_connect) is set. Default
    /// none: no client is asked for a certificate. Without effect beside [`tls_config`](Self::tls_config), which says itself
    /// whose certificates it takes. [`start`](Self::start) reads the file.
    #[doc(alias = "tlsTrustCertsFilePath")]
    pub fn tls_trust_certs_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.listeners.clients.trust_certs_file = Some(path.into());
        self
    }

    /// Whether a client needs a certificate to be let in over TLS. Default false.
    #[doc(alias = "tlsRequireTrustedClientCertOnConnect")]
    pub fn tls_require_trusted_client_cert_on_connect(mut self, required: bool) -> Self {
        self.listeners.clients.are_required = required;
        self
    }

    /// Whether clients may authenticate by the certificate that they show over TLS (method `tls`, as with
    /// `AuthenticationProviderTls`): the role is its common name (CN). Default false.
    pub fn tls_authentication(mut self, enabled: bool) -> Self {
        self.config.tls_authentication = enabled;
        self
    }

    /// Where to listen for TLS if that is on. Default a free port of the address of [`listen`](Self::listen).
    pub fn tls_listen(mut self, address: SocketAddr) -> Self {
        self.listeners.tls = Some(address);
        self
    }

    /// Where to listen for HTTPS if [`http`](Self::http) and TLS are on. Default a free port of the address of
    /// [`listen`](Self::listen).
    pub fn https_listen(mut self, address: SocketAddr) -> Self {
        self.listeners.https = Some(address);
        self
    }
}

/// Authentication and liveness.
impl EmbeddedBrokerBuilder {
    /// The secret that HS256 tokens are signed with, of any length (method `token`). Default none. Authentication is on
    /// where there is at least one method, here or by the calls below; each client then has to use one of them.
    #[doc(alias = "tokenSecretKey")]
    pub fn token_secret_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.config.token_secret_key = Some(key.into());
        self
    }

    /// A user that may authenticate with this password (method `basic`, as with `AuthenticationProviderBasic`); its role is
    /// its name. May be called for each user. Default none.
    #[doc(alias = "basicAuthConf")]
    pub fn basic_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.basic_users.insert(user.into(), password.into());
        self
    }

    /// A method of authentication of your own, of one step or by challenges (AUTH_CHALLENGE). May be called for each
    /// method. Default none. Over HTTP there are none but the broker's own.
    #[doc(alias = "authenticationProviders")]
    pub fn authentication_provider(mut self, provider: impl AuthenticationProvider) -> Self {
        self.config.authentication_providers.add(Arc::new(provider));
        self
    }

    /// The roles that may do everything; [`EmbeddedBroker::set_super_user_roles`] changes them. Any other may do what policies grant
    /// it ([`PolicySet::grant`]), and is refused all else. Default `admin` alone. Without effect
    /// while authentication is off.
    #[doc(alias = "superUserRoles")]
    pub fn super_user_roles<R: Into<String>>(mut self, roles: impl IntoIterator<Item = R>) -> Self {
        self.config.super_user_roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// The role of clients that bring no credentials, or those of a method that is off; it may do what policies grant it. Default
    /// none: they are not let in.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::{AuthAction, EmbeddedBroker};
    /// use pulsar_native::{Client, ErrorKind};
    ///
    /// let broker = EmbeddedBroker::builder()
    ///     .token_secret_key("a secret")
    ///     .anonymous_user_role("anyone")
    ///     .namespace_policies("public/default", |policies| policies.grant("anyone", [AuthAction::Consume]))
    ///     .start()
    ///     .await?;
    /// let client = Client::builder(broker.url()).connect().await?;
    /// client.consumer("orders", "s").subscribe().await?;
    /// let error = client.producer("orders").create().await.expect_err("may only consume");
    /// assert_eq!(error.kind(), ErrorKind::Authorization);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "anonymousUserRole")]
    pub fn anonymous_user_role(mut self, role: impl Into<String>) -> Self {
        self.config.anonymous_user_role = Some(role.into());
        self
    }

    /// Time between checks for expired credentials. Default 60 s.
    #[doc(alias = "authenticationRefreshCheckSeconds")]
    pub fn authentication_refresh_check(mut self, interval: Duration) -> Self {
        self.config.authentication_refresh_check = interval;
        self.refuse_zero("authentication_refresh_check", interval)
    }

    /// Time between PINGs, and how long a handshake may take. Default 30 s.
    #[doc(alias = "keepAliveIntervalSeconds")]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.config.keep_alive_interval = interval;
        self.refuse_zero("keep_alive_interval", interval)
    }

    /// How long a connection may stay silent when another one asks for the name of its producer, or its Exclusive
    /// subscription; after it they are free. Default 5 s.
    #[doc(alias = "connectionLivenessCheckTimeoutMillis")]
    pub fn connection_liveness_check_timeout(mut self, timeout: Duration) -> Self {
        self.config.connection_liveness_check_timeout = timeout;
        self
    }
}

/// An identity provider beside the broker, for clients with [OAuth2](crate::client) credentials:
/// [`oauth2_client`](Self::oauth2_client) turns it on.
impl EmbeddedBrokerBuilder {
    /// Lets a client get tokens of `role` for this id and secret, over HTTP at [`EmbeddedBroker::issuer_url`]: a discovery
    /// document (`/.well-known/openid-configuration`) and a token endpoint (`client_secret_post`). Turns [`http`](Self::http)
    /// on, and authentication: without a [`token_secret_key`](Self::token_secret_key) there is a random one. May be called
    /// for several clients. Default: none, and no provider.
    ///
    /// ```
    /// # #[cfg(feature = "oauth2")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::EmbeddedBroker;
    /// use pulsar_native::{Client, OAuth2};
    ///
    /// let broker = EmbeddedBroker::builder().oauth2_client("billing", "a secret", "admin").start().await?;
    /// let issuer = broker.issuer_url().expect("there is a client");
    /// let key_file = r#"data:application/json,{"client_id":"billing","client_secret":"a secret"}"#;
    /// let oauth2 = OAuth2::client_credentials(issuer, key_file);
    /// let client = Client::builder(broker.url()).authentication(oauth2).connect().await?;
    /// client.producer("orders").create().await?.send("one").await?;
    /// assert_eq!(broker.oauth2_token_requests(), 1);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "oauth2"))]
    /// # fn main() {}
    /// ```
    pub fn oauth2_client(
        mut self,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        role: impl Into<String>,
    ) -> Self {
        let client = OAuth2Client { secret: client_secret.into(), role: role.into() };
        self.config.identity_provider.clients.insert(client_id.into(), client);
        self.config.token_secret_key.get_or_insert_with(random_key);
        self.http(true)
    }

    /// The audience that a request for a token has to name; any other is refused (`invalid_target`). Default: any, or none.
    pub fn oauth2_audience(mut self, audience: impl Into<String>) -> Self {
        self.config.identity_provider.audience = Some(audience.into());
        self
    }

    /// How long a token is good (`expires_in`), rounded up to a whole second. Default 1 hour.
    pub fn oauth2_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.identity_provider.token_lifetime = lifetime;
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

/// 32 bytes of the random keys that the standard library has for its hash tables.
fn random_key() -> Vec<u8> {
    use std::hash::{BuildHasher, Hasher};
    let word = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    (0..4).flat_map(|_| word().to_be_bytes()).collect()
}
