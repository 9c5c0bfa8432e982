//! A one-shot channel from a machine to a task: the machine sends one result, the task awaits it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Deferred;

/// The receiving side: a future that ends when the machine has sent the result.
///
/// Cancel safe: dropping it abandons the result and nothing else. If the sending side is dropped without one, it
/// ends with an error of kind [`ErrorKind::Closed`].
#[derive(Debug)]
#[must_use = "a reply does nothing unless it is awaited"]
pub struct Reply<T> {
    slot: Arc<ReplySlot<T>>,
}

/// The sending side.
#[derive(Debug)]
pub struct ReplyTo<T> {
    slot: Option<Arc<ReplySlot<T>>>,
}

#[derive(Debug)]
struct ReplySlot<T>(Mutex<ReplyState<T>>);

#[derive(Debug)]
enum ReplyState<T> {
    Waiting(Option<Waker>),
    Sent(Result<T>),
    Taken,
}

impl<T> ReplySlot<T> {
    fn lock(&self) -> MutexGuard<'_, ReplyState<T>> {
        // No foreign code runs under this lock, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reply<T> {
    /// Both ends of one reply.
    pub fn pair() -> (ReplyTo<T>, Self) {
        let slot = Arc::new(ReplySlot(Mutex::new(ReplyState::Waiting(None))));
        (ReplyTo { slot: Some(slot.clone()) }, Self { slot })
    }
}

impl<T> ReplyTo<T> {
    /// Sends the result; the waiting task is woken by `deferred`.
    pub fn send(mut self, result: Result<T>, deferred: &mut Deferred) {
        if let Some(slot) = self.slot.take() {
            if let Some(waker) = set(&slot, result) {
                deferred.wake(waker);
            }
        }
    }

    /// Whether the receiving side was dropped.
    pub fn is_abandoned(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| Arc::strong_count(slot) == 1)
    }
}

fn set<T>(slot: &ReplySlot<T>, result: Result<T>) -> Option<Waker> {
    match std::mem::replace(&mut *slot.lock(), ReplyState::Sent(result)) {
        ReplyState::Waiting(waker) => waker,
        ReplyState::Sent(_) | ReplyState::Taken => None,
    }
}

impl<T> Drop for ReplyTo<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let gone = Error::local(ErrorKind::Closed, "client closed before the request completed");
            if let Some(waker) = set(&slot, Err(gone)) {
                waker.wake();
            }
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, ReplyState::Taken) {
            ReplyState::Sent(result) => Poll::Ready(result),
            ReplyState::Waiting(old) => {
                *state = ReplyState::Waiting(Some(cx.waker().clone()));
                drop(state);
                drop(old);
                Poll::Pending
            }
            ReplyState::Taken => panic!("a Reply was polled after it had ended"),
        }
    }
}
