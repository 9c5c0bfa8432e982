//! The producer's machine: from an accepted message to its receipt, over as many connections as it takes.
//!
//! It numbers messages, puts them into batches, keeps every frame until its receipt so that a re-send has the same
//! bytes, and ends each send exactly once: by a receipt, a refusal, its deadline or the end of the producer. Entries
//! leave strictly in the order in which their sequence ids were given.
//!
//! It never compresses a payload or sums a large one while its lock is held (that is a [`SealJob`]), never re-numbers a
//! message, and never reads the clock: [`Producer::push`] takes it as a function, called only where a frame needs it.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | what users ask: push, flush, close |
//! | `serve.rs` | what its server does with it: open, attach, detach, transmit, deadlines |
//! | `settle.rs` | receipts, refusals, and the end of each send |
//! | `batcher.rs` | the messages of one entry |
//! | `seal.rs` | frames |
//! | `in_flight.rs` | entries between acceptance and receipt |
//! | `room.rs` | the bounds, and who waits for room |
//! | `message.rs`, `config.rs` | what users hand in |

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::outcomes::{Outcomes, RUN_SENDS_MAX};
use super::waiters::Waiters;
use super::{Machine, Now, ReplyTo, Wakes};
use crate::error::{Error, ErrorKind, SendError};
use crate::id::ProducerId;
use crate::wire::compress::Compression;
use crate::wire::tx::CHAIN_MIN_BYTES;

mod batcher;
mod config;
mod in_flight;
mod message;
mod room;
mod seal;
mod serve;
mod settle;
#[cfg(test)]
mod tests;

pub use super::outcomes::{PendingSend, SendCallback};
pub use config::{AccessMode, ProducerConfig};
pub use message::Message;
pub use room::RoomTicket;
pub use seal::{SealJob, Sealed};

use batcher::{Batch, Content, Spent, discard};
use in_flight::{Entry, InFlight};
use room::Room;
use seal::SealContext;

/// Brokers read sequence ids as signed.
pub(crate) const SEQUENCE_ID_MAX: u64 = i64::MAX as u64;

/// However long the lack of a connection keeps a batch open, it takes no more messages after this time, because their
/// deadline is that of the first.
const BATCH_OPEN_MAX: Duration = Duration::from_millis(100);

/// Messages outside batches are framed one after the other into pieces of this size.
const SEGMENT_BYTES: usize = 64 * 1024;

/// What a batch's records get in memory at first, before there is a last one to go by.
const RECORDS_BYTES_MIN: usize = 1024;

/// What the broker said when the producer was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerCreated {
    /// Its name: the one asked for, or the one the broker made.
    pub name: String,
    /// The highest sequence id stored under that name where deduplication is on, else -1.
    pub last_sequence_id: i64,
}

/// Why a message was not accepted. It comes back, with its callback, which is not called.
#[derive(Debug)]
pub enum PushError {
    /// As much as may be is accepted and not settled, or others wait for room already.
    Full(Box<Rejected>),
    /// The producer is closed or failed, or the message cannot be sent.
    Refused(SendError, Box<Rejected>),
}

/// What [`Producer::push`] gives back.
pub struct Rejected {
    /// The message, as it was.
    pub message: Message,
    /// Its callback, not called.
    pub callback: Option<SendCallback>,
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rejected({} bytes)", self.message.payload.len())
    }
}

/// What the session does after a SEND_ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterSendError {
    /// Nothing: the producer goes on.
    Stay,
    /// Attach the producer afresh, which sends everything unanswered again.
    Reattach,
}

/// Its place at a broker.
///
/// ```text
///            open_request            on_attached
///  Detached --------------> Opening -------------> Attached
///     ^                        |                      |
///     +------------------------+----------------------+
///                        on_detached
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Detached,
    Opening,
    Attached,
}

/// Its own will.
///
/// ```text
///         close              all settled, and CLOSE_PRODUCER answered
///  Open ---------> Closing -------------------------------------------> Finished
///    |                |             (or there is no broker to close at)     ^
///    +----------------+-----------------------------------------------------+
///                       fail, creation deadline, terminated
/// ```
#[derive(Debug)]
enum Life {
    Open,
    Closing(Closing),
    /// With what every later call gets.
    Finished(Error),
}

#[derive(Debug)]
struct Closing {
    replies: Vec<ReplyTo<()>>,
    /// The number of the CLOSE_PRODUCER that is out.
    asked: Option<u64>,
    /// When sending the rest, and then closing, has taken long enough.
    by: Option<Instant>,
    /// The rest was given up, or sent.
    drained: bool,
}

