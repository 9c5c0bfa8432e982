//! Whole clients, brokers and a network in one thread, in virtual time, from one seed.
//!
//! An application that takes its [`Client`] from outside can be tested here as it is: the same `Client`, `Producer`
//! and `Consumer` run over simulated connections to two simulated brokers, and everything that may go wrong does go
//! wrong, at moments that a seed picks. Minutes of reconnects take milliseconds, and a failure comes back as often as
//! its seed is run.
//!
//! ```
//! use std::time::Duration;
//! use pulsar_native::sim::{Fault, Simulation};
//!
//! let sim = Simulation::new(7);
//! let handle = sim.handle();
//! sim.spawn(async move {
//!     let client = handle.connect(handle.builder()).await.expect("there is a broker");
//!     let producer = client.producer("orders").create().await.expect("a producer");
//!     for number in 0..100 {
//!         producer.send(format!("order {number}")).await.expect("stored, whatever happens meanwhile");
//!         handle.sleep(Duration::from_millis(10)).await;
//!     }
//! });
//! sim.inject_at(Duration::from_millis(300), Fault::Drop);
//! sim.inject_at(Duration::from_millis(600), Fault::Restart(Duration::from_secs(2)));
//! sim.run_for(Duration::from_secs(60)).expect("no promise is broken");
//! assert!(sim.stored("orders").len() >= 100);
//! ```
//!
//! # What is real and what is not
//! Real: the handles, the supervisor, the sessions, the producers' and consumers' machines, the codec, and the
//! embedded broker, which plays two brokers that share its topics. Simulated: sockets, timers, tokio's tasks, and the
//! two brokers' addresses, redirects and moves. Tasks run in an order that the seed picks. What awaits tokio's own
//! timers or sockets does not run here: use [`Handle::sleep`].
//!
//! # What is checked
//! [`Simulation::run_for`] ends at the first [`Violation`]: a task or an endpoint that has something to do and no turn
//! (a lost wake-up or deadline), more permits granted than the queue holds, a re-sent frame that is not the same bytes,
//! dials closer together than the back-off allows, bytes that are not the protocol, a rule the broker's judge knows.
//! What the application itself promises it can check with [`Simulation::stored`], [`Simulation::is_acknowledged`] and
//! [`Simulation::stats`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::broker::{BrokerConfig, TopicStats};
use crate::client::clock::simulated;
use crate::client::{Client, ClientBuilder};
use crate::error::Result;

mod board;
mod faults;
mod gate;
mod host;
mod inject;
mod invariants;
mod link;
mod net;
mod rng;
mod stored;
mod world;

#[doc(hidden)]
pub use crate::machine::mutation::{Mutation, set as mutation};
pub use faults::{Fault, FaultCounts};
pub(crate) use host::Parts;
pub use invariants::Violation;
pub use net::Direction;
pub use rng::Rng;
pub use stored::Stored;

use board::UnitId;
use world::{Event, LocalTask, World};

/// Units that may run at one moment before that counts as running in circles.
const STEPS_AT_ONE_MOMENT_MAX: u32 = 200_000;

/// How often, of 1000 quiet moments, every task is polled although nothing woke it.
const PROBES_PER_MILLE: u64 = 60;

struct Task {
    future: LocalTask,
    waker: Waker,
}

struct Inner {
    world: RefCell<World>,
    tasks: RefCell<BTreeMap<UnitId, Task>>,
    is_probing: Cell<bool>,
    progress: Cell<u64>,
}

/// A simulation. Dropping it ends its tasks where they stand.
pub struct Simulation {
    inner: Rc<Inner>,
}

/// What tasks inside a simulation use; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inner: Rc<Inner>,
}

