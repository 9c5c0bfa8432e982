//! Entries between acceptance and receipt, in the order of the wire.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::batcher::deadlines_are_near;
use super::one_or_more::OneOrMore;
use super::pipeline::SealedEntry;
use crate::machine::Now;
use crate::machine::producer::results::{SendCallback, SendResults};
use crate::wire::tx::{SealedFrame, TxBuf};

/// One message or batch: what gets a receipt of its own.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Sequence ids, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Counts accepted messages; of the first one.
    pub(super) index: u64,
    /// What its messages count against the bound of pending bytes.
    pub(super) size_bytes: usize,
    pub(super) messages: u32,
    /// Its place in the outcomes of its run; a batch has all of them.
    pub(super) slot: u32,
    /// Where its frame lies in the bytes of its run; empty while it is not framed.
    pub(super) start: u32,
    pub(super) end: u32,
    /// What the broker holds against `max_message_size`, bytes.
    pub(super) compared_bytes: u32,
    /// Its bytes were handed to an earlier attach, which may have stored it: it was not refused there for its checksum.
    pub(super) resent: bool,
    /// The broker found its checksum wrong once although it is right here.
    pub(super) doubted: bool,
}

impl Entry {
    /// An entry that has not been anywhere yet.
    pub(super) fn new(id: u64, index: u64, size_bytes: usize, slot: u32) -> Self {
        Self {
            first: id,
            last: id,
            index,
            size_bytes,
            messages: 1,
            slot,
            start: 0,
            end: 0,
            compared_bytes: 0,
            resent: false,
            doubted: false,
        }
    }

    pub(super) fn frame_bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// What a run is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One batch.
    Batch,
    /// One message, framed by a job of its own.
    Alone,
    /// Messages framed one behind the other as they came.
    Framed,
}

/// The frames of a run.
///
/// ```text
///        close, or the run's end          sealed
///  Open ------------------------> Awaited -------> Sealed
/// ```
#[derive(Debug)]
pub(super) enum Frames {
    /// More messages may join; they have no time and no sum yet.
    Open(BytesMut),
    /// They wait for their job, or are in it.
    Awaited,
    /// Kept until the last receipt, because a re-send has the same bytes. Behind one another they are the bytes of the
    /// run, in which each entry has its range.
    Sealed(OneOrMore<SealedEntry>),
}

/// Entries that are sealed and written together, and share outcomes and a deadline.
pub(super) struct Run {
    /// Its name; grows along the queue.
    pub(super) number: u64,
    /// Counts accepted messages; of the first one.
    pub(super) index: u64,
    pub(super) kind: Kind,
    pub(super) frames: Frames,
    pub(super) outcomes: Arc<SendResults>,
    /// By the index in the outcomes, which grows.
    pub(super) callbacks: VecDeque<(u32, SendCallback)>,
    /// When it is overdue. Grows along the queue, but for the moment until a framed run is first looked at.
    pub(super) deadline: Option<Instant>,
    /// The deadline is that of a message that had waited for room.
    pub(super) aged: bool,
    /// When a deadline was set, and what is the publish time; a framed run gets both when it is first looked at.
    pub(super) stamped: Option<Now>,
    /// Its bytes were handed to a connection, now or earlier.
    pub(super) transmitted: bool,
    /// How many of its entries are not settled.
    left: usize,
    /// None of them is settled, and all are in order: the frames go out as they are.
    whole: bool,
}

impl Run {
    pub(super) fn new(
        number: u64,
        index: u64,
        kind: Kind,
        outcomes: Arc<SendResults>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            number,
            index,
            kind,
            frames: Frames::Awaited,
            outcomes,
            callbacks: VecDeque::new(),
            deadline,
            aged: false,
            stamped: None,
            transmitted: false,
            left: 0,
            whole: true,
        }
    }

    /// Whether a message may join as far as deadlines go, given its own if it has waited for room. Fresh ones share one
    /// from the first look on.
    #[inline]
    pub(super) fn takes(&self, own: Option<Option<Instant>>, is_recent: impl FnOnce(Now) -> bool) -> bool {
        match own {
            None => !self.aged && self.stamped.is_none_or(is_recent),
            Some(own) => self.aged && deadlines_are_near(own, self.deadline),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.frames, Frames::Open(_))
    }
}

