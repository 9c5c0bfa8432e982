//! What a broker does with input that is wrong, one test for each row of the table. "Closes" means: without an answer.

use std::time::Duration;

use bytes::Bytes;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, IntRange, KeySharedMeta, KeySharedMode, ProducerAccessMode, ServerError};
use pulsar_native::wire::{Command, Frame, SendHead};

use crate::support::{TOPIC, World, connect_command, error_of, id, producer_command, subscribe_command};

/// One SEND_ERROR and nothing else.
#[track_caller]
fn send_error(world: &mut World, conn: ConnId) -> (u64, ServerError) {
    match world.answer(conn) {
        Command::SendError(error) => (error.sequence_id, error.error()),
        other => panic!("no SEND_ERROR: {other:?}"),
    }
}

#[test]
fn row_total_size_above_the_limit_or_below_4_closes() {
    let limit = 5 * 1024 * 1024 + 10_236;
    for (total_size, closes) in [(limit + 1, true), (limit, false), (3, true), (u32::MAX, true)] {
        let mut world = World::new();
        let conn = world.connect();
        world.send_bytes(conn, &u32::to_be_bytes(total_size));
        assert_eq!(world.broker.closing(conn), closes, "{total_size}");
        if closes {
            world.assert_closed(conn);
            assert_eq!(world.broken(), [Rule::UnreadableFrame]);
        }
    }
}

#[test]
fn row_unparseable_commands_missing_fields_absent_sub_messages_close() {
    let frames: [&[u8]; 5] = [
        b"\0\0\0\x06\0\0\0\x02\xff\xff",         // not protobuf
        b"\0\0\0\x06\0\0\0\x02\x08\x0b",         // FLOW without its body
        b"\0\0\0\x08\0\0\0\x04\x08\x0b\x5a\0",   // FLOW without its fields
        b"\0\0\0\x06\0\0\0\x02\x08\x12",         // PING without its body
        b"\0\0\0\x06\0\0\0\xff\x08\x12\x92\x01", // command_size larger than the frame
    ];
    for frame in frames {
        let mut world = World::new();
        let conn = world.connect();
        world.send_bytes(conn, frame);
        world.assert_closed(conn);
        assert_eq!(world.broken(), [Rule::UnreadableFrame], "{frame:?}");
    }
}

#[test]
fn row_anything_but_connect_ping_pong_before_the_handshake_closes() {
    let mut world = World::new();
    let conn = world.dial();
    world.send(conn, pb::CommandPong {});
    assert!(matches!(world.ask(conn, pb::CommandPing {}), Command::Pong(_)));
    world.send(conn, pb::CommandFlow { consumer_id: 1, message_permits: 1 });
    world.assert_closed(conn);

    let conn = world.dial();
    world.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\0");
    world.assert_closed(conn);

    let conn = world.connect();
    world.send(conn, connect_command(21));
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::Handshake, Rule::Handshake, Rule::Handshake]);
}