#[derive(Debug)]
struct Flush {
    /// Everything accepted before this is to be settled.
    target: u64,
    reply: ReplyTo<()>,
    failure: Option<Error>,
}

/// How things stand, for statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Messages accepted and not settled.
    pub pending_messages: usize,
    /// What they count against `pending_bytes_max`.
    pub pending_bytes: usize,
    /// Messages accepted so far.
    pub accepted_messages: u64,
    /// Receipts that belonged to nothing any more: what they confirm had timed out, or was confirmed before.
    pub stale_receipts: u64,
}

/// A producer of one topic, or one partition.
pub struct Producer {
    id: ProducerId,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ProducerConfig>,
    link: Link,
    life: Life,
    dirty: bool,

    created: Option<ReplyTo<ProducerCreated>>,
    created_by: Option<Instant>,
    /// The last reason why it is not attached, for the error of the creation deadline.
    last_cause: Option<Error>,
    /// `epoch` of the next PRODUCER.
    epoch: u64,
    topic_epoch: Option<u64>,
    /// What frames have in common; there from the first attach on.
    context: Option<Arc<SealContext>>,
    closed_at_broker: bool,
    close_number: u64,

    next_sequence_id: u64,
    highest_pushed: Option<u64>,
    last_published: Option<u64>,
    /// Messages accepted so far; also the index of the next one.
    accepted: u64,

    room: Room,
    waiters: Waiters,
    open: Option<Batch>,
    /// Closed batches whose [`SealJob`] was not taken yet, by the number of their entry.
    to_seal: VecDeque<(u64, Content)>,
    in_flight: InFlight,
    /// The results of sends outside batches, and how many are taken.
    run: Option<(Arc<Outcomes>, u32)>,
    segment: BytesMut,
    records_bytes_hint: usize,
    spent: Spent,

    flushes: VecDeque<Flush>,
    /// The first failure that no flush has seen.
    failure: Option<Error>,
    stale_receipts: u64,
    /// Frames that timed out without any receipt since.
    unanswered_frames: u32,
}

impl Machine for Producer {
    fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }
}

impl Producer {
    /// A producer that is not attached yet. `partition` is -1 for a topic that is not partitioned. `created` is
    /// answered by the first attach, or with the reason why there is none.
    pub fn new(
        id: ProducerId,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ProducerConfig>,
        created: ReplyTo<ProducerCreated>,
        now: Now,
    ) -> Self {
        let created_by = now.at.checked_add(config.operation_timeout);
        let room = Room::new(config.pending_messages_max, config.pending_bytes_max);
        Self {
            id,
            topic,
            partition,
            config,
            link: Link::Detached,
            life: Life::Open,
            dirty: true,
            created: Some(created),
            created_by,
            last_cause: None,
            epoch: 0,
            topic_epoch: None,
            context: None,
            closed_at_broker: false,
            close_number: 0,
            next_sequence_id: 0,
            highest_pushed: None,
            last_published: None,
            accepted: 0,
            room,
            waiters: Waiters::default(),
            open: None,
            to_seal: VecDeque::new(),
            in_flight: InFlight::default(),
            run: None,
            segment: BytesMut::new(),
            records_bytes_hint: RECORDS_BYTES_MIN,
            spent: Spent::new(),
            flushes: VecDeque::new(),
            failure: None,
            stale_receipts: 0,
            unanswered_frames: 0,
        }
    }

    /// The full name of its topic, or of its partition.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// `producer_id` of the protocol.
    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// Its name; the broker's choice is known from the first attach on.
    pub fn name(&self) -> Option<&str> {
        self.context.as_ref().map(|context| &*context.producer_name).or(self.config.name.as_deref())
    }

    /// The highest sequence id that is known to be stored, here or, at creation, by the broker's deduplication.
    pub fn last_sequence_id(&self) -> Option<u64> {
        self.last_published
    }

    /// Whether a broker takes its messages at the moment.
    pub fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    /// How things stand.
    pub fn stats(&self) -> ProducerStats {
        ProducerStats {
            pending_messages: self.room.messages(),
            pending_bytes: self.room.bytes(),
            accepted_messages: self.accepted,
            stale_receipts: self.stale_receipts,
        }
    }

