//! One part of a consumer, and what was taken out of its queue.
//!
//! ```text
//!  endpoint's queue --refill--> run --decode--> batch --next--> message
//!        (its lock)              |       \______________________^
//!                                |        one message
//!                                +--> chunk: kept until its message is complete (`chunks`)
//!                                +--> damaged: acknowledged with its validation error, or a dead letter
//!                                +--> unreadable: reported; acknowledged only if the policy says so, or a dead letter
//! ```
//!
//! The permit of a message is returned when the message is handed out, and also when it turns out to be damaged,
//! unreadable or absent. Permits are collected here and returned to the endpoint half a queue at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::decode::{Content, DecodeFailure, decode_fast, decode_slow};
use crate::client::clock;
use crate::client::dead_letter::DeadLetters;
use crate::client::encryption::Decryption;
use crate::client::events::{ConsumerEvent, EventQueue};
use crate::client::message::{DecodedEntry, Inflated, ReceivedMessage};
use crate::client::parts::Part;
use crate::error::Error;
use crate::id::MessagePosition;
use crate::machine::EndpointId;
use crate::machine::consumer::{Consumer, ConsumerConfig, ReceivedEntry, ReturnedPermits};
use crate::wire::ack_set::AckSet;
use crate::wire::batch::{BatchCursor, RecordRange};
use crate::wire::entry::EntryError;

mod chunks;
mod failures;
mod progress;

use chunks::Chunks;
use progress::Progress;

/// Of this many entries that are opened in a row one is timed, besides the first after each wait: reading the clock
/// costs as much as opening an entry.
const TIMED_ENTRIES: u32 = 64;

/// See the module.
pub(super) struct Source {
    part: Arc<Part<Consumer>>,
    /// Moves when what was taken is void: the broker delivers it again, or it was discarded by a seek or a close.
    queue_epoch: Arc<AtomicU64>,
    /// The queue epoch of `run` and of the open batch.
    taken_epoch: u64,
    /// The cluster of `run` and of the open batch, as the consumer counts them.
    cluster_number: u32,
    /// Entries that were taken and not opened yet.
    run: VecDeque<ReceivedEntry>,
    /// The entry opened last. Its messages share it; when all of them are dropped its memory serves the next entry.
    opened: Option<Arc<DecodedEntry>>,
    /// `opened` is a batch, and being handed out.
    batch: Option<Batch>,
    /// Permits to be returned, and the attach they belong to.
    permits: ReturnedPermits,
    /// Permits are returned once this many are collected, messages.
    permits_max: u32,
    config: Arc<ConsumerConfig>,
    /// `None` before the first chunk.
    chunks: Option<Box<Chunks>>,
    decryption: Arc<Decryption>,
    /// Where entries go that were redelivered more often than `max_redeliver_count`.
    dead_letters: Option<Arc<DeadLetters>>,
    max_redeliver_count: u32,
    /// Entries that were redelivered so often, or more, may be none of the application's: all while letters are on their way.
    looked_at_from: u32,
    /// Messages have to be acknowledged in time: the endpoint is told of each entry that is handed out.
    is_timed: bool,
    /// Entries to be opened until one is timed: see [`TIMED_ENTRIES`].
    untimed_entries: u32,
    /// How far a reader has read.
    progress: Option<Box<Progress>>,
    /// It is in the receiver's queue of sources, or held.
    pub(super) is_queued: bool,
    /// It gives nothing for the time being: see [`Receiver::hold`](super::Receiver::hold).
    pub(super) is_held: bool,
    end: End,
}

/// A batch being handed out.
struct Batch {
    cursor: BatchCursor,
    /// Members that are not acknowledged at the broker, where it said so; else all of them.
    unacknowledged: Option<AckSet>,
    /// Permits that the broker charged for the batch and that have not been returned, messages.
    charged: u32,
}

/// Whether anything still comes.
enum End {
    No,
    /// Nothing comes any more, and the receiver has not been told.
    Pending(Error),
    Reported(Error),
}

