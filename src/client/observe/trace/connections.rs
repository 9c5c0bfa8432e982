//! Connections: each step of making one, its loss, and the failures of a broker in a row.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Span, debug, debug_span};

use super::{CONNECTION, ms_since, tell};
use crate::error::Error;
use crate::machine::Now;
use crate::machine::control::ConnectionId;
use crate::machine::supervisor::notice::ConnectionNotice;

/// How long a broker that could not be reached is remembered after its last failure.
const TROUBLE_KEPT: Duration = Duration::from_secs(600);

/// The connections of one client.
pub(super) struct ConnectionTraces {
    client: Span,
    /// Whether a broker was reached before.
    was_connected: bool,
    /// Bounded by the connections of the client.
    connections: BTreeMap<ConnectionId, Traced>,
    /// Brokers that were lost or not reached, until they are connected again. When another is added, those not tried for
    /// [`TROUBLE_KEPT`] are removed.
    troubles: HashMap<Arc<str>, Trouble>,
}

/// A connection that is made or in use.
struct Traced {
    broker: Arc<str>,
    /// `connect`, until it is up or has failed.
    span: Span,
    /// When it was asked for; once it is up, since when it is.
    since: Instant,
}

/// What is wrong with a broker.
struct Trouble {
    since: Instant,
    last: Instant,
    failed_attempts: u32,
}

impl ConnectionTraces {
    pub(super) fn new(client: Span) -> Self {
        Self { client, was_connected: false, connections: BTreeMap::new(), troubles: HashMap::new() }
    }

    /// The span of a connection that is made.
    pub(super) fn span(&self, id: ConnectionId) -> Span {
        self.connections.get(&id).map_or_else(Span::none, |traced| traced.span.clone())
    }

    /// A step is begun, on the way to a connection or when it needs fresh credentials.
    pub(super) fn on_step(&self, id: ConnectionId, step: &str, now: Now) {
        let Some(Traced { broker, span, since }) = self.connections.get(&id) else { return };
        let (connection, elapsed_ms) = (id.0, ms_since(*since, now));
        debug!(target: CONNECTION, parent: span, connection, %broker, elapsed_ms, "{step}");
    }

    /// The source of the credentials has answered. What it gave is never told.
    pub(super) fn on_credentials(&self, id: ConnectionId, error: Option<&Error>, now: Now) {
        let Some(Traced { broker, span, since }) = self.connections.get(&id) else { return };
        let (connection, elapsed_ms) = (id.0, ms_since(*since, now));
        match error {
            None => debug!(target: CONNECTION, parent: span, connection, %broker, elapsed_ms, "credentials fetched"),
            Some(error) => {
                debug!(target: CONNECTION, parent: span, connection, %broker, elapsed_ms, %error, "no credentials");
            }
        }
    }

    pub(super) fn on_notice(&mut self, id: ConnectionId, broker: &Arc<str>, event: &ConnectionNotice, now: Now) {
        match event {
            ConnectionNotice::Connecting => self.on_connecting(id, broker, now),
            ConnectionNotice::Connected { server_version, protocol_version } => {
                self.on_connected(id, broker, server_version, *protocol_version, now);
            }
            ConnectionNotice::Challenged => {
                debug!(target: CONNECTION, parent: &self.client, connection = id.0, %broker, "credentials asked for");
            }
            ConnectionNotice::Failed { error, was_up: true, endpoints } => {
                self.on_lost(id, broker, error, *endpoints, now);
            }
            ConnectionNotice::Failed { error, was_up: false, endpoints } => {
                self.on_not_made(id, broker, error, *endpoints, now);
            }
            ConnectionNotice::Closed => {
                let elapsed_ms = ms_since(self.forget(id, now).since, now);
                debug!(target: CONNECTION, parent: &self.client, connection = id.0, %broker, elapsed_ms, "closed");
            }
        }
    }

    fn on_connecting(&mut self, id: ConnectionId, broker: &Arc<str>, now: Now) {
        let failed = self.troubles.get(broker).map_or(0, |trouble| trouble.failed_attempts);
        let (connection, attempt) = (id.0, failed.saturating_add(1));
        let span = debug_span!(target: CONNECTION, parent: &self.client, "connect", connection, %broker, attempt);
        debug!(target: CONNECTION, parent: &span, connection, %broker, attempt, "connecting");
        self.connections.insert(id, Traced { broker: broker.clone(), span, since: now.at });
    }

    fn on_connected(&mut self, id: ConnectionId, broker: &Arc<str>, server: &str, protocol: i32, now: Now) {
        let Some(traced) = self.connections.get_mut(&id) else { return };
        let elapsed_ms = ms_since(traced.since, now);
        traced.since = now.at;
        // It ends here.
        let span = std::mem::replace(&mut traced.span, self.client.clone());
        let trouble = self.troubles.remove(broker);
        let loud = trouble.is_some() || !self.was_connected;
        self.was_connected = true;
        let attempt = trouble.as_ref().map_or(0, |trouble| trouble.failed_attempts).saturating_add(1);
        let away_ms = trouble.map(|trouble| ms_since(trouble.since, now));
        tell!(CONNECTION, &self.client, if loud => info, else in &span, connection = id.0, %broker, attempt, elapsed_ms,
            away_ms, server_version = ?server, protocol_version = protocol, "connected");
    }

    fn on_lost(&mut self, id: ConnectionId, broker: &Arc<str>, error: &Error, endpoints: usize, now: Now) {
        let elapsed_ms = ms_since(self.forget(id, now).since, now);
        // Nobody misses it otherwise.
        let loud = endpoints > 0;
        if loud {
            self.trouble(broker, now);
        }
        let client = &self.client;
        tell!(CONNECTION, client, if loud => warn, else in client, connection = id.0, %broker, endpoints, elapsed_ms,
            %error, "connection lost");
    }

    fn on_not_made(&mut self, id: ConnectionId, broker: &Arc<str>, error: &Error, endpoints: usize, now: Now) {
        let Traced { span, since, .. } = self.forget(id, now);
        let trouble = self.trouble(broker, now);
        trouble.failed_attempts = trouble.failed_attempts.saturating_add(1);
        let (attempt, away_ms) = (trouble.failed_attempts, ms_since(trouble.since, now));
        // The first, the second, the fourth: a broker that is away for an hour is no reason for a thousand lines.
        tell!(CONNECTION, &self.client, if attempt.is_power_of_two() => warn, else in &span, connection = id.0, %broker,
            attempt, endpoints, elapsed_ms = ms_since(since, now), away_ms, %error, "no connection");
    }

    fn forget(&mut self, id: ConnectionId, now: Now) -> Traced {
        let unknown = || Traced { broker: "".into(), span: Span::none(), since: now.at };
        self.connections.remove(&id).unwrap_or_else(unknown)
    }

    /// Something is wrong with this broker once more.
    fn trouble(&mut self, broker: &Arc<str>, now: Now) -> &mut Trouble {
        self.troubles.retain(|_, trouble| now.at.saturating_duration_since(trouble.last) < TROUBLE_KEPT);
        let first = || Trouble { since: now.at, last: now.at, failed_attempts: 0 };
        let trouble = self.troubles.entry(broker.clone()).or_insert_with(first);
        trouble.last = now.at;
        trouble
    }
}
