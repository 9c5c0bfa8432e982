//! One client connection as the broker sees it.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::endpoints::ConnectionEndpoints;
use crate::broker::authentication::Conversation;
use crate::broker::authentication::token::Identity;
use crate::pb;
use crate::wire::frame::Frame;

/// ```text
///            CONNECT accepted
///   Start ─────────────────────► Connected
///     │ refused, not CONNECT         │ protocol error, keep-alive, expired credentials
///     └──────────► Closing ◄─────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Nothing but CONNECT, PING and PONG is accepted.
    Start,
    /// All requests are served.
    Connected,
    /// What is queued goes out, then the socket closes. Nothing is read any longer.
    Closing,
}

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Where it is; `None` for a connection that has no address.
    pub address: Option<SocketAddr>,
    /// The common name of the certificate that it has shown over TLS, which is verified.
    pub common_name: Option<String>,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct BrokerConnection {
    /// Where the client is, if that is known.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) state: ConnectionState,
    /// Which of the cluster's brokers it came to.
    pub(crate) broker: usize,
    pub(crate) negotiated: Negotiated,
    pub(crate) credentials: Credentials,
    pub(crate) liveness: Liveness,
    pub(crate) endpoints: ConnectionEndpoints,
    pub(super) outbox: ConnectionOutbox,
    /// By a fault: what the peer sends is left unread.
    pub(crate) reads_paused: bool,
    pub(crate) throttle: Throttle,
    /// It is in the list of [`Connections::take_ready`](super::Connections::take_ready).
    pub(super) is_listed: bool,
}

impl BrokerConnection {
    pub(super) fn new() -> Self {
        Self {
            address: None,
            state: ConnectionState::Start,
            broker: 0,
            negotiated: Negotiated::default(),
            credentials: Credentials::default(),
            liveness: Liveness::default(),
            endpoints: ConnectionEndpoints::default(),
            outbox: ConnectionOutbox::default(),
            reads_paused: false,
            throttle: Throttle::default(),
            is_listed: false,
        }
    }

    /// Everything queued for the socket; the endpoints whose responses it holds count as answered.
    pub(crate) fn take_output(&mut self) -> Bytes {
        self.endpoints.mark_answered();
        self.outbox.bytes.split().freeze()
    }

    /// Whether what the peer sends is left unread.
    pub(crate) fn reads_paused(&self) -> bool {
        self.reads_paused || self.throttle.is_on()
    }

    pub(crate) fn writes_paused(&self) -> bool {
        self.outbox.writes_paused
    }

    /// Whether a delivery was held back because the outbox was full; it no longer is.
    pub(crate) fn take_needs_dispatch(&mut self) -> bool {
        std::mem::take(&mut self.outbox.needs_dispatch)
    }
}

/// Whether a producer of the connection is beyond a publish rate: then nothing more is read, and what was read before is held.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// The topic with that rate.
    topic: Option<Arc<str>>,
    /// What came in the same read as the last message within the rate: no more than one read brings.
    held: VecDeque<Frame>,
}

impl Throttle {
    pub(crate) fn is_on(&self) -> bool {
        self.topic.is_some()
    }

    pub(crate) fn topic(&self) -> Option<&Arc<str>> {
        self.topic.as_ref()
    }

    pub(crate) fn start(&mut self, topic: &Arc<str>) {
        self.topic = Some(Arc::clone(topic));
    }

    pub(crate) fn end(&mut self) {
        self.topic = None;
    }

    pub(crate) fn hold(&mut self, frame: Frame) {
        self.held.push_back(frame);
    }

    /// The next frame to be handled; `None` while the connection is beyond a rate.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if self.is_on() { None } else { self.held.pop_front() }
    }
}

/// What CONNECT negotiated.
#[derive(Debug, Default)]
pub(crate) struct Negotiated {
    /// Protocol version: the lower one of both sides.
    pub(crate) version: i32,
    pub(crate) flags: pb::FeatureFlags,
    /// As statistics show it. A broker takes none with a space in it.
    pub(crate) client_version: Option<String>,
    /// ms since 1970.
    pub(crate) at_ms: u64,
}

/// The identity of the client, and whether it has to be proved again.
#[derive(Default)]
pub(crate) struct Credentials {
    /// `None` while authentication is off.
    pub(crate) identity: Option<Identity>,
    /// The common name of the certificate that the client has shown over TLS.
    pub(crate) certified: Option<String>,
    /// How the client authenticates.
    pub(crate) conversation: Option<Conversation>,
    /// The CONNECT that waits for the last step of the conversation.
    pub(crate) connect: Option<Box<pb::CommandConnect>>,
    /// An AUTH_CHALLENGE has no response yet.
    pub(crate) is_challenged: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("certified", &self.certified)
            .field("method", &self.conversation.as_ref().map(|conversation| &conversation.method))
            .field("is_challenged", &self.is_challenged)
            .finish_non_exhaustive()
    }
}

/// Whether the client is alive, decided by its frames.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    /// A PING of the keep-alive has had no frame after it.
    pub(crate) is_pinged: bool,
    /// The liveness check under way.
    pub(crate) check: Option<u64>,
}

impl Liveness {
    /// Any frame proves that the client is alive; returns the liveness check that this ends.
    pub(crate) fn on_frame(&mut self) -> Option<u64> {
        self.is_pinged = false;
        self.check.take()
    }
}

/// Frames for the client. Bounded by the high-water mark for deliveries, by one response for each request otherwise.
#[derive(Debug, Default)]
pub(super) struct ConnectionOutbox {
    pub(super) bytes: BytesMut,
    /// A delivery was held back because there was no room.
    needs_dispatch: bool,
    /// By a fault: nothing goes out.
    pub(super) writes_paused: bool,
}

impl ConnectionOutbox {
    /// Whether a delivery may be queued. If not, its subscription is dispatched again once there is room.
    pub(super) fn has_room(&mut self, high_water_mark: usize) -> bool {
        let has_room = self.bytes.len() < high_water_mark;
        self.needs_dispatch |= !has_room;
        has_room
    }
}
