//! Carries queries out: over a connection to the service URL, or to the broker that owns a topic, until there is an
//! answer or no time is left.
//!
//! A query starts in [`Supervisor::start_query`] and gets the answering command in [`Supervisor::on_query_response`],
//! also where the connection is one to the REST interface
//! ([`Transport::Http`](crate::machine::control::Transport::Http)).

use super::backoff::Backoff;
use super::failure::Failure;
use super::lookup::{Lookup, LookupStep};
use super::managed_endpoint::timed_out;
use super::pool::Holder;
use super::query::PendingQuery;
use super::{Supervisor, Timer};
use crate::error::{Error, ErrorKind, RetryPolicy};
use crate::machine::connection::peer::PeerInfo;
use crate::machine::control::{ConnectionId, RequestToken};
use crate::machine::endpoint::outbox::Response;
use crate::machine::{Deadline, Deferred, Now};
use crate::wire::command::Command;

/// The state of a query.
///
/// ```text
///   only the owner of a topic can answer      any broker can answer
///             |                                      |
///             v           found                      v
///  +----> LookingUp -----------------------------> Asking -----> answered, or failed for good
///  |          |                                      |
///  |          v refused for now, no answer, connection lost, and every service host was tried
///  +----- BackingOff <-------------------------------+
///
///  any state ---- out of time, or the caller has gone ----> failed
/// ```
/// As long as there are service hosts that have not been tried, a lost connection leads to the next one without a pause.
#[derive(Debug)]
enum QueryState {
    LookingUp { lookup: Lookup, request: Option<RequestToken> },
    Asking { request: Option<RequestToken> },
    BackingOff,
}

/// One query in the supervisor's table.
#[derive(Debug)]
pub(super) struct ManagedQuery {
    query: PendingQuery,
    state: QueryState,
    /// Service hosts that were not tried since the last back-off, the present one included.
    hosts_left: usize,
    backoff: Backoff,
    last_error: Option<Error>,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterQueryFailure {
    /// Nobody waits for the result.
    Forget,
    /// The caller gets the error.
    Fail,
    /// It is tried at once with the next service host.
    NextHost,
    /// It is tried again after a pause.
    BackOff,
}

/// What follows a failure of which it is known whether it `ends` the query where no service host is left to try. The
/// first case that applies:
///
/// | the failure | then |
/// | --- | --- |
/// | the caller does not wait any more | `Forget` |
/// | is terminal: every host would say the same | `Fail` |
/// | there are service hosts that were not tried, and it is not about the credentials, which are the same for all | `NextHost` |
/// | `ends` the query | `Fail` |
/// | is any other | `BackOff` |
fn after_failure(failure: &Failure, is_abandoned: bool, ends: bool, hosts_left: usize) -> AfterQueryFailure {
    if is_abandoned {
        AfterQueryFailure::Forget
    } else if failure.retry_policy == RetryPolicy::Terminal {
        AfterQueryFailure::Fail
    } else if hosts_left > 0 && failure.error.kind() != ErrorKind::Authentication {
        AfterQueryFailure::NextHost
    } else if ends {
        AfterQueryFailure::Fail
    } else {
        AfterQueryFailure::BackOff
    }
}

impl ManagedQuery {
    /// The request on its way.
    fn request(&self) -> Option<RequestToken> {
        match &self.state {
            QueryState::LookingUp { request, .. } | QueryState::Asking { request } => *request,
            QueryState::BackingOff => None,
        }
    }

    /// What follows a failure. The first contact with a service URL ends also with a peer that does not speak the
    /// protocol: it is the wrong port.
    fn after_failure(&self, failure: &Failure) -> AfterQueryFailure {
        let is_wrong_peer = self.query.is_connect() && failure.error.kind() == ErrorKind::Protocol;
        let ends = failure.is_final(false) || is_wrong_peer;
        after_failure(failure, self.query.is_abandoned(), ends, self.hosts_left)
    }
}

impl Supervisor {
    /// Takes a query, with the operation timeout as its time limit.
    pub(super) fn query(&mut self, query: PendingQuery, now: Now, deferred: &mut Deferred) {
        if let Some(error) = self.closed() {
            query.fail(error, deferred);
            return;
        }
        self.next_query += 1;
        let number = self.next_query;
        let managed = ManagedQuery {
            query,
            state: QueryState::BackingOff,
            hosts_left: self.hosts.count(),
            backoff: self.config.backoff(),
            last_error: None,
        };
        self.queries.insert(number, managed);
        let end = Deadline::after(now, self.config.operation_timeout, "query");
        self.timers.set(Timer::QueryTimeout(number), end);
        self.start_query(number, now);
    }

