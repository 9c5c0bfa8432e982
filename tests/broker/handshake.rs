//! CONNECT, credentials, keep-alive, versions, lookups first.

use std::time::Duration;

use bytes::Bytes;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::{Command, Frame};

use crate::support::{BrokerHarness, TOPIC, connect_command, error_of, producer_command, subscribe_command};

fn with_tokens() -> BrokerHarness {
    BrokerHarness::with(|config| config.token_secret_key = Some(b"secret".to_vec()))
}

fn token_connect(
    harness: &BrokerHarness,
    role: &str,
    valid_for: Option<Duration>,
    refresh: bool,
) -> pb::CommandConnect {
    pb::CommandConnect {
        auth_method_name: Some("token".to_owned()),
        auth_data: harness.broker.mint_token(role, valid_for).map(Into::into),
        feature_flags: Some(pb::FeatureFlags { supports_auth_refresh: Some(refresh), ..Default::default() }),
        ..connect_command(21)
    }
}

fn auth_response(token: Option<String>) -> pb::CommandAuthResponse {
    pb::CommandAuthResponse {
        response: Some(pb::AuthData { auth_method_name: Some("token".to_owned()), auth_data: token.map(Bytes::from) }),
        ..Default::default()
    }
}

/// A connection whose token has expired, with the challenge taken off it.
fn challenged() -> (BrokerHarness, ConnId) {
    let mut harness = with_tokens();
    let connect = token_connect(&harness, "admin", Some(Duration::from_secs(10)), true);
    let conn = harness.connect_as(connect);
    for _ in 0..2 {
        harness.advance(Duration::from_secs(30));
        harness.send(conn, pb::CommandPong {});
    }
    let frames = harness.take(conn);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Other(Command::AuthChallenge(_)))), "{frames:?}");
    (harness, conn)
}

#[test]
fn the_version_is_the_lower_of_both() {
    let mut harness = BrokerHarness::new();
    for (theirs, agreed) in [(21, 21), (99, 21), (4, 4), (0, 0)] {
        let conn = harness.dial();
        let Command::Connected(connected) = harness.ask(conn, connect_command(theirs)) else { panic!("no CONNECTED") };
        assert_eq!(connected.protocol_version, Some(agreed));
    }
}

#[test]
fn bad_credentials_get_an_error_for_no_request_and_a_close() {
    let mut harness = with_tokens();
    let expired = {
        let connect = token_connect(&harness, "admin", Some(Duration::from_secs(5)), true);
        harness.advance(Duration::from_secs(5));
        connect
    };
    let good = token_connect(&harness, "admin", None, true);
    let bad = [
        connect_command(21),
        pb::CommandConnect { auth_method_name: Some("basic".to_owned()), ..good.clone() },
        pb::CommandConnect { auth_data: Some(Bytes::from_static(b"x.y.z")), ..good.clone() },
        pb::CommandConnect { auth_data: None, ..good.clone() },
        expired,
    ];
    for connect in bad {
        let conn = harness.dial();
        let answer = harness.ask(conn, connect);
        assert_eq!(error_of(&answer), (ServerError::AuthenticationError, "Failed to authenticate"));
        assert!(matches!(answer, Command::Error(error) if error.request_id == u64::MAX));
        harness.assert_closed(conn);
    }
    let conn = harness.dial();
    let answer = harness.ask(conn, pb::CommandConnect { original_principal: Some("x".to_owned()), ..good.clone() });
    assert_eq!(error_of(&answer), (ServerError::AuthorizationError, "Invalid roles."));
    let conn = harness.dial();
    assert!(matches!(harness.ask(conn, good), Command::Connected(_)));
}

