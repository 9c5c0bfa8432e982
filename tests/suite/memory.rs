//! The memory limits of a client, over all its producers and over all its consumers.

use super::*;
use pulsar_native::{CapacityBound, TryEnqueueError};

/// What a receipt gives back is there at the latest when the lock of its producer is free again.
async fn is_unused(client: &Client) {
    until("the memory to be given back", || async { client.memory_usage() }, |usage| usage.used == 0).await;
}

async fn client(target: &Target, limit: usize) -> Client {
    within("the connection", target.builder().memory_limit(limit).connect()).await.expect("a client")
}

/// A hundred producers that all want to send at once: what is pending stays within the limit, all of it is sent, and each
/// producer in its own order.
pub async fn one_limit_for_a_hundred_producers(target: &Target) {
    const PRODUCERS: usize = 100;
    const LIMIT: usize = 1_000_000;
    let client = client(target, LIMIT).await;
    let topic = target.topic("memory");
    let mut consumer = subscribed(client.consumer(&topic, "s").initial_position(InitialPosition::Earliest)).await;
    let sends = (0..PRODUCERS).map(|number| {
        let builder = client.producer(&topic).batching(number % 2 == 0);
        let client = client.clone();
        tokio::spawn(async move {
            let producer = created(builder).await;
            let (mut pending, mut used) = (Vec::new(), 0);
            for step in 0..3 {
                let message = Message::new(vec![b'x'; 50_000]).with_key(format!("{number} {step}"));
                pending.push(within("capacity", producer.enqueue(message)).await.expect("accepted"));
                used = client.memory_usage().used.max(used);
            }
            for one in pending {
                within("a receipt", one).await.expect("stored");
            }
            used
        })
    });
    let sends: Vec<_> = sends.collect();
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    for message in receive_all(&mut consumer, PRODUCERS * 3).await {
        let (number, step) = message.key().and_then(|key| key.split_once(' ')).expect("a key");
        let next = steps.entry(number.to_owned()).or_default();
        assert_eq!(step.parse(), Ok(*next), "in the order of the sends of producer {number}");
        *next += 1;
    }
    let mut most = 0;
    for send in sends {
        most = send.await.expect("no panic").max(most);
    }
    assert!((LIMIT / 2..=LIMIT).contains(&most), "{most} bytes of {LIMIT} were in use");
    is_unused(&client).await;
}

pub async fn a_message_above_the_limit_is_sent_alone(target: &Target) {
    let client = client(target, 10_000).await;
    let topic = target.topic("alone");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let (small, large) = (created(client.producer(&topic)).await, created(client.producer(&topic)).await);
    let before = within("capacity", small.enqueue(vec![b's'; 5000])).await.expect("accepted");
    let alone = within("capacity", large.enqueue(vec![b'l'; 50_000])).await.expect("accepted");
    assert_eq!(client.memory_usage().limit, 10_000);
    let after = within("capacity", small.enqueue(vec![b's'; 5000])).await.expect("accepted");
    for one in [before, alone, after] {
        within("a receipt", one).await.expect("stored");
    }
    let sizes: Vec<_> = receive_all(&mut consumer, 3).await.iter().map(|message| message.payload().len()).collect();
    assert_eq!(sizes, [5000, 50_000, 5000], "each waited for the one before");
    is_unused(&client).await;
}

