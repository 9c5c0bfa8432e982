//! Work that must not be done under a lock: wakers to wake, callbacks to run, values of the application to drop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

type Job = Box<dyn FnOnce() + Send>;

/// Collected under locks, fired with none held.
///
/// Dropping it fires it as well, so that a panic in between leaves no task waiting for its wake-up.
#[derive(Default)]
pub struct Deferred {
    wakers: Vec<Waker>,
    jobs: Vec<Job>,
}

impl Deferred {
    /// An empty collection.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the task later. A task that is in the collection already is woken once.
    pub fn wake(&mut self, waker: Waker) {
        if !self.wakers.iter().rev().take(4).any(|noted| noted.will_wake(&waker)) {
            self.wakers.push(waker);
        }
    }

    /// Runs code of the application later: a callback, or the drop of one of its values.
    pub fn run(&mut self, job: impl FnOnce() + Send + 'static) {
        self.jobs.push(Box::new(job));
    }

    /// Whether it is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.jobs.is_empty()
    }

    /// Does everything in it. The caller holds no lock. A callback that panics affects nothing else.
    pub fn fire(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        for job in self.jobs.drain(..) {
            if mutation!(CallbackPanicEscapes) {
                job();
                continue;
            }
            // The panic hook has reported it; the driver and its other endpoints are not affected.
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
