//! Acknowledgements that wait to be written.
//!
//! Which members of a batch are acknowledged is state of the client. An entry goes out as its plain id once all its
//! members are acknowledged, whatever the broker's setting: a broker without batch index acknowledgement ignores an
//! `ack_set`, even an empty one. With index acknowledgement on, the sets of unfinished batches go out as well; with it
//! off they are only held, and a cumulative acknowledgement inside a batch goes out for the entry before.
//!
//! Nothing here is dropped when a connection is lost: what has not been written goes out after the next attach, and
//! unfinished batches stay known, so that their acknowledged members are not delivered to the application again.
//!
//! | file | what |
//! | --- | --- |
//! | `partials` | batches of which some members are acknowledged |
//! | `confirmed` | the ids of an ACK that is answered, and what becomes of them if it fails |
//! | `frames` | what is written |

use std::time::{Duration, Instant};

use super::ConsumerConfig;
use super::position::EntryPosition;
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessagePosition;
use crate::machine::{Dirty, Now};
use crate::wire::hot::BATCH_MEMBERS_MAX;
use crate::wire::{AckId, AckWords};

mod confirmed;
mod frames;
mod partials;

use partials::{Partial, Partials};

/// The most acknowledgements that wait for a connection, in entries. At the bound further ones are refused with
/// [`ErrorKind::QueueFull`]; a refused message stays unacknowledged and can be acknowledged again later.
const PENDING_ACKS_MAX: usize = 64 * 1024;

/// The most damaged entries that wait to be reported. At the bound the oldest is not reported, so that the broker
/// delivers it again to a later attach.
const DAMAGED_MAX: usize = 1000;

/// What the topic and the options say about acknowledgements.
#[derive(Debug, Clone, Copy)]
pub(super) struct AckPolicy {
    /// False on a non-persistent topic, where there is nothing to acknowledge.
    are_needed: bool,
    /// `batch_index_acknowledgment`.
    index_acks: bool,
    /// `acknowledgment_group_time`.
    group_time: Duration,
    /// `max_acknowledgment_group_size`.
    group_len_max: usize,
}

impl AckPolicy {
    pub(super) fn new(topic: &str, config: &ConsumerConfig) -> Self {
        Self {
            are_needed: !topic.starts_with("non-persistent://"),
            index_acks: config.batch_index_acknowledgment,
            group_time: config.acknowledgment_group_time,
            group_len_max: config.max_acknowledgment_group_size,
        }
    }
}

/// What an id names.
enum AckTarget {
    Entry,
    /// A member of a batch. A size of 0 is unknown.
    Member {
        index: u32,
        size: u32,
    },
}

impl AckTarget {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: the index lies outside the batch, or the batch is larger than any.
    fn of(id: &MessagePosition) -> Result<Self> {
        let Ok(index) = u32::try_from(id.batch_index) else { return Ok(Self::Entry) };
        let size = u32::try_from(id.batch_size).unwrap_or(0);
        if (index, size) == (0, 1) {
            return Ok(Self::Entry);
        }
        if size > BATCH_MEMBERS_MAX || (size > 0 && index >= size) {
            return Err(Error::local(ErrorKind::InvalidArgument, "the id names no member of its batch"));
        }
        Ok(Self::Member { index, size })
    }
}

/// "All up to and including this entry"; with an `ack_set`, "and these members of it are not".
#[derive(Debug, PartialEq, Eq)]
struct CumulativeAck {
    position: EntryPosition,
    ack_set: AckWords,
}

