//! One client connection as the broker sees it, and the set of all of them.

pub(crate) mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use crate::broker::connections::token::Identity;
use crate::broker::faults::Script;
use crate::broker::machine::ConnId;
use crate::broker::storage::entry_info::CHECKSUM_BLOCK_BYTES;
use crate::broker::storage::log::Entry;
use crate::pb;
use crate::wire::command::Command;
use crate::wire::entry::put_broker_entry_metadata;
use crate::wire::hot::{MessageHead, Receipt, put_message, put_ping, put_pong, put_receipt};

/// Producers and consumers, live or closed, that one connection may name; one more ends the connection.
pub(crate) const ENDPOINTS_MAX: usize = 100_000;

/// ```text
///            CONNECT accepted
///   Start ─────────────────────► Connected
///     │ refused, not CONNECT         │ protocol error, keep-alive, expired credentials
///     └──────────► Closing ◄─────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing but CONNECT, PING and PONG is accepted.
    Start,
    /// All requests are served.
    Connected,
    /// What is queued goes out, then the socket closes. Nothing is read any more.
    Closing,
}

/// ```text
///   PRODUCER ─► Parked ─► Live ─► ClosedByBroker | FencedOut | ClosedByClient
///           └──► Waiting ──┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProducerSlot {
    /// PRODUCER came; another connection is being asked whether it is alive.
    Parked,
    /// WaitForExclusive: answered with `producer_ready` = false.
    Waiting { topic: Arc<str> },
    /// `answered`: PRODUCER_SUCCESS was handed to the socket. `closed_at`: the broker closed this id before that.
    Live { topic: Arc<str>, answered: bool, closed_at: Option<Instant> },
    /// An ExclusiveWithFencing producer took over; the client is not told.
    FencedOut,
    /// The broker sent CLOSE_PRODUCER; SENDs in flight are ignored for a keep-alive interval.
    ClosedByBroker { at: Instant },
    /// The client sent CLOSE_PRODUCER.
    ClosedByClient,
}

/// The same for consumers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsumerSlot {
    /// SUBSCRIBE came; another connection is being asked whether it is alive.
    Parked,
    /// `answered`: SUCCESS was handed to the socket.
    Live { topic: Arc<str>, subscription: Arc<str>, answered: bool },
    /// The broker sent CLOSE_CONSUMER.
    ClosedByBroker,
    /// The client sent CLOSE_CONSUMER or UNSUBSCRIBE.
    ClosedByClient,
}

impl ConsumerSlot {
    /// Topic and subscription of a live consumer.
    pub(crate) fn subscription(&self) -> Option<(Arc<str>, Arc<str>)> {
        match self {
            Self::Live { topic, subscription, .. } => Some((Arc::clone(topic), Arc::clone(subscription))),
            _ => None,
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) state: State,
    /// Negotiated protocol version.
    pub(crate) version: i32,
    pub(crate) flags: pb::FeatureFlags,
    /// `None` while authentication is off.
    pub(crate) identity: Option<Identity>,
    pub(crate) superuser: bool,
    /// An AUTH_CHALLENGE has no answer yet.
    pub(crate) challenged: bool,
    /// A PING of the keep-alive has had no frame after it.
    pub(crate) pinged: bool,
    /// The liveness check under way; it is over when a frame arrives.
    pub(crate) liveness_check: Option<u64>,
    pub(crate) producers: BTreeMap<u64, ProducerSlot>,
    pub(crate) consumers: BTreeMap<u64, ConsumerSlot>,
    pub(crate) watchers: BTreeMap<u64, crate::broker::commands::topic_list::Watcher>,
    /// Ids whose answer is still in `out`.
    pub(crate) unanswered_producers: Vec<u64>,
    pub(crate) unanswered_consumers: Vec<u64>,
    pub(crate) connected_at_ms: u64,
    /// Frames for the client; bounded by `tx_bytes_max` for deliveries, by one answer per request otherwise.
    pub(crate) out: BytesMut,
    /// By a fault: what the peer sends is left unread.
    pub(crate) deaf: bool,
    /// By a fault: nothing goes out.
    pub(crate) mute: bool,
    /// A delivery was held back because `out` was full.
    pub(crate) starved: bool,
    listed: bool,
}

impl Connection {
    fn new() -> Self {
        Self {
            state: State::Start,
            version: 0,
            flags: pb::FeatureFlags::default(),
            identity: None,
            superuser: true,
            challenged: false,
            pinged: false,
            liveness_check: None,
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            watchers: BTreeMap::new(),
            unanswered_producers: Vec::new(),
            unanswered_consumers: Vec::new(),
            connected_at_ms: 0,
            out: BytesMut::new(),
            deaf: false,
            mute: false,
            starved: false,
            listed: false,
        }
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.producers.len() + self.consumers.len() + self.watchers.len()
    }

