//! Messages that go out as one entry: the first stage of the pipeline, which begins while the batch is open.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::OPEN_MAX;
use super::buffers::{BufferPool, DeferredDrops};
use super::interleaved::{Interleaved, OwnRecords};
use super::key_batches::BatchKey;
use super::message::Message;
use super::results::{SendCallback, SendResults};
use super::send_deadline::SendDeadline;
use crate::machine::Now;
use crate::wire::batch::{put_plain_record, put_record};

/// The messages of one entry.
///
/// | messages | kept as |
/// | --- | --- |
/// | one | itself: it goes out as a single message, not as a batch of one |
/// | several, numbered | the records of a batch, written as each message comes |
/// | several, numbered, of a batch among others | the same, written among those of the others: see [`Interleaved`] |
/// | several, accepted before the first attach | themselves: a record holds the sequence id |
///
/// The fields stand in the order of [`OpenBatch`].
#[derive(Default)]
#[repr(C)]
pub(super) struct EntryContent {
    payload_bytes: usize,
    record_bytes_max: usize,
    count: u32,
    /// The first message is a record.
    has_records: bool,
    /// Keys of the first message, once it is a record: the metadata of a batch repeats them.
    pub(super) key_b64: bool,
    pub(super) key: Option<String>,
    pub(super) ordering_key: Option<Bytes>,
    /// Messages that are not records yet: the first one, and those behind it.
    first: Option<Message>,
    more: Vec<Message>,
    records: BytesMut,
    /// Records that lie among those of other batches, once they are closed.
    own: Option<OwnRecords>,
    pub(super) publish_time_ms: u64,
}

impl fmt::Debug for EntryContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryContent({} messages of {} bytes)", self.count, self.payload_bytes)
    }
}

impl EntryContent {
    pub(super) fn new(now: Now) -> Self {
        Self { publish_time_ms: now.wall_ms, ..Self::default() }
    }

    /// Messages in it.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// [`count`](Self::count), as the protocol has it.
    pub(super) fn count_i32(&self) -> i32 {
        i32::try_from(self.count).unwrap_or(i32::MAX)
    }

    /// Takes its records, which lie among those of other batches, and the buffer that they are to be gathered in.
    pub(super) fn set_own(&mut self, own: OwnRecords, buffer: BytesMut) {
        (self.own, self.records) = (Some(own), buffer);
    }

    /// The payloads of its messages, bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// What is written as records, bytes.
    pub(super) fn records_bytes(&self) -> usize {
        self.own.as_ref().map_or(self.records.len(), OwnRecords::len)
    }

    /// Whether all its messages are records, in a buffer of its own.
    pub(super) fn has_written_records(&self) -> bool {
        self.has_records && self.more.is_empty() && self.own.is_none()
    }

    /// At least what the records of all its messages take, bytes.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Adds a message, of which it takes what it needs. Only numbered messages can become records.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        is_numbered: bool,
        buffers: &mut BufferPool,
        drops: &mut DeferredDrops,
    ) {
        self.count_in(message, size_bytes);
        if self.count == 1 {
            self.first = Some(std::mem::take(message));
        } else if is_numbered {
            // The second message turns both into records; what was held before the first attach follows the same way.
            if self.records.is_empty() {
                self.records = buffers.take();
                self.write_held(drops);
            }
            write_record(&mut self.records, message);
        } else {
            self.more.push(std::mem::take(message));
        }
    }

    #[inline(always)]
    fn count_in(&mut self, message: &Message, size_bytes: usize) {
        self.payload_bytes += message.payload.len();
        self.record_bytes_max += message.record_bytes_max(size_bytes);
        self.count += 1;
    }

    /// [`add`](Self::add)s a numbered message whose record, and that of the first message, is written among those of other
    /// batches, for the batch at `place`. [`Interleaved::close`] gives them back.
    pub(super) fn add_interleaved(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        place: usize,
        others: &mut Interleaved,
        drops: &mut DeferredDrops,
    ) {
        self.count_in(message, size_bytes);
        if self.count == 1 {
            self.first = Some(std::mem::take(message));
            return;
        }
        if !self.has_records {
            self.write_first(place, others, drops);
        }
        others.write(place, message);
    }

    #[cold]
    #[inline(never)]
    fn write_first(&mut self, place: usize, others: &mut Interleaved, drops: &mut DeferredDrops) {
        if let Some(first) = self.first.take() {
            others.write(place, &first);
            self.keep_keys(first, drops);
        }
    }

    /// The key of its first message, once that is a record.
    pub(super) fn batch_key(&self) -> BatchKey<'_> {
        BatchKey::of(self.ordering_key.as_ref(), self.key.as_deref(), self.key_b64)
    }

    /// Its first message, while that is no record.
    #[inline]
    pub(super) fn held(&self) -> Option<&Message> {
        if self.has_records { None } else { self.first.as_ref() }
    }

    /// The messages that are not records yet.
    pub(super) fn held_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.first.iter_mut().chain(&mut self.more)
    }

    fn write_held(&mut self, drops: &mut DeferredDrops) {
        if let Some(first) = self.first.take() {
            write_record(&mut self.records, &first);
            self.keep_keys(first, drops);
        }
        for mut message in std::mem::take(&mut self.more) {
            write_record(&mut self.records, &message);
            drops.defer_drop_of_message(&mut message);
        }
    }

    /// The first message has become a record.
    fn keep_keys(&mut self, mut first: Message, drops: &mut DeferredDrops) {
        self.has_records = true;
        self.key_b64 = first.extras().key_b64;
        (self.key, self.ordering_key) = first.take_keys();
        drops.defer_drop(first.payload);
    }

    /// Drops the messages: they will not be sent.
    pub(super) fn discard(mut self, drops: &mut DeferredDrops) {
        let held = self.first.take().into_iter().chain(std::mem::take(&mut self.more));
        for mut message in held {
            drops.defer_drop_of_message(&mut message);
        }
        if let Some(key) = self.ordering_key.take() {
            drops.defer_drop(key);
        }
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

    /// The records of all messages. No lock may be held, because messages are dropped.
    pub(super) fn take_records(&mut self) -> BytesMut {
        match self.own.take() {
            Some(own) => own.gather(&mut self.records),
            None => self.write_held(&mut DeferredDrops::default()),
        }
        std::mem::take(&mut self.records)
    }
}

