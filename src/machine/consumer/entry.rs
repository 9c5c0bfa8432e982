//! One delivered entry, read as far as it can be without the consumer.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::position::EntryPosition;
use crate::wire::entry::BLOCK_HEAD_BYTES;
use crate::wire::error::{DecodeError, DecodeErrorKind};
use crate::wire::hot::BATCH_MEMBERS_MAX;
use crate::wire::metadata::EntrySummary;
use crate::wire::{AckSet, AckWords, EntryError, EntryParts, MessageHead};

/// The least a record takes in an uncompressed batch, bytes: the size of its metadata.
const RECORD_BYTES_MIN: usize = 4;

/// An entry of a topic as it was delivered: one message, or a batch.
#[derive(Clone)]
pub struct ReceivedEntry {
    /// All that follows the command in the MESSAGE frame; a slice of the read buffer.
    pub raw: Bytes,
    /// `MessageIdData.ledgerId`.
    pub ledger_id: u64,
    /// `MessageIdData.entryId`.
    pub entry_id: u64,
    /// `CommandMessage.redelivery_count`: how often it was delivered before. Always 0 on Exclusive and Failover.
    pub redelivery_count: u32,
    /// Words of the set of members to be handed out: bit `i % 64` of word `i / 64` is member `i`, 1 = hand it out.
    /// Missing words are 0. Empty: all of them.
    pub ack_set: AckWords,
    /// `CommandMessage.consumer_epoch`; `u64::MAX` without one, which no rewind makes outdated.
    pub consumer_epoch: u64,
    /// Where its parts lie, or why it cannot be read.
    pub body: Result<EntryBody, Box<EntryError>>,
    /// The permits it holds, messages: those that the broker charged for it, less those of members that are not handed
    /// out, which the consumer takes back before it queues the entry. The receiving side returns the others.
    pub permits: u32,
}

impl fmt::Debug for ReceivedEntry {
    /// Of its bytes only how many there are: they are the application's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedEntry")
            .field("id", &format_args!("{}:{}", self.ledger_id, self.entry_id))
            .field("bytes", &self.raw.len())
            .field("redelivery_count", &self.redelivery_count)
            .field("body", &self.body)
            .field("permits", &self.permits)
            .finish_non_exhaustive()
    }
}

/// An entry that can be read: where its parts lie in [`ReceivedEntry::raw`], and what it takes to open it.
///
/// Its metadata was checked as a whole. What is not here is read again from [`ReceivedEntry::raw`] when the application
/// asks for it: most messages are handled without, and carrying it along would cost each of them more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryBody {
    /// Offset of the serialized MessageMetadata, which ends at `payload_start`.
    pub(crate) metadata_start: u32,
    /// Offset of the payload, which takes the rest of the entry.
    pub(crate) payload_start: u32,
    /// Offset behind the serialized BrokerEntryMetadata, 0 if there is none.
    pub(crate) broker_end: u32,
    /// `MessageMetadata.compression`: the number of `CompressionType`.
    pub compression: i32,
    /// `MessageMetadata.uncompressed_size`, bytes.
    pub uncompressed_size: u32,
    /// `MessageMetadata.num_messages_in_batch`. Being there makes the entry a batch.
    pub num_messages_in_batch: Option<i32>,
    /// Whether the payload is encrypted (`encryption_keys`).
    pub encrypted: bool,
    /// Whether it is one chunk of a larger message (`num_chunks_from_msg` above 1). What says to be a batch as well is
    /// taken for one, as by the Java client.
    pub is_chunk: bool,
}

impl EntryBody {
    /// The serialized MessageMetadata in [`ReceivedEntry::raw`].
    #[inline]
    #[must_use]
    pub fn metadata(&self) -> Range<usize> {
        self.metadata_start as usize..self.payload_start as usize
    }

    /// The payload in `raw`, the entry's: up to its end.
    #[inline]
    #[must_use]
    pub fn payload(&self, raw: &Bytes) -> Range<usize> {
        self.payload_start as usize..raw.len()
    }

