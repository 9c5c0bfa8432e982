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
//! | `accept.rs` | how a message gets its number and its place in an entry |
//! | `serve.rs` | what its server does with it: open, attach, detach, transmit, deadlines |
//! | `settle.rs` | receipts, refusals, and the end of each send |
//! | `batcher.rs` | the messages of one entry |
//! | `seal.rs` | jobs: work outside the lock |
//! | `pipeline.rs` | the outgoing payload pipeline: batch, compress, seal |
//! | `in_flight.rs` | entries between acceptance and receipt |
//! | `room.rs` | the bounds, and who waits for room |
//! | `message.rs`, `config.rs` | what users hand in |

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Deferred, Now, ReplyTo};
use crate::error::{Error, ErrorKind, SendError};
use crate::id::ProducerId;
use crate::machine::producer::results::SendResults;
use crate::machine::producer::waiters::Waiters;
use crate::wire::send_run::PlainSend;

mod accept;
mod batcher;
mod config;
mod endpoint;
mod in_flight;
mod message;
mod one_or_more;
mod pipeline;
pub mod results;
mod room;
mod seal;
mod serve;
mod settle;
mod waiters;

pub use crate::machine::producer::results::{PendingSend, SendCallback};
pub use config::{AccessMode, ProducerConfig};
pub use message::Message;
pub use room::RoomTicket;
pub use seal::{SealJob, Sealed};

use batcher::{Batch, Spares, Spent, discard_message};
use in_flight::InFlight;
use pipeline::SealContext;
use room::Room;
use seal::{ToSeal, Work};

/// Brokers read sequence ids as signed.
pub(crate) const SEQUENCE_ID_MAX: u64 = i64::MAX as u64;