/// Fast for a message that has no more than payload and sequence id.
#[inline(always)]
pub(super) fn write_record(records: &mut BytesMut, message: &Message) {
    match message.sequence_id().filter(|_| !message.has_extras()) {
        Some(sequence_id) => put_plain_record(records, sequence_id, &message.payload),
        None => put_record(records, &message.single(), &message.payload),
    }
}

/// The batch that takes more messages.
///
/// What each message reads and writes stands first, in a line of the cache: where each key has a batch, that of the next
/// message is in no cache.
#[repr(C)]
pub(super) struct OpenBatch {
    /// Sequence ids, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    /// What its messages count against the bounds on pending bytes.
    pub(super) size_bytes: usize,
    pub(super) results: Arc<SendResults>,
    /// Index of the first message in the results.
    pub(super) first_slot: u32,
    /// Whether the first message has waited for capacity, so that the deadline is not `opened` and a whole send timeout.
    pub(super) has_own_deadline: bool,
    pub(super) content: EntryContent,
    /// Index of the first message.
    pub(super) index: u64,
    /// Callbacks, with the index of their message in the results.
    pub(super) callbacks: VecDeque<(u32, SendCallback)>,
    pub(super) opened: Now,
    /// When its messages are overdue: the deadline of the first.
    pub(super) deadline: Option<Instant>,
}

impl OpenBatch {
    /// `results` are followed by the index of the first message in them.
    pub(super) fn new(
        first: u64,
        index: u64,
        (results, first_slot): (Arc<SendResults>, u32),
        deadline: Option<Instant>,
        has_own_deadline: bool,
        now: Now,
    ) -> Self {
        Self {
            content: EntryContent::new(now),
            first,
            last: first,
            index,
            size_bytes: 0,
            results,
            first_slot,
            callbacks: VecDeque::new(),
            opened: now,
            deadline,
            has_own_deadline,
        }
    }

    /// Adds a message, of which it takes what it needs; its index in the results.
    #[inline(always)]
    pub(super) fn join(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        is_numbered: bool,
        callback: Option<SendCallback>,
        buffers: &mut BufferPool,
        drops: &mut DeferredDrops,
    ) -> u32 {
        let member = self.note(message, size_bytes, callback);
        self.content.add(message, size_bytes, is_numbered, buffers, drops);
        member
    }

    /// What a message changes beside the content; its index in the results.
    #[inline(always)]
    pub(super) fn note(&mut self, message: &Message, size_bytes: usize, callback: Option<SendCallback>) -> u32 {
        let member = self.first_slot + self.content.count();
        if let Some(callback) = callback {
            self.callbacks.push_back((member, callback));
        }
        self.last = message.sequence_id().unwrap_or(0);
        self.size_bytes += size_bytes;
        member
    }

    /// Whether a message may join as far as its deadline goes. Of a message that did not wait for capacity it counts
    /// from when the batch was opened, at most [`OPEN_MAX`] or the publish delay ago.
    #[inline]
    pub(super) fn takes(&self, deadline: SendDeadline) -> bool {
        match deadline {
            SendDeadline::FromStart => !self.has_own_deadline,
            own => own.is_near(self.deadline),
        }
    }

    /// Whether it has waited for more messages for as long as it should, `batching_max_publish_delay`.
    pub(super) fn is_due(&self, publish_delay: Duration, now: Now) -> bool {
        publish_delay.is_zero() || self.opened.at.checked_add(publish_delay).is_some_and(|due| due <= now.at)
    }

    /// When it is closed, whether or not it can be sent. Without a publish delay an attached producer closes it as soon
    /// as it can be written; what keeps it open is a connection that takes no more, or that there is none.
    pub(super) fn closes_at(&self, publish_delay: Duration, is_attached: bool) -> Option<Instant> {
        let waits_for_messages = is_attached && !publish_delay.is_zero();
        self.opened.at.checked_add(if waits_for_messages { publish_delay } else { OPEN_MAX.max(publish_delay) })
    }
}
