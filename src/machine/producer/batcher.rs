//! Messages that go out as one entry: collected here, numbered, and turned into records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::RECORDS_BYTES_MIN;
use super::message::Message;
use crate::machine::Now;
use crate::machine::producer::results::{SendCallback, SendResults};
use crate::wire::batch::{put_plain_record, put_record};

/// Payloads whose drop may run code of the user's (`Bytes::from_owner`), to be dropped once no lock is held.
pub(super) type Spent = Vec<Bytes>;

/// Puts a payload aside unless its drop can be nothing but freeing memory.
pub(super) fn discard(payload: Bytes, spent: &mut Spent) {
    if !payload.is_empty() && !payload.is_unique() {
        spent.push(payload);
    }
}

/// The same for all of a message whose drop may run code of the user's.
pub(super) fn discard_message(message: &mut Message, spent: &mut Spent) {
    discard(std::mem::take(&mut message.payload), spent);
    if let (_, Some(key)) = message.take_keys() {
        discard(key, spent);
    }
}

/// The most buffers for records that one producer keeps for further batches, bytes.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same for a producer of which nothing is on its way, bytes.
const SPARE_IDLE_BYTES_MAX: usize = 1024 * 1024;

/// Buffers for records and framed runs, used again once their batch is stored: a fresh one of this size costs page faults each time.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<BytesMut>,
    /// The capacity of them all.
    held_bytes: usize,
    /// What the records of a batch take.
    hint_bytes: usize,
}

impl Spares {
    /// An empty buffer with room for as much as batches take.
    pub(super) fn take(&mut self) -> BytesMut {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        self.held_bytes -= buffer.capacity();
        buffer.reserve(self.hint_bytes.max(RECORDS_BYTES_MIN));
        buffer
    }

    /// Keeps what will serve again.
    pub(super) fn put(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        let held_bytes = self.held_bytes + buffer.capacity();
        if buffer.capacity() > 0 && held_bytes <= SPARE_BYTES_MAX {
            self.held_bytes = held_bytes;
            self.buffers.push(buffer);
        }
    }

    /// Nothing is on its way: what a burst took is given back.
    pub(super) fn trim(&mut self) {
        while self.held_bytes > SPARE_IDLE_BYTES_MAX {
            let Some(buffer) = self.buffers.pop() else { break };
            self.held_bytes -= buffer.capacity();
        }
    }

    /// The payload of a batch that is stored.
    pub(super) fn put_payload(&mut self, payload: Bytes) {
        // While something else holds on to it, it is just dropped: no user ever had it.
        if let Ok(buffer) = payload.try_into_mut() {
            self.put(buffer);
        }
    }

    /// The size of a batch that was closed. The next one is taken to be a little larger than the large ones among the
    /// last, so that its buffer need not grow at the end.
    pub(super) fn note(&mut self, records_bytes: usize) {
        let faded = self.hint_bytes - self.hint_bytes / 8;
        self.hint_bytes = faded.max(records_bytes + records_bytes / 16);
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
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        numbered: bool,
        spares: &mut Spares,
        spent: &mut Spent,
    ) {
        self.payload_bytes += message.payload.len();
        self.record_bytes_max += message.record_bytes_max(size_bytes);
        self.count += 1;
        if self.count == 1 {
            self.first = Some(std::mem::take(message));
        } else if numbered {
            if self.records.is_empty() {
                self.records = spares.take();
                self.write_held(spent);
            }
            self.write_record(message);
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
            self.key_b64 = first.extras().key_b64;
            self.write_record(&first);
            (self.key, self.ordering_key) = first.take_keys();
            discard(first.payload, spent);
        }
        for mut message in std::mem::take(&mut self.more) {
            self.write_record(&message);
            discard_message(&mut message, spent);
        }
    }

    #[inline(always)]
    fn write_record(&mut self, message: &Message) {
        match message.id().filter(|_| message.is_plain()) {
            Some(sequence_id) => put_plain_record(&mut self.records, sequence_id, &message.payload),
            None => put_record(&mut self.records, &message.single(), &message.payload),
        }
    }

    /// Drops the messages, which nobody waits for any more.
    pub(super) fn discard(mut self, spent: &mut Spent) {
        let held = self.first.take().into_iter().chain(std::mem::take(&mut self.more));
        for mut message in held {
            discard_message(&mut message, spent);
        }
        self.ordering_key.take().into_iter().for_each(|key| discard(key, spent));
    }

    pub(super) fn count_i32(&self) -> i32 {
        i32::try_from(self.count).unwrap_or(i32::MAX)
    }

    /// The only message, if it is one: then the entry is not a batch.
    pub(super) fn single(&self) -> Option<&Message> {
        self.first.as_ref().filter(|_| self.count == 1)
    }

    /// The payload of the only message, if it is one.
    pub(super) fn take_single_payload(&mut self) -> Option<Bytes> {
        let single = self.first.as_mut().filter(|_| self.count == 1)?;
        Some(std::mem::take(&mut single.payload))
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
    pub(super) outcomes: Arc<SendResults>,
    pub(super) callbacks: VecDeque<(u32, SendCallback)>,
    pub(super) opened: Now,
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
            outcomes: SendResults::of_batch(partition),
            callbacks: VecDeque::new(),
            opened: now,
            deadline,
            aged,
        }
    }

    /// Whether a message may join as far as its deadline goes: a batch has one, that of its first message. Messages
    /// that have waited for room have one of their own, given here.
    #[inline]
    pub(super) fn takes(&self, own: Option<Option<Instant>>) -> bool {
        own.map_or(!self.aged, |own| deadlines_are_near(own, self.deadline))
    }
}

/// Whether two messages may share a deadline.
pub(super) fn deadlines_are_near(own: Option<Instant>, first: Option<Instant>) -> bool {
    match (own, first) {
        (Some(own), Some(first)) => own.max(first) - own.min(first) <= DEADLINES_APART_MAX,
        (own, first) => own == first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_buffers_are_bounded_and_a_burst_is_given_back() {
        let mut spares = Spares::default();
        for _ in 0..100 {
            spares.put(BytesMut::with_capacity(128 * 1024));
        }
        assert_eq!(spares.held_bytes, SPARE_BYTES_MAX);
        spares.trim();
        assert_eq!(spares.held_bytes, SPARE_IDLE_BYTES_MAX);
        let held: usize = spares.buffers.iter().map(BytesMut::capacity).sum();
        assert_eq!(held, spares.held_bytes);
    }
}
