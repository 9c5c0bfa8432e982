//! Positions in all topics and partitions of a reader or subscription, as one value.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::id::{MessageId, MessageIdError, MessagePosition};
use crate::machine::consumer::SeekTo;
use crate::percent;
use crate::topic::{TopicName, TopicNameError};
use crate::wire::error::{DecodeError, DecodeErrorKind};
use crate::wire::proto::{Reader, put_bytes};

/// What a checkpoint is called in decode errors.
const CHECKPOINT: &str = "Checkpoint";
/// The same of one of its positions.
const POSITION: &str = "Checkpoint.positions";

/// How far several topics and partitions were read: of each the last message that was, and everything before it. Those that
/// it does not name were not read at all, so that a partition that is added later is read from its beginning. Java: the
/// `Checkpoint` of its 5.0 API.
///
/// A [reader](crate::Reader::checkpoint) says how far it is, a [consumer](crate::Consumer::checkpoint) what its subscription
/// has acknowledged; a reader [begins](crate::Client::reader) there, or [goes](crate::Reader::seek_to_checkpoint) there, as a
/// [consumer](crate::Consumer::seek_to_checkpoint) does. One can be put together by hand, from ids of any Pulsar client.
///
/// ```
/// use pulsar_native::{Checkpoint, MessageId};
///
/// let mut checkpoint = Checkpoint::new();
/// checkpoint.set("orders-partition-0", MessageId::new(7, 3).with_batch(1, 5))?;
/// checkpoint.set("orders-partition-1", MessageId::new(9, 12))?;
///
/// let text = checkpoint.to_string();
/// assert_eq!(
///     text,
///     "persistent://public/default/orders-partition-0@7:3:0:1,persistent://public/default/orders-partition-1@9:12:1"
/// );
/// assert_eq!(text.parse::<Checkpoint>()?, checkpoint);
/// assert_eq!(Checkpoint::from_bytes(&checkpoint.to_bytes())?, checkpoint);
///
/// let earlier = checkpoint.clone();
/// checkpoint.set("orders-partition-1", MessageId::new(9, 13))?;
/// assert!(earlier < checkpoint);
/// # Ok::<(), pulsar_native::CheckpointError>(())
/// ```
///
/// **To keep one**, store its bytes or its text; `docs/checkpoint.md` in the repository has the format of both, which does
/// not change. The text does not hold the sizes of batches, without which a seek reads a batch from its beginning and leaves
/// the members of before out here.
///
/// **Order** is partial: one is less than another if nothing of it was read further, and something less far. Positions of
/// different clusters cannot be compared, nor those of a topic that was deleted and made again.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// By the full name of the topic or partition. In [`normal`] form.
    positions: BTreeMap<Arc<str>, MessageId>,
}

impl Checkpoint {
    /// One by which nothing was read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the position of a topic that is not partitioned, or of one partition: `id`, and everything before it, was read.
    /// [`MessageId::EARLIEST`] takes it out; [`MessageId::LATEST`] means its end, wherever that is by then. The first chunk
    /// of an id is where reading begins: what a reader keeps there is that of an older message which is not complete.
    ///
    /// # Errors
    /// [`CheckpointError::Topic`]: no name of a topic.
    pub fn set(&mut self, topic: &str, id: MessageId) -> Result<(), CheckpointError> {
        let topic = TopicName::parse(topic)?;
        let id = normal(&topic, &id);
        match id == MessageId::EARLIEST {
            true => drop(self.positions.remove(topic.as_str())),
            false => drop(self.positions.insert(topic.as_str().into(), id)),
        }
        Ok(())
    }

    /// The position of a topic or partition, by its full name; `None` if nothing of it was read.
    #[must_use]
    pub fn position(&self, topic: &str) -> Option<&MessageId> {
        self.positions.get(topic)
    }

    /// The position that a reader of this topic or partition resumes at, by its full name: what [`Consumer::seek_each`](crate::Consumer::seek_each) takes.
    #[must_use]
    pub fn seek_to(&self, topic: &str) -> SeekTo {
        match self.position(topic) {
            None => SeekTo::Earliest,
            Some(id) if *id == MessageId::LATEST => SeekTo::Latest,
            Some(id) => SeekTo::Message { id: id.clone(), inclusive: false },
        }
    }

