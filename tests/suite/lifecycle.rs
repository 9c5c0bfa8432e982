//! What is dropped or closed is gone, here and at the broker; what was accepted is not lost by it.

use super::*;

async fn producer(client: &Client, topic: &str) -> Producer {
    created(client.producer(topic)).await
}

async fn consumer(client: &Client, topic: &str) -> Consumer {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Shared);
    subscribed(builder).await
}

/// How many producers and consumers the broker has on the topic.
async fn attached(target: &Target, topic: &str) -> (usize, usize) {
    let seen = target.stats(topic).await;
    (seen.publishers.len(), seen.subscriptions.values().map(|subscription| subscription.consumers.len()).sum())
}

pub async fn dropped_handles_are_gone_at_the_broker(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("dropped");
    let producer = producer(&client, &topic).await;
    let consumer = consumer(&client, &topic).await;
    assert_eq!(attached(target, &topic).await, (1, 1));
    let (clone, acker) = (producer.clone(), consumer.acker());
    drop(producer);
    drop(consumer);
    send(&clone, "a clone holds it").await;
    assert_eq!(attached(target, &topic).await, (1, 1), "a clone and an acker hold them");
    drop(clone);
    drop(acker);
    until("both to go", || attached(target, &topic), |seen| *seen == (0, 0)).await;
}

pub async fn drop_sends_what_was_accepted(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drop-sends");
    let mut consumer = consumer(&client, &topic).await;
    let builder = client.producer(&topic).batching_max_publish_delay(Duration::from_secs(20));
    let producer = created(builder).await;
    for number in 0..100 {
        drop(within("capacity", producer.enqueue(number.to_string())).await.expect("accepted"));
    }
    drop(producer);
    assert_eq!(texts(&mut consumer, 100).await, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Tasks of this test's runtime, the client's among them.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

pub async fn client_close_leaves_nothing(target: &Target) {
    let tasks_before = tasks();
    let client = target.client().await;
    let topic = target.topic("client-close");
    let producer = producer(&client, &topic).await;
    let mut consumer = consumer(&client, &topic).await;
    let accepted = within("capacity", producer.enqueue("accepted")).await.expect("accepted");
    within("the close", client.close()).await.expect("closed");
    assert_eq!(attached(target, &topic).await, (0, 0), "closed at the broker when `close` returns");
    until("all tasks to end", || async { tasks() }, |tasks| *tasks <= tasks_before).await;
    within("the receipt", accepted).await.expect("sent before the close");
    let error = within("the refusal", producer.send("too late")).await.expect_err("closed");
    assert_eq!(error.error().kind(), ErrorKind::Closed, "{error}");
    let ended = within("the end", async {
        loop {
            if let Err(error) = consumer.receive().await {
                break error;
            }
        }
    });
    assert_eq!(ended.await.kind(), ErrorKind::Closed);
    let error = within("the refusal", client.producer(&topic).create()).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let error = within("the refusal", client.close()).await.expect_err("closed already");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

pub async fn many_cycles(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("cycles");
    let mut listener = subscribed(client.consumer(&topic, "listener")).await;
    for cycle in 0..200 {
        let producer = producer(&client, &topic).await;
        let consumer = consumer(&client, &topic).await;
        if cycle % 4 == 0 {
            send(&producer, cycle.to_string()).await;
        }
        if cycle % 2 == 0 {
            within("the close", producer.close()).await.expect("closed");
            within("the close", consumer.close()).await.expect("closed");
        }
    }
    until("all to go", || attached(target, &topic), |seen| *seen == (0, 1)).await;
    let expected: Vec<_> = (0..200).step_by(4).map(|cycle| cycle.to_string()).collect();
    assert_eq!(texts(&mut listener, 50).await, expected);
}

pub async fn handles_outlive_the_client(target: &Target) {
    let tasks_before = tasks();
    let client = target.client().await;
    let topic = target.topic("outlive");
    let producer = producer(&client, &topic).await;
    let mut consumer = consumer(&client, &topic).await;
    drop(client);
    send(&producer, "still here").await;
    let message = receive(&mut consumer).await;
    assert_eq!(message.to_string_lossy(), "still here");
    target.confirm(&consumer, &message).await;
    drop(producer);
    drop(consumer);
    until("both to go", || attached(target, &topic), |seen| *seen == (0, 0)).await;
    until("all tasks to end", || async { tasks() }, |tasks| *tasks <= tasks_before).await;
}

pub async fn closed_handles_say_so(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("closed");
    let producer = producer(&client, &topic).await;
    let mut consumer = consumer(&client, &topic).await;
    send(&producer, "x").await;
    let message = receive(&mut consumer).await;
    let acker = consumer.acker();
    within("the close", consumer.close()).await.expect("closed");
    assert_eq!(acker.ack(&message).expect_err("closed").kind(), ErrorKind::Closed);
    let clone = producer.clone();
    within("the close", producer.close()).await.expect("closed");
    let error = within("the refusal", clone.send("x")).await.expect_err("closed");
    assert_eq!(error.error().kind(), ErrorKind::Closed, "{error}");
    assert!(!error.may_be_stored(), "{error}");
    within("a second close", clone.close()).await.expect("closing twice is fine");
}

pub async fn stream_ends_with_its_consumer(target: &Target) {
    use futures_core::Stream;
    let client = target.client().await;
    let topic = target.topic("stream-end");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    within("the close", client.close()).await.expect("closed");
    for round in 0..3 {
        let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut consumer).poll_next(context));
        match (round, within("the end of the stream", next).await) {
            (0, Some(Err(error))) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
            (1.., None) => {}
            (_, other) => panic!("item {round} is {other:?}"),
        }
    }
    let error = within("the end", consumer.receive()).await.expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}
