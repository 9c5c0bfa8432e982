//! Guests come and go: opening, the answers to what they asked, closing, the end of the connection.

use super::{Guest, Phase, Session};
use crate::machine::connection::Requester;
use crate::machine::connection::peer::RequestError;
use crate::machine::control::{Attempt, CloseReason, EndpointRef, SessionEvent};
use crate::machine::endpoint::outbox::{Op, Response};
use crate::machine::{Deferred, EndpointId, Now};
use crate::pb;
use crate::wire::command::Command;

impl Session {
    /// Makes the endpoint a guest *before* its PRODUCER or SUBSCRIBE is written, so that nothing the broker says
    /// of it goes astray.
    pub(super) fn open(&mut self, endpoint: EndpointRef, attempt: Attempt, now: Now, deferred: &mut Deferred) {
        let id = endpoint.id();
        self.former.remove(&id);
        endpoint.move_to(&self.ready, deferred);
        let request = match endpoint {
            EndpointRef::Producer(endpoint) => {
                let request = endpoint.with(deferred, |producer, _| Command::Producer(producer.open_request(now)));
                let EndpointId::Producer(key) = id else { return };
                self.producers.insert(key, Guest::new(endpoint, attempt));
                request
            }
            EndpointRef::Consumer(endpoint) => {
                let request =
                    endpoint.with(deferred, |consumer, _| Command::Subscribe(consumer.subscribe_request(now)));
                let EndpointId::Consumer(key) = id else { return };
                self.consumers.insert(key, Guest::new(endpoint, attempt));
                request
            }
        };
        self.connection.request(request, Requester::Open(id, attempt), now);
    }

    pub(super) fn handle_answer(&mut self, asker: Requester, result: Response, now: Now, deferred: &mut Deferred) {
        match asker {
            Requester::Supervisor(ask) => self.notices.push_back(SessionEvent::Answer(ask, result)),
            Requester::Open(id, attempt) => self.handle_open_answer(id, attempt, result, now, deferred),
            Requester::Endpoint(id, op) => self.handle_op_answer(id, op, result, now, deferred),
            Requester::Nobody => {}
        }
    }

    fn handle_open_answer(
        &mut self,
        id: EndpointId,
        attempt: Attempt,
        result: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let present = self.attempt_of(id);
        let (is_guest, wanted) = (present.is_some(), present == Some(attempt));
        match result {
            Ok(answer) if wanted => self.attached(id, attempt, &answer, now, deferred),
            // A later attempt has its own answer to come, and closing the id would close that one.
            Ok(_) if is_guest => {}
            // Nobody waits for it any more; without this the broker would keep a ghost.
            Ok(_) => self.close_at_broker(id, now),
            Err(error) => {
                if error == RequestError::TimedOut && (wanted || !is_guest) {
                    // The broker may still finish it: close first, then try again.
                    self.close_at_broker(id, now);
                }
                if wanted {
                    self.give_up(id, now, deferred, |attempt| SessionEvent::OpenFailed(id, attempt, error));
                }
            }
        }
    }

    fn handle_op_answer(&mut self, id: EndpointId, op: Op, result: Response, now: Now, deferred: &mut Deferred) {
        let Some(endpoint) = self.endpoint(id) else { return };
        match endpoint {
            EndpointRef::Producer(endpoint) => {
                endpoint.with(deferred, |producer, deferred| producer.on_response(op, result, now, deferred));
            }
            EndpointRef::Consumer(endpoint) => {
                endpoint.with(deferred, |consumer, deferred| consumer.on_answer(op, result, now, deferred));
            }
        }
        // An answer can finish the endpoint or let it write again: it gets a turn.
        self.give_turn(id);
    }

    fn attached(&mut self, id: EndpointId, attempt: Attempt, answer: &Command, now: Now, deferred: &mut Deferred) {
        let Some(peer) = self.connection.peer() else { return };
        match (id, answer) {
            (EndpointId::Producer(key), Command::ProducerSuccess(opened)) => {
                let Some(guest) = self.producers.get_mut(&key) else { return };
                guest.phase = Phase::Attached;
                guest.endpoint.with(deferred, |producer, deferred| producer.on_attached(opened, peer, now, deferred));
            }
            (EndpointId::Consumer(key), _) => {
                let Some(guest) = self.consumers.get_mut(&key) else { return };
                guest.phase = Phase::Attached;
                guest.endpoint.with(deferred, |consumer, deferred| consumer.on_attached(peer, now, deferred));
            }
            // `answer_of` lets only PRODUCER_SUCCESS answer PRODUCER.
            (EndpointId::Producer(_), _) => return,
        }
        self.give_turn(id);
        self.notices.push_back(SessionEvent::Opened(id, attempt));
    }

