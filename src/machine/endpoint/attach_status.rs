//! Where an endpoint is attached, or why it is not: what its state and its time-outs say.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::state_signal::StateSignal;
use crate::error::{Error, ErrorKind};
use crate::machine::{Deferred, Now};
use crate::stats::ErrorCounts;
use crate::wall_time;

/// Where the producer or consumer of one topic or partition stands.
///
/// ```text
///                      a broker has opened it
///   Detached --------------------------------------> Attached { broker, since }
///    { since, error,   <---------------------------------'
///      attempt, next_attempt }   the connection is lost, the broker closes it
///      |       ^
///      +-------+ an attempt has failed
///
///   either ---- closed by the application, or a failure that is final ----> Finished { error }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AttachState {
    /// A broker has it.
    #[non_exhaustive]
    Attached {
        /// The broker, as `host:port`, with the proxy's address if there is one.
        broker: Arc<str>,
        /// Since when.
        since: SystemTime,
    },
    /// No broker has it. Attempts to attach it are made until one succeeds, or a failure is final.
    #[non_exhaustive]
    Detached {
        /// Since when: the end of the last attach, or the creation.
        since: SystemTime,
        /// Why the last attempt failed; before that, why it was detached. `None` while the very first attempt is made.
        error: Option<Error>,
        /// The number of the next attempt, or of the one that is being made: 1 is the first since `since`.
        attempt: u32,
        /// When the next attempt starts. In the past, or `None`, while one is being made.
        next_attempt: Option<SystemTime>,
    },
    /// It has ended, and is not attached again.
    #[non_exhaustive]
    Finished {
        /// Why; `None` if the application closed it.
        error: Option<Error>,
    },
}

impl AttachState {
    /// Whether a broker has it.
    pub fn is_attached(&self) -> bool {
        matches!(self, Self::Attached { .. })
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished { .. })
    }
}

/// A failed attempt to attach, or the end of an attach, after which another attempt follows.
#[derive(Debug)]
pub struct AttachFailure<'a> {
    /// Why.
    pub error: &'a Error,
    /// The number of the next attempt; 1 is the first after an attach.
    pub attempt: u32,
    /// When it is made; `None` is beyond what the clock can express.
    pub next_attempt: Option<Instant>,
}

/// What is known of the attach of one endpoint.
#[derive(Debug)]
pub struct AttachStatus {
    state: AttachState,
    /// The `since` of the state by the monotonic clock.
    since: Instant,
    attaches: u64,
    /// Failed attempts, and ends of an attach.
    errors: ErrorCounts,
    /// Told of every change.
    signal: Option<Arc<StateSignal>>,
}

impl AttachStatus {
    /// Of an endpoint that is created now.
    pub(crate) fn new(now: Now) -> Self {
        let state = AttachState::Detached {
            since: wall_time::from_ms(now.wall_ms),
            error: None,
            attempt: 1,
            next_attempt: None,
        };
        Self { state, since: now.at, attaches: 0, errors: ErrorCounts::default(), signal: None }
    }

