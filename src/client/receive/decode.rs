//! The incoming pipeline: from an entry as the broker stored it to its messages.
//!
//! ```text
//!  check --> (decrypt) --> (assemble chunks) --> decompress --> cut
//! ```
//!
//! | stage | what it does | what it refuses |
//! | --- | --- | --- |
//! | check | the checksum, and the metadata as a whole; done by [`ReceivedEntry::read`] as the entry arrives | damaged |
//! | (decrypt) | slot of end-to-end encryption: the payload of each entry, and so of each chunk, is encrypted last | unreadable |
//! | (assemble) | slot of chunked messages: keeps the decrypted chunks of a message until the last one is there | unreadable |
//! | decompress | the whole payload: of a batch all its records together, of a chunked message all its chunks | damaged; unreadable where the codec is not built in or the size is above the limit |
//! | cut | a batch into its records | damaged |
//!
//! The order is that of the outgoing pipeline, backwards. A chunked message is never a batch: a producer does not cut
//! what it put together, so an entry that says to be both is taken for a batch, as the Java client does.
//!
//! *Damaged* entries are acknowledged with their validation error, since no client will ever read them. *Unreadable*
//! ones are sound and reported; they stay unacknowledged.
//!
//! [`ReceivedEntry::read`]: crate::machine::consumer::ReceivedEntry::read

use bytes::Bytes;

use crate::client::events::UnreadableReason;
use crate::machine::consumer::EntryBody;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::{CompressError, decompress};
use crate::wire::entry::EntryError;

/// What a compressed payload may inflate to, bytes: sixteen messages of the largest default size.
const UNCOMPRESSED_BYTES_MAX: usize = 16 * crate::wire::MAX_MESSAGE_SIZE_DEFAULT as usize;

/// What is in an entry.
pub(super) struct Content {
    /// The payload, if it does not lie in the entry as it is.
    pub(super) inflated: Option<Bytes>,
    /// The records of a batch; `None` for a single message.
    pub(super) cursor: Option<BatchCursor>,
}

/// Why an entry gives no messages.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    Damaged(EntryError),
    Unreadable(UnreadableReason),
}

impl From<UnreadableReason> for Failure {
    fn from(reason: UnreadableReason) -> Self {
        Self::Unreadable(reason)
    }
}

/// The body of an entry that is one message and passes all stages as it is.
#[inline]
pub(super) fn decode_fast(body: &Result<EntryBody, Box<EntryError>>) -> Option<&EntryBody> {
    body.as_ref().ok().filter(|body| body.is_plain())
}

/// Takes an entry that was checked through the other stages.
pub(super) fn decode_slow(raw: &Bytes, body: &EntryBody) -> Result<Content, Failure> {
    decrypt(body)?;
    assemble(body)?;
    let inflated = inflate(raw, body)?;
    let payload_len = inflated.as_ref().map_or(body.payload.len(), Bytes::len);
    let cursor = cut(body, payload_len)?;
    Ok(Content { inflated, cursor })
}

/// Slot of end-to-end encryption.
fn decrypt(body: &EntryBody) -> Result<(), UnreadableReason> {
    if body.encrypted { Err(UnreadableReason::Encrypted) } else { Ok(()) }
}

/// Slot of chunked messages.
fn assemble(body: &EntryBody) -> Result<(), UnreadableReason> {
    match body.chunks {
        Some(2..) if body.num_messages_in_batch.is_none() => Err(UnreadableReason::Chunk),
        _ => Ok(()),
    }
}

/// The payload, if it is compressed.
fn inflate(raw: &Bytes, body: &EntryBody) -> Result<Option<Bytes>, Failure> {
    if body.compression == 0 {
        return Ok(None);
    }
    let payload = raw.slice(body.payload.start as usize..body.payload.end as usize);
    match decompress(body.compression, &payload, body.uncompressed_size, UNCOMPRESSED_BYTES_MAX) {
        Ok(inflated) => Ok(Some(inflated)),
        Err(CompressError::UnknownCodec(_) | CompressError::NotBuilt { .. }) => {
            Err(UnreadableReason::Codec { number: body.compression }.into())
        }
        Err(CompressError::TooLarge { size, max }) => {
            Err(UnreadableReason::TooLarge { uncompressed_bytes: size as usize, limit_bytes: max }.into())
        }
        Err(error) => Err(Failure::Damaged(EntryError::Decompress(error))),
    }
}

