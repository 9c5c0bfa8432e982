//! Identifiers: of stored messages, and of producers, consumers and watchers on a connection.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::topic::{TopicName, TopicNameError};
use crate::wire::error::{DecodeError, DecodeErrorKind};
use crate::wire::proto::{Reader, Value, int32, put_bytes, put_uint};

/// The name of `MessageIdData` in decode errors.
const DATA: &str = "MessageIdData";

/// The id of a stored message: `MessageIdData` of PulsarApi.proto.
///
/// **Order and equality** follow the Java client's `MessageIdImpl`: ledger, entry, partition and batch index, which is
/// the order of storage within one partition. The size of the batch, the first chunk and the topic are ignored, so that
/// the id that a send returns equals the id of the received message. Comparing ids of different topics has no meaning, and
/// neither has comparing ids of different clusters.
///
/// **To keep an id**, store [`to_bytes`](Self::to_bytes), the format of all Pulsar clients. Its text
/// ([`Display`](fmt::Display) and [`FromStr`]) is the Java client's, made for logs and command lines:
/// `ledger:entry:partition`, then `:batch_index` for a member of a batch; `first;last` for a chunked message. Neither
/// form holds the topic, and the text does not hold the size of the batch. Of several topics, keep the name beside the
/// bytes: [`from_bytes_with_topic`](Self::from_bytes_with_topic) puts the two together.
///
/// ```
/// use pulsar_native::MessageId;
///
/// let id: MessageId = "7:1:-1:0".parse()?;
/// assert_eq!((id.ledger_id(), id.entry_id()), (Some(7), Some(1)));
/// assert_eq!((id.partition(), id.batch_index()), (None, Some(0)));
/// assert!(MessageId::EARLIEST < id && id < MessageId::LATEST);
///
/// let stored = id.to_bytes();
/// assert_eq!(MessageId::from_bytes(&stored)?, id);
/// # Ok::<(), pulsar_native::id::MessageIdError>(())
/// ```
#[derive(Clone)]
pub struct MessageId {
    position: MessagePosition,
    /// Boxed, because most ids have none of it and ids are moved often.
    extra: Option<Box<Extra>>,
}

/// The fields that few ids have.
#[derive(Clone, Default)]
struct Extra {
    first_chunk: Option<MessagePosition>,
    topic: Option<Arc<str>>,
}

impl MessageId {
    /// Before the first message of a topic.
    pub const EARLIEST: Self = Self::from_position(MessagePosition::EARLIEST);
    /// After the last message of a topic.
    pub const LATEST: Self = Self::from_position(MessagePosition::LATEST);

    fn chunked(first: MessagePosition, last: MessagePosition) -> Self {
        let extra = Extra { first_chunk: Some(first), topic: None };
        Self { position: last, extra: Some(Box::new(extra)) }
    }

    /// The id of a whole entry of a topic that is not partitioned.
    #[must_use]
    pub const fn new(ledger_id: u64, entry_id: u64) -> Self {
        Self::from_position(MessagePosition::new(ledger_id, entry_id))
    }

    /// The id with this position and no other fields.
    pub(crate) const fn from_position(position: MessagePosition) -> Self {
        Self { position, extra: None }
    }

    /// Sets the partition.
    #[must_use]
    pub fn with_partition(mut self, partition: u32) -> Self {
        self.position.partition = saturate(partition);
        self
    }

    /// Makes it the id of a member of a batch of `size` messages.
    #[must_use]
    pub fn with_batch(mut self, index: u32, size: u32) -> Self {
        self.position.batch_index = saturate(index);
        self.position.batch_size = saturate(size);
        self
    }

    /// Makes it the id of a chunked message: `first` is the id of its first chunk, and this one that of the last.
    #[must_use]
    pub fn with_first_chunk(mut self, first: &MessageId) -> Self {
        self.extra.get_or_insert_default().first_chunk = Some(first.position);
        self
    }

