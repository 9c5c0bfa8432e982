//! Readers on topics of every kind of history, at every kind of position: what `has_next` says, and where `until` ends.

use pulsar_native::{Checkpoint, ConsumerInterceptor, ReadUntil, Reader, SeekTo};
use serde_json::Value;

use super::target::Offer;
use super::*;
use crate::common::admin_http;

/// What was sent to a topic, and which of it is to be read.
struct History {
    topic: String,
    sent: Vec<MessageId>,
    left: Vec<usize>,
    is_compacted: bool,
}

/// The numbers of messages that are left from a position on.
fn left_from(left: &[usize], is_ahead: impl Fn(usize) -> bool) -> Vec<usize> {
    left.iter().copied().filter(|&number| is_ahead(number)).collect()
}

impl History {
    /// Each position, and what is left from there on.
    fn positions(&self, target: &Target) -> Vec<(SeekTo, Vec<usize>)> {
        let left = &self.left;
        let last = left.last().copied().into_iter().collect();
        let edge = |id: MessageId, inclusive| SeekTo::Message { id, inclusive };
        let later = SystemTime::now() + Duration::from_secs(60);
        let mut positions = vec![
            (SeekTo::Latest, Vec::new()),
            (SeekTo::Earliest, left.clone()),
            (edge(MessageId::LATEST, false), Vec::new()),
            (edge(MessageId::LATEST, true), last),
            (edge(MessageId::EARLIEST, false), left.clone()),
            (edge(MessageId::EARLIEST, true), left.clone()),
        ];
        if target.offers(Offer::MarkDeletePosition) {
            positions.push((SeekTo::PublishTime(later), Vec::new()));
            positions.push((SeekTo::PublishTime(SystemTime::UNIX_EPOCH), left.clone()));
        }
        for (at, id) in self.sent.iter().enumerate() {
            positions.push((edge(id.clone(), true), left_from(left, |number| number >= at)));
            positions.push((edge(id.clone(), false), left_from(left, |number| number > at)));
        }
        positions
    }

    /// Each end, and what of the history lies before it.
    fn ends(&self) -> Vec<(ReadUntil, Vec<usize>)> {
        let mut ends = vec![
            (ReadUntil::Now, self.left.clone()),
            (ReadUntil::PublishTime(SystemTime::now()), self.left.clone()),
            (ReadUntil::PublishTime(SystemTime::UNIX_EPOCH), Vec::new()),
            (ReadUntil::Position(Checkpoint::new()), Vec::new()),
        ];
        for (at, id) in self.sent.iter().enumerate() {
            let mut checkpoint = Checkpoint::new();
            checkpoint.set(&self.topic, id.clone()).expect("a name");
            ends.push((ReadUntil::Position(checkpoint), left_from(&self.left, |number| number <= at)));
        }
        ends
    }

    async fn reader(&self, client: &Client, start: SeekTo) -> Reader {
        let builder = client.reader(&self.topic, start).read_compacted(self.is_compacted);
        within("a reader", builder.create()).await.expect("a reader")
    }

    /// The number of a message that was read.
    fn number_of(&self, message: &ReceivedMessage) -> usize {
        let id = message.id();
        self.sent.iter().position(|sent| *sent == id).unwrap_or_else(|| panic!("{id} of {:?}", self.sent))
    }

    /// Begins everywhere and seeks everywhere, and reads up to each end.
    async fn check(&self, target: &Target, what: &str) {
        // A seek loses the attachment each time.
        let builder = target.builder().initial_backoff_interval(Duration::from_millis(5));
        let client = within("the connection", builder.connect()).await.expect("a client");
        let mut reader = self.reader(&client, SeekTo::Earliest).await;
        for (position, expected) in self.positions(target) {
            let what = format!("{what}, {position:?}");
            let mut new = self.reader(&client, position.clone()).await;
            assert_eq!(self.read_until(&mut new, ReadUntil::Now).await, expected, "a reader begins at {what}");
            assert!(!self.has_next(&mut new, &what).await, "nothing is left: {what}");
            within(&what, reader.seek(position)).await.expect("moved");
            assert_eq!(self.read_all(&mut reader, &what).await, expected, "a reader seeks to {what}");
        }
        for (end, expected) in self.ends() {
            let what = format!("{what}, up to {end:?}");
            let mut new = self.reader(&client, SeekTo::Earliest).await;
            assert_eq!(self.read_until(&mut new, end).await, expected, "{what}");
            let rest = left_from(&self.left, |number| !expected.contains(&number));
            assert_eq!(self.read_all(&mut new, &what).await, rest, "what follows: {what}");
        }
    }

    async fn has_next(&self, reader: &mut Reader, what: &str) -> bool {
        within(what, reader.has_next()).await.expect("an answer")
    }

    async fn read_all(&self, reader: &mut Reader, what: &str) -> Vec<usize> {
        let mut numbers = Vec::new();
        while self.has_next(reader, what).await {
            let message = within(what, reader.read_next()).await.expect("a message");
            numbers.push(self.number_of(&message));
        }
        numbers
    }

    async fn read_until(&self, reader: &mut Reader, end: ReadUntil) -> Vec<usize> {
        let mut messages = within("the end to be known", reader.until(end)).await.expect("a stream");
        let mut numbers = Vec::new();
        while let Some(message) = within("a message, or the end", messages.next()).await {
            numbers.push(self.number_of(&message.expect("a message")));
        }
        numbers
    }
}

async fn history(target: &Target, name: &str) -> History {
    let topic = target.topic(name);
    within("a topic", target.cluster().create(&topic)).await;
    History { topic, sent: Vec::new(), left: Vec::new(), is_compacted: false }
}

