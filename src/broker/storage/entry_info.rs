//! What the broker keeps of an entry besides its bytes: read once, when its SEND arrives.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hash::murmur3_32;
use crate::wire::MAGIC_CRC32C;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// `metadata_size`.
const SIZE_BYTES: usize = 4;
/// Magic and CRC in front of an entry.
pub(crate) const CHECKSUM_BLOCK_BYTES: usize = 6;

/// What the headers and the `MessageMetadata` of an entry say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EntryInfo {
    /// False where `MessageMetadata` does not parse; all of the below is then absent or 0.
    pub(crate) readable: bool,
    /// Length of the checksum block in front, which peers below version 11 do not get; 0 for none.
    pub(crate) checksum_bytes: usize,
    /// `num_messages_in_batch`; `None` for a message that is not a batch.
    pub(crate) batch: Option<u32>,
    /// `publish_time`, ms since 1970.
    pub(crate) publish_time_ms: u64,
    /// `deliver_at_time`, ms since 1970.
    pub(crate) deliver_at_ms: Option<u64>,
    /// murmur3_32 of the sticky key, masked to 31 bits.
    pub(crate) key_hash: u32,
    /// It has neither an ordering key nor a partition key.
    pub(crate) is_keyless: bool,
    /// `marker_type` is there: brokers write it for each other, and no consumer gets it.
    pub(crate) is_marker: bool,
    /// The chunked message that this entry is one chunk of.
    pub(crate) chunk: Option<ChunkOfMessage>,
    /// `sequence_id` of the metadata.
    pub(crate) sequence_id: u64,
    /// `highest_sequence_id` of a batch, else 0.
    pub(crate) highest_sequence_id: u64,
}

impl EntryInfo {
    /// Messages inside: the members of a batch, or one.
    pub(crate) fn messages(&self) -> u32 {
        self.batch.unwrap_or(1).max(1)
    }

    /// Deduplication looks only at the last chunk of a chunked message.
    pub(crate) fn is_last_chunk(&self) -> bool {
        self.chunk.as_ref().is_none_or(|chunk| chunk.is_last)
    }

    fn fill(&mut self, parsed: &Metadata, bytes: &[u8]) {
        self.readable = true;
        self.batch = parsed.num_messages_in_batch.map(|members| u32::try_from(members).unwrap_or(0));
        self.publish_time_ms = parsed.publish_time_ms;
        self.deliver_at_ms = parsed.deliver_at_time_ms.and_then(|at| u64::try_from(at).ok());
        self.sequence_id = parsed.sequence_id;
        self.highest_sequence_id = parsed.highest_sequence_id;
        self.key_hash = key_hash(parsed, bytes);
        self.is_keyless = parsed.ordering_key.is_none() && parsed.partition_key.is_none();
        self.is_marker = parsed.marker_type.is_some();
        self.chunk = parsed.chunk.as_ref().filter(|chunk| chunk.num_chunks > 1).map(|chunk| ChunkOfMessage {
            uuid: Arc::from(metadata::text(bytes, &chunk.uuid)),
            is_last: chunk.chunk_id == chunk.num_chunks - 1,
        });
    }
}

/// The place of an entry in a chunked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkOfMessage {
    pub(crate) uuid: Arc<str>,
    pub(crate) is_last: bool,
}

/// What the part of a SEND behind its command turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inspection {
    /// Too short for its own headers.
    Truncated,
    /// The checksum does not match.
    ChecksumMismatch,
    /// Fit to be stored. `crc32c` is that of metadata and payload, sent along or not.
    Sound { info: Box<EntryInfo>, crc32c: u32, producer_name: Box<str> },
}

/// Checks the checksum and reads the metadata. The info of unreadable metadata is not `readable`.
pub(crate) fn inspect(entry: &[u8]) -> Inspection {
    let with_checksum = entry.first_chunk().copied().map(u16::from_be_bytes) == Some(MAGIC_CRC32C);
    let checksum_bytes = if with_checksum { CHECKSUM_BLOCK_BYTES } else { 0 };
    let Some(summed) = entry.get(checksum_bytes..).filter(|rest| rest.len() >= SIZE_BYTES) else {
        return Inspection::Truncated;
    };
    let crc32c = crc32c::crc32c(summed);
    let sent =
        with_checksum.then(|| entry.get(2..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_be_bytes));
    if sent.flatten().is_some_and(|sent| sent != crc32c) {
        return Inspection::ChecksumMismatch;
    }
    let mut info = EntryInfo { checksum_bytes, ..EntryInfo::default() };
    let mut producer_name = "";
    if let Some(bytes) = EntryParts::split(entry).ok().and_then(|parts| entry.get(parts.metadata)) {
        if let Ok(parsed) = Metadata::decode(bytes) {
            producer_name = metadata::text(bytes, &parsed.producer_name);
            info.fill(&parsed, bytes);
        }
    }
    Inspection::Sound { info: Box::new(info), crc32c, producer_name: producer_name.into() }
}

/// Hash of the sticky key: the ordering key, else the partition key, else a key that spreads evenly.
fn key_hash(parsed: &Metadata, bytes: &[u8]) -> u32 {
    if let Some(key) = &parsed.ordering_key {
        return murmur3_32(metadata::bytes(bytes, key));
    }
    match &parsed.partition_key {
        Some(key) if parsed.partition_key_b64 => {
            let text = metadata::bytes(bytes, key);
            STANDARD.decode(text).map_or_else(|_| murmur3_32(text), |key| murmur3_32(&key))
        }
        Some(key) => murmur3_32(metadata::bytes(bytes, key)),
        None => {
            let name = metadata::text(bytes, &parsed.producer_name);
            murmur3_32(format!("{name}-{}", parsed.sequence_id).as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_their_headers_are_told_apart_from_damaged_ones() {
        for headless in [&b""[..], b"\x0e", b"\x0e\x01\x00", b"\x0e\x01\x00\x00\x00\x00\x00", b"\x00\x00\x00"] {
            assert_eq!(inspect(headless), Inspection::Truncated, "{headless:?}");
        }
        assert_eq!(inspect(b"\x0e\x01\x00\x00\x00\x00\x00\x00\x00\x00"), Inspection::ChecksumMismatch);
        // No checksum, and metadata larger than the frame: stored all the same.
        let Inspection::Sound { info, .. } = inspect(b"\x00\x00\x10\x00abc") else { panic!("must be stored") };
        assert!(!info.readable);
    }
}
