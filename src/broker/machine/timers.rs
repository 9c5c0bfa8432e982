//! The timers of the whole broker, in one ordered list.
//!
//! Timers are never cancelled. Each kind checks, when it fires, whether it still applies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::ids::ConnId;
use crate::machine::{Deadline, Now};

/// Something that happens later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerTimer {
    /// The next tick of a connection's keep-alive.
    KeepAlive(ConnId),
    /// The next check of a connection's credentials.
    CredentialsCheck(ConnId),
    /// The end of a liveness check on a connection.
    LivenessCheck { conn: ConnId, check: u64 },
    /// The active consumer of a Failover subscription may become active, unless there is a newer choice.
    Failover { topic: Arc<str>, subscription: Arc<str>, generation: u64 },
    /// Delayed messages of a subscription come due.
    DelayedMessages { topic: Arc<str>, subscription: Arc<str> },
    /// A subscription that got as much as the dispatch rates allow may get more.
    DispatchRate { topic: Arc<str>, subscription: Arc<str> },
    /// A connection that sent as much as a publish rate allows may send more.
    PublishRate(ConnId),
    /// Time to live, retention and backlog quotas.
    PolicyCheck,
    /// Bytes that a fault held back.
    DelayedByFault { conn: ConnId, bytes: Bytes },
}

impl BrokerTimer {
    fn why(&self) -> &'static str {
        match self {
            Self::KeepAlive(_) => "keep-alive",
            Self::CredentialsCheck(_) => "authentication refresh check",
            Self::LivenessCheck { .. } => "liveness check",
            Self::Failover { .. } => "failover delay",
            Self::DelayedMessages { .. } => "delayed delivery",
            Self::DispatchRate { .. } => "dispatch rate",
            Self::PublishRate(_) => "publish rate",
            Self::PolicyCheck => "policy check",
            Self::DelayedByFault { .. } => "delayed by a fault",
        }
    }

    /// Whether it goes by the broker's own clock, which tests move ahead.
    fn is_on_own_clock(&self) -> bool {
        match self {
            Self::CredentialsCheck(_) | Self::DelayedMessages { .. } | Self::PolicyCheck => true,
            Self::DispatchRate { .. } | Self::PublishRate(_) => true,
            Self::KeepAlive(_) | Self::LivenessCheck { .. } | Self::Failover { .. } | Self::DelayedByFault { .. } => {
                false
            }
        }
    }
}

/// All timers, those of one time in the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct BrokerTimers {
    due: BTreeMap<(Instant, u64), BrokerTimer>,
    next: u64,
}

impl BrokerTimers {
    pub(crate) fn set(&mut self, at: Instant, timer: BrokerTimer) {
        self.next += 1;
        self.due.insert((at, self.next), timer);
    }

    /// What goes by the broker's own clock comes sooner by `by`, but not before `now`.
    pub(crate) fn advance(&mut self, now: Instant, by: Duration) {
        let sooner = |at: Instant| now + at.saturating_duration_since(now).saturating_sub(by);
        let moved = std::mem::take(&mut self.due).into_iter().map(|((at, number), timer)| {
            let at = if timer.is_on_own_clock() { sooner(at) } else { at };
            ((at, number), timer)
        });
        self.due = moved.collect();
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.due.first_key_value().map(|((at, _), timer)| Deadline { at: *at, why: timer.why() })
    }

    pub(crate) fn take_due(&mut self, now: Now) -> Option<BrokerTimer> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now.at).then(|| first.remove())
    }
}
