//! Turning messages into frames, outside the producer's lock where it takes time.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::batcher::{Content, Spent};
use super::in_flight::Entry;
use super::message::Message;
use crate::error::{Error, ErrorKind};
use crate::wire::FRAME_PADDING_BYTES;
use crate::wire::compress::{Compression, compress};
use crate::wire::entry::{EntryParts, seal, seal_apart, seal_copied};
use crate::wire::hot::SendHead;
use crate::wire::metadata::NewMetadata;
use crate::wire::send_run::{PlainSend, compared_len, put_unstamped, stamp};
use crate::wire::tx::{CHAIN_MIN_BYTES, SealedFrame};

/// Payloads up to this size are not compressed, as in the Java client.
pub(super) const COMPRESS_MIN_BYTES: usize = 4096;

/// More than a SEND frame has beside its metadata and payload.
const HEADS_BYTES_MAX: usize = 256;

/// Frames of small batches, and the heads of large ones, are written one after the other into pieces of this size.
const SEGMENT_BYTES: usize = 8 * 1024;

/// Records of at least this size stay in their buffer until the receipt; fewer are copied, for a buffer takes more.
const RECORDS_KEPT_BYTES_MIN: usize = 1024;

/// What all frames of a producer have in common.
#[derive(Debug, Clone)]
pub(super) struct SealContext {
    pub(super) producer_id: u64,
    pub(super) producer_name: Arc<str>,
    pub(super) schema_version: Option<Bytes>,
    pub(super) compression: Compression,
    pub(super) max_message_size: Option<u32>,
}

impl SealContext {
    /// More than a SEND frame has beside what the message itself brings.
    pub(super) fn head_bytes_max(&self) -> usize {
        self.producer_name.len() + self.schema_version.as_ref().map_or(0, Bytes::len) + 128
    }
}

/// What a [`SealJob`] makes frames of.
#[derive(Debug)]
pub(super) enum ToSeal {
    /// A batch, or a message alone.
    Messages(Content),
    /// Frames that lack their time and sum.
    Frames(BytesMut),
}

/// [`ToSeal`], with what it takes beside it.
#[derive(Debug)]
pub(super) enum Work {
    Messages(Content, Arc<SealContext>),
    Frames(BytesMut),
}

/// A closed batch to be compressed, summed and framed, or frames to be summed: [`run`](Self::run) it with no lock held,
/// and hand the result to [`Producer::put_sealed`](super::Producer::put_sealed).
#[must_use = "the messages in it are not sent until it has run"]
pub struct SealJob {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) work: Work,
    pub(super) publish_time_ms: u64,
    pub(super) max_message_size: Option<u32>,
    /// What frames are written into.
    pub(super) segment: BytesMut,
    /// Dropped by the job.
    pub(super) spent: Spent,
}

/// What came of a [`SealJob`].
#[derive(Debug)]
#[must_use = "the messages in it are not sent until the producer has it back"]
pub struct Sealed {
    pub(super) number: u64,
    /// What is left of the segment.
    pub(super) segment: BytesMut,
    /// The buffer of the records, where the frame does not need it.
    pub(super) spare: BytesMut,
    /// Empty, for further use.
    pub(super) spent: Spent,
    /// What the frames were held against.
    pub(super) max_message_size: Option<u32>,
    pub(super) result: Result<Frame, Error>,
}

/// A frame, and what of it the broker holds against `max_message_size`, bytes.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) frame: SealedFrame,
    pub(super) compared_bytes: usize,
}

impl fmt::Debug for SealJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealJob(sequence ids {} to {})", self.first, self.last)
    }
}

impl SealJob {
    /// Does the work. Takes as long as compressing and summing the batch takes; no lock may be held.
    pub fn run(mut self) -> Sealed {
        let mut segment = std::mem::take(&mut self.segment);
        let mut spare = BytesMut::new();
        let work = std::mem::replace(&mut self.work, Work::Frames(BytesMut::new()));
        let result = match work {
            Work::Frames(frames) => Ok(stamped(frames, self.publish_time_ms)),
            Work::Messages(mut content, context) => match content.take_only() {
                Some(message) => seal_message(&mut segment, &context, &message, self.first, self.publish_time_ms),
                None => self.seal_batch(content, &context, &mut segment, &mut spare),
            },
        };
        let mut spent = std::mem::take(&mut self.spent);
        spent.clear();
        Sealed { number: self.number, segment, spare, spent, max_message_size: self.max_message_size, result }
    }

