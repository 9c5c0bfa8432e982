//! The answer to one question of the control plane: set once by a machine, awaited once by a user's task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Deferred;

/// The asking side: a future that ends when the machine has answered.
///
/// Cancel safe: dropping it abandons the answer and nothing else. If the machine goes away without an answer, it ends
/// with an error of kind [`ErrorKind::Closed`].
#[derive(Debug)]
#[must_use = "a reply does nothing unless it is awaited"]
pub struct Reply<T> {
    slot: Arc<Slot<T>>,
}

/// The answering side.
#[derive(Debug)]
pub struct ReplyTo<T> {
    slot: Option<Arc<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    Waiting(Option<Waker>),
    Answered(Result<T>),
    Taken,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of others runs under this lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reply<T> {
    /// Both ends of one answer.
    pub fn pair() -> (ReplyTo<T>, Self) {
        let slot = Arc::new(Slot(Mutex::new(State::Waiting(None))));
        (ReplyTo { slot: Some(slot.clone()) }, Self { slot })
    }
}

impl<T> ReplyTo<T> {
    /// Answers; whoever waits is woken by `wakes`.
    pub fn answer(mut self, answer: Result<T>, deferred: &mut Deferred) {
        if let Some(slot) = self.slot.take() {
            if let Some(waker) = set(&slot, answer) {
                deferred.wake(waker);
            }
        }
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| Arc::strong_count(slot) == 1)
    }
}

fn set<T>(slot: &Slot<T>, answer: Result<T>) -> Option<Waker> {
    match std::mem::replace(&mut *slot.lock(), State::Answered(answer)) {
        State::Waiting(waker) => waker,
        State::Answered(_) | State::Taken => None,
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
        match std::mem::replace(&mut *state, State::Taken) {
            State::Answered(answer) => Poll::Ready(answer),
            State::Waiting(old) => {
                *state = State::Waiting(Some(cx.waker().clone()));
                drop(state);
                drop(old);
                Poll::Pending
            }
            State::Taken => panic!("a Reply was polled after it had ended"),
        }
    }
}
