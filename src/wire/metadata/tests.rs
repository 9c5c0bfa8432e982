//! Reading and writing by hand, held against prost over random messages.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::*;
use crate::pb;
use crate::splitmix::SplitMix64;

/// Seeded choices, the same everywhere.
pub(in crate::wire) struct Random(SplitMix64);

/// How many of `rounds` are run: a five-hundredth under Miri, which takes a thousand times as long for each.
pub(in crate::wire) fn rounds(rounds: usize) -> std::ops::Range<usize> {
    0..if cfg!(miri) { rounds / 500 + 1 } else { rounds }
}

impl Random {
    pub(in crate::wire) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(in crate::wire) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(in crate::wire) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Numbers of every length, so that varints are.
    fn number(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn some<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| value(self))
    }

    fn text(&mut self) -> String {
        let length = [0, 1, 5, 200][self.below(4)];
        (0..length).map(|_| ['a', 'z', '-', 'é', 'キ', '\u{1f600}'][self.below(6)]).collect()
    }

    pub(in crate::wire) fn bytes(&mut self, max: usize) -> Bytes {
        let length = self.below(max + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn key_values(&mut self) -> Vec<pb::KeyValue> {
        (0..self.below(4)).map(|_| pb::KeyValue { key: self.text(), value: self.text() }).collect()
    }
}

/// What [`MetadataFields`] can write, and as it writes it: defaults of its plain fields are absent.
fn writable(random: &mut Random) -> pb::MessageMetadata {
    let txn = random.some(Random::number);
    let chunk = random.some(Random::number);
    let encryption_param = random.some(|random| random.bytes(12));
    let keys = if encryption_param.is_some() { random.below(3) } else { 0 };
    pb::MessageMetadata {
        producer_name: random.text(),
        sequence_id: random.number(),
        publish_time: random.number(),
        properties: random.key_values(),
        replicated_from: random.some(Random::text),
        partition_key: random.some(Random::text),
        replicate_to: (0..random.below(3)).map(|_| random.text()).collect(),
        compression: random.some(|random| 1 + random.below(4) as i32),
        uncompressed_size: random.some(|random| random.number() as u32 | 1),
        num_messages_in_batch: random.some(|random| random.number() as i32),
        event_time: random.some(|random| random.number() | 1),
        encryption_keys: (0..keys).map(|_| encryption_key(random)).collect(),
        encryption_param,
        schema_version: random.some(|random| random.bytes(9)),
        partition_key_b64_encoded: random.some(|_| true),
        ordering_key: random.some(|random| random.bytes(9)),
        deliver_at_time: random.some(|random| random.number() as i64),
        marker_type: random.some(|random| random.number() as i32),
        txnid_least_bits: txn,
        txnid_most_bits: txn.map(|least| least ^ 1),
        highest_sequence_id: random.some(Random::number),
        null_value: random.some(|_| true),
        uuid: chunk.map(|_| random.text()),
        num_chunks_from_msg: chunk.map(|value| value as i32),
        total_chunk_msg_size: chunk.map(|value| value as i32 ^ 1),
        chunk_id: chunk.map(|value| value as i32 ^ 2),
        null_partition_key: random.some(|_| true),
        schema_id: random.some(|random| random.bytes(8)),
        ..Default::default()
    }
}

fn encryption_key(random: &mut Random) -> pb::EncryptionKeys {
    pb::EncryptionKeys { key: random.text(), value: random.bytes(20), metadata: random.key_values() }
}

/// [`writable`], and fields that are read only, and any number of fields given as their default.
fn readable(random: &mut Random) -> pb::MessageMetadata {
    pb::MessageMetadata {
        encryption_keys: (0..random.below(3)).map(|_| encryption_key(random)).collect(),
        encryption_algo: random.some(Random::text),
        encryption_param: random.some(|random| random.bytes(12)),
        compacted_batch_indexes: (0..random.below(3)).map(|_| random.number() as i32).collect(),
        compression: random.some(|random| random.number() as i32),
        uncompressed_size: Some(0),
        event_time: Some(0),
        partition_key_b64_encoded: random.some(Random::flag),
        null_value: random.some(Random::flag),
        null_partition_key: random.some(Random::flag),
        txnid_least_bits: random.some(Random::number),
        num_chunks_from_msg: random.some(|random| random.number() as i32),
        ..writable(random)
    }
}

fn owned(pairs: &[pb::KeyValue]) -> Vec<(String, String)> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// The `encryption_keys`, serialized.
fn keys(from: &pb::MessageMetadata) -> BytesMut {
    let mut keys = BytesMut::new();
    for key in &from.encryption_keys {
        put_encryption_key(&mut keys, &key.key, &key.value, &owned(&key.metadata));
    }
    keys
}

fn metadata_fields<'a>(
    from: &'a pb::MessageMetadata,
    properties: &'a [(String, String)],
    keys: &'a [u8],
) -> MetadataFields<'a> {
    let pair = from.txnid_least_bits.zip(from.txnid_most_bits);
    MetadataFields {
        producer_name: &from.producer_name,
        sequence_id: from.sequence_id,
        publish_time_ms: from.publish_time,
        properties,
        replicated_from: from.replicated_from.as_deref(),
        partition_key: from.partition_key.as_deref(),
        replicate_to: &from.replicate_to,
        compression: from.compression.unwrap_or(0),
        uncompressed_size: from.uncompressed_size.unwrap_or(0),
        is_empty: from.uncompressed_size == Some(0),
        num_messages_in_batch: from.num_messages_in_batch,
        event_time_ms: from.event_time.unwrap_or(0),
        encryption: from.encryption_param.as_deref().map(|param| EncryptionFields { keys, param }),
        schema_version: from.schema_version.as_deref(),
        partition_key_b64: from.partition_key_b64_encoded.is_some(),
        ordering_key: from.ordering_key.as_deref(),
        deliver_at_time_ms: from.deliver_at_time,
        marker_type: from.marker_type,
        txn: pair.map(|(least, most)| TxnBits { least, most }),
        highest_sequence_id: from.highest_sequence_id,
        null_value: from.null_value.is_some(),
        chunk: from.num_chunks_from_msg.map(|num_chunks| ChunkFields {
            uuid: from.uuid.as_deref().unwrap(),
            num_chunks,
            total_bytes: from.total_chunk_msg_size.unwrap(),
            chunk_id: from.chunk_id.unwrap(),
        }),
        null_partition_key: from.null_partition_key.is_some(),
        schema_id: from.schema_id.as_deref(),
    }
}

