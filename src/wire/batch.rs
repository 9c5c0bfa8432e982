//! The records of a batch, as they lie in its uncompressed payload:
//!
//! ```text
//! u32 size | SingleMessageMetadata [size] | payload [payload_size]   once per message
//! ```
//!
//! The payload does not hold their number: that is `num_messages_in_batch` of the entry's metadata.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::error::{DecodeError, DecodeErrorKind};
use super::metadata::{NewSingle, SingleMetadata};

/// The field that gives a record's payload its length.
const PAYLOAD_SIZE: &str = "SingleMessageMetadata.payload_size";
/// The length before each record's metadata.
const SIZE_FIELD: &str = "size of SingleMessageMetadata";
/// The bytes of that length; no record takes less than this.
const SIZE_FIELD_BYTES: usize = 4;

/// One message of a batch; ranges count from the start of the uncompressed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the message says about itself. Its own ranges count from `metadata_range.start`.
    pub metadata: SingleMetadata,
    /// The serialized SingleMessageMetadata.
    pub metadata_range: Range<usize>,
    /// The message's payload.
    pub payload: Range<usize>,
}

/// A walk over the records of one batch that keeps only its place, so that the payload can live
/// beside it.
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
    /// A count that is not positive, or of more records than the payload has room for.
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

    /// The next record of `payload`, which has to be the same at each call; `None` behind the last.
    /// After an error there is no next one. Bytes behind the last record are ignored.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, payload: &[u8]) -> Option<Result<Record, DecodeError>> {
        if self.index == self.count {
            return None;
        }
        let record = self.read(payload);
        match &record {
            Ok(record) => {
                self.position = record.payload.end;
                self.index += 1;
            }
            Err(_) => self.count = self.index,
        }
        Some(record)
    }

    /// The batch index of the record that [`next`](Self::next) gives next: also how many it gave.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    fn read(&self, payload: &[u8]) -> Result<Record, DecodeError> {
        let truncated = |field, offset| DecodeError::new(DecodeErrorKind::Truncated, field, offset);
        let rest = payload.get(self.position..).unwrap_or_default();
        let (size, rest) =
            rest.split_first_chunk::<SIZE_FIELD_BYTES>().ok_or_else(|| truncated(SIZE_FIELD, self.position))?;
        let metadata_at = self.position + SIZE_FIELD_BYTES;
        let size = u32::from_be_bytes(*size) as usize;
        let bytes = rest.get(..size).ok_or_else(|| truncated(SIZE_FIELD, self.position))?;
        let metadata = SingleMetadata::parse(bytes).map_err(|error| error.shifted(metadata_at))?;
        let payload_at = metadata_at + size;
        let Ok(payload_size) = usize::try_from(metadata.payload_size) else {
            let kind = DecodeErrorKind::OutOfRange { value: i64::from(metadata.payload_size) };
            return Err(DecodeError::new(kind, PAYLOAD_SIZE, metadata_at));
        };
        if payload_size > payload.len() - payload_at {
            return Err(truncated(PAYLOAD_SIZE, payload_at));
        }
        Ok(Record { metadata, metadata_range: metadata_at..payload_at, payload: payload_at..payload_at + payload_size })
    }
}

/// Appends one record. `single.payload_size` is to be the length of `payload`.
pub fn put_record(out: &mut BytesMut, single: &NewSingle<'_>, payload: &[u8]) {
    debug_assert_eq!(usize::try_from(single.payload_size), Ok(payload.len()));
    let metadata_len = single.encoded_len();
    out.reserve(SIZE_FIELD_BYTES + metadata_len + payload.len());
    out.put_u32(metadata_len as u32);
    single.put(out);
    out.put_slice(payload);
}

/// Bytes that [`put_record`] appends.
#[must_use]
pub fn record_len(single: &NewSingle<'_>, payload: &[u8]) -> usize {
    SIZE_FIELD_BYTES + single.encoded_len() + payload.len()
}
