//! Stage 4 of the pipeline: encryption of the payload of each entry or chunk.
//!
//! The keys and the cipher are not here, because both need chance: a producer is given them as [`Encryption`]. What is
//! here is which bytes are encrypted where.
//!
//! A payload is encrypted in its own buffer, if nothing else refers to that, and its tag is appended:
//!
//! | payload | encrypted in |
//! | --- | --- |
//! | records of a batch; what was compressed | their own buffer, which is the producer's |
//! | a single message, and the application keeps no clone of its `Bytes` | that buffer |
//! | a single message, else, or of static bytes | a copy |
//!
//! A message that goes out in chunks is not to be held twice, and between two chunks that lie behind one another there is
//! no room for a tag. So it is encrypted from its end to its start, and the first bytes of each chunk go into the head of
//! its frame, where the tag of the chunk before it takes their place:
//!
//! ```text
//! plain     [ chunk 0          ][ chunk 1          ][ chunk 2 ]
//! frame 0   head | c0 [ c0 c0 c0 c0 c0   tag 0 ]
//! frame 1                       head | c1 [ c1 c1 c1 c1 c1 ] [ a copy of chunk 2: c2 tag 2 ]
//! ```
//!
//! | chunk | encrypted in | held besides the message |
//! | --- | --- | --- |
//! | the last | a copy: nothing is behind it | one chunk |
//! | the last but one, where the last is shorter than a tag | a copy | one chunk more |
//! | any other | the buffer of the message | nothing |
//! | any, where the application keeps a clone of the `Bytes`, or with static bytes, or shorter than a tag | a copy | the message: the application holds the other one |

use std::fmt;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::error::Error;

/// The initialization vector of an entry (`encryption_param`), bytes.
pub const IV_BYTES: usize = 12;

/// The tag behind an encrypted payload, bytes.
pub const TAG_BYTES: usize = 16;

/// What a producer encrypts with. In a build without the feature `encryption` there is none, and no code for it.
#[cfg(feature = "encryption")]
pub type Encryption = std::sync::Arc<dyn Encrypt>;
/// What a producer encrypts with. In a build without the feature `encryption` there is none, and no code for it.
#[cfg(not(feature = "encryption"))]
#[derive(Debug, Clone, PartialEq)]
pub enum Encryption {}

/// Gives the data keys of a producer, and makes new ones when they are due.
pub trait Encrypt: fmt::Debug + Send + Sync {
    /// The key for an entry that is sealed `now`. `None`: it goes out as it is.
    ///
    /// # Errors
    /// There is no key, and nothing may go out without.
    fn data_key(&self, now: Instant) -> Result<Option<DataKey>, Error>;

    /// By how much an entry gets larger under the present data key, bytes: tag and metadata.
    fn overhead_bytes(&self) -> usize;
}

/// Whether they are the same one: each has keys of its own.
#[cfg(feature = "encryption")]
impl PartialEq for dyn Encrypt {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

/// A key that payloads are encrypted with, and under which no initialization vector is used twice.
pub trait Cipher: Send + Sync {
    /// All `encryption_keys`, serialized by [`put_encryption_key`](crate::wire::metadata::put_encryption_key).
    fn encryption_keys(&self) -> &[u8];

    /// Encrypts `payload` in its place.
    ///
    /// # Errors
    /// The key has no initialization vector left.
    fn seal(&self, payload: &mut [u8]) -> Result<Seal, Error>;
}

/// A shared [`Cipher`]. In a build without the feature `encryption` there is none, and no code for it.
#[cfg(feature = "encryption")]
#[derive(Clone)]
pub struct DataKey(std::sync::Arc<dyn Cipher>);
/// A shared [`Cipher`]. In a build without the feature `encryption` there is none, and no code for it.
#[cfg(not(feature = "encryption"))]
pub enum DataKey {}

#[cfg(feature = "encryption")]
impl DataKey {
    /// One that encrypts by `cipher`.
    pub fn new(cipher: std::sync::Arc<dyn Cipher>) -> Self {
        Self(cipher)
    }

    /// What it encrypts by.
    pub fn cipher(&self) -> &dyn Cipher {
        &*self.0
    }
}

#[cfg(not(feature = "encryption"))]
impl DataKey {
    pub(super) fn cipher(&self) -> &dyn Cipher {
        match *self {}
    }
}

/// What belongs to one encrypted payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// `encryption_param`.
    pub iv: [u8; IV_BYTES],
    /// Goes behind the payload.
    pub tag: [u8; TAG_BYTES],
}

#[cfg(not(feature = "encryption"))]
impl Encryption {
    pub(super) fn data_key(&self, _now: Instant) -> Result<Option<DataKey>, Error> {
        match *self {}
    }

    pub(super) fn overhead_bytes(&self) -> usize {
        match *self {}
    }
}

/// An encrypted chunk: its tag is the end of `rest`.
pub(super) struct SealedChunk {
    pub(super) iv: [u8; IV_BYTES],
    /// The first bytes, if they do not lie before `rest`.
    pub(super) start: Option<[u8; TAG_BYTES]>,
    pub(super) rest: Bytes,
}

/// Encrypts a buffer in its place, and appends the tag. Without room for that the buffer grows.
pub(super) fn seal_in_place(bytes: &mut BytesMut, key: &dyn Cipher) -> Result<[u8; IV_BYTES], Error> {
    let seal = key.seal(bytes)?;
    bytes.extend_from_slice(&seal.tag);
    Ok(seal.iv)
}

/// A buffer of its own, with what is in `bytes`: the same one if nothing else refers to it.
pub(super) fn owned(bytes: Bytes) -> BytesMut {
    bytes.try_into_mut().unwrap_or_else(|shared| copied(&shared))
}

