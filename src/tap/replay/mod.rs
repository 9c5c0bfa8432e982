//! What the embedded broker would have answered to the clients of a recording.
//!
//! A [`Replay`] hands the frames of the recorded clients, in the order and at the times of the recording, to the machine of the embedded
//! broker, which is pure: no socket, no clock. What it answers is held against the recorded answers, request by request. It reports where
//! the type of the answer or its refusal is another one, where one of the two does not answer, and where one of them ends the connection.
//!
//! | file | what |
//! | --- | --- |
//! | `machine` | the embedded broker's machine; what the recorded broker did without a request is applied to it |
//! | `requests` | pairs each recorded answer with that of the machine |
//! | `difference` | the differences, as values, text and JSON |
//!
//! # What it does not compare
//! - Ids, texts, times, and the values within an answer.
//! - What a broker sends without a request: MESSAGE, CLOSE_PRODUCER, CLOSE_CONSUMER, changes of the active consumer. Where the recorded
//!   broker closes a producer or consumer, or refuses one, the machine does not have it either from then on.
//! - What may have crossed a CLOSE_PRODUCER or CLOSE_CONSUMER of the broker: sent by that producer or consumer in the last second
//!   before it, and not answered by then.
//! - Credentials: the machine takes any. AUTH_CHALLENGE and AUTH_RESPONSE are left out.
//! - Keep-alive, and the size of messages.
//! - Connections whose beginning is not in the recording, or that lack bytes, and those in TLS or HTTP. They are counted.
//!
//! The machine has nothing of what was there before the recording, no policies, every namespace, and one broker that has all topics; partitions
//! are taken from the recorded answers. It has no transactions. It plays Pulsar 4.0.

mod difference;
mod machine;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use self::difference::{Reaction, ReplayDifference};
use self::machine::{Given, Machine};
use self::requests::{Key, Requests};
use super::inspector::{Endpoint, FrameObservation, Observation, ObservedEvent};
use crate::capture::Direction;
use crate::rules::{Rule, Side};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};

/// Connections that are compared at a time.
const CONNECTIONS_MAX: usize = 10_000;

/// Requests that wait for an answer, over all connections.
const WAITING_MAX: usize = 200_000;

/// An answer that did not come within this time before the client ended the connection, the broker closed the producer or consumer,
/// or the recording ends, is missing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Compares recorded brokers with the embedded one. It takes the [`Observation`]s of an [`Inspector`](super::Inspector) that keeps
/// frames ([`InspectorConfig::keep_frames`](super::InspectorConfig::keep_frames)), and does no I/O.
///
/// What is compared, and what is not: the type of each answer and what it refuses, answers that are missing, and ends of connections;
/// not ids, texts, times, deliveries and credentials. The embedded broker has no policies, nothing of what was there before the
/// recording, and every namespace.
///
/// ```
/// use pulsar_native::tap::{Inspector, InspectorConfig, Replay};
///
/// let mut config = InspectorConfig::default();
/// config.keep_frames = true;
/// let (mut inspector, mut replay) = (Inspector::new(config), Replay::new());
/// let (mut seen, mut differences) = (Vec::new(), Vec::new());
/// # let segments: [pulsar_native::capture::Segment; 0] = [];
/// for segment in segments {
///     inspector.inspect(&segment, &mut seen);
///     for observation in seen.drain(..) {
///         replay.observe(&observation, &mut differences);
///     }
/// }
/// let summary = replay.finish(&mut differences);
/// assert_eq!((summary.compared, summary.connections), (0, 0));
/// ```
#[derive(Debug)]
pub struct Replay {
    machine: Machine,
    connections: BTreeMap<u64, Connection>,
    at: SystemTime,
    waiting: usize,
    summary: ReplaySummary,
}

/// How much was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplaySummary {
    /// Requests whose answers were compared.
    pub compared: u64,
    /// Those to which the embedded broker answers otherwise, with missing answers and ends of connections.
    pub different: u64,
    /// Connections.
    pub connections: u64,
    /// Connections that were not compared, or not to their end.
    pub uncompared: u64,
}

impl fmt::Display for ReplaySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers compared with the embedded broker's, {} differ", self.compared, self.different)?;
        if self.uncompared > 0 {
            write!(f, "; {} of {} connections were not compared to their end", self.uncompared, self.connections)?;
        }
        Ok(())
    }
}

