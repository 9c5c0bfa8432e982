//! How a message gets its number and its place in an entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::batcher::{Batch, Content};
use super::in_flight::Entry;
use super::seal::{SealContext, seal_message};
use super::{Life, Message, PendingSend, Producer, SEQUENCE_ID_MAX, SendCallback};
use crate::error::{Error, ErrorKind, SendError};
use crate::machine::Now;
use crate::machine::outcomes::{Outcomes, RUN_SENDS_MAX};
use crate::wire::compress::Compression;
use crate::wire::tx::CHAIN_MIN_BYTES;

impl Producer {
    /// Whether `message` may be sent at all.
    pub(super) fn check(&self, message: &Message) -> Result<(), SendError> {
        let refuse = |error: Error| Err(SendError::new(error.with_topic(&self.topic), false));
        match &self.life {
            Life::Open => {}
            Life::Closing(_) => return refuse(Error::local(ErrorKind::Closed, "the producer is closed")),
            Life::Finished(error) => return refuse(error.clone()),
        }
        if message.sequence_id.is_some_and(|id| id > SEQUENCE_ID_MAX) {
            return refuse(Error::local(ErrorKind::InvalidArgument, "a sequence id must be at most 2^63 - 1"));
        }
        // With compression it is known only at seal.
        let limit = self.max_message_size().unwrap_or(u32::MAX / 2) as usize;
        if message.payload.len() > limit && self.config.compression == Compression::None {
            let what = format!("{} bytes are more than the broker's limit of {limit}", message.payload.len());
            return refuse(Error::local(ErrorKind::MessageTooLarge, what));
        }
        Ok(())
    }

    pub(super) fn max_message_size(&self) -> Option<u32> {
        self.context.as_ref().and_then(|context| context.max_message_size)
    }

    pub(super) fn send_deadline(&self, called: Instant) -> Option<Instant> {
        match self.config.send_timeout {
            Duration::ZERO => None,
            timeout => called.checked_add(timeout),
        }
    }

    /// The message's sequence id, and whether it is above all before it.
    pub(super) fn number(&mut self, wanted: Option<u64>) -> (u64, bool) {
        let id = wanted.unwrap_or(self.next_sequence_id);
        let grows = self.highest_pushed.is_none_or(|highest| id > highest);
        if grows {
            self.highest_pushed = Some(id);
            // Above what users set as well, so that the order of the wire stays the order of the ids.
            self.next_sequence_id = id.saturating_add(1);
        }
        (id, grows)
    }

    /// Takes what it needs of `message`, which stays where it is otherwise: moving it costs more than reading it, and
    /// its drop may run code of the user's.
    /// `deadline` is that of a message that has waited for room.
    pub(super) fn accept(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: impl FnOnce() -> Now,
    ) -> PendingSend {
        self.room.take(size_bytes);
        let grows = if self.context.is_some() {
            let (id, grows) = self.number(message.sequence_id);
            message.sequence_id = Some(id);
            grows
        } else {
            // What the first id will be is not known yet, so whether this one is above the last is not either.
            message.sequence_id.is_none()
        };
        let batched = self.config.batching && grows && message.may_be_batched();
        let pending = if batched {
            self.append(message, size_bytes, callback, deadline, now)
        } else {
            self.close_batch();
            self.push_alone(message, size_bytes, callback, deadline, now())
        };
        self.accepted += 1;
        self.check_ledger();
        pending
    }

