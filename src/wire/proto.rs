//! Walking and writing protobuf fields by hand, for the few messages on the hot path.
//!
//! A [`Reader`] yields one field at a time as a number and a [`Value`]; it checks every length
//! before it moves, so any bytes end in fields or in a [`DecodeError`], never in a panic. Offsets in
//! errors count from the start of the slice plus the `base` the reader was given.

use std::ops::Range;

use bytes::BufMut;

use super::error::{DecodeError, DecodeErrorKind};

/// The value of one field, before anybody looked at its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: where the bytes lie in the reader's slice.
    Bytes(Range<usize>),
    /// Wire type 5.
    Fixed32(u32),
}

impl Value {
    /// The varint that `field` must be; `at` is where the field starts.
    #[inline]
    pub(crate) fn uint(self, field: &'static str, at: usize) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            _ => Err(DecodeError::new(DecodeErrorKind::BadWireType, field, at)),
        }
    }

    /// The place of the bytes that `field` must be; `at` is where the field starts.
    #[inline]
    pub(crate) fn range(self, field: &'static str, at: usize) -> Result<Range<usize>, DecodeError> {
        match self {
            Value::Bytes(range) => Ok(range),
            _ => Err(DecodeError::new(DecodeErrorKind::BadWireType, field, at)),
        }
    }
}

/// A forward walk over the fields of one message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    base: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `base` is where they start in whatever the errors shall refer to.
    pub(crate) fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, position: 0, base }
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// `field` names the message in errors.
    #[inline]
    pub(crate) fn next(&mut self, field: &'static str) -> Result<Option<(u32, Value)>, DecodeError> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint(field)?;
        // A tag has 32 bits, so a field number at most 29.
        let number = u32::try_from(tag).map_or(0, |tag| tag >> 3);
        if number == 0 {
            return Err(self.error(DecodeErrorKind::BadTag, field));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(field)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array(field)?)),
            2 => Value::Bytes(self.range(field)?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array(field)?)),
            _ => return Err(self.error(DecodeErrorKind::BadWireType, field)),
        };
        Ok(Some((number, value)))
    }

    /// Where the walk stands, in the terms of the errors: behind the last field, before the next.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.base + self.position
    }

    /// The next element of a packed field, which is a run of varints without tags.
    #[inline]
    pub(crate) fn next_packed(&mut self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        self.varint(field).map(Some)
    }

    #[inline]
    fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes[self.position..].iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(self.error(DecodeErrorKind::BadVarint, field));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.position += index + 1;
                return Ok(value);
            }
        }
        let kind = if self.bytes.len() - self.position >= 10 {
            DecodeErrorKind::BadVarint
        } else {
            DecodeErrorKind::Truncated
        };
        Err(self.error(kind, field))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes: Option<[u8; N]> = self.bytes[self.position..].first_chunk().copied();
        let bytes = bytes.ok_or_else(|| self.error(DecodeErrorKind::Truncated, field))?;
        self.position += N;
        Ok(bytes)
    }

    #[inline]
    fn range(&mut self, field: &'static str) -> Result<Range<usize>, DecodeError> {
        let length = self.varint(field)?;
        let left = self.bytes.len() - self.position;
        let length = usize::try_from(length).ok().filter(|&length| length <= left);
        let length = length.ok_or_else(|| self.error(DecodeErrorKind::Truncated, field))?;
        let range = self.position..self.position + length;
        self.position = range.end;
        Ok(range)
    }

    fn error(&self, kind: DecodeErrorKind, field: &'static str) -> DecodeError {
        DecodeError::new(kind, field, self.base + self.position)
    }
}

/// Bytes that `value` takes as a varint.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte as well.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes `value` as a varint.
#[inline]
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes field `number` (below 16) or higher as a varint field.
#[inline]
pub(crate) fn put_uint(out: &mut impl BufMut, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Writes field `number` as a length-delimited field.
#[inline]
pub(crate) fn put_bytes(out: &mut impl BufMut, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

/// Bytes that [`put_uint`] takes.
#[inline]
pub(crate) fn uint_len(number: u32, value: u64) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(value)
}

/// Bytes that [`put_bytes`] takes.
#[inline]
pub(crate) fn bytes_len(number: u32, length: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(length as u64) + length
}

/// `int32` values are sign-extended to 64 bits on the wire.
#[inline]
pub(crate) fn int32(value: i32) -> u64 {
    i64::from(value) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<Option<(u32, Value)>, DecodeError> {
        Reader::new(bytes, 0).next("test")
    }

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_uint(&mut out, 3, value);
                assert_eq!(out.len(), uint_len(3, value));
                assert_eq!(first(&out), Ok(Some((3, Value::Varint(value)))));
            }
        }
    }

    #[test]
    fn bytes_round_trip_and_never_reach_past_the_end() {
        let mut out = Vec::new();
        put_bytes(&mut out, 2, b"hello");
        assert_eq!(out.len(), bytes_len(2, 5));
        assert_eq!(first(&out), Ok(Some((2, Value::Bytes(2..7)))));
        out.pop();
        assert_eq!(first(&out).unwrap_err().kind, DecodeErrorKind::Truncated);
    }

    #[test]
    fn malformed_fields_are_errors() {
        assert_eq!(first(&[0x08]).unwrap_err().kind, DecodeErrorKind::Truncated);
        assert_eq!(first(&[0x00]).unwrap_err().kind, DecodeErrorKind::BadTag);
        assert_eq!(first(&[0x80, 0x80, 0x80, 0x80, 0x10, 0]).unwrap_err().kind, DecodeErrorKind::BadTag);
        assert_eq!(first(&[0x0b]).unwrap_err().kind, DecodeErrorKind::BadWireType);
        assert_eq!(first(&[0xff; 11]).unwrap_err().kind, DecodeErrorKind::BadVarint);
        assert_eq!(first(&[0x09, 0, 0]).unwrap_err().kind, DecodeErrorKind::Truncated);
    }
}
