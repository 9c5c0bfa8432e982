//! The bodies of the fuzz targets. They take any bytes and panic if this crate contradicts itself or prost,
//! or exceeds its limits. `fuzz/` calls them, and `cargo test` runs them over the stored corpora.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::checkpoint::Checkpoint;
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{Assembly, Chunk, ChunkLimits, Step};
use crate::pb;
use crate::wire::command;
use crate::wire::compress::{self, CompressError, Compression};
use crate::wire::entry::{BrokerEntryMetadata, EntryParts};
use crate::wire::metadata::{bytes, message_properties, replicate_to, single_properties, text};
use crate::wire::{BatchCursor, Command, DecodeError, Frame, Limits, Metadata, SingleMetadata, cut, frames, missing};

/// Small, so that a corpus of small files reaches the limit.
const LIMITS: Limits = Limits { frame_bytes_max: 4096 };

/// The most a compressed payload may become, bytes.
const UNCOMPRESSED_BYTES_MAX: usize = 64 * 1024;

/// A byte stream: split into frames, decoded, encoded again. The first byte says where the stream is
/// divided into two reads, which must not change the result.
pub fn frame(data: &[u8]) {
    let Some((&split, stream)) = data.split_first() else { return };
    let whole = read_stream(&[stream]);
    let (front, back) = stream.split_at(stream.len() * usize::from(split) / 256);
    assert_eq!(whole, read_stream(&[front, back]), "where a stream breaks changes nothing");
    for frame in &whole.0 {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let again: Vec<_> = frames(out.freeze()).collect();
        assert_eq!(again, [Ok(frame.clone())], "what was read can be written and read");
    }
}

/// The bytes or the text of a message id, as an application has stored it.
pub fn message_id(data: &[u8]) {
    if let Ok(id) = MessageId::from_bytes(data) {
        let stored = id.to_bytes();
        assert!(stored.len() <= 2 * 61 + 2, "at most eleven bytes for each of five numbers, twice");
        assert_same_id(&MessageId::from_bytes(&stored).expect("what was written is read"), &id);
        // What prost refuses lies in fields that are skipped here.
        if let Ok(theirs) = pb::MessageIdData::decode(data) {
            let at = id.position();
            assert_eq!((at.ledger_id, at.entry_id), (theirs.ledger_id, theirs.entry_id));
            assert_eq!(id.partition(), u32::try_from(theirs.partition()).ok());
            assert_eq!(id.batch_index(), u32::try_from(theirs.batch_index()).ok());
            let size = u32::try_from(theirs.batch_size()).ok().filter(|size| *size > 0);
            assert_eq!(id.batch_size(), size.filter(|_| theirs.batch_index() >= 0));
            assert_eq!(id.first_chunk().is_some(), theirs.first_chunk_message_id.is_some());
        }
        assert_eq!(id.to_string().parse().as_ref(), Ok(&id), "what is shown is read");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<MessageId>() {
        assert_same_id(&id.to_string().parse().expect("what is shown is read"), &id);
    }
}

/// A line of a glue, as the referee reads it.
#[cfg(feature = "referee")]
pub fn referee_line(data: &[u8]) {
    use crate::referee::{Line, check_line};

    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        match Line::parse(line) {
            Ok(read) => check_line(line, &read),
            Err(lacks) => assert!(!lacks.is_empty()),
        }
    }
}

/// The bytes or the text of a checkpoint, as an application has stored it.
pub fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes(data) {
        check_checkpoint(&checkpoint);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        check_checkpoint(&checkpoint);
    }
}

fn check_checkpoint(checkpoint: &Checkpoint) {
    assert_eq!(checkpoint.to_string().parse().as_ref(), Ok(checkpoint), "what is shown is read");
    let stored = checkpoint.to_bytes();
    let again = Checkpoint::from_bytes(&stored).expect("what was written is read");
    assert_eq!((&again, again.to_bytes()), (checkpoint, stored));
    let mut merged = Checkpoint::new();
    assert!(merged <= *checkpoint);
    merged.merge(checkpoint);
    assert_eq!(merged, *checkpoint);
}

/// Equal also in what equality leaves out.
fn assert_same_id(left: &MessageId, right: &MessageId) {
    let whole = |id: &MessageId| (id.position(), id.batch_size(), id.first_chunk());
    assert_eq!(whole(left), whole(right));
}

