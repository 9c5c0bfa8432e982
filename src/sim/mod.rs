//! A deterministic simulation: whole clients, brokers and a network on one thread, in virtual time, from one seed.
//!
//! An application that is given its [`Client`] can be tested here as it is: the same `Client`, `Producer` and `Consumer`
//! run over simulated connections to two simulated brokers, and faults of connections, brokers and frames happen at
//! times that a seed picks. Minutes of reconnects take milliseconds, and a failing seed reproduces exactly.
//!
//! ```
//! use std::time::Duration;
//! use pulsar_native::sim::{Fault, Simulation};
//!
//! let sim = Simulation::new(7);
//! let handle = sim.handle();
//! sim.spawn(async move {
//!     let client = handle.connect(handle.builder()).await.expect("a client");
//!     let producer = client.producer("orders").create().await.expect("a producer");
//!     for number in 0..100 {
//!         producer.send(format!("order {number}")).await.expect("stored in spite of the faults");
//!         handle.sleep(Duration::from_millis(10)).await;
//!     }
//! });
//! sim.inject_at(Duration::from_millis(300), Fault::Disconnect);
//! sim.inject_at(Duration::from_millis(600), Fault::Restart { down_for: Duration::from_secs(2) });
//! sim.run_for(Duration::from_secs(60)).expect("every invariant holds");
//! assert!(sim.stored_messages("orders").len() >= 100);
//! ```
//!
//! # What is real and what is not
//! Real: the handles, the drivers of supervisor and connections, the machines, the codec, and the embedded broker, which
//! stands for two brokers that share its topics; [`Simulation::with_two_clusters`] has two such clusters. Simulated:
//! sockets, timers, the scheduler of the tasks, and the brokers' addresses, redirects and moves. Tasks run in an order that
//! the seed picks. Code that awaits timers, tasks or sockets of tokio does not run here: use [`Handle::sleep`] and [`Handle::spawn`]. The tasks of
//! [`Consumer::process`](crate::Consumer::process) and of `process_by_key` do run here.
//!
//! # What is checked
//! [`Simulation::run_for`] ends at the first [`InvariantViolation`]: a task or an endpoint with pending work that
//! is not scheduled (a lost wake-up or deadline), more permits granted than the queue holds, a re-sent frame with other
//! bytes, dials closer together than the back-off allows, more than 200 connections of one client in a minute, a
//! generated name given up too soon, a new producer or consumer that asks again after a final refusal, bytes that are no
//! frame of the protocol, a violation of a [`Rule`](crate::broker::Rule). An application can check its own invariants with [`Simulation::stored_messages`],
//! [`Simulation::is_acknowledged`] and [`Simulation::stats`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::broker::{BrokerConfig, TopicStats};
use crate::client::clock;
#[cfg(doc)]
use crate::client::{Client, ClientBuilder};

mod clusters;
mod executor;
mod faults;
mod handle;
mod inject;
#[cfg(pulsar_mutations)]
mod mutations;
mod network;
mod proxy;
mod rng;
mod runtime;
mod socket;
mod stored;
mod tokens;
mod violations;
mod world;

pub use crate::broker::StoredMessage;
#[cfg(pulsar_mutations)]
pub use crate::mutation::{Mutation, activate as activate_mutation};
pub use clusters::SimulatedCluster;
pub use faults::{Fault, FaultCounts, TokenFault};
pub use handle::Handle;
pub use network::Direction;
pub use rng::Rng;
pub use violations::InvariantViolation;

use executor::{Executor, TaskId, TaskKind};
use world::{Event, SharedWorld, World};

/// Polls at one moment of virtual time before that counts as a livelock.
const POLLS_AT_ONE_MOMENT_MAX: u32 = 200_000;

/// How often in 1000 audits the application's tasks are polled although nothing woke them.
const PROBES_PER_MILLE: u64 = 60;

/// A task of the application's, or of a client's.
type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    kind: TaskKind,
    future: LocalTask,
    waker: Waker,
}