impl Source {
    pub(super) fn new(
        part: Arc<Part<Consumer>>,
        config: &Arc<ConsumerConfig>,
        decryption: Arc<Decryption>,
        dead_letters: Option<Arc<DeadLetters>>,
    ) -> Self {
        let queue_epoch = part.read(Consumer::queue_epoch);
        Self {
            taken_epoch: queue_epoch.load(Ordering::Relaxed),
            queue_epoch,
            cluster_number: 0,
            run: VecDeque::new(),
            opened: None,
            batch: None,
            permits: ReturnedPermits::default(),
            permits_max: (config.receiver_queue_size / 2).max(1),
            config: config.clone(),
            chunks: None,
            decryption,
            max_redeliver_count: dead_letters.as_ref().map_or(u32::MAX, |letters| letters.max_redeliver_count()),
            looked_at_from: u32::MAX,
            dead_letters,
            is_timed: config.ack_timeout.is_some(),
            untimed_entries: 0,
            progress: (!config.durable).then(Box::default),
            is_queued: false,
            is_held: false,
            end: End::No,
            part,
        }
    }

    pub(super) fn part(&self) -> &Arc<Part<Consumer>> {
        &self.part
    }

    pub(super) fn id(&self) -> EndpointId {
        self.part.id()
    }

    /// Why nothing comes any more, if the receiver knows. One that it has not been told of yet is still to be counted.
    pub(super) fn reported_end(&self) -> Option<&Error> {
        match &self.end {
            End::Reported(error) => Some(error),
            End::No | End::Pending(_) => None,
        }
    }

    /// Its end, once.
    pub(super) fn take_end(&mut self) -> Option<(&Arc<Part<Consumer>>, Error)> {
        let End::Pending(error) = &self.end else { return None };
        let error = error.clone();
        self.end = End::Reported(error.clone());
        Some((&self.part, error))
    }

    /// With a queue of size 0: asks for one message.
    pub(super) fn request_one(&self) {
        self.part.endpoint.with(|consumer| consumer.request_one());
    }

    /// Swaps the endpoint's queue in; permits are returned on the way.
    pub(super) fn refill(&mut self) {
        self.discard_stale();
        let permits = std::mem::take(&mut self.permits);
        let (attach_number, before) = (permits.attach_number, self.run.len());
        let read = self.take_read();
        let run = &mut self.run;
        let taken = self.part.endpoint.with(|consumer| {
            if let Some(read) = read {
                consumer.on_read(read, clock::now);
            }
            consumer.take(permits, run)
        });
        self.set_seek_number(taken.seek_number);
        self.permits_max = taken.permits_step;
        if taken.queue_epoch != self.taken_epoch {
            // The epoch moved between `discard_stale` and the lock: what was here before is void all the same. Its permits
            // are of another attach if the endpoint was attached anew, and then they do not exist any more.
            let charged = self.discard(before, false);
            self.permits.count = if taken.attach_number == attach_number { charged } else { 0 };
        }
        self.taken_epoch = taken.queue_epoch;
        self.cluster_number = taken.cluster_number;
        self.permits.attach_number = taken.attach_number;
        if let Some(letters) = &self.dead_letters {
            self.looked_at_from = if letters.is_idle() { self.max_redeliver_count.saturating_add(1) } else { 0 };
        }
        if let (End::No, Some(error)) = (&self.end, taken.ended) {
            self.end = End::Pending(error);
        }
    }

    /// Throws away what was taken before the queue epoch moved. A consumer that is drained keeps the open batch: where the
    /// broker takes acknowledgements of whole batches only, all of it would come again.
    fn discard_stale(&mut self) {
        let epoch = self.queue_epoch.load(Ordering::Relaxed);
        if epoch != self.taken_epoch {
            let keeps_batch = self.batch.is_some() && self.part.read(Consumer::is_stopped);
            let charged = self.discard(self.run.len(), keeps_batch);
            self.permits.count = self.permits.count.saturating_add(charged);
            self.taken_epoch = epoch;
        }
    }

    /// Drops the open batch, unless it is kept, and the first `entries` of the run; the permits that were charged for them.
    fn discard(&mut self, entries: usize, keeps_batch: bool) -> u32 {
        self.note_interrupted(keeps_batch);
        self.clear_chunks();
        let permits = self.batch.take_if(|_| !keeps_batch).map_or(0, |batch| batch.charged);
        // The sizes of batches are the peer's word: their sum may be beyond what a count holds.
        self.run.drain(..entries).fold(permits, |sum, entry| sum.saturating_add(entry.permits))
    }

