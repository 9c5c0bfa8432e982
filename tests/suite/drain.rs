//! The orderly end: what was in hand is finished, what was done does not come again, and what is left is said.

use std::future::Future;

use super::*;
use crate::common::random::Random;
use pulsar_native::{Acker, DrainReport, Outcome, SeekTo, WorkOptions};
use tokio::sync::{Semaphore, mpsc};

/// Longer than anything takes here.
const AMPLE: Duration = Duration::from_secs(25);

fn builder(client: &Client, topic: &str) -> ConsumerBuilder {
    let builder = client.consumer(topic, "s").subscription_type(SubscriptionType::Shared);
    builder.initial_position(InitialPosition::Earliest)
}

async fn drain(acker: &Acker) -> DrainReport {
    within("a drain", acker.drain(AMPLE)).await
}

fn assert_complete(report: &DrainReport) {
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.to_string(), "drained");
}

/// The numbers that a new consumer gets, of those that were `sent`: all that are not `done`, and no other.
async fn assert_rest(target: &Target, client: &Client, topic: &str, sent: usize, done: &BTreeSet<usize>) {
    let expected: BTreeSet<_> = (0..sent).filter(|number| !done.contains(number)).collect();
    let mut consumer = subscribed(builder(client, topic)).await;
    let mut rest = BTreeSet::new();
    while rest.len() < expected.len() {
        let message = receive(&mut consumer).await;
        rest.insert(number(&message));
        target.confirm(&consumer, &message).await;
    }
    assert_eq!(rest, expected, "{} were done", done.len());
    drained(target, topic, "s").await;
}

fn number(message: &ReceivedMessage) -> usize {
    message.to_string_lossy().parse().expect("a number")
}

async fn send_numbers(client: &Client, topic: &str, count: usize, batching: bool) {
    let linger = Duration::from_millis(if batching { 200 } else { 0 });
    let builder = client.producer(topic).batching(batching).batching_max_publish_delay(linger);
    let producer = created(builder).await;
    send_all(&producer, (0..count).map(|number| number.to_string())).await;
}

/// A loop that handles one message after another is stopped between two, wherever it is.
pub async fn a_loop_ends_between_two_messages(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drain-loop");
    send_numbers(&client, &topic, 200, false).await;
    let mut consumer = subscribed(builder(&client, &topic).receiver_queue_size(20)).await;
    let acker = consumer.acker();
    let (handled, mut seen) = mpsc::unbounded_channel();
    let working = tokio::spawn(async move {
        let mut done = BTreeSet::new();
        loop {
            match consumer.receive().await {
                Ok(message) => {
                    handled.send(()).expect("the test reads it");
                    // The message is in hand meanwhile.
                    tokio::task::yield_now().await;
                    consumer.ack(&message).expect("acknowledged, also while it is drained");
                    done.insert(number(&message));
                }
                Err(error) => return (done, error),
            }
        }
    });
    for _ in 0..30 {
        within("a message", seen.recv()).await.expect("the loop runs");
    }
    assert_complete(&drain(&acker).await);
    let (done, error) = within("the loop", working).await.expect("no panic");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::Closed, Some(topic.as_str())));
    assert_rest(target, &client, &topic, 200, &done).await;
}

/// What was begun is waited for and acknowledged, and nothing more begins.
pub async fn pools_finish_what_they_have(target: &Target) {
    let client = target.client().await;
    for by_key in [false, true] {
        let topic = target.topic("drain-pool");
        send_numbers(&client, &topic, 50, false).await;
        let consumer = subscribed(builder(&client, &topic)).await;
        let acker = consumer.acker();
        let (pool, mut begun, gate) = start_pool(consumer, by_key);
        let mut done: BTreeSet<_> = receive_numbers(&mut begun, 4).await;
        let mut draining = std::pin::pin!(acker.drain(AMPLE));
        assert!(is_pending(&mut draining).await, "four are at work");
        gate.add_permits(1000);
        assert_complete(&within("the drain", draining).await);
        let error = within("the pool", pool).await.expect("no panic");
        assert_eq!(error.kind(), ErrorKind::Closed);
        while let Some(number) = begun.recv().await {
            done.insert(number);
        }
        assert_rest(target, &client, &topic, 50, &done).await;
    }
}

/// A pool that receives nothing, because what waits for a retry is as much as it may be, is stopped as well.
pub async fn a_full_pool_is_drained(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drain-full");
    send_numbers(&client, &topic, 3, false).await;
    let mut consumer = subscribed(builder(&client, &topic)).await;
    let acker = consumer.acker();
    let (begins, mut begun) = mpsc::unbounded_channel();
    let pool = tokio::spawn(async move {
        let options = WorkOptions::new(1).with_parked_max(1, 1);
        let fail = move |message: ReceivedMessage| {
            begins.send(number(&message)).expect("the test reads it");
            async { Outcome::Retry(Duration::from_secs(3600)) }
        };
        consumer.process_by_key(options, fail).await
    });
    within("work", begun.recv()).await.expect("the pool runs");
    assert_complete(&drain(&acker).await);
    assert_eq!(within("the pool", pool).await.expect("no panic").expect_err("drained").kind(), ErrorKind::Closed);
    assert_rest(target, &client, &topic, 3, &BTreeSet::new()).await;
}

