//! Received messages: ranges over a decoded entry, parsed on demand.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::encryption::EncryptionContext;
use super::parts::Part;
use crate::base64_text;
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::{Consumer, EntryBody};
use crate::machine::producer::Message;
use crate::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::wall_time::from_ms;
use crate::wire::batch::RecordRange;
use crate::wire::entry::BrokerEntryMetadata;
use crate::wire::metadata::{self, Metadata, Properties, SingleMetadata, message_properties, single_properties};

/// A received message: payload, key, properties and id. Fields are parsed on access.
///
/// Cloning it copies no payload. It keeps alive the read buffer in which it arrived; for messages that are kept for
/// long, [`Self::detach`] makes a copy that does not.
///
/// ```no_run
/// # async fn example(mut consumer: pulsar_native::Consumer) -> Result<(), pulsar_native::Error> {
/// let message = consumer.receive().await?;
/// println!("{} of {} at {:?}", message.id(), message.topic(), message.publish_time());
/// println!("key {:?}, {} bytes", message.key(), message.payload().len());
/// for (name, value) in message.properties() {
///     println!("{name} = {value}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReceivedMessage {
    /// The entry, which all its messages share: a message itself is 24 bytes, because each is moved several times.
    entry: Arc<DecodedEntry>,
    /// Offsets into the bytes that hold the entry's payload. The message's own metadata, which only a member of a batch
    /// has, is `start..payload_at`; its payload is `payload_at..end`.
    start: u32,
    payload_at: u32,
    end: u32,
    /// -1 outside a batch.
    batch_index: i32,
}

/// A decoded entry, shared by its messages.
#[derive(Clone)]
pub(super) struct DecodedEntry {
    /// The part that delivered it and receives its acknowledgements.
    part: Arc<Part<Consumer>>,
    /// The position of the whole entry, with the size of its batch.
    position: MessagePosition,
    raw: Bytes,
    /// A payload that was decompressed or assembled; `None` if it is in `raw` as it is.
    inflated: Option<Box<Inflated>>,
    /// The payload, in `inflated` or in `raw`.
    payload: Range<u32>,
    /// The serialized metadata, in `raw`.
    metadata: Range<u32>,
    /// The serialized metadata of the broker, in `raw`.
    broker: Option<Range<u32>>,
    redelivery_count: u32,
    /// When it was opened, if it is one of those whose processing is timed.
    opened_at: Option<Instant>,
}

/// A payload that does not lie in its entry as it is.
#[derive(Clone)]
pub(super) struct Inflated {
    pub(super) payload: Bytes,
    /// Of a chunked message, whose entry is that of the last chunk: the first one.
    pub(super) first_chunk: Option<MessagePosition>,
}

impl DecodedEntry {
    /// Without an entry.
    pub(super) fn empty(part: Arc<Part<Consumer>>) -> Self {
        Self {
            part,
            position: MessagePosition::EARLIEST,
            raw: Bytes::new(),
            inflated: None,
            payload: 0..0,
            metadata: 0..0,
            broker: None,
            redelivery_count: 0,
            opened_at: None,
        }
    }

    /// The position of the whole entry, with the size of its batch; [`MessagePosition::EARLIEST`] without one.
    pub(super) fn position(&self) -> MessagePosition {
        self.position
    }

    /// Sets the entry. `inflated` is the payload if it had to be decompressed or assembled.
    #[inline]
    pub(super) fn fill(
        &mut self,
        position: MessagePosition,
        raw: Bytes,
        body: &EntryBody,
        inflated: Option<Inflated>,
        redelivery_count: u32,
        opened_at: Option<Instant>,
    ) {
        self.opened_at = opened_at;
        self.position = position;
        self.payload = match &inflated {
            None => to_u32_range(body.payload(&raw)),
            Some(inflated) => 0..to_u32(inflated.payload.len()),
        };
        self.raw = raw;
        self.inflated = inflated.map(Box::new);
        self.metadata = to_u32_range(body.metadata());
        self.broker = body.broker_metadata().map(to_u32_range);
        self.redelivery_count = redelivery_count;
    }

    /// Releases the bytes and keeps the memory for the next entry.
    pub(super) fn clear(&mut self) {
        *self = Self::empty(self.part.clone());
    }

    /// A copy of the entry as it is stored: nothing is decompressed. The payload is what follows the metadata.
    pub(super) fn stored(&self) -> Self {
        let raw = Bytes::copy_from_slice(&self.raw);
        let payload = self.metadata.end..to_u32(raw.len());
        Self { raw, payload, inflated: None, opened_at: None, ..self.clone() }
    }

