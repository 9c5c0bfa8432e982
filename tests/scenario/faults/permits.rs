//! Permits: never more than the queue plus a batch, never so few that delivery stops.

use super::support::*;

const QUEUE: u32 = 10;
const BATCH: i64 = 5;

async fn consumer_of(stage: &Stage, kind: SubscriptionType, queue: u32) -> Consumer {
    let builder = stage.client.consumer(TOPIC, "s").subscription_type(kind).receiver_queue_size(queue);
    let builder = builder.initial_position(InitialPosition::Earliest);
    subscribed(builder).await
}

/// What the broker may still send, and what it has sent that is unacknowledged.
fn permits(stage: &Stage) -> Option<i64> {
    stage.subscription(TOPIC).consumers.first().map(|consumer| consumer.available_permits)
}

/// Through closes, cuts, duplicates and slow answers, for each size of the queue: everything arrives, and the broker's
/// permits stay within the queue.
#[tokio::test(start_paused = true)]
async fn delivery_never_stops_and_permits_stay_within_the_queue() {
    for queue in [1, 2, 3, QUEUE] {
        for kind in [SubscriptionType::Exclusive, SubscriptionType::Shared, SubscriptionType::KeyShared] {
            for fault in 0..5 {
                let stage = Stage::new().await;
                let mut consumer = consumer_of(&stage, kind, queue).await;
                let builder = stage.client.producer(TOPIC).batching_max_messages(u32::try_from(BATCH).expect("small"));
                let producer = created(builder).await;
                for after in [3, 9, 20, 40] {
                    let when = stage.broker.faults().on(FaultEvent::Delivery).after(after);
                    match fault {
                        0 => when.close(),
                        1 => when.disconnect(),
                        2 => when.duplicate_response(),
                        3 => when.delay_response(Duration::from_secs(2)),
                        _ => stage.broker.faults().on(FaultEvent::Flow).after(after).close(),
                    }
                }
                let pending = enqueue_numbers(&producer, 0..200).await;
                let mut missing: std::collections::BTreeSet<_> = numbers(0..200).into_iter().collect();
                while !missing.is_empty() {
                    let message = within("a message", consumer.receive()).await.expect("a message");
                    missing.remove(&*message.to_string_lossy());
                    consumer.ack(&message).expect("acknowledged");
                    if let Some(permits) = permits(&stage) {
                        assert!(permits <= i64::from(queue), "{permits} of a queue of {queue}");
                    }
                }
                confirmed(pending).await;
                stage.drained(TOPIC).await;
                stage.close_and_check().await;
            }
        }
    }
}

/// No message is received: the broker stops at the queue, and pings are still answered, for an hour.
#[tokio::test(start_paused = true)]
async fn a_full_queue_stops_the_broker_and_not_the_connection() {
    let stage = Stage::new().await;
    let mut consumer = consumer_of(&stage, SubscriptionType::Shared, QUEUE).await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..100).await).await;
    pass(Duration::from_secs(3600)).await;
    let seen = stage.subscription(TOPIC);
    assert_eq!(seen.unacked_messages, u64::from(QUEUE), "the queue and no more");
    assert_eq!(permits(&stage), Some(0));
    assert_eq!(stage.net.dials(), 1, "the connection is alive");
    send(&producer, "100").await;
    assert_eq!(receive_up_to(&mut consumer, "100").await, numbers(0..101));
    stage.close_and_check().await;
}

/// A queue of zero: a permit for each waiting receive, granted again on each connection, and never more.
#[tokio::test(start_paused = true)]
async fn a_queue_of_zero_asks_again_after_each_loss_and_never_for_more_than_one() {
    let stage = Stage::new().await;
    let mut consumer = consumer_of(&stage, SubscriptionType::Shared, 0).await;
    let builder = stage.client.producer(TOPIC).batching(false);
    let producer = created(builder).await;
    for round in 0..6 {
        let receiving = spawn(async move {
            let message = within("a message", consumer.receive()).await.expect("a message");
            within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
            (consumer, message.to_string_lossy().into_owned())
        });
        until("the permit", || permits(&stage), |permits| *permits == Some(1)).await;
        match round % 3 {
            0 => stage.broker.drop_connections(),
            1 => stage.broker.unload(TOPIC),
            _ => stage.broker.faults().close_consumers(TOPIC, None),
        }
        until("the loss", || permits(&stage), |permits| *permits != Some(1)).await;
        until("the permit again", || permits(&stage), |permits| *permits == Some(1)).await;
        send(&producer, round.to_string()).await;
        let (back, text) = within("the message", receiving).await.expect("no panic");
        consumer = back;
        assert_eq!(text, round.to_string());
        assert_eq!(permits(&stage), Some(0), "nothing is fetched ahead");
    }
    stage.close_and_check().await;
}

/// A receive that is given up does not leave a permit behind that was not asked for, nor lose what it fetched.
#[tokio::test(start_paused = true)]
async fn a_dropped_receive_on_a_queue_of_zero_loses_nothing() {
    let stage = Stage::new().await;
    let mut consumer = consumer_of(&stage, SubscriptionType::Shared, 0).await;
    let producer = stage.producer(TOPIC).await;
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_millis(10), consumer.receive()).await.is_err());
    }
    assert!(permits(&stage) <= Some(1), "{:?}", permits(&stage));
    confirmed(enqueue_numbers(&producer, 0..3).await).await;
    assert_eq!(receive_up_to(&mut consumer, "2").await, numbers(0..3));
    stage.close_and_check().await;
}

/// Answers are read although the messages in front of them are not received.
#[tokio::test(start_paused = true)]
async fn a_confirmation_comes_while_the_queue_is_full() {
    let stage = Stage::new().await;
    let mut consumer = consumer_of(&stage, SubscriptionType::Shared, QUEUE).await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..100).await).await;
    let message = within("a message", consumer.receive()).await.expect("a message");
    pass(Duration::from_secs(1)).await;
    let started = Instant::now();
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    within("the statistics", consumer.broker_stats()).await.expect("statistics");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    stage.close_and_check().await;
}
