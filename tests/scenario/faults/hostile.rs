//! A broker with random faults: nothing that was confirmed is lost, and every wait ends in time.

use std::collections::BTreeSet;

use super::support::*;

/// Seeds, each a broker and a client of its own.
const SEEDS: u64 = 6;

const MESSAGES: usize = 60;

const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// Tries until it succeeds; each attempt ends within its time-out.
async fn tried<T>(what: &str, attempt: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..50 {
        let started = Instant::now();
        let done = within(what, attempt()).await;
        assert!(started.elapsed() <= OPERATION_TIMEOUT + SLACK, "{what} took {:?}", started.elapsed());
        match done {
            Ok(done) => return done,
            Err(_) => pass(Duration::from_millis(100)).await,
        }
    }
    panic!("{what} does not succeed");
}

async fn run(seed: u64) {
    let broker = EmbeddedBroker::builder();
    let stage = Stage::with(broker, |client| {
        client.operation_timeout(OPERATION_TIMEOUT).keep_alive_interval(OPERATION_TIMEOUT)
    })
    .await;
    stage.broker.faults().hostile(seed);
    let subscribe = async || {
        let builder = stage.client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest);
        builder.subscription_type(SubscriptionType::Shared).subscribe().await
    };
    let mut consumer = tried("a consumer", subscribe).await;
    let create =
        async || stage.client.producer(TOPIC).batching(seed % 2 == 0).send_timeout(SEND_TIMEOUT).create().await;
    let producer = tried("a producer", create).await;
    let (mut sent, mut received) = (Vec::new(), BTreeSet::new());
    for number in 0..MESSAGES {
        let started = Instant::now();
        sent.push((number.to_string(), started, enqueue(&producer, number.to_string()).await));
        pass(Duration::from_millis(seed * 7 % 50)).await;
        while let Some(message) = consumer.try_receive().expect("it goes on") {
            received.insert(message.to_string_lossy().into_owned());
            consumer.ack(&message).expect("acknowledged");
        }
    }
    let mut confirmed = BTreeSet::new();
    for (text, started, pending) in sent {
        let result = within("the outcome of a send", pending).await;
        let waited = started.elapsed().saturating_sub(SEND_TIMEOUT);
        match result {
            Ok(_) => drop(confirmed.insert(text)),
            // Those before it were waited for meanwhile.
            Err(error) => assert_eq!(error.error().kind(), ErrorKind::TimedOut, "seed {seed}, {waited:?}: {error}"),
        }
    }
    assert!(stage.broker.faults().injected() > 0, "seed {seed} does nothing");
    assert!(!confirmed.is_empty(), "seed {seed}: nothing was stored");
    while !confirmed.is_subset(&received) {
        let message = within("what was confirmed", consumer.receive()).await.expect("it goes on");
        received.insert(message.to_string_lossy().into_owned());
        consumer.ack(&message).expect("acknowledged");
    }
    stage.close_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_is_received_and_every_wait_ends() {
    for seed in 0..SEEDS {
        run(seed).await;
    }
}
