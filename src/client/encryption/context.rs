//! What a message says of its encryption.

use crate::client::unreadable::UnreadableChunk;
use crate::wire::encryption::{self, encryption_algo, encryption_keys, encryption_param};
use crate::wire::metadata::{self, Metadata, Properties};

/// How a message was encrypted: see
/// [`ReceivedMessage::encryption_context`](crate::ReceivedMessage::encryption_context). With it an application can decrypt
/// what it was given encrypted. Java: `EncryptionContext`.
#[derive(Debug, Clone, Copy)]
pub struct EncryptionContext<'a> {
    metadata: &'a [u8],
    is_decrypted: bool,
}

/// One of the keys that a message is encrypted for: see [`EncryptionContext::keys`]. Java: `EncryptionContext.EncryptionKey`.
#[derive(Debug, Clone, Copy)]
pub struct EncryptionKey<'a>(encryption::EncryptionKey<'a>);

impl<'a> EncryptionKey<'a> {
    /// Its name, as the producer has it.
    pub fn name(&self) -> &'a str {
        self.0.name()
    }

    /// The data key of the message, wrapped by it.
    pub fn value(&self) -> &'a [u8] {
        self.0.value()
    }

    /// What the producer's key reader said of it, in that order.
    pub fn metadata(&self) -> Properties<'a> {
        self.0.metadata()
    }
}

impl<'a> EncryptionContext<'a> {
    /// `metadata` is the serialized metadata of the entry. `None` if that is not encrypted.
    pub(in crate::client) fn of(metadata: &'a [u8], is_decrypted: bool) -> Option<Self> {
        encryption_keys(metadata).next().map(|_| Self { metadata, is_decrypted })
    }

    /// Whether the payload of the message is decrypted. If not, it is that of the whole entry as the broker stored it:
    /// encrypted, and under that perhaps compressed, a batch, or a chunk; see
    /// [`ConsumerCryptoFailureAction::Consume`](crate::ConsumerCryptoFailureAction::Consume). The Java client does not say so.
    pub fn is_decrypted(&self) -> bool {
        self.is_decrypted
    }

    /// The keys that it is encrypted for (`encryption_keys`): any one of them opens it.
    pub fn keys(&self) -> impl Iterator<Item = EncryptionKey<'a>> + use<'a> {
        encryption_keys(self.metadata).map(EncryptionKey)
    }

    /// The initialization vector (`encryption_param`); 12 bytes by all official clients.
    pub fn param(&self) -> &'a [u8] {
        encryption_param(self.metadata).unwrap_or_default()
    }

    /// `encryption_algo`, which no official client writes: they have one algorithm, AES-256-GCM.
    pub fn algorithm(&self) -> Option<&'a str> {
        encryption_algo(self.metadata)
    }

    /// How the payload was compressed before it was encrypted: the number of `CompressionType`, 0 none, 1 LZ4, 2 ZLIB,
    /// 3 ZSTD, 4 SNAPPY.
    pub fn codec(&self) -> i32 {
        self.parsed().compression
    }

    /// The size of the payload before it was compressed, bytes (`uncompressed_size`); 0 if the producer declared none.
    pub fn uncompressed_size(&self) -> u32 {
        self.parsed().uncompressed_size
    }

    /// How many messages the entry holds (`num_messages_in_batch`); `None` if it is no batch.
    pub fn batch_size(&self) -> Option<u32> {
        self.parsed().num_messages_in_batch.and_then(|size| u32::try_from(size).ok())
    }

    /// Which chunk of a larger message it is; `None` if it is whole. Of a message that was assembled: the last one.
    pub fn chunk(&self) -> Option<UnreadableChunk<'a>> {
        UnreadableChunk::of(&self.parsed(), self.metadata)
    }

    /// The metadata. Cannot fail: it was parsed when the entry arrived.
    fn parsed(&self) -> Metadata {
        Metadata::decode(self.metadata).unwrap_or_default()
    }
}

impl<'a> UnreadableChunk<'a> {
    /// `raw` is the serialized `metadata`.
    pub(in crate::client) fn of(metadata: &Metadata, raw: &'a [u8]) -> Option<Self> {
        let chunk = metadata.chunk.as_ref()?;
        Some(Self {
            uuid: metadata::text(raw, &chunk.uuid),
            index: chunk.chunk_id,
            count: chunk.num_chunks,
            total_bytes: chunk.total_bytes,
        })
    }
}
