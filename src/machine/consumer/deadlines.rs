//! What is due, and when.

use std::time::Instant;

use super::{Consumer, Deadline, Deferred, Now};
use crate::machine::Dirty;

impl Consumer {
    /// When something is due. Acknowledgements and redeliveries wait for the next attach without one.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        if self.lifecycle.is_finished() {
            return None;
        }
        let due = |at: Option<Instant>, why| at.map(|at| Deadline::new(at, why));
        let mut next = Deadline::earlier(self.lifecycle.subscribe_deadline(), self.lifecycle.close_deadline());
        next = Deadline::earlier(next, due(self.operations.due_at(), "operation of a consumer"));
        if self.lifecycle.is_attached() {
            next = Deadline::earlier(next, due(self.acks.due_at(), "acknowledgement group time"));
            next = Deadline::earlier(next, due(self.redelivery.due_at(), "delay of a redelivery"));
            next = Deadline::earlier(next, due(self.stall.check_at(), "check for a stall"));
            next = Deadline::earlier(next, due(self.chunked.expires_at(), "expiry of an incomplete chunked message"));
        }
        next
    }

    /// Does what is due. Acknowledgements that are due are written by [`poll_transmit`](Self::poll_transmit).
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        let is_due = |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.is_due(now));
        if is_due(self.lifecycle.subscribe_deadline()) {
            return self.on_subscribe_timeout(now, deferred);
        }
        // Before the close, so that each caller gets the reason of its own operation.
        while let Some(operation) = self.operations.take_overdue(now) {
            let limit = self.config.operation_timeout;
            let what = format!("the broker did not answer {} within {limit:?}", operation.description());
            let error = self.attach_status.timed_out(&what, now);
            self.fail_operation(operation, error, deferred);
            self.dirty = Dirty::Now;
        }
        if is_due(self.lifecycle.close_deadline()) {
            return self.on_close_timeout(now, deferred);
        }
        self.finish_if_closed_while_detached(deferred);
        if self.lifecycle.is_attached() {
            self.handle_due_redeliveries(now, deferred);
            self.check_stall(now, deferred);
            self.check_chunks(now, deferred);
        }
    }
}
