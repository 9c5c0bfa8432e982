//! Stage 5: SEND frames, with the command, the metadata and the checksum; and the fast path, which frames small single messages.

use bytes::{Bytes, BytesMut};

use super::{EntryStamp, Payload, PayloadBytes, Scratch, SealContext, SealedEntry};
use crate::error::{Error, ErrorKind};
use crate::machine::producer::batch::EntryContent;
use crate::machine::producer::encrypt::{DataKey, IV_BYTES};
use crate::machine::producer::extras::RareFields;
use crate::machine::producer::group::PendingEntry;
use crate::machine::producer::message::Message;
use crate::wire::FRAME_PADDING_BYTES;
use crate::wire::entry::{EntryParts, seal, seal_apart, seal_behind, seal_copied};
use crate::wire::hot::SendHead;
use crate::wire::metadata::{ChunkFields, EncryptionFields, MetadataFields};
use crate::wire::send_template::{SendTemplate, limited_len, put_unstamped, stamp};
use crate::wire::tx::{CHAIN_MIN_BYTES, SealedFrame};

/// More than a SEND frame has beside its metadata and payload.
pub(super) const HEADS_BYTES_MAX: usize = 256;

/// How many bytes more than its SEND frame the MESSAGE frame of an entry may take: longer ids, and the metadata of the
/// broker. An entry that leaves no room for them would be stored and cost each consumer its connection. (An `ack_set`
/// needs none: records take less than is reckoned for them, by more than the 11 bytes for each 64 of them.)
const DELIVERY_BYTES_MAX: usize = 256;

/// Small frames, and the heads of large ones, are written one after the other into segments of this size.
const SEGMENT_BYTES: usize = 8 * 1024;

/// What an entry has beside its payload.
#[derive(Clone, Copy)]
pub(super) struct EntryHead<'a> {
    pub(super) content: &'a EntryContent,
    pub(super) stamp: EntryStamp,
    pub(super) context: &'a SealContext,
    /// The one that its payload is encrypted with.
    pub(super) key: Option<&'a DataKey>,
    pub(super) chunk: Option<ChunkFields<'a>>,
    /// The message has no bytes, whatever has become of them on the way.
    pub(super) is_empty: bool,
}

/// The command of the SEND frame of an entry.
fn send_head(content: &EntryContent, is_chunk: bool, stamp: EntryStamp, context: &SealContext) -> SendHead {
    let head = SendHead { is_chunk, ..SendHead::new(context.producer_id, stamp.first) };
    match content.single() {
        Some(_) => head,
        None => SendHead { num_messages: content.count_i32(), highest_sequence_id: stamp.highest(), ..head },
    }
}

/// Metadata of an entry, without what the stages say of its payload.
pub(super) fn metadata<'a>(
    content: &'a EntryContent,
    stamp: EntryStamp,
    context: &'a SealContext,
) -> MetadataFields<'a> {
    let publish_time_ms = stamp.publish_time_ms;
    match content.single() {
        Some(message) => MetadataFields { publish_time_ms, ..single_metadata(context, message, stamp.first) },
        None => MetadataFields {
            producer_name: &context.producer_name,
            sequence_id: stamp.first,
            publish_time_ms,
            partition_key: content.key.as_deref(),
            partition_key_b64: content.key_b64,
            ordering_key: content.ordering_key.as_deref(),
            schema_version: context.schema_version.as_deref(),
            num_messages_in_batch: Some(content.count_i32()),
            highest_sequence_id: stamp.highest(),
            ..MetadataFields::default()
        },
    }
}

