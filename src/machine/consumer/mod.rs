//! The consumer of one topic or partition: the queue, the permits, what is acknowledged, what is to come again.
//!
//! It decides what goes to the broker and when; it never reads a clock, owns no connection and opens no batch. Entries
//! come in as runs under one lock and leave as a whole queue under one lock; the handle opens them on the user's task.
//! What it owes the broker and its user survives a lost connection: it is detached and attached again.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | the options |
//! | `entry` | one delivered entry, read without the consumer |
//! | `permits` | the ledger of permits |
//! | `acks`, `partials` | acknowledgements on their way, batches acknowledged in part |
//! | `redelivery` | negative acknowledgements, rewinds |
//! | `operations` | what a user asked and waits for |
//! | `server` | the side of the consumer that its session and the supervisor see |

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Deadline, Deferred, EndpointId, Now, ReadyList, ReplyTo};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ConsumerId, MessagePosition};
use crate::machine::endpoint::outbox::Op;
use crate::pb;
use crate::wire::EntryError;

mod acks;
mod config;
mod endpoint;
mod entry;
mod operations;
mod partials;
mod permits;
mod position;
mod redelivery;
mod server;

pub use config::{
    ConsumerConfig, InitialPosition, KeySharedPolicy, NACK_REDELIVERY_DELAY_MIN, RECEIVER_QUEUE_SIZE_MAX,
    SubscriptionType,
};
pub use entry::{BATCH_MEMBERS_MAX, Entry, EntryBody};
pub use operations::{LastMessageId, SeekTo};

use acks::{Acks, Grouping};
use operations::{Operations, Start, Work};
use permits::Permits;
use position::Position;
use redelivery::Redelivery;

/// The most ids of one confirmed acknowledgement: they travel in one frame.
pub const CONFIRMED_IDS_MAX: usize = 10_000;

/// Permits that come home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credits {
    /// The attach their entries came in. Credits of an earlier one are void: permits started anew.
    pub attempt: u64,
    /// How many, messages.
    pub count: u32,
}

/// What [`Consumer::take`] says besides the entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The generation they belong to. When the counter has moved, entries taken before are to be thrown away and
    /// credited: they come again, or are not wanted any more.
    pub generation: u64,
    /// The attach for the credits of what is taken.
    pub attempt: u64,
    /// Nothing comes any more, and why.
    pub ended: Option<Error>,
}

/// ```text
///               subscribe_request             on_attached
///  Detached ----------------------> Opening ---------------> Attached
///     ^                                |                        |
///     +--------------------------------+------------------------+  on_detached
///
///  from every state: fail, creation or close deadline, closed, unsubscribed ---> Finished
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Detached,
    Opening,
    Attached,
    Finished,
}

/// A close under way.
#[derive(Debug)]
struct Closing {
    replies: Vec<ReplyTo<()>>,
    deadline: Option<Deadline>,
    /// The number of the CLOSE_CONSUMER that was asked.
    asked: Option<u64>,
}

/// The machine of one consumer. See the module for what it does and never does.
#[derive(Debug)]
pub struct Consumer {
    id: ConsumerId,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ConsumerConfig>,
    state: State,
    /// Answered by the first attach.
    subscribed: Option<ReplyTo<()>>,
    /// Until when.
    subscribe_deadline: Option<Deadline>,
    closing: Option<Closing>,
    /// Why nothing comes any more.
    ended: Option<Error>,
    /// The broker has no such consumer any more, or was told so.
    closed_at_broker: bool,
    /// Something for the server since it last looked.
    dirty: bool,

    /// Grows with every attach.
    attempt: u64,
    /// Shared with the handle, which looks at it without the lock.
    generation: Arc<AtomicU64>,
    /// Where the id goes when there is something to take.
    inbox: Arc<ReadyList>,
    /// The id is there.
    inboxed: bool,
    queue: VecDeque<Entry>,
    /// Entries had to be dropped because the queue was full beyond all permits: they are asked for again.
    missed: bool,
    permits: Permits,
    acks: Acks,
    /// Acknowledgements mean nothing on a non-persistent topic.
    acks_wanted: bool,
    redelivery: Redelivery,
    operations: Operations,
    /// A seek is under way: what arrives is of before.
    seeking: bool,
    /// What to leave out of the entry of the last seek.
    start: Option<Start>,
    /// Failover: this consumer is the active one, as far as the broker has said.
    active: Option<bool>,
    end_of_topic: bool,
}

