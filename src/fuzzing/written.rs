//! What this crate writes: each encoder of `wire` beside its decoder and prost.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;

use super::entries::{compare_metadata, compare_single};
use super::frames::LIMITS;
use crate::pb;
use crate::wire::ack_set::AckWords;
use crate::wire::encryption::{encryption_keys, encryption_param};
use crate::wire::entry::seal_behind;
use crate::wire::explain::generate::Source;
use crate::wire::metadata::{bytes, publish_time_ms, put_encryption_key};
use crate::wire::send_template::{SendTemplate, limited_len, put_unstamped, stamp};
use crate::wire::{
    AckFrame, AckId, BatchCursor, BrokerEntryMetadata, CHAIN_MIN_BYTES, ChunkFields, Command, EncryptionFields,
    EntryParts, Frame, MessageHead, Metadata, MetadataFields, Receipt, SealedFrame, SendHead, SingleFields, TxBuf,
    TxnBits, cut, entry_len, frames, message_properties, put_ack, put_broker_entry_metadata, put_entry, put_flow,
    put_message, put_ping, put_plain_record, put_pong, put_receipt, put_record, record_len, seal, seal_apart,
    seal_copied,
};

/// Frames of all kinds that are written by hand, with any fields; written to a socket in pieces of any size, they are read as
/// what they were.
pub fn written(data: &[u8]) {
    let mut source = Source::new(data);
    let (mut tx, mut all) = (TxBuf::new(), Vec::new());
    for _ in 0..=source.below(6) {
        let (frame, expected) = match source.below(6) {
            0 | 1 => send(&mut source),
            2 => message(&mut source),
            3 => ack(&mut source),
            4 => receipt(&mut source),
            _ => small(&mut source),
        };
        match &expected {
            Frame::Other(command) if source.below(2) == 1 => tx.push_command(command),
            _ => tx.push_frame(&frame),
        }
        all.push(expected);
    }
    templates(&mut source);
    let stream = write_in_steps(&mut tx, &mut source);
    let read: Vec<_> = frames(stream).map(|frame| frame.expect("what was written is read")).collect();
    assert_eq!(read, all);
}

fn text(source: &mut Source<'_>, max: usize) -> String {
    source.bytes(max).iter().map(|byte| char::from(*byte)).collect()
}

fn some<'a, T>(source: &mut Source<'a>, read: impl FnOnce(&mut Source<'a>) -> T) -> Option<T> {
    (source.below(2) == 1).then(|| read(source))
}

fn pairs(source: &mut Source<'_>) -> Vec<(String, String)> {
    (0..source.below(4)).map(|_| (text(source, 12), text(source, 12))).collect()
}

/// What [`MetadataFields`] borrows from.
struct Owned {
    producer_name: String,
    properties: Vec<(String, String)>,
    replicated_from: Option<String>,
    key: Option<String>,
    replicate_to: Vec<String>,
    keys: Vec<pb::EncryptionKeys>,
    serialized_keys: BytesMut,
    param: Vec<u8>,
    schema_version: Option<Vec<u8>>,
    ordering_key: Option<Vec<u8>>,
    uuid: Option<String>,
    schema_id: Option<Vec<u8>>,
}

impl Owned {
    fn any(source: &mut Source<'_>) -> Self {
        let bytes = |source: &mut Source<'_>| source.bytes(20).to_vec();
        let keys: Vec<_> = (0..source.below(3))
            .map(|_| {
                let (key, value) = (text(source, 8), Bytes::copy_from_slice(source.bytes(30)));
                let pair = |(key, value)| pb::KeyValue { key, value };
                pb::EncryptionKeys { key, value, metadata: pairs(source).into_iter().map(pair).collect() }
            })
            .collect();
        let mut serialized_keys = BytesMut::new();
        for key in &keys {
            let metadata: Vec<_> = key.metadata.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
            put_encryption_key(&mut serialized_keys, &key.key, &key.value, &metadata);
        }
        Self {
            keys,
            serialized_keys,
            producer_name: text(source, 200),
            properties: pairs(source),
            replicated_from: some(source, |source| text(source, 8)),
            key: some(source, |source| text(source, 8)),
            replicate_to: (0..source.below(3)).map(|_| text(source, 8)).collect(),
            param: bytes(source),
            schema_version: some(source, bytes),
            ordering_key: some(source, bytes),
            uuid: some(source, |source| text(source, 8)),
            schema_id: some(source, bytes),
        }
    }

