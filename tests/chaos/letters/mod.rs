//! Messages that are given up while their brokers are killed.
//!
//! Two topics, one whose messages travel alone and one of batches, each with a producer, a Shared subscription of two members
//! with a dead-letter policy, and a reader of its dead-letter topic. One message in eight can never be handled. A round: the four
//! topics are given to brokers of random choice, and once further letters have arrived, a broker is killed (`kill -9`) and started
//! again; the other one in the next round.
//!
//! Each confirmed message must be handled, or stand in the dead-letter topic, at least once; the backlogs must go to 0. What is
//! there more than once is counted by its reason, which its ids show. A kill waits for letters, so it hits those: a broker stores
//! about once a second what was acknowledged, and that of the last second is lost with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pulsar_native::{Client, Consumer, DeadLetterPolicy, InitialPosition, Message, Producer, SubscriptionType, Token};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout_at};

use crate::cluster::Cluster;
use crate::report::{brief, say};
use crate::rng::Rng;
use log::{LetterLog, Verdict};

mod log;

/// The names of the topics, and whether their producers batch.
const TOPICS: [(&str, bool); 2] =
    [("persistent://public/many/letters-alone", false), ("persistent://public/many/letters-batched", true)];
const SUBSCRIPTION: &str = "work";
const READERS: &str = "readers";
const REDELIVERIES: u32 = 2;
const TICK: Duration = Duration::from_millis(20);
const MESSAGES_PER_TICK: u64 = 4;
const NACK_DELAY: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How many letters are awaited before a kill, and how long at the most.
const LETTERS_BEFORE_KILL: (u64, u64) = (10, 40);
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// A broker stays dead until so many more letters have arrived, or for this time.
const LETTERS_WHILE_DEAD: (u64, u64) = (0, 20);
const DEAD_MAX: Duration = Duration::from_secs(2);
const SETTLE_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

type Shared = Arc<Mutex<LetterLog>>;

struct Run {
    cluster: Cluster,
    logs: [Shared; 2],
    changed: watch::Sender<()>,
    stop_producing: Arc<AtomicBool>,
    problems: Vec<String>,
    producers: JoinSet<Result<(), String>>,
    consumers: JoinSet<Result<(), String>>,
}

pub(crate) async fn run(cluster: Cluster, rounds: u64, seed: u64) -> bool {
    let mut run = Run {
        cluster,
        logs: Default::default(),
        changed: watch::Sender::new(()),
        stop_producing: Arc::default(),
        problems: Vec::new(),
        producers: JoinSet::new(),
        consumers: JoinSet::new(),
    };
    match run.set_up(seed).await {
        Ok(client) => {
            run.kill(rounds, &mut Rng::new(seed)).await;
            run.settle().await;
            run.consumers.shutdown().await;
            let _ = tokio::time::timeout(Duration::from_secs(30), client.close()).await;
        }
        Err(error) => run.problems.push(format!("set up: {error}")),
    }
    run.report(rounds)
}

fn dead_topic(topic: &str) -> String {
    format!("{topic}-{SUBSCRIPTION}-DLQ")
}

impl Run {
    async fn set_up(&mut self, seed: u64) -> Result<Client, String> {
        let builder = Client::builder(&self.cluster.service_url).authentication(Token::new(&self.cluster.admin.token));
        let client = builder.max_backoff_interval(BACKOFF_MAX).seed(seed).connect().await.map_err(text)?;
        for (log, (topic, batching)) in self.logs.iter().zip(TOPICS) {
            self.cluster.admin.make_topic(topic, 0).await?;
            self.cluster.admin.make_topic(&dead_topic(topic), 0).await?;
            let consumer = client.consumer(dead_topic(topic), READERS).initial_position(InitialPosition::Earliest);
            let reader = consumer.subscribe().await.map_err(text)?;
            self.consumers.spawn(read(reader, log.clone(), self.changed.clone()));
            for _ in 0..2 {
                let consumer = client.consumer(topic, SUBSCRIPTION).subscription_type(SubscriptionType::Shared);
                let consumer = consumer.initial_position(InitialPosition::Earliest).receiver_queue_size(100);
                let consumer = consumer.negative_ack_redelivery_delay(NACK_DELAY);
                let consumer = consumer.dead_letter_policy(DeadLetterPolicy::new(REDELIVERIES));
                let consumer = consumer.subscribe().await.map_err(text)?;
                self.consumers.spawn(work(consumer, log.clone(), self.changed.clone()));
            }
            let producer = client.producer(topic).batching(batching).batching_max_messages(20);
            let producer = producer.batching_max_publish_delay(Duration::from_millis(30)).send_timeout(Duration::ZERO);
            let producer = producer.create().await.map_err(text)?;
            self.producers.spawn(produce(producer, log.clone(), self.stop_producing.clone()));
        }
        Ok(client)
    }

    async fn kill(&mut self, rounds: u64, rng: &mut Rng) {
        for round in 0..rounds {
            let killed = (round % 2) as usize;
            for (topic, _) in TOPICS {
                for part in [topic.to_owned(), dead_topic(topic)] {
                    // Refused while brokers change.
                    let _ = self.cluster.admin.transfer(&part, rng.between(0, 1) as usize).await;
                }
            }
            let goal = self.letters() + rng.between(LETTERS_BEFORE_KILL.0, LETTERS_BEFORE_KILL.1);
            self.until(Instant::now() + PAUSE_MAX, |run| run.letters() >= goal).await;
            say(format_args!("kill {} of {rounds}: {} letters", round + 1, self.letters()));
            self.problems.extend(self.cluster.broker(killed, "kill").await.err());
            let goal = self.letters() + rng.between(LETTERS_WHILE_DEAD.0, LETTERS_WHILE_DEAD.1);
            self.until(Instant::now() + DEAD_MAX, |run| run.letters() >= goal).await;
            self.problems.extend(self.cluster.broker(killed, "start").await.err());
        }
    }