/// ```text
///  receipt                  cursor                    open run, or open batch
///     v                       v                           v
///   [ sent ... sent | sealed ... sealed | to seal ... ] [ ... ]
/// ```
#[derive(Default)]
pub(super) struct InFlight {
    /// Of all runs, one behind the other.
    entries: VecDeque<Entry>,
    runs: VecDeque<Run>,
    /// How many of the first runs were handed to the present connection, and how many entries they have left.
    sent: usize,
    sent_entries: usize,
    next_number: u64,
    /// How many runs are not stamped; they are among the last.
    unstamped: usize,
}

/// Acceptance.
impl InFlight {
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Adds a run of one entry.
    pub(super) fn push(&mut self, run: Run, entry: Entry) {
        self.open(run);
        self.join(entry);
    }

    /// Adds a run, whose first entry is to [`join`](Self::join) at once.
    pub(super) fn open(&mut self, run: Run) {
        debug_assert!(self.runs.back().is_none_or(|last| last.number < run.number), "numbers grow");
        self.unstamped += usize::from(run.stamped.is_none());
        self.runs.push_back(run);
    }

    /// The run that takes more messages, with its frames.
    #[inline]
    pub(super) fn open_run(&mut self) -> Option<&mut Run> {
        self.runs.back_mut().filter(|run| run.is_open())
    }

    pub(super) fn has_open_run(&self) -> bool {
        self.runs.back().is_some_and(Run::is_open)
    }

    /// Adds to the last run.
    #[inline]
    pub(super) fn join(&mut self, entry: Entry) {
        if let Some(run) = self.runs.back_mut() {
            run.left += 1;
            self.entries.push_back(entry);
        }
    }

    /// The open run takes no more messages; gives its frames.
    pub(super) fn close_run(&mut self) -> Option<(u64, BytesMut)> {
        let run = self.open_run()?;
        match std::mem::replace(&mut run.frames, Frames::Awaited) {
            Frames::Open(frames) => Some((run.number, frames)),
            Frames::Awaited | Frames::Sealed(_) => None,
        }
    }

    /// Whether nobody has looked yet at a run that was opened.
    #[inline]
    pub(super) fn has_unstamped(&self) -> bool {
        self.unstamped > 0
    }

    /// Somebody looks who knows the time: sets the deadline of fresh runs, counted from now, and their publish time.
    pub(super) fn stamp(&mut self, now: Now, deadline: Option<Instant>) {
        for run in self.runs.iter_mut().rev().filter(|run| run.stamped.is_none()).take(self.unstamped) {
            run.stamped = Some(now);
            if !run.aged {
                run.deadline = deadline;
            }
        }
        self.unstamped = 0;
    }
}

/// What is there.
impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline]
    pub(super) fn front(&self) -> Option<(&Run, &Entry)> {
        Some((self.runs.front()?, self.entries.front()?))
    }

    pub(super) fn runs(&self) -> impl ExactSizeIterator<Item = &Run> {
        self.runs.iter()
    }

    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.runs.binary_search_by_key(&number, |run| run.number).ok()
    }

    /// Where the entries of the run at `position` start.
    fn offset(&self, position: usize) -> usize {
        let index = self.runs[position].index;
        self.entries.partition_point(|entry| entry.index < index)
    }

    pub(super) fn run_mut(&mut self, number: u64) -> Option<&mut Run> {
        self.position(number).map(|at| &mut self.runs[at])
    }

    /// The place of the first entry of a run.
    pub(super) fn place_of(&self, number: u64) -> Option<usize> {
        self.position(number).map(|position| self.offset(position))
    }

    pub(super) fn entry_mut(&mut self, at: usize) -> Option<&mut Entry> {
        self.entries.get_mut(at)
    }

    /// The place of the first entry that `wanted` says yes to.
    pub(super) fn find(&self, wanted: impl Fn(&Run, &Entry) -> bool) -> Option<usize> {
        let runs = self.runs.iter().flat_map(|run| std::iter::repeat_n(run, run.left));
        runs.zip(&self.entries).position(|(run, entry)| wanted(run, entry))
    }

    /// The position of the run to which the entry at `at` belongs.
    fn run_of(&self, at: usize) -> Option<usize> {
        let index = self.entries.get(at)?.index;
        self.runs.partition_point(|run| run.index <= index).checked_sub(1)
    }

    /// Whether the entry's bytes were handed to a connection.
    pub(super) fn is_transmitted(&self, at: usize) -> bool {
        self.run_of(at).is_some_and(|position| self.runs[position].transmitted)
    }

    /// The frame of one entry, if it is sealed.
    pub(super) fn frame(&self, at: usize) -> Option<SealedFrame> {
        let (run, entry) = (&self.runs[self.run_of(at)?], self.entries.get(at)?);
        match &run.frames {
            Frames::Sealed(frames) => part(frames, entry),
            Frames::Open(_) | Frames::Awaited => None,
        }
    }
}