    /// Hands a guest back to the supervisor, detached, and says why.
    pub(super) fn give_up(
        &mut self,
        id: EndpointId,
        now: Now,
        deferred: &mut Deferred,
        notice: impl FnOnce(Attempt) -> SessionEvent,
    ) {
        let Some((endpoint, attempt)) = self.remove(id) else { return };
        endpoint.move_to(&self.supervisor, deferred);
        endpoint.detach(now, deferred);
        self.former.retain(|_, former| !former.is_finished());
        self.former.insert(id, endpoint);
        self.notices.push_back(notice(attempt));
    }

    /// The endpoint is over. One that was never told so by the broker is closed there.
    pub(super) fn finish(&mut self, id: EndpointId, now: Now) {
        let opening = match id {
            EndpointId::Producer(key) => self.producers.get(&key).map(|guest| guest.phase),
            EndpointId::Consumer(key) => self.consumers.get(&key).map(|guest| guest.phase),
        };
        let closed_there = self.endpoint(id).is_some_and(|endpoint| endpoint.is_closed_at_broker());
        self.remove(id);
        self.former.remove(&id);
        // While it is opening, the late success is answered with the close.
        if opening == Some(Phase::Attached) && !closed_there {
            self.close_at_broker(id, now);
        }
        self.notices.push_back(SessionEvent::Finished(id));
    }

    fn close_at_broker(&mut self, id: EndpointId, now: Now) {
        let command = match id {
            EndpointId::Producer(id) => {
                Command::CloseProducer(pb::CommandCloseProducer { producer_id: id.0, ..Default::default() })
            }
            EndpointId::Consumer(id) => {
                Command::CloseConsumer(pb::CommandCloseConsumer { consumer_id: id.0, ..Default::default() })
            }
        };
        self.connection.request(command, Requester::Nobody, now);
    }

    fn remove(&mut self, id: EndpointId) -> Option<(EndpointRef, Attempt)> {
        self.deadlines.set(id, None);
        match id {
            EndpointId::Producer(id) => {
                self.producers.remove(&id).map(|guest| (EndpointRef::Producer(guest.endpoint), guest.attempt))
            }
            EndpointId::Consumer(id) => {
                self.consumers.remove(&id).map(|guest| (EndpointRef::Consumer(guest.endpoint), guest.attempt))
            }
        }
    }

    /// A guest, or a former one.
    fn endpoint(&self, id: EndpointId) -> Option<EndpointRef> {
        let guest = match id {
            EndpointId::Producer(id) => {
                self.producers.get(&id).map(|guest| EndpointRef::Producer(guest.endpoint.clone()))
            }
            EndpointId::Consumer(id) => {
                self.consumers.get(&id).map(|guest| EndpointRef::Consumer(guest.endpoint.clone()))
            }
        };
        guest.or_else(|| self.former.get(&id).cloned())
    }

    fn attempt_of(&self, id: EndpointId) -> Option<Attempt> {
        match id {
            EndpointId::Producer(id) => self.producers.get(&id).map(|guest| guest.attempt),
            EndpointId::Consumer(id) => self.consumers.get(&id).map(|guest| guest.attempt),
        }
    }

    /// The connection is over: who waits is told, guests go to the supervisor, and the last notices come out.
    pub fn end(mut self, reason: CloseReason, now: Now, deferred: &mut Deferred) -> Vec<SessionEvent> {
        for asker in self.connection.take_pending() {
            // Guests on their way in are told by `Ended` itself.
            if !matches!(asker, Requester::Open(..)) {
                self.handle_answer(asker, Err(RequestError::Disconnected), now, deferred);
            }
        }
        let producers =
            std::mem::take(&mut self.producers).into_values().map(|guest| EndpointRef::Producer(guest.endpoint));
        let consumers =
            std::mem::take(&mut self.consumers).into_values().map(|guest| EndpointRef::Consumer(guest.endpoint));
        let mut guests: Vec<EndpointRef> = producers.chain(consumers).collect();
        guests.sort_unstable_by_key(EndpointRef::id);
        for endpoint in guests {
            endpoint.move_to(&self.supervisor, deferred);
            endpoint.detach(now, deferred);
        }
        let mut notices: Vec<_> = self.notices.drain(..).collect();
        notices.push(SessionEvent::Ended(reason));
        notices
    }
}
