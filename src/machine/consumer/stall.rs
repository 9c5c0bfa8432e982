//! Notices that nothing comes although there is a backlog and the broker may send.
//!
//! ```text
//!            quiet for the stall timeout, able to receive          both answers are here
//!  Quiet --------------------------------------------> Asking ---------------------------> reported, or not
//!    ^  ^-- a message arrives, attached anew               |                                     |
//!    |                                                     | detached, no answer                 |
//!    +-----------------------------------------------------+-------------------------------------+
//! ```
//!
//! The broker is asked again after twice the time, up to [`WAIT_FACTOR_MAX`] times the first, so that a topic on which
//! nothing is published costs next to nothing. A stall is reported once, until a message has arrived.

use std::time::{Duration, Instant};

use super::idle::IdleReason;
use super::operations::{LastMessageId, Operation};
use super::{Consumer, Deferred, Now};
use crate::pb::CommandConsumerStatsResponse;

/// The longest time between two checks, as a multiple of the stall timeout.
const WAIT_FACTOR_MAX: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct StallWatch {
    timeout: Duration,
    /// How long after the last check the next is made.
    wait: Duration,
    /// Since when nothing has arrived, as far as the last check knew.
    quiet_since: Option<Instant>,
    /// `None` while it is not attached, and if that is beyond what the clock can express.
    check_at: Option<Instant>,
    is_reported: bool,
    asked: Option<Box<Asked>>,
}

/// What the broker is being asked.
#[derive(Debug)]
struct Asked {
    /// Since when nothing had arrived. Something may arrive before the answer, and then begins a time of its own.
    quiet_since: Option<Instant>,
    quiet_for: Duration,
    stats: Option<CommandConsumerStatsResponse>,
}

impl StallWatch {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, wait: timeout, quiet_since: None, check_at: None, is_reported: false, asked: None }
    }

    /// Nothing has arrived since `at`.
    fn restart(&mut self, at: Instant) {
        self.wait = self.timeout;
        self.quiet_since = Some(at);
        self.check_at = at.checked_add(self.timeout);
        self.is_reported = false;
    }

    /// Something has arrived. Says whether the next check is earlier now: it is moved only where it was put off, so that
    /// an arrival costs a comparison.
    #[inline]
    pub(super) fn on_arrival(&mut self, now: Now) -> bool {
        let was_put_off = self.wait != self.timeout && !mutation!(StallToldLate);
        if was_put_off {
            self.restart(now.at);
        }
        was_put_off
    }

    fn back_off(&mut self, now: Now) {
        self.wait = self.wait.saturating_mul(2).min(self.timeout.saturating_mul(WAIT_FACTOR_MAX));
        self.check_at = now.at.checked_add(self.wait);
    }

    /// When the next check is due.
    pub(super) fn check_at(&self) -> Option<Instant> {
        self.check_at
    }

    pub(super) fn on_attached(&mut self, now: Now) {
        self.asked = None;
        self.restart(now.at);
    }

    /// The broker does not say: a topic that is not persistent has no last message, for one.
    pub(super) fn on_no_answer(&mut self) {
        self.asked = None;
    }

    pub(super) fn on_detached(&mut self) {
        self.asked = None;
        self.check_at = None;
    }
}

impl Consumer {
    /// It is attached: from now on messages are expected.
    pub fn watch_for_stalls(&mut self, now: Now) {
        if self.lifecycle.is_attached() {
            self.stall.on_attached(now);
        }
    }

    /// Asks the broker if nothing has come for the stall timeout although it could.
    pub(super) fn check_stall(&mut self, now: Now, deferred: &mut Deferred) {
        let is_due = |stall: &StallWatch| stall.check_at.is_some_and(|at| at <= now.at);
        if !is_due(&self.stall) {
            return;
        }
        if self.lifecycle.end_of_receiving().is_some() {
            // Nothing is received any more. A check that stays due would keep the owner busy until the close is answered.
            return self.stall.on_detached();
        }
        if let Some(arrived) = self.counters.last_arrival.filter(|at| Some(*at) > self.stall.quiet_since) {
            self.stall.restart(arrived);
            if !is_due(&self.stall) {
                return;
            }
        }
        self.stall.back_off(now);
        let is_able = self.could_receive() && !self.seek.is_running();
        if !is_able || self.stall.is_reported || self.stall.asked.is_some() {
            return;
        }
        let quiet_since = self.stall.quiet_since;
        let quiet_for = quiet_since.map(|since| now.at.saturating_duration_since(since)).unwrap_or_default();
        self.stall.asked = Some(Box::new(Asked { quiet_since, quiet_for, stats: None }));
        // Answered in this order.
        self.begin_operation(Operation::StallStats, now, deferred);
        self.begin_operation(Operation::StallLastMessageId, now, deferred);
    }

    /// Whether nothing of its own keeps messages away. An application that has taken messages, and has not come back for
    /// more, is slow.
    fn could_receive(&self) -> bool {
        if mutation!(StallOfSlowApplication) {
            return self.lifecycle.is_attached();
        }
        self.idle_ledger().reason().is_none() && self.queue.is_used_up()
    }

    pub(super) fn on_stall_stats(&mut self, stats: &CommandConsumerStatsResponse) {
        if let Some(asked) = &mut self.stall.asked {
            asked.stats = Some(stats.clone());
        }
    }

    pub(super) fn on_stall_last_message_id(&mut self, last: LastMessageId, deferred: &mut Deferred) {
        let Some(asked) = self.stall.asked.take() else { return };
        let Asked { quiet_since, quiet_for, stats: Some(stats) } = *asked else { return };
        let is_quiet = self.counters.last_arrival <= quiet_since;
        if !is_quiet || !self.could_receive() {
            return;
        }
        let reason = self.idle_ledger().reason_by_broker(&stats, Some(last.id), None);
        if matches!(reason, IdleReason::BlockedOnUnacknowledged { .. } | IdleReason::Withheld { .. }) {
            self.stall.is_reported = !mutation!(StallToldTwice);
            self.tell(deferred, move |observer, topic| observer.on_stall(topic, reason, quiet_for));
        }
    }
}
