//! What roles may do that are not super users, as Pulsar 4.0.8 answered them.

use bytes::Bytes;
use pulsar_native::broker::AuthAction;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::Command;

use crate::support::{BrokerHarness, TOPIC, connect_command, error_of, producer_command, subscribe_command};

const NAMESPACE: &str = "public/default";

fn with_rights(role: &str, actions: &[AuthAction]) -> BrokerHarness {
    let mut harness = BrokerHarness::with(|config| {
        config.token_secret_key = Some(b"a secret".to_vec());
        config.anonymous_user_role = Some("anyone".to_owned());
    });
    let actions = actions.iter().copied();
    assert!(harness.broker.set_namespace_policies(NAMESPACE, |own| own.grant(role, actions)));
    harness
}

fn connect(harness: &mut BrokerHarness, role: Option<&str>) -> ConnId {
    let token = role.map(|role| harness.broker.mint_token(role, None).expect("there is a key"));
    harness.connect_as(pb::CommandConnect {
        auth_method_name: token.is_some().then(|| "token".to_owned()),
        auth_data: token.map(|token| token.into_bytes().into()),
        ..connect_command(21)
    })
}

/// The refusals of a lookup, a producer, a consumer, a list of topics; `None` for what is let in.
fn refusals(harness: &mut BrokerHarness, conn: ConnId) -> [Option<String>; 4] {
    let text = |answer: &Command| {
        let refusal = answer.refusal()?;
        assert_eq!(refusal.code, ServerError::AuthorizationError as i32, "{answer:?}");
        Some(refusal.message)
    };
    let lookup = pb::CommandLookupTopic { topic: TOPIC.to_owned(), request_id: 1, ..Default::default() };
    let list = pb::CommandGetTopicsOfNamespace { request_id: 2, namespace: NAMESPACE.to_owned(), ..Default::default() };
    let commands: [Command; 4] = [
        lookup.into(),
        producer_command(3, 1, TOPIC).into(),
        subscribe_command(4, 1, SubType::Shared).into(),
        list.into(),
    ];
    commands.map(|command| text(&harness.ask(conn, command)))
}

#[test]
fn rights_are_by_action() {
    let not = |what: &str| Some(format!("Client is not authorized to {what}"));
    let cases: [(&[AuthAction], _); 4] = [
        (&[AuthAction::Consume], [None, not("Produce"), None, None]),
        (&[AuthAction::Produce], [None, None, not("subscribe"), None]),
        (&[AuthAction::Produce, AuthAction::Consume], [None, None, None, None]),
        (&[AuthAction::Functions], [not("Lookup"), not("Produce"), not("subscribe"), not("GetTopicsOfNamespace")]),
    ];
    for (actions, expected) in cases {
        let mut harness = with_rights("billing", actions);
        let conn = connect(&mut harness, Some("billing"));
        assert_eq!(refusals(&mut harness, conn), expected, "{actions:?}");
    }
}

#[test]
fn rights_can_be_taken_and_are_of_their_namespace() {
    let mut harness = with_rights("billing", &[AuthAction::Produce, AuthAction::Consume]);
    let conn = connect(&mut harness, Some("billing"));
    assert_eq!(refusals(&mut harness, conn)[0], None);
    let elsewhere = "persistent://other/namespace/t";
    let lookup = pb::CommandLookupTopic { topic: elsewhere.to_owned(), request_id: 1, ..Default::default() };
    let answer = harness.ask(conn, lookup);
    assert_eq!(answer.refusal().map(|refusal| refusal.code), Some(ServerError::AuthorizationError as i32));
    assert!(harness.broker.set_namespace_policies(NAMESPACE, |own| own.revoke("billing")));
    let answer = harness.ask(conn, producer_command(5, 2, TOPIC));
    assert_eq!(error_of(&answer).0, ServerError::AuthorizationError);
    assert!(harness.broker.set_topic_policies(TOPIC, |own| own.grant("billing", [AuthAction::Consume])));
    let mut subscribe = subscribe_command(6, 2, SubType::Shared);
    subscribe.subscription = "other".to_owned();
    assert!(matches!(harness.ask(conn, subscribe), Command::Success(_)), "of the topic alone");
}

#[test]
fn who_brings_no_credentials_has_the_anonymous_role() {
    let mut harness = with_rights("anyone", &[AuthAction::Consume]);
    let conn = connect(&mut harness, None);
    assert_eq!(refusals(&mut harness, conn).map(|refusal| refusal.is_some()), [false, true, false, false]);
    let conn = harness.dial();
    let bad = pb::CommandConnect {
        auth_method_name: Some("token".to_owned()),
        auth_data: Some(Bytes::from_static(b"no token")),
        ..connect_command(21)
    };
    harness.send(conn, bad);
    assert!(matches!(harness.take(conn).as_slice(), [pulsar_native::wire::Frame::Other(Command::Error(_))]));
    assert!(harness.broker.closing(conn), "credentials that are not good are refused all the same");
}
