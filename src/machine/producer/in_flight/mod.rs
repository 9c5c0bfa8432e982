//! Entries between acceptance and receipt, in the order of the wire.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use super::group::{GroupFrames, GroupKind, PendingEntry, SendGroup};
use super::one_or_more::OneOrMore;
use super::pipeline::SealedEntry;
use crate::machine::Now;
use crate::wire::tx::{SealedFrame, TxBuf};

/// The queue of entries, and the send cursor in it.
///
/// ```text
///  receipt              cursor                     open group, or open batch
///     v                   v                            v
///   [ sent ... sent | sealed ... sealed | to seal ... ] [ ... ]
/// ```
///
/// The cursor stands behind what was written to the present connection: `sent_groups` groups, of which
/// `sent_entries` entries are not settled. Groups are written whole, but for those of a chunked message: these are written
/// chunk by chunk, so that others on the connection have their turn. Then the cursor stands inside a group, behind
/// `sent_chunks` of its unsettled entries, which `sent_entries` counts as well.
///
/// | event | cursor |
/// | --- | --- |
/// | the next group is written | moves behind it, with all its unsettled entries |
/// | the next chunk is written | moves behind it, and behind its group if it is the last one |
/// | an entry before it is settled | one entry fewer |
/// | a group before it is retired | one group fewer |
/// | an entry or group behind it is settled or retired: overdue, failed, or confirmed late on an earlier connection | stays |
/// | the connection is gone | moves to the start; the entries before it are marked as resent |
#[derive(Default)]
pub(super) struct InFlight {
    /// The entries of all groups, one group behind the other.
    entries: VecDeque<PendingEntry>,
    /// The groups, in the order of their numbers and indexes. A group stays until all its entries are settled.
    groups: VecDeque<SendGroup>,
    sent_groups: usize,
    sent_entries: usize,
    sent_chunks: usize,
    next_number: u64,
    /// How many groups are not started yet; they are among the last.
    unstarted: usize,
}

/// Where a group is in the queue, until the queue is changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupPlace {
    position: usize,
    /// The place of its first entry.
    pub(super) first_entry: usize,
}

/// Acceptance.
impl InFlight {
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Adds a group of one entry.
    pub(super) fn push(&mut self, group: SendGroup, entry: PendingEntry) {
        self.open(group);
        self.join(entry);
    }

    /// Adds a group, whose first entry is to [`join`](Self::join) at once.
    pub(super) fn open(&mut self, group: SendGroup) {
        debug_assert!(self.groups.back().is_none_or(|last| last.number < group.number), "numbers grow");
        self.unstarted += usize::from(group.started.is_none());
        self.groups.push_back(group);
    }

    /// The group that takes more messages, with its frames.
    #[inline]
    pub(super) fn open_group(&mut self) -> Option<&mut SendGroup> {
        self.groups.back_mut().filter(|group| group.is_open())
    }

    pub(super) fn has_open_group(&self) -> bool {
        self.groups.back().is_some_and(SendGroup::is_open)
    }

    /// Adds an entry to the last group.
    #[inline]
    pub(super) fn join(&mut self, entry: PendingEntry) {
        if let Some(group) = self.groups.back_mut() {
            group.unsettled += 1;
            self.entries.push_back(entry);
        }
    }

    /// Closes the open group, if there is one: its number, and its frames for a job.
    pub(super) fn close_group(&mut self) -> Option<(u64, BytesMut)> {
        let group = self.open_group()?;
        match std::mem::replace(&mut group.frames, GroupFrames::AwaitingSeal) {
            GroupFrames::Open(frames) => Some((group.number, frames)),
            GroupFrames::AwaitingSeal | GroupFrames::Sealed(_) => None,
        }
    }

    /// Whether a group was added since [`start_clocks`](Self::start_clocks).
    #[inline]
    pub(super) fn has_unstarted(&self) -> bool {
        self.unstarted > 0
    }

    /// Sets deadline and publish time of the groups that have none yet.
    pub(super) fn start_clocks(&mut self, now: Now, deadline: Option<Instant>) {
        let unstarted = self.groups.iter_mut().rev().filter(|group| group.started.is_none());
        for group in unstarted.take(self.unstarted) {
            group.started = Some(now);
            if !group.has_own_deadline {
                group.deadline = deadline;
            }
        }
        self.unstarted = 0;
    }
}