/// One connection that is compared.
#[derive(Debug, Default)]
struct Connection {
    requests: Requests,
    /// The recorded broker has sent something.
    is_heard: bool,
    /// The machine has ended it.
    ended: Option<Option<Rule>>,
    /// The side whose FIN or RST came first.
    closed_by: Option<Side>,
    /// Open at the recorded broker, and not at the machine.
    unopened: BTreeSet<Endpoint>,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            machine: Machine::new(),
            connections: BTreeMap::new(),
            at: UNIX_EPOCH,
            waiting: 0,
            summary: ReplaySummary::default(),
        }
    }

    /// Takes the next observation, and appends what the embedded broker does otherwise to `out`: about the answers that came by now.
    pub fn observe(&mut self, seen: &Observation, out: &mut Vec<ReplayDifference>) {
        self.at = self.at.max(seen.at);
        let mut given = Vec::new();
        self.machine.pass_time(seen.at, &mut given);
        self.take(&mut given, out);
        let connection = seen.connection;
        match &seen.event {
            ObservedEvent::Opened { client, broker, is_partial } => {
                self.summary.connections += 1;
                if *is_partial || self.connections.len() >= CONNECTIONS_MAX {
                    self.summary.uncompared += 1;
                    return;
                }
                self.connections.insert(connection, Connection::default());
                self.machine.connect(connection, *client, *broker, &mut given);
            }
            ObservedEvent::Frame(frame) => match frame.direction {
                Direction::ToBroker => self.on_request(connection, frame, &mut given),
                Direction::ToClient => self.on_answer(connection, frame, &mut given, out),
            },
            // What comes behind it cannot be read. Where the machine has had it, the connection is over there.
            ObservedEvent::Violation(violation) if violation.rule == Rule::UnreadableFrame => {
                if self.connections.get(&connection).is_some_and(|found| found.ended.is_none()) {
                    self.give_up(connection, &mut given);
                }
            }
            ObservedEvent::Violation(_) => {}
            ObservedEvent::Missing { .. } | ObservedEvent::Skipped { .. } | ObservedEvent::OtherProtocol { .. } => {
                self.give_up(connection, &mut given);
            }
            ObservedEvent::Closed { direction, is_reset } => {
                self.on_closed(connection, *direction, *is_reset, &mut given, out);
            }
        }
        self.take(&mut given, out);
    }

    /// The recording is over: appends what is missing at its end.
    pub fn finish(mut self, out: &mut Vec<ReplayDifference>) -> ReplaySummary {
        while let Some((number, connection)) = self.connections.pop_first() {
            self.settle(number, connection, out);
        }
        self.summary
    }

    fn on_request(&mut self, number: u64, frame: &FrameObservation, given: &mut Vec<Given>) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if frame.command == "AUTH_RESPONSE" {
            return;
        }
        if let Some(endpoint) = &frame.endpoint {
            if matches!(frame.command, "PRODUCER" | "SUBSCRIBE") {
                connection.unopened.remove(endpoint);
            } else if connection.unopened.contains(endpoint) {
                return;
            }
        }
        if let Some(topic) = &frame.topic {
            self.machine.serve(topic);
        }
        if let Some(key) = Key::of_request(frame) {
            if self.waiting >= WAITING_MAX {
                return self.give_up(number, given);
            }
            self.waiting += 1;
            connection.requests.ask(key, frame, self.at);
        }
        if let (None, Some(bytes)) = (connection.ended, &frame.bytes) {
            self.machine.receive(number, bytes, given);
        }
    }

    fn on_answer(
        &mut self,
        number: u64,
        frame: &FrameObservation,
        given: &mut Vec<Given>,
        out: &mut Vec<ReplayDifference>,
    ) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.is_heard = true;
        if frame.answers.is_none() {
            if let ("CLOSE_PRODUCER" | "CLOSE_CONSUMER" | "TOPIC_MIGRATED", Some(endpoint)) =
                (frame.command, frame.endpoint)
            {
                let left_out = connection.requests.leave_out(endpoint, self.at, PATIENCE);
                self.waiting = self.waiting.saturating_sub(left_out);
                return self.machine.close(number, endpoint, given);
            }
        }
        if let (Some(topic), Some(partitions)) = (&frame.topic, partitions(frame)) {
            self.machine.learn_partitions(topic, partitions);
        }
        let Some(key) = connection.requests.key_of_answer(frame) else { return };
        let ended = connection.ended;
        match connection.requests.recorded(key, Reaction::answer(frame)) {
            Some(pair) => self.compare(number, pair, given, out),
            // What was asked before may have been answered.
            None => {
                let Some(rule) = ended else { return };
                let embedded = Reaction::Ends { rule };
                let Some(pair) = connection.requests.take_unanswered(key, embedded) else { return };
                self.compare(number, pair, given, out);
                self.give_up(number, given);
            }
        }
    }

    /// What the machine has done.
    fn take(&mut self, given: &mut Vec<Given>, out: &mut Vec<ReplayDifference>) {
        while !given.is_empty() {
            let mut more = Vec::new();
            for given in given.drain(..) {
                match given {
                    Given::Frame(number, frame) => {
                        let Some(connection) = self.connections.get_mut(&number) else { continue };
                        let Some(key) = connection.requests.key_of_answer(&frame) else { continue };
                        if let Some(pair) = connection.requests.given(key, Reaction::answer(&frame)) {
                            self.compare(number, pair, &mut more, out);
                        }
                    }
                    Given::Ended(number, rule) => {
                        if let Some(connection) = self.connections.get_mut(&number) {
                            connection.ended.get_or_insert(rule);
                            self.machine.disconnect(number, &mut more);
                        }
                    }
                }
            }
            *given = more;
        }
    }

    /// A pair of answers; where they differ, the machine takes over what it can of the recorded broker's state.
    fn compare(&mut self, number: u64, pair: requests::Pair, given: &mut Vec<Given>, out: &mut Vec<ReplayDifference>) {
        self.waiting = self.waiting.saturating_sub(1);
        self.summary.compared += 1;
        let requests::Pair { asked, recorded, embedded } = pair;
        if recorded.is_like(&embedded) {
            return;
        }
        let connection = self.connections.get_mut(&number);
        if let (Some(endpoint), Some(connection)) = (asked.endpoint, connection) {
            match (asked.command, recorded.is_refusal(), embedded.is_refusal()) {
                ("PRODUCER" | "SUBSCRIBE", true, false) => self.machine.close(number, endpoint, given),
                ("PRODUCER" | "SUBSCRIBE", false, true)
                | ("UNSUBSCRIBE" | "CLOSE_PRODUCER" | "CLOSE_CONSUMER", true, false) => {
                    connection.unopened.insert(endpoint);
                }
                _ => {}
            }
        }
        self.tell(asked.difference(number, self.at, 1, recorded, embedded), out);
    }

    fn on_closed(
        &mut self,
        number: u64,
        direction: Direction,
        is_reset: bool,
        given: &mut Vec<Given>,
        out: &mut Vec<ReplayDifference>,
    ) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let side = if direction == Direction::ToClient { Side::Broker } else { Side::Client };
        let is_first = connection.closed_by.is_none();
        connection.closed_by.get_or_insert(side);
        if is_first {
            self.machine.disconnect(number, given);
            self.take(given, out);
        }
        if is_reset || !is_first {
            if let Some(connection) = self.connections.remove(&number) {
                self.settle(number, connection, out);
            }
        }
    }

    /// The connection is over, or the recording: what has no counterpart has none.
    fn settle(&mut self, number: u64, mut connection: Connection, out: &mut Vec<ReplayDifference>) {
        self.waiting = self.waiting.saturating_sub(connection.requests.len());
        let is_ended_by_broker = connection.closed_by == Some(Side::Broker);
        if is_ended_by_broker && connection.ended.is_none() {
            let ends = Reaction::Ends { rule: None };
            self.tell(ReplayDifference::of_connection(number, self.at, ends, Reaction::Stays), out);
        }
        let patience = match () {
            () if !connection.is_heard => Duration::ZERO,
            () if is_ended_by_broker => Duration::MAX,
            () => PATIENCE,
        };
        for difference in connection.requests.unmatched(number, self.at, patience) {
            self.tell(difference, out);
        }
    }

    fn tell(&mut self, difference: ReplayDifference, out: &mut Vec<ReplayDifference>) {
        self.summary.different += difference.count;
        out.push(difference);
    }

    fn give_up(&mut self, number: u64, given: &mut Vec<Given>) {
        let Some(connection) = self.connections.remove(&number) else { return };
        self.waiting = self.waiting.saturating_sub(connection.requests.len());
        self.summary.uncompared += 1;
        self.machine.disconnect(number, given);
    }
}

/// How many partitions a topic has, as the recorded broker says.
fn partitions(frame: &FrameObservation) -> Option<u32> {
    if frame.command != "PARTITIONED_METADATA_RESPONSE" {
        return None;
    }
    let bytes: Bytes = frame.bytes.clone()?;
    match frames(bytes).next()? {
        Ok(Frame::Other(Command::PartitionedMetadataResponse(body))) => body.partitions.filter(|count| *count > 0),
        _ => None,
    }
}