/// The valid frames of a stream that arrives in pieces, and the error that ends it.
fn read_stream(pieces: &[&[u8]]) -> (Vec<Frame>, Option<DecodeError>) {
    let (mut rx, mut all) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        rx.extend_from_slice(piece);
        loop {
            let before = rx.len();
            assert!(missing(&rx, &LIMITS) <= before, "at most doubles");
            let run = match cut(&mut rx, &LIMITS) {
                Ok(None) => break,
                Ok(Some(run)) => run,
                Err(error) => return (all, Some(error)),
            };
            assert_eq!(run.len() + rx.len(), before, "no byte is lost");
            for frame in frames(run) {
                match frame {
                    Ok(frame) => all.push(comparable(frame)),
                    Err(error) => return (all, Some(error)),
                }
            }
        }
    }
    (all, None)
}

/// Removes NaN, which is not equal to itself, from the only fields that can hold it.
fn comparable(frame: Frame) -> Frame {
    match frame {
        Frame::Other(Command::ConsumerStatsResponse(mut body)) => {
            let rates = [
                &mut body.msg_rate_out,
                &mut body.msg_throughput_out,
                &mut body.msg_rate_redeliver,
                &mut body.msg_rate_expired,
                &mut body.message_ack_rate,
            ];
            for rate in rates {
                *rate = rate.filter(|rate| !rate.is_nan());
            }
            Frame::Other(body.into())
        }
        other => other,
    }
}

/// A `BaseCommand`: what this crate accepts, prost accepts, and with equal fields.
pub fn command(data: &[u8]) {
    let by_table = Command::decode_base(data);
    let by_frame = frames(framed(data)).next().expect("a frame");
    let Ok(envelope) = command::split_envelope(data, 0) else {
        assert!(by_table.is_err() && by_frame.is_err());
        return;
    };
    let Some(body) = envelope.body.filter(|_| Command::is_known(envelope.command_type)) else {
        assert!(!matches!(by_table, Ok(Some(_))));
        assert!(matches!(by_frame, Ok(Frame::Unknown { .. }) | Err(_)));
        return;
    };
    // Bodies of other types are ignored, so prost gets only the relevant one.
    let mut alone = Vec::new();
    prost::encoding::int32::encode(1, &envelope.command_type, &mut alone);
    prost::encoding::bytes::encode(envelope.command_type.unsigned_abs(), &body.into_owned(), &mut alone);
    let theirs = pb::BaseCommand::decode(&alone[..]);
    if let Ok(ours) = by_table {
        let theirs = theirs.as_ref().expect("what the table reads, prost reads");
        let mut out = BytesMut::new();
        ours.expect("a known type").encode_frame(&mut out);
        assert_eq!(out[8..], theirs.encode_to_vec(), "equal fields");
    }
    match by_frame {
        Err(_) | Ok(Frame::Other(_)) => {}
        Ok(frame) => compare_hot(&frame, &theirs.expect("what is read by hand, prost reads")),
    }
}

fn framed(command: &[u8]) -> Bytes {
    let size = command.len() as u32;
    [&(size + 4).to_be_bytes()[..], &size.to_be_bytes(), command].concat().into()
}

fn compare_hot(frame: &Frame, theirs: &pb::BaseCommand) {
    match frame {
        Frame::Receipt(ours) => {
            let theirs = theirs.send_receipt.as_ref().expect("send_receipt");
            let id = theirs.message_id.as_ref().map_or((u64::MAX, u64::MAX), |id| (id.ledger_id, id.entry_id));
            assert_eq!((ours.producer_id, ours.sequence_id), (theirs.producer_id, theirs.sequence_id));
            assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id());
            assert_eq!((ours.ledger_id, ours.entry_id), id);
        }
        Frame::Message { head: ours, .. } => {
            let theirs = theirs.message.as_ref().expect("message");
            let id = &theirs.message_id;
            assert_eq!((ours.ledger_id, ours.entry_id, ours.partition), (id.ledger_id, id.entry_id, id.partition()));
            assert_eq!((ours.consumer_id, ours.consumer_epoch), (theirs.consumer_id, theirs.consumer_epoch));
            assert_eq!((ours.redelivery_count, &ours.ack_set), (theirs.redelivery_count(), &theirs.ack_set));
        }
        Frame::Send { head: ours, .. } => {
            let theirs = theirs.send.as_ref().expect("send");
            assert_eq!((ours.producer_id, ours.sequence_id), (theirs.producer_id, theirs.sequence_id));
            assert_eq!(ours.num_messages, theirs.num_messages());
            assert_eq!((ours.is_chunk, ours.marker), (theirs.is_chunk(), theirs.marker()));
            assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id);
            assert_eq!(
                (ours.txnid_least_bits, ours.txnid_most_bits),
                (theirs.txnid_least_bits, theirs.txnid_most_bits)
            );
            assert_eq!(ours.message_id, theirs.message_id.as_ref().map(|id| (id.ledger_id, id.entry_id)));
        }
        Frame::Other(_) | Frame::Unknown { .. } => unreachable!("not hot"),
    }
}

