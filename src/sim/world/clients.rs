//! What clients do between two wake-ups: their supervisors and connections, and dials and credentials for them.

use std::time::Duration;

use super::{Event, Unit, World};
use crate::error::{Error, ErrorKind};
use crate::machine::connection::ConnectionConfig;
use crate::machine::control::{Action, CloseReason, ConnectionId, Input, SessionEvent};
use crate::machine::session::Session;
use crate::sim::board::UnitId;
use crate::sim::gate::BROKERS;
use crate::sim::host::Dialing;
use crate::sim::link::Link;

impl World {
    /// Runs a unit that is not a user's task; `false` if it is none of those.
    pub(in crate::sim) fn run_unit(&mut self, unit: UnitId) -> bool {
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

    fn run_link(&mut self, client: usize, id: ConnectionId) {
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
            Action::Dial { connection: link, key, credentials } => {
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
            Action::Command(id, command) => {
                if let Some(link) = self.hosts[client].links.get_mut(&id) {
                    link.commands.push_back(command);
                    link.waker.wake_by_ref();
                }
            }
            Action::Disconnect(id) => {
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

    fn fetch(&mut self, client: usize, link: ConnectionId) {
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
    pub(super) fn dialed(&mut self, client: usize, id: ConnectionId, refused: bool) {
        let now = self.now;
        let host = &mut self.hosts[client];
        let Some(Dialing { key, credentials }) = host.dialing.remove(&id) else {
            self.board.wake(host.unit);
            return;
        };
        let Some(parts) = &host.parts else { return };
        if refused {
            let error = Error::local(ErrorKind::Connection, "the connection was refused").retriable(true);
            let _ = parts.news.send(Input::Session(id, SessionEvent::Ended(CloseReason::Dial(error))));
            self.board.wake(host.unit);
            return;
        }
        let config = ConnectionConfig {
            address: key.logical.to_string().into(),
            tls: key.tls,
            proxy_to_broker_url: key.proxy_to_broker_url(),
            client_version: "simulated".to_owned(),
            keep_alive_interval: parts.keep_alive_interval,
            operation_timeout: parts.operation_timeout,
        };
        let (ready, news, keep_alive_interval) = (parts.ready.clone(), parts.news.clone(), parts.keep_alive_interval);
        let broker = self.broker_at(&key.physical.host);
        let conn = self.broker.connect(now);
        let net = self.net.open(client, id, conn, broker, now.at);
        let unit = self.new_unit();
        self.units.insert(unit, Unit::Link(client, id));
        let waker = self.board.waker(unit);
        let session = Session::new(config, credentials, ready, now);
        let host = &mut self.hosts[client];
        host.links.insert(id, Link::new(id, net, session, waker, news, keep_alive_interval, now));
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
}