/// For the user's tasks, through [`Endpoint::with`](super::Endpoint::with).
impl Consumer {
    /// A consumer that is to be attached. `partition` is -1 for a topic that is not partitioned. `inbox` gets its id
    /// when there is something to [`take`](Self::take), and `generation` moves when what was taken is to be thrown
    /// away. `subscribed` is answered by the first attach, or with the error that ends it, at the latest after
    /// `operation_timeout`.
    #[allow(clippy::too_many_arguments, reason = "each is given once, by the handle that makes it")]
    pub fn new(
        id: ConsumerId,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ConsumerConfig>,
        inbox: Arc<ReadyList>,
        generation: Arc<AtomicU64>,
        subscribed: ReplyTo<()>,
        now: Now,
    ) -> Self {
        let grouping = Grouping { time: config.acknowledgment_group_time, count: config.max_acknowledgment_group_size };
        let in_order = config.subscription_type.is_in_order();
        Self {
            id,
            partition,
            state: State::Detached,
            subscribed: Some(subscribed),
            subscribe_deadline: Deadline::after(now, config.operation_timeout, "the consumer is to be subscribed"),
            closing: None,
            ended: None,
            closed_at_broker: false,
            dirty: true,
            attempt: 0,
            generation,
            inbox,
            inboxed: false,
            queue: VecDeque::new(),
            missed: false,
            permits: Permits::new(config.receiver_queue_size),
            acks: Acks::new(config.batch_index_acknowledgment, grouping),
            acks_wanted: !topic.starts_with("non-persistent://"),
            redelivery: Redelivery::new(in_order, config.negative_ack_redelivery_delay, now),
            operations: Operations::default(),
            seeking: false,
            start: None,
            active: None,
            end_of_topic: false,
            topic,
            config,
        }
    }

    /// Takes the whole queue, behind what `into` holds; best given empty, so that both buffers serve in turn. What is
    /// taken counts as permits until it is credited.
    pub fn take(&mut self, credits: Credits, into: &mut VecDeque<Entry>) -> Taken {
        self.credit(credits);
        self.inboxed = false;
        self.permits.take_all();
        if into.is_empty() {
            std::mem::swap(&mut self.queue, into);
        } else {
            into.append(&mut self.queue);
        }
        if std::mem::take(&mut self.missed) {
            self.redeliver_everything();
        }
        self.check();
        Taken { generation: self.generation.load(Ordering::Relaxed), attempt: self.attempt, ended: self.ended.clone() }
    }

    /// Gives permits back; half a queue of them are granted to the broker again.
    pub fn credit(&mut self, credits: Credits) {
        if credits.attempt == self.attempt && credits.count > 0 {
            self.permits.credit(credits.count);
            self.note_flow();
        }
    }

    /// With a `receiver_queue_size` of 0: a receive waits, so one permit is granted unless one is out. A receive that
    /// goes away leaves it out, and the message waits for the next one. With any other size it does nothing.
    pub fn want_one(&mut self) {
        self.permits.want_one();
        self.note_flow();
    }

    /// Acknowledges one message: it is noted, grouped with others, and written when the group is due. `now` is only
    /// called when a group begins.
    ///
    /// Without a connection it waits for the next one.
    ///
    /// # Errors
    /// The consumer is over; the id names a member of a batch without the size of the batch, and nothing is known of
    /// that batch ([`ErrorKind::InvalidArgument`]); too many acknowledgements wait ([`ErrorKind::QueueFull`]).
    #[inline]
    pub fn ack(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        let takes_acks = self.ended.is_none() && self.acks_wanted && !self.seeking;
        if takes_acks && self.acks.ack_at_hand(id) {
            return Ok(());
        }
        self.ack_any(id, now)
    }

    #[inline(never)]
    fn ack_any(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        if !self.takes_acks()? {
            return Ok(());
        }
        if self.acks.ack(id).map_err(|error| error.with_topic(&self.topic))? {
            self.redelivery.forget(Position::of(id));
        }
        self.dirty |= self.acks.noted(now);
        Ok(())
    }

