//! Scenarios that were recorded on a real broker 4.0.8: our answer equals the recorded one, field by field.
//!
//! Only ledger ids, which every broker counts for itself, and free text are left out of the comparison.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use pulsar_native::machine::Now;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, MessageIdData, ProducerAccessMode};
use pulsar_native::wire::{Command, EntryParts, Frame, Metadata, SendHead, frames};
use serde_json::Value;

use crate::support::{BrokerHarness, TOPIC, connect_command, id, id_with, producer_command, subscribe_command};

const VECTORS: &str = include_str!("../wire/vectors.json");

/// The recorded frame of that name.
fn recorded(name: &str) -> Frame {
    static PARSED: OnceLock<Value> = OnceLock::new();
    let vectors = PARSED.get_or_init(|| serde_json::from_str(VECTORS).expect("vectors.json is JSON"));
    let all = vectors["captured"].as_array().expect("a list");
    let vector = all.iter().find(|vector| vector["name"] == name).expect("a vector of that name");
    let hex = vector["hex"].as_str().expect("hex").as_bytes().chunks(2);
    let bytes: Vec<u8> = hex.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    frames(Bytes::from(bytes)).next().expect("a frame").expect("a sound frame")
}

fn recorded_command(name: &str) -> Command {
    match recorded(name) {
        Frame::Other(command) => command,
        other => panic!("{name} is {other:?}"),
    }
}

fn without_ledger(frame: Frame) -> Frame {
    let blank = |ledger: u64| if ledger == u64::MAX { ledger } else { 0 };
    match frame {
        Frame::Receipt(mut receipt) => {
            receipt.ledger_id = blank(receipt.ledger_id);
            Frame::Receipt(receipt)
        }
        Frame::Message { mut head, entry } => {
            head.ledger_id = blank(head.ledger_id);
            Frame::Message { head, entry }
        }
        Frame::Other(Command::GetLastMessageIdResponse(mut response)) => {
            response.last_message_id.ledger_id = blank(response.last_message_id.ledger_id);
            if let Some(mark) = &mut response.consumer_mark_delete_position {
                mark.ledger_id = blank(mark.ledger_id);
            }
            Frame::Other(response.into())
        }
        other => other,
    }
}

/// The frames written for `conn` are exactly the recorded one.
#[track_caller]
fn assert_recorded(harness: &mut BrokerHarness, conn: pulsar_native::broker::machine::ConnId, name: &str) {
    let ours: Vec<Frame> = harness.take(conn).into_iter().map(without_ledger).collect();
    assert_eq!(ours, [without_ledger(recorded(name))], "{name}");
}

/// Publishes the entry of a recorded MESSAGE byte for byte, at the recorded broker time.
fn publish_recorded(
    harness: &mut BrokerHarness,
    conn: pulsar_native::broker::machine::ConnId,
    producer_id: u64,
    name: &str,
) {
    let Frame::Message { entry, .. } = recorded(name) else { panic!("{name} is no MESSAGE") };
    let parts = EntryParts::split(&entry).expect("parts");
    let mut from = 0;
    if let Some(block) = &parts.broker_metadata {
        let broker = pulsar_native::wire::entry::BrokerEntryMetadata::decode(&entry[block.clone()]).expect("block");
        harness.now = Now { wall_ms: broker.broker_timestamp.expect("timestamp"), ..harness.now };
        from = block.end;
    }
    let metadata = Metadata::decode(&entry[parts.metadata]).expect("metadata");
    let mut head = SendHead::new(producer_id, metadata.sequence_id);
    head.num_messages = metadata.num_messages_in_batch.unwrap_or(1);
    harness.publish_entry(conn, &head, &entry[from..]);
    harness.receipts(conn);
}

/// A harness whose clients get broker entry metadata, and a connection that can parse it.
fn with_entry_metadata() -> (BrokerHarness, pulsar_native::broker::machine::ConnId) {
    let mut harness = BrokerHarness::with(|config| config.exposing_broker_entry_metadata_to_client_enabled = true);
    let mut connect = connect_command(21);
    connect.feature_flags = Some(pb::FeatureFlags { supports_broker_entry_metadata: Some(true), ..Default::default() });
    let conn = harness.connect_as(connect);
    (harness, conn)
}

#[test]
fn connected() {
    let mut harness = BrokerHarness::new();
    let conn = harness.dial();
    let Command::Connected(ours) = harness.ask(conn, connect_command(21)) else { panic!("no CONNECTED") };
    let Command::Connected(recorded) = recorded_command("broker408_connected") else { panic!("no CONNECTED") };
    assert_eq!(pb::CommandConnected { server_version: recorded.server_version.clone(), ..ours }, recorded);
}

