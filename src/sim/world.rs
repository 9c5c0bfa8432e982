//! Everything that is simulated except users' tasks: clients, connections, brokers, faults, and the clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::board::{Board, UnitId};
use super::faults::Fault;
use super::gate::{BROKERS, Gate, Place, Up};
use super::host::{Dialing, Host, Parts};
use super::invariants::Violations;
use super::link::Link;
use super::net::{Direction, Due, Net, NetId};
use super::rng::Rng;
use crate::broker::BrokerConfig;
use crate::broker::machine::{Broker, ConnId};
use crate::client::clock::simulated;
use crate::error::{Error, ErrorKind};
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{Action, CloseReason, Input, LinkId, SessionNotice};
use crate::machine::session::Session;
use crate::machine::{Deadline, Now};
use crate::wire::frame::{cut, frames};
use crate::wire::tx::TxBuf;

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
    Dialed { client: usize, link: LinkId, refused: bool },
    Fault(Fault),
    Release(NetId),
}

#[derive(Clone, Copy)]
enum Unit {
    Supervisor(usize),
    Link(usize, LinkId),
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
        config.cluster = "sim".to_owned();
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

    // Time.

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
                if let Some(wire) = self.net.get_mut(net) {
                    wire.broker_tx.extend_from_slice(&out);
                }
                self.push_down(net);
            }
        }
    }

    // Bytes.

    fn arrive(&mut self, net: NetId, direction: Direction) {
        let now = self.now.at;
        let moved = self.net.arrive(net, direction, now);
        if moved == 0 {
            return;
        }
        match direction {
            Direction::Up => {
                self.serve_broker(net);
                // There is room in the socket again.
                self.wake_link(net);
            }
            Direction::Down => {
                self.wake_link(net);
                self.push_down(net);
            }
        }
    }

    fn wake_link(&self, net: NetId) {
        let Some(wire) = self.net.get(net) else { return };
        let unit = self.hosts.get(wire.client).and_then(|host| host.units.get(&wire.link));
        if let Some(unit) = unit {
            self.board.wake(*unit);
        }
    }

    fn place(&self, net: NetId) -> Option<(Place, ConnId)> {
        let wire = self.net.get(net)?;
        Some((Place { net, client: wire.client, broker: wire.broker }, wire.conn))
    }

    /// Hands whole frames to the broker, through the gate.
    fn serve_broker(&mut self, net: NetId) {
        let Some((place, conn)) = self.place(net) else { return };
        let limits = self.broker.limits();
        let Some(wire) = self.net.get_mut(net) else { return };
        if wire.broker_gone {
            wire.broker_rx.clear();
            return;
        }
        let run = match cut(&mut wire.broker_rx, &limits) {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => return self.violations.note("client speaks the protocol", || error.to_string()),
        };
        for frame in frames(run) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return self.violations.note("client speaks the protocol", || error.to_string()),
            };
            self.note("up", place.client as u64, || format!("client {} {:?}: {frame:?}", place.client, place.net));
            match self.gate.up(place, frame, self.now.at, &mut self.violations) {
                Up::Forward(frame) => self.broker.handle(conn, frame, self.now),
                Up::Instead(answers) => {
                    let mut out = BytesMut::new();
                    for answer in answers {
                        self.note("instead", place.client as u64, || format!("{:?}: {answer:?}", place.net));
                        answer.encode_frame(&mut out);
                    }
                    if let Some(wire) = self.net.get_mut(net) {
                        wire.broker_tx.extend_from_slice(&out);
                    }
                    self.push_down(net);
                }
            }
            self.gate.check_permits(place, &mut self.violations);
        }
        self.flush_broker();
    }

    /// Takes what the broker has to say, through the gate.
    pub(super) fn flush_broker(&mut self) {
        loop {
            let ready = self.broker.take_ready();
            if ready.is_empty() {
                break;
            }
            for conn in ready {
                if let Some(net) = self.net.of_conn(conn) {
                    self.push_down(net);
                }
            }
        }
    }

    /// From the broker into the socket, as much as it takes.
    fn push_down(&mut self, net: NetId) {
        let Some((place, conn)) = self.place(net) else { return };
        let now = self.now.at;
        loop {
            let Some(wire) = self.net.get_mut(net) else { return };
            if wire.broker_gone {
                return;
            }
            if wire.broker_tx.is_empty() {
                let mut tx = TxBuf::new();
                self.broker.poll_transmit(conn, &mut tx);
                let bytes = tx.take_all();
                if bytes.is_empty() {
                    break;
                }
                let out = self.pass_down(place, bytes);
                if let Some(wire) = self.net.get_mut(net) {
                    wire.broker_tx.extend_from_slice(&out);
                }
                continue;
            }
            let mut bytes: Bytes = wire.broker_tx.split().freeze();
            let taken = self.net.write(net, Direction::Down, &mut bytes, now);
            if let Some(wire) = self.net.get_mut(net) {
                wire.broker_tx.extend_from_slice(&bytes);
            }
            if taken == 0 {
                break;
            }
        }
        // A broker that closes forgets the connection at once, whatever its socket still holds.
        if self.broker.closing(conn) {
            self.broker.disconnect(conn);
            self.net.finish(net, Direction::Down, now);
            self.gate.forget(net);
            self.flush_broker();
        }
    }

    fn pass_down(&mut self, place: Place, mut bytes: Bytes) -> BytesMut {
        let mut out = BytesMut::new();
        while let Some(size) = bytes.first_chunk().map(|size| u32::from_be_bytes(*size) as usize + 4) {
            let raw = bytes.split_to(size.min(bytes.len()));
            let Some(Ok(frame)) = frames(raw.clone()).next() else { continue };
            self.note("down", place.client as u64, || format!("client {} {:?}: {frame:?}", place.client, place.net));
            self.gate.down(place, &frame, raw, self.now.at, &mut out);
        }
        out
    }

    // Ends of connections.

    fn break_wire(&mut self, net: NetId) {
        self.broker_lost(net);
        self.client_lost(net);
    }

    fn client_lost(&mut self, net: NetId) {
        if let Some(wire) = self.net.get_mut(net) {
            wire.client_eof = true;
            // The rest is read first, where it was not lost with the connection.
            wire.broker_gone = true;
        }
        self.wake_link(net);
        self.net.forget_if_over(net);
    }

    fn broker_lost(&mut self, net: NetId) {
        let Some((_, conn)) = self.place(net) else { return };
        self.broker.disconnect(conn);
        self.gate.forget(net);
        if let Some(wire) = self.net.get_mut(net) {
            wire.broker_gone = true;
            if !wire.client_gone {
                wire.client_eof = true;
            }
        }
        self.wake_link(net);
        self.net.forget_if_over(net);
        self.flush_broker();
    }

    // Clients.

    /// Runs a unit that is not a user's task; `false` if it is none of those.
    pub(super) fn run_unit(&mut self, unit: UnitId) -> bool {
        match self.units.get(&unit).copied() {
            Some(Unit::Supervisor(client)) => {
                for (client, link) in self.board.take_fetched() {
                    if let Some(host) = self.hosts.get_mut(client) {
                        host.fetching.remove(&link);
                    }
                }
                let actions = self.hosts.get_mut(client).map(|host| host.run(self.now)).unwrap_or_default();
                for action in actions {
                    self.carry_out(client, action);
                }
                self.retire(client);
                true
            }
            Some(Unit::Link(client, id)) => {
                self.run_link(client, id);
                true
            }
            None => false,
        }
    }

    fn retire(&mut self, client: usize) {
        if let Some(host) = self.hosts.get_mut(client) {
            if host.is_over() {
                host.parts = None;
            }
        }
    }

    fn run_link(&mut self, client: usize, id: LinkId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(client) else { return };
        let Some(link) = host.links.get_mut(&id) else { return };
        let net = link.net;
        if !link.run(&mut self.net, now) {
            host.links.remove(&id);
            if let Some(unit) = host.units.remove(&id) {
                self.units.remove(&unit);
            }
            self.board.wake(host.unit);
            self.net.forget_if_over(net);
        }
        self.collect();
    }

    fn carry_out(&mut self, client: usize, action: Action) {
        self.note("action", client as u64, || format!("client {client}: {action:?}"));
        match action {
            Action::FetchCredentials(link) => self.fetch(client, link),
            Action::Dial { link, key, credentials } => {
                let broker = self.broker_at(&key.physical.host);
                self.count_dial(client, broker);
                let (now, rng) = (self.now.at, &mut self.rng);
                let takes = self.next_dial_takes.take();
                let takes = takes.unwrap_or_else(|| rng.duration(Duration::from_micros(100), Duration::from_millis(3)));
                let timeout = self.hosts[client].parts.as_ref().map_or(takes, |parts| parts.connect_timeout);
                let is_away = self.away_until[broker].is_some_and(|until| until > now);
                let refused = is_away || takes > timeout;
                self.hosts[client].dialing.insert(link, Dialing { key, credentials });
                self.at(now + takes.min(timeout), Event::Dialed { client, link, refused });
            }
            Action::Tell(id, command) => {
                if let Some(link) = self.hosts[client].links.get_mut(&id) {
                    link.commands.push_back(command);
                    link.waker.wake_by_ref();
                }
            }
            Action::HangUp(id) => {
                let host = &mut self.hosts[client];
                host.dialing.remove(&id);
                if let Some(link) = host.links.get_mut(&id) {
                    link.is_hung_up = true;
                    link.waker.wake_by_ref();
                }
            }
        }
    }

    fn broker_at(&self, host: &str) -> usize {
        BROKERS.iter().position(|url| url.contains(host)).unwrap_or(0)
    }

    fn fetch(&mut self, client: usize, link: LinkId) {
        let host = &mut self.hosts[client];
        let Some(parts) = &host.parts else { return };
        let (authentication, news) = (parts.authentication.clone(), parts.news.clone());
        host.fetching.insert(link);
        let (unit, board) = (host.unit, self.board.clone());
        self.spawn(Box::pin(async move {
            let fetched = authentication.credentials().await;
            let _ = news.send(Input::Credentials(link, fetched));
            board.fetched(client, link);
            board.wake(unit);
        }));
    }

    /// A dial has come to its end.
    fn dialed(&mut self, client: usize, id: LinkId, refused: bool) {
        let now = self.now;
        let host = &mut self.hosts[client];
        let Some(Dialing { key, credentials }) = host.dialing.remove(&id) else {
            self.board.wake(host.unit);
            return;
        };
        let Some(parts) = &host.parts else { return };
        if refused {
            let error = Error::local(ErrorKind::Connection, "the connection was refused").retriable(true);
            let _ = parts.news.send(Input::From(id, SessionNotice::Ended(CloseReason::Dial(error))));
            self.board.wake(host.unit);
            return;
        }
        let config = ConnectionConfig {
            address: key.logical.to_string().into(),
            tls: key.tls,
            proxy_to_broker_url: key.proxy_to_broker_url(),
            client_version: "simulated".to_owned(),
            keep_alive: parts.keep_alive,
            operation_timeout: parts.operation_timeout,
        };
        let (ready, news, keep_alive) = (parts.ready.clone(), parts.news.clone(), parts.keep_alive);
        let broker = self.broker_at(&key.physical.host);
        let conn = self.broker.connect(now);
        let net = self.net.open(client, id, conn, broker, now.at);
        let unit = self.new_unit();
        self.units.insert(unit, Unit::Link(client, id));
        let waker = self.board.waker(unit);
        let session = Session::new(config, credentials, ready, now);
        let host = &mut self.hosts[client];
        host.links.insert(id, Link::new(id, net, session, waker, news, keep_alive, now));
        host.units.insert(id, unit);
        self.storms.remove(&(client, broker));
        self.board.wake(unit);
    }

    /// Dials of one broker that do not get through must grow further apart.
    fn count_dial(&mut self, client: usize, broker: usize) {
        let now = self.now.at;
        let (count, since) = self.storms.entry((client, broker)).or_insert((0, now));
        *count += 1;
        // From 100 ms on, doubling up to 5 s, each at least half of it.
        let (count, lasted) = (*count, now - *since);
        let mut least = Duration::ZERO;
        let mut step = Duration::from_millis(100);
        for _ in 1..count.saturating_sub(1) {
            least += step / 2;
            step = (step * 2).min(Duration::from_secs(5));
        }
        if count > 3 && lasted < least {
            let what = || format!("client {client} dialed broker {broker} {count} times in {lasted:?}");
            self.violations.note("storms stay within the back-off", what);
        }
    }

    // Checks.

    /// At a moment when nothing wants to run: everything is where it belongs.
    pub(super) fn check_quiet(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            for link in host.links.values_mut() {
                link.check(now, &mut self.violations);
            }
            let Some(parts) = &mut host.parts else { continue };
            let before = parts.supervisor.poll_deadline();
            parts.supervisor.mark_all();
            parts.supervisor.handle_ready(Some(&host.waker), now, &mut crate::machine::Wakes::new());
            let after = parts.supervisor.poll_deadline();
            if let Some(action) = parts.supervisor.poll_action() {
                self.violations.note("no lost wake-up", || format!("the supervisor had {action:?} to do and no turn"));
            }
            let is_earlier = after.is_some_and(|after| before.is_none_or(|before| after.at < before.at));
            if is_earlier {
                let what = || format!("the supervisor did not know {after:?}, only {before:?}");
                self.violations.note("no lost deadline", what);
            }
        }
        self.check_judge();
    }

    fn check_judge(&mut self) {
        if self.broker.violations().is_empty() {
            return;
        }
        let seen = self.broker.violations().to_vec();
        self.broker.clear_violations();
        for violation in seen {
            if !self.is_excused(&violation) {
                self.violations.note("broker's judge", || violation.to_string());
            }
        }
    }

    /// A connection that is slow or frozen brings a PRODUCER after the one of the connection that replaced it. One
    /// that a fault has silenced cannot answer a PING, and does not bring a CLOSE_PRODUCER. And sequence ids begin anew with a new producer
    /// that takes the name of an old one; the judge does not notice that where the new one's first PRODUCER was lost.
    /// All else a client has to answer for, whatever goes wrong around it.
    fn is_excused(&self, violation: &crate::broker::Violation) -> bool {
        use crate::broker::Rule;
        let wire = || self.net.of_conn(ConnId(violation.connection)).and_then(|net| self.net.get(net));
        match violation.rule {
            Rule::PongMissing => wire().is_none_or(|wire| wire.is_faulted),
            Rule::AfterClose if violation.detail.contains("the broker's CLOSE_PRODUCER") => {
                wire().is_none_or(|wire| wire.is_faulted)
            }
            Rule::EpochNotGrowing if wire().is_none_or(|wire| wire.is_faulted) => true,
            Rule::SequenceNotGrowing | Rule::EpochNotGrowing => {
                let name = violation.detail.split(": ").next().unwrap_or_default();
                self.gate.mistaken.contains(name)
            }
            _ => false,
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
