//! The client connections of the broker: what each has negotiated and named, and the frames that wait for its socket.
//!
//! Faults on deliveries are injected here, on the way out; those on requests by `machine::injection`.

mod connection;
mod delivery_faults;
mod endpoints;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

pub use self::connection::Peer;
pub(crate) use self::connection::{BrokerConnection, ConnectionState};
pub(crate) use self::endpoints::{ConnectionEndpoints, ConsumerSlot, EndpointDescription, ProducerSlot};
use crate::broker::faults::FaultScript;
use crate::broker::ids::{ConnId, ConsumerKey, ProducerKey};
use crate::broker::like::PulsarVersion;
use crate::broker::storage::{CHECKSUM_BLOCK_BYTES, StoredEntry};
use crate::wire::command::Command;
use crate::wire::entry::put_broker_entry_metadata;
use crate::wire::hot::{MessageHead, Receipt, put_message, put_ping, put_pong, put_receipt};

/// The protocol version from which on entries may carry their checksum.
const CHECKSUM_VERSION: i32 = 11;

/// The protocol version from which on entries may carry broker entry metadata.
const BROKER_ENTRY_METADATA_VERSION: i32 = 18;

/// All connections, and which of them have something to write.
#[derive(Debug)]
pub(crate) struct Connections {
    by_id: BTreeMap<ConnId, BrokerConnection>,
    /// Ids of those that got something to write, or have to close.
    ready: Vec<ConnId>,
    /// The number of the latest connection.
    latest: u64,
    /// Bytes in one outbox at which deliveries to it stop.
    high_water_mark: usize,
    /// Whose commands go out.
    like: PulsarVersion,
    /// Faults on what passes here in both directions.
    pub(crate) faults: FaultScript,
}

impl Connections {
    pub(crate) fn new(high_water_mark: usize, like: PulsarVersion) -> Self {
        let (by_id, ready, faults) = (BTreeMap::new(), Vec::new(), FaultScript::default());
        Self { by_id, ready, latest: 0, high_water_mark, like, faults }
    }

