//! The one place where clocks are read.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine::Now;

/// The clocks as of now: tokio's, so that a paused one holds still, and the wall clock. In a simulation, its own.
pub(crate) fn now() -> Now {
    #[cfg(feature = "sim")]
    if let Some(now) = simulated::get() {
        return now;
    }
    Now { at: tokio::time::Instant::now().into_std(), wall_ms: system_ms() }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_ms() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(now) = simulated::get() {
        return now.wall_ms;
    }
    system_ms()
}

fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The clock of the simulation that runs on this thread, if one does.
#[cfg(feature = "sim")]
pub(crate) mod simulated {
    use std::cell::Cell;

    use crate::machine::Now;

    thread_local! {
        static NOW: Cell<Option<Now>> = const { Cell::new(None) };
    }

    pub(crate) fn get() -> Option<Now> {
        NOW.get()
    }

    pub(crate) fn set(now: Option<Now>) {
        NOW.set(now);
    }
}
