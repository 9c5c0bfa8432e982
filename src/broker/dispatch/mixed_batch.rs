//! Batches of several keys on Key_Shared: the broker looks into no batch, so all of its messages go to the consumer of the
//! first one's key.

use super::Dispatcher;
use crate::broker::conformance::Rule;
use crate::broker::ids::ConsumerKey;
use crate::broker::storage::StoredEntry;
use crate::hash::murmur3_32;
use crate::pb::command_subscribe::SubType;
use crate::wire::MAX_UNCOMPRESSED_SIZE_DEFAULT;
use crate::wire::batch::{BatchCursor, Record};
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

impl Dispatcher<'_> {
    /// Records a batch of several keys that is sent on Key_Shared for the first time.
    pub(super) fn judge_batch(&mut self, entry: &StoredEntry, key: ConsumerKey, redelivery_count: u32) {
        let is_looked_into = self.sub.sub_type() == SubType::KeyShared
            && redelivery_count == 0
            && entry.info.batch.is_some_and(|messages| messages > 1);
        if !is_looked_into || mixes_keys(entry) != Some(true) {
            return;
        }
        let detail = || format!("entry {} holds messages of several keys", entry.position);
        self.conformance.record(key.conn, Rule::MixedBatchOnKeyShared, detail);
    }
}

/// Whether a batch has messages of several keys; `None` for one that cannot be read here, an encrypted one among them.
fn mixes_keys(entry: &StoredEntry) -> Option<bool> {
    let parts = EntryParts::split(&entry.bytes).ok()?;
    let parsed = Metadata::decode(entry.bytes.get(parts.metadata)?).ok()?;
    let (codec, uncompressed_size) = (parsed.compression, parsed.uncompressed_size);
    let payload = entry.bytes.slice(parts.payload);
    let records = decompress(codec, &payload, uncompressed_size, MAX_UNCOMPRESSED_SIZE_DEFAULT).ok()?;
    let mut cursor = BatchCursor::new(parsed.num_messages_in_batch?, records.len()).ok()?;
    let mut first = None;
    while let Some(record) = cursor.next(&records) {
        let key = sticky_key(&record.ok()?, &records);
        if *first.get_or_insert(key) != key {
            return Some(true);
        }
    }
    Some(false)
}

/// By what a message is assigned, as the hash of its bytes; `None` for one without a key.
fn sticky_key(record: &Record, records: &[u8]) -> Option<u32> {
    let single = records.get(record.metadata_range.clone())?;
    let key = record.metadata.ordering_key.as_ref().or(record.metadata.partition_key.as_ref())?;
    Some(murmur3_32(metadata::bytes(single, key)))
}
