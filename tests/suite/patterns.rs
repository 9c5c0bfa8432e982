//! Consumers of all topics of a namespace that match a pattern.

use super::table_views::{refreshed, viewed};
use super::target::Offer;
use super::*;
use pulsar_native::{
    Checkpoint, ConsumerEvent, ConsumerEvents, ConsumerInterceptor, Reader, ReaderStart, RegexSubscriptionMode, SeekTo,
    Topics,
};

const PERIOD: Duration = Duration::from_secs(1);

/// The prefix of some topics, and the pattern of all that have it.
fn prefix(target: &Target) -> (String, Topics) {
    let prefix = target.topic("pat");
    let pattern = Topics::pattern(format!("{prefix}-.*"));
    (prefix, pattern)
}

/// Waits for the events of these topics, in whatever order.
pub(crate) async fn told(events: &mut ConsumerEvents, expected: impl IntoIterator<Item = (&'static str, String)>) {
    let mut expected: BTreeSet<_> = expected.into_iter().collect();
    while !expected.is_empty() {
        let event = within(&format!("the events {expected:?}"), events.recv()).await.expect("an event");
        let told = match &event {
            ConsumerEvent::TopicAdded { topic, .. } => ("added", topic.to_string()),
            ConsumerEvent::TopicRemoved { topic, .. } => ("removed", topic.to_string()),
            // Before its deletion is known, a topic that is not there may be found.
            ConsumerEvent::TopicNotAdded { .. } => continue,
            other => panic!("{other:?}"),
        };
        assert!(expected.remove(&told), "{told:?} is none of {expected:?}");
    }
}

fn parts(consumer: &Consumer) -> BTreeSet<String> {
    consumer.state().parts.iter().map(|part| part.topic.to_string()).collect()
}

async fn send_numbers(client: &Client, topic: &str, count: usize) -> Producer {
    let producer = created(client.producer(topic)).await;
    send_all(&producer, (0..count).map(|number| number.to_string())).await;
    producer
}

/// Waits until the broker lists these topics: its list may be older than a topic, which then joins as one that comes later.
async fn listed<const N: usize>(client: &Client, topics: [&String; N]) {
    let list = || async { within("the list", client.topics_of_namespace("public/default")).await.expect("the topics") };
    until("the broker to list them", list, |list| topics.iter().all(|topic| list.contains(topic))).await;
}

/// Receives the numbers of one topic, in order.
async fn receive_numbers(consumer: &mut Consumer, topic: &str, count: usize) {
    for number in 0..count {
        let message = receive(consumer).await;
        assert_eq!((message.topic(), &*message.to_string_lossy()), (topic, number.to_string().as_str()));
        consumer.ack(&message).expect("acknowledged");
    }
}

pub async fn topics_come_and_go(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let of = |name: &str| format!("{prefix}-{name}");
    let partitioned = of("p");
    within("a topic", target.cluster().create_partitioned(&partitioned, 2)).await;
    let first = send_numbers(&client, &of("a"), 1).await;
    let _other = send_numbers(&client, &format!("{prefix}x"), 1).await;
    let partition = |index: u32| format!("{partitioned}-partition-{index}");
    listed(&client, [&of("a"), &partition(0), &partition(1)]).await;
    let builder = client.consumer(pattern, "s").pattern_auto_discovery_period(PERIOD);
    let mut consumer = subscribed(builder.auto_update_partitions_interval(PERIOD)).await;
    let mut events = consumer.events();
    assert_eq!(parts(&consumer), BTreeSet::from([of("a"), partition(0), partition(1)]));
    // One that is found later is read from its beginning, those of the start from where the consumer started.
    let second = send_numbers(&client, &of("b"), 3).await;
    receive_numbers(&mut consumer, &of("b"), 3).await;
    told(&mut events, [("added", of("b"))]).await;
    within("partitions to be added", target.cluster().grow(&partitioned, 4)).await;
    told(&mut events, [("added", partition(2)), ("added", partition(3))]).await;
    let _partitioned = send_numbers(&client, &partition(3), 2).await;
    receive_numbers(&mut consumer, &partition(3), 2).await;
    // What is deleted goes, and is not made again by the consumer.
    drop(first);
    within("the deletion", target.cluster().delete(&of("a"))).await;
    told(&mut events, [("removed", of("a"))]).await;
    assert!(!parts(&consumer).contains(&of("a")));
    assert_eq!(within("statistics", target.cluster().stats(&of("a"))).await, None, "it stays deleted");
    // What is made again is another topic.
    let again = send_numbers(&client, &of("a"), 2).await;
    receive_numbers(&mut consumer, &of("a"), 2).await;
    told(&mut events, [("added", of("a"))]).await;
    drop((second, again));
    within("the close", consumer.close()).await.expect("closed");
    assert_eq!(within("the end", consumer.receive()).await.expect_err("closed").kind(), ErrorKind::Closed);
}

/// Brokers announce what comes and goes, long before the list is asked for again: with lookups over HTTP too.
pub async fn announced_at_once(target: &Target) {
    if !target.offers(Offer::TopicListWatchers) {
        return;
    }
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let of = |number: u32| format!("{prefix}-{number}");
    let _first = send_numbers(&client, &of(0), 1).await;
    listed(&client, [&of(0)]).await;
    let mut consumer = subscribed(client.consumer(pattern, "s")).await;
    let mut events = consumer.events();
    for number in 1..6 {
        let producer = send_numbers(&client, &of(number), 1).await;
        let started = Instant::now();
        receive_numbers(&mut consumer, &of(number), 1).await;
        told(&mut events, [("added", of(number))]).await;
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{:?}, the list is asked for after 60 s",
            started.elapsed()
        );
        drop(producer);
        within("the deletion", target.cluster().delete(&of(number))).await;
        told(&mut events, [("removed", of(number))]).await;
    }
    assert_eq!(parts(&consumer), BTreeSet::from([of(0)]));
}

