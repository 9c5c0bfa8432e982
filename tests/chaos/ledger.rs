//! What was sent, what became of it, and what each subscription saw: the judge of a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pulsar_native::{MessageId, SubscriptionType};
use tokio::sync::watch;

/// What became of a send.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    Open,
    Confirmed,
    /// Failed, and nobody knows whether it is stored.
    Unknown,
    /// Failed, and the client says that it is not stored.
    NotStored,
}

/// One topic: its sends, numbered from 0, and its subscriptions.
pub(crate) struct Ledger {
    deduplicated: bool,
    sends: Vec<Fate>,
    confirmed: u64,
    pub(crate) subscriptions: Vec<Seen>,
    /// What must never happen and fits no column.
    pub(crate) violations: Vec<String>,
    /// Told of each send that is resolved and each message that arrives.
    news: watch::Sender<()>,
}

/// One subscription.
pub(crate) struct Seen {
    kind: SubscriptionType,
    /// How many confirmed messages arrived.
    confirmed: u64,
    /// Where each number was found stored.
    places: HashMap<u64, Vec<MessageId>>,
    /// The highest number of each partition or key.
    highest: HashMap<String, u64>,
    pub(crate) out_of_order: u64,
    /// Deliveries of what was delivered before.
    pub(crate) again: u64,
    /// Deliveries after the broker had every acknowledgement.
    came_back: u64,
    settled: bool,
    last: Option<Instant>,
    pub(crate) longest_gap: Duration,
    pub(crate) longest_gap_until: Option<Instant>,
}

/// The columns of a subscription, judged.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) arrived: u64,
    pub(crate) missing: u64,
    pub(crate) stored_twice: u64,
    pub(crate) doubled: u64,
}

impl Ledger {
    pub(crate) fn new(deduplicated: bool, kinds: &[SubscriptionType], news: watch::Sender<()>) -> Self {
        let subscriptions = kinds.iter().copied().map(Seen::new).collect();
        Self { deduplicated, sends: Vec::new(), confirmed: 0, subscriptions, violations: Vec::new(), news }
    }

    /// The number of the next message.
    pub(crate) fn next(&mut self) -> u64 {
        self.sends.push(Fate::Open);
        self.sends.len() as u64 - 1
    }

    pub(crate) fn resolve(&mut self, number: u64, fate: Fate) {
        let slot = &mut self.sends[number as usize];
        if *slot != Fate::Open {
            self.violations.push(format!("send {number} was resolved twice"));
        }
        *slot = fate;
        if fate == Fate::Confirmed {
            self.confirmed += 1;
            for seen in &mut self.subscriptions {
                seen.confirmed += u64::from(seen.places.contains_key(&number));
            }
        }
        self.news.send_replace(());
    }

    pub(crate) fn arrive(&mut self, subscription: usize, number: u64, key: &str, id: MessageId, now: Instant) {
        if number >= self.sends.len() as u64 {
            self.violations.push(format!("{number} arrived and was never sent"));
            return;
        }
        let confirmed = self.sends[number as usize] == Fate::Confirmed;
        self.subscriptions[subscription].arrive(number, confirmed, key, id, now);
        self.news.send_replace(());
    }

    /// What `missing` will be if nothing more comes, without looking at each message.
    pub(crate) fn outstanding(&self) -> u64 {
        self.subscriptions.iter().map(|seen| self.confirmed - seen.confirmed).sum()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sends.len() as u64
    }

    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(crate) fn count(&self, fate: Fate) -> u64 {
        self.sends.iter().filter(|&&found| found == fate).count() as u64
    }

    /// How many confirmed messages the subscription has not seen.
    pub(crate) fn missing(&self, subscription: usize) -> u64 {
        let places = &self.subscriptions[subscription].places;
        let missing =
            |(number, fate): &(usize, &Fate)| **fate == Fate::Confirmed && !places.contains_key(&(*number as u64));
        self.sends.iter().enumerate().filter(missing).count() as u64
    }

    /// The broker has every acknowledgement: from now on nothing may come.
    pub(crate) fn settle(&mut self) {
        for seen in &mut self.subscriptions {
            seen.settled = true;
        }
    }

    /// Deliveries since then.
    pub(crate) fn came_back(&self) -> u64 {
        self.subscriptions.iter().map(|seen| seen.came_back).sum()
    }

    pub(crate) fn verdict(&self, subscription: usize) -> Verdict {
        let seen = &self.subscriptions[subscription];
        let stored_twice = seen.places.values().map(|places| places.len() as u64 - 1).sum();
        Verdict {
            arrived: seen.places.len() as u64,
            missing: self.missing(subscription),
            stored_twice,
            doubled: seen.came_back + if self.deduplicated { stored_twice } else { 0 },
        }
    }

    /// Sends that the client said were not stored, and that arrived.
    pub(crate) fn false_failures(&self) -> u64 {
        let arrived = |number: u64| self.subscriptions.iter().any(|seen| seen.places.contains_key(&number));
        let false_failure = |(number, fate): &(usize, &Fate)| **fate == Fate::NotStored && arrived(*number as u64);
        self.sends.iter().enumerate().filter(false_failure).count() as u64
    }

    pub(crate) fn missing_numbers(&self, subscription: usize, max: usize) -> Vec<u64> {
        let places = &self.subscriptions[subscription].places;
        let confirmed = |number: &u64| self.sends[*number as usize] == Fate::Confirmed;
        (0..self.sent()).filter(confirmed).filter(|number| !places.contains_key(number)).take(max).collect()
    }
}

