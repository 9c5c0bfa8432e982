//! The simulation as a [`Runtime`] of the client's drivers: timers over the virtual clock, tasks in the run queue.
//!
//! It also audits the drivers. When no task is woken, every task of a client is polled nevertheless, with all its endpoints
//! scheduled, so that all pending work is done in that poll. A driver that then reads, writes, spawns, wakes a task or sets
//! its timer earlier has missed a wake-up or a deadline.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::executor::{ClientTask, Executor, TaskId, TaskKind};
use super::world::{Event, SharedWorld, TimerKey};
use crate::client::runtime::{AsyncTimer, Runtime, TaskSet, WorkSet};
use crate::machine::session::Session;
use crate::machine::supervisor::Supervisor;
use crate::wire::tx::TxBuf;

/// A session lets no endpoint write above this; one frame of the largest message passes.
const TX_BYTES_MAX: usize = 256 * 1024 + 6 * 1024 * 1024;

/// The runtime of one client.
#[derive(Clone)]
pub(super) struct SimRuntime {
    pub(super) world: SharedWorld,
    pub(super) executor: Arc<Executor>,
    /// The number of the client.
    pub(super) client: usize,
}

impl SimRuntime {
    fn new_set_of(&self, kind: TaskKind) -> SimTaskSet {
        SimTaskSet { world: self.world.clone(), executor: self.executor.clone(), kind, running: Arc::default() }
    }
}

impl Runtime for SimRuntime {
    type Timer = SimTimer;
    type Tasks = SimTaskSet;

    fn new_timer(&self) -> SimTimer {
        SimTimer::new(self.world.clone())
    }

    fn new_task_set(&self) -> SimTaskSet {
        self.new_set_of(TaskKind::Connection { client: self.client })
    }

    fn new_work_set(&self) -> Option<WorkSet> {
        Some(Box::new(self.new_set_of(TaskKind::User)))
    }

    fn inspect_session(&self, session: &mut Session, tx: &TxBuf) {
        let mut world = self.world.lock();
        if tx.len() > TX_BYTES_MAX {
            let what = || format!("{} bytes wait to be written on one connection", tx.len());
            world.violations.report("queue bounds", what);
        }
        if !world.is_auditing {
            return;
        }
        if let Some(deadline) = session.poll_deadline().filter(|deadline| deadline.is_due(world.now)) {
            world.violations.report("no lost deadline", || format!("{deadline:?} of a connection is due"));
        }
        // A connection whose socket is full schedules no endpoint.
        if tx.is_empty() {
            session.schedule_all();
        }
    }

    fn inspect_supervisor(&self, supervisor: &mut Supervisor) {
        let mut world = self.world.lock();
        if !world.is_auditing {
            return;
        }
        if let Some(deadline) = supervisor.poll_deadline().filter(|deadline| deadline.is_due(world.now)) {
            world.violations.report("no lost deadline", || format!("{deadline:?} of the supervisor is due"));
        }
        supervisor.notify_all();
    }
}

/// A timer of the virtual clock. It fires exactly at its instant.
pub(super) struct SimTimer {
    world: SharedWorld,
    at: Option<Instant>,
    /// Its entry among the world's timers, with the waker stored there. The entry is removed once it has fired.
    entry: Option<(TimerKey, Waker)>,
}

impl SimTimer {
    pub(super) fn new(world: SharedWorld) -> Self {
        Self { world, at: None, entry: None }
    }

    fn cancel(&mut self) {
        if let Some((key, _)) = self.entry.take() {
            let entry = self.world.lock().cancel(key);
            // It may hold a waker of the application.
            drop(entry);
        }
    }
}

impl AsyncTimer for SimTimer {
    fn reset(&mut self, at: Instant) {
        {
            let mut world = self.world.lock();
            let pending = self.at.filter(|pending| *pending > world.now.at);
            if pending.is_none_or(|pending| at < pending) {
                world
                    .forbid_in_audit("no lost deadline", || format!("a timer set to {pending:?} is to fire at {at:?}"));
            }
        }
        self.cancel();
        #[cfg(pulsar_mutations)]
        let at = super::mutations::timer_at(at);
        self.at = Some(at);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if self.world.lock().now.at >= at {
            self.cancel();
            return Poll::Ready(());
        }
        if self.entry.as_ref().is_none_or(|(_, waker)| !waker.will_wake(cx.waker())) {
            self.cancel();
            let key = self.world.lock().at(at, Event::Wake(cx.waker().clone()));
            self.entry = Some((key, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Tasks of one client, or of the application's work in it.
pub(super) struct SimTaskSet {
    world: SharedWorld,
    executor: Arc<Executor>,
    kind: TaskKind,
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    tasks: BTreeSet<TaskId>,
    /// To be woken when one of them ends.
    owner: Option<Waker>,
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TaskSet for SimTaskSet {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let kind = self.kind;
        self.world.lock().forbid_in_audit("no lost wake-up", || format!("{kind:?}: there was a task to spawn"));
        let id = self.executor.new_id();
        lock(&self.running).tasks.insert(id);
        let member = Member { task: Box::pin(task), _guard: EndOnDrop { id, running: self.running.clone() } };
        self.executor.spawn(id, kind, Box::pin(member));
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut running = lock(&self.running);
        if running.tasks.is_empty() {
            return Poll::Ready(());
        }
        running.owner = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for SimTaskSet {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut lock(&self.running).tasks);
        self.executor.abort(tasks);
    }
}

/// A task, which is removed from its set when it is dropped.
struct Member {
    task: ClientTask,
    _guard: EndOnDrop,
}

impl Future for Member {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.task.as_mut().poll(cx)
    }
}

struct EndOnDrop {
    id: TaskId,
    running: Arc<Mutex<Running>>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let owner = {
            let mut running = lock(&self.running);
            running.tasks.remove(&self.id);
            running.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}
