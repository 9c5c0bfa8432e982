//! This client against a bare sink, and against the floor: what the same bytes cost one thread that does nothing else.
//! `cargo bench --bench end_to_end`, or with words that choose sections: `-- produce consume latency large many`.
//! `perf` compares `pulsar-native perf` with this bench; it needs the feature `cli` and is not among the sections by
//! default. `ROUNDS` (3) and `SCALE` (1.0) change how long it takes.
//!
//! Each figure comes from a process of its own, so that CPU and memory are the client's alone; floor and client take
//! turns, and of the rounds the one with the least CPU counts. Figures move from run to run and machine to machine:
//! only ratios taken in one run count.

mod bare;
mod floor;
mod gauge;
mod latency;
mod ours;
mod perf;
mod sink;
mod text;
mod work;

use std::alloc::System;
use std::collections::HashMap;
use std::process::Command;

use latency::{OpenLoop, PingPong};
use sink::Sink;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use work::{Consume, Produce};

/// Counts, at the price of one atomic addition or two per allocation, for floor and client alike.
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
        words = ["produce", "consume", "latency", "large", "many"].map(String::from).to_vec();
    }
    let sink = Sink::start().expect("a free port on 127.0.0.1");
    for section in &words {
        match section.as_str() {
            "produce" => produce(&sink),
            "consume" => consume(&sink),
            "latency" => latency(&sink),
            "large" => large(&sink),
            "many" => many(&sink),
            "perf" => perf::compare(&sink),
            // For a profiler, which then runs `child` by hand against the URL.
            "serve" => serve(&sink),
            other => println!("no section {other}"),
        }
    }
}

/// One process: `<who> <what> <url> <numbers>`.
fn child(words: &[String]) -> String {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let (who, what, url) = (words[0].as_str(), words[1].as_str(), words[2].as_str());
    let produce = Produce {
        messages: number(3),
        size: number(4) as usize,
        batch: number(5),
        in_flight: number(6),
        producers: number(7) as usize,
    };
    let consume =
        Consume { messages: number(3), size: number(4) as usize, members: number(5), queue: number(6) as u32 };
    let ping_pong = PingPong { messages: number(3), size: number(4) as usize };
    let open_loop = OpenLoop { messages: number(3), size: number(4) as usize, rate: number(5) };
    let floor = match (who, what) {
        ("floor", "produce") => floor::produce(url, &produce),
        ("floor", "consume") => floor::consume(url, &consume),
        ("floor", "ping-pong") => floor::ping_pong(url, &ping_pong),
        _ => {
            let mut builder = match who {
                "ours-multi" | "tokio-multi" => tokio::runtime::Builder::new_multi_thread(),
                _ => tokio::runtime::Builder::new_current_thread(),
            };
            let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
            if who.starts_with("tokio") {
                return runtime.block_on(bare::ping_pong(url, &ping_pong)).expect("the sink stays");
            }
            let ours = runtime.block_on(async {
                match what {
                    "produce" => ours::produce(url, &produce).await,
                    "consume" => ours::consume(url, &consume).await,
                    "ping-pong" => ours::ping_pong(url, &ping_pong).await,
                    _ => ours::open_loop(url, &open_loop).await,
                }
            });
            return ours.expect("the sink refuses nothing");
        }
    };
    floor.expect("the sink stays")
}