impl Simulation {
    /// A simulation with the brokers' defaults. The same seed gives the same run.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_broker(seed, BrokerConfig::default())
    }

    /// A simulation whose brokers are set up like this. With a `token_key`, clients of [`Handle::builder`] show tokens.
    #[must_use]
    pub fn with_broker(seed: u64, config: BrokerConfig) -> Self {
        let inner = Inner {
            world: RefCell::new(World::new(seed, config)),
            tasks: RefCell::default(),
            is_probing: Cell::new(false),
            progress: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    /// What tasks inside need.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { inner: self.inner.clone() }
    }

    /// Adds a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.world.borrow_mut().spawn(Box::pin(task));
    }

    /// Lets something go wrong now.
    pub fn inject(&self, fault: Fault) {
        let mut world = self.inner.world.borrow_mut();
        let now = world.now.at;
        world.at(now, Event::Fault(fault));
    }

    /// Lets something go wrong after a time, counted from now.
    pub fn inject_at(&self, after: Duration, fault: Fault) {
        let mut world = self.inner.world.borrow_mut();
        let at = world.now.at + after;
        world.at(at, Event::Fault(fault));
    }

    /// Faults that wait for their frame are taken back, every broker can be reached, slow connections are fast.
    /// Connections that lost a receipt break, because a client without a send timeout waits for it for ever.
    pub fn calm(&self) {
        self.inner.world.borrow_mut().calm();
    }

    /// Runs for this long in virtual time.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run_for(&self, time: Duration) -> std::result::Result<(), Violation> {
        self.run_until(time, || false).map(drop)
    }

    /// Runs until `done` says so, at most for this long in virtual time; whether it did. Asked at quiet moments.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run_until(&self, time: Duration, done: impl Fn() -> bool) -> std::result::Result<bool, Violation> {
        let end = self.inner.world.borrow().now.at + time;
        loop {
            self.settle()?;
            if done() {
                return Ok(true);
            }
            let next = self.inner.world.borrow().next_at();
            match next.filter(|next| *next <= end) {
                Some(next) => self.inner.world.borrow_mut().advance(next),
                None => {
                    self.inner.world.borrow_mut().advance(end);
                    self.settle()?;
                    return Ok(done());
                }
            }
        }
    }

    /// Runs whatever wants to run at this moment, then looks whether everything is in its place.
    fn settle(&self) -> std::result::Result<(), Violation> {
        self.run_woken()?;
        let probes = {
            let mut world = self.inner.world.borrow_mut();
            world.check_quiet();
            world.rng.chance(PROBES_PER_MILLE)
        };
        if probes {
            self.probe();
            self.run_woken()?;
        }
        self.verdict()
    }

    fn verdict(&self) -> std::result::Result<(), Violation> {
        match self.inner.world.borrow().violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn run_woken(&self) -> std::result::Result<(), Violation> {
        let mut steps = 0;
        loop {
            let unit = {
                let mut world = self.inner.world.borrow_mut();
                let spawned = std::mem::take(&mut world.spawned);
                for (unit, future) in spawned {
                    let waker = world.board.waker(unit);
                    self.inner.tasks.borrow_mut().insert(unit, Task { future, waker });
                }
                let board = world.board.clone();
                let Some(unit) = board.take(&mut world.rng) else { return Ok(()) };
                world.note("run", unit.0, || format!("{unit:?}"));
                (!world.run_unit(unit)).then_some(unit)
            };
            if let Some(unit) = unit {
                self.poll_task(unit);
            }
            steps += 1;
            if steps > STEPS_AT_ONE_MOMENT_MAX {
                let mut world = self.inner.world.borrow_mut();
                world.violations.note("time goes on", || format!("{steps} steps at one moment, the last of {unit:?}"));
            }
            self.verdict()?;
        }
    }

    /// Whether the task has come to its end.
    fn poll_task(&self, unit: UnitId) -> bool {
        let Some(mut task) = self.inner.tasks.borrow_mut().remove(&unit) else { return false };
        let waker = task.waker.clone();
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.inner.tasks.borrow_mut().insert(unit, task);
        }
        polled.is_ready()
    }

    /// Polls every task although nothing woke it: none of them may get any further.
    fn probe(&self) {
        self.inner.is_probing.set(true);
        let units: Vec<_> = self.inner.tasks.borrow().keys().copied().collect();
        for unit in units {
            let before = self.inner.progress.get();
            let ended = self.poll_task(unit);
            if ended || self.inner.progress.get() != before {
                let mut world = self.inner.world.borrow_mut();
                world.violations.note("no lost wake-up", || format!("task {unit:?} could go on and was not woken"));
            }
        }
        self.inner.is_probing.set(false);
    }

    /// The messages of a topic as they are stored, in order.
    #[must_use]
    pub fn stored(&self, topic: &str) -> Vec<Stored> {
        stored::stored(&self.inner.world.borrow().broker, topic)
    }

    /// Whether a subscription has acknowledged a message; `None` if there is no such message or subscription.
    #[must_use]
    pub fn is_acknowledged(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Option<bool> {
        stored::is_acknowledged(&self.inner.world.borrow().broker, topic, subscription, id)
    }

    /// The statistics of a topic.
    #[must_use]
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.inner.world.borrow().broker.stats(topic)
    }

    /// How many faults took effect, by kind.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.inner.world.borrow().gate.counts.clone()
    }

    /// Whether an entry was damaged on its way to a subscription, by [`Fault::CorruptEntry`]: it counts as received.
    #[must_use]
    pub fn was_corrupted(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> bool {
        let world = self.inner.world.borrow();
        let key = (topic.to_owned(), subscription.to_owned(), id.ledger_id, id.entry_id);
        world.gate.books.corrupted.contains(&key)
    }

    /// Clients that are not closed, connections that are open, tasks that have not ended.
    #[must_use]
    pub fn left(&self) -> (usize, usize, usize) {
        let world = self.inner.world.borrow();
        let clients = world.hosts.iter().filter(|host| host.parts.is_some()).count();
        let links = world.hosts.iter().map(|host| host.links.len() + host.dialing.len()).sum();
        (clients, links, self.inner.tasks.borrow().len())
    }

    /// Keeps the lines of what happens from now on.
    pub fn record(&self) {
        self.inner.world.borrow_mut().trace.get_or_insert_default();
    }

    /// The lines so far.
    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        self.inner.world.borrow_mut().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A sum over everything that happened: equal for equal seeds.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.inner.world.borrow().fingerprint
    }

    /// How many things happened.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner.world.borrow().events
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.inner.tasks.borrow_mut());
        drop(tasks);
        let (hosts, spawned) = {
            let mut world = self.inner.world.borrow_mut();
            (std::mem::take(&mut world.hosts), std::mem::take(&mut world.spawned))
        };
        drop((hosts, spawned));
        simulated::set(None);
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Simulation({:?})", self.inner.world.borrow().elapsed())
    }
}

