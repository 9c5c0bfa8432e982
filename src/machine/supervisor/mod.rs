//! The control plane of a client: who fetches credentials, who is dialed, looked up and opened, and who waits how long.
//!
//! It holds every endpoint of the client that is not finished, and serves those that no session has. It reads no
//! socket and no clock: [`Input`]s come in, [`Action`]s go out, and somebody else carries them out. After every input
//! the caller drains [`Supervisor::poll_action`] and asks [`Supervisor::poll_deadline`].
//!
//! News of an earlier attempt or another connection change nothing: each names its [`ConnectionId`], and its attempt or
//! question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Deadline, Deferred, EndpointId, Now, ReadyList, ReplyTo};
use crate::error::{Error, ErrorKind};
use crate::machine::connection::peer::RequestError;
use crate::machine::control::{
    Action, Attempt, ConnectionId, EndpointRef, Input, RequestToken, SessionCommand, SessionEvent,
};
use crate::machine::deadlines::Deadlines;
use crate::machine::endpoint::outbox::Response;
use crate::machine::supervisor::attach::{Attach, AttachState, Verdict};
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::{Looked, Lookup, broker_key};
use crate::machine::supervisor::pool::{Brokers, BrokersConfig, Lost, User};
use crate::machine::supervisor::service_url::{ServiceHosts, ServiceUrl, broker_host};
use crate::splitmix::SplitMix64;
use crate::wire::command::Command;

mod attach;
mod backoff;
mod failure;
mod lookup;
mod pool;
mod questions;
pub mod service_url;

use questions::Question;

/// What a supervisor is told at the start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SupervisorConfig {
    /// Where the client enters the cluster.
    pub service_url: ServiceUrl,
    /// `CommandLookupTopic.advertised_listener_name`: which of its addresses a broker shall name. Unset by default.
    pub listener_name: Option<String>,
    /// How long a question, all redirects of one lookup, or the close of the client may take. Default 30 s.
    pub operation_timeout: Duration,
    /// Redirects of one lookup. Default 20.
    pub lookup_redirects_max: u32,
    /// The first wait after a failure. Default 100 ms.
    pub initial_backoff_interval: Duration,
    /// The longest wait after failures in a row. Default 60 s.
    pub max_backoff_interval: Duration,
    /// Endpoints that look up or open on one connection at the same time; the others wait for their turn. Default 128.
    pub opens_in_flight_max: usize,
    /// How long a connection that nobody uses is kept. Default 60 s.
    pub idle_connection_max: Duration,
    /// Of the random part of the waits, and of the service host to start with.
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
            initial_backoff_interval: Duration::from_millis(100),
            max_backoff_interval: Duration::from_secs(60),
            opens_in_flight_max: 128,
            idle_connection_max: Duration::from_secs(60),
            seed,
        }
    }
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// The endpoint's own next deadline.
    Endpoint(EndpointId),
    /// The end of a back-off.
    Retry(User),
    /// A question has waited long enough.
    QuestionEnd(u64),
    /// The close of the client has.
    CloseEnd,
}

#[derive(Debug)]
struct Closing {
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
    brokers: Brokers,
    random: SplitMix64,
    /// Every endpoint that is not finished, as the user made them.
    endpoints: BTreeMap<EndpointId, Attach>,
    /// One for each call of the user that waits.
    questions: BTreeMap<u64, Question>,
    /// What was asked and not answered: at most one for each endpoint and question.
    asks: BTreeMap<RequestToken, (ConnectionId, User)>,
    /// At most two for each endpoint and question.
    timers: Deadlines<Timer>,
    closing: Option<Closing>,
    next_question: u64,
    next_ask: u64,
}

