//! Keys and properties of the messages in a frame: what people look for, and what a row tells.

use crate::tap::FrameObservation;
use crate::wire::batch::BatchCursor;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata, SingleMetadata};

/// Messages of a batch that are looked at.
const MESSAGES_MAX: u32 = 64;

/// Keys, and properties, that are kept of a frame.
const KEPT_MAX: usize = 64;

/// See the [module](self).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) keys: Vec<String>,
    pub(super) properties: Vec<(String, String)>,
}

impl Contents {
    /// Of SEND and MESSAGE whose bytes are kept; of others there are none. Batches that are compressed or encrypted are not opened.
    pub(super) fn of(frame: &FrameObservation) -> Self {
        let mut contents = Self::default();
        if let Some(bytes) = frame.bytes.as_deref().filter(|_| matches!(frame.command, "SEND" | "MESSAGE")) {
            // What cannot be read has neither.
            let _ = entry(bytes).and_then(|entry| contents.read(entry));
        }
        contents
    }

    fn read(&mut self, entry: &[u8]) -> Option<()> {
        let parts = EntryParts::split(entry).ok()?;
        let (of, payload) = (entry.get(parts.metadata)?, entry.get(parts.payload)?);
        let metadata = Metadata::decode(of).ok()?;
        let key = metadata.partition_key.as_ref().map(|range| metadata::text(of, range));
        self.put(key, metadata::message_properties(of));
        let count = metadata.num_messages_in_batch.filter(|_| metadata.compression == 0 && !metadata.encrypted)?;
        let mut batch = BatchCursor::new(count, payload.len()).ok()?;
        while batch.index() < MESSAGES_MAX {
            let record = batch.next(payload)?.ok()?;
            let of = payload.get(record.metadata_range)?;
            let SingleMetadata { partition_key, .. } = record.metadata;
            let key = partition_key.as_ref().map(|range| metadata::text(of, range));
            self.put(key, metadata::single_properties(of));
        }
        Some(())
    }

    fn put(&mut self, key: Option<&str>, properties: metadata::Properties<'_>) {
        let cut = |text| super::record::cut(text).into_owned();
        if let Some(key) = key.filter(|key| self.keys.len() < KEPT_MAX && !self.keys.iter().any(|known| known == key)) {
            self.keys.push(cut(key));
        }
        for (name, value) in properties.take(KEPT_MAX.saturating_sub(self.properties.len())) {
            self.properties.push((cut(name), cut(value)));
        }
    }
}

/// What is behind the command: its size is the second field of a frame.
fn entry(frame: &[u8]) -> Option<&[u8]> {
    let (size, rest) = frame.get(4..)?.split_first_chunk()?;
    rest.get(u32::from_be_bytes(*size) as usize..)
}