    /// `signal` is told of every change from now on.
    #[cfg(feature = "client")]
    pub(crate) fn set_signal(&mut self, signal: Arc<StateSignal>) {
        self.signal = Some(signal);
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> &AttachState {
        &self.state
    }

    /// How often it was attached again after the first time.
    pub(crate) fn reconnects(&self) -> u64 {
        self.attaches.saturating_sub(1)
    }

    /// Failed attempts and ends of an attach, by the code of their error.
    pub(crate) fn errors(&self) -> &ErrorCounts {
        &self.errors
    }

    fn change(&mut self, state: AttachState, deferred: &mut Deferred) {
        self.state = state;
        if let Some(signal) = &self.signal {
            signal.changed(deferred);
        }
    }

    pub(crate) fn on_attached(&mut self, broker: &Arc<str>, now: Now, deferred: &mut Deferred) {
        if self.state.is_finished() {
            return;
        }
        self.attaches += 1;
        self.since = now.at;
        self.change(AttachState::Attached { broker: broker.clone(), since: wall_time::from_ms(now.wall_ms) }, deferred);
    }

    /// Of an endpoint that was opening, nothing changes: [`Self::on_failure`] follows.
    pub(crate) fn on_detached(&mut self, cause: &Error, now: Now, deferred: &mut Deferred) {
        if self.state.is_attached() && !mutation!(AttachedAfterDetach) {
            self.errors.add(cause, 1);
            self.since = now.at;
            let (since, error) = (wall_time::from_ms(now.wall_ms), Some(cause.clone()));
            self.change(AttachState::Detached { since, error, attempt: 1, next_attempt: None }, deferred);
        }
    }

    pub(crate) fn on_failure(&mut self, failure: &AttachFailure<'_>, now: Now, deferred: &mut Deferred) {
        let AttachState::Detached { since, error, .. } = &self.state else { return };
        let since = *since;
        let next_attempt =
            failure.next_attempt.map(|at| wall_time::from_ms(now.wall_ms) + at.saturating_duration_since(now.at));
        // The end of an attach was counted when it came.
        if failure.attempt > 1 {
            self.errors.add(failure.error, 1);
        }
        // Before the first attempt, what ended the attach is known better than the supervisor knows it.
        let cause = error.clone().filter(|_| failure.attempt == 1);
        let (error, attempt) = (cause.or_else(|| Some(failure.error.clone())), failure.attempt);
        self.change(AttachState::Detached { since, error, attempt, next_attempt }, deferred);
    }

    /// It has ended. An end that the application asked for has no error here.
    pub(crate) fn on_finished(&mut self, error: &Error, deferred: &mut Deferred) {
        if !self.state.is_finished() {
            let error = Some(error.clone()).filter(|error| error.kind() != ErrorKind::Closed);
            self.change(AttachState::Finished { error }, deferred);
        }
    }

    /// Why it is not attached, as far as that is known.
    pub(crate) fn last_failure(&self) -> Option<&Error> {
        match &self.state {
            AttachState::Detached { error, .. } => error.as_ref(),
            AttachState::Attached { .. } | AttachState::Finished { .. } => None,
        }
    }

    /// `what` has not happened in time.
    ///
    /// | endpoint | the error adds |
    /// | --- | --- |
    /// | attached | the broker, and for how long it has had the endpoint |
    /// | not attached, and why is known | that failure, as its source |
    /// | not attached otherwise | that it is not attached |
    pub(crate) fn timed_out(&self, what: &str, now: Now) -> Error {
        let error = |text: String| Error::local(ErrorKind::TimedOut, text);
        if let AttachState::Attached { broker, .. } = &self.state {
            let seconds = now.at.saturating_duration_since(self.since).as_secs();
            return error(format!("{what}; attached to {broker} for {seconds} s")).with_address(broker);
        }
        let Some(failure) = self.last_failure().filter(|_| !mutation!(TimeOutSaysNothing)) else {
            return error(format!("{what}; not attached to a broker, and no attempt has failed yet"));
        };
        let late = error(format!("{what}; not attached to a broker")).with_source(failure.clone());
        match failure.address() {
            Some(address) => late.with_address(&Arc::from(address)),
            None => late,
        }
    }
}

/// As for a log: no error is cut off, and the times are left out.
impl fmt::Display for AttachState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attached { broker, .. } => write!(f, "attached to {broker}"),
            Self::Detached { error: None, .. } => f.write_str("not attached yet"),
            Self::Detached { error: Some(error), attempt, .. } => write!(f, "not attached, attempt {attempt}: {error}"),
            Self::Finished { error: None } => f.write_str("closed"),
            Self::Finished { error: Some(error) } => write!(f, "ended: {error}"),
        }
    }
}
