//! What follows a command: entries, batches, compressed payloads.

use bytes::Bytes;
use prost::Message as _;

use super::frames::check_text;
use crate::pb;
use crate::wire::compress::{self, CompressError, Compression};
use crate::wire::encryption::{encryption_algo, encryption_keys, encryption_param};
use crate::wire::entry::{BrokerEntryMetadata, EntryError, EntryParts};
use crate::wire::metadata::{bytes, message_properties, publish_time_ms, replicate_to, single_properties, text};
use crate::wire::{BatchCursor, Metadata, SingleMetadata};

/// The most a compressed payload may become, bytes.
pub(super) const UNCOMPRESSED_BYTES_MAX: usize = 64 * 1024;

/// An entry: its parts lie in it in order, its metadata is what prost reads, its records are in bounds.
pub fn entry(data: &[u8]) {
    let entry = Bytes::copy_from_slice(data);
    let parts = match EntryParts::split(&entry) {
        Ok(parts) => parts,
        Err(error) => return check_error(&error),
    };
    assert!(parts.checksummed_from <= parts.metadata.start && parts.metadata.end == parts.payload.start);
    assert_eq!(parts.payload.end, entry.len());
    // A fuzzer does not find valid checksums, so a wrong one is ignored here.
    if let Err(error) = parts.verify(&entry) {
        check_error(&error);
    }
    if let Some(range) = parts.broker_metadata.clone() {
        if let Ok(ours) = BrokerEntryMetadata::decode(&entry[range.clone()]) {
            let theirs = pb::BrokerEntryMetadata::decode(&entry[range]).expect("prost reads it");
            assert_eq!((ours.broker_timestamp, ours.index), (theirs.broker_timestamp, theirs.index));
        }
    }
    let serialized = &entry[parts.metadata.clone()];
    let metadata = match Metadata::decode(serialized) {
        Ok(metadata) => metadata,
        Err(error) => return check_error(&EntryError::Metadata(error)),
    };
    compare_metadata(serialized, &metadata);
    let payload = entry.slice(parts.payload);
    let limit = UNCOMPRESSED_BYTES_MAX;
    let payload = match compress::decompress(metadata.compression, &payload, metadata.uncompressed_size, limit) {
        Ok(payload) => payload,
        Err(error) => return check_error(&error.into()),
    };
    assert!(payload.len() <= limit.max(entry.len()));
    if let Some(count) = metadata.num_messages_in_batch {
        records(count, &payload);
    }
}

/// A line for a log, and a reason that an acknowledgement can give.
fn check_error(error: &EntryError) {
    use std::error::Error as _;
    check_text(error);
    let is_about_parts = matches!(error, EntryError::TooShort { .. } | EntryError::ChecksumMismatch { .. });
    assert_eq!(error.source().is_none(), is_about_parts, "{error:?}");
    let is_of_batch = error.validation_error() == pb::command_ack::ValidationError::BatchDeSerializeError;
    assert_eq!(is_of_batch, matches!(error, EntryError::Batch(_)));
}

pub(super) fn compare_metadata(serialized: &[u8], ours: &Metadata) {
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
    assert!(publish_time_ms(serialized).is_some(), "it has to be there, perhaps more than once");
    assert_eq!(encryption_algo(serialized), theirs.encryption_algo.as_deref());
    assert_eq!(encryption_param(serialized), theirs.encryption_param.as_deref());
    let keys = encryption_keys(serialized).zip(&theirs.encryption_keys);
    assert_eq!(encryption_keys(serialized).count(), theirs.encryption_keys.len());
    for (ours, theirs) in keys {
        assert_eq!((ours.name(), ours.value()), (&*theirs.key, &theirs.value[..]));
        assert!(ours.metadata().eq(theirs.metadata.iter().map(|pair| (&*pair.key, &*pair.value))));
    }
}

/// A payload that was compressed: the first byte says by which codec, the rest is as for [`decompress_lz4`].
pub fn decompress(data: &[u8]) {
    let Some((&codec, rest)) = data.split_first() else { return };
    decompress_by(Compression::ALL[1 + usize::from(codec % 4)], rest);
}

