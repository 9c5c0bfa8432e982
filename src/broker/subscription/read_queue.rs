//! Which entries of the log a subscription sends next, and in which order.
//!
//! Entries to be sent again come first, in the order of the log; then those that were never read. An entry whose
//! delivery time has not come is set aside until then. Acknowledgements are kept by the [`Cursor`]; the queue skips
//! what it has acknowledged.

use std::collections::BTreeSet;

use crate::broker::storage::{CompactedLog, Cursor, Log, StoredEntry};

/// Offsets only; bounded by the entries stored.
#[derive(Debug)]
pub(crate) struct ReadQueue {
    /// The next offset that was never read, or not since the last rewind.
    next: u64,
    /// The highest `next` ever since the last reset: what a cumulative ack may name.
    next_max: u64,
    /// Offsets below `next` that are to be sent (again).
    replay: BTreeSet<u64>,
    /// Entries whose `deliver_at_time` has not come: ms since 1970, and the offset.
    delayed: BTreeSet<(u64, u64)>,
    /// The due time that a timer was set for, ms since 1970.
    timer_set_ms: Option<u64>,
}

impl ReadQueue {
    pub(super) fn at(start: u64) -> Self {
        Self { next: start, next_max: start, replay: BTreeSet::new(), delayed: BTreeSet::new(), timer_set_ms: None }
    }

