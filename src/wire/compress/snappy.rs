//! Snappy: a raw block, which begins with its size, not the frame format.

use std::cell::RefCell;

use bytes::Bytes;
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::{CompressError, checked_size, exactly, shrunk};

/// The most bytes of output for one byte of a block: three bytes of a copy give 64.
const RATIO_MAX: usize = 22;

thread_local! {
    /// Its table of 32 KiB is used again by each compression of a thread.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

pub(super) fn compress(input: &[u8]) -> Result<Bytes, CompressError> {
    let mut output = vec![0; max_compress_len(input.len())];
    let size = ENCODER.with_borrow_mut(|encoder| encoder.compress(input, &mut output)).map_err(failed)?;
    output.truncate(size);
    Ok(shrunk(output))
}

/// A size that the block does not name itself is refused before memory is allocated for it.
pub(super) fn decompress(input: &[u8], declared: u32, max: usize) -> Result<Bytes, CompressError> {
    let size = checked_size(declared, input.len().saturating_mul(RATIO_MAX), max)?;
    let actual = decompress_len(input).map_err(failed)?;
    if actual != size {
        return Err(CompressError::SizeMismatch { declared: size, actual });
    }
    let mut output = vec![0; size];
    let actual = Decoder::new().decompress(input, &mut output).map_err(failed)?;
    exactly(output, actual, size)
}

fn failed(error: snap::Error) -> CompressError {
    CompressError::Corrupt(error.to_string())
}