    /// The payload of the whole entry.
    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload_holder()[to_range(&self.payload)]
    }

    #[inline]
    fn payload_holder(&self) -> &Bytes {
        self.inflated.as_ref().map_or(&self.raw, |inflated| &inflated.payload)
    }

    fn metadata_bytes(&self) -> &[u8] {
        &self.raw[to_range(&self.metadata)]
    }

    /// The metadata. Cannot fail: it was parsed when the entry arrived.
    fn metadata(&self) -> Metadata {
        Metadata::decode(self.metadata_bytes()).unwrap_or_default()
    }

    /// The broker's metadata. If it is unreadable it counts as absent: the message itself is valid.
    fn broker(&self) -> Option<BrokerEntryMetadata> {
        BrokerEntryMetadata::decode(&self.raw[to_range(self.broker.as_ref()?)]).ok()
    }
}

impl ReceivedMessage {
    /// The only message of an entry that is not a batch.
    #[inline]
    pub(super) fn single(entry: Arc<DecodedEntry>) -> Self {
        let Range { start, end } = entry.payload;
        Self { entry, start, payload_at: start, end, batch_index: -1 }
    }

    /// A member of a batch. Offsets of the record count from the start of the entry's payload.
    #[inline]
    pub(super) fn member(entry: Arc<DecodedEntry>, record: RecordRange, index: u32) -> Self {
        let at = |offset| entry.payload.start + to_u32(offset);
        let (start, payload_at, end) = (at(record.metadata_at), at(record.payload_at), at(record.end));
        // Sizes of batches are bounded far below 2^31.
        Self { entry, start, payload_at, end, batch_index: i32::try_from(index).unwrap_or(i32::MAX) }
    }

    /// The part it came from.
    #[inline]
    pub(super) fn part(&self) -> &Part<Consumer> {
        &self.entry.part
    }

    /// When its entry was opened, if that is timed and this is the first message of it.
    #[inline]
    pub(super) fn timed_since(&self) -> Option<Instant> {
        self.entry.opened_at.filter(|_| self.batch_index <= 0)
    }

    /// The serialized metadata of its entry.
    pub(super) fn metadata_bytes(&self) -> &[u8] {
        self.entry.metadata_bytes()
    }

    #[inline]
    fn entry(&self) -> &DecodedEntry {
        &self.entry
    }

    /// The serialized metadata of a member of a batch.
    fn own_bytes(&self) -> Option<&[u8]> {
        (self.batch_index >= 0).then(|| &self.entry.payload_holder()[to_range(&(self.start..self.payload_at))])
    }

    /// The member's own metadata, and the bytes that its ranges refer to. Cannot fail: it was parsed when the batch was
    /// split.
    fn own(&self) -> Option<(SingleMetadata, &[u8])> {
        self.own_bytes().map(|bytes| (SingleMetadata::decode(bytes).unwrap_or_default(), bytes))
    }

    /// The message's id, including its topic; the message can be acknowledged with it later.
    #[inline]
    pub fn id(&self) -> MessageId {
        let id = MessageId::from_position(self.position()).with_topic(self.entry.part.topic.clone());
        match self.entry.inflated.as_ref().and_then(|inflated| inflated.first_chunk) {
            Some(first) => id.with_first_chunk(&first.into()),
            None => id,
        }
    }

    /// The id without its topic, so without incrementing a reference count.
    #[inline]
    pub(super) fn position(&self) -> MessagePosition {
        MessagePosition { batch_index: self.batch_index, ..self.entry.position }
    }

    /// The full name of the topic, or of the partition if the topic is partitioned.
    pub fn topic(&self) -> &str {
        &self.entry().part.topic
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.entry().payload_holder()[to_range(&(self.payload_at..self.end))]
    }

    /// The payload, shared with the buffer it came in and not copied.
    pub fn payload_shared(&self) -> Bytes {
        self.entry().payload_holder().slice(to_range(&(self.payload_at..self.end)))
    }