fn assert_equal(raw: &[u8], ours: &Metadata, theirs: &pb::MessageMetadata) {
    let own_text = |range: &Option<Range<u32>>| range.as_ref().map(|range| text(raw, range).to_owned());
    let own_bytes = |range: &Option<Range<u32>>| range.as_ref().map(|range| bytes(raw, range).to_vec());
    let vec = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());

    assert_eq!(text(raw, &ours.producer_name), theirs.producer_name);
    assert_eq!(ours.sequence_id, theirs.sequence_id);
    assert_eq!(ours.publish_time_ms, theirs.publish_time);
    assert_eq!(ours.has_properties, !theirs.properties.is_empty());
    let pairs: Vec<_> = message_properties(raw).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    assert_eq!(pairs, owned(&theirs.properties));
    assert_eq!(own_text(&ours.replicated_from), theirs.replicated_from);
    assert_eq!(own_text(&ours.partition_key), theirs.partition_key);
    assert_eq!(replicate_to(raw).collect::<Vec<_>>(), theirs.replicate_to);
    assert_eq!(own_bytes(&ours.schema_id), vec(&theirs.schema_id));
    assert_eq!(ours.compression, theirs.compression.unwrap_or(0));
    assert_eq!(ours.uncompressed_size, theirs.uncompressed_size());
    assert_eq!(ours.num_messages_in_batch, theirs.num_messages_in_batch);
    assert_eq!(ours.event_time_ms, theirs.event_time());
    assert_eq!(ours.encrypted, !theirs.encryption_keys.is_empty());
    let key = |key: EncryptionKey<'_>| pb::EncryptionKeys {
        key: key.name().to_owned(),
        value: Bytes::copy_from_slice(key.value()),
        metadata: key.metadata().map(|(key, value)| pb::KeyValue { key: key.into(), value: value.into() }).collect(),
    };
    assert_eq!(encryption_keys(raw).map(key).collect::<Vec<_>>(), theirs.encryption_keys);
    assert_eq!(encryption_param(raw), theirs.encryption_param.as_deref());
    assert_eq!(encryption_algo(raw), theirs.encryption_algo.as_deref());
    assert_eq!(own_bytes(&ours.schema_version), vec(&theirs.schema_version));
    assert_eq!(ours.partition_key_b64, theirs.partition_key_b64_encoded());
    assert_eq!(own_bytes(&ours.ordering_key), vec(&theirs.ordering_key));
    assert_eq!(ours.deliver_at_time_ms, theirs.deliver_at_time);
    assert_eq!(ours.marker_type, theirs.marker_type);
    let txn = theirs.txnid_least_bits.zip(theirs.txnid_most_bits);
    assert_eq!(ours.txn, txn.map(|(least, most)| TxnBits { least, most }));
    assert_eq!(ours.highest_sequence_id, theirs.highest_sequence_id());
    assert_eq!(ours.null_value, theirs.null_value());
    assert_eq!(ours.null_partition_key, theirs.null_partition_key());
    assert_eq!(ours.chunk.is_some(), theirs.num_chunks_from_msg.is_some());
    if let Some(chunk) = &ours.chunk {
        assert_eq!(text(raw, &chunk.uuid), theirs.uuid());
        assert_eq!(Some(chunk.num_chunks), theirs.num_chunks_from_msg);
        assert_eq!((chunk.total_bytes, chunk.chunk_id), (theirs.total_chunk_msg_size(), theirs.chunk_id()));
    }
}

