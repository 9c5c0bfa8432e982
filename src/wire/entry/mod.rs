//! An entry: everything after the command in a SEND or MESSAGE frame, stored by the broker unchanged.
//!
//! ```text
//! [0x0e02 | u32 n   | BrokerEntryMetadata n ]   MESSAGE only, prepended by the broker
//! [0x0e01 | u32 crc ]                           CRC-32C of everything that follows
//! u32 metadata_size | MessageMetadata | payload to the end of the frame
//! ```
//!
//! The size of metadata is always far below 0x0e010000, so it cannot be mistaken for a magic number.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::compress::CompressError;
use super::error::{DecodeError, DecodeErrorKind};
use super::hot::{SendHead, put_send_head};
use super::metadata::MetadataFields;
use super::proto::{Reader, Value, put_uint, uint_len};
use super::tx::{CHAIN_MIN_BYTES, SealedFrame};
use super::{MAGIC_BROKER_ENTRY_METADATA, MAGIC_CRC32C};
use crate::pb::command_ack::ValidationError;

/// The size of a magic number and the u32 after it.
pub(crate) const BLOCK_HEAD_BYTES: usize = 6;

/// The positions of the parts of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryParts {
    /// The serialized BrokerEntryMetadata, if the broker prepended one.
    pub broker_metadata: Option<Range<usize>>,
    /// The CRC-32C that the sender computed; absent if it omitted the checksum, which is allowed.
    pub checksum: Option<u32>,
    /// The start of the checksummed bytes: `metadata_size`. They end with the entry.
    pub checksummed_from: usize,
    /// The serialized MessageMetadata.
    pub metadata: Range<usize>,
    /// The payload: compressed and encrypted as the metadata says.
    pub payload: Range<usize>,
}

impl EntryParts {
    /// Finds the parts of `entry`, without checking the checksum: see [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`EntryError::TooShort`] if the entry ends before its parts do.
    #[inline]
    pub fn split(entry: &[u8]) -> Result<Self, EntryError> {
        let mut at = 0;
        let mut broker_metadata = None;
        if magic(entry, at) == Some(MAGIC_BROKER_ENTRY_METADATA) && !parser_mutation!(ChecksumBeforeBrokerMetadata) {
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

    /// Compares the checksum with that of `entry`, the one that was split. An entry without a checksum passes.
    ///
    /// # Errors
    /// [`EntryError::ChecksumMismatch`] if they differ.
    #[inline]
    pub fn verify(&self, entry: &[u8]) -> Result<(), EntryError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let actual = crc32c::crc32c(
            entry
                .get(self.checksummed_from + usize::from(parser_mutation!(ChecksumFromSecondByte))..)
                .unwrap_or_default(),
        );
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
    if parser_mutation!(DeclaredLengthAllocated) {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(size)));
    }
    if size > left { Err(EntryError::TooShort { field, needed: size, left }) } else { Ok(at..at + size) }
}

/// Why an entry cannot be decoded. The connection stays usable: such an entry is acknowledged with its
/// `ValidationError`, and its permits are returned.
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
    /// The checksum does not match the bytes.
    ChecksumMismatch {
        /// The checksum in the entry.
        expected: u32,
        /// The computed checksum.
        actual: u32,
    },
    /// MessageMetadata cannot be decoded.
    Metadata(DecodeError),
    /// A record of the batch cannot be decoded.
    Batch(DecodeError),
    /// The payload cannot be decompressed.
    Decompress(CompressError),
    /// The payload cannot be decrypted, and is not to be delivered as it is.
    Decrypt,
}

impl EntryError {
    /// The `validation_error` of the CommandAck for the entry.
    #[must_use]
    pub fn validation_error(&self) -> ValidationError {
        match self {
            Self::TooShort { .. } | Self::ChecksumMismatch { .. } | Self::Metadata(_) => {
                ValidationError::ChecksumMismatch
            }
            Self::Batch(_) => ValidationError::BatchDeSerializeError,
            Self::Decompress(CompressError::TooLarge { .. } | CompressError::ImpossibleSize { .. }) => {
                ValidationError::UncompressedSizeCorruption
            }
            Self::Decompress(_) => ValidationError::DecompressionError,
            Self::Decrypt => ValidationError::DecryptionError,
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
            Self::Decrypt => f.write_str("the payload cannot be decrypted"),
        }
    }
}

impl std::error::Error for EntryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooShort { .. } | Self::ChecksumMismatch { .. } | Self::Decrypt => None,
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

/// The size of an entry's fields before its metadata: magic, checksum, `metadata_size`.
pub(super) const ENTRY_HEAD_BYTES: usize = BLOCK_HEAD_BYTES + 4;
/// The maximum size of a SEND frame before its entry: both lengths and every field at its longest.
const SEND_HEAD_BYTES_MAX: usize = 128;

