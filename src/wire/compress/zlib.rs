//! Zlib: a stream with header and checksum (RFC 1950).
//!
//! The Java client flushes its streams and never ends them, and all official clients stop to read at the declared size.
//! So does this one: no end of the stream is asked for, and nothing behind that size is looked at.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use bytes::Bytes;
use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::{CompressError, checked_size, exactly, shrunk};

pub(super) const LEVELS: RangeInclusive<i32> = 1..=9;

/// The most bytes of output for one byte of a stream: a match of 258 bytes takes two bits at least.
const RATIO_MAX: usize = 258 * 4;

/// A compressor with its level.
type Compressor = (Level, Compress);

thread_local! {
    /// Of a compression before on this thread, about 300 KiB.
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    /// Of a decompression before on this thread, about 50 KiB.
    static DECOMPRESSOR: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressError> {
    let level = level.and_then(|level| u32::try_from(level).ok()).map_or(Level::default(), Level::new);
    COMPRESSOR.with_borrow_mut(|slot| {
        let (_, compressor) = match slot {
            Some(used) if used.0 == level => {
                used.1.reset();
                used
            }
            other => other.insert((level, Compress::new(level, true))),
        };
        compress_by(compressor, input)
    })
}

fn compress_by(compressor: &mut Compress, input: &[u8]) -> Result<Bytes, CompressError> {
    // What does not shrink grows by a few bytes for each block at most.
    let mut output = Vec::with_capacity(input.len() + input.len() / 64 + 64);
    loop {
        let at = compressor.total_in() as usize;
        let rest = input.get(at..).unwrap_or_default();
        let status = compressor.compress_vec(rest, &mut output, FlushCompress::Finish);
        match status.map_err(|error| CompressError::Corrupt(error.to_string()))? {
            Status::StreamEnd => return Ok(shrunk(output)),
            Status::Ok | Status::BufError => output.reserve(1024),
        }
    }
}

pub(super) fn decompress(input: &[u8], declared: u32, max: usize) -> Result<Bytes, CompressError> {
    let size = checked_size(declared, input.len().saturating_mul(RATIO_MAX), max)?;
    // At least a byte, since a stream of nothing has a header and an end.
    let mut output = Vec::with_capacity(size.max(1));
    DECOMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(used) => {
            used.reset(true);
            decompress_by(used, input, &mut output)
        }
        None => decompress_by(slot.insert(Decompress::new(true)), input, &mut output),
    })?;
    output.truncate(size);
    let actual = output.len();
    exactly(output, actual, size)
}

/// Fills `output` up to its capacity, as far as `input` goes.
fn decompress_by(decompressor: &mut Decompress, input: &[u8], output: &mut Vec<u8>) -> Result<(), CompressError> {
    loop {
        let before = (decompressor.total_in(), output.len());
        let rest = input.get(before.0 as usize..).unwrap_or_default();
        let status = decompressor.decompress_vec(rest, output, FlushDecompress::Sync);
        let status = status.map_err(|error| CompressError::Corrupt(error.to_string()))?;
        let is_full = output.len() == output.capacity();
        if status == Status::StreamEnd || is_full || (decompressor.total_in(), output.len()) == before {
            return Ok(());
        }
    }
}
