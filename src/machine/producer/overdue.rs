//! Notices that the oldest message waits too long for its receipt.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Producer;
use crate::error::Error;
use crate::machine::Dirty;
use crate::machine::endpoint::attach_status::AttachState;
use crate::machine::{Deferred, Now};

/// Is told what happens to the producer of `topic`, a topic or partition. Called with no lock held.
pub trait SendObserver: fmt::Debug + Send + Sync {
    /// The oldest message that has no receipt has waited for the stall timeout.
    fn on_overdue(&self, topic: &Arc<str>, waiting: Duration, state: AttachState);

    /// The producer has ended.
    fn on_end(&self, topic: &Arc<str>, error: Error);
}

/// What was told of messages that wait.
#[derive(Debug, Default)]
pub(super) struct OverdueWatch {
    observer: Option<Arc<dyn SendObserver>>,
    /// Messages accepted until then belong to what was reported already.
    reported_at: Option<Instant>,
}

impl Producer {
    /// `observer` is told from now on.
    pub fn set_observer(&mut self, observer: Arc<dyn SendObserver>) {
        self.overdue.observer = Some(observer);
    }

    /// When the oldest message is overdue.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let (group, _) = self.in_flight.front()?;
        let started = group.started?.at;
        if self.overdue.reported_at.is_some_and(|reported| started <= reported) {
            return None;
        }
        started.checked_add(self.config.stall_timeout)
    }

    /// Once all that belong to a report are settled, the owner is to learn when the oldest of the others is overdue. With
    /// nothing in flight it stays open: the messages of an open batch may belong to the report.
    #[inline]
    pub(super) fn resume_overdue_watch(&mut self) {
        let Some(reported) = self.overdue.reported_at else { return };
        let Some((group, _)) = self.in_flight.front() else { return };
        if group.started.is_none_or(|started| started.at > reported) {
            self.overdue.reported_at = None;
            self.dirty = Dirty::Now;
        }
    }

    /// Reports an oldest message that is overdue.
    pub(super) fn check_overdue(&mut self, now: Now, deferred: &mut Deferred) {
        if self.overdue_at().is_none_or(|at| at > now.at) {
            return;
        }
        let started = self.in_flight.front().and_then(|(group, _)| group.started).filter(|_| mutation!(OverdueForEach));
        self.overdue.reported_at = Some(started.unwrap_or(now).at);
        let Some(observer) = self.overdue.observer.clone() else { return };
        let (waiting, state) = (self.oldest_pending(now).unwrap_or_default(), self.attach_status.state().clone());
        let topic = self.topic.clone();
        deferred.run(move || observer.on_overdue(&topic, waiting, state));
    }

    /// Tells of the end.
    pub(super) fn report_end(&self, error: &Error, deferred: &mut Deferred) {
        if let Some(observer) = self.overdue.observer.clone() {
            let (topic, error) = (self.topic.clone(), error.clone());
            deferred.run(move || observer.on_end(&topic, error));
        }
    }
}
