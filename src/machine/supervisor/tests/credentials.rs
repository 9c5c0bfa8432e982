//! Tokens that are wrong or expire.

use super::*;

#[test]
fn a_wrong_token_is_fetched_once_more_and_then_ends_all_who_wait() {
    let mut harness = Harness::new("pulsar://service,other");
    harness.refuses_token = true;
    harness.responds = false;
    let (_first, mut one) = harness.open(1);
    let (_second, mut two) = harness.open(2);
    harness.responds = true;
    harness.input(Input::Credentials(ConnectionId(1), Ok(AuthData::none())));
    let host = harness.log()[1].clone();
    assert!(host.starts_with("dial "), "{host}");
    for created in [&mut one, &mut two] {
        let error = peek(created).expect("answered").expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("Failed to authenticate"), "{error}");
    }
    assert_eq!(harness.supervisor.endpoints.len(), 0);
}

#[test]
fn an_expired_token_is_replaced_without_a_word_to_the_user() {
    let mut harness = Harness::new("pulsar://service");
    harness.responds = false;
    let (_endpoint, mut created) = harness.open(1);
    harness.input(Input::Credentials(ConnectionId(1), Ok(AuthData::none())));
    harness.notice(ConnectionId(1), SessionEvent::Ended(CloseReason::Broker(ServerError::new(3, "expired"))));
    assert_eq!(harness.log(), ["fetch", "dial service:6650", "fetch"]);
    harness.responds = true;
    harness.input(Input::Credentials(ConnectionId(2), Ok(AuthData::none())));
    assert_eq!(harness.log(), ["dial service:6650", "lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn a_challenge_is_answered_with_fresh_credentials() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, connection) = harness.attached(1);
    harness.notice(connection, SessionEvent::Challenged(AuthData::token("challenge")));
    assert_eq!(harness.log(), ["fetch", "challenge"]);
    assert_eq!(harness.state(1), "attached");
}
