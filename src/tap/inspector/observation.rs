//! What an inspector tells of.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::capture::{Direction, Traffic};
use crate::rules::{Rule, Side};

/// One thing that happened on a connection. Its text is for people and may change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The connection, as in its [`Segment`](crate::capture::Segment)s.
    pub connection: u64,
    /// When it was captured; of a frame, its last byte.
    pub at: SystemTime,
    /// What happened.
    pub event: ObservedEvent,
}

/// What happened on a connection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ObservedEvent {
    /// The connection began, or the capture did.
    Opened {
        /// The address of the client.
        client: SocketAddr,
        /// The address of the broker.
        broker: SocketAddr,
        /// Its beginning is not in the capture.
        is_partial: bool,
    },
    /// A frame.
    Frame(Box<FrameObservation>),
    /// One side broke a rule. It follows the frame that broke it, if it was one.
    Violation(Box<Violation>),
    /// Bytes that the capture lacks. What follows on this connection is judged less strictly.
    Missing {
        /// Which way.
        direction: Direction,
        /// How many.
        count: u64,
    },
    /// Bytes that are not looked at, up to the next frame that can be read.
    Skipped {
        /// Which way.
        direction: Direction,
        /// How many.
        count: u64,
    },
    /// The connection carries TLS or HTTP: nothing more of it is looked at, in both directions.
    OtherProtocol {
        /// Whose first bytes told.
        direction: Direction,
        /// [`Traffic::Tls`] or [`Traffic::Http`].
        protocol: Traffic,
    },
    /// No more bytes in this direction.
    Closed {
        /// Which way.
        direction: Direction,
        /// By a reset, in both directions.
        is_reset: bool,
    },
}

/// A frame, and what is known of it from those before. Its `Debug` shows how long [`bytes`](Self::bytes) are, and none of them.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct FrameObservation {
    /// Which way.
    pub direction: Direction,
    /// The name in `BaseCommand.Type`, such as `SEND_RECEIPT`; `UNKNOWN` for an unknown type.
    pub command: &'static str,
    /// Its size, both length fields included, bytes.
    pub size: usize,
    /// What it is about.
    pub endpoint: Option<Endpoint>,
    /// The topic of that, or of the request.
    pub topic: Option<Arc<str>>,
    /// `request_id`.
    pub request_id: Option<u64>,
    /// The request or SEND that it answers.
    pub answers: Option<Answered>,
    /// `sequence_id` of SEND, SEND_RECEIPT and SEND_ERROR.
    pub sequence_id: Option<u64>,
    /// `highest_sequence_id`, where it is above `sequence_id`.
    pub highest_sequence_id: Option<u64>,
    /// Messages in the entry of SEND and MESSAGE, as Pulsar counts them for permits; else 0.
    pub messages: u32,
    /// Ledger and entry of SEND_RECEIPT, MESSAGE, and of an ACK or SEEK of one id.
    pub message_id: Option<(u64, u64)>,
    /// `redelivery_count` of MESSAGE, else 0.
    pub redelivery_count: u32,
    /// Bytes of the payload of SEND and MESSAGE as it is on the wire, else 0.
    pub payload_bytes: usize,
    /// What the broker refused.
    pub error: Option<ObservedError>,
    /// More fields, for people: names and values without secrets. Empty for the frames of the data path.
    pub detail: String,
    /// The endpoint's ledger after this frame.
    pub ledger: Option<Ledger>,
    /// The frame as it was on the wire, with its secrets and payload: only if [`InspectorConfig::keep_frames`](super::InspectorConfig::keep_frames) is set.
    pub bytes: Option<Bytes>,
}

/// An id that one connection knows something by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// `producer_id`.
    Producer(u64),
    /// `consumer_id`.
    Consumer(u64),
    /// `watcher_id` of a watch of topics.
    Watcher(u64),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(id) => write!(f, "producer {id}"),
            Self::Consumer(id) => write!(f, "consumer {id}"),
            Self::Watcher(id) => write!(f, "watcher {id}"),
        }
    }
}

/// What a frame answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The command of the request.
    pub command: &'static str,
    /// From the request to its answer, where this was captured.
    pub after: Duration,
}

/// A `ServerError` in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedError {
    /// The number in `ServerError`.
    pub code: i32,
    /// Its name, such as `TopicNotFound`; `UnknownError` for a number without one.
    pub name: &'static str,
    /// The broker's text.
    pub message: String,
}

/// What stands open between the two sides about an endpoint. Both sides keep the same books: what goes by has left one of them and
/// has not reached the other, so each may differ by what is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ledger {
    /// Of a producer.
    Producer {
        /// SENDs without their receipt.
        pending_sends: u64,
        /// The messages in these.
        pending_messages: u64,
    },
    /// Of a consumer.
    Consumer {
        /// Permits given by FLOW since SUBSCRIBE, as the client counts them.
        granted: u64,
        /// Messages sent since SUBSCRIBE, members of batches counted, as the broker counts them.
        delivered: u64,
        /// Permits that are left: `granted - delivered`. A batch may overdraw them.
        permits: i64,
        /// Messages delivered on this connection and not acknowledged.
        unacknowledged: u64,
    },
}

