//! The bounds on pending messages: those that are accepted and not settled.

use std::num::NonZeroU64;

use super::Producer;
use super::waiter_queue::WaiterQueue;
use crate::machine::Deferred;

/// How much is pending, the bounds, and the tasks that wait for capacity.
#[derive(Debug)]
pub(super) struct Capacity {
    pending_messages: usize,
    pending_bytes: usize,
    max_pending_messages: usize,
    max_pending_bytes: usize,
    pub(super) waiters: WaiterQueue,
}

impl Capacity {
    pub(super) fn new(max_pending_messages: usize, max_pending_bytes: usize) -> Self {
        let waiters = WaiterQueue::default();
        Self { pending_messages: 0, pending_bytes: 0, max_pending_messages, max_pending_bytes, waiters }
    }

    pub(super) fn pending_messages(&self) -> usize {
        self.pending_messages
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether capacity for one more message is free. A message above `max_pending_bytes` is let in when nothing else
    /// is pending.
    #[inline]
    pub(super) fn fits(&self, size_bytes: usize) -> bool {
        self.pending_messages < self.max_pending_messages
            && (self.pending_messages == 0 || self.pending_bytes.saturating_add(size_bytes) <= self.max_pending_bytes)
    }

    /// Whether a message is accepted without waiting: capacity for it is free, and no task waits for any.
    #[inline]
    pub(super) fn admits(&self, size_bytes: usize) -> bool {
        self.waiters.is_empty() && self.fits(size_bytes)
    }

    /// Takes capacity for one message.
    #[inline]
    pub(super) fn take(&mut self, size_bytes: usize) {
        self.pending_messages += 1;
        self.pending_bytes += size_bytes;
    }

    /// Gives back what `messages` have taken.
    pub(super) fn release(&mut self, messages: u32, size_bytes: usize) {
        debug_assert!(
            self.pending_messages >= messages as usize && self.pending_bytes >= size_bytes,
            "no more is given back than was taken"
        );
        self.pending_messages -= messages as usize;
        self.pending_bytes -= size_bytes;
    }

    /// Wakes the task at the front of the queue if capacity is free for its message.
    pub(super) fn offer(&mut self, deferred: &mut Deferred) {
        let fits = self.waiters.front_size_bytes().is_some_and(|size_bytes| self.fits(size_bytes));
        if fits {
            self.waiters.wake_front(deferred);
        }
    }
}

/// The place of a task in the queue for capacity; see [`Producer::poll_push`].
#[derive(Debug, Default)]
pub struct CapacityWaiter {
    pub(super) number: Option<NonZeroU64>,
}

impl CapacityWaiter {
    /// The waiter of a task that is not queued.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether its task is queued, so that it has to say when it gives up.
    #[must_use]
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.number.is_some()
    }
}

impl Producer {
    /// Asserts, in debug builds, that the capacity taken is that of the pending messages. Walks only short queues, so
    /// that it stays affordable.
    pub(super) fn check_capacity(&self) {
        const WALK_MAX: usize = 64;
        if cfg!(debug_assertions) && self.in_flight.entries().len() <= WALK_MAX {
            let batch = self.open_batch.as_ref();
            let open = batch.map_or((0, 0), |batch| (batch.content.count() as usize, batch.size_bytes));
            let pending = self
                .in_flight
                .entries()
                .fold(open, |(messages, bytes), entry| (messages + entry.messages as usize, bytes + entry.size_bytes));
            let taken = (self.capacity.pending_messages, self.capacity.pending_bytes);
            assert_eq!(pending, taken, "capacity is given back exactly once");
        }
    }
}
