//! The run queue: which tasks of a simulation were woken, and which were spawned or aborted by other tasks.
//!
//! It polls nothing itself, so that tasks can reach it while they are polled.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::rng::Rng;

/// Identifies one task of a simulation; not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(pub(super) u64);

/// Whose task it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskKind {
    /// The application's.
    User,
    /// The supervisor's driver of a client.
    Supervisor {
        /// The number of the client.
        client: usize,
    },
    /// A client's dial and connection, or its fetch of credentials.
    Connection {
        /// The number of the client.
        client: usize,
    },
}

/// A task of a client.
pub(super) type ClientTask = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct RunQueue {
    next_id: u64,
    /// In the order of the wake-ups.
    woken: Vec<TaskId>,
    is_woken: BTreeSet<TaskId>,
    spawned: Vec<(TaskId, TaskKind, ClientTask)>,
    aborted: Vec<TaskId>,
    #[cfg(pulsar_mutations)]
    wake_ups: u64,
}

/// See the module. Bounded by the number of tasks.
#[derive(Default)]
pub(super) struct Executor(Mutex<RunQueue>);

impl Executor {
    fn lock(&self) -> MutexGuard<'_, RunQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_id(&self) -> TaskId {
        let mut queue = self.lock();
        queue.next_id += 1;
        TaskId(queue.next_id)
    }

    pub(super) fn wake(&self, task: TaskId) {
        let mut queue = self.lock();
        if queue.is_woken.insert(task) {
            queue.woken.push(task);
        }
    }

    /// How many tasks were woken and have not been polled since.
    pub(super) fn woken(&self) -> usize {
        self.lock().woken.len()
    }

    /// Any one of the tasks that were woken.
    pub(super) fn next_woken(&self, rng: &mut Rng) -> Option<TaskId> {
        let mut queue = self.lock();
        let count = queue.woken.len();
        if count == 0 {
            return None;
        }
        let at = if count == 1 { 0 } else { rng.below(count as u64) as usize };
        let task = queue.woken.swap_remove(at);
        queue.is_woken.remove(&task);
        Some(task)
    }

    /// Adds a task and wakes it.
    pub(super) fn spawn(&self, id: TaskId, kind: TaskKind, task: ClientTask) {
        self.lock().spawned.push((id, kind, task));
        self.wake(id);
    }

    pub(super) fn take_spawned(&self) -> Vec<(TaskId, TaskKind, ClientTask)> {
        std::mem::take(&mut self.lock().spawned)
    }

    /// Asks for the tasks to be dropped unfinished.
    pub(super) fn abort(&self, tasks: impl IntoIterator<Item = TaskId>) {
        self.lock().aborted.extend(tasks);
    }

    pub(super) fn take_aborted(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.lock().aborted)
    }

    pub(super) fn waker(self: &Arc<Self>, task: TaskId, kind: TaskKind) -> Waker {
        Waker::from(Arc::new(TaskWaker { task, kind, executor: self.clone() }))
    }

    fn wake_by_waker(&self, task: TaskId, kind: TaskKind) {
        #[cfg(pulsar_mutations)]
        if super::mutations::loses_wake_up(kind, self.count_wake_up()) {
            return;
        }
        let _ = kind;
        self.wake(task);
    }

    #[cfg(pulsar_mutations)]
    fn count_wake_up(&self) -> u64 {
        let mut queue = self.lock();
        queue.wake_ups += 1;
        queue.wake_ups
    }
}

struct TaskWaker {
    task: TaskId,
    kind: TaskKind,
    executor: Arc<Executor>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.executor.wake_by_waker(self.task, self.kind);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.executor.wake_by_waker(self.task, self.kind);
    }
}
