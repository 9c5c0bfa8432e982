//! What the broker does with invalid input, as Pulsar 4.0.8 does: one test for each kind of input. "Closes" means that the
//! connection ends without a response.

use std::time::Duration;

use bytes::Bytes;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, IntRange, KeySharedMeta, KeySharedMode, ProducerAccessMode, ServerError};
use pulsar_native::wire::{Command, Frame, SendHead};

use crate::support::{BrokerHarness, TOPIC, connect_command, error_of, id, producer_command, subscribe_command};

/// One SEND_ERROR and nothing else.
#[track_caller]
fn send_error(harness: &mut BrokerHarness, conn: ConnId) -> (u64, ServerError) {
    match harness.answer(conn) {
        Command::SendError(error) => (error.sequence_id, error.error()),
        other => panic!("no SEND_ERROR: {other:?}"),
    }
}

#[test]
fn total_size_above_the_limit_or_below_4_closes() {
    let limit = 5 * 1024 * 1024 + 10_236;
    for (total_size, closes) in [(limit + 1, true), (limit, false), (3, true), (u32::MAX, true)] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.send_bytes(conn, &u32::to_be_bytes(total_size));
        assert_eq!(harness.broker.closing(conn), closes, "{total_size}");
        if closes {
            harness.assert_closed(conn);
            assert_eq!(harness.broken(), [Rule::UnreadableFrame]);
        }
    }
}

#[test]
fn unparseable_commands_missing_fields_absent_sub_messages_close() {
    let frames: [&[u8]; 5] = [
        b"\0\0\0\x06\0\0\0\x02\xff\xff",         // not protobuf
        b"\0\0\0\x06\0\0\0\x02\x08\x0b",         // FLOW without its body
        b"\0\0\0\x08\0\0\0\x04\x08\x0b\x5a\0",   // FLOW without its fields
        b"\0\0\0\x06\0\0\0\x02\x08\x12",         // PING without its body
        b"\0\0\0\x06\0\0\0\xff\x08\x12\x92\x01", // command_size larger than the frame
    ];
    for frame in frames {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.send_bytes(conn, frame);
        harness.assert_closed(conn);
        assert_eq!(harness.broken(), [Rule::UnreadableFrame], "{frame:?}");
    }
}

#[test]
fn anything_but_connect_ping_pong_before_the_handshake_closes() {
    let mut harness = BrokerHarness::new();
    let conn = harness.dial();
    harness.send(conn, pb::CommandPong {});
    assert!(matches!(harness.ask(conn, pb::CommandPing {}), Command::Pong(_)));
    harness.send(conn, pb::CommandFlow { consumer_id: 1, message_permits: 1 });
    harness.assert_closed(conn);

    let conn = harness.dial();
    harness.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\0");
    harness.assert_closed(conn);

    let conn = harness.connect();
    harness.send(conn, connect_command(21));
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::Handshake, Rule::Handshake, Rule::Handshake]);
}

#[test]
fn unknown_command_types_and_enum_values_close() {
    let mut harness = BrokerHarness::new();
    let mut closes = |command: Command| {
        let conn = harness.connect();
        harness.look_up(conn, TOPIC);
        let name = command.name();
        harness.send(conn, command);
        assert!(harness.broker.closing(conn), "{name}");
        harness.assert_closed(conn);
        assert_eq!(harness.broken(), [Rule::UnreadableFrame], "{name}");
    };
    closes(pb::CommandSubscribe { sub_type: 9, ..subscribe_command(1, 1, SubType::Shared) }.into());
    closes(pb::CommandSubscribe { initial_position: Some(9), ..subscribe_command(1, 1, SubType::Shared) }.into());
    let meta = KeySharedMeta { key_shared_mode: 9, ..Default::default() };
    closes(pb::CommandSubscribe { key_shared_meta: Some(meta), ..subscribe_command(1, 1, SubType::Shared) }.into());
    let schema = pb::Schema { r#type: 99, ..Default::default() };
    closes(pb::CommandProducer { schema: Some(schema), ..producer_command(1, 1, TOPIC) }.into());
    closes(pb::CommandAck { ack_type: 9, ..Default::default() }.into());

    let conn = harness.connect();
    harness.send_bytes(conn, b"\0\0\0\x07\0\0\0\x03\x08\xff\x01");
    harness.assert_closed(conn);
}

#[test]
fn extra_bytes_behind_a_command_and_unknown_fields_are_skipped() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    // PING with an unknown field 15 and four bytes behind the command, then an ordinary PING.
    harness
        .send_bytes(conn, b"\0\0\0\x0f\0\0\0\x07\x08\x12\x92\x01\0\x78\x01abcd\0\0\0\x09\0\0\0\x05\x08\x12\x92\x01\0");
    let pong = || Frame::Other(pb::CommandPong {}.into());
    assert_eq!(harness.take(conn), [pong(), pong()]);
    harness.assert_clean();
}

