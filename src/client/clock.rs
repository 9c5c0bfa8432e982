//! The only module that reads clocks.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::machine::Now;

/// How long the wall time is derived from the monotonic clock after the wall clock was read. Reading a clock costs as
/// much as framing a message, so a message outside a batch needs one reading instead of two.
const DERIVED_MAX: Duration = Duration::from_millis(50);

thread_local! {
    /// The last reading of both clocks.
    static LAST: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

#[cfg(feature = "sim")]
thread_local! {
    static VIRTUAL: Cell<Option<Now>> = const { Cell::new(None) };
}

/// Sets the time on this thread; `None` goes back to the clocks.
#[cfg(feature = "sim")]
pub(crate) fn set_virtual(now: Option<Now>) {
    VIRTUAL.set(now);
}

/// The current time by tokio's clock, which tests can pause, and by the wall clock; or the virtual time of this thread.
pub(crate) fn now() -> Now {
    #[cfg(feature = "sim")]
    if let Some(now) = VIRTUAL.get() {
        return now;
    }
    let at = tokio::time::Instant::now().into_std();
    let derived = LAST.get().and_then(|(then, wall_ms)| {
        let since = at.checked_duration_since(then).filter(|since| *since < DERIVED_MAX)?;
        Some(wall_ms + u64::from(since.subsec_millis()))
    });
    let wall_ms = derived.unwrap_or_else(|| {
        let wall_ms = system_ms();
        LAST.set(Some((at, wall_ms)));
        wall_ms
    });
    Now { at, wall_ms }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_ms() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(now) = VIRTUAL.get() {
        return now.wall_ms;
    }
    system_ms()
}

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
