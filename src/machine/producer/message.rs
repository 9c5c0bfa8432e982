//! A message on its way out.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::extras::{Delivery, Extras, NO_EXTRAS};
use super::key_batches::BatchKey;
use crate::base64_text;
use crate::machine::Now;
use crate::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::wall_time::{from_ms, to_ms};
use crate::wire::metadata::SingleFields;

/// In `replicate_to` it stands for the cluster that a message is sent to, whatever that is called.
const LOCAL_CLUSTER: &str = "__local__";

/// A message to be sent: its payload and what goes with it.
///
/// What it is made of is set by `with_` methods and read by methods of the bare name. Those that
/// [`ReceivedMessage`](crate::ReceivedMessage) has as well are the same there, except that
/// [`sequence_id`](Self::sequence_id) may be missing here: a payload and a key are borrowed, and
/// properties are an iterator of pairs, because a received message keeps them as they came and has no `String`s to lend.
///
/// | `MessageMetadata` | set by | read by |
/// | --- | --- | --- |
/// | `properties` | [`with_property`](Self::with_property), [`with_trace_context`](Self::with_trace_context) | `properties`, `trace_context` |
/// | `partition_key`, `partition_key_b64_encoded` | [`with_key`](Self::with_key), [`with_key_bytes`](Self::with_key_bytes) | `key`, `key_is_base64` |
/// | `null_partition_key` | [`with_null_key`](Self::with_null_key) | `key_is_null` |
/// | `ordering_key` | [`with_ordering_key`](Self::with_ordering_key) | `ordering_key` |
/// | `event_time` | [`with_event_time`](Self::with_event_time) | `event_time` |
/// | `deliver_at_time` | [`with_deliver_at`](Self::with_deliver_at), [`with_deliver_after`](Self::with_deliver_after) | `deliver_at` |
/// | `null_value` | [`with_null_value`](Self::with_null_value) | `is_null` |
/// | `sequence_id` | [`with_sequence_id`](Self::with_sequence_id), else counted | `sequence_id` |
/// | `replicate_to` | [`with_replication_clusters`](Self::with_replication_clusters), [`with_replication_disabled`](Self::with_replication_disabled) | `replication_clusters` |
/// | `replicated_from` | the broker of another cluster | `replicated_from` of a received one |
/// | `schema_id` | [`with_schema_id`](Self::with_schema_id) | `schema_id` |
/// | `schema_version` | the broker, for the schema of the producer | `schema_version` of a received one |
/// | `producer_name` | the producer | `producer_name` of a received one |
/// | `publish_time` | the producer, when it frames the message | `publish_time` of a received one |
/// | `encryption_keys`, `encryption_algo`, `encryption_param` | the producer, where it encrypts | `encryption_context` of a received one |
/// | `num_messages_in_batch`, `chunk_id` and the like | the producer | its [`MessageId`](crate::MessageId) |
/// | `index`, `broker_timestamp` (`BrokerEntryMetadata`) | the broker | `index`, `broker_publish_time` of a received one |
///
/// ```
/// use pulsar_native::Message;
///
/// let message = Message::new("hello").with_key("order-7").with_property("trace", "1f");
/// assert_eq!((message.payload(), message.key()), (&b"hello"[..], Some("order-7")));
/// assert_eq!(message.properties().collect::<Vec<_>>(), [("trace", "1f")]);
/// ```
#[must_use = "a message that is made and not sent is lost"]
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub(super) payload: Bytes,
    sequence_id: SequenceId,
    /// What few messages have. A message is moved about several times on its way in, so it is kept small.
    extras: Option<Box<Extras>>,
}

/// A sequence id, or none yet: kept plus one, so that it takes no more room than a number does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct SequenceId(Option<NonZeroU64>);

impl SequenceId {
    #[inline]
    fn get(self) -> Option<u64> {
        self.0.map(|above| above.get() - 1)
    }

    /// One that is too large for the protocol stays too large.
    #[inline]
    fn new(id: u64) -> Self {
        Self(NonZeroU64::new(id.saturating_add(1)))
    }
}