#[test]
fn another_role_is_connected_and_refused_each_request_in_its_own_response() {
    let mut harness = with_tokens();
    let connect = token_connect(&harness, "nobody", None, true);
    let conn = harness.connect_as(connect);
    let refused = ServerError::AuthorizationError;
    let topic = || TOPIC.to_owned();
    let lookup = pb::CommandLookupTopic { topic: topic(), request_id: 1, ..Default::default() };
    assert!(matches!(harness.ask(conn, lookup), Command::LookupResponse(r) if r.error() == refused));
    let metadata = pb::CommandPartitionedTopicMetadata { topic: topic(), request_id: 1, ..Default::default() };
    assert!(matches!(harness.ask(conn, metadata), Command::PartitionedMetadataResponse(r) if r.error() == refused));
    let answer = harness.ask(conn, producer_command(1, 1, TOPIC));
    assert_eq!(error_of(&answer).0, refused);
    let answer = harness.ask(conn, subscribe_command(1, 1, SubType::Shared));
    assert_eq!(error_of(&answer).0, refused);
    let schema = pb::CommandGetSchema { request_id: 1, topic: topic(), schema_version: None };
    assert!(
        matches!(harness.ask(conn, schema), Command::GetSchemaResponse(r) if r.error_code() == ServerError::TopicNotFound)
    );
    harness.assert_open(conn);
}

#[test]
fn a_valid_response_to_the_refresh_challenge_gets_no_response() {
    let (mut harness, conn) = challenged();
    let token = harness.broker.mint_token("admin", None);
    harness.send(conn, auth_response(token));
    harness.advance(Duration::from_secs(1));
    assert_eq!(harness.take(conn), []);
    for _ in 0..4 {
        harness.advance(Duration::from_secs(30));
        harness.send(conn, pb::CommandPong {});
    }
    harness.assert_open(conn);
    harness.assert_clean();
}

#[test]
fn other_responses_to_the_challenge_end_the_connection() {
    let (mut harness, conn) = challenged();
    let token = harness.broker.mint_token("another", None);
    harness.send(conn, auth_response(token));
    harness.assert_closed(conn);

    let (mut harness, conn) = challenged();
    let answer = harness.ask(conn, auth_response(Some("x.y.z".to_owned())));
    assert_eq!(error_of(&answer).0, ServerError::AuthenticationError);
    harness.assert_closed(conn);

    let (mut harness, conn) = challenged();
    harness.send(conn, auth_response(None));
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::IncompleteRequest]);
}

#[test]
fn no_response_to_the_challenge_ends_the_connection_at_the_next_check() {
    let (mut harness, conn) = challenged();
    harness.advance(Duration::from_secs(30));
    harness.send(conn, pb::CommandPong {});
    harness.assert_open(conn);
    harness.take(conn);
    harness.advance(Duration::from_secs(30));
    assert!(harness.broker.closing(conn));
}

#[test]
fn an_expired_token_ends_a_client_that_cannot_refresh() {
    let mut harness = with_tokens();
    let connect = token_connect(&harness, "admin", Some(Duration::from_secs(10)), false);
    let conn = harness.connect_as(connect);
    harness.advance(Duration::from_secs(30));
    harness.send(conn, pb::CommandPong {});
    harness.take(conn);
    harness.advance(Duration::from_secs(30));
    assert!(harness.broker.closing(conn));
}

#[test]
fn a_token_of_zero_duration_is_refused_and_one_of_a_second_is_valid() {
    for wall_ms in [1_700_000_000_000, 1_700_000_000_999] {
        let mut harness = with_tokens();
        harness.now.wall_ms = wall_ms;
        harness.advance(Duration::ZERO);
        let connect = token_connect(&harness, "admin", Some(Duration::ZERO), false);
        let conn = harness.dial();
        assert!(matches!(harness.ask(conn, connect), Command::Error(_)), "it has expired already");
        harness.assert_closed(conn);
        let connect = token_connect(&harness, "admin", Some(Duration::from_millis(1)), false);
        let conn = harness.connect_as(connect);
        harness.assert_open(conn);
    }
}

