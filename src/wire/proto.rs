//! Protobuf fields, decoded and encoded by hand, for the few messages on the hot path.
//!
//! A [`Reader`] returns one field at a time as a number and a [`Value`]. It checks every length before it
//! moves, so any bytes give fields or a [`DecodeError`], never a panic. Offsets in errors count from the
//! start of the slice plus the `base` that was given to the reader.

use std::ops::Range;

use bytes::BufMut;

use super::error::{DecodeError, DecodeErrorKind};

/// The value of one field, by wire type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: the range of the bytes in the reader's slice.
    Bytes(Range<usize>),
    /// Wire type 5.
    Fixed32(u32),
}

impl Value {
    /// The value of `field`, which must be a varint; `at` is the offset of the field.
    #[inline(always)]
    pub(crate) fn uint(self, field: &'static str, at: usize) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            _ => Err(wrong_type(field, at)),
        }
    }

    /// The range of `field`, which must be length-delimited; `at` is the offset of the field.
    #[inline(always)]
    pub(crate) fn range(self, field: &'static str, at: usize) -> Result<Range<usize>, DecodeError> {
        match self {
            Value::Bytes(range) => Ok(range),
            _ => Err(wrong_type(field, at)),
        }
    }
}

#[cold]
fn wrong_type(field: &'static str, at: usize) -> DecodeError {
    DecodeError::new(DecodeErrorKind::BadWireType, field, at)
}