/// Metadata of a message outside a batch, without publish time and compression.
#[inline]
fn single_metadata<'a>(context: &'a SealContext, message: &'a Message, sequence_id: u64) -> MetadataFields<'a> {
    let extras = message.extras();
    let metadata = MetadataFields {
        producer_name: &context.producer_name,
        sequence_id,
        properties: &extras.properties,
        partition_key: extras.key.as_deref(),
        partition_key_b64: extras.key_b64,
        ordering_key: extras.ordering_key.as_deref(),
        event_time_ms: extras.event_time_ms,
        schema_version: context.schema_version.as_deref(),
        deliver_at_time_ms: message.deliver_at_ms(),
        null_value: extras.null_value,
        ..MetadataFields::default()
    };
    match extras.rare_if_any() {
        None => metadata,
        Some(rare) => with_rare_fields(metadata, rare),
    }
}

#[cold]
fn with_rare_fields<'a>(metadata: MetadataFields<'a>, rare: &'a RareFields) -> MetadataFields<'a> {
    MetadataFields {
        replicate_to: &rare.replicate_to,
        null_partition_key: rare.null_key && metadata.partition_key.is_none(),
        schema_id: rare.schema_id.as_deref(),
        ..metadata
    }
}

/// What the metadata of an entry says of its encryption.
pub(super) fn encryption<'a>(key: &'a DataKey, iv: &'a [u8; IV_BYTES]) -> EncryptionFields<'a> {
    EncryptionFields { keys: key.cipher().encryption_keys(), param: iv }
}

/// Stage 5: one payload becomes one frame, if the broker takes that.
pub(super) fn seal_entry(payload: Payload, entry: EntryHead<'_>, scratch: &mut Scratch) -> Result<SealedEntry, Error> {
    let limit = entry.context.max_message_size;
    // Before any frame is written: the lengths of a payload that is far too large do not fit the fields of a frame.
    check_limited(limit, payload.len())?;
    let sealed = frame_entry(payload, entry, scratch);
    check_sizes(limit, sealed.frame.len(), sealed.limited_bytes)?;
    Ok(sealed)
}

/// The same, for a payload that is known to be taken.
pub(super) fn frame_entry(payload: Payload, entry: EntryHead<'_>, scratch: &mut Scratch) -> SealedEntry {
    let EntryHead { content, stamp, context, .. } = entry;
    let payload_bytes = payload.len();
    let head = send_head(content, entry.chunk.is_some(), stamp, context);
    let metadata = MetadataFields {
        compression: payload.compression,
        uncompressed_size: payload.uncompressed_size,
        encryption: entry.key.zip(payload.iv.as_ref()).map(|(key, iv)| encryption(key, iv)),
        chunk: entry.chunk,
        is_empty: entry.is_empty,
        ..metadata(content, stamp, context)
    };
    let segment = &mut scratch.segment;
    let is_batch = content.single().is_none();
    let copied_bytes = match &payload.bytes {
        PayloadBytes::Records(_) => payload_bytes,
        PayloadBytes::Shared(_) if !is_batch && payload_bytes < CHAIN_MIN_BYTES => payload_bytes,
        PayloadBytes::Shared(_) => 0,
        PayloadBytes::Behind { start, .. } => start.len(),
    };
    let metadata_bytes = metadata.encoded_len();
    make_room(segment, HEADS_BYTES_MAX + metadata_bytes + copied_bytes);
    let frame = match payload.bytes {
        PayloadBytes::Records(records) => {
            let head = seal_copied(segment, &head, &metadata, &records);
            scratch.spare = records;
            SealedFrame { head, payload: Bytes::new() }
        }
        // Left where they are whatever their size: their buffer is used again after the receipt.
        PayloadBytes::Shared(records) if is_batch => seal_apart(segment, &head, &metadata, records),
        PayloadBytes::Shared(payload) => seal(segment, &head, &metadata, payload),
        PayloadBytes::Behind { start, rest } => seal_behind(segment, &head, &metadata, &start, rest),
    };
    // A broker compares the payload alone of a batch, metadata and payload of a single message.
    let limited_bytes = if is_batch { payload_bytes } else { payload_bytes + metadata_bytes };
    SealedEntry { frame, limited_bytes }
}

