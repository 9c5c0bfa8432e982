//! The compacted view of a topic: of each key the last value.
//!
//! As Pulsar 4.0.8 makes it: a message without a key is left out, and so is each key whose last value is empty. Outside of a
//! batch a value counts as empty only if `uncompressed_size` is there and 0, as Java writes it. A batch stays one entry; of its
//! messages those that are left out become placeholders (`compacted_out`). An encrypted batch counts by the key of its metadata,
//! and so does each chunk of a chunked message: only the last one is left. A batch of a codec that this build does not have
//! stays whole. What is not compacted yet is not dropped from a topic that was compacted once.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::{Log, StoredEntry};
use crate::pb;
use crate::wire::MAX_UNCOMPRESSED_SIZE_DEFAULT;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// See the [module](self). Its entries share the memory of the log where they are not written anew.
#[derive(Debug, Default)]
pub(crate) struct CompactedLog {
    entries: BTreeMap<u64, StoredEntry>,
    /// Every entry of the log below it is compacted; `None` before the first time.
    horizon: Option<u64>,
    bytes: usize,
}

/// A message with a key: the offset of its entry, and its number in the batch.
type Place = (u64, u32);

impl CompactedLog {
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon.unwrap_or(0)
    }

    /// The first entry of the log that the next compaction needs; `None` for a topic that was never compacted.
    pub(crate) fn needs_from(&self) -> Option<u64> {
        self.horizon
    }

    /// Bytes of its entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first entry at `offset` or behind it.
    pub(crate) fn next(&self, offset: u64) -> Option<(u64, &StoredEntry)> {
        self.entries.range(offset..).next().map(|(offset, entry)| (*offset, entry))
    }

    pub(crate) fn last(&self) -> Option<&StoredEntry> {
        self.entries.last_key_value().map(|(_, entry)| entry)
    }

    /// The view of all that is stored now, over the earlier one.
    pub(crate) fn compact(&self, log: &Log) -> Self {
        let later = (self.horizon().max(log.first())..log.end()).filter_map(|offset| Some((offset, log.get(offset)?)));
        let earlier = self.entries.iter().map(|(offset, entry)| (*offset, entry));
        let all: Vec<(u64, &StoredEntry)> = earlier.chain(later).filter(|(_, entry)| !entry.info.is_marker).collect();
        let mut latest: BTreeMap<Vec<u8>, Place> = BTreeMap::new();
        let mut kept: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (offset, entry) in &all {
            for (number, message) in (0..).zip(messages_of(entry)) {
                match message.key {
                    _ if message.is_unreadable => kept.entry(*offset).or_default().push(number),
                    Some(key) if message.is_empty => drop(latest.remove(&key)),
                    Some(key) => drop(latest.insert(key, (*offset, number))),
                    None => {}
                }
            }
        }
        for (offset, number) in latest.into_values() {
            kept.entry(offset).or_default().push(number);
        }
        let entries: BTreeMap<_, _> = all
            .into_iter()
            .filter_map(|(offset, entry)| Some((offset, with_messages(entry, kept.get(&offset)?))))
            .collect();
        let bytes = entries.values().map(|entry| entry.bytes.len()).sum();
        Self { entries, horizon: Some(log.end()), bytes }
    }
}

/// What compaction looks at.
struct KeyedMessage {
    key: Option<Vec<u8>>,
    is_empty: bool,
    /// It stands for a batch that cannot be looked into although it could be on another broker.
    is_unreadable: bool,
}

