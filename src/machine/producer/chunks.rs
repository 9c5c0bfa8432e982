//! Splitting: a message that is too large for one entry goes out in several, its chunks (PIP-37).
//!
//! All chunks of a message have its sequence id and metadata; the chunk fields tell them apart. Each is an entry with a
//! receipt of its own, and the receipt of the last one ends the send.

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::wire::metadata::ChunkFields;

/// The largest chunked message, bytes after compression: `total_chunk_msg_size` is an int32.
pub(super) const CHUNKED_BYTES_MAX: usize = i32::MAX as usize;

/// The most chunks of a message. Each takes a place among the entries in flight until its receipt.
const CHUNKS_MAX: usize = 64 * 1024;

/// What all chunks of a message have in common and no other message of the topic has: the same as in the Java client.
pub(super) fn uuid(producer_name: &str, sequence_id: u64) -> String {
    format!("{producer_name}-{sequence_id}")
}

/// Chunk fields that take as many bytes as any of this message.
pub(super) fn longest_fields(uuid: &str) -> ChunkFields<'_> {
    ChunkFields { uuid, num_chunks: i32::MAX, total_bytes: i32::MAX, chunk_id: i32::MAX }
}

/// How a payload is split.
#[derive(Debug)]
pub(super) struct Split {
    uuid: String,
    /// Payload of each chunk but the last, bytes.
    chunk_bytes: usize,
    num_chunks: i32,
    total_bytes: i32,
}

impl Split {
    /// Splits `payload_bytes` into chunks of at most `chunk_bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::MessageTooLarge`]: no payload fits beside the metadata, the message is beyond [`CHUNKED_BYTES_MAX`], or
    /// it would take more than [`CHUNKS_MAX`].
    pub(super) fn new(uuid: String, payload_bytes: usize, chunk_bytes: usize) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::local(ErrorKind::MessageTooLarge, why));
        if chunk_bytes == 0 {
            return refuse("key and properties leave no room for payload in a chunk".to_owned());
        }
        let num_chunks = payload_bytes.div_ceil(chunk_bytes).max(1);
        match (i32::try_from(payload_bytes), i32::try_from(num_chunks)) {
            (Err(_), _) => {
                refuse(format!("{payload_bytes} bytes are more than a chunked message may have, {CHUNKED_BYTES_MAX}"))
            }
            (Ok(total_bytes), Ok(count)) if num_chunks <= CHUNKS_MAX => {
                Ok(Self { uuid, chunk_bytes, num_chunks: count, total_bytes })
            }
            _ => refuse(format!(
                "{payload_bytes} bytes would take {num_chunks} chunks of {chunk_bytes} bytes, and at most {CHUNKS_MAX} are sent"
            )),
        }
    }

    /// The payload of each chunk but the last, bytes.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The fields of each chunk, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = ChunkFields<'_>> {
        let Self { num_chunks, total_bytes, .. } = *self;
        (0..num_chunks).map(move |chunk_id| ChunkFields { uuid: &self.uuid, num_chunks, total_bytes, chunk_id })
    }

    /// The payload of each chunk, in order. Nothing is copied.
    pub(super) fn chunks(&self, payload: &Bytes) -> impl Iterator<Item = Bytes> {
        (0..self.num_chunks as usize).map(move |chunk_id| {
            // Below the size of the payload, for the last one as well.
            let start = chunk_id * self.chunk_bytes;
            payload.slice(start..(start + self.chunk_bytes).min(payload.len()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_payload_in_order() {
        let payload = Bytes::from_static(b"0123456789");
        for (chunk_bytes, expected) in [
            (4, vec![&b"0123"[..], b"4567", b"89"]),
            (5, vec![&b"01234"[..], b"56789"]),
            (10, vec![&b"0123456789"[..]]),
            (11, vec![&b"0123456789"[..]]),
        ] {
            let split = Split::new(uuid("p", 7), payload.len(), chunk_bytes).expect("it can be split");
            assert_eq!(split.chunks(&payload).collect::<Vec<_>>(), expected);
            assert_eq!(split.fields().count(), expected.len());
            for (at, fields) in split.fields().enumerate() {
                assert_eq!(fields.uuid, "p-7");
                assert_eq!(fields.chunk_id, at as i32);
                assert_eq!((fields.num_chunks, fields.total_bytes), (expected.len() as i32, 10));
            }
        }
    }

    #[test]
    fn what_cannot_be_split_is_refused_with_the_reason() {
        let cases = [
            (10, 0, "no room"),
            (CHUNKED_BYTES_MAX + 1, 5 << 20, "chunked message may have"),
            (CHUNKS_MAX * 10 + 1, 10, "65536 are sent"),
        ];
        for (payload_bytes, chunk_bytes, expected) in cases {
            let error = Split::new(String::new(), payload_bytes, chunk_bytes).expect_err(expected);
            assert!(error.kind() == ErrorKind::MessageTooLarge && error.to_string().contains(expected), "{error}");
        }
        assert!(Split::new(String::new(), CHUNKS_MAX * 10, 10).is_ok());
    }
}
