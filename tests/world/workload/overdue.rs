//! Sends without a receipt are told: not too early, not too late, and once.

use std::rc::Weak;
use std::time::Duration;

use pulsar_native::{Producer, ProducerEvent, ProducerEvents};

use super::users::{Sent, Users};

/// A batch without a connection is closed so long after its first message, and counts from then on.
const BATCH_IS_OPEN_MAX: Duration = Duration::from_millis(100);

/// A millisecond of the clocks.
const SLACK: Duration = Duration::from_millis(1);

pub(super) struct OverdueChecker {
    /// What its payloads start with.
    prefix: String,
    producer: Weak<Producer>,
    events: ProducerEvents,
    timeout: Duration,
    /// Where all messages go to one part, so that the oldest is known.
    is_whole: bool,
    last: Option<Duration>,
}

impl OverdueChecker {
    pub(super) fn new(
        prefix: String,
        producer: Weak<Producer>,
        events: ProducerEvents,
        timeout: Duration,
        is_whole: bool,
    ) -> Self {
        Self { prefix, producer, events, timeout, is_whole, last: None }
    }

    /// Whether there is more to check. To be called whenever no task is woken; `looks` now and then.
    pub(super) fn check(&mut self, users: &Users, looks: bool) -> bool {
        let now = users.handle.elapsed();
        while let Some(event) = self.events.try_recv() {
            if let ProducerEvent::SendOverdue { waiting, .. } = event {
                self.check_report(users, now, waiting);
            }
        }
        let Some(producer) = self.producer.upgrade() else { return false };
        if self.is_whole && looks {
            self.check_oldest(users, now, &producer);
        }
        true
    }

    fn check_report(&mut self, users: &Users, now: Duration, waiting: Duration) {
        users.handle.trace(|| format!("{} waits for {waiting:?}", self.prefix));
        let what = || format!("{} after {waiting:?} of {:?}", self.prefix, self.timeout);
        if waiting < self.timeout {
            users.handle.report_violation("a send is overdue after the stall timeout", what);
        }
        // Later ones may have waited behind the one that was told of.
        if self.is_whole && self.last.is_none() && waiting > self.late() {
            users.handle.report_violation("an overdue send is told in time", what);
        }
        // The next one waits for a message that was accepted after the last report.
        let is_whole = self.is_whole;
        if let Some(last) = self.last.replace(now).filter(|last| is_whole && now - *last < self.timeout) {
            let what = || format!("{}: at {last:?} and at {now:?}", self.prefix);
            users.handle.report_violation("an overdue send is told once", what);
        }
    }

    fn late(&self) -> Duration {
        self.timeout.max(BATCH_IS_OPEN_MAX) + SLACK
    }

    /// Where it is known what is pending, and since when.
    fn check_oldest(&self, users: &Users, now: Duration, producer: &Producer) {
        let notes = users.notes.borrow();
        let mine = notes.sends.range(self.prefix.clone()..).take_while(|(name, _)| name.starts_with(&self.prefix));
        let pending = mine.filter(|(_, sent)| **sent == Sent::Pending).filter_map(|(name, _)| notes.accepted.get(name));
        let (count, oldest) = pending.fold((0, now), |(count, oldest), at| (count + 1, oldest.min(*at)));
        if count == 0 || count != producer.stats().pending_messages || now - oldest <= self.late() {
            return;
        }
        if self.last.is_none_or(|last| last < oldest) {
            let what = || format!("{}, of {oldest:?}", self.prefix);
            users.handle.report_violation("an overdue send is told in time", what);
        }
    }
}
