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

use crate::support::{TOPIC, World, connect_command, id, id_with, producer_command, subscribe_command};

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
fn assert_recorded(world: &mut World, conn: pulsar_native::broker::machine::ConnId, name: &str) {
    let ours: Vec<Frame> = world.take(conn).into_iter().map(without_ledger).collect();
    assert_eq!(ours, [without_ledger(recorded(name))], "{name}");
}

/// Publishes the entry of a recorded MESSAGE byte for byte, at the recorded broker time.
fn publish_recorded(world: &mut World, conn: pulsar_native::broker::machine::ConnId, producer_id: u64, name: &str) {
    let Frame::Message { entry, .. } = recorded(name) else { panic!("{name} is no MESSAGE") };
    let parts = EntryParts::split(&entry).expect("parts");
    let mut from = 0;
    if let Some(block) = &parts.broker_metadata {
        let broker = pulsar_native::wire::entry::BrokerEntryMetadata::decode(&entry[block.clone()]).expect("block");
        world.now = Now { wall_ms: broker.broker_timestamp.expect("timestamp"), ..world.now };
        from = block.end;
    }
    let metadata = Metadata::parse(&entry[parts.metadata]).expect("metadata");
    let mut head = SendHead::new(producer_id, metadata.sequence_id);
    head.num_messages = metadata.num_messages_in_batch.unwrap_or(1);
    world.publish_entry(conn, &head, &entry[from..]);
    world.receipts(conn);
}

/// A world whose clients get broker entry metadata, and a connection that can parse it.
fn with_entry_metadata() -> (World, pulsar_native::broker::machine::ConnId) {
    let mut world = World::with(|config| config.broker_entry_metadata = true);
    let mut connect = connect_command(21);
    connect.feature_flags = Some(pb::FeatureFlags { supports_broker_entry_metadata: Some(true), ..Default::default() });
    let conn = world.connect_as(connect);
    (world, conn)
}

#[test]
fn connected() {
    let mut world = World::new();
    let conn = world.dial();
    let Command::Connected(ours) = world.ask(conn, connect_command(21)) else { panic!("no CONNECTED") };
    let Command::Connected(recorded) = recorded_command("broker408_connected") else { panic!("no CONNECTED") };
    assert_eq!(pb::CommandConnected { server_version: recorded.server_version.clone(), ..ours }, recorded);
}

#[test]
fn wrong_token() {
    let mut world = World::with(|config| config.token_key = Some(b"secret".to_vec()));
    let conn = world.dial();
    let mut connect = connect_command(21);
    connect.auth_method_name = Some("token".to_owned());
    connect.auth_data = Some(Bytes::from_static(b"wrong"));
    world.send(conn, connect);
    assert_recorded(&mut world, conn, "broker408_error_auth_wrong_token");
    world.assert_closed(conn);
}

#[test]
fn metadata_of_a_missing_topic() {
    let mut world = World::new();
    let conn = world.connect();
    let request = pb::CommandPartitionedTopicMetadata {
        topic: "missing".to_owned(),
        request_id: 102,
        metadata_auto_creation_enabled: Some(false),
        ..Default::default()
    };
    world.send(conn, request);
    assert_recorded(&mut world, conn, "broker408_partitioned_metadata_topic_not_found");
}

#[test]
fn lookup() {
    let mut world = World::new();
    let Command::LookupResponse(mut expected) = recorded_command("broker408_lookup_connect_standalone") else {
        panic!("no LOOKUP_RESPONSE")
    };
    expected.broker_service_url = Some(crate::support::URL.to_owned());
    let conn = world.connect();
    let request = pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 101, ..Default::default() };
    assert_eq!(world.ask(conn, request), expected.into());
}

