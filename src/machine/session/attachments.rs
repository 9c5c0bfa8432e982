//! Endpoints attach and detach: opening, responses to their requests, closing, the end of the connection.

use super::inbound::before_connected;
use super::{Attachment, Phase, ScheduleState, Session};
use crate::error::Error;
use crate::machine::connection::Requester;
use crate::machine::connection::error::RequestError;
use crate::machine::control::{Attempt, CloseReason, SessionEvent};
use crate::machine::endpoint::outbox::{Op, Response};
use crate::machine::{Deferred, EndpointId, EndpointRef, Now};
use crate::wire::command::Command;

/// Below this many detached endpoints none is looked for that has finished elsewhere.
pub(super) const DETACHED_PRUNE_LEN_MIN: usize = 16;

impl Session {
    /// Attaches the endpoint *before* its open request is written, so that nothing the broker sends about it is lost.
    pub(super) fn open(&mut self, endpoint: EndpointRef, attempt: Attempt, now: Now, deferred: &mut Deferred) {
        let id = endpoint.id();
        self.detached.remove(&id);
        endpoint.move_to(&self.ready, deferred);
        let request = match self.connection.peer() {
            Some(peer) => endpoint.open_request(peer, now),
            // The supervisor opens endpoints on connections that are up.
            None => Err(RequestError::Disconnected),
        };
        self.routes.open(endpoint.clone().data_route());
        let schedule = ScheduleState::default();
        self.attachments.insert(id, Attachment { endpoint, attempt, phase: Phase::Opening, schedule });
        match request {
            Ok(request) => self.request(request, Requester::Open(id, attempt), now, deferred),
            Err(error) => self.detach(id, None, now, deferred, |attempt| SessionEvent::OpenFailed(id, attempt, error)),
        }
    }

    /// Asks the broker. What cannot be sent is answered at once.
    pub(super) fn request(&mut self, command: Command, requester: Requester, now: Now, deferred: &mut Deferred) {
        if let Err(error) = self.connection.request(command, requester, now) {
            self.handle_response(requester, Err(error), now, deferred);
        }
    }

    pub(super) fn handle_response(
        &mut self,
        requester: Requester,
        response: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        match requester {
            Requester::Supervisor(token) => self.events.push_back(SessionEvent::Response(token, response)),
            Requester::Open(id, attempt) => self.handle_open_response(id, attempt, response, now, deferred),
            Requester::Endpoint(id, op) => self.handle_op_response(id, op, response, now, deferred),
            Requester::Unattended => {}
        }
    }

    /// The response to an open request, by whose it is:
    ///
    /// | response | of the present attempt | of an earlier one, endpoint attached or opening | endpoint not here |
    /// | --- | --- | --- | --- |
    /// | success | attached | nothing: the present one has its own answer, and a close would close that | closed at the broker |
    /// | refused | detached, reported | nothing | nothing |
    /// | no answer | closed at the broker, detached, reported | nothing | closed at the broker |
    fn handle_open_response(
        &mut self,
        id: EndpointId,
        attempt: Attempt,
        response: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let present = self.attachments.get(&id).map(|attachment| attachment.attempt);
        let (is_here, is_present) = (present.is_some(), present == Some(attempt));
        match response {
            Ok(response) if is_present => self.on_attached(id, &response, now, deferred),
            Ok(_) if is_here => {}
            // Else the broker would keep an endpoint that this client has given up.
            Ok(_) => self.close_at_broker(id, now),
            Err(error) => {
                if error == RequestError::TimedOut && (is_present || !is_here) {
                    // The broker may still complete it: close first, then try again.
                    self.close_at_broker(id, now);
                }
                if is_present {
                    self.detach(id, None, now, deferred, |attempt| SessionEvent::OpenFailed(id, attempt, error));
                }
            }
        }
    }

    fn handle_op_response(&mut self, id: EndpointId, op: Op, response: Response, now: Now, deferred: &mut Deferred) {
        let attached = self.attachments.get(&id).map(|attachment| &attachment.endpoint);
        let Some(endpoint) = attached.or_else(|| self.detached.get(&id)) else { return };
        endpoint.on_response(op, response, now, deferred);
        // It can have finished the endpoint or let it write again.
        self.schedule(id);
    }

