//! Seeks: where they go, and what of the entry that was sought to is not delivered.
//!
//! From the call until its result no message is delivered and acknowledgements are ignored: all of them are of the
//! position that is being left. On a persistent topic the broker closes the consumer before it answers, and the seek
//! ends with the attach that follows; on a non-persistent one it ends with the answer.

use std::time::SystemTime;

use super::position::EntryPosition;
use crate::id::{MessageId, MessagePosition};
use crate::machine::Now;
use crate::pb;
use crate::wall_time::{from_ms, to_ms};
use crate::wire::hot::BATCH_MEMBERS_MAX;
use crate::wire::{AckSet, AckWords};

/// Where a seek goes (`CommandSeek`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// Before the first message of the topic.
    Earliest,
    /// Behind the last message of the topic.
    Latest,
    /// To a message. The ids [`EARLIEST`](MessageId::EARLIEST) and [`LATEST`](MessageId::LATEST) are the two ends, inclusive
    /// or not.
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
    /// The ends of a topic as such, also where an id says them, of whichever partition.
    #[must_use]
    pub(crate) fn normal(self) -> Self {
        let Self::Message { id, .. } = &self else { return self };
        let ledger_id = id.position().ledger_id;
        if ledger_id == MessagePosition::EARLIEST.ledger_id {
            Self::Earliest
        } else if ledger_id == MessagePosition::LATEST.ledger_id {
            Self::Latest
        } else {
            self
        }
    }

    /// The same for a topic that cannot be asked where it ends: what is published from now on.
    #[must_use]
    pub(crate) fn of_ended(self, now: Now) -> Self {
        match self.normal() {
            Self::Latest => Self::PublishTime(from_ms(now.wall_ms)),
            other => other,
        }
    }

    /// Whether it is an entry behind that of an id.
    pub(crate) fn is_beyond(&self, id: &MessagePosition) -> bool {
        matches!(self, Self::Message { id: of, .. } if EntryPosition::of(&of.position()) > EntryPosition::of(id))
    }

    /// SEEK, without its request id.
    pub(super) fn command(&self, consumer_id: u64) -> pb::CommandSeek {
        let (id, message_publish_time) = match self {
            Self::Earliest => (Some(MessagePosition::EARLIEST), None),
            Self::Latest => (Some(MessagePosition::LATEST), None),
            // A chunked message begins with its first chunk, and ends with the one that its id names.
            Self::Message { id, inclusive: true } => (Some(id.first_chunk().as_ref().unwrap_or(id).position()), None),
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
        if index >= size || size > BATCH_MEMBERS_MAX {
            return Vec::new();
        }
        let mut set = AckSet::full(size);
        clear_before(&mut set, index, *inclusive);
        set.to_words()
    }
}

/// Takes the members before `index` out of `set`, and unless `inclusive` that one too.
fn clear_before(set: &mut AckSet, index: u32, inclusive: bool) {
    match (inclusive, index.checked_sub(1)) {
        (false, _) => drop(set.clear_up_to(index)),
        (true, Some(before)) => drop(set.clear_up_to(before)),
        (true, None) => {}
    }
}

/// The entry that was sought to, and what of it is not delivered. A broker seeks to an entry, but not behind it, and
/// without batch index acknowledgement not into its batch either.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeekStart {
    position: EntryPosition,
    batch_index: Option<u32>,
    inclusive: bool,
}

impl SeekStart {
    /// `None` where the whole entry is delivered.
    pub(super) fn of(to: &SeekTo) -> Option<Self> {
        let SeekTo::Message { id, inclusive } = to else { return None };
        let (batch_index, inclusive) = (id.batch_index(), *inclusive);
        (!inclusive || batch_index.is_some()).then_some(Self {
            position: EntryPosition::of(&id.position()),
            batch_index,
            inclusive,
        })
    }

    /// Takes the members that lie before the start out of `ack_set`, the set of a batch of `size` or of a message
    /// outside a batch. False if nothing of it is left.
    pub(super) fn exclude_earlier(&self, size: Option<u32>, ack_set: &mut AckWords) -> bool {
        let (Some(size), Some(index)) = (size, self.batch_index) else { return self.inclusive };
        let mut set = AckSet::from_words(ack_set, size);
        clear_before(&mut set, index, self.inclusive);
        *ack_set = set.to_words().into();
        !set.is_empty()
    }
}

/// The seek of a consumer: one at a time.
#[derive(Debug, Default)]
pub(super) struct Seek {
    is_running: bool,
    start: Option<Box<SeekStart>>,
}

impl Seek {
    /// Whether messages and acknowledgements are of a position that is being left.
    #[inline]
    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) fn begin(&mut self) {
        self.is_running = true;
    }

    /// It has its result, whatever that is.
    pub(super) fn end(&mut self) {
        self.is_running = false;
    }

    /// The broker has moved the subscription.
    pub(super) fn set_start(&mut self, to: &SeekTo) {
        self.start = SeekStart::of(to).map(Box::new);
    }

    /// What is to be left out of the entry at `position`, if it is the one of the last seek.
    #[inline]
    pub(super) fn start_at(&self, position: EntryPosition) -> Option<SeekStart> {
        self.start.as_deref().filter(|start| start.position == position).copied()
    }
}
