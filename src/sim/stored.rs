//! The stored messages of the brokers, one by one, for the checks of an application.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::machine::Broker;
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{Assembly, Chunk, ChunkLimits, Step};
use crate::wire::MAX_UNCOMPRESSED_SIZE_MAX;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// One stored message.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// The name of its producer.
    pub producer_name: String,
    /// `sequence_id` of its entry.
    pub sequence_id: u64,
    /// The payload.
    pub payload: Bytes,
}

pub(super) fn stored(broker: &Broker, topic: &str) -> Vec<StoredMessage> {
    let mut messages = Vec::new();
    let mut chunks = Assembly::new(ChunkLimits {
        message_bytes_max: usize::MAX,
        pending_max: usize::MAX,
        pending_bytes_max: usize::MAX,
        expire_after: Duration::ZERO,
    });
    for entry in broker.stored_entries(topic) {
        let at =
            MessagePosition { partition: entry.partition, ..MessagePosition::new(entry.ledger_id, entry.entry_id) };
        read_entry(&entry.bytes, at, &mut chunks, &mut messages);
    }
    messages
}

/// Of a chunked message, that is with its last chunk, and once for all its copies.
fn read_entry(bytes: &Bytes, at: MessagePosition, chunks: &mut Assembly, into: &mut Vec<StoredMessage>) -> Option<()> {
    let parts = EntryParts::split(bytes).ok()?;
    let raw = bytes.get(parts.metadata.clone())?;
    let read = Metadata::decode(raw).ok()?;
    let (mut payload, mut id) = (bytes.slice(parts.payload.clone()), MessageId::from_position(at));
    if let Some(chunk) = Chunk::of(&read, raw, at, &payload).filter(|chunk| chunk.num_chunks > 1) {
        let Step::Complete(assembled) = chunks.add(&chunk, Instant::now()) else { return None };
        payload = assembled.payload.into();
        id = id.with_first_chunk(&(*assembled.inner.first()?).into());
    }
    let payload = decompress(read.compression, &payload, read.uncompressed_size, MAX_UNCOMPRESSED_SIZE_MAX).ok()?;
    let producer_name = metadata::text(raw, &read.producer_name).to_owned();
    let Some(size) = read.num_messages_in_batch else {
        into.push(StoredMessage { id, producer_name, sequence_id: read.sequence_id, payload });
        return Some(());
    };
    let mut cursor = BatchCursor::new(size, payload.len()).ok()?;
    for index in 0..size {
        let record = cursor.next(&payload)?.ok()?;
        into.push(StoredMessage {
            id: MessagePosition { batch_index: index, batch_size: size, ..at }.into(),
            producer_name: producer_name.clone(),
            sequence_id: read.sequence_id,
            payload: payload.slice(record.payload),
        });
    }
    Some(())
}

pub(super) fn is_acknowledged(broker: &Broker, topic: &str, subscription: &str, id: &MessageId) -> Option<bool> {
    let id = id.position();
    broker.is_acknowledged(topic, subscription, (id.ledger_id, id.entry_id), u32::try_from(id.batch_index).ok())
}
