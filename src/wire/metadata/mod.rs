//! MessageMetadata and SingleMessageMetadata, decoded to numbers and offsets; texts are read on demand.
//!
//! Decoding walks the bytes once, checks everything that could be wrong with them (lengths, wire
//! types, required fields, UTF-8) and keeps numbers and ranges. It allocates for the chunk fields
//! only, which few messages have. Ranges count from the start of the decoded metadata.

use std::ops::Range;

use prost::Message as _;

use super::error::{DecodeError, DecodeErrorKind};
use super::proto::{Reader, Value};
use super::required;
use crate::pb;

pub use super::encryption::{EncryptionKey, encryption_algo, encryption_keys, encryption_param};
pub use super::metadata_fields::{ChunkFields, EncryptionFields, MetadataFields, SingleFields, put_encryption_key};

/// A decoded `MessageMetadata`: the metadata of a message, or of a batch as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `producer_name`.
    pub producer_name: Range<u32>,
    /// `sequence_id`; for a batch the lowest one.
    pub sequence_id: u64,
    /// `publish_time`: the producer's clock, milliseconds since 1970.
    pub publish_time_ms: u64,
    /// `event_time`: the application's time, milliseconds since 1970; 0 = none.
    pub event_time_ms: u64,
    /// `partition_key`.
    pub partition_key: Option<Range<u32>>,
    /// `partition_key_b64_encoded`: the key is base64 of a binary key.
    pub partition_key_b64: bool,
    /// `ordering_key`.
    pub ordering_key: Option<Range<u32>>,
    /// `null_partition_key`: the key is null, which is not the same as no key.
    pub null_partition_key: bool,
    /// `null_value`: the payload is null, which is not the same as empty.
    pub null_value: bool,
    /// `compression`: the number of `CompressionType`, 0 = NONE. Unknown numbers are kept.
    pub compression: i32,
    /// `uncompressed_size`, bytes.
    pub uncompressed_size: u32,
    /// `num_messages_in_batch`. If present, the entry is a batch, even with one message.
    pub num_messages_in_batch: Option<i32>,
    /// `highest_sequence_id` of a batch; 0 = absent.
    pub highest_sequence_id: u64,
    /// `schema_version`; absent = bytes.
    pub schema_version: Option<Range<u32>>,
    /// `deliver_at_time`, milliseconds since 1970.
    pub deliver_at_time_ms: Option<i64>,
    /// `marker_type`: present only in the broker's internal messages.
    pub marker_type: Option<i32>,
    /// Whether there are `encryption_keys`, which means that the payload is encrypted.
    pub encrypted: bool,
    /// The chunk fields; present if `num_chunks_from_msg` is.
    pub chunk: Option<Box<ChunkInfo>>,
    /// Whether there are `properties`; [`message_properties`] reads them.
    pub has_properties: bool,
    /// `replicated_from`: the cluster the message was first published in.
    pub replicated_from: Option<Range<u32>>,
    /// `txnid_least_bits` and `txnid_most_bits`; present if both are.
    pub txn: Option<TxnBits>,
    /// `schema_id`.
    pub schema_id: Option<Range<u32>>,
}

/// The fields of a [`Metadata`] that are needed to decode an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntrySummary {
    /// `compression`: the number of `CompressionType`, 0 = NONE.
    pub(crate) compression: i32,
    /// `uncompressed_size`, bytes.
    pub(crate) uncompressed_size: u32,
    /// `num_messages_in_batch`.
    pub(crate) num_messages_in_batch: Option<i32>,
    /// Whether there are `encryption_keys`.
    pub(crate) encrypted: bool,
    /// `num_chunks_from_msg`.
    pub(crate) chunks: Option<i32>,
}