#[test]
fn wrong_token() {
    let mut harness = BrokerHarness::with(|config| config.token_secret_key = Some(b"secret".to_vec()));
    let conn = harness.dial();
    let mut connect = connect_command(21);
    connect.auth_method_name = Some("token".to_owned());
    connect.auth_data = Some(Bytes::from_static(b"wrong"));
    harness.send(conn, connect);
    assert_recorded(&mut harness, conn, "broker408_error_auth_wrong_token");
    harness.assert_closed(conn);
}

#[test]
fn metadata_of_a_missing_topic() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let request = pb::CommandPartitionedTopicMetadata {
        topic: "missing".to_owned(),
        request_id: 102,
        metadata_auto_creation_enabled: Some(false),
        ..Default::default()
    };
    harness.send(conn, request);
    assert_recorded(&mut harness, conn, "broker408_partitioned_metadata_topic_not_found");
}

#[test]
fn lookup() {
    let mut harness = BrokerHarness::new();
    let Command::LookupResponse(mut expected) = recorded_command("broker408_lookup_connect_standalone") else {
        panic!("no LOOKUP_RESPONSE")
    };
    expected.broker_service_url = Some(crate::support::URL.to_owned());
    let conn = harness.connect();
    let request = pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 101, ..Default::default() };
    assert_eq!(harness.ask(conn, request), expected.into());
}

#[test]
fn producer_conflicts() {
    let topic = "persistent://public/default/pr-425759-1";
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect());
    harness.look_up(a, topic);
    let named = |request_id, id| pb::CommandProducer {
        producer_name: Some("nm".to_owned()),
        ..producer_command(request_id, id, topic)
    };
    harness.ask(a, named(1, 1));
    harness.send(b, named(102, 1));
    assert!(matches!(harness.answer(a), Command::Ping(_)), "the other connection is asked first");
    harness.send(a, pb::CommandPong {});
    assert_recorded(&mut harness, b, "broker408_error_producer_busy");
}

#[test]
fn exclusive_producers() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    let producer = |request_id, id, name: &str, mode: ProducerAccessMode| pb::CommandProducer {
        producer_name: Some(name.to_owned()),
        producer_access_mode: Some(mode.into()),
        ..producer_command(request_id, id, TOPIC)
    };
    let close = |producer_id| pb::CommandCloseProducer { producer_id, request_id: 1, ..Default::default() };
    // The first grant, so that the one below is epoch 1.
    harness.ask(conn, producer(1, 1, "first", ProducerAccessMode::Exclusive));
    harness.ask(conn, close(1));

    harness.ask(conn, producer(2, 2, "shared", ProducerAccessMode::Shared));
    harness.send(conn, producer(108, 3, "standalone-0-52", ProducerAccessMode::WaitForExclusive));
    assert_recorded(&mut harness, conn, "broker408_producer_success_not_ready");
    harness.ask(conn, close(3));

    harness.ask(conn, producer(115, 4, "standalone-0-57", ProducerAccessMode::WaitForExclusive));
    harness.send(conn, close(2));
    let answers = harness.take(conn);
    assert_eq!(answers.first(), Some(&recorded("broker408_producer_success_ready_later")), "{answers:?}");
    harness.ask(conn, close(4));

    harness.ask(conn, producer(3, 5, "standalone-0-62", ProducerAccessMode::Exclusive));
    harness.send(conn, producer(101, 6, "late", ProducerAccessMode::Exclusive));
    assert_recorded(&mut harness, conn, "broker408_error_producer_fenced");
}

#[test]
fn receipts_and_send_errors() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    assert_recorded(&mut harness, conn, "broker408_send_receipt_first");
    harness.publish_entry(conn, &SendHead::new(1, 2), b"\x0e\x01\0\0\0\x01\0\0\0\0");
    assert_recorded(&mut harness, conn, "broker408_send_error_checksum");
    for sequence_id in 3..8 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    harness.receipts(conn);
    harness.publish_batch(conn, 1, "p", 10, 3);
    assert_recorded(&mut harness, conn, "broker408_send_receipt_batch_highest");
}