#[test]
fn row_unknown_command_types_and_enum_values_close() {
    let mut world = World::new();
    let mut closes = |command: Command| {
        let conn = world.connect();
        world.look_up(conn, TOPIC);
        let name = command.name();
        world.send(conn, command);
        assert!(world.broker.closing(conn), "{name}");
        world.assert_closed(conn);
        assert_eq!(world.broken(), [Rule::UnreadableFrame], "{name}");
    };
    closes(pb::CommandSubscribe { sub_type: 9, ..subscribe_command(1, 1, SubType::Shared) }.into());
    closes(pb::CommandSubscribe { initial_position: Some(9), ..subscribe_command(1, 1, SubType::Shared) }.into());
    let meta = KeySharedMeta { key_shared_mode: 9, ..Default::default() };
    closes(pb::CommandSubscribe { key_shared_meta: Some(meta), ..subscribe_command(1, 1, SubType::Shared) }.into());
    closes(pb::CommandProducer { producer_access_mode: Some(9), ..producer_command(1, 1, TOPIC) }.into());
    let schema = pb::Schema { r#type: 99, ..Default::default() };
    closes(pb::CommandProducer { schema: Some(schema), ..producer_command(1, 1, TOPIC) }.into());
    closes(pb::CommandAck { ack_type: 9, ..Default::default() }.into());

    let conn = world.connect();
    world.send_bytes(conn, b"\0\0\0\x07\0\0\0\x03\x08\xff\x01");
    world.assert_closed(conn);
}

#[test]
fn row_extra_bytes_behind_a_command_and_unknown_fields_are_skipped() {
    let mut world = World::new();
    let conn = world.connect();
    // PING with an unknown field 15 and four bytes behind the command, then an ordinary PING.
    world.send_bytes(conn, b"\0\0\0\x0f\0\0\0\x07\x08\x12\x92\x01\0\x78\x01abcd\0\0\0\x09\0\0\0\x05\x08\x12\x92\x01\0");
    let pong = || Frame::Other(pb::CommandPong {}.into());
    assert_eq!(world.take(conn), [pong(), pong()]);
    world.assert_clean();
}

#[test]
fn row_server_only_commands_close() {
    let mut world = World::new();
    let receipt = pb::CommandSendReceipt { producer_id: 1, sequence_id: 1, ..Default::default() };
    let message = pb::CommandMessage { consumer_id: 1, message_id: id(1, 1), ..Default::default() };
    let connected = pb::CommandConnected { server_version: "x".to_owned(), ..Default::default() };
    let success = pb::CommandSuccess { request_id: 1, schema: None };
    for command in [Command::from(receipt), message.into(), connected.into(), success.into()] {
        let conn = world.connect();
        world.send(conn, command.clone());
        world.assert_closed(conn);
        assert_eq!(world.broken(), [Rule::ServerOnlyCommand], "{}", command.name());
    }
}

#[test]
fn row_bad_topic_names_are_refused_in_the_response_type_of_the_request() {
    let mut world = World::new();
    let conn = world.connect();
    for topic in ["", "a/b", "persistent://public/default/", "x://public/default/t", "persistent://pub lic/default/t"] {
        let metadata =
            pb::CommandPartitionedTopicMetadata { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match world.ask(conn, metadata) {
            Command::PartitionedMetadataResponse(r) => {
                assert_eq!((r.response, r.error()), (Some(1), ServerError::InvalidTopicName), "{topic}");
            }
            other => panic!("{topic}: {other:?}"),
        }
        let lookup = pb::CommandLookupTopic { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match world.ask(conn, lookup) {
            Command::LookupResponse(r) => {
                assert_eq!((r.response, r.error()), (Some(2), ServerError::InvalidTopicName), "{topic}");
            }
            other => panic!("{topic}: {other:?}"),
        }
        let answer = world.ask(conn, producer_command(1, 1, topic));
        assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName, "{topic}");
        let subscribe = pb::CommandSubscribe { topic: topic.to_owned(), ..subscribe_command(1, 1, SubType::Shared) };
        let answer = world.ask(conn, subscribe);
        assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName, "{topic}");
    }
    world.assert_open(conn);
}

#[test]
fn row_topics_of_a_bad_namespace_close() {
    for namespace in ["", "public", "a/b/c", "a/", "a b/c"] {
        let mut world = World::new();
        let conn = world.connect();
        let request =
            pb::CommandGetTopicsOfNamespace { request_id: 1, namespace: namespace.to_owned(), ..Default::default() };
        world.send(conn, request);
        world.assert_closed(conn);
    }
}

#[test]
fn row_send_for_a_producer_that_never_was_or_failed_closes() {
    let mut world = World::new();
    let conn = world.connect();
    let answer = world.ask(conn, producer_command(1, 4, "a/b"));
    assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName);
    world.publish(conn, 4, "p", 0, b"x");
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::SendWithoutProducer]);
}

