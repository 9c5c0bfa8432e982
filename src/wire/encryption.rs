//! The fields of a serialized MessageMetadata that say how its payload is encrypted, read on demand.
//!
//! In bytes that [`Metadata::decode`](super::metadata::Metadata::decode) accepted, all of them are found; in any other bytes
//! those before the first field that cannot be decoded.

use super::metadata::{Properties, byte_fields, properties};

/// The field number of `encryption_keys` in MessageMetadata.
const KEYS: u32 = 13;
/// The field number of `encryption_algo` in MessageMetadata.
const ALGO: u32 = 14;
/// The field number of `encryption_param` in MessageMetadata.
const PARAM: u32 = 15;

/// One of the `encryption_keys`: the data key, as wrapped by a key that its readers have.
#[derive(Debug, Clone, Copy)]
pub struct EncryptionKey<'a> {
    serialized: &'a [u8],
}

impl<'a> EncryptionKey<'a> {
    /// The name of the key that wraps the data key (`key`).
    #[must_use]
    pub fn name(&self) -> &'a str {
        let name = byte_fields(self.serialized, 1).last().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    /// The wrapped data key (`value`).
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        byte_fields(self.serialized, 2).last().unwrap_or_default()
    }

    /// What the sender says of the key (`metadata`), in its order.
    #[must_use]
    pub fn metadata(&self) -> Properties<'a> {
        properties(self.serialized, 3)
    }
}

/// The `encryption_keys` in their order. Any one of them opens the payload.
pub fn encryption_keys(metadata: &[u8]) -> impl Iterator<Item = EncryptionKey<'_>> {
    byte_fields(metadata, KEYS).map(|serialized| EncryptionKey { serialized })
}

/// The `encryption_algo`. No official client writes one.
#[must_use]
pub fn encryption_algo(metadata: &[u8]) -> Option<&str> {
    byte_fields(metadata, ALGO).last().and_then(|algo| std::str::from_utf8(algo).ok())
}

/// The `encryption_param`: the initialization vector.
#[must_use]
pub fn encryption_param(metadata: &[u8]) -> Option<&[u8]> {
    byte_fields(metadata, PARAM).last()
}