    /// The fields, and what prost has to read of them.
    fn fields(&self, source: &mut Source<'_>) -> (MetadataFields<'_>, pb::MessageMetadata) {
        let fields = MetadataFields {
            producer_name: &self.producer_name,
            sequence_id: source.number(),
            publish_time_ms: source.number(),
            properties: &self.properties,
            replicated_from: self.replicated_from.as_deref(),
            partition_key: self.key.as_deref(),
            replicate_to: &self.replicate_to,
            compression: source.number() as i32,
            uncompressed_size: source.number() as u32,
            is_empty: source.below(2) == 1,
            num_messages_in_batch: some(source, |source| source.number() as i32),
            event_time_ms: source.number(),
            encryption: (!self.keys.is_empty())
                .then_some(EncryptionFields { keys: &self.serialized_keys, param: &self.param }),
            schema_version: self.schema_version.as_deref(),
            partition_key_b64: source.below(2) == 1,
            ordering_key: self.ordering_key.as_deref(),
            deliver_at_time_ms: some(source, |source| source.number() as i64),
            marker_type: some(source, |source| source.number() as i32),
            txn: some(source, |source| TxnBits { least: source.number(), most: source.number() }),
            highest_sequence_id: some(source, Source::number),
            null_value: source.below(2) == 1,
            chunk: self.uuid.as_deref().map(|uuid| ChunkFields {
                uuid,
                num_chunks: source.number() as i32,
                total_bytes: source.number() as i32,
                chunk_id: source.number() as i32,
            }),
            null_partition_key: source.below(2) == 1,
            schema_id: self.schema_id.as_deref(),
        };
        let expected = self.expected(&fields);
        (fields, expected)
    }

    fn expected(&self, fields: &MetadataFields<'_>) -> pb::MessageMetadata {
        let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let has_size = fields.uncompressed_size != 0 || fields.is_empty;
        let pair = |(key, value): &(String, String)| pb::KeyValue { key: key.clone(), value: value.clone() };
        pb::MessageMetadata {
            producer_name: self.producer_name.clone(),
            sequence_id: fields.sequence_id,
            publish_time: fields.publish_time_ms,
            properties: self.properties.iter().map(pair).collect(),
            replicated_from: self.replicated_from.clone(),
            partition_key: self.key.clone(),
            replicate_to: self.replicate_to.clone(),
            compression: (fields.compression != 0).then_some(fields.compression),
            uncompressed_size: has_size.then_some(fields.uncompressed_size),
            num_messages_in_batch: fields.num_messages_in_batch,
            event_time: (fields.event_time_ms != 0).then_some(fields.event_time_ms),
            encryption_keys: self.keys.clone(),
            encryption_algo: None,
            encryption_param: fields.encryption.map(|_| self.param.clone().into()),
            schema_version: owned(fields.schema_version),
            partition_key_b64_encoded: fields.partition_key_b64.then_some(true),
            ordering_key: owned(fields.ordering_key),
            deliver_at_time: fields.deliver_at_time_ms,
            marker_type: fields.marker_type,
            txnid_least_bits: fields.txn.map(|txn| txn.least),
            txnid_most_bits: fields.txn.map(|txn| txn.most),
            highest_sequence_id: fields.highest_sequence_id,
            null_value: fields.null_value.then_some(true),
            uuid: fields.chunk.map(|chunk| chunk.uuid.to_owned()),
            num_chunks_from_msg: fields.chunk.map(|chunk| chunk.num_chunks),
            total_chunk_msg_size: fields.chunk.map(|chunk| chunk.total_bytes),
            chunk_id: fields.chunk.map(|chunk| chunk.chunk_id),
            null_partition_key: fields.null_partition_key.then_some(true),
            schema_id: owned(fields.schema_id),
            ..Default::default()
        }
    }
}