/// Sends values of keys, `key=value`, without a value what deletes the key; all in one batch, or none.
async fn publish(target: &Target, history: &mut History, batching: bool, values: &[&str]) {
    let client = target.client().await;
    let builder = client.producer(&history.topic).batching(batching);
    let producer = created(builder.batching_max_publish_delay(Duration::from_secs(10))).await;
    let messages = values.iter().map(|value| match value.split_once('=').expect("a key") {
        (key, "") => Message::new("").with_null_value().with_key(key),
        (key, value) => Message::new(value.to_owned()).with_key(key),
    });
    let mut pending = Vec::new();
    for message in messages {
        pending.push(within("capacity", producer.enqueue(message)).await.expect("accepted"));
    }
    within("the flush", producer.flush()).await.expect("stored");
    for receipt in pending {
        history.sent.push(within("a receipt", receipt).await.expect("stored"));
    }
    within("the close", producer.close()).await.expect("closed");
}

/// All that is stored goes. The ledger that is written to stays, so that there has to be another one.
async fn truncate(target: &Target, topic: &str) {
    let address = target.address();
    let token = target.cluster().token(target::Role::Admin);
    let path = |action: &str| format!("/admin/v2/{}/{action}", topic.replacen("://", "/", 1));
    let ask = async |method: &str, action: &str| {
        let path = path(action);
        let answer = admin_http::request(&address, &token, method, &path, "");
        within("an answer of the admin port", answer).await.expect("an answer of the admin port")
    };
    target.unload(topic).await;
    let look = async || {
        assert!(ask("DELETE", "truncate").await.is_success(), "{topic}");
        let stats: Value = serde_json::from_str(&ask("GET", "internalStats").await.body).expect("statistics in JSON");
        stats["numberOfEntries"].as_u64()
    };
    until("the topic to be empty", look, |entries| *entries == Some(0)).await;
}

pub async fn of_an_empty_topic(target: &Target) {
    let history = history(target, "ends-empty").await;
    history.check(target, "empty").await;
    within("the end of the topic", target.cluster().terminate(&history.topic)).await;
    history.check(target, "empty and terminated").await;
}

/// Each form by one of the two ways to the broker.
pub async fn of_a_terminated_topic(target: &Target) {
    let batching = target.is_http();
    let mut history = history(target, "ends-terminated").await;
    publish(target, &mut history, batching, &["a=1", "b=1", "a=2"]).await;
    history.left = vec![0, 1, 2];
    within("the end of the topic", target.cluster().terminate(&history.topic)).await;
    history.check(target, &format!("terminated, batching {batching}")).await;
}

/// An operator truncates over HTTP.
pub async fn of_a_truncated_topic(target: &Target) {
    if !target.is_http() {
        return drop(target.client().await);
    }
    for batching in [false, true] {
        let mut history = history(target, "ends-truncated").await;
        publish(target, &mut history, batching, &["a=1", "b=1"]).await;
        truncate(target, &history.topic).await;
        history.check(target, &format!("truncated, batching {batching}")).await;
        publish(target, &mut history, batching, &["a=2", "b=2"]).await;
        history.left = vec![2, 3];
        history.check(target, &format!("truncated, with more, batching {batching}")).await;
    }
}

/// The compacted view, and all that is stored, of a topic whose last message deletes its key; then of one whose every key is
/// deleted; then with more behind the horizon. Each form by one of the two ways to the broker.
pub async fn of_a_compacted_topic(target: &Target) {
    let batching = target.is_http();
    let mut history = history(target, "ends-compacted").await;
    publish(target, &mut history, batching, &["a=1", "b=1", "a=2", "b="]).await;
    within("the compaction", target.cluster().compact(&history.topic)).await;
    (history.left, history.is_compacted) = (vec![2], true);
    history.check(target, &format!("a tombstone at the end, batching {batching}")).await;
    (history.left, history.is_compacted) = (vec![0, 1, 2, 3], false);
    history.check(target, &format!("compacted, read in full, batching {batching}")).await;
    publish(target, &mut history, batching, &["a="]).await;
    within("the compaction", target.cluster().compact(&history.topic)).await;
    (history.left, history.is_compacted) = (Vec::new(), true);
    history.check(target, &format!("every key deleted, batching {batching}")).await;
    publish(target, &mut history, batching, &["c=1", "c="]).await;
    history.left = vec![5, 6];
    history.check(target, &format!("with more behind the horizon, batching {batching}")).await;
}

/// Notes the texts of what is given to the application.
#[derive(Clone, Default)]
struct Given(Arc<Mutex<Vec<String>>>);

impl ConsumerInterceptor for Given {
    fn before_consume(&self, message: &ReceivedMessage) {
        self.0.lock().expect("no panic").push(message.to_string_lossy().into_owned());
    }
}

/// Once, whichever call finds it, and again where it is read again.
pub async fn an_interceptor_sees_each_message(target: &Target) {
    let client = target.client().await;
    let mut history = history(target, "ends-intercepted").await;
    publish(target, &mut history, true, &["a=0", "a=1", "a=2", "a=3"]).await;
    history.left = vec![0, 1, 2, 3];
    let given = Given::default();
    let builder = client.reader(&history.topic, SeekTo::Earliest).intercept(given.clone());
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    assert_eq!(history.read_all(&mut reader, "all of it").await, [0, 1, 2, 3]);
    assert_eq!(*given.0.lock().expect("no panic"), ["0", "1", "2", "3"]);
    let again = SeekTo::Message { id: history.sent[2].clone(), inclusive: true };
    within("the seek", reader.seek(again)).await.expect("moved");
    assert_eq!(history.read_until(&mut reader, ReadUntil::Now).await, [2, 3]);
    assert_eq!(*given.0.lock().expect("no panic"), ["0", "1", "2", "3", "2", "3"]);
}
