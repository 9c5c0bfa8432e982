//! Key_Shared: the messages of a key go to one consumer, in order.

use pulsar_native::{BatchingType, Compression};

use super::*;

async fn consumers(client: &Client, topic: &str, count: usize) -> Vec<Consumer> {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::KeyShared);
    let mut consumers = Vec::new();
    for _ in 0..count {
        consumers.push(subscribed(builder.clone()).await);
    }
    consumers
}

/// Who got what: key -> consumer and numbers, in the order of arrival; everything is acknowledged.
async fn spread(consumers: Vec<Consumer>, count: usize, key: fn(&ReceivedMessage) -> String) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let arrived = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for (at, mut consumer) in consumers.into_iter().enumerate() {
        let (seen, arrived) = (seen.clone(), arrived.clone());
        tasks.push(tokio::spawn(async move {
            while let Ok(message) = consumer.receive().await {
                let number = message.to_string_lossy().parse().expect("a number");
                seen.lock().unwrap().entry(key(&message)).or_default().push((at, number));
                consumer.ack(&message).expect("acknowledged");
                arrived.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let look = || async { arrived.load(Ordering::SeqCst) };
    until("all messages", look, |arrived| *arrived >= count).await;
    for task in tasks {
        task.abort();
        // The consumers inside go when their tasks have ended.
        let _ = task.await;
    }
    Arc::try_unwrap(seen).expect("the tasks have ended").into_inner().unwrap()
}

type Seen = BTreeMap<String, Vec<(usize, usize)>>;

fn check(seen: &Seen, consumers: usize, keys: usize, each: usize) {
    assert_eq!(seen.len(), keys);
    let mut used = BTreeSet::new();
    for (key, arrivals) in seen {
        let consumer = arrivals[0].0;
        used.insert(consumer);
        assert_eq!(*arrivals, (0..each).map(|number| (consumer, number)).collect::<Vec<_>>(), "key {key}");
    }
    assert_eq!(used.len(), consumers, "each consumer has keys");
}

pub async fn one_consumer_per_key_in_order(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("key-shared");
    let consumers = consumers(&client, &topic, 2).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let messages = (0..20 * 30).map(|at| Message::new((at / 20).to_string()).with_key(format!("key {}", at % 20)));
    send_all(&producer, messages).await;
    let seen = spread(consumers, 20 * 30, |message| message.key().expect("a key").to_owned()).await;
    check(&seen, 2, 20, 30);
}

pub async fn ordering_key_goes_before_key(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("ordering-key");
    let consumers = consumers(&client, &topic, 2).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let ordering_key = |at: usize| format!("order {}", at % 20).into_bytes();
    let message =
        |at: usize| Message::new((at / 20).to_string()).with_key("all the same").with_ordering_key(ordering_key(at));
    send_all(&producer, (0..20 * 10).map(message)).await;
    let key = |message: &ReceivedMessage| String::from_utf8_lossy(message.ordering_key().expect("one")).into_owned();
    check(&spread(consumers, 20 * 10, key).await, 2, 20, 10);
}

/// A batch for each key, so that each message gets to the consumer of its key; by the ordering key, where there is one.
pub async fn batches_by_key(target: &Target) {
    let client = target.client().await;
    for (name, codec) in [("key-batches", Compression::None), ("key-batches-lz4", Compression::Lz4)] {
        let topic = target.topic(name);
        let consumers = consumers(&client, &topic, 4).await;
        let builder = client.producer(&topic).batching_type(BatchingType::KeyBased).compression(codec);
        let builder = builder.compress_min_msg_body_size(0).batching_max_publish_delay(Duration::from_millis(50));
        let producer = created(builder).await;
        let message = |at: usize| {
            let message = Message::new((at / 40).to_string());
            match at % 40 {
                key @ 0..20 => message.with_key(format!("key {key}")),
                key => message.with_key(format!("{at}")).with_ordering_key(format!("order {key}")),
            }
        };
        let ids = send_all(&producer, (0..40 * 25).map(message)).await;
        let entries: BTreeSet<_> = ids.iter().map(|id| (id.ledger_id(), id.entry_id())).collect();
        assert!(entries.len() < ids.len() / 2, "{} entries of {} messages", entries.len(), ids.len());
        let key = |message: &ReceivedMessage| match message.ordering_key() {
            Some(key) => String::from_utf8_lossy(key).into_owned(),
            None => message.key().expect("a key").to_owned(),
        };
        check(&spread(consumers, 40 * 25, key).await, 4, 40, 25);
    }
}