#[test]
fn producer_conflicts() {
    let topic = "persistent://public/default/pr-425759-1";
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.look_up(a, topic);
    let named = |request_id, id| pb::CommandProducer {
        producer_name: Some("nm".to_owned()),
        ..producer_command(request_id, id, topic)
    };
    world.ask(a, named(1, 1));
    world.send(b, named(102, 1));
    assert!(matches!(world.answer(a), Command::Ping(_)), "the other connection is asked first");
    world.send(a, pb::CommandPong {});
    assert_recorded(&mut world, b, "broker408_error_producer_busy");
}

#[test]
fn exclusive_producers() {
    let mut world = World::new();
    let conn = world.connect();
    world.look_up(conn, TOPIC);
    let producer = |request_id, id, name: &str, mode: ProducerAccessMode| pb::CommandProducer {
        producer_name: Some(name.to_owned()),
        producer_access_mode: Some(mode.into()),
        ..producer_command(request_id, id, TOPIC)
    };
    let close = |producer_id| pb::CommandCloseProducer { producer_id, request_id: 1, ..Default::default() };
    // The first grant, so that the one below is epoch 1.
    world.ask(conn, producer(1, 1, "first", ProducerAccessMode::Exclusive));
    world.ask(conn, close(1));

    world.ask(conn, producer(2, 2, "shared", ProducerAccessMode::Shared));
    world.send(conn, producer(108, 3, "standalone-0-52", ProducerAccessMode::WaitForExclusive));
    assert_recorded(&mut world, conn, "broker408_producer_success_not_ready");
    world.ask(conn, close(3));

    world.ask(conn, producer(115, 4, "standalone-0-57", ProducerAccessMode::WaitForExclusive));
    world.send(conn, close(2));
    let answers = world.take(conn);
    assert_eq!(answers.first(), Some(&recorded("broker408_producer_success_ready_later")), "{answers:?}");
    world.ask(conn, close(4));

    world.ask(conn, producer(3, 5, "standalone-0-62", ProducerAccessMode::Exclusive));
    world.send(conn, producer(101, 6, "late", ProducerAccessMode::Exclusive));
    assert_recorded(&mut world, conn, "broker408_error_producer_fenced");
}

#[test]
fn receipts_and_send_errors() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 0, b"x");
    assert_recorded(&mut world, conn, "broker408_send_receipt_first");
    world.publish_entry(conn, &SendHead::new(1, 2), b"\x0e\x01\0\0\0\x01\0\0\0\0");
    assert_recorded(&mut world, conn, "broker408_send_error_checksum");
    for sequence_id in 3..8 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
    world.publish_batch(conn, 1, "p", 10, 3);
    assert_recorded(&mut world, conn, "broker408_send_receipt_batch_highest");
}

#[test]
fn deduplication() {
    let mut world = World::with(|config| config.deduplication = true);
    let conn = world.connect();
    world.producer(conn, 1);
    for sequence_id in 0..3 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
    world.publish(conn, 1, "p", 2, b"x");
    assert_recorded(&mut world, conn, "broker408_send_receipt_duplicate");
    world.publish_batch(conn, 1, "p", 10, 3);
    world.receipts(conn);
    world.publish_batch(conn, 1, "p", 10, 3);
    assert_recorded(&mut world, conn, "broker408_send_receipt_duplicate_batch");

    let named = |request_id, id| pb::CommandProducer {
        producer_name: Some("P".to_owned()),
        ..producer_command(request_id, id, TOPIC)
    };
    world.ask(conn, named(1, 2));
    world.publish(conn, 2, "P", 31, b"x");
    world.receipts(conn);
    world.ask(conn, pb::CommandCloseProducer { producer_id: 2, request_id: 1, ..Default::default() });
    world.send(conn, named(105, 3));
    assert_recorded(&mut world, conn, "broker408_producer_success_last_sequence_id");
}

#[test]
fn unload_closes_producers_and_consumers() {
    let mut world = World::new();
    let (producing, consuming) = (world.connect(), world.connect());
    world.producer(producing, 5);
    world.consumer(consuming, 6, SubType::Exclusive, 1);
    world.broker.unload(TOPIC);
    assert_recorded(&mut world, producing, "broker408_unload_close_producer");
    assert_recorded(&mut world, consuming, "broker408_unload_close_consumer");
}