    /// All positions, by the full names of topics and partitions, in the order of the names.
    pub fn positions(&self) -> impl Iterator<Item = (&str, &MessageId)> {
        self.positions.iter().map(|(topic, id)| (&**topic, id))
    }

    /// Whether nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Adds what `other` has read: of each topic and partition the later position stays.
    pub fn merge(&mut self, other: &Self) {
        for (topic, id) in &other.positions {
            let is_later = self.positions.get(topic).is_none_or(|known| rank(known) < rank(id));
            if is_later {
                self.positions.insert(topic.clone(), id.clone());
            }
        }
    }

    /// In protobuf: field 1, repeated, of positions with the topic (field 1, a string) and a `MessageIdData` (field 2).
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let (mut out, mut position) = (BytesMut::new(), BytesMut::new());
        for (topic, id) in &self.positions {
            position.clear();
            put_bytes(&mut position, 1, topic.as_bytes());
            put_bytes(&mut position, 2, &id.to_bytes());
            put_bytes(&mut out, 1, &position);
        }
        out.freeze()
    }

    /// Decodes [`to_bytes`](Self::to_bytes). Unknown fields are skipped.
    ///
    /// # Errors
    /// Bytes that are not protobuf, a position without a topic or id, a text that is no name of a topic, a topic that is
    /// there twice.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::new();
        let mut reader = Reader::new(bytes, 0);
        while let Some((number, value, at)) = reader.next_at(CHECKPOINT)? {
            if number == 1 {
                let range = value.range(POSITION, at)?;
                let (topic, id) = decode_position(&bytes[range.clone()], range.start)?;
                checkpoint.add(topic, id)?;
            }
        }
        Ok(checkpoint)
    }

    fn add(&mut self, topic: &str, id: MessageId) -> Result<(), CheckpointError> {
        let name = TopicName::parse(topic)?;
        if self.positions.contains_key(name.as_str()) {
            return Err(CheckpointError::Twice(name.as_str().to_owned()));
        }
        self.set(topic, id)
    }
}

fn decode_position(bytes: &[u8], base: usize) -> Result<(&str, MessageId), CheckpointError> {
    let mut reader = Reader::new(bytes, base);
    let (mut topic, mut id) = (None, None);
    while let Some((number, value, at)) = reader.next_at(POSITION)? {
        let field = |range: std::ops::Range<usize>| &bytes[range];
        match number {
            1 => {
                let text = std::str::from_utf8(field(value.range("Checkpoint.positions.topic", at)?));
                let is_not = |_| DecodeError::new(DecodeErrorKind::BadUtf8, "Checkpoint.positions.topic", at);
                topic = Some(text.map_err(is_not)?);
            }
            2 => id = Some(MessageId::from_bytes(field(value.range("Checkpoint.positions.message_id", at)?))?),
            _ => {}
        }
    }
    let missing = |field| DecodeError::new(DecodeErrorKind::Missing, field, reader.offset());
    let topic = topic.ok_or_else(|| missing("Checkpoint.positions.topic"))?;
    Ok((topic, id.ok_or_else(|| missing("Checkpoint.positions.message_id"))?))
}

/// One form of all ids that mean the same in this topic: the partition is that of the name, and behind the last member of a
/// batch is behind its entry.
fn normal(topic: &TopicName, id: &MessageId) -> MessageId {
    let partition = topic.partition_index().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1);
    let place = |position: MessagePosition| MessagePosition {
        partition,
        ..MessagePosition::new(position.ledger_id, position.entry_id)
    };
    let position = id.position();
    let ends = [MessageId::EARLIEST, MessageId::LATEST];
    if let Some(end) = ends.into_iter().find(|end| end.position().ledger_id == position.ledger_id) {
        return end;
    }
    let is_within_batch = position.batch_index >= 0 && position.batch_index.checked_add(1) != Some(position.batch_size);
    let normal = MessageId::from_position(match is_within_batch {
        true => MessagePosition {
            batch_index: position.batch_index,
            batch_size: position.batch_size.max(0),
            ..place(position)
        },
        false => place(position),
    });
    match id.first_chunk().map(|first| place(first.position())) {
        Some(first) => normal.with_first_chunk(&MessageId::from_position(first)),
        None => normal,
    }
}