fn send_head(source: &mut Source<'_>) -> SendHead {
    SendHead {
        producer_id: source.number(),
        sequence_id: source.number(),
        num_messages: some(source, |source| source.number() as i32).unwrap_or(1),
        highest_sequence_id: some(source, Source::number),
        is_chunk: source.below(2) == 1,
        marker: source.below(2) == 1,
        txnid_least_bits: some(source, Source::number),
        txnid_most_bits: some(source, Source::number),
        message_id: some(source, |source| (source.number(), source.number())),
    }
}

/// A SEND: sealed in each way it is the same frame, and prost reads the metadata that was put in.
fn send(source: &mut Source<'_>) -> (SealedFrame, Frame) {
    let (owned, head) = (Owned::any(source), send_head(source));
    let (fields, expected) = owned.fields(source);
    let payload = match source.below(8) {
        0 => vec![source.byte(); CHAIN_MIN_BYTES + source.below(3)],
        _ => source.bytes(80).to_vec(),
    };
    let payload = if source.below(3) == 1 { records(source) } else { payload };
    let mut entry = BytesMut::new();
    put_entry(&mut entry, &fields, &payload);
    let entry = entry.freeze();
    assert_eq!(entry.len(), entry_len(&fields, &payload));
    let parts = EntryParts::split(&entry).expect("all parts are there");
    assert_eq!(parts.verify(&entry), Ok(()));
    let serialized = &entry[parts.metadata.clone()];
    assert_eq!(serialized.len(), fields.encoded_len());
    assert_eq!(pb::MessageMetadata::decode(serialized), Ok(expected), "prost reads what was put in");
    let ours = Metadata::decode(serialized).expect("what is written is read");
    compare_metadata(serialized, &ours);
    check_rest_of_metadata(&owned, &fields, serialized, &ours);
    assert_eq!(&entry[parts.payload], &payload);

    let (mut out, shared, cut) = (BytesMut::new(), Bytes::from(payload.clone()), source.below(payload.len() + 1));
    let sealed = seal(&mut out, &head, &fields, shared.clone());
    let whole = |frame: &SealedFrame| [&frame.head[..], &frame.payload].concat();
    let copied = seal_copied(&mut out, &head, &fields, &payload);
    assert_eq!(whole(&sealed), copied);
    assert_eq!(whole(&seal_apart(&mut out, &head, &fields, shared.clone())), copied);
    assert_eq!(whole(&seal_behind(&mut out, &head, &fields, &payload[..cut], shared.slice(cut..))), copied);
    assert_eq!(limited_len(&copied), serialized.len() + payload.len(), "what a broker compares with its limit");
    (sealed, Frame::Send { head, entry })
}

/// What [`compare_metadata`] leaves out.
fn check_rest_of_metadata(owned: &Owned, fields: &MetadataFields<'_>, serialized: &[u8], ours: &Metadata) {
    assert_eq!(ours.txn, fields.txn);
    let from = ours.replicated_from.as_ref().map(|range| bytes(serialized, range));
    assert_eq!(from, owned.replicated_from.as_deref().map(str::as_bytes));
    let chunk = ours.chunk.as_ref().map(|chunk| (chunk.num_chunks, chunk.total_bytes, chunk.chunk_id));
    assert_eq!(chunk, fields.chunk.map(|chunk| (chunk.num_chunks, chunk.total_bytes, chunk.chunk_id)));
    assert_eq!(publish_time_ms(serialized), Some(fields.publish_time_ms));
    assert!(message_properties(serialized).eq(owned.properties.iter().map(|(key, value)| (&**key, &**value))));
    assert_eq!(encryption_param(serialized), fields.encryption.map(|encryption| encryption.param));
    let read: Vec<_> = encryption_keys(serialized).collect();
    assert_eq!(read.len(), owned.keys.len());
    for (read, key) in read.iter().zip(&owned.keys) {
        assert_eq!((read.name(), read.value()), (&*key.key, &key.value[..]));
        assert!(read.metadata().eq(key.metadata.iter().map(|pair| (&*pair.key, &*pair.value))));
    }
}

