//! Topic list watchers: what WATCH_TOPIC_LIST answers, when updates go out, and what faults do to them.

use std::time::Duration;

use pulsar_native::ServerCode;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::broker::{FaultEffect, FaultEvent, Rule, ScriptedFault};
use pulsar_native::hash::topics_hash;
use pulsar_native::pb::{self, ServerError};
use pulsar_native::wire::{Command, Frame};

use crate::support::{World, error_of};

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

fn watch(world: &mut World, conn: ConnId, hash: Option<&str>) -> pb::CommandWatchTopicListSuccess {
    let request_id = world.request_id();
    match world.ask(conn, watch_command(request_id, "public/default/a.*", hash)) {
        Command::WatchTopicListSuccess(success) => {
            assert_eq!((success.request_id, success.watcher_id), (request_id, WATCHER));
            success
        }
        other => panic!("no WATCH_TOPIC_LIST_SUCCESS: {other:?}"),
    }
}

fn updates(world: &mut World, conn: ConnId) -> Vec<pb::CommandWatchTopicUpdate> {
    let update = |frame| match frame {
        Frame::Other(Command::WatchTopicUpdate(update)) => update,
        other => panic!("no WATCH_TOPIC_UPDATE: {other:?}"),
    };
    world.take(conn).into_iter().map(update).collect()
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

fn watching() -> (World, ConnId) {
    let mut world = World::new();
    let conn = world.connect();
    watch(&mut world, conn, None);
    (world, conn)
}

#[test]
fn an_equal_hash_is_answered_with_an_empty_list() {
    let mut world = World::new();
    assert!(world.broker.create_topic("a1") && world.broker.create_topic("b1"));
    let conn = world.connect();
    let first = watch(&mut world, conn, None);
    assert_eq!((first.topic, &first.topics_hash), (vec![full("a1")], &topics_hash(&[full("a1")])));
    let again = watch(&mut world, conn, Some(&first.topics_hash));
    assert_eq!((again.topic, &again.topics_hash), (Vec::new(), &first.topics_hash));
    let stale = watch(&mut world, conn, Some("00000000"));
    assert_eq!(stale.topic, [full("a1")]);
    assert_eq!(world.broker.topic_list_watchers(), 1, "the same id is one watcher");
    world.assert_clean();
}

#[test]
fn each_change_is_one_update_with_the_hash_of_the_new_list() {
    let (mut world, conn) = watching();
    assert!(world.broker.create_topic("a1"));
    assert_eq!(updates(&mut world, conn), [added("a1", &["a1"])]);
    assert!(world.broker.create_partitioned_topic("ap", 2));
    let partitions = ["ap-partition-0", "ap-partition-1"];
    let expected =
        [added(partitions[0], &["a1", partitions[0]]), added(partitions[1], &["a1", partitions[0], partitions[1]])];
    assert_eq!(updates(&mut world, conn), expected);

    world.broker.delete_topic("a1");
    let mut gone = added("a1", &partitions);
    std::mem::swap(&mut gone.new_topics, &mut gone.deleted_topics);
    assert_eq!(updates(&mut world, conn), [gone]);

    assert!(world.broker.create_topic("b1") && world.broker.create_topic("non-persistent://public/default/a2"));
    assert_eq!(updates(&mut world, conn), [], "neither matches");
}

#[test]
fn a_closed_watcher_gets_no_update_and_closes_twice_with_success() {
    let (mut world, conn) = watching();
    for request_id in [21, 22] {
        let close = pb::CommandWatchTopicListClose { request_id, watcher_id: WATCHER };
        assert_eq!(world.ask(conn, close), pb::CommandSuccess { request_id, schema: None }.into());
    }
    assert!(world.broker.create_topic("a1"));
    assert_eq!(updates(&mut world, conn), []);
    assert_eq!(world.broker.topic_list_watchers(), 0);
}

#[test]
fn watchers_end_with_their_connection() {
    let (mut world, conn) = watching();
    world.broker.disconnect(conn);
    assert_eq!(world.broker.topic_list_watchers(), 0);
}

#[test]
fn patterns_and_namespaces_that_cannot_be_watched_are_refused() {
    let mut world = World::new();
    let conn = world.connect();
    let long = "x".repeat(51);
    for (pattern, expected) in [(long.as_str(), ServerError::NotAllowedError), ("(", ServerError::InvalidTopicName)] {
        let answer = world.ask(conn, watch_command(1, pattern, None));
        assert_eq!(error_of(&answer).0, expected, "{pattern}");
    }
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        pb::CommandWatchTopicList { namespace, ..watch_command(2, ".*", None) }
    };
    let Command::WatchTopicListSuccess(unknown) = world.ask(conn, of("no/such")) else { panic!("not SUCCESS") };
    assert_eq!((unknown.topic, unknown.topics_hash.as_str()), (Vec::new(), "00000000"));
    world.assert_clean();
    world.send(conn, of("no-namespace"));
    world.assert_closed(conn);
    assert_eq!(world.broken(), [Rule::IncompleteRequest]);
}

