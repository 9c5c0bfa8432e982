//! Sequence ids: which message gets which, and which are stored.

use super::seal::ToSeal;
use super::{Message, Producer};

/// Brokers read sequence ids as signed.
pub(crate) const SEQUENCE_ID_MAX: u64 = i64::MAX as u64;

/// The sequence ids of a producer.
#[derive(Debug, Default)]
pub(super) struct SequenceIds {
    /// What the next message gets that has none of its own.
    next: u64,
    /// The highest that a message has, here or, at creation, at the broker.
    highest: Option<u64>,
    /// The highest that is known to be stored.
    last_stored: Option<u64>,
    /// Messages accepted so far. Each message has this count as its index, which, unlike its sequence id, always grows.
    accepted_messages: u64,
}

impl SequenceIds {
    /// `last_sequence_id` is the highest id that the broker has stored under the producer's name, -1 for none.
    fn start(&mut self, initial_sequence_id: Option<u64>, last_sequence_id: i64) {
        self.last_stored = initial_sequence_id.or(u64::try_from(last_sequence_id).ok());
        self.highest = self.last_stored;
        self.next = self.last_stored.map_or(0, |last| last + 1);
    }

    /// Whether the next message can get an id, which is `own` if the application has set it. The ids of a producer end
    /// with [`SEQUENCE_ID_MAX`].
    #[inline]
    pub(super) fn can_assign(&self, own: Option<u64>) -> bool {
        own.unwrap_or(self.next) <= SEQUENCE_ID_MAX
    }

    /// The sequence id of the next message, which is `own` if the application has set it; and whether it is above all
    /// before it.
    #[inline(always)]
    pub(super) fn assign(&mut self, own: Option<u64>) -> (u64, bool) {
        let id = own.unwrap_or(self.next);
        let is_increasing = self.highest.is_none_or(|highest| id > highest);
        if is_increasing {
            self.highest = Some(id);
            // Also above ids that the application sets, so that the order of the wire stays the order of the ids.
            self.next = id.saturating_add(1);
        }
        (id, is_increasing)
    }

    /// Numbers messages that were accepted before the first attach; their lowest and highest id.
    fn assign_all<'a>(&mut self, messages: impl Iterator<Item = &'a mut Message>) -> (u64, u64) {
        let mut range = None;
        for message in messages {
            let (id, _) = self.assign(message.sequence_id());
            message.set_sequence_id(id);
            range = Some((range.map_or(id, |(first, _)| first), id));
        }
        range.unwrap_or((0, 0))
    }

    /// A message is accepted: the index of the next one is one higher.
    #[inline]
    pub(super) fn count_accepted(&mut self) {
        self.accepted_messages += 1;
    }

    /// Messages accepted so far, which is also the index of the next one.
    #[inline]
    pub(super) fn accepted_messages(&self) -> u64 {
        self.accepted_messages
    }

    /// The broker has stored this id.
    #[inline]
    pub(super) fn note_stored(&mut self, id: u64) {
        self.last_stored = self.last_stored.max(Some(id));
    }

    pub(super) fn last_stored(&self) -> Option<u64> {
        self.last_stored
    }
}

impl Producer {
    /// Starts the sequence ids on the first attach. Messages accepted before get their ids in the order of acceptance.
    pub(super) fn start_sequence_ids(&mut self, last_sequence_id: i64) {
        self.sequence_ids.start(self.config.initial_sequence_id, last_sequence_id);
        self.close_key_batches();
        for (group, work) in self.sealing.queue_mut() {
            // Nothing is framed before there are numbers.
            let ToSeal::Messages(content) = work else { continue };
            let ids = self.sequence_ids.assign_all(content.held_mut());
            let place = self.in_flight.place_of(*group);
            if let Some(entry) = place.and_then(|place| self.in_flight.entry_mut(place.first_entry)) {
                (entry.first, entry.last) = ids;
            }
        }
        if let Some(batch) = &mut self.open_batch {
            (batch.first, batch.last) = self.sequence_ids.assign_all(batch.content.held_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_follow_those_that_the_application_sets() {
        let mut ids = SequenceIds::default();
        ids.start(None, -1);
        assert_eq!(ids.assign(None), (0, true));
        assert_eq!(ids.assign(Some(10)), (10, true));
        assert_eq!(ids.assign(None), (11, true));
        assert_eq!(ids.assign(Some(5)), (5, false));
        assert_eq!(ids.assign(None), (12, true));
    }

    #[test]
    fn sequence_ids_start_above_what_is_stored() {
        let start = |initial, last| {
            let mut ids = SequenceIds::default();
            ids.start(initial, last);
            (ids.last_stored(), ids.assign(None).0)
        };
        assert_eq!(start(None, -1), (None, 0));
        assert_eq!(start(None, 41), (Some(41), 42));
        assert_eq!(start(Some(7), 41), (Some(7), 8), "what the application says goes first");
    }

    #[test]
    fn ids_end_with_the_highest_that_the_protocol_has() {
        let mut ids = SequenceIds::default();
        ids.start(Some(SEQUENCE_ID_MAX - 1), -1);
        assert!(ids.can_assign(None) && !ids.can_assign(Some(SEQUENCE_ID_MAX + 1)));
        assert_eq!(ids.assign(None), (SEQUENCE_ID_MAX, true));
        assert!(!ids.can_assign(None) && ids.can_assign(Some(0)));
        ids.start(None, i64::MAX);
        assert!(!ids.can_assign(None), "that one is stored");
    }
}
