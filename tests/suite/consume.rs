//! Receiving: who gets what, in which order, and how much the broker may send ahead.

use std::pin::Pin;
use std::task::Poll;

use futures_core::Stream;

use super::target::Offer;
use super::*;
use pulsar_native::{BatchReceivePolicy, IdleReason};

async fn producer(client: &Client, topic: &str) -> Producer {
    created(client.producer(topic)).await
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("message {number}")).collect()
}

pub async fn exclusive_refuses_a_second(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("exclusive");
    let first = subscribed(client.consumer(&topic, "s")).await;
    let other = target.client().await;
    for client in [&client, &other] {
        let error = within("the refusal", client.consumer(&topic, "s").subscribe()).await.expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains(&topic), "names the topic: {error}");
    }
    subscribed(client.consumer(&topic, "another subscription")).await;
    within("the close", first.close()).await.expect("closed");
    subscribed(other.consumer(&topic, "s")).await;
}

pub async fn shared_gives_each_message_once(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("shared");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared).receiver_queue_size(10);
    let mut consumers = [subscribed(builder.clone()).await, subscribed(builder).await];
    let producer = created(client.producer(&topic).batching(false)).await;
    let sent: BTreeSet<_> = numbered(200).into_iter().collect();
    send_all(&producer, sent.iter().map(String::as_str)).await;
    let mut received = BTreeSet::new();
    let mut counts = [0, 0];
    while received.len() < sent.len() {
        let (first, second) = consumers.split_at_mut(1);
        let (message, at) = within("a message on either consumer", async {
            tokio::select! {
                message = first[0].receive() => (message.expect("a message"), 0),
                message = second[0].receive() => (message.expect("a message"), 1),
            }
        })
        .await;
        consumers[at].ack(&message).expect("acknowledged");
        counts[at] += 1;
        assert!(received.insert(message.to_string_lossy().into_owned()), "{} came twice", message.to_string_lossy());
    }
    assert_eq!(received, sent);
    assert!(counts.iter().all(|count| *count > 0), "spread as {counts:?}");
    drained(target, &topic, "s").await;
}

pub async fn position_of_a_new_subscription(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("position");
    let producer = producer(&client, &topic).await;
    send(&producer, "early").await;
    let mut latest = subscribed(client.consumer(&topic, "latest")).await;
    let earliest = client.consumer(&topic, "earliest").initial_position(InitialPosition::Earliest);
    let mut earliest = subscribed(earliest).await;
    send(&producer, "late").await;
    assert_eq!(texts(&mut earliest, 2).await, ["early", "late"]);
    assert_eq!(texts(&mut latest, 1).await, ["late"]);
}

pub async fn receive_many_and_try_receive(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("receive-many");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    assert!(consumer.try_receive().expect("no error").is_none(), "nothing was sent yet");
    let producer = producer(&client, &topic).await;
    let sent = numbered(100);
    send_all(&producer, sent.iter().map(String::as_str)).await;
    let mut received = Vec::new();
    while received.len() < 90 {
        let most = 40.min(90 - received.len());
        let some = within("messages", consumer.receive_many(most)).await.expect("messages");
        assert!(!some.is_empty() && some.len() <= most, "{} of at most {most}", some.len());
        received.extend(some);
    }
    let consumer = Mutex::new(consumer);
    while received.len() < 100 {
        let look = || async { consumer.lock().unwrap().try_receive().expect("no error") };
        received.extend(until("the next message", look, Option::is_some).await);
    }
    assert_eq!(received.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(), sent);
}

pub async fn stream(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("stream");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = producer(&client, &topic).await;
    send_all(&producer, numbered(20).iter().map(String::as_str)).await;
    for text in numbered(20) {
        let next = std::future::poll_fn(|context| Pin::new(&mut consumer).poll_next(context));
        let message = within("the next of the stream", next).await.expect("no end").expect("a message");
        assert_eq!(message.to_string_lossy(), text);
    }
}

/// A `receive` is polled once and dropped, before and after its message has come.
pub async fn dropped_receives_lose_nothing(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("dropped-receives");
    for queue in [0, 1, 100] {
        let subscription = format!("queue of {queue}");
        let mut consumer = subscribed(client.consumer(&topic, &subscription).receiver_queue_size(queue)).await;
        let producer = created(client.producer(&topic).batching(false)).await;
        let mut received = Vec::new();
        for text in numbered(30) {
            let pending = within("capacity", producer.enqueue(text)).await.expect("accepted");
            for _ in 0..3 {
                let polled = {
                    let mut receive = std::pin::pin!(consumer.receive());
                    std::future::poll_fn(|context| Poll::Ready(receive.as_mut().poll(context))).await
                };
                if let Poll::Ready(message) = polled {
                    received.push(message.expect("a message"));
                }
                tokio::task::yield_now().await;
            }
            within("the receipt", pending).await.expect("stored");
        }
        while received.len() < 30 {
            received.push(receive(&mut consumer).await);
        }
        assert_eq!(
            received.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(),
            numbered(30),
            "{subscription}"
        );
    }
}

