//! The bound on a wait.

use std::future::IntoFuture;
use std::time::Duration;

/// The outcome of `future`, which must come in time.
pub(crate) async fn within_time<F: IntoFuture>(time: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(time, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {time:?} for {what}"),
    }
}
