//! Segments of captured traffic in, [`Observation`]s out.
//!
//! An [`Inspector`] has no clock and does no I/O: a live proxy, a file and a test hand it [`Segment`]s, and where the bytes are broken
//! into segments changes nothing but the times. It keeps what it needs to tie frames together: requests that wait for their
//! answer, SENDs that wait for their receipt, messages that are not acknowledged. No payload and no credential is among that.
//! All of it is bounded, for each connection and over all of them: 256 MiB of what is known of endpoints and waits, as much of what
//! outlives a connection, and as much of frames that are not whole. Beyond a bound the oldest is forgotten, and what depends on it is
//! not judged; a frame for which there is no room is lost.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `connection` | the handshake, versions, keep-alive |
//! | `endpoints` | which command is about what |
//! | `requests` | which answer belongs to which request |
//! | `producers`, `consumers` | the ledgers, and what one connection may do with an id |
//! | `pending` | what waits in order, and is found by an id that a peer chose |
//! | `entry` | what SEND and MESSAGE carry |
//! | `shared` | what outlives a connection: sequence ids by producer name, what a subscription was sent |
//! | `json` | an observation as a line of JSON |
//! | `summary` | the fields of a command, for people, without secrets |
//!
//! # What it judges
//! The rules of the embedded broker's judge, as far as they show on the wire, and those for brokers. What it does not judge:
//! `LookupMissing` (a lookup may have gone another way) and `MixedBatchOnKeyShared` (it looks into no payload). `SequenceNotGrowing`
//! is told when the receipt shows that the message was stored, since deduplication allows repeated ids. Where bytes are missing, or the
//! beginning of a connection is, only what shows in one frame is judged. The same goes for both sides of a connection of which one
//! sent what cannot be read. TLS and HTTP are told of and not judged.

mod connection;
mod consumers;
mod endpoints;
mod entry;
pub(super) mod json;
mod observation;
mod pending;
mod producers;
mod requests;
mod shared;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use self::connection::Connection;
use self::shared::Shared;
use crate::capture::{Segment, SegmentEvent};
use crate::rules::{Rule, Side};

pub use self::observation::{
    Answered, Endpoint, FrameObservation, Ledger, Observation, ObservedError, ObservedEvent, Violation,
};

/// Connections that are known at a time; beyond it the first ones are forgotten.
const CONNECTIONS_MAX: usize = 10_000;

/// How an [`Inspector`] looks at traffic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InspectorConfig {
    /// How long a side may be silent after a PING, 30 s by default, as in Pulsar (`keepAliveIntervalSeconds`).
    pub keep_alive: Duration,
    /// Whether [`FrameObservation::bytes`] has each frame, secrets and payload included; off by default.
    pub keep_frames: bool,
}

impl Default for InspectorConfig {
    fn default() -> Self {
        Self { keep_alive: Duration::from_secs(30), keep_frames: false }
    }
}

/// Looks at traffic: segments in, observations out. It has no clock and does no I/O. It keeps neither payloads nor credentials, and
/// what it keeps is bounded, over all connections to about 256 MiB each of what waits, of what outlives a connection, and of frames
/// that are not whole: beyond a bound the oldest is forgotten, and what depends on it is not judged.
///
/// It judges the rules of the embedded broker's judge as far as they show on the wire, and those for brokers. `LookupMissing` and
/// `MixedBatchOnKeyShared` do not show; `SequenceNotGrowing` is told with the receipt of what was stored. Where bytes are missing, or
/// the beginning of a connection is, or one of its sides sent what cannot be read, only what shows in one frame is judged. TLS and
/// HTTP are told of and not judged.
///
/// ```
/// use std::time::SystemTime;
///
/// use pulsar_native::capture::{Direction, Segment, SegmentEvent};
/// use pulsar_native::tap::{Inspector, InspectorConfig};
///
/// let mut inspector = Inspector::new(InspectorConfig::default());
/// let (client, broker) = ("127.0.0.1:50000".parse()?, "127.0.0.1:6650".parse()?);
/// let ping = &[0, 0, 0, 9, 0, 0, 0, 5, 0x08, 0x12, 0x92, 0x01, 0x00];
/// let events = [
///     SegmentEvent::Opened { client, broker, is_partial: true },
///     SegmentEvent::Bytes { direction: Direction::ToClient, bytes: ping.as_slice().into() },
/// ];
/// let mut seen = Vec::new();
/// for event in events {
///     inspector.inspect(&Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event }, &mut seen);
/// }
/// assert_eq!(seen[1].to_string(), "#1 <- PING");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Inspector {
    config: InspectorConfig,
    connections: BTreeMap<u64, Connection>,
    shared: Shared,
}

impl Inspector {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(config: InspectorConfig) -> Self {
        Self { config, connections: BTreeMap::new(), shared: Shared::default() }
    }

    /// Takes the next segment, and appends what it shows to `out`. Segments of a connection whose `Opened` did not come, or that is
    /// closed, show nothing.
    pub fn inspect(&mut self, segment: &Segment, out: &mut Vec<Observation>) {
        let mut sink = Sink { connection: segment.connection, at: segment.at, out, broken: Vec::new() };
        if let SegmentEvent::Opened { client, broker, is_partial } = segment.event {
            return self.open(segment, &mut sink, ObservedEvent::Opened { client, broker, is_partial }, is_partial);
        }
        let Some(connection) = self.connections.get_mut(&segment.connection) else { return };
        match &segment.event {
            SegmentEvent::Opened { .. } => {}
            SegmentEvent::Bytes { direction, bytes } => {
                connection.push(&self.config, &mut self.shared, *direction, bytes, &mut sink);
            }
            SegmentEvent::Missing { direction, count } => {
                connection.lose(*direction, *count);
                self.shared.is_whole = false;
                sink.put(ObservedEvent::Missing { direction: *direction, count: *count });
            }
            SegmentEvent::Closed { direction, is_reset } => {
                let is_over = connection.close(&self.config, *direction, *is_reset, &mut sink);
                sink.put(ObservedEvent::Closed { direction: *direction, is_reset: *is_reset });
                sink.flush();
                if is_over {
                    self.connections.remove(&segment.connection);
                }
            }
        }
    }

    fn open(&mut self, segment: &Segment, sink: &mut Sink<'_>, event: ObservedEvent, is_partial: bool) {
        self.shared.is_whole &= !is_partial;
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.pop_first();
        }
        self.connections.insert(segment.connection, Connection::new(is_partial, &self.shared));
        sink.put(event);
    }
}

/// Where the observations about one segment go.
struct Sink<'a> {
    connection: u64,
    at: SystemTime,
    out: &'a mut Vec<Observation>,
    /// By the frame that is looked at: told behind it.
    broken: Vec<Violation>,
}

impl Sink<'_> {
    fn put(&mut self, event: ObservedEvent) {
        self.out.push(Observation { connection: self.connection, at: self.at, event });
    }

    /// A frame, and what it broke.
    fn tell(&mut self, frame: FrameObservation) {
        for violation in &mut self.broken {
            violation.endpoint = frame.endpoint;
            violation.topic.clone_from(&frame.topic);
        }
        self.put(ObservedEvent::Frame(Box::new(frame)));
        if !self.broken.is_empty() {
            self.flush();
        }
    }

    fn break_rule(&mut self, rule: Rule, by: Side, detail: String) {
        self.broken.push(Violation { rule, by, endpoint: None, topic: None, detail });
    }

    fn flush(&mut self) {
        for violation in std::mem::take(&mut self.broken) {
            self.put(ObservedEvent::Violation(Box::new(violation)));
        }
    }
}
