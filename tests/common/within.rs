//! Waits with a bound.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

/// The outcome of `future`, which must come in time.
pub(crate) async fn within_time<F: IntoFuture>(time: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(time, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {time:?} for {what}"),
    }
}

/// Looks every so often until `condition` says yes, for what is shown without being announced; the last look where it never does.
pub(crate) async fn look_until<T, F: Future<Output = T>>(
    time: Duration,
    every: Duration,
    look: impl Fn() -> F,
    condition: impl Fn(&T) -> bool,
) -> Result<T, T> {
    let started = Instant::now();
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let seen = look().await;
        if condition(&seen) {
            return Ok(seen);
        }
        if started.elapsed() >= time {
            return Err(seen);
        }
    }
}
