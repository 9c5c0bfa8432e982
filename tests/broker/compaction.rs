//! Compaction: what `read_compacted` gets, as Pulsar 4.0.8 delivered it for the same messages.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pulsar_native::broker::RetentionPolicies;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData};
use pulsar_native::wire::metadata::{MetadataFields, SingleFields};
use pulsar_native::wire::{BatchCursor, Command, EntryParts, SendHead, put_record};

use crate::support::{BrokerHarness, TOPIC, id};

/// Keys and values. An empty value outside of a batch takes its key out only with `uncompressed_size`, which is not there.
const SINGLE: [(Option<&str>, &str); 8] = [
    (Some("a"), "1"),
    (Some("b"), "2"),
    (Some("a"), "3"),
    (None, "4"),
    (Some("b"), ""),
    (Some("c"), "5"),
    (Some("d"), "x"),
    (Some("d"), ""),
];

fn with_messages() -> (BrokerHarness, ConnId) {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    for (sequence_id, (key, value)) in (0..).zip(SINGLE) {
        harness.publish_keyed(conn, 1, "p", sequence_id, key, value.as_bytes());
    }
    harness.receipts(conn);
    (harness, conn)
}

fn batch(harness: &mut BrokerHarness, conn: ConnId, first: u64, messages: &[(Option<&str>, &str)]) {
    let mut payload = BytesMut::new();
    for (sequence_id, (key, value)) in (first..).zip(messages) {
        let single = SingleFields {
            sequence_id: Some(sequence_id),
            partition_key: *key,
            payload_size: value.len() as i32,
            ..Default::default()
        };
        put_record(&mut payload, &single, value.as_bytes());
    }
    let metadata = MetadataFields {
        producer_name: "p",
        sequence_id: first,
        publish_time_ms: harness.now.wall_ms,
        num_messages_in_batch: Some(messages.len() as i32),
        ..Default::default()
    };
    let head = SendHead { num_messages: messages.len() as i32, ..SendHead::new(1, first) };
    harness.publish_metadata(conn, &head, &metadata, &payload);
    harness.receipts(conn);
}

/// A reader of the compacted view, from the beginning.
fn reader(harness: &mut BrokerHarness, conn: ConnId, consumer_id: u64) -> Vec<(u64, Bytes)> {
    harness.consumer_as(conn, consumer_id, SubType::Exclusive, 100, |subscribe| {
        subscribe.subscription = format!("reader-{consumer_id}");
        subscribe.read_compacted = Some(true);
    });
    delivered(harness, conn)
}

/// Entry ids and payloads.
fn delivered(harness: &mut BrokerHarness, conn: ConnId) -> Vec<(u64, Bytes)> {
    let payload = |entry: &Bytes| entry.slice(EntryParts::split(entry).expect("parts").payload);
    harness.messages(conn).iter().map(|(head, entry)| (head.entry_id, payload(entry))).collect()
}

fn last_message_id(harness: &mut BrokerHarness, conn: ConnId, consumer_id: u64) -> MessageIdData {
    match harness.ask(conn, pb::CommandGetLastMessageId { consumer_id, request_id: 1 }) {
        Command::GetLastMessageIdResponse(response) => response.last_message_id,
        other => panic!("no last id: {other:?}"),
    }
}

#[test]
fn the_last_value_of_each_key_is_left_and_then_what_came_later() {
    let (mut harness, conn) = with_messages();
    assert!(harness.broker.compact(TOPIC));
    harness.publish_keyed(conn, 1, "p", 8, Some("c"), b"6");
    harness.receipts(conn);
    let view = [(2, "3".into()), (4, Bytes::new()), (5, "5".into()), (7, Bytes::new()), (8, "6".into())];
    assert_eq!(reader(&mut harness, conn, 1), view);
    harness.consumer_as(conn, 2, SubType::Exclusive, 100, |subscribe| subscribe.subscription = "all".to_owned());
    assert_eq!(delivered(&mut harness, conn).len(), 9, "others get everything");
    harness.assert_clean();
}

#[test]
fn the_last_message_is_the_last_of_the_view_if_nothing_came_later() {
    let (mut harness, conn) = with_messages();
    reader(&mut harness, conn, 1);
    assert_eq!(last_message_id(&mut harness, conn, 1).entry_id, 7);
    harness.publish_keyed(conn, 1, "p", 8, None, b"6");
    harness.take(conn);
    assert_eq!(last_message_id(&mut harness, conn, 1).entry_id, 8);
    assert!(harness.broker.compact(TOPIC));
    assert_eq!(last_message_id(&mut harness, conn, 1).entry_id, 7);
    harness.publish_keyed(conn, 1, "p", 9, None, b"7");
    harness.take(conn);
    assert_eq!(last_message_id(&mut harness, conn, 1).entry_id, 9);
}

