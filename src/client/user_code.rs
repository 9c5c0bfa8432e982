//! Calls of the application's code: its panic becomes an error of that call and affects nothing else.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::error::{Error, ErrorKind};

/// Code of the application panicked.
#[derive(Debug)]
pub(crate) struct Panicked {
    text: String,
}

impl Panicked {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self { text: text.unwrap_or_else(|| "with a payload that is no text".to_owned()) }
    }

    /// A retriable error of the call: where a failed call is made again, this one is too.
    pub(crate) fn into_error(self, kind: ErrorKind, code: &str) -> Error {
        Error::application(kind, format!("{code} panicked: {}", self.text)).with_retriable(true)
    }
}

/// Calls `code`.
///
/// # Errors
/// It panicked.
pub(crate) fn call<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panicked::new(&*payload))
}

/// Calls `make` and awaits the future it gives.
///
/// # Errors
/// Either of them panicked.
///
/// # Cancel safety
/// Dropping the future drops that of the application.
pub(crate) async fn catch_panic<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Panicked> {
    let future = catch_unwind(AssertUnwindSafe(make)).map_err(|payload| Panicked::new(&*payload))?;
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        // Nothing polls the future again.
        Err(payload) => Poll::Ready(Err(Panicked::new(&*payload))),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Origin;

    #[tokio::test]
    async fn a_panic_is_an_error_wherever_it_happens() {
        assert_eq!(catch_panic(|| async { 7 }).await.expect("no panic"), 7);
        let at_once = catch_panic(|| -> std::future::Ready<()> { panic!("at once") }).await;
        let after_a_while = catch_panic(|| async {
            tokio::task::yield_now().await;
            panic!("after {}", "a while");
        });
        for (result, text) in [(at_once, "at once"), (after_a_while.await, "after a while")] {
            let error = result.expect_err("a panic").into_error(ErrorKind::Authentication, "the token supplier");
            assert_eq!(error.to_string(), format!("the token supplier panicked: {text}"));
            assert_eq!((error.origin(), error.is_retriable()), (Origin::Application, true));
        }
    }
}
