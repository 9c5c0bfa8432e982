//! What a user asked of a consumer and waits for: confirmed acknowledgements, unsubscribe, seek, the last message id,
//! statistics.
//!
//! An operation is state of the consumer, not of a connection: it is asked when there is one, asked again on the next
//! one if the connection was lost, and ends by its own deadline in every state.
//!
//! ```text
//!            asked of the broker          answered, refused
//! Waiting --------------------> Asked --------------------------> gone, the caller has it
//!    ^                            |
//!    +----------------------------+  connection lost, consumer closed by the broker
//!
//! from every state: deadline passed, consumer over ---> gone, the caller has the error
//! ```
//!
//! A seek has one state more: the broker closes the consumer before it answers, so the answer is kept until the
//! consumer is attached again.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::position::Position;
use crate::error::{Error, ErrorKind};
use crate::id::{MessageId, MessagePosition};
use crate::machine::endpoint::outbox::{Op, OpKind};
use crate::machine::{Deferred, Now, ReplyTo};
use crate::pb;
use crate::wall_time::to_ms;
use crate::wire::{AckId, AckSet, Command};

/// The most operations of one consumer that wait at a time. At the bound further ones are refused with
/// [`ErrorKind::QueueFull`].
pub(super) const OPERATIONS_MAX: usize = 1000;

/// Where a seek goes (`CommandSeek`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// Before the first message of the topic.
    Earliest,
    /// Behind the last message of the topic.
    Latest,
    /// To a message.
    Message {
        /// The message.
        id: MessageId,
        /// Whether it is the first to be delivered; else the one after it is, and it counts as acknowledged.
        inclusive: bool,
    },
    /// To the first message published at or after this time: to the first one of all for a time before 1970, behind
    /// the last one for a time to come.
    PublishTime(SystemTime),
}

impl SeekTo {
    fn command(&self, consumer_id: u64) -> pb::CommandSeek {
        let (id, message_publish_time) = match self {
            Self::Earliest => (Some(MessagePosition::EARLIEST), None),
            Self::Latest => (Some(MessagePosition::LATEST), None),
            Self::Message { id, .. } => (Some(id.position()), None),
            Self::PublishTime(time) => (None, Some(to_ms(*time).max(0).unsigned_abs())),
        };
        let message_id = id.map(|id| pb::MessageIdData {
            ledger_id: id.ledger_id,
            entry_id: id.entry_id,
            ack_set: self.ack_set(),
            ..Default::default()
        });
        pb::CommandSeek { consumer_id, request_id: 0, message_id, message_publish_time }
    }

    /// The members to be delivered of the batch that is sought into; empty for all.
    fn ack_set(&self) -> Vec<i64> {
        let Self::Message { id, inclusive } = self else { return Vec::new() };
        let (Some(index), Some(size)) = (id.batch_index(), id.batch_size()) else { return Vec::new() };
        if index >= size || size > super::BATCH_MEMBERS_MAX {
            return Vec::new();
        }
        let mut set = AckSet::full(size);
        skip(&mut set, index, *inclusive);
        set.to_words()
    }
}

fn skip(set: &mut AckSet, index: u32, inclusive: bool) {
    match (inclusive, index.checked_sub(1)) {
        (false, _) => drop(set.clear_up_to(index)),
        (true, Some(before)) => drop(set.clear_up_to(before)),
        (true, None) => {}
    }
}

/// What is to be left out of the entry that was sought to. A broker knows the entry, but not "after it", and without
/// batch index acknowledgement not the place in its batch either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) position: Position,
    batch_index: Option<u32>,
    inclusive: bool,
}

impl Start {
    pub(super) fn of(to: &SeekTo) -> Option<Self> {
        let SeekTo::Message { id, inclusive } = to else { return None };
        let (batch_index, inclusive) = (id.batch_index(), *inclusive);
        let position = Position::of(&id.position());
        (!inclusive || batch_index.is_some()).then_some(Self { position, batch_index, inclusive })
    }