/// The order of positions: a whole entry is behind all its members.
fn rank(id: &MessageId) -> (i64, i64, u32) {
    let position = id.position();
    (position.ledger_id as i64, position.entry_id as i64, id.batch_index().unwrap_or(u32::MAX))
}

impl PartialOrd for Checkpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let is_within = |one: &Self, other: &Self| {
            one.positions.iter().all(|(topic, id)| other.positions.get(topic).is_some_and(|far| rank(id) <= rank(far)))
        };
        match (is_within(self, other), is_within(other, self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

/// `topic@id`, separated by commas: see the format in `docs/checkpoint.md`.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (topic, id)) in self.positions.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            percent::encode(topic, f)?;
            write!(f, "@{id}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({self})")
    }
}

/// Parses the text of [`Display`](fmt::Display).
impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::new();
        for position in text.split(',').filter(|_| !text.is_empty()) {
            let wrong = || CheckpointError::Text(position.to_owned());
            let (topic, id) = position.split_once('@').ok_or_else(wrong)?;
            let topic = percent::decoded(topic).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
            checkpoint.add(&topic, id.parse()?)?;
        }
        Ok(checkpoint)
    }
}

/// Why bytes or a text are not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Bytes that are not protobuf, or have a position without its fields.
    Bytes(DecodeError),
    /// A position that is not `topic@id`.
    Text(String),
    /// The id of a position cannot be read.
    Id(MessageIdError),
    /// The topic of a position is no name of one.
    Topic(TopicNameError),
    /// A topic has two positions.
    Twice(String),
}

impl From<DecodeError> for CheckpointError {
    fn from(error: DecodeError) -> Self {
        Self::Bytes(error)
    }
}

impl From<MessageIdError> for CheckpointError {
    fn from(error: MessageIdError) -> Self {
        Self::Id(error)
    }
}