/// The payload of a batch: each record comes out as it was put in, the plain ones by the short way too.
fn records(source: &mut Source<'_>) -> Vec<u8> {
    let (mut out, mut expected) = (BytesMut::new(), Vec::new());
    for _ in 0..=source.below(4) {
        let start = out.len();
        if source.below(2) == 1 {
            let (sequence_id, payload) = (source.number(), source.bytes(200));
            put_plain_record(&mut out, sequence_id, payload);
            let single = pb::SingleMessageMetadata {
                payload_size: payload.len() as i32,
                sequence_id: Some(sequence_id),
                ..Default::default()
            };
            expected.push((single, payload));
            continue;
        }
        let (properties, key) = (pairs(source), some(source, |source| text(source, 8)));
        let ordering_key = some(source, |source| source.bytes(8));
        let payload = source.bytes(40);
        let single = SingleFields {
            properties: &properties,
            partition_key: key.as_deref(),
            payload_size: payload.len() as i32,
            compacted_out: source.below(2) == 1,
            event_time_ms: source.number(),
            partition_key_b64: source.below(2) == 1,
            ordering_key,
            sequence_id: some(source, Source::number),
            null_value: source.below(2) == 1,
            null_partition_key: source.below(2) == 1,
        };
        put_record(&mut out, &single, payload);
        assert_eq!(out.len() - start, record_len(&single, payload));
        let pair = |(key, value): &(String, String)| pb::KeyValue { key: key.clone(), value: value.clone() };
        let single = pb::SingleMessageMetadata {
            properties: properties.iter().map(pair).collect(),
            partition_key: key.clone(),
            payload_size: single.payload_size,
            compacted_out: single.compacted_out.then_some(true),
            event_time: (single.event_time_ms != 0).then_some(single.event_time_ms),
            partition_key_b64_encoded: single.partition_key_b64.then_some(true),
            ordering_key: ordering_key.map(Bytes::copy_from_slice),
            sequence_id: single.sequence_id,
            null_value: single.null_value.then_some(true),
            null_partition_key: single.null_partition_key.then_some(true),
        };
        expected.push((single, payload));
    }
    let mut cursor = BatchCursor::new(expected.len() as i32, out.len()).expect("a batch");
    for (index, (single, payload)) in (0..).zip(expected) {
        assert_eq!(cursor.index(), index);
        #[cfg(feature = "client")]
        let fast = cursor.clone().next_fast(&out);
        let record = cursor.next(&out).expect("another record").expect("a sound one");
        #[cfg(feature = "client")]
        if let Some(fast) = fast {
            let range = record.payload.clone();
            assert_eq!((fast.metadata_at, fast.payload_at..fast.end), (record.metadata_range.start, range));
        }
        let serialized = &out[record.metadata_range];
        assert_eq!(pb::SingleMessageMetadata::decode(serialized), Ok(single));
        compare_single(serialized, &record.metadata);
        assert_eq!(&out[record.payload], payload);
    }
    assert!(cursor.next(&out).is_none());
    out.to_vec()
}

fn words(source: &mut Source<'_>) -> AckWords {
    (0..source.below(4)).map(|_| source.number() as i64).collect::<Vec<_>>().into()
}

