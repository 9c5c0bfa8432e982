//! The incoming pipeline: from an entry as the broker stored it to its messages.
//!
//! ```text
//!  check --> decrypt --> assemble --> decompress --> cut
//! ```
//!
//! | stage | what it does | what it refuses |
//! | --- | --- | --- |
//! | check | the checksum, and the metadata as a whole; done by [`ReceivedEntry::read`] as the entry arrives | damaged |
//! | decrypt | the payload of each entry, and so of each chunk, because it is encrypted last | unreadable, or by [`ConsumerCryptoFailureAction`] |
//! | assemble | keeps the chunks of a message until the last one is there: in [`chunks`](super::source) | unreadable |
//! | decompress | the whole payload: of a batch all its records together, of a chunked message all its chunks | damaged; unreadable where the codec is not built in or the declared size is above `max_uncompressed_size` |
//! | cut | a batch into its records | damaged; unreadable where it holds more than [`BATCH_MEMBERS_MAX`] |
//!
//! The order is that of the outgoing pipeline, backwards. A chunked message is never a batch: a producer does not cut
//! what it put together, so an entry that says to be both is taken for a batch, as the Java client does.
//!
//! *Damaged* entries are acknowledged with their validation error, since no client will ever read them. *Unreadable*
//! ones are sound and reported; they stay unacknowledged. Where the dead-letter topic takes what is unreadable, both go
//! there.
//!
//! [`ConsumerCryptoFailureAction`]: crate::ConsumerCryptoFailureAction
//! [`ReceivedEntry::read`]: crate::machine::consumer::ReceivedEntry::read

use bytes::Bytes;

use crate::client::clock;
use crate::client::encryption::{Decryption, Undecrypted};
use crate::client::unreadable::UnreadableReason;
use crate::machine::consumer::EntryBody;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::{CompressError, decompress};
use crate::wire::entry::EntryError;
use crate::wire::hot::BATCH_MEMBERS_MAX;

/// What is in an entry.
pub(super) struct Content {
    /// The payload, if it does not lie in the entry as it is.
    pub(super) inflated: Option<Bytes>,
    /// The records of a batch; `None` for a single message.
    pub(super) cursor: Option<BatchCursor>,
}

/// Why an entry gives no messages.
#[derive(Debug, PartialEq)]
pub(super) enum DecodeFailure {
    Damaged(EntryError),
    Unreadable(UnreadableReason),
    Undecrypted(Box<Undecrypted>),
}

impl From<UnreadableReason> for DecodeFailure {
    fn from(reason: UnreadableReason) -> Self {
        Self::Unreadable(reason)
    }
}

/// The body of an entry that is one message and passes all stages as it is.
#[inline]
pub(super) fn decode_fast(body: &Result<EntryBody, Box<EntryError>>) -> Option<&EntryBody> {
    body.as_ref().ok().filter(|body| body.is_plain())
}

/// Takes an entry that was checked through the other stages. `uncompressed_bytes_max` limits what is allocated for it.
pub(super) fn decode_slow(
    raw: &Bytes,
    body: &EntryBody,
    decryption: &Decryption,
    uncompressed_bytes_max: usize,
) -> Result<Content, DecodeFailure> {
    let decrypted = decrypt(raw, body, decryption)?;
    let inflated = match (body.compression, decrypted) {
        (0, decrypted) => decrypted,
        (_, Some(decrypted)) => Some(inflate(&decrypted, body, uncompressed_bytes_max)?),
        (_, None) => Some(inflate(&payload_of(raw, body), body, uncompressed_bytes_max)?),
    };
    let payload_len = inflated.as_ref().map_or_else(|| body.payload(raw).len(), Bytes::len);
    let cursor = cut(body, payload_len)?;
    Ok(Content { inflated, cursor })
}

/// The payload of an entry as it was before it was encrypted; `None` if it was not.
pub(super) fn decrypt(raw: &Bytes, body: &EntryBody, decryption: &Decryption) -> Result<Option<Bytes>, DecodeFailure> {
    if !body.encrypted {
        return Ok(None);
    }
    let metadata = &raw[body.metadata()];
    let decrypted = decryption.open(metadata, &payload_of(raw, body), clock::now().at);
    decrypted.map(Some).map_err(|undecrypted| DecodeFailure::Undecrypted(undecrypted.into()))
}

/// The payload as it lies in the entry.
pub(super) fn payload_of(raw: &Bytes, body: &EntryBody) -> Bytes {
    raw.slice(body.payload(raw))
}

/// Decompresses a payload: of an entry, or of all chunks of a message together.
pub(super) fn inflate(
    payload: &Bytes,
    body: &EntryBody,
    uncompressed_bytes_max: usize,
) -> Result<Bytes, DecodeFailure> {
    match decompress(body.compression, payload, body.uncompressed_size, uncompressed_bytes_max) {
        Ok(inflated) => Ok(inflated),
        Err(CompressError::UnknownCodec(_) | CompressError::NotBuilt { .. }) => {
            Err(UnreadableReason::Codec { number: body.compression }.into())
        }
        Err(CompressError::TooLarge { size, max }) => {
            Err(UnreadableReason::TooLarge { uncompressed_bytes: size as usize, limit_bytes: max }.into())
        }
        Err(error) => Err(DecodeFailure::Damaged(EntryError::Decompress(error))),
    }
}