impl EntrySummary {
    /// Decodes a serialized MessageMetadata, with all the checks of [`Metadata::decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match Self::decode_fast(bytes) {
            Some(summary) => Ok(summary),
            None => Metadata::decode(bytes).map(|metadata| Self::from_metadata(&metadata)),
        }
    }

    #[cold]
    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            compression: metadata.compression,
            uncompressed_size: metadata.uncompressed_size,
            num_messages_in_batch: metadata.num_messages_in_batch,
            encrypted: metadata.encrypted,
            chunks: metadata.chunk.as_ref().map(|chunk| chunk.num_chunks),
        }
    }

    /// [`decode`](Self::decode) for valid metadata with no fields but the usual ones; `None` for any other. It checks
    /// everything that [`Metadata::decode`] checks in these fields.
    fn decode_fast(bytes: &[u8]) -> Option<Self> {
        const REQUIRED: u32 = 1 << 1 | 1 << 2 | 1 << 3;
        let mut fields = Fields::new(bytes, "MessageMetadata").ok()?;
        let (mut compression, mut uncompressed_size, mut count, mut seen) = (0, 0, None, 0);
        while let Some((number, value)) = fields.next().ok()? {
            match (number, &value) {
                (1 | 6, Value::Bytes(range)) => {
                    std::str::from_utf8(bytes.get(range.clone())?).ok()?;
                }
                (8, Value::Varint(value)) => compression = *value as i32,
                (9, Value::Varint(value)) => uncompressed_size = *value as u32,
                (11, Value::Varint(value)) => count = Some(*value as i32),
                (2 | 3 | 12 | 24, Value::Varint(_)) => {}
                (4, _) => fields.key_value(&value, "MessageMetadata.properties").ok()?,
                _ => return None,
            }
            seen |= 1u32 << number;
        }
        let is_complete = seen & REQUIRED == REQUIRED;
        let usual =
            Self { compression, uncompressed_size, num_messages_in_batch: count, encrypted: false, chunks: None };
        is_complete.then_some(usual)
    }
}

/// The chunk fields: which part of a larger message an entry holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChunkInfo {
    /// `uuid`: the same in all chunks of a message.
    pub uuid: Range<u32>,
    /// `chunk_id`, from 0. Not checked against `num_chunks`.
    pub chunk_id: i32,
    /// `num_chunks_from_msg`. Not checked: any number of the peer.
    pub num_chunks: i32,
    /// `total_chunk_msg_size`, bytes after compression. Not checked: any number of the peer.
    pub total_bytes: i32,
}

/// The id of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TxnBits {
    /// `txnid_least_bits`.
    pub least: u64,
    /// `txnid_most_bits`: the transaction coordinator.
    pub most: u64,
}

/// Iterates over the fields of one message; its checks of wire type and UTF-8 name the field in errors.
struct Fields<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    name: &'static str,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], name: &'static str) -> Result<Self, DecodeError> {
        if u32::try_from(bytes.len()).is_err() {
            let kind = DecodeErrorKind::TooLarge { size: bytes.len() as u64, max: u64::from(u32::MAX) };
            return Err(DecodeError::new(kind, name, 0));
        }
        Ok(Self { bytes, reader: Reader::new(bytes, 0), name })
    }

    #[inline]
    fn next(&mut self) -> Result<Option<(u32, Value)>, DecodeError> {
        self.reader.next(self.name)
    }

    #[inline]
    fn uint(&self, value: &Value, field: &'static str) -> Result<u64, DecodeError> {
        match value {
            Value::Varint(value) => Ok(*value),
            _ => Err(self.error(DecodeErrorKind::BadWireType, field)),
        }
    }

    /// An `int32` or enum value, truncated to 32 bits as protobuf defines it.
    #[inline]
    fn int(&self, value: &Value, field: &'static str) -> Result<i32, DecodeError> {
        Ok(self.uint(value, field)? as i32)
    }

    #[inline]
    fn flag(&self, value: &Value, field: &'static str) -> Result<bool, DecodeError> {
        Ok(self.uint(value, field)? != 0)
    }

    #[inline]
    fn bytes(&self, value: &Value, field: &'static str) -> Result<Range<u32>, DecodeError> {
        match value {
            // The length of the whole message fits 32 bits.
            Value::Bytes(range) if parser_mutation!(KeyOneByteShort) && field.ends_with("_key") => {
                Ok(range.start as u32..(range.end as u32).saturating_sub(1).max(range.start as u32))
            }
            Value::Bytes(range) => Ok(range.start as u32..range.end as u32),
            _ => Err(self.error(DecodeErrorKind::BadWireType, field)),
        }
    }

    #[inline]
    fn text(&self, value: &Value, field: &'static str) -> Result<Range<u32>, DecodeError> {
        let range = self.bytes(value, field)?;
        match std::str::from_utf8(slice(self.bytes, &range)) {
            Ok(_) => Ok(range),
            Err(_) => Err(self.error(DecodeErrorKind::BadUtf8, field)),
        }
    }

    /// Checks a `KeyValue`, so that [`Properties`] cannot fail on it.
    fn key_value(&self, value: &Value, field: &'static str) -> Result<(), DecodeError> {
        let range = self.bytes(value, field)?;
        let inner = slice(self.bytes, &range);
        match key_value(inner) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.shifted(range.start as usize)),
        }
    }

    /// Checks a repeated integer field, packed or not, and discards it.
    fn ints(&self, value: &Value, field: &'static str) -> Result<(), DecodeError> {
        if matches!(value, Value::Varint(_)) {
            return Ok(());
        }
        let range = self.bytes(value, field)?;
        let mut packed = Reader::new(slice(self.bytes, &range), range.start as usize);
        while packed.next_packed(field)?.is_some() {}
        Ok(())
    }

    /// Checks one of the `encryption_keys` and discards it.
    fn encryption_key(&self, value: &Value) -> Result<(), DecodeError> {
        const FIELD: &str = "MessageMetadata.encryption_keys";
        let range = self.bytes(value, FIELD)?;
        let inner = slice(self.bytes, &range);
        required::check(&required::ENCRYPTION_KEYS, inner, range.start as usize)?;
        match pb::EncryptionKeys::decode(inner) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error(DecodeErrorKind::Protobuf(error.to_string()), FIELD)),
        }
    }

    #[cold]
    fn error(&self, kind: DecodeErrorKind, field: &'static str) -> DecodeError {
        DecodeError::new(kind, field, self.reader.offset())
    }

    fn required<T>(&self, value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
        value.ok_or_else(|| self.error(DecodeErrorKind::Missing, field))
    }
}

