//! Producers and consumers on a real cluster of two brokers that die, stop, lose topics and have their connections cut;
//! in the end everything sent is accounted for. `scripts/chaos` starts the cluster and runs this. Without a cluster it is
//! shown as ignored; with `CHAOS_REQUIRED` or `PULSAR_REQUIRED` set that is a failure.
//!
//! Four topics, partitioned and not, deduplicated and not, batched and not, spread over both brokers, with one producer
//! each and up to four subscriptions: Exclusive, Failover, Shared and, where messages travel alone, Key_Shared (a batch
//! goes by the key of its first message). All but the exclusive ones have two members. One half of the members and
//! three of the producers talk to the brokers through a proxy inside the test that cuts or silences each connection
//! at a random byte of a random moment.
//!
//! A round: unload topics; give bundles to a broker of random choice; `kill -9` one broker and start it again; cut
//! everything that goes through the proxy; stop the other broker in order and start it again. The brokers change parts
//! from round to round. All choices follow from the seed.
//!
//! # What is counted
//! Messages are numbered per producer, and a message's bytes follow from its number.
//!
//! - `sent`: messages given to a producer. `confirmed`: those whose send resolved with an id. `failed`: those whose send
//!   resolved with an error.
//! - `missing`: confirmed messages that did not arrive, summed over the subscriptions.
//! - `doubled`: a number that is stored under two message ids, seen by a subscription, where deduplication is on
//!   (elsewhere it is allowed, and shown as `stored twice`: a receipt lost with its broker leaves no other way); and any
//!   message that comes after the broker had all acknowledgements (backlog 0) and its topics were unloaded once more.
//!   A message that comes again under its own id before that is a redelivery, shown as `again`: its acknowledgement may
//!   have been lost, on its way or with the broker, which stores positions with a delay.
//! - `out_of_order`: messages first seen after a higher number. Exclusive and Failover promise that order within a
//!   partition, Key_Shared within a key, Shared nothing. What comes again is left out: it starts from the last
//!   acknowledgement.
//! - `longest_gap_ms`: the longest time that any one subscription spent between two arrivals.
//!
//! Beyond these, the run fails when a send does not resolve, resolves twice, or failed as "not stored" and arrived; when
//! a message is not what was sent; when a backlog does not go to 0; when a producer, consumer or client ends with an
//! error or panics; and when the cluster itself does not do what it is told.
//!
//! The second test, `dead_letters`, is in `letters/`, the third one, `patterns`, in `topics.rs`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pulsar_native::SubscriptionType::{self, Exclusive, Failover, KeyShared, Shared};
use pulsar_native::{Client, Token};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout_at};

#[path = "../common/mod.rs"]
mod common;
#[path = "../deliveries/mod.rs"]
mod deliveries;

mod cluster;
mod cut;
mod faults;
mod letters;
mod load;
mod report;
mod rng;
mod topics;

use cluster::Cluster;
use common::arguments::Arguments;
use cut::Cutter;
use deliveries::{DeliveryLog, SendState};
use load::{Member, Topic};
use rng::Rng;

static TOPICS: [Topic; 4] = [
    Topic {
        name: "persistent://public/many/alone",
        partitions: 0,
        deduplicated: false,
        batching: false,
        subscriptions: &[Exclusive, Failover, Shared, KeyShared],
    },
    Topic {
        name: "persistent://public/many/batched",
        partitions: 4,
        deduplicated: false,
        batching: true,
        subscriptions: &[Exclusive, Failover, Shared],
    },
    Topic {
        name: "persistent://public/dedup/batched",
        partitions: 0,
        deduplicated: true,
        batching: true,
        subscriptions: &[Exclusive, Failover, Shared],
    },
    Topic {
        name: "persistent://public/dedup/alone",
        partitions: 4,
        deduplicated: true,
        batching: false,
        subscriptions: &[Exclusive, Failover, Shared, KeyShared],
    },
];