    /// The payload as text; invalid UTF-8 is replaced by U+FFFD.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.payload())
    }

    /// The key (`partition_key`) as stored: for a binary key its base64 text, see [`Self::key_is_base64`].
    pub fn key(&self) -> Option<&str> {
        match self.own() {
            Some((single, bytes)) => single.partition_key.map(|range| metadata::text(bytes, &range)),
            None => {
                let entry = self.entry();
                entry.metadata().partition_key.map(|range| metadata::text(entry.metadata_bytes(), &range))
            }
        }
    }

    /// Whether the key is the base64 text of a binary key (`partition_key_b64_encoded`).
    pub fn key_is_base64(&self) -> bool {
        match self.own() {
            Some((single, _)) => single.partition_key_b64,
            None => self.entry().metadata().partition_key_b64,
        }
    }

    /// The key as bytes: a binary key decoded from its base64, any other as its text. `None` without a key, and where
    /// the key claims to be base64 and is not.
    pub fn key_bytes(&self) -> Option<Cow<'_, [u8]>> {
        let key = self.key()?;
        if self.key_is_base64() {
            base64_text::decode(key).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(key.as_bytes()))
        }
    }

    /// Whether the key is null (`null_partition_key`), which is not the same as none.
    pub fn key_is_null(&self) -> bool {
        match self.own() {
            Some((single, _)) => single.null_partition_key,
            None => self.entry().metadata().null_partition_key,
        }
    }

    /// The ordering key (`ordering_key`).
    pub fn ordering_key(&self) -> Option<&[u8]> {
        match self.own() {
            Some((single, bytes)) => single.ordering_key.map(|range| metadata::bytes(bytes, &range)),
            None => {
                let entry = self.entry();
                entry.metadata().ordering_key.map(|range| metadata::bytes(entry.metadata_bytes(), &range))
            }
        }
    }

    /// The properties in the order in which they were set.
    pub fn properties(&self) -> Properties<'_> {
        match self.own_bytes() {
            Some(bytes) => single_properties(bytes),
            None => message_properties(self.entry().metadata_bytes()),
        }
    }

    /// The value of a property; the last one if several have this name.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties().filter(|&(key, _)| key == name).last().map(|(_, value)| value)
    }

    /// The distributed trace that its sender has put into the properties `traceparent` and `tracestate`. A `tracestate`
    /// that cannot be read is left out; without a `traceparent` that can be read there is none.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::of(self.property(TRACEPARENT), self.property(TRACESTATE))
    }

    /// How its entry was encrypted, end to end; `None` if it was not. It is there whether or not the payload is
    /// [decrypted](EncryptionContext::is_decrypted).
    #[doc(alias = "getEncryptionCtx")]
    pub fn encryption_context(&self) -> Option<EncryptionContext<'_>> {
        EncryptionContext::of(self.entry().metadata_bytes(), self.entry().inflated.is_some())
    }

    /// How often it was delivered before (`redelivery_count`). Only on Shared and Key_Shared subscriptions; the broker
    /// resets it when it restarts or the last consumer disconnects.
    pub fn redelivery_count(&self) -> u32 {
        self.entry().redelivery_count
    }

    /// The name of the producer.
    pub fn producer_name(&self) -> &str {
        let entry = self.entry();
        metadata::text(entry.metadata_bytes(), &entry.metadata().producer_name)
    }

    /// The producer's sequence id of the message.
    pub fn sequence_id(&self) -> u64 {
        self.own().and_then(|(single, _)| single.sequence_id).unwrap_or_else(|| self.entry().metadata().sequence_id)
    }

    /// When it was published, by the producer's clock. All times of a message have millisecond precision.
    pub fn publish_time(&self) -> SystemTime {
        from_ms(self.entry().metadata().publish_time_ms)
    }

    /// The event time that the producing application set, if any.
    pub fn event_time(&self) -> Option<SystemTime> {
        let ms = match self.own() {
            Some((single, _)) => single.event_time_ms,
            None => self.entry().metadata().event_time_ms,
        };
        (ms != 0).then(|| from_ms(ms))
    }

    /// The time before which it was not to be delivered (`deliver_at_time`), if its producer set one.
    pub fn deliver_at(&self) -> Option<SystemTime> {
        let ms = self.entry().metadata().deliver_at_time_ms?;
        Some(from_ms(u64::try_from(ms).unwrap_or(0)))
    }

    /// The cluster that it was first published in (`replicated_from`), if it was replicated from another one.
    #[doc(alias = "isReplicated")]
    #[doc(alias = "getReplicatedFrom")]
    pub fn replicated_from(&self) -> Option<&str> {
        let entry = self.entry();
        entry.metadata().replicated_from.map(|range| metadata::text(entry.metadata_bytes(), &range))
    }

    /// The clusters that its producer chose for it (`replicate_to`); none: those of the namespace; `__local__` alone: no other
    /// than that it was published in. Those of a batch of the Java client are what its first message has.
    pub fn replication_clusters(&self) -> impl Iterator<Item = &str> {
        metadata::replicate_to(self.entry().metadata_bytes())
    }

    /// A message to be published that has the payload, key, ordering key and event time of this one, and these properties.
    /// The payload is shared and not copied.
    ///
    /// ```no_run
    /// # async fn example(message: pulsar_native::ReceivedMessage, copies: pulsar_native::Producer) -> Result<(), pulsar_native::SendError> {
    /// copies.send(message.to_message(message.properties())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_message<K: Into<String>, V: Into<String>>(
        &self,
        properties: impl IntoIterator<Item = (K, V)>,
    ) -> Message {
        let mut message = Message::new(self.payload_shared()).with_properties(properties);
        if self.is_null() {
            message = message.with_null_value();
        }
        message = match (self.key_is_base64(), self.key_bytes(), self.key()) {
            (true, Some(bytes), _) => message.with_key_bytes(bytes),
            (_, _, Some(key)) => message.with_key(key),
            _ if self.key_is_null() => message.with_null_key(),
            _ => message,
        };
        if let Some(key) = self.ordering_key() {
            message = message.with_ordering_key(key.to_vec());
        }
        match self.event_time() {
            Some(time) => message.with_event_time(time),
            None => message,
        }
    }

    /// Whether the value is null (a tombstone), which is not the same as empty.
    pub fn is_null(&self) -> bool {
        match self.own() {
            Some((single, _)) => single.null_value,
            None => self.entry().metadata().null_value,
        }
    }

    /// When the broker received it, if the broker adds that (PIP-70, broker entry metadata).
    pub fn broker_publish_time(&self) -> Option<SystemTime> {
        self.entry().broker().and_then(|broker| broker.broker_timestamp).map(from_ms)
    }

    /// Its index in the topic, counted from 0, if the broker adds that (PIP-70). The broker gives the index of the
    /// entry's last message; this one's place in its batch is taken into account. For a whole batch, as
    /// [`UnreadableMessage::message`](super::UnreadableMessage::message) gives it, the index of its first message.
    pub fn index(&self) -> Option<u64> {
        let last = self.entry().broker()?.index?;
        let behind = (self.entry.position.batch_size - 1 - self.batch_index.max(0)).max(0);
        last.checked_sub(u64::try_from(behind).ok()?)
    }

    /// The schema version it was written with (`schema_version`), if any.
    pub fn schema_version(&self) -> Option<&[u8]> {
        let entry = self.entry();
        entry.metadata().schema_version.map(|range| metadata::bytes(entry.metadata_bytes(), &range))
    }

    /// The id of its schema in a registry outside of Pulsar (`schema_id`, PIP-420, since 4.1), as it travels: see
    /// [`Message::with_schema_id`].
    pub fn schema_id(&self) -> Option<&[u8]> {
        let entry = self.entry();
        entry.metadata().schema_id.map(|range| metadata::bytes(entry.metadata_bytes(), &range))
    }

    /// A copy that does not keep the read buffer alive. It copies the whole entry: of a member of a batch the whole
    /// batch, decompressed, once for each call. Where only the payload is needed, copy [`Self::payload`].
    #[must_use]
    pub fn detach(&self) -> Self {
        let entry = self.entry();
        // The compressed form of the payload is not copied.
        let used = if entry.inflated.is_some() { entry.metadata.end as usize } else { entry.raw.len() };
        let copied = DecodedEntry {
            raw: Bytes::copy_from_slice(&entry.raw[..used]),
            inflated: entry.inflated.as_ref().map(|inflated| {
                Box::new(Inflated { payload: Bytes::copy_from_slice(&inflated.payload), ..**inflated })
            }),
            ..entry.clone()
        };
        Self { entry: Arc::new(copied), ..self.clone() }
    }
}

#[inline]
fn to_u32(offset: usize) -> u32 {
    // Payloads are bounded well below 4 GiB by the frame limit and the cap on decompression.
    u32::try_from(offset).unwrap_or(u32::MAX)
}

fn to_u32_range(range: Range<usize>) -> Range<u32> {
    to_u32(range.start)..to_u32(range.end)
}

#[inline]
fn to_range(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("id", &format_args!("{}", self.id()))
            .field("topic", &self.topic())
            .field("key", &self.key())
            .field("payload_bytes", &self.payload().len())
            .field("redelivery_count", &self.redelivery_count())
            .finish_non_exhaustive()
    }
}
