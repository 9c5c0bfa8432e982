//! Where the topics and partitions of a reader begin.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::Checkpoint;
#[cfg(feature = "patterns")]
use crate::client::consumer_shared::ConsumerShared;
#[cfg(feature = "patterns")]
use crate::client::parts::Part;
use crate::id::{MessageId, MessagePosition};
#[cfg(feature = "patterns")]
use crate::machine::consumer::Consumer as Machine;
use crate::machine::consumer::SeekTo;

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
        Self { first, known: Mutex::new(known) }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Checkpoint> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a part begins that is there from the beginning.
    pub(in crate::client) fn of_first(&self, topic: &str) -> SeekTo {
        self.first.clone().unwrap_or_else(|| self.of_joining(topic))
    }

    /// Where a part begins that joins later: its beginning, unless it was read before.
    pub(in crate::client) fn of_joining(&self, topic: &str) -> SeekTo {
        self.known().seek_to(topic)
    }
}

#[cfg(feature = "patterns")]
impl ConsumerShared {
    /// Keeps the position of a part that has ended and is to be opened again.
    pub(in crate::client) fn keep_position(&self, part: &Part<Machine>) {
        let Some(positions) = &self.positions else { return };
        if let Some((from, _)) = part.read(Machine::reading) {
            set(&mut positions.known(), &part.topic, &from);
        }
    }
}

/// Sets the position of a part. Latest and a publish time that is not resolved yet are none, and change nothing.
pub(super) fn set(checkpoint: &mut Checkpoint, topic: &Arc<str>, from: &SeekTo) {
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
