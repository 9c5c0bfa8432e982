//! The future of a send.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{SendResults, references};
use crate::error::SendError;
use crate::id::MessageId;

/// The result of a send, to be awaited: the id of the stored message, or an error.
///
/// The message is sent whether or not this is awaited; dropping it does not cancel the send.
///
/// # Cancel safety
/// Cancel safe: it may be polled, dropped or moved to another task at any time.
#[must_use = "a failed send is noticed only by awaiting this, by a callback, or by flush"]
pub struct PendingSend {
    /// `None` only while it is dropped.
    results: Option<Arc<SendResults>>,
    index: u32,
}

impl PendingSend {
    pub(crate) fn new(results: Arc<SendResults>, index: u32) -> Self {
        Self { results: Some(results), index }
    }

    #[inline(always)]
    fn results(&self) -> &SendResults {
        self.results.as_ref().expect("it is not being dropped")
    }

    /// The result, if there is one yet; never waits.
    #[inline]
    pub fn try_result(&self) -> Option<Result<MessageId, SendError>> {
        self.results().get(self.index)
    }
}

impl Future for PendingSend {
    type Output = Result<MessageId, SendError>;

    /// Always inlined: otherwise each id would be moved once more, through memory.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Some(result) = self.try_result() {
                return Poll::Ready(result);
            }
            if self.results().wait(self.index, cx.waker()) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for PendingSend {
    #[inline]
    fn drop(&mut self) {
        if let Some(results) = self.results.take() {
            references::give_back(results);
        }
    }
}

impl fmt::Debug for PendingSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingSend({:?})", self.try_result())
    }
}
