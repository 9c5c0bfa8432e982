//! Key-based batching: one open batch for each key.
//!
//! ```text
//!  accepted   a0 b1 a2 c3 b4 | flush          a: a0 a2    b: b1 b4    c: c3
//!  written    [a0 a2] [c3] [b1 b4]            ids    2        3          4
//! ```
//!
//! | rule | because |
//! | --- | --- |
//! | the batches are closed together, and have one deadline | deadlines grow along the queue, and a message that is not batched is behind all that were accepted before it |
//! | they go out in the order of their last messages, each named by the id of that one alone | the ids on the wire grow, as deduplication requires; those of the messages overlap, so a batch has no lowest one |
//! | a message with a sequence id of the application's is not batched | of a batch only the last id is stored, and one with a lower id may be in a batch that is written later: a producer that starts again above the last stored id would lose it |
//!
//! The Java client names them the same way.

use bytes::Bytes;

use super::batch::OpenBatch;
use super::interleaved::Interleaved;
use super::results::{ResultsKind, SendSlots};
use super::send_deadline::SendDeadline;
use super::{Message, PendingSend, Producer, SendCallback};
use crate::hash::murmur3_32;
use crate::machine::Now;
use crate::machine::id_map::IdMap;

/// By what a Key_Shared subscription assigns a message to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKey<'a> {
    None,
    Key { text: &'a str, is_base64: bool },
    Ordering(&'a [u8]),
}

impl<'a> BatchKey<'a> {
    pub(super) fn of(ordering_key: Option<&'a Bytes>, key: Option<&'a str>, is_base64: bool) -> Self {
        match (ordering_key, key) {
            (Some(key), _) => Self::Ordering(key),
            (None, Some(text)) => Self::Key { text, is_base64 },
            (None, None) => Self::None,
        }
    }
}

/// Begins with a line of the cache, of which an [`OpenBatch`] makes use.
#[repr(align(64))]
struct Aligned(OpenBatch);

/// The batches that take more messages, by key.
pub(super) struct KeyBatches {
    /// In the order in which they were opened.
    batches: Vec<Aligned>,
    /// The records of all.
    interleaved: Interleaved,
    /// Place of a batch by the hash of its key. Of two keys with the same hash one has a batch at a time, so that keys that
    /// are chosen to collide cost batches, and no search.
    places: IdMap<u64, usize>,
    /// Empty, for its capacity: last sequence id and place of each batch, in the order in which they are closed.
    order: Vec<(u64, usize)>,
    slots: SendSlots,
}

impl KeyBatches {
    pub(super) fn new(partition: i32) -> Self {
        Self {
            batches: Vec::new(),
            interleaved: Interleaved::default(),
            places: IdMap::default(),
            order: Vec::new(),
            slots: SendSlots::new(partition, ResultsKind::KeyBatches),
        }
    }

    /// The one that was opened first, which is due first.
    #[inline]
    pub(super) fn first(&self) -> Option<&OpenBatch> {
        self.batches.first().map(|Aligned(batch)| batch)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OpenBatch> {
        self.batches.iter().map(|Aligned(batch)| batch)
    }
}

/// Whether a batch is that of this key.
fn has_key(batch: &OpenBatch, key: BatchKey<'_>) -> bool {
    match batch.content.held() {
        Some(first) => key_of(first) == key,
        None => batch.content.batch_key() == key || mutation!(OneBatchForAllKeys),
    }
}

/// Where a message goes.
enum Place {
    /// Into this batch.
    Joins(usize),
    /// Into a batch that is opened beside the others.
    Opens,
    /// Into one that is opened once the others are closed.
    OpensAlone,
}

fn key_of(message: &Message) -> BatchKey<'_> {
    if mutation!(OneBatchForAllKeys) { BatchKey::None } else { message.batch_key() }
}

/// With key-based batching there are some.
fn open(batches: &mut Option<Box<KeyBatches>>) -> &mut KeyBatches {
    batches.as_deref_mut().expect("batches are made by key")
}

fn hash(key: BatchKey<'_>) -> u64 {
    let (kind, bytes) = match key {
        BatchKey::None => (0, [].as_slice()),
        BatchKey::Key { text, is_base64 } => (1 + u64::from(is_base64), text.as_bytes()),
        BatchKey::Ordering(bytes) => (3, bytes),
    };
    kind << 32 | u64::from(murmur3_32(bytes))
}

impl Producer {
    /// Messages that may be batched join the batch of their key. Others close all batches first, as everywhere.
    #[cold]
    #[inline(never)]
    pub(super) fn accept_by_key(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        if message.sequence_id().is_none() && message.may_be_batched() {
            self.append_to_key_batch(message, size_bytes, callback, deadline, now)
        } else {
            self.accept_numbered(message, size_bytes, callback, deadline, false, now)
        }
    }

    /// Adds a message to the batch of its key, or opens one with it.
    fn append_to_key_batch(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        let hash = hash(key_of(message));
        let place = match self.place_of(hash, message, size_bytes, deadline) {
            Place::Joins(place) => place,
            Place::Opens => self.open_key_batch(hash, deadline, now),
            Place::OpensAlone => {
                self.close_batch();
                self.open_key_batch(hash, deadline, now)
            }
        };
        let is_numbered = self.sealing.is_ready();
        let KeyBatches { batches, interleaved, .. } = open(&mut self.key_batches);
        let Aligned(batch) = &mut batches[place];
        if is_numbered {
            let (id, _) = self.sequence_ids.assign(None);
            message.set_sequence_id(id);
            batch.first = id;
        }
        let (buffers, drops) = (&mut self.sealing.buffers, &mut self.sealing.drops);
        let member = batch.note(message, size_bytes, callback);
        if is_numbered {
            batch.content.add_interleaved(message, size_bytes, place, interleaved, drops);
        } else {
            batch.content.add(message, size_bytes, false, buffers, drops);
        }
        let results = batch.results.clone();
        if batch.content.count() >= self.config.batching_max_messages
            || batch.content.payload_bytes() >= self.config.batching_max_bytes
        {
            self.close_batch();
        }
        PendingSend::new(results, member)
    }

    /// | batch with this hash | the message | goes |
    /// | --- | --- | --- |
    /// | none | has a deadline like that of the others, or there are none | into a new one |
    /// | none | has another | into a new one, once the others are closed |
    /// | of its key | fits, by deadline and size | into that |
    /// | of its key | does not fit | into a new one, once the others are closed |
    /// | of another key | any | the same |
    fn place_of(&self, hash: u64, message: &Message, size_bytes: usize, deadline: SendDeadline) -> Place {
        let Some(KeyBatches { batches, places, .. }) = self.key_batches.as_deref() else { return Place::Opens };
        let Some(&place) = places.get(&hash) else {
            let opens = batches.first().is_none_or(|Aligned(first)| first.takes(deadline));
            return if opens { Place::Opens } else { Place::OpensAlone };
        };
        let Aligned(batch) = &batches[place];
        if has_key(batch, key_of(message)) && batch.takes(deadline) && self.fits(batch, message, size_bytes) {
            Place::Joins(place)
        } else {
            Place::OpensAlone
        }
    }

    /// Opens a batch. All that are open have the times of the first.
    #[inline(never)]
    fn open_key_batch(&mut self, hash: u64, deadline: SendDeadline, now: impl Fn() -> Now) -> usize {
        let (opened, at, is_own) = match self.key_batches.as_deref().and_then(KeyBatches::first) {
            Some(first) => (first.opened, first.deadline, first.has_own_deadline),
            None => {
                let now = now();
                (now, deadline.resolve(|| self.send_deadline(now.at)), deadline.is_own())
            }
        };
        let index = self.sequence_ids.accepted_messages();
        self.on_batch_opened();
        let KeyBatches { batches, places, slots, .. } = open(&mut self.key_batches);
        let batch = OpenBatch::new(0, index, slots.take_batch(), at, is_own, opened);
        places.insert(hash, batches.len());
        batches.push(Aligned(batch));
        batches.len() - 1
    }

    /// Closes the batches of all keys. Those of a producer that is not attached for the first time yet are numbered then.
    #[cold]
    pub(super) fn close_key_batches(&mut self) {
        let Some(KeyBatches { batches, interleaved, places, order, .. }) = self.key_batches.as_deref_mut() else {
            return;
        };
        interleaved.close(batches.iter_mut().map(|Aligned(batch)| batch), &mut self.sealing.buffers);
        let (mut batches, mut order) = (std::mem::take(batches), std::mem::take(order));
        places.clear();
        let mut index = batches.first().map_or(0, |Aligned(first)| first.index);
        // Those that are not numbered stay in the order in which they were opened. Sorted are numbers, and not batches, because
        // these are large.
        order.extend(batches.iter().enumerate().map(|(place, Aligned(batch))| (batch.last, place)));
        if !mutation!(KeyBatchesAsOpened) {
            order.sort_unstable();
        }
        for (_, place) in order.drain(..) {
            let Aligned(batch) = &mut batches[place];
            (batch.index, index) = (index, index + u64::from(batch.content.count()));
            self.push_batch(batch);
        }
        batches.clear();
        if let Some(open) = self.key_batches.as_deref_mut() {
            (open.batches, open.order) = (batches, order);
        }
    }
}