impl fmt::Debug for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Message {
    /// A message with this payload.
    #[inline]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), sequence_id: SequenceId(None), extras: None }
    }

    /// Adds a property (`MessageMetadata.properties`). Properties keep their order; of several with the same name
    /// the last one counts.
    pub fn with_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.extras_mut().properties.push((key.into(), value.into()));
        self
    }

    /// Adds several properties.
    pub fn with_properties<K: Into<String>, V: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.extras_mut().properties.extend(pairs.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// Adds the properties `traceparent` and `tracestate` of a distributed trace, which the receiver gets as
    /// [`ReceivedMessage::trace_context`](crate::ReceivedMessage::trace_context). See
    /// [`ProducerBuilder::trace_context`](crate::ProducerBuilder::trace_context) for all messages of a producer.
    pub fn with_trace_context(mut self, context: TraceContext) -> Self {
        self.set_trace_context(context);
        self
    }

    /// Sets the key (`partition_key`): messages with the same key go to the same partition and keep their order there.
    ///
    /// A Key_Shared subscription gets a batch as a whole, by the key of its first message. Producers for one need
    /// [`ProducerBuilder::batching_type`](crate::ProducerBuilder::batching_type) with
    /// [`KeyBased`](crate::BatchingType::KeyBased), or [`batching`](crate::ProducerBuilder::batching) off.
    #[doc(alias = "partition_key")]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        let extras = self.extras_mut();
        (extras.key, extras.key_b64) = (Some(key.into()), false);
        self
    }

    /// Sets a key of arbitrary bytes: it travels in base64, marked by `partition_key_b64_encoded`.
    #[doc(alias = "partition_key_b64_encoded")]
    pub fn with_key_bytes(mut self, key: impl AsRef<[u8]>) -> Self {
        let extras = self.extras_mut();
        (extras.key, extras.key_b64) = (Some(base64_text::encode(key.as_ref())), true);
        self
    }

    /// Makes its key null (`null_partition_key`), which is neither no key nor an empty one: a pair of key and value whose
    /// key is null, where the key travels apart from the value. It takes the place of a key that was set, and the message is
    /// never batched.
    pub fn with_null_key(mut self) -> Self {
        let extras = self.extras_mut();
        (extras.key, extras.key_b64) = (None, false);
        self.extras_mut().change_rare(|rare| rare.null_key = true);
        self
    }

    /// Sets the ordering key (`ordering_key`), which Key_Shared subscriptions use instead of the key.
    /// As for [`with_key`](Self::with_key), they see that of a batch's first message only.
    pub fn with_ordering_key(mut self, key: impl Into<Bytes>) -> Self {
        self.extras_mut().ordering_key = Some(key.into());
        self
    }

    /// Sets the application's own time (`event_time`), which travels in milliseconds.
    ///
    /// The protocol has no event times up to 1970-01-01 00:00:00 UTC (0 means that there is none) or after the year
    /// 292 million: such a message is refused with [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when it is
    /// sent.
    pub fn with_event_time(mut self, time: SystemTime) -> Self {
        match to_ms(time) {
            ms if ms > 0 && ms < i64::MAX => self.extras_mut().event_time_ms = ms.unsigned_abs(),
            _ => self.refuse("event_time must be after 1970-01-01 00:00:00 UTC and before the year 292 million"),
        }
        self
    }

    /// Sets the sequence id instead of having the producer count. Ids must grow; with deduplication one that does not
    /// is taken for a message that was stored before. At most 2^63 - 1: a message with a larger one is refused with
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when it is sent.
    pub fn with_sequence_id(mut self, id: u64) -> Self {
        if self.refused().is_none() {
            self.set_sequence_id(id);
        }
        self
    }

    /// Delivers it not before this time (`deliver_at_time`), in milliseconds. Subscriptions of type Exclusive and
    /// Failover get it at once all the same, and so do all of them when the time has passed. Such a message is never
    /// batched.
    pub fn with_deliver_at(mut self, time: SystemTime) -> Self {
        self.extras_mut().delivery = Delivery::At(to_ms(time));
        self
    }

    /// Delivers it this much after it was handed to the producer; see [`with_deliver_at`](Self::with_deliver_at).
    pub fn with_deliver_after(mut self, delay: Duration) -> Self {
        self.extras_mut().delivery = Delivery::After(delay);
        self
    }

    /// Whether it may share an entry with others (`num_messages_in_batch`), where its producer
    /// [batches](crate::ProducerBuilder::batching). With `false` it goes out in an entry of its own and keeps its place:
    /// the batch that is open is sent first. The broker looks into no batch, so what it does by a message's key,
    /// properties or delivery time, like entry filters (PIP-105), requires such a message. Default: true. The Java client has this for
    /// the whole producer only (`enableBatching`).
    #[doc(alias = "enableBatching")]
    pub fn with_batching(mut self, batching: bool) -> Self {
        if !batching || self.has_extras() {
            self.extras_mut().unbatched = !batching;
        }
        self
    }

    /// Makes it a tombstone (`null_value`): no value at all, which is not an empty one. Compaction removes the key.
    #[doc(alias = "tombstone")]
    pub fn with_null_value(mut self) -> Self {
        self.extras_mut().null_value = true;
        self.payload = Bytes::new();
        self
    }

    /// The clusters that it is replicated to (`replicate_to`), of those that its namespace is replicated to. Default, and
    /// without a name: all of them. Such a message is never batched, because members of a batch have no clusters of their own;
    /// in the Java client those of the first member count for all.
    #[doc(alias = "replicationClusters")]
    #[doc(alias = "replicate_to")]
    pub fn with_replication_clusters<C: Into<String>>(mut self, clusters: impl IntoIterator<Item = C>) -> Self {
        let clusters: Vec<String> = clusters.into_iter().map(Into::into).collect();
        self.extras_mut().change_rare(|rare| rare.replicate_to = clusters);
        self
    }

    /// Keeps it in the cluster that it is sent to (`replicate_to` with the single name `__local__`); see
    /// [`with_replication_clusters`](Self::with_replication_clusters), whose place it takes.
    #[doc(alias = "disableReplication")]
    pub fn with_replication_disabled(self) -> Self {
        self.with_replication_clusters([LOCAL_CLUSTER])
    }

    /// Sets the id of its schema in a registry outside of Pulsar (`schema_id`, PIP-420, since 4.1), as it travels: Java puts a
    /// byte in front, -1, or -2 for those of key and value. Such a message is never batched, because members of a batch have no
    /// id of their own.
    #[doc(alias = "schemaId")]
    pub fn with_schema_id(mut self, id: impl Into<Bytes>) -> Self {
        let id = id.into();
        self.extras_mut().change_rare(|rare| rare.schema_id = Some(id));
        self
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, shared and not copied.
    pub fn payload_shared(&self) -> Bytes {
        self.payload.clone()
    }

    /// The key (`partition_key`) as it travels: base64 if it was set by [`with_key_bytes`](Self::with_key_bytes).
    pub fn key(&self) -> Option<&str> {
        self.extras().key.as_deref()
    }

    /// Whether the key is the base64 text of a binary one (`partition_key_b64_encoded`).
    pub fn key_is_base64(&self) -> bool {
        self.extras().key_b64
    }

    /// Whether the key is null (`null_partition_key`), which is not the same as none.
    pub fn key_is_null(&self) -> bool {
        let extras = self.extras();
        extras.key.is_none() && extras.rare().null_key
    }

    /// The ordering key (`ordering_key`).
    pub fn ordering_key(&self) -> Option<&[u8]> {
        self.extras().ordering_key.as_deref()
    }

    /// The properties, in order.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.extras().properties.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// One property; of several with the same name the last.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties().filter(|&(key, _)| key == name).last().map(|(_, value)| value)
    }

    /// The distributed trace in its properties `traceparent` and `tracestate`.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::of(self.property(TRACEPARENT), self.property(TRACESTATE))
    }

    /// The application's own time, if one was set.
    pub fn event_time(&self) -> Option<SystemTime> {
        match self.extras().event_time_ms {
            0 => None,
            ms => Some(UNIX_EPOCH + Duration::from_millis(ms)),
        }
    }

    /// The sequence id, if one was set. Above 2^63 - 1 it only says that the message will be refused: also after
    /// [`with_event_time`](Self::with_event_time) with a time that the protocol lacks.
    #[inline]
    pub fn sequence_id(&self) -> Option<u64> {
        self.sequence_id.get()
    }

    /// The time that it is delivered at, if one was set. One before 1970 is shown as 1970: both have passed.
    pub fn deliver_at(&self) -> Option<SystemTime> {
        self.deliver_at_ms().map(|ms| from_ms(u64::try_from(ms).unwrap_or(0)))
    }

    /// The delay that it is delivered after, if one was set. A producer turns it into [`deliver_at`](Self::deliver_at).
    pub fn deliver_after(&self) -> Option<Duration> {
        match self.extras().delivery {
            Delivery::After(delay) => Some(delay),
            Delivery::AtOnce | Delivery::At(_) => None,
        }
    }

    /// The clusters that it is replicated to, if any were set; `__local__` alone:
    /// [none](Self::with_replication_disabled).
    pub fn replication_clusters(&self) -> impl Iterator<Item = &str> {
        self.extras().rare().replicate_to.iter().map(String::as_str)
    }

    /// The id of its schema in a registry outside of Pulsar, if one was set.
    pub fn schema_id(&self) -> Option<&[u8]> {
        self.extras().rare().schema_id.as_deref()
    }

    /// Whether the value is null (a tombstone), which is not the same as empty.
    pub fn is_null(&self) -> bool {
        self.extras().null_value
    }

    #[cfg(feature = "client")]
    pub(crate) fn has_traceparent(&self) -> bool {
        self.property(TRACEPARENT).is_some()
    }

    pub(crate) fn set_trace_context(&mut self, context: TraceContext) {
        let (traceparent, tracestate) = context.into_parts();
        let properties = &mut self.extras_mut().properties;
        properties.push((TRACEPARENT.to_owned(), traceparent));
        properties.extend(tracestate.map(|tracestate| (TRACESTATE.to_owned(), tracestate)));
    }

    /// Why it cannot be sent, if something that was set cannot travel.
    pub(super) fn refused(&self) -> Option<&'static str> {
        self.extras().refused
    }

    /// It also gets a sequence id that is too large, so that the one comparison which each message passes on its way in
    /// finds both.
    pub(crate) fn refuse(&mut self, why: &'static str) {
        self.extras_mut().refused = Some(why);
        self.set_sequence_id(u64::MAX);
    }

    /// All but the payload and the number.
    #[inline]
    pub(super) fn extras(&self) -> &Extras {
        self.extras.as_deref().unwrap_or(&NO_EXTRAS)
    }

    fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Sets its sequence id.
    #[inline]
    pub(super) fn set_sequence_id(&mut self, id: u64) {
        self.sequence_id = SequenceId::new(id);
    }

    /// Whether there is more to it than payload and sequence id.
    #[inline]
    pub(super) fn has_extras(&self) -> bool {
        self.extras.is_some()
    }

    /// What decides which batch it joins, where there is one for each key: the ordering key goes before the key.
    pub(super) fn batch_key(&self) -> BatchKey<'_> {
        let extras = self.extras();
        BatchKey::of(extras.ordering_key.as_ref(), extras.key.as_deref(), extras.key_b64)
    }

    /// Its keys, which it has no more.
    pub(super) fn take_keys(&mut self) -> (Option<String>, Option<Bytes>) {
        self.extras.as_mut().map_or((None, None), |extras| (extras.key.take(), extras.ordering_key.take()))
    }

    /// What it counts against the bounds on pending bytes: payload, keys and properties.
    #[inline]
    pub(super) fn size_bytes(&self) -> usize {
        self.payload.len() + self.extras.as_ref().map_or(0, |extras| extras.size_bytes())
    }

    /// At least what its record in a batch takes, given its [`size_bytes`](Self::size_bytes).
    #[inline]
    pub(super) fn record_bytes_max(&self, size_bytes: usize) -> usize {
        size_bytes + 64 + 16 * self.extras().properties.len()
    }

    /// Whether it may go out in one entry with others.
    #[inline]
    pub(super) fn may_be_batched(&self) -> bool {
        self.extras.as_ref().is_none_or(|extras| extras.may_be_batched())
    }

    /// Whether its delivery is a delay, to be counted from now.
    #[inline]
    pub(super) fn is_delayed(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| matches!(extras.delivery, Delivery::After(_)))
    }

    /// Turns a delay into a time.
    pub(super) fn resolve_delivery(&mut self, now: Now) {
        let Some(extras) = &mut self.extras else { return };
        if let Delivery::After(delay) = extras.delivery {
            let at = u128::from(now.wall_ms).saturating_add(delay.as_millis());
            extras.delivery = Delivery::At(i64::try_from(at).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn deliver_at_ms(&self) -> Option<i64> {
        match self.extras().delivery {
            Delivery::At(ms) => Some(ms),
            Delivery::AtOnce | Delivery::After(_) => None,
        }
    }

    /// As a record of a batch.
    pub(super) fn single(&self) -> SingleFields<'_> {
        let extras = self.extras();
        SingleFields {
            properties: &extras.properties,
            partition_key: extras.key.as_deref(),
            payload_size: i32::try_from(self.payload.len()).unwrap_or(i32::MAX),
            event_time_ms: extras.event_time_ms,
            partition_key_b64: extras.key_b64,
            ordering_key: extras.ordering_key.as_deref(),
            sequence_id: self.sequence_id(),
            null_value: extras.null_value,
            ..SingleFields::default()
        }
    }
}

impl fmt::Debug for Message {
    /// Of the payload its length alone, and no property: they are the application's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("key", &self.key())
            .field("payload_bytes", &self.payload.len())
            .field("sequence_id", &self.sequence_id)
            .finish_non_exhaustive()
    }
}

