//! The log by which the chaos test judges a run: what it calls missing, doubled and out of order.

use std::time::Instant;

use pulsar_native::{MessageId, SubscriptionType};
use tokio::sync::watch;

use crate::deliveries::{DeliveryLog, SendState, Verdict};

fn log(deduplicated: bool, sends: u64) -> DeliveryLog {
    let kinds = [SubscriptionType::Exclusive, SubscriptionType::KeyShared];
    let mut log = DeliveryLog::new(deduplicated, &kinds, watch::channel(()).0);
    for number in 0..sends {
        assert_eq!(log.next(), number);
        log.resolve(number, SendState::Confirmed);
    }
    log
}

fn see(log: &mut DeliveryLog, arrivals: &[(u64, u64)]) {
    for &(number, entry) in arrivals {
        log.arrive(0, number, "k", MessageId::new(1, entry), Instant::now());
    }
}

#[test]
fn a_confirmed_message_that_did_not_come_is_missing() {
    let mut log = log(true, 3);
    see(&mut log, &[(0, 0), (2, 2)]);
    assert_eq!(log.verdict(0), Verdict { arrived: 2, missing: 1, ..Verdict::default() });
    assert_eq!(log.missing_numbers(0, 9), [1]);
    // The other subscription has seen nothing.
    assert_eq!(log.outstanding(), 1 + 3);
    assert_eq!(log.subscriptions[0].out_of_order, 0);
}

#[test]
fn a_redelivery_is_neither_a_duplicate_nor_out_of_order() {
    let mut log = log(true, 3);
    see(&mut log, &[(0, 0), (1, 1), (0, 0), (1, 1), (2, 2)]);
    assert_eq!(log.verdict(0), Verdict { arrived: 3, ..Verdict::default() });
    assert_eq!((log.subscriptions[0].again, log.subscriptions[0].out_of_order), (2, 0));
}

#[test]
fn stored_twice_is_doubled_where_deduplication_is_on() {
    for (deduplicated, doubled) in [(true, 1), (false, 0)] {
        let mut log = log(deduplicated, 2);
        see(&mut log, &[(0, 0), (1, 1), (0, 2)]);
        assert_eq!(log.verdict(0), Verdict { arrived: 2, missing: 0, stored_twice: 1, doubled });
    }
}

#[test]
fn what_comes_after_everything_was_acknowledged_is_doubled() {
    let mut log = log(false, 1);
    see(&mut log, &[(0, 0)]);
    log.settle();
    assert_eq!(log.came_back(), 0);
    see(&mut log, &[(0, 0)]);
    assert_eq!((log.verdict(0).doubled, log.came_back()), (1, 1));
}

#[test]
fn a_number_first_seen_after_a_higher_one_of_its_key_is_out_of_order() {
    let mut log = log(true, 4);
    see(&mut log, &[(1, 1), (0, 0)]);
    assert_eq!(log.subscriptions[0].out_of_order, 1);
    for (number, key) in [(1, "a"), (0, "b"), (3, "b"), (2, "b")] {
        log.arrive(1, number, key, MessageId::new(1, number), Instant::now());
    }
    assert_eq!(log.subscriptions[1].out_of_order, 1);
}

#[test]
fn a_second_resolution_and_a_false_failure_are_violations() {
    let mut log = log(true, 1);
    log.resolve(0, SendState::Confirmed);
    assert_eq!(log.violations.len(), 1);
    let failed = log.next();
    log.resolve(failed, SendState::NotStored);
    assert_eq!(log.false_failures(), 0);
    see(&mut log, &[(failed, 7)]);
    assert_eq!(log.false_failures(), 1);
    log.arrive(0, 99, "k", MessageId::new(1, 8), Instant::now());
    assert_eq!(log.violations.len(), 2);
}