    /// Starts the query over a connection to the service URL.
    pub(super) fn start_query(&mut self, number: u64, now: Now) {
        let Some(managed) = self.queries.get_mut(&number) else { return };
        let key = self.hosts.key();
        managed.state = match managed.query.owner_of() {
            Some(_) => {
                let deadline = now.at.checked_add(self.config.operation_timeout);
                QueryState::LookingUp { lookup: Lookup::new(key.clone(), deadline), request: None }
            }
            None => QueryState::Asking { request: None },
        };
        self.pool.join(&key, Holder::Query(number), now);
    }

    /// Every query starts anew: the service URL is another one.
    pub(super) fn restart_queries(&mut self, now: Now) {
        let numbers: Vec<u64> = self.queries.keys().copied().collect();
        for number in numbers {
            if let Some(managed) = self.queries.get_mut(&number) {
                if let Some(request) = managed.request() {
                    self.requests.forget(request);
                }
                managed.hosts_left = self.hosts.count();
                managed.backoff.reset();
            }
            self.timers.set(Timer::Retry(Holder::Query(number)), None);
            self.start_query(number, now);
        }
    }

    /// The query has a slot on a connection that is up.
    pub(super) fn on_query_slot(&mut self, connection: ConnectionId, number: u64, now: Now, deferred: &mut Deferred) {
        let holder = Holder::Query(number);
        let Some(managed) = self.queries.get_mut(&number).filter(|managed| !managed.query.is_abandoned()) else {
            self.forget_query(number, now);
            self.pool.leave(holder, now);
            return;
        };
        let (command, request) = match &mut managed.state {
            QueryState::LookingUp { lookup, request } => {
                let listener_name = self.config.listener_name.as_deref();
                let topic = managed.query.owner_of().cloned();
                (topic.map(|topic| lookup.command(&topic, listener_name)), request)
            }
            QueryState::Asking { request } => (managed.query.command().cloned(), request),
            QueryState::BackingOff => unreachable!("only a queued holder gets a slot"),
        };
        match command {
            Some(command) => *request = Some(self.requests.send(connection, holder, command, &mut self.pool)),
            // The handshake is the response.
            None => self.complete_query(connection, number, None, now, deferred),
        }
    }

    pub(super) fn on_query_response(
        &mut self,
        connection: ConnectionId,
        number: u64,
        response: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(managed) = self.queries.get_mut(&number) else { return };
        let failure = match &mut managed.state {
            QueryState::LookingUp { lookup, request } => {
                *request = None;
                let step = lookup.on_response(response, self.config.lookup_redirects_max, now);
                if let LookupStep::Found(_) = &step {
                    managed.state = QueryState::Asking { request: None };
                }
                self.record_lookup(connection, step.failure(), now);
                match step {
                    LookupStep::Found(key) | LookupStep::Redirected(key) => {
                        return self.pool.join(&key, Holder::Query(number), now);
                    }
                    LookupStep::Failed(failure) => failure,
                }
            }
            QueryState::Asking { request } => {
                *request = None;
                let failure = match response {
                    Ok(response) => {
                        self.record_lookup(connection, None, now);
                        return self.complete_query(connection, number, Some(*response), now, deferred);
                    }
                    Err(error) => Failure::of_request(error, managed.query.description()),
                };
                self.record_lookup(connection, Some(&failure), now);
                failure
            }
            QueryState::BackingOff => return,
        };
        let failure = self.at_connection(connection, failure);
        self.query_failed(number, failure, now, deferred);
    }