    /// Adds a message to the open batch, or opens one with it.
    #[inline]
    fn append(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: impl FnOnce() -> Now,
    ) -> PendingSend {
        let entry_bytes_max = self.max_message_size().unwrap_or(crate::wire::MAX_MESSAGE_SIZE_DEFAULT) as usize;
        let joins = self.open.as_ref().is_some_and(|batch| {
            let (payload_bytes, record_bytes_max) = (message.payload.len(), message.record_bytes_max(size_bytes));
            batch.takes(deadline)
                && batch.content.payload_bytes() + payload_bytes <= self.config.batch_bytes_max
                && batch.content.record_bytes_max() + record_bytes_max <= entry_bytes_max
        });
        if !joins {
            self.close_batch();
        }
        let numbered = self.context.is_some();
        let id = message.sequence_id.unwrap_or(0);
        let (partition, accepted) = (self.partition, self.accepted);
        if self.open.is_none() {
            let now = now();
            let batch_deadline = deadline.unwrap_or_else(|| self.send_deadline(now.at));
            self.open = Some(Batch::new(id, accepted, partition, batch_deadline, deadline.is_some(), now));
            // The server is to send it, or to note when.
            self.dirty = true;
        }
        let batch = self.open.as_mut().expect("it was opened above, if it was not open");
        let member = batch.content.count();
        if let Some(callback) = callback {
            batch.callbacks.push((member, callback));
        }
        batch.last = id;
        batch.size_bytes += size_bytes;
        batch.content.add(message, size_bytes, numbered, &mut self.spares, &mut self.spent);
        let pending = PendingSend::new(batch.outcomes.clone(), member);
        if batch.content.count() >= self.config.batch_messages_max
            || batch.content.payload_bytes() >= self.config.batch_bytes_max
        {
            self.close_batch();
        }
        pending
    }

    /// Gives a message an entry of its own. Framed at once where that is quick, else by a [`SealJob`].
    fn push_alone(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: Now,
    ) -> PendingSend {
        message.resolve_delivery(now);
        let (outcomes, slot) = self.next_slot();
        let id = message.sequence_id.unwrap_or(0);
        let number = self.in_flight.next_number();
        let mut entry = Entry {
            number,
            first: id,
            last: id,
            index: self.accepted,
            messages: 1,
            size_bytes,
            deadline: deadline.unwrap_or_else(|| self.send_deadline(now.at)),
            outcomes: outcomes.clone(),
            slot,
            callbacks: callback.into_iter().map(|callback| (slot, callback)).collect(),
            frame: None,
            compared_bytes: 0,
            transmitted: false,
            resent: false,
            doubted: false,
        };
        match self.context.as_ref().filter(|context| seals_quickly(context, message, size_bytes)) {
            Some(context) => {
                let sealed = seal_message(&mut self.segment, context, message, id, now.wall_ms)
                    .expect("a message whose size was checked is not too large");
                entry.compared_bytes = sealed.compared_bytes;
                entry.frame = Some(sealed.frame);
            }
            None => {
                let mut content = Content::new(now);
                content.add(message, size_bytes, false, &mut self.spares, &mut self.spent);
                self.to_seal.push_back((number, content));
            }
        }
        self.in_flight.push(entry);
        self.dirty = true;
        PendingSend::new(outcomes, slot)
    }

    fn next_slot(&mut self) -> (Arc<Outcomes>, u32) {
        match &mut self.run {
            Some((outcomes, used)) if *used < RUN_SENDS_MAX => {
                *used += 1;
                (outcomes.clone(), *used - 1)
            }
            run => {
                let outcomes = Outcomes::of_run(self.partition);
                *run = Some((outcomes.clone(), 1));
                (outcomes, 0)
            }
        }
    }

    /// The open batch takes no more messages.
    pub(super) fn close_batch(&mut self) {
        let Some(batch) = self.open.take() else { return };
        let number = self.in_flight.next_number();
        self.spares.note(batch.content.records_bytes());
        self.in_flight.push(Entry {
            number,
            first: batch.first,
            last: batch.last,
            index: batch.index,
            messages: batch.content.count(),
            size_bytes: batch.size_bytes,
            deadline: batch.deadline,
            outcomes: batch.outcomes,
            slot: 0,
            callbacks: batch.callbacks,
            frame: None,
            compared_bytes: 0,
            transmitted: false,
            resent: false,
            doubted: false,
        });
        self.to_seal.push_back((number, batch.content));
        self.dirty = true;
    }
}

/// Whether framing `message` under the lock is quick, and sure not to fail.
fn seals_quickly(context: &SealContext, message: &Message, size_bytes: usize) -> bool {
    let name_and_version = context.producer_name.len() + context.schema_version.as_ref().map_or(0, Bytes::len);
    let frame_bytes_max = message.record_bytes_max(size_bytes) + name_and_version + 128;
    context.compression == Compression::None
        && message.payload.len() < CHAIN_MIN_BYTES
        && frame_bytes_max <= context.max_message_size.unwrap_or(0) as usize
}
