//! Table views: of each key the last value.

use super::*;
use crate::common::random::Random;
use pulsar_native::{SeekTo, TableSnapshot, TableView, TableViewBuilder};

pub(crate) type Map = BTreeMap<String, String>;

pub(crate) async fn viewed(builder: TableViewBuilder) -> TableView {
    within("a table view", builder.create()).await.expect("a view")
}

pub(crate) async fn refreshed(view: &TableView) -> Map {
    within("the refresh", view.refresh()).await.expect("current");
    entries(&view.snapshot())
}

pub(crate) fn entries(snapshot: &TableSnapshot) -> Map {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    snapshot.iter().map(|(key, value)| (key.to_owned(), text(value))).collect()
}

/// Waits until the view has these entries.
async fn has(view: &TableView, map: &Map) {
    until("the entries", || async { entries(&view.snapshot()) }, |entries| entries == map).await;
}

/// A map, and the messages that make it.
pub(crate) struct Updates {
    pub(crate) map: Map,
    random: Random,
    keys: u64,
    number: u64,
}

impl Updates {
    pub(crate) fn new(keys: u64) -> Self {
        Self { map: Map::new(), random: Random::new(7), keys, number: 0 }
    }

    /// One in five removes a key, one in fifty has none.
    pub(crate) fn next(&mut self) -> Message {
        self.number += 1;
        let (key, value) = (format!("key {}", self.random.below(self.keys)), format!("value {}", self.number));
        match self.random.below(50) {
            0 => Message::new(value),
            1..=5 => {
                self.map.remove(&key);
                Message::new("").with_key(key)
            }
            6..=10 => {
                self.map.remove(&key);
                Message::new("").with_null_value().with_key(key)
            }
            _ => {
                self.map.insert(key.clone(), value.clone());
                Message::new(value).with_key(key)
            }
        }
    }

    /// Removes every key.
    pub(crate) async fn clear(&mut self, producer: &Producer) {
        let keys = std::mem::take(&mut self.map).into_keys();
        send_all(producer, keys.map(|key| Message::new("").with_key(key))).await;
    }

    pub(crate) async fn send(&mut self, producer: &Producer, count: usize) {
        let messages: Vec<_> = std::iter::repeat_with(|| self.next()).take(count).collect();
        send_all(producer, messages).await;
    }
}

pub async fn the_last_value_of_each_key(target: &Target) {
    let client = target.client().await;
    for batching in [false, true] {
        let topic = target.topic("view");
        let producer = created(client.producer(&topic).batching(batching)).await;
        let empty = viewed(client.table_view(&topic)).await;
        assert!(empty.is_empty() && empty.get("a").is_none());
        let keyed = |key: &str, value: &str| Message::new(value.to_owned()).with_key(key);
        let first = [keyed("a", "1"), keyed("b", "2"), Message::new("no key"), keyed("c", "3"), keyed("a", "4")];
        send_all(&producer, first).await;
        let view = viewed(client.table_view(&topic)).await;
        assert_eq!(entries(&view.snapshot()), map([("a", "4"), ("b", "2"), ("c", "3")]));
        assert_eq!(refreshed(&empty).await, entries(&view.snapshot()));

        let before = view.snapshot();
        let (all, tail) = (Heard::default(), Heard::default());
        let listening = view.for_each_and_listen(hear(&all));
        let _tail = view.listen(hear(&tail));
        assert_eq!(all.lock().unwrap().len(), 3);
        send_all(&producer, [keyed("b", ""), keyed("c", "5").with_null_value(), keyed("d", "6"), keyed("b", "")]).await;
        assert_eq!(refreshed(&view).await, map([("a", "4"), ("d", "6")]));
        assert_eq!((view.len(), view.contains_key("b"), view.get("d").as_deref()), (2, false, Some(&b"6"[..])));
        assert_eq!(entries(&before), map([("a", "4"), ("b", "2"), ("c", "3")]));
        let changes = [("b", None), ("c", None), ("d", Some("6")), ("b", None)];
        let changes = changes.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(*tail.lock().unwrap(), changes);
        assert_eq!(all.lock().unwrap()[3..], changes);

        drop(listening);
        send(&producer, keyed("e", "7")).await;
        assert!(refreshed(&view).await.contains_key("e"));
        assert_eq!((all.lock().unwrap().len(), tail.lock().unwrap().len()), (7, 5));
    }
}