#[test]
fn deduplication() {
    let mut harness = BrokerHarness::with(|config| config.broker_deduplication_enabled = true);
    let conn = harness.connect();
    harness.producer(conn, 1);
    for sequence_id in 0..3 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    harness.receipts(conn);
    harness.publish(conn, 1, "p", 2, b"x");
    assert_recorded(&mut harness, conn, "broker408_send_receipt_duplicate");
    harness.publish_batch(conn, 1, "p", 10, 3);
    harness.receipts(conn);
    harness.publish_batch(conn, 1, "p", 10, 3);
    assert_recorded(&mut harness, conn, "broker408_send_receipt_duplicate_batch");

    let named = |request_id, id| pb::CommandProducer {
        producer_name: Some("P".to_owned()),
        ..producer_command(request_id, id, TOPIC)
    };
    harness.ask(conn, named(1, 2));
    harness.publish(conn, 2, "P", 31, b"x");
    harness.receipts(conn);
    harness.ask(conn, pb::CommandCloseProducer { producer_id: 2, request_id: 1, ..Default::default() });
    harness.send(conn, named(105, 3));
    assert_recorded(&mut harness, conn, "broker408_producer_success_last_sequence_id");
}

#[test]
fn unload_closes_producers_and_consumers() {
    let mut harness = BrokerHarness::new();
    let (producing, consuming) = (harness.connect(), harness.connect());
    harness.producer(producing, 5);
    harness.consumer(consuming, 6, SubType::Exclusive, 1);
    harness.broker.unload(TOPIC);
    assert_recorded(&mut harness, producing, "broker408_unload_close_producer");
    assert_recorded(&mut harness, consuming, "broker408_unload_close_consumer");
}

#[test]
fn a_transfer_names_the_next_broker() {
    let mut harness = BrokerHarness::new();
    let (producing, consuming) = (harness.connect(), harness.connect());
    harness.producer(producing, 1);
    harness.consumer(consuming, 2, SubType::Exclusive, 1);
    harness.broker.transfer(TOPIC, "pulsar://127.0.0.1:16650");
    assert_recorded(&mut harness, producing, "broker408_transfer_close_producer");
    assert_recorded(&mut harness, consuming, "broker408_transfer_close_consumer");
}

#[test]
fn end_of_topic() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    harness.consumer(conn, 3, SubType::Exclusive, 10);
    harness.take(conn);
    harness.broker.terminate(TOPIC);
    harness.take(conn);
    harness.ack_entry(conn, 3, 0);
    assert_recorded(&mut harness, conn, "broker408_reached_end_of_topic");
}

#[test]
fn a_second_exclusive_consumer() {
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect());
    harness.consumer(a, 1, SubType::Exclusive, 1);
    harness.send(b, subscribe_command(101, 1, SubType::Exclusive));
    harness.take(a);
    harness.send(a, pb::CommandPong {});
    assert_recorded(&mut harness, b, "broker408_error_consumer_busy");
}

#[test]
fn consumer_epoch_is_stamped() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    publish_recorded(&mut harness, conn, 1, "broker408_message_with_consumer_epoch");
    harness.consumer_as(conn, 40, SubType::Exclusive, 1, |subscribe| subscribe.consumer_epoch = Some(3));
    assert_recorded(&mut harness, conn, "broker408_message_with_consumer_epoch");
}

#[test]
fn last_message_id() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Exclusive, 0);
    harness.send(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 140 });
    assert_recorded(&mut harness, conn, "broker408_get_last_message_id_empty");
    harness.publish_batch(conn, 1, "p", 0, 3);
    harness.receipts(conn);
    harness.send(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 143 });
    assert_recorded(&mut harness, conn, "broker408_get_last_message_id_batch");
}

#[test]
fn consumer_stats() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    for sequence_id in 0..5 {
        harness.publish(conn, 1, "p", sequence_id, b"x");
    }
    harness.receipts(conn);
    harness.consumer_as(conn, 1, SubType::Exclusive, 0, |_| ());
    let Command::ConsumerStatsResponse(ours) =
        harness.ask(conn, pb::CommandConsumerStats { request_id: 102, consumer_id: 1 })
    else {
        panic!("no CONSUMER_STATS_RESPONSE")
    };
    let Command::ConsumerStatsResponse(recorded) = recorded_command("broker408_consumer_stats_response") else {
        panic!("no CONSUMER_STATS_RESPONSE")
    };
    let ours = pb::CommandConsumerStatsResponse {
        address: recorded.address.clone(),
        connected_since: recorded.connected_since.clone(),
        ..ours
    };
    assert_eq!(ours, recorded);
}

#[test]
fn ack_responses() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    harness.consumer(conn, 1, SubType::Shared, 10);
    harness.take(conn);
    let ack = |ack_type: AckType, request_id| pb::CommandAck {
        consumer_id: 1,
        ack_type: ack_type.into(),
        message_id: vec![id(1, 0)],
        request_id: Some(request_id),
        ..Default::default()
    };
    harness.send(conn, ack(AckType::Cumulative, 7));
    assert_recorded(&mut harness, conn, "broker408_ack_response_cumulative_shared");
    assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].unacked_messages, 1);
    harness.send(conn, ack(AckType::Individual, 8));
    assert_recorded(&mut harness, conn, "broker408_ack_response");
    assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].unacked_messages, 0);
}

