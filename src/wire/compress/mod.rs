//! Payload codecs: `CompressionType` of PulsarApi.proto, one file each.
//!
//! A payload is compressed as a whole: all records of a batch together, a chunked message before it is split. The metadata
//! carries `uncompressed_size`. A peer's size is checked against a limit, and against the maximum that the codec could
//! produce from the input, before memory is allocated for it; no codec writes beyond it.
//!
//! | codec | payload | feature | levels | a declared size that is not met |
//! | --- | --- | --- | --- | --- |
//! | LZ4 | a raw block | `lz4` | none | refused |
//! | ZLIB | a stream, which need not end | `zlib` | 1 to 9, default 6 | what comes behind it is ignored, less is refused |
//! | ZSTD | frames without a dictionary | `zstd` | 1 to 22, default 3 | refused |
//! | SNAPPY | a raw block | `snappy` | none | refused |
//!
//! The state of a compressor or decompressor that is large is kept for the next payload of the thread.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zlib")]
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(test)]
mod tests;

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
    /// Zlib streams (`CompressionType.ZLIB`), of level 1 to 9; default 6, as in the Java client. Needs the crate feature
    /// `zlib`.
    Zlib,
    /// Zstandard frames (`CompressionType.ZSTD`, consumers since 2.3), of level 1 to 22; default 3, as in the Java
    /// client. Needs the crate feature `zstd`.
    Zstd,
    /// Raw Snappy blocks (`CompressionType.SNAPPY`, consumers since 2.4). Needs the crate feature `snappy`.
    Snappy,
}

impl Compression {
    /// All of them, whether built in or not.
    pub const ALL: [Self; 5] = [Self::None, Self::Lz4, Self::Zlib, Self::Zstd, Self::Snappy];

    /// The number of `CompressionType`.
    #[must_use]
    pub fn to_pb(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zlib => 2,
            Self::Zstd => 3,
            Self::Snappy => 4,
        }
    }

    /// Whether this build can compress with it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        self.check_built().is_ok()
    }

    /// # Errors
    /// [`CompressError::NotBuilt`], which names the crate feature.
    pub(crate) fn check_built(self) -> Result<(), CompressError> {
        let is_built_in = match self {
            Self::None => true,
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zlib => cfg!(feature = "zlib"),
            Self::Zstd => cfg!(feature = "zstd"),
            Self::Snappy => cfg!(feature = "snappy"),
        };
        match codec_name(self.to_pb()) {
            Some(codec) if !is_built_in => Err(CompressError::NotBuilt { codec }),
            _ => Ok(()),
        }
    }

    /// The levels that it has; `None` for one without levels.
    pub(crate) fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            #[cfg(feature = "zlib")]
            Self::Zlib => Some(zlib::LEVELS),
            #[cfg(feature = "zstd")]
            Self::Zstd => Some(zstd::LEVELS),
            _ => None,
        }
    }
}

/// Compresses `input`. [`Compression::None`] copies it; a caller that owns its payload can skip the call.
///
/// `level` is one of those that the codec has, or `None` for its default; a codec without levels ignores it.
///
/// # Errors
/// [`CompressError::NotBuilt`] for a codec whose feature is left out; [`CompressError::Corrupt`] with the text of a codec
/// that fails, for instance for want of memory.
#[cfg_attr(not(any(feature = "zlib", feature = "zstd")), expect(unused_variables, reason = "no codec has levels"))]
pub fn compress(kind: Compression, level: Option<i32>, input: &[u8]) -> Result<Bytes, CompressError> {
    kind.check_built()?;
    match kind {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Ok(lz4::compress(input)),
        #[cfg(feature = "zlib")]
        Compression::Zlib => zlib::compress(level, input),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::compress(level, input),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::compress(input),
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
/// data may well have; or data that does not decompress to that size, or cannot. Of zlib, as in the official clients,
/// only the first bytes up to that size are read.
#[cfg_attr(
    not(any(feature = "lz4", feature = "zlib", feature = "zstd", feature = "snappy")),
    expect(unused_variables, reason = "no codec is built in")
)]
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
    // Some producers send no bytes for an empty payload, Java's with zlib among them.
    if uncompressed_size == 0 && input.is_empty() {
        return Ok(Bytes::new());
    }
    match codec {
        #[cfg(feature = "lz4")]
        1 => lz4::decompress(input, uncompressed_size, uncompressed_bytes_max),
        #[cfg(feature = "zlib")]
        2 => zlib::decompress(input, uncompressed_size, uncompressed_bytes_max),
        #[cfg(feature = "zstd")]
        3 => zstd::decompress(input, uncompressed_size, uncompressed_bytes_max),
        #[cfg(feature = "snappy")]
        4 => snappy::decompress(input, uncompressed_size, uncompressed_bytes_max),
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

/// What to allocate for the output. A size that no such data reaches is refused as what it is, before it is compared with
/// the limit.
#[cfg(any(feature = "lz4", feature = "zlib", feature = "zstd", feature = "snappy"))]
fn checked_size(declared: u32, possible: usize, max: usize) -> Result<usize, CompressError> {
    let size = declared as usize;
    if size > possible {
        return Err(CompressError::ImpossibleSize { declared: size, possible });
    }
    if size > max && !parser_mutation!(UncompressedSizeUnchecked) {
        return Err(CompressError::TooLarge { size: declared, max });
    }
    Ok(size)
}

/// The output, if it is as large as was declared.
#[cfg(any(feature = "lz4", feature = "zlib", feature = "zstd", feature = "snappy"))]
fn exactly(output: Vec<u8>, actual: usize, declared: usize) -> Result<Bytes, CompressError> {
    if actual == declared || parser_mutation!(SizeMismatchAccepted) {
        Ok(output.into())
    } else {
        Err(CompressError::SizeMismatch { declared, actual })
    }
}

/// Codecs reserve for the worst case; an in-flight frame must not hold much more than its size.
#[cfg(any(feature = "lz4", feature = "zlib", feature = "zstd", feature = "snappy"))]
fn shrunk(mut output: Vec<u8>) -> Bytes {
    if output.len() < output.capacity() / 2 {
        output.shrink_to_fit();
    }
    output.into()
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
            // The features have the names of the codecs.
            Self::NotBuilt { codec } => {
                write!(f, "compression codec {codec} needs the crate feature `{}`", codec.to_lowercase())
            }
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