/// What the broker may still send to the one consumer of the subscription.
async fn permits(target: &Target, topic: &str) -> i64 {
    let look = || target.subscription(topic, "s");
    let seen = until("the consumer to show", look, |seen| seen.consumers.len() == 1).await;
    seen.consumers[0].permits
}

pub async fn queue_of_zero(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("queue-of-zero");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = subscribed(builder.receiver_queue_size(0)).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    let sent = numbered(20);
    send_all(&producer, sent.iter().map(String::as_str)).await;
    assert_eq!(permits(target, &topic).await, 0, "no receive waits yet");
    for text in sent {
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), text);
        // What was handed out is all that the broker has sent.
        until("one message", || target.subscription(&topic, "s"), |seen| seen.unacked == 1).await;
        target.confirm(&consumer, &message).await;
    }
    drained(target, &topic, "s").await;
}

pub async fn queue_of_one(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("queue-of-one");
    let mut consumer = subscribed(client.consumer(&topic, "s").receiver_queue_size(1)).await;
    for batching in [false, true] {
        let builder = client.producer(&topic).batching(batching).batching_max_publish_delay(Duration::from_millis(20));
        let producer = created(builder).await;
        send_all(&producer, numbered(50).iter().map(String::as_str)).await;
        for text in numbered(50) {
            let message = receive(&mut consumer).await;
            assert_eq!(message.to_string_lossy(), text);
            consumer.ack(&message).expect("acknowledged");
        }
    }
    drained(target, &topic, "s").await;
    assert!(permits(target, &topic).await <= 1);
}

pub async fn permits_stay_within_the_queue(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("permits");
    let mut consumer = subscribed(client.consumer(&topic, "s").receiver_queue_size(10)).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, numbered(200).iter().map(String::as_str)).await;
    for at in 0..200 {
        if at % 20 == 0 {
            let permits = permits(target, &topic).await;
            assert!(permits <= 10, "{permits} permits for a queue of 10");
        }
        let message = receive(&mut consumer).await;
        consumer.ack(&message).expect("acknowledged");
    }
    drained(target, &topic, "s").await;
    let look = || permits(target, &topic);
    // At rest, less than one refill is on its way: half of the queue.
    until("the permits to come home", look, |permits| (5..=10).contains(permits)).await;
}

/// A quick application gets a larger queue, where batches use the small one up; a slow one gives it back.
pub async fn the_queue_follows_the_application(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("scaled");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let refused = builder.clone().receiver_queue_size(0).auto_scaled_receiver_queue_size(true).subscribe().await;
    let error = refused.expect_err("a queue of 0 does not grow");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let builder = builder.receiver_queue_size(10).auto_scaled_receiver_queue_size(true);
    let mut consumer = subscribed(builder.max_total_receiver_queue_size_across_partitions(80)).await;
    let batches = client.producer(&topic).batching_max_messages(10).batching_max_publish_delay(Duration::from_secs(1));
    let producer = created(batches).await;
    send_all(&producer, numbered(1000).iter().map(String::as_str)).await;
    let mut received = 0;
    while consumer.stats().receiver_queue_size == 10 {
        let message = receive(&mut consumer).await;
        consumer.ack(&message).expect("acknowledged");
        received += 1;
        assert!(received < 500, "of batches of 10 each one costs a round trip");
    }
    let grown = consumer.stats().receiver_queue_size;
    assert!((20..=80).contains(&grown), "{grown}");
    // At this pace half of the smallest queue takes longer than 100 ms.
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let message = receive(&mut consumer).await;
        pace.tick().await;
        consumer.ack(&message).expect("acknowledged");
        received += 1;
        if consumer.stats().receiver_queue_size == 10 && permits(target, &topic).await <= 10 {
            break;
        }
        assert!(received < 900, "a slow application keeps {}", consumer.stats().receiver_queue_size);
    }
}

pub async fn close_keeps_the_subscription(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("close");
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    within("the close", consumer.close()).await.expect("closed");
    let producer = producer(&client, &topic).await;
    send(&producer, "meanwhile").await;
    let seen = target.subscription(&topic, "s").await;
    assert_eq!((seen.backlog, seen.consumers.len()), (1, 0));
    let mut again = subscribed(client.consumer(&topic, "s")).await;
    assert_eq!(texts(&mut again, 1).await, ["meanwhile"]);
}

pub async fn unsubscribe_deletes_it(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("unsubscribe");
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    assert!(target.stats(&topic).await.subscriptions.contains_key("s"));
    within("the answer", consumer.unsubscribe()).await.expect("unsubscribed");
    assert!(!target.stats(&topic).await.subscriptions.contains_key("s"));
}

