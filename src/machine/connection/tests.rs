use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::error::ServerCode;
use crate::wire::frame::{Frame, cut, frames};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

struct Harness {
    connection: Connection,
    start: Now,
}

fn later(start: Now, by: Duration) -> Now {
    Now { at: start.at + by, wall_ms: start.wall_ms }
}

impl Harness {
    fn new() -> Self {
        let start = Now { at: Instant::now(), wall_ms: 1_700_000_000_000 };
        let config = ConnectionConfig {
            address: "broker:6650".into(),
            tls: false,
            proxy_to_broker_url: None,
            client_version: "test".to_owned(),
            keep_alive_interval: KEEP_ALIVE,
            handshake_timeout: Duration::MAX,
            operation_timeout: OPERATION_TIMEOUT,
        };
        let credentials = AuthData { method: "token".to_owned(), data: Bytes::from_static(b"secret") };
        Self { connection: Connection::new(config, credentials, start), start }
    }

    fn up() -> Self {
        let mut harness = Self::new();
        harness.sent();
        let event = harness.broker(connected(21, Some(1000)));
        assert!(matches!(event, Ok(Some(ConnectionEvent::Connected(_)))), "{event:?}");
        harness
    }

    fn at(&self, seconds: u64) -> Now {
        later(self.start, Duration::from_secs(seconds))
    }

    fn broker(&mut self, command: impl Into<Command>) -> Result<Option<ConnectionEvent>, CloseReason> {
        self.connection.handle_command(command.into())
    }

    /// What was written since the last look.
    fn sent(&mut self) -> Vec<Command> {
        let mut tx = TxBuf::new();
        self.connection.poll_transmit(&mut tx);
        let mut bytes = BytesMut::from(&tx.take_all()[..]);
        let Some(run) = cut(&mut bytes, &Limits::default()).expect("we write whole frames") else { return Vec::new() };
        frames(run)
            .map(|frame| match frame.expect("we write good frames") {
                Frame::Other(command) => command,
                other => panic!("{other:?} is no control command"),
            })
            .collect()
    }

    fn ask(&mut self, number: u64) -> u64 {
        let lookup = pb::CommandLookupTopic { topic: "t".to_owned(), ..Default::default() };
        let requester = Requester::Supervisor(RequestToken(number));
        self.connection.request(lookup.into(), requester, self.start).expect("small");
        self.sent().last().and_then(Command::request_id).expect("a request has an id")
    }
}

fn connected(version: i32, max_message_size: Option<i32>) -> pb::CommandConnected {
    pb::CommandConnected {
        server_version: "Pulsar".to_owned(),
        protocol_version: Some(version),
        max_message_size,
        ..Default::default()
    }
}

fn error(request_id: u64, code: i32) -> pb::CommandError {
    pb::CommandError { request_id, error: code, message: "why".to_owned() }
}

fn found(request_id: u64) -> pb::CommandLookupTopicResponse {
    pb::CommandLookupTopicResponse {
        request_id,
        response: Some(pb::command_lookup_topic_response::LookupType::Connect as i32),
        broker_service_url: Some("pulsar://b:6650".to_owned()),
        ..Default::default()
    }
}

