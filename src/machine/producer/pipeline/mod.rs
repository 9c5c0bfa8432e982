//! The outgoing payload pipeline: the messages of one entry become SEND frames.
//!
//! ```text
//! messages -1-> payload -2-> payload -3-> chunks -4-> chunks -5-> frames
//! ```
//!
//! | stage | works on | function |
//! | --- | --- | --- |
//! | 1 batch | the messages of one entry: several become the records of a batch, a single one stays as it is | [`batch`] |
//! | 2 compress | the whole payload | [`compress_payload`] |
//! | 3 split | the payload of a single message, never of a batch, that is too large for one entry: it becomes several chunks | [`split`] |
//! | 4 encrypt | the payload of each entry or chunk, where the producer has keys | [`encrypt_payload`], [`seal_chunks`] |
//! | 5 seal | each entry or chunk: size limits, metadata, checksum, frame | [`frame`], `seal_entry` |
//!
//! The order is the protocol's, because consumers undo the stages backwards: a chunked message is compressed as a whole,
//! each chunk is encrypted alone, and the checksum covers the encrypted bytes, so that a broker can verify it.
//!
//! # Fast and slow
//!
//! | | where | for | functions |
//! | --- | --- | --- | --- |
//! | fast | on acceptance, under the producer's lock | a single small message, which stages 1 to 4 leave as it is: never where the producer encrypts | [`put_frame_fast`], and later [`stamp_frames`] for a group of such frames |
//! | fast | when it is closed, under the producer's lock | a small batch whose payload stages 2 to 4 leave as it is | [`seal_small`] |
//! | slow | in a [`SealJob`](super::SealJob), with no lock held | all others | [`run`] |
//!
//! Both give the same bytes for the same message.

mod frame;

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::batch::EntryContent;
use super::chunks::{self, Split};
use super::encrypt::{DataKey, Encryption, IV_BYTES, SealedChunk, TAG_BYTES, owned, seal_chunks, seal_in_place};
use super::one_or_more::OneOrMore;
use crate::error::Error;
use crate::wire::compress::{Compression, compress};
use crate::wire::metadata::MetadataFields;
use crate::wire::tx::{CHAIN_MIN_BYTES, SealedFrame};
use frame::{EntryHead, HEADS_BYTES_MAX, encryption, frame_entry, metadata, seal_entry, too_large};
pub(super) use frame::{can_frame_fast, check_sizes, is_intact, put_frame_fast, stamp_frames};

/// Records of at least this size stay in their buffer until the receipt. Fewer are copied into the segment, because a
/// buffer of their own takes more memory than they do.
const RECORDS_KEPT_BYTES_MIN: usize = 1024;

/// What all frames of a producer have in common.
#[derive(Debug, Clone)]
pub(super) struct SealContext {
    pub(super) producer_id: u64,
    pub(super) producer_name: Arc<str>,
    pub(super) schema_version: Option<Box<[u8]>>,
    pub(super) compression: CompressionOptions,
    /// Payloads below this size may be framed on acceptance, bytes: [`CompressionOptions::fast_payload_bytes_max`]. 0 where
    /// the producer encrypts: none.
    pub(super) fast_payload_bytes_end: usize,
    /// `max_message_size` of the broker that the producer is, or was last, attached to, bytes.
    pub(super) max_message_size: u32,
    /// The most payload that a chunk has, bytes, where messages are split at all.
    pub(super) chunk_bytes_max: Option<u32>,
    pub(super) encryption: Option<Encryption>,
}

/// How payloads are compressed, and which.
#[derive(Debug, Clone, Copy)]
pub(super) struct CompressionOptions {
    pub(super) codec: Compression,
    pub(super) level: Option<i32>,
    /// Payloads up to this size are left as they are, bytes.
    pub(super) min_bytes: usize,
}

impl CompressionOptions {
    /// The largest payload that is left as it is, bytes.
    fn uncompressed_bytes_max(self) -> usize {
        if self.codec == Compression::None { usize::MAX } else { self.min_bytes }
    }