#[test]
fn row_send_to_a_producer_the_broker_closed_is_ignored_for_one_interval() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.broker.unload(TOPIC);
    world.take(conn);
    world.publish(conn, 1, "p", 0, b"x");
    assert_eq!(world.take(conn), []);
    // Also behind a PRODUCER that is not answered yet.
    world.look_up(conn, TOPIC);
    world.send(conn, pb::CommandProducer { epoch: Some(1), ..producer_command(1, 1, TOPIC) });
    world.publish(conn, 1, "p", 0, b"x");
    assert!(matches!(world.answer(conn), Command::ProducerSuccess(_)));
    world.assert_open(conn);
    world.assert_clean();

    world.broker.unload(TOPIC);
    world.take(conn);
    world.advance(Duration::from_secs(30));
    world.send(conn, pb::CommandPong {});
    world.take(conn);
    world.advance(Duration::from_millis(1));
    world.publish(conn, 1, "p", 0, b"x");
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::AfterBrokerClose]);
}

#[test]
fn row_send_before_success_or_for_a_waiting_fenced_or_closed_one_closes() {
    let mut world = World::new();
    let conn = world.connect();
    world.look_up(conn, TOPIC);
    world.send(conn, producer_command(1, 1, TOPIC));
    world.publish(conn, 1, "p", 0, b"x");
    assert!(world.broker.closing(conn), "before PRODUCER_SUCCESS was written");
    assert_eq!(world.broken(), [Rule::BeforeResponse]);

    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    let waiting = pb::CommandProducer {
        producer_name: Some("w".to_owned()),
        producer_access_mode: Some(ProducerAccessMode::WaitForExclusive.into()),
        ..producer_command(2, 2, TOPIC)
    };
    world.ask(conn, waiting);
    world.publish(conn, 2, "w", 0, b"x");
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::SendWithoutProducer]);

    let mut world = World::new();
    let (conn, other) = (world.connect(), world.connect());
    world.producer(conn, 1);
    let fencing = pb::CommandProducer {
        producer_name: Some("f".to_owned()),
        producer_access_mode: Some(ProducerAccessMode::ExclusiveWithFencing.into()),
        ..producer_command(2, 2, TOPIC)
    };
    world.ask(other, fencing);
    assert_eq!(world.take(conn), [], "a fenced producer is not told");
    world.publish(conn, 1, "p", 0, b"x");
    world.assert_closed(conn);
    world.assert_clean();

    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.ask(conn, pb::CommandCloseProducer { producer_id: 1, request_id: 1, ..Default::default() });
    world.publish(conn, 1, "p", 0, b"x");
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::AfterClose]);
}

#[test]
fn row_send_shorter_than_its_headers_closes() {
    for entry in [&b""[..], b"\x0e", b"\x0e\x01\0"] {
        let mut world = World::new();
        let conn = world.connect();
        world.producer(conn, 1);
        world.publish_entry(conn, &SendHead::new(1, 0), entry);
        world.assert_closed(conn);
        assert_eq!(world.broken(), [Rule::UnreadableFrame], "{entry:?}");
    }
}

#[test]
fn row_send_with_unreadable_metadata_is_stored_and_dropped_at_dispatch() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\xff\xffmetadata beyond the frame");
    world.publish_entry(conn, &SendHead::new(1, 1), b"\0\0\0\x02\xff\xff");
    assert_eq!(world.receipts(conn).len(), 2);
    world.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(world.take(conn), []);
    let stats = world.broker.stats(TOPIC).unwrap();
    assert_eq!((stats.entries, stats.subscriptions["s"].msg_backlog), (2, 0), "stored, acknowledged, never delivered");
    let answer = world.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(error_of(&answer).0, ServerError::MetadataError);
}

#[test]
fn damaged_entries_can_be_delivered_or_refused_instead() {
    use pulsar_native::broker::DamagedEntries;
    let mut world = World::with(|config| config.damaged_entries = DamagedEntries::Deliver);
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\x02\xff\xff");
    world.receipts(conn);
    world.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(world.messages(conn)[0].1, Bytes::from_static(b"\0\0\0\x02\xff\xff"));

    let mut world = World::with(|config| config.damaged_entries = DamagedEntries::Refuse);
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\x02\xff\xff");
    assert_eq!(send_error(&mut world, conn), (0, ServerError::NotAllowedError));
}

