//! Messages that go out as one entry: collected here, numbered, and turned into records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::message::Message;
use crate::machine::Now;
use crate::machine::outcomes::{Outcomes, SendCallback};
use crate::wire::batch::put_record;

/// Payloads whose drop may run code of the user's (`Bytes::from_owner`), to be dropped once no lock is held.
pub(super) type Spent = Vec<Bytes>;

/// Puts a payload aside unless its drop can be nothing but freeing memory.
pub(super) fn discard(payload: Bytes, spent: &mut Spent) {
    if !payload.is_empty() && !payload.is_unique() {
        spent.push(payload);
    }
}

/// The messages of one entry.
///
/// The first one is held as it is, because a batch of one goes out as a plain message; the second turns both into
/// records. Before the producer has its name and first sequence id all are held.
#[derive(Debug, Default)]
pub(super) struct Content {
    first: Option<Message>,
    more: Vec<Message>,
    records: BytesMut,
    count: u32,
    payload_bytes: usize,
    record_bytes_max: usize,
    /// Of the first message, once it is a record: an entry's metadata repeats them.
    pub(super) key: Option<String>,
    pub(super) key_b64: bool,
    pub(super) ordering_key: Option<Bytes>,
    pub(super) publish_time_ms: u64,
}

impl Content {
    pub(super) fn new(now: Now) -> Self {
        Self { publish_time_ms: now.wall_ms, ..Self::default() }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    pub(super) fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// At least what the records of all its messages take.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Adds a message, of which it takes what it needs. Unless it is `numbered`, all stay as they are.
    #[inline]
    pub(super) fn add(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        numbered: bool,
        records_bytes_hint: usize,
        spent: &mut Spent,
    ) {
        self.payload_bytes += message.payload.len();
        self.record_bytes_max += message.record_bytes_max(size_bytes);
        self.count += 1;
        if self.count == 1 {
            self.first = Some(std::mem::take(message));
        } else if numbered {
            if self.records.is_empty() {
                self.records.reserve(records_bytes_hint);
                self.write_held(spent);
            }
            self.write(message, spent);
        } else {
            self.more.push(std::mem::take(message));
        }
    }

    /// Those that are not records yet.
    pub(super) fn held_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.first.iter_mut().chain(&mut self.more)
    }

    fn write_held(&mut self, spent: &mut Spent) {
        if let Some(mut first) = self.first.take() {
            self.key_b64 = first.key_b64;
            self.write_record(&first);
            self.key = first.key.take();
            self.ordering_key = first.ordering_key.take();
            discard(first.payload, spent);
        }
        for mut message in std::mem::take(&mut self.more) {
            self.write(&mut message, spent);
        }
    }

    #[inline]
    fn write(&mut self, message: &mut Message, spent: &mut Spent) {
        self.write_record(message);
        discard(std::mem::take(&mut message.payload), spent);
        if let Some(key) = message.ordering_key.take() {
            discard(key, spent);
        }
    }

    #[inline]
    fn write_record(&mut self, message: &Message) {
        put_record(&mut self.records, &message.single(), &message.payload);
    }

    /// Drops the messages, which nobody waits for any more.
    pub(super) fn discard(mut self, spent: &mut Spent) {
        let held = self.first.take().into_iter().chain(std::mem::take(&mut self.more));
        for message in held {
            discard(message.payload, spent);
            message.ordering_key.into_iter().for_each(|key| discard(key, spent));
        }
        self.ordering_key.take().into_iter().for_each(|key| discard(key, spent));
    }

    /// The only message, if it is one.
    pub(super) fn take_only(&mut self) -> Option<Message> {
        if self.count == 1 { self.first.take() } else { None }
    }

    /// The records of all messages.
    pub(super) fn take_records(&mut self) -> BytesMut {
        self.write_held(&mut Vec::new());
        std::mem::take(&mut self.records)
    }
}

/// The batch that still takes messages.
pub(super) struct Batch {
    pub(super) content: Content,
    /// Sequence ids, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Counts accepted messages; of the first one.
    pub(super) index: u64,
    /// What its messages count against the bound of pending bytes.
    pub(super) size_bytes: usize,
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) callbacks: Vec<(u32, SendCallback)>,
    pub(super) opened: Instant,
    /// When its messages are overdue.
    pub(super) deadline: Option<Instant>,
    /// Its first message had waited for room, so that its deadline is not `opened` and a whole send timeout.
    pub(super) aged: bool,
}

/// How far apart the deadlines of messages in a batch may be.
const DEADLINES_APART_MAX: Duration = Duration::from_millis(500);

impl Batch {
    pub(super) fn new(first: u64, index: u64, partition: i32, deadline: Option<Instant>, aged: bool, now: Now) -> Self {
        Self {
            content: Content::new(now),
            first,
            last: first,
            index,
            size_bytes: 0,
            outcomes: Outcomes::of_batch(partition),
            callbacks: Vec::new(),
            opened: now.at,
            deadline,
            aged,
        }
    }

    /// Whether a message may join as far as its deadline goes: a batch has one, that of its first message. Messages
    /// that have waited for room have one of their own, given here.
    #[inline]
    pub(super) fn takes(&self, deadline: Option<Option<Instant>>) -> bool {
        match (deadline, self.deadline) {
            (None, _) => !self.aged,
            (Some(Some(own)), Some(first)) => own.max(first) - own.min(first) <= DEADLINES_APART_MAX,
            (Some(own), first) => own == first,
        }
    }
}
