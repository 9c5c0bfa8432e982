//! The ways of a message into the producer.
//!
//! # Fast and slow paths of a send
//!
//! Each step of a send that happens once a message has a fast path and a slow one, with the same result. The name of
//! the function says which one it is where this module has both.
//!
//! | step | fast | condition | slow |
//! | --- | --- | --- | --- |
//! | accept the message | [`Producer::push_fast`] | it is valid, capacity is free, no task waits for capacity | [`Producer::poll_push`], [`Producer::push`] |
//! | put it into a batch | `wire::batch::put_plain_record` | it has a payload and a sequence id, and no more | `wire::batch::put_record` |
//! | or else frame it | `Producer::frame_fast`: at once, behind others | it is small, not to be compressed, and numbered | `Producer::frame_slow`: in a [`SealJob`](super::SealJob), by `pipeline::run` |
//! | write its frame | `wire::send_template::SendTemplate::put`: a template | it has a payload and a sequence id, and no more | `wire::send_template::put_unstamped` |
//! | write its group | whole, in one piece | none of its entries is settled | entry by entry |
//! | settle its entry | `InFlight::pop_front` | a receipt, which is for the oldest entry | `InFlight::take`: a refusal |

use std::fmt;
use std::task::{Poll, Waker};

use super::batch::{EntryContent, OpenBatch};
use super::group::{GroupFrames, GroupKind, PendingEntry, SendGroup};
use super::lifecycle::LifecycleState;
use super::pipeline::{can_frame_fast, put_frame_fast};
use super::results::{ResultsKind, SendResults};
use super::send_deadline::SendDeadline;
use super::{CapacityBound, CapacityWaiter, Message, OPEN_MAX, PendingSend, Producer, SendCallback};
use crate::error::{Error, ErrorKind, SendError};
use crate::machine::{Deferred, Dirty, Now};

/// A group of framed messages takes no more once its frames have this size.
const GROUP_BYTES_MAX: usize = 32 * 1024;

/// Why a message was not accepted. It comes back, with its callback, which is not called.
#[derive(Debug)]
pub enum PushError {
    /// The bounds on pending messages are reached, or tasks wait for capacity already.
    Full(CapacityBound, Box<Rejected>),
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

/// The three entrances.
impl Producer {
    /// Accepts a message, or gives it back: never waits. `now` is called where the time is needed: to open a batch, for
    /// a message that a job frames, and for a group that is open for long because there is no connection.
    ///
    /// After it, [`take_closed_job`](Self::take_closed_job) may have work for the caller.
    ///
    /// # Errors
    /// [`PushError::Full`] where it would have to wait for capacity, [`PushError::Refused`] where it cannot be sent.
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
        if !self.capacity.admits(size_bytes) {
            let bound = self.capacity.bound(size_bytes);
            return Err(PushError::Full(bound, Box::new(Rejected { message, callback })));
        }
        let deadline = SendDeadline::FromStart;
        let pending = self.accept(&mut message, size_bytes, callback, deadline, now);
        self.sealing.drops.defer_drop_of_message(&mut message);
        Ok(pending)
    }

    /// Accepts the message in `message` if nothing is to be waited for and nothing is wrong with it. Otherwise it
    /// stays where it is, for [`poll_push`](Self::poll_push).
    ///
    /// The result is so small that it is returned in registers.
    #[inline]
    pub fn push_fast(
        &mut self,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
        now: impl Fn() -> Now,
    ) -> Option<PendingSend> {
        let message = message.as_mut()?;
        let size_bytes = message.size_bytes();
        if !self.is_valid(message) || !self.capacity.admits(size_bytes) {
            return None;
        }
        let deadline = SendDeadline::FromStart;
        Some(self.accept(message, size_bytes, callback.take(), deadline, now))
    }

