//! An entry: all that follows the command in a SEND or MESSAGE frame, stored by the broker as it is.
//!
//! ```text
//! [0x0e02 | u32 n   | BrokerEntryMetadata n ]   MESSAGE only, put in front by the broker
//! [0x0e01 | u32 crc ]                           CRC-32C of all that follows
//! u32 metadata_size | MessageMetadata | payload to the end of the frame
//! ```
//!
//! Metadata is always far below 0x0e010000 bytes, so that its size is never taken for a magic.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::compress::CompressError;
use super::error::{DecodeError, DecodeErrorKind};
use super::hot::{SendHead, put_send_head};
use super::metadata::NewMetadata;
use super::proto::{Reader, Value, put_uint, uint_len};
use super::tx::{CHAIN_MIN_BYTES, SealedFrame};
use super::{MAGIC_BROKER_ENTRY_METADATA, MAGIC_CRC32C};
use crate::pb::command_ack::ValidationError;

/// A magic and the u32 behind it.
const BLOCK_HEAD_BYTES: usize = 6;

/// Where the parts of an entry lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryParts {
    /// The serialized BrokerEntryMetadata, if the broker put one in front.
    pub broker_metadata: Option<Range<usize>>,
    /// CRC-32C as the sender computed it; absent if it left the checksum out, which is legal.
    pub checksum: Option<u32>,
    /// Where the checksum's bytes begin: at `metadata_size`. They end with the entry.
    pub checksummed_from: usize,
    /// The serialized MessageMetadata.
    pub metadata: Range<usize>,
    /// The payload: compressed and encrypted as the metadata says.
    pub payload: Range<usize>,
}

impl EntryParts {
    /// Finds the parts of `entry`. Looks at no checksum: [`verify`](Self::verify) does.
    ///
    /// # Errors
    /// [`EntryError::TooShort`] if the entry ends before its parts do.
    #[inline]
    pub fn split(entry: &[u8]) -> Result<Self, EntryError> {
        let mut at = 0;
        let mut broker_metadata = None;
        if magic(entry, at) == Some(MAGIC_BROKER_ENTRY_METADATA) {
            let size = u32_at(entry, at + 2, "size of BrokerEntryMetadata")? as usize;
            at += BLOCK_HEAD_BYTES;
            let range = part(entry, at, size, "BrokerEntryMetadata")?;
            at = range.end;
            broker_metadata = Some(range);
        }
        let mut checksum = None;
        if magic(entry, at) == Some(MAGIC_CRC32C) {
            checksum = Some(u32_at(entry, at + 2, "checksum")?);
            at += BLOCK_HEAD_BYTES;
        }
        let size = u32_at(entry, at, "metadata_size")? as usize;
        let metadata = part(entry, at + 4, size, "MessageMetadata")?;
        let payload = metadata.end..entry.len();
        Ok(Self { broker_metadata, checksum, checksummed_from: at, metadata, payload })
    }

    /// Sums `entry`, the same that was split, and compares. An entry without a checksum passes.
    ///
    /// # Errors
    /// [`EntryError::ChecksumMismatch`].
    #[inline]
    pub fn verify(&self, entry: &[u8]) -> Result<(), EntryError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let actual = crc32c::crc32c(entry.get(self.checksummed_from..).unwrap_or_default());
        if actual == expected { Ok(()) } else { Err(EntryError::ChecksumMismatch { expected, actual }) }
    }
}