struct Inner {
    world: SharedWorld,
    executor: Arc<Executor>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    /// Tasks of the application that were spawned while others ran.
    spawned: RefCell<Vec<(TaskId, LocalTask)>>,
    clients: Cell<usize>,
    is_probing: Cell<bool>,
    /// Grows with each line that a task of the application traces.
    progress: Cell<u64>,
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    fn delivery_was_corrupted(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> bool {
        let (world, last) = (self.world(), id.position());
        let first = id.first_chunk().map_or(last, |first| first.position());
        let key =
            |at: crate::id::MessagePosition| (topic.to_owned(), subscription.to_owned(), at.ledger_id, at.entry_id);
        // Of a chunked message any chunk will do, and others between them are taken for one.
        world.clusters[0].proxy.records.corrupted.range(key(first)..=key(last)).next().is_some()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.executor.new_id();
        self.spawned.borrow_mut().push((id, Box::pin(task)));
        self.executor.wake(id);
    }

    /// Adds the tasks that were spawned, and drops those that were aborted.
    fn update_tasks(&self) {
        let clients = self.executor.take_spawned();
        let clients = clients.into_iter().map(|(id, kind, future)| (id, kind, future as LocalTask));
        let users = std::mem::take(&mut *self.spawned.borrow_mut());
        let users = users.into_iter().map(|(id, future)| (id, TaskKind::User, future));
        for (id, kind, future) in clients.chain(users) {
            // A simulation inside a task of tokio's does not share that task's budget: it would never get a new one.
            let future = Box::pin(tokio::task::unconstrained(future));
            let waker = self.executor.waker(id, kind);
            self.tasks.borrow_mut().insert(id, Task { kind, future, waker });
        }
        for id in self.executor.take_aborted() {
            let task = self.tasks.borrow_mut().remove(&id);
            drop(task);
        }
    }

    /// Polls the task; whether it has ended.
    fn poll_task(&self, id: TaskId) -> bool {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else { return false };
        let waker = task.waker.clone();
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
        polled.is_ready()
    }

    fn live_resources(&self) -> LiveResources {
        let count = |wanted: fn(TaskKind) -> bool| self.tasks_of(wanted).len();
        LiveResources {
            clients: count(|kind| matches!(kind, TaskKind::Supervisor { .. })),
            connections: count(|kind| matches!(kind, TaskKind::Connection { .. })),
            tasks: count(|kind| kind == TaskKind::User) + self.spawned.borrow().len(),
        }
    }

    fn tasks_of(&self, wanted: impl Fn(TaskKind) -> bool) -> Vec<TaskId> {
        self.tasks.borrow().iter().filter(|(_, task)| wanted(task.kind)).map(|(id, _)| *id).collect()
    }
}

/// What a simulation still runs: the result of [`Simulation::live_resources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveResources {
    /// Clients that are not closed.
    pub clients: usize,
    /// Connections that are open or being dialed.
    pub connections: usize,
    /// Tasks of the application that have not ended.
    pub tasks: usize,
}

impl LiveResources {
    /// Whether everything has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients == 0 && self.connections == 0 && self.tasks == 0
    }
}

/// A simulation. Dropping it drops its tasks.
///
/// Its virtual clock is that of the thread: only one simulation may be alive on a thread at a time.
pub struct Simulation {
    inner: Rc<Inner>,
}

