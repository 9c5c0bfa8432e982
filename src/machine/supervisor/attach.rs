//! One endpoint's way to its broker, and back to it whenever it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::machine::Now;
use crate::machine::control::{Attempt, EndpointRef, RequestToken};
use crate::machine::supervisor::backoff::Backoff;
use crate::machine::supervisor::failure::Failure;
use crate::machine::supervisor::lookup::Lookup;
use crate::splitmix::SplitMix64;

/// Where one endpoint stands.
///
/// ```text
///                  Open                         redirected: asks the next broker
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
///  any state ---- terminal error, closed by the user, its own deadline ----> Closed
/// ```
///
/// `Closed` has no variant: a closed endpoint is not in the supervisor's tables any more. At every moment at most one
/// lookup, dial or open of it is under way, and what an earlier one still brings is told apart by its [`Attempt`] or
/// [`RequestToken`] and dropped.
#[derive(Debug)]
pub(crate) enum AttachState {
    /// Asks where the topic is: waits for its turn on a connection, or (with `ask`) for the answer.
    LookingUp {
        /// How far it got.
        lookup: Lookup,
        /// The question on its way.
        ask: Option<RequestToken>,
    },
    /// Waits for its turn on the connection to the topic's broker.
    Connecting,
    /// PRODUCER or SUBSCRIBE is on its way; a session is the endpoint's server.
    Opening,
    /// In use; a session is the endpoint's server.
    Attached,
    /// Waits until it may look up again.
    BackingOff,
}

/// What a failure means for an endpoint.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It tries again at this time; `None` is beyond what the clock can say.
    TryAt(Option<Instant>),
    /// It is over.
    Fail(Error),
}

/// One endpoint in the supervisor's tables.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) endpoint: EndpointRef,
    pub(crate) topic: Arc<str>,
    pub(crate) state: AttachState,
    /// The last attempt given to a session.
    pub(crate) attempt: Attempt,
    /// When the creation is given up by the endpoint itself; `None` once it has been attached.
    pub(crate) creation_ends: Option<Instant>,
    is_established: bool,
    backoff: Backoff,
    /// A producer's messages fail at their send timeout: one try is made just before that, however long the back-off
    /// has grown. When, once it has been lost, until that try was made.
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

/// How long before the send timeout of the first lost message the last try is made: the Java client's margin.
const LAST_CHANCE_MARGIN: Duration = Duration::from_millis(100);

impl Attach {
    /// An endpoint that has never been attached. Its state is set by the lookup that follows.
    pub(crate) fn new(endpoint: EndpointRef, backoff: Backoff) -> Self {
        let topic = endpoint.topic();
        Self {
            endpoint,
            topic,
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

    /// Whether a session serves it, or is about to.
    pub(crate) fn is_with_session(&self) -> bool {
        matches!(self.state, AttachState::Opening | AttachState::Attached)
    }

    /// It is attached: what comes next is a new trouble, with the shortest back-off.
    pub(crate) fn on_opened(&mut self) {
        self.state = AttachState::Attached;
        self.is_established = true;
        self.creation_ends = None;
        self.last_error = None;
        self.last_chance = LastChance::Idle;
        self.backoff.reset();
    }

    /// A step failed, or the connection was lost.
    pub(crate) fn on_failure(&mut self, failure: Failure, random: &mut SplitMix64, now: Now) -> Verdict {
        if failure.is_final(self.is_established) {
            return Verdict::Fail(failure.error.with_topic(&self.topic));
        }
        self.last_error = Some(failure.error);
        self.back_off(random, now)
    }

    /// Waits a moment before the next lookup.
    pub(crate) fn back_off(&mut self, random: &mut SplitMix64, now: Now) -> Verdict {
        self.state = AttachState::BackingOff;
        let wait = self.backoff.next(random);
        Verdict::TryAt(now.at.checked_add(wait).map(|at| self.before_last_chance(at, now)))
    }

    /// `at`, or the last chance of the messages that wait, if that comes first.
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

    /// Why it was not created in time: the last thing that went wrong, else what it is waiting for.
    pub(crate) fn creation_timed_out(&self, address: Option<&Arc<str>>) -> Error {
        let what = match &self.endpoint {
            EndpointRef::Producer(_) => "the producer was not created in time",
            EndpointRef::Consumer(_) => "the subscription was not made in time",
        };
        timed_out(what, self.last_error.as_ref(), address).with_topic(&self.topic)
    }
}

/// A deadline has passed; says what went wrong before it, or who did not answer.
pub(crate) fn timed_out(what: &str, last: Option<&Error>, address: Option<&Arc<str>>) -> Error {
    let because = match (last, address) {
        (Some(error), _) => format!("; the last failure: {error}"),
        (None, Some(address)) => format!("; still waiting for {address}"),
        (None, None) => String::new(),
    };
    let error = Error::local(ErrorKind::TimedOut, format!("{what}{because}"));
    match address {
        Some(address) => error.with_address(address),
        None => error,
    }
}