/// Runs one process and reads its figures.
fn run(who: &str, what: &str, sink: &Sink, numbers: &[u64]) -> Figures {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(this);
    command.args(["child", who, what, &sink.url]).args(numbers.iter().map(u64::to_string));
    let output = command.output().expect("this program starts again");
    assert!(output.status.success(), "{who} {what} failed: {}", String::from_utf8_lossy(&output.stderr));
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
fn compare(whos: &[&str], what: &str, sink: &Sink, numbers: &[u64]) -> Vec<Figures> {
    let mut best: Vec<Figures> = vec![Figures::new(); whos.len()];
    for _ in 0..setting("ROUNDS", 3.0) as u32 {
        for (who, best) in whos.iter().zip(&mut best) {
            let figures = run(who, what, sink, numbers);
            if best.get("cpu_ns").is_none_or(|cpu| figures["cpu_ns"] < *cpu) {
                *best = figures;
            }
        }
    }
    best
}

fn line(name: &str, who: &str, figures: &Figures, floor: &Figures) {
    let per_message = |figures: &Figures| figures["cpu_ns"] / figures["messages"];
    println!(
        "{name:<34} {who:<10} {:>11.0} msg/s {:>9.3} us CPU/msg {:>7.2} x floor {:>8.4} allocs/msg {:>8} KiB",
        figures["messages"] / figures["secs"],
        per_message(figures) / 1000.0,
        per_message(figures) / per_message(floor),
        figures["allocations"] / figures["messages"],
        figures["rss_kib"],
    );
}

fn print_all(name: &str, whos: &[&str], all: &[Figures]) {
    for (who, figures) in whos.iter().zip(all) {
        line(name, who, figures, &all[0]);
    }
}

const WHOS: [&str; 3] = ["floor", "ours", "ours-multi"];

fn produce(sink: &Sink) {
    for (name, messages, batch) in
        [("produce, batches of 1000", scaled(4_000_000), 1000), ("produce, unbatched", scaled(1_000_000), 1)]
    {
        print_all(name, &WHOS, &compare(&WHOS, "produce", sink, &[messages, 100, batch, 5000, 1]));
    }
}

fn consume(sink: &Sink) {
    for (name, messages, members) in
        [("consume, entries of 100", scaled(4_000_000), 100), ("consume, single entries", scaled(1_500_000), 0)]
    {
        sink.take_acked();
        let all = compare(&WHOS, "consume", sink, &[messages, 100, members, 1000]);
        let expected = WHOS.len() as u64 * setting("ROUNDS", 3.0) as u64 * (messages / members.max(1));
        assert_eq!(sink.take_acked(), expected, "every entry is acknowledged, once");
        print_all(name, &WHOS, &all);
    }
}

fn latency(sink: &Sink) {
    let show = |name: &str, who: &str, figures: &Figures| {
        let us = |name: &str| figures[name] / 1000.0;
        println!(
            "{name:<34} {who:<10} p50 {:>8.1} us  p99 {:>8.1} us  p99.9 {:>8.1} us  max {:>8.1} us",
            us("p50_ns"),
            us("p99_ns"),
            us("p999_ns"),
            us("max_ns"),
        );
    };
    for _ in 0..setting("ROUNDS", 3.0) as u32 {
        for who in ["floor", "tokio", "ours", "tokio-multi", "ours-multi"] {
            show("closed loop, 100 B", who, &run(who, "ping-pong", sink, &[scaled(20_000), 100]));
        }
    }
    for who in &WHOS[1..] {
        show("open loop, 10,000 msg/s", who, &run(who, "open-loop", sink, &[scaled(50_000), 100, 10_000]));
    }
}

/// 64 KiB payloads: bytes per second count.
fn large(sink: &Sink) {
    let size = 64 * 1024;
    let all = compare(&WHOS, "produce", sink, &[scaled(40_000), size, 1, 200, 1]);
    print_all("produce, 64 KiB, unbatched", &WHOS, &all);
    let all = compare(&WHOS, "consume", sink, &[scaled(40_000), size, 0, 200]);
    print_all("consume, 64 KiB, single entries", &WHOS, &all);
}

/// Many producers on one connection, many topics in one client.
fn many(sink: &Sink) {
    let whos = ["ours"];
    // Batches of one size whoever sends them: 100 producers fill two each from 20,000 in flight.
    for (name, batch, in_flight, messages) in
        [("batches of 100", 100, 20_000, scaled(4_000_000)), ("unbatched", 1, 5000, scaled(1_000_000))]
    {
        let counts: &[u64] = if batch == 1 { &[1, 10, 100, 1000] } else { &[1, 10, 100] };
        let all: Vec<_> = counts
            .iter()
            .map(|&count| compare(&whos, "produce", sink, &[messages, 100, batch, in_flight, count]).remove(0))
            .collect();
        for (count, figures) in counts.iter().zip(&all) {
            line(&format!("produce, {name}, {count} producers"), "of 1", figures, &all[0]);
        }
    }
}

/// Serves until it is killed.
fn serve(sink: &Sink) {
    println!("{}", sink.url);
    loop {
        std::thread::park();
    }
}
