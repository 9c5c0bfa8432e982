//! Settings by name, for a command line or a file: those of [`EmbeddedBrokerBuilder`], under the names of Pulsar's
//! `broker.conf` where it has them.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::builder::EmbeddedBrokerBuilder;
use crate::base64_text;
use crate::broker::config::DamagedEntries;
use crate::broker::policies::DelayedDelivery;

/// A setting that [`EmbeddedBrokerBuilder::setting`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerSetting {
    /// Its name.
    pub name: &'static str,
    /// The value that it has by default, as `setting` takes it; empty for none.
    pub default: &'static str,
    /// What it means, in a few words.
    pub about: &'static str,
}

/// Why [`EmbeddedBrokerBuilder::setting`] or [`EmbeddedBrokerBuilder::settings_file`] did not take a setting.
#[derive(Debug)]
#[non_exhaustive]
pub enum BrokerSettingError {
    /// There is no such setting.
    Unknown {
        /// As it was given.
        name: String,
        /// The setting whose name is nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// The value does not fit. It is not named: it may be a secret.
    BadValue {
        /// The setting.
        name: &'static str,
        /// What its value has to be.
        expected: String,
    },
    /// A line of a file is neither `name=value`, nor empty, nor a comment, or its setting was not taken.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with the setting; `None` for a line without `=`.
        error: Option<Box<BrokerSettingError>>,
    },
    /// The file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl fmt::Display for BrokerSettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "the embedded broker has no setting {name}; did you mean {nearest}?")
            }
            Self::Unknown { name, nearest: None } => write!(f, "the embedded broker has no setting {name}"),
            Self::BadValue { name, expected } => write!(f, "{name} has to be {expected}"),
            Self::Line { path, line, error: Some(error) } => write!(f, "{}:{line}: {error}", path.display()),
            Self::Line { path, line, error: None } => {
                write!(f, "{}:{line}: neither name=value nor a comment", path.display())
            }
            Self::File { path, error } => write!(f, "cannot read {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BrokerSettingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::Line { error: Some(error), .. } => Some(error),
            _ => None,
        }
    }
}

/// Settings by name.
impl EmbeddedBrokerBuilder {
    /// Sets what has this name: a method of this builder in Pulsar's spelling (`maxMessageSize`), with the unit at its end
    /// where `broker.conf` has it there (`keepAliveIntervalSeconds`). [`settings`](Self::settings) lists them all. A list is
    /// written with commas.
    ///
    /// ```
    /// use pulsar_native::broker::EmbeddedBroker;
    ///
    /// # fn main() -> Result<(), pulsar_native::broker::BrokerSettingError> {
    /// let builder = EmbeddedBroker::builder().setting("maxMessageSize", "65536")?.setting("partitionedTopics", "orders=3")?;
    /// let error = builder.setting("maxMesageSize", "1").expect_err("not quite");
    /// assert_eq!(error.to_string(), "the embedded broker has no setting maxMesageSize; did you mean maxMessageSize?");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// There is no such setting, or the value does not fit it.
    pub fn setting(self, name: &str, value: &str) -> Result<Self, BrokerSettingError> {
        let Some(row) = SETTINGS.iter().find(|row| row.about.name == name) else {
            return Err(BrokerSettingError::Unknown { name: name.to_owned(), nearest: nearest(name) });
        };
        let bad_value = |Expected(expected)| BrokerSettingError::BadValue { name: row.about.name, expected };
        (row.apply)(self, value.trim()).map_err(bad_value)
    }

    /// Sets what a file says, in the format of `broker.conf`: a `name=value` on each line, lines that begin with `#` are
    /// comments. Of a setting that comes twice the last value counts, or all where it is a list of things.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not taken; the error names it.
    pub fn settings_file(mut self, path: impl AsRef<Path>) -> Result<Self, BrokerSettingError> {
        let path = path.as_ref();
        let unreadable = |error| BrokerSettingError::File { path: path.to_owned(), error };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        for (index, line) in text.lines().enumerate() {
            let on_line = |error| BrokerSettingError::Line { path: path.to_owned(), line: index + 1, error };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| on_line(None))?;
            self = self.setting(name.trim_end(), value).map_err(|error| on_line(Some(Box::new(error))))?;
        }
        Ok(self)
    }

    /// All settings that [`setting`](Self::setting) takes.
    pub fn settings() -> impl Iterator<Item = BrokerSetting> {
        SETTINGS.iter().map(|row| row.about)
    }
}