    /// The next entry that was never read and is not acknowledged. It stays where it is until it is taken.
    pub(crate) fn next_unread<'a>(&mut self, cursor: &Cursor, log: &'a Log) -> Option<(u64, &'a StoredEntry)> {
        while cursor.is_acked(self.next) && self.next < log.end() {
            self.next += 1;
        }
        log.get(self.next).map(|entry| (self.next, entry))
    }

    /// The same, of the compacted view below its horizon.
    pub(crate) fn next_unread_compacted<'a>(
        &mut self,
        cursor: &Cursor,
        log: &'a Log,
        compacted: &'a CompactedLog,
    ) -> Option<(u64, &'a StoredEntry)> {
        while self.next < compacted.horizon() {
            match compacted.next(self.next) {
                Some((offset, entry)) if !cursor.is_acked(offset) => {
                    self.next = offset;
                    return Some((offset, entry));
                }
                Some((offset, _)) => self.next = offset + 1,
                None => self.next = compacted.horizon(),
            }
        }
        self.skip_trimmed(log);
        self.next_unread(cursor, log)
    }

    /// The next entry to be sent again, else the next unread one. It stays where it is until [`take`](Self::take).
    pub(crate) fn next_entry<'a>(&mut self, cursor: &Cursor, log: &'a Log) -> Option<(u64, &'a StoredEntry)> {
        while let Some(offset) = self.replay.first().copied() {
            match log.get(offset) {
                Some(entry) if !cursor.is_acked(offset) => return Some((offset, entry)),
                _ => self.replay.remove(&offset),
            };
        }
        self.next_unread(cursor, log)
    }

    /// The first entry to be sent again above `after`, or from the first one on.
    pub(crate) fn next_replay(&self, after: Option<u64>) -> Option<u64> {
        self.replay.range(after.map_or(0, |after| after + 1)..).next().copied()
    }

    /// Entries to be sent again.
    pub(crate) fn replay_len(&self) -> usize {
        self.replay.len()
    }

    /// Takes an entry off the queue: it is sent, dropped or set aside.
    pub(crate) fn take(&mut self, offset: u64) {
        if !self.replay.remove(&offset) && offset == self.next {
            self.next += 1;
        }
    }

    /// Takes the entry that [`next_unread`](Self::next_unread) gave, without a look at what is to be sent again.
    pub(crate) fn take_unread(&mut self) {
        self.next += 1;
    }

    /// Puts an entry below the read position back, to be sent again.
    pub(crate) fn put_back(&mut self, offset: u64) {
        self.replay.insert(offset);
    }

    /// Drops an entry that is not to be sent again.
    pub(crate) fn forget(&mut self, offset: u64) {
        self.replay.remove(&offset);
    }

    /// Sets an entry aside until its delivery time.
    pub(crate) fn delay(&mut self, offset: u64, due_ms: u64) {
        self.delayed.insert((due_ms, offset));
    }

    /// How many entries wait for their delivery time.
    pub(crate) fn delayed_entries(&self) -> usize {
        self.delayed.len()
    }

    /// When an entry that is set aside is due, ms since 1970.
    pub(crate) fn delayed_until(&self, offset: u64) -> Option<u64> {
        self.delayed.iter().find(|(_, delayed)| *delayed == offset).map(|(due_ms, _)| *due_ms)
    }

    /// When the earliest delayed entry is due, ms since 1970, if no timer was set for that time yet; from now on one
    /// counts as set.
    pub(crate) fn take_timer(&mut self) -> Option<u64> {
        let due_ms = self.delayed.first().map(|(due_ms, _)| *due_ms)?;
        let is_earlier = self.timer_set_ms.is_none_or(|set_ms| due_ms < set_ms);
        is_earlier.then(|| *self.timer_set_ms.insert(due_ms))
    }

    /// Delayed entries that are due can be sent.
    pub(crate) fn wake_delayed(&mut self, now_ms: u64) {
        self.timer_set_ms = None;
        let later = self.delayed.split_off(&(now_ms.saturating_add(1), 0));
        let due = std::mem::replace(&mut self.delayed, later);
        self.replay.extend(due.into_iter().map(|(_, offset)| offset));
    }

    /// Moves the read position to the first entry that is still stored.
    pub(crate) fn skip_trimmed(&mut self, log: &Log) {
        self.next = self.next.max(log.first());
    }

    /// Remembers how far reading came.
    pub(crate) fn note_progress(&mut self) {
        self.next_max = self.next_max.max(self.next);
    }

    /// The next entry that was never read, or not since the last rewind.
    pub(crate) fn read_position(&self) -> u64 {
        self.next
    }

    /// Whether the entry was read, in this delivery or an earlier one.
    pub(crate) fn was_read(&self, offset: u64) -> bool {
        offset < self.next_max
    }

    /// Reading starts again at `mark_delete`.
    pub(super) fn rewind(&mut self, mark_delete: u64) {
        self.replay.clear();
        self.next = mark_delete;
    }

    /// SEEK: nothing was ever read beyond `mark_delete`.
    pub(super) fn reset(&mut self, mark_delete: u64) {
        self.rewind(mark_delete);
        self.next_max = mark_delete;
        self.delayed.clear();
    }

    /// No consumer is left: delayed entries are found again when the log is read from the mark-delete position.
    pub(super) fn clear_delayed(&mut self) {
        self.delayed.clear();
    }

    /// Every entry below `offset` is acknowledged.
    pub(super) fn settle_below(&mut self, offset: u64) {
        self.replay = self.replay.split_off(&offset);
        self.next = self.next.max(offset);
        self.note_progress();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::storage::EntryInfo;

    fn log_of(entries: u64) -> Log {
        let mut log = Log::new(1);
        for _ in 0..entries {
            log.append(Bytes::from_static(b"x"), EntryInfo::default(), 1, 0);
        }
        log
    }

    fn drain(queue: &mut ReadQueue, cursor: &Cursor, log: &Log) -> Vec<u64> {
        let mut offsets = Vec::new();
        while let Some((offset, _)) = queue.next_entry(cursor, log) {
            queue.take(offset);
            offsets.push(offset);
        }
        offsets
    }

    #[test]
    fn entries_to_be_sent_again_come_first_and_acknowledged_ones_never() {
        let (log, mut cursor, mut queue) = (log_of(5), Cursor::at(0), ReadQueue::at(0));
        queue.take(0);
        queue.take(1);
        queue.put_back(1);
        queue.put_back(0);
        cursor.ack(1);
        cursor.ack(3);
        assert_eq!(drain(&mut queue, &cursor, &log), [0, 2, 4]);
    }

    #[test]
    fn delayed_entries_come_back_at_their_time_under_one_timer() {
        let (log, cursor, mut queue) = (log_of(2), Cursor::at(0), ReadQueue::at(0));
        queue.take(0);
        queue.delay(0, 50);
        assert_eq!((queue.take_timer(), queue.take_timer()), (Some(50), None), "one timer for one time");
        assert_eq!(drain(&mut queue, &cursor, &log), [1]);
        queue.wake_delayed(49);
        assert_eq!((drain(&mut queue, &cursor, &log), queue.take_timer()), (vec![], Some(50)));
        queue.wake_delayed(50);
        assert_eq!(drain(&mut queue, &cursor, &log), [0]);
    }

    #[test]
    fn a_rewind_keeps_what_was_read_and_a_reset_forgets_it() {
        let mut queue = ReadQueue::at(0);
        (0..3).for_each(|offset| queue.take(offset));
        queue.note_progress();
        queue.rewind(1);
        assert!(queue.was_read(2) && !queue.was_read(3));
        queue.reset(1);
        assert!(queue.was_read(0) && !queue.was_read(1));
    }
}
