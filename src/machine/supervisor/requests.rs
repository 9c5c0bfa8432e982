//! Requests of the supervisor to brokers: what was asked for whom, and on which connection.

use std::collections::BTreeMap;

use super::pool::{ConnectionPool, Holder};
use crate::machine::control::{ConnectionId, RequestToken, SessionCommand};
use crate::wire::command::Command;

/// Requests that have no response yet: at most one for each holder.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: BTreeMap<RequestToken, (ConnectionId, Holder)>,
    next: u64,
}

impl Requests {
    /// Sends `command` over `connection` for `holder`.
    pub(super) fn send(
        &mut self,
        connection: ConnectionId,
        holder: Holder,
        command: Command,
        pool: &mut ConnectionPool,
    ) -> RequestToken {
        self.next += 1;
        let token = RequestToken(self.next);
        self.pending.insert(token, (connection, holder));
        pool.command(connection, SessionCommand::Request(token, Box::new(command)));
        token
    }

    /// The holder that a response is for; `None` if it does not wait any more.
    pub(super) fn take(&mut self, connection: ConnectionId, token: RequestToken) -> Option<Holder> {
        self.pending.get(&token).filter(|(asked, _)| *asked == connection)?;
        self.pending.remove(&token).map(|(_, holder)| holder)
    }

    /// The holder does not wait for this response any more.
    pub(super) fn forget(&mut self, token: RequestToken) {
        self.pending.remove(&token);
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, Holder)> {
        self.pending.values().copied()
    }
}