    /// Sets the topic: the full name, `persistent://tenant/namespace/topic`, of the topic or of the partition. Beside the
    /// name of a partitioned topic, the id's [partition](Self::partition) says which partition it is of. Java's
    /// `TopicMessageId.create`.
    #[doc(alias = "TopicMessageId")]
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.extra.get_or_insert_default().topic = Some(topic.into());
        self
    }

    /// The ledger that holds the entry (`ledgerId`). `None` for [`EARLIEST`](Self::EARLIEST) and
    /// [`LATEST`](Self::LATEST), and for a send that the broker recognised as a duplicate: the receipt of a duplicate
    /// names no entry.
    #[must_use]
    pub fn ledger_id(&self) -> Option<u64> {
        named(self.position.ledger_id)
    }

    /// The entry's number in its ledger (`entryId`). `None` if the id names no entry, also for "before the first entry of
    /// this ledger", which brokers write as entry -1.
    #[must_use]
    pub fn entry_id(&self) -> Option<u64> {
        named(self.position.entry_id)
    }

    /// The index of the partition; `None` for a topic that is not partitioned.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        u32::try_from(self.position.partition).ok()
    }

    /// The message's index in its batch, from 0; `None` for a message outside a batch.
    #[must_use]
    pub fn batch_index(&self) -> Option<u32> {
        u32::try_from(self.position.batch_index).ok()
    }

    /// The number of messages in its batch; `None` for a message outside a batch, and if the size is not known.
    #[must_use]
    pub fn batch_size(&self) -> Option<u32> {
        u32::try_from(self.position.batch_size).ok().filter(|&size| size > 0)
    }

    /// The id of the first chunk, for a message that was sent in several; the id itself is the last chunk's.
    #[must_use]
    pub fn first_chunk(&self) -> Option<MessageId> {
        let extra = self.extra.as_ref()?;
        let topic = extra.topic.clone().map(|topic| Box::new(Extra { topic: Some(topic), first_chunk: None }));
        extra.first_chunk.map(|first| Self { extra: topic, ..Self::from_position(first) })
    }

    /// The full name of the topic, or of the partition if it is partitioned. Ids of received messages have it; those of
    /// sends, and those read from bytes or text, do not: see [`with_topic`](Self::with_topic) and
    /// [`from_bytes_with_topic`](Self::from_bytes_with_topic), of which it is the topic that was given.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        self.extra.as_ref()?.topic.as_deref()
    }

    /// The numbers of the id, for the internal modules.
    #[doc(hidden)]
    #[must_use]
    pub fn position(&self) -> MessagePosition {
        self.position
    }

    /// The id as a serialized `MessageIdData`, the form that all clients store and read: Java's `toByteArray`, the C++
    /// client's `serialize`, Go's `Serialize`. The topic is not in it.
    ///
    /// A negative `partition` and a `batch_index` of -1 are omitted, as in Java and C++; `batch_size` is present for
    /// members of a batch only, as in the C++ client. Clients differ here, so compare ids, not their bytes.
    ///
    /// The Go client (0.19) takes such an id only of a partition and of a member of a batch. For any other message give it
    /// [`with_partition(0)`](Self::with_partition) and [`with_batch(0, 0)`](Self::with_batch), which are the bytes that it
    /// writes itself.
    #[doc(alias = "toByteArray")]
    #[doc(alias = "serialize")]
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(80);
        self.position.encode(&mut out);
        if let Some(first) = self.extra.as_ref().and_then(|extra| extra.first_chunk.as_ref()) {
            let mut nested = BytesMut::with_capacity(40);
            first.encode(&mut nested);
            put_bytes(&mut out, 7, &nested);
        }
        out.freeze()
    }

    /// Decodes a serialized `MessageIdData` of any client: Java's `fromByteArray`, the C++ client's `deserialize`, Go's
    /// `DeserializeMessageID`. Unknown fields are skipped, and so is `ack_set`, as in all official clients: what is
    /// acknowledged of a batch is known to the consumer.
    ///
    /// Go writes partition 0 and batch index 0 for a message that has neither. Where a consumer takes such an id, it means
    /// the same message; but it is not equal to the id that other clients have of it.
    ///
    /// # Errors
    /// Bytes that are not protobuf, or a missing `ledgerId` or `entryId`.
    #[doc(alias = "fromByteArray")]
    #[doc(alias = "deserialize")]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageIdError> {
        let (position, first_chunk) = MessagePosition::decode(bytes, 0)?;
        let Some(range) = first_chunk else { return Ok(Self::from_position(position)) };
        let base = range.start;
        let (first, _) = MessagePosition::decode(&bytes[range], base)?;
        Ok(Self::chunked(first, position))
    }

    /// [`from_bytes`](Self::from_bytes) with the [topic](Self::with_topic), which may be the short name of a topic in
    /// `public/default`: Java's `fromByteArrayWithTopic`. With it a consumer of several topics can acknowledge and seek to
    /// the message. It is the topic, partitioned or not, or the partition that the message is of.
    ///
    /// ```
    /// use pulsar_native::MessageId;
    ///
    /// let stored = MessageId::new(7, 1).with_partition(3).to_bytes();
    /// let id = MessageId::from_bytes_with_topic(&stored, "orders")?;
    /// assert_eq!((id.topic(), id.partition()), (Some("persistent://public/default/orders"), Some(3)));
    /// # Ok::<(), pulsar_native::id::MessageIdError>(())
    /// ```
    ///
    /// # Errors
    /// Those of `from_bytes`; a text that is no name of a topic.
    #[doc(alias = "fromByteArrayWithTopic")]
    pub fn from_bytes_with_topic(bytes: &[u8], topic: &str) -> Result<Self, MessageIdError> {
        let topic = TopicName::parse(topic)?;
        Ok(Self::from_bytes(bytes)?.with_topic(topic.as_str()))
    }
}