/// A pool of four whose work says when it begins and ends once it gets a permit; its end, and those two.
fn start_pool(
    mut consumer: Consumer,
    by_key: bool,
) -> (tokio::task::JoinHandle<pulsar_native::Error>, mpsc::UnboundedReceiver<usize>, Arc<Semaphore>) {
    let (begins, begun) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let work = move |message: ReceivedMessage| {
        let (begins, permits) = (begins.clone(), permits.clone());
        async move {
            begins.send(number(&message)).expect("the test reads it");
            permits.acquire().await.expect("open").forget();
        }
    };
    let pool = tokio::spawn(async move {
        let ended = if by_key { consumer.process_by_key(4, work).await } else { consumer.process(4, work).await };
        ended.expect_err("a pool ends with its consumer")
    });
    (pool, begun, gate)
}

async fn receive_numbers(begun: &mut mpsc::UnboundedReceiver<usize>, count: usize) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    while numbers.len() < count {
        numbers.insert(within("work", begun.recv()).await.expect("the pool runs"));
    }
    numbers
}

/// Polls it once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// Work that does not end does not keep the drain: what was done is confirmed, and the rest is said, and comes again.
pub async fn the_limit_holds(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drain-limit");
    send_numbers(&client, &topic, 20, false).await;
    let consumer = subscribed(builder(&client, &topic)).await;
    let acker = consumer.acker();
    let (pool, mut begun, gate) = start_pool(consumer, false);
    let first = receive_numbers(&mut begun, 4).await;
    gate.add_permits(3);
    // One of the four, and three others.
    let second = receive_numbers(&mut begun, 3).await;
    // Three quarters of it are for the work, and the rest is more than the close takes: it says that none is open.
    let report = within("the drain", acker.drain(Duration::from_secs(2))).await;
    assert!(!report.is_complete());
    assert_eq!((report.in_hand, report.unconfirmed_acks, report.open), (4, 0, 0), "{report}");
    assert_eq!(report.to_string(), "left by the drain: 4 messages in hand");
    pool.abort();

    let mut consumer = subscribed(builder(&client, &topic)).await;
    let rest = receive_all(&mut consumer, 17).await;
    let again: BTreeSet<_> = rest.iter().map(number).collect();
    let done: BTreeSet<_> = (0..20).filter(|number| !again.contains(number)).collect();
    assert!(done.is_subset(&first.union(&second).copied().collect()), "{done:?} are not of {first:?} and {second:?}");
}