    /// Everything queued, counted as handed to the socket.
    pub(crate) fn take_out(&mut self) -> Bytes {
        for id in self.unanswered_producers.drain(..) {
            if let Some(ProducerSlot::Live { answered, .. }) = self.producers.get_mut(&id) {
                *answered = true;
            }
        }
        for id in self.unanswered_consumers.drain(..) {
            if let Some(ConsumerSlot::Live { answered, .. }) = self.consumers.get_mut(&id) {
                *answered = true;
            }
        }
        self.out.split().freeze()
    }
}

/// All connections, and which of them have something to write.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_id: BTreeMap<ConnId, Connection>,
    ready: Vec<ConnId>,
    next: u64,
    tx_bytes_max: usize,
    /// Faults strike what passes here in both directions.
    pub(crate) script: Script,
}

impl Connections {
    pub(crate) fn new(tx_bytes_max: usize) -> Self {
        Self { tx_bytes_max, ..Self::default() }
    }

    pub(crate) fn add(&mut self) -> ConnId {
        self.next += 1;
        let id = ConnId(self.next);
        self.by_id.insert(id, Connection::new());
        id
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.by_id.remove(&id)
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.by_id.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut Connection)> {
        self.by_id.iter_mut().map(|(id, connection)| (*id, connection))
    }

    /// Connections that got something to write, or have to close, since the last call.
    pub(crate) fn take_ready(&mut self) -> Vec<ConnId> {
        let ready = std::mem::take(&mut self.ready);
        for id in &ready {
            if let Some(connection) = self.by_id.get_mut(id) {
                connection.listed = false;
            }
        }
        ready
    }

    pub(crate) fn send(&mut self, id: ConnId, command: &Command) {
        if let Some(out) = self.out(id) {
            command.encode_frame(out);
        }
    }

    pub(crate) fn receipt(&mut self, id: ConnId, receipt: &Receipt) {
        if let Some(out) = self.out(id) {
            put_receipt(out, receipt);
        }
    }

    pub(crate) fn ping(&mut self, id: ConnId) {
        if let Some(out) = self.out(id) {
            put_ping(out);
        }
    }

    pub(crate) fn pong(&mut self, id: ConnId) {
        if let Some(out) = self.out(id) {
            put_pong(out);
        }
    }

    /// Ends the connection once what is queued went out.
    pub(crate) fn close(&mut self, id: ConnId) {
        if self.out(id).is_some() {
            if let Some(connection) = self.by_id.get_mut(&id) {
                connection.state = State::Closing;
            }
        }
    }

    /// Whether a delivery may be queued. If not, the next [`Connection::take_out`] has to dispatch again.
    pub(crate) fn has_room(&mut self, id: ConnId) -> bool {
        let tx_bytes_max = self.tx_bytes_max;
        self.by_id.get_mut(&id).is_some_and(|connection| {
            let room = connection.out.len() < tx_bytes_max;
            connection.starved |= !room;
            room
        })
    }

    /// Queues a MESSAGE. The checksum block is left out below version 11; `broker_metadata` puts the entry's index in
    /// front of it for clients that can parse that. Gives how often it went out: once, unless a fault wants it twice.
    pub(crate) fn message(&mut self, id: ConnId, head: &MessageHead, entry: &Entry, broker_metadata: bool) -> u32 {
        let effect = self.strike_delivery(id, head.consumer_id);
        let Some(connection) = self.by_id.get(&id) else { return 1 };
        let strip = if connection.version < 11 { entry.facts.checksum_bytes } else { 0 };
        let flagged = connection.flags.supports_broker_entry_metadata.unwrap_or(false);
        let prefix = broker_metadata && flagged && connection.version >= 18;
        debug_assert!(strip == 0 || strip == CHECKSUM_BLOCK_BYTES);
        let Some(out) = self.out(id) else { return 1 };
        let mark = out.len();
        let bytes = entry.bytes.get(strip..).unwrap_or_default();
        if prefix {
            let mut framed = BytesMut::with_capacity(bytes.len() + 32);
            put_broker_entry_metadata(&mut framed, entry.stored_ms, entry.index);
            framed.put_slice(bytes);
            put_message(out, head, &framed);
        } else {
            put_message(out, head, bytes);
        }
        effect.map_or(1, |effect| self.finish_delivery(id, head.consumer_id, mark, effect))
    }

    /// The queue of a connection that still takes output; lists the connection as ready.
    pub(crate) fn out(&mut self, id: ConnId) -> Option<&mut BytesMut> {
        let connection = self.by_id.get(&id)?;
        if connection.state == State::Closing {
            return None;
        }
        self.list(id);
        self.by_id.get_mut(&id).map(|connection| &mut connection.out)
    }

    /// Lists the connection as ready.
    pub(crate) fn list(&mut self, id: ConnId) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        if !connection.listed {
            connection.listed = true;
            self.ready.push(id);
        }
    }
}