/// The bytes of a range; empty if it is not from these bytes and out of bounds.
fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// The text of `range` in the `metadata` from which it was decoded; empty if it does not fit other bytes.
#[must_use]
pub fn text<'a>(metadata: &'a [u8], range: &Range<u32>) -> &'a str {
    std::str::from_utf8(slice(metadata, range)).unwrap_or_default()
}

/// The bytes of `range` in the `metadata` from which it was decoded; empty if it does not fit other bytes.
#[must_use]
pub fn bytes<'a>(metadata: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    slice(metadata, range)
}

impl Metadata {
    /// Decodes a serialized MessageMetadata. Unknown fields are skipped; the last occurrence of a field
    /// counts.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a field with a wrong wire type, a text that is not UTF-8, or a missing `producer_name`, `sequence_id` or `publish_time`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "MessageMetadata")?;
        let mut metadata = Self::default();
        let (mut producer_name, mut sequence_id, mut publish_time) = (None, None, None);
        let mut rare = OptionalFields::default();
        while let Some((number, value)) = fields.next()? {
            let f = &fields;
            match number {
                1 => producer_name = Some(f.text(&value, "MessageMetadata.producer_name")?),
                2 => sequence_id = Some(f.uint(&value, "MessageMetadata.sequence_id")?),
                3 => publish_time = Some(f.uint(&value, "MessageMetadata.publish_time")?),
                4 => {
                    f.key_value(&value, "MessageMetadata.properties")?;
                    metadata.has_properties = true;
                }
                6 => metadata.partition_key = Some(f.text(&value, "MessageMetadata.partition_key")?),
                8 => metadata.compression = f.int(&value, "MessageMetadata.compression")?,
                9 => metadata.uncompressed_size = f.uint(&value, "MessageMetadata.uncompressed_size")? as u32,
                11 => {
                    metadata.num_messages_in_batch = Some(f.int(&value, "MessageMetadata.num_messages_in_batch")?);
                }
                12 => metadata.event_time_ms = f.uint(&value, "MessageMetadata.event_time")?,
                16 => metadata.schema_version = Some(f.bytes(&value, "MessageMetadata.schema_version")?),
                17 => metadata.partition_key_b64 = f.flag(&value, "MessageMetadata.partition_key_b64_encoded")?,
                18 => metadata.ordering_key = Some(f.bytes(&value, "MessageMetadata.ordering_key")?),
                24 => metadata.highest_sequence_id = f.uint(&value, "MessageMetadata.highest_sequence_id")?,
                25 => metadata.null_value = f.flag(&value, "MessageMetadata.null_value")?,
                30 => metadata.null_partition_key = f.flag(&value, "MessageMetadata.null_partition_key")?,
                _ => rare.field(f, &mut metadata, number, &value)?,
            }
        }
        metadata.producer_name = fields.required(producer_name, "MessageMetadata.producer_name")?;
        metadata.sequence_id = fields.required(sequence_id, "MessageMetadata.sequence_id")?;
        metadata.publish_time_ms = fields.required(publish_time, "MessageMetadata.publish_time")?;
        rare.settle(&mut metadata);
        Ok(metadata)
    }
}

/// Fields that are valid only together with others.
#[derive(Default)]
struct OptionalFields {
    uuid: Range<u32>,
    chunk_id: i32,
    num_chunks: Option<i32>,
    total_bytes: i32,
    txn_least: Option<u64>,
    txn_most: Option<u64>,
}

