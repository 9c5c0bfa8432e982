//! Key_Shared: which consumer gets a key, and when a key has to wait.

use pulsar_native::broker::machine::ConnId;
use pulsar_native::hash::murmur3_32;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, IntRange, KeySharedMeta, KeySharedMode};
use pulsar_native::wire::EntryParts;
use pulsar_native::wire::metadata::{Metadata, text};

use crate::support::BrokerHarness;

fn publish_keys(harness: &mut BrokerHarness, conn: ConnId, first: u64, keys: &[&str]) {
    for (index, key) in keys.iter().enumerate() {
        harness.publish_keyed(conn, 1, "p", first + index as u64, Some(key), b"x");
    }
    harness.receipts(conn);
}

/// Keys of the messages delivered, in order, with their entry ids.
fn delivered(harness: &mut BrokerHarness, conn: ConnId) -> Vec<(String, u64)> {
    let key = |entry: &[u8]| {
        let metadata = &entry[EntryParts::split(entry).expect("parts").metadata];
        let parsed = Metadata::decode(metadata).expect("metadata");
        text(metadata, &parsed.partition_key.expect("a key")).to_owned()
    };
    harness.messages(conn).iter().map(|(head, entry)| (key(entry), head.entry_id)).collect()
}

fn sticky(harness: &mut BrokerHarness, conn: ConnId, id: u64, start: i32, end: i32) {
    harness.consumer_as(conn, id, SubType::KeyShared, 100, |subscribe| {
        subscribe.key_shared_meta = Some(KeySharedMeta {
            key_shared_mode: KeySharedMode::Sticky.into(),
            hash_ranges: vec![IntRange { start, end }],
            allow_out_of_order_delivery: None,
        });
    });
}

#[test]
fn a_sticky_range_of_one_slot_gets_exactly_the_keys_of_that_slot() {
    for key in ["a", "order-7", "Zürich"] {
        let slot = (murmur3_32(key.as_bytes()) % 65_536).max(1) as i32;
        let mut harness = BrokerHarness::new();
        let (conn, owner, rest) = (harness.connect(), harness.connect(), harness.connect());
        harness.producer(conn, 1);
        sticky(&mut harness, owner, 1, slot, slot);
        sticky(&mut harness, rest, 2, slot + 1, 65_535);
        publish_keys(&mut harness, conn, 0, &[key]);
        assert_eq!(delivered(&mut harness, owner), [(key.to_owned(), 0)]);
        assert_eq!(delivered(&mut harness, rest), []);
    }
}

#[test]
fn keys_outside_all_ranges_are_not_delivered() {
    let slot = (murmur3_32(b"a") % 65_536) as i32;
    let mut harness = BrokerHarness::new();
    let (conn, other, owner) = (harness.connect(), harness.connect(), harness.connect());
    harness.producer(conn, 1);
    sticky(&mut harness, other, 1, slot + 1, slot + 1);
    publish_keys(&mut harness, conn, 0, &["a"]);
    assert_eq!(delivered(&mut harness, other), []);
    sticky(&mut harness, owner, 2, slot, slot);
    assert_eq!(delivered(&mut harness, owner), [("a".to_owned(), 0)]);
}

#[test]
fn each_key_has_one_consumer_and_keeps_its_order() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let consumers = [harness.connect(), harness.connect(), harness.connect()];
    for (id, consumer) in consumers.into_iter().enumerate() {
        harness.consumer(consumer, id as u64, SubType::KeyShared, 1_000);
    }
    let names: Vec<String> = (0..300).map(|index| format!("key-{}", index % 30)).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    publish_keys(&mut harness, conn, 0, &keys);
    let mut seen = std::collections::BTreeMap::new();
    let mut total = 0;
    for consumer in consumers {
        let messages = delivered(&mut harness, consumer);
        assert!(!messages.is_empty(), "thirty keys over three consumers");
        total += messages.len();
        for (key, entry) in messages {
            let (owner, last) = seen.insert(key.clone(), (consumer, entry)).unwrap_or((consumer, 0));
            assert_eq!(owner, consumer, "{key} moved");
            assert!(entry >= last, "{key} out of order");
        }
    }
    assert_eq!(total, 300);
    harness.assert_clean();
}

