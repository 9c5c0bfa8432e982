//! Entries between acceptance and receipt, in the order of the wire.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::machine::outcomes::{Outcomes, SendCallback};
use crate::machine::sabotage::{self, Sabotage};
use crate::wire::frame::{Frame, frames};
use crate::wire::tx::SealedFrame;

/// One entry: a message or a batch.
pub(super) struct Entry {
    /// Its name; grows along the queue.
    pub(super) number: u64,
    /// Sequence ids, lowest and highest.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Counts accepted messages; of the first one.
    pub(super) index: u64,
    pub(super) messages: u32,
    /// What its messages count against the bound of pending bytes.
    pub(super) size_bytes: usize,
    /// When it is overdue. Grows along the queue: it counts from the call.
    pub(super) deadline: Option<Instant>,
    pub(super) outcomes: Arc<Outcomes>,
    /// Its place in `outcomes`; a batch has all of them.
    pub(super) slot: u32,
    pub(super) callbacks: Vec<(u32, SendCallback)>,
    /// The frame, once it is sealed; kept until the receipt, because a re-send has the same bytes.
    pub(super) frame: Option<SealedFrame>,
    /// What the broker holds against `max_message_size`, bytes.
    pub(super) compared_bytes: usize,
    /// Its bytes were handed to a connection, now or earlier.
    pub(super) transmitted: bool,
    /// So they were on an earlier attach, which may have stored it: it was not refused there for its checksum.
    pub(super) resent: bool,
    /// The broker found its checksum wrong once although it is right here.
    pub(super) doubted: bool,
}

/// ```text
///  receipt                  cursor                    open batch
///     v                       v                           v
///   [ sent ... sent | sealed ... sealed | to seal ... ] [ ... ]
/// ```
#[derive(Default)]
pub(super) struct InFlight {
    entries: VecDeque<Entry>,
    /// How many of the first were handed to the present connection.
    sent: usize,
    next_number: u64,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.number < entry.number), "numbers grow");
        self.entries.push_back(entry);
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.position(number).map(|at| &mut self.entries[at])
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        self.sent = self.sent.saturating_sub(1);
        self.entries.pop_front()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let at = self.position(number)?;
        if at < self.sent {
            self.sent -= 1;
        }
        self.entries.remove(at)
    }

    /// The number of the first one that `wanted` says yes to.
    pub(super) fn find(&self, wanted: impl Fn(&Entry) -> bool) -> Option<u64> {
        self.entries.iter().find(|entry| wanted(entry)).map(|entry| entry.number)
    }

    /// Everything goes out again on the next connection.
    pub(super) fn rewind(&mut self) {
        self.entries.iter_mut().take(self.sent).for_each(|entry| entry.resent |= !entry.doubted);
        self.sent = 0;
    }

    /// Spoils what is about to go out again.
    pub(super) fn sabotage(&mut self) {
        if sabotage::is(Sabotage::ReorderOnResend) && self.entries.len() > 1 {
            let (first, second) = (self.entries[0].frame.take(), self.entries[1].frame.take());
            (self.entries[0].frame, self.entries[1].frame) = (second, first);
        }
        if sabotage::is(Sabotage::RenumberOnResend) {
            for frame in self.entries.iter_mut().filter(|entry| entry.transmitted).filter_map(|e| e.frame.as_mut()) {
                *frame = renumbered(frame);
            }
        }
    }

    /// Whether something has not been handed to the present connection.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// The next frame to hand to the connection, if it is sealed.
    pub(super) fn next_sealed(&self) -> Option<&SealedFrame> {
        self.entries.get(self.sent).and_then(|entry| entry.frame.as_ref())
    }

    /// The frame of [`next_sealed`](Self::next_sealed) is on its way.
    pub(super) fn mark_sent(&mut self) {
        if let Some(entry) = self.entries.get_mut(self.sent) {
            entry.transmitted = true;
            self.sent += 1;
        }
    }
}

fn renumbered(frame: &SealedFrame) -> SealedFrame {
    let bytes = Bytes::from([&frame.head[..], &frame.payload[..]].concat());
    let mut out = BytesMut::new();
    for frame in frames(bytes).flatten() {
        match frame {
            Frame::Send { mut head, entry } => {
                head.sequence_id += 1000;
                Frame::Send { head, entry }.encode(&mut out);
            }
            other => other.encode(&mut out),
        }
    }
    SealedFrame { head: out.freeze(), payload: Bytes::new() }
}
