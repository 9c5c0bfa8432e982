//! One endpoint in the supervisor's table: how it gets to its broker, and back to it whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::machine::control::{Attempt, RequestToken};
use crate::machine::endpoint::attach_status::AttachFailure;
use crate::machine::endpoint::machine::AttachRoute;
use crate::machine::supervisor::SupervisorConfig;
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::Lookup;
use crate::machine::supervisor::notice::EndpointNotice;
use crate::machine::supervisor::service_hosts::{Place, ServiceHosts};
use crate::machine::{Deferred, EndpointRef, Now};
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
///  |              |  |  | a slot on that connection           |
///  | time         |  |  v                                     |
///  | is over      |  | Opening --------- opened ---------> Attached
///  |              |  |  |                                     |
///  |              |  |  | refused, no response,               | CLOSE_* or
///  |              v  v  v connection lost                     | connection lost
///  +----------- BackingOff <----------------------------------+
///
///  any state ---- final error, closed by the application, its own deadline ----> Finished
/// ```
///
/// `Finished` has no variant: a finished endpoint is not in the supervisor's table any more. At most one lookup, dial or
/// open of it is under way at a time. A late result of an earlier one is recognised by its [`Attempt`] or
/// [`RequestToken`] and dropped.
#[derive(Debug)]
pub(crate) enum ManagedState {
    /// LOOKUP: queued for a slot on a connection, or, with `request`, waiting for the answer.
    LookingUp {
        /// The lookup, which survives redirects.
        lookup: Box<Lookup>,
        /// The request on its way.
        request: Option<RequestToken>,
    },
    /// Queued for a slot on the connection to its broker.
    Connecting,
    /// Its open request is on its way; a session is its owner.
    Opening,
    /// In use; a session is its owner.
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
    /// [`AnyEndpoint::subject`](crate::machine::endpoint::machine::AnyEndpoint::subject), asked for once.
    pub(crate) subject: Arc<str>,
    pub(crate) route: AttachRoute,
    /// It was attached before, or is in use without.
    pub(crate) is_established: bool,
    pub(crate) state: ManagedState,
    /// The hosts that it is looked up at, once its topic has migrated to another cluster; else those of the client.
    pub(crate) hosts: Option<Box<ServiceHosts>>,
    /// Where it was last opened, or was to be.
    pub(crate) place: Option<Place>,
    /// The last attempt given to a session.
    pub(crate) attempt: Attempt,
    /// What has happened since it was attached, or created. `None` while it is attached, so that an endpoint without work takes no
    /// more than it needs.
    detachment: Option<Box<Detachment>>,
}

/// What is known of an endpoint that is not attached. It ends with the next attach.
#[derive(Debug)]
struct Detachment {
    /// Attempts that have failed.
    failed_attempts: u32,
    /// How often the topic was said to have migrated.
    migrations: u32,
    /// When the endpoint itself gives its creation up; `None` if it has been attached before.
    creation_deadline: Option<Instant>,
    backoff: Backoff,
    final_attempt: FinalAttempt,
    last_error: Option<Error>,
}

impl Detachment {
    fn new(config: &SupervisorConfig) -> Box<Self> {
        Box::new(Self {
            failed_attempts: 0,
            migrations: 0,
            creation_deadline: None,
            backoff: config.backoff(),
            final_attempt: FinalAttempt::Unplanned,
            last_error: None,
        })
    }

    /// The next attempt: at `retry_at`, or earlier if it is the final one before the pending messages time out.
    fn schedule_attempt(&mut self, retry_at: Instant, send_timeout: Option<Duration>, now: Now) -> Instant {
        if self.final_attempt == FinalAttempt::Unplanned {
            let margin = |timeout: Duration| timeout.checked_sub(FINAL_ATTEMPT_MARGIN);
            let time = send_timeout.and_then(margin).and_then(|after| now.at.checked_add(after));
            self.final_attempt = time.map_or(FinalAttempt::Spent, FinalAttempt::At);
        }
        let (at, final_attempt) = self.final_attempt.cap(retry_at, now.at);
        self.final_attempt = final_attempt;
        at
    }
}

