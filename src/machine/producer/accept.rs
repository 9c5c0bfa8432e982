//! How a message gets its number and its place in an entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batcher::{Batch, Content};
use super::in_flight::{Entry, Frames, Kind, Run};
use super::pipeline::{can_frame_fast, frame_fast};
use super::seal::ToSeal;
use super::{BATCH_OPEN_MAX, Life, Message, PendingSend, Producer, SEQUENCE_ID_MAX, SendCallback};
use crate::error::{Error, ErrorKind, SendError};
use crate::machine::Now;
use crate::machine::producer::results::{RUN_SENDS_MAX, SendResults};
use crate::wire::compress::Compression;

/// A run takes no more messages once its frames have this size.
const RUN_BYTES_MAX: usize = 32 * 1024;

impl Producer {
    /// Whether `message` may be sent at all.
    pub(super) fn check(&self, message: &Message) -> Result<(), SendError> {
        let refuse = |error: Error| Err(SendError::new(error.with_topic(&self.topic), false));
        match &self.life {
            Life::Open => {}
            Life::Closing(_) => return refuse(Error::local(ErrorKind::Closed, "the producer is closed")),
            Life::Finished(error) => return refuse(error.clone()),
        }
        if let Some(why) = message.refused() {
            return refuse(Error::local(ErrorKind::InvalidArgument, why));
        }
        if message.id().is_some_and(|id| id > SEQUENCE_ID_MAX) {
            return refuse(Error::local(ErrorKind::InvalidArgument, "a sequence id must be at most 2^63 - 1"));
        }
        if self.is_too_large(message) {
            let limit = self.payload_bytes_max();
            let what = format!("{} bytes are more than the broker's limit of {limit}", message.payload.len());
            return refuse(Error::local(ErrorKind::MessageTooLarge, what));
        }
        Ok(())
    }

    /// Whether [`check`](Self::check) has nothing against it.
    #[inline]
    fn is_fine(&self, message: &Message) -> bool {
        matches!(self.life, Life::Open)
            && message.id().is_none_or(|id| id <= SEQUENCE_ID_MAX)
            && !self.is_too_large(message)
    }

    #[inline]
    fn is_too_large(&self, message: &Message) -> bool {
        // With compression it is known only at seal.
        message.payload.len() > self.payload_bytes_max() && self.config.compression == Compression::None
    }

    #[inline]
    fn payload_bytes_max(&self) -> usize {
        self.max_message_size().unwrap_or(u32::MAX / 2) as usize
    }

    #[inline]
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

