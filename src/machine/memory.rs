//! The memory of pending messages: one budget, which all producers of a client share.
//!
//! A producer reserves bytes in advance (`Reservation`), so that most messages are accepted without a look at the
//! budget: it takes more than it needs, and gives back what it has too much of once messages are settled. With nothing
//! pending it holds nothing.
//!
//! | message | reserves | waits |
//! | --- | --- | --- |
//! | a message that fits what its producer has reserved | nothing | no |
//! | any other, while no producer waits and the limit leaves room | what is missing, and some for the next ones | no |
//! | a message above the limit, while nothing is reserved at all | its size | no |
//! | any other | its size, once it is the first in the queue and one of these holds | in the queue |
//!
//! The queue is one of producers: each of them has a queue of tasks of its own, and is here for the first of those. Bytes
//! that are given back go to the front as a *grant*, which is its own from then on, whether or not its task has seen it.
//! So none overtakes, and a large message is not starved by small ones: while one waits, the others give back at once
//! what they do not need. A producer that has nothing more to wait for has to leave (`Reservation::leave`), which gives a
//! grant to the next one.
//!
//! The reserved bytes are never above the limit, but for a single message that is larger itself: then they are its size.
//! (The Java client overshoots by one message: its `MemoryLimitController` accepts any while the limit is not exceeded.)

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::Deferred;

/// The most that a producer keeps reserved for messages to come, bytes.
const UNUSED_BYTES_MAX: usize = 128 * 1024;

/// What all producers together keep reserved for messages to come is at most this part of the limit.
const UNUSED_DIVISOR: usize = 8;

/// The most that a producer keeps in buffers which it uses again, bytes.
pub(super) const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// All producers together keep at most this part of the limit in such buffers.
const POOL_DIVISOR: usize = 4;

/// How much memory the pending messages of a client use, and may use: see
/// [`Client::memory_usage`](crate::Client::memory_usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Bytes reserved for pending messages, and some for those that come next: at most 128 KiB for each partition that
    /// has something pending, and an eighth of the limit in all. 0 without a limit, where nothing is reserved.
    pub used: usize,
    /// The limit in bytes; 0 is none.
    pub limit: usize,
}

impl fmt::Display for MemoryUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes are in use", self.used, self.limit)
    }
}

/// The budget of one client. Its lock is a leaf: it may be taken under that of an endpoint.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    /// A producer is in the queue. Written under the lock; read without it, which at worst misses one that has come
    /// just now: it gets what is given back next.
    is_awaited: AtomicBool,
    /// What one producer may keep in buffers, bytes. Written under the lock.
    pool_bytes_max: AtomicUsize,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Bytes reserved or granted.
    reserved: usize,
    producers: usize,
    /// Of these, the ones that have reserved something.
    holders: usize,
    /// The sum of what those may keep unused.
    unused_max: usize,
    /// In the order of their tickets.
    queue: VecDeque<Waiter>,
    /// By ticket: bytes for producers that have not collected them.
    grants: BTreeMap<NonZeroU64, usize>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: NonZeroU64,
    bytes: usize,
    waker: Waker,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: NonZeroUsize) -> Arc<Self> {
        let (is_awaited, ledger) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Self { limit: limit.get(), is_awaited, pool_bytes_max: AtomicUsize::new(0), ledger })
    }

    fn count_producers(&self, change: impl FnOnce(usize) -> usize) {
        let mut ledger = self.lock();
        ledger.producers = change(ledger.producers);
        let max = POOL_BYTES_MAX.min(self.limit / POOL_DIVISOR / ledger.producers.max(1));
        self.pool_bytes_max.store(max, Ordering::Relaxed);
    }

    /// What is reserved, and the limit.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage { used: self.lock().reserved, limit: self.limit }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that are not reserved.
    fn free(&self, ledger: &Ledger) -> usize {
        if mutation!(IgnoreMemoryLimit) { usize::MAX / 2 } else { self.limit.saturating_sub(ledger.reserved) }
    }

    fn fits(&self, ledger: &Ledger, bytes: usize) -> bool {
        ledger.reserved == 0 || bytes <= self.free(ledger)
    }

    /// Grants what is free, in the order of the queue.
    fn grant(&self, ledger: &mut Ledger, deferred: &mut Deferred) {
        while ledger.queue.front().is_some_and(|front| self.fits(ledger, front.bytes)) {
            let Some(front) = ledger.queue.pop_front() else { break };
            ledger.reserved += front.bytes;
            ledger.grants.insert(front.ticket, front.bytes);
            if !mutation!(LoseMemoryWaiter) {
                deferred.wake(front.waker);
            }
        }
        self.is_awaited.store(!ledger.queue.is_empty(), Ordering::Relaxed);
    }
}

