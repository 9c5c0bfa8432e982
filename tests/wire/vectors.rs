//! Golden vectors: frames computed by hand, captured from an official client, and sent by a broker
//! 4.0.8; damaged ones with the reaction they call for; hashes and ids.
//!
//! A frame is decoded by this crate, encoded again, and then read through the descriptors of the
//! schema, field by field, against what the vector says is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value as Field};
use pulsar_native::hash::{java_string_hash, murmur3_32, topics_hash};
use pulsar_native::id::MessageId;
use pulsar_native::pb::command_ack::ValidationError;
use pulsar_native::wire::entry::{BrokerEntryMetadata, EntryError, EntryParts};
use pulsar_native::wire::metadata::{message_properties, single_properties, text};
use pulsar_native::wire::{
    BatchCursor, Command, DecodeError, DecodeErrorKind, Frame, Limits, Metadata, cut, decompress, frames,
};
use serde_json::{Map, Value, json};

const VECTORS: &str = include_str!("vectors.json");
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pulsar.fds"));

/// The hot SEND head keeps no presence of `num_messages`; this one says 1, its default, aloud.
const DEFAULTS_SPELLED_OUT: [&str; 1] = ["captured_send_04"];

pub(crate) fn vectors() -> &'static Value {
    static PARSED: OnceLock<Value> = OnceLock::new();
    PARSED.get_or_init(|| serde_json::from_str(VECTORS).expect("vectors.json is JSON"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string")
}

pub(crate) fn hex(text: &Value) -> Vec<u8> {
    let digits = string(text).as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// All good frames, with their names.
fn good() -> impl Iterator<Item = (&'static str, &'static Value)> {
    let both = [&vectors()["frames"], &vectors()["captured"]];
    both.into_iter().flat_map(list).map(|vector| (string(&vector["name"]), vector))
}

fn damaged(name: &str) -> Vec<u8> {
    let all = list(&vectors()["negative"]);
    hex(&all.iter().find(|vector| vector["name"] == name).expect("a vector of that name")["hex"])
}

/// The frames of `bytes`, through the same steps as from a socket.
fn read(bytes: &[u8]) -> Result<Vec<Frame>, DecodeError> {
    let mut rx = BytesMut::from(bytes);
    let mut all = Vec::new();
    while let Some(run) = cut(&mut rx, &Limits::default())? {
        all.extend(frames(run).collect::<Result<Vec<_>, _>>()?);
    }
    assert!(rx.is_empty(), "a vector is whole");
    Ok(all)
}

fn read_one(bytes: &[u8]) -> Frame {
    let mut all = read(bytes).expect("a good frame");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The command of a frame and what lies behind it.
fn parts(frame: &[u8]) -> (&[u8], &[u8]) {
    let command_size = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
    frame[8..].split_at(command_size)
}

/// A serialized message as the vectors write it: 64-bit integers in quotes, bytes in hexadecimal.
fn described(message: &str, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(message_type(message), bytes).expect("protobuf");
    describe_message(&message)
}

/// A message of the schema.
pub(crate) fn message_type(message: &str) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).expect("the build's descriptors"));
    pool.get_message_by_name(&format!("pulsar.proto.{message}")).expect("a message of the schema")
}

