//! What is wrong with bytes that are not what they should be: the field, the place, the reason.

use std::fmt;

/// Bytes that cannot be read, with the field that was being read and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// The field or message being read, in the names of `PulsarApi.proto`.
    pub field: &'static str,
    /// Bytes from the start of the frame (its `total_size` field) or of the entry being read.
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
    /// A wire type that proto2 does not have, or not the one the field has.
    BadWireType,
    /// A string that is not UTF-8.
    BadUtf8,
    /// A required field is not there.
    Missing,
    /// A length field is below what it must hold at least.
    TooSmall {
        /// The length read, bytes.
        size: u64,
        /// The least it may be, bytes.
        min: u64,
    },
    /// A length field is above its limit.
    TooLarge {
        /// The length read, bytes.
        size: u64,
        /// The most it may be, bytes.
        max: u64,
    },
    /// A value outside the range that has a meaning.
    OutOfRange {
        /// The value read.
        value: i64,
    },
    /// The protobuf decoder refused the bytes; its own words.
    Protobuf(String),
}

impl DecodeError {
    pub(crate) fn new(kind: DecodeErrorKind, field: &'static str, offset: usize) -> Self {
        Self { kind, field, offset }
    }

    /// The same error seen from an enclosing slice that starts `by` bytes earlier.
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
