//! Batches of which some members are acknowledged and some are not.
//!
//! Members of a batch are mostly acknowledged one after another, so the batch worked on last is kept outside the map: it
//! takes no search.

use std::collections::BTreeMap;

use crate::machine::consumer::position::EntryPosition;
use crate::wire::{AckId, AckSet};

/// The most entries whose members are tracked. Beyond it the oldest is forgotten, which makes all its members count
/// as unacknowledged: they may be delivered again, none is lost.
const PARTIAL_ENTRIES_MAX: usize = 16 * 1024;

/// The most memory of the sets of members, in words of 8 bytes. Beyond it as beyond [`PARTIAL_ENTRIES_MAX`].
const PARTIAL_WORDS_MAX: usize = 1024 * 1024;

/// The largest set whose memory is kept for the next one, in words.
const SPARE_WORDS_MAX: usize = 64;

/// What is known of one batch.
#[derive(Debug)]
pub(super) struct Partial {
    /// The members that are not acknowledged.
    pub(super) set: AckSet,
    /// Messages in the batch.
    pub(super) size: u32,
    /// The latest change has not been sent, and is to be sent.
    pub(super) unsent: bool,
}

impl Partial {
    fn words(&self) -> usize {
        self.size.div_ceil(64) as usize
    }
}

/// The batches acknowledged in part.
#[derive(Debug, Default)]
pub(super) struct Partials {
    /// The batch worked on last.
    last: Option<(EntryPosition, Partial)>,
    /// All others.
    rest: BTreeMap<EntryPosition, Partial>,
    /// Words of all sets.
    words: usize,
    /// The set of a batch that was finished: its memory serves the next one.
    spare: Option<AckSet>,
}

impl Partials {
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none() && self.rest.is_empty()
    }

    fn len(&self) -> usize {
        self.rest.len() + usize::from(self.last.is_some())
    }

    /// The batch worked on last, if it is this one.
    #[inline]
    pub(super) fn last_mut(&mut self, position: EntryPosition) -> Option<&mut Partial> {
        match &mut self.last {
            Some((last, partial)) if *last == position => Some(partial),
            _ => None,
        }
    }

    /// What is known of a batch, which becomes the one worked on last.
    pub(super) fn find(&mut self, position: EntryPosition) -> Option<&mut Partial> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != position) {
            let found = self.rest.remove(&position)?;
            self.put_back_last();
            self.last = Some((position, found));
        }
        self.last.as_mut().map(|(_, partial)| partial)
    }

    /// The same; an unknown batch is one of which nothing is acknowledged. `forgotten` gets what must be told to the
    /// broker of batches that had to make room.
    pub(super) fn find_or_insert(
        &mut self,
        position: EntryPosition,
        size: u32,
        forgotten: &mut Vec<AckId>,
    ) -> &mut Partial {
        if self.find(position).is_none() {
            self.put_back_last();
            let mut set = self.spare.take().unwrap_or_else(|| AckSet::full(0));
            set.refill(size);
            let partial = Partial { set, size, unsent: false };
            self.words += partial.words();
            self.last = Some((position, partial));
            self.make_room(forgotten);
        }
        let (_, partial) = self.last.as_mut().expect("it was found or inserted just now");
        partial
    }

    fn put_back_last(&mut self) {
        if let Some((position, partial)) = self.last.take() {
            self.rest.insert(position, partial);
        }
    }

    /// Forgets the oldest beyond the bounds, but never the one worked on last.
    fn make_room(&mut self, forgotten: &mut Vec<AckId>) {
        while self.len() > PARTIAL_ENTRIES_MAX || self.words > PARTIAL_WORDS_MAX {
            let Some((position, partial)) = self.rest.pop_first() else { return };
            self.words -= partial.words();
            if partial.unsent {
                forgotten.push(position.ack_id(partial.set.to_words().into()));
            }
        }
    }

    /// Forgets a batch.
    pub(super) fn remove(&mut self, position: EntryPosition) {
        let found = match self.last.take_if(|(last, _)| *last == position) {
            Some((_, partial)) => Some(partial),
            None => self.rest.remove(&position),
        };
        let Some(partial) = found else { return };
        self.words -= partial.words();
        if partial.words() <= SPARE_WORDS_MAX {
            self.spare = Some(partial.set);
        }
    }

    /// Forgets all batches below `position`.
    pub(super) fn remove_below(&mut self, position: EntryPosition) {
        if let Some((_, partial)) = self.last.take_if(|(last, _)| *last < position) {
            self.words -= partial.words();
        }
        if self.rest.first_key_value().is_some_and(|(first, _)| *first < position) {
            let kept = self.rest.split_off(&position);
            let gone = std::mem::replace(&mut self.rest, kept);
            self.words -= gone.values().map(Partial::words).sum::<usize>();
        }
    }

    /// Members that are acknowledged.
    pub(super) fn acknowledged_members(&self) -> u64 {
        let partials = self.rest.values().chain(self.last.iter().map(|(_, partial)| partial));
        partials.map(|partial| u64::from(partial.size - partial.set.count())).sum()
    }

    /// Marks each batch as one to be sent; their positions.
    pub(super) fn mark_all_unsent(&mut self) -> Vec<EntryPosition> {
        self.put_back_last();
        self.rest.values_mut().for_each(|partial| partial.unsent = true);
        self.rest.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(entry_id: u64) -> EntryPosition {
        EntryPosition { ledger_id: 1, entry_id }
    }

    #[test]
    fn the_oldest_makes_room_and_what_the_broker_does_not_know_is_kept_for_it() {
        let mut partials = Partials::default();
        let mut forgotten = Vec::new();
        for entry in 0..=PARTIAL_ENTRIES_MAX as u64 {
            let partial = partials.find_or_insert(at(entry), 3, &mut forgotten);
            partial.set.clear(0);
            partial.unsent = entry < 1;
        }
        assert_eq!(partials.len(), PARTIAL_ENTRIES_MAX);
        assert_eq!(forgotten, [at(0).ack_id(vec![0b110].into())]);
        assert!(partials.find(at(0)).is_none() && partials.find(at(1)).is_some());
    }

    #[test]
    fn large_batches_are_bounded_by_their_words() {
        let mut partials = Partials::default();
        let size = 64 * (PARTIAL_WORDS_MAX as u32 / 4);
        for entry in 0..6 {
            partials.find_or_insert(at(entry), size, &mut Vec::new());
        }
        assert_eq!(partials.len(), 4);
        partials.remove(at(3));
        partials.remove_below(at(5));
        assert_eq!((partials.len(), partials.words), (1, size as usize / 64));
        partials.remove_below(at(6));
        assert_eq!((partials.is_empty(), partials.words), (true, 0));
    }
}
