//! Counts pieces of work, for a drain that waits until none is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How much is in hand.
#[derive(Debug, Default)]
pub(in crate::client) struct InHand {
    count: AtomicUsize,
    changed: Notify,
}

/// One piece of work, until it is dropped.
#[derive(Debug)]
pub(in crate::client) struct Held(Arc<InHand>);

/// The work of one pool, until it is dropped.
#[derive(Debug)]
pub(in crate::client) struct PoolHand(Arc<InHand>);

impl InHand {
    /// One more.
    pub(in crate::client) fn hold(self: &Arc<Self>) -> Held {
        self.count.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// For a pool, which is the only one that counts here.
    pub(in crate::client) fn pool(self: &Arc<Self>) -> PoolHand {
        PoolHand(self.clone())
    }

    pub(in crate::client) fn count(&self) -> usize {
        // What the work has done is seen by the drain that finds it ended.
        self.count.load(Ordering::Acquire)
    }

    /// What [`Self::wait_until`] looks at has changed.
    pub(in crate::client) fn notify(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until `is_done`, which is asked again whenever nothing is left, and after each [`Self::notify`].
    pub(in crate::client) async fn wait_until(&self, is_done: impl Fn() -> bool) {
        loop {
            // Registered before it is asked, so that no change is missed between the two.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if is_done() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Release) == 1 {
            self.0.notify();
        }
    }
}

impl PoolHand {
    /// So many messages are in hand now.
    pub(in crate::client) fn set(&self, count: usize) {
        self.0.count.store(count, Ordering::Release);
        if count == 0 {
            self.0.notify();
        }
    }
}

impl Drop for PoolHand {
    fn drop(&mut self) {
        self.set(0);
    }
}