#[test]
fn connect_carries_token_version_and_flags() {
    let mut harness = Harness::new();
    let sent = harness.sent();
    let [Command::Connect(connect)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(connect.auth_method_name.as_deref(), Some("token"));
    assert_eq!(connect.auth_data.as_deref(), Some(&b"secret"[..]));
    assert_eq!(connect.protocol_version, Some(21));
    let flags = connect.feature_flags.as_ref().expect("flags are sent");
    assert!(flags.supports_auth_refresh() && flags.supports_broker_entry_metadata());
    assert!(!format!("{sent:?}").contains("secret"));
}

#[test]
fn no_authentication_sends_no_credential() {
    let mut harness = Harness::new();
    harness.connection = Connection::new(harness.connection.config.clone(), AuthData::none(), harness.start);
    let sent = harness.sent();
    let [Command::Connect(connect)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((connect.auth_method_name.as_deref(), &connect.auth_data), (Some("none"), &None));
}

#[test]
fn connected_sets_the_frame_limit_and_the_lower_version() {
    let mut harness = Harness::new();
    let Ok(Some(ConnectionEvent::Connected(peer))) = harness.broker(connected(19, Some(1000))) else {
        panic!("not ready")
    };
    assert_eq!((peer.protocol_version, peer.max_message_size), (19, 1000));
    assert_eq!(harness.connection.limits().frame_bytes_max, Limits::for_message_size(1000).frame_bytes_max);
}

#[test]
fn a_handshake_refused_is_the_brokers_reason_whatever_the_request_id() {
    for request_id in [u64::MAX, 0] {
        let refused = Harness::new().broker(error(request_id, 3));
        assert_eq!(refused.unwrap_err(), CloseReason::Broker(ServerError::new(3, "why")));
    }
}

#[test]
fn brokers_too_old_or_senseless_are_refused() {
    for connected in [connected(11, None), connected(21, Some(0)), connected(21, Some(-5))] {
        assert!(matches!(Harness::new().broker(connected), Err(CloseReason::ProtocolViolation(_))));
    }
}

#[test]
fn what_has_no_place_ends_the_connection() {
    let early = Harness::new().broker(pb::CommandSuccess::default());
    assert!(matches!(early, Err(CloseReason::ProtocolViolation(_))));
    let twice = Harness::up().broker(connected(21, None));
    assert!(matches!(twice, Err(CloseReason::ProtocolViolation(_))));
    let clients_own = Harness::up().broker(pb::CommandConnect::default());
    assert!(matches!(clients_own, Err(CloseReason::ProtocolViolation(_))));
}

#[test]
fn pings_are_answered_in_every_state_and_a_flood_is_bounded() {
    let mut harness = Harness::new();
    harness.sent();
    for _ in 0..1000 {
        harness.broker(pb::CommandPing::default()).unwrap();
    }
    let pongs = harness.sent();
    assert!(pongs.iter().all(|command| matches!(command, Command::Pong(_))));
    assert_eq!(pongs.len(), keep_alive::PONGS_OWED_MAX as usize);
}

#[test]
fn a_handshake_that_takes_an_interval_ends() {
    let mut harness = Harness::new();
    assert_eq!(harness.connection.handle_deadline(harness.at(29)), Ok(()));
    let ended = harness.connection.handle_deadline(harness.at(30));
    assert_eq!(ended, Err(CloseReason::Silent { after: KEEP_ALIVE }));
}

#[test]
fn silence_after_a_ping_ends_the_connection_and_inbound_pings_are_silence() {
    let mut harness = Harness::up();
    assert_eq!(harness.connection.handle_deadline(harness.at(30)), Ok(()));
    assert!(matches!(harness.sent()[..], [Command::Ping(_)]));
    harness.broker(pb::CommandPing::default()).unwrap();
    assert!(harness.connection.handle_deadline(harness.at(60)).is_err());
}

#[test]
fn any_other_command_proves_life() {
    let mut harness = Harness::up();
    for interval in 1..5 {
        assert_eq!(harness.connection.handle_deadline(harness.at(30 * interval)), Ok(()));
        harness.broker(pb::CommandPong::default()).unwrap();
    }
}

#[test]
fn answers_find_their_requester_in_any_order() {
    let mut harness = Harness::up();
    let (first, second) = (harness.ask(1), harness.ask(2));
    for (id, number) in [(second, 2), (first, 1)] {
        let event = harness.broker(found(id)).unwrap();
        let Some(ConnectionEvent::Response(requester, Ok(_))) = event else { panic!("{event:?}") };
        assert_eq!(requester, Requester::Supervisor(RequestToken(number)));
    }
}

#[test]
fn refusals_come_out_of_whatever_carries_them() {
    let mut harness = Harness::up();
    let id = harness.ask(1);
    let failed = pb::CommandLookupTopicResponse {
        request_id: id,
        response: Some(pb::command_lookup_topic_response::LookupType::Failed as i32),
        error: Some(6),
        message: Some("why".to_owned()),
        ..Default::default()
    };
    let Ok(Some(ConnectionEvent::Response(_, Err(refusal)))) = harness.broker(failed) else { panic!("not refused") };
    assert_eq!(refusal, RequestError::Server(ServerError::new(6, "why")));
    let id = harness.ask(2);
    let Ok(Some(ConnectionEvent::Response(_, Err(refusal)))) = harness.broker(error(id, 11)) else {
        panic!("not refused")
    };
    assert_eq!(refusal, RequestError::Server(ServerError::new(11, "why")));
}

#[test]
fn an_answer_of_the_wrong_kind_ends_the_connection() {
    let mut harness = Harness::up();
    let request_id = harness.ask(1);
    let wrong = harness.broker(pb::CommandSuccess { request_id, schema: None });
    assert!(matches!(wrong, Err(CloseReason::ProtocolViolation(_))));
}

#[test]
fn a_proxy_refuses_a_request_for_partitions_in_the_answer_to_a_lookup() {
    use pb::command_lookup_topic_response::LookupType;
    let answer = |kind: LookupType| {
        let mut harness = Harness::up();
        let request = pb::CommandPartitionedTopicMetadata { topic: "t".to_owned(), ..Default::default() };
        let requester = Requester::Supervisor(RequestToken(1));
        harness.connection.request(request.into(), requester, harness.start).expect("small");
        let answer = pb::CommandLookupTopicResponse {
            request_id: harness.sent()[0].request_id().expect("a request has an id"),
            response: Some(kind.into()),
            error: Some(ServerCode::AUTHORIZATION_ERROR.0),
            message: Some("why".to_owned()),
            ..Default::default()
        };
        harness.broker(answer)
    };
    let Ok(Some(ConnectionEvent::Response(_, Err(refusal)))) = answer(LookupType::Failed) else {
        panic!("not refused")
    };
    assert_eq!(refusal, RequestError::Server(ServerError::new(ServerCode::AUTHORIZATION_ERROR.0, "why")));
    assert!(matches!(answer(LookupType::Connect), Err(CloseReason::ProtocolViolation(_))));
}

#[test]
fn requests_expire_once_in_order_and_late_answers_change_nothing() {
    let mut harness = Harness::up();
    let (first, _) = (harness.ask(1), harness.ask(2));
    assert_eq!(harness.connection.poll_deadline().map(|deadline| deadline.at), Some(harness.at(5).at));
    assert_eq!(harness.connection.poll_expired(harness.at(4)), None);
    assert_eq!(harness.connection.poll_expired(harness.at(5)), Some(Requester::Supervisor(RequestToken(1))));
    assert_eq!(harness.connection.poll_expired(harness.at(5)), Some(Requester::Supervisor(RequestToken(2))));
    assert_eq!(harness.connection.poll_expired(harness.at(5)), None);
    assert!(matches!(harness.broker(found(first)), Ok(None)));
}

#[test]
fn a_waiter_for_exclusive_access_has_no_deadline() {
    let mut harness = Harness::up();
    let requester = Requester::Open(EndpointId::Producer(ProducerId(0)), Attempt(1));
    harness.connection.request(pb::CommandProducer::default().into(), requester, harness.start).expect("small");
    let request_id = harness.sent()[0].request_id().expect("a request has an id");
    let success = |ready| pb::CommandProducerSuccess { request_id, producer_ready: Some(ready), ..Default::default() };
    assert!(matches!(
        harness.broker(success(false)),
        Ok(Some(ConnectionEvent::Notification(EndpointId::Producer(ProducerId(0)), _)))
    ));
    assert_eq!(harness.connection.poll_expired(harness.at(1000)), None);
    assert!(matches!(harness.broker(success(true)), Ok(Some(ConnectionEvent::Response(_, Ok(_))))));
}

#[test]
fn what_waits_when_the_connection_ends_is_told_in_order() {
    let mut harness = Harness::up();
    harness.ask(1);
    harness.ask(2);
    let waiting = harness.connection.take_pending();
    assert_eq!(waiting, [Requester::Supervisor(RequestToken(1)), Requester::Supervisor(RequestToken(2))]);
    assert!(harness.connection.take_pending().is_empty());
}

#[test]
fn a_challenge_is_answered_with_method_and_data() {
    let mut harness = Harness::up();
    let data =
        pb::AuthData { auth_method_name: Some("token".to_owned()), auth_data: Some(Bytes::from_static(b"why?")) };
    match harness.broker(pb::CommandAuthChallenge { challenge: Some(data), ..Default::default() }) {
        Ok(Some(ConnectionEvent::Challenge(challenge))) => assert_eq!(challenge, AuthData::new("token", "why?")),
        other => panic!("{other:?}"),
    }
    harness
        .connection
        .respond_to_challenge(AuthData { method: "token".to_owned(), data: Bytes::from_static(b"fresh") });
    let sent = harness.sent();
    let [Command::AuthResponse(response)] = &sent[..] else { panic!("{sent:?}") };
    let response = response.response.as_ref().expect("a response has credentials");
    assert_eq!(response.auth_method_name.as_deref(), Some("token"));
    assert_eq!(response.auth_data.as_deref(), Some(&b"fresh"[..]));
}

#[test]
fn assigned_urls_follow_the_scheme() {
    let mut harness = Harness::up();
    let close = pb::CommandCloseProducer {
        producer_id: 3,
        request_id: u64::MAX,
        assigned_broker_service_url: Some("pulsar://other:6650".to_owned()),
        assigned_broker_service_url_tls: Some("pulsar+ssl://other:6651".to_owned()),
    };
    let Ok(Some(ConnectionEvent::Closed(id, url))) = harness.broker(close) else { panic!("not closed") };
    assert_eq!((id, url.as_deref()), (EndpointId::Producer(ProducerId(3)), Some("pulsar://other:6650")));
}

#[test]
fn unknown_commands_are_skipped() {
    let mut harness = Harness::up();
    harness.connection.handle_unknown();
    assert!(harness.connection.peer().is_some());
}

#[test]
fn pings_of_a_peer_that_does_not_read_do_not_fill_the_output() {
    let mut harness = Harness::up();
    let mut tx = TxBuf::new();
    for _ in 0..100_000 {
        harness.broker(pb::CommandPing {}).expect("a ping is fine");
        harness.connection.poll_transmit(&mut tx);
        assert!(tx.len() <= 300 * 1024, "{} bytes wait", tx.len());
    }
    tx.take_all();
    harness.connection.poll_transmit(&mut tx);
    assert!(!tx.is_empty(), "pongs are still owed");
}

#[test]
fn answered_requests_leave_nothing_behind() {
    let mut harness = Harness::up();
    for number in 0..1000 {
        let id = harness.ask(number);
        let answer = pb::CommandLookupTopicResponse {
            request_id: id,
            response: Some(pb::command_lookup_topic_response::LookupType::Connect.into()),
            ..Default::default()
        };
        let event = harness.broker(answer);
        assert!(matches!(event, Ok(Some(ConnectionEvent::Response(..)))), "{event:?}");
    }
    assert!(harness.connection.requests.is_empty());
    let keep_alive_interval = Deadline::new(harness.start.at + KEEP_ALIVE, "keep-alive");
    assert_eq!(harness.connection.poll_deadline().map(|deadline| deadline.at), Some(keep_alive_interval.at));
}