pub async fn the_limit_gives_a_message_back(target: &Target) {
    let client = client(target, 100_000).await;
    let producer = created(client.producer(target.topic("back"))).await;
    let mut accepted = Vec::new();
    let returned = loop {
        match producer.try_enqueue(vec![b'x'; 60_000]) {
            Ok(pending) => accepted.push(pending),
            Err(error @ TryEnqueueError::Full { .. }) => {
                let text = error.to_string();
                assert!(text.contains("the client's memory_limit is reached: "), "{text}");
                let TryEnqueueError::Full { message, bound, .. } = error else { unreachable!("it is") };
                let CapacityBound::Memory(usage) = bound else { panic!("{bound}") };
                assert_eq!(usage.limit, 100_000);
                break message;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(accepted.len() < 100_000, "one message of room never ran out");
    };
    // Waiting for room instead works.
    accepted.push(within("capacity", producer.enqueue(*returned)).await.expect("accepted"));
    for pending in accepted {
        within("the receipt", pending).await.expect("stored");
    }
    is_unused(&client).await;
}

/// A consumer of a backlog in a client with this limit for what waits.
async fn limited(target: &Target, topic: &str, limit: usize) -> Consumer {
    let builder = target.builder().receive_memory_limit(limit);
    let client = within("the connection", builder.connect()).await.expect("a client");
    subscribed(client.consumer(topic, "s").initial_position(InitialPosition::Earliest)).await
}

/// Receives all of a backlog, and returns the most messages that waited in the client, whatever had come by then.
async fn most_waiting(consumer: &mut Consumer, messages: usize) -> u64 {
    let mut most = 0;
    for number in 0..messages {
        let message = receive(consumer).await;
        consumer.ack(&message).expect("acknowledged");
        // Reading its statistics takes a while in which more may come.
        most = consumer.stats().queued_messages.max(most);
        if number % 10 == 0 {
            within("the broker's answer", consumer.broker_stats()).await.expect("statistics");
        }
    }
    most.max(consumer.stats().queued_messages)
}

pub async fn large_entries_wait_within_the_limit(target: &Target) {
    const ENTRIES: usize = 60;
    let topic = target.topic("large-entries");
    let producer = created(target.client().await.producer(&topic).batching(false)).await;
    send_all(&producer, (0..ENTRIES).map(|_| vec![b'x'; 200_000])).await;
    let mut consumer = limited(target, &topic, 1_000_000).await;
    let most = most_waiting(&mut consumer, ENTRIES).await;
    assert!(most <= 6, "{most} entries of 200,000 bytes with a limit of 1,000,000, and one more");
}

/// As large as a broker takes them.
pub async fn the_largest_entries_wait_within_the_limit(target: &Target) {
    const ENTRIES: usize = 10;
    const LARGE: usize = 5 * 1024 * 1024 - 1024;
    let topic = target.topic("largest-entries");
    let producer = created(target.client().await.producer(&topic).batching(false)).await;
    send_all(&producer, (0..ENTRIES).map(|_| vec![b'x'; LARGE])).await;
    let mut consumer = limited(target, &topic, 3 * LARGE).await;
    let most = most_waiting(&mut consumer, ENTRIES).await;
    assert!(most <= 4, "{most} entries of 5 MiB with a limit of three, and one more");
}

pub async fn a_backlog_of_batches_waits_within_the_limit(target: &Target) {
    const ENTRIES: usize = 30;
    const MEMBERS: usize = 50;
    let topic = target.topic("batches");
    let builder = target.client().await.producer(&topic).batching_max_messages(MEMBERS as u32);
    let producer =
        created(builder.batching_max_publish_delay(Duration::from_secs(10)).batching_max_bytes(1 << 20)).await;
    send_all(&producer, (0..ENTRIES * MEMBERS).map(|_| vec![b'x'; 4000])).await;
    let mut consumer = limited(target, &topic, 1_000_000).await;
    let most = most_waiting(&mut consumer, ENTRIES * MEMBERS).await;
    let entries = most.div_ceil(MEMBERS as u64);
    assert!(entries <= 6, "{entries} batches of 200,000 bytes with a limit of 1,000,000, and one more");
}

pub async fn small_entries_get_the_whole_queue(target: &Target) {
    const ENTRIES: usize = 4000;
    let topic = target.topic("small-entries");
    let producer = created(target.client().await.producer(&topic).batching(false)).await;
    send_all(&producer, (0..ENTRIES).map(|_| vec![b'x'; 100])).await;
    let mut consumer = limited(target, &topic, 1_000_000).await;
    let mut most = 0;
    for _ in 0..ENTRIES {
        receive(&mut consumer).await;
        let stats = consumer.stats();
        most = most.max(stats.available_permits + stats.queued_messages);
    }
    assert!(most > 500, "{most} messages on their way, of a queue of 1000");
}