/// An entry: its parts lie in it in order, its metadata is what prost reads, its records are in bounds.
pub fn entry(data: &[u8]) {
    let entry = Bytes::copy_from_slice(data);
    let Ok(parts) = EntryParts::split(&entry) else { return };
    assert!(parts.checksummed_from <= parts.metadata.start && parts.metadata.end == parts.payload.start);
    assert_eq!(parts.payload.end, entry.len());
    // A fuzzer does not find valid checksums, so a wrong one is ignored here.
    let _ = parts.verify(&entry);
    if let Some(range) = parts.broker_metadata.clone() {
        if let Ok(ours) = BrokerEntryMetadata::decode(&entry[range.clone()]) {
            let theirs = pb::BrokerEntryMetadata::decode(&entry[range]).expect("prost reads it");
            assert_eq!((ours.broker_timestamp, ours.index), (theirs.broker_timestamp, theirs.index));
        }
    }
    let serialized = &entry[parts.metadata.clone()];
    let Ok(metadata) = Metadata::decode(serialized) else { return };
    compare_metadata(serialized, &metadata);
    let payload = entry.slice(parts.payload);
    let limit = UNCOMPRESSED_BYTES_MAX;
    let Ok(payload) = compress::decompress(metadata.compression, &payload, metadata.uncompressed_size, limit) else {
        return;
    };
    assert!(payload.len() <= limit.max(entry.len()));
    if let Some(count) = metadata.num_messages_in_batch {
        records(count, &payload);
    }
}

fn compare_metadata(serialized: &[u8], ours: &Metadata) {
    let theirs = pb::MessageMetadata::decode(serialized).expect("what is read by hand, prost reads");
    assert_eq!(text(serialized, &ours.producer_name), theirs.producer_name);
    assert_eq!((ours.sequence_id, ours.publish_time_ms), (theirs.sequence_id, theirs.publish_time));
    assert_eq!(ours.event_time_ms, theirs.event_time());
    assert_eq!(ours.partition_key.as_ref().map(|key| text(serialized, key)), theirs.partition_key.as_deref());
    assert_eq!(ours.partition_key_b64, theirs.partition_key_b64_encoded());
    assert_eq!(ours.ordering_key.as_ref().map(|key| bytes(serialized, key)), theirs.ordering_key.as_deref());
    assert_eq!((ours.null_value, ours.null_partition_key), (theirs.null_value(), theirs.null_partition_key()));
    assert_eq!(
        (ours.uncompressed_size, ours.compression),
        (theirs.uncompressed_size(), theirs.compression.unwrap_or(0))
    );
    assert_eq!(ours.num_messages_in_batch, theirs.num_messages_in_batch);
    assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id());
    assert_eq!(ours.schema_version.as_ref().map(|range| bytes(serialized, range)), theirs.schema_version.as_deref());
    assert_eq!(ours.deliver_at_time_ms, theirs.deliver_at_time);
    assert_eq!(ours.marker_type, theirs.marker_type);
    assert_eq!(ours.schema_id.as_ref().map(|range| bytes(serialized, range)), theirs.schema_id.as_deref());
    assert!(replicate_to(serialized).eq(theirs.replicate_to.iter().map(String::as_str)));
    assert_eq!(ours.encrypted, !theirs.encryption_keys.is_empty());
    assert_eq!(ours.has_properties, !theirs.properties.is_empty());
    assert!(message_properties(serialized).eq(theirs.properties.iter().map(|p| (&*p.key, &*p.value))));
}

