//! Opening an endpoint, and opening it again once it has lost its broker.

use super::*;

#[test]
fn a_new_producer_ends_with_a_refusal_that_an_established_one_outlasts() {
    let mut rig = Rig::new("pulsar://service");
    let (_attached, connection) = rig.attached(1);
    let (_endpoint, mut created) = rig.open(2);
    rig.respond(connect_to("pulsar://service:6650"));
    rig.open_fails(server_error(16));
    let error = peek(&mut created).expect("answered").expect_err("busy");
    assert_eq!((error.kind(), error.address()), (ErrorKind::Busy, Some("service:6650")));
    assert!(error.to_string().contains("said the broker"), "{error}");

    rig.end(connection, "reset by peer");
    for _ in 0..50 {
        rig.wait(Duration::from_secs(60));
        rig.respond(connect_to("pulsar://service:6650"));
        rig.open_fails(server_error(16));
        assert_eq!(rig.state(1), "backing off");
    }
    rig.wait(Duration::from_secs(60));
    rig.respond(connect_to("pulsar://service:6650"));
    rig.opened();
    assert_eq!(rig.state(1), "attached");
}

#[test]
fn a_terminal_refusal_ends_an_established_producer() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, connection) = rig.attached(1);
    rig.detached(connection, id(1), None);
    rig.wait_ms(100);
    rig.respond(connect_to("pulsar://service:6650"));
    rig.open_fails(server_error(15));
    assert_eq!(rig.state(1), "closed");
    assert!(endpoint.with(|producer| producer.is_finished()));
}

#[test]
fn every_open_has_a_higher_attempt_and_news_of_a_lower_one_change_nothing() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.respond(connect_to("pulsar://service:6650"));
    let (connection, ..) = rig.opens[0];
    rig.open_fails(RequestError::TimedOut);
    rig.wait_ms(100);
    rig.log();
    rig.respond(connect_to("pulsar://service:6650"));
    assert_eq!(rig.log(), ["open producer 1 #2 at service:6650"]);
    for stale in [
        SessionEvent::Opened(id(1), Attempt(1)),
        SessionEvent::OpenFailed(id(1), Attempt(1), server_error(15)),
        SessionEvent::Detached(id(1), Attempt(1), None),
    ] {
        rig.notice(connection, stale);
        assert_eq!(rig.state(1), "opening");
    }
    let _other = rig.open(2);
    let (_, ask, _) = rig.asks[0].clone();
    rig.notice(ConnectionId(99), SessionEvent::Response(ask, connect_to("pulsar://service:6650")));
    assert_eq!(rig.state(2), "looking up");
    rig.notice(ConnectionId(99), SessionEvent::Opened(id(1), Attempt(2)));
    rig.notice(ConnectionId(99), SessionEvent::Finished(id(1)));
    rig.notice(ConnectionId(99), SessionEvent::Ended(CloseReason::Io(Error::network("reset"))));
    assert_eq!(rig.state(1), "opening");
    rig.opened();
    rig.notice(connection, SessionEvent::OpenFailed(id(1), Attempt(1), server_error(15)));
    assert_eq!(rig.state(1), "attached");
}

#[test]
fn a_connection_lost_while_opening_leads_back_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut created) = rig.open(1);
    rig.respond(connect_to("pulsar://b:6650"));
    let (connection, _, attempt) = rig.opens[0];
    rig.end(connection, "reset by peer");
    assert_eq!(rig.state(1), "backing off");
    rig.notice(connection, SessionEvent::Opened(id(1), attempt));
    assert_eq!(rig.state(1), "backing off");
    rig.log();
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    assert!(peek(&mut created).is_none());
}

#[test]
fn a_connection_lost_while_looking_up_or_connecting_leads_back_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    let (connection, ask, _) = rig.asks[0].clone();
    rig.end(connection, "reset by peer");
    assert_eq!(rig.state(1), "backing off");
    rig.notice(connection, SessionEvent::Response(ask, connect_to("pulsar://b:6650")));
    assert_eq!(rig.state(1), "backing off");
    rig.wait_ms(100);
    rig.unreachable.insert("b");
    rig.respond(connect_to("pulsar://b:6650"));
    assert_eq!(rig.state(1), "backing off");
    rig.log();
    rig.wait_ms(200);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_attached_endpoint_is_back_after_a_lost_link_with_the_shortest_pause() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, mut connection) = rig.attached(1);
    for round in 2..5 {
        rig.end(connection, "reset by peer");
        assert_eq!(rig.state(1), "backing off");
        rig.wait_ms(100);
        assert_eq!(rig.log(), ["fetch", "dial service:6650", "lookup at service:6650"]);
        rig.respond(connect_to("pulsar://service:6650"));
        assert_eq!(rig.log(), [format!("open producer 1 #{round} at service:6650")]);
        (connection, ..) = rig.opened();
        assert_eq!(rig.state(1), "attached");
    }
}

#[test]
fn a_producer_tries_once_more_just_before_its_messages_time_out() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, connection) = rig.attached(1);
    rig.detached(connection, id(1), None);
    let lost = rig.now;
    let mut tries = Vec::new();
    while rig.now.at < lost.at + Duration::from_secs(60) {
        while !rig.asks.is_empty() {
            tries.push(rig.now.at - lost.at);
            rig.respond(refused(6));
        }
        rig.wait_ms(50);
    }
    let chance = Duration::from_millis(29_900);
    let made = tries.iter().filter(|&&at| at >= chance && at < chance + Duration::from_millis(100)).count();
    assert_eq!(made, 1, "the default send timeout is 30 s: {tries:?}");
}

#[test]
fn a_closed_producer_is_looked_up_again_and_its_siblings_stay() {
    let mut rig = Rig::new("pulsar://service");
    let (_first, connection) = rig.attached(1);
    let (_second, same) = rig.attached(2);
    assert_eq!(connection, same);
    rig.detached(connection, id(1), None);
    assert_eq!((rig.state(1), rig.state(2)), ("backing off", "attached"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_is_used_at_once_and_once() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, connection) = rig.attached(1);
    rig.detached(connection, id(1), Some("pulsar://b:6650"));
    assert_eq!(rig.log(), ["fetch", "dial b:6650", "open producer 1 #2 at b:6650"]);
    rig.open_fails(server_error(6));
    assert_eq!(rig.state(1), "backing off");
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn an_assigned_broker_that_is_dead_or_nonsense_leads_to_lookup() {
    let mut rig = Rig::new("pulsar://service");
    let (_endpoint, connection) = rig.attached(1);
    rig.unreachable.insert("b");
    rig.detached(connection, id(1), Some("pulsar://b:6650"));
    assert_eq!((rig.log().len(), rig.state(1)), (2, "backing off"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
    rig.respond(connect_to("pulsar://service:6650"));
    let (connection, ..) = rig.opened();
    rig.log();
    rig.detached(connection, id(1), Some("http://b:8080"));
    rig.wait_ms(100);
    assert_eq!(rig.log(), ["lookup at service:6650"]);
}

#[test]
fn brokers_that_point_at_each_other_before_the_open_do_not_spin() {
    let mut rig = Rig::new("pulsar://service");
    let _endpoint = rig.open(1);
    rig.respond(connect_to("pulsar://b:6650"));
    let (connection, ..) = rig.opens.pop_front().expect("an open");
    rig.detached(connection, id(1), Some("pulsar://service:6650"));
    assert_eq!(rig.state(1), "backing off");
}