#[test]
fn server_only_commands_close() {
    let mut harness = BrokerHarness::new();
    let receipt = pb::CommandSendReceipt { producer_id: 1, sequence_id: 1, ..Default::default() };
    let message = pb::CommandMessage { consumer_id: 1, message_id: id(1, 1), ..Default::default() };
    let connected = pb::CommandConnected { server_version: "x".to_owned(), ..Default::default() };
    let success = pb::CommandSuccess { request_id: 1, schema: None };
    for command in [Command::from(receipt), message.into(), connected.into(), success.into()] {
        let conn = harness.connect();
        harness.send(conn, command.clone());
        harness.assert_closed(conn);
        assert_eq!(harness.broken(), [Rule::ServerOnlyCommand], "{}", command.name());
    }
}

#[test]
fn bad_topic_names_are_refused_in_the_response_type_of_the_request() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    for topic in ["", "a/b", "persistent://public/default/", "x://public/default/t", "persistent://pub lic/default/t"] {
        let metadata =
            pb::CommandPartitionedTopicMetadata { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match harness.ask(conn, metadata) {
            Command::PartitionedMetadataResponse(r) => {
                assert_eq!((r.response, r.error()), (Some(1), ServerError::InvalidTopicName), "{topic}");
            }
            other => panic!("{topic}: {other:?}"),
        }
        let lookup = pb::CommandLookupTopic { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match harness.ask(conn, lookup) {
            Command::LookupResponse(r) => {
                assert_eq!((r.response, r.error()), (Some(2), ServerError::InvalidTopicName), "{topic}");
            }
            other => panic!("{topic}: {other:?}"),
        }
        let answer = harness.ask(conn, producer_command(1, 1, topic));
        assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName, "{topic}");
        let subscribe = pb::CommandSubscribe { topic: topic.to_owned(), ..subscribe_command(1, 1, SubType::Shared) };
        let answer = harness.ask(conn, subscribe);
        assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName, "{topic}");
    }
    harness.assert_open(conn);
}

#[test]
fn topics_of_a_bad_namespace_close() {
    for namespace in ["", "public", "a/b/c", "a/", "a b/c"] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        let request =
            pb::CommandGetTopicsOfNamespace { request_id: 1, namespace: namespace.to_owned(), ..Default::default() };
        harness.send(conn, request);
        harness.assert_closed(conn);
    }
}

#[test]
fn send_for_an_unknown_or_failed_producer_closes() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let answer = harness.ask(conn, producer_command(1, 4, "a/b"));
    assert_eq!(error_of(&answer).0, ServerError::InvalidTopicName);
    harness.publish(conn, 4, "p", 0, b"x");
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::SendWithoutProducer]);
}

#[test]
fn send_to_a_producer_the_broker_closed_is_ignored_for_one_interval() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.broker.unload(TOPIC);
    harness.take(conn);
    harness.publish(conn, 1, "p", 0, b"x");
    assert_eq!(harness.take(conn), []);
    // Also behind a PRODUCER that is not answered yet.
    harness.look_up(conn, TOPIC);
    harness.send(conn, pb::CommandProducer { epoch: Some(1), ..producer_command(1, 1, TOPIC) });
    harness.publish(conn, 1, "p", 0, b"x");
    assert!(matches!(harness.answer(conn), Command::ProducerSuccess(_)));
    harness.assert_open(conn);
    harness.assert_clean();

    harness.broker.unload(TOPIC);
    harness.take(conn);
    harness.advance(Duration::from_secs(30));
    harness.send(conn, pb::CommandPong {});
    harness.take(conn);
    harness.advance(Duration::from_millis(1));
    harness.publish(conn, 1, "p", 0, b"x");
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::AfterBrokerClose]);
}

