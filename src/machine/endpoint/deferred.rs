//! What must happen once no lock is held: wakers to wake, callbacks to call, values to drop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

type Job = Box<dyn FnOnce() + Send>;

/// Collected under locks, fired without one.
///
/// Dropping it fires it as well, so that a panic between collecting and firing strands nobody.
#[derive(Default)]
pub struct Deferred {
    wakers: Vec<Waker>,
    jobs: Vec<Job>,
}

impl Deferred {
    /// Nothing to do yet.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Deferred the task later; a task that is already noted is woken once.
    pub fn wake(&mut self, waker: Waker) {
        if !self.wakers.iter().rev().take(4).any(|noted| noted.will_wake(&waker)) {
            self.wakers.push(waker);
        }
    }

    /// Runs foreign code later: a user's callback, or the drop of something of the user's.
    pub fn run(&mut self, job: impl FnOnce() + Send + 'static) {
        self.jobs.push(Box::new(job));
    }

    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.jobs.is_empty()
    }

    /// Does it all. The caller holds no lock. A callback that panics harms only itself.
    pub fn fire(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        for job in self.jobs.drain(..) {
            // The panic hook has reported it already; the driver and its other guests go on.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

impl Drop for Deferred {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.fire();
        }
    }
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deferred {{ wakers: {}, jobs: {} }}", self.wakers.len(), self.jobs.len())
    }
}
