//! The topic list watcher: what of a broker's announcements reaches the handle.

use std::task::Waker;
use std::time::{Duration, Instant};

use pulsar_native::hash::topics_hash;
use pulsar_native::id::WatcherId;
use pulsar_native::machine::connection::peer::PeerInfo;
use pulsar_native::machine::endpoint::machine::AfterNotification;
use pulsar_native::machine::topic_list::{TopicChange, TopicListConfig, TopicListWatcher};
use pulsar_native::machine::{Deferred, EndpointMachine as _, Now, Reply};
use pulsar_native::pb;
use pulsar_native::wire::Command;

use TopicChange::{Added, Removed};

struct Harness {
    watcher: TopicListWatcher,
    now: Now,
    deferred: Deferred,
    _created: Reply<()>,
}

impl Harness {
    /// Attached, with this list.
    fn with_list(list: &[&str]) -> Self {
        let now = Now { at: Instant::now(), wall_ms: 0 };
        let config = TopicListConfig {
            namespace: "public/default".into(),
            pattern: ".*".into(),
            via: None,
            operation_timeout: Duration::from_secs(30),
        };
        let (reply, _created) = Reply::pair();
        let watcher = TopicListWatcher::new(WatcherId(1), config, reply, now);
        let mut harness = Self { watcher, now, deferred: Deferred::new(), _created };
        harness.attach(list);
        harness
    }

    fn attach(&mut self, list: &[&str]) {
        let peer = PeerInfo {
            address: "127.0.0.1:6650".into(),
            server_version: String::new(),
            protocol_version: 21,
            max_message_size: 5 << 20,
            supports_topic_watchers: true,
            supports_partitions_without_creation: true,
        };
        self.watcher.open_request(&peer, self.now).expect("a broker with watchers");
        let success = pb::CommandWatchTopicListSuccess {
            request_id: 1,
            watcher_id: 1,
            topic: list.iter().map(|&topic| topic.to_owned()).collect(),
            topics_hash: topics_hash(list),
        };
        self.watcher.on_attached(&Command::WatchTopicListSuccess(success), &peer, self.now, &mut self.deferred);
    }

    /// An update from a broker whose list is `list` after it.
    fn announce(&mut self, change: TopicChange, topic: &str, list: &[&str]) {
        let mut update = pb::CommandWatchTopicUpdate { watcher_id: 1, ..Default::default() };
        update.topics_hash = topics_hash(list);
        match change {
            Added => update.new_topics.push(topic.to_owned()),
            Removed => update.deleted_topics.push(topic.to_owned()),
        }
        let after = self.watcher.on_notification(Command::WatchTopicUpdate(update), self.now, &mut self.deferred);
        assert_eq!(after, AfterNotification::Stay, "the lists agree");
    }

    fn takes(&mut self, changes: &[(&str, TopicChange)]) {
        assert!(!self.take(changes), "it has not attached again");
    }

    /// Whether it has attached again.
    fn take(&mut self, changes: &[(&str, TopicChange)]) -> bool {
        let is_ready = self.watcher.poll_changed(Waker::noop(), &mut self.deferred).is_ready();
        let news = self.watcher.take_news().expect("it lives");
        let taken: Vec<_> = news.changes.iter().map(|(topic, change)| (topic.as_str(), *change)).collect();
        assert_eq!(taken, changes);
        assert_eq!(is_ready, news.is_reattached || !changes.is_empty());
        news.is_reattached
    }
}

/// A broker lists the topics before it begins to announce: what came in between, it neither lists nor announces, and it
/// announces that what went in between comes again.
#[test]
fn what_the_list_missed_is_announced_all_the_same() {
    let mut harness = Harness::with_list(&["a", "b"]);
    harness.takes(&[("a", Added), ("b", Added)]);
    harness.announce(Removed, "missed", &["a", "b"]);
    harness.takes(&[("missed", Removed)]);
    harness.announce(Added, "a", &["a", "b"]);
    harness.takes(&[("a", Added)]);
    harness.takes(&[]);
}

#[test]
fn the_last_change_of_each_topic_is_kept() {
    let mut harness = Harness::with_list(&["a"]);
    harness.announce(Added, "b", &["a", "b"]);
    harness.announce(Removed, "b", &["a"]);
    harness.announce(Removed, "a", &[]);
    harness.announce(Added, "a", &["a"]);
    harness.takes(&[("a", Added), ("b", Removed)]);
}

#[test]
fn a_new_list_changes_only_what_differs() {
    let mut harness = Harness::with_list(&["a", "b"]);
    harness.takes(&[("a", Added), ("b", Added)]);
    harness.watcher.on_detached(harness.now, &mut harness.deferred);
    harness.attach(&["b", "c"]);
    assert!(harness.take(&[("a", Removed), ("c", Added)]));
    harness.watcher.on_detached(harness.now, &mut harness.deferred);
    harness.attach(&["b", "c"]);
    assert!(harness.take(&[]));
}
