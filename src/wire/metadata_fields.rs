//! Encoding of MessageMetadata and SingleMessageMetadata from borrowed fields, in ascending field order.

use bytes::BytesMut;

use super::metadata::TxnBits;
use super::proto::{bytes_len, int32, put_bytes, put_uint, put_varint, uint_len};

/// The fields of a MessageMetadata, for encoding.
///
/// Fields with their default are absent, except for the three required ones, which are always encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataFields<'a> {
    /// `producer_name`.
    pub producer_name: &'a str,
    /// `sequence_id`; for a batch the lowest one.
    pub sequence_id: u64,
    /// `publish_time`, milliseconds since 1970.
    pub publish_time_ms: u64,
    /// `properties`, in this order.
    pub properties: &'a [(String, String)],
    /// `replicated_from`: the cluster the message was first published in.
    pub replicated_from: Option<&'a str>,
    /// `partition_key`.
    pub partition_key: Option<&'a str>,
    /// `replicate_to`: the clusters to replicate to; empty = the namespace's rule.
    pub replicate_to: &'a [String],
    /// `compression`: the number of `CompressionType`.
    pub compression: i32,
    /// `uncompressed_size`, bytes; 0 = absent, unless [`is_empty`](Self::is_empty).
    pub uncompressed_size: u32,
    /// The payload has no bytes, and `uncompressed_size` says so: compaction takes only that for a tombstone, outside of batches.
    pub is_empty: bool,
    /// `num_messages_in_batch`. If present, the entry is a batch.
    pub num_messages_in_batch: Option<i32>,
    /// `event_time`, milliseconds since 1970; 0 = absent.
    pub event_time_ms: u64,
    /// The fields of an encrypted payload.
    pub encryption: Option<EncryptionFields<'a>>,
    /// `schema_version`.
    pub schema_version: Option<&'a [u8]>,
    /// `partition_key_b64_encoded`.
    pub partition_key_b64: bool,
    /// `ordering_key`.
    pub ordering_key: Option<&'a [u8]>,
    /// `deliver_at_time`, milliseconds since 1970.
    pub deliver_at_time_ms: Option<i64>,
    /// `marker_type`: for the broker's internal messages.
    pub marker_type: Option<i32>,
    /// `txnid_least_bits` and `txnid_most_bits`.
    pub txn: Option<TxnBits>,
    /// `highest_sequence_id` of a batch.
    pub highest_sequence_id: Option<u64>,
    /// `null_value`.
    pub null_value: bool,
    /// The chunk fields.
    pub chunk: Option<ChunkFields<'a>>,
    /// `null_partition_key`.
    pub null_partition_key: bool,
    /// `schema_id`, as it travels.
    pub schema_id: Option<&'a [u8]>,
}

/// The fields of a MessageMetadata that say how the payload is encrypted, for encoding. `encryption_algo` is not among them:
/// no client writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncryptionFields<'a> {
    /// All `encryption_keys`, serialized by [`put_encryption_key`]: they are the same in many entries.
    pub keys: &'a [u8],
    /// `encryption_param`: the initialization vector.
    pub param: &'a [u8],
}

/// Appends one of the `encryption_keys` as a field of MessageMetadata: its name, the data key as wrapped by it, and what
/// its readers are to know of it.
pub fn put_encryption_key(out: &mut BytesMut, name: &str, value: &[u8], metadata: &[(String, String)]) {
    let mut key = BytesMut::new();
    key.bytes(1, name.as_bytes());
    key.bytes(2, value);
    key.pairs(3, metadata);
    out.bytes(13, &key);
}

/// The chunk fields of a MessageMetadata, for encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChunkFields<'a> {
    /// `uuid`: the same in all chunks of a message.
    pub uuid: &'a str,
    /// `num_chunks_from_msg`.
    pub num_chunks: i32,
    /// `total_chunk_msg_size`, bytes after compression.
    pub total_bytes: i32,
    /// `chunk_id`, from 0.
    pub chunk_id: i32,
}

/// The fields of a SingleMessageMetadata, for encoding. Fields with their default are absent; `payload_size`
/// is always encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SingleFields<'a> {
    /// `properties`, in this order.
    pub properties: &'a [(String, String)],
    /// `partition_key`.
    pub partition_key: Option<&'a str>,
    /// `payload_size`, bytes.
    pub payload_size: i32,
    /// `compacted_out`.
    pub compacted_out: bool,
    /// `event_time`, milliseconds since 1970; 0 = absent.
    pub event_time_ms: u64,
    /// `partition_key_b64_encoded`.
    pub partition_key_b64: bool,
    /// `ordering_key`.
    pub ordering_key: Option<&'a [u8]>,
    /// `sequence_id`.
    pub sequence_id: Option<u64>,
    /// `null_value`.
    pub null_value: bool,
    /// `null_partition_key`.
    pub null_partition_key: bool,
}

/// The destination of fields: a buffer, or a count of bytes. Both use one list of fields, so that length and
/// bytes cannot differ.
trait Sink {
    fn uint(&mut self, number: u32, value: u64);
    fn bytes(&mut self, number: u32, value: &[u8]);
    fn pair(&mut self, number: u32, key: &str, value: &str);
    /// Fields that are serialized already.
    fn serialized(&mut self, fields: &[u8]);