#[test]
fn metadata_is_written_as_by_prost() {
    let mut random = Random::new(1);
    for _ in rounds(2000) {
        let theirs = writable(&mut random);
        let properties = owned(&theirs.properties);
        let keys = keys(&theirs);
        let ours = metadata_fields(&theirs, &properties, &keys);
        let mut out = BytesMut::new();
        ours.encode(&mut out);
        assert_eq!(out, theirs.encode_to_vec());
        assert_eq!(ours.encoded_len(), out.len());
    }
}

/// Both ways of reading have to agree.
fn parse(raw: &[u8]) -> Result<Metadata, DecodeError> {
    let whole = Metadata::decode(raw);
    assert_eq!(
        EntrySummary::decode(raw),
        whole.as_ref().map(EntrySummary::from_metadata).map_err(Clone::clone),
        "{raw:02x?}"
    );
    whole
}

#[test]
fn the_fast_and_the_slow_path_read_the_same_fields() {
    let mut random = Random::new(6);
    for _ in rounds(200) {
        let any = readable(&mut random);
        let usual = pb::MessageMetadata {
            producer_name: any.producer_name,
            sequence_id: any.sequence_id,
            publish_time: any.publish_time,
            properties: any.properties,
            partition_key: any.partition_key,
            compression: any.compression,
            uncompressed_size: any.uncompressed_size,
            num_messages_in_batch: any.num_messages_in_batch,
            event_time: any.event_time,
            highest_sequence_id: any.highest_sequence_id,
            ..Default::default()
        };
        let raw = usual.encode_to_vec();
        assert!(EntrySummary::decode_fast(&raw).is_some());
        for end in 0..=raw.len() {
            let _ = parse(&raw[..end]);
        }
        for _ in 0..50 {
            let mut raw = raw.clone();
            let at = random.below(raw.len());
            raw[at] = random.next() as u8;
            let _ = parse(&raw);
        }
    }
}

#[test]
fn metadata_is_read_as_by_prost() {
    let mut random = Random::new(2);
    for _ in rounds(2000) {
        let theirs = readable(&mut random);
        let raw = theirs.encode_to_vec();
        assert_equal(&raw, &parse(&raw).unwrap(), &theirs);
    }
}

