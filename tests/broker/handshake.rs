//! CONNECT, credentials, keep-alive, versions, lookups first.

use std::time::Duration;

use bytes::Bytes;
use pulsar_native::broker::Rule;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::{Command, Frame};

use crate::support::{TOPIC, World, connect_command, error_of, producer_command, subscribe_command};

fn with_tokens() -> World {
    World::with(|config| config.token_key = Some(b"secret".to_vec()))
}

fn token_connect(world: &World, role: &str, valid_for: Option<Duration>, refresh: bool) -> pb::CommandConnect {
    pb::CommandConnect {
        auth_method_name: Some("token".to_owned()),
        auth_data: world.broker.mint_token(role, valid_for).map(Into::into),
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
fn challenged() -> (World, ConnId) {
    let mut world = with_tokens();
    let connect = token_connect(&world, "admin", Some(Duration::from_secs(10)), true);
    let conn = world.connect_as(connect);
    for _ in 0..2 {
        world.advance(Duration::from_secs(30));
        world.send(conn, pb::CommandPong {});
    }
    let frames = world.take(conn);
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Other(Command::AuthChallenge(_)))), "{frames:?}");
    (world, conn)
}

#[test]
fn the_version_is_the_lower_of_both() {
    let mut world = World::new();
    for (theirs, agreed) in [(21, 21), (99, 21), (4, 4), (0, 0)] {
        let conn = world.dial();
        let Command::Connected(connected) = world.ask(conn, connect_command(theirs)) else { panic!("no CONNECTED") };
        assert_eq!(connected.protocol_version, Some(agreed));
    }
}

#[test]
fn bad_credentials_get_an_error_for_no_request_and_a_close() {
    let mut world = with_tokens();
    let expired = {
        let connect = token_connect(&world, "admin", Some(Duration::from_secs(5)), true);
        world.advance(Duration::from_secs(5));
        connect
    };
    let good = token_connect(&world, "admin", None, true);
    let bad = [
        connect_command(21),
        pb::CommandConnect { auth_method_name: Some("basic".to_owned()), ..good.clone() },
        pb::CommandConnect { auth_data: Some(Bytes::from_static(b"x.y.z")), ..good.clone() },
        pb::CommandConnect { auth_data: None, ..good.clone() },
        expired,
    ];
    for connect in bad {
        let conn = world.dial();
        let answer = world.ask(conn, connect);
        assert_eq!(error_of(&answer), (ServerError::AuthenticationError, "Failed to authenticate"));
        assert!(matches!(answer, Command::Error(error) if error.request_id == u64::MAX));
        world.assert_closed(conn);
    }
    let conn = world.dial();
    let answer = world.ask(conn, pb::CommandConnect { original_principal: Some("x".to_owned()), ..good.clone() });
    assert_eq!(error_of(&answer), (ServerError::AuthorizationError, "Invalid roles."));
    let conn = world.dial();
    assert!(matches!(world.ask(conn, good), Command::Connected(_)));
}

#[test]
fn another_role_is_connected_and_refused_each_request_in_its_own_response() {
    let mut world = with_tokens();
    let connect = token_connect(&world, "nobody", None, true);
    let conn = world.connect_as(connect);
    let refused = ServerError::AuthorizationError;
    let topic = || TOPIC.to_owned();
    let lookup = pb::CommandLookupTopic { topic: topic(), request_id: 1, ..Default::default() };
    assert!(matches!(world.ask(conn, lookup), Command::LookupResponse(r) if r.error() == refused));
    let metadata = pb::CommandPartitionedTopicMetadata { topic: topic(), request_id: 1, ..Default::default() };
    assert!(matches!(world.ask(conn, metadata), Command::PartitionedMetadataResponse(r) if r.error() == refused));
    let answer = world.ask(conn, producer_command(1, 1, TOPIC));
    assert_eq!(error_of(&answer).0, refused);
    let answer = world.ask(conn, subscribe_command(1, 1, SubType::Shared));
    assert_eq!(error_of(&answer).0, refused);
    let schema = pb::CommandGetSchema { request_id: 1, topic: topic(), schema_version: None };
    assert!(
        matches!(world.ask(conn, schema), Command::GetSchemaResponse(r) if r.error_code() == ServerError::TopicNotFound)
    );
    world.assert_open(conn);
}

#[test]
fn a_good_answer_to_the_refresh_challenge_is_silent() {
    let (mut world, conn) = challenged();
    let token = world.broker.mint_token("admin", None);
    world.send(conn, auth_response(token));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.take(conn), []);
    for _ in 0..4 {
        world.advance(Duration::from_secs(30));
        world.send(conn, pb::CommandPong {});
    }
    world.assert_open(conn);
    world.assert_clean();
}

#[test]
fn other_answers_to_the_challenge_end_the_connection() {
    let (mut world, conn) = challenged();
    let token = world.broker.mint_token("another", None);
    world.send(conn, auth_response(token));
    world.assert_closed(conn);

    let (mut world, conn) = challenged();
    let answer = world.ask(conn, auth_response(Some("x.y.z".to_owned())));
    assert_eq!(error_of(&answer).0, ServerError::AuthenticationError);
    world.assert_closed(conn);

    let (mut world, conn) = challenged();
    world.send(conn, auth_response(None));
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::IncompleteRequest]);
}