#[test]
fn of_a_batch_what_is_left_out_becomes_a_placeholder() {
    let (mut harness, conn) = with_messages();
    batch(&mut harness, conn, 8, &[(Some("a"), "11"), (Some("e"), "6"), (Some("a"), "12"), (None, "nk")]);
    batch(&mut harness, conn, 12, &[(Some("a"), "13"), (Some("e"), "")]);
    assert!(harness.broker.compact(TOPIC));
    assert!(harness.broker.compact(TOPIC), "again, over the view");
    let view = reader(&mut harness, conn, 1);
    assert_eq!(view.iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), [4, 5, 7, 9]);
    let records = &view[3].1;
    let mut cursor = BatchCursor::new(2, records.len()).expect("a batch");
    let kept = cursor.next(records).expect("one").expect("sound");
    assert_eq!((&records[kept.payload], kept.metadata.compacted_out), (&b"13"[..], false));
    let placeholder = cursor.next(records).expect("two").expect("sound");
    assert_eq!((placeholder.payload.len(), placeholder.metadata.compacted_out), (0, true));
    let last = last_message_id(&mut harness, conn, 1);
    assert_eq!((last.entry_id, last.batch_index), (9, Some(0)));
}

#[test]
fn the_view_stays_when_the_log_is_dropped() {
    let (mut harness, conn) = with_messages();
    assert!(harness.broker.compact(TOPIC));
    harness.broker.unload(TOPIC);
    harness.take(conn);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.retention = Some(RetentionPolicies::new(0, 0))));
    harness.broker.advance(Duration::from_secs(60));
    assert_eq!(harness.broker.stats(TOPIC).expect("the topic").entries, 0);
    let view = reader(&mut harness, conn, 1);
    assert_eq!(view.iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), [2, 4, 5, 7]);
    harness.ack(conn, 1, AckType::Cumulative, vec![id(1, 7)]);
    harness.assert_clean();
    assert!(!harness.broker.compact("persistent://public/default/none"));
}

/// As of a real broker, which keeps for the next compaction what the last one has not seen.
#[test]
fn what_is_not_compacted_yet_is_not_dropped() {
    let (mut harness, conn) = with_messages();
    assert!(harness.broker.compact(TOPIC));
    harness.publish_keyed(conn, 1, "p", 8, Some("c"), b"6");
    harness.take(conn);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.retention = Some(RetentionPolicies::new(0, 0))));
    harness.broker.advance(Duration::from_secs(60));
    assert_eq!(harness.broker.stats(TOPIC).expect("the topic").entries, 1);
    assert!(harness.broker.compact(TOPIC));
    harness.broker.advance(Duration::from_secs(60));
    assert_eq!(harness.broker.stats(TOPIC).expect("the topic").entries, 0);
    let view: Vec<_> = reader(&mut harness, conn, 1).into_iter().map(|(entry, _)| entry).collect();
    assert_eq!(view, [2, 4, 7, 8]);
}

#[test]
fn a_message_said_to_be_empty_takes_its_key_out_and_a_batch_stays() {
    let (mut harness, conn) = with_messages();
    let metadata = MetadataFields {
        producer_name: "p",
        sequence_id: 8,
        publish_time_ms: harness.now.wall_ms,
        partition_key: Some("a"),
        is_empty: true,
        ..Default::default()
    };
    harness.publish_metadata(conn, &SendHead::new(1, 8), &metadata, b"");
    let metadata = MetadataFields {
        sequence_id: 9,
        partition_key: None,
        is_empty: false,
        // No codec has this number.
        compression: 77,
        uncompressed_size: 9,
        num_messages_in_batch: Some(1),
        ..metadata
    };
    harness.publish_metadata(conn, &SendHead { num_messages: 1, ..SendHead::new(1, 9) }, &metadata, b"packed");
    harness.take(conn);
    assert!(harness.broker.compact(TOPIC));
    let view: Vec<_> = reader(&mut harness, conn, 1).into_iter().map(|(entry, _)| entry).collect();
    assert_eq!(view, [4, 5, 7, 9]);
}