fn describe_message(message: &DynamicMessage) -> Value {
    assert_eq!(message.unknown_fields().count(), 0, "{}", message.descriptor().full_name());
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), describe(&field.kind(), value)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn describe(kind: &Kind, value: &Field) -> Value {
    match value {
        Field::Bool(value) => json!(value),
        Field::I32(value) => json!(value),
        Field::U32(value) => json!(value),
        Field::I64(value) => json!(value.to_string()),
        Field::U64(value) => json!(value.to_string()),
        Field::F64(value) => json!(value),
        Field::String(value) => json!(value),
        Field::Bytes(value) => json!({ "hex": value.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        Field::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(value) => json!(value.name()),
            None => json!(number),
        },
        Field::Message(message) => describe_message(message),
        Field::List(values) => values.iter().map(|value| describe(kind, value)).collect(),
        other => panic!("no field of the schema holds {other:?}"),
    }
}

#[test]
fn every_command_decodes_to_its_fields_and_encodes_to_its_bytes() {
    let mut count = 0;
    for (name, vector) in good() {
        let bytes = hex(&vector["hex"]);
        let (command, entry) = parts(&bytes);
        let decoded = Command::decode_base(command).expect(name).expect(name);
        assert_eq!(decoded.name(), vector["decoded"]["command"]["type"], "{name}");
        let mut ours = BytesMut::new();
        decoded.encode_frame(&mut ours);
        assert_eq!(ours.len(), decoded.encoded_len(), "{name}");
        assert_eq!(described("BaseCommand", parts(&ours).0), vector["decoded"]["command"], "{name}");
        assert_eq!(parts(&ours).0, command, "{name}");
        if entry.is_empty() {
            assert_eq!(ours, bytes, "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 198);
}

#[test]
fn every_frame_goes_through_frame_and_back() {
    let mut hot = 0;
    for (name, vector) in good() {
        let bytes = hex(&vector["hex"]);
        let frame = read_one(&bytes);
        let mut ours = BytesMut::new();
        frame.encode(&mut ours);
        assert_eq!(read_one(&ours), frame, "{name}");
        assert_eq!(frame.name(), vector["decoded"]["command"]["type"], "{name}");
        hot += u32::from(!matches!(frame, Frame::Other(_)));
        if vector["source"] == "captured" && !DEFAULTS_SPELLED_OUT.contains(&name) {
            assert_eq!(ours, bytes, "{name}");
        }
    }
    assert_eq!(hot, 45);
}

#[test]
fn hot_heads_hold_what_the_vectors_say() {
    let number = |value: &Value, default: u64| value.as_str().map_or(default, |text| text.parse().unwrap());
    for (name, vector) in good() {
        let command = &vector["decoded"]["command"];
        match read_one(&hex(&vector["hex"])) {
            Frame::Receipt(receipt) => {
                let body = &command["send_receipt"];
                assert_eq!(receipt.producer_id, number(&body["producer_id"], 0), "{name}");
                assert_eq!(receipt.sequence_id, number(&body["sequence_id"], 0), "{name}");
                assert_eq!(receipt.highest_sequence_id, number(&body["highest_sequence_id"], 0), "{name}");
                assert_eq!(receipt.ledger_id, number(&body["message_id"]["ledgerId"], u64::MAX), "{name}");
                assert_eq!(receipt.entry_id, number(&body["message_id"]["entryId"], u64::MAX), "{name}");
            }
            Frame::Send { head, .. } => {
                let body = &command["send"];
                assert_eq!(head.producer_id, number(&body["producer_id"], 0), "{name}");
                assert_eq!(head.sequence_id, number(&body["sequence_id"], 0), "{name}");
                assert_eq!(i64::from(head.num_messages), body["num_messages"].as_i64().unwrap_or(1), "{name}");
                let highest = body["highest_sequence_id"].as_str().map(|text| text.parse().unwrap());
                assert_eq!(head.highest_sequence_id, highest, "{name}");
                assert_eq!(head.is_chunk, body["is_chunk"].as_bool().unwrap_or(false), "{name}");
            }
            Frame::Message { head, .. } => {
                let body = &command["message"];
                let id = &body["message_id"];
                assert_eq!(head.consumer_id, number(&body["consumer_id"], 0), "{name}");
                assert_eq!(head.ledger_id, number(&id["ledgerId"], 0), "{name}");
                assert_eq!(head.entry_id, number(&id["entryId"], 0), "{name}");
                assert_eq!(i64::from(head.partition), id["partition"].as_i64().unwrap_or(-1), "{name}");
                let redelivered = body["redelivery_count"].as_u64().unwrap_or(0);
                assert_eq!(u64::from(head.redelivery_count), redelivered, "{name}");
                let words = body["ack_set"].as_array().map_or(&[][..], Vec::as_slice);
                let words: Vec<i64> = words.iter().map(|word| string(word).parse().unwrap()).collect();
                assert_eq!(head.ack_set[..], words, "{name}");
            }
            _ => {}
        }
    }
}

#[test]
fn every_entry_decodes_to_its_parts() {
    let (mut entries, mut records) = (0, 0);
    for (name, vector) in good() {
        let decoded = &vector["decoded"];
        let entry = match read_one(&hex(&vector["hex"])) {
            Frame::Send { entry, .. } | Frame::Message { entry, .. } => entry,
            _ => continue,
        };
        if decoded.get("metadata").is_none() {
            continue;
        }
        let parts = EntryParts::split(&entry).expect(name);
        entries += 1;
        let checksum = decoded["checksum"].as_str().map(|text| u32::from_str_radix(text, 16).unwrap());
        assert_eq!(parts.checksum, checksum, "{name}");
        assert_eq!(parts.verify(&entry).is_ok(), decoded["checksum_valid"].as_bool().unwrap_or(true), "{name}");
        let metadata = &entry[parts.metadata.clone()];
        assert_eq!(described("MessageMetadata", metadata), decoded["metadata"], "{name}");
        check_metadata(name, metadata, &decoded["metadata"]);
        assert_eq!(entry[parts.payload.clone()], hex(&decoded["payload_hex"]), "{name}");
        check_broker_metadata(name, &entry, &parts, &decoded["broker_entry_metadata"]);
        if let Some(batch) = decoded.get("batch") {
            records += check_batch(name, &entry.slice(parts.payload), metadata, list(batch));
        }
    }
    assert!(entries >= 30 && records >= 20, "{entries} entries, {records} records");
}

fn check_metadata(name: &str, metadata: &[u8], expected: &Value) {
    let parsed = Metadata::decode(metadata).expect(name);
    assert_eq!(text(metadata, &parsed.producer_name), expected["producer_name"], "{name}");
    assert_eq!(parsed.sequence_id.to_string(), expected["sequence_id"], "{name}");
    assert_eq!(parsed.publish_time_ms.to_string(), expected["publish_time"], "{name}");
    let key = parsed.partition_key.as_ref().map(|key| text(metadata, key));
    assert_eq!(key, expected["partition_key"].as_str(), "{name}");
    let count = parsed.num_messages_in_batch.map(i64::from);
    assert_eq!(count, expected["num_messages_in_batch"].as_i64(), "{name}");
    assert_eq!(parsed.uncompressed_size, expected["uncompressed_size"].as_u64().unwrap_or(0) as u32, "{name}");
    assert_eq!(properties(message_properties(metadata)), expected["properties"], "{name}");
}

/// Properties as the vectors write them: absent when there is none.
fn properties<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let all: Vec<Value> = all.map(|(key, value)| json!({ "key": key, "value": value })).collect();
    if all.is_empty() { Value::Null } else { all.into() }
}

fn check_broker_metadata(name: &str, entry: &[u8], parts: &EntryParts, expected: &Value) {
    assert_eq!(parts.broker_metadata.is_some(), expected.is_object(), "{name}");
    let Some(range) = parts.broker_metadata.clone() else { return };
    let decoded = BrokerEntryMetadata::decode(&entry[range]).expect(name);
    assert_eq!(
        decoded.broker_timestamp.map(|value| value.to_string()).as_deref(),
        expected["broker_timestamp"].as_str()
    );
    assert_eq!(decoded.index.map(|value| value.to_string()).as_deref(), expected["index"].as_str());
}

fn check_batch(name: &str, payload: &Bytes, metadata: &[u8], expected: &[Value]) -> usize {
    let metadata = Metadata::decode(metadata).expect(name);
    if metadata.compression > 1 {
        return 0;
    }
    let payload = decompress(metadata.compression, payload, metadata.uncompressed_size, 1 << 20).expect(name);
    let count = metadata.num_messages_in_batch.expect(name);
    let mut cursor = BatchCursor::new(count, payload.len()).expect(name);
    for record in expected {
        let read = cursor.next(&payload).expect(name).expect(name);
        let single = &payload[read.metadata_range];
        assert_eq!(described("SingleMessageMetadata", single), record["metadata"], "{name}");
        assert_eq!(properties(single_properties(single)), record["metadata"]["properties"], "{name}");
        assert_eq!(i64::from(read.metadata.payload_size), record["metadata"]["payload_size"], "{name}");
        assert_eq!(payload[read.payload], hex(&record["payload_hex"]), "{name}");
    }
    assert!(cursor.next(&payload).is_none(), "{name}");
    expected.len()
}

/// The entry of a damaged MESSAGE whose frame is sound.
fn damaged_entry(name: &str) -> Bytes {
    match read_one(&damaged(name)) {
        Frame::Message { entry, .. } => entry,
        other => panic!("{name} is {other:?}"),
    }
}

/// Everything a consumer does to an entry, up to its first error.
fn read_entry(entry: &Bytes) -> Result<(), EntryError> {
    let parts = EntryParts::split(entry)?;
    parts.verify(entry)?;
    let metadata = Metadata::decode(&entry[parts.metadata.clone()]).map_err(EntryError::Metadata)?;
    let payload = entry.slice(parts.payload);
    let payload = decompress(metadata.compression, &payload, metadata.uncompressed_size, 5 << 20);
    let payload = payload.map_err(EntryError::Decompress)?;
    let Some(count) = metadata.num_messages_in_batch else { return Ok(()) };
    let mut cursor = BatchCursor::new(count, payload.len()).map_err(EntryError::Batch)?;
    while let Some(record) = cursor.next(&payload) {
        record.map_err(EntryError::Batch)?;
    }
    Ok(())
}

#[test]
fn damaged_frames_end_the_connection_for_the_right_reason() {
    let error = |name| read(&damaged(name)).expect_err(name);
    let missing = |field, offset| (DecodeErrorKind::Missing, field, offset);
    let cases = [
        ("frame_total_smaller_than_command", (DecodeErrorKind::TooLarge { size: 100, max: 2 }, "command_size", 4)),
        ("frame_zero", (DecodeErrorKind::TooSmall { size: 0, min: 4 }, "total_size", 0)),
        ("frame_oversize_header", (DecodeErrorKind::TooLarge { size: 0x50_2801, max: 5_253_116 }, "total_size", 0)),
        ("command_type_missing_body", missing("BaseCommand.flow", 8)),
        ("command_truncated_varint", (DecodeErrorKind::Truncated, "BaseCommand", 9)),
        ("command_missing_required", missing("CommandFlow.messagePermits", 12)),
    ];
    for (name, (kind, field, offset)) in cases {
        assert_eq!(error(name), DecodeError { kind, field, offset }, "{name}");
    }
}

#[test]
fn damaged_entries_leave_the_connection_and_name_their_validation_error() {
    use ValidationError::{BatchDeSerializeError, ChecksumMismatch, UncompressedSizeCorruption};
    let cases = [
        ("message_bad_crc", ChecksumMismatch),
        ("message_bad_crc_behind_broker_entry_metadata", ChecksumMismatch),
        ("message_batch_payload_size_overrun", BatchDeSerializeError),
        ("message_batch_negative_payload_size", BatchDeSerializeError),
        ("message_metadata_size_overrun", ChecksumMismatch),
        ("message_uncompressed_size_lie", UncompressedSizeCorruption),
    ];
    for (name, expected) in cases {
        let error = read_entry(&damaged_entry(name)).expect_err(name);
        assert_eq!(error.validation_error(), expected, "{name}: {error}");
    }
}

#[test]
fn commands_wrong_only_for_the_state_they_meet_are_good_frames() {
    let one = |name| match read_one(&damaged(name)) {
        Frame::Other(command) => command,
        other => panic!("{name} is {other:?}"),
    };
    assert!(matches!(one("flow_zero_permits"), Command::Flow(flow) if flow.message_permits == 0));
    assert!(matches!(one("second_connect"), Command::Connect(_)));
    assert!(matches!(one("seek_without_target"), Command::Seek(seek) if seek.message_id.is_none()));
    assert_eq!(list(&vectors()["negative"]).len(), 6 + 6 + 3, "every negative vector has a test");
}

#[test]
fn hashes_are_those_of_the_java_client() {
    for vector in list(&vectors()["values"]["hash"]) {
        let key = string(&vector["key"]);
        assert_eq!(u64::from(java_string_hash(key)), vector["java_string_masked"], "{key}");
        assert_eq!(u64::from(murmur3_32(key.as_bytes())), vector["murmur3_32_masked"], "{key}");
    }
    for vector in list(&vectors()["values"]["topics_hash"]) {
        let topics: Vec<&str> = list(&vector["topics"]).iter().map(string).collect();
        assert_eq!(topics_hash(&topics), vector["guava_hex"], "{topics:?}");
    }
    for vector in list(&vectors()["values"]["crc32c"]) {
        let sum = crc32c::crc32c(string(&vector["ascii"]).as_bytes());
        assert_eq!(format!("{sum:08x}"), vector["u32"]);
    }
}

#[test]
fn serialized_message_ids_are_read() {
    for vector in list(&vectors()["values"]["message_id_bytes"]) {
        let form = string(&vector["form"]);
        let fields = &vector["fields"];
        let id = MessageId::from_bytes(&hex(&vector["hex"])).expect(form);
        let int = |field: &str, absent: i64| fields[field].as_i64().unwrap_or(absent);
        let at = id.position();
        assert_eq!(at.ledger_id as i64, int("ledger", 0), "{form}");
        assert_eq!(at.entry_id as i64, int("entry", 0), "{form}");
        assert_eq!(i64::from(at.partition), int("partition", -1), "{form}");
        assert_eq!(i64::from(at.batch_index), int("batch_index", -1), "{form}");
        assert_eq!(i64::from(at.batch_size), int("batch_size", 0), "{form}");
        let first = |id: &MessageId| id.first_chunk().map(|first| (first.ledger_id(), first.entry_id()));
        let chunk = &fields["first_chunk"];
        let wanted = chunk.is_object().then(|| (chunk["ledger"].as_u64(), chunk["entry"].as_u64()));
        assert_eq!(first(&id), wanted, "{form}");
        let again = MessageId::from_bytes(&id.to_bytes()).expect(form);
        assert_eq!((&again, again.batch_size(), first(&again)), (&id, id.batch_size(), wanted), "{form}");
    }
}

/// The seeds of the fuzz corpora by `target/name`: one frame of each command, all damaged frames, all entries and batches.
fn fuzz_seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut seed = |target: &str, name: &str, bytes: &[u8]| {
        let known = seeds.insert(format!("{target}/{name}"), bytes.to_vec());
        assert_eq!(known, None, "{target}/{name} is the name of two seeds");
    };
    // The first byte of a stream says where it breaks in two.
    let broken = |frame: &[u8]| [&[128], frame].concat();
    let mut seen = BTreeSet::new();
    for (name, vector) in good() {
        let bytes = hex(&vector["hex"]);
        if seen.insert(string(&vector["decoded"]["command"]["type"])) {
            seed("frame", name, &broken(&bytes));
            seed("command", name, parts(&bytes).0);
        }
        let (Frame::Send { entry, .. } | Frame::Message { entry, .. }) = read_one(&bytes) else { continue };
        seed("entry", name, &entry);
        let Some(records) = vector["decoded"]["batch"].as_array() else { continue };
        let payload = hex(&vector["decoded"]["payload_hex"]);
        seed("batch", name, &[&[records.len() as u8], &payload[..]].concat());
    }
    for (number, vector) in list(&vectors()["values"]["message_id_bytes"]).iter().enumerate() {
        seed("message_id", &format!("vector_{number}"), &hex(&vector["hex"]));
    }
    for vector in list(&vectors()["negative"]) {
        let (name, bytes) = (string(&vector["name"]), hex(&vector["hex"]));
        seed("frame", name, &broken(&bytes));
        if name.starts_with("command_") {
            seed("command", name, parts(&bytes).0);
        }
        if name.starts_with("message_") {
            seed("entry", name, parts(&bytes).1);
        }
    }
    seeds
}

/// A published package has no corpora. What fuzzing has added to them stands beside the seeds.
#[test]
fn the_fuzz_corpora_hold_the_seeds_of_these_vectors() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.is_dir() {
        return;
    }
    let corpora = fuzz.join("corpus");
    let is_stale = |(name, bytes): &(String, Vec<u8>)| fs::read(corpora.join(name)).ok().as_ref() != Some(bytes);
    let stale: Vec<_> = fuzz_seeds().into_iter().filter(is_stale).collect();
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz_seeds");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).expect("the directory of an earlier run can go");
    }
    for (name, bytes) in &stale {
        let path = fresh.join(name);
        fs::create_dir_all(path.parent().expect("below a target's directory")).expect("a directory for fresh seeds");
        fs::write(path, bytes).expect("a fresh seed");
    }
    let names: Vec<_> = stale.iter().map(|(name, _)| name).collect();
    assert!(names.is_empty(), "to bring {names:?} up to date: cp -r {}/. {}", fresh.display(), corpora.display());
}