    /// Accepts a message, or gives it back: never waits. `now` is called only if the message opens a batch or goes
    /// alone.
    ///
    /// After it, [`take_full_seal`](Self::take_full_seal) may have work for the caller.
    pub fn push(
        &mut self,
        message: Message,
        callback: Option<SendCallback>,
        now: impl FnOnce() -> Now,
    ) -> Result<PendingSend, PushError> {
        if let Err(error) = self.check(&message) {
            return Err(PushError::Refused(error, Box::new(Rejected { message, callback })));
        }
        let size_bytes = message.size_bytes();
        if !self.waiters.is_empty() || !self.room.fits(size_bytes) {
            return Err(PushError::Full(Box::new(Rejected { message, callback })));
        }
        Ok(self.accept(message, size_bytes, callback, None, now))
    }

    /// Accepts the message in `message` and takes it out of there, or notes the task to be woken when there is room.
    /// First come, first served. The send timeout counts from the first call with this `ticket`.
    ///
    /// A caller that gives up after `Pending` must say so by [`leave`](Self::leave), or nobody behind it gets a turn.
    /// After an error, message and callback are left where they are.
    ///
    /// # Panics
    /// If `message` is empty: it was accepted already.
    pub fn poll_push(
        &mut self,
        ticket: &mut RoomTicket,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
        waker: &Waker,
        now: impl FnOnce() -> Now,
        wakes: &mut Wakes,
    ) -> Poll<Result<PendingSend, SendError>> {
        let waiting = message.as_ref().expect("poll_push is called with a message, until it is accepted");
        if let Err(error) = self.check(waiting) {
            self.leave(ticket, wakes);
            return Poll::Ready(Err(error));
        }
        let size_bytes = waiting.size_bytes();
        let Some(number) = ticket.number else {
            if self.waiters.is_empty() && self.room.fits(size_bytes) {
                let message = message.take().expect("it was there");
                return Poll::Ready(Ok(self.accept(message, size_bytes, callback.take(), None, now)));
            }
            let deadline = self.send_deadline(now().at);
            // An earlier deadline may have come up.
            self.dirty = true;
            ticket.number = Some(self.waiters.enrol(size_bytes, deadline, waker));
            ticket.deadline = deadline;
            return Poll::Pending;
        };
        if !self.waiters.contains(number) {
            ticket.number = None;
            return Poll::Ready(Err(SendError::new(self.overdue("no room came up"), false)));
        }
        if !self.waiters.is_front(number) || !self.room.fits(size_bytes) {
            self.waiters.wait(number, waker, wakes);
            return Poll::Pending;
        }
        let message = message.take().expect("it was there");
        let pending = self.accept(message, size_bytes, callback.take(), Some(ticket.deadline), now);
        self.leave(ticket, wakes);
        Poll::Ready(Ok(pending))
    }

    /// The task of this ticket does not wait for room any more; the turn passes on.
    pub fn leave(&mut self, ticket: &mut RoomTicket, wakes: &mut Wakes) {
        if let Some(number) = ticket.number.take() {
            self.waiters.leave(number, wakes);
            self.offer_room(wakes);
        }
    }

    /// A closed batch, to be sealed by the task that closed it, with no lock held.
    pub fn take_full_seal(&mut self) -> Option<SealJob> {
        let context = self.context.as_ref()?;
        while let Some((number, content)) = self.to_seal.pop_front() {
            // One that timed out meanwhile is gone from the queue.
            let Some(entry) = self.in_flight.get_mut(number) else {
                content.discard(&mut self.spent);
                continue;
            };
            let (first, last) = (entry.first, entry.last);
            let spent = std::mem::take(&mut self.spent);
            return Some(SealJob { number, first, last, content, context: context.clone(), spent });
        }
        None
    }

    /// Closes the open batch, and answers once everything accepted so far is settled: with the first failure since
    /// the last flush, if there was one.
    pub fn flush(&mut self, reply: ReplyTo<()>, _now: Now, wakes: &mut Wakes) {
        if let Life::Finished(error) = &self.life {
            reply.answer(Err(error.clone()), wakes);
            return;
        }
        self.close_batch();
        self.flushes.push_back(Flush { target: self.accepted, reply, failure: self.failure.take() });
        self.answer_flushes(wakes);
    }