/// Makes sure that the next `bytes` of frames fit. `reserve` would allocate for them alone, each time anew.
fn make_room(segment: &mut BytesMut, bytes: usize) {
    if segment.capacity() < bytes {
        *segment = BytesMut::with_capacity(bytes.max(SEGMENT_BYTES));
    }
}

/// Whether [`put_frame_fast`] can frame a message: it is small, and stages 1 to 4 leave it as it is.
pub(in crate::machine::producer) fn can_frame_fast(
    context: &SealContext,
    message: &Message,
    size_bytes: usize,
) -> bool {
    message.payload.len() < context.fast_payload_bytes_end
        && message.record_bytes_max(size_bytes) + context.head_bytes_max() <= context.max_message_size as usize
}

/// Frames a message for which [`can_frame_fast`] holds behind those in `frames`, all but publish time and checksum. Those
/// follow in [`stamp_frames`].
#[inline]
pub(in crate::machine::producer) fn put_frame_fast(
    frames: &mut BytesMut,
    template: &mut SendTemplate,
    context: &SealContext,
    message: &Message,
    entry: &mut PendingEntry,
) {
    let start = frames.len();
    if !message.has_extras() {
        template.encode(frames, entry.first, &message.payload);
    } else {
        let is_empty = message.payload.is_empty();
        let metadata = MetadataFields { is_empty, ..single_metadata(context, message, entry.first) };
        put_unstamped(frames, &SendHead::new(context.producer_id, entry.first), &metadata, &message.payload);
    }
    // A group of frames is far below 4 GiB.
    (entry.start, entry.end) = (start as u32, frames.len() as u32);
    entry.limited_bytes = limited_len(&frames[start..]) as u32;
}

/// Sets publish time and checksum of all frames of a group.
pub(in crate::machine::producer) fn stamp_frames(mut frames: BytesMut, publish_time_ms: u64) -> SealedEntry {
    stamp(&mut frames, publish_time_ms);
    // Split off rather than frozen as it is: so it can become a buffer again without an allocation.
    let frame = SealedFrame { head: frames.split().freeze(), payload: Bytes::new() };
    // Known of each entry since it was framed.
    SealedEntry { frame, limited_bytes: 0 }
}

/// Where the entry starts in a frame.
fn entry_offset(frame: &SealedFrame) -> usize {
    let command_size = frame.head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    8 + command_size as usize
}

fn check_limited(max_message_size: u32, limited_bytes: usize) -> Result<(), Error> {
    let limit = max_message_size as usize;
    if limited_bytes <= limit { Ok(()) } else { Err(too_large(limited_bytes, limit)) }
}

/// Whether the broker takes a frame, and consumers the one that it makes of it. One above the limit costs the connection,
/// and again each time it is re-sent.
///
/// # Errors
/// [`ErrorKind::MessageTooLarge`].
pub(in crate::machine::producer) fn check_sizes(
    max_message_size: u32,
    frame_bytes: usize,
    limited_bytes: usize,
) -> Result<(), Error> {
    check_limited(max_message_size, limited_bytes)?;
    let limit = max_message_size as usize + FRAME_PADDING_BYTES as usize - DELIVERY_BYTES_MAX;
    if frame_bytes <= limit { Ok(()) } else { Err(too_large(frame_bytes, limit)) }
}

pub(super) fn too_large(bytes: usize, limit: usize) -> Error {
    Error::local(ErrorKind::MessageTooLarge, format!("{bytes} bytes are more than the broker's limit of {limit}"))
}

/// Whether the bytes of a kept frame still have the checksum that they were given.
pub(in crate::machine::producer) fn is_intact(frame: &SealedFrame) -> bool {
    let mut entry = frame.head.get(entry_offset(frame)..).unwrap_or_default().to_vec();
    entry.extend_from_slice(&frame.payload);
    EntryParts::split(&entry).and_then(|parts| parts.verify(&entry)).is_ok()
}