#[test]
fn a_transfer_names_the_next_broker() {
    let mut world = World::new();
    let (producing, consuming) = (world.connect(), world.connect());
    world.producer(producing, 1);
    world.consumer(consuming, 2, SubType::Exclusive, 1);
    world.broker.transfer(TOPIC, "pulsar://127.0.0.1:16650");
    assert_recorded(&mut world, producing, "broker408_transfer_close_producer");
    assert_recorded(&mut world, consuming, "broker408_transfer_close_consumer");
}

#[test]
fn end_of_topic() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 0, b"x");
    world.receipts(conn);
    world.consumer(conn, 3, SubType::Exclusive, 10);
    world.take(conn);
    world.broker.terminate(TOPIC);
    world.take(conn);
    world.ack_entry(conn, 3, 0);
    assert_recorded(&mut world, conn, "broker408_reached_end_of_topic");
}

#[test]
fn a_second_exclusive_consumer() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.consumer(a, 1, SubType::Exclusive, 1);
    world.send(b, subscribe_command(101, 1, SubType::Exclusive));
    world.take(a);
    world.send(a, pb::CommandPong {});
    assert_recorded(&mut world, b, "broker408_error_consumer_busy");
}

#[test]
fn consumer_epoch_is_stamped() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    publish_recorded(&mut world, conn, 1, "broker408_message_with_consumer_epoch");
    world.consumer_as(conn, 40, SubType::Exclusive, 1, |subscribe| subscribe.consumer_epoch = Some(3));
    assert_recorded(&mut world, conn, "broker408_message_with_consumer_epoch");
}

#[test]
fn last_message_id() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.consumer(conn, 1, SubType::Exclusive, 0);
    world.send(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 140 });
    assert_recorded(&mut world, conn, "broker408_get_last_message_id_empty");
    world.publish_batch(conn, 1, "p", 0, 3);
    world.receipts(conn);
    world.send(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 143 });
    assert_recorded(&mut world, conn, "broker408_get_last_message_id_batch");
}

#[test]
fn consumer_stats() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    for sequence_id in 0..5 {
        world.publish(conn, 1, "p", sequence_id, b"x");
    }
    world.receipts(conn);
    world.consumer_as(conn, 1, SubType::Exclusive, 0, |_| ());
    let Command::ConsumerStatsResponse(ours) =
        world.ask(conn, pb::CommandConsumerStats { request_id: 102, consumer_id: 1 })
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
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 0, b"x");
    world.receipts(conn);
    world.consumer(conn, 1, SubType::Shared, 10);
    world.take(conn);
    let ack = |ack_type: AckType, request_id| pb::CommandAck {
        consumer_id: 1,
        ack_type: ack_type.into(),
        message_id: vec![id(1, 0)],
        request_id: Some(request_id),
        ..Default::default()
    };
    world.send(conn, ack(AckType::Cumulative, 7));
    assert_recorded(&mut world, conn, "broker408_ack_response_cumulative_shared");
    assert_eq!(world.broker.stats(TOPIC).unwrap().subscriptions["s"].unacked_messages, 1);
    world.send(conn, ack(AckType::Individual, 8));
    assert_recorded(&mut world, conn, "broker408_ack_response");
    assert_eq!(world.broker.stats(TOPIC).unwrap().subscriptions["s"].unacked_messages, 0);
}

#[test]
fn redelivery_by_id() {
    let (mut world, conn) = with_entry_metadata();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 0, b"x");
    world.receipts(conn);
    publish_recorded(&mut world, conn, 1, "broker408_message_redelivered");
    world.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(world.entries(conn), [0, 1]);
    world.redeliver(conn, 1, vec![id(1, 1)]);
    assert_recorded(&mut world, conn, "broker408_message_redelivered");
}