    /// The largest payload that stages 2 and 3 leave as it is and that is copied into a frame, bytes.
    pub(super) fn fast_payload_bytes_max(self, chunk_bytes_max: Option<u32>) -> usize {
        let chunk_bytes_max = chunk_bytes_max.map_or(usize::MAX, |bytes| bytes as usize);
        self.uncompressed_bytes_max().min(chunk_bytes_max).min(CHAIN_MIN_BYTES - 1)
    }
}

impl SealContext {
    /// More than a SEND frame has beside what the message itself brings.
    fn head_bytes_max(&self) -> usize {
        self.producer_name.len() + self.schema_version.as_ref().map_or(0, |version| version.len()) + 128
    }
}

/// The fields by which the entries of one run differ from those of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryStamp {
    /// Sequence ids of the messages, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) publish_time_ms: u64,
    /// When it is sealed; there if the producer encrypts.
    pub(super) sealed_at: Option<Instant>,
}

impl EntryStamp {
    /// `highest_sequence_id` of a batch. That of one key has none: its ids overlap those of others, so that it is named by
    /// its last one alone.
    fn highest(self) -> Option<u64> {
        Some(self.last).filter(|last| *last > self.first)
    }
}

/// Buffers that a run writes into.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Frames are split off its front.
    pub(super) segment: BytesMut,
    /// The buffer of the records, where the frame does not need it any more.
    pub(super) spare: BytesMut,
}

/// A frame, and what of it the broker compares with `max_message_size`, bytes.
///
/// A group that was framed on acceptance has one for all its entries: its frames joined.
#[derive(Debug)]
pub(super) struct SealedEntry {
    pub(super) frame: SealedFrame,
    pub(super) limited_bytes: usize,
}

/// Takes the messages of one entry through all stages. Takes as long as compressing and summing them takes.
///
/// Gives one entry; a message that was split gives one for each chunk, in order.
///
/// # Errors
/// [`ErrorKind::MessageTooLarge`] where the broker would not take an entry; [`ErrorKind::Crypto`] where it cannot be
/// encrypted and is not to go out unencrypted.
pub(super) fn run(
    content: &mut EntryContent,
    stamp: EntryStamp,
    context: &SealContext,
    scratch: &mut Scratch,
) -> Result<OneOrMore<SealedEntry>, Error> {
    // 1. Batch.
    let payload = batch(content, context.compression.codec);
    let is_empty = content.single().is_some() && payload.len() == 0;
    // 2. Compress.
    let mut payload = compress_payload(payload, content.single().is_none(), context.compression, scratch);
    let key = data_key(stamp, context)?;
    if key.is_some() && payload.compression == 0 {
        // Also without compression: only where they say it does the Go client read what it has decrypted.
        payload.uncompressed_size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    }
    // 3. Split: each chunk takes 4 and 5 by itself.
    let Some(split) = split(content, &payload, key.as_ref(), stamp, context)? else {
        // 4. Encrypt.
        let payload = encrypt_payload(payload, key.as_ref())?;
        // 5. Seal.
        let entry = EntryHead { content, stamp, context, key: key.as_ref(), chunk: None, is_empty };
        return Ok(OneOrMore::one(seal_entry(payload, entry, scratch)?));
    };
    // Chunks say their size also without compression: the Go client opens what it has assembled only if they do.
    let uncompressed_size = if payload.compression == 0 { payload.len() as u32 } else { payload.uncompressed_size };
    let compression = payload.compression;
    let PayloadBytes::Shared(bytes) = payload.bytes else { unreachable!("records are not split") };
    let payload_bytes = bytes.len();
    let chunks: Vec<(PayloadBytes, _)> = match &key {
        None => split.chunks(&bytes).map(|chunk| (PayloadBytes::Shared(chunk), None)).collect(),
        Some(key) => seal_chunks(bytes, split.chunk_bytes(), key.cipher())?.into_iter().map(chunk_bytes).collect(),
    };
    let seal_chunk = |(fields, (bytes, iv))| {
        let payload = Payload { bytes, compression, uncompressed_size, iv };
        let entry = EntryHead { content, stamp, context, key: key.as_ref(), chunk: Some(fields), is_empty: false };
        seal_entry(payload, entry, scratch)
    };
    let sealed: Result<Vec<_>, _> = split.fields().zip(chunks).map(seal_chunk).collect();
    OneOrMore::all(sealed?).ok_or_else(|| too_large(payload_bytes, context.max_message_size as usize))
}