impl Simulation {
    /// A simulation with the brokers' defaults. The same seed gives the same run.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_broker_config(seed, BrokerConfig::default())
    }

    /// A simulation whose brokers have this configuration. With a `token_key`, clients of [`Handle::builder`] send tokens.
    #[must_use]
    pub fn with_broker_config(seed: u64, config: BrokerConfig) -> Self {
        Self::with_configs(seed, vec![config])
    }

    /// A simulation of two clusters of two brokers each. Clients of [`Handle::builder`] begin with the first one; how they
    /// get to the second one is [`SimulatedCluster::address`]. What other methods say of the brokers is about the first
    /// one, and a fault of brokers or frames is in one that the seed picks, unless it names one.
    #[must_use]
    pub fn with_two_clusters(seed: u64, first: BrokerConfig, second: BrokerConfig) -> Self {
        Self::with_configs(seed, vec![first, second])
    }

    fn with_configs(seed: u64, configs: Vec<BrokerConfig>) -> Self {
        let inner = Inner {
            world: SharedWorld::new(World::new(seed, configs)),
            executor: Arc::default(),
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            clients: Cell::new(0),
            is_probing: Cell::new(false),
            progress: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    /// A handle for the tasks inside.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { inner: self.inner.clone() }
    }

    /// A cluster by its number: 0 is the first.
    ///
    /// # Panics
    /// If there is no such cluster.
    #[must_use]
    pub fn cluster(&self, number: usize) -> SimulatedCluster {
        self.handle().cluster(number)
    }

    /// Spawns a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.spawn(task);
    }

    /// Injects a fault now. What [`Fault`] says of faults without effect holds here too.
    pub fn inject(&self, fault: Fault) {
        let mut world = self.inner.world();
        let now = world.now.at;
        world.at(now, Event::Fault(fault));
    }

    /// Injects a fault after a time, counted from now.
    pub fn inject_at(&self, after: Duration, fault: Fault) {
        let mut world = self.inner.world();
        let at = world.now.at + after;
        world.at(at, Event::Fault(fault));
    }

    /// Ends all faults: those that wait for a frame are removed, every broker can be dialed, slow connections are fast
    /// again. Connections that lost a receipt break, because a client without a send timeout would wait for it for ever.
    /// [`Fault::Blackhole`] and [`Fault::StallReads`] stay until the client or the broker closes the connection, or the
    /// stall ends.
    pub fn clear_faults(&self) {
        self.inner.world().clear_faults();
    }

    /// Runs for this long in virtual time.
    ///
    /// # Errors
    /// The first invariant that was broken.
    pub fn run_for(&self, time: Duration) -> std::result::Result<(), InvariantViolation> {
        self.run_until(time, || false).map(drop)
    }

    /// Runs until `done` returns true, at most for this long in virtual time; whether it did. `done` is called whenever no
    /// task is woken.
    ///
    /// # Errors
    /// The first invariant that was broken.
    pub fn run_until(&self, time: Duration, done: impl Fn() -> bool) -> std::result::Result<bool, InvariantViolation> {
        let end = self.inner.world().now.at + time;
        loop {
            self.settle()?;
            if done() {
                return Ok(true);
            }
            let next = self.inner.world().next_at();
            match next.filter(|next| *next <= end) {
                Some(next) => self.advance(next),
                None => {
                    self.advance(end);
                    self.settle()?;
                    return Ok(done());
                }
            }
        }
    }

    fn advance(&self, to: Instant) {
        let wakers = self.inner.world().advance(to);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs woken tasks until none is left, then checks that no wake-up was missed.
    fn settle(&self) -> std::result::Result<(), InvariantViolation> {
        self.run_woken()?;
        self.audit_clients();
        let probes = {
            let mut world = self.inner.world();
            world.check_conformance();
            world.rng.chance_per_mille(PROBES_PER_MILLE)
        };
        if probes {
            self.probe_users();
            self.run_woken()?;
        }
        self.verdict()
    }

    fn verdict(&self) -> std::result::Result<(), InvariantViolation> {
        match self.inner.world().violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn run_woken(&self) -> std::result::Result<(), InvariantViolation> {
        let mut polls = 0;
        loop {
            self.inner.update_tasks();
            let task = {
                let mut world = self.inner.world();
                let Some(task) = self.inner.executor.next_woken(&mut world.rng) else { return Ok(()) };
                world.record_event("run", task.0, || format!("{task:?}"));
                task
            };
            self.inner.poll_task(task);
            self.inner.world().flush_broker();
            polls += 1;
            if polls > POLLS_AT_ONE_MOMENT_MAX {
                let what = || format!("{polls} polls at one moment, the last of {task:?}");
                self.inner.world().violations.report("livelock", what);
            }
            self.verdict()?;
        }
    }

    /// Polls the tasks of the clients although nothing woke them: see [`runtime`].
    fn audit_clients(&self) {
        self.inner.world().is_auditing = true;
        for id in self.inner.tasks_of(|kind| kind != TaskKind::User) {
            let has_ended = self.inner.poll_task(id);
            if has_ended || self.inner.executor.woken() > 0 {
                let what = || format!("{id:?} of a client had something to do and was not woken");
                self.inner.world().violations.report("no lost wake-up", what);
                break;
            }
        }
        self.inner.world().is_auditing = false;
    }

    /// Polls every task of the application although nothing woke it: none of them may make progress.
    fn probe_users(&self) {
        self.inner.is_probing.set(true);
        for id in self.inner.tasks_of(|kind| kind == TaskKind::User) {
            let before = self.inner.progress.get();
            let has_ended = self.inner.poll_task(id);
            if has_ended || self.inner.progress.get() != before {
                let what = || format!("{id:?} could make progress and was not woken");
                self.inner.world().violations.report("no lost wake-up", what);
            }
        }
        self.inner.is_probing.set(false);
    }

    /// The stored messages of a topic, in order.
    #[must_use]
    pub fn stored_messages(&self, topic: &str) -> Vec<StoredMessage> {
        self.cluster(0).stored_messages(topic)
    }

    /// Whether a subscription has acknowledged a message; `None` if there is no such message or subscription.
    #[must_use]
    pub fn is_acknowledged(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Option<bool> {
        self.cluster(0).is_acknowledged(topic, subscription, id)
    }

    /// The statistics of a topic.
    #[must_use]
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.cluster(0).stats(topic)
    }

    /// How many faults took effect, by kind.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        let world = self.inner.world();
        let mut counts = FaultCounts::default();
        world.clusters.iter().for_each(|cluster| counts.add(&cluster.proxy.counts));
        counts
    }

    /// Whether [`Fault::CorruptDelivery`] damaged a delivery of this message to a subscription: the message counts as
    /// received.
    #[must_use]
    pub fn delivery_was_corrupted(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> bool {
        self.inner.delivery_was_corrupted(topic, subscription, id)
    }

    /// Clients have a limit of the receive memory, so their first FLOW does not say how large the queue is, and permits are
    /// not held against it.
    pub fn let_permits_grow(&self) {
        for cluster in &mut self.inner.world().clusters {
            cluster.proxy.records.permits_grow = true;
        }
    }

    /// Producers attach partitions with their first message: one that is refused then is tried again, as one that was
    /// attached before.
    pub fn let_lazy_producers_ask_again(&self) {
        for cluster in &mut self.inner.world().clusters {
            cluster.proxy.records.lazy_producers = true;
        }
    }

    /// What has not ended yet: a test that closes everything can wait for it to be empty.
    #[must_use]
    pub fn live_resources(&self) -> LiveResources {
        self.inner.live_resources()
    }

    /// Keeps a trace from now on, of at most 200,000 lines.
    pub fn enable_trace(&self) {
        self.inner.world().trace.get_or_insert_default();
    }

    /// Takes the lines of the trace so far; empty unless it was enabled.
    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        self.inner.world().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A hash over all events so far: equal for equal seeds.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.inner.world().fingerprint
    }

    /// How many events there were: polls, frames, faults and lines of the application.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner.world().events
    }
}

impl Drop for Simulation {
    /// Dropping a task can spawn or abort others, so this goes on until none is left. The virtual time lasts until then,
    /// because the drivers read it.
    fn drop(&mut self) {
        loop {
            self.inner.update_tasks();
            let tasks = std::mem::take(&mut *self.inner.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        clock::set_virtual(None);
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Simulation({:?})", self.inner.world().elapsed())
    }
}