impl Supervisor {
    /// A supervisor without endpoints. `ready` is its own list: new endpoints are made with it as their server, and
    /// sessions give theirs back to it.
    pub fn new(config: SupervisorConfig, ready: Arc<ReadyList>) -> Self {
        let brokers = Brokers::new(BrokersConfig {
            opens_in_flight_max: config.opens_in_flight_max,
            idle_connection_max: config.idle_connection_max,
            initial_backoff_interval: config.initial_backoff_interval,
        });
        let mut random = SplitMix64::new(config.seed);
        Self {
            ready,
            hosts: ServiceHosts::new(config.service_url.clone(), random.next()),
            brokers,
            random,
            endpoints: BTreeMap::new(),
            questions: BTreeMap::new(),
            asks: BTreeMap::new(),
            timers: Deadlines::default(),
            closing: None,
            next_question: 0,
            next_ask: 0,
            config,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now, deferred: &mut Deferred) {
        match input {
            Input::Connect(reply) => self.connect(reply, now, deferred),
            Input::Open(endpoint) => self.open(endpoint, now, deferred),
            Input::Partitions { topic, reply } => self.partitions(topic, reply, now, deferred),
            Input::Credentials(link, credentials) => {
                if let Some(lost) = self.brokers.on_credentials(link, credentials) {
                    self.on_lost(lost, now, deferred);
                }
            }
            Input::From(link, notice) => self.on_notice(link, notice, now, deferred),
            Input::CloseClient(reply) => self.close(reply, now, deferred),
        }
        self.advance(now, deferred);
    }

    /// Looks at the endpoints without a session that have something to do: a close, an earlier deadline, an end.
    /// `waker` is left with the list, to be woken when there are more.
    pub fn handle_ready(&mut self, waker: Option<&Waker>, now: Now, deferred: &mut Deferred) {
        loop {
            let mut ids = Vec::new();
            self.ready.take(&mut ids, waker);
            if ids.is_empty() {
                break;
            }
            for id in ids {
                self.look_at(id, now, deferred);
            }
        }
        self.advance(now, deferred);
    }

    /// Looks at every endpoint at the next [`handle_ready`](Self::handle_ready): one that then does something had not
    /// been marked when it should have been.
    #[cfg(feature = "sim")]
    pub(crate) fn mark_all(&mut self) {
        for id in self.endpoints.keys() {
            drop(self.ready.mark(*id));
        }
    }

    /// The next action to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.brokers.poll_action()
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.timers.next(), self.brokers.poll_deadline())
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        self.brokers.handle_deadline(now);
        // All first, then their work: a timer that is set to the past meanwhile waits for the next call.
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(now) {
            due.push(timer);
        }
        for timer in due {
            match timer {
                Timer::Endpoint(id) => self.look_at(id, now, deferred),
                Timer::Retry(User::Endpoint(id)) => self.look_up(id, now),
                Timer::Retry(user) => {
                    let key = self.hosts.key();
                    self.brokers.join(&key, user, now);
                }
                Timer::QuestionEnd(number) => self.question_timed_out(number, now, deferred),
                Timer::CloseEnd => self.close_timed_out(now, deferred),
            }
        }
        self.advance(now, deferred);
    }

    /// Whether a closed client has nothing left: no endpoint, no connection, no action.
    pub fn is_drained(&self) -> bool {
        self.closing.is_some() && self.endpoints.is_empty() && self.questions.is_empty() && self.brokers.is_empty()
    }

    /// Nobody will carry actions out any more: every endpoint ends with `error`.
    pub fn fail_all(&mut self, error: &Error, deferred: &mut Deferred) {
        for attach in std::mem::take(&mut self.endpoints).into_values() {
            attach.endpoint.fail(error.clone(), deferred);
        }
    }

    /// Gives the turns that are free, and ends the client when it is closed and empty.
    fn advance(&mut self, now: Now, deferred: &mut Deferred) {
        while let Some((link, user)) = self.brokers.next_turn() {
            match user {
                User::Endpoint(id) => self.endpoint_turn(link, id, now),
                User::Question(number) => self.question_turn(link, number, now, deferred),
            }
        }
        if self.endpoints.is_empty() {
            if let Some(closing) = &mut self.closing {
                self.brokers.hang_up_all();
                self.timers.set(Timer::CloseEnd, None);
                for reply in closing.replies.drain(..) {
                    reply.answer(closing.error.clone().map_or(Ok(()), Err), deferred);
                }
            }
        }
        #[cfg(debug_assertions)]
        self.check();
    }

    #[cfg(debug_assertions)]
    fn check(&self) {
        self.brokers.check();
        for (id, attach) in &self.endpoints {
            let sits = self.brokers.link_of(User::Endpoint(*id)).is_some();
            let waits = self.timers.get(&Timer::Retry(User::Endpoint(*id))).is_some();
            let backs_off = matches!(attach.state, AttachState::BackingOff);
            assert_eq!(sits, !backs_off, "{id}: a connection, unless it waits");
            assert!(backs_off || !waits, "{id}: one thing under way at a time");
        }
        for (link, user) in self.asks.values() {
            assert_eq!(self.brokers.link_of(*user), Some(*link), "an open question belongs to a user of its link");
        }
    }

    fn closed(&self) -> Option<Error> {
        self.closing.is_some().then(|| Error::local(ErrorKind::Closed, "the client is closed"))
    }

    fn ask(&mut self, link: ConnectionId, user: User, command: Command) -> RequestToken {
        self.next_ask += 1;
        let ask = RequestToken(self.next_ask);
        self.asks.insert(ask, (link, user));
        self.brokers.tell(link, SessionCommand::Ask(ask, Box::new(command)));
        ask
    }

    fn set_retry(&mut self, user: User, at: Option<Instant>) {
        self.timers.set(Timer::Retry(user), at.map(|at| Deadline::new(at, "back-off")));
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.config.initial_backoff_interval, self.config.max_backoff_interval)
    }

    // News of sessions.

    fn on_notice(&mut self, link: ConnectionId, notice: SessionEvent, now: Now, deferred: &mut Deferred) {
        match notice {
            SessionEvent::Up(peer) => self.brokers.on_up(link, peer),
            SessionEvent::Challenged => self.brokers.on_challenged(link),
            SessionEvent::Opened(id, attempt) => self.on_opened(link, id, attempt),
            SessionEvent::OpenFailed(id, attempt, error) => {
                self.on_open_failed(link, id, attempt, error, now, deferred)
            }
            SessionEvent::Detached(id, attempt, url) => self.on_detached(link, id, attempt, url, now, deferred),
            SessionEvent::Finished(id) => {
                if self.brokers.link_of(User::Endpoint(id)) == Some(link) {
                    self.forget(id, now);
                }
            }
            SessionEvent::Answer(ask, outcome) => self.on_answer(link, ask, outcome, now, deferred),
            SessionEvent::Ended(reason) => {
                if let Some(lost) = self.brokers.on_ended(link, &reason, &mut self.random, now) {
                    self.on_lost(lost, now, deferred);
                }
            }
        }
    }

    /// The endpoint a notice is about, if it is of the present attempt on the present connection.
    fn current(&mut self, link: ConnectionId, id: EndpointId, attempt: Attempt) -> Option<&mut Attach> {
        if self.brokers.link_of(User::Endpoint(id)) != Some(link) {
            return None;
        }
        self.endpoints.get_mut(&id).filter(|attach| attach.attempt == attempt && attach.is_with_session())
    }

    fn on_opened(&mut self, link: ConnectionId, id: EndpointId, attempt: Attempt) {
        if let Some(attach) = self.current(link, id, attempt) {
            attach.on_opened();
            self.timers.set(Timer::Endpoint(id), None);
            self.brokers.settle(User::Endpoint(id));
        }
    }

    fn on_open_failed(
        &mut self,
        link: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
        error: RequestError,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(attach) = self.current(link, id, attempt) else { return };
        let doing = match &attach.endpoint {
            EndpointRef::Producer(_) => "the creation of the producer",
            EndpointRef::Consumer(_) => "the subscription",
        };
        let failure = self.at_link(link, Failure::of_request(error, doing));
        self.on_failed(id, failure, now, deferred);
        self.look_at(id, now, deferred);
    }

    fn on_detached(
        &mut self,
        link: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
        url: Option<String>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let user = User::Endpoint(id);
        let Some(attach) = self.current(link, id, attempt) else { return };
        // The address is good for one try, and only for an endpoint that worked here: two brokers that point at each
        // other must not keep it running between them without a pause.
        let was_attached = matches!(attach.state, AttachState::Attached);
        let hint = url.filter(|_| was_attached).and_then(|url| broker_host(&url, self.hosts.tls()).ok());
        let hinted = hint.zip(self.brokers.key(link)).map(|(broker, here)| {
            let proxied = here.logical != here.physical;
            broker_key(broker, here, proxied)
        });
        if let (Some(key), Some(attach)) = (hinted, self.endpoints.get_mut(&id)) {
            attach.state = AttachState::Connecting;
            self.brokers.join(&key, user, now);
        } else {
            self.brokers.leave(user, now);
            if let Some(attach) = self.endpoints.get_mut(&id) {
                if let Verdict::TryAt(at) = attach.back_off(&mut self.random, now) {
                    self.set_retry(user, at);
                }
            }
        }
        self.look_at(id, now, deferred);
    }

    fn on_answer(
        &mut self,
        link: ConnectionId,
        ask: RequestToken,
        outcome: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(&(asked, user)) = self.asks.get(&ask) else { return };
        if asked != link {
            return;
        }
        self.asks.remove(&ask);
        match user {
            User::Endpoint(id) => self.on_looked_up(link, id, outcome, now, deferred),
            User::Question(number) => self.on_partitions(link, number, outcome, now, deferred),
        }
    }

    fn on_looked_up(
        &mut self,
        link: ConnectionId,
        id: EndpointId,
        outcome: Response,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(attach) = self.endpoints.get_mut(&id) else { return };
        let AttachState::LookingUp { lookup, ask } = &mut attach.state else { return };
        *ask = None;
        let looked = lookup.on_answer(outcome, self.config.lookup_redirects_max, now);
        self.judge(link, matches!(&looked, Looked::Failed(failure) if failure.blames_link), now);
        match looked {
            Looked::Found(key) => {
                if let Some(attach) = self.endpoints.get_mut(&id) {
                    attach.state = AttachState::Connecting;
                }
                self.brokers.join(&key, User::Endpoint(id), now);
            }
            Looked::Redirected(key) => self.brokers.join(&key, User::Endpoint(id), now),
            Looked::Failed(failure) => {
                let failure = self.at_link(link, failure);
                self.on_failed(id, failure, now, deferred);
            }
        }
    }

    /// Notes whether a lookup over this connection got an answer; a sick connection makes way, and a sick service host.
    fn judge(&mut self, link: ConnectionId, failed: bool, now: Now) {
        if self.brokers.on_lookup(link, failed, &mut self.random, now) {
            if let Some(key) = self.brokers.key(link) {
                self.hosts.failed(key);
            }
        }
    }

    /// Names the broker in a failure.
    fn at_link(&self, link: ConnectionId, mut failure: Failure) -> Failure {
        if let Some(address) = self.brokers.address(link) {
            failure.error = failure.error.with_address(address);
        }
        failure
    }

    fn on_lost(&mut self, lost: Lost, now: Now, deferred: &mut Deferred) {
        self.hosts.failed(&lost.key);
        for user in lost.users {
            match user {
                User::Endpoint(id) => {
                    self.on_failed(id, lost.failure.clone(), now, deferred);
                    self.look_at(id, now, deferred);
                }
                User::Question(number) => self.question_failed(number, lost.failure.clone(), now, deferred),
            }
        }
    }

    // Endpoints.

    fn open(&mut self, endpoint: EndpointRef, now: Now, deferred: &mut Deferred) {
        let id = endpoint.id();
        if let Some(error) = self.closed() {
            endpoint.fail(error, deferred);
            return;
        }
        if self.endpoints.contains_key(&id) {
            debug_assert!(false, "{id} is opened once");
            return;
        }
        let mut attach = Attach::new(endpoint, self.backoff());
        // A machine that was never attached waits for one thing only: the end of its creation.
        let first = attach.endpoint.serve_detached(&self.ready, now, deferred).flatten();
        attach.creation_ends = first.map(|deadline| deadline.at);
        self.endpoints.insert(id, attach);
        self.look_up(id, now);
        self.look_at(id, now, deferred);
    }

    fn look_up(&mut self, id: EndpointId, now: Now) {
        let Some(attach) = self.endpoints.get_mut(&id) else { return };
        let key = self.hosts.key();
        let until = now.at.checked_add(self.config.operation_timeout);
        attach.state = AttachState::LookingUp { lookup: Lookup::new(key.clone(), until), ask: None };
        self.timers.set(Timer::Retry(User::Endpoint(id)), None);
        self.brokers.join(&key, User::Endpoint(id), now);
    }

    fn endpoint_turn(&mut self, link: ConnectionId, id: EndpointId, now: Now) {
        let user = User::Endpoint(id);
        let Some(attach) = self.endpoints.get_mut(&id) else {
            self.brokers.leave(user, now);
            return;
        };
        match &mut attach.state {
            AttachState::LookingUp { lookup, .. } => {
                let command = lookup.command(&attach.topic, self.config.listener_name.as_deref());
                let asked = self.ask(link, user, command);
                if let Some(Attach { state: AttachState::LookingUp { ask, .. }, .. }) = self.endpoints.get_mut(&id) {
                    *ask = Some(asked);
                }
            }
            AttachState::Connecting => {
                let attempt = attach.open();
                let endpoint = attach.endpoint.clone();
                self.brokers.tell(link, SessionCommand::Open(endpoint, attempt));
            }
            AttachState::Opening | AttachState::Attached | AttachState::BackingOff => {
                unreachable!("only who waits for a turn is given one")
            }
        }
    }

    fn on_failed(&mut self, id: EndpointId, failure: Failure, now: Now, deferred: &mut Deferred) {
        let user = User::Endpoint(id);
        let Some(attach) = self.endpoints.get_mut(&id) else { return };
        if let AttachState::LookingUp { ask: Some(ask), .. } = &attach.state {
            self.asks.remove(ask);
        }
        self.brokers.leave(user, now);
        match attach.on_failure(failure, &mut self.random, now) {
            Verdict::TryAt(at) => self.set_retry(user, at),
            Verdict::Fail(error) => {
                attach.endpoint.fail(error, deferred);
                self.forget(id, now);
            }
        }
    }

    /// Serves an endpoint that no session has.
    fn look_at(&mut self, id: EndpointId, now: Now, deferred: &mut Deferred) {
        let Some(attach) = self.endpoints.get(&id) else { return };
        let is_late = attach.creation_ends.is_some_and(|ends| ends <= now.at);
        if is_late && !attach.is_with_session() && !attach.endpoint.is_finished() {
            // The machine would say so itself, but does not know what the trouble was.
            let address = self.brokers.link_of(User::Endpoint(id)).and_then(|link| self.brokers.address(link));
            attach.endpoint.fail(attach.creation_timed_out(address), deferred);
        }
        match attach.endpoint.serve_detached(&self.ready, now, deferred) {
            // A session serves it, and tells of its end.
            None => self.timers.set(Timer::Endpoint(id), None),
            Some(_) if attach.endpoint.is_finished() => self.forget(id, now),
            Some(deadline) => self.timers.set(Timer::Endpoint(id), deadline),
        }
    }

    /// The endpoint is finished: it leaves every table, and what is still said of it finds nobody.
    fn forget(&mut self, id: EndpointId, now: Now) {
        let Some(attach) = self.endpoints.remove(&id) else { return };
        if let AttachState::LookingUp { ask: Some(ask), .. } = attach.state {
            self.asks.remove(&ask);
        }
        self.timers.set(Timer::Endpoint(id), None);
        self.timers.set(Timer::Retry(User::Endpoint(id)), None);
        self.brokers.leave(User::Endpoint(id), now);
    }

    // The end.

    fn close(&mut self, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        if let Some(closing) = &mut self.closing {
            closing.replies.push(reply);
            return;
        }
        self.closing = Some(Closing { replies: vec![reply], error: None });
        let numbers: Vec<u64> = self.questions.keys().copied().collect();
        for number in numbers {
            if let (Some(question), Some(error)) = (self.forget_question(number, now), self.closed()) {
                question.fail(error, deferred);
            }
        }
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            if let Some(attach) = self.endpoints.get(&id) {
                attach.endpoint.close(now, deferred);
            }
            self.look_at(id, now, deferred);
        }
        let end = Deadline::after(now, self.config.operation_timeout, "close of the client");
        self.timers.set(Timer::CloseEnd, end);
    }

    fn close_timed_out(&mut self, now: Now, deferred: &mut Deferred) {
        let Some(closing) = &mut self.closing else { return };
        let late = self.endpoints.len();
        let first = self.endpoints.first_key_value();
        let first = first.map(|(id, attach)| format!(", the first of them {id} on {}", attach.topic));
        let text = format!("{late} producers and consumers were not closed in time{}", first.unwrap_or_default());
        let error = Error::local(ErrorKind::TimedOut, text);
        closing.error = Some(error.clone());
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            if let Some(attach) = self.endpoints.get(&id) {
                attach.endpoint.fail(error.clone(), deferred);
            }
            self.forget(id, now);
        }
    }
}

impl Drop for Supervisor {
    /// Whoever waits is told, so that a runtime that goes away strands no task.
    fn drop(&mut self) {
        self.fail_all(&Error::local(ErrorKind::Closed, "the client went away"), &mut Deferred::new());
        // A question's reply answers for itself when it is dropped.
    }
}

#[cfg(test)]
mod tests;