    /// Accepts the message in `message`, or queues the task until capacity is free: first come, first served. The send
    /// timeout counts from the first call with this `waiter`.
    ///
    /// | call | state | result |
    /// | --- | --- | --- |
    /// | any | the message cannot be sent | an error; the task leaves the queue |
    /// | the first | capacity is free and no task is queued | accepted |
    /// | the first | otherwise | queued |
    /// | a later one | its deadline has passed, so that it is not queued any more | an error |
    /// | a later one | other tasks are before it, or capacity is not free | stays queued, with the new waker |
    /// | a later one | it is the first in the queue, and capacity is free | accepted; the next task is offered what is left |
    ///
    /// After acceptance something of no more use may be left in `message`, to be dropped with no lock held.
    ///
    /// A caller that gives up after `Pending` must call [`stop_waiting`](Self::stop_waiting), or the tasks behind it are
    /// never woken. After an error, message and callback are left where they are.
    ///
    /// # Errors
    /// The message cannot be sent, or no capacity was free within the send timeout.
    ///
    /// # Panics
    /// If there is no `message`.
    pub fn poll_push(
        &mut self,
        waiter: &mut CapacityWaiter,
        message: &mut Option<Message>,
        callback: &mut Option<SendCallback>,
        waker: &Waker,
        now: impl Fn() -> Now,
        deferred: &mut Deferred,
    ) -> Poll<Result<PendingSend, SendError>> {
        let message = message.as_mut().expect("poll_push is called with a message, until it is accepted");
        if let Err(error) = self.check(message) {
            self.stop_waiting(waiter, deferred);
            return Poll::Ready(Err(error));
        }
        let size_bytes = message.size_bytes();
        let Some(number) = waiter.number else {
            if self.capacity.admits(size_bytes) {
                let (callback, deadline) = (callback.take(), SendDeadline::FromStart);
                return Poll::Ready(Ok(self.accept(message, size_bytes, callback, deadline, now)));
            }
            let deadline = self.send_deadline(now().at);
            let number = self.capacity.waiters.push(size_bytes, deadline, waker);
            waiter.number = Some(number);
            if self.capacity.waiters.is_front(number) {
                self.capacity.offer(deferred);
            }
            // It may be earlier than all others.
            self.dirty = Dirty::Now;
            return Poll::Pending;
        };
        if !self.capacity.waiters.contains(number) {
            waiter.number = None;
            let what = match self.capacity.bound(size_bytes) {
                CapacityBound::Queue => "no capacity was free".to_owned(),
                bound => format!("no capacity was free: {bound},"),
            };
            return Poll::Ready(Err(SendError::new(self.timeout_error(&what, now()), false)));
        }
        let is_next = self.capacity.waiters.is_front(number)
            && (self.capacity.fits(size_bytes) || self.capacity.reserve_for_front(size_bytes, waker, deferred));
        if !is_next {
            self.capacity.waiters.set_waker(number, waker, deferred);
            return Poll::Pending;
        }
        let deadline = SendDeadline::of_waiter(self.capacity.waiters.next_deadline());
        let pending = self.accept(message, size_bytes, callback.take(), deadline, now);
        self.stop_waiting(waiter, deferred);
        Poll::Ready(Ok(pending))
    }

    /// Takes the task of this waiter out of the queue for capacity, and offers what is free to the next one.
    pub fn stop_waiting(&mut self, waiter: &mut CapacityWaiter, deferred: &mut Deferred) {
        if let Some(number) = waiter.number.take() {
            self.capacity.waiters.remove(number, deferred);
            self.capacity.offer(deferred);
        }
    }
}

/// What can be sent.
impl Producer {
    /// Whether `message` can be sent at all, in this state of the producer.
    fn check(&self, message: &Message) -> Result<(), SendError> {
        let refuse = |error: Error| Err(SendError::new(error.with_topic(&self.topic), false));
        match self.lifecycle.state() {
            LifecycleState::Open => {}
            LifecycleState::Closing(_) => return refuse(Error::local(ErrorKind::Closed, "the producer is closed")),
            LifecycleState::Finished(error) => return refuse(error.clone()),
        }
        if let Some(why) = message.refused() {
            return refuse(Error::local(ErrorKind::InvalidArgument, why));
        }
        if !self.sequence_ids.can_assign(message.sequence_id()) {
            let why = match message.sequence_id() {
                Some(_) => "sequence_id must be at most 2^63 - 1",
                None => "no sequence_id is left: the producer has used 2^63 - 1",
            };
            return refuse(Error::local(ErrorKind::InvalidArgument, why));
        }
        self.sealing.limits().check(message).or_else(refuse)
    }