impl OptionalFields {
    /// Decodes the fields that few messages have, out of line.
    #[cold]
    fn field(
        &mut self,
        f: &Fields<'_>,
        metadata: &mut Metadata,
        number: u32,
        value: &Value,
    ) -> Result<(), DecodeError> {
        match number {
            5 => metadata.replicated_from = Some(f.text(value, "MessageMetadata.replicated_from")?),
            7 => {
                f.text(value, "MessageMetadata.replicate_to")?;
            }
            13 => {
                f.encryption_key(value)?;
                metadata.encrypted = true;
            }
            14 => {
                f.text(value, "MessageMetadata.encryption_algo")?;
            }
            15 => {
                f.bytes(value, "MessageMetadata.encryption_param")?;
            }
            19 => metadata.deliver_at_time_ms = Some(f.uint(value, "MessageMetadata.deliver_at_time")? as i64),
            20 => metadata.marker_type = Some(f.int(value, "MessageMetadata.marker_type")?),
            22 => self.txn_least = Some(f.uint(value, "MessageMetadata.txnid_least_bits")?),
            23 => self.txn_most = Some(f.uint(value, "MessageMetadata.txnid_most_bits")?),
            26 => self.uuid = f.text(value, "MessageMetadata.uuid")?,
            27 => self.num_chunks = Some(f.int(value, "MessageMetadata.num_chunks_from_msg")?),
            28 => self.total_bytes = f.int(value, "MessageMetadata.total_chunk_msg_size")?,
            29 => self.chunk_id = f.int(value, "MessageMetadata.chunk_id")?,
            31 => f.ints(value, "MessageMetadata.compacted_batch_indexes")?,
            32 => metadata.schema_id = Some(f.bytes(value, "MessageMetadata.schema_id")?),
            _ => {}
        }
        Ok(())
    }

    fn settle(self, metadata: &mut Metadata) {
        if let Some(num_chunks) = self.num_chunks {
            let Self { uuid, chunk_id, total_bytes, .. } = self;
            metadata.chunk = Some(Box::new(ChunkInfo { uuid, chunk_id, num_chunks, total_bytes }));
        }
        if let (Some(least), Some(most)) = (self.txn_least, self.txn_most) {
            metadata.txn = Some(TxnBits { least, most });
        }
    }
}

/// A decoded `SingleMessageMetadata`: the metadata of one member of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SingleMetadata {
    /// Whether there are `properties`; [`single_properties`] reads them.
    pub has_properties: bool,
    /// `partition_key`.
    pub partition_key: Option<Range<u32>>,
    /// `partition_key_b64_encoded`: the key is base64 of a binary key.
    pub partition_key_b64: bool,
    /// `payload_size`, bytes. Not checked: it may be negative or too large.
    pub payload_size: i32,
    /// `compacted_out`: a placeholder for a message that compaction removed.
    pub compacted_out: bool,
    /// `event_time`: the application's time, milliseconds since 1970; 0 = none.
    pub event_time_ms: u64,
    /// `ordering_key`.
    pub ordering_key: Option<Range<u32>>,
    /// `sequence_id`.
    pub sequence_id: Option<u64>,
    /// `null_value`: the payload is null, which is not the same as empty.
    pub null_value: bool,
    /// `null_partition_key`: the key is null, which is not the same as no key.
    pub null_partition_key: bool,
}

impl SingleMetadata {
    /// Decodes a serialized SingleMessageMetadata. Unknown fields are skipped; the last occurrence of a field
    /// counts.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a field with a wrong wire type, a text that is not UTF-8, or a missing `payload_size`.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(bytes, "SingleMessageMetadata")?;
        let mut single = Self::default();
        let mut payload_size = None;
        while let Some((number, value)) = fields.next()? {
            let f = &fields;
            match number {
                1 => {
                    f.key_value(&value, "SingleMessageMetadata.properties")?;
                    single.has_properties = true;
                }
                2 => single.partition_key = Some(f.text(&value, "SingleMessageMetadata.partition_key")?),
                3 => payload_size = Some(f.int(&value, "SingleMessageMetadata.payload_size")?),
                4 => single.compacted_out = f.flag(&value, "SingleMessageMetadata.compacted_out")?,
                5 => single.event_time_ms = f.uint(&value, "SingleMessageMetadata.event_time")?,
                6 => {
                    single.partition_key_b64 = f.flag(&value, "SingleMessageMetadata.partition_key_b64_encoded")?;
                }
                7 => single.ordering_key = Some(f.bytes(&value, "SingleMessageMetadata.ordering_key")?),
                8 => single.sequence_id = Some(f.uint(&value, "SingleMessageMetadata.sequence_id")?),
                9 => single.null_value = f.flag(&value, "SingleMessageMetadata.null_value")?,
                10 => single.null_partition_key = f.flag(&value, "SingleMessageMetadata.null_partition_key")?,
                _ => {}
            }
        }
        single.payload_size = fields.required(payload_size, "SingleMessageMetadata.payload_size")?;
        Ok(single)
    }
}

