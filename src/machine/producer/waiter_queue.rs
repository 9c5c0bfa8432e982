//! Tasks that wait for capacity, first come, first served.
//!
//! Only the front is woken when capacity is free for it, and no other task overtakes it: new ones queue behind. A task
//! that gives up, woken or not, must [`remove`](WaiterQueue::remove) its waiter, so that the next one becomes the front.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;
use std::time::Instant;

use crate::machine::{Deferred, Now};

/// A queue of tasks, each waiting for capacity of a known size. It holds one waiter a task at most.
#[derive(Debug, Default)]
pub(super) struct WaiterQueue {
    /// In the order of their numbers.
    queue: VecDeque<QueuedWaiter>,
    last_number: u64,
}

#[derive(Debug)]
struct QueuedWaiter {
    number: NonZeroU64,
    size_bytes: usize,
    deadline: Option<Instant>,
    /// `None` once it was woken.
    waker: Option<Waker>,
}

impl WaiterQueue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a task at the end; the number names it.
    pub(super) fn push(&mut self, size_bytes: usize, deadline: Option<Instant>, waker: &Waker) -> NonZeroU64 {
        self.last_number = self.last_number.saturating_add(1);
        let number = NonZeroU64::new(self.last_number).expect("counted up from zero");
        self.queue.push_back(QueuedWaiter { number, size_bytes, deadline, waker: Some(waker.clone()) });
        number
    }

    fn position(&self, number: NonZeroU64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    /// Whether the task is still queued.
    pub(super) fn contains(&self, number: NonZeroU64) -> bool {
        self.position(number).is_some()
    }

    /// Whether the task is the first of all.
    pub(super) fn is_front(&self, number: NonZeroU64) -> bool {
        self.queue.front().is_some_and(|front| front.number == number)
    }

    /// Sets the waker of a task, which may have changed since its last poll, or is used up.
    pub(super) fn set_waker(&mut self, number: NonZeroU64, waker: &Waker, deferred: &mut Deferred) {
        let Some(at) = self.position(number) else { return };
        let slot = &mut self.queue[at].waker;
        if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        if let Some(old) = slot.replace(waker.clone()) {
            // Not dropped under a lock: the drop of a waker is foreign code.
            deferred.run(move || drop(old));
        }
    }

    /// Removes a task: it has what it waited for, or gives up.
    pub(super) fn remove(&mut self, number: NonZeroU64, deferred: &mut Deferred) {
        let removed = self.position(number).and_then(|at| self.queue.remove(at));
        if let Some(QueuedWaiter { waker: Some(waker), .. }) = removed {
            deferred.run(move || drop(waker));
        }
    }

    /// What the front waits for, bytes.
    pub(super) fn front_size_bytes(&self) -> Option<usize> {
        self.queue.front().map(|front| front.size_bytes)
    }

    /// Takes the waker of the front, to wake it or to [put it back](Self::put_front_waker), and says what the front
    /// waits for, bytes. `None` if the front was woken already.
    pub(super) fn take_front_waker(&mut self) -> Option<(usize, Waker)> {
        let front = self.queue.front_mut()?;
        front.waker.take().map(|waker| (front.size_bytes, waker))
    }

    /// The front was not woken after all.
    pub(super) fn put_front_waker(&mut self, waker: Waker) {
        if let Some(front) = self.queue.front_mut() {
            front.waker = Some(waker);
        }
    }

    /// The deadline of the front, which is the earliest: deadlines grow along the queue, because each counts from the
    /// call that queued its task.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.front().and_then(|front| front.deadline)
    }

    /// Removes and wakes the tasks whose deadline has passed. They notice it by not being queued any more. Says whether
    /// there were any.
    pub(super) fn expire(&mut self, now: Now, deferred: &mut Deferred) -> bool {
        let before = self.queue.len();
        while self.next_deadline().is_some_and(|deadline| deadline <= now.at) {
            if let Some(waker) = self.queue.pop_front().and_then(|front| front.waker) {
                deferred.wake(waker);
            }
        }
        self.queue.len() < before
    }

    /// Removes and wakes all tasks.
    pub(super) fn remove_all(&mut self, deferred: &mut Deferred) {
        for waker in self.queue.drain(..).filter_map(|waiter| waiter.waker) {
            deferred.wake(waker);
        }
    }
}