/// A MESSAGE, at times with what a broker puts in front of the entry.
fn message(source: &mut Source<'_>) -> (SealedFrame, Frame) {
    let head = MessageHead {
        consumer_id: source.number(),
        ledger_id: source.number(),
        entry_id: source.number(),
        partition: some(source, |source| source.number() as i32).unwrap_or(-1),
        redelivery_count: source.number() as u32,
        ack_set: words(source),
        consumer_epoch: some(source, Source::number),
    };
    let mut entry = BytesMut::new();
    let added = some(source, |source| (source.number(), source.number()));
    if let Some((time, index)) = added {
        put_broker_entry_metadata(&mut entry, time, index);
    }
    let producer_name = text(source, 5);
    let fields = MetadataFields { producer_name: &producer_name, ..MetadataFields::default() };
    put_entry(&mut entry, &fields, source.bytes(40));
    let parts = EntryParts::split(&entry).expect("all parts are there");
    assert_eq!(parts.verify(&entry), Ok(()));
    let read = parts.broker_metadata.map(|range| BrokerEntryMetadata::decode(&entry[range]).expect("what was written"));
    let expected = added.map(|(time, index)| BrokerEntryMetadata { broker_timestamp: Some(time), index: Some(index) });
    assert_eq!(read, expected);
    let mut out = BytesMut::new();
    put_message(&mut out, &head, &entry);
    (flat(out), Frame::Message { head, entry: entry.freeze() })
}

fn flat(out: BytesMut) -> SealedFrame {
    SealedFrame { head: out.freeze(), payload: Bytes::new() }
}

/// An ACK, which prost reads.
fn ack(source: &mut Source<'_>) -> (SealedFrame, Frame) {
    let cumulative = source.below(2) == 1;
    let count = if cumulative { 1 } else { source.below(5) };
    let ids: Vec<_> = (0..count)
        .map(|_| AckId { ledger_id: source.number(), entry_id: source.number(), ack_set: words(source) })
        .collect();
    let frame = AckFrame {
        consumer_id: source.number(),
        cumulative,
        ids: &ids,
        validation_error: some(source, |source| source.below(5) as i32),
        request_id: some(source, Source::number),
    };
    let mut out = BytesMut::new();
    put_ack(&mut out, &frame);
    (flat(out), Frame::Other(ack_of_prost(&frame).into()))
}

/// The command that an ACK written by hand is.
pub(crate) fn ack_of_prost(frame: &AckFrame<'_>) -> pb::CommandAck {
    let id = |id: &AckId| pb::MessageIdData {
        ledger_id: id.ledger_id,
        entry_id: id.entry_id,
        ack_set: id.ack_set.to_vec(),
        ..Default::default()
    };
    pb::CommandAck {
        consumer_id: frame.consumer_id,
        ack_type: frame.cumulative.into(),
        message_id: frame.ids.iter().map(id).collect(),
        validation_error: frame.validation_error,
        request_id: frame.request_id,
        ..Default::default()
    }
}

fn receipt(source: &mut Source<'_>) -> (SealedFrame, Frame) {
    let receipt = Receipt {
        producer_id: source.number(),
        sequence_id: source.number(),
        highest_sequence_id: source.number(),
        ledger_id: source.number(),
        entry_id: source.number(),
    };
    let mut out = BytesMut::new();
    put_receipt(&mut out, &receipt);
    (flat(out), Frame::Receipt(receipt))
}

fn small(source: &mut Source<'_>) -> (SealedFrame, Frame) {
    let mut out = BytesMut::new();
    let command: Command = match source.below(3) {
        0 => {
            put_ping(&mut out);
            pb::CommandPing {}.into()
        }
        1 => {
            put_pong(&mut out);
            pb::CommandPong {}.into()
        }
        _ => {
            let (consumer_id, message_permits) = (source.number(), source.number() as u32);
            put_flow(&mut out, consumer_id, message_permits);
            pb::CommandFlow { consumer_id, message_permits }.into()
        }
    };
    assert_eq!(out.len(), command.encoded_len());
    (flat(out), Frame::Other(command))
}

