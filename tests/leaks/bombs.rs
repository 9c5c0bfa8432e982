//! What a compressed payload can make a consumer allocate: its declared size, if that is within the limit and can be true,
//! and next to nothing else. (The C code of zstd allocates beside this count: a context of a fixed size, and no window,
//! because a payload is decompressed in one call.)

use bytes::Bytes;
use pulsar_native::Compression;
use pulsar_native::wire::{CompressError, compress, decompress};

use super::*;

const MIB: usize = 1024 * 1024;

/// The limit of the consumer, bytes.
const LIMIT: usize = MIB;

/// Error texts and the like, bytes.
const SMALL: usize = 4096;

/// How many bytes it gives, and how many were allocated for it, all together.
fn counted(codec: Compression, payload: &Bytes, declared: u32) -> (Result<usize, CompressError>, usize) {
    allocating(|| decompress(codec.to_pb(), payload, declared, LIMIT).map(|output| output.len()))
}

#[test]
fn no_payload_allocates_more_than_it_may() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let codecs = Compression::ALL.into_iter().filter(|codec| *codec != Compression::None && codec.is_built_in());
    for codec in codecs {
        let packed = |bytes| compress(codec, None, &vec![0; bytes]).expect("a built-in codec");
        let (small, bomb) = (packed(1000), packed(8 * LIMIT));
        // What the thread keeps for the next payload is there from now on.
        assert!(counted(codec, &small, 1000).0.is_ok());

        let (result, bytes) = counted(codec, &bomb, 8 * LIMIT as u32);
        assert_eq!(result, Err(CompressError::TooLarge { size: 8 * LIMIT as u32, max: LIMIT }));
        assert!(bytes < SMALL, "{codec:?}: an honest bomb took {bytes}");

        for (payload, declared) in [(&small, u32::MAX), (&bomb, u32::MAX), (&bomb, 1000), (&bomb, 0)] {
            let (result, bytes) = counted(codec, payload, declared);
            assert!(result.is_err() || codec == Compression::Zlib && declared <= 1000, "{codec:?}: {declared}");
            assert!(bytes < SMALL, "{codec:?}: {declared} bytes declared, {bytes} taken");
        }
        // The second one in the same payload, where a codec reads on.
        let both: Bytes = [&small[..], &bomb].concat().into();
        let (result, bytes) = counted(codec, &both, 1000);
        assert!(result.is_err() || codec == Compression::Zlib, "{codec:?}");
        assert!(bytes < SMALL, "{codec:?}: {bytes} taken for what follows");

        // And one that may: its bytes, once.
        let (result, bytes) = counted(codec, &packed(LIMIT), LIMIT as u32);
        assert_eq!(result, Ok(LIMIT), "{codec:?}");
        assert!((LIMIT..LIMIT + SMALL).contains(&bytes), "{codec:?}: {bytes}");
    }
}