fn map<const N: usize>(entries: [(&str, &str); N]) -> Map {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

type Heard = Arc<Mutex<Vec<(String, Option<String>)>>>;

fn hear(heard: &Heard) -> impl FnMut(&str, Option<&bytes::Bytes>) + Send + 'static {
    let heard = heard.clone();
    move |key, value| {
        let value = value.map(|value| String::from_utf8_lossy(value).into_owned());
        heard.lock().unwrap().push((key.to_owned(), value));
    }
}

pub async fn equals_a_map_over_reconnects(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("view-map", 3).await;
    let producer = created(client.producer(&topic)).await;
    let mut updates = Updates::new(300);
    updates.send(&producer, 1000).await;
    let view = viewed(client.table_view(&topic)).await;
    assert_eq!(entries(&view.snapshot()), updates.map);
    for round in 0..6 {
        let part = format!("{topic}-partition-{}", round % 3);
        let (_, ()) = tokio::join!(updates.send(&producer, 500), target.unload(&part));
        assert_eq!(refreshed(&view).await, updates.map, "round {round}");
    }
    let late = viewed(client.table_view(&topic)).await;
    assert_eq!(entries(&late.snapshot()), updates.map);
    updates.clear(&producer).await;
    assert_eq!((refreshed(&view).await.len(), refreshed(&late).await.len()), (0, 0));
}

pub async fn partitions_that_are_added(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("view-growing", 1).await;
    let period = Duration::from_secs(1);
    let view = viewed(client.table_view(&topic).auto_update_partitions_interval(period)).await;
    let mut expected = Map::new();
    for partitions in [1, 3] {
        if partitions > 1 {
            within("partitions", target.cluster().grow(&topic, partitions)).await;
        }
        for part in 0..partitions {
            let producer = created(client.producer(format!("{topic}-partition-{part}"))).await;
            let key = format!("{part} of {partitions}");
            send(&producer, Message::new("x").with_key(&key)).await;
            expected.insert(key, "x".to_owned());
        }
        has(&view, &expected).await;
        assert_eq!(view.state().parts.len(), partitions as usize);
    }
}

pub async fn several_topics_of_one_kind(target: &Target) {
    let client = target.client().await;
    let topics = [target.topic("view-one"), target.topic("view-two")];
    let volatile = topics[0].replace("persistent://", "non-persistent://");
    for (number, topic) in topics.iter().enumerate() {
        let producer = created(client.producer(topic)).await;
        send(&producer, Message::new(number.to_string()).with_key(format!("key {number}"))).await;
    }
    let view = viewed(client.table_view(topics.clone())).await;
    assert_eq!(entries(&view.snapshot()), map([("key 0", "0"), ("key 1", "1")]));
    assert_eq!(view.topics().collect::<Vec<_>>(), topics);

    // Nothing is stored: it begins empty, and its refresh waits for nothing.
    let tail = viewed(client.table_view(&volatile)).await;
    send(&created(client.producer(&volatile)).await, Message::new("now").with_key("a")).await;
    has(&tail, &map([("a", "now")])).await;
    within("nothing to wait for", tail.refresh()).await.expect("done");

    for (topics, said) in [(vec![&topics[0], &volatile], "not both"), (vec![], "needs a topic")] {
        let error = within("the refusal", client.table_view(topics).create()).await.expect_err(said);
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(said), "{error}");
    }
}

