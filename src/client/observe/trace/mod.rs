//! The spans and events of a client. `docs/observability.md` has the table of them. Nothing outside this folder knows
//! `tracing`.
//!
//! What is told at INFO and above lies in the span `client`, so that it is whole for those who do not see the spans of
//! DEBUG.

use std::time::{Duration, Instant};

use tracing::{Span, debug, info, info_span, warn};

use crate::machine::Now;
use crate::machine::control::{Action, ConnectionId, Input};
use crate::machine::supervisor::notice::Notice;

mod connections;
mod endpoints;
mod refusals;

use connections::ConnectionTraces;
use endpoints::EndpointTraces;

/// The targets of the events, for filters.
const CLIENT: &str = "pulsar_native::client";
const CONNECTION: &str = "pulsar_native::connection";
const ENDPOINT: &str = "pulsar_native::endpoint";

/// An event at this level in the span of the client if it is loud, else at DEBUG in the span behind that.
macro_rules! tell {
    ($target:expr, $client:expr, if $loud:expr => $level:ident, else in $span:expr, $($fields:tt)+) => {
        match $loud {
            true => tracing::$level!(target: $target, parent: $client, $($fields)+),
            false => tracing::debug!(target: $target, parent: $span, $($fields)+),
        }
    };
}
use tell;

/// Not of one client in particular: the files may be those of several.
pub(super) fn tls_files_unusable(error: &str) {
    warn!(target: CLIENT, parent: None, error, "TLS files not usable, the former ones stay in use");
}

/// The provider may be that of several clients.
pub(super) fn no_cluster_to_use(error: &str) {
    warn!(target: CLIENT, parent: None, error, "no cluster to use is named, the one in use stays");
}

/// The traces of one client.
pub(super) struct Trace {
    client: Span,
    started: Instant,
    connections: ConnectionTraces,
    endpoints: EndpointTraces,
}

impl Trace {
    pub(super) fn new(service_url: &str, plain_http_host: Option<&str>, now: Now) -> Self {
        let client = info_span!(target: CLIENT, parent: None, "client", service_url);
        if let Some(broker) = plain_http_host {
            warn!(target: CLIENT, parent: &client, broker, "credentials over plain HTTP");
        }
        Self {
            started: now.at,
            connections: ConnectionTraces::new(client.clone()),
            endpoints: EndpointTraces::new(client.clone()),
            client,
        }
    }

    pub(super) fn on_notice(&mut self, notice: &Notice, now: Now) {
        match notice {
            Notice::Connection { connection, broker, event } => {
                self.connections.on_notice(*connection, broker, event, now);
            }
            Notice::ClusterSwitched { service_url } => {
                info!(target: CLIENT, parent: &self.client, %service_url, "switched to another cluster");
            }
            Notice::Endpoint { endpoint, topic, event } => self.endpoints.on_notice(*endpoint, topic, event, now),
        }
    }

    pub(super) fn on_input(&mut self, input: &Input, now: Now) {
        if let Input::Credentials(id, credentials) = input {
            self.connections.on_credentials(*id, credentials.as_ref().err(), now);
        }
    }

    pub(super) fn on_action(&mut self, action: &Action, now: Now) {
        match action {
            Action::FetchCredentials(id, ..) => self.connections.on_step(*id, "fetching credentials", now),
            Action::Dial { connection, .. } => self.connections.on_step(*connection, "dialing", now),
            Action::Command(..) | Action::Disconnect(_) => {}
        }
    }

    pub(super) fn of_dial(&self, connection: ConnectionId) -> DialTrace {
        DialTrace { connection, span: self.connections.span(connection) }
    }

    pub(super) fn on_closed(&mut self, now: Now) {
        info!(target: CLIENT, parent: &self.client, elapsed_ms = ms_since(self.started, now), "client closed");
    }
}

/// The trace of one dial.
pub(super) struct DialTrace {
    connection: ConnectionId,
    span: Span,
}

impl DialTrace {
    pub(super) fn on_dialed(&self, took: Duration) {
        let (connection, elapsed_ms) = (self.connection.0, ms(took));
        debug!(target: CONNECTION, parent: &self.span, connection, elapsed_ms, "dialed, shaking hands");
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn ms_since(since: Instant, now: Now) -> u64 {
    ms(now.at.saturating_duration_since(since))
}
