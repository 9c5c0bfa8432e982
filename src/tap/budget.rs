//! How much all connections keep together: each part has a share, and says what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the [module](self). Nothing is refused here: whoever keeps something asks [`Share::is_full`] before.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    pub(super) fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.bytes_max
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one part holds of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// It holds so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// It held `before` of something, and holds `after` of it now.
    pub(super) fn change(&mut self, before: usize, after: usize) {
        self.set((self.bytes + after).saturating_sub(before));
    }

    pub(super) fn is_full(&self) -> bool {
        self.budget.is_full()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
impl Budget {
    pub(super) fn bytes(&self) -> usize {
        self.used()
    }
}

#[cfg(test)]
impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