#[test]
fn batch_index_acks() {
    let (mut world, conn) = with_entry_metadata();
    world.producer(conn, 1);
    world.publish_batch(conn, 1, "p", 0, 10);
    world.receipts(conn);
    publish_recorded(&mut world, conn, 1, "broker408_message_with_ack_set");
    world.consumer(conn, 1, SubType::Shared, 100);
    assert_eq!(world.entries(conn), [0, 1]);
    world.ack(conn, 1, AckType::Individual, vec![id_with(1, 1, &[0b11_1110_0000])]);
    world.redeliver(conn, 1, vec![id(1, 1)]);
    match world.take(conn).pop() {
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
    let (mut world, conn) = with_entry_metadata();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 0, b"x");
    world.receipts(conn);
    publish_recorded(&mut world, conn, 1, "broker408_message_broker_entry_metadata");
    world.consumer(conn, 1, SubType::Exclusive, 1);
    assert_eq!(world.entries(conn), [0]);
    world.flow(conn, 1, 1);
    assert_recorded(&mut world, conn, "broker408_message_broker_entry_metadata");
}

/// SEEK into the middle of the batch of a recorded MESSAGE, then the recorded delivery.
fn seek_into_batch(world: &mut World, conn: pulsar_native::broker::machine::ConnId, name: &str) {
    world.producer(conn, 1);
    world.publish_batch(conn, 1, "p", 0, 10);
    world.receipts(conn);
    publish_recorded(world, conn, 1, name);
    world.consumer(conn, 1, SubType::Exclusive, 0);
    let message_id = MessageIdData { ack_set: vec![0b11_1111_0000], ..id(1, 1) };
    world.send(
        conn,
        pb::CommandSeek { consumer_id: 1, request_id: 5, message_id: Some(message_id), ..Default::default() },
    );
    let answers = world.take(conn);
    let close = recorded("broker408_seek_close_consumer");
    let success = Frame::Other(pb::CommandSuccess { request_id: 5, schema: None }.into());
    assert_eq!(answers, [close, success], "CLOSE_CONSUMER comes before SUCCESS");
    world.consumer(conn, 1, SubType::Exclusive, 1);
    assert_recorded(world, conn, name);
}

#[test]
fn seek_into_a_batch() {
    let mut off = World::with(|config| config.batch_index_acknowledgment = false);
    let conn = off.connect();
    seek_into_batch(&mut off, conn, "broker408_message_after_seek_into_batch_off");
    let (mut on, conn) = with_entry_metadata();
    seek_into_batch(&mut on, conn, "broker408_message_after_seek_into_batch_on");
}

#[test]
fn unsubscribe_beside_another_consumer() {
    let mut world = World::new();
    let conn = world.connect();
    world.consumer(conn, 1, SubType::Shared, 0);
    world.consumer(conn, 2, SubType::Shared, 0);
    world.send(conn, pb::CommandUnsubscribe { consumer_id: 1, request_id: 103, force: None });
    assert_recorded(&mut world, conn, "broker408_error_unsubscribe_two_consumers");
}

