//! What is simulated apart from the tasks: the clock, the timers, the network, the brokers and the faults.
//!
//! One lock around all of it ([`SharedWorld`]), because the client's tasks have to be `Send`. It is never held while a
//! task is polled or woken, or while a future is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::clusters::SimCluster;
use super::faults::{Fault, TokenFault};
use super::network::{Direction, Network, NetworkEvent, PairId};
use super::proxy::ADDRESSES;
use super::rng::Rng;
use super::violations::ViolationLog;
use crate::broker::BrokerConfig;
use crate::client::clock;
use crate::machine::Now;

mod conformance;
mod delivery;
mod dials;

/// The wall clock at the start: 2024-01-01.
const WALL_MS_START: u64 = 1_704_067_200_000;

/// Lines of the trace that are kept.
const TRACE_LINES_MAX: usize = 200_000;

/// Something at a later time.
pub(super) enum Event {
    Network(NetworkEvent),
    Wake(Waker),
    Fault(Fault),
    /// Frames that the proxy holds back on a connection may be due.
    Release(PairId),
}

/// Identifies a timer: its instant, and a number that orders those of one instant.
pub(super) type TimerKey = (Instant, u64);

/// The world, shared by tasks, sockets and timers.
#[derive(Clone)]
pub(super) struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    pub(super) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        // A panic under the lock fails the run; what is dropped after it still closes its sockets.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct World {
    pub(super) now: Now,
    start: Instant,
    pub(super) rng: Rng,
    timers: BTreeMap<TimerKey, Event>,
    next_timer: u64,
    /// One, or two.
    pub(super) clusters: Vec<SimCluster>,
    pub(super) network: Network,
    #[cfg(pulsar_mutations)]
    pub(super) mutator: super::mutations::Mutator,
    next_dial_takes: Option<Duration>,
    /// What sources of tokens do instead of giving one, and until when.
    pub(super) tokens_broken: Option<(TokenFault, Instant)>,
    /// The cluster that is named from outside; `None`: there is no answer.
    pub(super) named_cluster: Option<usize>,
    /// Dials per client and broker since the last successful one: how many, and since when.
    failed_dials: BTreeMap<(usize, (usize, usize)), (u32, Instant)>,
    /// Connections per client: how many in this minute, and when it began.
    connections_made: BTreeMap<usize, (u32, Instant)>,
    /// To be woken once the lock is free.
    wakers: Vec<Waker>,
    /// Tasks of clients are being polled although nothing woke them: they must have nothing to do.
    pub(super) is_auditing: bool,
    pub(super) violations: ViolationLog,
    pub(super) trace: Option<Vec<String>>,
    /// A hash over all events: equal for equal seeds.
    pub(super) fingerprint: u64,
    pub(super) events: u64,
}

impl World {
    /// With a cluster for each configuration, one or two.
    pub(super) fn new(seed: u64, configs: Vec<BrokerConfig>) -> Self {
        let mut rng = Rng::new(seed);
        let start = Instant::now();
        let now = Now { at: start, wall_ms: WALL_MS_START };
        clock::set_virtual(Some(now));
        let clusters = configs.into_iter().zip(ADDRESSES).enumerate();
        let clusters =
            clusters.map(|(number, (config, addresses))| SimCluster::new(number, config, addresses, rng.fork(), now));
        let clusters = clusters.collect();
        Self {
            now,
            start,
            timers: BTreeMap::new(),
            next_timer: 0,
            clusters,
            network: Network::new(rng.fork()),
            #[cfg(pulsar_mutations)]
            mutator: Default::default(),
            next_dial_takes: None,
            tokens_broken: None,
            named_cluster: Some(0),
            failed_dials: BTreeMap::new(),
            connections_made: BTreeMap::new(),
            wakers: Vec::new(),
            is_auditing: false,
            violations: ViolationLog::default(),
            trace: None,
            fingerprint: seed,
            events: 0,
            rng,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now.at - self.start
    }

    /// Adds an event to the fingerprint and, where one is kept, to the trace.
    pub(super) fn record_event(&mut self, what: &'static str, number: u64, text: impl FnOnce() -> String) {
        self.events += 1;
        let micros = self.elapsed().as_micros() as u64;
        for part in [micros, what.len() as u64, number] {
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
        if let Some(trace) = &mut self.trace {
            if trace.len() < TRACE_LINES_MAX {
                trace.push(format!("{:>9.3} ms  {what} {}", micros as f64 / 1000.0, text()));
            }
        }
    }

    /// Reports a violation if this is an audit: a task did something although nothing had woken it.
    pub(super) fn forbid_in_audit(&mut self, checker: &'static str, what: impl FnOnce() -> String) {
        if self.is_auditing {
            self.violations.report(checker, what);
        }
    }

    fn set_now(&mut self, at: Instant) {
        let elapsed = at - self.start;
        self.now = Now { at, wall_ms: WALL_MS_START + elapsed.as_millis() as u64 };
        self.violations.elapsed = elapsed;
        clock::set_virtual(Some(self.now));
    }

    /// Schedules an event, at the earliest for now.
    pub(super) fn at(&mut self, at: Instant, event: Event) -> TimerKey {
        self.next_timer += 1;
        let key = (at.max(self.now.at), self.next_timer);
        self.timers.insert(key, event);
        key
    }

    /// Removes an event that has not happened yet.
    pub(super) fn cancel(&mut self, key: TimerKey) -> Option<Event> {
        self.timers.remove(&key)
    }

    /// When something happens next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let brokers = self.clusters.iter().filter_map(|cluster| cluster.broker.poll_deadline());
        timer.into_iter().chain(brokers.map(|deadline| deadline.at)).min()
    }

    /// Moves the clock and does what is due. The tasks this wakes are woken by the caller, without the lock.
    pub(super) fn advance(&mut self, to: Instant) -> Vec<Waker> {
        self.set_now(to.max(self.now.at));
        let now = self.now.at;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let event = entry.remove();
            self.handle(event);
            self.schedule_network();
        }
        for cluster in 0..self.clusters.len() {
            let broker = &mut self.clusters[cluster].broker;
            if broker.poll_deadline().is_some_and(|deadline| deadline.at <= now) {
                broker.handle_deadline(self.now);
                self.flush_broker();
            }
        }
        self.schedule_network();
        std::mem::take(&mut self.wakers)
    }

    /// Schedules the pending events of the network and the proxy.
    pub(super) fn schedule_network(&mut self) {
        for (at, event) in std::mem::take(&mut self.network.events) {
            self.at(at, Event::Network(event));
        }
        for cluster in 0..self.clusters.len() {
            for (at, pair) in std::mem::take(&mut self.clusters[cluster].proxy.releases) {
                self.at(at, Event::Release(pair));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => self.wakers.push(waker),
            Event::Network(NetworkEvent::Arrive(pair, direction)) => self.arrive(pair, direction),
            Event::Network(NetworkEvent::Break(pair)) => self.break_pair(pair),
            Event::Network(NetworkEvent::End(pair, Direction::ToBroker)) => self.on_client_disconnected(pair),
            Event::Network(NetworkEvent::End(pair, Direction::ToClient)) => self.on_broker_disconnected(pair),
            Event::Fault(fault) => self.inject(fault),
            Event::Release(pair) => self.release(pair),
        }
    }

    pub(super) fn delay_next_dial(&mut self, takes: Duration) {
        self.next_dial_takes = Some(takes);
    }

    /// Every broker can be dialed again.
    pub(super) fn allow_dials(&mut self) {
        for cluster in &mut self.clusters {
            cluster.dials_refused_until = Default::default();
        }
        self.next_dial_takes = None;
    }
}
