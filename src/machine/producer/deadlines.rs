//! What is due when, and what happens then.

use std::time::{Duration, Instant};

use super::Producer;
use crate::error::Error;
use crate::machine::{Deadline, Deferred, Dirty, Now};

impl Producer {
    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        if self.is_finished() {
            return None;
        }
        let due = |at: Option<Instant>, why| at.map(|at| Deadline::new(at, why));
        let oldest_send = match self.in_flight.front() {
            Some((group, _)) => group.deadline,
            None => self.oldest_batch().and_then(|batch| batch.deadline),
        };
        [
            due(self.overdue_at().filter(|_| !mutation!(OverdueSleeps)), "check for overdue sends"),
            due(self.attach.creation_deadline(), "creation timeout"),
            due(oldest_send, "send timeout"),
            due(self.capacity.waiters.next_deadline(), "send timeout while waiting for capacity"),
            due(self.batch_closes_at(), "batch publish delay"),
            due(self.lifecycle.close_deadline(), "close timeout"),
        ]
        .into_iter()
        .fold(None, Deadline::earlier)
    }

    /// Does what is due, in whatever state. Of the sends only those fail that are overdue themselves.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        if self.is_finished() {
            return;
        }
        self.start_clocks(|| now);
        self.check_overdue(now, deferred);
        if is_due(self.attach.creation_deadline(), now) {
            self.fail(self.creation_timeout_error(now), deferred);
            return;
        }
        if self.capacity.waiters.expire(now, deferred) {
            // One of them may have been woken for capacity that it has not taken.
            self.capacity.offer(deferred);
        }
        self.expire_sends(now, deferred);
        if is_due(self.batch_closes_at(), now) {
            self.close_batch();
        }
        if is_due(self.lifecycle.close_deadline(), now) {
            self.give_up_closing(now, deferred);
        }
    }

    /// The owner is to send a batch that was opened, or to note when.
    pub(super) fn on_batch_opened(&mut self) {
        let lingers = !self.config.batching_max_publish_delay.is_zero();
        self.dirty.raise(if lingers { Dirty::AtDeadline } else { Dirty::Now });
    }

    fn batch_closes_at(&self) -> Option<Instant> {
        let batch = self.oldest_batch()?;
        batch.closes_at(self.config.batching_max_publish_delay, self.is_attached())
    }

    /// The deadline of a send that was called at `called`.
    pub(super) fn send_deadline(&self, called: Instant) -> Option<Instant> {
        self.send_timeout().and_then(|timeout| called.checked_add(timeout))
    }

    /// How long a close waits for what was accepted before it.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.send_timeout().unwrap_or(self.config.operation_timeout)
    }

    /// Sets deadline and publish time of the groups that were added since the last call. The first caller that has
    /// the time does it, so that a push reads no clock.
    #[inline]
    pub(super) fn start_clocks(&mut self, now: impl FnOnce() -> Now) {
        if self.in_flight.has_unstarted() {
            let now = now();
            self.in_flight.start_clocks(now, self.send_deadline(now.at));
        }
    }

    /// Fails the sends that are overdue. Deadlines grow along the queue, with the open batch at its end, so these are
    /// the oldest:
    ///
    /// - Entries at the front fail one by one. Those whose bytes were written may be stored, and count as unanswered.
    /// - The open batch fails only if everything before it does. It is closed first, which makes it the last entry.
    fn expire_sends(&mut self, now: Now, deferred: &mut Deferred) {
        let is_batch_overdue = self.in_flight.groups().all(|group| is_due(group.deadline, now))
            && self.oldest_batch().is_some_and(|batch| is_due(batch.deadline, now));
        if is_batch_overdue {
            self.close_batch();
        }
        let mut has_expired = false;
        while let Some((group, _)) = self.in_flight.front().filter(|(group, _)| is_due(group.deadline, now)) {
            let transmitted = group.transmitted;
            if transmitted {
                self.receipts.count_unanswered();
            }
            let what = if transmitted { "no receipt came" } else { "the message was not sent" };
            self.settle_failed(0, self.timeout_error(what, now), transmitted, deferred);
            has_expired = true;
        }
        if has_expired {
            self.dirty = Dirty::Now;
            self.after_settling(deferred);
            self.advance_close(Some(now), deferred);
        }
    }
}

/// Errors of deadlines.
impl Producer {
    /// `what` has not happened within the send timeout.
    pub(super) fn timeout_error(&self, what: &str, now: Now) -> Error {
        self.timed_out(&format!("{what} within the send timeout of {:?}", self.config.send_timeout), now)
    }

    fn creation_timeout_error(&self, now: Now) -> Error {
        self.timed_out(&format!("the producer was not created within {:?}", self.config.operation_timeout), now)
    }

    /// The error of a close that timed out, and of what it has not sent.
    pub(super) fn close_timeout_error(&self, is_drained: bool, now: Now) -> Error {
        let what = if is_drained {
            format!("the broker did not answer CLOSE_PRODUCER within {:?}", self.config.operation_timeout)
        } else {
            format!("what was accepted before the close was not stored within {:?}", self.drain_timeout())
        };
        self.timed_out(&what, now)
    }

    fn timed_out(&self, what: &str, now: Now) -> Error {
        self.attach_status.timed_out(what, now).with_topic(&self.topic)
    }
}

fn is_due(at: Option<Instant>, now: Now) -> bool {
    at.is_some_and(|at| at <= now.at)
}