/// Access.
impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The oldest entry, and its group.
    #[inline]
    pub(super) fn front(&self) -> Option<(&SendGroup, &PendingEntry)> {
        Some((self.groups.front()?, self.entries.front()?))
    }

    pub(super) fn groups(&self) -> impl ExactSizeIterator<Item = &SendGroup> {
        self.groups.iter()
    }

    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &PendingEntry> {
        self.entries.iter()
    }

    /// Numbers have no gaps but for groups that were settled before others, so that it is mostly where it would be without any.
    #[inline]
    fn position(&self, number: u64) -> Option<usize> {
        let first = self.groups.front()?.number;
        let without_gaps = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.groups.get(without_gaps).is_some_and(|group| group.number == number) {
            return Some(without_gaps);
        }
        self.groups.binary_search_by_key(&number, |group| group.number).ok()
    }

    /// Where the entries of the group at `position` start. Mostly each group before it is a batch, which has one.
    #[inline]
    fn offset(&self, position: usize) -> usize {
        let index = self.groups[position].index;
        let search = || self.entries.partition_point(|entry| entry.index < index);
        if self.entries.get(position).is_some_and(|entry| entry.index == index) {
            debug_assert_eq!(position, search(), "no group is without entries");
            return position;
        }
        search()
    }

    /// Where a group is, unless all its entries are settled.
    pub(super) fn place_of(&self, number: u64) -> Option<GroupPlace> {
        let position = self.position(number)?;
        Some(GroupPlace { position, first_entry: self.offset(position) })
    }

    /// The group of the oldest entry, also once that was taken out.
    pub(super) fn front_group_mut(&mut self) -> Option<&mut SendGroup> {
        self.groups.front_mut()
    }

    pub(super) fn group_at(&self, place: GroupPlace) -> &SendGroup {
        &self.groups[place.position]
    }

    pub(super) fn entry_mut(&mut self, at: usize) -> Option<&mut PendingEntry> {
        self.entries.get_mut(at)
    }

    /// The place of the first entry that `is_wanted`.
    pub(super) fn find(&self, is_wanted: impl Fn(&SendGroup, &PendingEntry) -> bool) -> Option<usize> {
        let groups = self.groups.iter().flat_map(|group| std::iter::repeat_n(group, group.unsettled));
        groups.zip(&self.entries).position(|(group, entry)| is_wanted(group, entry))
    }

    /// The position of the group to which the entry at `at` belongs.
    fn position_of(&self, at: usize) -> Option<usize> {
        let index = self.entries.get(at)?.index;
        self.groups.partition_point(|group| group.index <= index).checked_sub(1)
    }

    /// Whether the entry's bytes were written to a connection.
    pub(super) fn is_transmitted(&self, at: usize) -> bool {
        self.position_of(at).is_some_and(|position| self.groups[position].transmitted)
    }

    /// The frame of one entry, if it is sealed.
    pub(super) fn frame(&self, at: usize) -> Option<SealedFrame> {
        self.groups[self.position_of(at)?].frame_of(self.entries.get(at)?)
    }
}

/// Sealing.
impl InFlight {
    /// Keeps the frames of a group: they may be written from now on.
    pub(super) fn keep(&mut self, place: GroupPlace, sealed: OneOrMore<SealedEntry>) {
        if sealed.len() > 1 {
            self.split(place, sealed.len());
        }
        let group = &mut self.groups[place.position];
        // The entries of a framed group have had their ranges since they were framed.
        if group.kind != GroupKind::Framed {
            let mut start = 0;
            for (at, sealed) in (place.first_entry..).zip(sealed.iter()) {
                let Some(entry) = self.entries.get_mut(at) else { break };
                start = entry.set_frame(start, sealed);
            }
        }
        group.frames = GroupFrames::Sealed(sealed);
    }

    /// The message of a group goes out in `chunks`: its entry becomes as many.
    fn split(&mut self, place: GroupPlace, chunks: usize) {
        let group = &mut self.groups[place.position];
        debug_assert!(group.kind == GroupKind::Single && group.unsettled == 1, "only a single message is split");
        let behind = self.entries.split_off(place.first_entry + 1);
        let Some(entry) = self.entries.pop_back() else { return };
        self.entries.extend(entry.into_chunks(chunks));
        self.entries.extend(behind);
        group.kind = GroupKind::Chunked;
        group.unsettled = chunks;
    }
}

