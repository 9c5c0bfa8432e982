//! What became of a scenario.

use std::fmt;
use std::time::Duration;

use super::protocol::shown;
use crate::broker::ConformanceViolation;

/// Most characters of a reason in a line.
pub(super) const WHY_CHARS_MAX: usize = 300;

/// Why a scenario ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client did not do what it must.
    Failed(String),
    /// The client, or its glue, has no such thing.
    Unsupported(String),
    /// The client has not answered in time: its call hangs, or the glue does.
    Late(String),
    /// The glue broke the line protocol, or ended.
    Glue(String),
}

impl Stop {
    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    /// The same, behind something that happened.
    pub(super) fn behind(self, what: &str) -> Self {
        let with = |why: String| format!("behind {what}: {why}");
        match self {
            Self::Failed(why) => Self::Failed(with(why)),
            Self::Late(why) => Self::Late(with(why)),
            other => other,
        }
    }

    pub(super) fn glue(why: impl Into<String>) -> Self {
        Self::Glue(why.into())
    }
}

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The client did what it must, and broke no rule of the protocol.
    Passed,
    /// It did not.
    Failed {
        /// What it did instead.
        why: String,
    },
    /// The client, or its glue, has no such thing. It counts neither way.
    Unsupported {
        /// What is missing.
        why: String,
    },
    /// The glue ended, broke the line protocol, or could not be started: nothing follows for the client.
    GlueFailed {
        /// What the glue did.
        why: String,
    },
}

impl Outcome {
    /// One word: `passed`, `failed`, `unsupported` or `glue failed`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Unsupported { .. } => "unsupported",
            Self::GlueFailed { .. } => "glue failed",
        }
    }

    /// Why; `None` if it passed.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed { why } | Self::Unsupported { why } | Self::GlueFailed { why } => Some(why),
        }
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(why) | Stop::Late(why) => Self::Failed { why },
            Stop::Unsupported(why) => Self::Unsupported { why },
            Stop::Glue(why) => Self::GlueFailed { why },
        }
    }
}

/// What became of one scenario.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verdict {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The client and its version, by the glue's first line; empty without one.
    pub client: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// The rules of the protocol that the client broke, by the judge of the embedded broker.
    pub violations: Vec<ConformanceViolation>,
    /// The frames on the wire and the requests to the glue, a line each; empty if the scenario passed.
    pub story: String,
    /// The last lines that the glue wrote to stderr; empty if the scenario passed.
    pub stderr: String,
}

impl Verdict {
    /// Whether it is a reason for an exit status other than 0.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. } | Outcome::GlueFailed { .. })
    }
}

impl fmt::Display for Verdict {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:<34} {:>5.1} s", self.outcome.name(), self.scenario, self.took.as_secs_f64())?;
        self.outcome.why().map_or(Ok(()), |why| write!(f, "  {}", shown(why, WHY_CHARS_MAX)))
    }
}