/// The key of stage 4. `None` without encryption, and where a message that cannot be encrypted is sent as it is.
fn data_key(stamp: EntryStamp, context: &SealContext) -> Result<Option<DataKey>, Error> {
    match (&context.encryption, stamp.sealed_at) {
        (Some(encryption), Some(now)) => encryption.data_key(now),
        _ => Ok(None),
    }
}

/// Stage 4 of an entry that is no chunk.
fn encrypt_payload(payload: Payload, key: Option<&DataKey>) -> Result<Payload, Error> {
    let Some(key) = key else { return Ok(payload) };
    let (bytes, iv) = match payload.bytes {
        PayloadBytes::Records(mut records) => {
            let iv = seal_in_place(&mut records, key.cipher())?;
            (PayloadBytes::Records(records), iv)
        }
        PayloadBytes::Shared(bytes) | PayloadBytes::Behind { rest: bytes, .. } => {
            let mut bytes = owned(bytes);
            let iv = seal_in_place(&mut bytes, key.cipher())?;
            (PayloadBytes::Shared(bytes.freeze()), iv)
        }
    };
    Ok(Payload { bytes, iv: Some(iv), ..payload })
}

fn chunk_bytes(chunk: SealedChunk) -> (PayloadBytes, Option<[u8; IV_BYTES]>) {
    let SealedChunk { iv, start, rest } = chunk;
    let bytes = match start {
        Some(start) => PayloadBytes::Behind { start, rest },
        None => PayloadBytes::Shared(rest),
    };
    (bytes, Some(iv))
}

/// Stage 3. Whether the payload is split, and how: only that of a single message, and only if it is too large for one
/// entry. What the other fields of the metadata take is taken off each chunk, because the broker counts it, and so is the
/// tag of an encrypted one.
fn split(
    content: &EntryContent,
    payload: &Payload,
    key: Option<&DataKey>,
    stamp: EntryStamp,
    context: &SealContext,
) -> Result<Option<Split>, Error> {
    let Some(chunk_bytes_max) = context.chunk_bytes_max.filter(|_| content.single().is_some()) else { return Ok(None) };
    let metadata = MetadataFields {
        compression: payload.compression,
        uncompressed_size: payload.uncompressed_size,
        encryption: key.map(|key| encryption(key, &[0; IV_BYTES])),
        ..metadata(content, stamp, context)
    };
    let limit = context.max_message_size as usize;
    let tag_bytes = if key.is_some() { TAG_BYTES } else { 0 };
    let payload_bytes = payload.len() + tag_bytes;
    if payload_bytes <= chunk_bytes_max as usize && payload_bytes + metadata.encoded_len() <= limit {
        return Ok(None);
    }
    let uuid = chunks::uuid(&context.producer_name, stamp.first);
    let metadata_bytes =
        MetadataFields { chunk: Some(chunks::longest_fields(&uuid)), uncompressed_size: u32::MAX, ..metadata }
            .encoded_len();
    let chunk_bytes = limit.saturating_sub(metadata_bytes).min(chunk_bytes_max as usize).saturating_sub(tag_bytes);
    Split::new(uuid, payload.len(), chunk_bytes).map(Some)
}

/// What passes from stage to stage: the payload of an entry, and what its metadata says of it.
#[derive(Debug)]
struct Payload {
    bytes: PayloadBytes,
    /// `compression` and `uncompressed_size` of the metadata.
    compression: i32,
    uncompressed_size: u32,
    /// `encryption_param` of the metadata, once it is encrypted.
    iv: Option<[u8; IV_BYTES]>,
}

