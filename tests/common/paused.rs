//! Waiting on tokio's paused clock. A sleep there takes no time and cannot be too short: the clock moves only once
//! every task waits, so each look sees all that the last millisecond has brought about.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take, in virtual time: more than any time-out of the client.
pub(crate) const VIRTUAL_WAIT_TIMEOUT: Duration = Duration::from_secs(300);

/// Looks at each millisecond until `condition` says yes; the last look goes into the failure. Panics on a clock that runs.
pub(crate) async fn until<T: Debug>(what: &str, look: impl Fn() -> T, condition: impl Fn(&T) -> bool) -> T {
    let started = Instant::now();
    loop {
        let seen = look();
        if condition(&seen) {
            return seen;
        }
        assert!(
            started.elapsed() < VIRTUAL_WAIT_TIMEOUT,
            "waited {VIRTUAL_WAIT_TIMEOUT:?} for {what}; last seen: {seen:?}"
        );
        pass(Duration::from_millis(1)).await;
    }
}

/// Lets virtual time pass; everything due happens. Panics on a clock that runs.
pub(crate) async fn pass(time: Duration) {
    // This is what panics.
    tokio::time::advance(Duration::ZERO).await;
    tokio::time::sleep(time).await;
}