    /// The serialized BrokerEntryMetadata in [`ReceivedEntry::raw`], if the broker put one in front.
    #[inline]
    #[must_use]
    pub fn broker_metadata(&self) -> Option<Range<usize>> {
        (self.broker_end > 0).then_some(BLOCK_HEAD_BYTES..self.broker_end as usize)
    }

    /// Whether it is one message whose payload lies there as it was sent: no batch, chunk, compression or encryption.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.num_messages_in_batch.is_none() && self.compression == 0 && !self.encrypted && !self.is_chunk
    }

    #[inline]
    fn new(parts: &EntryParts, metadata: &EntrySummary) -> Self {
        Self {
            metadata_start: to_u32(parts.metadata.start),
            payload_start: to_u32(parts.payload.start),
            broker_end: parts.broker_metadata.as_ref().map_or(0, |range| to_u32(range.end)),
            compression: metadata.compression,
            uncompressed_size: metadata.uncompressed_size,
            num_messages_in_batch: metadata.num_messages_in_batch,
            encrypted: metadata.encrypted,
            is_chunk: metadata.chunks.is_some_and(|count| count > 1) && metadata.num_messages_in_batch.is_none(),
        }
    }
}

/// A frame's length fits 32 bits, and so does every offset in it.
fn to_u32(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

impl ReceivedEntry {
    /// Reads a delivery: finds the parts, compares the checksum, parses the metadata. Needs no consumer and so no lock.
    ///
    /// Damage is no error here: it is kept in [`body`](Self::body), and the consumer acknowledges the entry with it.
    #[inline]
    pub fn read(head: MessageHead, raw: Bytes) -> Self {
        let (body, permits) = read_body(&head.ack_set, &raw);
        Self {
            raw,
            ledger_id: head.ledger_id,
            entry_id: head.entry_id,
            redelivery_count: head.redelivery_count,
            ack_set: head.ack_set,
            consumer_epoch: head.consumer_epoch.unwrap_or(u64::MAX),
            body,
            permits,
        }
    }

    /// How many messages the batch holds; `None` if it is no batch, cannot be read, or is larger than any that is
    /// opened ([`BATCH_MEMBERS_MAX`]).
    pub fn batch_size(&self) -> Option<u32> {
        let count = self.body.as_ref().ok()?.num_messages_in_batch?;
        u32::try_from(count).ok().filter(|count| *count <= BATCH_MEMBERS_MAX)
    }

    pub(super) fn position(&self) -> EntryPosition {
        EntryPosition { ledger_id: self.ledger_id, entry_id: self.entry_id }
    }
}

/// The body, and how many permits the broker charged for it.
///
/// A broker charges by the metadata it stored. Where damage leaves a doubt what that was, the least is assumed, 1: what
/// is returned beyond the charge would let the broker send more than the queue takes.
///
/// | entry | body | charged |
/// | --- | --- | --- |
/// | cannot be cut into its parts | the error | 1 |
/// | checksum differs, metadata readable, its count possible | the error | by the count |
/// | checksum differs, else | the error | 1 |
/// | checksum right, metadata unreadable | the error | 1 |
/// | checksum right, count impossible | the error | by the count: the broker read the same |
/// | sound | the parts | by the count |
fn read_body(ack_set: &[i64], raw: &[u8]) -> (Result<EntryBody, Box<EntryError>>, u32) {
    let parts = match EntryParts::split(raw) {
        Ok(parts) => parts,
        Err(error) => return (Err(error.into()), 1),
    };
    let checksum = parts.verify(raw);
    let bytes = raw.get(parts.metadata.clone()).unwrap_or_default();
    let metadata = match (checksum, EntrySummary::decode(bytes)) {
        (Ok(()), Ok(metadata)) => metadata,
        (Ok(()), Err(error)) => return (Err(EntryError::Metadata(error).into()), 1),
        // A count that the payload could not hold is the damage itself.
        (Err(error), Ok(metadata)) => {
            let permits = if check_count(&metadata, &parts).is_ok() { charged(&metadata, ack_set) } else { 1 };
            return (Err(error.into()), permits);
        }
        (Err(error), Err(_)) => return (Err(error.into()), 1),
    };
    let permits = charged(&metadata, ack_set);
    if let Err(error) = check_count(&metadata, &parts) {
        return (Err(EntryError::Batch(error).into()), permits);
    }
    (Ok(EntryBody::new(&parts, &metadata)), permits)
}

/// The broker charges the members of which it has no acknowledgement; its count of members is that of the metadata.
#[inline]
fn charged(metadata: &EntrySummary, ack_set: &[i64]) -> u32 {
    match metadata.num_messages_in_batch {
        None => 1,
        Some(count) => AckSet::count_words(ack_set, u32::try_from(count).unwrap_or(0)),
    }
}

/// Refuses a batch size that has no meaning or that its payload could not hold. A larger batch than is opened passes: it
/// is sound.
#[inline]
fn check_count(metadata: &EntrySummary, parts: &EntryParts) -> Result<(), DecodeError> {
    const FIELD: &str = "MessageMetadata.num_messages_in_batch";
    let Some(count) = metadata.num_messages_in_batch else { return Ok(()) };
    let payload_bytes = parts.payload.len().max(metadata.uncompressed_size as usize);
    let max = payload_bytes / RECORD_BYTES_MIN;
    match usize::try_from(count) {
        Ok(1..) if count as usize <= max => Ok(()),
        _ => Err(DecodeError::new(DecodeErrorKind::OutOfRange { value: count.into() }, FIELD, parts.metadata.start)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::{MetadataFields, entry::put_entry};

    fn head(ack_set: Vec<i64>) -> MessageHead {
        let ack_set = ack_set.into();
        MessageHead {
            consumer_id: 0,
            ledger_id: 7,
            entry_id: 3,
            partition: -1,
            redelivery_count: 2,
            ack_set,
            consumer_epoch: None,
        }
    }

    fn raw(count: Option<i32>, payload: &[u8]) -> Bytes {
        let metadata = MetadataFields { producer_name: "p", num_messages_in_batch: count, ..MetadataFields::default() };
        let mut out = BytesMut::new();
        put_entry(&mut out, &metadata, payload);
        out.freeze()
    }

    #[test]
    fn a_single_message_is_charged_one_and_a_batch_its_unacknowledged_members() {
        assert_eq!(ReceivedEntry::read(head(vec![]), raw(None, b"")).permits, 1);
        assert_eq!(ReceivedEntry::read(head(vec![]), raw(Some(3), &[0; 30])).permits, 3);
        let part = ReceivedEntry::read(head(vec![0b101_0101]), raw(Some(3), &[0; 30]));
        assert_eq!((part.permits, part.batch_size()), (2, Some(3)));
        let long = ReceivedEntry::read(head(vec![0, -1, -1]), raw(Some(70), &[0; 280]));
        assert_eq!(long.permits, 6);
        assert_eq!(ReceivedEntry::read(head(vec![-1]), raw(Some(70), &[0; 280])).permits, 64);
    }

    #[test]
    fn a_damaged_payload_keeps_the_count_the_broker_charged() {
        let mut bytes = BytesMut::from(&raw(Some(3), &[0; 30])[..]);
        *bytes.last_mut().expect("a payload") ^= 1;
        let entry = ReceivedEntry::read(head(vec![]), bytes.freeze());
        assert!(matches!(entry.body.as_ref().map_err(|error| &**error), Err(EntryError::ChecksumMismatch { .. })));
        assert_eq!(entry.permits, 3);
    }

    #[test]
    fn counts_without_a_meaning_are_damage() {
        for (count, charged) in [(0, 0), (-5, 0), (8, 8), (i32::MAX, i32::MAX as u32)] {
            let entry = ReceivedEntry::read(head(vec![]), raw(Some(count), &[0; 30]));
            assert!(matches!(entry.body.as_ref().map_err(|error| &**error), Err(EntryError::Batch(_))), "{count}");
            assert_eq!(entry.permits, charged);
        }
    }

    #[test]
    fn no_bytes_at_all_are_one_damaged_message() {
        let entry = ReceivedEntry::read(head(vec![]), Bytes::new());
        assert!(matches!(entry.body.as_ref().map_err(|error| &**error), Err(EntryError::TooShort { .. })));
        assert_eq!(entry.permits, 1);
    }
}
