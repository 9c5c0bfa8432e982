//! The one place where clocks are read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine::Now;

/// The clocks as of now: tokio's, so that a paused one holds still, and the wall clock.
pub(crate) fn now() -> Now {
    Now { at: tokio::time::Instant::now().into_std(), wall_ms: wall_ms() }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