impl Ledger {
    fn position(&self, ticket: NonZeroU64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()
    }

    /// Changes what a producer has reserved.
    fn reserve(&mut self, share: &mut Share, bytes: usize) {
        self.reserved = self.reserved - share.bytes + bytes;
        self.holders = self.holders + usize::from(bytes > 0) - usize::from(share.bytes > 0);
        share.bytes = bytes;
        if bytes == 0 {
            self.unused_max -= std::mem::take(&mut share.unused_max);
        }
    }

    /// Sets what a producer may keep unused: an equal part of what `all` may, as far as others have not got more.
    fn divide_unused(&mut self, share: &mut Share, all: usize) {
        self.unused_max -= share.unused_max;
        let left = all.saturating_sub(self.unused_max);
        share.unused_max = UNUSED_BYTES_MAX.min(all / self.holders.max(1)).min(left);
        self.unused_max += share.unused_max;
    }

    /// Removes the ticket, from the queue or with its grant. Returns what was granted.
    fn remove(&mut self, ticket: NonZeroU64, deferred: &mut Deferred) -> usize {
        if let Some(waiter) = self.position(ticket).and_then(|at| self.queue.remove(at)) {
            // Not dropped under a lock: the drop of a waker is foreign code.
            deferred.run(move || drop(waiter.waker));
        }
        self.grants.remove(&ticket).unwrap_or(0)
    }

    fn push(&mut self, bytes: usize, waker: &Waker) -> NonZeroU64 {
        self.last_ticket = self.last_ticket.saturating_add(1);
        let ticket = NonZeroU64::new(self.last_ticket).expect("counted up from zero");
        self.queue.push_back(Waiter { ticket, bytes, waker: waker.clone() });
        ticket
    }
}

/// What one producer has reserved of the budget. Belongs to the producer, under its lock.
#[derive(Debug)]
pub(super) struct Reservation {
    /// `None`: no limit.
    budget: Option<Arc<MemoryBudget>>,
    share: Share,
    /// Its place in the queue, or its grant.
    ticket: Option<NonZeroU64>,
}

#[derive(Debug, Default)]
struct Share {
    /// What is reserved.
    bytes: usize,
    /// How much of it may be unused while none waits, bytes.
    unused_max: usize,
}

impl Reservation {
    /// A reservation that is not limited by `budget` if there is none.
    pub(super) fn new(budget: Option<Arc<MemoryBudget>>) -> Self {
        if let Some(budget) = &budget {
            budget.count_producers(|producers| producers + 1);
        }
        // Without a budget nothing is gained by giving back.
        let unused_max = if budget.is_some() { 0 } else { usize::MAX };
        Self { budget, share: Share { bytes: 0, unused_max }, ticket: None }
    }

