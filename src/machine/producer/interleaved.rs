//! Records of batches that are open beside one another.
//!
//! ```text
//!  open     a0 b1 a2 c3 b4 b5                      as the messages come
//!  closed   a: 0 2    b: 1 4 5    c: -             places of each batch; c3 alone is no batch
//!  sealed   [a0 a2]   [b1 b4 b5]                   copied by each seal job, with no lock held
//! ```
//!
//! A record goes behind the last one, into memory that is in the cache, and not behind the last one of its batch: a thousand
//! batches take more than a cache holds, and a lock that is released waits until what was written before is there.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use super::batch::{OpenBatch, write_record};
use super::buffers::BufferPool;
use super::message::Message;

/// The records of all batches that are open.
#[derive(Default)]
pub(super) struct Interleaved {
    records: BytesMut,
    /// The batch of each record, and its length.
    owners: Vec<(u32, u32)>,
}

/// The same, once the batches are closed.
#[derive(Debug)]
struct Closed {
    records: BytesMut,
    /// Where each record starts, and its length: those of one batch together.
    places: Vec<(usize, u32)>,
}

/// The records of one batch among them.
#[derive(Debug)]
pub(super) struct OwnRecords {
    closed: Arc<Closed>,
    places: Range<usize>,
}

impl OwnRecords {
    fn places(&self) -> &[(usize, u32)] {
        &self.closed.places[self.places.clone()]
    }

    /// All of them, bytes.
    pub(super) fn len(&self) -> usize {
        self.places().iter().map(|(_, len)| *len as usize).sum()
    }

    /// Appends them to `records`.
    pub(super) fn gather(&self, records: &mut BytesMut) {
        records.reserve(self.len());
        for (at, len) in self.places() {
            records.extend_from_slice(&self.closed.records[*at..*at + *len as usize]);
        }
    }
}

impl Interleaved {
    /// Writes the record of a message of the batch at `place`.
    #[inline]
    pub(super) fn write(&mut self, place: usize, message: &Message) {
        let before = self.records.len();
        write_record(&mut self.records, message);
        // Both fit: a record is smaller than `max_message_size`, and there are fewer batches than messages.
        self.owners.push((place as u32, (self.records.len() - before) as u32));
    }

    /// Gives the batches their records. What is left is empty.
    pub(super) fn close<'a>(
        &mut self,
        batches: impl ExactSizeIterator<Item = &'a mut OpenBatch>,
        buffers: &mut BufferPool,
    ) {
        if self.owners.is_empty() {
            return;
        }
        let mut ends = vec![0; batches.len()];
        self.owners.iter().for_each(|(place, _)| ends[*place as usize] += 1);
        let mut sum = 0;
        for end in &mut ends {
            // Where the batch starts for now; each record that is placed moves it towards its end.
            (*end, sum) = (sum, sum + *end);
        }
        let (mut places, mut at) = (vec![(0, 0); sum], 0);
        for (place, len) in self.owners.drain(..) {
            let next = &mut ends[place as usize];
            places[*next] = (at, len);
            *next += 1;
            at += len as usize;
        }
        // The next ones are likely to take as much.
        let records = std::mem::replace(&mut self.records, BytesMut::with_capacity(at));
        let closed = Arc::new(Closed { records, places });
        let mut start = 0;
        for (batch, end) in batches.zip(ends) {
            if end > start {
                batch.content.set_own(OwnRecords { closed: closed.clone(), places: start..end }, buffers.take());
            }
            start = end;
        }
    }
}
