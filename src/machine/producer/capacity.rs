//! The bounds on pending messages: those that are accepted and not settled.
//!
//! | bound | of | reached |
//! | --- | --- | --- |
//! | `max_pending_messages` | this producer | no message fits |
//! | `max_pending_bytes` | this producer | none fits but one that is alone in the producer |
//! | the client's memory limit | all producers of the client | none fits but one that is alone in the client |
//!
//! The last one is a [`Reservation`]: how many bytes may be pending without another look at the client's budget.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Waker;

use super::Producer;
use super::waiter_queue::WaiterQueue;
use crate::machine::Deferred;
use crate::machine::memory::{MemoryBudget, MemoryUsage, Reservation};

/// How much is pending, the bounds, and the tasks that wait for capacity.
#[derive(Debug)]
pub(super) struct Capacity {
    pending_messages: usize,
    pending_bytes: usize,
    max_pending_messages: usize,
    max_pending_bytes: usize,
    /// Never less than what is pending.
    reservation: Reservation,
    pub(super) waiters: WaiterQueue,
}

/// Which bound keeps a message from being accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapacityBound {
    /// [`ProducerBuilder::max_pending_messages`](crate::ProducerBuilder::max_pending_messages), which this is.
    PendingMessages(usize),
    /// [`ProducerBuilder::max_pending_bytes`](crate::ProducerBuilder::max_pending_bytes), which this is.
    PendingBytes(usize),
    /// [`ClientBuilder::memory_limit`](crate::ClientBuilder::memory_limit), over all producers of the client.
    Memory(MemoryUsage),
    /// None any more, but other sends have waited for longer.
    Queue,
}

impl fmt::Display for CapacityBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PendingMessages(max) => write!(f, "max_pending_messages of {max} is reached"),
            Self::PendingBytes(max) => write!(f, "max_pending_bytes of {max} is reached"),
            Self::Memory(usage) => write!(f, "the client's memory_limit is reached: {usage}"),
            Self::Queue => f.write_str("other sends have waited for longer"),
        }
    }
}

impl Capacity {
    pub(super) fn new(max_pending_messages: usize, max_pending_bytes: usize) -> Self {
        let (waiters, reservation) = (WaiterQueue::default(), Reservation::new(None));
        Self { pending_messages: 0, pending_bytes: 0, max_pending_messages, max_pending_bytes, reservation, waiters }
    }