/// The acknowledgements of one consumer.
#[derive(Debug)]
pub(super) struct Acks {
    policy: AckPolicy,
    /// Individual acknowledgements to be sent.
    ids: Vec<AckId>,
    /// The highest position in `ids`, so that a new entry is known to be none of them by one comparison.
    highest: EntryPosition,
    /// The cumulative acknowledgement to be sent; a later one replaces it.
    cumulative: Option<CumulativeAck>,
    /// The entry before a batch that is cumulatively acknowledged in part: it is acknowledged once.
    previous: Option<EntryPosition>,
    partials: Partials,
    /// Partials with a change to be sent; may name some that are finished by now.
    unsent: Vec<EntryPosition>,
    /// Entries that cannot be read, with their `validation_error`.
    damaged: Vec<(EntryPosition, i32)>,
    /// When the oldest of all this has waited for the group time.
    due_at: Option<Instant>,
    /// All of it is to be sent now.
    is_flush_due: bool,
    /// Written on this connection: certain once the broker has answered what was written behind them. Entries.
    written: u64,
    /// Of those that were written, or given up, how many the broker may not have: see [`Self::unconfirmed`].
    in_doubt: u64,
}

impl Acks {
    pub(super) fn new(policy: AckPolicy) -> Self {
        Self {
            policy,
            ids: Vec::new(),
            highest: EntryPosition::LOWEST,
            cumulative: None,
            previous: None,
            partials: Partials::default(),
            unsent: Vec::new(),
            damaged: Vec::new(),
            due_at: None,
            is_flush_due: false,
            written: 0,
            in_doubt: 0,
        }
    }

    /// Whether acknowledgements have a meaning on this topic.
    #[inline]
    pub(super) fn are_needed(&self) -> bool {
        self.policy.are_needed
    }

    /// The common case of [`ack_slow`](Self::ack_slow): a member of the batch worked on last, where the broker need not
    /// be told anything new. Others of the batch are open, and their set is not sent, or is to be sent already.
    /// `false`: it is another case, and nothing was done.
    #[inline]
    pub(super) fn ack_fast(&mut self, id: &MessagePosition) -> bool {
        if self.len() >= PENDING_ACKS_MAX {
            return false;
        }
        let index_acks = self.policy.index_acks;
        let (Ok(index), Ok(size)) = (u32::try_from(id.batch_index), u32::try_from(id.batch_size)) else { return false };
        match self.partials.last_mut(EntryPosition::of(id)) {
            Some(partial) if partial.size == size && index < size && (partial.unsent || !index_acks) => {
                partial.set.clear_unless_last(index)
            }
            _ => false,
        }
    }

