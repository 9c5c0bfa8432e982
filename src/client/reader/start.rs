//! Where the topics and partitions of a reader begin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::checkpoint::Checkpoint;
use crate::client::clock;
use crate::client::consumer_shared::ConsumerShared;
use crate::client::parts::Part;
use crate::id::{MessageId, MessagePosition};
use crate::machine::consumer::Consumer as Machine;
use crate::machine::consumer::{ReadTo, SeekTo};

/// Where a reader begins: made from a [`SeekTo`], for all its topics and partitions, or from a [`Checkpoint`], which has a
/// position of each.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderStart {
    pub(super) of: StartOf,
}

/// Private, so that another way can be added.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StartOf {
    All(SeekTo),
    Each(Checkpoint),
}

impl From<SeekTo> for ReaderStart {
    fn from(to: SeekTo) -> Self {
        Self { of: StartOf::All(to) }
    }
}

impl From<Checkpoint> for ReaderStart {
    fn from(checkpoint: Checkpoint) -> Self {
        Self { of: StartOf::Each(checkpoint) }
    }
}

impl From<&Checkpoint> for ReaderStart {
    fn from(checkpoint: &Checkpoint) -> Self {
        checkpoint.clone().into()
    }
}

/// The positions that a reader gives to parts as they are opened.
#[derive(Debug)]
pub(in crate::client) struct Positions {
    /// That of the parts that it begins with; `None`: `known` has them.
    first: Option<SeekTo>,
    /// Those of topics and partitions that are not among its parts: not yet, or not any more.
    known: Mutex<Checkpoint>,
    /// Of those, the ones that have ended and are to join again. A publish time that was sought, and from which nothing was
    /// read yet, goes before what `known` says.
    returning: Mutex<BTreeMap<Arc<str>, Option<SystemTime>>>,
}

impl Positions {
    /// What a SUBSCRIBE can say. The other starts are sought once it is attached.
    pub(super) fn new(start: &ReaderStart) -> Self {
        let (first, known) = match &start.of {
            // Brokers count back in whole seconds of their own clock.
            StartOf::All(SeekTo::PublishTime(_)) => (Some(SeekTo::Latest), Checkpoint::new()),
            StartOf::All(to) => (Some(to.clone()), Checkpoint::new()),
            StartOf::Each(checkpoint) => (None, checkpoint.clone()),
        };
        Self { first, known: Mutex::new(known), returning: Mutex::default() }
    }

    /// Before a seek of all: these are those of topics and partitions that join later, but for those that
    /// [return](Self::seek_returning).
    pub(super) fn set_known(&self, known: Checkpoint) {
        *self.known() = known;
    }

    /// Moves those that have ended and are to join again. With the lock of `opening`.
    pub(in crate::client) fn seek_returning(&self, mut position: impl FnMut(&str) -> Option<SeekTo>) {
        for (topic, time) in self.returning().iter_mut() {
            if let Some(to) = position(topic) {
                *time = self.set_returning(topic, &to.of_ended(clock::now()));
            }
        }
    }

    /// Sets the position of one that has ended; the publish time, if it is one.
    fn set_returning(&self, topic: &Arc<str>, from: &SeekTo) -> Option<SystemTime> {
        set(&mut self.known(), topic, from);
        match from {
            SeekTo::PublishTime(time) => Some(*time),
            _ => None,
        }
    }

