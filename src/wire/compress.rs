//! Payload codecs: `CompressionType` of PulsarApi.proto.
//!
//! A payload is compressed as a whole: all records of a batch together, a chunked message before it is
//! split. LZ4 is a raw block without frame or size prefix, so the metadata carries `uncompressed_size`. A
//! peer's size is checked against a limit, and against the maximum that the codec could produce from the
//! input, before memory is allocated for it.

use std::fmt;

use bytes::Bytes;

/// How a producer compresses payloads. A consumer decompresses every codec that is built in.
///
/// The variants are the same in every build. One whose crate feature is left out is refused where a producer is
/// created, with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Raw LZ4 blocks (`CompressionType.LZ4`). Needs the crate feature `lz4`, which is on by default.
    Lz4,
}

impl Compression {
    /// The number of `CompressionType`.
    #[must_use]
    pub fn to_pb(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    /// Whether this build can compress with it.
    ///
    /// # Errors
    /// [`CompressError::NotBuilt`], which names the crate feature.
    pub(crate) fn check_built(self) -> Result<(), CompressError> {
        match self {
            Self::Lz4 if !cfg!(feature = "lz4") => Err(CompressError::NotBuilt { codec: "LZ4" }),
            Self::None | Self::Lz4 => Ok(()),
        }
    }
}

/// Compresses `input`. [`Compression::None`] copies it; a caller that owns its payload can skip the call.
///
/// # Errors
/// [`CompressError::NotBuilt`] for a codec whose feature is left out.
pub fn compress(kind: Compression, input: &[u8]) -> Result<Bytes, CompressError> {
    kind.check_built()?;
    match kind {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Ok(lz4::compress(input)),
        _ => Ok(Bytes::copy_from_slice(input)),
    }
}

/// Decompresses a payload; `codec` is the number in `MessageMetadata.compression`.
///
/// `uncompressed_size` is that of the metadata, in bytes; for codec NONE it is ignored and `input` is
/// returned unchanged. `uncompressed_bytes_max` limits what a peer can make this side allocate.
///
/// # Errors
/// A codec that is unknown or not built in; [`CompressError::TooLarge`] for a declared size above the limit, which the
/// data may well have; or data that does not decompress to exactly that size, or cannot.
#[cfg_attr(not(feature = "lz4"), expect(unused_variables, reason = "no codec is built in"))]
pub fn decompress(
    codec: i32,
    input: &Bytes,
    uncompressed_size: u32,
    uncompressed_bytes_max: usize,
) -> Result<Bytes, CompressError> {
    if codec == 0 {
        return Ok(input.clone());
    }
    let name = codec_name(codec).ok_or(CompressError::UnknownCodec(codec))?;
    match codec {
        #[cfg(feature = "lz4")]
        1 => lz4::decompress(input, uncompressed_size, uncompressed_bytes_max),
        _ => Err(CompressError::NotBuilt { codec: name }),
    }
}

/// The name of a codec in `CompressionType`; `None` for NONE and for numbers that it does not have.
pub(crate) fn codec_name(codec: i32) -> Option<&'static str> {
    match codec {
        1 => Some("LZ4"),
        2 => Some("ZLIB"),
        3 => Some("ZSTD"),
        4 => Some("SNAPPY"),
        _ => None,
    }
}

#[cfg(feature = "lz4")]
mod lz4 {
    use bytes::Bytes;
    use lz4_flex::block;

    use super::CompressError;

    /// The most bytes of output for one byte of a block: a length byte of a match.
    const RATIO_MAX: usize = 255;

    pub(super) fn compress(input: &[u8]) -> Bytes {
        let mut output = block::compress(input);
        // The codec reserves for the worst case; an in-flight frame must not hold much more than its size.
        if output.len() < output.capacity() / 2 {
            output.shrink_to_fit();
        }
        output.into()
    }

    /// A size that no such block reaches is refused as what it is, before it is compared with the limit.
    pub(super) fn decompress(input: &[u8], declared: u32, max: usize) -> Result<Bytes, CompressError> {
        let size = declared as usize;
        // Some producers send no bytes instead of an empty block for an empty payload.
        if size == 0 && input.is_empty() {
            return Ok(Bytes::new());
        }
        let reachable = input.len().saturating_mul(RATIO_MAX);
        if size > reachable {
            return Err(CompressError::ImpossibleSize { declared: size, possible: reachable });
        }
        if size > max {
            return Err(CompressError::TooLarge { size: declared, max });
        }
        let mut output = vec![0; size];
        let actual =
            block::decompress_into(input, &mut output).map_err(|error| CompressError::Corrupt(error.to_string()))?;
        if actual != size {
            return Err(CompressError::SizeMismatch { declared: size, actual });
        }
        Ok(output.into())
    }
}

/// Why a payload could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressError {
    /// A number that `CompressionType` does not have.
    UnknownCodec(i32),
    /// A codec of Pulsar that this build leaves out.
    NotBuilt {
        /// Its name in `CompressionType`.
        codec: &'static str,
    },
    /// The declared size is above the limit.
    TooLarge {
        /// `uncompressed_size`, bytes.
        size: u32,
        /// The limit, bytes.
        max: usize,
    },
    /// No data of this length decompresses to the declared size.
    ImpossibleSize {
        /// `uncompressed_size`, bytes.
        declared: usize,
        /// The largest possible size, bytes.
        possible: usize,
    },
    /// The codec refused the data; its text.
    Corrupt(String),
    /// The data decompresses to another number of bytes than declared.
    SizeMismatch {
        /// `uncompressed_size`, bytes.
        declared: usize,
        /// The actual size, bytes.
        actual: usize,
    },
}

