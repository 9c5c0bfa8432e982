//! Endpoints: looked up, opened, detached, retried and forgotten.

use super::managed_endpoint::{AfterFailure, ManagedEndpoint, ManagedState};
use super::notice::EndpointNotice;
use super::pool::Holder;
use super::service_url::broker_host;
use super::{Supervisor, Timer};
use crate::error::{RetryPolicy, ServerCode};
use crate::machine::connection::error::RequestError;
use crate::machine::control::{Attempt, BrokerKey, ConnectionId, SessionCommand, closed_by_broker};
use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::endpoint::machine::AttachRoute;
use crate::machine::endpoint::outbox::Response;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::{Lookup, LookupStep, broker_key};
use crate::machine::{Deferred, EndpointId, EndpointRef, Now};

impl Supervisor {
    /// A new endpoint, which stays attached until it is finished.
    pub(super) fn open(&mut self, endpoint: EndpointRef, now: Now, deferred: &mut Deferred) {
        let id = endpoint.id();
        if let Some(error) = self.closed() {
            endpoint.fail(error, deferred);
            return;
        }
        if self.endpoints.contains_key(&id) {
            debug_assert!(false, "{id} is opened once");
            return;
        }
        let mut managed = ManagedEndpoint::new(endpoint);
        // The only deadline of a machine that was never attached is the end of its creation.
        let first = managed.endpoint.expire(&self.ready, now, deferred).and_then(|expired| expired.next);
        if let Some(deadline) = first.filter(|_| !managed.is_established) {
            managed.set_creation_deadline(deadline.at, &self.config);
        }
        self.endpoints.insert(id, Box::new(managed));
        self.attach(id, now);
        self.poll_endpoint(id, now, deferred);
    }

    /// Starts a new way to a broker: by LOOKUP, or straight to the service URL.
    pub(super) fn attach(&mut self, id: EndpointId, now: Now) {
        let Some(managed) = self.endpoints.get_mut(&id) else { return };
        let key = managed.hosts.as_deref().unwrap_or(&self.hosts).key();
        let key = match managed.route {
            AttachRoute::AnyBroker => {
                managed.state = ManagedState::Connecting;
                BrokerKey { index: connection_index(id, self.config.connections_per_broker), ..key }
            }
            AttachRoute::TopicOwner => {
                let deadline = now.at.checked_add(self.config.operation_timeout);
                let lookup = Box::new(Lookup::new(key.clone(), deadline));
                managed.state = ManagedState::LookingUp { lookup, request: None };
                key
            }
        };
        self.timers.set(Timer::Retry(Holder::Endpoint(id)), None);
        self.pool.join(&key, Holder::Endpoint(id), now);
    }

    /// The endpoint has a slot on a connection that is up.
    pub(super) fn on_endpoint_slot(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let holder = Holder::Endpoint(id);
        let Some(managed) = self.endpoints.get_mut(&id) else {
            self.pool.leave(holder, now);
            return;
        };
        match &mut managed.state {
            ManagedState::LookingUp { lookup, request } => {
                let command = lookup.command(&managed.subject, self.config.listener_name.as_deref());
                *request = Some(self.requests.send(connection, holder, command, &mut self.pool));
                let topic = managed.subject.clone();
                self.notice(id, topic, EndpointNotice::LookupSent);
            }
            ManagedState::Connecting => {
                let place = managed.hosts.as_deref().unwrap_or(&self.hosts).place();
                if managed.place.replace(place).is_some_and(|before| before != place) {
                    managed.endpoint.on_cluster_changed(deferred);
                }
                let attempt = managed.open();
                let (endpoint, topic) = (managed.endpoint.clone(), managed.subject.clone());
                self.pool.command(connection, SessionCommand::Open(endpoint, attempt));
                if let Some(broker) = self.pool.address(connection).cloned() {
                    self.notice(id, topic, EndpointNotice::Opening { broker });
                }
            }
            ManagedState::Opening | ManagedState::Attached | ManagedState::BackingOff => {
                unreachable!("only a queued holder gets a slot")
            }
        }
    }