#[test]
fn no_answer_to_the_challenge_ends_the_connection_at_the_next_check() {
    let (mut world, conn) = challenged();
    world.advance(Duration::from_secs(30));
    world.send(conn, pb::CommandPong {});
    world.assert_open(conn);
    world.take(conn);
    world.advance(Duration::from_secs(30));
    assert!(world.broker.closing(conn));
}

#[test]
fn an_expired_token_ends_a_client_that_cannot_refresh() {
    let mut world = with_tokens();
    let connect = token_connect(&world, "admin", Some(Duration::from_secs(10)), false);
    let conn = world.connect_as(connect);
    world.advance(Duration::from_secs(30));
    world.send(conn, pb::CommandPong {});
    world.take(conn);
    world.advance(Duration::from_secs(30));
    assert!(world.broker.closing(conn));
}

#[test]
fn a_token_of_no_time_is_refused_and_one_of_a_moment_is_good() {
    for wall_ms in [1_700_000_000_000, 1_700_000_000_999] {
        let mut world = with_tokens();
        world.now.wall_ms = wall_ms;
        world.advance(Duration::ZERO);
        let connect = token_connect(&world, "admin", Some(Duration::ZERO), false);
        let conn = world.dial();
        assert!(matches!(world.ask(conn, connect), Command::Error(_)), "it has expired already");
        world.assert_closed(conn);
        let connect = token_connect(&world, "admin", Some(Duration::from_millis(1)), false);
        let conn = world.connect_as(connect);
        world.assert_open(conn);
    }
}

#[test]
fn any_frame_answers_a_ping_and_none_ends_the_connection() {
    let mut world = World::new();
    let conn = world.connect();
    world.advance(Duration::from_secs(30));
    assert!(matches!(world.answer(conn), Command::Ping(_)));
    world.flow(conn, 9, 1);
    world.advance(Duration::from_secs(30));
    assert!(matches!(world.answer(conn), Command::Ping(_)));
    world.advance(Duration::from_secs(29));
    world.assert_open(conn);
    world.advance(Duration::from_secs(1));
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::PongMissing]);
}

#[test]
fn a_handshake_has_one_keep_alive_interval() {
    let mut world = World::new();
    let conn = world.dial();
    world.advance(Duration::from_secs(30));
    world.assert_closed(conn);
}

#[test]
fn a_namespace_nobody_looked_up_is_not_served() {
    let mut world = World::new();
    let conn = world.connect();
    let answer = world.ask(conn, producer_command(1, 1, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady);
    assert_eq!(world.broken(), [Rule::LookupMissing]);
    // Another topic of the namespace makes this broker its owner; the judge notes that this one was not asked for.
    world.look_up(conn, "another");
    assert!(matches!(world.ask(conn, producer_command(2, 1, TOPIC)), Command::ProducerSuccess(_)));
    assert_eq!(world.broken(), [Rule::LookupMissing]);
}

#[test]
fn missing_namespaces_and_partitions_are_not_found() {
    let mut world = World::with(|config| {
        config.partitioned.insert("persistent://public/default/p".to_owned(), 2);
    });
    let conn = world.connect();
    let mut partitions = |topic: &str| {
        let request =
            pb::CommandPartitionedTopicMetadata { topic: topic.to_owned(), request_id: 1, ..Default::default() };
        match world.ask(conn, request) {
            Command::PartitionedMetadataResponse(response) => response.partitions.ok_or(response.error()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(partitions("p"), Ok(2));
    assert_eq!(partitions("p-partition-1"), Ok(0));
    assert_eq!(partitions("p-partition-2"), Err(ServerError::TopicNotFound));
    assert_eq!(partitions("new"), Ok(0));
    assert_eq!(partitions("persistent://no/where/t"), Err(ServerError::TopicNotFound));
    world.look_up(conn, "p-partition-2");
    let answer = world.ask(conn, producer_command(1, 1, "persistent://public/default/p-partition-2"));
    assert_eq!(error_of(&answer).0, ServerError::TopicNotFound);
}

#[test]
fn features_above_the_version_are_noted() {
    let mut world = World::new();
    let conn = world.connect_as(connect_command(11));
    world.consumer(conn, 1, SubType::Exclusive, 0);
    world.ask(conn, pb::CommandGetLastMessageId { consumer_id: 1, request_id: 1 });
    assert_eq!(world.broken(), [Rule::AboveVersion]);
}

#[test]
fn a_silent_holder_of_a_name_is_replaced_after_the_liveness_check() {
    let mut world = World::new();
    let (a, b) = (world.connect(), world.connect());
    world.producer(a, 1);
    world.send(b, producer_command(9, 1, TOPIC));
    assert!(matches!(world.answer(a), Command::Ping(_)));
    assert_eq!(world.take(b), []);
    let answer = world.ask(b, producer_command(10, 1, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady, "it is still being created");
    world.advance(Duration::from_secs(5));
    assert!(matches!(world.answer(b), Command::ProducerSuccess(success) if success.request_id == 9));
    world.assert_closed(a);
}

#[test]
fn old_versions_get_no_checksum_block_and_lose_the_socket_on_unload() {
    let mut world = World::new();
    let (new, old) = (world.connect(), world.connect_as(connect_command(4)));
    world.producer(new, 1);
    world.publish(new, 1, "p", 0, b"x");
    world.receipts(new);
    world.consumer(old, 1, SubType::Exclusive, 1);
    let (_, entry) = world.messages(old).remove(0);
    assert_eq!(entry[..2], [0, 0], "metadata_size comes first");
    world.broker.unload(TOPIC);
    world.assert_closed(old);
    world.assert_open(new);
}
