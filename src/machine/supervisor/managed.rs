//! One endpoint in the supervisor's table: how it gets to its broker, and back to it whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::machine::control::{Attempt, RequestToken};
use crate::machine::endpoint::machine::AttachRoute;
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::Lookup;
use crate::machine::{EndpointRef, Now};
use crate::splitmix::SplitMix64;

/// How far an endpoint is on its way to a broker. One that any broker serves starts at `Connecting`.
///
/// ```text
///                  Open                         redirected: ask the next broker
///                   |                             +--+
///                   v                             |  v
///  +-----------> LookingUp --------------------> LookingUp
///  |              |  | found
///  |              |  v                 CLOSE_* that names the broker to go to
///  |              | Connecting <-----------------------------+
///  |              |  |  | its turn on that connection         |
///  | time         |  |  v                                     |
///  | is over      |  | Opening --------- opened ---------> Attached
///  |              |  |  |                                     |
///  |              v  v  v refused, no answer, link lost       | CLOSE_* or link lost
///  +----------- BackingOff <----------------------------------+
///
///  any state ---- final error, closed by the application, its own deadline ----> Finished
/// ```
///
/// `Finished` has no variant: a finished endpoint is not in the supervisor's table any more. At most one lookup, dial or
/// open of it is under way at a time. A late result of an earlier one is recognised by its [`Attempt`] or
/// [`RequestToken`] and dropped.
#[derive(Debug)]
pub(crate) enum AttachState {
    /// LOOKUP: queued for a turn on a connection, or, with `request`, waiting for the answer.
    LookingUp {
        /// The lookup, which survives redirects.
        lookup: Lookup,
        /// The request on its way.
        request: Option<RequestToken>,
    },
    /// Queued for a turn on the connection to its broker.
    Connecting,
    /// Its open request is on its way; a session is its server.
    Opening,
    /// In use; a session is its server.
    Attached,
    /// Waiting until it may try again.
    BackingOff,
}

/// What follows a failure.
#[derive(Debug)]
pub(crate) enum AfterFailure {
    /// It is tried again at this time; `None` is beyond what the clock can express.
    RetryAt(Option<Instant>),
    /// The endpoint ends with this error.
    Fail(Error),
}

/// One endpoint in the supervisor's tables.
#[derive(Debug)]
pub(crate) struct ManagedEndpoint {
    pub(crate) endpoint: EndpointRef,
    pub(crate) topic: Arc<str>,
    pub(crate) route: AttachRoute,
    pub(crate) state: AttachState,
    /// The last attempt given to a session.
    pub(crate) attempt: Attempt,
    /// When the endpoint itself gives its creation up; `None` once it has been attached.
    pub(crate) creation_ends: Option<Instant>,
    is_established: bool,
    backoff: Backoff,
    /// Messages fail at their send timeout: one attempt is made just before that, however long the back-off has grown.
    last_chance: LastChance,
    last_error: Option<Error>,
}

/// ```text
///  Idle --- first failure ---> At(then) --- its time has come ---> Taken
///    ^                            |                                  |
///    +---------------------- attached -------------------------------+
/// ```
#[derive(Debug, Clone, Copy)]
enum LastChance {
    Idle,
    At(Instant),
    Taken,
}

/// How long before the send timeout of the first pending message the last attempt is made: the Java client's margin.
const LAST_CHANCE_MARGIN: Duration = Duration::from_millis(100);

impl ManagedEndpoint {
    /// An endpoint that has never been attached. Its state is set by the lookup that follows.
    pub(crate) fn new(endpoint: EndpointRef, backoff: Backoff) -> Self {
        let (topic, route) = (endpoint.topic(), endpoint.route());
        Self {
            endpoint,
            topic,
            route,
            state: AttachState::BackingOff,
            attempt: Attempt(0),
            creation_ends: None,
            is_established: false,
            backoff,
            last_chance: LastChance::Idle,
            last_error: None,
        }
    }

    /// A new attempt to open it.
    pub(crate) fn open(&mut self) -> Attempt {
        self.attempt.0 += 1;
        self.state = AttachState::Opening;
        self.attempt
    }

    /// Whether a session is its server, or is about to be.
    pub(crate) fn is_with_session(&self) -> bool {
        matches!(self.state, AttachState::Opening | AttachState::Attached)
    }

    /// It is attached: the next failure starts with the shortest back-off.
    pub(crate) fn on_opened(&mut self) {
        self.state = AttachState::Attached;
        self.is_established = true;
        self.creation_ends = None;
        self.last_error = None;
        self.last_chance = LastChance::Idle;
        self.backoff.reset();
    }

    /// A step failed, or the connection was lost.
    pub(crate) fn on_failure(&mut self, failure: Failure, random: &mut SplitMix64, now: Now) -> AfterFailure {
        if failure.is_final(self.is_established) {
            return AfterFailure::Fail(failure.error.with_topic(&self.topic));
        }
        self.last_error = Some(failure.error);
        self.back_off(random, now)
    }

    /// Waits before the next attempt.
    pub(crate) fn back_off(&mut self, random: &mut SplitMix64, now: Now) -> AfterFailure {
        self.state = AttachState::BackingOff;
        let wait = self.backoff.next(random);
        AfterFailure::RetryAt(now.at.checked_add(wait).map(|at| self.before_last_chance(at, now)))
    }

    /// `at`, or the last chance of the pending messages, if that comes first.
    fn before_last_chance(&mut self, at: Instant, now: Now) -> Instant {
        if let LastChance::Idle = self.last_chance {
            let margin = |timeout: Duration| timeout.checked_sub(LAST_CHANCE_MARGIN);
            let chance = self.endpoint.send_timeout().and_then(margin).and_then(|after| now.at.checked_add(after));
            self.last_chance = chance.map_or(LastChance::Taken, LastChance::At);
        }
        match self.last_chance {
            LastChance::At(chance) if chance <= now.at => self.last_chance = LastChance::Taken,
            LastChance::At(chance) if chance < at => {
                self.last_chance = LastChance::Taken;
                return chance;
            }
            _ => {}
        }
        at
    }

    /// Why it was not created in time: the last failure, else the broker that has not answered.
    pub(crate) fn creation_timed_out(&self, after: Duration, address: Option<&Arc<str>>) -> Error {
        timed_out(self.endpoint.opening(), after, self.last_error.as_ref(), address).with_topic(&self.topic)
    }
}

/// `what` has timed out: because of the last failure, else because of the broker that has not answered.
pub(crate) fn timed_out(what: &str, after: Duration, last: Option<&Error>, address: Option<&Arc<str>>) -> Error {
    let text = format!("timed out after {after:?} waiting for {what}");
    let error = match (last, address) {
        (Some(last), _) => Error::local(ErrorKind::TimedOut, text).with_source(last.clone()),
        (None, Some(address)) => Error::local(ErrorKind::TimedOut, format!("{text}; still waiting for {address}")),
        (None, None) => Error::local(ErrorKind::TimedOut, text),
    };
    match address.cloned().or_else(|| last.and_then(Error::address).map(Into::into)) {
        Some(address) => error.with_address(&address),
        None => error,
    }
}