    /// The next message, if it is a plain member of the open batch, or one that [`decode_fast`] opens.
    #[inline(always)]
    pub(super) fn next_fast(&mut self) -> Option<ReceivedMessage> {
        if self.queue_epoch.load(Ordering::Relaxed) != self.taken_epoch {
            return None;
        }
        if self.batch.is_none() {
            let is_open = self.decode_next_fast();
            return self.opened.as_ref().filter(|_| is_open).map(|opened| ReceivedMessage::single(opened.clone()));
        }
        let (batch, opened) = (self.batch.as_mut()?, self.opened.as_ref()?);
        if batch.unacknowledged.is_some() {
            return None;
        }
        let index = batch.cursor.index();
        let record = batch.cursor.next_fast(opened.payload())?;
        batch.charged = batch.charged.saturating_sub(1);
        self.return_permits(1);
        // No call comes behind this, so that the parts of the message need not go through memory.
        let opened = self.opened.as_ref()?;
        Some(ReceivedMessage::member(opened.clone(), record, index))
    }

    /// Opens the next entry if it is one message that lies there as it was sent. `false`: nothing was done.
    #[inline(never)]
    fn decode_next_fast(&mut self) -> bool {
        let Some(entry) = self.run.front_mut() else { return false };
        if entry.redelivery_count >= self.looked_at_from {
            return false;
        }
        let Some(body) = decode_fast(&entry.body) else { return false };
        let ReceivedEntry { ledger_id, entry_id, permits, redelivery_count, .. } = *entry;
        let opened_at = time_entry(&mut self.untimed_entries);
        let (partition, cluster_number) = (self.part.partition, self.cluster_number);
        let position = MessagePosition { partition, cluster_number, ..MessagePosition::new(ledger_id, entry_id) };
        let raw = std::mem::take(&mut entry.raw);
        place(&mut self.opened, &self.part, |opened| {
            opened.fill(position, raw, body, None, redelivery_count, opened_at);
        });
        self.run.pop_front();
        self.on_given(position, redelivery_count);
        self.return_permits(permits);
        true
    }

    /// The next message; `None` when nothing of this part is buffered.
    pub(super) fn next_slow(&mut self, events: &EventQueue<ConsumerEvent>) -> Option<ReceivedMessage> {
        self.discard_stale();
        loop {
            if let Some(message) = self.next_member_slow(events) {
                if self.give_up(&message) {
                    continue;
                }
                return Some(message);
            }
            let Some(entry) = self.run.pop_front() else {
                self.expire_chunks(events);
                self.flush_permits();
                self.release_buffer();
                return None;
            };
            self.note_read();
            let (partition, cluster_number) = (self.part.partition, self.cluster_number);
            let place = MessagePosition::new(entry.ledger_id, entry.entry_id);
            let opened = match &entry.body {
                Ok(body) if body.is_chunk => self.next_of_chunk(entry, events),
                _ => self.decode_next_slow(entry, events),
            };
            if opened.is_none() && self.batch.is_none() {
                self.note_passed(MessagePosition { partition, cluster_number, ..place });
            }
            if let Some(message) = opened {
                if self.give_up(&message) {
                    continue;
                }
                return Some(message);
            }
        }
    }

    /// A consumer that waits for messages does not hold on to the read buffer of those it gave.
    fn release_buffer(&mut self) {
        self.untimed_entries = 0;
        self.note_read();
        let Some(opened) = &mut self.opened else { return };
        match Arc::get_mut(opened) {
            Some(opened) => opened.clear(),
            None => self.opened = None,
        }
    }

    /// Returns permits, once there are enough to be worth a lock.
    #[inline]
    fn return_permits(&mut self, count: u32) {
        self.permits.count = self.permits.count.saturating_add(count);
        if self.permits.count >= self.permits_max {
            self.flush_permits();
        }
    }

