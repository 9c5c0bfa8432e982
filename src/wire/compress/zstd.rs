//! Zstandard: one frame, or several in a row, without a dictionary.

use std::cell::RefCell;
use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, compress_bound, find_frame_compressed_size, get_frame_content_size};

use super::{CompressError, checked_size, exactly, shrunk};

/// Those of the command `zstd`.
pub(super) const LEVELS: RangeInclusive<i32> = 1..=22;

/// As in the Java client.
const LEVEL_DEFAULT: i32 = 3;

/// From this level on a frame of a large payload has a window that the Java client does not read, which is above 8 MiB.
const LEVEL_OF_LARGE_WINDOWS: i32 = 20;

/// The largest window that the Java client reads: the logarithm of 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// The smallest block that gives output, and the most that a block gives, bytes (RFC 8878, 3.1.1.2).
const BLOCK_BYTES_MIN: usize = 4;
const BLOCK_OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// A compressor that takes more is not kept: from level 9 on, a payload of some MiB makes it take 11 MiB to 130 MiB.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

thread_local! {
    /// Of a compression before on this thread, with its level.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    /// Of a decompression before on this thread, about 160 KiB.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressError> {
    let level = level.unwrap_or(LEVEL_DEFAULT);
    let mut compressor = match COMPRESSOR.take() {
        Some((kept, compressor)) if kept == level => compressor,
        _ => new_compressor(level).map_err(failed)?,
    };
    let mut output = Vec::with_capacity(compress_bound(input.len()));
    compressor.compress_to_buffer(input, &mut output).map_err(failed)?;
    if compressor.context_mut().sizeof() <= KEPT_BYTES_MAX {
        COMPRESSOR.set(Some((level, compressor)));
    }
    Ok(shrunk(output))
}

fn new_compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    if level >= LEVEL_OF_LARGE_WINDOWS {
        compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG_MAX))?;
    }
    Ok(compressor)
}

pub(super) fn decompress(input: &[u8], declared: u32, max: usize) -> Result<Bytes, CompressError> {
    let reachable = (input.len() / BLOCK_BYTES_MIN).saturating_mul(BLOCK_OUTPUT_BYTES_MAX);
    let size = checked_size(declared, reachable, max)?;
    check_header(input, size)?;
    let mut output = Vec::with_capacity(size);
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(used) => used,
            None => slot.insert(Decompressor::new().map_err(failed)?),
        };
        decompressor.decompress_to_buffer(input, &mut output).map_err(failed)
    })?;
    let actual = output.len();
    exactly(output, actual, size)
}

/// Most frames say how large their content is: one that contradicts the declared size is refused before memory is
/// allocated for it.
fn check_header(input: &[u8], size: usize) -> Result<(), CompressError> {
    let Ok(Some(content)) = get_frame_content_size(input) else { return Ok(()) };
    let actual = usize::try_from(content).unwrap_or(usize::MAX);
    let is_all = || find_frame_compressed_size(input) == Ok(input.len());
    if actual > size || (actual < size && is_all()) {
        return Err(CompressError::SizeMismatch { declared: size, actual });
    }
    Ok(())
}

fn failed(error: io::Error) -> CompressError {
    CompressError::Corrupt(error.to_string())
}
