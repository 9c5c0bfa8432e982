//! Futures that are dropped at every point: nothing is lost by it, and everything still works.
//!
//! Each future is dropped after 0, 1, 2, … polls, and after 0, 1, 2, … turns of the other tasks, until it completes
//! first. In between the answers arrive, so that every state of what it asked for is met.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures_core::Stream as _;

use super::support::*;

/// When a future is dropped.
#[derive(Debug, Clone, Copy)]
enum Drops {
    AfterPolls(usize),
    AfterTurns(usize),
}

/// A future that never gets ready within so many points would be a test without an end.
const POINTS_MAX: usize = 2_000;

/// The outcome, unless the future is dropped before it.
async fn dropped<F: Future>(when: Drops, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match when {
        Drops::AfterPolls(polls) => {
            let mut done = 0;
            poll_fn(|cx| {
                if done == polls {
                    return Poll::Ready(None);
                }
                done += 1;
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => Poll::Ready(Some(output)),
                    Poll::Pending if done == polls => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        }
        Drops::AfterTurns(turns) => {
            tokio::select! {
                biased;
                output = &mut future => Some(output),
                () = pass_turns(turns) => None,
            }
        }
    }
}

/// Turns of the other tasks; later ones let time pass as well, for what waits for a timer.
async fn pass_turns(turns: usize) {
    for turn in 0..turns {
        if turn < 40 {
            tokio::task::yield_now().await;
        } else {
            pass(Duration::from_millis(5)).await;
        }
    }
}

/// Every point of both kinds, until `run` says that the future completed.
async fn at_every_point(mut run: impl AsyncFnMut(Drops) -> bool) {
    for kind in [Drops::AfterPolls, Drops::AfterTurns] {
        let mut point = 0;
        while !run(kind(point)).await {
            point += 1;
            assert!(point < POINTS_MAX, "it never completes");
        }
    }
}

async fn ends_without_a_task(stage: Stage) {
    stage.close_and_check().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

/// What is stored is each message at most once, in order, with all that were confirmed.
fn assert_stored(stored: &[String], confirmed: &[usize], up_to: usize) {
    let stored: Vec<usize> = stored.iter().map(|text| text.parse().expect("a number")).collect();
    assert!(stored.windows(2).all(|pair| pair[0] < pair[1]), "{stored:?}");
    assert!(confirmed.iter().all(|number| stored.contains(number)), "{stored:?} lacks some of {confirmed:?}");
    assert!(stored.iter().all(|number| *number <= up_to));
}

#[tokio::test(start_paused = true)]
async fn dropped_send() {
    for (batching, room) in [(true, 1000), (false, 1000), (false, 1)] {
        let stage = Stage::new().await;
        let builder = stage.client.producer(TOPIC).batching(batching).max_pending_messages(room);
        let producer = created(builder).await;
        let (mut number, mut stored) = (0, Vec::new());
        at_every_point(async |when| {
            let sent = dropped(when, producer.send(number.to_string())).await;
            if let Some(sent) = &sent {
                sent.as_ref().expect("the message is stored");
                stored.push(number);
            }
            number += 1;
            sent.is_some()
        })
        .await;
        super::support::send(&producer, number.to_string()).await;
        stored.push(number);
        assert_stored(&stage.stored(TOPIC).await, &stored, number);
        ends_without_a_task(stage).await;
    }
}

/// Dropped while it waits for room, a message is not sent, and its place is not taken.
#[tokio::test(start_paused = true)]
async fn dropped_enqueue_that_waits_for_capacity() {
    let stage = Stage::new().await;
    let builder = stage.client.producer(TOPIC).batching(false).max_pending_messages(2);
    let producer = created(builder).await;
    at_every_point(async |when| {
        stage.broker.faults().on(FaultEvent::Send).times(2).delay_response(Duration::from_millis(50));
        let first = enqueue_numbers(&producer, 0..2).await;
        let waited = dropped(when, producer.enqueue("waited")).await;
        let behind = enqueue(&producer, "behind").await;
        confirmed(first).await;
        confirmed(vec![behind]).await;
        // All the room is there again.
        confirmed(enqueue_numbers(&producer, 0..2).await).await;
        match waited {
            Some(accepted) => {
                within("a receipt", accepted.expect("accepted")).await.expect("stored");
                true
            }
            None => false,
        }
    })
    .await;
    let stored = stage.stored(TOPIC).await;
    assert_eq!(stored.iter().filter(|text| *text == "waited").count(), 2, "the two that completed, and no other");
    ends_without_a_task(stage).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_flush() {
    let stage = Stage::new().await;
    let builder = stage.client.producer(TOPIC).batching_max_publish_delay(Duration::from_secs(1));
    let producer = created(builder).await;
    let mut rounds = 0;
    at_every_point(async |when| {
        let pending = enqueue_numbers(&producer, 0..3).await;
        let flushed = dropped(when, producer.flush()).await;
        confirmed(pending).await;
        within("the next flush", producer.flush()).await.expect("nothing failed");
        rounds += 1;
        flushed.is_some_and(|flushed| flushed.is_ok())
    })
    .await;
    assert_eq!(stage.stored(TOPIC).await.len(), rounds * 3);
    ends_without_a_task(stage).await;
}

/// However often a receive is dropped, each message comes once, in order.
#[tokio::test(start_paused = true)]
async fn dropped_receive() {
    for queue in [0, 1, 2, 1000] {
        for batched in [false, true] {
            let stage = Stage::new().await;
            let builder = stage.client.consumer(TOPIC, "s").receiver_queue_size(queue);
            let builder = builder.subscription_type(SubscriptionType::Shared);
            let mut consumer = subscribed(builder).await;
            let builder =
                stage.client.producer(TOPIC).batching(batched).batching_max_publish_delay(Duration::from_millis(1));
            let producer = created(builder).await;
            let (mut sent, mut received) = (0, Vec::new());
            for kind in 0..3 {
                at_every_point(async |when| {
                    let pending = enqueue_numbers(&producer, sent..sent + 3).await;
                    sent += 3;
                    let got = match kind {
                        0 => dropped(when, consumer.receive()).await.map(|one| vec![one.expect("a message")]),
                        1 => dropped(when, consumer.receive_many(2)).await.map(|many| many.expect("messages")),
                        _ => {
                            let next = poll_fn(|cx| std::pin::Pin::new(&mut consumer).poll_next(cx));
                            let one = dropped(when, next).await;
                            one.map(|one| vec![one.expect("not the end").expect("a message")])
                        }
                    };
                    let done = got.is_some();
                    for message in got.unwrap_or_default() {
                        consumer.ack(&message).expect("acknowledged");
                        received.push(message.to_string_lossy().into_owned());
                    }
                    confirmed(pending).await;
                    // The next one waits for its message.
                    while received.len() < sent {
                        let message = within("a message", consumer.receive()).await.expect("a message");
                        consumer.ack(&message).expect("acknowledged");
                        received.push(message.to_string_lossy().into_owned());
                    }
                    done
                })
                .await;
            }
            assert_eq!(received, numbers(0..sent), "a queue of {queue}");
            stage.drained(TOPIC).await;
            ends_without_a_task(stage).await;
        }
    }
}

/// Polled once, the acknowledgement is on its way; not polled, nothing happened.
#[tokio::test(start_paused = true)]
async fn dropped_ack_confirmed() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    let producer = stage.producer(TOPIC).await;
    let mut count = 0u64;
    at_every_point(async |when| {
        super::support::send(&producer, "x").await;
        count += 1;
        let message = within("a message", consumer.receive()).await.expect("a message");
        let acked = dropped(when, consumer.ack_confirmed(&message)).await;
        if matches!(when, Drops::AfterPolls(0)) {
            assert_eq!(stage.subscription(TOPIC).msg_backlog, 1);
            within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
        }
        stage.drained(TOPIC).await;
        acked.is_some_and(|acked| acked.is_ok())
    })
    .await;
    assert_eq!(stage.subscription(TOPIC).msg_out_counter, count, "nothing came twice");
    ends_without_a_task(stage).await;
}

/// A seek whose future was dropped is carried out; the next one works.
#[tokio::test(start_paused = true)]
async fn dropped_seek() {
    let stage = Stage::new().await;
    let mut consumer = stage.consumer(TOPIC).await;
    let producer = stage.producer(TOPIC).await;
    confirmed(enqueue_numbers(&producer, 0..5).await).await;
    at_every_point(async |when| {
        let sought = dropped(when, consumer.seek(SeekTo::Latest)).await;
        // One seek at a time: until the dropped one is over, another is refused.
        let started = Instant::now();
        while let Err(error) = within("the seek", consumer.seek(SeekTo::Earliest)).await {
            assert!(started.elapsed() < TIMEOUT, "{error}");
            pass(Duration::from_millis(10)).await;
        }
        for number in 0..5 {
            assert_eq!(text(&mut consumer).await, number.to_string(), "{when:?}");
        }
        sought.is_some_and(|sought| sought.is_ok())
    })
    .await;
    ends_without_a_task(stage).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_stats_and_last_message_ids() {
    let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 3), |builder| builder).await;
    let consumer = stage.consumer("parts").await;
    for question in 0..3 {
        at_every_point(async |when| {
            let answered = match question {
                0 => dropped(when, consumer.broker_stats()).await.map(|stats| stats.map(drop)),
                1 => dropped(when, consumer.last_message_ids()).await.map(|ids| ids.map(drop)),
                _ => dropped(when, stage.client.partitions("parts")).await.map(|count| count.map(drop)),
            };
            within("the statistics", consumer.broker_stats()).await.expect("statistics");
            let ids = within("the last ids", consumer.last_message_ids()).await.expect("ids");
            assert_eq!(ids.len(), 3);
            assert_eq!(within("the number", stage.client.partitions("parts")).await.expect("a number"), 3);
            answered.is_some_and(|answered| answered.is_ok())
        })
        .await;
    }
    drop(consumer);
    ends_without_a_task(stage).await;
}

/// A producer whose future was dropped is closed at the broker: its name is free, its exclusive access too.
#[tokio::test(start_paused = true)]
async fn dropped_create() {
    for topic in ["plain", "parts"] {
        let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 3), |builder| builder).await;
        at_every_point(async |when| {
            let builder = stage.client.producer(topic).name("the one");
            let created = dropped(when, builder.clone().create()).await;
            let completed = created.is_some_and(|created| created.is_ok());
            until("none to be left", || publishers(&stage), |publishers| *publishers == 0).await;
            let producer = within("a producer", builder.create()).await.expect("its name is free");
            super::support::send(&producer, "x").await;
            within("the close", producer.close()).await.expect("closed");
            completed
        })
        .await;
        ends_without_a_task(stage).await;
    }
}

