//! Everything that is simulated except users' tasks: clients, connections, brokers, faults, and the clock.
//!
//! This file has the clock and the timers; what they set in motion is in the rooms below.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::board::{Board, UnitId};
use super::faults::Fault;
use super::gate::{BROKERS, Gate};
use super::host::{Host, Parts};
use super::invariants::Violations;
use super::net::{Direction, Due, Net, NetId};
use super::rng::Rng;
use crate::broker::BrokerConfig;
use crate::broker::machine::Broker;
use crate::client::clock::simulated;
use crate::machine::control::ConnectionId;
use crate::machine::{Deadline, Now};

mod checks;
mod clients;
mod delivery;

/// A task of the user's, or one of a client's own.
pub(super) type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// The wall clock at the start: 2024-01-01.
const WALL_MS_START: u64 = 1_704_067_200_000;

/// Lines of the trace that are kept.
const TRACE_LINES_MAX: usize = 200_000;

/// Something at a later time.
pub(super) enum Event {
    Net(Due),
    Wake(Waker),
    Dialed { client: usize, link: ConnectionId, refused: bool },
    Fault(Fault),
    Release(NetId),
}

#[derive(Clone, Copy)]
enum Unit {
    Supervisor(usize),
    Link(usize, ConnectionId),
}

/// See the module.
pub(super) struct World {
    pub(super) now: Now,
    start: Instant,
    pub(super) board: Arc<Board>,
    pub(super) rng: Rng,
    units: BTreeMap<UnitId, Unit>,
    next_unit: u64,
    timers: BTreeMap<(Instant, u64), Event>,
    next_timer: u64,
    pub(super) broker: Broker,
    pub(super) net: Net,
    pub(super) gate: Gate,
    pub(super) hosts: Vec<Host>,
    /// Nobody gets through to a broker until then.
    away_until: [Option<Instant>; BROKERS.len()],
    next_dial_takes: Option<Duration>,
    pub(super) violations: Violations,
    /// To be taken over by whoever polls tasks.
    pub(super) spawned: Vec<(UnitId, LocalTask)>,
    pub(super) trace: Option<Vec<String>>,
    /// Sums up everything that happened: the same for the same seed.
    pub(super) fingerprint: u64,
    pub(super) events: u64,
    /// Dials per client and broker since the last one that came up: how many, and since when.
    storms: BTreeMap<(usize, usize), (u32, Instant)>,
}

impl World {
    pub(super) fn new(seed: u64, mut config: BrokerConfig) -> Self {
        let mut rng = Rng::new(seed);
        let start = Instant::now();
        let now = Now { at: start, wall_ms: WALL_MS_START };
        config.cluster_name = "sim".to_owned();
        simulated::set(Some(now));
        let gate = Gate::new(rng.fork());
        Self {
            now,
            start,
            board: Arc::default(),
            units: BTreeMap::new(),
            next_unit: 0,
            timers: BTreeMap::new(),
            next_timer: 0,
            broker: Broker::new(config, BROKERS[0], now),
            net: Net::new(rng.fork()),
            gate,
            hosts: Vec::new(),
            away_until: [None; BROKERS.len()],
            next_dial_takes: None,
            violations: Violations::default(),
            spawned: Vec::new(),
            trace: None,
            fingerprint: seed,
            events: 0,
            storms: BTreeMap::new(),
            rng,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now.at - self.start
    }

    /// Notes that something happened.
    pub(super) fn note(&mut self, what: &'static str, number: u64, text: impl FnOnce() -> String) {
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

    fn set_now(&mut self, at: Instant) {
        let elapsed = at - self.start;
        self.now = Now { at, wall_ms: WALL_MS_START + elapsed.as_millis() as u64 };
        self.violations.elapsed = elapsed;
        simulated::set(Some(self.now));
    }

    pub(super) fn new_unit(&mut self) -> UnitId {
        self.next_unit += 1;
        UnitId(self.next_unit)
    }

    pub(super) fn at(&mut self, at: Instant, event: Event) {
        self.next_timer += 1;
        self.timers.insert((at.max(self.now.at), self.next_timer), event);
    }

    pub(super) fn spawn(&mut self, task: LocalTask) {
        let unit = self.new_unit();
        self.spawned.push((unit, task));
        self.board.wake(unit);
    }

    pub(super) fn add_client(&mut self, parts: Parts) -> usize {
        let client = self.hosts.len();
        let unit = self.new_unit();
        self.units.insert(unit, Unit::Supervisor(client));
        let waker = self.board.waker(unit);
        self.hosts.push(Host {
            unit,
            waker,
            parts: Some(parts),
            links: BTreeMap::new(),
            units: BTreeMap::new(),
            dialing: BTreeMap::new(),
            fetching: std::collections::BTreeSet::new(),
        });
        self.board.wake(unit);
        client
    }

    /// When something happens next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let mut next = self.timers.first_key_value().map(|((at, _), _)| *at);
        let mut earlier = |deadline: Option<Deadline>| {
            if let Some(deadline) = deadline {
                next = Some(next.map_or(deadline.at, |at: Instant| at.min(deadline.at)));
            }
        };
        earlier(self.broker.poll_deadline());
        for host in &self.hosts {
            earlier(host.parts.as_ref().and_then(|parts| parts.supervisor.poll_deadline()));
            for link in host.links.values() {
                earlier(link.poll_deadline());
            }
        }
        next
    }

    /// Moves the clock and does what is due.
    pub(super) fn advance(&mut self, to: Instant) {
        self.set_now(to.max(self.now.at));
        let now = self.now.at;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let event = entry.remove();
            self.handle(event);
            self.collect();
        }
        if self.broker.poll_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.broker.handle_deadline(self.now);
            self.flush_broker();
        }
        self.collect();
        for host in &self.hosts {
            let due = |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.at <= now);
            if due(host.parts.as_ref().and_then(|parts| parts.supervisor.poll_deadline())) {
                self.board.wake(host.unit);
            }
            for (id, link) in &host.links {
                if due(link.poll_deadline()) {
                    if let Some(unit) = host.units.get(id) {
                        self.board.wake(*unit);
                    }
                }
            }
        }
    }

    /// Timers that parts of the world asked for.
    fn collect(&mut self) {
        for (at, due) in std::mem::take(&mut self.net.due) {
            self.at(at, Event::Net(due));
        }
        for (at, net) in std::mem::take(&mut self.gate.releases) {
            self.at(at, Event::Release(net));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Net(Due::Arrive(net, direction)) => self.arrive(net, direction),
            Event::Net(Due::Break(net)) => self.break_wire(net),
            Event::Net(Due::End(net, Direction::Up)) => self.broker_lost(net),
            Event::Net(Due::End(net, Direction::Down)) => self.client_lost(net),
            Event::Dialed { client, link, refused } => self.dialed(client, link, refused),
            Event::Fault(fault) => self.inject(fault),
            Event::Release(net) => {
                let now = self.now.at;
                let mut out = BytesMut::new();
                self.gate.release(net, now, &mut out);
                self.send_down(net, &out);
            }
        }
    }

    pub(super) fn away(&mut self, broker: usize, until: Instant) {
        self.away_until[broker] = Some(until);
    }

    pub(super) fn delay_next_dial(&mut self, takes: Duration) {
        self.next_dial_takes = Some(takes);
    }

    /// All ways are open again.
    pub(super) fn open_ways(&mut self) {
        self.away_until = [None; BROKERS.len()];
        self.next_dial_takes = None;
    }
}