    /// Accepts no more messages, sends what was accepted, closes at the broker, and answers.
    ///
    /// What was accepted has its send timeout, or, without one, the operation timeout, counted from now; the close
    /// itself has the operation timeout. Tasks that wait for room are sent away. Closing twice is fine; closing what
    /// is over already succeeds.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, wakes: &mut Wakes) {
        match &mut self.life {
            Life::Finished(_) => {
                if let Some(reply) = reply {
                    reply.answer(Ok(()), wakes);
                }
                return;
            }
            Life::Closing(closing) => closing.replies.extend(reply),
            Life::Open => {
                let patience = match self.config.send_timeout {
                    Duration::ZERO => self.config.operation_timeout,
                    timeout => timeout,
                };
                let by = now.at.checked_add(patience);
                self.life =
                    Life::Closing(Closing { replies: reply.into_iter().collect(), asked: None, by, drained: false });
                self.close_batch();
                self.waiters.dismiss_all(wakes);
            }
        }
        self.dirty = true;
        self.advance_close(Some(now), wakes);
    }
}

/// How a message gets its place.
impl Producer {
    /// Whether `message` may be sent at all.
    fn check(&self, message: &Message) -> Result<(), SendError> {
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

    fn max_message_size(&self) -> Option<u32> {
        self.context.as_ref().and_then(|context| context.max_message_size)
    }

    fn send_deadline(&self, called: Instant) -> Option<Instant> {
        match self.config.send_timeout {
            Duration::ZERO => None,
            timeout => called.checked_add(timeout),
        }
    }

    /// The message's sequence id, and whether it is above all before it.
    fn number(&mut self, wanted: Option<u64>) -> (u64, bool) {
        let id = wanted.unwrap_or(self.next_sequence_id);
        let grows = self.highest_pushed.is_none_or(|highest| id > highest);
        if grows {
            self.highest_pushed = Some(id);
            // Above what users set as well, so that the order of the wire stays the order of the ids.
            self.next_sequence_id = id.saturating_add(1);
        }
        (id, grows)
    }

    /// `deadline` is that of a message that has waited for room.
    fn accept(
        &mut self,
        mut message: Message,
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
        let batched = self.config.batching && grows && message.delivery == message::Delivery::AtOnce;
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
        message: Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: Option<Option<Instant>>,
        now: impl FnOnce() -> Now,
    ) -> PendingSend {
        let entry_bytes_max = self.max_message_size().unwrap_or(crate::wire::MAX_MESSAGE_SIZE_DEFAULT) as usize;
        let joins = self.open.as_ref().is_some_and(|batch| {
            batch.takes(deadline) && batch.content.has_room_for(&message, self.config.batch_bytes_max, entry_bytes_max)
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
        batch.content.add(message, numbered, self.records_bytes_hint, &mut self.spent);
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
        mut message: Message,
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
            doubted: false,
        };
        match self.context.clone().filter(|context| seals_quickly(context, &message)) {
            Some(context) => {
                let payload = if message.payload.is_unique() { Bytes::new() } else { message.payload.clone() };
                discard(payload, &mut self.spent);
                if self.segment.capacity() == 0 {
                    self.segment.reserve(SEGMENT_BYTES);
                }
                let sealed = seal::seal_message(&mut self.segment, &context, message, id, now.wall_ms)
                    .expect("a message whose size was checked is not too large");
                entry.compared_bytes = sealed.compared_bytes;
                entry.frame = Some(sealed.frame);
            }
            None => {
                let mut content = Content::new(now);
                content.add(message, false, 0, &mut self.spent);
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
    fn close_batch(&mut self) {
        let Some(batch) = self.open.take() else { return };
        let number = self.in_flight.next_number();
        self.records_bytes_hint = batch.content.records_bytes().max(RECORDS_BYTES_MIN);
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
            doubted: false,
        });
        self.to_seal.push_back((number, batch.content));
        self.dirty = true;
    }
}

/// Whether framing `message` under the lock is quick, and sure not to fail.
fn seals_quickly(context: &SealContext, message: &Message) -> bool {
    let name_and_version = context.producer_name.len() + context.schema_version.as_ref().map_or(0, Bytes::len);
    let frame_bytes_max = message.record_bytes_max() + name_and_version + 128;
    context.compression == Compression::None
        && message.payload.len() < CHAIN_MIN_BYTES
        && frame_bytes_max <= context.max_message_size.unwrap_or(0) as usize
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("link", &self.link)
            .field("life", &self.life)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Whoever still waits is told; a producer that ended in order has nobody left.
        let gone = Error::local(ErrorKind::Closed, "the client went away before the producer was closed");
        self.fail(gone, &mut Wakes::new());
    }
}