    /// Accepts the message that is the usual one: nobody waits, there is room, and nothing is wrong with it. Otherwise
    /// it stays where it is, and [`poll_push`](Self::poll_push) has its turn.
    ///
    /// The result is so small that it is returned in registers.
    #[inline]
    pub fn push_at_once(
        &mut self,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
        now: impl Fn() -> Now,
    ) -> Option<PendingSend> {
        let message = message.as_mut()?;
        let size_bytes = message.size_bytes();
        if !self.waiters.is_empty() || !self.room.fits(size_bytes) || !self.is_fine(message) {
            return None;
        }
        Some(self.accept(message, size_bytes, callback.take(), None, now))
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
        now: impl Fn() -> Now,
    ) -> PendingSend {
        self.room.take(size_bytes);
        let grows = if self.context.is_some() {
            let (id, grows) = self.number(message.id());
            message.number(id);
            grows
        } else {
            // What the first id will be is not known yet, so whether this one is above the last is not either.
            message.id().is_none()
        };
        let batched = self.config.batching && grows && message.may_be_batched();
        let pending = if batched {
            self.append(message, size_bytes, callback, deadline, now)
        } else {
            self.close_batch();
            if self.context.as_ref().is_some_and(|context| can_frame_fast(context, message, size_bytes)) {
                self.push_framed(message, size_bytes, callback, deadline, now)
            } else {
                self.push_alone(message, size_bytes, callback, deadline, now())
            }
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
        now: impl Fn() -> Now,
    ) -> PendingSend {
        let entry_bytes_max = self.max_message_size().unwrap_or(crate::wire::MAX_MESSAGE_SIZE_DEFAULT) as usize;
        let joins = self.open.as_ref().is_some_and(|batch| {
            let (payload_bytes, record_bytes_max) = (message.payload.len(), message.record_bytes_max(size_bytes));
            batch.takes(deadline)
                && batch.content.payload_bytes() + payload_bytes <= self.config.batching_max_bytes
                && batch.content.record_bytes_max() + record_bytes_max <= entry_bytes_max
        });
        let numbered = self.context.is_some();
        let id = message.id().unwrap_or(0);
        if !joins {
            self.close_batch();
            self.open_batch(id, deadline, now());
        }
        let batch = self.open.as_mut().expect("it was opened above, if it was not open");
        let member = batch.content.count();
        if let Some(callback) = callback {
            batch.callbacks.push_back((member, callback));
        }
        batch.last = id;
        batch.size_bytes += size_bytes;
        batch.content.add(message, size_bytes, numbered, &mut self.spares, &mut self.spent);
        let outcomes = batch.outcomes.clone();
        if batch.content.count() >= self.config.batching_max_messages
            || batch.content.payload_bytes() >= self.config.batching_max_bytes
        {
            self.close_batch();
        }
        PendingSend::new(outcomes, member)
    }

    #[cold]
    fn open_batch(&mut self, id: u64, deadline: Option<Option<Instant>>, now: Now) {
        let batch_deadline = deadline.unwrap_or_else(|| self.send_deadline(now.at));
        self.open = Some(Batch::new(id, self.accepted, self.partition, batch_deadline, deadline.is_some(), now));
        // The server is to send it, or to note when.
        self.dirty = true;
    }

    /// Frames a message behind others that go out at the same time.
    #[inline]
    fn push_framed(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        if message.is_delayed() {
            message.resolve_delivery(now());
        }
        let is_recent = |seen: Now| now().at.saturating_duration_since(seen.at) <= BATCH_OPEN_MAX;
        let takes = |run: &&mut Run| run.takes(deadline, is_recent);
        if self.slots_left == 0 || self.in_flight.open_run().filter(takes).is_none() {
            self.open_run(deadline);
        }
        let slot = RUN_SENDS_MAX - self.slots_left;
        self.slots_left -= 1;
        let id = message.id().unwrap_or(0);
        let mut entry = Entry::new(id, self.accepted, size_bytes, slot);
        let run = self.in_flight.open_run().expect("it was opened above, if none was open");
        let Frames::Open(frames) = &mut run.frames else { unreachable!("an open run has its frames") };
        let context = self.context.as_ref().zip(self.plain.as_mut());
        let (context, plain) = context.expect("without them nothing is framed quickly");
        frame_fast(frames, plain, context, message, &mut entry);
        if let Some(callback) = callback {
            run.callbacks.push_back((slot, callback));
        }
        let is_full = self.slots_left == 0 || frames.len() >= RUN_BYTES_MAX;
        let outcomes = run.outcomes.clone();
        self.in_flight.join(entry);
        if is_full {
            self.close_run();
        }
        PendingSend::new(outcomes, slot)
    }

    #[cold]
    fn open_run(&mut self, deadline: Option<Option<Instant>>) {
        self.close_run();
        let outcomes = self.outcomes();
        let mut run = Run::new(self.in_flight.next_number(), self.accepted, Kind::Framed, outcomes, deadline.flatten());
        run.aged = deadline.is_some();
        run.frames = Frames::Open(self.spares.take());
        self.in_flight.open(run);
        // The server is to send it, or to note when.
        self.dirty = true;
    }

    /// The outcomes of messages outside batches, of which at least one is free.
    fn outcomes(&mut self) -> Arc<SendResults> {
        if self.slots_left == 0 {
            self.slots_left = RUN_SENDS_MAX;
            self.outcomes = None;
        }
        self.outcomes.get_or_insert_with(|| SendResults::of_run(self.partition)).clone()
    }

    /// Gives a message an entry of its own, framed by a [`SealJob`](super::SealJob).
    fn push_alone(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: Now,
    ) -> PendingSend {
        message.resolve_delivery(now);
        let outcomes = self.outcomes();
        let slot = RUN_SENDS_MAX - self.slots_left;
        self.slots_left -= 1;
        let entry = Entry::new(message.id().unwrap_or(0), self.accepted, size_bytes, slot);
        let mut content = Content::new(now);
        content.add(message, size_bytes, false, &mut self.spares, &mut self.spent);
        let deadline = deadline.unwrap_or_else(|| self.send_deadline(now.at));
        let mut run = Run::new(self.in_flight.next_number(), self.accepted, Kind::Alone, outcomes.clone(), deadline);
        run.stamped = Some(now);
        run.callbacks.extend(callback.map(|callback| (slot, callback)));
        self.push_to_seal(run, entry, content);
        PendingSend::new(outcomes, slot)
    }

    /// The open batch takes no more messages.
    #[inline]
    pub(super) fn close_batch(&mut self) {
        if let Some(batch) = self.open.take() {
            self.push_batch(batch);
        }
    }

    fn push_batch(&mut self, batch: Batch) {
        self.spares.note(batch.content.records_bytes());
        let mut entry = Entry::new(batch.first, batch.index, batch.size_bytes, 0);
        (entry.last, entry.messages) = (batch.last, batch.content.count());
        // The payload of a message that stayed alone in its batch may be the user's own.
        let kind = if entry.messages == 1 { Kind::Alone } else { Kind::Batch };
        let mut run = Run::new(self.in_flight.next_number(), batch.index, kind, batch.outcomes, batch.deadline);
        (run.stamped, run.callbacks) = (Some(batch.opened), batch.callbacks);
        self.push_to_seal(run, entry, batch.content);
    }

    fn push_to_seal(&mut self, run: Run, entry: Entry, content: Content) {
        self.close_run();
        self.to_seal.push_back((run.number, ToSeal::Messages(content)));
        self.in_flight.push(run, entry);
        self.dirty = true;
    }

    /// Somebody looks who knows the time; of all that was accepted since the last look it is the first to.
    #[inline]
    pub(super) fn stamp(&mut self, now: impl FnOnce() -> Now) {
        if self.in_flight.has_unstamped() {
            let now = now();
            self.in_flight.stamp(now, self.send_deadline(now.at));
        }
    }

    /// The open run takes no more messages.
    pub(super) fn close_run(&mut self) {
        if let Some((number, frames)) = self.in_flight.close_run() {
            self.spares.note(frames.len());
            self.to_seal.push_back((number, ToSeal::Frames(frames)));
        }
    }
}