#[test]
fn row_send_with_a_wrong_crc_is_a_send_error_and_the_connection_stays() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish_entry(conn, &SendHead::new(1, 4), b"\x0e\x01\0\0\0\x01\0\0\0\0");
    assert_eq!(send_error(&mut world, conn), (4, ServerError::ChecksumError));
    world.assert_open(conn);
    assert_eq!(world.broken(), [Rule::Checksum]);
}

#[test]
fn row_send_without_checksum_is_accepted_and_forwarded_as_it_is() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    let entry = b"\0\0\0\x09\x0a\x01p\x10\x00\x18\x80\x89\x7ahello";
    world.publish_entry(conn, &SendHead::new(1, 0), entry);
    assert_eq!(world.receipts(conn).len(), 1);
    world.consumer(conn, 1, SubType::Exclusive, 1);
    assert_eq!(world.messages(conn)[0].1, &entry[..]);
    world.assert_clean();
}

#[test]
fn row_send_to_a_terminated_topic_follows_a_close_producer() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.broker.terminate(TOPIC);
    assert!(matches!(world.answer(conn), Command::CloseProducer(_)));
    let answer = world.ask(conn, producer_command(1, 2, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::TopicTerminatedError);
}

#[test]
fn row_send_with_message_id_or_in_a_transaction_is_not_allowed() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    let entry = b"\0\0\0\0";
    world.publish_entry(conn, &SendHead { message_id: Some((1, 1)), ..SendHead::new(1, 0) }, entry);
    assert_eq!(send_error(&mut world, conn), (0, ServerError::NotAllowedError));
    let txn = SendHead { txnid_least_bits: Some(0), txnid_most_bits: Some(0), ..SendHead::new(1, 1) };
    world.publish_entry(conn, &txn, entry);
    assert_eq!(send_error(&mut world, conn), (1, ServerError::NotAllowedError));
    let half = SendHead { txnid_least_bits: Some(0), marker: true, ..SendHead::new(1, 2) };
    world.publish_entry(conn, &half, entry);
    assert_eq!(world.receipts(conn).len(), 1, "one bit alone is an ordinary message, and so is a marker");
}

#[test]
fn row_producer_duplicates_answer_again_without_looking() {
    let mut world = World::with(|config| config.broker_deduplication_enabled = true);
    let conn = world.connect();
    world.producer(conn, 1);
    world.publish(conn, 1, "p", 7, b"x");
    world.receipts(conn);
    let repeat = pb::CommandProducer { epoch: Some(1), ..producer_command(9, 1, "a/b") };
    let Command::ProducerSuccess(success) = world.ask(conn, repeat) else { panic!("no PRODUCER_SUCCESS") };
    assert_eq!((success.producer_name.as_str(), success.last_sequence_id), ("p", Some(-1)));
    let twin = producer_command(10, 2, TOPIC);
    let answer = world.ask(conn, twin);
    assert_eq!(error_of(&answer).0, ServerError::ProducerBusy, "the same name on the same connection");
}

#[test]
fn row_subscribe_duplicates_succeed_and_change_nothing() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, 1);
    world.consumer(conn, 1, SubType::Shared, 5);
    world.take(conn);
    let repeat = pb::CommandSubscribe { topic: "other".to_owned(), ..subscribe_command(9, 1, SubType::Exclusive) };
    assert!(matches!(world.ask(conn, repeat), Command::Success(success) if success.request_id == 9));
    assert_eq!(world.broker.stats(TOPIC).unwrap().subscriptions["s"].consumers[0].available_permits, 5);
}

