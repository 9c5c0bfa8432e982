//! What a topic keeps: its log of entries, and how far each subscription has acknowledged it.
//!
//! A *position* is what the protocol names (`ledgerId`, `entryId`); an *offset* counts entries from the topic's first
//! one and has no gaps. [`Log`] translates between the two, [`CompactedLog`] has of each key the last value; everything else of the broker works with offsets.

pub(crate) mod compaction;
mod cursor;
mod entry_info;
mod log;

pub(crate) use compaction::CompactedLog;
pub(crate) use cursor::Cursor;
pub(crate) use entry_info::{CHECKSUM_BLOCK_BYTES, EntryInfo, Inspection, inspect};
pub(crate) use log::{Log, StoredEntry};

/// `ledgerId` and `entryId` of `MessageIdData`. Signed, because −1 has a meaning in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryPosition {
    pub(crate) ledger: i64,
    pub(crate) entry: i64,
}

impl EntryPosition {
    /// The position of an entry that no ledger holds: of a topic without entries.
    pub(crate) const NONE: Self = Self { ledger: -1, entry: -1 };

    /// Reads the unsigned numbers of the wire, where −1 travels as 2^64−1.
    pub(crate) fn from_wire(ledger: u64, entry: u64) -> Self {
        Self { ledger: ledger as i64, entry: entry as i64 }
    }

    pub(crate) fn of(id: &crate::pb::MessageIdData) -> Self {
        Self::from_wire(id.ledger_id, id.entry_id)
    }

    /// `MessageIdData` of this position and nothing else.
    pub(crate) fn to_id(self) -> crate::pb::MessageIdData {
        crate::pb::MessageIdData { ledger_id: self.ledger as u64, entry_id: self.entry as u64, ..Default::default() }
    }
}

impl std::fmt::Display for EntryPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ledger, self.entry)
    }
}