/// The records, if it is a batch.
fn cut(body: &EntryBody, payload_len: usize) -> Result<Option<BatchCursor>, Failure> {
    let cursor = body.num_messages_in_batch.map(|size| BatchCursor::new(size, payload_len));
    cursor.transpose().map_err(|error| Failure::Damaged(EntryError::Batch(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first twelve bytes are the metadata, of which only the ranges count here.
    fn body(payload: &Bytes) -> EntryBody {
        EntryBody {
            metadata: 0..12,
            payload: 12..payload.len() as u32,
            broker: None,
            compression: 0,
            uncompressed_size: 0,
            num_messages_in_batch: None,
            encrypted: false,
            chunks: None,
        }
    }

    fn failure(change: impl FnOnce(&mut EntryBody)) -> Option<Failure> {
        let raw = Bytes::from_static(&[0; 40]);
        let mut body = body(&raw);
        change(&mut body);
        assert!(decode_fast(&Ok(body.clone())).is_none(), "what can fail is not fast");
        decode_slow(&raw, &body).err()
    }

    #[test]
    fn one_message_is_opened_by_either_path() {
        let raw = Bytes::from_static(&[0; 40]);
        let body = body(&raw);
        assert!(decode_fast(&Ok(body.clone())).is_some());
        let content = decode_slow(&raw, &body).expect("one message");
        assert!(content.inflated.is_none() && content.cursor.is_none());
    }

    #[test]
    fn what_is_sound_and_not_for_this_client_is_unreadable() {
        let unreadable = |reason| Some(Failure::Unreadable(reason));
        assert_eq!(failure(|body| body.encrypted = true), unreadable(UnreadableReason::Encrypted));
        assert_eq!(failure(|body| body.chunks = Some(2)), unreadable(UnreadableReason::Chunk));
        assert_eq!(failure(|body| body.compression = 9), unreadable(UnreadableReason::Codec { number: 9 }));
        let large = |body: &mut EntryBody| (body.compression, body.uncompressed_size) = (1, u32::MAX);
        let (uncompressed_bytes, limit_bytes) = (u32::MAX as usize, UNCOMPRESSED_BYTES_MAX);
        assert_eq!(failure(large), unreadable(UnreadableReason::TooLarge { uncompressed_bytes, limit_bytes }));
    }

    #[test]
    fn an_encrypted_chunk_of_an_unknown_codec_fails_at_the_first_stage() {
        let all = |body: &mut EntryBody| (body.encrypted, body.chunks, body.compression) = (true, Some(3), 9);
        assert_eq!(failure(all), Some(Failure::Unreadable(UnreadableReason::Encrypted)));
    }

    #[test]
    fn a_batch_that_says_it_is_chunked_is_a_batch() {
        let raw = Bytes::from_static(&[0; 40]);
        let both = EntryBody { num_messages_in_batch: Some(2), chunks: Some(2), ..body(&raw) };
        assert!(decode_slow(&raw, &both).expect("a batch").cursor.is_some());
    }

    #[test]
    fn a_batch_that_cannot_be_cut_is_damaged() {
        let cut = failure(|body| body.num_messages_in_batch = Some(1000));
        assert!(matches!(cut, Some(Failure::Damaged(EntryError::Batch(_)))), "{cut:?}");
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn a_payload_that_does_not_inflate_is_damaged() {
        let cut = failure(|body| (body.compression, body.uncompressed_size) = (1, 5));
        assert!(matches!(cut, Some(Failure::Damaged(EntryError::Decompress(_)))), "{cut:?}");
    }
}
