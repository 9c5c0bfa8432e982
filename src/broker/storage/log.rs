//! The append log of one topic: entries by dense offset, and the message ids they go by.
//!
//! A *position* is what the protocol names (`ledgerId`, `entryId`); an *offset* counts entries from the topic's first
//! one. All other files of this room work with offsets, which have no gaps, and translate at the border.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

/// `ledgerId` and `entryId` of `MessageIdData`. Signed, because −1 has a meaning in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) ledger: i64,
    pub(crate) entry: i64,
}

impl Position {
    /// Reads the unsigned numbers of the wire, where −1 travels as 2^64−1.
    pub(crate) fn from_wire(ledger: u64, entry: u64) -> Self {
        Self { ledger: ledger as i64, entry: entry as i64 }
    }
}

/// What the broker has to know of an entry beyond its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EntryFacts {
    /// False where `MessageMetadata` does not parse.
    pub(crate) readable: bool,
    /// Where the checksum block lies, to be cut out for peers below version 11.
    pub(crate) checksum_bytes: usize,
    /// `num_messages_in_batch`; `None` for a message that is not a batch.
    pub(crate) batch: Option<u32>,
    /// `publish_time`, ms since 1970.
    pub(crate) publish_time_ms: u64,
    /// `deliver_at_time`, ms since 1970.
    pub(crate) deliver_at_ms: Option<u64>,
    /// murmur3_32 of the sticky key, masked to 31 bits.
    pub(crate) hashing_scheme: u32,
    /// The chunked message this entry is a part of.
    pub(crate) chunk: Option<Chunk>,
    /// `sequence_id` of the metadata.
    pub(crate) sequence_id: u64,
    /// `highest_sequence_id` of a batch, else 0.
    pub(crate) highest_sequence_id: u64,
}

impl EntryFacts {
    /// Messages inside: the members of a batch, or one.
    pub(crate) fn messages(&self) -> u32 {
        self.batch.unwrap_or(1).max(1)
    }
}

/// The place of an entry in a chunked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) uuid: Arc<str>,
    pub(crate) last: bool,
}

/// One stored entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Headers and payload as the producer sent them. A copy: it pins no read buffer.
    pub(crate) bytes: Bytes,
    pub(crate) facts: EntryFacts,
    pub(crate) position: Position,
    /// When it was stored, ms since 1970.
    pub(crate) stored_ms: u64,
    /// `index` of `BrokerEntryMetadata`: of the last message of this entry, from 0.
    pub(crate) index: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    ledger: i64,
    /// Offset of its entry 0.
    first: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Log {
    /// Never empty; ledgers and offsets grow.
    segments: Vec<Segment>,
    entries: VecDeque<Entry>,
    /// Offset of the front of `entries`.
    first: u64,
    bytes: usize,
    /// Messages ever stored: the next `index` is derived from it.
    messages: u64,
}

impl Log {
    pub(crate) fn new(ledger: i64) -> Self {
        Self { segments: vec![Segment { ledger, first: 0 }], entries: VecDeque::new(), first: 0, bytes: 0, messages: 0 }
    }

    /// Offset of the oldest entry still stored.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Offset the next entry will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, offset: u64) -> Option<&Entry> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.entries.get(index)
    }

    pub(crate) fn get_mut(&mut self, offset: u64) -> Option<&mut Entry> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Stores `bytes` and gives the offset. `messages` is the SEND's `num_messages`, which the index counts by.
    pub(crate) fn append(&mut self, bytes: Bytes, facts: EntryFacts, messages: u64, now_ms: u64) -> u64 {
        let offset = self.end();
        self.bytes += bytes.len();
        self.messages = self.messages.wrapping_add(messages);
        let index = self.messages.wrapping_sub(1);
        let position = self.position(offset);
        self.entries.push_back(Entry { bytes, facts, position, stored_ms: now_ms, index });
        offset
    }

    /// Later entries go to another ledger, as after a topic was unloaded.
    pub(crate) fn roll(&mut self, ledger: i64) {
        let first = self.end();
        if let Some(last) = self.segments.last_mut() {
            if last.first == first {
                *last = Segment { ledger, first };
                return;
            }
        }
        self.segments.push(Segment { ledger, first });
    }

    /// Drops entries below `offset`; returns the bytes freed.
    pub(crate) fn trim(&mut self, offset: u64) -> usize {
        let before = self.bytes;
        while self.first < offset {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes.len();
            self.first += 1;
        }
        let first = self.first;
        let dead = self.segments.windows(2).take_while(|pair| pair[1].first <= first).count();
        self.segments.drain(..dead);
        before - self.bytes
    }

    /// The position of `offset`, stored, trimmed or still to come. A trimmed ledger reads as the oldest one left.
    pub(crate) fn position(&self, offset: u64) -> Position {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= offset).unwrap_or(&self.segments[0]);
        Position { ledger: segment.ledger, entry: offset as i64 - segment.first as i64 }
    }

    /// The position just before `offset`: a mark-delete position. Entry −1 before the first entry of all.
    pub(crate) fn position_before(&self, offset: u64) -> Position {
        match offset.checked_sub(1) {
            Some(before) => self.position(before),
            None => Position { ledger: self.segments[0].ledger, entry: -1 },
        }
    }

    /// The offset of exactly this position, if such an entry was ever stored and its ledger is still known.
    pub(crate) fn offset(&self, position: Position) -> Option<u64> {
        let place = self.segments.iter().position(|segment| segment.ledger == position.ledger)?;
        let entry = u64::try_from(position.entry).ok()?;
        let offset = self.segments[place].first.checked_add(entry)?;
        let end = self.segments.get(place + 1).map_or(self.end(), |next| next.first);
        (offset < end).then_some(offset)
    }

    /// The first offset at or after `position`; `None` where that is beyond the last entry.
    ///
    /// An older ledger, a ledger of −1 and an entry of −1 read as the first entry there.
    pub(crate) fn offset_at_or_after(&self, position: Position) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.ledger >= position.ledger)?;
        let offset = if segment.ledger == position.ledger && position.entry > 0 {
            segment.first.checked_add(position.entry as u64)?
        } else {
            segment.first
        };
        (offset < self.end()).then_some(offset.max(self.first))
    }

    /// The first offset published or stored at `time_ms` or later; `end` if there is none.
    pub(crate) fn offset_at_time(&self, time_ms: u64) -> u64 {
        let at = |entry: &Entry| if entry.facts.readable { entry.facts.publish_time_ms } else { entry.stored_ms };
        let place = self.entries.iter().position(|entry| at(entry) >= time_ms).unwrap_or(self.entries.len());
        self.first + place as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Log {
        let mut log = Log::new(7);
        for _ in 0..count {
            log.append(Bytes::from_static(b"x"), EntryFacts::default(), 1, 0);
        }
        log
    }

    fn at(ledger: i64, entry: i64) -> Position {
        Position { ledger, entry }
    }

    #[test]
    fn positions_and_offsets_translate_over_ledgers() {
        let mut log = filled(3);
        log.roll(9);
        log.append(Bytes::from_static(b"y"), EntryFacts::default(), 1, 0);
        assert_eq!(log.position(2), at(7, 2));
        assert_eq!(log.position(3), at(9, 0));
        assert_eq!(log.offset(at(9, 0)), Some(3));
        assert_eq!(log.offset(at(7, 3)), None);
        assert_eq!(log.offset(at(8, 0)), None);
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
