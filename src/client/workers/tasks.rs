//! The tasks of a worker pool: those of tokio, or of another runtime that the client runs on.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::JoinSet;

use crate::client::runtime::WorkSet;

/// Running tasks, each of which ends with a `T`. Dropping it aborts them.
pub(in crate::client) enum Tasks<T> {
    Tokio(JoinSet<T>),
    Other {
        set: WorkSet,
        /// Those whose output was not taken.
        count: usize,
        ended: Arc<Ended<T>>,
    },
}

/// The outputs of tasks that have ended.
pub(in crate::client) struct Ended<T>(Mutex<(VecDeque<T>, Option<Waker>)>);

impl<T> Ended<T> {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<T>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, output: T) {
        let waker = {
            let mut ended = self.lock();
            ended.0.push_back(output);
            ended.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Tasks<T> {
    /// In `set`, else on the tokio runtime that is current.
    pub(in crate::client) fn new(set: Option<WorkSet>) -> Self {
        match set {
            None => Self::Tokio(JoinSet::new()),
            Some(set) => Self::Other { set, count: 0, ended: Arc::new(Ended(Mutex::default())) },
        }
    }
}

impl<T: Default + Send + 'static> Tasks<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Tokio(tasks) => tasks.len(),
            Self::Other { count, .. } => *count,
        }
    }

    pub(in crate::client) fn spawn(&mut self, task: impl Future<Output = T> + Send + 'static) {
        match self {
            Self::Tokio(tasks) => drop(tasks.spawn(task)),
            Self::Other { set, count, ended } => {
                *count += 1;
                let ended = ended.clone();
                set.spawn_boxed(Box::pin(async move { ended.push(task.await) }));
            }
        }
    }

    /// The output of a task that has ended, the default if it was aborted with its runtime; `None` where no task is left.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self {
            Self::Tokio(tasks) => tasks.poll_join_next(cx).map(|ended| ended.map(Result::unwrap_or_default)),
            Self::Other { count: 0, .. } => Poll::Ready(None),
            Self::Other { count, ended, .. } => {
                let mut state = ended.lock();
                let Some(output) = state.0.pop_front() else {
                    state.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                };
                *count -= 1;
                Poll::Ready(Some(output))
            }
        }
    }

    /// The output of a task that has ended already.
    pub(super) fn try_next(&mut self) -> Option<T> {
        match self {
            Self::Tokio(tasks) => tasks.try_join_next().map(Result::unwrap_or_default),
            Self::Other { count, ended, .. } => {
                let output = ended.lock().0.pop_front()?;
                *count -= 1;
                Some(output)
            }
        }
    }

    /// As [`Self::poll_next`].
    pub(super) async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}