/// Messages fail at their send timeout: one attempt is made just before that, however long the back-off has grown.
///
/// ```text
///  Unplanned --- first failure ---> At(time) --- made, or its time has passed ---> Spent
///    ^                                 |                                             |
///    +--------------------------- attached ------------------------------------------+
/// ```
/// Without a send timeout the first failure leads to `Spent`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum FinalAttempt {
    Unplanned,
    At(Instant),
    Spent,
}

impl FinalAttempt {
    /// When the next attempt is made if the back-off ends at `retry_at`, and the state after that:
    ///
    /// | final attempt | next attempt | then |
    /// | --- | --- | --- |
    /// | its time has passed | `retry_at` | `Spent` |
    /// | between now and `retry_at` | the final attempt | `Spent` |
    /// | at `retry_at` or later | `retry_at` | unchanged |
    /// | `Unplanned` or `Spent` | `retry_at` | unchanged |
    fn cap(self, retry_at: Instant, now: Instant) -> (Instant, Self) {
        match self {
            Self::At(time) if time <= now => (retry_at, Self::Spent),
            Self::At(time) if time < retry_at => (time, Self::Spent),
            unchanged => (retry_at, unchanged),
        }
    }
}

/// How long before the send timeout of the first pending message the final attempt is made: the Java client's margin.
const FINAL_ATTEMPT_MARGIN: Duration = Duration::from_millis(100);

impl ManagedEndpoint {
    /// An endpoint that has never been attached. Its state is set by the lookup that follows.
    pub(crate) fn new(endpoint: EndpointRef) -> Self {
        let (subject, route, is_established) = (endpoint.subject(), endpoint.route(), endpoint.is_in_use());
        Self {
            endpoint,
            subject,
            route,
            is_established,
            state: ManagedState::BackingOff,
            hosts: None,
            place: None,
            attempt: Attempt(0),
            detachment: None,
        }
    }

    fn detachment(&mut self, config: &SupervisorConfig) -> &mut Detachment {
        self.detachment.get_or_insert_with(|| Detachment::new(config))
    }

    /// When the endpoint itself gives its creation up; `None` once it has been attached.
    pub(crate) fn creation_deadline(&self) -> Option<Instant> {
        self.detachment.as_ref()?.creation_deadline
    }

    pub(crate) fn set_creation_deadline(&mut self, at: Instant, config: &SupervisorConfig) {
        self.detachment(config).creation_deadline = Some(at);
    }

    /// Its topic is said to have migrated. Whether that is the first time since it was attached, or created.
    pub(crate) fn count_migration(&mut self, config: &SupervisorConfig) -> bool {
        let was_attached = matches!(self.state, ManagedState::Attached);
        let detachment = self.detachment(config);
        let is_first = was_attached || detachment.migrations == 0;
        detachment.migrations = detachment.migrations.saturating_add(1);
        is_first
    }

    /// A new attempt to open it.
    pub(crate) fn open(&mut self) -> Attempt {
        self.attempt.0 += 1;
        self.state = ManagedState::Opening;
        self.attempt
    }

    /// Whether a session is its owner, or is about to be.
    pub(crate) fn is_with_session(&self) -> bool {
        matches!(self.state, ManagedState::Opening | ManagedState::Attached)
    }

    /// It is attached: the next failure starts with the shortest back-off.
    pub(crate) fn on_opened(&mut self) {
        self.state = ManagedState::Attached;
        self.is_established = true;
        self.detachment = None;
    }

    /// The client uses another cluster: what was found out about the last one does not count there.
    pub(crate) fn on_cluster_switched(&mut self) {
        self.hosts = None;
        if let Some(detachment) = &mut self.detachment {
            detachment.migrations = 0;
            detachment.backoff.reset();
        }
    }

