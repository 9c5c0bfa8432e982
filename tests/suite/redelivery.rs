//! What was not acknowledged comes again: when asked for, and when its consumer goes.

use super::*;

async fn consumer(client: &Client, topic: &str, kind: SubscriptionType) -> Consumer {
    let builder = client.consumer(topic, "s").subscription_type(kind).initial_position(InitialPosition::Earliest);
    let builder = builder.negative_ack_redelivery_delay(Duration::from_millis(100));
    subscribed(builder).await
}

async fn send_numbers(client: &Client, topic: &str, count: usize, batching: bool) {
    let builder = client
        .producer(topic)
        .batching(batching)
        .batching_max_publish_delay(Duration::from_millis(if batching { 200 } else { 0 }));
    let producer = created(builder).await;
    send_all(&producer, (0..count).map(|number| number.to_string())).await;
}

fn numbers(messages: &[ReceivedMessage]) -> Vec<usize> {
    messages.iter().map(|message| message.to_string_lossy().parse().expect("a number")).collect()
}

pub async fn nack_shared(target: &Target) {
    let client = target.client().await;
    for kind in [SubscriptionType::Shared, SubscriptionType::KeyShared] {
        let topic = target.topic("nack-shared");
        send_numbers(&client, &topic, 3, false).await;
        let mut consumer = consumer(&client, &topic, kind).await;
        let messages = receive_all(&mut consumer, 3).await;
        assert_eq!(numbers(&messages), [0, 1, 2]);
        consumer.ack(&messages[0]).expect("acknowledged");
        consumer.nack(&messages[1]).expect("noted");
        consumer.ack(&messages[2]).expect("acknowledged");
        for deliveries in 1..4 {
            let message = receive(&mut consumer).await;
            assert_eq!((message.to_string_lossy(), message.redelivery_count()), ("1".into(), deliveries), "{kind:?}");
            if deliveries < 3 {
                consumer.nack(&message).expect("noted");
            } else {
                consumer.ack(&message).expect("acknowledged");
            }
        }
        drained(target, &topic, "s").await;
    }
}

pub async fn nack_exclusive(target: &Target) {
    let client = target.client().await;
    for kind in [SubscriptionType::Exclusive, SubscriptionType::Failover] {
        let topic = target.topic("nack-exclusive");
        send_numbers(&client, &topic, 6, false).await;
        let mut consumer = consumer(&client, &topic, kind).await;
        let messages = receive_all(&mut consumer, 4).await;
        consumer.ack(&messages[0]).expect("acknowledged");
        consumer.ack(&messages[1]).expect("acknowledged");
        consumer.ack(&messages[3]).expect("acknowledged");
        consumer.nack(&messages[2]).expect("noted");
        // The broker rewinds to the first that is not acknowledged. Messages 4 and 5 may come before that as well.
        let mut rest = Vec::new();
        while rest.len() < 3 {
            let message = receive(&mut consumer).await;
            if rest.is_empty() && message.to_string_lossy() != "2" {
                continue;
            }
            consumer.ack(&message).expect("acknowledged");
            rest.push(message);
        }
        assert_eq!(numbers(&rest), [2, 4, 5], "{kind:?}");
        drained(target, &topic, "s").await;
    }
}

pub async fn nack_member_of_a_batch(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("nack-member");
    send_numbers(&client, &topic, 5, true).await;
    let mut consumer = consumer(&client, &topic, SubscriptionType::Shared).await;
    let messages = receive_all(&mut consumer, 5).await;
    assert_eq!(messages[0].id().batch_size(), Some(5));
    for at in [0, 3] {
        target.confirm(&consumer, &messages[at]).await;
    }
    consumer.nack(&messages[1]).expect("noted");
    // The entry is the unit: the other members that wait come along, the acknowledged ones do not.
    let again = receive_all(&mut consumer, 3).await;
    assert_eq!(numbers(&again), [1, 2, 4]);
    assert!(again.iter().all(|message| message.redelivery_count() == 1));
    for message in &again {
        consumer.ack(message).expect("acknowledged");
    }
    drained(target, &topic, "s").await;
}

pub async fn all_unacknowledged(target: &Target) {
    let client = target.client().await;
    for kind in [SubscriptionType::Shared, SubscriptionType::Exclusive] {
        let topic = target.topic("redeliver-all");
        send_numbers(&client, &topic, 10, false).await;
        let mut consumer = consumer(&client, &topic, kind).await;
        let messages = receive_all(&mut consumer, 10).await;
        for message in &messages[..5] {
            target.confirm(&consumer, message).await;
        }
        consumer.redeliver_unacknowledged_messages();
        let again = receive_all(&mut consumer, 5).await;
        assert_eq!(numbers(&again), [5, 6, 7, 8, 9], "{kind:?}");
        for message in &again {
            consumer.ack(message).expect("acknowledged");
        }
        drained(target, &topic, "s").await;
    }
}

pub async fn unacknowledged_go_to_another_consumer(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("handed-on");
    send_numbers(&client, &topic, 10, false).await;
    let mut first = consumer(&client, &topic, SubscriptionType::Shared).await;
    let messages = receive_all(&mut first, 10).await;
    let mut second = consumer(&client, &topic, SubscriptionType::Shared).await;
    for message in &messages[..4] {
        first.ack(message).expect("acknowledged");
    }
    drop(first);
    let handed_on = receive_all(&mut second, 6).await;
    let mut seen = numbers(&handed_on);
    seen.sort_unstable();
    assert_eq!(seen, [4, 5, 6, 7, 8, 9]);
    for message in &handed_on {
        second.ack(message).expect("acknowledged");
    }
    drained(target, &topic, "s").await;
}