/// The messages of an entry; an entry that cannot be looked into is one.
fn messages_of(entry: &StoredEntry) -> Vec<KeyedMessage> {
    let Some((parsed, bytes, payload)) = parts_of(entry) else { return Vec::new() };
    let key_of =
        |key: &Option<std::ops::Range<u32>>, bytes: &[u8]| key.as_ref().map(|key| metadata::bytes(bytes, key).to_vec());
    if let Some(batch) = records_of(&parsed, &payload) {
        let messages = batch.iter().map(|record| KeyedMessage {
            key: key_of(&record.single.partition_key, &record.metadata),
            is_empty: record.payload.is_empty() || record.single.compacted_out,
            is_unreadable: false,
        });
        return messages.collect();
    }
    let is_empty = pb::MessageMetadata::decode(&bytes[..]).is_ok_and(|metadata| metadata.uncompressed_size == Some(0));
    let is_unreadable = parsed.num_messages_in_batch.is_some() && !parsed.encrypted;
    vec![KeyedMessage { key: key_of(&parsed.partition_key, &bytes), is_empty, is_unreadable }]
}

fn parts_of(entry: &StoredEntry) -> Option<(Metadata, Bytes, Bytes)> {
    let parts = EntryParts::split(&entry.bytes).ok()?;
    let bytes = entry.bytes.slice(parts.metadata);
    Some((Metadata::decode(&bytes).ok()?, bytes, entry.bytes.slice(parts.payload)))
}

/// One message of a batch.
struct BatchRecord {
    single: metadata::SingleMetadata,
    metadata: Bytes,
    payload: Bytes,
}

/// The messages of a batch; `None` for an entry that is none, or cannot be read.
fn records_of(parsed: &Metadata, payload: &Bytes) -> Option<Vec<BatchRecord>> {
    let count = parsed.num_messages_in_batch.filter(|_| !parsed.encrypted)?;
    let records =
        decompress(parsed.compression, payload, parsed.uncompressed_size, MAX_UNCOMPRESSED_SIZE_DEFAULT).ok()?;
    let mut cursor = BatchCursor::new(count, records.len()).ok()?;
    let mut batch = Vec::new();
    while let Some(record) = cursor.next(&records) {
        let record = record.ok()?;
        let (metadata, payload) = (records.slice(record.metadata_range), records.slice(record.payload));
        batch.push(BatchRecord { single: record.metadata, metadata, payload });
    }
    Some(batch)
}

/// The number of the last message of a batch that is no placeholder; −1 for an entry that is none.
pub(crate) fn last_member(entry: &StoredEntry) -> i32 {
    let batch = parts_of(entry).and_then(|(parsed, _, payload)| records_of(&parsed, &payload));
    let last = batch.and_then(|batch| batch.iter().rposition(|record| !record.single.compacted_out));
    last.and_then(|last| i32::try_from(last).ok()).unwrap_or(-1)
}

/// The entry with these of its messages; of a batch the others become placeholders.
fn with_messages(entry: &StoredEntry, kept: &[u32]) -> StoredEntry {
    let rebuilt = || {
        let (parsed, bytes, payload) = parts_of(entry)?;
        let batch = records_of(&parsed, &payload).filter(|batch| batch.len() > kept.len())?;
        let mut records = BytesMut::new();
        for (number, record) in (0..).zip(&batch) {
            if kept.contains(&number) {
                put_record(&mut records, &record.metadata, &record.payload);
            } else {
                let placeholder = pb::SingleMessageMetadata { compacted_out: Some(true), ..Default::default() };
                put_record(&mut records, &placeholder.encode_to_vec(), &[]);
            }
        }
        let mut metadata = pb::MessageMetadata::decode(bytes).ok()?;
        metadata.compression = None;
        metadata.uncompressed_size = u32::try_from(records.len()).ok();
        let mut whole = BytesMut::new();
        put_with_length(&mut whole, &metadata.encode_to_vec());
        whole.put_slice(&records);
        Some(whole.freeze())
    };
    match rebuilt() {
        None => entry.clone(),
        Some(bytes) => {
            let info = super::EntryInfo { checksum_bytes: 0, ..entry.info.clone() };
            StoredEntry { bytes, info, ..entry.clone() }
        }
    }
}

fn put_record(out: &mut BytesMut, metadata: &[u8], payload: &[u8]) {
    put_with_length(out, metadata);
    out.put_slice(payload);
}

fn put_with_length(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}