impl Seen {
    fn new(kind: SubscriptionType) -> Self {
        Self {
            kind,
            confirmed: 0,
            places: HashMap::new(),
            highest: HashMap::new(),
            out_of_order: 0,
            again: 0,
            came_back: 0,
            settled: false,
            last: None,
            longest_gap: Duration::ZERO,
            longest_gap_until: None,
        }
    }

    fn arrive(&mut self, number: u64, confirmed: bool, key: &str, id: MessageId, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            if !self.settled && now - last > self.longest_gap {
                (self.longest_gap, self.longest_gap_until) = (now - last, Some(now));
            }
        }
        self.came_back += u64::from(self.settled);
        let places = self.places.entry(number).or_default();
        let first_sight = places.is_empty();
        self.confirmed += u64::from(first_sight && confirmed);
        if places.contains(&id) {
            self.again += 1;
        } else {
            places.push(id.clone());
        }
        let Some(order) = self.order_of(key, &id).filter(|_| first_sight) else { return };
        let highest = self.highest.entry(order).or_insert(number);
        self.out_of_order += u64::from(number < *highest);
        *highest = number.max(*highest);
    }

    /// Within what the subscription promises an order.
    fn order_of(&self, key: &str, id: &MessageId) -> Option<String> {
        match self.kind {
            SubscriptionType::Shared => None,
            SubscriptionType::KeyShared => Some(key.to_owned()),
            _ => Some(format!("{:?}", id.partition())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(deduplicated: bool, sends: u64) -> Ledger {
        let kinds = [SubscriptionType::Exclusive, SubscriptionType::KeyShared];
        let mut ledger = Ledger::new(deduplicated, &kinds, watch::channel(()).0);
        for number in 0..sends {
            assert_eq!(ledger.next(), number);
            ledger.resolve(number, Fate::Confirmed);
        }
        ledger
    }

    fn see(ledger: &mut Ledger, arrivals: &[(u64, u64)]) {
        for &(number, entry) in arrivals {
            ledger.arrive(0, number, "k", MessageId::new(1, entry), Instant::now());
        }
    }

    #[test]
    fn a_confirmed_message_that_did_not_come_is_missing() {
        let mut ledger = ledger(true, 3);
        see(&mut ledger, &[(0, 0), (2, 2)]);
        assert_eq!(ledger.verdict(0), Verdict { arrived: 2, missing: 1, ..Verdict::default() });
        assert_eq!(ledger.missing_numbers(0, 9), [1]);
        // The other subscription has seen nothing.
        assert_eq!(ledger.outstanding(), 1 + 3);
        assert_eq!(ledger.subscriptions[0].out_of_order, 0);
    }

    #[test]
    fn a_redelivery_is_no_double_and_no_disorder() {
        let mut ledger = ledger(true, 3);
        see(&mut ledger, &[(0, 0), (1, 1), (0, 0), (1, 1), (2, 2)]);
        assert_eq!(ledger.verdict(0), Verdict { arrived: 3, ..Verdict::default() });
        assert_eq!((ledger.subscriptions[0].again, ledger.subscriptions[0].out_of_order), (2, 0));
    }

    #[test]
    fn stored_twice_is_doubled_where_deduplication_is_on() {
        for (deduplicated, doubled) in [(true, 1), (false, 0)] {
            let mut ledger = ledger(deduplicated, 2);
            see(&mut ledger, &[(0, 0), (1, 1), (0, 2)]);
            assert_eq!(ledger.verdict(0), Verdict { arrived: 2, missing: 0, stored_twice: 1, doubled });
        }
    }

    #[test]
    fn what_comes_after_everything_was_acknowledged_is_doubled() {
        let mut ledger = ledger(false, 1);
        see(&mut ledger, &[(0, 0)]);
        ledger.settle();
        assert_eq!(ledger.came_back(), 0);
        see(&mut ledger, &[(0, 0)]);
        assert_eq!((ledger.verdict(0).doubled, ledger.came_back()), (1, 1));
    }

    #[test]
    fn a_number_first_seen_after_a_higher_one_of_its_key_is_out_of_order() {
        let mut ledger = ledger(true, 4);
        see(&mut ledger, &[(1, 1), (0, 0)]);
        assert_eq!(ledger.subscriptions[0].out_of_order, 1);
        for (number, key) in [(1, "a"), (0, "b"), (3, "b"), (2, "b")] {
            ledger.arrive(1, number, key, MessageId::new(1, number), Instant::now());
        }
        assert_eq!(ledger.subscriptions[1].out_of_order, 1);
    }

    #[test]
    fn a_send_resolves_once_and_a_failure_is_believed() {
        let mut ledger = ledger(true, 1);
        ledger.resolve(0, Fate::Confirmed);
        assert_eq!(ledger.violations.len(), 1);
        let failed = ledger.next();
        ledger.resolve(failed, Fate::NotStored);
        assert_eq!(ledger.false_failures(), 0);
        see(&mut ledger, &[(failed, 7)]);
        assert_eq!(ledger.false_failures(), 1);
        ledger.arrive(0, 99, "k", MessageId::new(1, 8), Instant::now());
        assert_eq!(ledger.violations.len(), 2);
    }
}