    /// What was sent is confirmed, and then handled or given up, and acknowledged.
    async fn settle(&mut self) {
        let until = Instant::now() + SETTLE_MAX;
        self.stop_producing.store(true, Ordering::Relaxed);
        while let Ok(Some(ended)) = timeout_at(until.into(), self.producers.join_next()).await {
            let ended = ended.unwrap_or_else(|error| Err(error.to_string()));
            self.problems.extend(ended.err());
        }
        if !self.producers.is_empty() {
            self.problems.push("a producer does not end".to_owned());
        }
        self.until(until, |run| run.logs.iter().all(|log| log.lock().unwrap().is_complete())).await;
        let left = crate::look_until(until, LOOK_EVERY, || self.backlogs()).await;
        self.problems.extend(left);
        while let Some(ended) = self.consumers.try_join_next() {
            self.problems.push(format!("a consumer has ended: {ended:?}"));
        }
        say("settled");
    }

    async fn backlogs(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (topic, _) in TOPICS {
            for (topic, subscription) in [(topic.to_owned(), SUBSCRIPTION), (dead_topic(topic), READERS)] {
                match self.cluster.admin.subscription(&topic, subscription).await {
                    Ok(stats) if stats["msgBacklog"] == 0 => {}
                    Ok(stats) => left.push(format!("{topic}: {}", brief(&stats))),
                    Err(error) => left.push(format!("{topic}: {error}")),
                }
            }
        }
        left
    }

    fn letters(&self) -> u64 {
        self.logs.iter().map(|log| log.lock().unwrap().letters()).sum()
    }

    /// Waits until it is so, but not beyond `end`.
    async fn until(&self, end: Instant, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async { while !condition(self) && changed.changed().await.is_ok() {} };
        let _ = timeout_at(end.into(), waiting).await;
    }

    fn report(&self, rounds: u64) -> bool {
        let mut missing = 0;
        let mut problems = self.problems.clone();
        for (log, (topic, _)) in self.logs.iter().zip(TOPICS) {
            let log = log.lock().unwrap();
            let verdict = log.verdict(u64::from(REDELIVERIES) + 1);
            print(topic, &verdict);
            missing += verdict.unhandled.len() + verdict.no_letter.len();
            problems.extend(log.violations.iter().take(20).cloned());
        }
        for problem in &problems {
            println!("PROBLEM {problem}");
        }
        println!("kills={rounds} letters={} missing={missing}", self.letters());
        missing == 0 && problems.is_empty() && self.letters() > 0
    }
}

fn print(topic: &str, verdict: &Verdict) {
    println!("{topic}: confirmed={} letters={}", verdict.confirmed, verdict.letters);
    for (count, what) in [
        (verdict.stored_twice, "messages stored twice: the receipt was lost with the broker"),
        (verdict.handled_again, "handled again: the acknowledgement was lost with the broker, or not sent yet"),
        (verdict.tried_again, "tried again beyond 1 + n: the counts were lost with the broker"),
        (verdict.letters_of_doubles, "letters more: of messages stored twice"),
        (verdict.given_up_again, "letters more, of one member: the acknowledgement was lost with the broker"),
        (verdict.given_up_by_other, "letters more, of both members: the same, or the first was still on its way"),
        (verdict.letters_sent_again, "letters more: the receipt of the letter was lost with the broker"),
    ] {
        println!("  {count:>6} {what}");
    }
    for (what, numbers) in [("never handled", &verdict.unhandled), ("without a letter", &verdict.no_letter)] {
        if !numbers.is_empty() {
            println!("  {:>6} {what}, the first: {:?}", numbers.len(), &numbers[..numbers.len().min(20)]);
        }
    }
}

async fn produce(producer: Producer, log: Shared, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..MESSAGES_PER_TICK {
            let number = log.lock().unwrap().next();
            let message = Message::new(number.to_string()).with_key(number.to_string()).with_property("mine", "1");
            let sends = log.clone();
            let done = move |result: Result<_, _>| match result {
                Ok(_) => sends.lock().unwrap().confirm(number),
                Err(error) => sends.lock().unwrap().violations.push(format!("send {number}: {error:?}")),
            };
            producer.enqueue_with(message, done).await.map_err(|error| format!("send {number}: {error}"))?;
        }
    }
    producer.close().await.map_err(text)
}

/// One member of the subscription.
async fn work(mut consumer: Consumer, log: Shared, changed: watch::Sender<()>) -> Result<(), String> {
    loop {
        let message = consumer.receive().await.map_err(text)?;
        let is_poison = log.lock().unwrap().arrive(&message);
        let noted = if is_poison { consumer.nack(&message) } else { consumer.ack(&message) };
        noted.map_err(text)?;
        changed.send_replace(());
    }
}

async fn read(mut reader: Consumer, log: Shared, changed: watch::Sender<()>) -> Result<(), String> {
    loop {
        let letter = reader.receive().await.map_err(text)?;
        log.lock().unwrap().read(&letter);
        reader.ack(&letter).map_err(text)?;
        changed.send_replace(());
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