    fn on_attached(&mut self, id: EndpointId, response: &Command, now: Now, deferred: &mut Deferred) {
        let (Some(peer), Some(attachment)) = (self.connection.peer(), self.attachments.get_mut(&id)) else { return };
        attachment.phase = Phase::Attached;
        attachment.endpoint.on_attached(response, peer, now, deferred);
        self.routes.attach(attachment.endpoint.clone().data_route());
        let attempt = attachment.attempt;
        // The time limit of its opening is over.
        self.expire(id, now, deferred);
        self.schedule(id);
        self.events.push_back(SessionEvent::Opened(id, attempt));
    }

    /// Returns an endpoint to the supervisor, detached, and reports why. `cause` is why its attach is over, if it was
    /// attached.
    pub(super) fn detach(
        &mut self,
        id: EndpointId,
        cause: Option<Error>,
        now: Now,
        deferred: &mut Deferred,
        event: impl FnOnce(Attempt) -> SessionEvent,
    ) {
        let Some(Attachment { endpoint, attempt, .. }) = self.remove(id) else { return };
        endpoint.move_to(&self.supervisor, deferred);
        let cause = cause.map(|error| self.at_peer(error));
        endpoint.on_detached(cause.as_ref(), now, deferred);
        if self.detached.len() >= self.detached_prune_len {
            self.detached.retain(|_, endpoint| !endpoint.is_finished());
            self.detached_prune_len = DETACHED_PRUNE_LEN_MIN + 2 * self.detached.len();
        }
        self.detached.insert(id, endpoint);
        self.events.push_back(event(attempt));
    }

    fn at_peer(&self, error: Error) -> Error {
        match self.connection.peer() {
            Some(peer) => error.with_address(&peer.address),
            None => error,
        }
    }

    /// Removes a finished endpoint, and closes it at the broker unless that is done.
    pub(super) fn finish(&mut self, id: EndpointId, now: Now) {
        let Some(Attachment { endpoint, phase, .. }) = self.remove(id) else { return };
        // One that is still opening is closed when its late success arrives.
        if phase == Phase::Attached && !endpoint.is_closed_at_broker() {
            self.close_at_broker(id, now);
        }
        self.events.push_back(SessionEvent::Finished(id));
    }

    pub(super) fn close_at_broker(&mut self, id: EndpointId, now: Now) {
        // It holds two numbers: no broker's limit is below that.
        let _sent = self.connection.request(id.close_request(), Requester::Unattended, now);
    }

    fn remove(&mut self, id: EndpointId) -> Option<Attachment> {
        self.deadlines.set(id, None);
        self.routes.remove(id);
        self.attachments.remove(&id)
    }

    /// Ends the session: every request that waits fails, every endpoint goes to the supervisor. Gives the last events.
    pub fn end(mut self, reason: CloseReason, now: Now, deferred: &mut Deferred) -> Vec<SessionEvent> {
        for requester in self.connection.take_pending() {
            // Endpoints that are opening learn it from `Ended`.
            if !matches!(requester, Requester::Open(..)) {
                self.handle_response(requester, Err(RequestError::Disconnected), now, deferred);
            }
        }
        let mut attached: Vec<_> = std::mem::take(&mut self.attachments).into_iter().collect();
        attached.sort_unstable_by_key(|(id, _)| *id);
        // Without a peer nothing was attached.
        let cause = self.connection.peer().map(|peer| reason.to_error(&peer.address));
        for (_, Attachment { endpoint, .. }) in attached {
            endpoint.move_to(&self.supervisor, deferred);
            endpoint.on_detached(cause.as_ref(), now, deferred);
        }
        let mut events: Vec<_> = self.events.drain(..).collect();
        let reason = before_connected(reason, self.connection.peer().is_some(), self.connection.config().tls);
        events.push(SessionEvent::Ended(reason));
        events
    }
}