/// The records, if it is a batch.
fn cut(body: &EntryBody, payload_len: usize) -> Result<Option<BatchCursor>, DecodeFailure> {
    let Some(size) = body.num_messages_in_batch else { return Ok(None) };
    let cursor =
        BatchCursor::new(size, payload_len).map_err(|error| DecodeFailure::Damaged(EntryError::Batch(error)))?;
    match u32::try_from(size) {
        Ok(messages) if messages > BATCH_MEMBERS_MAX => {
            Err(UnreadableReason::TooManyMessages { messages, limit: BATCH_MEMBERS_MAX }.into())
        }
        _ => Ok(Some(cursor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    /// The first twelve bytes are the metadata, of which only the ranges count here.
    fn body() -> EntryBody {
        EntryBody {
            metadata_start: 0,
            payload_start: 12,
            broker_end: 0,
            compression: 0,
            uncompressed_size: 0,
            num_messages_in_batch: None,
            encrypted: false,
            is_chunk: false,
        }
    }

    fn failure(change: impl FnOnce(&mut EntryBody)) -> Option<DecodeFailure> {
        let raw = Bytes::from_static(&[0; 40]);
        let mut body = body();
        change(&mut body);
        assert!(decode_fast(&Ok(body.clone())).is_none(), "what can fail is not fast");
        decode_slow(&raw, &body, &Decryption::default(), MAX).err()
    }

    fn undecrypted(failure: Option<DecodeFailure>) -> Option<UnreadableReason> {
        match failure? {
            DecodeFailure::Undecrypted(undecrypted) => Some(undecrypted.reason),
            _ => None,
        }
    }

    #[test]
    fn one_message_is_opened_by_either_path() {
        let raw = Bytes::from_static(&[0; 40]);
        let body = body();
        assert!(decode_fast(&Ok(body.clone())).is_some());
        let content = decode_slow(&raw, &body, &Decryption::default(), MAX).expect("one message");
        assert!(content.inflated.is_none() && content.cursor.is_none());
    }

    #[test]
    fn what_is_sound_and_not_for_this_client_is_unreadable() {
        let unreadable = |reason| Some(DecodeFailure::Unreadable(reason));
        assert_eq!(undecrypted(failure(|body| body.encrypted = true)), Some(UnreadableReason::Encrypted));
        assert_eq!(failure(|body| body.compression = 9), unreadable(UnreadableReason::Codec { number: 9 }));
    }

    /// The limit says so before anything is allocated; a size that no such block reaches is damage whatever the limit.
    #[cfg(feature = "lz4")]
    #[test]
    fn above_the_limit_is_unreadable_and_beyond_the_codec_is_damaged() {
        let large = |size| failure(move |body| (body.compression, body.uncompressed_size) = (1, size));
        let reason = UnreadableReason::TooLarge { uncompressed_bytes: MAX + 1, limit_bytes: MAX };
        assert_eq!(large(MAX as u32 + 1), Some(DecodeFailure::Unreadable(reason)));
        for size in [MAX as u32, u32::MAX] {
            assert!(matches!(large(size), Some(DecodeFailure::Damaged(EntryError::Decompress(_)))), "{size}");
        }
    }

    #[test]
    fn a_batch_of_more_messages_than_any_is_unreadable() {
        let many = BATCH_MEMBERS_MAX + 1;
        let raw = Bytes::from(vec![0; 12 + 4 * many as usize]);
        let of = |count: u32| EntryBody { num_messages_in_batch: Some(count as i32), ..body() };
        let reason = UnreadableReason::TooManyMessages { messages: many, limit: BATCH_MEMBERS_MAX };
        assert_eq!(
            decode_slow(&raw, &of(many), &Decryption::default(), MAX).err(),
            Some(DecodeFailure::Unreadable(reason))
        );
        assert!(decode_slow(&raw, &of(BATCH_MEMBERS_MAX), &Decryption::default(), MAX).is_ok());
    }

    #[test]
    fn an_encrypted_chunk_of_an_unknown_codec_fails_at_the_first_stage() {
        let all = |body: &mut EntryBody| (body.encrypted, body.is_chunk, body.compression) = (true, true, 9);
        assert_eq!(undecrypted(failure(all)), Some(UnreadableReason::Encrypted));
    }

    #[test]
    fn a_batch_that_says_it_is_chunked_is_a_batch() {
        let raw = Bytes::from_static(&[0; 40]);
        let both = EntryBody { num_messages_in_batch: Some(2), is_chunk: true, ..body() };
        assert!(decode_slow(&raw, &both, &Decryption::default(), MAX).expect("a batch").cursor.is_some());
    }

    #[test]
    fn a_batch_that_cannot_be_cut_is_damaged() {
        let cut = failure(|body| body.num_messages_in_batch = Some(1000));
        assert!(matches!(cut, Some(DecodeFailure::Damaged(EntryError::Batch(_)))), "{cut:?}");
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn a_payload_that_does_not_inflate_is_damaged() {
        let cut = failure(|body| (body.compression, body.uncompressed_size) = (1, 5));
        assert!(matches!(cut, Some(DecodeFailure::Damaged(EntryError::Decompress(_)))), "{cut:?}");
    }
}
