//! What is due when: one ordered list for the whole broker.
//!
//! Entries are never cancelled. Each kind checks, when it fires, whether it still means something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::broker::machine::ConnId;
use crate::machine::{Deadline, Now};

/// Something that happens later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The next tick of a connection's keep-alive.
    KeepAlive(ConnId),
    /// The next look at a connection's credentials.
    AuthRefresh(ConnId),
    /// The end of a liveness check on a connection.
    Liveness { target: ConnId, check: u64 },
    /// A Failover subscription's new active consumer may be served.
    Failover { topic: Arc<str>, subscription: Arc<str>, turn: u64 },
    /// Delayed messages of a subscription come due.
    Delayed { topic: Arc<str>, subscription: Arc<str> },
    /// Bytes that a fault held back.
    Late { conn: ConnId, bytes: Bytes },
}

impl Timer {
    fn why(&self) -> &'static str {
        match self {
            Self::KeepAlive(_) => "keep-alive",
            Self::AuthRefresh(_) => "authentication refresh check",
            Self::Liveness { .. } => "liveness check",
            Self::Failover { .. } => "failover delay",
            Self::Delayed { .. } => "delayed delivery",
            Self::Late { .. } => "delayed by a fault",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Instant, u64), Timer>,
    next: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) {
        self.next += 1;
        self.due.insert((at, self.next), timer);
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.due.first_key_value().map(|((at, _), timer)| Deadline { at: *at, why: timer.why() })
    }

    pub(crate) fn take_due(&mut self, now: Now) -> Option<Timer> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now.at).then(|| first.remove())
    }
}