/// A payload that was compressed: the first byte says by which codec, the three behind it are the declared size. What it
/// is taken for, data or a compressed payload, each codec has to bear.
pub fn decompress(data: &[u8]) {
    let [codec, high, middle, low, payload @ ..] = data else { return };
    let codec = Compression::ALL[1 + usize::from(codec % 4)];
    let declared = u32::from_be_bytes([0, *high, *middle, *low]);
    let input = Bytes::copy_from_slice(payload);
    match compress::decompress(codec.to_pb(), &input, declared, UNCOMPRESSED_BYTES_MAX) {
        Ok(output) => {
            assert!(output.len() == declared as usize && output.len() <= UNCOMPRESSED_BYTES_MAX);
        }
        Err(CompressError::NotBuilt { .. }) => return assert!(!codec.is_built_in()),
        Err(CompressError::UnknownCodec(_)) => panic!("{codec:?} is known"),
        Err(CompressError::TooLarge { .. }) => assert!(declared as usize > UNCOMPRESSED_BYTES_MAX),
        Err(_) => {}
    }
    if !codec.is_built_in() {
        // What was declared is refused before the codec is looked for.
        return;
    }
    let packed = compress::compress(codec, None, payload).expect("data of any kind");
    let size = payload.len() as u32;
    assert_eq!(compress::decompress(codec.to_pb(), &packed, size, payload.len()), Ok(input));
}

/// The records of a batch; the first byte is their number.
pub fn batch(data: &[u8]) {
    let Some((&count, payload)) = data.split_first() else { return };
    records(i32::from(count as i8), payload);
    if let Ok(ours) = SingleMetadata::decode(payload) {
        compare_single(payload, &ours);
    }
}

fn records(count: i32, payload: &[u8]) {
    let Ok(mut cursor) = BatchCursor::new(count, payload.len()) else { return };
    let (mut end, mut given) = (0, 0);
    while let Some(record) = cursor.next(payload) {
        let Ok(record) = record else {
            assert!(cursor.next(payload).is_none(), "nothing comes after an error");
            return;
        };
        assert!(end <= record.metadata_range.start && record.metadata_range.end == record.payload.start);
        end = record.payload.end;
        given += 1;
        compare_single(&payload[record.metadata_range], &record.metadata);
        assert!(payload.get(record.payload).is_some());
    }
    assert_eq!(given, count);
}

fn compare_single(serialized: &[u8], ours: &SingleMetadata) {
    let theirs = pb::SingleMessageMetadata::decode(serialized).expect("what is read by hand, prost reads");
    assert_eq!(ours.payload_size, theirs.payload_size);
    assert_eq!(ours.partition_key.as_ref().map(|key| text(serialized, key)), theirs.partition_key.as_deref());
    assert_eq!(ours.partition_key_b64, theirs.partition_key_b64_encoded());
    assert_eq!(ours.ordering_key.as_ref().map(|key| bytes(serialized, key)), theirs.ordering_key.as_deref());
    assert_eq!((ours.null_value, ours.null_partition_key), (theirs.null_value(), theirs.null_partition_key()));
    assert_eq!((ours.compacted_out, ours.event_time_ms), (theirs.compacted_out(), theirs.event_time()));
    assert_eq!(ours.sequence_id, theirs.sequence_id);
    assert!(single_properties(serialized).eq(theirs.properties.iter().map(|p| (&*p.key, &*p.value))));
}

/// An answer of the REST interface. The first byte says to which request, the two behind it are the status.
#[cfg(feature = "http")]
pub fn http_answer(data: &[u8]) {
    let [request, high, low, body @ ..] = data else { return };
    let topic = "persistent://public/default/t".to_owned();
    let asked: Command = match request % 4 {
        0 => pb::CommandLookupTopic { topic, ..Default::default() }.into(),
        1 => pb::CommandPartitionedTopicMetadata { topic, ..Default::default() }.into(),
        2 => pb::CommandGetTopicsOfNamespace { namespace: "public/default".to_owned(), ..Default::default() }.into(),
        _ => pb::CommandGetSchema { topic, ..Default::default() }.into(),
    };
    let status = u16::from_be_bytes([*high, *low]);
    match crate::client::http::response::read(&asked, status, body) {
        Ok(answer) => {
            assert_eq!(status, 200);
            let expected = asked.response_type().map(|kind| kind as i32);
            assert_eq!(Some(answer.command_type()), expected, "it answers what was asked");
            assert!(answer.refusal().is_none(), "a refusal is an error");
        }
        Err(error) => {
            let text = error.into_error("the request").to_string();
            assert!(!text.contains('\n') && text.chars().count() < 1000, "one line: {text}");
        }
    }
}