/// A forward walk over the fields of one message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    /// The bytes that follow.
    rest: &'a [u8],
    /// The length of the whole message.
    len: usize,
    base: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`; `base` is added to the offsets in errors.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { rest: bytes, len: bytes.len(), base }
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// `field` names the message in errors. Always inlined, so that the result stays in registers instead of
    /// going through memory.
    #[inline(always)]
    pub(crate) fn next(&mut self, field: &'static str) -> Result<Option<(u32, Value)>, DecodeError> {
        if self.rest.is_empty() {
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

    /// The next field and its offset, for errors about its value.
    #[inline(always)]
    pub(crate) fn next_at(&mut self, field: &'static str) -> Result<Option<(u32, Value, usize)>, DecodeError> {
        let at = self.offset();
        Ok(self.next(field)?.map(|(number, value)| (number, value, at)))
    }

    /// The offset of the next field, counted as in errors.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.base + self.position()
    }

    /// The next element of a packed field, which is a run of varints without tags.
    #[inline]
    pub(crate) fn next_packed(&mut self, field: &'static str) -> Result<Option<u64>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.varint(field).map(Some)
    }

    #[inline]
    fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    #[inline(always)]
    fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        // Nearly all tags, lengths and flags take one byte.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        match long_varint(self.rest) {
            (_, 0) => Err(self.varint_error(field)),
            (value, length) => {
                self.rest = self.rest.get(length..).unwrap_or_default();
                Ok(value)
            }
        }
    }

    #[cold]
    fn varint_error(&self, field: &'static str) -> DecodeError {
        let whole = self.rest.len() >= VARINT_BYTES_MAX;
        self.error(if whole { DecodeErrorKind::BadVarint } else { DecodeErrorKind::Truncated }, field)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk() else {
            return Err(self.error(DecodeErrorKind::Truncated, field));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    fn range(&mut self, field: &'static str) -> Result<Range<usize>, DecodeError> {
        let length = self.varint(field)?;
        let start = self.position();
        match usize::try_from(length).ok().and_then(|length| self.rest.get(length..)) {
            Some(rest) => self.rest = rest,
            None => return Err(self.error(DecodeErrorKind::Truncated, field)),
        }
        Ok(start..self.position())
    }

    #[cold]
    fn error(&self, kind: DecodeErrorKind, field: &'static str) -> DecodeError {
        DecodeError::new(kind, field, self.offset())
    }
}

/// The size of the longest varint of 64 bits.
const VARINT_BYTES_MAX: usize = 10;

/// Decodes a varint of any length at the front: its value, and its length, which is 0 if it does not end or has too many bits.
/// Two words are returned in registers.
#[inline(never)]
fn long_varint(bytes: &[u8]) -> (u64, usize) {
    const ENDS: u64 = 0x8080_8080_8080_8080;
    let Some(word) = bytes.first_chunk().copied().map(u64::from_le_bytes) else { return varint_at_end(bytes) };
    // A clear top bit ends the varint. With eight bytes in one word, no branch per byte is needed.
    let ends = !word & ENDS;
    if ends != 0 {
        let last = ends & ends.wrapping_neg();
        return (join_sevens(word & (last | (last - 1))), last.trailing_zeros() as usize / 8 + 1);
    }
    // Every -1 has ten bytes, such as the partition in most MESSAGE commands.
    let low = join_sevens(word & !ENDS);
    match bytes.get(8..).unwrap_or_default() {
        [ninth @ 0..=0x7f, ..] => (low | u64::from(*ninth) << 56, 9),
        [ninth, tenth, ..] if *tenth <= 1 || parser_mutation!(VarintTooLong) && *tenth < 0x80 => {
            (low | u64::from(ninth & 0x7f) << 56 | u64::from(*tenth) << 63, 10)
        }
        _ => (0, 0),
    }
}

/// [`long_varint`] of fewer than eight bytes, which is where the last field of a command ends. The usual lengths of ids and sizes
/// have no loop.
#[inline]
fn varint_at_end(bytes: &[u8]) -> (u64, usize) {
    let bits = |byte: u8, index: u32| u64::from(byte & 0x7f) << (7 * index);
    match *bytes {
        [first, second @ 0..0x80, ..] if first >= 0x80 => (bits(first, 0) | bits(second, 1), 2),
        [first, second, third @ 0..0x80, ..] if first >= 0x80 => (bits(first, 0) | bits(second, 1) | bits(third, 2), 3),
        _ => match bytes.iter().position(|byte| *byte < 0x80) {
            Some(last) => {
                ((0..).zip(&bytes[..=last]).fold(0, |value, (index, byte)| value | bits(*byte, index)), last + 1)
            }
            None => (0, 0),
        },
    }
}

/// The lower seven bits of each byte, without gaps: in pairs, then fours, then all.
#[inline]
fn join_sevens(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (pairs & 0x0000_3fff_0000_3fff) | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4
}

/// The size of `value` as a varint, bytes.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one byte as well.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends field `number` as a varint field.
#[inline]
pub(crate) fn put_uint(out: &mut impl BufMut, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends field `number` as a length-delimited field.
#[inline]
pub(crate) fn put_bytes(out: &mut impl BufMut, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

/// The number of bytes that [`put_uint`] appends.
#[inline]
pub(crate) fn uint_len(number: u32, value: u64) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(value)
}

/// The number of bytes that [`put_bytes`] appends.
#[inline]
pub(crate) fn bytes_len(number: u32, length: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(length as u64) + length
}

/// The varint of an `int32`, which is sign-extended to 64 bits on the wire.
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
    fn varints_read_alike_with_and_without_bytes_behind_them() {
        // Padding beyond the shortest form is legal protobuf.
        let padded = [vec![0x80, 0x00], vec![0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]];
        let shortest = (0..64).flat_map(|shift| [1u64 << shift, u64::MAX >> shift, 0x0123_4567_89ab_cdef >> shift]);
        let shortest = shortest.map(|value| {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out
        });
        for varint in shortest.chain(padded) {
            let bytewise = varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
            for behind in 0..12 {
                for byte in [0, 0x7f, 0xff] {
                    let mut field = vec![0x08];
                    field.extend(&varint);
                    field.extend(vec![byte; behind]);
                    let mut reader = Reader::new(&field, 0);
                    assert_eq!(reader.next("test"), Ok(Some((1, Value::Varint(bytewise)))), "{varint:x?}");
                    assert_eq!(reader.offset(), 1 + varint.len());
                }
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
