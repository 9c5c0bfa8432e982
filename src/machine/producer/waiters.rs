//! Tasks that wait for room, first come first served.
//!
//! Only the front is woken when there is room for it, and nobody overtakes it: newcomers queue behind. A waiter that
//! goes away after it was woken must say so by [`Waiters::leave`], so that the turn passes on.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;
use std::time::Instant;

use crate::machine::{Deferred, Now};

/// A queue of tasks, each waiting for room for something of a known size. As long as it has waiters, at most as long
/// as there are tasks.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// In the order of their numbers.
    queue: VecDeque<Waiting>,
    enrolled: u64,
}

#[derive(Debug)]
struct Waiting {
    number: NonZeroU64,
    size_bytes: usize,
    deadline: Option<Instant>,
    /// `None` once it was woken.
    waker: Option<Waker>,
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a task at the end; the number is its name.
    pub(crate) fn enrol(&mut self, size_bytes: usize, deadline: Option<Instant>, waker: &Waker) -> NonZeroU64 {
        self.enrolled = self.enrolled.saturating_add(1);
        let number = NonZeroU64::new(self.enrolled).expect("counted up from zero");
        self.queue.push_back(Waiting { number, size_bytes, deadline, waker: Some(waker.clone()) });
        number
    }

    fn position(&self, number: NonZeroU64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |waiting| waiting.number).ok()
    }

    /// Whether the task still waits.
    pub(crate) fn contains(&self, number: NonZeroU64) -> bool {
        self.position(number).is_some()
    }

    /// Whether it is the task's turn.
    pub(crate) fn is_front(&self, number: NonZeroU64) -> bool {
        self.queue.front().is_some_and(|front| front.number == number)
    }

    /// Notes who is to be woken for the task from now on.
    pub(crate) fn wait(&mut self, number: NonZeroU64, waker: &Waker, deferred: &mut Deferred) {
        let Some(at) = self.position(number) else { return };
        let slot = &mut self.queue[at].waker;
        if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        if let Some(old) = slot.replace(waker.clone()) {
            // Not dropped under a lock: a waker's drop is foreign code.
            deferred.run(move || drop(old));
        }
    }

    /// The task has what it waited for, or has gone away.
    pub(crate) fn leave(&mut self, number: NonZeroU64, deferred: &mut Deferred) {
        if let Some(Waiting { waker: Some(waker), .. }) = self.position(number).and_then(|at| self.queue.remove(at)) {
            deferred.run(move || drop(waker));
        }
    }

    /// What the front waits for, bytes.
    pub(crate) fn front_size_bytes(&self) -> Option<usize> {
        self.queue.front().map(|front| front.size_bytes)
    }

    /// Deferred the front, once.
    pub(crate) fn wake_front(&mut self, deferred: &mut Deferred) {
        if let Some(waker) = self.queue.front_mut().and_then(|front| front.waker.take()) {
            deferred.wake(waker);
        }
    }

    /// When the first of them runs out of time. Deadlines grow along the queue: each counts from the call.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().and_then(|front| front.deadline)
    }

    /// Sends away those whose time is over: they find themselves not in the queue any more.
    pub(crate) fn expire(&mut self, now: Now, deferred: &mut Deferred) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now.at) {
            self.wake_front(deferred);
            self.queue.pop_front();
        }
    }

    /// Sends everybody away.
    pub(crate) fn dismiss_all(&mut self, deferred: &mut Deferred) {
        for waiting in self.queue.drain(..) {
            if let Some(waker) = waiting.waker {
                deferred.wake(waker);
            }
        }
    }
}
