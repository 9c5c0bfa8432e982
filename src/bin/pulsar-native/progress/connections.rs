//! What to tell of a client's connections.

use pulsar_native::{ClientState, ConnectionPhase, ConnectionState};

/// The connections as they were last told.
#[derive(Debug, Default)]
pub(super) struct Connections {
    told: Vec<ConnectionState>,
}

impl Connections {
    /// A line for each connection that has changed.
    pub(super) fn tell(&mut self, state: ClientState) -> Vec<String> {
        let before = std::mem::replace(&mut self.told, state.connections);
        let changed = self.told.iter().filter(|connection| !before.contains(connection)).map(line);
        let is_gone = |old: &&ConnectionState| !self.told.iter().any(|connection| connection.broker == old.broker);
        let gone = before.iter().filter(is_gone).map(|old| format!("connection to {}: closed", old.broker));
        changed.chain(gone).collect()
    }

    /// Why nothing is connected, as far as that is known.
    pub(super) fn failure(state: &ClientState) -> Option<String> {
        state.connections.iter().rev().find_map(|connection| match &connection.phase {
            ConnectionPhase::Failed { error, .. } => Some(error.to_string()),
            _ => None,
        })
    }
}

fn line(connection: &ConnectionState) -> String {
    let phase = match &connection.phase {
        ConnectionPhase::Connecting => "connecting".to_owned(),
        ConnectionPhase::Connected { server_version, .. } => format!("connected ({server_version})"),
        ConnectionPhase::Failed { error, .. } => format!("failed: {error}"),
        other => format!("{other:?}"),
    };
    format!("connection to {}: {phase}", connection.broker)
}
