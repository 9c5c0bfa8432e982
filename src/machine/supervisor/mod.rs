//! The control plane of a client: credentials, dials, lookups, opens and queries, and how long each is retried.
//!
//! It has every endpoint of the client that is not finished, and is the owner of those that no session has. It reads no
//! socket and no clock: [`Input`]s come in, [`Action`]s go out to the runtime that carries them out. After every input the
//! caller drains [`Supervisor::poll_action`] and asks [`Supervisor::poll_deadline`].
//!
//! Late events change nothing: each names its [`ConnectionId`], and its attempt or request.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | inputs, timers, slots, the close of the client |
//! | `endpoints.rs`, `managed_endpoint.rs` | endpoints: lookup, open, detach, retry |
//! | `query.rs`, `query_driver.rs` | what is asked of the cluster and not of an endpoint, and how it is carried out |
//! | `requests.rs` | the requests of the supervisor that have no response yet |
//! | `pool/` | connections: credentials, dial, cooldown, slots, idle time |
//! | `lookup.rs`, `service_url.rs`, `service_hosts.rs` | LOOKUP and its redirects; the service URL and its hosts |
//! | `clusters.rs` | the client goes to another cluster, or a topic does |
//! | `failure.rs`, `backoff.rs` | what is retried, and when |
//! | `notice.rs`, `connection_states.rs` | what it tells about; the connections as the application sees them |
//! | `checks.rs` | what holds between two inputs, in debug builds |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use backoff::Backoff;
use connection_states::ConnectionStates;
use failure::Failure;
use managed_endpoint::ManagedEndpoint;
use notice::{EndpointNotice, Notice};
use pool::{ConnectionPool, Holder, Lost, PoolConfig};
use query_driver::ManagedQuery;
use requests::Requests;
use service_hosts::{Place, Quarantine, ServiceHosts};
use service_url::ServiceUrl;

use super::control::{Action, BrokerKey, ClusterId, ConnectionId, Input, RequestToken, SessionEvent};
use super::deadlines::Deadlines;
use super::endpoint::outbox::Response;
use super::{Deadline, Deferred, EndpointId, Now, ReadyList, ReplyTo};
use crate::error::{Error, ErrorKind};
use crate::splitmix::SplitMix64;
use crate::wall_time;

mod backoff;
mod clusters;
pub mod connection_states;
mod endpoints;
mod failure;
mod lookup;
mod managed_endpoint;
pub mod notice;
mod pool;
pub mod query;
mod query_driver;
mod requests;
pub mod service_hosts;
pub mod service_url;

/// The first wait of a back-off, unless it is set.
pub(crate) const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// Where a client begins.
const FIRST_PLACE: Place = Place { number: 0, cluster: ClusterId(0) };

/// Configuration of the supervisor.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SupervisorConfig {
    /// The service URL.
    pub service_url: ServiceUrl,
    /// `CommandLookupTopic.advertised_listener_name`: the listener whose address a broker names. Unset by default.
    pub listener_name: Option<String>,
    /// How long a query, all redirects of one lookup, or the close of the client may take. Default 30 s.
    pub operation_timeout: Duration,
    /// Redirects of one lookup. Default 20.
    pub lookup_redirects_max: u32,
    /// The first wait after a failure. Default 100 ms.
    pub initial_backoff_interval: Duration,
    /// The longest wait after failures in a row. Default 60 s.
    pub max_backoff_interval: Duration,
    /// Endpoints that look up or open on one connection at the same time; the others wait for a slot. Default 128.
    pub opens_in_flight_max: usize,
    /// How long a connection without holders is kept. Default 60 s.
    pub idle_connection_max: Duration,
    /// How many connections to one broker its endpoints are spread over. Default 1.
    pub connections_per_broker: u32,
    /// For how long a host of the service URL that has failed is set aside. Default: a minute, up to a day.
    pub quarantine: Quarantine,
    /// Seeds the jitter of the waits, and the choice of the first service host.
    pub seed: u64,
}

impl SupervisorConfig {
    /// The defaults for a service URL.
    pub fn new(service_url: ServiceUrl, seed: u64) -> Self {
        Self {
            service_url,
            listener_name: None,
            operation_timeout: Duration::from_secs(30),
            lookup_redirects_max: 20,
            initial_backoff_interval: INITIAL_BACKOFF,
            max_backoff_interval: Duration::from_secs(60),
            opens_in_flight_max: 128,
            idle_connection_max: Duration::from_secs(60),
            connections_per_broker: 1,
            quarantine: Quarantine::default(),
            seed,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.initial_backoff_interval, self.max_backoff_interval)
    }
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// The endpoint's own next deadline.
    Endpoint(EndpointId),
    /// The end of a back-off.
    Retry(Holder),
    /// The time limit of a query.
    QueryTimeout(u64),
    /// The time limit of the close of the client.
    CloseTimeout,
}

