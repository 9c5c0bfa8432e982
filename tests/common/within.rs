//! Waits with a bound.

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// The outcome of `future`, which must come in time.
pub(crate) async fn within_time<F: IntoFuture>(time: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(time, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {time:?} for {what}"),
    }
}

/// An answer to AUTH_CHALLENGE is given once so many messages have gone on without it.
const MESSAGES_MEANWHILE: u64 = 10;
/// The most that an answer waits for them: more than a gap that a busy machine makes, so that messages which wait for an answer are
/// seen. A broker closes the connection at its next check, after a second or more.
const ANSWER_TAKES_MAX: Duration = Duration::from_millis(400);

/// Waits until [`MESSAGES_MEANWHILE`] more messages are counted, or for [`ANSWER_TAKES_MAX`].
pub(crate) async fn messages_meanwhile(counted: &watch::Sender<u64>) {
    let mut counted = counted.subscribe();
    let goal = *counted.borrow() + MESSAGES_MEANWHILE;
    let _ = tokio::time::timeout(ANSWER_TAKES_MAX, counted.wait_for(|count| *count >= goal)).await;
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