    /// Acknowledges everything up to and including the message.
    ///
    /// # Errors
    /// As [`ack`](Self::ack), and [`ErrorKind::NotAllowed`] on Shared and Key_Shared subscriptions, where a broker
    /// would ignore it without a word.
    pub fn ack_cumulative(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        self.allow_cumulative()?;
        if !self.takes_acks()? {
            return Ok(());
        }
        let finished = self.acks.ack_cumulative(id).map_err(|error| error.with_topic(&self.topic))?;
        self.redelivery.forget_up_to(finished);
        self.dirty |= self.acks.noted(now);
        Ok(())
    }

    /// Acknowledges and answers once the broker has confirmed it (ACK with a `request_id`, ACK_RESPONSE). If the
    /// connection is lost meanwhile it is sent again, until `operation_timeout` has passed.
    ///
    /// Members of a batch that leave nothing to tell the broker yet (no batch index acknowledgement, and others of the
    /// batch are open) are noted and confirmed at once. `cumulative` takes exactly one id. At most
    /// [`CONFIRMED_IDS_MAX`].
    pub fn ack_confirmed(
        &mut self,
        ids: &[MessagePosition],
        cumulative: bool,
        reply: ReplyTo<()>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        match self.prepare_confirmed(ids, cumulative) {
            Err(error) => reply.answer(Err(error.with_topic(&self.topic)), deferred),
            Ok(ids) if ids.is_empty() => reply.answer(Ok(()), deferred),
            Ok(entries) => {
                let members = if cumulative { Vec::new() } else { ids.to_vec() };
                self.begin(Work::Ack { ids: entries, members, cumulative, reply }, now, deferred);
            }
        }
    }

    fn prepare_confirmed(&mut self, ids: &[MessagePosition], cumulative: bool) -> Result<Vec<crate::wire::AckId>> {
        if cumulative {
            self.allow_cumulative()?;
        }
        if ids.len() > CONFIRMED_IDS_MAX {
            return Err(Error::local(ErrorKind::InvalidArgument, "more than 10000 ids in one acknowledgement"));
        }
        if !self.takes_acks()? {
            return Ok(Vec::new());
        }
        self.acks.resolve(ids, cumulative)
    }

    /// Asks for the message's entry again after `negative_ack_redelivery_delay`: the entry with all its members that are not
    /// acknowledged. On Exclusive and Failover everything after the last acknowledgement comes again.
    ///
    /// Without a connection there is nothing to ask: a new one delivers everything that is not acknowledged.
    pub fn nack(&mut self, id: &MessagePosition, now: Now) {
        if self.state != State::Attached || self.seeking || self.ended.is_some() {
            return;
        }
        let before = self.redelivery.due_at();
        if !self.redelivery.nack(Position::of(id), now) {
            self.redeliver_everything();
        }
        self.dirty |= self.redelivery.due_at() != before;
    }

    /// Asks for everything again that is not acknowledged; what is queued is thrown away, for it comes again too.
    pub fn redeliver_unacknowledged(&mut self, _now: Now) {
        if self.state == State::Attached && !self.seeking && self.ended.is_none() {
            self.redeliver_everything();
        }
    }

    /// An entry turned out damaged when it was opened: it is acknowledged with the reason (`validation_error`), and
    /// its `permits` go back. One of an earlier attach is left alone: it comes again.
    pub fn reject(&mut self, ledger_id: u64, entry_id: u64, permits: u32, error: &EntryError, attempt: u64, _now: Now) {
        if attempt != self.attempt || self.state == State::Finished {
            return;
        }
        let position = Position { ledger_id, entry_id };
        self.redelivery.forget(position);
        self.acks.reject(position, error.validation_error().into());
        self.dirty = true;
        self.credit(Credits { attempt, count: permits });
    }

    /// Deletes the subscription, and this consumer with it (UNSUBSCRIBE). The broker refuses while others are
    /// connected to it, unless `force`.
    pub fn unsubscribe(&mut self, force: bool, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        self.acks.flush();
        self.begin(Work::Unsubscribe { force, reply }, now, deferred);
    }

    /// Asks for the last message of the topic.
    pub fn last_message_id(&mut self, reply: ReplyTo<LastMessageId>, now: Now, deferred: &mut Deferred) {
        self.begin(Work::LastMessageId { reply }, now, deferred);
    }

