//! This client against a sink, and against the baseline: what the same bytes cost one thread that does nothing else.
//! `cargo bench --bench end_to_end`, or with words that choose sections: `-- produce consume latency large many topics keys`.
//! `perf` compares `pulsar-native perf` with this bench, `tap` shows what `pulsar-native tap` adds, `tls` what TLS adds beside the cipher
//! alone, and `idle` what 10,000 producers and consumers without work take; they need the features `cli`, `tap` and `tls`, and are not
//! among the sections by default. `ROUNDS` (3) and `SCALE` (1.0) change how long it takes.
//!
//! Each figure comes from a process of its own, so that CPU and memory are the client's alone; baseline and client take
//! turns, and of the rounds the one with the least CPU counts. Figures move from run to run and machine to machine:
//! only ratios taken in one run count.

mod baseline;
mod client;
mod idle;
mod latency;
mod measurement;
mod perf;
mod sink;
mod tap;
mod text;
mod tls;
mod tokio_baseline;
mod work;

use std::alloc::System;
use std::collections::HashMap;
use std::process::Command;

use latency::{OpenLoop, PingPong};
use sink::Sink;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use work::{Consume, Produce};

/// Counts, at the price of one atomic addition or two per allocation, for baseline and client alike.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Figures = HashMap<String, f64>;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if words.first().is_some_and(|word| word == "child") {
        println!("{}", child(&words[1..]));
        return;
    }
    if words.is_empty() {
        words = ["produce", "consume", "latency", "large", "many", "topics", "keys"].map(String::from).to_vec();
    }
    let sink = Sink::start().expect("a free port on 127.0.0.1");
    for section in &words {
        match section.as_str() {
            "produce" => produce(&sink),
            "consume" => consume(&sink),
            "latency" => latency(&sink),
            "large" => large(&sink),
            "many" => many(&sink),
            "topics" => topics(&sink),
            "keys" => keys(&sink),
            "perf" => perf::compare(&sink),
            "tap" => tap::compare(&sink),
            "tls" => tls::compare(&sink),
            "idle" => idle::compare(),
            // For a profiler, which then runs `child` by hand against the URL.
            "serve" => serve(&sink),
            other => println!("no section {other}"),
        }
    }
}

/// One process: `<subject> <workload> <url> <numbers>`. `attach` and `reconnect` are for `scripts/instructions`.
fn child(words: &[String]) -> String {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let (subject, workload, url) = (words[0].as_str(), words[1].as_str(), words[2].as_str());
    let produce = Produce {
        messages: number(3),
        size: number(4) as usize,
        batch: number(5),
        in_flight: number(6),
        producers: number(7) as usize,
        keys: number(8),
        fill_ms: words.get(9).map_or(FILL_MS, |_| number(9)),
        by_key: subject == BY_KEY,
    };
    let consume = Consume {
        messages: number(3),
        size: number(4) as usize,
        members: number(5),
        queue: number(6) as u32,
        topics: number(7).max(1),
    };
    let memory_limit = if subject == LIMITED { RECEIVE_MEMORY_LIMIT } else { 0 };
    let ping_pong = PingPong { messages: number(3), size: number(4) as usize };
    let open_loop = OpenLoop { messages: number(3), size: number(4) as usize, rate: number(5) };
    let baseline = match (subject, workload) {
        ("baseline", "produce") => baseline::produce(url, &produce),
        ("baseline", "consume") => baseline::consume(url, &consume),
        (LOCKED, _) => Ok(baseline::locked(number(3), workload == "consume")),
        ("baseline", "idle-producers") => baseline::attach(url, number(3), baseline::producer_of),
        ("baseline", "idle-consumers") => baseline::attach(url, number(3), baseline::consumer_of),
        ("baseline", "ping-pong") => baseline::ping_pong(url, &ping_pong),
        ("cipher", _) => Ok(tls::cipher(number(3), number(4))),
        _ => {
            let mut builder = match subject {
                "pulsar-native-multi" | IN_TASK | "tokio-baseline-multi" => tokio::runtime::Builder::new_multi_thread(),
                _ => tokio::runtime::Builder::new_current_thread(),
            };
            let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
            if subject.starts_with("tokio-baseline") {
                return runtime.block_on(tokio_baseline::ping_pong(url, &ping_pong)).expect("the sink stays");
            }
            let (workload, url, count) = (workload.to_owned(), url.to_owned(), number(3));
            let ours = async move {
                match workload.as_str() {
                    "produce" => client::produce(&url, &produce).await,
                    "consume" => client::consume(&url, &consume, memory_limit).await,
                    "ping-pong" => client::ping_pong(&url, &ping_pong).await,
                    "attach" => client::attach(&url, count).await,
                    "idle-producers" => idle::producers(&url, count).await,
                    "idle-consumers" => idle::consumers(&url, count).await,
                    "reconnect" => client::reconnect(&url, count).await,
                    _ => client::open_loop(&url, &open_loop).await,
                }
            };
            let done = match subject {
                IN_TASK => runtime.block_on(runtime.spawn(ours)).expect("no panic"),
                _ => runtime.block_on(ours),
            };
            return done.expect("the sink refuses nothing");
        }
    };
    baseline.expect("the sink stays")
}