    /// Narrows `ack_set` of the entry, a batch of `size` or a plain message. False if nothing of it is left.
    pub(super) fn narrow(&self, size: Option<u32>, ack_set: &mut Vec<i64>) -> bool {
        let (Some(size), Some(index)) = (size, self.batch_index) else { return self.inclusive };
        let mut set = AckSet::from_words(ack_set, size);
        skip(&mut set, index, self.inclusive);
        *ack_set = set.to_words();
        !set.is_empty()
    }
}

/// The last message of a topic (`CommandGetLastMessageIdResponse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastMessageId {
    /// Its id; ledger and entry -1 if the topic holds none.
    pub id: MessagePosition,
    /// Everything of the subscription up to here is acknowledged. Entry -1 in a real ledger is normal. `None` if the
    /// broker does not say.
    pub mark_delete: Option<MessagePosition>,
}

impl LastMessageId {
    pub(super) fn read(response: &pb::CommandGetLastMessageIdResponse, partition: i32) -> Self {
        let id = |data: &pb::MessageIdData| MessagePosition {
            partition,
            batch_index: data.batch_index.unwrap_or(-1),
            batch_size: data.batch_size.unwrap_or(0),
            ..MessagePosition::new(data.ledger_id, data.entry_id)
        };
        Self { id: id(&response.last_message_id), mark_delete: response.consumer_mark_delete_position.as_ref().map(id) }
    }
}

/// What is asked, and who waits for it.
#[derive(Debug)]
pub(super) enum Work {
    /// `members`: what `ids` were made of, unless cumulative.
    Ack {
        ids: Vec<AckId>,
        members: Vec<MessagePosition>,
        cumulative: bool,
        reply: ReplyTo<()>,
    },
    Unsubscribe {
        force: bool,
        reply: ReplyTo<()>,
    },
    LastMessageId {
        reply: ReplyTo<LastMessageId>,
    },
    Stats {
        reply: ReplyTo<pb::CommandConsumerStatsResponse>,
    },
    Seek {
        to: SeekTo,
        reply: ReplyTo<()>,
    },
}

impl Work {
    fn kind(&self) -> OpKind {
        match self {
            Self::Ack { .. } => OpKind::AckReceipt,
            Self::Unsubscribe { .. } => OpKind::Unsubscribe,
            Self::LastMessageId { .. } => OpKind::LastMessageId,
            Self::Stats { .. } => OpKind::Stats,
            Self::Seek { .. } => OpKind::Seek,
        }
    }

    /// What it is called in errors.
    pub(super) fn doing(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "the acknowledgment",
            Self::Unsubscribe { .. } => "the unsubscribe request",
            Self::LastMessageId { .. } => "the last message id request",
            Self::Stats { .. } => "the consumer stats request",
            Self::Seek { .. } => "the seek request",
        }
    }

    fn command(&self, consumer_id: u64) -> Command {
        match self {
            Self::Ack { ids, cumulative, .. } => Command::Ack(ack_command(consumer_id, ids, *cumulative)),
            Self::Unsubscribe { force, .. } => Command::Unsubscribe(pb::CommandUnsubscribe {
                consumer_id,
                request_id: 0,
                force: force.then_some(true),
            }),
            Self::LastMessageId { .. } => {
                Command::GetLastMessageId(pb::CommandGetLastMessageId { consumer_id, ..Default::default() })
            }
            Self::Stats { .. } => Command::ConsumerStats(pb::CommandConsumerStats { consumer_id, request_id: 0 }),
            Self::Seek { to, .. } => Command::Seek(to.command(consumer_id)),
        }
    }

    /// Ends it with an error.
    pub(super) fn refuse(self, error: Error, deferred: &mut Deferred) {
        match self {
            Self::Ack { reply, .. } | Self::Unsubscribe { reply, .. } | Self::Seek { reply, .. } => {
                reply.answer(Err(error), deferred);
            }
            Self::LastMessageId { reply } => reply.answer(Err(error), deferred),
            Self::Stats { reply } => reply.answer(Err(error), deferred),
        }
    }
}