impl fmt::Display for CompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCodec(value) => write!(f, "unknown compression codec {value}"),
            Self::NotBuilt { codec: "LZ4" } => f.write_str("compression codec LZ4 needs the crate feature `lz4`"),
            Self::NotBuilt { codec } => write!(f, "compression codec {codec} is not supported"),
            Self::TooLarge { size, max } => write!(f, "uncompressed size {size} is above the limit of {max} bytes"),
            Self::ImpossibleSize { declared, possible } => {
                write!(f, "uncompressed size {declared} declared, but the payload gives at most {possible}")
            }
            Self::Corrupt(text) => write!(f, "corrupt compressed payload: {text}"),
            Self::SizeMismatch { declared, actual } => {
                write!(f, "uncompressed size {declared} declared, but the payload gives {actual}")
            }
        }
    }
}

impl std::error::Error for CompressError {}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn no_codec_hands_the_same_bytes_on() {
        let input = compress(Compression::None, b"hello").unwrap();
        let output = decompress(Compression::None.to_pb(), &input, 99, 0).unwrap();
        assert_eq!(output.as_ptr(), input.as_ptr());
        assert_eq!(output, "hello");
    }

    #[test]
    fn codecs_that_are_not_there_are_named() {
        let input = Bytes::from_static(b"x");
        assert_eq!(decompress(2, &input, 1, MAX), Err(CompressError::NotBuilt { codec: "ZLIB" }));
        assert_eq!(decompress(3, &input, 1, MAX), Err(CompressError::NotBuilt { codec: "ZSTD" }));
        assert_eq!(decompress(4, &input, 1, MAX), Err(CompressError::NotBuilt { codec: "SNAPPY" }));
        for value in [-1, 5, 15, i32::MAX] {
            assert_eq!(decompress(value, &input, 1, MAX), Err(CompressError::UnknownCodec(value)));
        }
    }

    #[test]
    fn a_codec_without_its_feature_is_refused_and_names_it() {
        let built = Compression::Lz4.check_built();
        assert_eq!(built.is_ok(), cfg!(feature = "lz4"));
        assert_eq!(compress(Compression::Lz4, b"x").map(drop), built);
        let text = CompressError::NotBuilt { codec: "LZ4" }.to_string();
        assert!(text.contains("feature `lz4`"), "{text}");
    }

    #[cfg(feature = "lz4")]
    mod lz4 {
        use super::*;

        #[test]
        fn payloads_round_trip() {
            for size in [0usize, 1, 15, 100, 4096, 70_000] {
                for period in [1, 7, 251] {
                    let input: Vec<u8> = (0..size).map(|at| (at % period) as u8).collect();
                    let packed = compress(Compression::Lz4, &input).unwrap();
                    assert_eq!(decompress(1, &packed, size as u32, MAX).unwrap(), input);
                }
            }
        }

        #[test]
        fn a_highly_repetitive_payload_stays_within_the_ratio() {
            let packed = compress(Compression::Lz4, &vec![7; MAX]).unwrap();
            assert!(packed.len() < MAX / 200);
            assert_eq!(decompress(1, &packed, MAX as u32, MAX).unwrap().len(), MAX);
        }

        #[test]
        fn an_empty_payload_may_be_an_empty_block_or_nothing() {
            assert!(decompress(1, &Bytes::new(), 0, MAX).unwrap().is_empty());
            assert!(decompress(1, &Bytes::from_static(&[0]), 0, MAX).unwrap().is_empty());
        }

        #[test]
        fn a_declared_size_that_lies_is_refused() {
            let packed = compress(Compression::Lz4, &[1; 1000]).unwrap();
            assert!(decompress(1, &packed, 999, MAX).is_err());
            assert_eq!(
                decompress(1, &packed, 1001, MAX),
                Err(CompressError::SizeMismatch { declared: 1001, actual: 1000 })
            );
            assert_eq!(
                decompress(1, &packed, u32::MAX, MAX),
                Err(CompressError::ImpossibleSize { declared: u32::MAX as usize, possible: packed.len() * 255 })
            );
            assert_eq!(decompress(1, &packed, 1000, 999), Err(CompressError::TooLarge { size: 1000, max: 999 }));
            // Within the limit, but no block of two bytes gets there: refused without an allocation.
            assert!(matches!(
                decompress(1, &Bytes::from_static(&[0x10, b'a']), MAX as u32, MAX),
                Err(CompressError::ImpossibleSize { possible: 510, .. })
            ));
        }

        #[test]
        fn every_prefix_of_a_block_is_an_error() {
            let packed = compress(Compression::Lz4, b"abcabcabcabcabcabcabcabcabc, and then some more text").unwrap();
            for end in 0..packed.len() {
                assert!(decompress(1, &packed.slice(..end), 52, MAX).is_err(), "{end}");
            }
        }
    }
}