/// What a value has to be.
struct Expected(String);

impl From<&str> for Expected {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

type Applied = Result<EmbeddedBrokerBuilder, Expected>;

struct Row {
    about: BrokerSetting,
    apply: fn(EmbeddedBrokerBuilder, &str) -> Applied,
}

const fn row(
    name: &'static str,
    default: &'static str,
    about: &'static str,
    apply: fn(EmbeddedBrokerBuilder, &str) -> Applied,
) -> Row {
    Row { about: BrokerSetting { name, default, about }, apply }
}

const SETTINGS: &[Row] = &[
    row("listen", "127.0.0.1:0", "address for pulsar://, port 0: a free one", |b, v| Ok(b.listen(address(v)?))),
    row("brokers", "1", "brokers of the cluster, 1 to 16", |b, v| Ok(b.brokers(number(v)?))),
    row("http", "false", "serve the REST interface", |b, v| Ok(b.http(switch(v)?))),
    row("httpListen", "", "address for http://", |b, v| optional(b, v, |b| Ok(b.http_listen(address(v)?)))),
    row("like", "4.0", "the release of Pulsar that is played", |b, v| {
        let known = |error: crate::broker::UnknownPulsarVersion| Expected(error.to_string());
        Ok(b.play(v.parse().map_err(known)?))
    }),
    row("brokerServiceUrlTls", "", "pulsar+ssl:// address that lookups name", |b, v| {
        optional(b, v, |b| Ok(b.broker_service_url_tls(v)))
    }),
    #[cfg(feature = "tls")]
    row("tlsCertificateFilePath", "", "certificate for TLS, PEM", |b, v| {
        optional(b, v, |b| Ok(b.tls_certificate_file(v.into())))
    }),
    #[cfg(feature = "tls")]
    row("tlsKeyFilePath", "", "key of the certificate, PEM", |b, v| optional(b, v, |b| Ok(b.tls_key_file(v.into())))),
    #[cfg(feature = "self-signed")]
    row("tlsSelfSigned", "false", "serve TLS with a certificate made at the start", |b, v| {
        Ok(if switch(v)? { b.tls_self_signed() } else { b })
    }),
    #[cfg(feature = "tls")]
    row("tlsTrustCertsFilePath", "", "authorities of clients' certificates, PEM", |b, v| {
        optional(b, v, |b| Ok(b.tls_trust_certs_file(v)))
    }),
    #[cfg(feature = "tls")]
    row("tlsRequireTrustedClientCertOnConnect", "false", "TLS needs a client's certificate", |b, v| {
        Ok(b.tls_require_trusted_client_cert_on_connect(switch(v)?))
    }),
    #[cfg(feature = "tls")]
    row("tlsAuthentication", "false", "certificates authenticate", |b, v| Ok(b.tls_authentication(switch(v)?))),
    #[cfg(feature = "tls")]
    row("tlsListen", "", "address for pulsar+ssl://", |b, v| optional(b, v, |b| Ok(b.tls_listen(address(v)?)))),
    #[cfg(feature = "tls")]
    row("httpsListen", "", "address for https://", |b, v| optional(b, v, |b| Ok(b.https_listen(address(v)?)))),
    row("tokenSecretKey", "", "secret of HS256 tokens: a text, data:;base64,... or file:PATH", |b, v| {
        optional(b, v, |b| Ok(b.token_secret_key(secret(v)?)))
    }),
    row("basicUsers", "", "user:password,...", |b, v| {
        list(b, v, |b, user| {
            let (user, password) = user.split_once(':').ok_or("user:password,...")?;
            Ok(b.basic_user(user, password))
        })
    }),
    row("superUserRoles", "admin", "roles that may do everything", |b, v| {
        Ok(b.super_user_roles(items(v).map(str::to_owned)))
    }),
    row("anonymousUserRole", "", "role of clients without credentials", |b, v| {
        optional(b, v, |b| Ok(b.anonymous_user_role(v)))
    }),
    row("authenticationRefreshCheckSeconds", "60", "time between checks for expired credentials", |b, v| {
        Ok(b.authentication_refresh_check(interval(v)?))
    }),
    row("keepAliveIntervalSeconds", "30", "time between PINGs", |b, v| Ok(b.keep_alive_interval(interval(v)?))),
    row("connectionLivenessCheckTimeoutMillis", "5000", "silence after which a holder gives way", |b, v| {
        Ok(b.connection_liveness_check_timeout(millis(v)?))
    }),
    row("oauth2Clients", "", "id:secret:role,... that get tokens at the issuer", |b, v| {
        list(b, v, |b, client| {
            let (id, rest) = client.split_once(':').ok_or("id:secret:role,...")?;
            let (secret, role) = rest.rsplit_once(':').ok_or("id:secret:role,...")?;
            Ok(b.oauth2_client(id, secret, role))
        })
    }),
    row("oauth2Audience", "", "audience that requests for tokens name", |b, v| {
        optional(b, v, |b| Ok(b.oauth2_audience(v)))
    }),
    row("oauth2TokenLifetimeSeconds", "3600", "how long such a token is good", |b, v| {
        Ok(b.oauth2_token_lifetime(seconds(v)?))
    }),
    row("namespaces", "", "tenant/namespace,... beside public/default", |b, v| {
        list(b, v, |b, one| Ok(b.namespace(one)))
    }),
    row("anyNamespace", "false", "every namespace exists", |b, v| Ok(b.any_namespace(switch(v)?))),
    row("partitionedTopics", "", "topic=partitions,...", |b, v| {
        list(b, v, |b, topic| {
            let (topic, partitions) = topic.rsplit_once('=').ok_or("topic=partitions,...")?;
            Ok(b.partitioned_topic(topic, number(partitions)?))
        })
    }),
    row("allowAutoTopicCreation", "true", "topics are made when they are used", |b, v| {
        Ok(b.allow_auto_topic_creation(switch(v)?))
    }),
    row("maxMessageSize", "5242880", "bytes", |b, v| Ok(b.max_message_size(number(v)?))),
    row("brokerDeduplicationEnabled", "false", "repeated sequence ids are dropped", |b, v| {
        Ok(b.broker_deduplication_enabled(switch(v)?))
    }),
    row("acknowledgmentAtBatchIndexLevelEnabled", "true", "members of a batch are acknowledged one by one", |b, v| {
        Ok(b.acknowledgment_at_batch_index_level_enabled(switch(v)?))
    }),
    row("activeConsumerFailoverDelayTimeMillis", "1000", "wait of a new active consumer", |b, v| {
        Ok(b.active_consumer_failover_delay_time(millis(v)?))
    }),
    row("maxUnackedMessagesPerConsumer", "50000", "messages", |b, v| {
        Ok(b.max_unacked_messages_per_consumer(number(v)?))
    }),
    row("maxStoredBytes", "268435456", "bytes of entries kept over all topics", |b, v| {
        Ok(b.max_stored_bytes(number(v)?))
    }),
    row("exposingBrokerEntryMetadataToClientEnabled", "false", "clients get broker entry metadata", |b, v| {
        Ok(b.exposing_broker_entry_metadata_to_client_enabled(switch(v)?))
    }),
    row("subscriptionKeySharedUseConsistentHashing", "true", "Key_Shared by a ring; if not, by ranges", |b, v| {
        Ok(b.subscription_key_shared_use_consistent_hashing(switch(v)?))
    }),
    row("subscriptionKeySharedConsistentHashingReplicaPoints", "100", "points of a consumer on the ring", |b, v| {
        Ok(b.subscription_key_shared_consistent_hashing_replica_points(number(v)?))
    }),
    row("ttlDurationDefaultInSeconds", "0", "time to live of messages, 0: none", |b, v| {
        let ttl = seconds(v)?;
        Ok(b.broker_policies(|own| own.message_ttl = Some(ttl)))
    }),
    row("schemaCompatibilityStrategy", "FULL", "what a new version of a schema has to fit", |b, v| {
        let strategy =
            v.parse().map_err(|_| "FULL, BACKWARD, FORWARD, their _TRANSITIVE forms, ALWAYS_COMPATIBLE, ...")?;
        Ok(b.broker_policies(|own| own.schema_compatibility_strategy = Some(strategy)))
    }),
    row("isSchemaValidationEnforced", "false", "producers need a schema where there is one", |b, v| {
        let enforced = switch(v)?;
        Ok(b.broker_policies(|own| own.schema_validation_enforced = Some(enforced)))
    }),
    row("isAllowAutoUpdateSchemaEnabled", "true", "producers may bring new versions of a schema", |b, v| {
        let allowed = switch(v)?;
        Ok(b.broker_policies(|own| own.is_allow_auto_update_schema = Some(allowed)))
    }),
    row("delayedDeliveryEnabled", "true", "messages may be delayed", |b, v| {
        let active = switch(v)?;
        Ok(b.broker_policies(|own| own.delayed_delivery = Some(DelayedDelivery::new(active))))
    }),
    row("maxUnackedMessagesPerSubscription", "200000", "messages, 0: no limit", |b, v| {
        let messages = number(v)?;
        Ok(b.broker_policies(|own| own.max_unacked_messages_per_subscription = Some(messages)))
    }),
    row("maxProducersPerTopic", "0", "0: no limit", |b, v| {
        let producers = number(v)?;
        Ok(b.broker_policies(|own| own.max_producers_per_topic = Some(producers)))
    }),
    row("maxConsumersPerTopic", "0", "0: no limit", |b, v| {
        let consumers = number(v)?;
        Ok(b.broker_policies(|own| own.max_consumers_per_topic = Some(consumers)))
    }),
    row("maxConsumersPerSubscription", "0", "0: no limit", |b, v| {
        let consumers = number(v)?;
        Ok(b.broker_policies(|own| own.max_consumers_per_subscription = Some(consumers)))
    }),
    row("maxSubscriptionsPerTopic", "0", "0: no limit", |b, v| {
        let subscriptions = number(v)?;
        Ok(b.broker_policies(|own| own.max_subscriptions_per_topic = Some(subscriptions)))
    }),
    row("policyCheckIntervalSeconds", "1", "time between looks at what policies ask for", |b, v| {
        Ok(b.policy_check_interval(interval(v)?))
    }),
    row("damagedEntries", "drop", "entries whose metadata cannot be read: drop, deliver, refuse", |b, v| {
        Ok(b.damaged_entries(match v {
            "drop" => DamagedEntries::Drop,
            "deliver" => DamagedEntries::Deliver,
            "refuse" => DamagedEntries::Refuse,
            _ => return Err("drop, deliver or refuse".into()),
        }))
    }),
];

/// An empty value leaves the builder as it is.
fn optional(
    builder: EmbeddedBrokerBuilder,
    value: &str,
    apply: impl FnOnce(EmbeddedBrokerBuilder) -> Applied,
) -> Applied {
    if value.is_empty() { Ok(builder) } else { apply(builder) }
}

fn list(
    builder: EmbeddedBrokerBuilder,
    value: &str,
    apply: impl Fn(EmbeddedBrokerBuilder, &str) -> Applied,
) -> Applied {
    items(value).try_fold(builder, apply)
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn switch(value: &str) -> Result<bool, Expected> {
    value.parse().map_err(|_| "true or false".into())
}

fn number<N: FromStr>(value: &str) -> Result<N, Expected> {
    value.parse().map_err(|_| "a number in its range".into())
}

fn seconds(value: &str) -> Result<Duration, Expected> {
    Ok(Duration::from_secs(number::<u32>(value)?.into()))
}

/// Of what is done again and again.
fn interval(value: &str) -> Result<Duration, Expected> {
    seconds(value).ok().filter(|interval| !interval.is_zero()).ok_or_else(|| "a number of seconds from 1".into())
}

fn millis(value: &str) -> Result<Duration, Expected> {
    Ok(Duration::from_millis(number::<u32>(value)?.into()))
}

fn address(value: &str) -> Result<SocketAddr, Expected> {
    value.parse().map_err(|_| "an address with its port, such as 127.0.0.1:6650".into())
}

/// As in `broker.conf`, but that a text which is no URL is the secret itself.
fn secret(value: &str) -> Result<Vec<u8>, Expected> {
    if let Some(text) = value.strip_prefix("data:;base64,") {
        return base64_text::decode(text).ok_or_else(|| "base64 behind data:;base64,".into());
    }
    let Some(path) = value.strip_prefix("file:") else { return Ok(value.as_bytes().to_vec()) };
    let path = path.strip_prefix("//").unwrap_or(path);
    std::fs::read(path).map_err(|error| Expected(format!("a file that can be read: {path}: {error}")))
}

/// The setting whose name needs the fewest changes, if these are few.
fn nearest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let distances = SETTINGS.iter().map(|row| (distance(&lower, &row.about.name.to_ascii_lowercase()), row.about.name));
    distances.min().filter(|(distance, _)| *distance <= name.len() / 4).map(|(_, name)| name)
}

/// How many characters have to be added, removed or replaced.
fn distance(one: &str, other: &str) -> usize {
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, a) in one.bytes().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in other.bytes().enumerate() {
            let replaced = last[column] + usize::from(a != b);
            current.push(replaced.min(last[column + 1] + 1).min(current[column] + 1));
        }
        last = current;
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::EmbeddedBroker;