pub async fn unsubscribe_needs_force_beside_others(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("unsubscribe-shared");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
    let (first, second) = (subscribed(builder.clone()).await, subscribed(builder.clone()).await);
    let third = subscribed(builder).await;
    let error = within("the refusal", first.unsubscribe()).await.expect_err("others are connected");
    assert!(error.server_error().is_some(), "{error}");
    assert!(error.to_string().contains(&topic), "names the topic: {error}");
    assert!(first.is_connected(), "everything is as it was");
    drop(third);
    let look = || target.subscription(&topic, "s");
    until("one consumer to go", look, |seen| seen.consumers.len() == 2).await;
    // The others subscribe again, so only the answer tells. An old broker does not know the force, and answers as before.
    let forced = within("the answer", first.force_unsubscribe()).await;
    if target.offers(Offer::ForcedUnsubscribe) {
        return forced.expect("unsubscribed beside another");
    }
    assert!(forced.expect_err("another is connected").server_error().is_some());
    drop((first, second));
    until("the consumers to go", look, |seen| seen.consumers.is_empty()).await;
    assert!(target.stats(&topic).await.subscriptions.contains_key("s"));
}

pub async fn statistics(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("statistics");
    let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared).name("counted");
    let mut consumer = subscribed(builder.receiver_queue_size(50)).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, numbered(4).iter().map(String::as_str)).await;
    let messages = receive_all(&mut consumer, 4).await;
    target.confirm(&consumer, &messages[0]).await;
    until("the acknowledgement", || target.subscription(&topic, "s"), |seen| seen.backlog == 3).await;
    let told = within("the statistics", consumer.broker_stats()).await.expect("statistics");
    assert_eq!((told.backlog, told.unacknowledged, told.blocked_on_unacknowledged), (3, 3, false));
    let seen = target.subscription(&topic, "s").await;
    assert_eq!((seen.backlog, seen.unacked), (3, 3));
    assert_eq!(seen.consumers[0].name, "counted");
    assert!(told.available_permits <= 50, "{}", told.available_permits);
}

pub async fn last_message_id(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("last-message-id");
    let consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = producer(&client, &topic).await;
    for text in numbered(3) {
        let sent = send(&producer, text).await;
        let last = within("the last id", consumer.last_message_ids()).await.expect("an id");
        assert_eq!((&last[..], last[0].topic()), (&[sent][..], Some(topic.as_str())));
    }
}

fn texts_of(messages: &[ReceivedMessage]) -> Vec<String> {
    messages.iter().map(|message| message.to_string_lossy().into_owned()).collect()
}

/// By count, by bytes and by time; a batch that is given up loses nothing.
pub async fn receive_by_the_batch(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("batch-receive");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    send_all(&producer, (0..10).map(|number| number.to_string())).await;
    let policy = BatchReceivePolicy::default().with_timeout(Duration::MAX);
    let batch = within("four", consumer.receive_batch(&policy.clone().with_messages_max(4))).await.expect("four");
    assert_eq!(texts_of(&batch), ["0", "1", "2", "3"]);
    let batch = within("two bytes", consumer.receive_batch(&policy.clone().with_bytes_max(2))).await.expect("two");
    assert_eq!(texts_of(&batch), ["4", "5"]);
    let too_many = policy.with_messages_max(5);
    let dropped = tokio::time::timeout(Duration::from_millis(200), consumer.receive_batch(&too_many)).await;
    assert!(dropped.is_err(), "{dropped:?}");
    send(&producer, "10").await;
    assert_eq!(texts_of(&[receive(&mut consumer).await]), ["6"]);
    let batch = within("the rest", consumer.receive_batch(&too_many.clone().with_messages_max(4))).await.expect("four");
    assert_eq!(texts_of(&batch), ["7", "8", "9", "10"]);
    let at = Instant::now();
    let soon = too_many.with_timeout(Duration::from_millis(50));
    assert!(within("the time", consumer.receive_batch(&soon)).await.expect("none").is_empty());
    assert!(at.elapsed() >= Duration::from_millis(50));
}

/// Paused from the start nothing comes; resumed all of it does, and a pause takes what was asked for and no more.
pub async fn pause_and_resume(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("paused");
    let builder = client.consumer(&topic, "s").receiver_queue_size(10).start_paused(true);
    let mut consumer = subscribed(builder).await;
    let producer = created(client.producer(&topic).batching(false)).await;
    send_all(&producer, (0..30).map(|number| number.to_string())).await;
    let idle = within("why it is idle", consumer.why_idle()).await;
    assert_eq!(idle.parts[0].reason, IdleReason::Paused);
    assert!(consumer.try_receive().expect("attached").is_none());
    consumer.resume();
    assert_eq!(texts_of(&receive_all(&mut consumer, 1).await), ["0"]);
    consumer.pause();
    let mut received = 1;
    // What the broker was asked for before still comes.
    while consumer.stats().available_permits > 0 || received < 10 {
        assert_eq!(receive(&mut consumer).await.to_string_lossy(), received.to_string());
        received += 1;
    }
    while let Some(message) = consumer.try_receive().expect("attached") {
        assert_eq!(message.to_string_lossy(), received.to_string());
        received += 1;
    }
    let look = || async { consumer.why_idle().await.parts[0].reason.clone() };
    until("nothing to come", look, |reason| *reason == IdleReason::Paused).await;
    assert!(received < 30, "{received} came");
    consumer.resume();
    let rest = receive_all(&mut consumer, 30 - received).await;
    assert_eq!(texts_of(&rest), (received..30).map(|number| number.to_string()).collect::<Vec<_>>());
}
