//! The bounds on what is accepted and not settled.

use std::num::NonZeroU64;

use super::Producer;
use crate::machine::Deferred;

/// What is taken, and what there is.
#[derive(Debug)]
pub(super) struct Room {
    messages: usize,
    bytes: usize,
    max_pending_messages: usize,
    max_pending_bytes: usize,
}

impl Room {
    pub(super) fn new(max_pending_messages: usize, max_pending_bytes: usize) -> Self {
        Self { messages: 0, bytes: 0, max_pending_messages, max_pending_bytes }
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for one more message. One above the bound passes alone.
    #[inline]
    pub(super) fn fits(&self, size_bytes: usize) -> bool {
        self.messages < self.max_pending_messages
            && (self.messages == 0 || self.bytes.saturating_add(size_bytes) <= self.max_pending_bytes)
    }

    #[inline]
    pub(super) fn take(&mut self, size_bytes: usize) {
        self.messages += 1;
        self.bytes += size_bytes;
    }

    /// Gives back what `messages` took.
    pub(super) fn release(&mut self, messages: u32, size_bytes: usize) {
        debug_assert!(self.messages >= messages as usize && self.bytes >= size_bytes, "no more comes back than went");
        self.messages -= messages as usize;
        self.bytes -= size_bytes;
    }
}

/// A task's place in the queue for room; see [`Producer::poll_push`].
#[derive(Debug, Default)]
pub struct RoomTicket {
    pub(super) number: Option<NonZeroU64>,
}

impl RoomTicket {
    /// Whether its task is queued for room, so that it must say when it gives up.
    #[must_use]
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.number.is_some()
    }
}

impl RoomTicket {
    /// No place yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Producer {
    /// Deferred the task whose turn it is, if there is room for what it holds.
    pub(super) fn offer_room(&mut self, deferred: &mut Deferred) {
        if self.waiters.front_size_bytes().is_some_and(|size_bytes| self.room.fits(size_bytes)) {
            self.waiters.wake_front(deferred);
        }
    }

    /// What is taken is what is held, in debug builds. Walks only short queues, to stay affordable.
    pub(super) fn check_ledger(&self) {
        const WALK_MAX: usize = 64;
        if cfg!(debug_assertions) && self.in_flight.entries().len() <= WALK_MAX {
            let open = self.open.as_ref().map_or((0, 0), |batch| (batch.content.count() as usize, batch.size_bytes));
            let held = self
                .in_flight
                .entries()
                .fold(open, |(messages, bytes), entry| (messages + entry.messages as usize, bytes + entry.size_bytes));
            assert_eq!(held, (self.room.messages, self.room.bytes), "slots and bytes are released exactly once");
        }
    }
}