/// Sealing.
impl InFlight {
    /// Keeps the frames of a run, whose first entry is at `at`: they may be written from now on.
    pub(super) fn keep(&mut self, number: u64, at: usize, sealed: OneOrMore<SealedEntry>) {
        let Some(position) = self.position(number) else { return };
        let run = &mut self.runs[position];
        // The entries of a framed run have had their ranges from the start.
        if run.kind != Kind::Framed {
            let mut start = 0;
            for (at, sealed) in (at..).zip(sealed.iter()) {
                let Some(entry) = self.entries.get_mut(at) else { break };
                entry.start = start;
                start = start.saturating_add(u32::try_from(sealed.frame.len()).unwrap_or(u32::MAX));
                entry.end = start;
                entry.compared_bytes = u32::try_from(sealed.compared_bytes).unwrap_or(u32::MAX);
            }
        }
        run.frames = Frames::Sealed(sealed);
    }
}

/// Settling.
impl InFlight {
    /// Takes the oldest entry out. Its run stays, until [`retire`](Self::retire).
    #[inline]
    pub(super) fn take_front(&mut self) -> Option<(Entry, &mut Run)> {
        let entry = self.entries.pop_front()?;
        let run = self.runs.front_mut()?;
        run.left -= 1;
        run.whole = false;
        self.sent_entries = self.sent_entries.saturating_sub(1);
        Some((entry, run))
    }

    /// Takes one entry out. Its run stays, until [`retire`](Self::retire).
    pub(super) fn take(&mut self, at: usize) -> Option<(Entry, &mut Run)> {
        let position = self.run_of(at)?;
        let entry = self.entries.remove(at)?;
        if position < self.sent {
            self.sent_entries -= 1;
        }
        let run = &mut self.runs[position];
        run.left -= 1;
        run.whole = false;
        Some((entry, run))
    }

    /// Takes the oldest run out if nothing is left of it.
    #[inline]
    pub(super) fn retire_front(&mut self) -> Option<Run> {
        if self.runs.front().is_some_and(|run| run.left == 0) { self.retire_at(0) } else { None }
    }

    /// Takes a run out if nothing is left of it.
    pub(super) fn retire(&mut self, number: u64) -> Option<Run> {
        let position = self.position(number)?;
        if self.runs[position].left == 0 { self.retire_at(position) } else { None }
    }

    fn retire_at(&mut self, position: usize) -> Option<Run> {
        if position < self.sent {
            self.sent -= 1;
        }
        let run = self.runs.remove(position)?;
        if run.stamped.is_none() {
            self.unstamped -= 1;
        }
        Some(run)
    }
}

/// Writing.
impl InFlight {
    /// Everything goes out again on the next connection.
    pub(super) fn rewind(&mut self) {
        self.entries.iter_mut().take(self.sent_entries).for_each(|entry| entry.resent |= !entry.doubted);
        (self.sent, self.sent_entries) = (0, 0);
    }

    /// Whether something has not been handed to the present connection.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.runs.len()
    }

    /// Hands the next run to the connection, if it is sealed; how many bytes it was.
    pub(super) fn write_next(&mut self, tx: &mut TxBuf) -> Option<usize> {
        let run = self.runs.get_mut(self.sent)?;
        let Frames::Sealed(frames) = &run.frames else { return None };
        let before = tx.len();
        if run.whole {
            frames.iter().for_each(|sealed| tx.sealed(&sealed.frame));
        } else {
            let entries = self.entries.range(self.sent_entries..self.sent_entries + run.left);
            entries.filter_map(|entry| part(frames, entry)).for_each(|frame| tx.sealed(&frame));
        }
        run.transmitted = true;
        self.sent += 1;
        self.sent_entries += run.left;
        Some(tx.len() - before)
    }
}

/// The frame of one entry of a run: one of `frames`, or a part of one that holds several.
fn part(frames: &OneOrMore<SealedEntry>, entry: &Entry) -> Option<SealedFrame> {
    let (mut start, mut end) = (entry.start as usize, entry.end as usize);
    for SealedEntry { frame, .. } in frames.iter() {
        if start < frame.len() {
            let is_joined = frame.payload.is_empty();
            let bytes = || SealedFrame { head: frame.head.slice(start..end), payload: Bytes::new() };
            return Some(if is_joined { bytes() } else { frame.clone() });
        }
        (start, end) = (start - frame.len(), end - frame.len());
    }
    None
}