    #[inline(never)]
    fn flush_permits(&mut self) {
        let read = self.take_read();
        if self.permits.count == 0 && read.is_none() {
            return;
        }
        let permits = ReturnedPermits {
            attach_number: self.permits.attach_number,
            count: std::mem::take(&mut self.permits.count),
        };
        self.part.endpoint.with(|consumer| {
            if let Some(read) = read {
                consumer.on_read(read, clock::now);
            }
            consumer.return_permits(permits);
        });
    }

    /// The next member of the open batch that is for the user; `None` when there is no open batch, or not any more.
    ///
    /// | at the cursor | what becomes of it |
    /// | --- | --- |
    /// | no record | The batch is done. Permits that are left were charged for members that it does not hold, or that were compacted out: they are returned. |
    /// | a damaged record | The entry is rejected as a whole, since the start of the next record is unknown. Members handed out before stay valid. |
    /// | a member that is acknowledged | Skipped. The broker did not charge it. |
    /// | a member that was compacted out | Acknowledged here, since the application never sees it and the entry is done only with all its members. Its permit is returned with the batch. |
    /// | any other | Handed out; its permit is returned. |
    fn next_member_slow(&mut self, events: &EventQueue<ConsumerEvent>) -> Option<ReceivedMessage> {
        loop {
            let (batch, opened) = (self.batch.as_mut()?, self.opened.as_ref()?);
            let index = batch.cursor.index();
            let Some(record) = batch.cursor.next(opened.payload()) else {
                let charged = batch.charged;
                self.batch = None;
                self.return_permits(charged);
                return None;
            };
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let (stored, charged) = (opened.stored(), batch.charged);
                    self.batch = None;
                    self.on_failure(stored, charged, DecodeFailure::Damaged(EntryError::Batch(error)), events);
                    return None;
                }
            };
            if batch.unacknowledged.as_ref().is_some_and(|unacknowledged| !unacknowledged.is_set(index)) {
                continue;
            }
            let place = RecordRange {
                metadata_at: record.metadata_range.start,
                payload_at: record.payload.start,
                end: record.payload.end,
            };
            let message = ReceivedMessage::member(opened.clone(), place, index);
            if record.metadata.compacted_out {
                let position = message.position();
                // If it is refused, the entry comes again.
                let _ = self.part.endpoint.with(|consumer| consumer.ack(&position, clock::now));
                continue;
            }
            batch.charged = batch.charged.saturating_sub(1);
            self.return_permits(1);
            return Some(message);
        }
    }

    /// Opens an entry: returns its one message, or leaves it as the open batch, or refuses it.
    fn decode_next_slow(
        &mut self,
        entry: ReceivedEntry,
        events: &EventQueue<ConsumerEvent>,
    ) -> Option<ReceivedMessage> {
        let ReceivedEntry { raw, ledger_id, entry_id, redelivery_count, ack_set, body, permits, .. } = entry;
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                self.reject(ledger_id, entry_id, permits, &error);
                return None;
            }
        };
        let batch_size = body.num_messages_in_batch.unwrap_or(0);
        let (partition, cluster_number) = (self.part.partition, self.cluster_number);
        let position = MessagePosition { ledger_id, entry_id, partition, batch_index: -1, batch_size, cluster_number };
        let Content { inflated, cursor } =
            match decode_slow(&raw, &body, &self.decryption, self.config.max_uncompressed_size) {
                Ok(content) => content,
                Err(failure) if self.gives_encrypted(&failure) => {
                    return Some(self.give_encrypted(position, raw, &body, redelivery_count, permits));
                }
                Err(failure) => {
                    let mut stored = DecodedEntry::empty(self.part.clone());
                    // A copy, because an event may wait for long and must not keep a whole read buffer.
                    stored.fill(position, Bytes::copy_from_slice(&raw), &body, None, redelivery_count, None);
                    self.on_failure(stored, permits, failure, events);
                    return None;
                }
            };
        self.on_given(position, redelivery_count);
        let opened_at = time_entry(&mut self.untimed_entries);
        let inflated = inflated.map(|payload| Inflated { payload, first_chunk: None });
        let opened = place(&mut self.opened, &self.part, |opened| {
            opened.fill(position, raw, &body, inflated, redelivery_count, opened_at);
        });
        let Some(cursor) = cursor else {
            let message = ReceivedMessage::single(opened.clone());
            self.return_permits(permits);
            return Some(message);
        };
        let size = u32::try_from(batch_size).unwrap_or(0);
        let unacknowledged = match ack_set.is_empty() {
            false => Some(AckSet::from_words(&ack_set, size)),
            // Keeps the members of a batch that may be given up off the fast path.
            true => (redelivery_count >= self.looked_at_from).then(|| AckSet::full(size)),
        };
        self.batch = Some(Batch { cursor, unacknowledged, charged: permits });
        None
    }

    /// Sends a message that was redelivered too often to the dead-letter topic. `false`: it is for the application.
    fn give_up(&self, message: &ReceivedMessage) -> bool {
        let Some(letters) = &self.dead_letters else { return false };
        let is_dead = message.redelivery_count() > self.max_redeliver_count;
        if is_dead {
            letters.push(message, None);
        }
        is_dead || letters.holds(message)
    }

    /// An entry is about to be handed out.
    #[inline]
    fn on_given(&self, position: MessagePosition, redelivery_count: u32) {
        if self.is_timed && redelivery_count <= self.max_redeliver_count {
            let MessagePosition { ledger_id, entry_id, .. } = position;
            let now = clock::now();
            self.part.endpoint.with(|consumer| consumer.on_given(ledger_id, entry_id, redelivery_count, now));
        }
    }
}