    /// Asks what the broker knows of this consumer.
    pub fn stats(&mut self, reply: ReplyTo<pb::CommandConsumerStatsResponse>, now: Now, deferred: &mut Deferred) {
        self.begin(Work::Stats { reply }, now, deferred);
    }

    /// Moves the subscription. From this call on until the answer no message of before is delivered; acknowledgements
    /// made before it are sent first, those made during it are ignored. All consumers of the subscription are
    /// disconnected by it, and attach again. One seek at a time: a second one is refused with [`ErrorKind::Busy`].
    pub fn seek(&mut self, to: SeekTo, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        if self.seeking {
            let busy = Error::local(ErrorKind::Busy, "another seek of this consumer is under way");
            return reply.answer(Err(busy.with_topic(&self.topic)), deferred);
        }
        if self.ended.is_none() {
            self.seeking = true;
            self.clear_queue();
            self.redelivery.restart();
            self.acks.flush();
        }
        self.begin(Work::Seek { to, reply }, now, deferred);
    }

    fn begin(&mut self, work: Work, now: Now, deferred: &mut Deferred) {
        if let Some(ended) = &self.ended {
            return work.refuse(ended.clone(), deferred);
        }
        self.operations.push(work, self.config.operation_timeout, now, deferred);
        self.dirty = true;
    }

    /// Stops: nothing more is received, what was acknowledged is sent, then the broker is told (CLOSE_CONSUMER). The
    /// subscription stays. `reply` is answered when the broker has confirmed it, at the latest after
    /// `operation_timeout`; without a connection and with nothing to send, at once.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        if self.state == State::Finished {
            if let Some(reply) = reply {
                reply.answer(Ok(()), deferred);
            }
            return;
        }
        self.dirty = true;
        if let Some(closing) = &mut self.closing {
            closing.replies.extend(reply);
            return;
        }
        let deadline = Deadline::after(now, self.config.operation_timeout, "the consumer is to be closed");
        self.closing = Some(Closing { replies: reply.into_iter().collect(), deadline, asked: None });
        let closed = Error::local(ErrorKind::Closed, "the consumer is closed").with_topic(&self.topic);
        if let Some(subscribed) = self.subscribed.take() {
            subscribed.answer(Err(closed.clone()), deferred);
        }
        self.subscribe_deadline = None;
        self.end(closed, deferred);
        self.finish_if_closed_while_detached(deferred);
    }

    /// Its id.
    pub fn id(&self) -> ConsumerId {
        self.id
    }

    /// The topic, or partition of one, that it reads.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The index of the partition, -1 for a topic that is not partitioned.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The counter that moves when what was taken is to be thrown away; see [`new`](Self::new).
    pub fn queue_epoch(&self) -> Arc<AtomicU64> {
        self.generation.clone()
    }

    /// Whether it is subscribed at a broker at this moment.
    pub fn is_attached(&self) -> bool {
        self.state == State::Attached
    }

    /// Failover: whether this consumer is the one that gets the messages; `None` before the broker has said so.
    pub fn is_active(&self) -> Option<bool> {
        self.active
    }

    /// The topic was terminated and everything in it is acknowledged: no message comes any more.
    pub fn has_reached_end_of_topic(&self) -> bool {
        self.end_of_topic
    }

    /// Messages that wait to be taken.
    pub fn queued_messages(&self) -> u64 {
        self.permits.queued()
    }

    /// Whether acknowledgements are taken: not on a non-persistent topic, and not of messages from before a seek.
    fn takes_acks(&self) -> Result<bool> {
        match &self.ended {
            Some(ended) => Err(ended.clone()),
            None => Ok(self.acks_wanted && !self.seeking),
        }
    }

    fn allow_cumulative(&self) -> Result<()> {
        if self.config.subscription_type.is_in_order() {
            return Ok(());
        }
        let why = "cumulative acknowledgement needs an Exclusive or Failover subscription";
        Err(Error::local(ErrorKind::NotAllowed, why).with_topic(&self.topic))
    }

    fn note_flow(&mut self) {
        self.dirty |= self.state == State::Attached && self.permits.is_flow_due();
    }
}
