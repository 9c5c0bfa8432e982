//! The ends of an endpoint, of a client, and of the supervisor itself.

use super::*;
use crate::machine::endpoint::machine::AnyEndpoint as _;

#[test]
fn a_finished_endpoint_is_forgotten_and_its_idle_connection_is_hung_up() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, connection) = rig.attached(1);
    endpoint.fail(Error::local(ErrorKind::Closed, "test"), &mut rig.deferred);
    rig.peers.get_mut(&connection).expect("up").attached.clear();
    rig.notice(connection, SessionEvent::Finished(id(1)));
    assert_eq!(rig.state(1), "closed");
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.log(), ["hang up service:6650"]);
    assert!(rig.supervisor.poll_deadline().is_none());
}

#[test]
fn an_endpoint_that_is_closed_in_any_detached_state_is_forgotten() {
    for state in ["looking up", "backing off", "connecting"] {
        let mut rig = Rig::new("pulsar://service");
        let (endpoint, _created) = rig.open(1);
        if state == "connecting" {
            rig.responds = false;
            rig.respond(connect_to("pulsar://b:6650"));
        } else if state == "backing off" {
            rig.respond(refused(6));
        }
        assert_eq!(rig.state(1), state);
        endpoint.close(rig.now, &mut rig.deferred);
        rig.pump();
        assert_eq!(rig.state(1), "closed");
        rig.log();
        rig.wait(Duration::from_secs(50));
        assert_eq!(rig.log(), NONE);
        if let Some((connection, ask, _)) = rig.asks.pop_front() {
            rig.notice(connection, SessionEvent::Response(ask, connect_to("pulsar://service:6650")));
        }
        assert_eq!(rig.log(), NONE);
    }
}

#[test]
fn closing_the_client_closes_the_endpoints_first_and_leaves_nothing() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, connection) = rig.attached(1);
    let (_waiting, mut created) = rig.open(2);
    let mut partitions = ask_partitions(&mut rig);
    rig.log();
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!((rig.state(1), rig.state(2)), ("attached", "closed"));
    assert!(peek(&mut reply).is_none() && !rig.supervisor.is_drained());
    // The session has written CLOSE_PRODUCER and heard of its success.
    assert!(!endpoint.with(|producer| producer.is_finished()));
    rig.peers.get_mut(&connection).expect("up").attached.clear();
    rig.notice(connection, SessionEvent::Finished(id(1)));
    assert_eq!(rig.log(), ["hang up service:6650"]);
    assert_eq!(peek(&mut reply), Some(Ok(())));
    assert!(rig.supervisor.is_drained());
    assert_eq!(rig.supervisor.poll_deadline().map(|deadline| deadline.why).filter(|why| *why != "outdated"), None);

    let (_late, mut created) = rig.open(3);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let mut partitions = ask_partitions(&mut rig);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    assert_eq!(peek(&mut reply), Some(Ok(())));
}

#[test]
fn a_broker_that_does_not_answer_the_close_cannot_hold_the_client() {
    let mut rig = Rig::new("pulsar://service");
    let (endpoint, _) = rig.attached(1);
    let (to, mut reply) = Reply::pair();
    rig.input(Input::CloseClient(to));
    rig.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    rig.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("producer 1 on persistent://public/default/t"), "{error}");
    assert!(rig.supervisor.is_drained() && endpoint.with(|producer| producer.is_finished()));
}

#[test]
fn a_supervisor_that_goes_away_tells_all_who_wait() {
    let mut rig = Rig::new("pulsar://service");
    rig.responds = false;
    let (_endpoint, mut created) = rig.open(1);
    let mut partitions = ask_partitions(&mut rig);
    drop(rig);
    assert_eq!(peek(&mut created).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
}
