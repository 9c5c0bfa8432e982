//! Older releases of Pulsar, as the broker plays them: what each says of itself, and what it does not know.

use pulsar_native::broker::{PulsarVersion, Rule};
use pulsar_native::pb::command_ack::AckType;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::schema::Type;
use pulsar_native::pb::{self, ProducerAccessMode};
use pulsar_native::wire::Command;

use crate::support::*;

fn playing(version: PulsarVersion) -> BrokerHarness {
    BrokerHarness::with(|config| config.like = version)
}

fn connected(version: PulsarVersion) -> pb::CommandConnected {
    let mut harness = playing(version);
    let conn = harness.dial();
    match harness.ask(conn, connect_command(21)) {
        Command::Connected(connected) => connected,
        other => panic!("no CONNECTED: {other:?}"),
    }
}

/// The first release that does something, of those that are played in order.
#[track_caller]
fn since(does: impl Fn(PulsarVersion) -> bool) -> PulsarVersion {
    let versions: Vec<_> = PulsarVersion::all().collect();
    let first = versions.iter().position(|version| does(*version)).expect("4.0 does it");
    assert!(versions[first..].iter().all(|version| does(*version)), "once it is there it stays");
    versions[first]
}

#[test]
fn connected_says_what_the_release_says() {
    let of = |version| connected(version).protocol_version();
    let versions: Vec<_> = PulsarVersion::all().map(of).collect();
    assert_eq!(versions, [15, 15, 17, 19, 19, 19, 21, 21, 21]);
    assert_eq!(since(|version| connected(version).feature_flags.is_some()), PulsarVersion::V2_11);
    let flags = |version| connected(version).feature_flags.unwrap_or_default();
    assert_eq!(since(|version| flags(version).supports_topic_watchers()), PulsarVersion::V2_11);
    let without_creation = |version| flags(version).supports_get_partitioned_metadata_without_auto_creation();
    assert_eq!(since(without_creation), PulsarVersion::V3_0);
    assert_eq!(since(|version| flags(version).supports_repl_dedup_by_lid_and_eid()), PulsarVersion::V4_0);
    assert!(connected(PulsarVersion::V2_7).server_version.starts_with("Pulsar Server "), "without a number");
    assert!(connected(PulsarVersion::V2_8).server_version.starts_with("Pulsar Server2.8"));
    assert!(PulsarVersion::all().all(|version| connected(version).max_message_size == Some(5 * 1024 * 1024)));
}

/// Whether a command is answered; the release that does not know its type ends the connection.
fn answers(version: PulsarVersion, command: impl Into<Command>) -> bool {
    let mut harness = playing(version);
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    harness.send(conn, command);
    let is_closed = harness.broker.closing(conn);
    assert_eq!(harness.broken().contains(&Rule::UnreadableFrame), is_closed);
    is_closed == harness.take(conn).is_empty() && !is_closed
}

#[test]
fn commands_of_later_releases_end_the_connection() {
    let watch = pb::CommandWatchTopicList { namespace: "public/default".to_owned(), ..Default::default() };
    assert_eq!(since(|version| answers(version, watch.clone())), PulsarVersion::V2_11);
    let close = pb::CommandWatchTopicListClose::default();
    assert_eq!(since(|version| answers(version, close)), PulsarVersion::V2_11);
    let coordinator = pb::CommandTcClientConnectRequest::default();
    assert_eq!(since(|version| answers(version, coordinator)), PulsarVersion::V2_9);
}

#[test]
fn schema_types_of_later_releases_end_the_connection() {
    let subscribe = |kind: Type| {
        let schema = Some(pb::Schema { r#type: kind.into(), ..Default::default() });
        pb::CommandSubscribe { schema, ..subscribe_command(1, 1, SubType::Shared) }
    };
    assert_eq!(since(|version| answers(version, subscribe(Type::AutoConsume))), PulsarVersion::V3_0);
    assert_eq!(since(|version| answers(version, subscribe(Type::Instant))), PulsarVersion::V2_7);
    assert_eq!(since(|version| answers(version, subscribe(Type::Timestamp))), PulsarVersion::V2_6);
    assert!(!answers(PulsarVersion::V4_0, subscribe(Type::External)));
}

#[test]
fn acknowledgements_are_confirmed_since_2_7() {
    let confirms = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.consumer(conn, 1, SubType::Shared, 0);
        let ack = pb::CommandAck {
            consumer_id: 1,
            ack_type: AckType::Individual.into(),
            message_id: vec![id(1, 0)],
            request_id: Some(9),
            ..Default::default()
        };
        harness.send(conn, ack);
        !harness.take(conn).is_empty()
    };
    assert_eq!(since(confirms), PulsarVersion::V2_7);
}

/// PRODUCER_SUCCESS of a producer with this access mode.
fn opened(version: PulsarVersion, mode: i32) -> pb::CommandProducerSuccess {
    let mut harness = playing(version);
    let conn = harness.connect();
    harness.look_up(conn, TOPIC);
    let command = pb::CommandProducer { producer_access_mode: Some(mode), ..producer_command(1, 1, TOPIC) };
    match harness.ask(conn, command) {
        Command::ProducerSuccess(success) => success,
        other => panic!("no PRODUCER_SUCCESS: {other:?}"),
    }
}

#[test]
fn access_modes_that_are_unknown_open_a_shared_producer() {
    let is_exclusive = |mode| move |version| opened(version, mode).topic_epoch.is_some();
    assert_eq!(since(is_exclusive(ProducerAccessMode::Exclusive as i32)), PulsarVersion::V2_8);
    assert_eq!(since(is_exclusive(ProducerAccessMode::ExclusiveWithFencing as i32)), PulsarVersion::V2_11);
    assert!(!is_exclusive(9)(PulsarVersion::V4_0), "as of an optional field that is absent");
    assert_eq!(since(|version| opened(version, 0).producer_ready.is_some()), PulsarVersion::V2_8);
}

#[test]
fn consumer_epochs_and_mark_delete_positions_come_with_their_releases() {
    let stamps = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.publish(conn, 1, "p", 0, b"x");
        harness.receipts(conn);
        harness.consumer_as(conn, 1, SubType::Exclusive, 1, |subscribe| subscribe.consumer_epoch = Some(3));
        harness.messages(conn).remove(0).0.consumer_epoch.is_some()
    };
    assert_eq!(since(stamps), PulsarVersion::V2_10);
    let tells_mark = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.consumer(conn, 1, SubType::Shared, 0);
        match harness.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 }) {
            Command::GetLastMessageIdResponse(response) => response.consumer_mark_delete_position.is_some(),
            other => panic!("no answer: {other:?}"),
        }
    };
    assert_eq!(since(tells_mark), PulsarVersion::V2_7);
}