/// Nothing of a view is left once it is closed or dropped, and a refresh that is given up harms nothing.
pub async fn closed_dropped_and_given_up(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("view-ends");
    let producer = created(client.producer(&topic)).await;
    send(&producer, Message::new("1").with_key("a")).await;
    let gone = async || {
        let look = || async { target.stats(&topic).await.subscriptions.len() };
        until("no subscription", look, |count| *count == 0).await;
    };
    for after in 0..20 {
        let creating = Box::pin(client.table_view(&topic).create());
        drop(polled(creating, after).await);
    }
    gone().await;

    let view = viewed(client.table_view(&topic)).await;
    for after in 0..20 {
        drop(polled(Box::pin(view.refresh()), after).await);
    }
    send(&producer, Message::new("2").with_key("a")).await;
    assert_eq!(refreshed(&view).await, map([("a", "2")]));
    within("the close", view.close()).await.expect("closed");
    gone().await;
    assert_eq!(view.get("a").as_deref(), Some(&b"2"[..]));
    let error = within("the refusal", view.refresh()).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(view.error().map(|error| error.kind()), Some(ErrorKind::Closed));

    let view = viewed(client.table_view(&topic)).await;
    let clone = view.clone();
    drop(view);
    assert_eq!(refreshed(&clone).await, map([("a", "2")]));
    drop(clone);
    gone().await;
}

/// Polls it so often, and returns it where it is not done.
async fn polled<F: Future + Unpin>(mut future: F, times: usize) -> Option<F> {
    for _ in 0..times {
        let mut is_done = false;
        std::future::poll_fn(|cx| {
            is_done = std::pin::Pin::new(&mut future).poll(cx).is_ready();
            std::task::Poll::Ready(())
        })
        .await;
        if is_done {
            return None;
        }
        tokio::task::yield_now().await;
    }
    Some(future)
}

/// Batches and single messages, some keys removed: a view over what compaction has left, and what came later, is the same map.
pub async fn a_topic_that_was_compacted(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("view-compacted");
    let batched = created(client.producer(&topic)).await;
    let single = created(client.producer(&topic).batching(false)).await;
    let mut updates = Updates::new(40);
    updates.send(&batched, 300).await;
    updates.send(&single, 100).await;
    for _ in 0..50 {
        // A batch of one.
        updates.send(&batched, 1).await;
    }
    within("the compaction", target.cluster().compact(&topic)).await;
    let view = viewed(client.table_view(&topic)).await;
    assert_eq!(entries(&view.snapshot()), updates.map);
    let mut reader = within("a reader", client.reader(&topic, SeekTo::Earliest).read_compacted(true).create())
        .await
        .expect("a reader");
    let mut keys = BTreeSet::new();
    while within("whether there is more", reader.has_next()).await.expect("an answer") {
        let message = within("a message", reader.read_next()).await.expect("a message");
        let key = message.key().expect("only such are left").to_owned();
        assert!(!message.payload().is_empty() && keys.insert(key.clone()), "{key}, {message:?}");
    }
    assert_eq!(keys, updates.map.keys().cloned().collect());

    updates.send(&batched, 100).await;
    assert_eq!(refreshed(&view).await, updates.map);
    within("the compaction", target.cluster().compact(&topic)).await;
    updates.send(&single, 20).await;
    assert_eq!(entries(&viewed(client.table_view(&topic)).await.snapshot()), updates.map);
}

/// Partitions that are added and compacted: a view that was there before, and one that begins then, are the same map.
pub async fn a_grown_topic_that_is_compacted(target: &Target) {
    let client = target.client().await;
    let topic = target.partitioned_topic("view-grown-compacted", 2).await;
    let early = viewed(client.table_view(&topic).auto_update_partitions_interval(Duration::from_secs(1))).await;
    let mut expected = Map::new();
    for (step, partitions) in [2, 4].into_iter().enumerate() {
        if step > 0 {
            within("partitions", target.cluster().grow(&topic, partitions)).await;
        }
        for part in (0..partitions).map(|part| format!("{topic}-partition-{part}")) {
            let producer = created(client.producer(&part).batching(step > 0)).await;
            let of_part = |key: u32| format!("{key} of {part}");
            let value = |key| Message::new(step.to_string()).with_key(of_part(key));
            let removal = |key| Message::new("").with_null_value().with_key(of_part(key));
            send_all(&producer, (0..10).map(value).chain([removal(3), removal(9)])).await;
            expected.extend((0..10).map(|key| (of_part(key), step.to_string())));
            expected.retain(|key, _| ![of_part(3), of_part(9)].contains(key));
            within("the compaction", target.cluster().compact(&part)).await;
        }
        has(&early, &expected).await;
        assert_eq!(refreshed(&early).await, expected);
        assert_eq!(entries(&viewed(client.table_view(&topic)).await.snapshot()), expected);
    }
}
