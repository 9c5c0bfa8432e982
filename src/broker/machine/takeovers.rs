//! PRODUCER and SUBSCRIBE that wait until it is known whether the connection that holds what they want is alive.

use crate::broker::ids::ConnId;
use crate::wire::command::Command;

/// Requests that wait at once; one more is answered as if the other side were alive.
const PENDING_MAX: usize = 10_000;

/// A request that waits for a liveness check.
#[derive(Debug)]
pub(crate) struct PendingTakeover {
    pub(crate) check: u64,
    /// The connection that is being checked.
    pub(crate) holder: ConnId,
    /// The connection that sent the request.
    pub(crate) conn: ConnId,
    pub(crate) request: Command,
}

/// All requests that wait, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct PendingTakeovers {
    pending: Vec<PendingTakeover>,
    latest_check: u64,
}

impl PendingTakeovers {
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// The number of one more liveness check.
    pub(crate) fn next_check(&mut self) -> u64 {
        self.latest_check += 1;
        self.latest_check
    }

    pub(crate) fn push(&mut self, takeover: PendingTakeover) {
        self.pending.push(takeover);
    }

    /// Takes those out that are decided now.
    pub(crate) fn take(&mut self, is_decided: impl Fn(&PendingTakeover) -> bool) -> Vec<PendingTakeover> {
        let (decided, rest) = std::mem::take(&mut self.pending).into_iter().partition(is_decided);
        self.pending = rest;
        decided
    }
}
