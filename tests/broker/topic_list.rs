//! Topic list watchers: what WATCH_TOPIC_LIST answers, when updates go out, and what faults do to them.

use std::time::Duration;

use pulsar_native::ServerCode;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::broker::{FaultEffect, FaultEvent, Rule, ScriptedFault};
use pulsar_native::hash::topics_hash;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::{Command, Frame};

use crate::support::{BrokerHarness, error_of};

const WATCHER: u64 = 7;

fn watch_command(request_id: u64, pattern: &str, hash: Option<&str>) -> pb::CommandWatchTopicList {
    pb::CommandWatchTopicList {
        request_id,
        watcher_id: WATCHER,
        namespace: "public/default".to_owned(),
        topics_pattern: pattern.to_owned(),
        topics_hash: hash.map(str::to_owned),
    }
}

fn watch(harness: &mut BrokerHarness, conn: ConnId, hash: Option<&str>) -> pb::CommandWatchTopicListSuccess {
    let request_id = harness.request_id();
    match harness.ask(conn, watch_command(request_id, "public/default/a.*", hash)) {
        Command::WatchTopicListSuccess(success) => {
            assert_eq!((success.request_id, success.watcher_id), (request_id, WATCHER));
            success
        }
        other => panic!("no WATCH_TOPIC_LIST_SUCCESS: {other:?}"),
    }
}

fn updates(harness: &mut BrokerHarness, conn: ConnId) -> Vec<pb::CommandWatchTopicUpdate> {
    let update = |frame| match frame {
        Frame::Other(Command::WatchTopicUpdate(update)) => update,
        other => panic!("no WATCH_TOPIC_UPDATE: {other:?}"),
    };
    harness.take(conn).into_iter().map(update).collect()
}

fn added(local: &str, all: &[&str]) -> pb::CommandWatchTopicUpdate {
    let all: Vec<String> = all.iter().map(|local| full(local)).collect();
    pb::CommandWatchTopicUpdate {
        watcher_id: WATCHER,
        new_topics: vec![full(local)],
        deleted_topics: Vec::new(),
        topics_hash: topics_hash(&all),
    }
}

fn full(local: &str) -> String {
    format!("persistent://public/default/{local}")
}

fn watching() -> (BrokerHarness, ConnId) {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    watch(&mut harness, conn, None);
    (harness, conn)
}

#[test]
fn an_equal_hash_gets_an_empty_list() {
    let mut harness = BrokerHarness::new();
    assert!(harness.broker.create_topic("a1") && harness.broker.create_topic("b1"));
    let conn = harness.connect();
    let first = watch(&mut harness, conn, None);
    assert_eq!((first.topic, &first.topics_hash), (vec![full("a1")], &topics_hash(&[full("a1")])));
    let again = watch(&mut harness, conn, Some(&first.topics_hash));
    assert_eq!((again.topic, &again.topics_hash), (Vec::new(), &first.topics_hash));
    let stale = watch(&mut harness, conn, Some("00000000"));
    assert_eq!(stale.topic, [full("a1")]);
    assert_eq!(harness.broker.topic_list_watchers(), 1, "the same id is one watcher");
    harness.assert_clean();
}

#[test]
fn each_change_is_one_update_with_the_hash_of_the_new_list() {
    let (mut harness, conn) = watching();
    assert!(harness.broker.create_topic("a1"));
    assert_eq!(updates(&mut harness, conn), [added("a1", &["a1"])]);
    assert!(harness.broker.create_partitioned_topic("ap", 2));
    let partitions = ["ap-partition-0", "ap-partition-1"];
    let expected =
        [added(partitions[0], &["a1", partitions[0]]), added(partitions[1], &["a1", partitions[0], partitions[1]])];
    assert_eq!(updates(&mut harness, conn), expected);

    harness.broker.delete_topic("a1");
    let mut gone = added("a1", &partitions);
    std::mem::swap(&mut gone.new_topics, &mut gone.deleted_topics);
    assert_eq!(updates(&mut harness, conn), [gone]);

    assert!(harness.broker.create_topic("b1") && harness.broker.create_topic("non-persistent://public/default/a2"));
    assert_eq!(updates(&mut harness, conn), [], "neither matches");
}