#[derive(Debug)]
enum PayloadBytes {
    /// Few uncompressed records: copied behind their metadata, so that their buffer is free again at once.
    Records(BytesMut),
    /// All others: kept until the receipt. What is small and not a batch is copied as well, by [`seal`].
    Shared(Bytes),
    /// An encrypted chunk, whose start is copied behind its metadata.
    Behind { start: [u8; TAG_BYTES], rest: Bytes },
}

impl Payload {
    fn uncompressed(bytes: PayloadBytes) -> Self {
        Self { bytes, compression: 0, uncompressed_size: 0, iv: None }
    }

    fn len(&self) -> usize {
        match &self.bytes {
            PayloadBytes::Records(records) => records.len(),
            PayloadBytes::Shared(bytes) => bytes.len(),
            PayloadBytes::Behind { start, rest } => start.len() + rest.len(),
        }
    }
}

/// Stage 1: several messages become the records of a batch. A batch of one goes out as a single message.
fn batch(content: &mut EntryContent, compression: Compression) -> Payload {
    if let Some(payload) = content.take_single_payload() {
        return Payload::uncompressed(PayloadBytes::Shared(payload));
    }
    let mut records = content.take_records();
    if compression == Compression::None && records.len() < RECORDS_KEPT_BYTES_MIN {
        return Payload::uncompressed(PayloadBytes::Records(records));
    }
    // Split off rather than frozen as it is: so it can become a buffer again without an allocation.
    Payload::uncompressed(PayloadBytes::Shared(records.split().freeze()))
}

/// Stage 2. A payload that is small, or does not shrink, stays as it is. The buffer of a batch that shrinks is free again;
/// that of a single message may be the application's own.
fn compress_payload(payload: Payload, is_batch: bool, options: CompressionOptions, scratch: &mut Scratch) -> Payload {
    let Payload { bytes: PayloadBytes::Shared(bytes), .. } = &payload else { return payload };
    if bytes.len() <= options.uncompressed_bytes_max() {
        return payload;
    }
    let compressed = compress(options.codec, options.level, bytes);
    let (smaller, uncompressed_size) = match (compressed, u32::try_from(bytes.len())) {
        (Ok(smaller), Ok(uncompressed_size)) if smaller.len() < bytes.len() => (smaller, uncompressed_size),
        // What does not shrink is left alone. A codec that is not built in was refused when the producer was created.
        _ => return payload,
    };
    if let PayloadBytes::Shared(records) = payload.bytes {
        if let Some(records) = is_batch.then(|| records.try_into_mut().ok()).flatten() {
            scratch.spare = records;
        }
    }
    let compression = options.codec.to_pb();
    Payload { bytes: PayloadBytes::Shared(smaller), compression, uncompressed_size, iv: None }
}

/// Whether [`seal_small`] can seal what is in a closed batch: it is numbered, stages 2 to 4 leave its payload as it is, the records
/// if there are several messages, and the broker takes it.
pub(super) fn can_seal_small(context: &SealContext, content: &EntryContent, size_bytes: usize) -> bool {
    if let Some(message) = content.single() {
        return message.sequence_id().is_some() && can_frame_fast(context, message, size_bytes);
    }
    let payload_bytes = content.records_bytes();
    let keys_bytes = content.key.as_ref().map_or(0, String::len) + content.ordering_key.as_ref().map_or(0, Bytes::len);
    content.has_written_records()
        && context.encryption.is_none()
        && payload_bytes <= context.compression.uncompressed_bytes_max()
        && payload_bytes + keys_bytes + context.head_bytes_max() + HEADS_BYTES_MAX <= context.max_message_size as usize
}

/// Stages 1 and 5 of what is in a closed batch, if [`can_seal_small`] holds for it. Its frame has the bytes that [`run`] gives it.
pub(super) fn seal_small(
    content: &mut EntryContent,
    stamp: EntryStamp,
    context: &SealContext,
    scratch: &mut Scratch,
) -> SealedEntry {
    let payload = batch(content, context.compression.codec);
    let is_empty = content.single().is_some() && payload.len() == 0;
    frame_entry(payload, EntryHead { content, stamp, context, key: None, chunk: None, is_empty }, scratch)
}

