//! Entries that wait for their receipt, and the groups in which they are sealed and written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::one_or_more::OneOrMore;
use super::pipeline::SealedEntry;
use super::results::{SendCallback, SendResults};
use super::send_deadline::SendDeadline;
use crate::machine::Now;
use crate::wire::tx::SealedFrame;

/// One message or batch: what gets a receipt of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingEntry {
    /// Sequence ids, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Index of the first message.
    pub(super) index: u64,
    /// What its messages count against the bounds on pending bytes.
    pub(super) size_bytes: usize,
    /// 0: a chunk that is not the last one of its message.
    pub(super) messages: u32,
    /// Its place in the results of its group; a batch has all of them.
    pub(super) slot: u32,
    /// Where its frame lies in the bytes of its group; empty while it is not framed.
    pub(super) start: u32,
    pub(super) end: u32,
    /// What the broker compares with `max_message_size`, bytes.
    pub(super) limited_bytes: u32,
    /// Its bytes were written to an earlier connection and not refused there for their checksum, so that the broker may
    /// have stored them.
    pub(super) resent: bool,
    /// The broker found its checksum wrong once, although the kept bytes have the right one.
    pub(super) checksum_refused: bool,
}

impl PendingEntry {
    /// The entry of one message, not framed yet.
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
            limited_bytes: 0,
            resent: false,
            checksum_refused: false,
        }
    }

    /// Its frame lies at `start`. Where that ends, the frame of the next entry of the group starts.
    pub(super) fn set_frame(&mut self, start: u32, sealed: &SealedEntry) -> u32 {
        self.start = start;
        self.end = start.saturating_add(u32::try_from(sealed.frame.len()).unwrap_or(u32::MAX));
        self.limited_bytes = u32::try_from(sealed.limited_bytes).unwrap_or(u32::MAX);
        self.end
    }

    pub(super) fn frame_bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// The entries of a message that goes out in `count` chunks. Message and size stand with the last of them.
    pub(super) fn into_chunks(self, count: usize) -> impl Iterator<Item = Self> {
        (0..count).map(move |at| match at + 1 == count {
            true => self,
            false => Self { messages: 0, size_bytes: 0, ..self },
        })
    }

    /// Whether it is a chunk with others of its message behind it.
    #[inline]
    pub(super) fn is_inner_chunk(&self) -> bool {
        self.messages == 0
    }

    /// Whether a broker that names this sequence id means this entry: some name a batch by its last id.
    pub(super) fn is_named_by(&self, sequence_id: u64) -> bool {
        sequence_id == self.first || sequence_id == self.last
    }
}

/// What a group is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupKind {
    /// One batch.
    Batch,
    /// One message, framed by a job.
    Single,
    /// One message in several chunks, each an entry.
    Chunked,
    /// Messages that were framed on acceptance, one behind the other.
    Framed,
}

/// The frames of a group.
///
/// ```text
///        closed, or all settled              sealed
///  Open ------------------------> AwaitingSeal -------> Sealed
/// ```
#[derive(Debug)]
pub(super) enum GroupFrames {
    /// A framed group: more messages may join; publish time and checksums are missing.
    Open(BytesMut),
    /// Waiting for a job, or in it.
    AwaitingSeal,
    /// Kept until the last receipt, because a re-send has the same bytes. There is one for each entry, or for a framed
    /// group one that joins all frames. Behind one another they are the bytes of the group, in which each entry has
    /// its range.
    Sealed(OneOrMore<SealedEntry>),
}

/// Entries that are sealed and written together, and share results and a deadline.
pub(super) struct SendGroup {
    /// Names the group; grows along the queue.
    pub(super) number: u64,
    /// Index of the first message.
    pub(super) index: u64,
    pub(super) kind: GroupKind,
    pub(super) frames: GroupFrames,
    pub(super) results: Arc<SendResults>,
    /// Callbacks, in the order of their slots in the results.
    pub(super) callbacks: VecDeque<(u32, SendCallback)>,
    /// When it is overdue. Grows along the queue, except that a framed group has none until it is started.
    pub(super) deadline: Option<Instant>,
    /// Whether its messages have waited for capacity, so that the deadline was fixed before they were accepted.
    pub(super) has_own_deadline: bool,
    /// When the clock was first read for it: the deadline counts from then, and it is the publish time. A framed group is
    /// started by the first caller that has the time, the others
    /// when they are made.
    pub(super) started: Option<Now>,
    /// Ledger and entry of the first chunk of a chunked message, once that is stored.
    pub(super) first_chunk: Option<(u64, u64)>,
    /// Its bytes were written to a connection, this one or an earlier one.
    pub(super) transmitted: bool,
    /// Messages of its entries that were confirmed.
    pub(super) confirmed_messages: u32,
    /// How many of its entries are not settled.
    pub(super) unsettled: usize,
    /// Whether its bytes are written in one piece: none of its entries is settled.
    pub(super) is_whole: bool,
}

impl SendGroup {
    pub(super) fn new(
        number: u64,
        index: u64,
        kind: GroupKind,
        results: Arc<SendResults>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            number,
            index,
            kind,
            frames: GroupFrames::AwaitingSeal,
            results,
            callbacks: VecDeque::new(),
            deadline,
            has_own_deadline: false,
            started: None,
            first_chunk: None,
            transmitted: false,
            confirmed_messages: 0,
            unsettled: 0,
            is_whole: true,
        }
    }

    /// Whether a message may join as far as its deadline goes.
    ///
    /// | message | group | |
    /// | --- | --- | --- |
    /// | has waited for capacity | so have its others | if the deadlines are near each other |
    /// | has not waited | not started yet: the deadline is still to come, and is the same for all | yes |
    /// | has not waited | started | if that `is_recent` |
    /// | either | the other | no |
    #[inline]
    pub(super) fn takes(&self, deadline: SendDeadline, is_recent: impl FnOnce(Now) -> bool) -> bool {
        match deadline {
            SendDeadline::FromStart => !self.has_own_deadline && self.started.is_none_or(is_recent),
            own => self.has_own_deadline && own.is_near(self.deadline),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.frames, GroupFrames::Open(_))
    }

    /// The frame of one of its entries, if the group is sealed.
    pub(super) fn frame_of(&self, entry: &PendingEntry) -> Option<SealedFrame> {
        let GroupFrames::Sealed(sealed) = &self.frames else { return None };
        let (mut start, mut end) = (entry.start as usize, entry.end as usize);
        for SealedEntry { frame, .. } in sealed.iter() {
            if start < frame.len() {
                let is_joined = frame.payload.is_empty();
                let part = || SealedFrame { head: frame.head.slice(start..end), payload: Bytes::new() };
                return Some(if is_joined { part() } else { frame.clone() });
            }
            (start, end) = (start - frame.len(), end - frame.len());
        }
        None
    }
}