fn ack_command(consumer_id: u64, ids: &[AckId], cumulative: bool) -> pb::CommandAck {
    use pb::command_ack::AckType;
    let message_id = ids
        .iter()
        .map(|id| pb::MessageIdData {
            ledger_id: id.ledger_id,
            entry_id: id.entry_id,
            ack_set: id.ack_set.clone(),
            ..Default::default()
        })
        .collect();
    let ack_type = if cumulative { AckType::Cumulative } else { AckType::Individual };
    pb::CommandAck {
        consumer_id,
        ack_type: ack_type.into(),
        message_id,
        // Being there asks for the response; the connection puts the number in.
        request_id: Some(0),
        ..Default::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Asked,
    /// A seek whose consumer is still to be attached again.
    Done,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Operation {
    number: u64,
    deadline: Option<Instant>,
    state: State,
    pub(super) work: Work,
}

/// All of them, oldest first. They have the same timeout, so the first one's deadline is the earliest.
#[derive(Debug, Default)]
pub(super) struct Operations {
    list: VecDeque<Operation>,
    last_number: u64,
}

impl Operations {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Adds one; it is refused when there are too many.
    pub(super) fn push(&mut self, work: Work, timeout: Duration, now: Now, deferred: &mut Deferred) {
        if self.list.len() == OPERATIONS_MAX {
            let full =
                Error::local(ErrorKind::QueueFull, "too many requests of this consumer are waiting for the broker");
            return work.refuse(full, deferred);
        }
        let number = self.next_number();
        let deadline = now.at.checked_add(timeout);
        self.list.push_back(Operation { number, deadline, state: State::Waiting, work });
    }

    /// Gives what waits to `ask`.
    pub(super) fn ask(&mut self, consumer_id: u64, mut ask: impl FnMut(Op, Command)) {
        for operation in self.list.iter_mut().filter(|operation| operation.state == State::Waiting) {
            operation.state = State::Asked;
            let op = Op { kind: operation.work.kind(), number: operation.number };
            ask(op, operation.work.command(consumer_id));
        }
    }

    /// Whether a seek is about to be asked.
    pub(super) fn is_seek_waiting(&self) -> bool {
        self.list.iter().any(|operation| operation.state == State::Waiting && operation.work.kind() == OpKind::Seek)
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by_key(&number, |operation| operation.number).ok()
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Work> {
        let index = self.index(number)?;
        self.list.remove(index).map(|operation| operation.work)
    }

    /// The connection was lost with the answer.
    pub(super) fn ask_again(&mut self, number: u64) {
        if let Some(operation) = self.index(number).and_then(|index| self.list.get_mut(index)) {
            operation.state = State::Waiting;
        }
    }

    /// The seek is answered and now waits for the next attach.
    pub(super) fn set_done(&mut self, number: u64) -> Option<&Work> {
        let index = self.index(number)?;
        let operation = self.list.get_mut(index)?;
        operation.state = State::Done;
        Some(&operation.work)
    }

    /// A new attach. What the consumer of the last one was asked is asked again: a broker answers nothing to an ACK of
    /// a consumer it does not know. Not so a seek, whose answer closes the consumer. Returns the finished seek.
    pub(super) fn on_attached(&mut self) -> Option<Work> {
        for operation in &mut self.list {
            if operation.state == State::Asked && operation.work.kind() != OpKind::Seek {
                operation.state = State::Waiting;
            }
        }
        let done = self.list.iter().position(|operation| operation.state == State::Done)?;
        self.list.remove(done).map(|operation| operation.work)
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.list.front().and_then(|operation| operation.deadline)
    }

    /// The next one whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: Now) -> Option<Work> {
        let first = self.list.front()?;
        if first.deadline.is_some_and(|at| at <= now.at) { self.list.pop_front().map(|o| o.work) } else { None }
    }

    /// Ends them all.
    pub(super) fn refuse_all(&mut self, error: &Error, deferred: &mut Deferred) {
        for operation in self.list.drain(..) {
            operation.work.refuse(error.clone(), deferred);
        }
    }
}