fn publishers(stage: &Stage) -> usize {
    stage.broker.topics().iter().map(|topic| stage.attached(topic).0).sum()
}

/// The same for an exclusive subscription.
#[tokio::test(start_paused = true)]
async fn dropped_subscribe() {
    for topic in ["plain", "parts"] {
        let stage = Stage::with(EmbeddedBroker::builder().partitioned_topic("parts", 3), |builder| builder).await;
        at_every_point(async |when| {
            let subscribed = dropped(when, stage.client.consumer(topic, "s").subscribe()).await;
            let completed = subscribed.is_some_and(|subscribed| subscribed.is_ok());
            let consumers = || stage.broker.topics().iter().map(|topic| stage.attached(topic).1).sum::<usize>();
            until("none to be left", consumers, |consumers| *consumers == 0).await;
            let mut consumer = stage.consumer(topic).await;
            let producer = stage.producer(topic).await;
            super::support::send(&producer, "x").await;
            let message = within("a message", consumer.receive()).await.expect("a message");
            within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
            within("the close", consumer.close()).await.expect("closed");
            completed
        })
        .await;
        ends_without_a_task(stage).await;
    }
}

/// A close goes on when its future is dropped, with what was accepted before it.
#[tokio::test(start_paused = true)]
async fn dropped_close_of_a_producer() {
    let stage = Stage::new().await;
    let mut accepted = 0;
    at_every_point(async |when| {
        let producer = stage.producer(TOPIC).await;
        drop(enqueue_numbers(&producer, 0..2).await);
        accepted += 2;
        let closed = dropped(when, producer.close()).await;
        drop(producer);
        until("it to go", || stage.attached(TOPIC), |seen| *seen == (0, 0)).await;
        closed.is_some_and(|closed| closed.is_ok())
    })
    .await;
    assert_eq!(stage.stored(TOPIC).await.len(), accepted);
    ends_without_a_task(stage).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_close_and_unsubscribe_of_a_consumer() {
    for unsubscribe in [false, true] {
        let stage = Stage::new().await;
        let producer = stage.producer(TOPIC).await;
        let mut last = 0;
        at_every_point(async |when| {
            let mut consumer = stage.consumer(TOPIC).await;
            super::support::send(&producer, last.to_string()).await;
            let message = within("a message", consumer.receive()).await.expect("a message");
            if !unsubscribe {
                assert_eq!(message.to_string_lossy(), last.to_string(), "what was acknowledged does not come back");
            }
            consumer.ack(&message).expect("acknowledged");
            last += 1;
            let closed = if unsubscribe {
                dropped(when, consumer.unsubscribe()).await
            } else {
                dropped(when, consumer.close()).await
            };
            drop(consumer);
            until("it to go", || stage.attached(TOPIC), |seen| *seen == (1, 0)).await;
            let exists = stage.broker.stats(TOPIC).is_some_and(|stats| stats.subscriptions.contains_key("s"));
            if !unsubscribe {
                assert!(exists, "the subscription stays");
                stage.drained(TOPIC).await;
            } else if !matches!(when, Drops::AfterPolls(0)) {
                assert!(!exists, "the subscription goes, as was asked for: {when:?}");
            }
            closed.is_some_and(|closed| closed.is_ok())
        })
        .await;
        ends_without_a_task(stage).await;
    }
}

/// A client whose future was dropped leaves no task and no connection.
#[tokio::test(start_paused = true)]
async fn dropped_connect_and_close_of_a_client() {
    let (broker, net) = broker_on_net(EmbeddedBroker::builder()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    at_every_point(async |when| {
        let connected = dropped(when, builder(&broker, &net).connect()).await;
        let completed = connected.is_some_and(|connected| connected.is_ok());
        until("every task to end", || (tasks(), broker.connections()), |seen| *seen == (before, 0)).await;
        completed
    })
    .await;
    at_every_point(async |when| {
        let client = within("the connection", builder(&broker, &net).connect()).await.expect("a client");
        let producer = created(client.producer(TOPIC)).await;
        let consumer = subscribed(client.consumer(TOPIC, "s")).await;
        let closed = dropped(when, client.close()).await;
        drop((client, producer, consumer));
        until("every task to end", || (tasks(), broker.connections()), |seen| *seen == (before, 0)).await;
        closed.is_some_and(|closed| closed.is_ok())
    })
    .await;
    stop_and_check(&broker).await;
}

/// Sends and receives dropped at random while the connection is cut again and again: what was confirmed is stored, and every
/// message that is stored is received.
#[tokio::test(start_paused = true)]
async fn sends_and_receives_dropped_under_cuts() {
    let stage = Stage::deduplicating().await;
    let builder = stage.client.producer(TOPIC).name("p").batching(false).max_pending_messages(4);
    let producer = created(builder).await;
    let mut consumer = stage.consumer(TOPIC).await;
    let (mut sure, mut seen) = (Vec::new(), BTreeSet::new());
    for number in 0..300 {
        if number % 25 == 7 {
            stage.broker.faults().on(FaultEvent::Any).after(number % 4).disconnect();
        }
        let turns = usize::try_from(number % 9).expect("small");
        if let Some(sent) = dropped(Drops::AfterTurns(turns), producer.send(number.to_string())).await {
            sent.expect("the message is stored");
            sure.push(usize::try_from(number).expect("small"));
        }
        if let Some(message) = dropped(Drops::AfterTurns(turns / 2), consumer.receive()).await {
            let message = message.expect("a message");
            seen.insert(message.to_string_lossy().into_owned());
            drop(dropped(Drops::AfterTurns(turns), consumer.ack_confirmed(&message)).await);
        }
    }
    super::support::send(&producer, "300").await;
    seen.extend(receive_up_to(&mut consumer, "300").await);
    let stored = stage.stored(TOPIC).await;
    assert_stored(&stored, &sure, 300);
    let missing: Vec<_> = stored.iter().filter(|text| !seen.contains(*text)).collect();
    assert!(missing.is_empty(), "stored and never received: {missing:?}");
    ends_without_a_task(stage).await;
}