#[test]
fn topic_lists_are_filtered_and_hashed_since_2_11() {
    let filters = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.producer(conn, 1);
        let topics_pattern = Some("public/default/none".to_owned());
        let namespace = "public/default".to_owned();
        let request = pb::CommandGetTopicsOfNamespace { namespace, topics_pattern, ..Default::default() };
        match harness.ask(conn, request) {
            Command::GetTopicsOfNamespaceResponse(response) => {
                assert_eq!(response.topics.is_empty(), response.filtered());
                assert_eq!(response.topics_hash.is_some(), response.filtered());
                response.filtered()
            }
            other => panic!("no answer: {other:?}"),
        }
    };
    assert_eq!(since(filters), PulsarVersion::V2_11);
}

#[test]
fn a_new_owner_is_named_and_force_is_known_since_3_3() {
    let names_owner = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.producer(conn, 1);
        harness.broker.transfer(TOPIC, "pulsar://other:6650");
        match harness.answer(conn) {
            Command::CloseProducer(close) => close.assigned_broker_service_url.is_some(),
            other => panic!("no CLOSE_PRODUCER: {other:?}"),
        }
    };
    assert_eq!(since(names_owner), PulsarVersion::V3_3);
    let forces = |version| {
        let mut harness = playing(version);
        let (conn, other) = (harness.connect(), harness.connect());
        harness.consumer(conn, 1, SubType::Shared, 0);
        harness.consumer(other, 1, SubType::Shared, 0);
        let request = pb::CommandUnsubscribe { consumer_id: 1, request_id: 1, force: Some(true) };
        matches!(harness.ask(conn, request), Command::Success(_))
    };
    assert_eq!(since(forces), PulsarVersion::V3_3);
}

#[test]
fn a_taken_name_is_refused_without_a_check_before_3_0() {
    let checks = |version| {
        let mut harness = playing(version);
        let (holder, other) = (harness.connect(), harness.connect());
        harness.producer(holder, 1);
        harness.send(other, producer_command(9, 1, TOPIC));
        let is_asked = !harness.take(holder).is_empty();
        assert_eq!(harness.take(other).is_empty(), is_asked, "it waits for the check, or is refused at once");
        is_asked
    };
    assert_eq!(since(checks), PulsarVersion::V3_0);
}

#[test]
fn missing_topics_count_as_asked_for_where_creation_cannot_be_ruled_out() {
    let rules_out = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        let metadata_auto_creation_enabled = Some(false);
        let topic = TOPIC.to_owned();
        let request =
            pb::CommandPartitionedTopicMetadata { topic, metadata_auto_creation_enabled, ..Default::default() };
        match harness.ask(conn, request) {
            Command::PartitionedMetadataResponse(response) => response.error.is_some(),
            other => panic!("no answer: {other:?}"),
        }
    };
    assert_eq!(since(rules_out), PulsarVersion::V3_0);
}

#[test]
fn messages_without_a_key_are_spread_over_key_shared_consumers_since_4_0() {
    let spreads = |version| {
        let mut harness = playing(version);
        let conn = harness.connect();
        harness.consumer(conn, 1, SubType::KeyShared, 1000);
        harness.consumer(conn, 2, SubType::KeyShared, 1000);
        harness.producer(conn, 7);
        for sequence_id in 0..50 {
            harness.publish(conn, 7, "p", sequence_id, b"x");
        }
        let frames = harness.take(conn);
        let of = |consumer: u64| {
            let is_of = |frame: &&pulsar_native::wire::Frame| matches!(frame, pulsar_native::wire::Frame::Message { head, .. } if head.consumer_id == consumer);
            frames.iter().filter(is_of).count()
        };
        assert_eq!(of(1) + of(2), 50);
        of(1) > 0 && of(2) > 0
    };
    assert_eq!(since(spreads), PulsarVersion::V4_0);
}
