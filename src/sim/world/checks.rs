//! What must hold at a quiet moment, and what the brokers' judge has seen.

use super::World;
use crate::broker::machine::ConnId;
use crate::broker::{ConformanceViolation, Rule};
use crate::machine::Deferred;

impl World {
    /// At a moment when nothing wants to run: everything is where it belongs.
    pub(in crate::sim) fn check_quiet(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            for link in host.links.values_mut() {
                link.check(now, &mut self.violations);
            }
            let Some(parts) = &mut host.parts else { continue };
            let before = parts.supervisor.poll_deadline();
            parts.supervisor.mark_all();
            parts.supervisor.handle_ready(Some(&host.waker), now, &mut Deferred::new());
            let after = parts.supervisor.poll_deadline();
            if let Some(action) = parts.supervisor.poll_action() {
                self.violations.note("no lost wake-up", || format!("the supervisor had {action:?} to do and no turn"));
            }
            let is_earlier = after.is_some_and(|after| before.is_none_or(|before| after.at < before.at));
            if is_earlier {
                let what = || format!("the supervisor did not know {after:?}, only {before:?}");
                self.violations.note("no lost deadline", what);
            }
        }
        self.check_judge();
    }

    fn check_judge(&mut self) {
        if self.broker.violations().is_empty() {
            return;
        }
        let seen = self.broker.violations().to_vec();
        self.broker.clear_violations();
        for violation in seen {
            if !self.is_excused(&violation) {
                self.violations.note("broker's judge", || violation.to_string());
            }
        }
    }

    /// A connection that is slow or frozen brings a PRODUCER after the one of the connection that replaced it. One that
    /// a fault has silenced cannot answer a PING, and does not bring a CLOSE_PRODUCER. And sequence ids begin anew with
    /// a new producer that takes the name of an old one; the judge does not notice that where the new one's first
    /// PRODUCER was lost. All else a client has to answer for, whatever goes wrong around it.
    fn is_excused(&self, violation: &ConformanceViolation) -> bool {
        let wire = || self.net.of_conn(ConnId(violation.connection)).and_then(|net| self.net.get(net));
        match violation.rule {
            Rule::PongMissing => wire().is_none_or(|wire| wire.is_faulted),
            Rule::AfterClose if violation.detail.contains("the broker's CLOSE_PRODUCER") => {
                wire().is_none_or(|wire| wire.is_faulted)
            }
            Rule::EpochNotGrowing if wire().is_none_or(|wire| wire.is_faulted) => true,
            Rule::SequenceNotGrowing | Rule::EpochNotGrowing => {
                let name = violation.detail.split(": ").next().unwrap_or_default();
                self.gate.mistaken.contains(name)
            }
            _ => false,
        }
    }
}