/// A payload: three bytes for the size that is declared, and what is taken for data and for a compressed payload.
pub fn decompress_lz4(data: &[u8]) {
    decompress_by(Compression::Lz4, data);
}

/// As [`decompress_lz4`].
pub fn decompress_zlib(data: &[u8]) {
    decompress_by(Compression::Zlib, data);
}

/// As [`decompress_lz4`].
pub fn decompress_zstd(data: &[u8]) {
    decompress_by(Compression::Zstd, data);
}

/// As [`decompress_lz4`].
pub fn decompress_snappy(data: &[u8]) {
    decompress_by(Compression::Snappy, data);
}

fn decompress_by(codec: Compression, data: &[u8]) {
    let [high, middle, low, payload @ ..] = data else { return };
    let declared = u32::from_be_bytes([0, *high, *middle, *low]);
    let input = Bytes::copy_from_slice(payload);
    match compress::decompress(codec.to_pb(), &input, declared, UNCOMPRESSED_BYTES_MAX) {
        Ok(output) => {
            assert!(output.len() == declared as usize && output.len() <= UNCOMPRESSED_BYTES_MAX);
        }
        Err(CompressError::NotBuilt { .. }) => return assert!(!codec.is_built_in()),
        Err(CompressError::UnknownCodec(_)) => panic!("{codec:?} is known"),
        Err(CompressError::TooLarge { .. }) => assert!(declared as usize > UNCOMPRESSED_BYTES_MAX),
        Err(error) => check_text(&error),
    }
    if !codec.is_built_in() {
        // What was declared is refused before the codec is looked for.
        return;
    }
    let packed = compress::compress(codec, None, payload).expect("data of any kind");
    let size = payload.len() as u32;
    assert_eq!(compress::decompress(codec.to_pb(), &packed, size, payload.len()), Ok(input.clone()));
    // At each level the same comes out; the highest one of zstd takes memory for a window.
    let some_levels = codec.levels().into_iter().flat_map(|levels| [*levels.start(), 1, 9.min(*levels.end())]);
    for level in some_levels.filter(|_| payload.len() <= 200) {
        let packed = compress::compress(codec, Some(level), payload).expect("data of any kind");
        assert_eq!(compress::decompress(codec.to_pb(), &packed, size, payload.len()), Ok(input.clone()), "{level}");
    }
    // Data has one size: a larger one is refused, and a limit below it holds.
    let more = compress::decompress(codec.to_pb(), &packed, size + 1, UNCOMPRESSED_BYTES_MAX);
    assert!(more.is_err(), "{codec:?}: {size} bytes are not one more");
    if let Some(less) = size.checked_sub(1) {
        let too_large = Err(CompressError::TooLarge { size, max: less as usize });
        assert_eq!(compress::decompress(codec.to_pb(), &packed, size, less as usize), too_large);
        let cut = compress::decompress(codec.to_pb(), &packed, less, payload.len());
        assert!(cut.is_err() || codec == Compression::Zlib && cut == Ok(input.slice(..less as usize)));
    }
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
    let mut cursor = match BatchCursor::new(count, payload.len()) {
        Ok(cursor) => cursor,
        Err(error) => return check_error(&EntryError::Batch(error)),
    };
    let (mut end, mut given) = (0, 0);
    while let Some(record) = cursor.next(payload) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                check_error(&EntryError::Batch(error));
                return assert!(cursor.next(payload).is_none(), "nothing comes after an error");
            }
        };
        assert!(end <= record.metadata_range.start && record.metadata_range.end == record.payload.start);
        end = record.payload.end;
        given += 1;
        compare_single(&payload[record.metadata_range], &record.metadata);
        assert!(payload.get(record.payload).is_some());
    }
    assert_eq!(given, count);
}

pub(super) fn compare_single(serialized: &[u8], ours: &SingleMetadata) {
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