#[test]
fn faults_take_effect_on_the_request_and_its_answer() {
    let mut world = World::new();
    let conn = world.connect();
    world.broker.arm_fault(ScriptedFault::new(
        FaultEvent::WatchTopicList,
        FaultEffect::RefuseRequest { code: ServerCode::SERVICE_NOT_READY },
    ));
    let answer = world.ask(conn, watch_command(1, ".*", None));
    assert_eq!(error_of(&answer).0, ServerError::ServiceNotReady);
    world.broker.arm_fault(ScriptedFault::new(FaultEvent::WatchTopicList, FaultEffect::DropResponse));
    world.send(conn, watch_command(2, ".*", None));
    assert_eq!(world.take(conn), []);
    assert_eq!((world.broker.topic_list_watchers(), world.broker.faults_injected()), (1, 2));
}

#[test]
fn updates_can_be_lost_doubled_and_delayed() {
    let (mut world, conn) = watching();
    world.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::DropResponse).on_topic("a1"));
    assert!(world.broker.create_topic("a0") && world.broker.create_topic("a1"));
    assert_eq!(updates(&mut world, conn), [added("a0", &["a0"])]);

    world.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::DuplicateResponse));
    assert!(world.broker.create_topic("a2"));
    let twice = added("a2", &["a0", "a1", "a2"]);
    assert_eq!(updates(&mut world, conn), [twice.clone(), twice]);

    world.broker.arm_fault(ScriptedFault::new(
        FaultEvent::TopicListUpdate,
        FaultEffect::DelayResponse { by: Duration::from_secs(1) },
    ));
    assert!(world.broker.create_topic("a3"));
    world.advance(Duration::from_millis(999));
    assert_eq!(updates(&mut world, conn), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(updates(&mut world, conn), [added("a3", &["a0", "a1", "a2", "a3"])]);
}

#[test]
fn a_dropped_watcher_gets_no_update_until_it_watches_again() {
    let (mut world, conn) = watching();
    world.broker.drop_topic_list_watchers();
    assert!(world.broker.create_topic("a1"));
    assert_eq!(updates(&mut world, conn), []);
    assert_eq!(watch(&mut world, conn, Some("00000000")).topic, [full("a1")]);

    world.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::Close { url: None }));
    assert!(world.broker.create_topic("a2") && world.broker.create_topic("a3"));
    assert_eq!(updates(&mut world, conn), [added("a2", &["a1", "a2"])], "the fault closed it behind the first update");
    world.assert_open(conn);
}

#[test]
fn a_connection_can_be_cut_in_place_of_an_update() {
    let (mut world, conn) = watching();
    world.broker.arm_fault(ScriptedFault::new(FaultEvent::TopicListUpdate, FaultEffect::Disconnect));
    assert!(world.broker.create_topic("a1"));
    world.assert_closed(conn);
    world.assert_clean();
}