impl Handle {
    /// A builder for a client of the simulated brokers. Fixed here: the service URL, the seed, and, where the brokers
    /// ask for tokens, where they come from.
    #[must_use]
    pub fn builder(&self) -> ClientBuilder {
        let mut world = self.inner.world.borrow_mut();
        let seed = world.rng.next();
        let builder = Client::builder("pulsar://broker-0:6650,broker-1:6650").seed(seed);
        let Some((key, subject)) = world.broker.superuser_credentials() else { return builder };
        builder.auth(crate::Token::supplier(move || {
            let token = crate::broker::mint_token(&key, &subject, Some(crate::client::clock::wall_ms() + 3_600_000));
            async { Ok(token) }
        }))
    }

    /// Starts a client in the simulation, as [`ClientBuilder::connect`] does in real life.
    ///
    /// # Errors
    /// As there.
    pub async fn connect(&self, builder: ClientBuilder) -> Result<Client> {
        let (client, parts) = builder.simulated()?;
        self.inner.world.borrow_mut().add_client(parts);
        client.check_in().await?;
        Ok(client)
    }

    /// Waits in virtual time.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        let at = self.inner.world.borrow().now.at + time;
        Sleep { inner: self.inner.clone(), at, armed: false }
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.inner.world.borrow().elapsed()
    }

    /// Adds a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.world.borrow_mut().spawn(Box::pin(task));
    }

    /// Chance for one task: a generator of its own.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.inner.world.borrow_mut().rng.fork()
    }

    /// Notes a line for the trace, and that this task got further: at a moment when nothing woke it, that is a lost
    /// wake-up.
    pub fn note(&self, text: impl FnOnce() -> String) {
        self.inner.progress.set(self.inner.progress.get() + 1);
        self.inner.world.borrow_mut().note("user", 0, text);
    }

    /// A promise of the application is broken: the run ends with it.
    pub fn violation(&self, checker: &'static str, detail: impl FnOnce() -> String) {
        self.inner.world.borrow_mut().violations.note(checker, detail);
    }

    /// Whether tasks are polled just to see that they do not get further. A future that counts its polls leaves these
    /// out.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.inner.is_probing.get()
    }

    /// As [`Simulation::is_acknowledged`].
    #[must_use]
    pub fn is_acknowledged(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Option<bool> {
        stored::is_acknowledged(&self.inner.world.borrow().broker, topic, subscription, id)
    }

    /// When, since the start, the brokers sent this message to consumers of the subscription: each of these can explain
    /// one receive of it. `topic` is the full name, of the partition where there are any.
    #[must_use]
    pub fn deliveries(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Vec<Duration> {
        let world = self.inner.world.borrow();
        let elapsed = |at: Instant| world.elapsed() - (world.now.at - at);
        world.gate.deliveries(topic, subscription, id).into_iter().map(elapsed).collect()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

struct Sleep {
    inner: Rc<Inner>,
    at: Instant,
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = self.inner.clone();
        let mut world = inner.world.borrow_mut();
        if world.now.at >= self.at {
            return Poll::Ready(());
        }
        if !self.armed {
            self.armed = true;
            world.at(self.at, Event::Wake(cx.waker().clone()));
        }
        Poll::Pending
    }
}
