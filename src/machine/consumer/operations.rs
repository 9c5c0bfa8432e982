//! Requests of the application that wait for the broker's answer: confirmed acknowledgements, unsubscribe, seek, the
//! last message id, statistics.
//!
//! An operation is state of the consumer, not of a connection: it is sent when there is one, sent again on the next
//! one if the connection was lost, and ends by its own deadline in every state.
//!
//! ```text
//!           written                 answered, refused
//! Waiting -----------------> Sent ---------------------> removed, the caller has the result
//!    ^                        |
//!    +------------------------+  connection lost, consumer closed by the broker
//!
//! from every state: deadline passed, consumer finished ---> removed, the caller has the error
//! ```
//!
//! A seek has one state more: the broker closes the consumer before it answers, so the success is kept
//! ([`OperationState::Answered`]) until the consumer is attached again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SeekTo;
use crate::error::{Error, ErrorKind};
use crate::id::MessagePosition;
use crate::machine::endpoint::outbox::{Op, OpKind};
use crate::machine::{Deferred, Now, ReplyTo};
use crate::pb;
use crate::wire::{AckId, Command};

/// The most operations of one consumer that wait at a time. At the bound further ones are refused with
/// [`ErrorKind::QueueFull`].
pub(super) const OPERATIONS_MAX: usize = 1000;

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

/// What is requested, and the caller that waits for it.
#[derive(Debug)]
pub(super) enum Operation {
    /// ACK with a `request_id`.
    Ack {
        ids: Vec<AckId>,
        /// The ids that `ids` were made of; empty if cumulative.
        members: Vec<MessagePosition>,
        cumulative: bool,
        reply: ReplyTo<()>,
    },
    Unsubscribe {
        force: bool,
        reply: ReplyTo<()>,
    },
    LastMessageId {
        /// How many seeks had moved a reader.
        seek_number: u32,
        reply: ReplyTo<LastMessageId>,
    },
    Stats {
        reply: ReplyTo<pb::CommandConsumerStatsResponse>,
    },
    /// CONSUMER_STATS for the consumer itself, which suspects a stall.
    StallStats,
    /// The last message id, for the same purpose.
    StallLastMessageId,
    Seek {
        to: SeekTo,
        reply: ReplyTo<()>,
    },
}

impl Operation {
    fn kind(&self) -> OpKind {
        match self {
            Self::Ack { .. } => OpKind::AckReceipt,
            Self::Unsubscribe { .. } => OpKind::Unsubscribe,
            Self::LastMessageId { .. } | Self::StallLastMessageId => OpKind::LastMessageId,
            Self::Stats { .. } | Self::StallStats => OpKind::Stats,
            Self::Seek { .. } => OpKind::Seek,
        }
    }

    /// What it is called in errors: "no answer to {} within the operation timeout".
    pub(super) fn description(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "the acknowledgement",
            Self::Unsubscribe { .. } => "the unsubscribe request",
            Self::LastMessageId { .. } | Self::StallLastMessageId => "the last message id request",
            Self::Stats { .. } | Self::StallStats => "the consumer stats request",
            Self::Seek { .. } => "the seek",
        }
    }

    /// The command, without its request id.
    fn command(&self, consumer_id: u64) -> Command {
        match self {
            Self::Ack { ids, cumulative, .. } => Command::Ack(ack_command(consumer_id, ids, *cumulative)),
            Self::Unsubscribe { force, .. } => Command::Unsubscribe(pb::CommandUnsubscribe {
                consumer_id,
                request_id: 0,
                force: force.then_some(true),
            }),
            Self::LastMessageId { .. } | Self::StallLastMessageId => {
                Command::GetLastMessageId(pb::CommandGetLastMessageId { consumer_id, ..Default::default() })
            }
            Self::Stats { .. } | Self::StallStats => {
                Command::ConsumerStats(pb::CommandConsumerStats { consumer_id, request_id: 0 })
            }
            Self::Seek { to, .. } => Command::Seek(to.command(consumer_id)),
        }
    }

    /// Ends it with an error.
    pub(super) fn fail(self, error: Error, deferred: &mut Deferred) {
        match self {
            Self::Ack { reply, .. } | Self::Unsubscribe { reply, .. } | Self::Seek { reply, .. } => {
                reply.send(Err(error), deferred);
            }
            Self::LastMessageId { reply, .. } => reply.send(Err(error), deferred),
            Self::Stats { reply } => reply.send(Err(error), deferred),
            // Nobody waits for these.
            Self::StallStats | Self::StallLastMessageId => {}
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
            ack_set: id.ack_set.to_vec(),
            ..Default::default()
        })
        .collect();
    let ack_type = if cumulative { AckType::Cumulative } else { AckType::Individual };
    pb::CommandAck {
        consumer_id,
        ack_type: ack_type.into(),
        message_id,
        // Its presence asks for the response; the connection fills in the number.
        request_id: Some(0),
        ..Default::default()
    }
}