    fn complete_query(
        &mut self,
        connection: ConnectionId,
        number: u64,
        response: Option<Command>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(peer): Option<PeerInfo> = self.pool.peer(connection).cloned() else { return };
        if let Some(managed) = self.forget_query(number, now) {
            managed.query.complete(&peer, response, deferred);
        }
    }

    /// A request failed, or the connection was lost.
    pub(super) fn query_failed(&mut self, number: u64, failure: Failure, now: Now, deferred: &mut Deferred) {
        let holder = Holder::Query(number);
        let Some(managed) = self.queries.get_mut(&number) else { return };
        if let Some(request) = managed.request() {
            self.requests.forget(request);
        }
        managed.hosts_left = managed.hosts_left.saturating_sub(1);
        match managed.after_failure(&failure) {
            AfterQueryFailure::Forget => {
                self.forget_query(number, now);
            }
            AfterQueryFailure::Fail => {
                if let Some(managed) = self.forget_query(number, now) {
                    managed.query.fail(failure.error, deferred);
                }
            }
            AfterQueryFailure::NextHost => {
                managed.last_error = Some(failure.error);
                // A refusal or a time-out leaves the connection up, and its host the one in use.
                let connection = self.pool.connection_of(holder);
                if let Some(key) = connection.and_then(|connection| self.pool.key(connection)).cloned() {
                    self.host_failed(&key, now);
                }
                self.start_query(number, now);
            }
            AfterQueryFailure::BackOff => {
                managed.state = QueryState::BackingOff;
                managed.last_error = Some(failure.error);
                managed.hosts_left = self.hosts.count();
                let at = now.at.checked_add(managed.backoff.next(&mut self.random));
                self.pool.leave(holder, now);
                self.set_retry(holder, at);
            }
        }
    }

    pub(super) fn query_timed_out(&mut self, number: u64, now: Now, deferred: &mut Deferred) {
        let connection = self.pool.connection_of(Holder::Query(number));
        let address = connection.and_then(|connection| self.pool.address(connection)).cloned();
        let Some(managed) = self.forget_query(number, now) else { return };
        let after = self.config.operation_timeout;
        let error = timed_out(managed.query.description(), after, managed.last_error.as_ref(), address.as_ref());
        managed.query.fail(error, deferred);
    }

    /// Ends every query.
    pub(super) fn fail_queries(&mut self, error: &Error, now: Now, deferred: &mut Deferred) {
        let numbers: Vec<u64> = self.queries.keys().copied().collect();
        for number in numbers {
            if let Some(managed) = self.forget_query(number, now) {
                managed.query.fail(error.clone(), deferred);
            }
        }
    }

    fn forget_query(&mut self, number: u64, now: Now) -> Option<ManagedQuery> {
        let managed = self.queries.remove(&number)?;
        if let Some(request) = managed.request() {
            self.requests.forget(request);
        }
        self.timers.set(Timer::QueryTimeout(number), None);
        self.timers.set(Timer::Retry(Holder::Query(number)), None);
        self.pool.leave(Holder::Query(number), now);
        Some(managed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_query_has_its_consequence() {
        use AfterQueryFailure::{BackOff, Fail, Forget, NextHost};

        let failure = |kind, retry_policy| Failure { retry_policy, ..Failure::retriable(Error::local(kind, "failed")) };
        let passing = failure(ErrorKind::Connection, RetryPolicy::Retry);
        let lasting = failure(ErrorKind::Connection, RetryPolicy::RetryIfEstablished);
        let terminal = failure(ErrorKind::Connection, RetryPolicy::Terminal);
        let refused = failure(ErrorKind::Authentication, RetryPolicy::RetryIfEstablished);
        for (failure, is_abandoned, ends, hosts_left, expected) in [
            (&terminal, true, true, 1, Forget),
            (&passing, true, false, 0, Forget),
            (&terminal, false, true, 1, Fail),
            (&lasting, false, true, 1, NextHost),
            (&passing, false, false, 1, NextHost),
            (&refused, false, true, 1, Fail),
            (&lasting, false, true, 0, Fail),
            (&passing, false, false, 0, BackOff),
        ] {
            assert_eq!(after_failure(failure, is_abandoned, ends, hosts_left), expected, "{failure:?}, {hosts_left}");
        }
    }
}