/// Waits until the broker may send so many messages.
async fn grants(consumer: &Consumer, permits: impl std::ops::RangeBounds<u64>) {
    until("permits", || async { consumer.stats().available_permits }, |seen| permits.contains(seen)).await;
}

/// Where topics come, all of them grant less, and where they go, more.
pub async fn queues_share_their_total(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let of = |number: usize| format!("{prefix}-{number}");
    let mut producers = vec![send_numbers(&client, &of(0), 0).await, send_numbers(&client, &of(1), 0).await];
    listed(&client, [&of(0), &of(1)]).await;
    let builder = client.consumer(pattern, "s").pattern_auto_discovery_period(PERIOD);
    let builder = builder.receiver_queue_size(60).max_total_receiver_queue_size_across_partitions(100);
    let mut consumer = subscribed(builder).await;
    let mut events = consumer.events();
    grants(&consumer, 100..=100).await;
    for number in 2..4 {
        producers.push(send_numbers(&client, &of(number), 0).await);
    }
    told(&mut events, [("added", of(2)), ("added", of(3))]).await;
    // 25 of each that has come, or 33 of one that was alone for a moment. No broker takes back what the first two have.
    grants(&consumer, 150..=158).await;
    for (number, producer) in producers.iter().enumerate().take(2) {
        send_all(producer, (0..40).map(|number| number.to_string())).await;
        receive_numbers(&mut consumer, &of(number), 40).await;
    }
    assert!(consumer.try_receive().expect("not ended").is_none());
    // From half of a queue on what is free is granted.
    grants(&consumer, 4 * 13..=108).await;
    producers.truncate(2);
    for number in 2..4 {
        within("the deletion", target.cluster().delete(&of(number))).await;
    }
    told(&mut events, [("removed", of(2)), ("removed", of(3))]).await;
    // 50 of each, or 33 where another one was left for a moment.
    grants(&consumer, 66..=100).await;
}

/// No broker announces topics that are not persistent: they are found in the list.
pub async fn topics_that_are_not_persistent(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let volatile = format!("{}-v", prefix.replace("persistent://", "non-persistent://"));
    let builder = client.consumer(pattern.clone(), "s").pattern_auto_discovery_period(PERIOD);
    let mut all = subscribed(builder.subscription_topics_mode(RegexSubscriptionMode::AllTopics)).await;
    let builder = client.consumer(pattern, "persistent").pattern_auto_discovery_period(PERIOD);
    let persistent = subscribed(builder).await;
    let producer = created(client.producer(&volatile)).await;
    let mut events = all.events();
    told(&mut events, [("added", volatile.clone())]).await;
    send(&producer, "0").await;
    receive_numbers(&mut all, &volatile, 1).await;
    let other = format!("{prefix}-p");
    let _other = send_numbers(&client, &other, 2).await;
    receive_numbers(&mut all, &other, 2).await;
    told(&mut events, [("added", other.clone())]).await;
    told(&mut persistent.events(), [("added", other.clone())]).await;
    assert_eq!(parts(&persistent), BTreeSet::from([other]));
}

/// Notes what is given to the application.
#[derive(Clone, Default)]
struct Given(Arc<Mutex<Vec<String>>>);

impl ConsumerInterceptor for Given {
    fn before_consume(&self, message: &ReceivedMessage) {
        self.0.lock().expect("no panic").push(format!("{} {}", message.topic(), message.to_string_lossy()));
    }
}