/// The time, if the entry that is opened now is one that is timed.
#[inline]
fn time_entry(untimed_entries: &mut u32) -> Option<Instant> {
    if let Some(fewer) = untimed_entries.checked_sub(1) {
        *untimed_entries = fewer;
        return None;
    }
    *untimed_entries = TIMED_ENTRIES - 1;
    Some(clock::now().at)
}

/// Puts an entry into the memory of the one before, if no message of that is left, else into memory of its own.
#[inline]
fn place<'a>(
    last: &'a mut Option<Arc<DecodedEntry>>,
    part: &Arc<Part<Consumer>>,
    fill: impl FnOnce(&mut DecodedEntry),
) -> &'a Arc<DecodedEntry> {
    if let Some(mut used) = last.take() {
        if let Some(free) = Arc::get_mut(&mut used) {
            fill(free);
            return last.insert(used);
        }
    }
    let mut fresh = DecodedEntry::empty(part.clone());
    fill(&mut fresh);
    last.insert(Arc::new(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::parts::Parts;
    use crate::id::ConsumerId;
    use crate::machine::{Endpoint, ReadyList, Reply};
    use crate::wire::AckWords;
    use crate::wire::hot::MessageHead;

    #[test]
    fn a_void_run_of_batches_of_absurd_sizes_is_thrown_away() {
        let (id, queue_epoch) = (ConsumerId(1), Arc::new(AtomicU64::new(0)));
        let (subscribed, _) = Reply::pair();
        let (topic, inbox) = (Arc::<str>::from("persistent://a/b/t"), ReadyList::new());
        let config = Arc::<ConsumerConfig>::default();
        let signals =
            crate::machine::consumer::QueueSignals { inbox: inbox.clone(), epoch: queue_epoch.clone(), observer: None };
        let machine = Consumer::new(id, topic.clone(), -1, config.clone(), signals, subscribed, clock::now());
        let endpoint = Endpoint::new(EndpointId::Consumer(id), machine, inbox);
        let parts = Parts::new();
        let mut source =
            Source::new(parts.add(topic, -1, endpoint).expect("an open set"), &config, Arc::default(), None);
        for entry_id in 0..3 {
            let head = MessageHead {
                consumer_id: 1,
                ledger_id: 1,
                entry_id,
                partition: -1,
                redelivery_count: 0,
                ack_set: AckWords::NONE,
                consumer_epoch: None,
            };
            source.run.push_back(ReceivedEntry { permits: u32::MAX / 2, ..ReceivedEntry::read(head, Bytes::new()) });
        }
        queue_epoch.fetch_add(1, Ordering::Relaxed);
        assert!(source.next_slow(&EventQueue::default()).is_none());
    }
}
