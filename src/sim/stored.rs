//! The stored messages of the brokers, one by one, for the checks of an application.

use bytes::Bytes;

use crate::broker::machine::Broker;
use crate::id::{MessageId, MessagePosition};
use crate::topic::TopicName;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// The most bytes that a payload may decompress to.
const UNCOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub id: MessageId,
    /// The name of its producer.
    pub producer_name: String,
    /// `sequence_id` of its entry.
    pub sequence_id: u64,
    /// The payload.
    pub payload: Bytes,
}

pub(super) fn stored(broker: &Broker, topic: &str) -> Vec<Stored> {
    let Ok(name) = TopicName::parse(topic) else { return Vec::new() };
    let Some(found) = broker.topics.get(name.as_str()) else { return Vec::new() };
    let mut messages = Vec::new();
    for offset in found.log.first()..found.log.end() {
        let Some(entry) = found.log.get(offset) else { continue };
        let id = MessagePosition {
            partition: found.partition(),
            ..MessagePosition::new(entry.position.ledger as u64, entry.position.entry as u64)
        };
        read_entry(&entry.bytes, id, &mut messages);
    }
    messages
}

fn read_entry(bytes: &Bytes, at: MessagePosition, into: &mut Vec<Stored>) -> Option<()> {
    let parts = EntryParts::split(bytes).ok()?;
    let raw = bytes.get(parts.metadata.clone())?;
    let read = Metadata::parse(raw).ok()?;
    let payload = bytes.slice(parts.payload.clone());
    let payload = decompress(read.compression, &payload, read.uncompressed_size, UNCOMPRESSED_BYTES_MAX).ok()?;
    let producer_name = metadata::text(raw, &read.producer_name).to_owned();
    let Some(size) = read.num_messages_in_batch else {
        into.push(Stored { id: at.into(), producer_name, sequence_id: read.sequence_id, payload });
        return Some(());
    };
    let mut cursor = BatchCursor::new(size, payload.len()).ok()?;
    for index in 0..size {
        let record = cursor.next(&payload)?.ok()?;
        into.push(Stored {
            id: MessagePosition { batch_index: index, batch_size: size, ..at }.into(),
            producer_name: producer_name.clone(),
            sequence_id: read.sequence_id,
            payload: payload.slice(record.payload),
        });
    }
    Some(())
}

pub(super) fn is_acknowledged(broker: &Broker, topic: &str, subscription: &str, id: &MessageId) -> Option<bool> {
    let (name, id) = (TopicName::parse(topic).ok()?, id.position());
    let found = broker.topics.get(name.as_str())?;
    let cursor = &found.subscriptions.get(subscription)?.cursor;
    let position = crate::broker::Position::from_wire(id.ledger_id, id.entry_id);
    let offset = found.log.offset(position)?;
    if cursor.is_acked(offset) {
        return Some(true);
    }
    let words = cursor.ack_set(offset);
    let Ok(index) = usize::try_from(id.batch_index) else { return Some(false) };
    // No words: nothing of it is acknowledged. A missing word counts as acknowledged.
    let is_live = words.is_empty() || words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1);
    Some(!is_live)
}