#[test]
fn fields_that_come_twice_or_in_no_order_are_read_as_by_prost() {
    let mut random = Random::new(3);
    for _ in rounds(500) {
        let mut raw = readable(&mut random).encode_to_vec();
        raw.extend(readable(&mut random).encode_to_vec());
        // Fields of the future: a number, bytes, and both fixed sizes.
        raw.extend([0x88, 0x06, 1, 0x92, 0x06, 2, 0xff, 0xff, 0x9d, 0x06, 1, 2, 3, 4]);
        raw.extend([0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]);
        let theirs = pb::MessageMetadata::decode(raw.as_slice()).unwrap();
        assert_equal(&raw, &parse(&raw).unwrap(), &theirs);
    }
}

#[test]
fn a_cut_message_is_an_error_or_what_prost_makes_of_it() {
    let mut random = Random::new(4);
    for _ in rounds(100) {
        let raw = readable(&mut random).encode_to_vec();
        for end in 0..raw.len() {
            let raw = &raw[..end];
            if let Ok(ours) = parse(raw) {
                assert_equal(raw, &ours, &pb::MessageMetadata::decode(raw).unwrap());
            }
        }
    }
}

#[test]
fn a_damaged_message_is_an_error_or_what_prost_makes_of_it() {
    let mut random = Random::new(5);
    let mut both = 0;
    for _ in rounds(20_000) {
        let mut raw = readable(&mut random).encode_to_vec();
        let at = random.below(raw.len());
        raw[at] = random.next() as u8;
        if let (Ok(ours), Ok(theirs)) = (parse(&raw), pb::MessageMetadata::decode(raw.as_slice())) {
            assert_equal(&raw, &ours, &theirs);
            both += 1;
        }
    }
    assert!(both > rounds(20_000).len() / 20, "{both}");
}

#[test]
fn required_fields_are_required() {
    let field = |raw: &[u8]| {
        let error = parse(raw).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Missing);
        error.field
    };
    assert_eq!(field(&[]), "MessageMetadata.producer_name");
    assert_eq!(field(&[0x10, 0, 0x18, 0]), "MessageMetadata.producer_name");
    assert_eq!(field(&[0x0a, 0, 0x18, 0]), "MessageMetadata.sequence_id");
    assert_eq!(field(&[0x0a, 0, 0x10, 0]), "MessageMetadata.publish_time");
    assert_eq!(field(&[0x22, 2, 0x12, 0]), "KeyValue.key");
    assert_eq!(field(&[0x22, 2, 0x0a, 0]), "KeyValue.value");
    assert!(parse(&[0x0a, 0, 0x10, 0, 0x18, 0]).is_ok());
}

#[test]
fn a_wrong_field_is_named_with_its_place() {
    let error = |raw: &[u8]| {
        let DecodeError { kind, field, offset } = parse(raw).unwrap_err();
        (kind, field, offset)
    };
    assert_eq!(error(&[0x08, 1]), (DecodeErrorKind::BadWireType, "MessageMetadata.producer_name", 2));
    assert_eq!(error(&[0x0a, 1, 0xff]), (DecodeErrorKind::BadUtf8, "MessageMetadata.producer_name", 3));
    assert_eq!(error(&[0x10, 1, 0x12, 1, 0]), (DecodeErrorKind::BadWireType, "MessageMetadata.sequence_id", 5));
    assert_eq!(error(&[0x10, 1, 0x22, 3, 0x0a, 1, 0xff]), (DecodeErrorKind::BadUtf8, "KeyValue.key", 7));
    assert_eq!(error(&[0x10, 1, 0x0a, 2, 0]), (DecodeErrorKind::Truncated, "MessageMetadata", 4));
}

#[test]
fn chunk_fields_without_their_count_are_no_chunk() {
    let raw = pb::MessageMetadata { uuid: Some("u".into()), chunk_id: Some(0), ..Default::default() }.encode_to_vec();
    assert_eq!(parse(&raw).unwrap().chunk, None);
}

#[test]
fn ranges_of_other_bytes_give_nothing() {
    assert_eq!(text(b"abc", &(1..9)), "");
    assert_eq!(text(&[0xff], &(0..1)), "");
    assert_eq!(bytes(b"abc", &(1..2)), b"b");
}