impl From<Bytes> for Message {
    #[inline]
    fn from(payload: Bytes) -> Self {
        Self::new(payload)
    }
}

impl From<Vec<u8>> for Message {
    fn from(payload: Vec<u8>) -> Self {
        Self::new(payload)
    }
}

impl From<String> for Message {
    fn from(payload: String) -> Self {
        Self::new(payload)
    }
}

impl From<&str> for Message {
    fn from(payload: &str) -> Self {
        Self::new(payload.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::MetadataFields;

    #[test]
    fn binary_keys_travel_in_base64() {
        let message = Message::new("x").with_key_bytes([0xff]);
        assert_eq!((message.key(), message.key_is_base64()), (Some("/w=="), true));
        assert!(!message.with_key("plain").key_is_base64());
    }

    #[test]
    fn it_is_shown_without_its_payload_and_properties() {
        let message = Message::new("secret").with_key("k").with_property("password", "secret").with_sequence_id(7);
        let shown = format!("{message:?}");
        assert_eq!(shown, r#"Message { key: Some("k"), payload_bytes: 6, sequence_id: Some(7), .. }"#);
    }

    #[test]
    fn a_tombstone_has_no_payload() {
        let message = Message::new("gone").with_null_value();
        assert!(message.payload().is_empty() && message.is_null() && message.single().null_value);
    }

    #[test]
    fn the_estimate_of_a_record_is_never_too_small() {
        let message = Message::new(vec![0; 300])
            .with_properties((0..200).map(|at| (format!("key {at}"), "v".repeat(at))))
            .with_key("k".repeat(200))
            .with_ordering_key(vec![1; 200])
            .with_event_time(UNIX_EPOCH + Duration::from_millis(i64::MAX as u64 - 1))
            .with_sequence_id(u64::MAX);
        let real = crate::wire::batch::record_len(&message.single(), &message.payload);
        assert!(message.record_bytes_max(message.size_bytes()) >= real);
    }

    #[test]
    fn clusters_and_schema_ids_count_and_are_never_batched() {
        let message = Message::new("x").with_replication_clusters(["c".repeat(300), "d".into()]);
        let message = message.with_schema_id(vec![1; 300]);
        let rare = message.extras().rare();
        let fields = MetadataFields {
            replicate_to: &rare.replicate_to,
            schema_id: rare.schema_id.as_deref(),
            ..MetadataFields::default()
        };
        let real = fields.encoded_len() - MetadataFields::default().encoded_len();
        assert!(message.size_bytes() > real && !message.may_be_batched());
        assert!(Message::new("x").with_replication_clusters([""; 0]).may_be_batched());
    }

    #[test]
    fn an_event_time_that_the_protocol_lacks_is_refused() {
        let millisecond = Duration::from_millis(1);
        let last = UNIX_EPOCH + Duration::from_millis(i64::MAX as u64 - 1);
        for time in [UNIX_EPOCH + millisecond, last] {
            let message = Message::new("x").with_event_time(time);
            assert_eq!((message.event_time(), message.refused(), message.sequence_id()), (Some(time), None, None));
        }
        for time in [UNIX_EPOCH, UNIX_EPOCH - millisecond, last + millisecond] {
            let message = Message::new("x").with_sequence_id(5).with_event_time(time).with_sequence_id(6);
            assert_eq!((message.sequence_id(), message.event_time()), (SequenceId::new(u64::MAX).get(), None));
            assert!(message.refused().is_some());
        }
    }

    #[test]
    fn a_delivery_time_says_what_the_protocol_can() {
        let at = |time| Message::new("x").with_deliver_at(time).deliver_at_ms();
        assert_eq!(at(UNIX_EPOCH + Duration::from_secs(5)), Some(5000));
        assert_eq!(at(UNIX_EPOCH - Duration::from_secs(5)), Some(-5000), "it has passed");
        assert_eq!(at(UNIX_EPOCH + Duration::from_secs(i64::MAX as u64)), Some(i64::MAX), "it never comes");
    }
}