fn saturate(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The number of a ledger or entry; `None` for -1 and the largest one, which stand for none.
fn named(number: u64) -> Option<u64> {
    (number < i64::MAX as u64).then_some(number)
}

impl From<MessagePosition> for MessageId {
    fn from(position: MessagePosition) -> Self {
        Self::from_position(position)
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for MessageId {}

impl Hash for MessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.position.hash(state);
    }
}

impl Ord for MessageId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position.cmp(&other.position)
    }
}

impl PartialOrd for MessageId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.extra.as_ref().and_then(|extra| extra.first_chunk.as_ref()) {
            write!(f, "{first};")?;
        }
        self.position.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self}")?;
        if let Some(size) = self.batch_size() {
            write!(f, " of {size}")?;
        }
        match self.topic() {
            Some(topic) => write!(f, ", {topic})"),
            None => f.write_str(")"),
        }
    }
}

/// Parses the text of [`Display`](fmt::Display). It does not contain the size of the batch: to acknowledge a member of a
/// batch later, keep the bytes of its id instead.
impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let parse = |part| MessagePosition::parse(part).ok_or_else(|| MessageIdError::Text(text.to_owned()));
        let Some((first, last)) = text.split_once(';') else { return parse(text).map(Self::from_position) };
        Ok(Self::chunked(parse(first)?, parse(last)?))
    }
}

/// The numbers of a [`MessageId`], in the protocol's form. The internal modules use it for each message, because copying
/// it needs no allocation and no reference count.
///
/// Order and equality are those of the id.
#[derive(Debug, Clone, Copy)]
pub struct MessagePosition {
    /// `ledgerId`: the ledger that holds the entry. `u64::MAX` stands for -1.
    pub ledger_id: u64,
    /// `entryId`: the entry's place in its ledger. `u64::MAX` stands for -1.
    pub entry_id: u64,
    /// `partition`: the index of the partition, -1 for a topic that is not partitioned.
    pub partition: i32,
    /// `batch_index`: the place in the entry's batch, -1 for a message outside a batch.
    pub batch_index: i32,
    /// `batch_size`: messages in the entry's batch, 0 for a message outside a batch.
    pub batch_size: i32,
    /// By which cluster the consumer got the message: its clusters are counted from 1, as it goes to another one. 0: not
    /// known. It lies neither in the bytes nor in the text of an id, and has no part in equality.
    pub cluster_number: u32,
}

impl MessagePosition {
    /// Same as [`MessageId::EARLIEST`].
    pub const EARLIEST: Self = Self::new(u64::MAX, u64::MAX);
    /// Same as [`MessageId::LATEST`].
    pub const LATEST: Self = Self::new(i64::MAX as u64, i64::MAX as u64);

    /// A whole entry of a topic that is not partitioned.
    #[must_use]
    pub const fn new(ledger_id: u64, entry_id: u64) -> Self {
        Self { ledger_id, entry_id, partition: -1, batch_index: -1, batch_size: 0, cluster_number: 0 }
    }

    fn encode(&self, out: &mut BytesMut) {
        put_uint(out, 1, self.ledger_id);
        put_uint(out, 2, self.entry_id);
        if self.partition >= 0 {
            put_uint(out, 3, int32(self.partition));
        }
        if self.batch_index != -1 {
            put_uint(out, 4, int32(self.batch_index));
            put_uint(out, 6, int32(self.batch_size));
        }
    }