#[test]
fn row_subscribe_conflicts() {
    let mut world = World::new();
    let conn = world.connect();
    world.consumer(conn, 1, SubType::Shared, 0);
    let mut refused = |change: &dyn Fn(&mut pb::CommandSubscribe)| {
        let mut subscribe = subscribe_command(9, 2, SubType::Shared);
        change(&mut subscribe);
        let answer = world.ask(conn, subscribe);
        error_of(&answer).0
    };
    assert_eq!(refused(&|s| s.sub_type = SubType::Failover.into()), ServerError::ConsumerBusy);
    assert_eq!(refused(&|s| s.durable = Some(false)), ServerError::NotAllowedError);
    assert_eq!(refused(&|s| s.read_compacted = Some(true)), ServerError::NotAllowedError);
    for reserved in ["", "pulsar.dedup", "pulsar.repl.x"] {
        assert_eq!(refused(&|s| s.subscription = reserved.to_owned()), ServerError::ProducerBusy, "{reserved}");
    }
    let missing = |s: &mut pb::CommandSubscribe| {
        s.topic = "missing".to_owned();
        s.force_topic_creation = Some(false);
    };
    assert_eq!(refused(&missing), ServerError::TopicNotFound);
    world.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 1, ..Default::default() });
    world.consumer(conn, 3, SubType::Failover, 0);
}

#[test]
fn row_flow_with_0_permits_or_2_31_and_more_closes() {
    for (permits, closes) in [(0, true), (1 << 31, true), (u32::MAX, true), ((1 << 31) - 1, false)] {
        let mut world = World::new();
        let conn = world.connect();
        world.consumer(conn, 1, SubType::Shared, 0);
        world.flow(conn, 1, permits);
        assert_eq!(world.broker.closing(conn), closes, "{permits}");
        assert_eq!(world.broken() == [Rule::FlowPermits], closes);
    }
}

#[test]
fn row_flow_before_subscribe_is_done_is_lost() {
    let mut world = World::new();
    let conn = world.connect();
    world.look_up(conn, TOPIC);
    world.send(conn, subscribe_command(1, 1, SubType::Shared));
    world.flow(conn, 1, 10);
    assert!(matches!(world.answer(conn), Command::Success(_)));
    assert_eq!(world.broker.stats(TOPIC).unwrap().subscriptions["s"].consumers[0].available_permits, 0);
    assert_eq!(world.broken(), [Rule::BeforeResponse]);
}

#[test]
fn row_unknown_stats_bad_schema_versions_and_incomplete_requests_close() {
    let mut world = World::new();
    let mut closes = |command: Command| {
        let conn = world.connect();
        let name = command.name();
        world.send(conn, command);
        assert!(world.broker.closing(conn), "{name}");
        world.assert_closed(conn);
    };
    closes(pb::CommandConsumerStats { request_id: 1, consumer_id: 9 }.into());
    let version = Some(Bytes::from_static(b"1234567"));
    closes(pb::CommandGetSchema { request_id: 1, topic: TOPIC.to_owned(), schema_version: version }.into());
    let bad = pb::CommandGetOrCreateSchema { request_id: 1, topic: "a/b".to_owned(), ..Default::default() };
    closes(bad.into());
    closes(pb::CommandEndTxn { request_id: 1, ..Default::default() }.into());
}

#[test]
fn row_flow_ack_redeliver_for_an_unknown_consumer_are_ignored() {
    let mut world = World::new();
    let conn = world.connect();
    world.flow(conn, 9, 1);
    world.redeliver(conn, 9, Vec::new());
    // Not even an ACK that asks for an answer gets one.
    let ack = pb::CommandAck { consumer_id: 9, message_id: vec![id(1, 1)], request_id: Some(1), ..Default::default() };
    world.send(conn, ack);
    assert_eq!(world.take(conn), []);
    world.assert_open(conn);
}

#[test]
fn row_cumulative_ack_on_shared_or_with_other_than_one_id_is_ignored() {
    for (sub_type, ids) in [
        (SubType::Shared, vec![id(1, 1)]),
        (SubType::KeyShared, vec![id(1, 1)]),
        (SubType::Exclusive, vec![]),
        (SubType::Exclusive, vec![id(1, 0), id(1, 1)]),
    ] {
        let mut world = World::new();
        let conn = world.connect();
        world.producer(conn, 1);
        world.publish(conn, 1, "p", 0, b"x");
        world.publish(conn, 1, "p", 1, b"x");
        world.receipts(conn);
        world.consumer(conn, 1, sub_type, 10);
        world.take(conn);
        world.ack(conn, 1, AckType::Cumulative, ids);
        assert_eq!(world.broker.stats(TOPIC).unwrap().subscriptions["s"].msg_backlog, 2);
        assert_eq!(world.broken(), [Rule::CumulativeAck]);
    }
}

