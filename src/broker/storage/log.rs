//! The append log of one topic: entries by dense offset, and the positions they go by.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{EntryInfo, EntryPosition};

/// One stored entry.
#[derive(Debug, Clone)]
pub(crate) struct StoredEntry {
    /// Headers and payload as the producer sent them. A copy: it pins no read buffer.
    pub(crate) bytes: Bytes,
    pub(crate) info: EntryInfo,
    pub(crate) position: EntryPosition,
    /// When it was stored, ms since 1970.
    pub(crate) stored_ms: u64,
    /// `index` of `BrokerEntryMetadata`: of the last message of this entry, from 0.
    pub(crate) index: u64,
}

/// The part of a log that one ledger holds.
#[derive(Debug, Clone, Copy)]
struct LedgerSegment {
    ledger: i64,
    /// Offset of its entry 0.
    first: u64,
}

/// The entries of one topic. Memory is bounded by the broker's limit on stored bytes, over all topics.
#[derive(Debug)]
pub(crate) struct Log {
    /// Never empty; ledgers and offsets grow.
    segments: Vec<LedgerSegment>,
    /// The ledger that it began with.
    first_ledger: i64,
    entries: VecDeque<StoredEntry>,
    /// Offset of the front of `entries`.
    first: u64,
    bytes: usize,
    /// Messages ever stored: the next `index` is derived from it.
    messages: u64,
    /// Positions of entries that are dropped are still translated: a compacted view has them.
    keeps_positions: bool,
}

impl Log {
    pub(crate) fn new(ledger: i64) -> Self {
        Self {
            segments: vec![LedgerSegment { ledger, first: 0 }],
            first_ledger: ledger,
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            messages: 0,
            keeps_positions: false,
        }
    }

    /// Whether the position is of a topic that had the name before: the ledgers of a broker grow over all topics.
    pub(crate) fn is_of_earlier_topic(&self, position: EntryPosition) -> bool {
        position.ledger < self.first_ledger
    }

