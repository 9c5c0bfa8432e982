//! Publish and dispatch rates, on the broker's own clock.

use std::time::Duration;

use pulsar_native::broker::{DispatchRate, PolicySet, PublishRate};
use pulsar_native::pb::command_subscribe::SubType;

use crate::support::BrokerHarness;

const SECOND: Duration = Duration::from_secs(1);

fn with_rate(change: impl FnOnce(&mut PolicySet)) -> BrokerHarness {
    let mut harness = BrokerHarness::new();
    assert!(harness.broker.set_namespace_policies("public/default", change));
    harness
}

#[test]
fn delivery_goes_on_each_second_with_what_the_rate_has() {
    for sub_type in [SubType::Exclusive, SubType::Shared, SubType::KeyShared] {
        let mut harness = with_rate(|own| own.subscription_dispatch_rate = Some(DispatchRate::new(2, 0)));
        let (conn, sender) = (harness.connect(), harness.connect());
        harness.producer(sender, 1);
        harness.consumer(conn, 1, sub_type, 10);
        for sequence_id in 0..7 {
            harness.publish(sender, 1, "p", sequence_id, b"hello");
        }
        assert_eq!(harness.entries(conn), [0, 1], "{sub_type:?}");
        harness.advance(SECOND / 2);
        harness.flow(conn, 1, 1);
        assert_eq!(harness.entries(conn), [] as [u64; 0], "{sub_type:?}: a token is there, but not the second");
        harness.advance(SECOND / 2);
        assert_eq!(harness.entries(conn), [2, 3], "{sub_type:?}");
        harness.broker.advance(60 * SECOND);
        assert_eq!(harness.entries(conn), [4, 5], "{sub_type:?}: tokens of one second at most");
        assert!(harness.broker.set_namespace_policies("public/default", |own| own.subscription_dispatch_rate = None));
        harness.advance(SECOND);
        assert_eq!(harness.entries(conn), [6], "{sub_type:?}: lifted");
        harness.assert_clean();
    }
}

#[test]
fn a_topics_rate_is_for_all_its_subscriptions_and_batches_overdraw_it() {
    let mut harness = with_rate(|own| own.dispatch_rate = Some(DispatchRate::new(10, 0)));
    let (conn, sender) = (harness.connect(), harness.connect());
    harness.producer(sender, 1);
    for first in 0..3 {
        harness.publish_batch(sender, 1, "p", first * 10, 10);
    }
    harness.consumer(conn, 1, SubType::Exclusive, 100);
    assert_eq!(harness.entries(conn), [0, 1, 2], "as many entries as there are tokens");
    harness.publish_batch(sender, 1, "p", 30, 10);
    for second in 1..=3 {
        harness.advance(SECOND);
        let expected: &[u64] = if second == 3 { &[3] } else { &[] };
        assert_eq!(harness.entries(conn), expected, "after {second} s");
    }
}

#[test]
fn what_is_published_beyond_the_rate_waits_unread() {
    let mut harness = with_rate(|own| own.publish_rate = Some(PublishRate::new(2, 0)));
    let conn = harness.connect();
    harness.producer(conn, 1);
    for sequence_id in 0..5 {
        harness.publish(conn, 1, "p", sequence_id, b"hello");
    }
    let sent = |harness: &mut BrokerHarness| -> Vec<u64> {
        harness.receipts(conn).iter().map(|receipt| receipt.sequence_id).collect()
    };
    assert_eq!(sent(&mut harness), [0, 1]);
    assert!(harness.broker.reads_paused(conn));
    harness.advance(SECOND / 2);
    assert_eq!(sent(&mut harness), [2], "each token lets one through");
    harness.broker.advance(SECOND / 2);
    assert_eq!(sent(&mut harness), [3]);
    assert!(harness.broker.set_namespace_policies("public/default", |own| own.publish_rate = None));
    harness.advance(SECOND);
    assert_eq!(sent(&mut harness), [4], "lifted");
    assert!(!harness.broker.reads_paused(conn));
    harness.assert_clean();
}
