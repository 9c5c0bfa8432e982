//! Topic list watchers: the list at the start, each change once, and the whole of it again after whatever was lost.

use std::collections::BTreeSet;

use pulsar_native::client::{TopicChange, TopicListWatch};

use super::support::*;

const A: &str = "persistent://public/default/a";
const B: &str = "persistent://public/default/b";
const C: &str = "persistent://public/default/c";
const PATTERN: &str = "persistent://public/default/.*";

fn create(stage: &Stage, topics: &[&str]) {
    for topic in topics {
        assert!(stage.broker.create_topic(topic), "{topic} is new");
    }
}

async fn watch(stage: &Stage) -> TopicListWatch {
    within("the watcher", stage.client.watch_topics("public/default", PATTERN)).await.expect("a watcher")
}

/// Applies changes until the list is this one.
async fn becomes(watch: &mut TopicListWatch, list: &mut BTreeSet<String>, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|&topic| topic.to_owned()).collect();
    while *list != wanted {
        for (topic, change) in within("a change", watch.changes()).await.expect("the watcher lives") {
            let is_news = match change {
                TopicChange::Added => list.insert(topic.clone()),
                TopicChange::Removed => list.remove(&topic),
            };
            assert!(is_news, "{topic}: {change:?} was known");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_comes_first_and_then_each_change() {
    let stage = Stage::new().await;
    create(&stage, &[A]);
    assert!(stage.broker.create_topic("non-persistent://public/default/n"));
    let (mut watch, mut list) = (watch(&stage).await, BTreeSet::new());
    becomes(&mut watch, &mut list, &[A]).await;
    create(&stage, &[B, C]);
    becomes(&mut watch, &mut list, &[A, B, C]).await;
    stage.broker.delete_topic(B);
    becomes(&mut watch, &mut list, &[A, C]).await;
    within("the close", watch.close()).await.expect("closed");
    assert_eq!(stage.broker.topic_list_watchers(), 0);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn it_attaches_without_a_lookup() {
    let stage = Stage::new().await;
    stage.broker.faults().on(FaultEvent::Lookup).always().refuse_request(ServerCode::SERVICE_NOT_READY);
    let (mut watch, mut list) = (watch(&stage).await, BTreeSet::new());
    create(&stage, &[A]);
    becomes(&mut watch, &mut list, &[A]).await;
    assert_eq!(stage.broker.faults().injected(), 0);
    drop(watch);
    until("the close", || stage.broker.topic_list_watchers(), |watchers| *watchers == 0).await;
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn what_changed_while_the_connection_was_lost_is_reported_once() {
    let stage = Stage::new().await;
    create(&stage, &[A, B]);
    let (mut watch, mut list) = (watch(&stage).await, BTreeSet::new());
    becomes(&mut watch, &mut list, &[A, B]).await;
    stage.net.refuse(true);
    stage.broker.drop_connections();
    until("the loss", || watch.is_connected(), |connected| !connected).await;
    stage.broker.delete_topic(A);
    create(&stage, &[C]);
    stage.net.refuse(false);
    becomes(&mut watch, &mut list, &[B, C]).await;
    drop(watch);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_reattach_without_a_change_reports_nothing() {
    let stage = Stage::new().await;
    create(&stage, &[A]);
    let (mut watch, mut list) = (watch(&stage).await, BTreeSet::new());
    becomes(&mut watch, &mut list, &[A]).await;
    stage.broker.drop_connections();
    until("the loss", || watch.is_connected(), |connected| !connected).await;
    until("the reattach", || watch.is_connected(), |connected| *connected).await;
    create(&stage, &[B]);
    // Nothing came between the list and this: `becomes` refuses what is known.
    becomes(&mut watch, &mut list, &[A, B]).await;
    drop(watch);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_lost_shows_in_the_hash_of_the_next() {
    let stage = Stage::new().await;
    let (mut watch, mut list) = (watch(&stage).await, BTreeSet::new());
    stage.broker.faults().on(FaultEvent::TopicListUpdate).drop_request();
    create(&stage, &[A]);
    struck(&stage.broker, 1).await;
    create(&stage, &[B]);
    becomes(&mut watch, &mut list, &[A, B]).await;
    drop(watch);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_change_of_each_topic_waits_to_be_taken() {
    let stage = Stage::new().await;
    let mut watch = watch(&stage).await;
    create(&stage, &[A, B]);
    stage.broker.delete_topic(A);
    create(&stage, &[C]);
    // The updates have come by then, one for each change.
    pass(Duration::from_secs(1)).await;
    let changes = within("the changes", watch.changes()).await.expect("the watcher lives");
    let last = [(A, TopicChange::Removed), (B, TopicChange::Added), (C, TopicChange::Added)];
    assert_eq!(changes, last.map(|(topic, change)| (topic.to_owned(), change)));
    drop(watch);
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_pattern_fails_the_creation() {
    let stage = Stage::new().await;
    let long = "x".repeat(51);
    let refused = within("the refusal", stage.client.watch_topics("public/default", long)).await;
    let error = failed(refused.map(drop), ErrorKind::NotAllowed);
    assert!(error.to_string().contains("the watch of the topic list"), "{error}");
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_ends_the_creation_in_time() {
    let stage = Stage::new().await;
    stage.broker.faults().on(FaultEvent::WatchTopicList).always().drop_request();
    let late = tokio::time::timeout(TIMEOUT + SLACK, stage.client.watch_topics("public/default", PATTERN)).await;
    let error = failed(late.expect("in time").map(drop), ErrorKind::TimedOut);
    assert!(error.to_string().contains("the watch of the topic list"), "{error}");
    stage.close_and_check().await;
}