/// A rule that one side broke.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// [`Side::Client`] or [`Side::Broker`].
    pub by: Side,
    /// What it is about.
    pub endpoint: Option<Endpoint>,
    /// The topic of that.
    pub topic: Option<Arc<str>>,
    /// Ids and numbers, for people. Its wording may change.
    pub detail: String,
}

impl Observation {
    /// Whether it is a violation, or a frame that refuses something.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match &self.event {
            ObservedEvent::Violation(_) => true,
            ObservedEvent::Frame(frame) => frame.error.is_some(),
            _ => false,
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ", self.connection)?;
        match &self.event {
            ObservedEvent::Opened { client, broker, is_partial } => {
                write!(f, "== {client} to {broker}")?;
                if *is_partial { f.write_str(", its beginning is not captured") } else { Ok(()) }
            }
            ObservedEvent::Frame(frame) => frame.fmt(f),
            ObservedEvent::Violation(violation) => violation.fmt(f),
            ObservedEvent::Missing { direction, count } => write!(f, "{} {count} bytes are missing", arrow(*direction)),
            ObservedEvent::Skipped { direction, count } => write!(f, "{} {count} bytes are skipped", arrow(*direction)),
            ObservedEvent::OtherProtocol { direction, protocol } => {
                write!(f, "{} {protocol}, which is not looked at", arrow(*direction))
            }
            ObservedEvent::Closed { direction, is_reset } => {
                let how = if *is_reset { "reset" } else { "closed" };
                write!(f, "{} {how}", arrow(*direction))
            }
        }
    }
}

/// To the broker, to the client.
fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::ToBroker => "->",
        Direction::ToClient => "<-",
    }
}

impl FrameObservation {
    /// Only what the bytes say.
    pub(super) fn new(direction: Direction, command: &'static str, size: usize) -> Self {
        Self {
            direction,
            command,
            size,
            endpoint: None,
            topic: None,
            request_id: None,
            answers: None,
            sequence_id: None,
            highest_sequence_id: None,
            messages: 0,
            message_id: None,
            redelivery_count: 0,
            payload_bytes: 0,
            error: None,
            detail: String::new(),
            ledger: None,
            bytes: None,
        }
    }
}

impl fmt::Debug for FrameObservation {
    /// Shows only the length of the frame: it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameObservation")
            .field("direction", &self.direction)
            .field("command", &self.command)
            .field("size", &self.size)
            .field("endpoint", &self.endpoint)
            .field("topic", &self.topic)
            .field("request_id", &self.request_id)
            .field("answers", &self.answers)
            .field("sequence_id", &self.sequence_id)
            .field("highest_sequence_id", &self.highest_sequence_id)
            .field("messages", &self.messages)
            .field("message_id", &self.message_id)
            .field("redelivery_count", &self.redelivery_count)
            .field("payload_bytes", &self.payload_bytes)
            .field("error", &self.error)
            .field("detail", &self.detail)
            .field("ledger", &self.ledger)
            .field("bytes", &self.bytes.as_ref().map(Bytes::len))
            .finish()
    }
}

impl fmt::Display for FrameObservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", arrow(self.direction), self.command)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " {endpoint}")?;
        }
        if let Some(topic) = &self.topic {
            write!(f, " {}", Escaped(topic))?;
        }
        if let Some(id) = self.request_id {
            write!(f, " request {id}")?;
        }
        match (self.sequence_id, self.highest_sequence_id) {
            (Some(first), Some(last)) => write!(f, " sequence {first}..{last}")?,
            (Some(first), None) => write!(f, " sequence {first}")?,
            _ => {}
        }
        if let Some((ledger, entry)) = self.message_id {
            write!(f, " id {}:{}", ledger as i64, entry as i64)?;
        }
        if self.messages > 1 {
            write!(f, " x{}", self.messages)?;
        }
        if self.redelivery_count > 0 {
            write!(f, " redelivered {}", self.redelivery_count)?;
        }
        if self.payload_bytes > 0 {
            write!(f, " {} B", self.payload_bytes)?;
        }
        if !self.detail.is_empty() {
            write!(f, " {}", Escaped(&self.detail))?;
        }
        if let Some(error) = &self.error {
            write!(f, " refused: {}: {}", error.name, Escaped(&error.message))?;
        }
        if let Some(answered) = &self.answers {
            write!(f, " after {}", Milliseconds(answered.after))?;
        }
        self.ledger.map_or(Ok(()), |ledger| ledger.fmt(f))
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer { pending_sends, .. } => write!(f, " [pending {pending_sends}]"),
            Self::Consumer { permits, unacknowledged, .. } => {
                write!(f, " [permits {permits}, unacked {unacknowledged}]")
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "!! the {} broke {}: {}", self.by, self.rule, Escaped(&self.detail))?;
        if let Some(topic) = &self.topic {
            write!(f, " on {}", Escaped(topic))?;
        }
        write!(f, " ({})", self.rule.chapter())
    }
}

/// Text of a peer, of which no byte steers a terminal.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0.as_secs_f64() * 1e3)
    }
}