    /// Decodes a `MessageIdData`; also returns the range of its `first_chunk_message_id`. `base` is added to the offsets
    /// in errors.
    fn decode(bytes: &[u8], base: usize) -> Result<(Self, Option<std::ops::Range<usize>>), DecodeError> {
        let mut reader = Reader::new(bytes, base);
        let (mut ledger_id, mut entry_id, mut first_chunk) = (None, None, None);
        let mut position = Self::new(0, 0);
        while let Some((number, value)) = reader.next(DATA)? {
            match (number, value) {
                (1, Value::Varint(value)) => ledger_id = Some(value),
                (2, Value::Varint(value)) => entry_id = Some(value),
                (3, Value::Varint(value)) => position.partition = value as i32,
                (4, Value::Varint(value)) => position.batch_index = value as i32,
                (6, Value::Varint(value)) => position.batch_size = value as i32,
                (7, Value::Bytes(range)) => first_chunk = Some(range),
                (1..=4 | 6 | 7, _) => {
                    return Err(DecodeError::new(DecodeErrorKind::BadWireType, DATA, reader.offset()));
                }
                _ => {}
            }
        }
        let missing = |field| DecodeError::new(DecodeErrorKind::Missing, field, reader.offset());
        position.ledger_id = ledger_id.ok_or_else(|| missing("MessageIdData.ledgerId"))?;
        position.entry_id = entry_id.ok_or_else(|| missing("MessageIdData.entryId"))?;
        Ok((position.normalized(), first_chunk))
    }

    /// With one number for "none": a foreign id may have any below zero, and a size without a batch.
    fn normalized(mut self) -> Self {
        self.partition = self.partition.max(-1);
        self.batch_index = self.batch_index.max(-1);
        self.batch_size = if self.batch_index < 0 { 0 } else { self.batch_size.max(0) };
        self
    }

    /// Parses the text of [`Display`](fmt::Display).
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':');
        let ledger_id = numbers.next()?.parse::<i64>().ok()? as u64;
        let entry_id = numbers.next()?.parse::<i64>().ok()? as u64;
        let partition = numbers.next()?.parse().ok()?;
        let batch_index = numbers.next().map_or(Ok(-1), str::parse).ok()?;
        if numbers.next().is_some() {
            return None;
        }
        Some(Self { partition, batch_index, ..Self::new(ledger_id, entry_id) }.normalized())
    }

    /// The key of order and equality. Ledger and entry are compared as signed numbers: -1 comes first.
    fn rank(&self) -> (i64, i64, i32, i32) {
        (self.ledger_id as i64, self.entry_id as i64, self.partition, self.batch_index)
    }
}

impl PartialEq for MessagePosition {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for MessagePosition {}

impl Hash for MessagePosition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
    }
}

impl Ord for MessagePosition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for MessagePosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `ledger:entry:partition`, followed by `:batch_index` for a member of a batch.
impl fmt::Display for MessagePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ledger, entry, partition, batch_index) = self.rank();
        write!(f, "{ledger}:{entry}:{partition}")?;
        if batch_index != -1 {
            write!(f, ":{batch_index}")?;
        }
        Ok(())
    }
}

/// Why bytes or a text are not a message id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageIdError {
    /// Bytes that are not a `MessageIdData`.
    Bytes(DecodeError),
    /// A text that is not `ledger:entry:partition` or `ledger:entry:partition:batch_index`.
    Text(String),
    /// What stands beside the bytes is no name of a topic.
    Topic(TopicNameError),
}

impl From<TopicNameError> for MessageIdError {
    fn from(error: TopicNameError) -> Self {
        Self::Topic(error)
    }
}

impl From<DecodeError> for MessageIdError {
    fn from(error: DecodeError) -> Self {
        Self::Bytes(error)
    }
}

impl fmt::Display for MessageIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(error) => write!(f, "not a serialized message id: {error}"),
            Self::Text(text) => write!(
                f,
                "{text:?} is not a message id: expected ledger:entry:partition or ledger:entry:partition:batch_index, \
                 such as 7:0:-1"
            ),
            Self::Topic(error) => write!(f, "the topic of a message id: {error}"),
        }
    }
}