    pub(super) fn on_looked_up(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        response: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(managed) = self.endpoints.get_mut(&id) else { return };
        let ManagedState::LookingUp { lookup, request } = &mut managed.state else { return };
        *request = None;
        let step = lookup.on_response(response, self.config.lookup_redirects_max, now);
        if let LookupStep::Found(_) = &step {
            managed.state = ManagedState::Connecting;
        }
        if let LookupStep::Found(_) | LookupStep::Redirected(_) = &step {
            let topic = managed.subject.clone();
            self.notice(id, topic, EndpointNotice::LookedUp { is_redirect: matches!(step, LookupStep::Redirected(_)) });
        }
        self.record_lookup(connection, step.failure(), now);
        match step {
            LookupStep::Found(key) => {
                let index = connection_index(id, self.config.connections_per_broker);
                self.pool.join(&BrokerKey { index, ..key }, Holder::Endpoint(id), now);
            }
            LookupStep::Redirected(key) => self.pool.join(&key, Holder::Endpoint(id), now),
            LookupStep::Failed(failure) => {
                let failure = self.at_connection(connection, failure);
                self.endpoint_failed(id, failure, now, deferred);
            }
        }
    }

    /// The endpoint an event is about, if it is of the present attempt on the present connection.
    pub(super) fn current(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
    ) -> Option<&mut ManagedEndpoint> {
        if self.pool.connection_of(Holder::Endpoint(id)) != Some(connection) {
            return None;
        }
        let managed = self.endpoints.get_mut(&id)?;
        (managed.attempt == attempt && managed.is_with_session()).then_some(managed)
    }

    pub(super) fn on_opened(&mut self, connection: ConnectionId, id: EndpointId, attempt: Attempt) {
        if let Some(managed) = self.current(connection, id, attempt) {
            let (topic, attempt) = (managed.subject.clone(), managed.next_attempt());
            managed.on_opened();
            if let Some(broker) = self.pool.address(connection).cloned() {
                self.notice(id, topic, EndpointNotice::Attached { broker, attempt });
            }
            self.timers.set(Timer::Endpoint(id), None);
            self.pool.on_attached(Holder::Endpoint(id));
        }
    }

    pub(super) fn on_open_failed(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
        error: RequestError,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let is_retired = self.is_retired(connection);
        let Some(managed) = self.current(connection, id, attempt) else { return };
        let failure = Failure::of_request(error, managed.endpoint.open_description());
        let failure = self.at_connection(connection, failure);
        if is_retired {
            return self.reattach(id, &failure.error, now, deferred);
        }
        self.endpoint_failed(id, failure, now, deferred);
        self.poll_endpoint(id, now, deferred);
    }

    /// The broker closed it, or it asked to attach afresh. Where the broker named another one (`url`), that one is tried
    /// at once; else the endpoint backs off before the next lookup.
    pub(super) fn on_detached(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
        url: Option<String>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let holder = Holder::Endpoint(id);
        let is_retired = self.is_retired(connection);
        let Some(managed) = self.current(connection, id, attempt) else { return };
        if is_retired {
            return self.reattach(id, &closed_by_broker(), now, deferred);
        }
        // The address is good for one try, and only for an endpoint that was attached here: two brokers that name each
        // other must not keep it going between them without a pause.
        let was_attached = matches!(managed.state, ManagedState::Attached);
        let named = url.filter(|_| was_attached).zip(self.pool.key(connection)).and_then(|(url, here)| {
            let proxied = here.logical != here.physical;
            let broker = broker_host(&url, here.tls, proxied).ok()?;
            Some(broker_key(broker, here, proxied))
        });
        if let (Some(key), Some(managed)) = (named, self.endpoints.get_mut(&id)) {
            managed.state = ManagedState::Connecting;
            let topic = managed.subject.clone();
            self.notice(id, topic, EndpointNotice::Detached { error: closed_by_broker() });
            self.pool.join(&key, holder, now);
        } else {
            self.pool.leave(holder, now);
            if let Some(managed) = self.endpoints.get_mut(&id) {
                if let AfterFailure::RetryAt(at) = managed.back_off(&self.config, &mut self.random, now) {
                    let report = managed.report_failure(&closed_by_broker(), at, now, deferred);
                    let topic = managed.subject.clone();
                    self.notice(id, topic, report);
                    self.set_retry(holder, at);
                }
            }
        }
        self.poll_endpoint(id, now, deferred);
    }