    pub(super) fn pending_messages(&self) -> usize {
        self.pending_messages
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether capacity for one more message is free and reserved.
    #[inline]
    pub(super) fn fits(&self, size_bytes: usize) -> bool {
        self.pending_messages < self.max_pending_messages
            && self.pending_bytes.saturating_add(size_bytes) <= self.reservation.bytes()
    }

    /// Whether one more message is within the producer's own bounds.
    fn fits_alone(&self, size_bytes: usize) -> bool {
        self.pending_messages < self.max_pending_messages
            && (self.pending_messages == 0 || self.pending_bytes.saturating_add(size_bytes) <= self.max_pending_bytes)
    }

    /// Whether a message is accepted without waiting: no task waits for capacity, and it is free. To be asked for a
    /// message that is accepted if it is.
    #[inline]
    pub(super) fn admits(&mut self, size_bytes: usize) -> bool {
        self.waiters.is_empty() && (self.fits(size_bytes) || self.reserve(size_bytes))
    }

    /// Reserves capacity for one more message, if that is free.
    #[cold]
    fn reserve(&mut self, size_bytes: usize) -> bool {
        let needed = self.pending_bytes.saturating_add(size_bytes);
        self.fits_alone(size_bytes) && self.reservation.extend(needed, self.max_pending_bytes)
    }

    /// Whether capacity is free for the message of the front task, whose waker this is. If the client's memory limit
    /// is what lacks, the producer queues for that. Otherwise nothing is changed: a task may be polled at any time, and
    /// one that is polled in vain must not be what lets another one go on.
    #[cold]
    pub(super) fn reserve_for_front(&mut self, size_bytes: usize, waker: &Waker, deferred: &mut Deferred) -> bool {
        let needed = self.pending_bytes.saturating_add(size_bytes);
        self.fits_alone(size_bytes) && self.reservation.request(self.pending_bytes, needed, waker, deferred)
    }

    /// Which bound is in the way of a message of this size.
    pub(super) fn bound(&self, size_bytes: usize) -> CapacityBound {
        let size_bytes = self.waiters.front_size_bytes().unwrap_or(size_bytes);
        if self.pending_messages >= self.max_pending_messages {
            return CapacityBound::PendingMessages(self.max_pending_messages);
        }
        if !self.fits_alone(size_bytes) {
            return CapacityBound::PendingBytes(self.max_pending_bytes);
        }
        match self.reservation.usage() {
            Some(usage) if !self.fits(size_bytes) => CapacityBound::Memory(usage),
            _ => CapacityBound::Queue,
        }
    }

    /// See [`Reservation::pool_bytes_max`].
    pub(super) fn pool_bytes_max(&self) -> usize {
        self.reservation.pool_bytes_max()
    }

    /// Takes capacity for one message.
    #[inline]
    pub(super) fn take(&mut self, size_bytes: usize) {
        self.pending_messages += 1;
        self.pending_bytes += size_bytes;
    }

    /// Gives back what `messages` have taken. [`offer`](Self::offer) follows, once for all that is given back together.
    pub(super) fn release(&mut self, messages: u32, size_bytes: usize) {
        debug_assert!(
            self.pending_messages >= messages as usize && self.pending_bytes >= size_bytes,
            "no more is given back than was taken"
        );
        self.pending_messages -= messages as usize;
        self.pending_bytes -= size_bytes;
    }

    /// Wakes the task at the front of the queue if capacity is free for its message; with none there, gives back what
    /// is reserved for too many messages to come. To be called after every change of the queue or of what is pending.
    #[inline]
    pub(super) fn offer(&mut self, deferred: &mut Deferred) {
        if !self.waiters.is_empty() {
            self.offer_to_front(deferred);
        } else if self.reservation.is_waiting() || self.reservation.is_excessive(self.pending_bytes) {
            self.give_back(deferred);
        }
    }

    fn offer_to_front(&mut self, deferred: &mut Deferred) {
        // Without a waker it was woken, for capacity that is still free.
        let Some((size_bytes, waker)) = self.waiters.take_front_waker() else { return };
        if self.fits(size_bytes) {
            self.reservation.leave(deferred);
        } else if !self.reserve_for_front(size_bytes, &waker, deferred) {
            if !self.fits_alone(size_bytes) {
                // Others are not to wait for what cannot be used yet.
                self.give_back(deferred);
            }
            return self.waiters.put_front_waker(waker);
        }
        deferred.wake(waker);
    }

    fn give_back(&mut self, deferred: &mut Deferred) {
        self.reservation.leave(deferred);
        if self.reservation.is_excessive(self.pending_bytes) && !mutation!(KeepMemoryOfSettled) {
            self.reservation.give_back(self.pending_bytes, deferred);
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
    /// Pending messages count against `budget`, if there is one. To be called before the first message.
    pub fn set_memory_budget(&mut self, budget: Option<Arc<MemoryBudget>>) {
        self.capacity.reservation = Reservation::new(budget);
    }

    /// Asserts, in debug builds, that the capacity taken is that of the pending messages. Walks only short queues, so
    /// that it stays affordable.
    pub(super) fn check_capacity(&self) {
        const WALK_MAX: usize = 64;
        if cfg!(debug_assertions) && self.in_flight.entries().len() <= WALK_MAX {
            let by_key = self.key_batches.iter().flat_map(|batches| batches.iter());
            let open = self.open_batch.as_deref().into_iter().chain(by_key).fold((0, 0), |(messages, bytes), batch| {
                (messages + batch.content.count() as usize, bytes + batch.size_bytes)
            });
            let pending = self
                .in_flight
                .entries()
                .fold(open, |(messages, bytes), entry| (messages + entry.messages as usize, bytes + entry.size_bytes));
            let taken = (self.capacity.pending_messages, self.capacity.pending_bytes);
            assert_eq!(pending, taken, "capacity is given back exactly once");
            assert!(self.capacity.pending_bytes <= self.capacity.reservation.bytes(), "what is pending is reserved");
        }
    }
}
