//! Records what a client did that the protocol does not allow, whether or not a real broker would notice.
//!
//! A violation changes no response. Tests assert that [`EmbeddedBroker::violations`](super::EmbeddedBroker::violations)
//! is empty after a scenario.

use std::fmt;
use std::sync::Arc;

use crate::broker::ids::ConnId;
pub use crate::rules::Rule;

/// Most violations that are kept; later ones are dropped.
const VIOLATIONS_MAX: usize = 1_000;

/// One rule broken by one client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConformanceViolation {
    /// The connection, numbered from 1 in order of arrival.
    pub connection: u64,
    /// The rule.
    pub rule: Rule,
    /// The name of the producer, where the rule is about the epochs or sequence ids of one.
    pub producer_name: Option<Arc<str>>,
    /// Ids and numbers, for people. Its wording may change.
    pub detail: String,
}

impl fmt::Display for ConformanceViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}: {:?}: {}", self.connection, self.rule, self.detail)
    }
}

/// What clients did wrong, in order.
#[derive(Debug, Default)]
pub(crate) struct Conformance {
    violations: Vec<ConformanceViolation>,
}

impl Conformance {
    pub(crate) fn record(&mut self, conn: ConnId, rule: Rule, detail: impl FnOnce() -> String) {
        self.push(conn, rule, None, detail);
    }

    /// Records a violation of a rule about the epochs or sequence ids of one producer.
    pub(crate) fn record_of_producer(
        &mut self,
        conn: ConnId,
        rule: Rule,
        producer: &str,
        detail: impl FnOnce() -> String,
    ) {
        self.push(conn, rule, Some(producer), || format!("{producer}: {}", detail()));
    }

    fn push(&mut self, conn: ConnId, rule: Rule, producer: Option<&str>, detail: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let producer_name = producer.map(Arc::from);
            self.violations.push(ConformanceViolation { connection: conn.0, rule, producer_name, detail: detail() });
        }
    }

    pub(crate) fn violations(&self) -> &[ConformanceViolation] {
        &self.violations
    }

    pub(crate) fn clear(&mut self) {
        self.violations.clear();
    }
}
