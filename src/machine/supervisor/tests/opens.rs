//! Opening an endpoint, and opening it again once it has lost its broker.

use super::*;

#[test]
fn a_new_producer_ends_with_a_refusal_that_an_established_one_outlasts() {
    let mut harness = Harness::new("pulsar://service");
    let (_attached, connection) = harness.attached(1);
    let (_endpoint, mut created) = harness.open(2);
    harness.respond(connect_to("pulsar://service:6650"));
    harness.open_fails(server_error(16));
    let error = peek(&mut created).expect("answered").expect_err("busy");
    assert_eq!((error.kind(), error.address()), (ErrorKind::Busy, Some("service:6650")));
    assert!(error.to_string().contains("said the broker"), "{error}");

    harness.end(connection, "reset by peer");
    for _ in 0..50 {
        harness.wait(Duration::from_secs(60));
        harness.respond(connect_to("pulsar://service:6650"));
        harness.open_fails(server_error(16));
        assert_eq!(harness.state(1), "backing off");
    }
    harness.wait(Duration::from_secs(60));
    harness.respond(connect_to("pulsar://service:6650"));
    harness.opened();
    assert_eq!(harness.state(1), "attached");
}

#[test]
fn a_terminal_refusal_ends_an_established_producer() {
    let mut harness = Harness::new("pulsar://service");
    let (endpoint, connection) = harness.attached(1);
    harness.detached(connection, id(1), None);
    harness.wait_ms(100);
    harness.respond(connect_to("pulsar://service:6650"));
    harness.open_fails(server_error(15));
    assert_eq!(harness.state(1), "closed");
    assert!(endpoint.with(|producer| producer.is_finished()));
}

#[test]
fn every_open_has_a_higher_attempt_and_news_of_a_lower_one_change_nothing() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    harness.respond(connect_to("pulsar://service:6650"));
    let (connection, ..) = harness.opens[0];
    harness.open_fails(RequestError::TimedOut);
    harness.wait_ms(100);
    harness.log();
    harness.respond(connect_to("pulsar://service:6650"));
    assert_eq!(harness.log(), ["open producer 1 #2 at service:6650"]);
    for stale in [
        SessionEvent::Opened(id(1), Attempt(1)),
        SessionEvent::OpenFailed(id(1), Attempt(1), server_error(15)),
        SessionEvent::Detached(id(1), Attempt(1), None),
    ] {
        harness.notice(connection, stale);
        assert_eq!(harness.state(1), "opening");
    }
    let _other = harness.open(2);
    let (_, ask, _) = harness.asks[0].clone();
    harness.notice(ConnectionId(99), SessionEvent::Response(ask, connect_to("pulsar://service:6650")));
    assert_eq!(harness.state(2), "looking up");
    harness.notice(ConnectionId(99), SessionEvent::Opened(id(1), Attempt(2)));
    harness.notice(ConnectionId(99), SessionEvent::Finished(id(1)));
    harness.notice(ConnectionId(99), SessionEvent::Ended(CloseReason::Io(Error::network("reset"))));
    assert_eq!(harness.state(1), "opening");
    harness.opened();
    harness.notice(connection, SessionEvent::OpenFailed(id(1), Attempt(1), server_error(15)));
    assert_eq!(harness.state(1), "attached");
}

#[test]
fn a_connection_lost_while_opening_leads_back_to_lookup() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, mut created) = harness.open(1);
    harness.respond(connect_to("pulsar://b:6650"));
    let (connection, _, attempt) = harness.opens[0];
    harness.end(connection, "reset by peer");
    assert_eq!(harness.state(1), "backing off");
    harness.notice(connection, SessionEvent::Opened(id(1), attempt));
    assert_eq!(harness.state(1), "backing off");
    harness.log();
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn a_connection_lost_while_looking_up_or_connecting_leads_back_to_lookup() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    let (connection, ask, _) = harness.asks[0].clone();
    harness.end(connection, "reset by peer");
    assert_eq!(harness.state(1), "backing off");
    harness.notice(connection, SessionEvent::Response(ask, connect_to("pulsar://b:6650")));
    assert_eq!(harness.state(1), "backing off");
    harness.wait_ms(100);
    harness.unreachable.insert("b");
    harness.respond(connect_to("pulsar://b:6650"));
    assert_eq!(harness.state(1), "backing off");
    harness.log();
    harness.wait_ms(200);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
}

#[test]
fn an_endpoint_is_back_after_a_lost_connection_with_the_shortest_pause() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, mut connection) = harness.attached(1);
    for round in 2..5 {
        harness.end(connection, "reset by peer");
        assert_eq!(harness.state(1), "backing off");
        harness.wait_ms(100);
        assert_eq!(harness.log(), ["fetch", "dial service:6650", "lookup at service:6650"]);
        harness.respond(connect_to("pulsar://service:6650"));
        assert_eq!(harness.log(), [format!("open producer 1 #{round} at service:6650")]);
        (connection, ..) = harness.opened();
        assert_eq!(harness.state(1), "attached");
    }
}

#[test]
fn a_producer_tries_once_more_just_before_its_messages_time_out() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, connection) = harness.attached(1);
    harness.detached(connection, id(1), None);
    let lost = harness.now;
    let mut tries = Vec::new();
    while harness.now.at < lost.at + Duration::from_secs(60) {
        while !harness.asks.is_empty() {
            tries.push(harness.now.at - lost.at);
            harness.respond(refused(6));
        }
        harness.wait_ms(50);
    }
    let chance = Duration::from_millis(29_900);
    let made = tries.iter().filter(|&&at| at >= chance && at < chance + Duration::from_millis(100)).count();
    assert_eq!(made, 1, "the default send timeout is 30 s: {tries:?}");
}

#[test]
fn a_closed_producer_is_looked_up_again_and_its_siblings_stay() {
    let mut harness = Harness::new("pulsar://service");
    let (_first, connection) = harness.attached(1);
    let (_second, same) = harness.attached(2);
    assert_eq!(connection, same);
    harness.detached(connection, id(1), None);
    assert_eq!((harness.state(1), harness.state(2)), ("backing off", "attached"));
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_is_used_at_once_and_once() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, connection) = harness.attached(1);
    harness.detached(connection, id(1), Some("pulsar://b:6650"));
    assert_eq!(harness.log(), ["fetch", "dial b:6650", "open producer 1 #2 at b:6650"]);
    harness.open_fails(server_error(6));
    assert_eq!(harness.state(1), "backing off");
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_that_is_dead_or_nonsense_leads_to_lookup() {
    let mut harness = Harness::new("pulsar://service");
    let (_endpoint, connection) = harness.attached(1);
    harness.unreachable.insert("b");
    harness.detached(connection, id(1), Some("pulsar://b:6650"));
    assert_eq!((harness.log().len(), harness.state(1)), (2, "backing off"));
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
    harness.respond(connect_to("pulsar://service:6650"));
    let (connection, ..) = harness.opened();
    harness.log();
    harness.detached(connection, id(1), Some("http://b:8080"));
    harness.wait_ms(100);
    assert_eq!(harness.log(), ["lookup at service:6650"]);
}

#[test]
fn brokers_that_point_at_each_other_before_the_open_do_not_spin() {
    let mut harness = Harness::new("pulsar://service");
    let _endpoint = harness.open(1);
    harness.respond(connect_to("pulsar://b:6650"));
    let (connection, ..) = harness.opens.pop_front().expect("an open");
    harness.detached(connection, id(1), Some("pulsar://service:6650"));
    assert_eq!(harness.state(1), "backing off");
}
