//! What must hold for every client at every step, whatever the application does.

use std::fmt;
use std::time::Duration;

/// Violations kept; one is enough to fail a run.
const VIOLATIONS_MAX: usize = 100;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the checker.
    pub checker: &'static str,
    /// What it saw.
    pub detail: String,
    /// When, since the start of the simulation.
    pub at: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] after {} ms: {}", self.checker, self.at.as_millis(), self.detail)
    }
}

impl std::error::Error for Violation {}

/// All of one run.
#[derive(Debug, Default)]
pub(super) struct Violations {
    list: Vec<Violation>,
    pub(super) elapsed: Duration,
}

impl Violations {
    pub(super) fn note(&mut self, checker: &'static str, detail: impl FnOnce() -> String) {
        if self.list.len() < VIOLATIONS_MAX {
            self.list.push(Violation { checker, detail: detail(), at: self.elapsed });
        }
    }

    pub(super) fn first(&self) -> Option<&Violation> {
        self.list.first()
    }
}