/// A close of the client that was asked for.
#[derive(Debug)]
struct ClientClose {
    /// Bounded by the tasks that wait for the close.
    replies: Vec<ReplyTo<()>>,
    error: Option<Error>,
}

/// The control plane of one client.
#[derive(Debug)]
pub struct Supervisor {
    config: SupervisorConfig,
    ready: Arc<ReadyList>,
    hosts: ServiceHosts,
    next_place: u32,
    pool: ConnectionPool,
    random: SplitMix64,
    /// Every endpoint that is not finished, as the application made them. In boxes, because the nodes of the map are half
    /// empty where ids only grow.
    endpoints: BTreeMap<EndpointId, Box<ManagedEndpoint>>,
    /// One for each call of the application that waits.
    queries: BTreeMap<u64, ManagedQuery>,
    /// At most one for each endpoint and query.
    requests: Requests,
    /// At most two for each endpoint and query.
    timers: Deadlines<Timer>,
    closing: Option<ClientClose>,
    next_query: u64,
    connection_states: Arc<ConnectionStates>,
    /// What has happened since the last input. Emptied after each.
    notices: Vec<Notice>,
    /// What [`Self::take_notices`] has not collected yet; `None` if nobody does. Bounded by the caller, who collects
    /// after every input.
    kept_notices: Option<Vec<Notice>>,
    #[cfg(debug_assertions)]
    checks: checks::Checks,
}

impl Supervisor {
    /// A supervisor without endpoints. `ready` is its own list: new endpoints are made with it as their owner, and
    /// sessions move endpoints back to it.
    pub fn new(config: SupervisorConfig, ready: Arc<ReadyList>) -> Self {
        let pool = ConnectionPool::new(PoolConfig {
            opens_in_flight_max: config.opens_in_flight_max,
            idle_connection_max: config.idle_connection_max,
            initial_backoff_interval: config.initial_backoff_interval,
        });
        let mut random = SplitMix64::new(config.seed);
        Self {
            ready,
            hosts: ServiceHosts::new(config.service_url.clone(), FIRST_PLACE, config.quarantine, random.next()),
            next_place: FIRST_PLACE.number + 1,
            pool,
            random,
            endpoints: BTreeMap::new(),
            queries: BTreeMap::new(),
            requests: Requests::default(),
            timers: Deadlines::default(),
            closing: None,
            next_query: 0,
            connection_states: ConnectionStates::new(config.service_url.to_string().into()),
            notices: Vec::new(),
            kept_notices: None,
            config,
            #[cfg(debug_assertions)]
            checks: checks::Checks::default(),
        }
    }

    /// The seed of its random choices.
    #[cfg(feature = "client")]
    pub(crate) fn seed(&self) -> u64 {
        self.config.seed
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now, deferred: &mut Deferred) {
        match input {
            Input::Open(endpoint) => self.open(endpoint, now, deferred),
            Input::Query(query) => self.query(query, now, deferred),
            Input::Credentials(connection, credentials) => {
                if let Some(lost) = self.pool.on_credentials(connection, credentials) {
                    self.on_lost(lost, now, deferred);
                }
            }
            Input::Session(connection, event) => self.on_session_event(connection, event, now, deferred),
            Input::SwitchCluster(cluster, url) => self.switch_cluster(cluster, url, now, deferred),
            Input::CloseClient(reply) => self.close(reply, now, deferred),
        }
        self.advance(now, deferred);
    }

    /// Polls the endpoints without a session that have something to do: a close, an earlier deadline, an end. `waker` is
    /// registered with the list, to be woken when there are more.
    pub fn handle_ready(&mut self, waker: Option<&Waker>, now: Now, deferred: &mut Deferred) {
        loop {
            let mut ids = Vec::new();
            self.ready.take(&mut ids, waker);
            if ids.is_empty() {
                break;
            }
            for id in ids {
                self.poll_endpoint(id, now, deferred);
            }
        }
        self.advance(now, deferred);
    }

    /// Notifies every endpoint for the next [`handle_ready`](Self::handle_ready): one that then does something had missed
    /// its notification.
    #[cfg(feature = "sim")]
    pub(crate) fn notify_all(&mut self) {
        for id in self.endpoints.keys() {
            drop(self.ready.notify(*id));
        }
    }

