//! Wakes those who watch the state of a handle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::machine::Deferred;

/// A version that grows with each change of a state, and the tasks that wait for the next one.
///
/// The state itself lies elsewhere. A change is made first and signalled afterwards, so one that was not seen by a read
/// makes the next [`poll_changed`](Self::poll_changed) ready.
#[derive(Debug)]
pub struct StateSignal {
    version: AtomicU64,
    /// Each task once, so bounded by the tasks that wait.
    watchers: Mutex<Vec<Waker>>,
}

impl StateSignal {
    /// At version 1: a watcher that starts at 0 sees the present state first.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { version: AtomicU64::new(1), watchers: Mutex::default() })
    }

    /// The state has changed. Those who wait are woken once the locks are released.
    pub fn changed(&self, deferred: &mut Deferred) {
        // The lock of the watchers orders it before their next look.
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        self.version.fetch_add(1, Ordering::Relaxed);
        watchers.drain(..).filter(|_| !mutation!(WatcherSleeps)).for_each(|watcher| deferred.wake(watcher));
    }

    /// Ready if the state has changed since `seen`, which moves to the present version.
    pub fn poll_changed(&self, seen: &mut u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.version.load(Ordering::Relaxed);
        if *seen != version {
            *seen = version;
            return Poll::Ready(());
        }
        if !watchers.iter().any(|watcher| watcher.will_wake(cx.waker())) {
            watchers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