/// What is read of an application's OAuth2 settings and of an identity provider. The first byte says what it is, the
/// second is the status of an answer.
#[cfg(feature = "oauth2")]
pub fn oauth2(data: &[u8]) {
    crate::client::oauth2::fuzz::read_any(data);
}

/// What a provider of service URLs answers. The first byte says whether its status is 200.
/// Two Avro schemas, a line each: what reads itself, and both ways between them.
#[cfg(feature = "broker")]
pub fn avro(data: &[u8]) {
    use crate::broker::avro::{AvroSchema, check_read};
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let schemas = [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()].map(AvroSchema::parse);
    for schema in schemas.iter().flatten() {
        assert_eq!(check_read(schema, schema), Ok(()), "a schema reads itself");
    }
    if let [Ok(one), Ok(other)] = &schemas {
        let _ = (check_read(one, other), check_read(other, one));
    }
}

#[cfg(feature = "http")]
pub fn cluster_answer(data: &[u8]) {
    crate::client::failover::answer::read_any(data);
}

/// Bytes of any kind, taken apart: each is in one line, and all forms of the text end well.
pub fn explain(data: &[u8]) {
    let mut at = 0;
    for frame in crate::wire::explain::explain(data) {
        assert_eq!(frame.offset, at);
        at += frame.input().len() as u64;
        let contents = (0..frame.contents().len()).map(Some);
        for content in std::iter::once(None).chain(contents) {
            let lines = frame.lines.iter().filter(|line| line.content == content);
            let end = lines.fold(0, |at, line| {
                assert_eq!(line.bytes.start, at, "each byte once");
                line.bytes.end
            });
            let whole = content.map_or(frame.input(), |index| &frame.contents()[index]);
            assert_eq!(end, whole.len(), "to the last byte");
        }
        for (line, problem) in frame.problems() {
            assert!(problem.at <= line.bytes.end.max(line.bytes.start), "{line:?}");
        }
        let _ = (frame.to_string(), frame.text().all_bytes(true).to_string(), frame.to_json());
    }
    assert_eq!(at, data.len() as u64, "no byte is left out");
}

/// A dump in text form.
#[cfg(feature = "capture")]
pub fn dump(data: &[u8]) {
    use crate::capture::{Dump, read_dump};
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read_dump(text) {
        Ok(Dump::Bytes(bytes)) => assert!(bytes.len() <= data.len(), "a byte takes a character at least"),
        Ok(Dump::Segments(segments)) => check_segments(&segments, data.len()),
        Err(error) => assert!((1..=text.lines().count().max(1)).contains(&error.line), "{error}"),
        #[allow(unreachable_patterns, reason = "there may be more forms")]
        _ => {}
    }
}

/// A capture file. The first byte is how many are read at once, which must not change the result.
#[cfg(feature = "capture")]
pub fn capture(data: &[u8]) {
    use crate::capture::SegmentReader;
    let Some((&step, file)) = data.split_first() else { return };
    let read = |step: usize| {
        let (mut segments, mut error) = (Vec::new(), None);
        for item in SegmentReader::new(Steps { rest: file, step }) {
            assert!(error.is_none(), "an error is the last item");
            match item {
                Ok(segment) => segments.push(segment),
                Err(reason) => error = Some(reason.to_string()),
            }
        }
        (segments, error)
    };
    let whole = read(usize::MAX);
    assert_eq!(whole, read(usize::from(step) + 1), "how a file is read changes nothing");
    check_segments(&whole.0, file.len());
}

/// A reader of a few bytes at once.
#[cfg(feature = "capture")]
struct Steps<'a> {
    rest: &'a [u8],
    step: usize,
}