    /// The next action to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.pool.poll_action()
    }

    /// The states of its connections, which it keeps up to date.
    #[cfg(feature = "client")]
    pub(crate) fn connection_states(&self) -> &Arc<ConnectionStates> {
        &self.connection_states
    }

    /// Keeps what happens from now on for [`Self::take_notices`].
    pub fn keep_notices(&mut self) {
        self.kept_notices.get_or_insert_default();
    }

    /// What has happened since the last call, in its order. Empty unless [`Self::keep_notices`] was called.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.kept_notices.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn notice(&mut self, endpoint: EndpointId, topic: Arc<str>, event: EndpointNotice) {
        // What happened to connections until now came first.
        self.pool.take_notices(&mut self.notices);
        self.notices.push(Notice::Endpoint { endpoint, topic, event });
    }

    /// Passes on what has happened.
    fn publish_notices(&mut self, now: Now, deferred: &mut Deferred) {
        self.pool.take_notices(&mut self.notices);
        for notice in self.notices.drain(..) {
            match &notice {
                Notice::Connection { connection, broker, event } => {
                    let since = wall_time::from_ms(now.wall_ms);
                    self.connection_states.on_notice(*connection, broker, event, since, deferred);
                }
                Notice::ClusterSwitched { service_url } => {
                    self.connection_states.on_switched(service_url.clone(), deferred);
                }
                Notice::Endpoint { .. } => {}
            }
            if let Some(kept) = &mut self.kept_notices {
                kept.push(notice);
            }
        }
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.timers.next(), self.pool.poll_deadline())
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        self.pool.handle_deadline(now);
        // All are taken before any is handled: a timer that is set to the past meanwhile waits for the next call.
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(now) {
            due.push(timer);
        }
        for timer in due {
            match timer {
                Timer::Endpoint(id) => self.poll_endpoint(id, now, deferred),
                Timer::Retry(Holder::Endpoint(id)) => self.attach(id, now),
                Timer::Retry(Holder::Query(number)) => self.start_query(number, now),
                Timer::QueryTimeout(number) => self.query_timed_out(number, now, deferred),
                Timer::CloseTimeout => self.close_timed_out(now, deferred),
            }
        }
        self.advance(now, deferred);
    }

    /// Whether a closed client has nothing left: no endpoint, no query, no connection, no action.
    pub fn is_drained(&self) -> bool {
        self.closing.is_some() && self.endpoints.is_empty() && self.queries.is_empty() && self.pool.is_empty()
    }

    /// Ends every endpoint with `error`: actions are not carried out any more.
    pub fn fail_all(&mut self, error: &Error, deferred: &mut Deferred) {
        for managed in std::mem::take(&mut self.endpoints).into_values() {
            managed.endpoint.fail(error.clone(), deferred);
        }
    }

    /// Gives the slots that are free, and ends a client that is closed and empty.
    fn advance(&mut self, now: Now, deferred: &mut Deferred) {
        while let Some((connection, holder)) = self.pool.next_slot() {
            match holder {
                Holder::Endpoint(id) => self.on_endpoint_slot(connection, id, now, deferred),
                Holder::Query(number) => self.on_query_slot(connection, number, now, deferred),
            }
        }
        if self.endpoints.is_empty() {
            if let Some(closing) = &mut self.closing {
                self.pool.disconnect_all();
                self.connection_states.close(deferred);
                self.timers.set(Timer::CloseTimeout, None);
                for reply in closing.replies.drain(..) {
                    reply.send(closing.error.clone().map_or(Ok(()), Err), deferred);
                }
            }
        }
        self.publish_notices(now, deferred);
        #[cfg(debug_assertions)]
        self.check();
    }

    fn closed(&self) -> Option<Error> {
        self.closing.is_some().then(|| Error::local(ErrorKind::Closed, "the client is closed"))
    }

    fn set_retry(&mut self, holder: Holder, at: Option<Instant>) {
        self.timers.set(Timer::Retry(holder), at.map(|at| Deadline::new(at, "back-off")));
    }

    fn on_session_event(&mut self, connection: ConnectionId, event: SessionEvent, now: Now, deferred: &mut Deferred) {
        match event {
            SessionEvent::Connected(peer) => {
                self.pool.on_up(connection, peer);
                if let Some(key) = self.pool.key(connection) {
                    self.hosts.succeeded(key);
                }
            }
            SessionEvent::Challenged(challenge) => self.pool.on_challenged(connection, challenge),
            SessionEvent::Opened(id, attempt) => self.on_opened(connection, id, attempt),
            SessionEvent::OpenFailed(id, attempt, error) => {
                self.on_open_failed(connection, id, attempt, error, now, deferred);
            }
            SessionEvent::Detached(id, attempt, url) => self.on_detached(connection, id, attempt, url, now, deferred),
            SessionEvent::Migrated(id, attempt, url) => self.on_migrated(connection, id, attempt, url, now, deferred),
            SessionEvent::Finished(id) => {
                if self.pool.connection_of(Holder::Endpoint(id)) == Some(connection) {
                    self.forget(id, now);
                }
            }
            SessionEvent::Response(token, response) => self.on_response(connection, token, response, now, deferred),
            SessionEvent::Ended(reason) => {
                if let Some(lost) = self.pool.on_ended(connection, &reason, &mut self.random, now) {
                    self.on_lost(lost, now, deferred);
                }
            }
        }
    }

    fn on_response(
        &mut self,
        connection: ConnectionId,
        token: RequestToken,
        response: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        match self.requests.take(connection, token) {
            Some(Holder::Endpoint(id)) => self.on_looked_up(connection, id, response, now, deferred),
            Some(Holder::Query(number)) => self.on_query_response(connection, number, response, now, deferred),
            None => {}
        }
    }

    /// Notes whether a lookup or query over this connection got an answer. A connection, and a service host, that fail
    /// too often are replaced.
    fn record_lookup(&mut self, connection: ConnectionId, failure: Option<&Failure>, now: Now) {
        let failed = failure.is_some_and(|failure| failure.counts_against_connection);
        if self.pool.on_lookup(connection, failed, &mut self.random, now) {
            if let Some(key) = self.pool.key(connection).cloned() {
                self.host_failed(&key, now);
            }
        }
    }

    /// A connection failed, which may be one to a service host.
    fn host_failed(&mut self, key: &BrokerKey, now: Now) {
        self.hosts.failed(key, &mut self.random, now);
        for managed in self.endpoints.values_mut() {
            if let Some(hosts) = &mut managed.hosts {
                hosts.failed(key, &mut self.random, now);
            }
        }
    }

    /// Names the broker in a failure.
    fn at_connection(&self, connection: ConnectionId, mut failure: Failure) -> Failure {
        if let Some(address) = self.pool.address(connection) {
            failure.error = failure.error.with_address(address);
        }
        failure
    }

    /// A connection has ended, or could not be made.
    fn on_lost(&mut self, lost: Lost, now: Now, deferred: &mut Deferred) {
        self.host_failed(&lost.key, now);
        let is_retired = lost.key.cluster != self.hosts.place().cluster;
        for holder in lost.holders {
            match holder {
                Holder::Endpoint(id) if is_retired => self.reattach(id, &lost.failure.error, now, deferred),
                Holder::Endpoint(id) => {
                    self.endpoint_failed(id, lost.failure.clone(), now, deferred);
                    self.poll_endpoint(id, now, deferred);
                }
                Holder::Query(number) => self.query_failed(number, lost.failure.clone(), now, deferred),
            }
        }
    }

    /// Closes every endpoint, then every connection; `reply` is answered when none is left, or when it takes too long.
    fn close(&mut self, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        if let Some(closing) = &mut self.closing {
            closing.replies.push(reply);
            return;
        }
        self.closing = Some(ClientClose { replies: vec![reply], error: None });
        if let Some(error) = self.closed() {
            self.fail_queries(&error, now, deferred);
        }
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            if let Some(managed) = self.endpoints.get(&id) {
                managed.endpoint.close(now, deferred);
            }
            self.poll_endpoint(id, now, deferred);
        }
        let end = Deadline::after(now, self.config.operation_timeout, "close of the client");
        self.timers.set(Timer::CloseTimeout, end);
    }

    fn close_timed_out(&mut self, now: Now, deferred: &mut Deferred) {
        let Some(closing) = &mut self.closing else { return };
        let late = self.endpoints.len();
        let first = self.endpoints.first_key_value();
        let first = first.map(|(id, managed)| format!(", the first of them {id} on {}", managed.subject));
        let after = self.config.operation_timeout;
        let text = format!(
            "timed out after {after:?} waiting for {late} producers and consumers to close{}",
            first.unwrap_or_default()
        );
        let error = Error::local(ErrorKind::TimedOut, text);
        closing.error = Some(error.clone());
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            if let Some(managed) = self.endpoints.get(&id) {
                managed.endpoint.fail(error.clone(), deferred);
            }
            self.forget(id, now);
        }
    }
}

impl Drop for Supervisor {
    /// Everything that waits gets an error, so that a runtime that goes away leaves no task waiting.
    fn drop(&mut self) {
        let error = Error::local(ErrorKind::Closed, "the client's runtime ended before the request completed");
        let mut deferred = Deferred::new();
        self.fail_all(&error, &mut deferred);
        self.connection_states.close(&mut deferred);
        // The reply of a query answers with an error when it is dropped.
    }
}

#[cfg(debug_assertions)]
pub mod checks;
#[cfg(test)]
mod tests;