#[test]
fn any_frame_answers_a_ping_and_none_ends_the_connection() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.advance(Duration::from_secs(30));
    assert!(matches!(harness.answer(conn), Command::Ping(_)));
    harness.flow(conn, 9, 1);
    harness.advance(Duration::from_secs(30));
    assert!(matches!(harness.answer(conn), Command::Ping(_)));
    harness.advance(Duration::from_secs(29));
    harness.assert_open(conn);
    harness.advance(Duration::from_secs(1));
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::PongMissing]);
}

#[test]
fn a_handshake_has_one_keep_alive_interval() {
    let mut harness = BrokerHarness::new();
    let conn = harness.dial();
    harness.advance(Duration::from_secs(30));
    harness.assert_closed(conn);
}

#[test]
fn a_namespace_that_was_not_looked_up_is_not_served() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let answer = harness.ask(conn, producer_command(1, 1, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady);
    assert_eq!(harness.broken(), [Rule::LookupMissing]);
    // Another topic of the namespace makes this broker its owner; that this one was not looked up is a violation.
    harness.look_up(conn, "another");
    assert!(matches!(harness.ask(conn, producer_command(2, 1, TOPIC)), Command::ProducerSuccess(_)));
    assert_eq!(harness.broken(), [Rule::LookupMissing]);
}

#[test]
fn missing_namespaces_and_partitions_are_not_found() {
    let mut harness = BrokerHarness::with(|config| {
        config.partitioned_topics.insert("persistent://public/default/p".to_owned(), 2);
    });
    let conn = harness.connect();
    let mut partitions = |topic: &str| {
        let request =
            pb::CommandPartitionedTopicMetadata { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match harness.ask(conn, request) {
            Command::PartitionedMetadataResponse(response) => response.partitions.ok_or(response.error()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(partitions("p"), Ok(2));
    assert_eq!(partitions("p-partition-1"), Ok(0));
    assert_eq!(partitions("p-partition-2"), Err(ServerError::TopicNotFound));
    assert_eq!(partitions("new"), Ok(0));
    assert_eq!(partitions("persistent://no/where/t"), Err(ServerError::TopicNotFound));
    harness.look_up(conn, "p-partition-2");
    let answer = harness.ask(conn, producer_command(1, 1, "persistent://public/default/p-partition-2"));
    assert_eq!(error_of(&answer).0, ServerError::TopicNotFound);
}

#[test]
fn features_above_the_version_are_violations() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect_as(connect_command(11));
    harness.consumer(conn, 1, SubType::Exclusive, 0);
    harness.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(harness.broken(), [Rule::AboveVersion]);
}

#[test]
fn a_silent_holder_of_a_name_is_replaced_after_the_liveness_check() {
    let mut harness = BrokerHarness::new();
    let (a, b) = (harness.connect(), harness.connect());
    harness.producer(a, 1);
    harness.send(b, producer_command(9, 1, TOPIC));
    assert!(matches!(harness.answer(a), Command::Ping(_)));
    assert_eq!(harness.take(b), []);
    let answer = harness.ask(b, producer_command(10, 1, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady, "it is still being created");
    harness.advance(Duration::from_secs(5));
    assert!(matches!(harness.answer(b), Command::ProducerSuccess(success) if success.request_id == 9));
    harness.assert_closed(a);
}

#[test]
fn old_versions_get_no_checksum_block_and_lose_the_socket_on_unload() {
    let mut harness = BrokerHarness::new();
    let (new, old) = (harness.connect(), harness.connect_as(connect_command(4)));
    harness.producer(new, 1);
    harness.publish(new, 1, "p", 0, b"x");
    harness.receipts(new);
    harness.consumer(old, 1, SubType::Exclusive, 1);
    let (_, entry) = harness.messages(old).remove(0);
    assert_eq!(entry[..2], [0, 0], "metadata_size comes first");
    harness.broker.unload(TOPIC);
    harness.assert_closed(old);
    harness.assert_open(new);
}