#[cfg(all(test, feature = "lz4"))]
mod tests {
    use super::super::Message;
    use super::super::buffers::{BufferPool, DeferredDrops};
    use super::*;

    fn context(codec: Compression, max_message_size: u32) -> SealContext {
        let compression = CompressionOptions { codec, level: None, min_bytes: 4096 };
        SealContext {
            producer_id: 7,
            producer_name: "small".into(),
            schema_version: Some(Box::new([0, 1])),
            compression,
            fast_payload_bytes_end: compression.fast_payload_bytes_max(None) + 1,
            max_message_size,
            chunk_bytes_max: None,
            encryption: None,
        }
    }

    fn batch(ids: std::ops::Range<u64>, payload_bytes: usize) -> EntryContent {
        let (mut buffers, mut drops) = (BufferPool::new(), DeferredDrops::default());
        let mut content = EntryContent::default();
        for id in ids {
            let mut message = Message::new(vec![b'x'; payload_bytes]).with_key("key").with_property("at", "x");
            message.set_sequence_id(id);
            let size_bytes = message.size_bytes();
            content.add(&mut message, size_bytes, true, &mut buffers, &mut drops);
        }
        content
    }

    #[test]
    fn a_small_batch_has_the_same_bytes_by_either_way() {
        let context = context(Compression::Lz4, 5 * 1024 * 1024);
        for (messages, payload_bytes) in [(1, 0), (1, 100), (2, 0), (2, 700), (10, 100), (30, 60)] {
            let ids = 40..40 + messages;
            let (mut fast, mut slow) = (batch(ids.clone(), payload_bytes), batch(ids.clone(), payload_bytes));
            let publish_time_ms = 1_700_000_000_000;
            let stamp = EntryStamp { first: ids.start, last: ids.end - 1, publish_time_ms, sealed_at: None };
            assert!(can_seal_small(&context, &fast, payload_bytes));
            let sealed = seal_small(&mut fast, stamp, &context, &mut Scratch::default());
            let expected = run(&mut slow, stamp, &context, &mut Scratch::default()).expect("it is small");
            let expected = expected.get(0).expect("one frame");
            let bytes = |entry: &SealedEntry| [&entry.frame.head[..], &entry.frame.payload].concat();
            assert_eq!(bytes(&sealed), bytes(expected), "{messages} messages of {payload_bytes} bytes");
            assert_eq!(sealed.limited_bytes, expected.limited_bytes);
        }
    }

    #[test]
    fn a_batch_is_not_sealed_at_once_where_that_may_fail_or_take_long() {
        let seals = |messages, payload_bytes, codec, limit| {
            can_seal_small(&context(codec, limit), &batch(0..messages, payload_bytes), payload_bytes)
        };
        for messages in [1, 2] {
            assert!(seals(messages, 100, Compression::None, 5000));
            assert!(!seals(messages, 100, Compression::None, 300), "the broker may not take it");
            let large = 5000 / messages as usize;
            assert!(seals(messages, large, Compression::None, 50_000));
            assert!(!seals(messages, large, Compression::Lz4, 50_000), "it is to be compressed");
        }
    }

    #[test]
    fn the_buffer_of_a_batch_that_shrinks_is_free_again() {
        for (is_batch, kept) in [(true, 100_000), (false, 0)] {
            let mut scratch = Scratch::default();
            let records = BytesMut::from(&[b' '; 100_000][..]).freeze();
            let payload = Payload::uncompressed(PayloadBytes::Shared(records));
            let options = CompressionOptions { codec: Compression::Lz4, level: None, min_bytes: 99_999 };
            let payload = compress_payload(payload, is_batch, options, &mut scratch);
            assert!(payload.len() < 1000 && payload.uncompressed_size == 100_000, "{payload:?}");
            assert_eq!(scratch.spare.capacity(), kept);
        }
    }
}
