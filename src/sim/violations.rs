//! Violations of invariants in one run.

use std::fmt;
use std::time::Duration;

/// Violations kept. The first one ends a run.
const VIOLATIONS_MAX: usize = 100;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvariantViolation {
    /// The name of the checker.
    pub checker: &'static str,
    /// What the checker found.
    pub detail: String,
    /// When, since the start of the simulation.
    pub at: Duration,
}

impl fmt::Display for InvariantViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] after {} ms: {}", self.checker, self.at.as_millis(), self.detail)
    }
}

impl std::error::Error for InvariantViolation {}

/// The violations of one run.
#[derive(Debug, Default)]
pub(super) struct ViolationLog {
    list: Vec<InvariantViolation>,
    /// The virtual time since the start, set as it passes.
    pub(super) elapsed: Duration,
}

impl ViolationLog {
    pub(super) fn report(&mut self, checker: &'static str, detail: impl FnOnce() -> String) {
        if self.list.len() < VIOLATIONS_MAX {
            self.list.push(InvariantViolation { checker, detail: detail(), at: self.elapsed });
        }
    }

    pub(super) fn first(&self) -> Option<&InvariantViolation> {
        self.list.first()
    }
}
