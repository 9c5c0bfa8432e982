//! Errors of decoding: the field, its offset, the reason.

use std::fmt;

/// Bytes that cannot be decoded, with the field that was being decoded and its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The field or message being decoded, as `PulsarApi.proto` names it.
    pub field: &'static str,
    /// Bytes from the start of the frame (its `total_size` field) or of the entry.
    pub offset: usize,
}

/// The reason of a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside the field.
    Truncated,
    /// A varint of more than 64 bits.
    BadVarint,
    /// A field number of zero or above 2^29 - 1.
    BadTag,
    /// A wire type that proto2 does not have, or not that of the field.
    BadWireType,
    /// A string that is not UTF-8.
    BadUtf8,
    /// A required field is absent.
    Missing,
    /// A length field is below its minimum.
    TooSmall {
        /// The length read, bytes.
        size: u64,
        /// The minimum, bytes.
        min: u64,
    },
    /// A length field is above its limit.
    TooLarge {
        /// The length read, bytes.
        size: u64,
        /// The maximum, bytes.
        max: u64,
    },
    /// A value out of the valid range.
    OutOfRange {
        /// The value read.
        value: i64,
    },
    /// The protobuf decoder refused the bytes; its text.
    Protobuf(String),
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, field: &'static str, offset: usize) -> Self {
        Self { kind, field, offset }
    }

    /// This error with its offset counted from an enclosing slice that starts `by` bytes earlier.
    #[must_use]
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.offset += by;
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.field, self.offset)?;
        match &self.kind {
            DecodeErrorKind::Truncated => f.write_str("the bytes end inside the field"),
            DecodeErrorKind::BadVarint => f.write_str("a varint of more than 64 bits"),
            DecodeErrorKind::BadTag => f.write_str("not a field number"),
            DecodeErrorKind::BadWireType => f.write_str("wrong wire type"),
            DecodeErrorKind::BadUtf8 => f.write_str("not UTF-8"),
            DecodeErrorKind::Missing => f.write_str("required but absent"),
            DecodeErrorKind::TooSmall { size, min } => write!(f, "{size} is below the least possible {min}"),
            DecodeErrorKind::TooLarge { size, max } => write!(f, "{size} is above the limit of {max}"),
            DecodeErrorKind::OutOfRange { value } => write!(f, "{value} is out of range"),
            DecodeErrorKind::Protobuf(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}