impl From<TopicNameError> for CheckpointError {
    fn from(error: TopicNameError) -> Self {
        Self::Topic(error)
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(error) => write!(f, "not a serialized checkpoint: {error}"),
            Self::Text(text) => write!(
                f,
                "{text:?} is not a position of a checkpoint: expected topic@ledger:entry:partition, such as \
                 persistent://public/default/orders@7:0:-1"
            ),
            Self::Id(error) => write!(f, "a position of a checkpoint: {error}"),
            Self::Topic(error) => write!(f, "a position of a checkpoint: {error}"),
            Self::Twice(topic) => write!(f, "a checkpoint has two positions of {topic}"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bytes(error) => Some(error),
            Self::Id(error) => Some(error),
            Self::Topic(error) => Some(error),
            Self::Text(_) | Self::Twice(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(positions: &[(&str, MessageId)]) -> Checkpoint {
        let mut checkpoint = Checkpoint::new();
        for (topic, id) in positions {
            checkpoint.set(topic, id.clone()).expect("a topic");
        }
        checkpoint
    }

    fn entry(entry_id: u64) -> MessageId {
        MessageId::new(7, entry_id)
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        let same = [
            ("t-partition-3", entry(1)),
            ("persistent://public/default/t-partition-3", entry(1).with_partition(3)),
            ("t-partition-3", entry(1).with_batch(4, 5)),
            ("t-partition-3", entry(1).with_partition(9).with_first_chunk(&entry(1))),
        ];
        for (topic, id) in &same {
            assert_eq!(checkpoint(&[(topic, id.clone())]), checkpoint(&same[..1]), "{id:?}");
        }
        assert!(checkpoint(&[("t", MessageId::EARLIEST)]).is_empty());
        let mut taken_out = checkpoint(&[("t", entry(1))]);
        taken_out.set("t", MessageId::EARLIEST).expect("a topic");
        assert_eq!(taken_out, Checkpoint::new());
    }

    #[test]
    fn bytes_and_text_are_read_again() {
        let odd = "persistent://a/b/ü @,;%x".to_owned();
        for positions in [
            vec![],
            vec![("t", entry(0))],
            vec![("t", MessageId::LATEST)],
            vec![("t-partition-0", entry(3).with_batch(1, 5)), ("t-partition-1", MessageId::new(9, u64::MAX))],
            vec![(odd.as_str(), entry(9).with_first_chunk(&entry(4))), ("non-persistent://a/b/c", entry(1))],
        ] {
            let one = checkpoint(&positions);
            let again = Checkpoint::from_bytes(&one.to_bytes()).expect("what was written is read");
            assert_eq!((&again, again.to_bytes()), (&one, one.to_bytes()));
            let text = one.to_string();
            assert_eq!(text.parse().as_ref(), Ok(&one), "{text}");
            for (topic, id) in again.positions() {
                let first_chunk = |id: Option<&MessageId>| id.and_then(MessageId::first_chunk);
                assert_eq!(first_chunk(Some(id)), first_chunk(one.position(topic)));
            }
        }
        let text = checkpoint(&[(&odd, entry(9).with_first_chunk(&entry(4)))]).to_string();
        assert_eq!(text, "persistent://a/b/%C3%BC%20%40%2C%3B%25x@7:4:-1;7:9:-1");
    }

    #[test]
    fn bytes_are_as_documented() {
        let bytes = checkpoint(&[("persistent://a/b/c-partition-2", entry(3).with_batch(1, 5))]).to_bytes();
        let id = entry(3).with_partition(2).with_batch(1, 5).to_bytes();
        let mut expected = vec![0x0a, 34 + id.len() as u8, 0x0a, 30];
        expected.extend(b"persistent://a/b/c-partition-2");
        expected.extend([0x12, id.len() as u8]);
        expected.extend(id);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_no_checkpoint_is_an_error() {
        for text in
            ["t", "@7:1:-1", "t@", "t@7:1", "%4@7:1:-1", "%ff@7:1:-1", "t@1:1:-1,", "a/b@1:1:-1", "t@1:1:-1,t@2:1:-1"]
        {
            assert!(text.parse::<Checkpoint>().is_err(), "{text}");
        }
        let one = checkpoint(&[("t", entry(1))]).to_bytes();
        let twice = [&one[..], &one[..]].concat();
        assert_eq!(
            Checkpoint::from_bytes(&twice),
            Err(CheckpointError::Twice("persistent://public/default/t".to_owned()))
        );
        for cut in 1..one.len() {
            assert!(Checkpoint::from_bytes(&one[..cut]).is_err(), "{cut}");
        }
        assert!(Checkpoint::from_bytes(&[0x0a, 0x00]).is_err(), "without fields");
        assert_eq!(Checkpoint::from_bytes(&[0x10, 0x01]), Ok(Checkpoint::new()), "an unknown field");
    }

    #[test]
    fn order_is_partial_and_a_merge_is_the_least_above_both() {
        let within = checkpoint(&[("a", entry(1).with_batch(0, 5)), ("b", entry(1))]);
        let further = checkpoint(&[("a", entry(1)), ("b", entry(1)), ("c", entry(0))]);
        let other = checkpoint(&[("a", entry(0)), ("d", entry(5))]);
        assert_eq!(within.partial_cmp(&further), Some(Ordering::Less));
        assert_eq!(further.partial_cmp(&within), Some(Ordering::Greater));
        assert_eq!(within.partial_cmp(&within.clone()), Some(Ordering::Equal));
        assert_eq!(within.partial_cmp(&other), None);
        assert!(Checkpoint::new() < other);
        let mut merged = other.clone();
        merged.merge(&within);
        assert!(merged > other && merged > within);
        assert_eq!(merged, checkpoint(&[("a", entry(1).with_batch(0, 5)), ("b", entry(1)), ("d", entry(5))]));
    }

    #[test]
    fn topics_that_are_not_named_are_read_from_their_beginning() {
        let one = checkpoint(&[("a", entry(1)), ("b", MessageId::LATEST)]);
        let seek_to = |topic: &str| one.seek_to(&format!("persistent://public/default/{topic}"));
        assert_eq!(seek_to("a"), SeekTo::Message { id: entry(1), inclusive: false });
        assert_eq!((seek_to("b"), seek_to("c")), (SeekTo::Latest, SeekTo::Earliest));
    }
}
