//! What SEND and MESSAGE carry.

use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, EntrySummary, Metadata};

/// Magic number and CRC in front of an entry.
const CHECKSUM_BYTES: usize = 6;

/// `metadata_size`.
const METADATA_SIZE_BYTES: usize = 4;

/// The part of a SEND behind its command.
pub(super) enum SentEntry<'a> {
    /// Too short for its own headers.
    Truncated,
    ChecksumMismatch,
    Sound {
        crc32c: u32,
        payload_bytes: usize,
        /// `None` for metadata that cannot be read.
        metadata: Option<SentMetadata<'a>>,
    },
}

pub(super) struct SentMetadata<'a> {
    pub(super) sequence_id: u64,
    pub(super) producer_name: &'a str,
    pub(super) messages: u32,
}

pub(super) fn sent(entry: &[u8]) -> SentEntry<'_> {
    let Ok(parts) = EntryParts::split(entry) else { return unreadable(entry) };
    let crc32c = crc32c::crc32c(entry.get(parts.checksummed_from..).unwrap_or_default());
    if parts.checksum.is_some_and(|sent| sent != crc32c) {
        return SentEntry::ChecksumMismatch;
    }
    let payload_bytes = parts.payload.len();
    let bytes = entry.get(parts.metadata).unwrap_or_default();
    let metadata = Metadata::decode(bytes).ok().map(|parsed| SentMetadata {
        sequence_id: parsed.sequence_id,
        producer_name: metadata::text(bytes, &parsed.producer_name),
        messages: members(parsed.num_messages_in_batch),
    });
    SentEntry::Sound { crc32c, payload_bytes, metadata }
}

/// An entry that ends before its metadata does: a broker stores it, if it has the headers.
fn unreadable(entry: &[u8]) -> SentEntry<'_> {
    let (sent, summed) = match entry.split_first_chunk::<CHECKSUM_BYTES>() {
        Some(([0x0e, 0x01, sent @ ..], rest)) => (Some(u32::from_be_bytes(*sent)), rest),
        _ => (None, entry),
    };
    if summed.len() < METADATA_SIZE_BYTES {
        return SentEntry::Truncated;
    }
    match crc32c::crc32c(summed) {
        crc32c if sent.is_none_or(|sent| sent == crc32c) => {
            SentEntry::Sound { crc32c, payload_bytes: 0, metadata: None }
        }
        _ => SentEntry::ChecksumMismatch,
    }
}

/// The part of a MESSAGE behind its command.
pub(super) struct DeliveredEntry {
    /// As the broker counts permits: the members of a batch that are left, or one.
    pub(super) messages: u32,
    pub(super) payload_bytes: usize,
    pub(super) is_damaged: bool,
}

/// `ack_set`: of `CommandMessage`.
pub(super) fn delivered(entry: &[u8], ack_set: &[i64]) -> DeliveredEntry {
    let Ok(parts) = EntryParts::split(entry) else {
        return DeliveredEntry { messages: 1, payload_bytes: 0, is_damaged: false };
    };
    let is_damaged = parts.verify(entry).is_err();
    let bytes = entry.get(parts.metadata).unwrap_or_default();
    let members = EntrySummary::decode(bytes).map_or(1, |summary| members(summary.num_messages_in_batch));
    let left = ack_set.iter().map(|word| word.count_ones()).sum::<u32>();
    let messages = if ack_set.is_empty() { members } else { left.min(members) };
    DeliveredEntry { messages, payload_bytes: parts.payload.len(), is_damaged }
}

fn members(num_messages_in_batch: Option<i32>) -> u32 {
    u32::try_from(num_messages_in_batch.unwrap_or(1)).unwrap_or(0).max(1)
}
