//! What was sent, what became of it, and what each subscription saw: the log of the chaos test. `tests/project/` tests it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pulsar_native::{MessageId, SubscriptionType};
use tokio::sync::watch;

/// What became of a send.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum SendState {
    Open,
    Confirmed,
    /// Failed, and it is not known whether it is stored.
    Unknown,
    /// Failed, and the client says that it is not stored.
    NotStored,
}

/// One topic: its sends, numbered from 0, and its subscriptions.
pub(crate) struct DeliveryLog {
    deduplicated: bool,
    sends: Vec<SendState>,
    confirmed: u64,
    pub(crate) subscriptions: Vec<Seen>,
    /// What must never happen and fits no column.
    pub(crate) violations: Vec<String>,
    /// Told of each send that is resolved and each message that arrives.
    changed: watch::Sender<()>,
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

/// The columns of a subscription, computed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) arrived: u64,
    pub(crate) missing: u64,
    pub(crate) stored_twice: u64,
    pub(crate) doubled: u64,
}

impl DeliveryLog {
    pub(crate) fn new(deduplicated: bool, kinds: &[SubscriptionType], changed: watch::Sender<()>) -> Self {
        let subscriptions = kinds.iter().copied().map(Seen::new).collect();
        Self { deduplicated, sends: Vec::new(), confirmed: 0, subscriptions, violations: Vec::new(), changed }
    }

    /// The number of the next message.
    pub(crate) fn next(&mut self) -> u64 {
        self.sends.push(SendState::Open);
        self.sends.len() as u64 - 1
    }

    pub(crate) fn resolve(&mut self, number: u64, state: SendState) {
        let slot = &mut self.sends[number as usize];
        if *slot != SendState::Open {
            self.violations.push(format!("send {number} was resolved twice"));
        }
        *slot = state;
        if state == SendState::Confirmed {
            self.confirmed += 1;
            for seen in &mut self.subscriptions {
                seen.confirmed += u64::from(seen.places.contains_key(&number));
            }
        }
        self.changed.send_replace(());
    }

    pub(crate) fn arrive(&mut self, subscription: usize, number: u64, key: &str, id: MessageId, now: Instant) {
        if number >= self.sends.len() as u64 {
            self.violations.push(format!("{number} arrived and was never sent"));
            return;
        }
        let confirmed = self.sends[number as usize] == SendState::Confirmed;
        self.subscriptions[subscription].arrive(number, confirmed, key, id, now);
        self.changed.send_replace(());
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

    pub(crate) fn count(&self, state: SendState) -> u64 {
        self.sends.iter().filter(|&&found| found == state).count() as u64
    }

    /// How many confirmed messages the subscription has not seen.
    pub(crate) fn missing(&self, subscription: usize) -> u64 {
        let places = &self.subscriptions[subscription].places;
        let missing = |(number, state): &(usize, &SendState)| {
            **state == SendState::Confirmed && !places.contains_key(&(*number as u64))
        };
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
        let false_failure =
            |(number, state): &(usize, &SendState)| **state == SendState::NotStored && arrived(*number as u64);
        self.sends.iter().enumerate().filter(false_failure).count() as u64
    }

    pub(crate) fn missing_numbers(&self, subscription: usize, max: usize) -> Vec<u64> {
        let places = &self.subscriptions[subscription].places;
        let confirmed = |number: &u64| self.sends[*number as usize] == SendState::Confirmed;
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