impl std::error::Error for MessageIdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bytes(error) => Some(error),
            Self::Text(_) => None,
            Self::Topic(error) => Some(error),
        }
    }
}

macro_rules! wire_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

wire_id! {
    /// `producer_id` of the protocol: chosen by the client, unique on a connection, the same for the
    /// lifetime of a producer. 0 is a valid id.
    ProducerId
}
wire_id! {
    /// `consumer_id` of the protocol: chosen by the client, unique on a connection, the same for the
    /// lifetime of a consumer. 0 is a valid id.
    ConsumerId
}
wire_id! {
    /// `watcher_id` of the protocol: chosen by the client, unique on a connection, the same for the
    /// lifetime of a watcher. 0 is a valid id.
    WatcherId
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn batch(ledger_id: u64, entry_id: u64, index: u32, size: u32) -> MessageId {
        MessageId::new(ledger_id, entry_id).with_batch(index, size)
    }

    fn chunked() -> MessageId {
        MessageId::new(9, 4).with_first_chunk(&MessageId::new(9, 3))
    }

    /// All that bytes hold, where equality leaves some of it out.
    fn whole(id: &MessageId) -> (MessagePosition, Option<u32>, Option<MessageId>) {
        (id.position(), id.batch_size(), id.first_chunk())
    }

    #[test]
    fn bytes_of_official_clients_are_read() {
        let cases = [
            ("080710003000", MessageId::new(7, 0)),
            ("08071000", MessageId::new(7, 0)),
            ("0807100018033000", MessageId::new(7, 0).with_partition(3)),
            ("0807100120013003", batch(7, 1, 1, 3)),
            ("0809100430003a06080910033000", chunked()),
            ("080910043a0408091003", chunked()),
            ("08ffffffffffffffffff0110ffffffffffffffffff01", MessageId::EARLIEST),
            ("08ffffffffffffffff7f10ffffffffffffffff7f", MessageId::LATEST),
        ];
        for (hex, id) in cases {
            let read = MessageId::from_bytes(&unhex(hex)).unwrap();
            assert_eq!(whole(&read), whole(&id), "{hex}");
            let again = MessageId::from_bytes(&id.to_bytes()).unwrap();
            assert_eq!(whole(&again), whole(&id), "{hex}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_cpp_client() {
        assert_eq!(MessageId::new(7, 0).to_bytes(), unhex("08071000"));
        assert_eq!(batch(7, 1, 1, 3).to_bytes(), unhex("0807100120013003"));
        assert_eq!(chunked().to_bytes(), unhex("080910043a0408091003"));
        assert_eq!(MessageId::EARLIEST.to_bytes(), unhex("08ffffffffffffffffff0110ffffffffffffffffff01"));
    }

    /// Go writes partition 0 and index 0 where there is neither, and -1 in ten bytes.
    #[test]
    fn bytes_of_other_writers_are_read() {
        let minus_one = "ffffffffffffffffff01";
        let cases = [
            ("0807100018002000".to_owned(), MessageId::new(7, 0).with_partition(0).with_batch(0, 0)),
            (format!("0807100018{minus_one}20{minus_one}3000"), MessageId::new(7, 0)),
            ("08071000180420012807300328ff01".to_owned(), batch(7, 0, 1, 3).with_partition(4)),
            ("0807100018feffffffffffffffff0120feffffffffffffffff013007".to_owned(), MessageId::new(7, 0)),
            ("080710002a02070142056f746865724800".to_owned(), MessageId::new(7, 0)),
        ];
        for (hex, id) in cases {
            assert_eq!(whole(&MessageId::from_bytes(&unhex(&hex)).unwrap()), whole(&id), "{hex}");
        }
    }

    #[test]
    fn the_topic_stands_beside_the_bytes() {
        let stored = chunked().with_partition(2).to_bytes();
        for (name, full) in [
            ("orders", "persistent://public/default/orders"),
            ("a/b/c", "persistent://a/b/c"),
            ("non-persistent://a/b/c-partition-2", "non-persistent://a/b/c-partition-2"),
        ] {
            let id = MessageId::from_bytes_with_topic(&stored, name).unwrap();
            assert_eq!((id.topic(), whole(&id)), (Some(full), whole(&chunked().with_partition(2))));
            assert_eq!(id.to_bytes(), stored, "the topic is not in the bytes");
        }
        let error = MessageId::from_bytes_with_topic(&stored, "a/b").unwrap_err();
        assert!(matches!(&error, MessageIdError::Topic(_)) && error.to_string().contains("a/b"), "{error}");
        assert!(matches!(MessageId::from_bytes_with_topic(&stored[1..], "a"), Err(MessageIdError::Bytes(_))));
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for (hex, field, kind, offset) in [
            ("", "MessageIdData.ledgerId", DecodeErrorKind::Missing, 0),
            ("0807", "MessageIdData.entryId", DecodeErrorKind::Missing, 2),
            ("080710", "MessageIdData", DecodeErrorKind::Truncated, 3),
            ("0a0007", "MessageIdData", DecodeErrorKind::BadWireType, 2),
            ("080710003800", "MessageIdData", DecodeErrorKind::BadWireType, 6),
            ("080710003a020807", "MessageIdData.entryId", DecodeErrorKind::Missing, 8),
        ] {
            match MessageId::from_bytes(&unhex(hex)) {
                Err(MessageIdError::Bytes(error)) => {
                    assert_eq!((error.field, error.kind, error.offset), (field, kind, offset), "{hex}");
                }
                other => panic!("{hex}: {other:?}"),
            }
        }
    }

    #[test]
    fn text_is_that_of_the_java_client() {
        for (text, id) in [
            ("7:0:-1", MessageId::new(7, 0)),
            ("7:1:-1:0", MessageId::new(7, 1).with_batch(0, 0)),
            ("7:1:3", MessageId::new(7, 1).with_partition(3)),
            ("-1:-1:-1", MessageId::EARLIEST),
            ("9:3:-1;9:4:-1", chunked()),
        ] {
            assert_eq!(id.to_string(), text);
            let read: MessageId = text.parse().unwrap();
            assert_eq!(whole(&read), whole(&id), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_id_is_named_in_the_error() {
        for text in
            ["", "7", "7:1", "7:1:x", "7:1:-1:0:0", "7:1:99999999999", "(7,1,-1,0)", "7:1:-1;", "1:1:1;1:1:1;1:1:1"]
        {
            let error = text.parse::<MessageId>().unwrap_err();
            assert_eq!(error, MessageIdError::Text(text.to_owned()));
            assert!(error.to_string().contains(text));
        }
    }

    #[test]
    fn order_is_that_of_storage_and_skips_size_chunk_and_topic() {
        let ordered = [
            MessageId::EARLIEST,
            MessageId::new(1, u64::MAX),
            MessageId::new(1, 0),
            batch(1, 0, 0, 2),
            batch(1, 0, 1, 2),
            MessageId::new(1, 0).with_partition(0),
            MessageId::new(1, 1),
            MessageId::new(2, 0),
            MessageId::LATEST,
        ];
        assert!(ordered.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(batch(1, 0, 1, 2), batch(1, 0, 1, 0));
        assert_eq!(chunked(), MessageId::new(9, 4));
        assert_eq!(MessageId::new(9, 4).with_topic("persistent://a/b/c"), MessageId::new(9, 4));
    }

    #[test]
    fn what_an_id_does_not_name_is_none() {
        let plain = MessageId::new(1, u64::MAX);
        assert_eq!((plain.ledger_id(), plain.entry_id()), (Some(1), None));
        assert_eq!((plain.partition(), plain.batch_index(), plain.batch_size()), (None, None, None));
        assert_eq!((plain.topic(), plain.first_chunk()), (None, None));
        for id in [MessageId::EARLIEST, MessageId::LATEST] {
            assert_eq!((id.ledger_id(), id.entry_id()), (None, None));
        }
        let full = chunked().with_topic("persistent://a/b/c").with_partition(2).with_batch(1, 4);
        assert_eq!((full.ledger_id(), full.entry_id()), (Some(9), Some(4)));
        assert_eq!((full.partition(), full.batch_index(), full.batch_size()), (Some(2), Some(1), Some(4)));
        assert_eq!(full.topic(), Some("persistent://a/b/c"));
        assert_eq!(full.first_chunk().as_ref().and_then(MessageId::topic), Some("persistent://a/b/c"));
        assert_eq!(format!("{full:?}"), "MessageId(9:3:-1;9:4:2:1 of 4, persistent://a/b/c)");
    }
}
