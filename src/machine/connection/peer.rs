//! The broker at the other end of a connection: its capabilities (CONNECTED).

use std::sync::Arc;

/// What the broker said of itself in CONNECTED.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// The broker's address, `host:port`.
    pub address: Arc<str>,
    /// Its `server_version`.
    pub server_version: String,
    /// The protocol version both sides speak.
    pub protocol_version: i32,
    /// `max_message_size`, bytes.
    pub max_message_size: u32,
    /// WATCH_TOPIC_LIST is available.
    pub supports_topic_watchers: bool,
    /// `metadata_auto_creation_enabled = false` is honoured.
    pub supports_partitions_without_creation: bool,
}