/// Settling.
impl InFlight {
    /// Takes the oldest entry out, which [`front`](Self::front) shows. Its group stays, until [`retire_front`](Self::retire_front).
    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<&mut SendGroup> {
        self.entries.pop_front()?;
        let group = self.groups.front_mut()?;
        group.unsettled -= 1;
        group.is_whole = false;
        self.sent_entries = self.sent_entries.saturating_sub(1);
        if self.sent_groups == 0 {
            self.sent_chunks = self.sent_chunks.saturating_sub(1);
        }
        Some(group)
    }

    /// Takes one entry out. Its group stays, until [`retire`](Self::retire).
    pub(super) fn take(&mut self, at: usize) -> Option<(PendingEntry, &mut SendGroup)> {
        let position = self.position_of(at)?;
        let entry = self.entries.remove(at)?;
        if at < self.sent_entries {
            self.sent_entries -= 1;
            self.sent_chunks -= usize::from(position == self.sent_groups);
        }
        let group = &mut self.groups[position];
        group.unsettled -= 1;
        group.is_whole = false;
        Some((entry, group))
    }

    /// [`take`](Self::take) of a whole message: of a chunked one the entry of the last chunk, with the others before it.
    pub(super) fn take_message(&mut self, at: usize) -> Option<(PendingEntry, &mut SendGroup)> {
        let position = self.position_of(at)?;
        if self.groups[position].kind != GroupKind::Chunked {
            return self.take(at);
        }
        let first = self.offset(position);
        while self.entries.get(first)?.is_inner_chunk() {
            self.take(first)?;
        }
        self.take(first)
    }

    /// Takes the oldest group out if all its entries are settled.
    #[inline]
    pub(super) fn retire_front(&mut self) -> Option<SendGroup> {
        if self.groups.front().is_some_and(|group| group.unsettled == 0) { self.retire_at(0) } else { None }
    }

    /// Takes a group out if all its entries are settled.
    pub(super) fn retire(&mut self, number: u64) -> Option<SendGroup> {
        let position = self.position(number)?;
        if self.groups[position].unsettled == 0 { self.retire_at(position) } else { None }
    }

    fn retire_at(&mut self, position: usize) -> Option<SendGroup> {
        if position < self.sent_groups {
            self.sent_groups -= 1;
        }
        let group = if position == 0 { self.groups.pop_front() } else { self.groups.remove(position) }?;
        if group.started.is_none() {
            self.unstarted -= 1;
        }
        Some(group)
    }
}

/// Writing.
impl InFlight {
    /// The connection is gone: everything is written again to the next one.
    pub(super) fn rewind(&mut self) {
        let sent = self.entries.iter_mut().take(self.sent_entries);
        sent.for_each(|entry| entry.resent |= !entry.checksum_refused);
        (self.sent_groups, self.sent_entries, self.sent_chunks) = (0, 0, 0);
    }