#[inline]
fn magic(entry: &[u8], at: usize) -> Option<u16> {
    entry.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

#[inline]
fn u32_at(entry: &[u8], at: usize, field: &'static str) -> Result<u32, EntryError> {
    let rest = entry.get(at..).unwrap_or_default();
    let bytes = rest.first_chunk().ok_or(EntryError::TooShort { field, needed: 4, left: rest.len() })?;
    Ok(u32::from_be_bytes(*bytes))
}

#[inline]
fn part(entry: &[u8], at: usize, size: usize, field: &'static str) -> Result<Range<usize>, EntryError> {
    let left = entry.len().saturating_sub(at);
    if size > left { Err(EntryError::TooShort { field, needed: size, left }) } else { Ok(at..at + size) }
}

/// Why an entry cannot be read. The connection is sound all the same: such an entry is acknowledged
/// with its `ValidationError`, and its permits go back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryError {
    /// The entry ends before this part does.
    TooShort {
        /// The part.
        field: &'static str,
        /// Its size, bytes.
        needed: usize,
        /// What is left of the entry, bytes.
        left: usize,
    },
    /// The bytes are not those that were sent.
    ChecksumMismatch {
        /// As sent along.
        expected: u32,
        /// As computed here.
        actual: u32,
    },
    /// MessageMetadata cannot be read.
    Metadata(DecodeError),
    /// A record of the batch cannot be read.
    Batch(DecodeError),
    /// The payload cannot be decompressed.
    Decompress(CompressError),
}

impl EntryError {
    /// What CommandAck tells the broker about the entry in `validation_error`.
    #[must_use]
    pub fn validation_error(&self) -> ValidationError {
        match self {
            Self::TooShort { .. } | Self::ChecksumMismatch { .. } | Self::Metadata(_) => {
                ValidationError::ChecksumMismatch
            }
            Self::Batch(_) => ValidationError::BatchDeSerializeError,
            Self::Decompress(CompressError::TooLarge { .. }) => ValidationError::UncompressedSizeCorruption,
            Self::Decompress(_) => ValidationError::DecompressionError,
        }
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { field, needed, left } => {
                write!(f, "the entry ends inside {field}: {needed} bytes needed, {left} left")
            }
            Self::ChecksumMismatch { expected, actual } => {
                write!(f, "checksum mismatch: {expected:08x} sent, {actual:08x} computed")
            }
            Self::Metadata(error) => write!(f, "bad metadata: {error}"),
            Self::Batch(error) => write!(f, "bad batch: {error}"),
            Self::Decompress(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EntryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooShort { .. } | Self::ChecksumMismatch { .. } => None,
            Self::Metadata(error) | Self::Batch(error) => Some(error),
            Self::Decompress(error) => Some(error),
        }
    }
}

impl From<CompressError> for EntryError {
    fn from(error: CompressError) -> Self {
        Self::Decompress(error)
    }
}

/// Bytes of an entry around its metadata: magic, checksum, `metadata_size`.
const ENTRY_HEAD_BYTES: usize = BLOCK_HEAD_BYTES + 4;
/// No SEND frame takes more than this before its entry: both lengths and every field at its longest.
const SEND_HEAD_BYTES_MAX: usize = 128;

/// Makes one entry into a whole SEND frame.
///
/// A payload below [`CHAIN_MIN_BYTES`] is copied behind its metadata; a larger one stays in its own
/// `Bytes`, and the checksum runs over both. Which of the two it is does not show in the frame.
///
/// `out` is scratch space: empty, and again empty after the call. The frame's bytes are split off its
/// front, so a `BytesMut` made with room for many frames serves them all with one allocation.
pub fn seal(out: &mut BytesMut, head: &SendHead, metadata: &NewMetadata<'_>, payload: Bytes) -> SealedFrame {
    if payload.len() < CHAIN_MIN_BYTES {
        return SealedFrame { head: seal_copied(out, head, metadata, &payload), payload: Bytes::new() };
    }
    seal_apart(out, head, metadata, payload)
}

/// [`seal`] with the payload left where it is whatever its size.
pub fn seal_apart(out: &mut BytesMut, head: &SendHead, metadata: &NewMetadata<'_>, payload: Bytes) -> SealedFrame {
    let frame = seal_with(out, head, metadata, &[], &payload);
    SealedFrame { head: frame, payload }
}

/// [`seal`] with the payload copied behind its metadata whatever its size: the whole frame.
pub fn seal_copied(out: &mut BytesMut, head: &SendHead, metadata: &NewMetadata<'_>, payload: &[u8]) -> Bytes {
    seal_with(out, head, metadata, payload, &[])
}