#[test]
fn redelivery_by_id() {
    let (mut harness, conn) = with_entry_metadata();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    publish_recorded(&mut harness, conn, 1, "broker408_message_redelivered");
    harness.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(harness.entries(conn), [0, 1]);
    harness.redeliver(conn, 1, vec![id(1, 1)]);
    assert_recorded(&mut harness, conn, "broker408_message_redelivered");
}

#[test]
fn batch_index_acks() {
    let (mut harness, conn) = with_entry_metadata();
    harness.producer(conn, 1);
    harness.publish_batch(conn, 1, "p", 0, 10);
    harness.receipts(conn);
    publish_recorded(&mut harness, conn, 1, "broker408_message_with_ack_set");
    harness.consumer(conn, 1, SubType::Shared, 100);
    assert_eq!(harness.entries(conn), [0, 1]);
    harness.ack(conn, 1, AckType::Individual, vec![id_with(1, 1, &[0b11_1110_0000])]);
    harness.redeliver(conn, 1, vec![id(1, 1)]);
    match harness.take(conn).pop() {
        Some(Frame::Message { head, entry }) => {
            let Frame::Message { head: recorded, entry: recorded_entry } = recorded("broker408_message_with_ack_set")
            else {
                panic!("no MESSAGE")
            };
            assert_eq!((head.ack_set, entry), (recorded.ack_set, recorded_entry));
            assert_eq!(head.redelivery_count, 1, "it was recorded after a reconnect, here it is by id");
        }
        other => panic!("no MESSAGE: {other:?}"),
    }
}

#[test]
fn broker_entry_metadata() {
    let (mut harness, conn) = with_entry_metadata();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 0, b"x");
    harness.receipts(conn);
    publish_recorded(&mut harness, conn, 1, "broker408_message_broker_entry_metadata");
    harness.consumer(conn, 1, SubType::Exclusive, 1);
    assert_eq!(harness.entries(conn), [0]);
    harness.flow(conn, 1, 1);
    assert_recorded(&mut harness, conn, "broker408_message_broker_entry_metadata");
}

/// SEEK into the middle of the batch of a recorded MESSAGE, then the recorded delivery.
fn seek_into_batch(harness: &mut BrokerHarness, conn: pulsar_native::broker::machine::ConnId, name: &str) {
    harness.producer(conn, 1);
    harness.publish_batch(conn, 1, "p", 0, 10);
    harness.receipts(conn);
    publish_recorded(harness, conn, 1, name);
    harness.consumer(conn, 1, SubType::Exclusive, 0);
    let message_id = MessageIdData { ack_set: vec![0b11_1111_0000], ..id(1, 1) };
    harness.send(
        conn,
        pb::CommandSeek { consumer_id: 1, request_id: 5, message_id: Some(message_id), ..Default::default() },
    );
    let answers = harness.take(conn);
    let close = recorded("broker408_seek_close_consumer");
    let success = Frame::Other(pb::CommandSuccess { request_id: 5, schema: None }.into());
    assert_eq!(answers, [close, success], "CLOSE_CONSUMER comes before SUCCESS");
    harness.consumer(conn, 1, SubType::Exclusive, 1);
    assert_recorded(harness, conn, name);
}

#[test]
fn seek_into_a_batch() {
    let mut off = BrokerHarness::with(|config| config.acknowledgment_at_batch_index_level_enabled = false);
    let conn = off.connect();
    seek_into_batch(&mut off, conn, "broker408_message_after_seek_into_batch_off");
    let (mut on, conn) = with_entry_metadata();
    seek_into_batch(&mut on, conn, "broker408_message_after_seek_into_batch_on");
}

#[test]
fn unsubscribe_beside_another_consumer() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.consumer(conn, 1, SubType::Shared, 0);
    harness.consumer(conn, 2, SubType::Shared, 0);
    harness.send(conn, pb::CommandUnsubscribe { consumer_id: 1, request_id: 103, force: None });
    assert_recorded(&mut harness, conn, "broker408_error_unsubscribe_two_consumers");
}