fn copied(bytes: &[u8]) -> BytesMut {
    let mut copy = BytesMut::with_capacity(bytes.len() + TAG_BYTES);
    copy.extend_from_slice(bytes);
    copy
}

/// Encrypts the chunks of a message, each of `chunk_bytes` but the last: see the module.
pub(super) fn seal_chunks(message: Bytes, chunk_bytes: usize, key: &dyn Cipher) -> Result<Vec<SealedChunk>, Error> {
    let mut message = match message.try_into_mut() {
        Ok(message) => message,
        Err(shared) => return shared.chunks(chunk_bytes).map(|chunk| seal_copied(chunk, key)).collect(),
    };
    let mut sealed = Vec::with_capacity(message.len().div_ceil(chunk_bytes));
    let mut end = message.len();
    while end > 0 {
        let start = (end - 1) / chunk_bytes * chunk_bytes;
        // This chunk, and behind it the room that the one before this in the loop has left.
        let mut chunk = message.split_off(start);
        let len = end - start;
        if chunk.len() == len + TAG_BYTES {
            let seal = key.seal(&mut chunk[..len])?;
            chunk[len..].copy_from_slice(&seal.tag);
            let rest = chunk.split_off(TAG_BYTES).freeze();
            let start = chunk.first_chunk().copied();
            sealed.push(SealedChunk { iv: seal.iv, start, rest });
        } else {
            sealed.push(seal_copied(&chunk[..len], key)?);
            chunk.truncate(TAG_BYTES);
        }
        if chunk.len() == TAG_BYTES {
            // They lie behind one another: nothing is copied.
            message.unsplit(chunk);
        }
        end = start;
    }
    sealed.reverse();
    Ok(sealed)
}

fn seal_copied(chunk: &[u8], key: &dyn Cipher) -> Result<SealedChunk, Error> {
    let mut copy = copied(chunk);
    let iv = seal_in_place(&mut copy, key)?;
    Ok(SealedChunk { iv, start: None, rest: copy.freeze() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// "Encrypts" by adding the number of the call, which is also vector and tag; notes where the bytes lay.
    #[derive(Default)]
    struct Counting {
        calls: AtomicU8,
        places: Mutex<Vec<usize>>,
    }

    impl Cipher for Counting {
        fn encryption_keys(&self) -> &[u8] {
            &[]
        }

        fn seal(&self, payload: &mut [u8]) -> Result<Seal, Error> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            self.places.lock().unwrap().push(payload.as_ptr() as usize);
            payload.iter_mut().for_each(|byte| *byte = byte.wrapping_add(call));
            Ok(Seal { iv: [call; IV_BYTES], tag: [call; TAG_BYTES] })
        }
    }

    fn opened(chunk: &SealedChunk) -> Vec<u8> {
        let mut bytes = chunk.start.map(Vec::from).unwrap_or_default();
        bytes.extend_from_slice(&chunk.rest);
        let tag = bytes.split_off(bytes.len() - TAG_BYTES);
        assert_eq!(tag[..IV_BYTES], chunk.iv, "a chunk has the tag of another one");
        bytes.iter().map(|byte| byte.wrapping_sub(chunk.iv[0])).collect()
    }

    #[test]
    fn chunks_of_every_length_are_whole_and_in_order() {
        for len in 1..150 {
            let plain: Vec<u8> = (0..len).collect();
            for chunk_bytes in 1..60 {
                for shared in [false, true] {
                    let message = Bytes::from(plain.clone());
                    let kept = shared.then(|| message.clone());
                    let sealed = seal_chunks(message, chunk_bytes, &Counting::default()).expect("a key");
                    let opened: Vec<_> = sealed.iter().map(opened).collect();
                    assert_eq!(opened, plain.chunks(chunk_bytes).collect::<Vec<_>>(), "{len} by {chunk_bytes}");
                    assert!(kept.is_none_or(|kept| kept == plain), "the application's own bytes are changed");
                    let ivs: std::collections::HashSet<_> = sealed.iter().map(|chunk| chunk.iv).collect();
                    assert_eq!(ivs.len(), sealed.len());
                }
            }
        }
    }

    /// Outside the buffer of the message there is the last chunk, and the one before it if that is shorter than a tag.
    #[test]
    fn a_message_is_not_held_twice() {
        for (last_bytes, copies) in [(100, 1), (16, 1), (15, 2), (1, 2)] {
            let message = Bytes::from(vec![7; 900 + last_bytes]);
            let place = message.as_ptr() as usize..message.as_ptr() as usize + message.len();
            let key = Counting::default();
            let sealed = seal_chunks(message, 100, &key).expect("a key");
            assert_eq!(sealed.iter().filter(|chunk| chunk.start.is_none()).count(), copies);
            let outside = |at: &&usize| !place.contains(*at);
            assert_eq!(key.places.lock().unwrap().iter().filter(outside).count(), copies);
        }
    }

    #[test]
    fn bytes_that_the_application_keeps_are_copied() {
        let key = Counting::default();
        let kept = Bytes::from(vec![1, 2, 3]);
        let mut sealed = owned(kept.clone());
        seal_in_place(&mut sealed, &key).expect("a key");
        assert_eq!((&kept[..], &sealed[..3]), (&[1, 2, 3][..], &[2, 3, 4][..]));
        let (given, place) = (kept, key.places.lock().unwrap().len());
        let at = given.as_ptr() as usize;
        seal_in_place(&mut owned(given), &key).expect("a key");
        assert_eq!(key.places.lock().unwrap()[place], at);
    }
}