async fn reader(client: &Client, pattern: &Topics, start: impl Into<ReaderStart>, given: &Given) -> Reader {
    let builder = client.reader(pattern.clone(), start).pattern_auto_discovery_period(PERIOD).intercept(given.clone());
    within("a reader", builder.create()).await.expect("a reader")
}

/// Reads so many messages: the topic and the number of each, in the order of their topic.
async fn read(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for at in 0..count {
        let message = within(&format!("message {at} of {reader:?}"), reader.read_next()).await.expect("a message");
        texts.push(format!("{} {}", message.topic(), message.to_string_lossy()));
    }
    // Stable: it merges topics in any order.
    texts.sort_by(|a, b| a.split(' ').next().cmp(&b.split(' ').next()));
    texts
}

async fn has_next(reader: &mut Reader) -> bool {
    within("an answer", reader.has_next()).await.expect("an answer")
}

fn attached(reader: &Reader) -> BTreeSet<String> {
    reader.state().parts.iter().map(|part| part.topic.to_string()).collect()
}

/// Those that are there are read from the start of the reader, others from their beginning, and what is read goes into
/// checkpoints, also once one of them has left.
pub async fn a_reader_of_topics_that_come_and_go(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{prefix}-{name}"));
    let of = |topic: &str, numbers: &[usize]| numbers.iter().map(|n| format!("{topic} {n}")).collect::<Vec<_>>();
    let (kept, gone) = (send_numbers(&client, &a, 2).await, send_numbers(&client, &b, 2).await);
    listed(&client, [&a, &b]).await;
    let (given, resumed_given) = (Given::default(), Given::default());
    let mut latest = reader(&client, &pattern, SeekTo::Latest, &given).await;
    let mut earliest = reader(&client, &pattern, SeekTo::Earliest, &Given::default()).await;
    assert_eq!(attached(&latest), BTreeSet::from([a.clone(), b.clone()]));
    assert!(!has_next(&mut latest).await);
    assert_eq!(read(&mut earliest, 4).await, [of(&a, &[0, 1]), of(&b, &[0, 1])].concat());

    let mut events = latest.events();
    send(&kept, "2").await;
    send(&gone, "2").await;
    assert_eq!(read(&mut latest, 2).await, [of(&a, &[2]), of(&b, &[2])].concat());
    let added = send_numbers(&client, &c, 3).await;
    assert_eq!(read(&mut latest, 3).await, of(&c, &[0, 1, 2]));
    told(&mut events, [("added", c.clone())]).await;

    drop(gone);
    within("the deletion", target.cluster().delete(&b)).await;
    told(&mut events, [("removed", b.clone())]).await;
    assert_eq!(attached(&latest), BTreeSet::from([a.clone(), c.clone()]));
    assert!(!has_next(&mut latest).await);
    assert_eq!(within("statistics", target.cluster().stats(&b)).await, None, "it stays deleted");
    let checkpoint = Checkpoint::from_bytes(&latest.checkpoint().to_bytes()).expect("bytes");
    for topic in [&a, &c] {
        assert!(checkpoint.position(topic).is_some(), "{topic} of {checkpoint}");
    }
    let mut once = given.0.lock().expect("no panic").clone();
    // Those of two topics come in any order.
    once[..2].sort();
    assert_eq!(once, [of(&a, &[2]), of(&b, &[2]), of(&c, &[0, 1, 2])].concat(), "each once");
    within("the close", latest.close()).await.expect("closed");

    // Where the other one was; what was made again meanwhile is another topic.
    send(&kept, "3").await;
    send(&added, "3").await;
    let _again = send_numbers(&client, &b, 2).await;
    let mut resumed = reader(&client, &pattern, &checkpoint, &resumed_given).await;
    let expected = [of(&a, &[3]), of(&b, &[0, 1]), of(&c, &[3])].concat();
    assert_eq!(read(&mut resumed, 4).await, expected);
    assert!(!has_next(&mut resumed).await);
    assert_eq!(BTreeSet::from_iter(resumed_given.0.lock().expect("no panic").clone()), BTreeSet::from_iter(expected));
}

