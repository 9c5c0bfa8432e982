//! The supervisor's checks of itself, in builds with debug assertions.
//!
//! A check looks at everything, so it is made only after as many inputs as there are things to look at: its cost per
//! input does not grow with the number of endpoints, and a broken invariant still shows a few inputs after it broke.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Supervisor;
use super::managed_endpoint::ManagedState;
use super::pool::Holder;
use crate::machine::supervisor::Timer;

static ITEMS_CHECKED: AtomicU64 = AtomicU64::new(0);

/// How many items the checks of this process have looked at.
#[doc(hidden)]
#[must_use]
pub fn items_checked() -> u64 {
    ITEMS_CHECKED.load(Ordering::Relaxed)
}

/// How many inputs there were since the last check.
#[derive(Debug, Default)]
pub(super) struct Checks {
    inputs: usize,
}

impl Supervisor {
    /// Checks everything, if enough inputs have come since the last time.
    pub(super) fn check(&mut self) {
        self.checks.inputs += 1;
        let items = self.endpoints.len() + self.pool.check_size();
        if self.checks.inputs < items {
            return;
        }
        self.checks.inputs = 0;
        ITEMS_CHECKED.fetch_add(items as u64, Ordering::Relaxed);
        self.pool.check();
        for (id, managed) in &self.endpoints {
            let holder = Holder::Endpoint(*id);
            let has_connection = self.pool.connection_of(holder).is_some();
            let is_waiting = self.timers.get(&Timer::Retry(holder)).is_some();
            let is_backing_off = matches!(managed.state, ManagedState::BackingOff);
            assert_eq!(has_connection, !is_backing_off, "{id}: a connection, unless it backs off");
            assert!(is_backing_off || !is_waiting, "{id}: one thing under way at a time");
        }
        for (connection, holder) in self.requests.iter() {
            let held = self.pool.connection_of(holder);
            assert_eq!(held, Some(connection), "a pending request belongs to a holder of its connection");
        }
    }
}