    /// Whether [`check`](Self::check) succeeds.
    #[inline]
    fn is_valid(&self, message: &Message) -> bool {
        self.lifecycle.is_open()
            && self.sequence_ids.can_assign(message.sequence_id())
            && self.sealing.limits().admits(message)
    }
}

/// What a message becomes.
impl Producer {
    /// Numbers a message and puts it into an entry.
    ///
    /// | message | entry | function |
    /// | --- | --- | --- |
    /// | may be batched | joins the open batch, or opens the next one | [`append_to_batch`](Self::append_to_batch) |
    /// | may be batched, by key | joins the batch of its key, or opens one | [`accept_by_key`](Self::accept_by_key) |
    /// | other, small, not to be compressed | its own, framed at once in a group with others | [`frame_fast`](Self::frame_fast) |
    /// | other | its own, framed by a job | [`frame_slow`](Self::frame_slow) |
    ///
    /// A message may be batched unless batching is off, for the producer or for
    /// [this message](Message::with_batching), it is to be delivered later, its keys are large, or the application set a
    /// sequence id that is not above all before it: of a batch the broker knows only the lowest and the highest id. The
    /// other two close the open batch first, because the order of the wire is that of acceptance.
    ///
    /// It takes what it needs out of `message` and leaves the rest where it is: moving a message costs more than reading
    /// it, and its drop may run code of the application.
    ///
    /// Before the first attach no message is numbered: the ids start above what the broker has stored. Until then
    /// messages are held as they are, see [`start_sequence_ids`](Self::start_sequence_ids).
    fn accept(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        self.capacity.take(size_bytes);
        let pending = if self.key_batches.is_some() {
            self.accept_by_key(message, size_bytes, callback, deadline, now)
        } else {
            self.accept_numbered(message, size_bytes, callback, deadline, self.config.batching, now)
        };
        self.sequence_ids.count_accepted();
        self.check_capacity();
        pending
    }

    /// What [`accept`](Self::accept) does with a message that gets its number at once, and joins the open batch if it
    /// `may_join`.
    #[inline(always)]
    pub(super) fn accept_numbered(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        may_join: bool,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        let is_numbered = self.sealing.is_ready();
        let is_increasing = if is_numbered {
            let (id, is_increasing) = self.sequence_ids.assign(message.sequence_id());
            message.set_sequence_id(id);
            is_increasing
        } else {
            // Whether an id that the application set is above those given later to the messages before it is not known.
            message.sequence_id().is_none()
        };
        if may_join && is_increasing && message.may_be_batched() {
            self.append_to_batch(message, size_bytes, is_numbered, callback, deadline, now)
        } else {
            self.close_batch();
            if self.sealing.context().is_some_and(|context| can_frame_fast(context, message, size_bytes)) {
                self.frame_fast(message, size_bytes, callback, deadline, now)
            } else {
                self.frame_slow(message, size_bytes, callback, deadline, now())
            }
        }
    }

    /// Adds a message to the open batch, or opens one with it.
    #[inline]
    fn append_to_batch(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        is_numbered: bool,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        let joins = self
            .open_batch
            .as_ref()
            .is_some_and(|batch| batch.takes(deadline) && self.fits(batch, message, size_bytes));
        let id = message.sequence_id().unwrap_or(0);
        if !joins {
            self.close_batch();
            self.open_batch(id, deadline, now());
        }
        let batch = self.open_batch.as_mut().expect("it was opened above, if it was not open");
        let (buffers, drops) = (&mut self.sealing.buffers, &mut self.sealing.drops);
        let member = batch.join(message, size_bytes, is_numbered, callback, buffers, drops);
        let results = self.references.of(&batch.results);
        if batch.content.count() >= self.config.batching_max_messages
            || batch.content.payload_bytes() >= self.config.batching_max_bytes
        {
            self.close_batch();
        }
        PendingSend::new(results, member)
    }

    /// Whether a message fits into a batch as far as its size goes.
    #[inline(always)]
    pub(super) fn fits(&self, batch: &OpenBatch, message: &Message, size_bytes: usize) -> bool {
        let (payload_bytes, record_bytes_max) = (message.payload.len(), message.record_bytes_max(size_bytes));
        batch.content.payload_bytes() + payload_bytes <= self.config.batching_max_bytes
            && self.sealing.limits().fits_batch(batch.content.record_bytes_max() + record_bytes_max)
    }

