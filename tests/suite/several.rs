//! One consumer of several topics, and pools of workers over one consumer.

use super::*;
use pulsar_native::Error;
use pulsar_native::Outcome;
use tokio::task::JoinHandle;

async fn producer(client: &Client, topic: &str) -> Producer {
    created(client.producer(topic).batching(false)).await
}

async fn shared(builder: ConsumerBuilder) -> Consumer {
    subscribed(builder.subscription_type(SubscriptionType::Shared)).await
}

/// One with a deep backlog keeps the others no longer from their turn than twice what it may have here.
pub async fn a_busy_topic_starves_no_other(target: &Target) {
    const QUIET: usize = 50;
    const QUEUE: usize = 20;
    let client = target.client().await;
    let (busy, quiet) = (target.topic("busy"), (0..QUIET).map(|_| target.topic("quiet")).collect::<Vec<_>>());
    send_all(&producer(&client, &busy).await, (0..1000).map(|number| number.to_string())).await;
    let topics: Vec<_> = quiet.iter().cloned().chain([busy.clone()]).collect();
    let builder = client.consumer(topics, "s");
    let builder = builder.initial_position(InitialPosition::Earliest).receiver_queue_size(QUEUE as u32);
    let mut consumer = subscribed(builder).await;
    receive_all(&mut consumer, 100).await;
    for topic in &quiet {
        send(&producer(&client, topic).await, "quiet").await;
    }
    // They have arrived: a permit of each is used, and all of the busy one.
    let unused = QUIET * (QUEUE - 1);
    let look = || async { consumer.stats().available_permits };
    until("a message of each", look, |seen| *seen == unused as u64).await;
    let received = receive_all(&mut consumer, 2 * QUEUE + QUIET).await;
    let of_the_busy = received.iter().filter(|message| message.topic() == busy).count();
    assert_eq!(received.len() - of_the_busy, QUIET, "each was received before so many of the busy topic");
}

/// The numbers of the messages of each key, in the order of the work.
type Seen = Mutex<BTreeMap<String, Vec<usize>>>;

/// The message, with a number as its text, is worked on.
fn note(seen: &Seen, message: &ReceivedMessage) {
    let key = message.key().expect("a key").to_owned();
    let number = message.to_string_lossy().parse().expect("a number");
    seen.lock().unwrap().entry(key).or_default().push(number);
}

/// A pool of workers goes on until its client is closed, and says so.
async fn assert_ends_with_client(client: &Client, pool: JoinHandle<Result<(), Error>>) {
    within("the close", client.close()).await.expect("closed");
    let ended = within("the pool to end", pool).await.expect("no panic").expect_err("the consumer has ended");
    assert_eq!(ended.kind(), ErrorKind::Closed, "{ended}");
}

pub async fn topics_are_merged(target: &Target) {
    let client = target.client().await;
    let plain = [target.topic("one"), target.topic("two")];
    let parted = target.partitioned_topic("three", 3).await;
    let topics = [&plain[0], &plain[1], &parted].map(String::clone);
    let mut consumer = shared(client.consumer(topics.clone(), "s")).await;
    for topic in &topics {
        send_all(&producer(&client, topic).await, (0..30).map(|number| format!("{topic} {number}"))).await;
    }
    let mut seen = BTreeMap::<String, usize>::new();
    for message in receive_all(&mut consumer, 90).await {
        let topic = topics.iter().find(|topic| message.topic().starts_with(*topic)).expect("one of the topics");
        assert!(
            message.to_string_lossy().starts_with(topic),
            "{} came from {}",
            message.to_string_lossy(),
            message.topic()
        );
        *seen.entry(topic.clone()).or_default() += 1;
        consumer.ack(&message).expect("acknowledged");
    }
    assert_eq!(seen, topics.iter().map(|topic| (topic.clone(), 30)).collect());
    for topic in &plain {
        drained(target, topic, "s").await;
    }
    for partition in 0..3 {
        drained(target, &format!("{parted}-partition-{partition}"), "s").await;
    }
}