/// The field number of `properties` in MessageMetadata.
const MESSAGE_PROPERTIES: u32 = 4;
/// The field number of `publish_time` in MessageMetadata.
const PUBLISH_TIME: u32 = 3;
/// The field number of `replicate_to` in MessageMetadata.
const REPLICATE_TO: u32 = 7;
/// The field number of `properties` in SingleMessageMetadata.
const SINGLE_PROPERTIES: u32 = 1;

/// The `properties` of a serialized MessageMetadata, in their order. A key may occur more than once; the
/// last one counts in Pulsar.
#[must_use]
pub fn message_properties(metadata: &[u8]) -> Properties<'_> {
    properties(metadata, MESSAGE_PROPERTIES)
}

/// The `properties` of a serialized SingleMessageMetadata, in their order. A key may occur more
/// than once; the last one counts in Pulsar.
#[must_use]
pub fn single_properties(metadata: &[u8]) -> Properties<'_> {
    properties(metadata, SINGLE_PROPERTIES)
}

/// The `KeyValue` fields numbered `field_number` of a serialized message.
///
/// In bytes that [`Metadata::decode`] or [`SingleMetadata::decode`] accepted, it returns all of them; in any
/// other bytes it ends at the first field that cannot be decoded.
#[must_use]
pub fn properties(metadata: &[u8], field_number: u32) -> Properties<'_> {
    Properties { bytes: metadata, reader: Reader::new(metadata, 0), field_number }
}

/// An iterator over key and value of each property.
#[derive(Debug, Clone)]
pub struct Properties<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    field_number: u32,
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((number, value)) = self.reader.next("properties").ok()? {
            match value {
                Value::Bytes(range) if number == self.field_number => return key_value(self.bytes.get(range)?).ok(),
                _ => {}
            }
        }
        None
    }
}

/// The `publish_time` of a serialized MessageMetadata, milliseconds since 1970. `None` where it is not found before
/// the first field that cannot be decoded. It stops at the first one, where [`Metadata::decode`] takes the last one, as Protobuf
/// does; writers write one.
#[must_use]
pub fn publish_time_ms(metadata: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(metadata, 0);
    loop {
        if let (PUBLISH_TIME, Value::Varint(time)) = reader.next("publish_time").ok()?? {
            return Some(time);
        }
    }
}

/// The clusters that a serialized MessageMetadata is to be replicated to (`replicate_to`), in their order.
///
/// In bytes that [`Metadata::decode`] accepted, it returns all of them; in any other bytes it ends at the first field
/// that cannot be decoded.
pub fn replicate_to(metadata: &[u8]) -> impl Iterator<Item = &str> {
    byte_fields(metadata, REPLICATE_TO).filter_map(|cluster| std::str::from_utf8(cluster).ok())
}

/// The values of the fields of this number in a serialized message, as far as it can be decoded.
pub(super) fn byte_fields(message: &[u8], field_number: u32) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(message, 0);
    let fields = std::iter::from_fn(move || reader.next("field").ok()?);
    fields.filter_map(move |(number, value)| match value {
        Value::Bytes(range) if number == field_number => message.get(range),
        _ => None,
    })
}

/// Decodes a serialized `KeyValue`.
fn key_value(bytes: &[u8]) -> Result<(&str, &str), DecodeError> {
    let mut reader = Reader::new(bytes, 0);
    let (mut key, mut value) = (None, None);
    while let Some((number, content)) = reader.next("KeyValue")? {
        let (place, field) = match number {
            1 => (&mut key, "KeyValue.key"),
            2 => (&mut value, "KeyValue.value"),
            _ => continue,
        };
        let Value::Bytes(range) = content else {
            return Err(DecodeError::new(DecodeErrorKind::BadWireType, field, reader.offset()));
        };
        let text = std::str::from_utf8(bytes.get(range).unwrap_or_default());
        *place = Some(text.map_err(|_| DecodeError::new(DecodeErrorKind::BadUtf8, field, reader.offset()))?);
    }
    let missing = |field| DecodeError::new(DecodeErrorKind::Missing, field, reader.offset());
    Ok((key.ok_or_else(|| missing("KeyValue.key"))?, value.ok_or_else(|| missing("KeyValue.value"))?))
}

#[cfg(test)]
pub(in crate::wire) mod tests;