/// Topics that are not persistent are read from when they are found on, and have no last message.
pub async fn a_reader_of_topics_of_both_kinds(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let (stored, volatile) =
        (format!("{prefix}-p"), format!("{prefix}-v").replace("persistent://", "non-persistent://"));
    let kept = send_numbers(&client, &stored, 1).await;
    listed(&client, [&stored]).await;
    let builder = client.reader(pattern, SeekTo::Latest).pattern_auto_discovery_period(PERIOD);
    let builder = builder.subscription_topics_mode(RegexSubscriptionMode::AllTopics);
    let mut reader = within("a reader", builder.create()).await.expect("a reader");
    let mut events = reader.events();
    assert!(!has_next(&mut reader).await);
    let passing = created(client.producer(&volatile)).await;
    told(&mut events, [("added", volatile.clone())]).await;
    assert_eq!(attached(&reader), BTreeSet::from([volatile.clone(), stored.clone()]));
    let error = within("an answer", reader.has_next()).await.expect_err("nothing is stored");
    assert_eq!(error.topic(), Some(&*volatile), "{error}");
    send(&passing, "0").await;
    send(&kept, "1").await;
    assert_eq!(read(&mut reader, 2).await, [format!("{volatile} 0"), format!("{stored} 1")]);
    let positions = reader.checkpoint();
    assert_eq!(positions.positions().map(|(topic, _)| topic).collect::<Vec<_>>(), [&*stored]);
}

/// Values of a topic that leaves stay.
pub async fn a_table_view_of_topics_that_come_and_go(target: &Target) {
    let client = target.client().await;
    let (prefix, pattern) = prefix(target);
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{prefix}-{name}"));
    let keyed = |topic: &str, value: &str| Message::new(value.to_owned()).with_key(topic);
    let kept = created(client.producer(&a)).await;
    let gone = created(client.producer(&b)).await;
    send(&kept, keyed(&a, "0")).await;
    send(&gone, keyed(&b, "0")).await;
    listed(&client, [&a, &b]).await;
    let view = viewed(client.table_view(pattern).pattern_auto_discovery_period(PERIOD)).await;
    let mut events = view.events();
    let mut expected = BTreeMap::from([(a.clone(), "0".to_owned()), (b.clone(), "0".to_owned())]);
    assert_eq!(refreshed(&view).await, expected);

    let added = created(client.producer(&c)).await;
    send_all(&added, [keyed(&c, "0"), keyed(&c, "1")]).await;
    told(&mut events, [("added", c.clone())]).await;
    expected.insert(c.clone(), "1".to_owned());
    assert_eq!(refreshed(&view).await, expected);

    drop(gone);
    within("the deletion", target.cluster().delete(&b)).await;
    told(&mut events, [("removed", b.clone())]).await;
    send(&kept, keyed(&a, "1")).await;
    send(&added, keyed(&c, "").with_null_value()).await;
    expected.insert(a, "1".to_owned());
    expected.remove(&c);
    assert_eq!(refreshed(&view).await, expected, "with the value of the one that has left");

    let _again = send(&created(client.producer(&b)).await, keyed(&b, "2")).await;
    told(&mut events, [("added", b.clone())]).await;
    expected.insert(b, "2".to_owned());
    assert_eq!(refreshed(&view).await, expected);
}

/// A consumer without topics waits, and ends as any other.
pub async fn without_a_topic_it_waits(target: &Target) {
    for end in ["close", "drain", "client"] {
        let client = target.client().await;
        let (_, pattern) = prefix(target);
        let mut consumer = subscribed(client.consumer(pattern, "s")).await;
        let acker = consumer.acker();
        assert!(consumer.try_receive().expect("not ended").is_none());
        let receiving = tokio::spawn(async move { (consumer.receive().await.map(drop), consumer) });
        tokio::task::yield_now().await;
        match end {
            "drain" => assert!(within("the drain", acker.drain(Duration::from_secs(5))).await.is_complete()),
            "client" => within("the close", client.close()).await.expect("closed"),
            _ => receiving.abort(),
        }
        if end == "close" {
            continue;
        }
        let (received, _consumer) = within("the end", receiving).await.expect("no panic");
        assert_eq!(received.expect_err(end).kind(), ErrorKind::Closed, "{end}");
    }
}

pub async fn patterns_that_cannot_be(target: &Target) {
    let client = target.client().await;
    let refused = |builder: ConsumerBuilder| async move {
        let error = within("the refusal", builder.subscribe()).await.expect_err("it cannot be");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        error.to_string()
    };
    for pattern in ["persistent://public/default/(", "public/.*/a", "(?=look-ahead)", "ftp://public/default/a"] {
        let error = refused(client.consumer(Topics::pattern(pattern), "s")).await;
        assert!(error.contains(pattern), "{error}");
    }
    let all = || client.consumer(Topics::pattern("a.*"), "s");
    assert!(refused(all().retry_enabled(true).subscription_type(SubscriptionType::Shared)).await.contains("retry"));
    let without_a_queue = all().max_total_receiver_queue_size_across_partitions(0);
    assert!(refused(without_a_queue).await.contains("max_total_receiver_queue_size"));
    assert!(refused(all().pattern_auto_discovery_period(Duration::from_millis(999))).await.contains("period"));
}
