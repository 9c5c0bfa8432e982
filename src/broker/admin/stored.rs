//! The stored messages of a topic, one by one, as tests look at them.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::machine::Broker;
use crate::broker::storage::{EntryPosition, StoredEntry};
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{Assembly, Chunk, ChunkLimits, Step};
use crate::topic::TopicName;
use crate::wire::MAX_UNCOMPRESSED_SIZE_MAX;
use crate::wire::batch::BatchCursor;
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;
use crate::wire::metadata::{self, Metadata};

/// A message that a broker stores, whether anyone has received it or not.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// The name of its producer.
    pub producer_name: String,
    /// Its `sequence_id`.
    pub sequence_id: u64,
    /// Its key (`partition_key`), as text; of a binary key its base64.
    pub key: Option<String>,
    /// Its properties, in their order.
    pub properties: Vec<(String, String)>,
    /// The time that its application gave it, ms since 1970.
    pub event_time_ms: Option<u64>,
    /// When it was published by its producer's clock, ms since 1970.
    pub publish_time_ms: u64,
    /// The payload; where it is not [open](Self::is_open), what is stored of the whole entry.
    pub payload: Bytes,
    /// Whether the payload is what the application gave. False for an entry that is encrypted, damaged, or compressed by a
    /// codec that this build does not have; of a batch, none of its members is then seen.
    pub is_open: bool,
}

impl fmt::Debug for StoredMessage {
    /// Of the payload its length alone, and no property: they are the application's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("id", &format_args!("{}", self.id))
            .field("producer_name", &self.producer_name)
            .field("sequence_id", &self.sequence_id)
            .field("key", &self.key)
            .field("payload_bytes", &self.payload.len())
            .field("is_open", &self.is_open)
            .finish_non_exhaustive()
    }
}

/// What is stored and acknowledged.
impl Broker {
    /// The stored messages of a topic, oldest first; of a partitioned topic those of each partition in turn. A chunked
    /// message is one, in the place of its last chunk, and is left out while it is not complete. What was acknowledged may
    /// be gone ([`max_stored_bytes`](crate::broker::EmbeddedBrokerBuilder::max_stored_bytes)).
    pub fn stored_messages(&self, topic: &str) -> Vec<StoredMessage> {
        let mut messages = Vec::new();
        for found in self.topics.resolve(topic).iter().filter_map(|name| self.topics.get(name)) {
            let mut opener = Opener { partition: found.partition(), chunks: unbounded(), messages };
            let entries = (found.log.first()..found.log.end()).filter_map(|offset| found.log.get(offset));
            entries.for_each(|entry| opener.add(entry));
            messages = opener.messages;
        }
        messages
    }

    /// Whether a subscription has acknowledged an entry, or one member of a batch. `None` if any of them is unknown.
    pub(crate) fn is_acknowledged(
        &self,
        topic: &str,
        subscription: &str,
        (ledger_id, entry_id): (u64, u64),
        member: Option<u32>,
    ) -> Option<bool> {
        let name = TopicName::parse(topic).ok()?;
        let found = self.topics.get(name.as_str())?;
        let cursor = &found.subscriptions.get(subscription)?.cursor;
        let position = EntryPosition::from_wire(ledger_id, entry_id);
        if found.log.has_dropped(position) {
            // What is dropped was acknowledged by every subscription.
            return Some(true);
        }
        let offset = found.log.offset(position)?;
        Some(match member {
            Some(member) => cursor.is_member_acked(offset, member),
            None => cursor.is_acked(offset),
        })
    }
}

/// Bounded by what is stored.
fn unbounded() -> Assembly {
    Assembly::new(ChunkLimits {
        message_bytes_max: usize::MAX,
        pending_max: usize::MAX,
        pending_bytes_max: usize::MAX,
        expire_after: Duration::ZERO,
    })
}

/// Opens the entries of one topic, in order.
struct Opener {
    partition: i32,
    chunks: Assembly,
    messages: Vec<StoredMessage>,
}

