//! One topic: its log, its producers, its subscriptions, and what deduplication knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::broker::machine::ConnId;
use crate::broker::storage::log::Log;
use crate::broker::subscription::Subscription;
use crate::topic::TopicName;

/// Producer names whose sequence ids are remembered; beyond it the first ones by name are forgotten.
const NAMES_MAX: usize = 10_000;

/// Sent frames remembered for each producer name, to tell re-sends from repeated ids.
const SENT_FRAMES_MAX: usize = 4_096;

/// A producer: its connection, and the `producer_id` it goes by there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProducerKey {
    pub(crate) conn: ConnId,
    pub(crate) id: u64,
}

/// One connected producer.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) name: Arc<str>,
}

/// A producer in the queue of WaitForExclusive.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) key: ProducerKey,
    pub(crate) request_id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) topic_epoch: Option<u64>,
    pub(crate) schema_version: bytes::Bytes,
}

/// What the judge remembers of a producer name.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) epoch: u64,
    last: Option<i64>,
    /// Sequence ids and checksums of what was sent, oldest first.
    sent: VecDeque<(i64, u32)>,
}

impl Session {
    pub(crate) fn starting(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Notes a SEND; false if its id neither grows nor belongs to the same bytes as before.
    pub(crate) fn note(&mut self, sequence_id: i64, highest: i64, sum: u32, is_chunk: bool) -> bool {
        let grows = self.last.is_none_or(|last| sequence_id > last || (is_chunk && sequence_id == last));
        if !grows {
            let known = |&(id, known): &(i64, u32)| id == sequence_id && known == sum;
            let forgotten = self.sent.len() >= SENT_FRAMES_MAX && self.sent.front().is_some_and(|f| f.0 > sequence_id);
            return forgotten || self.sent.iter().rev().any(known);
        }
        self.last = Some(highest.max(sequence_id));
        if self.sent.len() >= SENT_FRAMES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence_id, sum));
        true
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) log: Log,
    pub(crate) producers: BTreeMap<ProducerKey, Producer>,
    pub(crate) waiting: VecDeque<Waiting>,
    /// The producer that holds the topic alone.
    pub(crate) exclusive: Option<ProducerKey>,
    pub(crate) topic_epoch: Option<u64>,
    pub(crate) subscriptions: BTreeMap<Arc<str>, Subscription>,
    /// Highest sequence id stored, by producer name.
    stored_ids: BTreeMap<Arc<str>, i64>,
    sessions: BTreeMap<Arc<str>, Session>,
    pub(crate) terminated: bool,
    /// Producers are held off until entries can be dropped.
    pub(crate) over_quota: bool,
    pub(crate) msg_in: u64,
    pub(crate) bytes_in: u64,
}

impl Topic {
    pub(crate) fn new(name: TopicName, ledger: i64) -> Self {
        Self {
            name,
            log: Log::new(ledger),
            producers: BTreeMap::new(),
            waiting: VecDeque::new(),
            exclusive: None,
            topic_epoch: None,
            subscriptions: BTreeMap::new(),
            stored_ids: BTreeMap::new(),
            sessions: BTreeMap::new(),
            terminated: false,
            over_quota: false,
            msg_in: 0,
            bytes_in: 0,
        }
    }

    /// The number in MESSAGE: of the partition, or −1.
    pub(crate) fn partition(&self) -> i32 {
        self.name.partition_index().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1)
    }

    pub(crate) fn producer_named(&self, name: &str) -> Option<ProducerKey> {
        self.producers.iter().find(|(_, producer)| &*producer.name == name).map(|(key, _)| *key)
    }

    pub(crate) fn last_stored_id(&self, producer: &str) -> i64 {
        self.stored_ids.get(producer).copied().unwrap_or(-1)
    }

    pub(crate) fn note_stored_id(&mut self, producer: &Arc<str>, id: i64) {
        if let Some(highest) = self.stored_ids.get_mut(producer) {
            *highest = (*highest).max(id);
            return;
        }
        if self.stored_ids.len() >= NAMES_MAX {
            self.stored_ids.pop_first();
        }
        self.stored_ids.insert(Arc::clone(producer), id);
    }

    pub(crate) fn session(&mut self, producer: &str) -> Option<&mut Session> {
        self.sessions.get_mut(producer)
    }

    pub(crate) fn start_session(&mut self, producer: Arc<str>, epoch: u64) {
        if self.sessions.len() >= NAMES_MAX {
            self.sessions.pop_first();
        }
        self.sessions.insert(producer, Session::starting(epoch));
    }

    /// Entries below this offset are acknowledged by every subscription.
    pub(crate) fn acknowledged_by_all(&self) -> u64 {
        self.subscriptions.values().map(|sub| sub.cursor.mark()).min().unwrap_or(self.log.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_id_is_a_resend_only_with_the_same_bytes() {
        let mut session = Session::default();
        assert!(session.note(0, 0, 10, false) && session.note(1, 4, 11, false));
        assert!(session.note(1, 4, 11, false), "the same bytes again");
        assert!(!session.note(1, 4, 12, false), "other bytes under an id that was used");
        assert!(!session.note(3, 3, 13, false), "inside the range of the batch");
        assert!(session.note(5, 5, 14, true) && session.note(5, 5, 15, true), "chunks share their id");
    }
}