const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A broker is away half of the time here: whoever waits for longer meets the next fault before the end of the last.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// How long after the last round everything must have been sent, delivered and acknowledged.
const SETTLE_MAX: Duration = Duration::from_secs(150);
/// How long the consumers may take to be back after the last unload, and how long nothing may come then.
const BACK_MAX: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(5);
/// How often the brokers' statistics are looked at while they are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The name of the test that this file describes.
const TEST: &str = "chaos";
/// That of the module `letters`.
const LETTERS: &str = "dead_letters";
/// That of the module `topics`.
const PATTERNS: &str = "patterns";
const MISSING: &str = "needs two real brokers: scripts/chaos";

/// The lines of libtest for runs that are left out; a run prints its own, with the summary as the last.
fn main() -> ExitCode {
    let arguments = Arguments::of_process(1);
    let all = [TEST, LETTERS, PATTERNS];
    let tests: Vec<_> = all.into_iter().filter(|test| arguments.takes(test)).collect();
    if arguments.list {
        tests.iter().for_each(|test| println!("{test}: test"));
        return ExitCode::SUCCESS;
    }
    let (count, left_out) = (tests.len(), all.len() - tests.len());
    let is_required = ["PULSAR_REQUIRED", "CHAOS_REQUIRED"].iter().any(|name| std::env::var_os(name).is_some());
    println!("\nrunning {count} tests");
    if Cluster::from_env().is_none() {
        let (word, failed, ignored) = if is_required { ("FAILED", count, 0) } else { ("ignored", 0, count) };
        tests.iter().for_each(|test| println!("test {test} ... {word}, {MISSING}"));
        let result = if failed > 0 { "FAILED" } else { "ok" };
        println!("\ntest result: {result}. 0 passed; {failed} failed; {ignored} ignored; {left_out} filtered out\n");
        return if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    run_all(&tests)
}

fn run_all(tests: &[&str]) -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        hook(info);
    }));
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("CHAOS_SEED").unwrap_or_else(|| std::process::id().into());
    let mut passed = true;
    for &test in tests {
        let (of, default) = match test {
            TEST => ("CHAOS_ROUNDS", 3),
            LETTERS => ("CHAOS_KILLS", 3),
            _ => ("CHAOS_TOPICS", 60),
        };
        let rounds = number(of).unwrap_or(default);
        println!("{test}: {rounds} rounds, seed {seed}");
        let cluster = Cluster::from_env().expect("there is one");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        report::started();
        passed &= match test {
            LETTERS => runtime.block_on(letters::run(cluster, rounds, seed)),
            PATTERNS => runtime.block_on(topics::run(cluster, usize::try_from(rounds).unwrap_or(usize::MAX))),
            _ => runtime.block_on(run(cluster, rounds, seed)),
        };
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run in progress.
struct Run {
    cluster: Cluster,
    logs: Vec<load::Shared>,
    /// Told of whatever comes into a log.
    changed: watch::Sender<()>,
    cutter: Arc<Cutter>,
    /// What went wrong beside what the logs find.
    problems: Vec<String>,
    /// Producers and consumers have stop signals of their own: the consumers work on until all is settled.
    stop_producing: Arc<AtomicBool>,
    stop_consuming: Arc<AtomicBool>,
    producers: JoinSet<Result<(), String>>,
    consumers: JoinSet<Result<(), String>>,
}

async fn run(cluster: Cluster, rounds: u64, seed: u64) -> bool {
    let cutter = Cutter::new(seed);
    let changed = watch::Sender::new(());
    let log = |topic: &Topic| DeliveryLog::new(topic.deduplicated, topic.subscriptions, changed.clone());
    let mut run = Run {
        cluster,
        logs: TOPICS.iter().map(|topic| Arc::new(Mutex::new(log(topic)))).collect(),
        changed,
        cutter,
        problems: Vec::new(),
        stop_producing: Arc::default(),
        stop_consuming: Arc::default(),
        producers: JoinSet::new(),
        consumers: JoinSet::new(),
    };
    match run.set_up(seed).await {
        Ok(clients) => {
            faults::rounds(&mut run, rounds, &mut Rng::new(seed)).await;
            run.settle().await;
            run.stay_quiet().await;
            run.shut_down(clients).await;
        }
        Err(error) => run.problems.push(format!("set up: {error}")),
    }
    if PANICS.load(Ordering::Relaxed) > 0 {
        run.problems.push(format!("{} panics", PANICS.load(Ordering::Relaxed)));
    }
    report::print(&run)
}

impl Run {
    /// Makes the topics, both clients, and everything that works on them. Returns the clients.
    async fn set_up(&mut self, seed: u64) -> Result<[Client; 2], String> {
        let client = |cut: bool| {
            let builder =
                Client::builder(&self.cluster.service_url).authentication(Token::new(&self.cluster.admin.token));
            let builder = builder.keep_alive_interval(KEEP_ALIVE).max_backoff_interval(BACKOFF_MAX).seed(seed);
            let builder = if cut { builder.dialer(self.cutter.dialer()) } else { builder };
            builder.connect()
        };
        let clients = [client(false), client(true)];
        let [steady, cut] = clients;
        let clients = [steady.await.map_err(text)?, cut.await.map_err(text)?];
        for topic in &TOPICS {
            self.cluster.admin.make_topic(topic.name, topic.partitions).await?;
        }
        let mut rng = Rng::new(seed ^ 1);
        for (index, topic) in TOPICS.iter().enumerate() {
            for (subscription, &kind) in topic.subscriptions.iter().enumerate() {
                for member in 0..load::members(kind) {
                    // The first member of each subscription is the one that is cut.
                    let client = &clients[usize::from(member == 0)];
                    let consumer = load::consumer(client, topic, kind, member).await.map_err(text)?;
                    let rng = Rng::new(rng.next());
                    let (log, stop) = (self.logs[index].clone(), self.stop_consuming.clone());
                    self.consumers.spawn(Member { log, subscription, kind, rng, stop }.consume(consumer));
                }
            }
        }
        for (index, topic) in TOPICS.iter().enumerate() {
            let producer = load::producer(&clients[usize::from(index > 0)], topic).await.map_err(text)?;
            let (log, stop) = (self.logs[index].clone(), self.stop_producing.clone());
            self.producers.spawn(load::produce(producer, log, stop));
        }
        Ok(clients)
    }

    /// The rounds are over: what was sent is confirmed, arrives everywhere and is acknowledged.
    async fn settle(&mut self) {
        report::say("the rounds are over, connections are still cut");
        let until = Instant::now() + SETTLE_MAX;
        self.stop_producing.store(true, Ordering::Relaxed);
        while let Ok(Some(ended)) = timeout_at(until.into(), self.producers.join_next()).await {
            self.note("producer", ended);
        }
        if !self.producers.is_empty() {
            self.problems.push(format!("{} producers do not end", self.producers.len()));
        }
        let open: u64 = self.logs.iter().map(|log| log.lock().unwrap().count(SendState::Open)).sum();
        if open > 0 {
            self.problems.push(format!("{open} sends are not resolved"));
        }
        self.until(until, |run| run.outstanding() == 0).await;
        let left = look_until(until, LOOK_EVERY, || self.backlogs()).await;
        self.problems.extend(left);
        report::say("settled");
        // The backlog is what counts. This figure is the broker's own book of what consumers hold, and says which
        // consumer to look at when it does not come down with the backlog.
        for held in self.where_stats(|stats, _| stats["unackedMessages"] == 0).await {
            report::say(format_args!("NOTE no backlog, but not all is given back: {held}"));
        }
    }

    /// Everyone has to attach once more, and nothing may come: what was acknowledged stays away.
    async fn stay_quiet(&mut self) {
        self.cutter.arm(false);
        for log in &self.logs {
            log.lock().unwrap().settle();
        }
        for part in TOPICS.iter().flat_map(Topic::parts) {
            let unloaded = self.cluster.admin.unload(&part).await;
            self.problems.extend(unloaded.err());
        }
        let away = look_until(Instant::now() + BACK_MAX, LOOK_EVERY, || self.away()).await;
        self.problems.extend(away);
        // Whatever comes is counted where it arrives; nothing more has to be waited for then.
        self.until(Instant::now() + QUIET, |run| run.came_back() > 0).await;
        let left = self.backlogs().await;
        self.problems.extend(left);
    }

    async fn shut_down(&mut self, clients: [Client; 2]) {
        self.stop_consuming.store(true, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(60);
        while let Ok(Some(ended)) = timeout_at(until.into(), self.consumers.join_next()).await {
            self.note("consumer", ended);
        }
        if !self.consumers.is_empty() {
            self.problems.push(format!("{} consumers do not end", self.consumers.len()));
        }
        for client in clients {
            match tokio::time::timeout(Duration::from_secs(60), client.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.problems.push(format!("client close: {error}")),
                Err(_) => self.problems.push("client close does not end".to_owned()),
            }
        }
    }

    fn note(&mut self, who: &str, ended: Result<Result<(), String>, tokio::task::JoinError>) {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.problems.push(format!("{who}: {error}")),
            Err(error) => self.problems.push(format!("{who}: {error}")),
        }
    }

    /// Waits until the logs say so, but not beyond `end`.
    async fn until(&self, end: Instant, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async { while !condition(self) && changed.changed().await.is_ok() {} };
        let _ = timeout_at(end.into(), waiting).await;
    }

    /// Messages of which a producer knows that they are stored.
    fn confirmed(&self) -> u64 {
        self.logs.iter().map(|log| log.lock().unwrap().confirmed()).sum()
    }

    /// Messages that came although everything was acknowledged.
    fn came_back(&self) -> u64 {
        self.logs.iter().map(|log| log.lock().unwrap().came_back()).sum()
    }

    /// Confirmed messages that have not arrived yet, summed over the subscriptions.
    fn outstanding(&self) -> u64 {
        self.logs.iter().map(|log| log.lock().unwrap().outstanding()).sum()
    }

    /// Topic, subscription within the topic, kind.
    fn each_subscription(&self) -> impl Iterator<Item = (usize, usize, SubscriptionType)> + use<> {
        let of_topic = |(index, topic): (usize, &'static Topic)| {
            topic.subscriptions.iter().enumerate().map(move |(place, &kind)| (index, place, kind))
        };
        TOPICS.iter().enumerate().flat_map(of_topic)
    }

    /// The subscriptions of which the broker has not all acknowledgements, with what it says of them.
    async fn backlogs(&self) -> Vec<String> {
        self.where_stats(|stats, _| stats["msgBacklog"] == 0).await
    }

    /// The subscriptions that miss one of their consumers.
    async fn away(&self) -> Vec<String> {
        let attached = |stats: &serde_json::Value| stats["consumers"].as_array().map_or(0, Vec::len);
        self.where_stats(|stats, kind| attached(stats) == load::members(kind)).await
    }

    /// The subscriptions of which the broker's statistics are not `good`.
    async fn where_stats(&self, good: impl Fn(&serde_json::Value, SubscriptionType) -> bool) -> Vec<String> {
        let mut bad = Vec::new();
        for (index, _, kind) in self.each_subscription() {
            let name = load::subscription_name(kind);
            for part in TOPICS[index].parts() {
                match self.cluster.admin.subscription(&part, name).await {
                    Ok(stats) if good(&stats, kind) => {}
                    Ok(stats) => bad.push(format!("{part} {name}: {}", report::brief(&stats))),
                    Err(error) => bad.push(format!("{part} {name}: {error}")),
                }
            }
        }
        bad
    }
}

/// Looks until nothing is wrong, but not beyond `end`; what the last look has found. For what only the brokers'
/// statistics show: no change is announced, so they are polled.
async fn look_until(end: Instant, every: Duration, look: impl AsyncFn() -> Vec<String>) -> Vec<String> {
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let wrong = look().await;
        if wrong.is_empty() || Instant::now() >= end {
            return wrong;
        }
    }
}

fn text(error: pulsar_native::Error) -> String {
    error.to_string()
}