    fn seal_batch(
        &self,
        mut content: Content,
        context: &SealContext,
        segment: &mut BytesMut,
        spare: &mut BytesMut,
    ) -> Result<Frame, Error> {
        let mut records = content.take_records();
        let copied = context.compression == Compression::None && records.len() < RECORDS_KEPT_BYTES_MIN;
        // Split off rather than frozen as it is: so it can become a buffer again without an allocation.
        let payload = if copied { Bytes::new() } else { records.split().freeze() };
        let (payload, compression, uncompressed_size) = compressed(context.compression, payload);
        let count = i32::try_from(content.count()).unwrap_or(i32::MAX);
        let metadata = NewMetadata {
            producer_name: &context.producer_name,
            sequence_id: self.first,
            publish_time_ms: self.publish_time_ms,
            partition_key: content.key.as_deref(),
            partition_key_b64: content.key_b64,
            ordering_key: content.ordering_key.as_deref(),
            schema_version: context.schema_version.as_deref(),
            compression,
            uncompressed_size,
            num_messages_in_batch: Some(count),
            highest_sequence_id: Some(self.last),
            ..NewMetadata::default()
        };
        let head = SendHead {
            num_messages: count,
            highest_sequence_id: Some(self.last),
            ..SendHead::new(context.producer_id, self.first)
        };
        // Of a batch only the payload is compared.
        let compared_bytes = payload.len() + records.len();
        // Before any frame is written: sizes of what is far too large do not fit the fields of one.
        check_compared(context.max_message_size, compared_bytes)?;
        make_room(segment, HEADS_BYTES_MAX + metadata.encoded_len() + records.len());
        let frame = if copied {
            let head = seal_copied(segment, &head, &metadata, &records);
            *spare = records;
            SealedFrame { head, payload: Bytes::new() }
        } else {
            seal_apart(segment, &head, &metadata, payload)
        };
        checked(context.max_message_size, frame, compared_bytes)
    }
}

/// Frames that have all but time and sum, with both.
fn stamped(mut frames: BytesMut, publish_time_ms: u64) -> Frame {
    stamp(&mut frames, publish_time_ms);
    // Split off rather than frozen as it is: so it can become a buffer again without an allocation.
    let head = frames.split().freeze();
    Frame { frame: SealedFrame { head, payload: Bytes::new() }, compared_bytes: 0 }
}

/// Frames a small message behind those in `frames`, all but time and sum.
#[inline]
pub(super) fn put_message(
    frames: &mut BytesMut,
    plain: &mut PlainSend,
    context: &SealContext,
    message: &Message,
    entry: &mut Entry,
) {
    let start = frames.len();
    if message.is_plain() {
        plain.put(frames, entry.first, &message.payload);
    } else {
        let metadata = metadata(context, message, entry.first);
        put_unstamped(frames, &SendHead::new(context.producer_id, entry.first), &metadata, &message.payload);
    }
    // A run is far below 4 GiB.
    (entry.start, entry.end) = (start as u32, frames.len() as u32);
    entry.compared_bytes = compared_len(&frames[start..]) as u32;
}

/// Of a message outside a batch, without time and compression.
fn metadata<'a>(context: &'a SealContext, message: &'a Message, sequence_id: u64) -> NewMetadata<'a> {
    let extras = message.extras();
    NewMetadata {
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
        ..NewMetadata::default()
    }
}

/// Sees to it that the next `bytes` of frames fit. `reserve` would make room for them alone, each time anew.
fn make_room(segment: &mut BytesMut, bytes: usize) {
    if segment.capacity() < bytes {
        *segment = BytesMut::with_capacity(bytes.max(SEGMENT_BYTES));
    }
}