    /// A step failed, or the connection was lost.
    pub(crate) fn on_failure(
        &mut self,
        failure: Failure,
        config: &SupervisorConfig,
        random: &mut SplitMix64,
        now: Now,
    ) -> AfterFailure {
        if failure.is_final(self.is_established) {
            return AfterFailure::Fail(failure.error.with_topic(&self.subject));
        }
        self.detachment(config).last_error = Some(failure.error);
        self.back_off(config, random, now)
    }

    /// Tells the endpoint why it is not attached, and when the next attempt is made.
    pub(crate) fn report_failure(
        &self,
        error: &Error,
        next_attempt: Option<Instant>,
        now: Now,
        deferred: &mut Deferred,
    ) -> EndpointNotice {
        let attempt = self.next_attempt();
        self.endpoint.on_attach_failed(&AttachFailure { error, attempt, next_attempt }, now, deferred);
        let error = error.clone();
        match self.failed_attempts() {
            0 => EndpointNotice::Detached { error },
            attempt => {
                let retry_in = next_attempt.map(|at| at.saturating_duration_since(now.at));
                EndpointNotice::AttachFailed { error, attempt, retry_in }
            }
        }
    }

    /// Attempts that have failed since it was attached, or created.
    fn failed_attempts(&self) -> u32 {
        self.detachment.as_ref().map_or(0, |detachment| detachment.failed_attempts)
    }

    /// The number of the next attempt, or of the one that is being made.
    pub(crate) fn next_attempt(&self) -> u32 {
        self.failed_attempts().saturating_add(1)
    }

    /// Waits before the next attempt.
    pub(crate) fn back_off(&mut self, config: &SupervisorConfig, random: &mut SplitMix64, now: Now) -> AfterFailure {
        let was_attached = matches!(self.state, ManagedState::Attached);
        let counts = !was_attached && !mutation!(AttemptStays);
        self.state = ManagedState::BackingOff;
        let send_timeout = self.endpoint.send_timeout();
        let detachment = self.detachment(config);
        detachment.failed_attempts = detachment.failed_attempts.saturating_add(u32::from(counts));
        let wait = detachment.backoff.next(random);
        let retry_at = now.at.checked_add(wait);
        AfterFailure::RetryAt(retry_at.map(|at| detachment.schedule_attempt(at, send_timeout, now)))
    }

    /// Why it was not created in time: the last failure, else the broker that has not answered.
    pub(crate) fn creation_timed_out(&self, after: Duration, address: Option<&Arc<str>>) -> Error {
        let last_error = self.detachment.as_ref().and_then(|detachment| detachment.last_error.as_ref());
        timed_out(self.endpoint.open_description(), after, last_error, address).with_topic(&self.subject)
    }
}

/// `what` has timed out: because of the last failure, else because of the broker that has not answered.
pub(crate) fn timed_out(what: &str, after: Duration, last: Option<&Error>, address: Option<&Arc<str>>) -> Error {
    let text = format!("timed out after {after:?} waiting for {what}");
    let error = match (last, address) {
        (Some(last), _) => Error::local(ErrorKind::TimedOut, text).with_source(last.clone()),
        (None, Some(address)) => {
            let hint = format!("still waiting for {address}: check this address, and firewalls on the way to it");
            Error::local(ErrorKind::TimedOut, format!("{text}; {hint}"))
        }
        (None, None) => Error::local(ErrorKind::TimedOut, text),
    };
    match address.cloned().or_else(|| last.and_then(Error::address).map(Into::into)) {
        Some(address) => error.with_address(&address),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_attempt_comes_before_the_retry_and_once() {
        use FinalAttempt::{At, Spent, Unplanned};

        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (now, retry_at) = (at(10), at(20));
        for (state, next, then) in [
            (At(at(9)), retry_at, Spent),
            (At(now), retry_at, Spent),
            (At(at(15)), at(15), Spent),
            (At(retry_at), retry_at, At(retry_at)),
            (At(at(25)), retry_at, At(at(25))),
            (Unplanned, retry_at, Unplanned),
            (Spent, retry_at, Spent),
        ] {
            assert_eq!(state.cap(retry_at, now), (next, then), "{state:?}");
        }
    }
}
