//! The settings of an [`EmbeddedBroker`], one call each.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::broker::admin::PARTITIONS_MAX;
use crate::broker::config::{BrokerConfig, DamagedEntries};
use crate::broker::embedded::EmbeddedBroker;
use crate::topic::TopicName;

/// Builds an [`EmbeddedBroker`].
#[derive(Debug, Clone)]
#[must_use = "nothing listens before `start`"]
pub struct EmbeddedBrokerBuilder {
    config: BrokerConfig,
    listen: SocketAddr,
    /// What is wrong with a partitioned topic; `start` reports it.
    bad_topic: Option<String>,
}

impl EmbeddedBrokerBuilder {
    pub(crate) fn new() -> Self {
        Self { config: BrokerConfig::default(), listen: (Ipv4Addr::LOCALHOST, 0).into(), bad_topic: None }
    }

    /// The secret that HS256 tokens are signed with. Without it authentication is off.
    pub fn token_key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.config.token_key = Some(key.into());
        self
    }

    /// Where to listen. Default 127.0.0.1 and a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

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

    /// Makes a partitioned topic of 1 to 10,000 partitions.
    pub fn partitioned_topic(mut self, topic: impl AsRef<str>, partitions: u32) -> Self {
        match TopicName::parse(topic.as_ref()) {
            Ok(name) if name.partition_index().is_some() => {
                self.bad_topic = Some(format!("{name} is a partition; it cannot have partitions itself"));
            }
            Ok(name) if !(1..=PARTITIONS_MAX).contains(&partitions) => {
                self.bad_topic =
                    Some(format!("{name} cannot have {partitions} partitions, only 1 to {PARTITIONS_MAX}"));
            }
            Ok(name) => {
                self.config.namespaces.insert(name.namespace().to_owned());
                self.config.partitioned.insert(name.as_str().to_owned(), partitions);
            }
            Err(error) => self.bad_topic = Some(error.to_string()),
        }
        self
    }

    /// Whether PRODUCER and SUBSCRIBE make a topic that does not exist. Default true.
    pub fn auto_create_topics(mut self, create: bool) -> Self {
        self.config.auto_create_topics = create;
        self
    }

    /// Whether members of a batch can be acknowledged one by one. Default true, as in Pulsar 4.2; off in 4.0.
    pub fn batch_index_acknowledgment(mut self, on: bool) -> Self {
        self.config.batch_index_acknowledgment = on;
        self
    }

    /// Whether repeated sequence ids of a producer name are dropped. Default false.
    pub fn deduplication(mut self, on: bool) -> Self {
        self.config.deduplication = on;
        self
    }

    /// `max_message_size` of CONNECTED, bytes. Default 5 MiB.
    pub fn max_message_size(mut self, bytes: u32) -> Self {
        self.config.max_message_size = bytes;
        self
    }

    /// Time between PINGs, and how long a handshake may take. Default 30 s.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.config.keep_alive_interval = interval;
        self
    }

    /// Time between checks for expired credentials. Default 60 s.
    pub fn authentication_refresh_check(mut self, interval: Duration) -> Self {
        self.config.authentication_refresh_check = interval;
        self
    }

    /// How long a new active consumer of a Failover subscription waits before it is served. Default 1 s.
    pub fn failover_delay(mut self, delay: Duration) -> Self {
        self.config.failover_delay = delay;
        self
    }

    /// Bytes of entries kept over all topics. Default 256 MiB. Above it acknowledged entries are dropped; where that
    /// is not enough, producers are closed and refused as by a backlog quota.
    pub fn stored_bytes_max(mut self, bytes: usize) -> Self {
        self.config.stored_bytes_max = bytes;
        self
    }

    /// The role that may do everything. Default `admin`.
    pub fn superuser(mut self, role: impl Into<String>) -> Self {
        self.config.superuser = role.into();
        self
    }

    /// Unacknowledged messages of a Shared or Key_Shared consumer at which delivery to it stops. Default 50,000.
    pub fn unacked_messages_max(mut self, messages: u64) -> Self {
        self.config.unacked_messages_max = messages;
        self
    }

    /// Whether clients that can parse it get broker entry metadata. Default false.
    pub fn broker_entry_metadata(mut self, on: bool) -> Self {
        self.config.broker_entry_metadata = on;
        self
    }

    /// What happens to entries whose metadata cannot be read. Default [`DamagedEntries::Drop`].
    pub fn damaged_entries(mut self, what: DamagedEntries) -> Self {
        self.config.damaged_entries = what;
        self
    }

    /// Listens and serves, on the current tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be listened on, or a partitioned topic cannot be made: the name is not one, or the number
    /// of partitions is out of range.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done leaves nothing behind.
    pub async fn start(self) -> io::Result<EmbeddedBroker> {
        if let Some(text) = self.bad_topic {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        EmbeddedBroker::start(self.config, self.listen).await
    }
}