/// Frames a single message, into `segment` where it is small.
fn seal_message(
    segment: &mut BytesMut,
    context: &SealContext,
    message: &Message,
    sequence_id: u64,
    publish_time_ms: u64,
) -> Result<Frame, Error> {
    let copied = context.compression == Compression::None && message.payload.len() < CHAIN_MIN_BYTES;
    let (payload, compression, uncompressed_size) =
        if copied { (Bytes::new(), 0, 0) } else { compressed(context.compression, message.payload.clone()) };
    let metadata =
        NewMetadata { publish_time_ms, compression, uncompressed_size, ..metadata(context, message, sequence_id) };
    let payload_bytes = if copied { message.payload.len() } else { payload.len() };
    check_compared(context.max_message_size, payload_bytes)?;
    let head = SendHead::new(context.producer_id, sequence_id);
    let copied_bytes = if payload_bytes < CHAIN_MIN_BYTES { payload_bytes } else { 0 };
    make_room(segment, HEADS_BYTES_MAX + metadata.encoded_len() + copied_bytes);
    let frame = if copied {
        SealedFrame { head: seal_copied(segment, &head, &metadata, &message.payload), payload: Bytes::new() }
    } else {
        seal(segment, &head, &metadata, payload)
    };
    // Of a single message metadata and payload are compared; the rest of the frame is its command and ten fixed
    // bytes, of which only the metadata's share matters here.
    let compared_bytes = metadata_bytes(&frame, payload_bytes) + payload_bytes;
    checked(context.max_message_size, frame, compared_bytes)
}

/// What stands between the entry's fixed fields and its payload.
fn metadata_bytes(frame: &SealedFrame, payload_bytes: usize) -> usize {
    const FIXED_BYTES: usize = 2 + 4 + 4;
    (frame.len() - payload_bytes).saturating_sub(entry_offset(frame) + FIXED_BYTES)
}

/// Where the entry starts in a frame.
fn entry_offset(frame: &SealedFrame) -> usize {
    let command_size = frame.head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    8 + command_size as usize
}

/// The payload as it goes out, with `compression` and `uncompressed_size` of its metadata.
fn compressed(kind: Compression, payload: Bytes) -> (Bytes, i32, u32) {
    if kind == Compression::None || payload.len() <= COMPRESS_MIN_BYTES {
        return (payload, 0, 0);
    }
    match (compress(kind, &payload), u32::try_from(payload.len())) {
        // What does not shrink is left alone. A codec that is not built in was refused at the start.
        (Ok(smaller), Ok(size)) if smaller.len() < payload.len() => (smaller, kind.wire_value(), size),
        _ => (payload, 0, 0),
    }
}

fn check_compared(max_message_size: Option<u32>, compared_bytes: usize) -> Result<(), Error> {
    let limit = max_message_size.unwrap_or(u32::MAX / 2) as usize;
    if compared_bytes <= limit { Ok(()) } else { Err(too_large(compared_bytes, limit)) }
}

/// Whether the broker takes it: a frame above its limit costs the connection, again and again.
pub(super) fn check_size(
    max_message_size: Option<u32>,
    frame_bytes: usize,
    compared_bytes: usize,
) -> Result<(), Error> {
    check_compared(max_message_size, compared_bytes)?;
    let limit = max_message_size.unwrap_or(u32::MAX / 2) as usize + FRAME_PADDING_BYTES as usize;
    if frame_bytes <= limit { Ok(()) } else { Err(too_large(frame_bytes, limit)) }
}

fn too_large(bytes: usize, limit: usize) -> Error {
    Error::local(ErrorKind::MessageTooLarge, format!("{bytes} bytes are more than the broker's limit of {limit}"))
}

fn checked(max_message_size: Option<u32>, frame: SealedFrame, compared_bytes: usize) -> Result<Frame, Error> {
    check_size(max_message_size, frame.len(), compared_bytes)?;
    Ok(Frame { frame, compared_bytes })
}

/// Whether the kept bytes of a frame still have the checksum they were given.
pub(super) fn is_intact(frame: &SealedFrame) -> bool {
    let mut entry = frame.head.get(entry_offset(frame)..).unwrap_or_default().to_vec();
    entry.extend_from_slice(&frame.payload);
    EntryParts::split(&entry).and_then(|parts| parts.verify(&entry)).is_ok()
}