#[test]
fn topic_lists_and_watchers() {
    let namespace = "public/w426236";
    let mut harness = BrokerHarness::with(|config| {
        config.namespaces.insert("public/w426236".to_owned());
    });
    let conn = harness.connect();
    let make = |harness: &mut BrokerHarness, producer_id, local: &str| {
        let topic = format!("persistent://{namespace}/{local}");
        harness.producer_on(conn, producer_id, &topic);
    };
    make(&mut harness, 1, "a1");
    make(&mut harness, 2, "a2");
    let watch = |request_id, watcher_id| pb::CommandWatchTopicList {
        request_id,
        watcher_id,
        namespace: namespace.to_owned(),
        topics_pattern: format!("{namespace}/a.*"),
        topics_hash: None,
    };
    harness.send(conn, watch(101, 1));
    assert_recorded(&mut harness, conn, "broker408_watch_topic_list_success");

    make(&mut harness, 3, "b1");
    assert!(harness.broker.create_partitioned_topic("persistent://public/w426236/p1", 2));
    let list = |request_id, hash: Option<&str>| pb::CommandGetTopicsOfNamespace {
        request_id,
        namespace: namespace.to_owned(),
        topics_hash: hash.map(str::to_owned),
        ..Default::default()
    };
    harness.send(conn, list(113, None));
    assert_recorded(&mut harness, conn, "broker408_get_topics_response");
    harness.send(conn, list(116, Some("f2143dfb")));
    assert_recorded(&mut harness, conn, "broker408_get_topics_response_unchanged");

    let watching = harness.connect();
    harness.ask(watching, watch(1, 3));
    let topic = format!("persistent://{namespace}/a3");
    harness.look_up(conn, &topic);
    harness.send(conn, producer_command(9, 9, &topic));
    assert_recorded(&mut harness, watching, "broker408_watch_topic_update_new");
    harness.broker.delete_topic(&topic);
    assert_recorded(&mut harness, watching, "broker408_watch_topic_update_deleted");
}

#[test]
fn failover_notices() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.consumer(conn, 1, SubType::Failover, 0);
    harness.advance(Duration::from_millis(999));
    assert_eq!(harness.take(conn), []);
    harness.advance(Duration::from_millis(1));
    assert_recorded(&mut harness, conn, "broker408_active_consumer_change_true");
    let mut lower = subscribe_command(7, 2, SubType::Failover);
    lower.priority_level = Some(1);
    harness.send(conn, lower);
    let success = Frame::Other(pb::CommandSuccess { request_id: 7, schema: None }.into());
    assert_eq!(harness.take(conn), [recorded("broker408_active_consumer_change_false"), success]);
}

#[test]
fn refresh_challenge() {
    let mut harness = BrokerHarness::with(|config| config.token_secret_key = Some(b"secret".to_vec()));
    let mut connect = connect_command(21);
    connect.auth_method_name = Some("token".to_owned());
    connect.auth_data = harness.broker.mint_token("admin", Some(Duration::from_secs(30))).map(Into::into);
    connect.feature_flags = Some(pb::FeatureFlags { supports_auth_refresh: Some(true), ..Default::default() });
    let conn = harness.connect_as(connect);
    harness.advance(Duration::from_secs(59));
    harness.send(conn, pb::CommandPong {});
    harness.take(conn);
    harness.advance(Duration::from_secs(1));
    let frames = harness.take(conn);
    assert!(frames.contains(&recorded("broker408_auth_challenge_refresh")), "{frames:?}");
}

/// What the recorded schema adds a field to.
const ONE_FIELD: &[u8] = br#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;

#[test]
fn schemas() {
    let topic = "persistent://public/default/sc-426200-1";
    let Command::GetSchemaResponse(latest) = recorded_command("broker408_get_schema_response") else {
        panic!("no GET_SCHEMA_RESPONSE")
    };
    let second = latest.schema.clone().expect("a schema");
    let first = pb::Schema { schema_data: Bytes::from_static(ONE_FIELD), name: String::new(), ..second.clone() };
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.look_up(conn, topic);
    let producer = pb::CommandProducer {
        producer_name: Some("standalone-0-124".to_owned()),
        schema: Some(first.clone()),
        ..producer_command(102, 1, topic)
    };
    harness.send(conn, producer);
    assert_recorded(&mut harness, conn, "broker408_producer_success_schema_version");
    let register = |request_id, schema| pb::CommandGetOrCreateSchema { request_id, topic: topic.to_owned(), schema };
    harness.send(conn, register(105, first));
    assert_recorded(&mut harness, conn, "broker408_get_or_create_schema_response");
    harness.ask(conn, register(106, second));
    harness.send(conn, pb::CommandGetSchema { request_id: 113, topic: topic.to_owned(), schema_version: None });
    assert_recorded(&mut harness, conn, "broker408_get_schema_response");
}