#[test]
fn send_before_success_or_for_a_waiting_fenced_or_closed_one_closes() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    harness.send(conn, producer_command(1, 1, TOPIC));
    harness.publish(conn, 1, "p", 0, b"x");
    assert!(harness.broker.closing(conn), "before PRODUCER_SUCCESS was written");
    assert_eq!(harness.broken(), [Rule::BeforeResponse]);

    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let waiting = pb::CommandProducer {
        producer_name: Some("w".to_owned()),
        producer_access_mode: Some(ProducerAccessMode::WaitForExclusive.into()),
        ..producer_command(2, 2, TOPIC)
    };
    harness.ask(conn, waiting);
    harness.publish(conn, 2, "w", 0, b"x");
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::SendWithoutProducer]);

    let mut harness = BrokerHarness::new();
    let (conn, other) = (harness.connect(), harness.connect());
    harness.producer(conn, 1);
    let fencing = pb::CommandProducer {
        producer_name: Some("f".to_owned()),
        producer_access_mode: Some(ProducerAccessMode::ExclusiveWithFencing.into()),
        ..producer_command(2, 2, TOPIC)
    };
    harness.ask(other, fencing);
    assert_eq!(harness.take(conn), [], "a fenced producer is not told");
    harness.publish(conn, 1, "p", 0, b"x");
    harness.assert_closed(conn);
    harness.assert_clean();

    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.ask(conn, pb::CommandCloseProducer { producer_id: 1, request_id: 1, ..Default::default() });
    harness.publish(conn, 1, "p", 0, b"x");
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::AfterClose]);
}

#[test]
fn send_shorter_than_its_headers_closes() {
    for entry in [&b""[..], b"\x0e", b"\x0e\x01\0"] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.publish_entry(conn, &SendHead::new(1, 0), entry);
        harness.assert_closed(conn);
        assert_eq!(harness.broken(), [Rule::UnreadableFrame], "{entry:?}");
    }
}

#[test]
fn send_with_unreadable_metadata_is_stored_and_dropped_at_dispatch() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\xff\xffmetadata beyond the frame");
    harness.publish_entry(conn, &SendHead::new(1, 1), b"\0\0\0\x02\xff\xff");
    assert_eq!(harness.receipts(conn).len(), 2);
    harness.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(harness.take(conn), []);
    let stats = harness.broker.stats(TOPIC).unwrap();
    assert_eq!((stats.entries, stats.subscriptions["s"].msg_backlog), (2, 0), "stored, acknowledged, never delivered");
    let answer = harness.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(error_of(&answer).0, ServerError::MetadataError);
}

#[test]
fn damaged_entries_can_be_delivered_or_refused_instead() {
    use pulsar_native::broker::DamagedEntries;
    let mut harness = BrokerHarness::with(|config| config.damaged_entries = DamagedEntries::Deliver);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\x02\xff\xff");
    harness.receipts(conn);
    harness.consumer(conn, 1, SubType::Shared, 10);
    assert_eq!(harness.messages(conn)[0].1, Bytes::from_static(b"\0\0\0\x02\xff\xff"));

    let mut harness = BrokerHarness::with(|config| config.damaged_entries = DamagedEntries::Refuse);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_entry(conn, &SendHead::new(1, 0), b"\0\0\0\x02\xff\xff");
    assert_eq!(send_error(&mut harness, conn), (0, ServerError::NotAllowedError));
}

#[test]
fn send_with_a_wrong_crc_is_a_send_error_and_the_connection_stays() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish_entry(conn, &SendHead::new(1, 4), b"\x0e\x01\0\0\0\x01\0\0\0\0");
    assert_eq!(send_error(&mut harness, conn), (4, ServerError::ChecksumError));
    harness.assert_open(conn);
    assert_eq!(harness.broken(), [Rule::Checksum]);
}

#[test]
fn send_without_checksum_is_accepted_and_forwarded_as_it_is() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let entry = b"\0\0\0\x09\x0a\x01p\x10\x00\x18\x80\x89\x7ahello";
    harness.publish_entry(conn, &SendHead::new(1, 0), entry);
    assert_eq!(harness.receipts(conn).len(), 1);
    harness.consumer(conn, 1, SubType::Exclusive, 1);
    assert_eq!(harness.messages(conn)[0].1, &entry[..]);
    harness.assert_clean();
}

#[test]
fn send_to_a_terminated_topic_follows_a_close_producer() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.broker.terminate(TOPIC);
    assert!(matches!(harness.answer(conn), Command::CloseProducer(_)));
    let answer = harness.ask(conn, producer_command(1, 2, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::TopicTerminatedError);
}

#[test]
fn send_with_message_id_or_in_a_transaction_is_not_allowed() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    let entry = b"\0\0\0\0";
    harness.publish_entry(conn, &SendHead { message_id: Some((1, 1)), ..SendHead::new(1, 0) }, entry);
    assert_eq!(send_error(&mut harness, conn), (0, ServerError::NotAllowedError));
    let txn = SendHead { txnid_least_bits: Some(0), txnid_most_bits: Some(0), ..SendHead::new(1, 1) };
    harness.publish_entry(conn, &txn, entry);
    assert_eq!(send_error(&mut harness, conn), (1, ServerError::NotAllowedError));
    let half = SendHead { txnid_least_bits: Some(0), marker: true, ..SendHead::new(1, 2) };
    harness.publish_entry(conn, &half, entry);
    assert_eq!(harness.receipts(conn).len(), 1, "one bit alone is an ordinary message, and so is a marker");
}