/// Runs one process and reads its figures.
fn run(subject: &str, workload: &str, url: &str, numbers: &[u64]) -> Figures {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(this);
    command.args(["child", subject, workload, url]).args(numbers.iter().map(u64::to_string));
    let output = command.output().expect("this program starts again");
    assert!(output.status.success(), "{subject} {workload} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |word: &str| word.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    text.split_whitespace().filter_map(pair).collect()
}

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn scaled(messages: u64) -> u64 {
    ((messages as f64 * setting("SCALE", 1.0)) as u64 / 1000).max(10) * 1000
}

/// Takes turns; of each, the round with the least CPU.
fn compare(subjects: &[&str], workload: &str, sink: &Sink, numbers: &[u64]) -> Vec<Figures> {
    let mut best: Vec<Figures> = vec![Figures::new(); subjects.len()];
    for _ in 0..setting("ROUNDS", 3.0) as u32 {
        for (subject, best) in subjects.iter().zip(&mut best) {
            let figures = run(subject, workload, &sink.url, numbers);
            if best.get("cpu_ns").is_none_or(|cpu| figures["cpu_ns"] < *cpu) {
                *best = figures;
            }
        }
    }
    best
}

fn line(name: &str, subject: &str, figures: &Figures, baseline: &Figures) {
    let per_message = |figures: &Figures| figures["cpu_ns"] / figures["messages"];
    println!(
        "{name:<34} {subject:<20} {:>11.0} msg/s {:>9.3} us CPU/msg {:>7.2} x baseline {:>8.4} allocs/msg {:>8} KiB",
        figures["messages"] / figures["secs"],
        per_message(figures) / 1000.0,
        per_message(figures) / per_message(baseline),
        figures["allocations"] / figures["messages"],
        figures["rss_kib"],
    );
}

fn print_all(name: &str, subjects: &[&str], all: &[Figures]) {
    for (subject, figures) in subjects.iter().zip(all) {
        line(name, subject, figures, &all[0]);
    }
}

const SUBJECTS: [&str; 4] = ["baseline", "pulsar-native", IN_TASK, "pulsar-native-multi"];

/// Two workers, with the application in a task, as the handlers of a server are. `pulsar-native-multi` has it in `block_on`, as the
/// body of `#[tokio::main]` is: on a thread beside the workers, so that three threads share what two do here.
const IN_TASK: &str = "pulsar-native-task";

/// One thread, with a limit for what waits in consumers, bytes, that holds many times the queue: what counting costs.
const LIMITED: &str = "pulsar-native-limit";
const RECEIVE_MEMORY_LIMIT: usize = 64 * 1024 * 1024;

/// What the locked instructions of a message take: how long one takes differs more between machines than anything else here.
const LOCKED: &str = "locked instructions";

/// Time for a batch to fill, milliseconds: without it one leaves as soon as the connection is free, as small as it is.
const FILL_MS: u64 = 1;

/// One thread, with a batch for each key.
const BY_KEY: &str = "pulsar-native-by-key";

fn produce(sink: &Sink) {
    for (name, messages, batch) in
        [("produce, batches of 1000", scaled(4_000_000), 1000), ("produce, unbatched", scaled(1_000_000), 1)]
    {
        let subjects = ["baseline", LOCKED, "pulsar-native", IN_TASK, "pulsar-native-multi"];
        print_all(name, &subjects, &compare(&subjects, "produce", sink, &[messages, 100, batch, 5000, 1]));
    }
}

fn consume(sink: &Sink) {
    let subjects = ["baseline", LOCKED, "pulsar-native", LIMITED, IN_TASK, "pulsar-native-multi"];
    for (name, messages, members) in
        [("consume, entries of 100", scaled(4_000_000), 100), ("consume, single entries", scaled(1_500_000), 0)]
    {
        sink.take_acked();
        let all = compare(&subjects, "consume", sink, &[messages, 100, members, 1000]);
        let receiving = subjects.len() as u64 - 1;
        let expected = receiving * setting("ROUNDS", 3.0) as u64 * (messages / members.max(1));
        assert_eq!(sink.take_acked(), expected, "every entry is acknowledged, once");
        print_all(name, &subjects, &all);
    }
}

fn latency(sink: &Sink) {
    let show = |name: &str, subject: &str, figures: &Figures| {
        let us = |name: &str| figures[name] / 1000.0;
        println!(
            "{name:<34} {subject:<20} p50 {:>8.1} us  p99 {:>8.1} us  p99.9 {:>8.1} us  max {:>8.1} us",
            us("p50_ns"),
            us("p99_ns"),
            us("p999_ns"),
            us("max_ns"),
        );
    };
    for _ in 0..setting("ROUNDS", 3.0) as u32 {
        let bare = ["baseline", "tokio-baseline", "tokio-baseline-multi"];
        for subject in bare.into_iter().chain(SUBJECTS.into_iter().skip(1)) {
            show("closed loop, 100 B", subject, &run(subject, "ping-pong", &sink.url, &[scaled(20_000), 100]));
        }
    }
    for subject in &SUBJECTS[1..] {
        show("open loop, 10,000 msg/s", subject, &run(subject, "open-loop", &sink.url, &[scaled(50_000), 100, 10_000]));
    }
}

/// 64 KiB payloads: bytes per second count.
fn large(sink: &Sink) {
    let size = 64 * 1024;
    let all = compare(&SUBJECTS, "produce", sink, &[scaled(40_000), size, 1, 200, 1]);
    print_all("produce, 64 KiB, unbatched", &SUBJECTS, &all);
    let all = compare(&SUBJECTS, "consume", sink, &[scaled(40_000), size, 0, 200]);
    print_all("consume, 64 KiB, single entries", &SUBJECTS, &all);
}

/// Many producers on one connection, many topics in one client.
fn many(sink: &Sink) {
    let subjects = ["pulsar-native"];
    // Batches of one size whoever sends them: 100 producers fill two each from 20,000 in flight.
    for (name, batch, in_flight, messages) in
        [("batches of 100", 100, 20_000, scaled(4_000_000)), ("unbatched", 1, 5000, scaled(1_000_000))]
    {
        let counts: &[u64] = if batch == 1 { &[1, 10, 100, 1000] } else { &[1, 10, 100] };
        let all: Vec<_> = counts
            .iter()
            .map(|&count| compare(&subjects, "produce", sink, &[messages, 100, batch, in_flight, count]).remove(0))
            .collect();
        for (count, figures) in counts.iter().zip(&all) {
            line(&format!("produce, {name}, {count} producers"), "of 1", figures, &all[0]);
        }
    }
}

/// Receiving from one topic and from many with a queue of 1,000 messages each: of 1,000 topics each has a share of the total
/// queue, 50,000. The second row is one topic with as many messages on their way as those have together.
fn topics(sink: &Sink) {
    for (name, messages, members) in
        [("consume, entries of 100", scaled(4_000_000), 100), ("consume, single entries", scaled(2_000_000), 0)]
    {
        let of = |(topics, queue)| {
            compare(&["pulsar-native"], "consume", sink, &[messages, 100, members, queue, topics]).remove(0)
        };
        let shapes =
            [(1, 1000), (1, if members > 0 { 100_000 } else { 50_000 }), (10, 1000), (100, 1000), (1000, 1000)];
        let all = shapes.map(of);
        for ((topics, queue), figures) in shapes.iter().zip(&all) {
            line(&format!("{name}, {topics} topics, {queue}"), "of 1", figures, &all[0]);
        }
    }
}

/// Batches of all messages and of those of each key, beside one another: 1,000 keys in turn. In the last row a batch takes no more
/// messages than those of one key bring together, so that both have as many entries.
fn keys(sink: &Sink) {
    let subjects = ["pulsar-native", BY_KEY];
    for (batch, in_flight, fill_ms) in [(1000, 20_000, 10), (1000, 50_000, 50), (50, 60_000, 50)] {
        let numbers = [scaled(2_000_000), 100, batch, in_flight, 1, 1000, fill_ms];
        let name = format!("1,000 keys, {fill_ms} ms, up to {batch}");
        print_all(&name, &subjects, &compare(&subjects, "produce", sink, &numbers));
    }
}

/// Serves until it is killed.
fn serve(sink: &Sink) {
    println!("{}", sink.url);
    loop {
        std::thread::park();
    }
}