    fn refusal(name: &str, value: &str) -> String {
        EmbeddedBroker::builder().setting(name, value).expect_err("refused").to_string()
    }

    #[test]
    fn every_default_is_taken() {
        for BrokerSetting { name, default, .. } in EmbeddedBrokerBuilder::settings() {
            let taken = EmbeddedBroker::builder().setting(name, default);
            assert!(taken.is_ok(), "{:?}", taken.err());
        }
    }

    /// But for what no text can hold, and for the certificate and its key, which are two settings.
    #[test]
    fn every_method_of_the_builder_has_its_setting() {
        let policies = ["broker_policies", "namespace_policies", "topic_policies"];
        let exempt =
            ["tls_config", "tls_cert_file", "authentication_provider"].into_iter().chain(policies).collect::<Vec<_>>();
        let sources = [include_str!("builder/mod.rs"), include_str!("builder/access.rs")];
        let lines =
            sources.into_iter().flat_map(str::lines).filter_map(|line| line.trim_start().strip_prefix("pub fn "));
        let methods = lines.filter(|line| line.contains("self,")).filter_map(|line| line.split(['(', '<']).next());
        for method in methods.filter(|method| !exempt.contains(method)) {
            let mut words = method.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            let camel = words.fold(first, |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..]);
            assert!(SETTINGS.iter().any(|row| row.about.name.starts_with(&camel)), "no setting for {method}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        assert_eq!(refusal("maxMessageSize", "5 MiB"), "maxMessageSize has to be a number in its range");
        assert_eq!(refusal("http", "yes"), "http has to be true or false");
        assert_eq!(refusal("basicUsers", "alice"), "basicUsers has to be user:password,...");
        assert_eq!(
            refusal("managedLedgerDefaultEnsembleSize", "1"),
            "the embedded broker has no setting managedLedgerDefaultEnsembleSize"
        );
        assert!(
            refusal("tokenSecretKey", "file:///nowhere/key")
                .starts_with("tokenSecretKey has to be a file that can be read")
        );
        assert_eq!(refusal("tokenSecretKey", "data:;base64,?"), "tokenSecretKey has to be base64 behind data:;base64,");
    }

    #[test]
    fn a_file_is_taken_line_by_line() {
        let path = std::env::temp_dir().join(format!("pulsar-native-settings-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            EmbeddedBroker::builder().settings_file(&path)
        };
        let builder =
            read("# a comment\n\nnamespaces = a/b, c/d\nnamespaces=e/f\nmaxMessageSize=1000\n").expect("a good file");
        let config = builder.config();
        assert!(["a/b", "c/d", "e/f", "public/default"].iter().all(|name| config.has_namespace(name)));
        assert_eq!(config.max_message_size, 1000);
        let error = read("http=true\nhttp\n").expect_err("no value").to_string();
        assert!(error.ends_with(":2: neither name=value nor a comment"), "{error}");
        let error = read("httP=true\n").expect_err("an unknown name").to_string();
        assert!(error.ends_with(":1: the embedded broker has no setting httP; did you mean http?"), "{error}");
        std::fs::remove_file(&path).expect("removed");
    }
}