    #[cold]
    fn open_batch(&mut self, id: u64, deadline: SendDeadline, now: Now) {
        let at = deadline.resolve(|| self.send_deadline(now.at));
        let index = self.sequence_ids.accepted_messages();
        let results = (self.references.open(self.partition, ResultsKind::Batch, &mut self.sealing.drops), 0);
        self.open_batch = Some(Box::new(OpenBatch::new(id, index, results, at, deadline.is_own(), now)));
        self.on_batch_opened();
    }

    /// Frames a message behind others that are written together with it.
    #[inline]
    fn frame_fast(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: impl Fn() -> Now,
    ) -> PendingSend {
        if message.is_delayed() {
            message.resolve_delivery(now());
        }
        let is_recent = |started: Now| now().at.saturating_duration_since(started.at) <= OPEN_MAX;
        let takes = |group: &&mut SendGroup| group.takes(deadline, is_recent);
        // A group does not reach beyond the results that its messages share.
        if self.send_slots.is_used_up() || self.in_flight.open_group().filter(takes).is_none() {
            self.open_group(deadline);
        }
        let slot = self.send_slots.take();
        let id = message.sequence_id().unwrap_or(0);
        let mut entry = PendingEntry::new(id, self.sequence_ids.accepted_messages(), size_bytes, slot);
        let group = self.in_flight.open_group().expect("it was opened above, if none was open");
        let GroupFrames::Open(frames) = &mut group.frames else { unreachable!("an open group has its frames") };
        let framing = self.sealing.framing.as_mut().expect("without it no message is framed fast");
        put_frame_fast(frames, &mut framing.template, &framing.context, message, &mut entry);
        if let Some(callback) = callback {
            group.callbacks.push_back((slot, callback));
        }
        let is_full = self.send_slots.is_used_up() || frames.len() >= GROUP_BYTES_MAX;
        let results = self.references.of(&group.results);
        self.in_flight.join(entry);
        if is_full {
            self.close_group();
        }
        PendingSend::new(results, slot)
    }

    #[cold]
    fn open_group(&mut self, deadline: SendDeadline) {
        self.close_group();
        let (number, index) = (self.in_flight.next_number(), self.sequence_ids.accepted_messages());
        let (references, drops) = (&mut self.references, &mut self.sealing.drops);
        let open = |partition, kind| references.open(partition, kind, drops);
        let results = self.send_slots.results(open).clone();
        let at = deadline.resolve(|| None);
        let mut group = SendGroup::new(number, index, GroupKind::Framed, results, at);
        group.has_own_deadline = deadline.is_own();
        group.frames = GroupFrames::Open(self.sealing.buffers.take());
        self.in_flight.open(group);
        // The owner is to send it, or to note when.
        self.dirty = Dirty::Now;
    }

    /// Gives a message an entry of its own, which a job frames.
    fn frame_slow(
        &mut self,
        message: &mut Message,
        size_bytes: usize,
        callback: Option<SendCallback>,
        deadline: SendDeadline,
        now: Now,
    ) -> PendingSend {
        message.resolve_delivery(now);
        let open = |partition, kind| SendResults::new(partition, kind, false);
        let results = self.send_slots.results(open).clone();
        let slot = self.send_slots.take();
        let index = self.sequence_ids.accepted_messages();
        let entry = PendingEntry::new(message.sequence_id().unwrap_or(0), index, size_bytes, slot);
        let mut content = EntryContent::new(now);
        content.add(message, size_bytes, false, &mut self.sealing.buffers, &mut self.sealing.drops);
        let deadline = deadline.resolve(|| self.send_deadline(now.at));
        let number = self.in_flight.next_number();
        let mut group = SendGroup::new(number, index, GroupKind::Single, results.clone(), deadline);
        group.started = Some(now);
        group.callbacks.extend(callback.map(|callback| (slot, callback)));
        self.push_to_seal(group, entry, content);
        PendingSend::new(results, slot)
    }
}