#[test]
fn row_requests_without_target_or_consumer_are_metadata_errors() {
    let mut world = World::new();
    let conn = world.connect();
    world.consumer(conn, 1, SubType::Exclusive, 0);
    let seek = |consumer_id| pb::CommandSeek { consumer_id, request_id: 1, ..Default::default() };
    let commands = [
        Command::from(seek(1)),
        pb::CommandSeek { message_id: Some(id(1, 1)), ..seek(9) }.into(),
        pb::CommandUnsubscribe { consumer_id: 9, request_id: 1, force: None }.into(),
        pb::CommandGetLastMessageId { consumer_id: 9, request_id: 1 }.into(),
    ];
    for command in commands {
        let answer = world.ask(conn, command.clone());
        assert_eq!(error_of(&answer).0, ServerError::MetadataError, "{command:?}");
    }
    world.assert_open(conn);
}

#[test]
fn row_close_for_unknown_ids_succeeds() {
    let mut world = World::new();
    let conn = world.connect();
    let producer = pb::CommandCloseProducer { producer_id: 9, request_id: 1, ..Default::default() };
    let consumer = pb::CommandCloseConsumer { consumer_id: 9, request_id: 2, ..Default::default() };
    assert!(matches!(world.ask(conn, producer), Command::Success(success) if success.request_id == 1));
    assert!(matches!(world.ask(conn, consumer), Command::Success(success) if success.request_id == 2));
}

#[test]
fn row_invalid_sticky_ranges_are_assign_errors() {
    let mut world = World::new();
    let conn = world.connect();
    let sticky = |id, ranges: &[(i32, i32)]| pb::CommandSubscribe {
        key_shared_meta: Some(KeySharedMeta {
            key_shared_mode: KeySharedMode::Sticky.into(),
            hash_ranges: ranges.iter().map(|(start, end)| IntRange { start: *start, end: *end }).collect(),
            allow_out_of_order_delivery: None,
        }),
        ..subscribe_command(id, id, SubType::KeyShared)
    };
    world.look_up(conn, TOPIC);
    assert!(matches!(world.ask(conn, sticky(1, &[(0, 100), (200, 300)])), Command::Success(_)));
    for bad in [&[][..], &[(5, 4)], &[(400, 500), (500, 600)], &[(100, 150)], &[(301, 400), (250, 260)]] {
        let answer = world.ask(conn, sticky(2, bad));
        assert_eq!(error_of(&answer).0, ServerError::ConsumerAssignError, "{bad:?}");
    }
    assert!(matches!(world.ask(conn, sticky(3, &[(101, 199), (301, 70_000)])), Command::Success(_)));
    let split = subscribe_command(4, 4, SubType::KeyShared);
    let answer = world.ask(conn, split);
    assert_eq!(error_of(&answer).0, ServerError::ConsumerBusy, "all consumers have the same mode");
}

#[test]
fn row_empty_schema_version_is_an_incompatible_schema() {
    let mut world = World::new();
    let conn = world.connect();
    let request = pb::CommandGetSchema { request_id: 1, topic: TOPIC.to_owned(), schema_version: Some(Bytes::new()) };
    match world.ask(conn, request) {
        Command::GetSchemaResponse(response) => assert_eq!(response.error_code(), ServerError::IncompatibleSchema),
        other => panic!("no GET_SCHEMA_RESPONSE: {other:?}"),
    }
}

#[test]
fn row_negative_producer_ids_are_accepted() {
    let mut world = World::new();
    let conn = world.connect();
    world.producer(conn, u64::MAX);
    world.publish(conn, u64::MAX, "p", 0, b"x");
    assert_eq!(world.receipts(conn).len(), 1);
    world.assert_clean();
}
