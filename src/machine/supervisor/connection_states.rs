//! The connections of a client and their states, as the application may see them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::notice::ConnectionNotice;
use crate::error::Error;
use crate::machine::Deferred;
use crate::machine::control::ConnectionId;
use crate::machine::endpoint::state_signal::StateSignal;

/// The most failed connections that are remembered; beyond it the oldest is forgotten.
const FAILED_MAX: usize = 64;

/// The state of a client: that of its connections.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientState {
    /// The service URL in use: that of the builder, or of the last switch to another cluster.
    pub service_url: Arc<str>,
    /// Connections that are made or being made, and the last failure of each broker that is not connected; in the order
    /// in which they were first dialed.
    pub connections: Vec<ConnectionState>,
    /// Whether the client was closed and has ended.
    pub is_closed: bool,
}

/// The state of one connection of a client.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConnectionState {
    /// The broker as `host:port`, with the proxy's address if there is one.
    pub broker: Arc<str>,
    /// How far it is.
    pub phase: ConnectionPhase,
    /// Since when.
    pub since: SystemTime,
}

/// How far a connection is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ConnectionPhase {
    /// Its credentials are fetched, it is dialed, or the handshake is under way. After a failed attempt it is dialed
    /// after a moment.
    Connecting,
    /// It is usable.
    #[non_exhaustive]
    Connected {
        /// The broker's name for its software (`CommandConnected.server_version`).
        server_version: Arc<str>,
    },
    /// It was lost, or could not be made. It is dialed again when a producer, consumer or query needs it.
    #[non_exhaustive]
    Failed {
        /// Why.
        error: Error,
    },
}

/// A line for each connection.
impl fmt::Display for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for ConnectionState { broker, phase, .. } in &self.connections {
            match phase {
                ConnectionPhase::Connecting => write!(f, "{separator}{broker}: connecting")?,
                ConnectionPhase::Connected { server_version } => {
                    write!(f, "{separator}{broker}: connected ({server_version})")?;
                }
                ConnectionPhase::Failed { error } => write!(f, "{separator}{broker}: failed: {error}")?,
            }
            separator = "\n";
        }
        Ok(())
    }
}

/// The states of all connections of one client, kept by its supervisor and read by its handles.
#[derive(Debug)]
pub struct ConnectionStates {
    /// By the connection; a failed one stays until its broker is dialed again.
    table: Mutex<Table>,
    signal: Arc<StateSignal>,
}

#[derive(Debug, Default)]
struct Table {
    /// Bounded by the connections of the client and [`FAILED_MAX`].
    connections: BTreeMap<ConnectionId, ConnectionState>,
    is_closed: bool,
    service_url: Arc<str>,
}

impl ConnectionStates {
    pub(crate) fn new(service_url: Arc<str>) -> Arc<Self> {
        let table = Table { service_url, ..Table::default() };
        Arc::new(Self { table: Mutex::new(table), signal: StateSignal::new() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of every change.
    #[cfg(feature = "client")]
    pub(crate) fn signal(&self) -> &Arc<StateSignal> {
        &self.signal
    }

    /// The present state.
    #[cfg(any(feature = "client", test))]
    pub(crate) fn state(&self) -> ClientState {
        let table = self.table();
        ClientState {
            service_url: table.service_url.clone(),
            connections: table.connections.values().cloned().collect(),
            is_closed: table.is_closed,
        }
    }

    /// The client uses another cluster.
    pub(crate) fn on_switched(&self, service_url: Arc<str>, deferred: &mut Deferred) {
        self.table().service_url = service_url;
        self.signal.changed(deferred);
    }

    /// Takes what has happened to a connection.
    pub(crate) fn on_notice(
        &self,
        connection: ConnectionId,
        broker: &Arc<str>,
        event: &ConnectionNotice,
        since: SystemTime,
        deferred: &mut Deferred,
    ) {
        let phase = match event {
            ConnectionNotice::Connecting => Some(ConnectionPhase::Connecting),
            ConnectionNotice::Connected { server_version, .. } => {
                Some(ConnectionPhase::Connected { server_version: server_version.clone() })
            }
            ConnectionNotice::Failed { was_up: true, .. } if mutation!(LostConnectionIsUp) => return,
            ConnectionNotice::Failed { error, .. } => Some(ConnectionPhase::Failed { error: error.clone() }),
            ConnectionNotice::Closed => None,
            ConnectionNotice::Challenged => return,
        };
        let mut table = self.table();
        if table.is_closed {
            return;
        }
        match phase {
            Some(phase) => table.set(connection, ConnectionState { broker: broker.clone(), phase, since }),
            None => drop(table.connections.remove(&connection)),
        }
        drop(table);
        self.signal.changed(deferred);
    }

    /// The client has ended.
    pub(crate) fn close(&self, deferred: &mut Deferred) {
        let mut table = self.table();
        table.connections.clear();
        let was_closed = std::mem::replace(&mut table.is_closed, true);
        drop(table);
        if !was_closed {
            self.signal.changed(deferred);
        }
    }
}

impl Table {
    fn set(&mut self, connection: ConnectionId, state: ConnectionState) {
        let is_failed = |state: &ConnectionState| matches!(state.phase, ConnectionPhase::Failed { .. });
        if !self.connections.contains_key(&connection) {
            self.connections.retain(|_, other| !is_failed(other) || other.broker != state.broker);
        }
        self.connections.insert(connection, state);
        let failed: Vec<_> = self.connections.iter().filter(|(_, state)| is_failed(state)).map(|(id, _)| *id).collect();
        for id in &failed[..failed.len().saturating_sub(FAILED_MAX)] {
            self.connections.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states_after(notices: impl IntoIterator<Item = (u64, String, ConnectionNotice)>) -> ClientState {
        let states = ConnectionStates::new("".into());
        for (id, broker, event) in notices {
            let mut deferred = Deferred::new();
            states.on_notice(ConnectionId(id), &broker.into(), &event, SystemTime::UNIX_EPOCH, &mut deferred);
        }
        states.state()
    }

    fn failed() -> ConnectionNotice {
        ConnectionNotice::Failed { error: Error::network("refused"), was_up: false, endpoints: 0 }
    }

    #[test]
    fn a_failure_stays_until_its_broker_is_dialed_again() {
        let state =
            states_after([(1, "a:1".to_owned(), failed()), (2, "b:1".to_owned(), ConnectionNotice::Connecting)]);
        assert_eq!(state.to_string(), "a:1: failed: refused\nb:1: connecting");
        let state =
            states_after([(1, "a:1".to_owned(), failed()), (3, "a:1".to_owned(), ConnectionNotice::Connecting)]);
        assert_eq!(state.to_string(), "a:1: connecting");
    }

    #[test]
    fn the_oldest_failures_are_forgotten() {
        let state = states_after((0..FAILED_MAX as u64 + 2).map(|id| (id, format!("b{id}:1"), failed())));
        assert_eq!((state.connections.len(), &*state.connections[0].broker), (FAILED_MAX, "b2:1"));
    }

    #[test]
    fn a_connection_that_was_closed_is_gone() {
        let state = states_after([
            (1, "a:1".to_owned(), ConnectionNotice::Connecting),
            (1, "a:1".to_owned(), ConnectionNotice::Closed),
        ]);
        assert_eq!(state, ClientState::default());
    }
}
