//! Key_Shared: the messages of a key go to one consumer, in order.

use super::*;

async fn pair(client: &Client, topic: &str) -> [Consumer; 2] {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::KeyShared);
    let subscribe = || async { subscribed(builder.clone()).await };
    [subscribe().await, subscribe().await]
}

/// Who got what: key -> consumer and numbers, in the order of arrival; everything is acknowledged.
async fn spread(consumers: [Consumer; 2], count: usize, key: fn(&ReceivedMessage) -> String) -> Seen {
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

fn check(seen: &Seen, keys: usize, each: usize) {
    assert_eq!(seen.len(), keys);
    let mut used = BTreeSet::new();
    for (key, arrivals) in seen {
        let consumer = arrivals[0].0;
        used.insert(consumer);
        assert_eq!(*arrivals, (0..each).map(|number| (consumer, number)).collect::<Vec<_>>(), "key {key}");
    }
    assert_eq!(used.len(), 2, "all keys went to one consumer");
}

pub async fn one_consumer_per_key_in_order(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("key-shared");
    let consumers = pair(&client, &topic).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let messages = (0..20 * 30).map(|at| Message::new((at / 20).to_string()).with_key(format!("key {}", at % 20)));
    send_all(&producer, messages).await;
    let seen = spread(consumers, 20 * 30, |message| message.key().expect("a key").to_owned()).await;
    check(&seen, 20, 30);
}

pub async fn ordering_key_goes_before_key(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("ordering-key");
    let consumers = pair(&client, &topic).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let ordering_key = |at: usize| format!("order {}", at % 20).into_bytes();
    let message =
        |at: usize| Message::new((at / 20).to_string()).with_key("all the same").with_ordering_key(ordering_key(at));
    send_all(&producer, (0..20 * 10).map(message)).await;
    let key = |message: &ReceivedMessage| String::from_utf8_lossy(message.ordering_key().expect("one")).into_owned();
    check(&spread(consumers, 20 * 10, key).await, 20, 10);
}
