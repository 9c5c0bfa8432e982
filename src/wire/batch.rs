//! The records of a batch, in the layout of its uncompressed payload:
//!
//! ```text
//! u32 size | SingleMessageMetadata [size] | payload [payload_size]   once per message
//! ```
//!
//! Their number is not part of the payload: it is `num_messages_in_batch` in the entry's metadata.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::error::{DecodeError, DecodeErrorKind};
use super::metadata::{SingleFields, SingleMetadata};

/// The field with the length of a record's payload.
const PAYLOAD_SIZE: &str = "SingleMessageMetadata.payload_size";
/// The length before each record's metadata.
const SIZE_FIELD: &str = "size of SingleMessageMetadata";
/// The size of that length field, so also the minimum size of a record.
const SIZE_FIELD_BYTES: usize = 4;

/// One message of a batch; ranges count from the start of the uncompressed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The message's metadata. Its ranges count from `metadata_range.start`.
    pub metadata: SingleMetadata,
    /// The serialized SingleMessageMetadata.
    pub metadata_range: Range<usize>,
    /// The message's payload.
    pub payload: Range<usize>,
}

/// The position of a plain record: one whose metadata has only `payload_size` and perhaps `sequence_id`, as most have.
/// Offsets count from the start of the uncompressed payload; the serialized SingleMessageMetadata ends where the message's
/// payload starts.
#[cfg(feature = "client")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordRange {
    /// Where the serialized SingleMessageMetadata starts.
    pub(crate) metadata_at: usize,
    /// Where the message's payload starts.
    pub(crate) payload_at: usize,
    /// Where the record ends.
    pub(crate) end: usize,
}

/// A cursor over the records of one batch. It does not borrow the payload, so both can be stored together.
#[derive(Debug, Clone)]
pub struct BatchCursor {
    position: usize,
    index: u32,
    count: u32,
}

impl BatchCursor {
    /// Starts at the first of `count` records (`num_messages_in_batch`) in an uncompressed payload
    /// of `payload_len` bytes.
    ///
    /// # Errors
    /// The count is not positive, or larger than the number of records that fit into the payload.
    pub fn new(count: i32, payload_len: usize) -> Result<Self, DecodeError> {
        let wrong = || {
            let kind = DecodeErrorKind::OutOfRange { value: i64::from(count) };
            DecodeError::new(kind, "MessageMetadata.num_messages_in_batch", 0)
        };
        match u32::try_from(count) {
            Ok(count @ 1..) if count as usize <= payload_len / SIZE_FIELD_BYTES => {
                Ok(Self { position: 0, index: 0, count })
            }
            _ => Err(wrong()),
        }
    }

    /// The next record of `payload`, which has to be the same at each call; `None` after the last one
    /// and after an error. Bytes after the last record are ignored.
    ///
    /// # Errors
    /// A record that is truncated, metadata that cannot be decoded, or a `payload_size` out of range.
    #[inline]
    pub fn next(&mut self, payload: &[u8]) -> Option<Result<Record, DecodeError>> {
        if self.index == self.count {
            return None;
        }
        let record = self.decode(payload);
        match &record {
            Ok(record) => {
                self.position = record.payload.end;
                self.index += 1;
            }
            Err(_) => self.count = self.index,
        }
        Some(record)
    }

    /// The next record, if it is a plain one. Otherwise the cursor does not move, and [`next`](Self::next) returns
    /// what follows: a record with more fields, an error, or the end.
    ///
    /// The result is plain numbers, so that they stay in registers until the message is made.
    #[cfg(feature = "client")]
    #[inline]
    pub(crate) fn next_fast(&mut self, payload: &[u8]) -> Option<RecordRange> {
        if self.index == self.count {
            return None;
        }
        let (size, rest) = payload.get(self.position..)?.split_first_chunk::<SIZE_FIELD_BYTES>()?;
        let metadata = rest.get(..u32::from_be_bytes(*size) as usize)?;
        let payload_size = plain_payload_size(metadata)?;
        let metadata_at = self.position + SIZE_FIELD_BYTES;
        let payload_at = metadata_at + metadata.len();
        if payload_size > payload.len() - payload_at {
            return None;
        }
        let end = payload_at + payload_size;
        (self.position, self.index) = (end, self.index + 1);
        Some(RecordRange { metadata_at, payload_at, end })
    }