#[cfg(feature = "capture")]
impl std::io::Read for Steps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.step);
        self.rest.read(&mut buffer[..count])
    }
}

/// Connections open once, in the order of their numbers, and hold no more than there is; their frames are the same however
/// their bytes are split, and leave none out.
#[cfg(feature = "capture")]
fn check_segments(segments: &[crate::capture::Segment], bytes_max: usize) {
    use crate::capture::{Direction, FramePieceKind, FrameReader, SegmentEvent};
    let (mut opened, mut given) = (0, 0);
    let mut readers: BTreeMap<(u64, bool), [FrameReader; 2]> = BTreeMap::new();
    let drain = |reader: &mut FrameReader| -> Vec<_> { std::iter::from_fn(|| reader.next_piece()).collect() };
    for segment in segments {
        match &segment.event {
            SegmentEvent::Opened { is_partial, .. } => {
                opened += 1;
                assert_eq!(segment.connection, opened);
                for side in [false, true] {
                    let pair = [FrameReader::new(*is_partial), FrameReader::new(*is_partial)];
                    readers.insert((segment.connection, side), pair);
                }
            }
            SegmentEvent::Bytes { direction, bytes } => {
                assert!(!bytes.is_empty());
                given += bytes.len();
                let key = (segment.connection, *direction == Direction::ToBroker);
                let [whole, split] = readers.get_mut(&key).expect("it was opened");
                whole.push(bytes);
                let mut pieces = Vec::new();
                for byte in bytes.chunks(1) {
                    split.push(byte);
                    pieces.extend(drain(split));
                }
                let same: Vec<_> = drain(whole);
                let size = |piece: &FramePieceKind| matches!(piece, FramePieceKind::Other(_));
                let is_other = same.iter().chain(&pieces).any(|piece| size(&piece.kind));
                assert!(is_other || same == pieces, "{same:?} {pieces:?}");
            }
            SegmentEvent::Missing { direction, count } => {
                assert!(*count > 0);
                let key = (segment.connection, *direction == Direction::ToBroker);
                let [whole, split] = readers.get_mut(&key).expect("it was opened");
                assert_eq!(whole.missing(*count), split.missing(*count));
            }
            SegmentEvent::Closed { .. } => {}
        }
    }
    assert!(given <= bytes_max, "nothing is made up");
}

/// A key as PEM, and an encrypted entry: two bytes for the size of its metadata, metadata, payload.
#[cfg(feature = "encryption")]
pub fn encrypted(data: &[u8]) {
    crate::client::encryption::fuzz::open_any(data);
}

/// A certificate, of which the subject's common name is read.
pub fn certificate(data: &[u8]) {
    if let Some(name) = crate::common_name::common_name(data) {
        let is_part = data.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(is_part && !name.is_empty(), "a part of the certificate");
    }
}

