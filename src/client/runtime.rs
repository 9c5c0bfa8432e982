//! The interface between the client's tasks and an async runtime: timers and tasks. Sockets come from the
//! [`Dialer`](super::Dialer), the time from [`clock`](super::clock).
//!
//! The drivers are generic over [`Runtime`], so the shipped client is compiled for tokio alone, without dynamic
//! dispatch; another runtime polls the same drivers over its own timers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::clock;
use crate::machine::session::Session;
use crate::machine::supervisor::Supervisor;
use crate::wire::tx::TxBuf;

/// Creates timers and tasks.
pub(crate) trait Runtime: Clone + Send + Sync + Unpin + 'static {
    /// Its timer.
    type Timer: AsyncTimer;
    /// Its set of tasks.
    type Tasks: TaskSet;

    /// A timer that is not set.
    fn new_timer(&self) -> Self::Timer;

    /// An empty set of tasks.
    fn new_task_set(&self) -> Self::Tasks;

    /// An empty set of tasks for the application's work on messages; `None`: they are tasks of tokio's.
    fn new_work_set(&self) -> Option<WorkSet> {
        None
    }

    /// Called at the start of each poll of a connection's driver, with the bytes that wait for its socket. A test runtime
    /// checks here that no work was left unscheduled; that of tokio does nothing.
    #[inline]
    fn inspect_session(&self, _session: &mut Session, _tx: &TxBuf) {}

    /// Called at the start of each poll of the supervisor's driver, for the same purpose.
    #[inline]
    fn inspect_supervisor(&self, _supervisor: &mut Supervisor) {}
}

/// A timer that can be set again. It belongs to one task at a time.
pub(crate) trait AsyncTimer: Send + Unpin + 'static {
    /// Sets the instant at which it fires, replacing the previous one.
    fn reset(&mut self, at: Instant);

    /// Ready once that instant has passed; until then the task is woken at it. Must not be called before the timer is
    /// set.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Tasks that end with their set: dropping it aborts them.
pub(crate) trait TaskSet: Send + Sync + Unpin + 'static {
    /// Starts a task.
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static);

    /// Ready once no task is left; until then the caller is woken when one ends.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A [`TaskSet`] of any type, for handles, which do not know the runtime.
pub(crate) type WorkSet = Box<dyn SpawnBoxed>;

/// [`TaskSet::spawn`] without type parameters.
pub(crate) trait SpawnBoxed: Send + Sync {
    /// Starts a task.
    fn spawn_boxed(&mut self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

impl<S: TaskSet> SpawnBoxed for S {
    fn spawn_boxed(&mut self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.spawn(task);
    }
}

/// The runtime that ships. Its timers and tasks belong to the tokio runtime that is current when they are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioRuntime;

impl Runtime for TokioRuntime {
    type Timer = Pin<Box<Sleep>>;
    type Tasks = JoinSet<()>;

    fn new_timer(&self) -> Self::Timer {
        Box::pin(tokio::time::sleep(Duration::ZERO))
    }

    fn new_task_set(&self) -> Self::Tasks {
        JoinSet::new()
    }
}

impl AsyncTimer for Pin<Box<Sleep>> {
    fn reset(&mut self, at: Instant) {
        /// Tokio rounds up to a millisecond, and panics where that is beyond the range of the clock.
        const ROUNDING_MAX: Duration = Duration::from_millis(1);
        let at = at.checked_add(ROUNDING_MAX).map_or(at - ROUNDING_MAX, |_| at);
        self.as_mut().reset(at.into());
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.as_mut(), cx)
    }
}

impl TaskSet for JoinSet<()> {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        JoinSet::spawn(self, task);
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A task that panicked has ended like any other; what it owned is dropped.
        while ready!(self.poll_join_next(cx)).is_some() {}
        Poll::Ready(())
    }
}

/// The output of `future`, or `None` if it is not ready within `limit`. If both are due, the output wins.
pub(crate) async fn timeout<F: Future>(runtime: &impl Runtime, limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // A limit beyond the range of the clock is no limit.
    let mut timer = clock::now().at.checked_add(limit).map(|at| {
        let mut timer = runtime.new_timer();
        timer.reset(at);
        timer
    });
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => match &mut timer {
            Some(timer) => timer.poll(cx).map(|()| None),
            None => Poll::Pending,
        },
    })
    .await
}
