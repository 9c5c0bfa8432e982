//! The settings of a broker as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::wire::MAX_MESSAGE_SIZE_DEFAULT;

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

/// The settings of a broker. Defaults are those of Pulsar 4.0.8, except `batch_index_acknowledgment`, which is on as in 4.2.
#[derive(Clone)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// Secret of the HS256 tokens; `None` turns authentication off.
    pub token_key: Option<Vec<u8>>,
    /// The one role that may do everything; all others are refused each request.
    pub superuser: String,
    /// `tenant/namespace` names that exist.
    pub namespaces: BTreeSet<String>,
    /// Every well-formed namespace exists.
    pub any_namespace: bool,
    /// Partitioned topics by their full base name; those that `create_partitioned_topic` refuses are not made.
    pub partitioned: BTreeMap<String, u32>,
    /// PRODUCER and SUBSCRIBE make a topic that does not exist.
    pub auto_create_topics: bool,
    /// `acknowledgmentAtBatchIndexLevelEnabled`.
    pub batch_index_acknowledgment: bool,
    /// Deduplication by producer name and sequence id.
    pub deduplication: bool,
    /// `max_message_size` of CONNECTED, bytes.
    pub max_message_size: u32,
    /// Time between PINGs; also how long a handshake may take.
    pub keep_alive_interval: Duration,
    /// Time between checks for expired credentials.
    pub authentication_refresh_check: Duration,
    /// How long a connection may stay silent when somebody else wants the name of its producer.
    pub liveness_check: Duration,
    /// How long a new active consumer of a Failover subscription waits before it is served.
    pub failover_delay: Duration,
    /// Bytes of entries kept over all topics; above it acknowledged ones go, then producers are held off.
    pub stored_bytes_max: usize,
    /// Unacknowledged messages of a Shared or Key_Shared consumer at which delivery to it stops.
    pub unacked_messages_max: u64,
    /// Bytes waiting for one connection at which delivery to it stops.
    pub tx_bytes_max: usize,
    /// Broker entry metadata goes to clients that can parse it (protocol version 18 and the feature flag).
    pub broker_entry_metadata: bool,
    /// What happens to entries whose metadata cannot be read.
    pub damaged_entries: DamagedEntries,
    /// First part of generated producer names.
    pub cluster: String,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            token_key: None,
            superuser: "admin".to_owned(),
            namespaces: BTreeSet::from(["public/default".to_owned()]),
            any_namespace: false,
            partitioned: BTreeMap::new(),
            auto_create_topics: true,
            batch_index_acknowledgment: true,
            deduplication: false,
            max_message_size: MAX_MESSAGE_SIZE_DEFAULT,
            keep_alive_interval: Duration::from_secs(30),
            authentication_refresh_check: Duration::from_secs(60),
            liveness_check: Duration::from_secs(5),
            failover_delay: Duration::from_secs(1),
            stored_bytes_max: 256 * 1024 * 1024,
            unacked_messages_max: 50_000,
            tx_bytes_max: 4 * 1024 * 1024,
            broker_entry_metadata: false,
            damaged_entries: DamagedEntries::default(),
            cluster: "standalone".to_owned(),
        }
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("token_key", &self.token_key.as_ref().map(|_| "<secret>"))
            .field("superuser", &self.superuser)
            .field("namespaces", &self.namespaces)
            .field("partitioned", &self.partitioned)
            .field("deduplication", &self.deduplication)
            .field("max_message_size", &self.max_message_size)
            .finish_non_exhaustive()
    }
}
