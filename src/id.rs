//! Identities: of messages at the broker, and of producers, consumers and requests on a connection.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::wire::error::{DecodeError, DecodeErrorKind};
use crate::wire::proto::{Reader, Value, int32, put_uint};

/// Where a message is stored: `MessageIdData` of PulsarApi.proto.
///
/// Ids order by ledger, entry, partition and batch index, which is the order of storage within one
/// partition. Ledger and entry compare as signed numbers, so that [`MessageId::EARLIEST`] (-1:-1)
/// comes first. `batch_size` is a note about the batch: it counts neither for equality nor for
/// order.
#[derive(Debug, Clone, Copy)]
pub struct MessageId {
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
}

impl MessageId {
    /// Before the first message of a topic.
    pub const EARLIEST: Self = Self::new(u64::MAX, u64::MAX);
    /// Behind the last message of a topic.
    pub const LATEST: Self = Self::new(i64::MAX as u64, i64::MAX as u64);

    /// The id of a whole entry of a topic that is not partitioned.
    #[must_use]
    pub const fn new(ledger_id: u64, entry_id: u64) -> Self {
        Self { ledger_id, entry_id, partition: -1, batch_index: -1, batch_size: 0 }
    }

    /// The id as a serialized `MessageIdData`, the form other clients store and read.
    ///
    /// `partition` is left out when it is negative and `batch_index` when it is -1, as all official
    /// clients do; `batch_size` is written for members of a batch only, as the C++ client does.
    /// Clients differ here, so compare ids, never their bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        put_uint(&mut out, 1, self.ledger_id);
        put_uint(&mut out, 2, self.entry_id);
        if self.partition >= 0 {
            put_uint(&mut out, 3, int32(self.partition));
        }
        if self.batch_index != -1 {
            put_uint(&mut out, 4, int32(self.batch_index));
            put_uint(&mut out, 6, int32(self.batch_size));
        }
        out.freeze()
    }

    /// Reads a serialized `MessageIdData` of any client.
    ///
    /// The id of a chunked message reads as the id of its last chunk, which is the one that is
    /// acknowledged. Fields this client does not know are skipped.
    ///
    /// # Errors
    /// Bytes that are not protobuf, and a missing `ledgerId` or `entryId`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageIdError> {
        let mut reader = Reader::new(bytes, 0);
        let (mut ledger_id, mut entry_id) = (None, None);
        let mut id = Self::new(0, 0);
        let error = |kind, field, offset| MessageIdError::Bytes(DecodeError::new(kind, field, offset));
        while let Some((number, value)) = reader.next("MessageIdData")? {
            match (number, value) {
                (1, Value::Varint(value)) => ledger_id = Some(value),
                (2, Value::Varint(value)) => entry_id = Some(value),
                (3, Value::Varint(value)) => id.partition = value as i32,
                (4, Value::Varint(value)) => id.batch_index = value as i32,
                (6, Value::Varint(value)) => id.batch_size = value as i32,
                (1..=4 | 6, _) => return Err(error(DecodeErrorKind::BadWireType, "MessageIdData", reader.offset())),
                _ => {}
            }
        }
        let missing = |field| error(DecodeErrorKind::Missing, field, reader.offset());
        id.ledger_id = ledger_id.ok_or_else(|| missing("MessageIdData.ledgerId"))?;
        id.entry_id = entry_id.ok_or_else(|| missing("MessageIdData.entryId"))?;
        Ok(id)
    }

    /// Ledger and entry in the order of storage.
    fn rank(&self) -> (i64, i64, i32, i32) {
        (self.ledger_id as i64, self.entry_id as i64, self.partition, self.batch_index)
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for MessageId {}

impl Hash for MessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
    }
}

impl Ord for MessageId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for MessageId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The Java client's text: `ledger:entry:partition`, with `:batch_index` behind it in a batch.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ledger, entry, partition, batch_index) = self.rank();
        write!(f, "{ledger}:{entry}:{partition}")?;
        if batch_index != -1 {
            write!(f, ":{batch_index}")?;
        }
        Ok(())
    }
}

/// Reads the text of [`Display`](fmt::Display). Of a chunked message's `first;last` the last is
/// taken. The text does not hold the size of the batch, so `batch_size` is 0.
impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let wrong = || MessageIdError::Text(text.to_owned());
        let last = text.rsplit(';').next().unwrap_or(text);
        let mut numbers = last.split(':');
        let mut number = || numbers.next().map(|digits| digits.parse::<i64>().map_err(|_| wrong())).transpose();
        let narrow = |value: i64| i32::try_from(value).map_err(|_| wrong());
        let mut id = Self::new(0, 0);
        id.ledger_id = number()?.ok_or_else(wrong)? as u64;
        id.entry_id = number()?.ok_or_else(wrong)? as u64;
        id.partition = narrow(number()?.ok_or_else(wrong)?)?;
        id.batch_index = narrow(number()?.unwrap_or(-1))?;
        if numbers.next().is_some() {
            return Err(wrong());
        }
        Ok(id)
    }
}

