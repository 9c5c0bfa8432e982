//! Violations of the protocol that the embedded broker has recorded.

use super::World;
use crate::broker::machine::ConnId;
use crate::broker::{ConformanceViolation, Rule};

impl World {
    /// At a quiet moment: reports each rule of the protocol that a client broke and that no fault explains.
    pub(in crate::sim) fn check_conformance(&mut self) {
        for cluster in 0..self.clusters.len() {
            let broker = &mut self.clusters[cluster].broker;
            if broker.violations().is_empty() {
                continue;
            }
            let found = broker.violations().to_vec();
            broker.clear_violations();
            for violation in found {
                if !self.is_explained(cluster, &violation) {
                    self.violations.report("protocol conformance", || violation.to_string());
                }
            }
        }
    }

    /// Whether a fault explains the violation:
    /// - A PRODUCER on a slow or stalled connection arrives after the one on the connection that replaced it
    ///   ([`Rule::EpochNotGrowing`]).
    /// - On a connection that carries nothing no PONG arrives ([`Rule::PongMissing`]), and its client does not know of a
    ///   CLOSE_PRODUCER on it ([`Rule::AfterBrokerClose`]).
    /// - Sequence ids and epochs start again with a new producer that takes the name of an earlier one. The broker cannot
    ///   tell the two apart where the first PRODUCER of the new one was lost.
    ///
    /// All other violations are faults of the client.
    fn is_explained(&self, cluster: usize, violation: &ConformanceViolation) -> bool {
        let is_faulted = || self.network.is_faulted((cluster, ConnId(violation.connection)));
        let is_taken_over = || {
            let name = violation.producer_name.as_deref();
            name.is_some_and(|name| self.clusters[cluster].proxy.records.taken_over.contains(name))
        };
        match violation.rule {
            Rule::PongMissing | Rule::AfterBrokerClose => is_faulted(),
            Rule::EpochNotGrowing => is_faulted() || is_taken_over(),
            Rule::SequenceNotGrowing => is_taken_over(),
            _ => false,
        }
    }
}