    /// Whether something has not been written to the present connection.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent_groups < self.groups.len()
    }

    /// Writes the next group to the connection, if it is sealed; how many bytes it was. A group of which entries are
    /// settled, on a connection before this one, is written entry by entry. Of a chunked message it writes one chunk.
    pub(super) fn write_next(&mut self, tx: &mut TxBuf) -> Option<usize> {
        let group = self.groups.get_mut(self.sent_groups)?;
        let GroupFrames::Sealed(sealed) = &group.frames else { return None };
        let before = tx.len();
        if group.kind == GroupKind::Chunked {
            // The unsettled ones are the last: chunks are settled from the front, or all of them at once.
            let settled = sealed.len() - group.unsettled;
            tx.push_frame(&sealed.get(settled + self.sent_chunks)?.frame);
            group.transmitted = true;
            self.sent_chunks += 1;
            self.sent_entries += 1;
            if self.sent_chunks == group.unsettled {
                (self.sent_groups, self.sent_chunks) = (self.sent_groups + 1, 0);
            }
            return Some(tx.len() - before);
        }
        if group.is_whole {
            sealed.iter().for_each(|sealed| tx.push_frame(&sealed.frame));
        } else {
            let entries = self.entries.range(self.sent_entries..self.sent_entries + group.unsettled);
            entries.filter_map(|entry| group.frame_of(entry)).for_each(|frame| tx.push_frame(&frame));
        }
        group.transmitted = true;
        self.sent_groups += 1;
        self.sent_entries += group.unsettled;
        Some(tx.len() - before)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::machine::producer::results::{ResultsKind, SendResults};

    fn sealed(bytes: &'static str) -> SealedEntry {
        let (head, payload) = bytes.split_at(1);
        let frame = SealedFrame { head: Bytes::from(head), payload: Bytes::from(payload) };
        SealedEntry { frame, limited_bytes: payload.len() }
    }

    fn written(in_flight: &mut InFlight) -> String {
        let mut tx = TxBuf::new();
        in_flight.write_next(&mut tx);
        String::from_utf8(tx.take_all().to_vec()).expect("text")
    }

    fn single(in_flight: &mut InFlight, index: u64, size_bytes: usize) -> u64 {
        let number = in_flight.next_number();
        let group =
            SendGroup::new(number, index, GroupKind::Single, SendResults::new(-1, ResultsKind::Batch, false), None);
        in_flight.push(group, PendingEntry::new(index, index, size_bytes, 0));
        number
    }

    #[test]
    fn chunks_are_written_one_by_one_and_those_without_a_receipt_again() {
        let mut in_flight = InFlight::default();
        let chunked = single(&mut in_flight, 0, 17);
        let next = single(&mut in_flight, 1, 5);
        assert_eq!(written(&mut in_flight), "", "it is not sealed yet");
        let place = in_flight.place_of(chunked).expect("it is in flight");
        in_flight.keep(place, OneOrMore::all(["afirst", "bsecond", "cthird"].map(sealed)).expect("three"));
        let place = in_flight.place_of(next).expect("it is in flight");
        in_flight.keep(place, OneOrMore::one(sealed("d")));
        let sizes: Vec<_> = in_flight.entries().map(|entry| (entry.frame_bytes(), entry.limited_bytes)).collect();
        assert_eq!(sizes, [(6, 5), (7, 6), (6, 5), (1, 0)]);
        let counted: Vec<_> = in_flight.entries().map(|entry| (entry.messages, entry.size_bytes)).collect();
        assert_eq!(counted, [(0, 0), (0, 0), (1, 17), (1, 5)]);
        assert_eq!(in_flight.frame(1), Some(sealed("bsecond").frame));

        assert_eq!(written(&mut in_flight), "afirst");
        assert!(in_flight.pop_front().is_some() && in_flight.retire_front().is_none());
        assert_eq!(written(&mut in_flight), "bsecond", "the cursor stays behind what was written");
        in_flight.rewind();
        assert_eq!(["bsecond", "cthird", "d", ""].map(|_| written(&mut in_flight)), ["bsecond", "cthird", "d", ""]);
        assert!(in_flight.pop_front().is_some() && in_flight.pop_front().is_some());
        assert!(in_flight.retire_front().is_some() && in_flight.retire_front().is_none());
        assert!(in_flight.pop_front().is_some() && in_flight.retire_front().is_some());
        assert!(in_flight.is_empty() && !in_flight.has_unsent());
    }

    #[test]
    fn a_chunked_message_may_fail_while_it_is_written() {
        let mut in_flight = InFlight::default();
        let chunked = single(&mut in_flight, 0, 17);
        let next = single(&mut in_flight, 1, 5);
        let place = in_flight.place_of(chunked).expect("it is in flight");
        in_flight.keep(place, OneOrMore::all(["afirst", "bsecond", "cthird"].map(sealed)).expect("three"));
        let place = in_flight.place_of(next).expect("it is in flight");
        in_flight.keep(place, OneOrMore::one(sealed("d")));
        assert_eq!((written(&mut in_flight), written(&mut in_flight)), ("afirst".into(), "bsecond".into()));
        (0..3).for_each(|_| assert!(in_flight.take(0).is_some()));
        assert!(in_flight.retire(chunked).is_some());
        assert_eq!((written(&mut in_flight), written(&mut in_flight)), ("d".into(), String::new()));
    }
}
