//! The ends of an endpoint, of a client, and of the supervisor itself.

use super::*;
use crate::id::ConsumerId;
use crate::machine::consumer::{Consumer, ConsumerConfig, QueueSignals};
use crate::machine::endpoint::machine::AnyEndpoint as _;

#[test]
fn a_finished_endpoint_is_forgotten_and_its_idle_connection_is_hung_up() {
    let mut harness = Harness::new("pulsar://service");
    let (endpoint, connection) = harness.attached(1);
    endpoint.fail(Error::local(ErrorKind::Closed, "test"), &mut harness.deferred);
    harness.peers.get_mut(&connection).expect("up").attached.clear();
    harness.notice(connection, SessionEvent::Finished(id(1)));
    assert_eq!(harness.state(1), "closed");
    harness.wait(Duration::from_secs(60));
    assert_eq!(harness.log(), ["hang up service:6650"]);
    assert!(harness.supervisor.poll_deadline().is_none());
}

#[test]
fn an_endpoint_that_is_closed_in_any_detached_state_is_forgotten() {
    for state in ["looking up", "backing off", "connecting"] {
        let mut harness = Harness::new("pulsar://service");
        let (endpoint, _created) = harness.open(1);
        if state == "connecting" {
            harness.responds = false;
            harness.respond(connect_to("pulsar://b:6650"));
        } else if state == "backing off" {
            harness.respond(refused(6));
        }
        assert_eq!(harness.state(1), state);
        endpoint.close(harness.now, &mut harness.deferred);
        harness.pump();
        assert_eq!(harness.state(1), "closed");
        harness.log();
        harness.wait(Duration::from_secs(50));
        assert_eq!(harness.log(), NONE);
        if let Some((connection, ask, _)) = harness.asks.pop_front() {
            harness.notice(connection, SessionEvent::Response(ask, connect_to("pulsar://service:6650")));
        }
        assert_eq!(harness.log(), NONE);
    }
}

#[test]
fn closing_the_client_closes_the_endpoints_first_and_leaves_nothing() {
    let mut harness = Harness::new("pulsar://service");
    let (endpoint, connection) = harness.attached(1);
    let (_waiting, mut created) = harness.open(2);
    let mut partitions = ask_partitions(&mut harness);
    harness.log();
    let (to, mut reply) = Reply::pair();
    harness.input(Input::CloseClient(to));
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!((harness.state(1), harness.state(2)), ("attached", "closed"));
    assert!(peek(&mut reply).is_none() && !harness.supervisor.is_drained());
    // The session has written CLOSE_PRODUCER and heard of its success.
    assert!(!endpoint.with(|producer| producer.is_finished()));
    harness.peers.get_mut(&connection).expect("up").attached.clear();
    harness.notice(connection, SessionEvent::Finished(id(1)));
    assert_eq!(harness.log(), ["hang up service:6650"]);
    assert_eq!(peek(&mut reply), Some(Ok(())));
    assert!(harness.supervisor.is_drained());
    assert_eq!(harness.supervisor.poll_deadline().map(|deadline| deadline.why).filter(|why| *why != "outdated"), None);

    let (_late, mut created) = harness.open(3);
    assert_eq!(peek(&mut created).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let mut partitions = ask_partitions(&mut harness);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    let (to, mut reply) = Reply::pair();
    harness.input(Input::CloseClient(to));
    assert_eq!(peek(&mut reply), Some(Ok(())));
}

#[test]
fn a_close_is_not_ended_by_the_deadline_of_the_creation() {
    let mut harness = Harness::new("pulsar://service");
    let (subscribed, mut creation) = Reply::pair();
    let (id, topic) = (ConsumerId(1), Arc::from("persistent://public/default/t"));
    let signals = QueueSignals { inbox: ReadyList::new(), epoch: Arc::default(), observer: None };
    let consumer = Consumer::new(id, topic, -1, Arc::new(ConsumerConfig::default()), signals, subscribed, harness.now);
    let endpoint = Endpoint::new(EndpointId::Consumer(id), consumer, harness.ready.clone());
    harness.input(Input::Open(endpoint.clone()));
    let ask = |harness: &mut Harness| {
        let (to, reply) = Reply::pair();
        endpoint.with(|consumer| consumer.last_message_id(to, harness.now, &mut harness.deferred));
        harness.pump();
        reply
    };
    harness.wait(Duration::from_secs(20));
    // The close waits for it.
    let _first = ask(&mut harness);
    let (to, mut closed) = Reply::pair();
    endpoint.with(|consumer| consumer.close(Some(to), harness.now, &mut harness.deferred));
    harness.pump();
    assert_eq!(peek(&mut creation).expect("answered").expect_err("closed").kind(), ErrorKind::Closed);
    harness.wait(Duration::from_secs(11));
    let _second = ask(&mut harness);
    assert_eq!(peek(&mut closed), None, "the creation would have timed out");
    harness.wait(Duration::from_secs(19));
    let error = peek(&mut closed).expect("answered").expect_err("late");
    assert!(error.to_string().contains("the consumer was not closed within 30s"), "{error}");
}

#[test]
fn a_broker_that_does_not_answer_the_close_cannot_hold_the_client() {
    let mut harness = Harness::new("pulsar://service");
    let (endpoint, _) = harness.attached(1);
    let (to, mut reply) = Reply::pair();
    harness.input(Input::CloseClient(to));
    harness.wait_ms(29_999);
    assert!(peek(&mut reply).is_none());
    harness.wait_ms(1);
    let error = peek(&mut reply).expect("answered").expect_err("late");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("producer 1 on persistent://public/default/t"), "{error}");
    assert!(harness.supervisor.is_drained() && endpoint.with(|producer| producer.is_finished()));
}

#[test]
fn a_supervisor_that_goes_away_tells_all_who_wait() {
    let mut harness = Harness::new("pulsar://service");
    harness.responds = false;
    let (_endpoint, mut created) = harness.open(1);
    let mut partitions = ask_partitions(&mut harness);
    drop(harness);
    assert_eq!(peek(&mut created).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
    assert_eq!(peek(&mut partitions).expect("answered").expect_err("gone").kind(), ErrorKind::Closed);
}
