//! A consumer that gets nothing although there is a backlog says so: not too early, not too late, once, and not if the
//! application is slow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pulsar_native::{Acker, ConsumerEvent, ConsumerEvents};

use super::plan::TopicPlan;
use super::users::Users;

/// For a request and its response where nothing is at fault.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct StallChecker {
    subscription: String,
    /// Until the consumer is dropped, which this keeps open.
    acker: Option<Acker>,
    events: ConsumerEvents,
    /// Other events, for the user of the consumer.
    others: VecDeque<ConsumerEvent>,
    timeout: Duration,
    /// There is one topic only, so that the statistics are those of it.
    is_whole: bool,
    /// The topic where no fault keeps a stall from being told.
    must_tell: Option<String>,
    /// When a stall of each part was told.
    told: BTreeMap<String, Duration>,
    /// Of which parts the consumer told while it was created, so that it is not known when.
    told_before: BTreeSet<String>,
    /// Entries received and attaches, at the last check, and since when it is the same.
    arrived: (u64, Duration),
    /// The application has a message, and has not asked for another one.
    is_busy: bool,
    /// Since when the broker keeps messages back from it.
    withheld_since: Option<Duration>,
}

impl StallChecker {
    pub(super) fn new(
        users: &Users,
        subscription: String,
        acker: Acker,
        events: ConsumerEvents,
        timeout: Duration,
        (topic, is_whole): (&TopicPlan, bool),
        must_tell: bool,
    ) -> Self {
        let arrived = (0, users.handle.elapsed());
        let (others, told) = (VecDeque::new(), BTreeMap::new());
        let acker = Some(acker);
        let must_tell = (is_whole && must_tell).then(|| topic.name.clone());
        let mut checker = Self {
            subscription,
            acker,
            events,
            others,
            timeout,
            is_whole,
            must_tell,
            told,
            told_before: BTreeSet::new(),
            arrived,
            is_busy: false,
            withheld_since: None,
        };
        while let Some(event) = checker.events.try_recv() {
            match event {
                ConsumerEvent::Stalled { topic, .. } => drop(checker.told_before.insert(topic.to_string())),
                other => checker.others.push_back(other),
            }
        }
        checker.told = checker.told_before.iter().map(|topic| (topic.clone(), users.handle.elapsed())).collect();
        checker
    }

    /// The consumer ends now.
    pub(super) fn finish(&mut self) {
        self.acker = None;
    }

    /// The application asks for a message, or has got one.
    pub(super) fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
        self.withheld_since = self.withheld_since.filter(|_| !is_busy);
    }

    /// The next event that is not a stall.
    pub(super) fn next_other(&mut self, users: &Users) -> Option<ConsumerEvent> {
        self.take_events(users);
        self.others.pop_front()
    }

    /// Whether there is more to check. To be called whenever no task is woken; `looks` now and then.
    pub(super) fn check(&mut self, users: &Users, looks: bool) -> bool {
        self.take_events(users);
        let Some(acker) = &self.acker else { return false };
        if !looks || !self.is_whole {
            return true;
        }
        let (now, stats) = (users.handle.elapsed(), acker.stats());
        let arrived = stats.received_entries + stats.damaged_entries + stats.reconnects;
        if arrived != self.arrived.0 {
            self.arrived = (arrived, now);
        }
        if let Some(topic) = &self.must_tell {
            let is_able = !self.is_busy && stats.queued_messages == 0 && stats.available_permits > 0;
            let found = users.handle.stats(topic).and_then(|mut found| found.subscriptions.remove(&self.subscription));
            // No consumer holds anything, so all of it is kept back.
            let is_withheld = found.is_some_and(|found| found.msg_backlog > 0 && found.unacked_messages == 0);
            self.withheld_since = self.withheld_since.filter(|_| is_able && is_withheld);
            if is_able && is_withheld {
                self.check_told(users, topic, now);
                self.withheld_since.get_or_insert(now);
            }
        }
        true
    }

    /// The time between two checks of a consumer doubles: it may take as long again as nothing has come by then.
    fn check_told(&self, users: &Users, topic: &str, now: Duration) {
        let Some(since) = self.withheld_since else { return };
        let since_arrival = self.arrived.1;
        let due = since + since.saturating_sub(since_arrival) + self.timeout + ANSWERED_WITHIN;
        let is_told = self.told.get(topic).is_some_and(|told| *told >= since_arrival);
        if now > due && !is_told {
            let what = || format!("{} of {topic}: kept back since {since:?}", self.subscription);
            users.handle.report_violation("a stall is told", what);
        }
    }

    fn take_events(&mut self, users: &Users) {
        while let Some(event) = self.events.try_recv() {
            let ConsumerEvent::Stalled { topic, quiet_for, .. } = &event else {
                self.others.push_back(event);
                continue;
            };
            self.check_report(users, topic, *quiet_for);
        }
    }

    fn check_report(&mut self, users: &Users, topic: &str, quiet_for: Duration) {
        let Some(acker) = &self.acker else { return };
        let (now, stats) = (users.handle.elapsed(), acker.stats());
        users.handle.trace(|| format!("{} of {topic} is stalled for {quiet_for:?}", self.subscription));
        let report = |checker, what: String| users.handle.report_violation(checker, || what);
        if quiet_for < self.timeout {
            report("a stall is told after the stall timeout", format!("{quiet_for:?} of {:?}", self.timeout));
        }
        // The response may have come with messages.
        let has_arrived = stats.received_entries + stats.damaged_entries + stats.reconnects != self.arrived.0;
        if self.is_whole && stats.queued_messages > 0 && !has_arrived {
            report("a slow application is no stall", format!("{topic}: {} are queued", stats.queued_messages));
        }
        let is_from_before = self.told_before.remove(topic);
        let last = self.told.insert(topic.to_owned(), now).filter(|last| !is_from_before && now - quiet_for < *last);
        if let Some(last) = last {
            report("a stall is told once", format!("{topic}: at {last:?} and at {now:?}, quiet for {quiet_for:?}"));
        }
    }
}