/// Why something is not a message id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageIdError {
    /// Bytes that are not a `MessageIdData`.
    Bytes(DecodeError),
    /// A text that is not `ledger:entry:partition` or `ledger:entry:partition:batch_index`.
    Text(String),
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
        }
    }
}

impl std::error::Error for MessageIdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bytes(error) => Some(error),
            Self::Text(_) => None,
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
    /// `producer_id` of the protocol: chosen by the client, unique on a connection, stable for a
    /// producer's life. 0 is an ordinary one.
    ProducerId
}
wire_id! {
    /// `consumer_id` of the protocol: chosen by the client, unique on a connection, stable for a
    /// consumer's life. 0 is an ordinary one.
    ConsumerId
}
wire_id! {
    /// `watcher_id` of the protocol: chosen by the client, unique on a connection, stable for a
    /// watcher's life. 0 is an ordinary one.
    WatcherId
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn batch(ledger_id: u64, entry_id: u64, batch_index: i32, batch_size: i32) -> MessageId {
        MessageId { batch_index, batch_size, ..MessageId::new(ledger_id, entry_id) }
    }

    #[test]
    fn bytes_of_official_clients_are_read() {
        let cases = [
            ("080710003000", MessageId::new(7, 0)),
            ("08071000", MessageId::new(7, 0)),
            ("0807100018033000", MessageId { partition: 3, ..MessageId::new(7, 0) }),
            ("0807100120013003", batch(7, 1, 1, 3)),
            ("0809100430003a06080910033000", MessageId::new(9, 4)),
            ("080910043a0408091003", MessageId::new(9, 4)),
            ("08ffffffffffffffffff0110ffffffffffffffffff01", MessageId::EARLIEST),
            ("08ffffffffffffffff7f10ffffffffffffffff7f", MessageId::LATEST),
        ];
        for (hex, id) in cases {
            let read = MessageId::from_bytes(&unhex(hex)).unwrap();
            assert_eq!((read, read.batch_size), (id, id.batch_size), "{hex}");
            assert_eq!(MessageId::from_bytes(&id.to_bytes()), Ok(id), "{hex}");
        }
    }

    #[test]
    fn bytes_are_those_of_the_cpp_client() {
        assert_eq!(MessageId::new(7, 0).to_bytes(), unhex("08071000"));
        assert_eq!(batch(7, 1, 1, 3).to_bytes(), unhex("0807100120013003"));
        assert_eq!(MessageId::EARLIEST.to_bytes(), unhex("08ffffffffffffffffff0110ffffffffffffffffff01"));
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for (hex, field, kind) in [
            ("", "MessageIdData.ledgerId", DecodeErrorKind::Missing),
            ("0807", "MessageIdData.entryId", DecodeErrorKind::Missing),
            ("080710", "MessageIdData", DecodeErrorKind::Truncated),
            ("0a0007", "MessageIdData", DecodeErrorKind::BadWireType),
        ] {
            match MessageId::from_bytes(&unhex(hex)) {
                Err(MessageIdError::Bytes(error)) => assert_eq!((error.field, error.kind), (field, kind), "{hex}"),
                other => panic!("{hex}: {other:?}"),
            }
        }
    }

    #[test]
    fn text_is_that_of_the_java_client() {
        for (text, id) in [
            ("7:0:-1", MessageId::new(7, 0)),
            ("7:1:-1:0", batch(7, 1, 0, 0)),
            ("7:1:3", MessageId { partition: 3, ..MessageId::new(7, 1) }),
            ("-1:-1:-1", MessageId::EARLIEST),
        ] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        }
        assert_eq!("9:3:-1;9:4:-1".parse(), Ok(MessageId::new(9, 4)));
    }

    #[test]
    fn text_that_is_no_id_is_named_in_the_error() {
        for text in ["", "7", "7:1", "7:1:x", "7:1:-1:0:0", "7:1:99999999999", "(7,1,-1,0)"] {
            let error = text.parse::<MessageId>().unwrap_err();
            assert_eq!(error, MessageIdError::Text(text.to_owned()));
            assert!(error.to_string().contains(text));
        }
    }

    #[test]
    fn order_is_that_of_storage_and_skips_the_batch_size() {
        let ordered = [
            MessageId::EARLIEST,
            MessageId::new(1, u64::MAX),
            MessageId::new(1, 0),
            batch(1, 0, 0, 2),
            batch(1, 0, 1, 2),
            MessageId::new(1, 1),
            MessageId::new(2, 0),
            MessageId::LATEST,
        ];
        assert!(ordered.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(batch(1, 0, 1, 2), batch(1, 0, 1, 0));
    }
}