/// A batch that was begun is finished: where brokers take acknowledgements of whole batches only, all would come again.
pub async fn a_batch_that_was_begun_is_finished(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drain-batch");
    send_numbers(&client, &topic, 10, true).await;
    send_numbers(&client, &topic, 10, true).await;
    let mut consumer = subscribed(builder(&client, &topic)).await;
    let acker = consumer.acker();
    for _ in 0..3 {
        let message = receive(&mut consumer).await;
        consumer.ack(&message).expect("acknowledged");
    }
    let mut draining = std::pin::pin!(acker.drain(AMPLE));
    assert!(is_pending(&mut draining).await, "the loop may have the third");
    for expected in 3..10 {
        let message = receive(&mut consumer).await;
        assert_eq!(number(&message), expected);
        consumer.ack(&message).expect("acknowledged");
    }
    assert_eq!(within("the end", consumer.receive()).await.expect_err("drained").kind(), ErrorKind::Closed);
    assert_complete(&within("the drain", draining).await);
    let mut consumer = subscribed(builder(&client, &topic)).await;
    let rest = receive_all(&mut consumer, 10).await;
    assert_eq!(rest.iter().map(number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(consumer.try_receive().expect("open").is_none());
}

/// A whole client: work on messages sends others, which are stored before the client closes.
pub async fn a_client_relays_until_it_is_drained(target: &Target) {
    const SENT: usize = 300;
    let (client, other) = (target.client().await, target.client().await);
    let (from, to) = (target.topic("drain-from"), target.topic("drain-to"));
    send_numbers(&other, &from, SENT, false).await;
    let mut consumer = subscribed(builder(&client, &from)).await;
    let producer = created(client.producer(&to)).await;
    let (relays, mut relayed) = mpsc::unbounded_channel();
    let pool = tokio::spawn(async move {
        let relay = |message: ReceivedMessage| {
            let (producer, relays) = (producer.clone(), relays.clone());
            async move {
                let accepted = producer.enqueue(message.payload().to_vec()).await;
                relays.send(()).expect("the test reads it");
                accepted.map(drop)
            }
        };
        consumer.process(8, relay).await
    });
    for _ in 0..50 {
        within("a relayed message", relayed.recv()).await.expect("the pool runs");
    }
    assert_complete(&within("the drain", client.drain(AMPLE)).await);
    assert_eq!(within("the pool", pool).await.expect("no panic").expect_err("drained").kind(), ErrorKind::Closed);

    let mut moved = subscribed(builder(&other, &to)).await;
    let mut done = BTreeSet::new();
    let view = target.stats(&to).await;
    while done.len() < view.messages_in as usize {
        assert!(done.insert(number(&receive(&mut moved).await)), "relayed once");
    }
    assert_rest(target, &other, &from, SENT, &done).await;
}

/// Fifty times under load, at moments of chance: each is complete, and of what was done before it nothing comes again.
pub async fn fifty_times_under_load(target: &Target) {
    let other = target.client().await;
    let topic = target.topic("drain-often");
    let producer = created(other.producer(&topic)).await;
    let (more, asked) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send_when_asked(producer, asked));
    // The moments come from the runs of the tasks; how many messages each client handles first, from here.
    let mut random = Random::new(7);
    let mut done = BTreeSet::new();
    for round in 0..50 {
        more.send(()).expect("the sender runs");
        let client = target.client().await;
        let mut consumer = subscribed(builder(&client, &topic)).await;
        let (works, mut worked) = mpsc::unbounded_channel();
        let work = move |message: ReceivedMessage| {
            let works = works.clone();
            async move {
                tokio::task::yield_now().await;
                works.send(number(&message)).expect("the test reads it");
            }
        };
        let pool = tokio::spawn(async move { consumer.process(8, work).await });
        let mut now: BTreeSet<_> = receive_numbers(&mut worked, 1 + random.below(80) as usize).await;
        let report = within("the drain", client.drain(AMPLE)).await;
        assert!(report.is_complete(), "nothing fails in round {round}: {report}");
        within("the pool", pool).await.expect("no panic").expect_err("drained");
        while let Some(number) = worked.recv().await {
            now.insert(number);
        }
        let again: Vec<_> = now.intersection(&done).collect();
        assert!(again.is_empty(), "round {round}: {again:?} were done");
        done.extend(now);
    }
    drop(more);
    let sent = within("the sends", sending).await.expect("no panic");
    let mut consumer = subscribed(builder(&other, &topic)).await;
    while done.len() < sent {
        let message = receive(&mut consumer).await;
        assert!(done.insert(number(&message)), "{} was done", number(&message));
        consumer.ack(&message).expect("acknowledged");
    }
    drained(target, &topic, "s").await;
}

/// Sends a hundred numbers each time that it is asked to, a few at a time; how many in all.
async fn send_when_asked(producer: Producer, mut asked: mpsc::UnboundedReceiver<()>) -> usize {
    let mut sent = 0;
    while let Some(()) = asked.recv().await {
        for _ in 0..10 {
            send_all(&producer, (sent..sent + 10).map(|number| number.to_string())).await;
            sent += 10;
        }
    }
    sent
}

/// A drain without anything to do takes no time, and a second one finds nothing.
pub async fn idle_handles_are_drained_at_once(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("drain-idle");
    let producer = created(client.producer(&topic)).await;
    let consumer = subscribed(builder(&client, &topic)).await;
    // Far beyond what a wait may take.
    let limit = Duration::from_secs(1000);
    assert_complete(&within("the consumer", consumer.drain(limit)).await);
    assert_complete(&within("the producer", producer.drain(limit)).await);
    assert_eq!(producer.send("late").await.expect_err("drained").error().kind(), ErrorKind::Closed);
    let view = target.stats(&topic).await;
    assert_eq!((view.publishers.len(), view.subscriptions["s"].consumers.len()), (0, 0));
    let _idle = subscribed(builder(&client, &topic)).await;
    assert_complete(&within("the client", client.drain(limit)).await);
    let again = within("the client again", client.drain(limit)).await;
    assert_eq!(again.error.map(|error| error.kind()), Some(ErrorKind::Closed));
}

/// A reader that is within a batch gets the rest of it, and its checkpoint is where it was.
pub async fn a_reader_ends_behind_its_batch(target: &Target) {
    let topic = target.topic("drain-reader");
    let client = target.client().await;
    let producer = created(client.producer(&topic).batching_max_messages(4)).await;
    send_all(&producer, (0..8).map(|number| number.to_string())).await;
    let mut reader = within("a reader", client.reader(&topic, SeekTo::Earliest).create()).await.expect("a reader");
    for expected in 0..2 {
        let message = within("a message", reader.read_next()).await.expect("a message");
        assert_eq!(number(&message), expected);
    }
    let mut draining = std::pin::pin!(client.drain(AMPLE));
    let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(draining.as_mut().poll(cx))).await;
    assert!(begun.is_pending(), "the reader has a message in hand");
    let mut read = vec![0, 1];
    while let Ok(message) = within("a message, or the end", reader.read_next()).await {
        read.push(number(&message));
    }
    assert_complete(&within("the drain", draining).await);
    let other = target.client().await;
    let mut resumed =
        within("a reader", other.reader(&topic, reader.checkpoint()).create()).await.expect("another reader");
    while within("an answer", resumed.has_next()).await.expect("an answer") {
        read.push(number(&within("a message", resumed.read_next()).await.expect("a message")));
    }
    assert_eq!(read, Vec::from_iter(0..8), "each once");
}