    fn returning(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Option<SystemTime>>> {
        self.returning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of other topics than these, none comes back.
    #[cfg(feature = "patterns")]
    pub(in crate::client) fn keep_topics(&self, is_kept: impl Fn(&str) -> bool) {
        self.returning().retain(|topic, _| is_kept(topic));
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Checkpoint> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a part begins that is there from the beginning.
    pub(in crate::client) fn of_first(&self, topic: &str) -> SeekTo {
        self.first.clone().unwrap_or_else(|| self.of_joining(topic))
    }

    /// Where a part begins that joins later: its beginning, unless it was read or sought before.
    pub(in crate::client) fn of_joining(&self, topic: &str) -> SeekTo {
        match self.returning().get(topic) {
            Some(Some(time)) => SeekTo::PublishTime(*time),
            _ => self.known().seek_to(topic),
        }
    }
}

/// A part ends, and its topic joins the reader again as another part: at once, at the next look, or never. The endpoint may be
/// behind what the application was given, which the receiver finds when it next brings its sources in line with the set:
///
/// | by then the topic | the position is kept by | and what the receiver adds goes to |
/// | --- | --- | --- |
/// | is there again | [`Positions`], from where the new part has begun | the new part, before anything of it is taken |
/// | is still to join, or was refused | [`Positions`] | [`Positions`] |
/// | was deleted | nothing: what is stored under its name later lies behind all of it | the new part, which it changes nothing of |
///
/// A seek of all parts moves those that have ended as well: the endpoint if that is still in the set
/// ([`Machine::seek_ended`]), else what is kept ([`Positions::seek_returning`]). Before it the receiver is brought in line.
impl ConsumerShared {
    /// Keeps the position of a part that has ended and is to be opened again. With the lock of `opening`.
    pub(in crate::client) fn keep_position(&self, part: &Part<Machine>) {
        let Some(positions) = &self.positions else { return };
        if let Some((from, _)) = part.read(Machine::reading) {
            let time = positions.set_returning(&part.topic, &from);
            positions.returning().insert(part.topic.clone(), time);
        }
    }

    /// Of a part that has left, the application was given everything up to this message.
    pub(in crate::client) fn pass_position(&self, topic: &Arc<str>, id: MessageId) {
        let Some(positions) = &self.positions else { return };
        // So that none is opened in between.
        let _opening = self.opening();
        if let Some(again) = self.parts.of_topic(topic) {
            // Until the application seeks it, and as of no attach of its own.
            let read = ReadTo { id, seek_number: 0, attach_number: u64::MAX };
            return again.endpoint.with(|consumer| consumer.on_read(read, clock::now));
        }
        if let Some(time) = positions.returning().get_mut(topic) {
            *time = positions.set_returning(topic, &SeekTo::Message { id, inclusive: false });
        }
    }
}

/// Sets the position of a part. Latest and a publish time that is not resolved yet are none, and change nothing; a topic that is
/// not persistent has none.
pub(super) fn set(checkpoint: &mut Checkpoint, topic: &Arc<str>, from: &SeekTo) {
    if topic.starts_with("non-persistent:") {
        return;
    }
    let id = match from {
        SeekTo::Earliest => MessageId::EARLIEST,
        SeekTo::Message { id, inclusive: false } => id.clone(),
        SeekTo::Message { id, .. } => before(id),
        SeekTo::Latest | SeekTo::PublishTime(_) => return,
    };
    // The name of a part is one.
    let _ = checkpoint.set(topic, id);
}

/// The position behind which the message is the next one.
pub(super) fn before(id: &MessageId) -> MessageId {
    let position = id.position();
    let before = match position.batch_index.checked_sub(1) {
        Some(batch_index @ 0..) => MessagePosition { batch_index, ..position },
        // Before the first entry of a ledger that is entry -1.
        _ => MessagePosition::new(position.ledger_id, position.entry_id.wrapping_sub(1)),
    };
    match id.first_chunk() {
        Some(first) => MessageId::from_position(before).with_first_chunk(&first),
        None => before.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_next_one_behind_the_position_before_it() {
        let id = MessageId::new(7, 3);
        assert_eq!(before(&id), MessageId::new(7, 2));
        assert_eq!(before(&id.clone().with_batch(2, 5)), id.clone().with_batch(1, 5));
        assert_eq!(before(&id.clone().with_batch(0, 5)), MessageId::new(7, 2));
        assert_eq!(before(&MessageId::new(7, 0)), MessageId::new(7, u64::MAX));
        let first = MessageId::new(7, 1);
        assert_eq!(before(&id.with_first_chunk(&first)).first_chunk(), Some(first));
    }
}