/// However long the lack of a connection keeps a batch open, it takes no more messages after this time, because their
/// deadline is that of the first.
const BATCH_OPEN_MAX: Duration = Duration::from_millis(100);

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
    /// What they count against `max_pending_bytes`.
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
    plain: Option<PlainSend>,
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
    /// What no [`SealJob`] was taken for yet, by the number of its run.
    to_seal: VecDeque<(u64, ToSeal)>,
    in_flight: InFlight,
    /// The results of sends outside batches, and how many of them are not taken.
    outcomes: Option<Arc<SendResults>>,
    slots_left: u32,
    segment: BytesMut,
    spares: Spares,
    spent: Spent,

    flushes: VecDeque<Flush>,
    /// The first failure that no flush has seen.
    failure: Option<Error>,
    stale_receipts: u64,
    /// Frames that timed out without any receipt since.
    unanswered_frames: u32,
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
        let room = Room::new(config.max_pending_messages, config.max_pending_bytes);
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
            plain: None,
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
            outcomes: None,
            slots_left: 0,
            segment: BytesMut::new(),
            spares: Spares::default(),
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

    /// How long a message may take from the call to its receipt; `None` is for ever.
    pub fn send_timeout(&self) -> Option<Duration> {
        Some(self.config.send_timeout).filter(|timeout| !timeout.is_zero())
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

    /// Accepts a message, or gives it back: never waits. `now` is called where the time is needed: to open a batch, for
    /// a message that cannot be framed at once, and while there is no connection.
    ///
    /// After it, [`take_full_seal`](Self::take_full_seal) may have work for the caller.
    pub fn push(
        &mut self,
        mut message: Message,
        callback: Option<SendCallback>,
        now: impl Fn() -> Now,
    ) -> Result<PendingSend, PushError> {
        if let Err(error) = self.check(&message) {
            return Err(PushError::Refused(error, Box::new(Rejected { message, callback })));
        }
        let size_bytes = message.size_bytes();
        if !self.waiters.is_empty() || !self.room.fits(size_bytes) {
            return Err(PushError::Full(Box::new(Rejected { message, callback })));
        }
        let pending = self.accept(&mut message, size_bytes, callback, None, now);
        discard_message(&mut message, &mut self.spent);
        Ok(pending)
    }

    /// Accepts the message in `message`, or notes the task to be woken when there is room. First come, first served.
    /// The send timeout counts from the first call with this `ticket`.
    ///
    /// Of an accepted message something may be left in `message`, of no more use, to be dropped with no lock held.
    ///
    /// A caller that gives up after `Pending` must say so by [`leave`](Self::leave), or nobody behind it gets a turn.
    /// After an error, message and callback are left where they are.
    ///
    /// # Panics
    /// If there is no `message`.
    pub fn poll_push(
        &mut self,
        ticket: &mut RoomTicket,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
        waker: &Waker,
        now: impl Fn() -> Now,
        deferred: &mut Deferred,
    ) -> Poll<Result<PendingSend, SendError>> {
        let message = message.as_mut().expect("poll_push is called with a message, until it is accepted");
        if let Err(error) = self.check(message) {
            self.leave(ticket, deferred);
            return Poll::Ready(Err(error));
        }
        let size_bytes = message.size_bytes();
        let Some(number) = ticket.number else {
            if self.waiters.is_empty() && self.room.fits(size_bytes) {
                return Poll::Ready(Ok(self.accept(message, size_bytes, callback.take(), None, now)));
            }
            let deadline = self.send_deadline(now().at);
            // An earlier deadline may have come up.
            self.dirty = true;
            ticket.number = Some(self.waiters.enrol(size_bytes, deadline, waker));
            return Poll::Pending;
        };
        if !self.waiters.contains(number) {
            ticket.number = None;
            return Poll::Ready(Err(SendError::new(self.overdue("room among the pending messages"), false)));
        }
        if !self.waiters.is_front(number) || !self.room.fits(size_bytes) {
            self.waiters.wait(number, waker, deferred);
            return Poll::Pending;
        }
        let deadline = self.waiters.next_deadline();
        let pending = self.accept(message, size_bytes, callback.take(), Some(deadline), now);
        self.leave(ticket, deferred);
        Poll::Ready(Ok(pending))
    }

    /// The task of this ticket does not wait for room any more; the turn passes on.
    pub fn leave(&mut self, ticket: &mut RoomTicket, deferred: &mut Deferred) {
        if let Some(number) = ticket.number.take() {
            self.waiters.leave(number, deferred);
            self.offer_room(deferred);
        }
    }

    /// Whether [`take_full_seal`](Self::take_full_seal) may have work.
    #[inline]
    pub fn has_full_seal(&self) -> bool {
        !self.to_seal.is_empty() && self.context.is_some()
    }

    /// A closed batch or run, to be sealed by the task that closed it, with no lock held.
    pub fn take_full_seal(&mut self, now: impl Fn() -> Now) -> Option<SealJob> {
        self.context.as_ref()?;
        while let Some((number, work)) = self.to_seal.pop_front() {
            // One that timed out meanwhile is gone from the queue.
            let Some(at) = self.in_flight.place_of(number) else {
                match work {
                    ToSeal::Messages(content) => content.discard(&mut self.spent),
                    ToSeal::Frames(frames) => self.spares.put(frames),
                }
                continue;
            };
            let (first, last) = self.in_flight.entry_mut(at).map_or((0, 0), |entry| (entry.first, entry.last));
            let max_message_size = self.max_message_size();
            let (work, publish_time_ms) = match work {
                ToSeal::Messages(content) => {
                    let publish_time_ms = content.publish_time_ms;
                    (Work::Messages(content, self.context.clone()?), publish_time_ms)
                }
                ToSeal::Frames(frames) => {
                    self.stamp(now);
                    let stamped = self.in_flight.run_mut(number).and_then(|run| run.stamped);
                    (Work::Frames(frames), stamped.map_or(0, |stamped| stamped.wall_ms))
                }
            };
            let spent = std::mem::take(&mut self.spent);
            let segment = std::mem::take(&mut self.segment);
            return Some(SealJob { number, first, last, work, publish_time_ms, max_message_size, segment, spent });
        }
        None
    }

    /// Closes the open batch, and answers once everything accepted so far is settled: with the first failure since
    /// the last flush, if there was one.
    pub fn flush(&mut self, reply: ReplyTo<()>, _now: Now, deferred: &mut Deferred) {
        if let Life::Finished(error) = &self.life {
            reply.answer(Err(error.clone()), deferred);
            return;
        }
        self.close_batch();
        self.prune_flushes();
        self.flushes.push_back(Flush { target: self.accepted, reply, failure: self.failure.take() });
        self.answer_flushes(deferred);
    }

    /// Accepts no more messages, sends what was accepted, closes at the broker, and answers.
    ///
    /// What was accepted has its send timeout, or, without one, the operation timeout, counted from now; the close
    /// itself has the operation timeout. Tasks that wait for room are sent away. Closing twice is fine; closing what
    /// is over already succeeds.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        match &mut self.life {
            Life::Finished(_) => {
                if let Some(reply) = reply {
                    reply.answer(Ok(()), deferred);
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
                self.waiters.dismiss_all(deferred);
            }
        }
        self.dirty = true;
        self.advance_close(Some(now), deferred);
    }
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
        let gone = Error::local(ErrorKind::Closed, "client closed before the producer was closed");
        self.fail(gone, &mut Deferred::new());
    }
}
