//! Violations of the protocol that the embedded broker has noted.

use super::World;
use crate::broker::machine::ConnId;
use crate::broker::{Rule, Violation};

impl World {
    /// At a quiet moment: reports each rule of the protocol that a client broke and that no fault explains.
    pub(in crate::sim) fn check_conformance(&mut self) {
        if self.broker.violations().is_empty() {
            return;
        }
        let found = self.broker.violations().to_vec();
        self.broker.clear_violations();
        for violation in found {
            if !self.is_explained(&violation) {
                self.violations.report("protocol conformance", || violation.to_string());
            }
        }
    }

    /// Whether a fault explains the violation:
    /// - A connection that is slow or frozen brings its PRODUCER after the one of the connection that replaced it
    ///   ([`Rule::EpochNotGrowing`]).
    /// - A connection that a fault has silenced answers no PING ([`Rule::PongMissing`]), and its client does not know of a
    ///   CLOSE_PRODUCER on it ([`Rule::AfterClose`]).
    /// - Sequence ids and epochs begin anew with a new producer that takes the name of an earlier one. The broker does
    ///   not notice that where the new one's first PRODUCER was lost.
    ///
    /// A client has to answer for all else, whatever goes wrong around it.
    fn is_explained(&self, violation: &Violation) -> bool {
        let is_faulted = || {
            let pair = self.network.of_conn(ConnId(violation.connection)).and_then(|id| self.network.get(id));
            pair.is_none_or(|pair| pair.is_faulted)
        };
        let is_taken_over = || {
            let name = violation.detail.split(": ").next().unwrap_or_default();
            self.proxy.records.taken_over.contains(name)
        };
        match violation.rule {
            Rule::PongMissing => is_faulted(),
            Rule::AfterClose => violation.detail.contains("the broker's CLOSE_PRODUCER") && is_faulted(),
            Rule::EpochNotGrowing => is_faulted() || is_taken_over(),
            Rule::SequenceNotGrowing => is_taken_over(),
            _ => false,
        }
    }
}