    /// A step failed, or the connection was lost.
    pub(super) fn endpoint_failed(&mut self, id: EndpointId, failure: Failure, now: Now, deferred: &mut Deferred) {
        let holder = Holder::Endpoint(id);
        let Some(managed) = self.endpoints.get_mut(&id) else { return };
        if let ManagedState::LookingUp { request: Some(request), .. } = &managed.state {
            self.requests.forget(*request);
        }
        self.pool.leave(holder, now);
        let error = failure.error.clone();
        let failure = if is_taken(&failure) && self.is_predecessor_closing(id) && !mutation!(NoWaitForPredecessor) {
            Failure { retry_policy: RetryPolicy::Retry, ..failure }
        } else {
            failure
        };
        let Some(managed) = self.endpoints.get_mut(&id) else { return };
        match managed.on_failure(failure, &self.config, &mut self.random, now) {
            AfterFailure::RetryAt(at) => {
                let report = managed.report_failure(&error, at, now, deferred);
                let topic = managed.subject.clone();
                self.notice(id, topic, report);
                self.set_retry(holder, at);
            }
            AfterFailure::Fail(error) => {
                managed.endpoint.fail(error.clone(), deferred);
                self.forget(id, now);
                if mutation!(PartEndsSiblings) {
                    let siblings = self.endpoints.values().filter(|other| other.subject.contains("-partition-"));
                    siblings.for_each(|sibling| sibling.endpoint.fail(error.clone(), deferred));
                }
            }
        }
    }

    /// Whether this client is still closing another endpoint of the same kind on the same topic: its name, or its place
    /// in the subscription, is about to be free. One that has finished, and is not forgotten yet, was closing when the broker
    /// refused. Locks the endpoints of that topic only.
    fn is_predecessor_closing(&self, id: EndpointId) -> bool {
        let Some(managed) = self.endpoints.get(&id) else { return false };
        let is_alike =
            |other: &EndpointId| *other != id && std::mem::discriminant(other) == std::mem::discriminant(&id);
        let mut others = self.endpoints.iter().filter(|(other, _)| is_alike(other));
        others.any(|(_, other)| {
            other.subject == managed.subject && (other.endpoint.is_closing() || other.endpoint.is_finished())
        })
    }

    /// Serves an endpoint that no session has: its deadlines, its close, its end.
    pub(super) fn poll_endpoint(&mut self, id: EndpointId, now: Now, deferred: &mut Deferred) {
        let Some(managed) = self.endpoints.get(&id) else { return };
        let is_late = managed.creation_deadline().is_some_and(|at| at <= now.at) && !managed.is_with_session();
        // Once it is closed nobody waits for its creation: the close has a deadline of its own.
        if is_late && !managed.endpoint.is_finished() && !managed.endpoint.is_closing() {
            // The machine would time out by itself, without the broker whose answer is still outstanding.
            let connection = self.pool.connection_of(Holder::Endpoint(id));
            let address = connection.and_then(|connection| self.pool.address(connection));
            managed.endpoint.fail(managed.creation_timed_out(self.config.operation_timeout, address), deferred);
        }
        match managed.endpoint.expire(&self.ready, now, deferred) {
            // A session is its owner, and reports its end.
            None => self.timers.set(Timer::Endpoint(id), None),
            Some(_) if managed.endpoint.is_finished() => self.forget(id, now),
            Some(expired) => self.timers.set(Timer::Endpoint(id), expired.next),
        }
    }

    /// Removes a finished endpoint from every table; later events about it are ignored.
    pub(super) fn forget(&mut self, id: EndpointId, now: Now) {
        let Some(managed) = self.endpoints.remove(&id) else { return };
        if let AttachState::Finished { error } = managed.endpoint.attach_state() {
            self.notice(id, managed.subject.clone(), EndpointNotice::Finished { error });
        }
        if let ManagedState::LookingUp { request: Some(request), .. } = managed.state {
            self.requests.forget(request);
        }
        self.timers.set(Timer::Endpoint(id), None);
        self.timers.set(Timer::Retry(Holder::Endpoint(id)), None);
        self.pool.leave(Holder::Endpoint(id), now);
    }
}

/// Which of the connections to a broker an endpoint uses.
fn connection_index(id: EndpointId, connections_per_broker: u32) -> u32 {
    let number = match id {
        EndpointId::Producer(id) => id.0,
        EndpointId::Consumer(id) => id.0,
        EndpointId::TopicList(id) => id.0,
    };
    u32::try_from(number % u64::from(connections_per_broker.max(1))).unwrap_or(0)
}

/// Refused because another producer has the name, or another consumer the subscription.
fn is_taken(failure: &Failure) -> bool {
    let code = failure.error.server_error().map(|refused| refused.code);
    matches!(code, Some(ServerCode::PRODUCER_BUSY | ServerCode::CONSUMER_BUSY))
}