#[test]
fn topic_lists_and_watchers() {
    let namespace = "public/w426236";
    let mut world = World::with(|config| {
        config.namespaces.insert("public/w426236".to_owned());
    });
    let conn = world.connect();
    let make = |world: &mut World, producer_id, local: &str| {
        let topic = format!("persistent://{namespace}/{local}");
        world.producer_on(conn, producer_id, &topic);
    };
    make(&mut world, 1, "a1");
    make(&mut world, 2, "a2");
    let watch = |request_id, watcher_id| pb::CommandWatchTopicList {
        request_id,
        watcher_id,
        namespace: namespace.to_owned(),
        topics_pattern: format!("{namespace}/a.*"),
        topics_hash: None,
    };
    world.send(conn, watch(101, 1));
    assert_recorded(&mut world, conn, "broker408_watch_topic_list_success");

    make(&mut world, 3, "b1");
    assert!(world.broker.create_partitioned_topic("persistent://public/w426236/p1", 2));
    let list = |request_id, hash: Option<&str>| pb::CommandGetTopicsOfNamespace {
        request_id,
        namespace: namespace.to_owned(),
        topics_hash: hash.map(str::to_owned),
        ..Default::default()
    };
    world.send(conn, list(113, None));
    assert_recorded(&mut world, conn, "broker408_get_topics_response");
    world.send(conn, list(116, Some("f2143dfb")));
    assert_recorded(&mut world, conn, "broker408_get_topics_response_unchanged");

    let watching = world.connect();
    world.ask(watching, watch(1, 3));
    let topic = format!("persistent://{namespace}/a3");
    world.look_up(conn, &topic);
    world.send(conn, producer_command(9, 9, &topic));
    assert_recorded(&mut world, watching, "broker408_watch_topic_update_new");
    world.broker.delete_topic(&topic);
    assert_recorded(&mut world, watching, "broker408_watch_topic_update_deleted");
}

#[test]
fn failover_notices() {
    let mut world = World::new();
    let conn = world.connect();
    world.consumer(conn, 1, SubType::Failover, 0);
    world.advance(Duration::from_millis(999));
    assert_eq!(world.take(conn), []);
    world.advance(Duration::from_millis(1));
    assert_recorded(&mut world, conn, "broker408_active_consumer_change_true");
    let mut lower = subscribe_command(7, 2, SubType::Failover);
    lower.priority_level = Some(1);
    world.send(conn, lower);
    let success = Frame::Other(pb::CommandSuccess { request_id: 7, schema: None }.into());
    assert_eq!(world.take(conn), [recorded("broker408_active_consumer_change_false"), success]);
}

#[test]
fn refresh_challenge() {
    let mut world = World::with(|config| config.token_key = Some(b"secret".to_vec()));
    let mut connect = connect_command(21);
    connect.auth_method_name = Some("token".to_owned());
    connect.auth_data = world.broker.mint_token("admin", Some(Duration::from_secs(30))).map(Into::into);
    connect.feature_flags = Some(pb::FeatureFlags { supports_auth_refresh: Some(true), ..Default::default() });
    let conn = world.connect_as(connect);
    world.advance(Duration::from_secs(59));
    world.send(conn, pb::CommandPong {});
    world.take(conn);
    world.advance(Duration::from_secs(1));
    let frames = world.take(conn);
    assert!(frames.contains(&recorded("broker408_auth_challenge_refresh")), "{frames:?}");
}

#[test]
fn schemas() {
    let topic = "persistent://public/default/sc-426200-1";
    let Command::GetSchemaResponse(latest) = recorded_command("broker408_get_schema_response") else {
        panic!("no GET_SCHEMA_RESPONSE")
    };
    let second = latest.schema.clone().expect("a schema");
    let first = pb::Schema { schema_data: Bytes::from_static(b"{}"), name: String::new(), ..second.clone() };
    let mut world = World::new();
    let conn = world.connect();
    world.look_up(conn, topic);
    let producer = pb::CommandProducer {
        producer_name: Some("standalone-0-124".to_owned()),
        schema: Some(first.clone()),
        ..producer_command(102, 1, topic)
    };
    world.send(conn, producer);
    assert_recorded(&mut world, conn, "broker408_producer_success_schema_version");
    let register = |request_id, schema| pb::CommandGetOrCreateSchema { request_id, topic: topic.to_owned(), schema };
    world.send(conn, register(105, first));
    assert_recorded(&mut world, conn, "broker408_get_or_create_schema_response");
    world.ask(conn, register(106, second));
    world.send(conn, pb::CommandGetSchema { request_id: 113, topic: topic.to_owned(), schema_version: None });
    assert_recorded(&mut world, conn, "broker408_get_schema_response");
}