#[test]
fn a_repeated_producer_gets_the_same_response_unchecked() {
    let mut harness = BrokerHarness::with(|config| config.broker_deduplication_enabled = true);
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.publish(conn, 1, "p", 7, b"x");
    harness.receipts(conn);
    let repeat = pb::CommandProducer { epoch: Some(1), ..producer_command(9, 1, "a/b") };
    let Command::ProducerSuccess(success) = harness.ask(conn, repeat) else { panic!("no PRODUCER_SUCCESS") };
    assert_eq!((success.producer_name.as_str(), success.last_sequence_id), ("p", Some(-1)));
    let twin = producer_command(10, 2, TOPIC);
    let answer = harness.ask(conn, twin);
    assert_eq!(error_of(&answer).0, ServerError::ProducerBusy, "the same name on the same connection");
}

#[test]
fn subscribe_duplicates_succeed_and_change_nothing() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, 1);
    harness.consumer(conn, 1, SubType::Shared, 5);
    harness.take(conn);
    let repeat = pb::CommandSubscribe { topic: "other".to_owned(), ..subscribe_command(9, 1, SubType::Exclusive) };
    assert!(matches!(harness.ask(conn, repeat), Command::Success(success) if success.request_id == 9));
    assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].consumers[0].available_permits, 5);
}

#[test]
fn subscribe_conflicts() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.consumer(conn, 1, SubType::Shared, 0);
    let mut refused = |change: &dyn Fn(&mut pb::CommandSubscribe)| {
        let mut subscribe = subscribe_command(9, 2, SubType::Shared);
        change(&mut subscribe);
        let answer = harness.ask(conn, subscribe);
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
    harness.ask(conn, pb::CommandCloseConsumer { consumer_id: 1, request_id: 1, ..Default::default() });
    harness.consumer(conn, 3, SubType::Failover, 0);
}

#[test]
fn flow_with_0_permits_or_2_31_and_more_closes() {
    for (permits, closes) in [(0, true), (1 << 31, true), (u32::MAX, true), ((1 << 31) - 1, false)] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.consumer(conn, 1, SubType::Shared, 0);
        harness.flow(conn, 1, permits);
        assert_eq!(harness.broker.closing(conn), closes, "{permits}");
        assert_eq!(harness.broken() == [Rule::FlowPermits], closes);
    }
}

#[test]
fn flow_of_any_permits_without_the_consumer_is_taken() {
    for permits in [0, 10, 1 << 31, u32::MAX] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.flow(conn, 1, permits);
        assert!(!harness.broker.closing(conn), "{permits}");
        assert_eq!(harness.broken(), []);
    }
}

#[test]
fn flow_before_subscribe_is_done_is_dropped() {
    for permits in [10, 0, u32::MAX] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.look_up(conn, TOPIC);
        harness.send(conn, subscribe_command(1, 1, SubType::Shared));
        harness.flow(conn, 1, permits);
        assert!(matches!(harness.answer(conn), Command::Success(_)));
        assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].consumers[0].available_permits, 0);
        assert_eq!(harness.broken(), [Rule::BeforeResponse]);
    }
}

#[test]
fn unknown_stats_bad_schema_versions_and_incomplete_requests_close() {
    let mut harness = BrokerHarness::new();
    let mut closes = |command: Command| {
        let conn = harness.connect();
        let name = command.name();
        harness.send(conn, command);
        assert!(harness.broker.closing(conn), "{name}");
        harness.assert_closed(conn);
    };
    closes(pb::CommandConsumerStats { request_id: 1, consumer_id: 9 }.into());
    let version = Some(Bytes::from_static(b"1234567"));
    closes(pb::CommandGetSchema { request_id: 1, topic: TOPIC.to_owned(), schema_version: version }.into());
    let bad = pb::CommandGetOrCreateSchema { request_id: 1, topic: "a/b".to_owned(), ..Default::default() };
    closes(bad.into());
    closes(pb::CommandEndTxn { request_id: 1, ..Default::default() }.into());
}