/// See the module for the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OperationState {
    Waiting,
    Sent,
    /// A seek that succeeded, whose consumer is still to be attached again.
    Answered,
}

#[derive(Debug)]
struct PendingOperation {
    number: u64,
    deadline: Option<Instant>,
    state: OperationState,
    operation: Operation,
}

/// All operations of a consumer, oldest first. They have the same timeout, so the first one's deadline is the earliest.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pending: VecDeque<PendingOperation>,
    last_number: u64,
}

impl Operations {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// A number that no request of this consumer has had: an answer to an earlier one finds nothing.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Adds one; it is refused when there are too many.
    pub(super) fn push(&mut self, operation: Operation, timeout: Duration, now: Now, deferred: &mut Deferred) {
        if self.pending.len() == OPERATIONS_MAX {
            let full = Error::local(ErrorKind::QueueFull, "too many operations of this consumer wait for the broker");
            return operation.fail(full, deferred);
        }
        let number = self.next_number();
        let deadline = now.at.checked_add(timeout);
        self.pending.push_back(PendingOperation { number, deadline, state: OperationState::Waiting, operation });
    }

    /// Sends all that wait: gives each to `request`.
    pub(super) fn send(&mut self, consumer_id: u64, mut request: impl FnMut(Op, Command)) {
        for pending in self.pending.iter_mut().filter(|pending| pending.state == OperationState::Waiting) {
            pending.state = OperationState::Sent;
            let op = Op { kind: pending.operation.kind(), number: pending.number };
            request(op, pending.operation.command(consumer_id));
        }
    }

    /// Whether a seek is about to be sent.
    pub(super) fn is_seek_waiting(&self) -> bool {
        let is_waiting_seek = |pending: &PendingOperation| {
            pending.state == OperationState::Waiting && pending.operation.kind() == OpKind::Seek
        };
        self.pending.iter().any(is_waiting_seek)
    }

    fn index(&self, number: u64) -> Option<usize> {
        self.pending.binary_search_by_key(&number, |pending| pending.number).ok()
    }

    /// Takes one out; `None` if it has ended already.
    pub(super) fn take(&mut self, number: u64) -> Option<Operation> {
        let index = self.index(number)?;
        self.pending.remove(index).map(|pending| pending.operation)
    }

    /// The connection was lost before the answer came: it is sent again on the next one.
    pub(super) fn retry(&mut self, number: u64) {
        if let Some(pending) = self.index(number).and_then(|index| self.pending.get_mut(index)) {
            pending.state = OperationState::Waiting;
        }
    }

    /// Removes what a consumer asks for itself: one that lost its broker, or has ended, has no stall.
    pub(super) fn drop_stall_checks(&mut self) {
        let is_stall_check =
            |operation: &Operation| matches!(operation, Operation::StallStats | Operation::StallLastMessageId);
        self.pending.retain(|pending| !is_stall_check(&pending.operation));
    }

    /// The seek has succeeded and now waits for the next attach.
    pub(super) fn set_answered(&mut self, number: u64) -> Option<&Operation> {
        let index = self.index(number)?;
        let pending = self.pending.get_mut(index)?;
        pending.state = OperationState::Answered;
        Some(&pending.operation)
    }

    /// A new attach. What was sent for the consumer of the last one is sent again: a broker does not answer an ACK of
    /// a consumer that it does not know. Not so a seek, whose answer is still to come although the consumer is closed.
    /// Returns the seek that ends with this attach.
    pub(super) fn on_attached(&mut self) -> Option<Operation> {
        for pending in &mut self.pending {
            if pending.state == OperationState::Sent && pending.operation.kind() != OpKind::Seek {
                pending.state = OperationState::Waiting;
            }
        }
        let answered = self.pending.iter().position(|pending| pending.state == OperationState::Answered)?;
        self.pending.remove(answered).map(|pending| pending.operation)
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.pending.front().and_then(|pending| pending.deadline)
    }

    /// The next one whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: Now) -> Option<Operation> {
        let first = self.pending.front()?;
        let is_overdue = first.deadline.is_some_and(|at| at <= now.at);
        if is_overdue { self.pending.pop_front().map(|pending| pending.operation) } else { None }
    }

    /// Ends those that name a position in the topic, or are about one, with `error`.
    pub(super) fn fail_positions(&mut self, error: &Error, deferred: &mut Deferred) {
        for pending in std::mem::take(&mut self.pending) {
            match pending.operation {
                Operation::Ack { .. } | Operation::Seek { .. } => pending.operation.fail(error.clone(), deferred),
                _ => self.pending.push_back(pending),
            }
        }
    }

    /// Ends them all with `error`.
    pub(super) fn fail_all(&mut self, error: &Error, deferred: &mut Deferred) {
        for pending in self.pending.drain(..) {
            pending.operation.fail(error.clone(), deferred);
        }
    }
}