    /// What is reserved.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.share.bytes
    }

    /// The budget's usage, if there is one.
    pub(super) fn usage(&self) -> Option<MemoryUsage> {
        self.budget.as_ref().map(|budget| budget.usage())
    }

    /// What the producer may keep in buffers that it uses again, bytes.
    pub(super) fn pool_bytes_max(&self) -> usize {
        self.budget.as_ref().map_or(POOL_BYTES_MAX, |budget| budget.pool_bytes_max.load(Ordering::Relaxed))
    }

    /// Reserves `needed` bytes in all, and where that is easy more, up to `most`; whether it could.
    #[cold]
    pub(super) fn extend(&mut self, needed: usize, most: usize) -> bool {
        let Some(budget) = &self.budget else {
            self.share.bytes = needed.max(most);
            return true;
        };
        let mut ledger = budget.lock();
        let (before, free) = (self.share.bytes, budget.free(&ledger));
        let missing = needed.saturating_sub(before);
        if !ledger.queue.is_empty() || !budget.fits(&ledger, missing) {
            return false;
        }
        ledger.reserve(&mut self.share, needed);
        ledger.divide_unused(&mut self.share, budget.limit / UNUSED_DIVISOR);
        let ahead = (self.share.unused_max / 2).min(free).min(most.saturating_sub(before));
        ledger.reserve(&mut self.share, needed.max(before + ahead));
        true
    }

    /// Reserves `needed` bytes in all, for the first of the producer's tasks, whose waker this is; if that is not
    /// possible, queues or stays queued, and keeps no more than the `used` ones.
    #[cold]
    pub(super) fn request(&mut self, used: usize, needed: usize, waker: &Waker, deferred: &mut Deferred) -> bool {
        let Some(budget) = &self.budget else {
            self.share.bytes = self.share.bytes.max(needed);
            return true;
        };
        let mut ledger = budget.lock();
        let ledger = &mut *ledger;
        if let Some(granted) = self.ticket.and_then(|ticket| ledger.grants.remove(&ticket)) {
            ledger.reserved -= granted;
            let bytes = self.share.bytes + granted;
            ledger.reserve(&mut self.share, bytes);
            self.ticket = None;
        }
        if self.share.bytes >= needed {
            return true;
        }
        ledger.reserve(&mut self.share, used);
        let missing = needed - used;
        if let Some(at) = self.ticket.and_then(|ticket| ledger.position(ticket)) {
            let waiter = &mut ledger.queue[at];
            waiter.bytes = missing;
            if !waiter.waker.will_wake(waker) {
                let old = std::mem::replace(&mut waiter.waker, waker.clone());
                deferred.run(move || drop(old));
            }
        } else {
            self.ticket = Some(ledger.push(missing, waker));
        }
        // It may be its own turn: then it is woken and asks again.
        budget.grant(ledger, deferred);
        false
    }

    /// Whether more is reserved than is reasonable for what is `used`.
    #[inline]
    pub(super) fn is_excessive(&self, used: usize) -> bool {
        let unused = self.share.bytes - used;
        unused > 0 && (used == 0 || unused > self.share.unused_max || self.is_awaited())
    }

    #[inline]
    fn is_awaited(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.is_awaited.load(Ordering::Relaxed))
    }

    /// Gives back what is not `used`; some of it is kept for messages to come if others are pending and none waits.
    #[cold]
    pub(super) fn give_back(&mut self, used: usize, deferred: &mut Deferred) {
        let Some(budget) = &self.budget else {
            self.share.bytes = used;
            return;
        };
        let mut ledger = budget.lock();
        let kept = if used == 0 || !ledger.queue.is_empty() { 0 } else { self.share.unused_max / 2 };
        let bytes = self.share.bytes.min(used.saturating_add(kept));
        ledger.reserve(&mut self.share, bytes);
        budget.grant(&mut ledger, deferred);
    }

    /// Whether it has a place in the queue, or a grant that is not collected.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.ticket.is_some()
    }

    /// Gives up the place in the queue, or the grant, which goes to the next one.
    #[cold]
    pub(super) fn leave(&mut self, deferred: &mut Deferred) {
        let (Some(budget), Some(ticket)) = (&self.budget, self.ticket.take()) else { return };
        let mut ledger = budget.lock();
        if !mutation!(KeepMemoryGrant) {
            ledger.reserved -= ledger.remove(ticket, deferred);
        }
        budget.grant(&mut ledger, deferred);
    }
}

impl Drop for Reservation {
    /// Its producer has ended, and so has given back everything.
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.count_producers(|producers| producers - 1);
        }
    }
}
