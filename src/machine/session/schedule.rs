//! The outbound schedule: round robin over the endpoints with something to do, a quantum each, and their deadlines.

use std::task::Waker;
use std::time::Instant;

use super::Session;
use crate::error::Error;
use crate::machine::connection::Requester;
use crate::machine::connection::error::RequestError;
use crate::machine::control::{Attempt, CloseReason};
use crate::machine::endpoint::outbox::{More, Outbox};
use crate::machine::{Deadline, Deferred, EndpointId, Now};
use crate::wire::tx::TxBuf;

/// What one endpoint may write each time it is served, so that a thousand of them share a connection evenly.
pub(super) const QUANTUM_BYTES: usize = 64 * 1024;

/// No endpoint is served while this much waits to be written.
const TX_BYTES_MAX: usize = 256 * 1024;

impl Session {
    /// Writes what is due: control commands first, then the scheduled endpoints one after the other, a quantum each. `waker` is
    /// registered with the ready list when no endpoint has anything to do.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub fn poll_transmit(
        &mut self,
        tx: &mut TxBuf,
        now: Now,
        waker: Option<&Waker>,
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        self.connection.poll_transmit(tx);
        self.schedule_notified(waker, false);
        let mut unserved = self.run_queue.len();
        while unserved > 0 && tx.len() < TX_BYTES_MAX {
            unserved -= 1;
            let Some((id, attempt)) = self.run_queue.pop_front() else { break };
            self.serve(id, attempt, tx, now, deferred)?;
        }
        // Requests of the endpoints that were just served.
        self.connection.poll_transmit(tx);
        if self.run_queue.is_empty() {
            // The waker is registered only where the ready list is found empty, and a call that writes nothing is not
            // followed by another one.
            self.schedule_notified(waker, false);
        } else if tx.len() >= TX_BYTES_MAX {
            self.expire_stalled(waker, now, deferred);
        }
        Ok(())
    }

    /// No endpoint is served while the peer takes no bytes. What was accepted meanwhile still has its deadline set, and
    /// the next notification of what cannot wait still wakes the driver.
    fn expire_stalled(&mut self, waker: Option<&Waker>, now: Now, deferred: &mut Deferred) {
        self.schedule_notified(waker, true);
        let queued: Vec<_> = self.run_queue.iter().map(|(id, _)| *id).collect();
        for id in queued {
            if self.attachments.get(&id).is_some_and(|attachment| attachment.schedule.needs_poll) {
                self.expire(id, now, deferred);
            }
        }
    }

    /// Moves notified endpoints into the run queue. `waker` is registered if there are none, or, if `all` are wanted, in
    /// any case.
    pub(super) fn schedule_notified(&mut self, waker: Option<&Waker>, all: bool) {
        let mut notified = std::mem::take(&mut self.notified);
        loop {
            self.ready.take(&mut notified, waker);
            if notified.is_empty() {
                break;
            }
            notified.drain(..).for_each(|id| self.schedule(id));
            // Ids of endpoints that have left add nothing to the run queue: then the list is taken again, so that the
            // waker gets registered.
            if !all && !self.run_queue.is_empty() {
                break;
            }
        }
        self.notified = notified;
    }

    /// Puts an endpoint at the end of the run queue, unless it is in it already.
    pub(super) fn schedule(&mut self, id: EndpointId) {
        if let Some(attachment) = self.attachments.get_mut(&id) {
            attachment.schedule.needs_poll = true;
            if !std::mem::replace(&mut attachment.schedule.is_queued, true) {
                self.run_queue.push_back((id, attachment.attempt));
            }
        }
    }

    /// Whether an endpoint waits to be served and `tx` has room for it: then [`poll_transmit`](Self::poll_transmit) has
    /// to be called again, since nothing else will wake the driver.
    pub fn wants_transmit(&self, tx: &TxBuf) -> bool {
        !self.run_queue.is_empty() && tx.len() < TX_BYTES_MAX
    }

    /// Schedules every endpoint: one that then does something had missed its notification.
    #[cfg(feature = "sim")]
    pub(crate) fn schedule_all(&mut self) {
        let mut all: Vec<_> = self.attachments.keys().copied().collect();
        all.sort_unstable();
        all.into_iter().for_each(|id| self.schedule(id));
    }

    /// Serves an endpoint: it writes up to a quantum.
    fn serve(
        &mut self,
        id: EndpointId,
        attempt: Attempt,
        tx: &mut TxBuf,
        now: Now,
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        let attachment = self.attachments.get_mut(&id).filter(|attachment| attachment.attempt == attempt);
        // It belongs to an earlier attempt: that one has left the run queue by being skipped here.
        let Some(attachment) = attachment else { return Ok(()) };
        attachment.schedule.is_queued = false;
        attachment.schedule.needs_poll = false;
        let mut out = Outbox::new(tx, QUANTUM_BYTES, &mut self.requests);
        let served = attachment.endpoint.serve(&self.ready, &mut out, now, deferred);
        let mut requests = std::mem::take(&mut self.requests);
        for (op, command) in requests.drain(..) {
            self.request(command, Requester::Endpoint(id, op), now, deferred);
        }
        self.requests = requests;
        // It has another owner by now.
        let Some(served) = served else { return Ok(()) };
        let Some(attachment) = self.attachments.get_mut(&id) else { return Ok(()) };
        if served.wants_reconnect {
            return Err(CloseReason::Io(Error::network("the broker takes messages and sends no receipts")));
        }
        if let Some(deadline) = served.deadline {
            // A deadline that moved later, or is gone, is noticed when the endpoint is next looked at.
            if attachment.schedule.next_poll_at.is_none_or(|at| deadline.at < at) {
                attachment.schedule.next_poll_at = Some(deadline.at);
                self.deadlines.set(id, served.deadline);
            }
        }
        if served.is_finished {
            self.finish(id, now);
        } else if served.more == More::Yes {
            attachment.schedule.is_queued = true;
            self.run_queue.push_back((id, attempt));
        }
        Ok(())
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.connection.poll_deadline(), self.deadlines.next())
    }

    /// The driver's timer wakes it at this time or before: until then it is not woken for a deadline that is no earlier.
    pub fn sleeps_until(&self, at: Instant) {
        self.ready.sleeps_until(at);
    }

    /// Does what is due; endpoints that are due are scheduled.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        self.connection.handle_deadline(now)?;
        while let Some(requester) = self.connection.poll_expired(now) {
            self.handle_response(requester, Err(RequestError::TimedOut), now, deferred);
        }
        while let Some(id) = self.deadlines.pop_due(now) {
            if self.expire(id, now, deferred) {
                self.schedule(id);
            }
        }
        Ok(())
    }

    /// Ends what is overdue, without serving it: a peer that does not read keeps endpoints from writing, and not
    /// from timing out. Returns whether anything was due.
    pub(super) fn expire(&mut self, id: EndpointId, now: Now, deferred: &mut Deferred) -> bool {
        let Some(attachment) = self.attachments.get_mut(&id) else { return false };
        let Some(expired) = attachment.endpoint.expire(&self.ready, now, deferred) else { return false };
        // What is still due waits until the endpoint is served; looking again before that would spin.
        let next = expired.next.filter(|deadline| !deadline.is_due(now));
        attachment.schedule.needs_poll = false;
        attachment.schedule.next_poll_at = next.map(|deadline| deadline.at);
        self.deadlines.set(id, next);
        expired.was_due
    }
}