    pub(crate) fn add(&mut self) -> ConnId {
        self.latest += 1;
        let id = ConnId(self.latest);
        self.by_id.insert(id, BrokerConnection::new());
        id
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<BrokerConnection> {
        self.by_id.remove(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&BrokerConnection> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut BrokerConnection> {
        self.by_id.get_mut(&id)
    }

    #[cfg(feature = "sim")]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut BrokerConnection> {
        self.by_id.values_mut()
    }

    pub(crate) fn state(&self, id: ConnId) -> Option<ConnectionState> {
        self.get(id).map(|connection| connection.state)
    }

    /// Negotiated protocol version; 0 before the handshake.
    pub(crate) fn version(&self, id: ConnId) -> i32 {
        self.get(id).map_or(0, |connection| connection.negotiated.version)
    }

    /// Connections that got something to write, or have to close, since the last call.
    pub(crate) fn take_ready(&mut self) -> Vec<ConnId> {
        let ready = std::mem::take(&mut self.ready);
        for id in &ready {
            if let Some(connection) = self.by_id.get_mut(id) {
                connection.is_listed = false;
            }
        }
        ready
    }
}

/// Producers and consumers by their connection.
impl Connections {
    pub(crate) fn producer(&self, key: ProducerKey) -> Option<&ProducerSlot> {
        self.get(key.conn)?.endpoints.producer(key.id)
    }

    pub(crate) fn consumer(&self, key: ConsumerKey) -> Option<&ConsumerSlot> {
        self.get(key.conn)?.endpoints.consumer(key.id)
    }

    /// Returns the previous state.
    pub(crate) fn set_producer(&mut self, key: ProducerKey, slot: ProducerSlot) -> Option<ProducerSlot> {
        self.get_mut(key.conn)?.endpoints.set_producer(key.id, slot)
    }

    /// Returns the previous state.
    pub(crate) fn set_consumer(&mut self, key: ConsumerKey, slot: ConsumerSlot) -> Option<ConsumerSlot> {
        self.get_mut(key.conn)?.endpoints.set_consumer(key.id, slot)
    }

    /// The id was never answered with success: it is as if it had not been named.
    pub(crate) fn remove_producer(&mut self, key: ProducerKey) {
        if let Some(connection) = self.get_mut(key.conn) {
            connection.endpoints.remove_producer(key.id);
        }
    }

    /// The id was never answered with success: it is as if it had not been named.
    pub(crate) fn remove_consumer(&mut self, key: ConsumerKey) {
        if let Some(connection) = self.get_mut(key.conn) {
            connection.endpoints.remove_consumer(key.id);
        }
    }

    /// A producer is live; its response follows.
    pub(crate) fn open_producer(&mut self, key: ProducerKey, topic: &Arc<str>) {
        if let Some(connection) = self.get_mut(key.conn) {
            connection.endpoints.open_producer(key.id, Arc::clone(topic));
        }
    }

    /// A consumer is live; its response follows.
    pub(crate) fn open_consumer(&mut self, key: ConsumerKey, topic: &Arc<str>, subscription: &Arc<str>) {
        if let Some(connection) = self.get_mut(key.conn) {
            connection.endpoints.open_consumer(key.id, Arc::clone(topic), Arc::clone(subscription));
        }
    }
}

/// Frames for the clients.
impl Connections {
    pub(crate) fn send(&mut self, id: ConnId, command: impl Into<Command>) {
        let like = self.like;
        if let Some(out) = self.writer(id) {
            like.written(command.into()).encode_frame(out);
        }
    }

    pub(crate) fn send_receipt(&mut self, id: ConnId, receipt: &Receipt) {
        if let Some(out) = self.writer(id) {
            put_receipt(out, receipt);
        }
    }

    pub(crate) fn send_ping(&mut self, id: ConnId) {
        if let Some(out) = self.writer(id) {
            put_ping(out);
        }
    }

    pub(crate) fn send_pong(&mut self, id: ConnId) {
        if let Some(out) = self.writer(id) {
            put_pong(out);
        }
    }

    /// Appends bytes that need not be a frame.
    pub(crate) fn send_raw(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(out) = self.writer(id) {
            out.extend_from_slice(bytes);
        }
    }

    /// Queues a MESSAGE. The checksum block is left out for peers that cannot read it; `broker_metadata` puts the
    /// entry's index in front of it for those that can parse that. Returns how often it was sent: once, unless a fault
    /// duplicates it.
    pub(crate) fn send_message(
        &mut self,
        id: ConnId,
        head: &MessageHead,
        entry: &StoredEntry,
        broker_metadata: bool,
    ) -> u32 {
        let effect = self.delivery_fault(ConsumerKey { conn: id, id: head.consumer_id });
        let Some(connection) = self.by_id.get(&id) else { return 1 };
        let negotiated = &connection.negotiated;
        let strip = if negotiated.version < CHECKSUM_VERSION { entry.info.checksum_bytes } else { 0 };
        debug_assert!(strip == 0 || strip == CHECKSUM_BLOCK_BYTES);
        let bytes = entry.bytes.get(strip..).unwrap_or_default();
        let reads_metadata = negotiated.version >= BROKER_ENTRY_METADATA_VERSION
            && negotiated.flags.supports_broker_entry_metadata.unwrap_or(false);
        let Some(out) = self.writer(id) else { return 1 };
        let start = out.len();
        if broker_metadata && reads_metadata {
            let mut prefixed = BytesMut::with_capacity(bytes.len() + 32);
            put_broker_entry_metadata(&mut prefixed, entry.stored_ms, entry.index);
            prefixed.put_slice(bytes);
            put_message(out, head, &prefixed);
        } else {
            put_message(out, head, bytes);
        }
        match effect {
            Some(effect) => self.inject_into_delivery(ConsumerKey { conn: id, id: head.consumer_id }, start, effect),
            None => 1,
        }
    }

    /// Whether a delivery may be queued. If not, the next [`BrokerConnection::take_output`] makes room, and what is
    /// held back has to be dispatched again.
    pub(crate) fn has_room(&mut self, id: ConnId) -> bool {
        let high_water_mark = self.high_water_mark;
        self.get_mut(id).is_some_and(|connection| connection.outbox.has_room(high_water_mark))
    }

    /// Ends the connection once what is queued went out.
    pub(crate) fn close(&mut self, id: ConnId) {
        if self.writer(id).is_some() {
            if let Some(connection) = self.by_id.get_mut(&id) {
                connection.state = ConnectionState::Closing;
            }
        }
    }

    /// The outbox of a connection that is not closing; lists the connection as ready.
    fn writer(&mut self, id: ConnId) -> Option<&mut BytesMut> {
        let is_closing = self.by_id.get(&id)?.state == ConnectionState::Closing;
        if is_closing {
            return None;
        }
        self.list(id);
        self.by_id.get_mut(&id).map(|connection| &mut connection.outbox.bytes)
    }

    /// Lists the connection as ready.
    pub(crate) fn list(&mut self, id: ConnId) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        if !connection.is_listed {
            connection.is_listed = true;
            self.ready.push(id);
        }
    }
}
