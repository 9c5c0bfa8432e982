//! The time of a script.

use std::time::Instant;

use crate::machine::Now;

/// The wall clock as a script begins, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// The start of a script.
pub(super) fn start() -> Now {
    Now { at: Instant::now(), wall_ms: WALL_MS }
}

/// A moment of a script. The wall clock is counted from the start, so that parts of milliseconds add up.
pub(super) fn moment(start: Instant, at: Instant) -> Now {
    Now { at, wall_ms: WALL_MS + (at - start).as_millis() as u64 }
}