    /// The batch index of the record that [`next`](Self::next) returns next; also the number of those returned.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    #[inline]
    fn decode(&self, payload: &[u8]) -> Result<Record, DecodeError> {
        let truncated = |field, offset| DecodeError::new(DecodeErrorKind::Truncated, field, offset);
        let rest = payload.get(self.position..).unwrap_or_default();
        let (size, rest) =
            rest.split_first_chunk::<SIZE_FIELD_BYTES>().ok_or_else(|| truncated(SIZE_FIELD, self.position))?;
        let metadata_at = self.position + SIZE_FIELD_BYTES;
        let size = u32::from_be_bytes(*size) as usize;
        let bytes = rest.get(..size).ok_or_else(|| truncated(SIZE_FIELD, self.position))?;
        let metadata = SingleMetadata::decode(bytes).map_err(|error| error.shifted(metadata_at))?;
        let payload_at = metadata_at + size;
        let Ok(payload_size) = usize::try_from(metadata.payload_size) else {
            let kind = DecodeErrorKind::OutOfRange { value: i64::from(metadata.payload_size) };
            return Err(DecodeError::new(kind, PAYLOAD_SIZE, metadata_at));
        };
        if payload_size > payload.len() - payload_at && !parser_mutation!(RecordBeyondBatch) {
            return Err(truncated(PAYLOAD_SIZE, payload_at));
        }
        Ok(Record { metadata, metadata_range: metadata_at..payload_at, payload: payload_at..payload_at + payload_size })
    }
}

/// Tags of the two fields of a plain record.
const PAYLOAD_SIZE_TAG: u8 = 3 << 3;
const SEQUENCE_ID_TAG: u8 = 8 << 3;

/// `payload_size` of a SingleMessageMetadata that has that, and behind it at most `sequence_id`; `None` of any other,
/// sound or not.
#[cfg(feature = "client")]
#[inline]
fn plain_payload_size(metadata: &[u8]) -> Option<usize> {
    let (size, rest) = match *metadata {
        [PAYLOAD_SIZE_TAG, low @ 0..0x80, ref rest @ ..] => (usize::from(low), rest),
        [PAYLOAD_SIZE_TAG, low, high @ 0..0x80, ref rest @ ..] => {
            (usize::from(low & 0x7f) | usize::from(high) << 7, rest)
        }
        [PAYLOAD_SIZE_TAG, low, middle, high @ 0..0x80, ref rest @ ..] => {
            (usize::from(low & 0x7f) | usize::from(middle & 0x7f) << 7 | usize::from(high) << 14, rest)
        }
        _ => return None,
    };
    match rest {
        [] => Some(size),
        [SEQUENCE_ID_TAG, id @ .., 0..0x80] if id.len() <= 8 && id.iter().all(|&byte| byte >= 0x80) => Some(size),
        _ => None,
    }
}

/// Appends one record. `single.payload_size` is to be the length of `payload`.
pub fn put_record(out: &mut BytesMut, single: &SingleFields<'_>, payload: &[u8]) {
    debug_assert_eq!(usize::try_from(single.payload_size), Ok(payload.len()));
    let metadata_len = single.encoded_len();
    out.reserve(SIZE_FIELD_BYTES + metadata_len + payload.len());
    out.put_u32(metadata_len as u32);
    single.encode(out);
    out.put_slice(payload);
}

/// [`put_record`] for a message without any metadata but its size and its sequence id, as most are.
#[inline]
pub fn put_plain_record(out: &mut BytesMut, sequence_id: u64, payload: &[u8]) {
    let (Some(size), Some(id)) =
        (short_field(PAYLOAD_SIZE_TAG, payload.len() as u64), short_field(SEQUENCE_ID_TAG, sequence_id))
    else {
        let payload_size = i32::try_from(payload.len()).unwrap_or(i32::MAX);
        let single = SingleFields { payload_size, sequence_id: Some(sequence_id), ..SingleFields::default() };
        return put_record(out, &single, payload);
    };
    out.reserve(SIZE_FIELD_BYTES + 2 * size_of::<u64>() + payload.len());
    out.put_u32((size.1 + id.1) as u32);
    for (word, bytes) in [size, id] {
        let end = out.len() + bytes;
        out.put_u64_le(word);
        out.truncate(end);
    }
    out.put_slice(payload);
}

/// A varint field of up to eight bytes and its length, as a number: bytes written one by one would have to go through
/// memory before they can be copied.
#[inline]
fn short_field(tag: u8, mut value: u64) -> Option<(u64, usize)> {
    const BITS_MAX: u32 = 7 * 7;
    if value >> BITS_MAX != 0 {
        return None;
    }
    let (mut word, mut bits) = (u64::from(tag), 8);
    while value >= 0x80 {
        word |= (value & 0x7f | 0x80) << bits;
        value >>= 7;
        bits += 8;
    }
    Some((word | value << bits, bits as usize / 8 + 1))
}