impl Opener {
    fn add(&mut self, entry: &StoredEntry) {
        let (ledger, number) = (entry.position.ledger as u64, entry.position.entry as u64);
        let at = MessagePosition { partition: self.partition, ..MessagePosition::new(ledger, number) };
        let Some((raw, read, body)) = parts_of(&entry.bytes) else {
            return self.messages.push(StoredMessage { payload: entry.bytes.clone(), ..unread(at) });
        };
        let chunk = Chunk::of(&read, raw, at, &body).filter(|chunk| chunk.num_chunks > 1);
        let (id, body) = match chunk {
            None => (at.into(), body),
            Some(chunk) => {
                // All its chunks are one message, and once for all their copies.
                let Step::Complete(assembled) = self.chunks.add(&chunk, Instant::now()) else { return };
                let Some(first) = assembled.inner.first() else { return };
                (MessageId::from(at).with_first_chunk(&(*first).into()), assembled.payload.into())
            }
        };
        let closed = StoredMessage { id, payload: body.clone(), ..of_metadata(at, raw, &read) };
        if self.open(at, &closed, &read, &body).is_none() {
            self.messages.push(closed);
        }
    }

    /// `None` where nothing can be opened, and then nothing is added.
    fn open(&mut self, at: MessagePosition, closed: &StoredMessage, read: &Metadata, body: &Bytes) -> Option<()> {
        if read.encrypted {
            return None;
        }
        let payload = decompress(read.compression, body, read.uncompressed_size, MAX_UNCOMPRESSED_SIZE_MAX).ok()?;
        let Some(size) = read.num_messages_in_batch else {
            self.messages.push(StoredMessage { payload, is_open: true, ..closed.clone() });
            return Some(());
        };
        let mut cursor = BatchCursor::new(size, payload.len()).ok()?;
        let mut members = Vec::new();
        for index in 0..size {
            let record = cursor.next(&payload)?.ok()?;
            let (raw, single) = (&payload[record.metadata_range], record.metadata);
            members.push(StoredMessage {
                id: MessagePosition { batch_index: index, batch_size: size, ..at }.into(),
                producer_name: closed.producer_name.clone(),
                sequence_id: single.sequence_id.unwrap_or(closed.sequence_id.wrapping_add(index.unsigned_abs().into())),
                key: single.partition_key.as_ref().map(|key| metadata::text(raw, key).to_owned()),
                properties: owned(metadata::single_properties(raw)),
                event_time_ms: Some(single.event_time_ms).filter(|time| *time > 0),
                publish_time_ms: closed.publish_time_ms,
                payload: payload.slice(record.payload),
                is_open: true,
            });
        }
        self.messages.append(&mut members);
        Some(())
    }
}

/// The serialized metadata, what it says, and what follows it.
fn parts_of(entry: &Bytes) -> Option<(&[u8], Metadata, Bytes)> {
    let parts = EntryParts::split(entry).ok()?;
    parts.verify(entry).ok()?;
    let raw = entry.get(parts.metadata)?;
    Some((raw, Metadata::decode(raw).ok()?, entry.slice(parts.payload)))
}

/// An entry whose metadata cannot be read.
fn unread(at: MessagePosition) -> StoredMessage {
    StoredMessage {
        id: at.into(),
        producer_name: String::new(),
        sequence_id: 0,
        key: None,
        properties: Vec::new(),
        event_time_ms: None,
        publish_time_ms: 0,
        payload: Bytes::new(),
        is_open: false,
    }
}

fn of_metadata(at: MessagePosition, raw: &[u8], read: &Metadata) -> StoredMessage {
    StoredMessage {
        producer_name: metadata::text(raw, &read.producer_name).to_owned(),
        sequence_id: read.sequence_id,
        key: read.partition_key.as_ref().map(|key| metadata::text(raw, key).to_owned()),
        properties: owned(metadata::message_properties(raw)),
        event_time_ms: Some(read.event_time_ms).filter(|time| *time > 0),
        publish_time_ms: read.publish_time_ms,
        ..unread(at)
    }
}

fn owned(properties: metadata::Properties<'_>) -> Vec<(String, String)> {
    properties.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