/// A first consumer holds one message of each key unacknowledged; a second one joins and more messages come.
fn second_joins(out_of_order: bool) -> (BrokerHarness, ConnId, ConnId, Vec<(String, u64)>) {
    let mut harness = BrokerHarness::new();
    let (conn, a, b) = (harness.connect(), harness.connect(), harness.connect());
    harness.producer(conn, 1);
    let policy = |name: &'static str| {
        move |subscribe: &mut pb::CommandSubscribe| {
            subscribe.consumer_name = Some(name.to_owned());
            subscribe.key_shared_meta = Some(KeySharedMeta {
                key_shared_mode: KeySharedMode::AutoSplit.into(),
                hash_ranges: Vec::new(),
                allow_out_of_order_delivery: Some(out_of_order),
            });
        }
    };
    harness.consumer_as(a, 1, SubType::KeyShared, 1_000, policy("a"));
    let names: Vec<String> = (0..20).map(|index| format!("key-{index}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    publish_keys(&mut harness, conn, 0, &keys);
    let held = delivered(&mut harness, a);
    assert_eq!(held.len(), 20);
    harness.consumer_as(b, 2, SubType::KeyShared, 1_000, policy("b"));
    publish_keys(&mut harness, conn, 20, &keys);
    (harness, a, b, held)
}

#[test]
fn keys_that_move_wait_until_their_old_consumer_has_acknowledged_them() {
    let (mut harness, a, b, held) = second_joins(false);
    let staying = delivered(&mut harness, a);
    assert!(!staying.is_empty() && staying.len() < 20, "keys that stay flow on: {}", staying.len());
    assert_eq!(delivered(&mut harness, b), [], "keys that move are held");
    for (_, entry) in held {
        harness.ack_entry(a, 1, entry);
    }
    let moved = delivered(&mut harness, b);
    assert_eq!(moved.len() + staying.len(), 20);
    harness.assert_clean();
}

#[test]
fn with_out_of_order_delivery_they_do_not_wait() {
    let (mut harness, a, b, _) = second_joins(true);
    let (staying, moved) = (delivered(&mut harness, a), delivered(&mut harness, b));
    assert!(!moved.is_empty());
    assert_eq!(moved.len() + staying.len(), 20);
}

#[test]
fn a_key_without_permits_holds_up_its_own_messages_only() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let (a, b) = (harness.connect(), harness.connect());
    harness.consumer(a, 1, SubType::KeyShared, 0);
    harness.consumer(b, 2, SubType::KeyShared, 1_000);
    let names: Vec<String> = (0..20).map(|index| format!("key-{index}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    publish_keys(&mut harness, conn, 0, &keys);
    let free = delivered(&mut harness, b).len();
    assert!(free > 0 && free < 20);
    harness.flow(a, 1, 1_000);
    let late = delivered(&mut harness, a);
    assert_eq!(late.len() + free, 20);
    assert!(late.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

#[test]
fn keys_are_divided_into_ranges_where_the_settings_say_so() {
    let mut harness = BrokerHarness::with(|config| config.subscription_key_shared_use_consistent_hashing = false);
    let conn = harness.connect();
    harness.producer(conn, 1);
    let consumers = [0, 1, 2].map(|_| harness.connect());
    for (id, consumer) in (1..).zip(consumers) {
        harness.consumer(consumer, id, SubType::KeyShared, 1_000);
    }
    let keys: Vec<_> = (0..100).map(|index| format!("k{index}")).collect();
    publish_keys(&mut harness, conn, 0, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    // As Pulsar 4.0.8 shows them in `keyHashRangeArrays`.
    let ranges = [32_769..=65_536, 16_385..=32_768, 0..=16_384];
    for (consumer, range) in consumers.into_iter().zip(ranges) {
        let delivered = delivered(&mut harness, consumer);
        assert!(delivered.len() > 10, "{range:?}: {delivered:?}");
        for (key, _) in delivered {
            assert!(range.contains(&(murmur3_32(key.as_bytes()) % 65_536)), "{key} is not in {range:?}");
        }
    }
}
