//! Producers and consumers that have nothing to do: section `idle`, with the feature `cli`, whose embedded broker is a process of its
//! own. `BROKER=pulsar://…` takes another one.
//!
//! One client has 10,000 of them. Counted is how long they take to attach, beside the bare requests of one thread; what each
//! takes of the heap and of resident memory; and the CPU time of the process while nothing happens.

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pulsar_native::{Client, Error, SubscriptionType};
use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::task::JoinSet;

use crate::measurement::{cpu_ns, resident_now_kib};
use crate::perf::PERF;
use crate::{Figures, run, scaled, setting};

/// How long nothing happens, seconds.
const IDLE_SECONDS: u64 = 5;

/// How many attach at a time: what that takes of memory is given back to the allocator, not to the system, and is not theirs.
const ATTACHING_MAX: usize = 1000;

/// Names of topics that no other process uses.
fn topic(number: u64) -> String {
    format!("idle-{}-{number}", std::process::id())
}

/// What is held for each of `count`, and what the process does while they are idle.
async fn hold<T, F>(count: u64, create: impl Fn(u64) -> F) -> Result<String, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let heap = || {
        let stats = INSTRUMENTED_SYSTEM.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    // The first one brings its connection with it.
    let first = create(0).await?;
    let (heap_before, resident_before) = (heap(), resident_now_kib());
    let start = Instant::now();
    let mut waiting = (1..=count).map(&create);
    let mut creating: JoinSet<_> = waiting.by_ref().take(ATTACHING_MAX).collect();
    let mut all = Vec::with_capacity(count as usize);
    while let Some(created) = creating.join_next().await {
        all.push(created.expect("no task panics")?);
        if let Some(next) = waiting.next() {
            creating.spawn(next);
        }
    }
    drop(creating);
    let secs = start.elapsed().as_secs_f64();
    let (heap, resident) = (heap() - heap_before, resident_now_kib() - resident_before);
    let cpu_before = cpu_ns();
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS)).await;
    let idle_cpu_ns = cpu_ns() - cpu_before;
    drop((first, all));
    Ok(format!(
        "secs={secs:.6} heap={} resident={} idle_cpu_ns={}",
        heap as u64 / count,
        resident * 1024 / count,
        idle_cpu_ns / IDLE_SECONDS
    ))
}

/// Producers of one client, each of a topic of its own.
pub(crate) async fn producers(url: &str, count: u64) -> Result<String, Error> {
    let client = Client::builder(url).connect().await?;
    let figures = hold(count, |number| {
        let builder = client.producer(topic(number));
        async { builder.create().await }
    });
    let figures = figures.await?;
    client.close().await?;
    Ok(figures)
}

/// Consumers of one client, each of a topic of its own.
pub(crate) async fn consumers(url: &str, count: u64) -> Result<String, Error> {
    let client = Client::builder(url).connect().await?;
    let figures = hold(count, |number| {
        let builder = client.consumer(topic(number), "s").subscription_type(SubscriptionType::Shared);
        async { builder.subscribe().await }
    });
    let figures = figures.await?;
    client.close().await?;
    Ok(figures)
}

/// A broker that stops with this process.
struct Broker(Child);

impl Broker {
    fn start(program: &str) -> (Self, String) {
        let mut command = Command::new(program);
        command.args(["broker", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::null()).spawn().expect("the program starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let url = lines.find_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("pulsar://"))
                .map(|word| word.trim_end_matches('.').to_owned())
        });
        (Self(process), url.expect("it prints its URL"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it is ours");
    }
}

/// Prints what they cost.
pub(crate) fn compare() {
    let given = std::env::var("BROKER").ok();
    let count = scaled(10_000);
    for kind in ["producers", "consumers"] {
        // One for each: it keeps topics, up to a limit.
        let own = match (&given, PERF) {
            (None, None) => return println!("section idle needs the feature cli, or BROKER"),
            (None, Some(program)) => Some(Broker::start(program)),
            (Some(_), _) => None,
        };
        let url = given.as_ref().or(own.as_ref().map(|(_, url)| url)).expect("one of both");
        for subject in ["baseline", "pulsar-native"] {
            let figures = quickest(subject, kind, url, count);
            let of = |name: &str| figures.get(name).copied().unwrap_or_default();
            println!(
                "{count} idle {kind:<10} {subject:<14} attached in {:>6.3} s   {:>6.0} B heap, {:>6.0} B resident each   idle: {:>6.2} ms CPU a second",
                of("secs"),
                of("heap"),
                of("resident"),
                of("idle_cpu_ns") / 1e6,
            );
        }
    }
}

/// Of all rounds the one whose endpoints were attached first.
fn quickest(subject: &str, kind: &str, url: &str, count: u64) -> Figures {
    let rounds = (setting("ROUNDS", 3.0) as u32).max(1);
    let all = (0..rounds).map(|_| run(subject, &format!("idle-{kind}"), url, &[count]));
    all.min_by(|one, other| one["secs"].total_cmp(&other["secs"])).unwrap_or_default()
}