#[test]
fn flow_ack_redeliver_for_an_unknown_consumer_are_ignored() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.flow(conn, 9, 1);
    harness.redeliver(conn, 9, Vec::new());
    // Not even an ACK that asks for an answer gets one.
    let ack = pb::CommandAck { consumer_id: 9, message_id: vec![id(1, 1)], request_id: Some(1), ..Default::default() };
    harness.send(conn, ack);
    assert_eq!(harness.take(conn), []);
    harness.assert_open(conn);
}

#[test]
fn cumulative_ack_on_shared_or_with_other_than_one_id_is_ignored() {
    for (sub_type, ids) in [
        (SubType::Shared, vec![id(1, 1)]),
        (SubType::KeyShared, vec![id(1, 1)]),
        (SubType::Exclusive, vec![]),
        (SubType::Exclusive, vec![id(1, 0), id(1, 1)]),
    ] {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.publish(conn, 1, "p", 0, b"x");
        harness.publish(conn, 1, "p", 1, b"x");
        harness.receipts(conn);
        harness.consumer(conn, 1, sub_type, 10);
        harness.take(conn);
        harness.ack(conn, 1, AckType::Cumulative, ids);
        assert_eq!(harness.broker.stats(TOPIC).unwrap().subscriptions["s"].msg_backlog, 2);
        assert_eq!(harness.broken(), [Rule::CumulativeAck]);
    }
}

#[test]
fn requests_without_target_or_consumer_are_metadata_errors() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.consumer(conn, 1, SubType::Exclusive, 0);
    let seek = |consumer_id| pb::CommandSeek { consumer_id, request_id: 1, ..Default::default() };
    let commands = [
        Command::from(seek(1)),
        pb::CommandSeek { message_id: Some(id(1, 1)), ..seek(9) }.into(),
        pb::CommandUnsubscribe { consumer_id: 9, request_id: 1, force: None }.into(),
        pb::CommandGetLastMessageId { consumer_id: 9, request_id: 1 }.into(),
    ];
    for command in commands {
        let answer = harness.ask(conn, command.clone());
        assert_eq!(error_of(&answer).0, ServerError::MetadataError, "{command:?}");
    }
    harness.assert_open(conn);
}

#[test]
fn close_for_unknown_ids_succeeds() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let producer = pb::CommandCloseProducer { producer_id: 9, request_id: 1, ..Default::default() };
    let consumer = pb::CommandCloseConsumer { consumer_id: 9, request_id: 2, ..Default::default() };
    assert!(matches!(harness.ask(conn, producer), Command::Success(success) if success.request_id == 1));
    assert!(matches!(harness.ask(conn, consumer), Command::Success(success) if success.request_id == 2));
}

#[test]
fn invalid_sticky_ranges_are_assign_errors() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let sticky = |id, ranges: &[(i32, i32)]| pb::CommandSubscribe {
        key_shared_meta: Some(KeySharedMeta {
            key_shared_mode: KeySharedMode::Sticky.into(),
            hash_ranges: ranges.iter().map(|(start, end)| IntRange { start: *start, end: *end }).collect(),
            allow_out_of_order_delivery: None,
        }),
        ..subscribe_command(id, id, SubType::KeyShared)
    };
    harness.look_up(conn, TOPIC);
    assert!(matches!(harness.ask(conn, sticky(1, &[(0, 100), (200, 300)])), Command::Success(_)));
    for bad in [&[][..], &[(5, 4)], &[(400, 500), (500, 600)], &[(100, 150)], &[(301, 400), (250, 260)]] {
        let answer = harness.ask(conn, sticky(2, bad));
        assert_eq!(error_of(&answer).0, ServerError::ConsumerAssignError, "{bad:?}");
    }
    assert!(matches!(harness.ask(conn, sticky(3, &[(101, 199), (301, 70_000)])), Command::Success(_)));
    let split = subscribe_command(4, 4, SubType::KeyShared);
    let answer = harness.ask(conn, split);
    assert_eq!(error_of(&answer).0, ServerError::ConsumerBusy, "all consumers have the same mode");
}

#[test]
fn empty_schema_version_is_an_incompatible_schema() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let request = pb::CommandGetSchema { request_id: 1, topic: TOPIC.to_owned(), schema_version: Some(Bytes::new()) };
    match harness.ask(conn, request) {
        Command::GetSchemaResponse(response) => assert_eq!(response.error_code(), ServerError::IncompatibleSchema),
        other => panic!("no GET_SCHEMA_RESPONSE: {other:?}"),
    }
}

#[test]
fn negative_producer_ids_are_accepted() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.producer(conn, u64::MAX);
    harness.publish(conn, u64::MAX, "p", 0, b"x");
    assert_eq!(harness.receipts(conn).len(), 1);
    harness.assert_clean();
}