    /// Offset of the oldest entry still stored.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Offset the next entry will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Entries stored now.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Bytes of the entries stored now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, offset: u64) -> Option<&StoredEntry> {
        self.entries.get(self.index(offset)?)
    }

    fn index(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.first)?).ok()
    }

    /// Damages an entry in place, so that what is stored differs from what was sent. False if there is no such entry.
    pub(crate) fn damage(&mut self, offset: u64, change: impl FnOnce(&mut [u8])) -> bool {
        let Some(index) = self.index(offset) else { return false };
        let Some(entry) = self.entries.get_mut(index) else { return false };
        let mut bytes = BytesMut::from(&entry.bytes[..]);
        change(&mut bytes);
        entry.bytes = bytes.freeze();
        true
    }

    /// Stores `bytes` and returns the offset. `messages` is the SEND's `num_messages`, which the index counts by.
    pub(crate) fn append(&mut self, bytes: Bytes, info: EntryInfo, messages: u64, now_ms: u64) -> u64 {
        let offset = self.end();
        self.bytes += bytes.len();
        self.messages = self.messages.wrapping_add(messages);
        let index = self.messages.wrapping_sub(1);
        let position = self.position(offset);
        self.entries.push_back(StoredEntry { bytes, info, position, stored_ms: now_ms, index });
        offset
    }

    /// Later entries go to another ledger, as after a topic was unloaded.
    pub(crate) fn roll(&mut self, ledger: i64) {
        let first = self.end();
        if let Some(last) = self.segments.last_mut() {
            if last.first == first {
                *last = LedgerSegment { ledger, first };
                return;
            }
        }
        self.segments.push(LedgerSegment { ledger, first });
    }

    /// From now on positions of entries that are dropped are translated too.
    pub(crate) fn keep_positions(&mut self) {
        self.keeps_positions = true;
    }

    /// Bytes of the entries from `offset` on that are still stored.
    pub(crate) fn bytes_from(&self, offset: u64) -> u64 {
        let start = self.index(offset.max(self.first)).unwrap_or(usize::MAX).min(self.entries.len());
        // What is before it may be the smaller part.
        let bytes_of = |entry: &StoredEntry| entry.bytes.len() as u64;
        if start < self.entries.len() / 2 {
            return self.bytes as u64 - self.entries.range(..start).map(bytes_of).sum::<u64>();
        }
        self.entries.range(start..).map(bytes_of).sum()
    }

    /// The first entry from `offset` on that was stored at `time_ms` or later; `end` if there is none.
    pub(crate) fn stored_since(&self, offset: u64, time_ms: u64) -> u64 {
        let from = offset.max(self.first);
        let is_older = |offset: &u64| self.get(*offset).is_some_and(|entry| entry.stored_ms < time_ms);
        from + (from..self.end()).take_while(is_older).count() as u64
    }

    /// The ledgers that still hold entries or will, oldest first: their numbers, and the entries and bytes stored in each.
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = (i64, u64, u64)> + '_ {
        self.segments.iter().enumerate().map(|(index, segment)| {
            let end = self.segments.get(index + 1).map_or(self.end(), |next| next.first);
            let stored = segment.first.max(self.first)..end;
            let bytes = stored.clone().filter_map(|offset| self.get(offset)).map(|entry| entry.bytes.len() as u64);
            (segment.ledger, stored.end.saturating_sub(stored.start), bytes.sum())
        })
    }

    /// Drops entries below `offset`; returns the bytes freed.
    pub(crate) fn trim(&mut self, offset: u64) -> usize {
        let before = self.bytes;
        while self.first < offset {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes.len();
            self.first += 1;
        }
        if self.keeps_positions {
            return before - self.bytes;
        }
        let first = self.first;
        let dead = self.segments.windows(2).take_while(|pair| pair[1].first <= first).count();
        self.segments.drain(..dead);
        before - self.bytes
    }

    /// The position of `offset`, stored, trimmed or still to come. A trimmed ledger reads as the oldest one left.
    pub(crate) fn position(&self, offset: u64) -> EntryPosition {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= offset).unwrap_or(&self.segments[0]);
        EntryPosition { ledger: segment.ledger, entry: offset as i64 - segment.first as i64 }
    }

    /// The position just before `offset`: a mark-delete position. Entry −1 before the first entry of all.
    pub(crate) fn position_before(&self, offset: u64) -> EntryPosition {
        match offset.checked_sub(1) {
            Some(before) => self.position(before),
            None => EntryPosition { ledger: self.segments[0].ledger, entry: -1 },
        }
    }

    /// The offset of exactly this position, if such an entry was ever stored and its ledger is still known.
    pub(crate) fn offset(&self, position: EntryPosition) -> Option<u64> {
        let index = self.segments.iter().position(|segment| segment.ledger == position.ledger)?;
        let entry = u64::try_from(position.entry).ok()?;
        let offset = self.segments[index].first.checked_add(entry)?;
        let end = self.segments.get(index + 1).map_or(self.end(), |next| next.first);
        (offset < end).then_some(offset)
    }

    /// Whether an entry was stored here and is not any more, with all of its ledger.
    pub(crate) fn has_dropped(&self, position: EntryPosition) -> bool {
        let first_left = self.segments.first().map_or(self.first_ledger, |segment| segment.ledger);
        (self.first_ledger..first_left).contains(&position.ledger)
    }

    /// The first offset at or after `position`; `None` where that is beyond the last entry.
    ///
    /// An older ledger, a ledger of −1 and an entry of −1 read as the first entry there.
    pub(crate) fn offset_at_or_after(&self, position: EntryPosition) -> Option<u64> {
        let index = self.segments.iter().position(|segment| segment.ledger >= position.ledger)?;
        let segment = self.segments[index];
        let offset = if segment.ledger == position.ledger && position.entry > 0 {
            // Behind the last entry of an older ledger is the first of the next one.
            let next = self.segments.get(index + 1).map_or(u64::MAX, |next| next.first);
            segment.first.saturating_add(position.entry as u64).min(next)
        } else {
            segment.first
        };
        (offset < self.end()).then_some(offset.max(self.first))
    }

    /// The first offset published or stored at `time_ms` or later; `end` if there is none.
    pub(crate) fn offset_at_time(&self, time_ms: u64) -> u64 {
        let at = |entry: &StoredEntry| if entry.info.readable { entry.info.publish_time_ms } else { entry.stored_ms };
        let index = self.entries.iter().position(|entry| at(entry) >= time_ms).unwrap_or(self.entries.len());
        self.first + index as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Log {
        let mut log = Log::new(7);
        for _ in 0..count {
            log.append(Bytes::from_static(b"x"), EntryInfo::default(), 1, 0);
        }
        log
    }

    fn at(ledger: i64, entry: i64) -> EntryPosition {
        EntryPosition { ledger, entry }
    }

    #[test]
    fn positions_and_offsets_translate_over_ledgers() {
        let mut log = filled(3);
        log.roll(9);
        log.append(Bytes::from_static(b"y"), EntryInfo::default(), 1, 0);
        assert_eq!(log.position(2), at(7, 2));
        assert_eq!(log.position(3), at(9, 0));
        assert_eq!(log.offset(at(9, 0)), Some(3));
        assert_eq!(log.offset(at(7, 3)), None);
        assert_eq!(log.offset(at(8, 0)), None);
        assert_eq!(log.offset_at_or_after(at(7, 10)), Some(3));
        assert_eq!(log.offset_at_or_after(at(9, i64::MAX)), None);
        assert_eq!(log.position_before(3), at(7, 2));
        assert_eq!(log.position_before(0), at(7, -1));
    }

    #[test]
    fn starting_points_follow_the_table_of_non_durable_subscriptions() {
        let log = filled(5);
        for first in [at(-1, -1), at(-1, 3), at(7, -1), at(3, 2)] {
            assert_eq!(log.offset_at_or_after(first), Some(0), "{first:?}");
        }
        assert_eq!(log.offset_at_or_after(at(7, 2)), Some(2));
        for beyond in [at(7, 5), at(7, 99), at(8, 0), at(i64::MAX, i64::MAX)] {
            assert_eq!(log.offset_at_or_after(beyond), None, "{beyond:?}");
        }
    }

    #[test]
    fn trimming_frees_bytes_and_keeps_offsets() {
        let mut log = filled(4);
        assert_eq!(log.trim(3), 3);
        assert_eq!((log.first(), log.end(), log.bytes()), (3, 4, 1));
        assert!(log.get(2).is_none() && log.get(3).is_some());
        assert_eq!(log.offset_at_or_after(at(-1, -1)), Some(3));
        assert_eq!(log.trim(100), 1);
        assert_eq!(log.end(), 4);
    }
}