/// Bytes that [`put_record`] appends.
#[must_use]
pub fn record_len(single: &SingleFields<'_>, payload: &[u8]) -> usize {
    SIZE_FIELD_BYTES + single.encoded_len() + payload.len()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::metadata::tests::{Random, assert_single, new_single, random_single, rounds};

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn collect(payload: &[u8], count: i32) -> Result<Vec<Record>, DecodeError> {
        let mut cursor = BatchCursor::new(count, payload.len())?;
        let mut records = Vec::new();
        while let Some(record) = cursor.next(payload) {
            records.push(record?);
            assert_eq!(cursor.index() as usize, records.len());
        }
        Ok(records)
    }

    #[test]
    fn batches_round_trip() {
        let mut random = Random::new(1);
        for count in rounds(60).map(|round| round + 1) {
            let mut payload = BytesMut::new();
            let mut sent = Vec::new();
            for _ in 0..count {
                let body = random.bytes(50);
                let mut single = random_single(&mut random);
                single.payload_size = body.len() as i32;
                let properties: Vec<_> =
                    single.properties.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
                let new = new_single(&single, &properties);
                let before = payload.len();
                put_record(&mut payload, &new, &body);
                assert_eq!(payload.len() - before, record_len(&new, &body));
                sent.push((single, body));
            }
            let records = collect(&payload, count as i32).unwrap();
            assert_eq!(records.len(), sent.len());
            for (record, (single, body)) in records.iter().zip(&sent) {
                assert_eq!(payload[record.payload.clone()], body[..]);
                let raw = &payload[record.metadata_range.clone()];
                assert_eq!(raw, single.encode_to_vec());
                assert_single(raw, &record.metadata, single);
            }
        }
    }

    #[test]
    fn a_plain_record_is_a_record() {
        for sequence_id in [0, 1, 127, 128, 1 << 21, (1 << 49) - 1, 1 << 49, (1 << 63) - 1, u64::MAX] {
            for length in [0, 1, 127, 128, 20_000] {
                let payload = vec![7; length];
                let single = SingleFields {
                    payload_size: length as i32,
                    sequence_id: Some(sequence_id),
                    ..SingleFields::default()
                };
                let (mut plain, mut whole) = (BytesMut::new(), BytesMut::new());
                put_plain_record(&mut plain, sequence_id, &payload);
                put_record(&mut whole, &single, &payload);
                assert_eq!(plain, whole);
            }
        }
    }

    #[test]
    fn a_batch_of_the_java_client_is_read() {
        // One with property x=y, one with key kk and the base64 flag written out as false.
        let payload = unhex(
            "0000000c0a060a017812017918034003 6f6e65 0000000a12026b6b180330004004 74776f".replace(' ', "").as_str(),
        );
        let records = collect(&payload, 2).unwrap();
        assert_eq!(payload[records[0].payload.clone()], *b"one");
        assert_eq!(payload[records[1].payload.clone()], *b"two");
        assert_eq!(records[1].metadata.sequence_id, Some(4));
        assert!(records[0].metadata.has_properties && !records[1].metadata.partition_key_b64);
    }

    #[test]
    fn every_cut_batch_is_an_error() {
        let mut payload = BytesMut::new();
        for body in [&b"first"[..], b"", b"third"] {
            put_record(&mut payload, &SingleFields { payload_size: body.len() as i32, ..Default::default() }, body);
        }
        for end in 0..payload.len() {
            assert!(collect(&payload[..end], 3).is_err(), "{end}");
        }
        payload.put_slice(b"left over");
        assert_eq!(collect(&payload, 3).unwrap().len(), 3);
    }

    #[test]
    fn sizes_that_lie_are_refused_and_end_the_walk() {
        for (hex, field, kind) in [
            // payload_size 127 with nothing behind it.
            ("00000002187f", PAYLOAD_SIZE, DecodeErrorKind::Truncated),
            // payload_size -1.
            ("0000000b18ffffffffffffffffff01", PAYLOAD_SIZE, DecodeErrorKind::OutOfRange { value: -1 }),
            ("ffffffff1800", SIZE_FIELD, DecodeErrorKind::Truncated),
            ("00000000", PAYLOAD_SIZE, DecodeErrorKind::Missing),
        ] {
            let payload = unhex(hex);
            let mut cursor = BatchCursor::new(1, payload.len()).unwrap();
            let error = cursor.next(&payload).unwrap().unwrap_err();
            assert_eq!((error.field, error.kind), (field, kind), "{hex}");
            assert!(cursor.next(&payload).is_none());
        }
    }

    #[test]
    fn counts_without_a_meaning_are_refused() {
        for (count, len) in [(0, 100), (-1, 100), (i32::MIN, 100), (26, 100), (i32::MAX, 100), (1, 3)] {
            let error = BatchCursor::new(count, len).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::OutOfRange { value: i64::from(count) });
        }
        assert!(BatchCursor::new(25, 100).is_ok());
    }
}
