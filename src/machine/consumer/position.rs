//! The place of an entry in its topic.

use std::cmp::Ordering;

use crate::id::MessagePosition;
use crate::wire::{AckId, AckWords};

/// Ledger and entry. Both are signed on the wire in all but type: 2^64-1 is -1 and comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct EntryPosition {
    pub(super) ledger_id: u64,
    pub(super) entry_id: u64,
}

impl EntryPosition {
    /// Below every real position.
    pub(super) const LOWEST: Self = Self { ledger_id: i64::MIN as u64, entry_id: i64::MIN as u64 };

    /// That of the message's entry.
    pub(super) fn of(id: &MessagePosition) -> Self {
        Self { ledger_id: id.ledger_id, entry_id: id.entry_id }
    }

    /// As the id of the whole entry, without a partition.
    pub(super) fn to_id(self) -> MessagePosition {
        MessagePosition::new(self.ledger_id, self.entry_id)
    }

    /// That of an acknowledged entry.
    pub(super) fn of_ack(id: &AckId) -> Self {
        Self { ledger_id: id.ledger_id, entry_id: id.entry_id }
    }

    /// As part of an ACK; without words the whole entry.
    pub(super) fn ack_id(self, ack_set: AckWords) -> AckId {
        AckId { ledger_id: self.ledger_id, entry_id: self.entry_id, ack_set }
    }

    /// The entry before; before the first one of a ledger that is entry -1, "nothing of this ledger".
    pub(super) fn previous(self) -> Self {
        Self { entry_id: self.entry_id.wrapping_sub(1), ..self }
    }

    fn key(self) -> (i64, i64) {
        (self.ledger_id as i64, self.entry_id as i64)
    }
}

impl Ord for EntryPosition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for EntryPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