    #[inline]
    fn pairs(&mut self, number: u32, pairs: &[(String, String)]) {
        for (key, value) in pairs {
            self.pair(number, key, value);
        }
    }

    #[inline]
    fn some_uint(&mut self, number: u32, value: Option<u64>) {
        if let Some(value) = value {
            self.uint(number, value);
        }
    }

    #[inline]
    fn some_bytes(&mut self, number: u32, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.bytes(number, value);
        }
    }

    /// A number whose default 0 means absent.
    #[inline]
    fn nonzero(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.uint(number, value);
        }
    }
}

impl Sink for BytesMut {
    #[inline]
    fn uint(&mut self, number: u32, value: u64) {
        put_uint(self, number, value);
    }

    #[inline]
    fn bytes(&mut self, number: u32, value: &[u8]) {
        put_bytes(self, number, value);
    }

    #[inline]
    fn pair(&mut self, number: u32, key: &str, value: &str) {
        put_varint(self, u64::from(number) << 3 | 2);
        put_varint(self, pair_len(key, value) as u64);
        put_bytes(self, 1, key.as_bytes());
        put_bytes(self, 2, value.as_bytes());
    }

    #[inline]
    fn serialized(&mut self, fields: &[u8]) {
        self.extend_from_slice(fields);
    }
}

/// Counts bytes.
struct Length(usize);

impl Sink for Length {
    #[inline]
    fn uint(&mut self, number: u32, value: u64) {
        self.0 += uint_len(number, value);
    }

    #[inline]
    fn bytes(&mut self, number: u32, value: &[u8]) {
        self.0 += bytes_len(number, value.len());
    }

    #[inline]
    fn pair(&mut self, number: u32, key: &str, value: &str) {
        self.0 += bytes_len(number, pair_len(key, value));
    }

    #[inline]
    fn serialized(&mut self, fields: &[u8]) {
        self.0 += fields.len();
    }
}

#[inline]
fn pair_len(key: &str, value: &str) -> usize {
    bytes_len(1, key.len()) + bytes_len(2, value.len())
}

/// `encoded_len` and `encode`, from the `fields` of a message.
macro_rules! encode_fields {
    ($message:ident, $serialized:literal) => {
        impl $message<'_> {
            /// The number of bytes that [`encode`](Self::encode) appends.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                let mut length = Length(0);
                self.fields(&mut length);
                length.0
            }

            #[doc = concat!("Appends the serialized ", $serialized, ", without a length before it.")]
            pub fn encode(&self, out: &mut BytesMut) {
                self.fields(out);
            }
        }
    };
}

encode_fields!(MetadataFields, "MessageMetadata");
encode_fields!(SingleFields, "SingleMessageMetadata");

impl MetadataFields<'_> {
    #[inline]
    fn fields(&self, sink: &mut impl Sink) {
        sink.bytes(1, self.producer_name.as_bytes());
        sink.uint(2, self.sequence_id);
        sink.uint(3, self.publish_time_ms);
        sink.pairs(4, self.properties);
        sink.some_bytes(5, self.replicated_from.map(str::as_bytes));
        sink.some_bytes(6, self.partition_key.map(str::as_bytes));
        for cluster in self.replicate_to {
            sink.bytes(7, cluster.as_bytes());
        }
        sink.nonzero(8, int32(self.compression));
        if self.uncompressed_size != 0 || self.is_empty {
            sink.uint(9, u64::from(self.uncompressed_size));
        }
        sink.some_uint(11, self.num_messages_in_batch.map(int32));
        sink.nonzero(12, self.event_time_ms);
        if let Some(encryption) = &self.encryption {
            sink.serialized(encryption.keys);
            sink.bytes(15, encryption.param);
        }
        sink.some_bytes(16, self.schema_version);
        sink.nonzero(17, u64::from(self.partition_key_b64));
        sink.some_bytes(18, self.ordering_key);
        sink.some_uint(19, self.deliver_at_time_ms.map(|time| time as u64));
        sink.some_uint(20, self.marker_type.map(int32));
        if let Some(txn) = self.txn {
            sink.uint(22, txn.least);
            sink.uint(23, txn.most);
        }
        sink.some_uint(24, self.highest_sequence_id);
        sink.nonzero(25, u64::from(self.null_value));
        if let Some(chunk) = &self.chunk {
            sink.bytes(26, chunk.uuid.as_bytes());
            sink.uint(27, int32(chunk.num_chunks));
            sink.uint(28, int32(chunk.total_bytes));
            sink.uint(29, int32(chunk.chunk_id));
        }
        sink.nonzero(30, u64::from(self.null_partition_key));
        sink.some_bytes(32, self.schema_id);
    }
}

impl SingleFields<'_> {
    #[inline]
    fn fields(&self, sink: &mut impl Sink) {
        sink.pairs(1, self.properties);
        sink.some_bytes(2, self.partition_key.map(str::as_bytes));
        sink.uint(3, int32(self.payload_size));
        sink.nonzero(4, u64::from(self.compacted_out));
        sink.nonzero(5, self.event_time_ms);
        sink.nonzero(6, u64::from(self.partition_key_b64));
        sink.some_bytes(7, self.ordering_key);
        sink.some_uint(8, self.sequence_id);
        sink.nonzero(9, u64::from(self.null_value));
        sink.nonzero(10, u64::from(self.null_partition_key));
    }
}