#[test]
fn a_closed_watcher_gets_no_update_and_closes_twice_with_success() {
    let (mut harness, conn) = watching();
    for request_id in [21, 22] {
        let close = pb::CommandWatchTopicListClose { request_id, watcher_id: WATCHER };
        assert_eq!(harness.ask(conn, close), pb::CommandSuccess { request_id, schema: None }.into());
    }
    assert!(harness.broker.create_topic("a1"));
    assert_eq!(updates(&mut harness, conn), []);
    assert_eq!(harness.broker.topic_list_watchers(), 0);
}

#[test]
fn watchers_end_with_their_connection() {
    let (mut harness, conn) = watching();
    harness.broker.disconnect(conn);
    assert_eq!(harness.broker.topic_list_watchers(), 0);
}

#[test]
fn patterns_and_namespaces_that_cannot_be_watched_are_refused() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    let long = "x".repeat(51);
    for (pattern, expected) in [(long.as_str(), ServerError::NotAllowedError), ("(", ServerError::InvalidTopicName)] {
        let answer = harness.ask(conn, watch_command(1, pattern, None));
        assert_eq!(error_of(&answer).0, expected, "{pattern}");
    }
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        pb::CommandWatchTopicList { namespace, ..watch_command(2, ".*", None) }
    };
    let Command::WatchTopicListSuccess(unknown) = harness.ask(conn, of("no/such")) else { panic!("not SUCCESS") };
    assert_eq!((unknown.topic, unknown.topics_hash.as_str()), (Vec::new(), "00000000"));
    harness.assert_clean();
    harness.send(conn, of("no-namespace"));
    harness.assert_closed(conn);
    assert_eq!(harness.broken(), [Rule::IncompleteRequest]);
}

#[test]
fn faults_take_effect_on_the_request_and_its_response() {
    let mut harness = BrokerHarness::new();
    let conn = harness.connect();
    harness.broker.arm_fault(ScriptedFault::new(
        FaultEvent::WatchTopicList,
        FaultEffect::RefuseRequest { code: ServerCode::SERVICE_NOT_READY },
    ));
    let answer = harness.ask(conn, watch_command(1, ".*", None));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady);
    harness.broker.arm_fault(ScriptedFault::new(FaultEvent::WatchTopicList, FaultEffect::DropResponse));
    harness.send(conn, watch_command(2, ".*", None));
    assert_eq!(harness.take(conn), []);
    assert_eq!((harness.broker.topic_list_watchers(), harness.broker.faults_injected()), (1, 2));
}

#[test]
fn faults_drop_duplicate_and_delay_updates() {
    let (mut harness, conn) = watching();
    harness.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::DropResponse).on_topic("a1"));
    assert!(harness.broker.create_topic("a0") && harness.broker.create_topic("a1"));
    assert_eq!(updates(&mut harness, conn), [added("a0", &["a0"])]);

    harness.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::DuplicateResponse));
    assert!(harness.broker.create_topic("a2"));
    let twice = added("a2", &["a0", "a1", "a2"]);
    assert_eq!(updates(&mut harness, conn), [twice.clone(), twice]);

    harness.broker.arm_fault(ScriptedFault::new(
        FaultEvent::TopicListUpdate,
        FaultEffect::DelayResponse { by: Duration::from_secs(1) },
    ));
    assert!(harness.broker.create_topic("a3"));
    harness.advance(Duration::from_millis(999));
    assert_eq!(updates(&mut harness, conn), []);
    harness.advance(Duration::from_millis(1));
    assert_eq!(updates(&mut harness, conn), [added("a3", &["a0", "a1", "a2", "a3"])]);
}

#[test]
fn a_dropped_watcher_gets_no_update_until_it_watches_again() {
    let (mut harness, conn) = watching();
    harness.broker.drop_topic_list_watchers();
    assert!(harness.broker.create_topic("a1"));
    assert_eq!(updates(&mut harness, conn), []);
    assert_eq!(watch(&mut harness, conn, Some("00000000")).topic, [full("a1")]);

    harness.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::Close { url: None }));
    assert!(harness.broker.create_topic("a2") && harness.broker.create_topic("a3"));
    assert_eq!(
        updates(&mut harness, conn),
        [added("a2", &["a1", "a2"])],
        "the fault closed it behind the first update"
    );
    harness.assert_open(conn);
}

#[test]
fn a_fault_disconnects_instead_of_an_update() {
    let (mut harness, conn) = watching();
    harness.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::Disconnect));
    assert!(harness.broker.create_topic("a1"));
    harness.assert_closed(conn);
    harness.assert_clean();
}
