//! LZ4: a raw block, without frame and size prefix.

use bytes::Bytes;
use lz4_flex::block;

use super::{CompressError, checked_size, exactly, shrunk};

/// The most bytes of output for one byte of a block: a length byte of a match.
const RATIO_MAX: usize = 255;

pub(super) fn compress(input: &[u8]) -> Bytes {
    shrunk(block::compress(input))
}

pub(super) fn decompress(input: &[u8], declared: u32, max: usize) -> Result<Bytes, CompressError> {
    let size = checked_size(declared, input.len().saturating_mul(RATIO_MAX), max)?;
    let mut output = vec![0; size];
    let actual =
        block::decompress_into(input, &mut output).map_err(|error| CompressError::Corrupt(error.to_string()))?;
    exactly(output, actual, size)
}
