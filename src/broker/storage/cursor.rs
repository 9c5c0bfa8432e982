//! What one subscription has acknowledged.
//!
//! Everything below the mark-delete position; beyond it, single entries, and some members of batches.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::ack_set::AckSet;

/// The acknowledgements of one subscription, by offset.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// The mark-delete position: every entry below it is acknowledged.
    mark_delete: u64,
    /// Acknowledged one by one; all above `mark_delete`. Bounded by the entries stored.
    acked: BTreeSet<u64>,
    /// Batches with some members acknowledged; bounded by the entries stored.
    partial: BTreeMap<u64, AckSet>,
}

impl Cursor {
    pub(crate) fn at(mark_delete: u64) -> Self {
        Self { mark_delete, ..Self::default() }
    }

    pub(crate) fn mark_delete(&self) -> u64 {
        self.mark_delete
    }

    pub(crate) fn is_acked(&self, offset: u64) -> bool {
        offset < self.mark_delete || self.acked.contains(&offset)
    }

    /// Acknowledges one entry; false if it was already.
    pub(crate) fn ack(&mut self, offset: u64) -> bool {
        if self.is_acked(offset) {
            return false;
        }
        self.partial.remove(&offset);
        if offset == self.mark_delete {
            self.mark_delete += 1;
            while self.acked.remove(&self.mark_delete) {
                self.mark_delete += 1;
            }
        } else {
            self.acked.insert(offset);
        }
        true
    }

    /// ANDs `words` into what is left of a batch; true if that leaves nothing, which acknowledges the entry.
    pub(crate) fn ack_members(&mut self, offset: u64, words: &[i64], members: u32) -> bool {
        if self.is_acked(offset) {
            return false;
        }
        // What the words do not reach is acknowledged: the set is as long as they are, even if the batch claims more
        // members.
        let reached = u32::try_from(words.len().saturating_mul(64)).unwrap_or(u32::MAX).min(members);
        let left = self.partial.entry(offset).or_insert_with(|| AckSet::full(reached));
        left.and_with(words);
        left.is_empty() && self.ack(offset)
    }

    /// Acknowledges every entry below `offset`.
    pub(crate) fn ack_below(&mut self, offset: u64) {
        if offset <= self.mark_delete {
            return;
        }
        self.mark_delete = offset;
        self.acked = self.acked.split_off(&offset);
        self.partial = self.partial.split_off(&offset);
        while self.acked.remove(&self.mark_delete) {
            self.mark_delete += 1;
        }
    }

    /// Messages of an entry of `messages` that are not acknowledged.
    pub(crate) fn left(&self, offset: u64, messages: u32) -> u32 {
        if self.is_acked(offset) {
            return 0;
        }
        self.partial.get(&offset).map_or(messages, AckSet::count)
    }

    /// `ack_set` of a MESSAGE: the members left of a batch that is partly acknowledged, else empty.
    pub(crate) fn ack_set(&self, offset: u64) -> Vec<i64> {
        self.partial.get(&offset).map_or_else(Vec::new, AckSet::to_words)
    }

    /// Whether one message of an entry is acknowledged.
    pub(crate) fn is_member_acked(&self, offset: u64, member: u32) -> bool {
        self.is_acked(offset) || self.partial.get(&offset).is_some_and(|left| !left.is_set(member))
    }

    /// Starts again at `offset`; with `words`, only those members of that entry are not acknowledged.
    pub(crate) fn reset(&mut self, offset: u64, words: &[i64], members: u32) {
        *self = Self::at(offset);
        if !words.is_empty() {
            self.ack_members(offset, words, members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_follows_individual_acks_without_gaps() {
        let mut cursor = Cursor::at(0);
        assert!(cursor.ack(1) && cursor.ack(2));
        assert_eq!(cursor.mark_delete(), 0);
        assert!(cursor.ack(0));
        assert_eq!(cursor.mark_delete(), 3);
        assert!(!cursor.ack(1), "a second ack changes nothing");
    }

    #[test]
    fn members_are_anded_and_the_last_one_acks_the_entry() {
        let mut cursor = Cursor::at(0);
        assert!(!cursor.ack_members(0, &[0b101], 3));
        assert_eq!((cursor.left(0, 3), cursor.ack_set(0)), (2, vec![0b101]));
        assert!(!cursor.ack_members(0, &[0b110], 3));
        assert_eq!(cursor.ack_set(0), vec![0b100]);
        assert!(cursor.ack_members(0, &[0], 3));
        assert_eq!((cursor.mark_delete(), cursor.left(0, 3)), (1, 0));
    }

    #[test]
    fn a_batch_that_claims_to_be_huge_costs_what_the_ack_says() {
        let mut cursor = Cursor::at(0);
        assert!(!cursor.ack_members(0, &[0b11], u32::MAX));
        assert_eq!((cursor.left(0, u32::MAX), cursor.ack_set(0)), (2, vec![0b11]));
    }

    #[test]
    fn a_cumulative_ack_swallows_individual_ones() {
        let mut cursor = Cursor::at(0);
        cursor.ack(5);
        cursor.ack_below(5);
        assert_eq!(cursor.mark_delete(), 6);
        cursor.ack_below(2);
        assert_eq!(cursor.mark_delete(), 6, "the mark-delete position never goes back");
    }
}
