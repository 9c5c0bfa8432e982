//! The machine of the embedded broker, in the place of the recorded one. It has the clock of the recording.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use crate::broker::BrokerConfig;
use crate::broker::machine::{Broker, ConnId};
use crate::capture::{Direction, Segment, SegmentEvent};
use crate::machine::Now;
use crate::rules::Rule;
use crate::tap::{Endpoint, FrameObservation, Inspector, InspectorConfig, ObservedEvent};
use crate::topic::TopicName;
use crate::wire::tx::TxBuf;

/// What clients may send at once, bytes: whether that is too much for the recorded broker is not asked here.
const MESSAGE_BYTES_MAX: u32 = 64 << 20;

/// What is stored at a time, bytes.
const STORED_BYTES_MAX: usize = 128 << 20;

/// How long messages are stored. Acknowledgements name the recorded broker's ids, which say nothing here.
const STORED_FOR: Duration = Duration::from_secs(1);

/// Longer than any recording: keep-alive is not compared, and what one broker closes another need not have.
const NEVER: Duration = Duration::from_secs(1 << 32);

/// What the machine does on a connection of the recording.
#[derive(Debug)]
pub(super) enum Given {
    Frame(u64, Box<FrameObservation>),
    /// It ends the connection, because of a rule where this is known.
    Ended(u64, Option<Rule>),
}

/// See the [module](self).
pub(super) struct Machine {
    broker: Broker,
    /// Reads what the machine writes.
    inspector: Inspector,
    /// Of the recording's connections.
    connections: BTreeMap<u64, ConnId>,
    numbers: BTreeMap<ConnId, u64>,
    /// Of both clocks.
    began: Option<(SystemTime, Instant)>,
    at: SystemTime,
    now: Now,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl Machine {
    pub(super) fn new() -> Self {
        // Any origin of the monotonic clock does.
        let now = Now { at: Instant::now(), wall_ms: 0 };
        let mut config = BrokerConfig::default();
        config.any_namespace = true;
        config.keep_alive_interval = NEVER;
        config.max_message_size = MESSAGE_BYTES_MAX;
        config.max_stored_bytes = STORED_BYTES_MAX;
        config.policies.message_ttl = Some(STORED_FOR);
        Self {
            broker: Broker::new(config, "pulsar://localhost:6650", now),
            inspector: Inspector::new(InspectorConfig::default()),
            connections: BTreeMap::new(),
            numbers: BTreeMap::new(),
            began: None,
            at: UNIX_EPOCH,
            now,
        }
    }

    /// It is this late in the recording; what is due by then happens.
    pub(super) fn pass_time(&mut self, at: SystemTime, out: &mut Vec<Given>) {
        let (began, origin) = *self.began.get_or_insert((at, self.now.at));
        self.at = self.at.max(at);
        let since = self.at.duration_since(began).unwrap_or_default();
        let wall_ms = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.now.at = origin.checked_add(since).unwrap_or(self.now.at);
        self.now.wall_ms = u64::try_from(wall_ms).unwrap_or(u64::MAX);
        if self.broker.poll_deadline().is_some_and(|deadline| deadline.at <= self.now.at) {
            self.broker.handle_deadline(self.now);
            self.drain(out);
        }
    }

    pub(super) fn connect(&mut self, connection: u64, client: SocketAddr, broker: SocketAddr, out: &mut Vec<Given>) {
        let conn = self.broker.connect(self.now);
        self.connections.insert(connection, conn);
        self.numbers.insert(conn, connection);
        self.inspect(connection, SegmentEvent::Opened { client, broker, is_partial: false }, out);
    }

    /// A frame of a client.
    pub(super) fn receive(&mut self, connection: u64, frame: &Bytes, out: &mut Vec<Given>) {
        let Some(&conn) = self.connections.get(&connection) else { return };
        self.inspect(connection, SegmentEvent::Bytes { direction: Direction::ToBroker, bytes: frame.clone() }, out);
        self.broker.receive(conn, &mut BytesMut::from(&frame[..]), self.now);
        self.drain(out);
    }

    /// The connection is over.
    pub(super) fn disconnect(&mut self, connection: u64, out: &mut Vec<Given>) {
        let Some(conn) = self.connections.remove(&connection) else { return };
        self.numbers.remove(&conn);
        self.broker.disconnect(conn);
        self.inspect(connection, SegmentEvent::Closed { direction: Direction::ToBroker, is_reset: true }, out);
        self.drain(out);
    }

    /// The recorded broker has closed this producer or consumer, or not opened it.
    pub(super) fn close(&mut self, connection: u64, endpoint: Endpoint, out: &mut Vec<Given>) {
        let Some(&conn) = self.connections.get(&connection) else { return };
        match endpoint {
            Endpoint::Producer(id) => self.broker.close_producer_of(conn, id),
            Endpoint::Consumer(id) => self.broker.close_consumer_of(conn, id),
            Endpoint::Watcher(_) => {}
        }
        self.drain(out);
    }

    /// The machine serves this topic, whether or not its lookup is in the recording. One that is named as a partition is one.
    pub(super) fn serve(&mut self, topic: &str) {
        let Ok(name) = TopicName::parse(topic) else { return };
        self.broker.acquire_topic(topic);
        if let Some(last) = name.partition_index() {
            self.broker.create_partitioned_topic(name.base().as_str(), last.saturating_add(1));
        }
    }

    /// The recorded broker has a topic of so many partitions.
    pub(super) fn learn_partitions(&mut self, topic: &str, partitions: u32) {
        self.broker.create_partitioned_topic(topic, partitions);
    }

    fn drain(&mut self, out: &mut Vec<Given>) {
        loop {
            let ready = self.broker.take_ready();
            if ready.is_empty() {
                return;
            }
            for conn in ready {
                let Some(&connection) = self.numbers.get(&conn) else { continue };
                let is_ended = self.broker.closing(conn);
                loop {
                    let mut written = TxBuf::new();
                    self.broker.poll_transmit(conn, &mut written);
                    if written.is_empty() {
                        break;
                    }
                    let bytes = written.take_all();
                    self.inspect(connection, SegmentEvent::Bytes { direction: Direction::ToClient, bytes }, out);
                }
                if is_ended {
                    let broken = self.broker.violations().iter().rev().find(|broken| broken.connection == conn.0);
                    out.push(Given::Ended(connection, broken.map(|broken| broken.rule)));
                }
            }
            self.broker.clear_violations();
        }
    }

    fn inspect(&mut self, connection: u64, event: SegmentEvent, out: &mut Vec<Given>) {
        let mut seen = Vec::new();
        self.inspector.inspect(&Segment { connection, at: self.at, event }, &mut seen);
        for observation in seen {
            if let ObservedEvent::Frame(frame) = observation.event {
                if frame.direction == Direction::ToClient {
                    out.push(Given::Frame(connection, frame));
                }
            }
        }
    }
}
