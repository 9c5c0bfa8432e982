//! The requests of one connection, and both brokers' answers to each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::difference::{Reaction, ReplayDifference};
use crate::capture::Direction;
use crate::tap::{Endpoint, FrameObservation};

/// What an answer names of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Handshake,
    Request(u64),
    Send { producer: u64, sequence_id: u64 },
}

impl Key {
    /// `None` for what no broker answers, and for PING and PONG.
    pub(super) fn of_request(frame: &FrameObservation) -> Option<Self> {
        match frame.command {
            "CONNECT" => Some(Self::Handshake),
            "SEND" => Self::of_send(frame),
            _ => frame.request_id.map(Self::Request),
        }
    }

    fn of_send(frame: &FrameObservation) -> Option<Self> {
        let Some(Endpoint::Producer(producer)) = frame.endpoint else { return None };
        Some(Self::Send { producer, sequence_id: frame.sequence_id? })
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) command: &'static str,
    pub(super) endpoint: Option<Endpoint>,
    topic: Option<Arc<str>>,
    request_id: Option<u64>,
    sequence_id: Option<u64>,
    at: SystemTime,
}

impl Asked {
    pub(super) fn difference(
        self,
        connection: u64,
        at: SystemTime,
        count: u64,
        recorded: Reaction,
        embedded: Reaction,
    ) -> ReplayDifference {
        ReplayDifference {
            connection,
            at,
            request: Some(self.command),
            endpoint: self.endpoint,
            topic: self.topic,
            request_id: self.request_id,
            sequence_id: self.sequence_id,
            count,
            recorded,
            embedded,
        }
    }
}

impl ReplayDifference {
    pub(super) fn of_connection(connection: u64, at: SystemTime, recorded: Reaction, embedded: Reaction) -> Self {
        Self {
            connection,
            at,
            request: None,
            endpoint: None,
            topic: None,
            request_id: None,
            sequence_id: None,
            count: 1,
            recorded,
            embedded,
        }
    }
}

/// Both answers to one request.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) asked: Asked,
    pub(super) recorded: Reaction,
    pub(super) embedded: Reaction,
}

/// Requests of one key. Chunks of a message have one sequence id; else there is one, unless an id is used again.
#[derive(Debug, Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    recorded: VecDeque<Reaction>,
    embedded: VecDeque<Reaction>,
}

impl Waiting {
    fn pair(&mut self) -> Option<Pair> {
        if self.recorded.is_empty() || self.embedded.is_empty() {
            return None;
        }
        let (asked, recorded) = (self.asked.pop_front()?, self.recorded.pop_front()?);
        Some(Pair { asked, recorded, embedded: self.embedded.pop_front()? })
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: BTreeMap<Key, Waiting>,
    count: usize,
}

impl Requests {
    /// Requests that are not answered by both.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn ask(&mut self, key: Key, frame: &FrameObservation, at: SystemTime) {
        let asked = Asked {
            command: frame.command,
            endpoint: frame.endpoint,
            topic: frame.topic.clone(),
            request_id: frame.request_id,
            sequence_id: frame.sequence_id,
            at,
        };
        self.waiting.entry(key).or_default().asked.push_back(asked);
        self.count += 1;
    }

    /// Which request a frame of a broker answers, if that waits. A second answer to one is none, as that of PRODUCER, where the
    /// first one says `producer_ready = false`.
    pub(super) fn key_of_answer(&self, frame: &FrameObservation) -> Option<Key> {
        debug_assert_eq!(frame.direction, Direction::ToClient);
        let key = match (frame.command, frame.request_id) {
            ("CONNECTED", _) | ("ERROR", None) => Key::Handshake,
            ("SEND_RECEIPT" | "SEND_ERROR", _) => Key::of_send(frame)?,
            ("CLOSE_PRODUCER" | "CLOSE_CONSUMER" | "WATCH_TOPIC_UPDATE", _) => return None,
            (_, id) => Key::Request(id?),
        };
        self.waiting.contains_key(&key).then_some(key)
    }

    /// Leaves out what a producer or consumer has sent at most `patience` ago and the recorded broker has not answered, but for the
    /// PRODUCER or SUBSCRIBE that opens it; how many requests.
    pub(super) fn leave_out(&mut self, endpoint: Endpoint, at: SystemTime, patience: Duration) -> usize {
        let may_cross = |asked: &Asked| {
            asked.endpoint == Some(endpoint)
                && !matches!(asked.command, "PRODUCER" | "SUBSCRIBE")
                && at.duration_since(asked.at).unwrap_or_default() < patience
        };
        let mut left_out = 0;
        self.waiting.retain(|_, waiting| {
            let is_kept = !waiting.recorded.is_empty() || !waiting.asked.iter().all(may_cross);
            left_out += if is_kept { 0 } else { waiting.asked.len() };
            is_kept
        });
        self.count -= left_out;
        left_out
    }

    /// An answer of the recorded broker.
    pub(super) fn recorded(&mut self, key: Key, answer: Reaction) -> Option<Pair> {
        self.put(key, |waiting| waiting.recorded.push_back(answer))
    }

    /// An answer of the machine.
    pub(super) fn given(&mut self, key: Key, answer: Reaction) -> Option<Pair> {
        self.put(key, |waiting| waiting.embedded.push_back(answer))
    }

    /// The request whose recorded answer has no counterpart: `embedded` stands for that.
    pub(super) fn take_unanswered(&mut self, key: Key, embedded: Reaction) -> Option<Pair> {
        self.given(key, embedded)
    }

    /// Both answers, if both are there. More answers than requests are left out: that is a rule of its own.
    fn put(&mut self, key: Key, put: impl FnOnce(&mut Waiting)) -> Option<Pair> {
        let waiting = self.waiting.get_mut(&key)?;
        put(waiting);
        let most = waiting.asked.len();
        waiting.recorded.truncate(most);
        waiting.embedded.truncate(most);
        let pair = waiting.pair();
        if waiting.asked.is_empty() {
            self.waiting.remove(&key);
        }
        self.count -= usize::from(pair.is_some());
        pair
    }

    /// What only one of the two has answered: the machine alone at least `patience` ago. Of several missing answers in a row to the
    /// same command of the same endpoint the first is told, and how many there are.
    pub(super) fn unmatched(&mut self, connection: u64, at: SystemTime, patience: Duration) -> Vec<ReplayDifference> {
        let mut out: Vec<ReplayDifference> = Vec::new();
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            let Waiting { asked, recorded, embedded } = waiting;
            let is_recorded = !recorded.is_empty();
            let answers = if is_recorded { recorded } else { embedded };
            for (asked, answer) in asked.into_iter().zip(answers) {
                let (recorded, embedded) =
                    if is_recorded { (answer, Reaction::Nothing) } else { (Reaction::Nothing, answer) };
                if !is_recorded && at.duration_since(asked.at).unwrap_or_default() < patience {
                    continue;
                }
                let is_more = |last: &&mut ReplayDifference| {
                    (last.request, last.endpoint) == (Some(asked.command), asked.endpoint)
                        && (&last.recorded, &last.embedded) == (&recorded, &embedded)
                };
                match out.last_mut().filter(is_more) {
                    Some(last) => last.count += 1,
                    None => out.push(asked.difference(connection, at, 1, recorded, embedded)),
                }
            }
        }
        out
    }
}
