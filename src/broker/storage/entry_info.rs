//! Reads from an entry, once, what the broker has to know of it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::broker::storage::log::{Chunk, EntryFacts};
use crate::hash::murmur3_32;
use crate::wire::MAGIC_CRC32C;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// `metadata_size`.
const SIZE_BYTES: usize = 4;
/// Magic and CRC in front of an entry.
pub(crate) const CHECKSUM_BLOCK_BYTES: usize = 6;

/// The part of a SEND behind its command, before it is stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Too short for its own headers.
    Headless,
    /// The checksum does not match.
    ChecksumMismatch,
    /// Fit to be stored. `sum` is the CRC-32C over metadata and payload, sent along or not.
    Sound { facts: Box<EntryFacts>, sum: u32, producer_name: Box<str> },
}

/// Checks the checksum and reads the metadata. Metadata that cannot be read makes facts that are not `readable`.
pub(crate) fn receive(entry: &[u8]) -> Received {
    let with_checksum = entry.first_chunk().copied().map(u16::from_be_bytes) == Some(MAGIC_CRC32C);
    let checksum_bytes = if with_checksum { CHECKSUM_BLOCK_BYTES } else { 0 };
    let Some(summed) = entry.get(checksum_bytes..).filter(|rest| rest.len() >= SIZE_BYTES) else {
        return Received::Headless;
    };
    let sum = crc32c::crc32c(summed);
    let sent =
        with_checksum.then(|| entry.get(2..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_be_bytes));
    if sent.flatten().is_some_and(|sent| sent != sum) {
        return Received::ChecksumMismatch;
    }
    let mut facts = EntryFacts { checksum_bytes, ..EntryFacts::default() };
    let mut producer_name = "";
    if let Some(bytes) = EntryParts::split(entry).ok().and_then(|parts| entry.get(parts.metadata)) {
        if let Ok(parsed) = Metadata::parse(bytes) {
            producer_name = metadata::text(bytes, &parsed.producer_name);
            fill(&mut facts, &parsed, bytes);
        }
    }
    Received::Sound { facts: Box::new(facts), sum, producer_name: producer_name.into() }
}

fn fill(facts: &mut EntryFacts, parsed: &Metadata, bytes: &[u8]) {
    facts.readable = true;
    facts.batch = parsed.num_messages_in_batch.map(|members| u32::try_from(members).unwrap_or(0));
    facts.publish_time_ms = parsed.publish_time_ms;
    facts.deliver_at_ms = parsed.deliver_at_time_ms.and_then(|at| u64::try_from(at).ok());
    facts.sequence_id = parsed.sequence_id;
    facts.highest_sequence_id = parsed.highest_sequence_id;
    facts.hashing_scheme = hashing_scheme(parsed, bytes);
    facts.chunk = parsed.chunk.as_ref().filter(|chunk| chunk.num_chunks > 1).map(|chunk| Chunk {
        uuid: Arc::from(metadata::text(bytes, &chunk.uuid)),
        last: chunk.chunk_id == chunk.num_chunks - 1,
    });
}

/// Hash of the sticky key: the ordering key, else the partition key, else a key that spreads evenly.
fn hashing_scheme(parsed: &Metadata, bytes: &[u8]) -> u32 {
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
            assert_eq!(receive(headless), Received::Headless, "{headless:?}");
        }
        assert_eq!(receive(b"\x0e\x01\x00\x00\x00\x00\x00\x00\x00\x00"), Received::ChecksumMismatch);
        // No checksum, and metadata larger than the frame: stored all the same.
        let Received::Sound { facts, .. } = receive(b"\x00\x00\x10\x00abc") else { panic!("must be stored") };
        assert!(!facts.readable);
    }
}