/// Encodes one entry as a whole SEND frame.
///
/// A payload below [`CHAIN_MIN_BYTES`] is copied after its metadata; a larger one stays in a separate `Bytes`.
/// The bytes of the frame are the same in both cases.
///
/// `out` is scratch space: empty before and after the call. The frame's bytes are split off its front, so a
/// `BytesMut` with capacity for many frames needs one allocation for all of them.
pub fn seal(out: &mut BytesMut, head: &SendHead, metadata: &MetadataFields<'_>, payload: Bytes) -> SealedFrame {
    if payload.len() < CHAIN_MIN_BYTES {
        return SealedFrame { head: seal_copied(out, head, metadata, &payload), payload: Bytes::new() };
    }
    seal_apart(out, head, metadata, payload)
}

/// [`seal`] without copying the payload, whatever its size.
pub fn seal_apart(out: &mut BytesMut, head: &SendHead, metadata: &MetadataFields<'_>, payload: Bytes) -> SealedFrame {
    let frame = seal_with(out, head, metadata, &[], &payload);
    SealedFrame { head: frame, payload }
}

/// [`seal`] with the payload copied after its metadata, whatever its size; returns the whole frame.
pub fn seal_copied(out: &mut BytesMut, head: &SendHead, metadata: &MetadataFields<'_>, payload: &[u8]) -> Bytes {
    seal_with(out, head, metadata, payload, &[])
}

/// [`seal_apart`] with `start` copied after the metadata, before the payload.
pub fn seal_behind(
    out: &mut BytesMut,
    head: &SendHead,
    metadata: &MetadataFields<'_>,
    start: &[u8],
    payload: Bytes,
) -> SealedFrame {
    let frame = seal_with(out, head, metadata, start, &payload);
    SealedFrame { head: frame, payload }
}

fn seal_with(
    out: &mut BytesMut,
    head: &SendHead,
    metadata: &MetadataFields<'_>,
    copied: &[u8],
    chained: &[u8],
) -> Bytes {
    debug_assert!(out.is_empty(), "bytes in the scratch space would become part of the frame");
    let metadata_len = metadata.encoded_len();
    let entry_bytes = ENTRY_HEAD_BYTES + metadata_len + copied.len() + chained.len();
    out.reserve(SEND_HEAD_BYTES_MAX + ENTRY_HEAD_BYTES + metadata_len + copied.len());
    put_send_head(out, head, entry_bytes);
    let start = put_entry_head(out, metadata, metadata_len);
    out.put_slice(copied);
    set_checksum(out, start, chained);
    out.split().freeze()
}

/// The number of bytes that [`put_entry`] appends for these parts.
#[must_use]
pub fn entry_len(metadata: &MetadataFields<'_>, payload: &[u8]) -> usize {
    ENTRY_HEAD_BYTES + metadata.encoded_len() + payload.len()
}

/// Appends a whole entry with its checksum.
pub fn put_entry(out: &mut BytesMut, metadata: &MetadataFields<'_>, payload: &[u8]) {
    let metadata_len = metadata.encoded_len();
    out.reserve(ENTRY_HEAD_BYTES + metadata_len + payload.len());
    let start = put_entry_head(out, metadata, metadata_len);
    out.put_slice(payload);
    set_checksum(out, start, &[]);
}

/// Appends an entry without its payload and with a checksum of 0. Returns the start of the entry.
pub(super) fn put_entry_head(out: &mut BytesMut, metadata: &MetadataFields<'_>, metadata_len: usize) -> usize {
    let start = out.len();
    out.put_u16(MAGIC_CRC32C);
    out.put_u32(0);
    out.put_u32(metadata_len as u32);
    metadata.encode(out);
    start
}

/// Sets the checksum of the entry at `start`, whose last part is `rest`, not in `out`.
fn set_checksum(out: &mut BytesMut, start: usize, rest: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[start + BLOCK_HEAD_BYTES..]), rest);
    out[start + 2..start + BLOCK_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// `BrokerEntryMetadata`: what the broker adds to an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerEntryMetadata {
    /// `broker_timestamp`: the broker's clock at publishing, milliseconds since 1970.
    pub broker_timestamp: Option<u64>,
    /// `index`: the count of messages of the topic before the entry's last one. Member `i` of a
    /// batch of `n` has `index - (n - 1 - i)`.
    pub index: Option<u64>,
}

impl BrokerEntryMetadata {
    /// Decodes a serialized BrokerEntryMetadata.
    ///
    /// # Errors
    /// Bytes that are not protobuf, or a field with a wrong wire type.
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

/// Appends the block that a broker prepends to an entry: magic number, length and
/// BrokerEntryMetadata. `broker_timestamp` is in milliseconds since 1970.
pub fn put_broker_entry_metadata(out: &mut BytesMut, broker_timestamp: u64, index: u64) {
    out.put_u16(MAGIC_BROKER_ENTRY_METADATA);
    out.put_u32((uint_len(1, broker_timestamp) + uint_len(2, index)) as u32);
    put_uint(out, 1, broker_timestamp);
    put_uint(out, 2, index);
}

#[cfg(test)]
mod tests;