fn seal_with(out: &mut BytesMut, head: &SendHead, metadata: &NewMetadata<'_>, copied: &[u8], chained: &[u8]) -> Bytes {
    debug_assert!(out.is_empty(), "what lies in the scratch space would become part of the frame");
    let metadata_len = metadata.encoded_len();
    let entry_bytes = ENTRY_HEAD_BYTES + metadata_len + copied.len() + chained.len();
    out.reserve(SEND_HEAD_BYTES_MAX + ENTRY_HEAD_BYTES + metadata_len + copied.len());
    put_send_head(out, head, entry_bytes);
    let start = put_entry_head(out, metadata, metadata_len);
    out.put_slice(copied);
    set_checksum(out, start, chained);
    out.split().freeze()
}

/// Bytes that [`put_entry`] writes for these parts.
#[must_use]
pub fn entry_len(metadata: &NewMetadata<'_>, payload: &[u8]) -> usize {
    ENTRY_HEAD_BYTES + metadata.encoded_len() + payload.len()
}

/// Writes a whole entry with its checksum.
pub fn put_entry(out: &mut BytesMut, metadata: &NewMetadata<'_>, payload: &[u8]) {
    let metadata_len = metadata.encoded_len();
    out.reserve(ENTRY_HEAD_BYTES + metadata_len + payload.len());
    let start = put_entry_head(out, metadata, metadata_len);
    out.put_slice(payload);
    set_checksum(out, start, &[]);
}

/// Writes all of an entry but its payload, and no checksum yet. Returns where the entry starts.
fn put_entry_head(out: &mut BytesMut, metadata: &NewMetadata<'_>, metadata_len: usize) -> usize {
    let start = out.len();
    out.put_u16(MAGIC_CRC32C);
    out.put_u32(0);
    out.put_u32(metadata_len as u32);
    metadata.put(out);
    start
}

/// Sums what lies behind the checksum of the entry at `start`, and `rest` behind that.
fn set_checksum(out: &mut BytesMut, start: usize, rest: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start + BLOCK_HEAD_BYTES..]), rest);
    out[start + 2..start + BLOCK_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// `BrokerEntryMetadata`: what the broker knows about an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerEntryMetadata {
    /// `broker_timestamp`: the broker's clock at publishing, milliseconds since 1970.
    pub broker_timestamp: Option<u64>,
    /// `index`: the count of messages of the topic before the entry's last one. Member `i` of a
    /// batch of `n` has `index - (n - 1 - i)`.
    pub index: Option<u64>,
}

impl BrokerEntryMetadata {
    /// Reads a serialized BrokerEntryMetadata.
    ///
    /// # Errors
    /// Bytes that are not protobuf, or a field of another wire type than its own.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const NAME: &str = "BrokerEntryMetadata";
        let mut reader = Reader::new(bytes, 0);
        let mut metadata = Self::default();
        while let Some((number, value)) = reader.next(NAME)? {
            match (number, value) {
                (1, Value::Varint(value)) => metadata.broker_timestamp = Some(value),
                (2, Value::Varint(value)) => metadata.index = Some(value),
                (1 | 2, _) => return Err(DecodeError::new(DecodeErrorKind::BadWireType, NAME, reader.offset())),
                _ => {}
            }
        }
        Ok(metadata)
    }
}

/// Writes the block that a broker puts in front of an entry: its magic, length and
/// BrokerEntryMetadata. `broker_timestamp` is in milliseconds since 1970.
pub fn put_broker_entry_metadata(out: &mut BytesMut, broker_timestamp: u64, index: u64) {
    out.put_u16(MAGIC_BROKER_ENTRY_METADATA);
    out.put_u32((uint_len(1, broker_timestamp) + uint_len(2, index)) as u32);
    put_uint(out, 1, broker_timestamp);
    put_uint(out, 2, index);
}

#[cfg(test)]
mod tests;