/// Each work waits for seven others: with one worker too few none of it ends.
pub async fn workers_at_the_same_time(target: &Target) {
    const WORKERS: usize = 8;
    const MESSAGES: usize = 13 * WORKERS;
    let client = target.client().await;
    let topic = target.topic("workers");
    let mut consumer = shared(client.consumer(&topic, "s")).await;
    send_all(&producer(&client, &topic).await, (0..MESSAGES).map(|number| number.to_string())).await;
    let (working, most, done) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let counters = (working, most.clone(), done.clone());
    let all = Arc::new(tokio::sync::Barrier::new(WORKERS));
    let pool = tokio::spawn(async move {
        let work = move |_| {
            let ((working, most, done), all) = (counters.clone(), all.clone());
            async move {
                most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all.wait().await;
                working.fetch_sub(1, Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        consumer.process(WORKERS, work).await
    });
    until("all the work", || async { done.load(Ordering::SeqCst) }, |done| *done == MESSAGES).await;
    drained(target, &topic, "s").await;
    assert_eq!(most.load(Ordering::SeqCst), WORKERS, "so many worked at the same time");
    assert_ends_with_client(&client, pool).await;
}

/// The first delivery of "bad" panics: at once, without a future, or later in it.
pub async fn work_that_panics_has_failed_and_no_other(target: &Target) {
    for (name, at_once) in [("panics-at-once", true), ("panics-later", false)] {
        let client = target.client().await;
        let topic = target.topic(name);
        let builder = client.consumer(&topic, "s").negative_ack_redelivery_delay(Duration::from_millis(100));
        let mut consumer = shared(builder).await;
        send_all(&producer(&client, &topic).await, ["bad", "good", "bad"]).await;
        let work = move |message: ReceivedMessage| {
            let bad = message.to_string_lossy() == "bad" && message.redelivery_count() == 0;
            assert!(!(bad && at_once), "this panic is part of the test");
            async move { assert!(!bad, "this panic is part of the test") }
        };
        let pool = tokio::spawn(async move { consumer.process(8, work).await });
        drained(target, &topic, "s").await;
        assert_ends_with_client(&client, pool).await;
    }
}

/// One key is stuck, one fails and one panics; each message of the others is worked on, in order.
pub async fn a_stuck_key_stops_no_other(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("stuck-key");
    let mut consumer = shared(client.consumer(&topic, "s")).await;
    let keys = ["stuck", "fails", "panics", "good", "better"];
    let messages = (0..5 * 100).map(|at| Message::new((at / 5).to_string()).with_key(keys[at % 5]));
    send_all(&producer(&client, &topic).await, messages).await;
    let seen = Arc::<Seen>::default();
    let noting = seen.clone();
    let pool = tokio::spawn(async move {
        let work = move |message: ReceivedMessage| {
            let seen = noting.clone();
            async move {
                note(&seen, &message);
                match message.key().expect("a key") {
                    "stuck" => std::future::pending().await,
                    "fails" => Outcome::Nack,
                    "panics" => panic!("this panic is part of the test"),
                    _ => Outcome::Ack,
                }
            }
        };
        consumer.process_by_key(2, work).await
    });
    let all: Vec<usize> = (0..100).collect();
    let look = || async { seen.lock().unwrap().clone() };
    let done = |seen: &BTreeMap<String, Vec<usize>>| {
        ["fails", "panics", "good", "better"].iter().all(|key| seen.get(*key) == Some(&all))
    };
    until("the work of all keys but one", look, done).await;
    assert_eq!(seen.lock().unwrap()["stuck"], [0], "one message of a key at a time");
    pool.abort();
}

pub async fn workers_by_key(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("workers-by-key");
    let mut consumer = shared(client.consumer(&topic, "s")).await;
    let messages = (0..10 * 20).map(|at| Message::new((at / 10).to_string()).with_key(format!("key {}", at % 10)));
    send_all(&producer(&client, &topic).await, messages).await;
    let seen = Arc::<Seen>::default();
    let noting = seen.clone();
    let pool = tokio::spawn(async move {
        let work = move |message: ReceivedMessage| {
            let seen = noting.clone();
            async move {
                tokio::task::yield_now().await;
                note(&seen, &message);
            }
        };
        consumer.process_by_key(4, work).await
    });
    let look = || async { seen.lock().unwrap().values().map(Vec::len).sum::<usize>() };
    until("all the work", look, |done| *done == 200).await;
    drained(target, &topic, "s").await;
    pool.abort();
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|numbers| *numbers == (0..20).collect::<Vec<_>>()), "{seen:?}");
}

/// Each third message of a key fails twice and is tried again in place: the order of the key is kept, and no other waits.
pub async fn a_retry_keeps_the_order_of_its_key(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("retry-in-place");
    let mut consumer = shared(client.consumer(&topic, "s")).await;
    let messages = (0..4 * 12).map(|at| Message::new((at / 4).to_string()).with_key(format!("key {}", at % 4)));
    send_all(&producer(&client, &topic).await, messages).await;
    let seen = Arc::<Seen>::default();
    let noting = seen.clone();
    let pool = tokio::spawn(async move {
        let work = move |message: ReceivedMessage| {
            let seen = noting.clone();
            async move {
                note(&seen, &message);
                let number: usize = message.to_string_lossy().parse().expect("a number");
                let tries =
                    seen.lock().unwrap()[message.key().expect("a key")].iter().filter(|n| **n == number).count();
                match message.key() {
                    Some("key 0") if number % 3 == 0 && tries < 3 => Outcome::Retry(Duration::from_millis(50)),
                    _ => Outcome::Ack,
                }
            }
        };
        consumer.process_by_key(2, work).await
    });
    drained(target, &topic, "s").await;
    pool.abort();
    let seen = seen.lock().unwrap();
    let tried: Vec<usize> =
        (0..12).flat_map(|number| [number; 3].into_iter().take(if number % 3 == 0 { 3 } else { 1 })).collect();
    for (key, numbers) in &*seen {
        assert_eq!(*numbers, if key == "key 0" { tried.clone() } else { (0..12).collect() }, "{key}");
    }
}
