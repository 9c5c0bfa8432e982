//! Captured traffic: what a reader of captures, a live tap and a replay hand to one another.
//!
//! A capture is a sequence of [`Segment`]s in the order of time: connections that open, bytes on them in either direction, bytes that the
//! capture lacks, and ends. The bytes of each direction are in order: TCP's retransmissions and
//! reordering are undone here, frames are not cut.

mod dump;
mod error;
mod frames;
pub(crate) mod likeness;
mod pcap;
pub mod recording;
mod traffic;

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;

pub use self::dump::{Dump, DumpError, read_dump};
pub use self::error::CaptureError;
pub use self::frames::{FramePiece, FramePieceKind, FrameReader};
pub use self::pcap::{PacketCounts, SegmentReader, is_capture};
pub use self::traffic::Traffic;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::ToBroker => Self::ToClient,
            Self::ToClient => Self::ToBroker,
        }
    }
}

/// Something that happened on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The connection, numbered from 1 in the order of their first segments.
    pub connection: u64,
    /// When it was captured.
    pub at: SystemTime,
    /// What happened.
    pub event: SegmentEvent,
}

/// What happened on a connection. Its `Debug` shows how many bytes there are, and none of them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentEvent {
    /// The first segment of each connection.
    Opened {
        /// The address of the client.
        client: SocketAddr,
        /// The address of the broker.
        broker: SocketAddr,
        /// Its beginning is not in the capture: the first bytes may be from within a frame.
        is_partial: bool,
    },
    /// The next bytes of a direction.
    Bytes {
        /// Which way.
        direction: Direction,
        /// At least one.
        bytes: Bytes,
    },
    /// Bytes of a direction that the capture lacks, before those that come next.
    Missing {
        /// Which way.
        direction: Direction,
        /// How many.
        count: u64,
    },
    /// No more bytes in this direction.
    Closed {
        /// Which way.
        direction: Direction,
        /// By a reset of the connection, in both directions.
        is_reset: bool,
    },
}

impl fmt::Debug for SegmentEvent {
    /// Shows only the length of bytes: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { client, broker, is_partial } => f
                .debug_struct("Opened")
                .field("client", client)
                .field("broker", broker)
                .field("is_partial", is_partial)
                .finish(),
            Self::Bytes { direction, bytes } => {
                f.debug_struct("Bytes").field("direction", direction).field("bytes", &bytes.len()).finish()
            }
            Self::Missing { direction, count } => {
                f.debug_struct("Missing").field("direction", direction).field("count", count).finish()
            }
            Self::Closed { direction, is_reset } => {
                f.debug_struct("Closed").field("direction", direction).field("is_reset", is_reset).finish()
            }
        }
    }
}