#[test]
fn properties_of_damaged_bytes_end() {
    assert_eq!(message_properties(&[0x22, 9]).count(), 0);
    let raw = [0x0a, 6, 0x0a, 1, b'k', 0x12, 1, b'v', 0x0a, 1, 0xff, 0x0a, 0];
    assert_eq!(single_properties(&raw).collect::<Vec<_>>(), [("k", "v")]);
}

pub(in crate::wire) fn random_single(random: &mut Random) -> pb::SingleMessageMetadata {
    pb::SingleMessageMetadata {
        properties: random.key_values(),
        partition_key: random.some(Random::text),
        payload_size: random.number() as i32,
        compacted_out: random.some(|_| true),
        event_time: random.some(|random| random.number() | 1),
        partition_key_b64_encoded: random.some(|_| true),
        ordering_key: random.some(|random| random.bytes(9)),
        sequence_id: random.some(Random::number),
        null_value: random.some(|_| true),
        null_partition_key: random.some(|_| true),
    }
}

pub(in crate::wire) fn new_single<'a>(
    from: &'a pb::SingleMessageMetadata,
    properties: &'a [(String, String)],
) -> SingleFields<'a> {
    SingleFields {
        properties,
        partition_key: from.partition_key.as_deref(),
        payload_size: from.payload_size,
        compacted_out: from.compacted_out.is_some(),
        event_time_ms: from.event_time.unwrap_or(0),
        partition_key_b64: from.partition_key_b64_encoded.is_some(),
        ordering_key: from.ordering_key.as_deref(),
        sequence_id: from.sequence_id,
        null_value: from.null_value.is_some(),
        null_partition_key: from.null_partition_key.is_some(),
    }
}

pub(in crate::wire) fn assert_single(raw: &[u8], ours: &SingleMetadata, theirs: &pb::SingleMessageMetadata) {
    assert_eq!(ours.has_properties, !theirs.properties.is_empty());
    let pairs: Vec<_> = single_properties(raw).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    assert_eq!(pairs, owned(&theirs.properties));
    let key = ours.partition_key.as_ref().map(|range| text(raw, range).to_owned());
    assert_eq!(key, theirs.partition_key);
    assert_eq!(ours.payload_size, theirs.payload_size);
    assert_eq!(ours.compacted_out, theirs.compacted_out());
    assert_eq!(ours.event_time_ms, theirs.event_time());
    assert_eq!(ours.partition_key_b64, theirs.partition_key_b64_encoded());
    let ordering_key = ours.ordering_key.as_ref().map(|range| bytes(raw, range));
    assert_eq!(ordering_key, theirs.ordering_key.as_deref());
    assert_eq!(ours.sequence_id, theirs.sequence_id);
    assert_eq!(ours.null_value, theirs.null_value());
    assert_eq!(ours.null_partition_key, theirs.null_partition_key());
}

#[test]
fn single_metadata_is_written_and_read_as_by_prost() {
    let mut random = Random::new(6);
    for _ in rounds(2000) {
        let theirs = random_single(&mut random);
        let properties = owned(&theirs.properties);
        let ours = new_single(&theirs, &properties);
        let mut raw = BytesMut::new();
        ours.encode(&mut raw);
        assert_eq!(raw, theirs.encode_to_vec());
        assert_eq!(ours.encoded_len(), raw.len());
        assert_single(&raw, &SingleMetadata::decode(&raw).unwrap(), &theirs);
    }
}

#[test]
fn damaged_single_metadata_is_an_error_or_what_prost_makes_of_it() {
    let mut random = Random::new(7);
    for _ in rounds(20_000) {
        let mut raw = random_single(&mut random).encode_to_vec();
        let at = random.below(raw.len());
        raw[at] = random.next() as u8;
        raw.truncate(1 + random.below(raw.len()));
        if let (Ok(ours), Ok(theirs)) = (SingleMetadata::decode(&raw), pb::SingleMessageMetadata::decode(&raw[..])) {
            assert_single(&raw, &ours, &theirs);
        }
    }
}

#[test]
fn single_metadata_needs_its_payload_size() {
    let error = SingleMetadata::decode(&[0x40, 1]).unwrap_err();
    assert_eq!((error.kind, error.field), (DecodeErrorKind::Missing, "SingleMessageMetadata.payload_size"));
}