/// Each redelivery comes later than the one before, by what the back-off says.
pub async fn nack_backoff(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("nack-backoff");
    send_numbers(&client, &topic, 1, false).await;
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let (first, multiplier) = (Duration::from_millis(100), 3.0);
    let backoff = RedeliveryBackoff::new(first, Duration::from_secs(60)).with_multiplier(multiplier);
    let builder = builder.initial_position(InitialPosition::Earliest).negative_ack_redelivery_backoff(backoff);
    let mut consumer = subscribed(builder).await;
    let mut message = receive(&mut consumer).await;
    for redeliveries in 0..3 {
        assert_eq!(message.redelivery_count(), redeliveries);
        let at = Instant::now();
        consumer.nack(&message).expect("noted");
        message = receive(&mut consumer).await;
        let (took, least) = (at.elapsed(), backoff.delay(redeliveries));
        assert!(took >= least, "redelivery {redeliveries} after {took:?}, not {least:?}");
    }
    consumer.ack(&message).expect("acknowledged");
    drained(target, &topic, "s").await;
}

/// What is received and forgotten comes again, and nothing else does.
pub async fn ack_timeout(target: &Target) {
    let client = target.client().await;
    for kind in [SubscriptionType::Shared, SubscriptionType::Exclusive] {
        let topic = target.topic("ack-timeout");
        send_numbers(&client, &topic, 4, false).await;
        let builder = client.consumer(&topic, "s").subscription_type(kind).ack_timeout(Duration::from_secs(1));
        let mut consumer = subscribed(builder.initial_position(InitialPosition::Earliest)).await;
        let messages = receive_all(&mut consumer, 4).await;
        let at = Instant::now();
        for message in &messages[..3] {
            consumer.ack(message).expect("acknowledged");
        }
        let again = receive(&mut consumer).await;
        assert!(at.elapsed() >= Duration::from_millis(900), "{kind:?}: after {:?}", at.elapsed());
        assert_eq!(numbers(std::slice::from_ref(&again)), [3], "{kind:?}");
        assert_eq!(consumer.stats().acknowledgement_timeouts, 1, "{kind:?}");
        consumer.ack(&again).expect("acknowledged");
        drained(target, &topic, "s").await;
    }
}

/// By ids that were kept as bytes, over two topics and in a batch; not before the delay, and nothing else with them.
pub async fn nack_by_id(target: &Target) {
    let client = target.client().await;
    let topics = [target.topic("nack-by-id"), target.topic("nack-by-id")];
    let delay = Duration::from_millis(300);
    let builder = client.consumer(topics.clone(), "s").subscription_type(SubscriptionType::Shared);
    let builder = builder.initial_position(InitialPosition::Earliest).negative_ack_redelivery_delay(delay);
    let mut consumer = subscribed(builder).await;
    send_numbers(&client, &topics[0], 3, false).await;
    let producer = client.producer(&topics[1]).batching_max_messages(2);
    let producer = created(producer.batching_max_publish_delay(Duration::from_secs(10))).await;
    send_all(&producer, ["3", "4"]).await;
    let messages = receive_all(&mut consumer, 5).await;
    let mut ids = Vec::new();
    for message in &messages {
        match &*message.to_string_lossy() {
            // The first of its entry alone, the second of a batch.
            "0" | "4" => ids.push(message.id()),
            _ => consumer.ack(message).expect("acknowledged"),
        }
    }
    let stored = |id: &MessageId| {
        let topic = id.topic().expect("of a received message").to_owned();
        MessageId::from_bytes(&id.to_bytes()).expect("an id").with_topic(topic)
    };
    let at = Instant::now();
    consumer.nack_ids(&ids.iter().map(stored).collect::<Vec<_>>()).expect("noted");
    let again = receive_all(&mut consumer, 2).await;
    assert!(at.elapsed() >= delay, "after {:?}", at.elapsed());
    let seen: BTreeSet<_> = again.iter().map(ReceivedMessage::id).collect();
    assert_eq!(seen, ids.into_iter().collect());
    for message in &again {
        assert_eq!(message.redelivery_count(), 1);
        consumer.ack(message).expect("acknowledged");
    }
    for topic in &topics {
        drained(target, topic, "s").await;
    }
}

/// The back-off is added to the acknowledgement timeout.
pub async fn ack_timeout_backoff(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("ack-timeout-backoff");
    send_numbers(&client, &topic, 1, false).await;
    let (timeout, more) = (Duration::from_secs(1), Duration::from_millis(700));
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared).ack_timeout(timeout);
    let builder = builder.ack_timeout_redelivery_backoff(RedeliveryBackoff::new(more, Duration::from_secs(60)));
    let mut consumer = subscribed(builder.initial_position(InitialPosition::Earliest)).await;
    receive(&mut consumer).await;
    let at = Instant::now();
    let again = receive(&mut consumer).await;
    // It counts from the receive, a little before.
    let least = timeout + more - Duration::from_millis(100);
    assert!(at.elapsed() >= least && again.redelivery_count() == 1, "after {:?}: {again:?}", at.elapsed());
    consumer.ack(&again).expect("acknowledged");
    drained(target, &topic, "s").await;
}