    /// Acknowledges one message, or an entry whole. Says whether that finished an entry.
    ///
    /// | `id` names | what is to be sent |
    /// | --- | --- |
    /// | an entry: no batch, or the only member of one | the entry |
    /// | the last unacknowledged member of a batch | the entry |
    /// | another member, with index acknowledgement | the set of the batch |
    /// | another member, without | nothing; the member is noted |
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`]; an id that cannot be used: [`ErrorKind::InvalidArgument`].
    pub(super) fn ack_slow(&mut self, id: &MessagePosition) -> Result<bool> {
        if self.len() >= PENDING_ACKS_MAX {
            return Err(Error::local(ErrorKind::QueueFull, "too many acknowledgements wait for a connection"));
        }
        let position = EntryPosition::of(id);
        match AckTarget::of(id)? {
            AckTarget::Entry => {
                self.ack_entry(position);
                Ok(true)
            }
            AckTarget::Member { index, size } => {
                let finished = self.clear_member(position, index, size)?;
                if finished {
                    self.push(position.ack_id(AckWords::NONE));
                } else if self.policy.index_acks {
                    self.mark_unsent(position);
                }
                Ok(finished)
            }
        }
    }

    /// Acknowledges an entry whole, whatever was known of its members.
    pub(super) fn ack_entry(&mut self, position: EntryPosition) {
        if !self.partials.is_empty() {
            self.partials.remove(position);
        }
        self.push(position.ack_id(AckWords::NONE));
    }

    /// Acknowledges everything up to and including `id`. Returns the last entry that is finished by it.
    pub(super) fn ack_cumulative(&mut self, id: &MessagePosition) -> Result<EntryPosition> {
        let (cumulative, finished) = self.resolve_cumulative(id)?;
        self.remove_covered(finished);
        let is_of_entry_before = cumulative.position != EntryPosition::of(id);
        if is_of_entry_before && self.previous.replace(finished) == Some(finished) {
            return Ok(finished);
        }
        let is_newer = self.cumulative.as_ref().is_none_or(|waiting| {
            waiting.position < cumulative.position
                || (waiting.position == cumulative.position && !waiting.ack_set.is_empty())
        });
        if is_newer {
            self.cumulative = Some(cumulative);
        }
        Ok(finished)
    }

    /// What a cumulative acknowledgement of `id` sends, and the last entry that is finished by it.
    ///
    /// | `id` names | sent | finished |
    /// | --- | --- | --- |
    /// | an entry, or the last unacknowledged member of a batch | up to the entry | the entry |
    /// | another member, with index acknowledgement | up to the entry, with the members that are left | the entry before |
    /// | another member, without | up to the entry before | the entry before |
    fn resolve_cumulative(&mut self, id: &MessagePosition) -> Result<(CumulativeAck, EntryPosition)> {
        let position = EntryPosition::of(id);
        if let AckTarget::Member { index, size } = AckTarget::of(id)? {
            let partial = self.partial(position, size)?;
            partial.set.clear_up_to(index);
            if !partial.set.is_empty() {
                let ack_set = partial.set.to_words().into();
                let previous = position.previous();
                return Ok(match self.policy.index_acks {
                    true => (CumulativeAck { position, ack_set }, previous),
                    false => (CumulativeAck { position: previous, ack_set: AckWords::NONE }, previous),
                });
            }
        }
        Ok((CumulativeAck { position, ack_set: AckWords::NONE }, position))
    }

    /// What is known of a batch; an unknown one of `size` is one of which nothing is acknowledged.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: it is unknown, and so is its size.
    fn partial(&mut self, position: EntryPosition, size: u32) -> Result<&mut Partial> {
        if size == 0 {
            let unknown = "the id names a member of a batch but not how large the batch is";
            let partial = self.partials.find(position);
            return partial.ok_or_else(|| Error::local(ErrorKind::InvalidArgument, unknown));
        }
        Ok(self.partials.find_or_insert(position, size, &mut self.ids))
    }

    /// Notes that a member is acknowledged; true if it was the last one, and then the batch is not held any more.
    fn clear_member(&mut self, position: EntryPosition, index: u32, size: u32) -> Result<bool> {
        let partial = self.partial(position, size)?;
        partial.set.clear(index);
        let finished = partial.set.is_empty();
        if finished {
            self.partials.remove(position);
        }
        Ok(finished)
    }

    fn mark_unsent(&mut self, position: EntryPosition) {
        if let Some(partial) = self.partials.find(position) {
            if !partial.unsent {
                partial.unsent = true;
                self.unsent.push(position);
            }
        }
    }

    fn push(&mut self, id: AckId) {
        self.highest = self.highest.max(EntryPosition::of_ack(&id));
        self.ids.push(id);
    }

    /// What lies at or below a cumulative acknowledgement needs none of its own.
    fn remove_covered(&mut self, up_to: EntryPosition) {
        self.ids.retain(|id| EntryPosition::of_ack(id) > up_to);
        self.partials.remove_below(up_to);
        self.partials.remove(up_to);
    }

    /// Takes a damaged entry out of the subscription, with the reason.
    pub(super) fn reject(&mut self, position: EntryPosition, validation_error: i32) {
        self.partials.remove(position);
        if self.damaged.len() == DAMAGED_MAX {
            self.damaged.remove(0);
        }
        self.damaged.push((position, validation_error));
        self.is_flush_due = true;
    }

    /// Whether an acknowledgement of the whole entry waits to be sent, so that a delivery of it crossed it.
    pub(super) fn covers(&self, position: EntryPosition) -> bool {
        let is_covered =
            |ack: &CumulativeAck| position < ack.position || (position == ack.position && ack.ack_set.is_empty());
        let is_of_entry = |id: &AckId| id.ack_set.is_empty() && EntryPosition::of_ack(id) == position;
        self.cumulative.as_ref().is_some_and(is_covered)
            || (position <= self.highest && !self.ids.is_empty() && self.ids.iter().any(is_of_entry))
    }

    /// Whether a delivery needs [`exclude_acknowledged`](Self::exclude_acknowledged) although it says nothing of its
    /// members.
    pub(super) fn has_partials(&self) -> bool {
        !self.partials.is_empty()
    }

    /// A batch of `size` was delivered. `ack_set`, the members that are open at the broker (none: all), becomes those
    /// that are open here as well; returns how many.
    ///
    /// | known of the batch | what is done |
    /// | --- | --- |
    /// | nothing, at the broker and here | nothing: `None` |
    /// | something | what the broker knows is noted, so that the last unacknowledged member finishes the entry here |
    /// | that no member is unacknowledged | the entry is acknowledged whole |
    pub(super) fn exclude_acknowledged(
        &mut self,
        position: EntryPosition,
        size: u32,
        ack_set: &mut AckWords,
    ) -> Option<u32> {
        if ack_set.is_empty() && self.partials.find(position).is_none() {
            return None;
        }
        let partial = self.partials.find_or_insert(position, size, &mut self.ids);
        partial.set.and_with(ack_set);
        let open = partial.set.count();
        *ack_set = partial.set.to_words().into();
        if open == 0 {
            self.ack_entry(position);
        }
        Some(open)
    }

    /// Something was noted: starts the group time if it is the first, or flushes a full group. Says what that gives the
    /// owner to do.
    pub(super) fn schedule(&mut self, now: impl FnOnce() -> Now) -> Dirty {
        if self.is_flush_due || !self.has_pending() {
            return Dirty::Clean;
        }
        if self.policy.group_time.is_zero() || self.len() >= self.policy.group_len_max {
            self.is_flush_due = true;
            return Dirty::Now;
        }
        if self.due_at.is_none() {
            self.due_at = now().at.checked_add(self.policy.group_time);
            return Dirty::AtDeadline;
        }
        Dirty::Clean
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_pending(&self) -> bool {
        self.len() > 0 || !self.damaged.is_empty()
    }

    /// Acknowledgements that wait to be sent, in entries.
    #[inline]
    fn len(&self) -> usize {
        self.ids.len() + self.unsent.len() + usize::from(self.cumulative.is_some())
    }

    /// When the group time is over.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// What waits is to be sent without waiting longer.
    pub(super) fn flush(&mut self) {
        self.is_flush_due = self.has_pending();
    }

    pub(super) fn is_due(&self, now: Now) -> bool {
        self.is_flush_due || self.due_at.is_some_and(|at| at <= now.at)
    }

    /// A new attach: what was sent on the last connection may not have reached the broker.
    pub(super) fn on_attached(&mut self) {
        self.previous = None;
        if self.policy.index_acks {
            self.unsent = self.partials.mark_all_unsent();
        }
        self.flush();
    }

    /// A seek, or the end: nothing that was acknowledged before means anything any more.
    pub(super) fn reset(&mut self) {
        *self = Self { written: self.written, in_doubt: self.in_doubt, ..Self::new(self.policy) };
    }

    /// The application is to get no more messages. What was lost with an earlier connection has come again, unless it is
    /// `attached` no more.
    pub(super) fn on_stopped(&mut self, attached: bool) {
        self.in_doubt = if attached { 0 } else { self.in_doubt };
    }

    /// What was written may not have reached the broker. Before a stop its messages come again, to the application.
    pub(super) fn on_connection_lost(&mut self, stopped: bool) {
        let written = std::mem::take(&mut self.written);
        self.in_doubt = if stopped { self.in_doubt + written } else { written };
        if mutation!(DrainForgetsLostAcks) {
            self.in_doubt = 0;
        }
    }

    /// The broker has answered something that was written behind everything else.
    pub(super) fn on_confirmed(&mut self) {
        self.written = 0;
    }

    /// The end: what waits is not sent any more.
    pub(super) fn give_up(&mut self) {
        self.in_doubt = self.unconfirmed();
        self.written = 0;
        self.reset();
    }

    /// How many acknowledgements the broker may not have: entries, and members of batches of which others are open, since
    /// brokers do not say whether they keep those.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.in_doubt + self.written + self.len() as u64 + self.partials.acknowledged_members()
    }
}