/// Chunks of several messages in any order, each record of six bytes one chunk. What is assembled is made of the chunks that
/// were taken, in their order, and nothing beyond the limits waits.
pub fn assembly(data: &[u8]) {
    const LIMITS: ChunkLimits = ChunkLimits {
        message_bytes_max: 64,
        pending_max: 3,
        pending_bytes_max: 100,
        expire_after: Duration::from_secs(10),
    };
    let (mut assembly, mut now) = (Assembly::new(LIMITS), Instant::now());
    // The payload of each entry that was taken.
    let mut taken: BTreeMap<MessagePosition, Vec<u8>> = BTreeMap::new();
    for record in data.chunks_exact(6) {
        let &[message, chunk_id, num_chunks, total_bytes, entry, len] = record else { continue };
        let payload = vec![entry; usize::from(len % 32)];
        let position = MessagePosition::new(1, entry.into());
        let chunk = Chunk {
            uuid: ["a", "b", "c", "d"][usize::from(message % 4)],
            publish_time_ms: u64::from(message >> 2 & 1),
            chunk_id: (chunk_id as i8).into(),
            num_chunks: (num_chunks as i8).into(),
            total_bytes: (total_bytes as i8).into(),
            position,
            redelivery_count: (message >> 4).into(),
            payload: &payload,
        };
        now += Duration::from_millis(u64::from(message >> 3 & 1) * 1500);
        assembly.expire(now);
        let step = assembly.add(&chunk, now);
        if matches!(step, Step::Stored | Step::Copies(_) | Step::Complete(_)) {
            taken.insert(position, payload.clone());
        }
        match step {
            Step::Complete(assembled) => {
                let entries = assembled.inner.iter().chain([&position]);
                let joined: Vec<u8> = entries.flat_map(|entry| taken[entry].iter().copied()).collect();
                assert_eq!(assembled.payload, joined, "the chunks that were taken, in order");
                assert_eq!(usize::try_from(chunk.total_bytes), Ok(joined.len()));
                assert_eq!(i32::try_from(assembled.inner.len()), Ok(chunk.num_chunks - 1));
                assert!(assembled.payload.capacity() <= LIMITS.message_bytes_max);
            }
            Step::Copies(copies) => assert!(copies.iter().all(|copy| taken.contains_key(copy))),
            Step::TooLarge => assert!(usize::try_from(chunk.total_bytes).is_ok_and(|bytes| bytes > 64)),
            Step::Stored | Step::Known | Step::Stray | Step::Invalid => {}
        }
        for dropped in assembly.take_dropped() {
            assert!(!dropped.positions.is_empty() && dropped.positions.iter().all(|entry| taken.contains_key(entry)));
        }
        assert!(assembly.len() <= LIMITS.pending_max);
        assert!(assembly.expires_at().is_none_or(|at| at > now));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{fs, io};

    use super::*;

    /// Runs a target over its stored corpus; a published package has none.
    fn replay(target: &str, body: fn(&[u8])) -> io::Result<()> {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        if !fuzz.is_dir() {
            return Ok(());
        }
        let mut count = 0;
        for file in fs::read_dir(fuzz.join("corpus").join(target))? {
            let path = file?.path();
            let data = fs::read(&path)?;
            // Shown by the test harness only if the body panics.
            println!("{}", path.display());
            body(&data);
            count += 1;
        }
        assert!(count > 0, "the corpus of {target} is empty");
        Ok(())
    }

    #[test]
    fn frame_corpus() -> io::Result<()> {
        replay("frame", frame)
    }

    #[test]
    fn command_corpus() -> io::Result<()> {
        replay("command", command)
    }

    #[test]
    fn entry_corpus() -> io::Result<()> {
        replay("entry", entry)
    }

    #[test]
    fn message_id_corpus() -> io::Result<()> {
        replay("message_id", message_id)
    }

    #[cfg(feature = "referee")]
    #[test]
    fn referee_line_corpus() -> io::Result<()> {
        replay("referee_line", referee_line)
    }

    #[test]
    fn checkpoint_corpus() -> io::Result<()> {
        replay("checkpoint", checkpoint)
    }

    #[test]
    fn batch_corpus() -> io::Result<()> {
        replay("batch", batch)
    }

    #[test]
    fn assembly_corpus() -> io::Result<()> {
        replay("assembly", assembly)
    }

    #[test]
    fn decompress_corpus() -> io::Result<()> {
        replay("decompress", decompress)
    }

    #[test]
    fn certificate_corpus() -> io::Result<()> {
        replay("certificate", certificate)
    }

    #[cfg(feature = "http")]
    #[test]
    fn http_answer_corpus() -> io::Result<()> {
        replay("http_answer", http_answer)
    }

    #[cfg(feature = "broker")]
    #[test]
    fn avro_corpus() -> io::Result<()> {
        replay("avro", avro)
    }

    #[cfg(feature = "http")]
    #[test]
    fn cluster_answer_corpus() -> io::Result<()> {
        replay("cluster_answer", cluster_answer)
    }

    #[cfg(feature = "encryption")]
    #[test]
    fn encrypted_corpus() -> io::Result<()> {
        replay("encrypted", encrypted)
    }

    #[test]
    fn explain_corpus() -> io::Result<()> {
        replay("explain", explain)
    }

    #[cfg(feature = "capture")]
    #[test]
    fn dump_corpus() -> io::Result<()> {
        replay("dump", dump)
    }

    #[cfg(feature = "capture")]
    #[test]
    fn capture_corpus() -> io::Result<()> {
        replay("capture", capture)
    }

    #[cfg(feature = "oauth2")]
    #[test]
    fn oauth2_corpus() -> io::Result<()> {
        replay("oauth2", oauth2)
    }
}