/// The frames of a producer's small messages, which get time and checksum later: as if they were sealed one by one.
fn templates(source: &mut Source<'_>) {
    let (producer_id, name) = (source.number(), Arc::<str>::from(text(source, 200)));
    let version = some(source, |source| source.bytes(12));
    let mut template = SendTemplate::new(producer_id, &name, version);
    let (mut run, mut expected) = (BytesMut::new(), Vec::new());
    let properties = pairs(source);
    for _ in 0..=source.below(5) {
        let (sequence_id, is_plain, payload) = (source.number(), source.below(3) > 0, source.bytes(200));
        let properties = if is_plain { &[][..] } else { &properties };
        let fields = MetadataFields {
            producer_name: &name,
            sequence_id,
            schema_version: version,
            properties,
            ..MetadataFields::default()
        };
        let start = run.len();
        if is_plain {
            template.encode(&mut run, sequence_id, payload);
        } else {
            put_unstamped(&mut run, &SendHead::new(producer_id, sequence_id), &fields, payload);
        }
        assert!(limited_len(&run[start..]) >= payload.len());
        expected.push((SendHead::new(producer_id, sequence_id), fields, payload));
    }
    // What does not fit is the latest time that does.
    let now_ms = source.number();
    stamp(&mut run, now_ms);
    let mut read = frames(run.freeze());
    for (head, fields, payload) in expected {
        let Some(Ok(Frame::Send { head: ours, entry })) = read.next() else { panic!("a SEND") };
        let parts = EntryParts::split(&entry).expect("all parts are there");
        assert_eq!((ours, parts.verify(&entry)), (head, Ok(())));
        let metadata = pb::MessageMetadata::decode(&entry[parts.metadata]).expect("metadata");
        let pairs = metadata.properties.iter().map(|pair| (&*pair.key, &*pair.value));
        assert!(pairs.eq(fields.properties.iter().map(|(key, value)| (&**key, &**value))));
        assert_eq!((&*metadata.producer_name, metadata.sequence_id), (fields.producer_name, fields.sequence_id));
        assert_eq!(metadata.schema_version.as_deref(), fields.schema_version);
        assert_eq!(metadata.publish_time, now_ms.min((1 << 42) - 1));
        assert_eq!(&entry[parts.payload], payload);
    }
    assert!(read.next().is_none());
}

/// Writes all as a socket takes it: some bytes of the first pieces at a time.
fn write_in_steps(tx: &mut TxBuf, source: &mut Source<'_>) -> Bytes {
    let (total, mut written) = (tx.len(), BytesMut::new());
    while !tx.is_empty() {
        assert_eq!(tx.remaining() + written.len(), total);
        let step = match source.below(4) {
            0 => usize::MAX,
            1 => 1 + source.below(40),
            2 => CHAIN_MIN_BYTES,
            _ => {
                let size = (1 + source.below(200)).min(tx.len());
                assert!(!tx.chunk().is_empty());
                written.extend_from_slice(&tx.copy_to_bytes(size));
                continue;
            }
        };
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = tx.chunks_vectored(&mut slices);
        let mut taken = 0;
        for slice in &slices[..filled] {
            assert!(!slice.is_empty());
            let part = slice.len().min(step - taken);
            written.extend_from_slice(&slice[..part]);
            taken += part;
        }
        tx.advance(taken);
    }
    assert!(tx.take_all().is_empty());
    // It can be cut wherever it is small enough for the limit.
    if written.len() <= LIMITS.frame_bytes_max {
        let mut rx = written.clone();
        assert_eq!(cut(&mut rx, &LIMITS).expect("frames").as_deref(), Some(&written[..]));
    }
    written.freeze()
}
