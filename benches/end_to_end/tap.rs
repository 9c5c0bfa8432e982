//! What `pulsar-native tap` in the path adds to a message: section `tap`, with the features `cli` and `tap`.
//!
//! Without a tap and with one, in turns and against the same sink. The tap is a process of its own, so client, sink and tap share
//! the cores. It prints to `/dev/null`. Of all rounds each figure is the best.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::perf::{PERF, TICK_NS, ticks_of_children};
use crate::sink::Sink;
use crate::{Figures, run, scaled, setting};

/// How the traffic is shown; the first one is no tap at all.
const MODES: [(&str, Option<&[&str]>); 4] = [
    ("bare", None),
    ("tap, text", Some(&[])),
    ("tap, JSON", Some(&["--json"])),
    ("tap, text, recorded", Some(&["--record"])),
];

/// What is added may be at most that, nanoseconds.
const ADDED_NS_MAX: f64 = 100_000.0;

/// What it has to hold, messages per second.
const RATE_MIN: f64 = 100_000.0;

/// A running tap.
struct Tap {
    process: Child,
    url: String,
    stderr: BufReader<ChildStderr>,
    recording: Option<PathBuf>,
}

impl Tap {
    fn start(program: &str, to: &str, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["tap", "--listen", "127.0.0.1:0", "--to", to]).args(options);
        let recording = options.contains(&"--record").then(|| {
            let path = std::env::temp_dir().join(format!("pulsar-native-bench-{}.pcapng", std::process::id()));
            command.arg(&path);
            path
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("UTF-8");
        let url = line.split_whitespace().find(|word| word.starts_with("pulsar://"));
        let url = url.unwrap_or_else(|| panic!("no URL in {line}")).to_owned();
        Self { process, url, stderr, recording }
    }

    /// Ends it; how many frames it has seen.
    fn stop(mut self) -> f64 {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        let mut told = String::new();
        self.stderr.read_to_string(&mut told).expect("UTF-8");
        assert!(self.process.wait().expect("it is ours").success(), "{told}");
        if let Some(recording) = &self.recording {
            fs::remove_file(recording).expect("it was written");
        }
        let frames = told.lines().find_map(|line| line.split_once(" frames")?.0.parse().ok());
        frames.unwrap_or_else(|| panic!("no count of frames in {told}"))
    }
}

/// A workload in one mode: its figures, with those of the tap.
fn run_in(mode: Option<&[&str]>, program: &str, workload: &str, sink: &Sink, numbers: &[u64]) -> Figures {
    let Some(options) = mode else { return run("pulsar-native", workload, &sink.url, numbers) };
    let tap = Tap::start(program, &sink.url, options);
    let mut figures = run("pulsar-native", workload, &tap.url, numbers);
    let before = ticks_of_children();
    figures.insert("seen".to_owned(), tap.stop());
    figures.insert("tap_cpu_ns".to_owned(), (ticks_of_children() - before) as f64 * TICK_NS);
    figures
}

/// Prints what a tap costs in each mode.
pub(crate) fn compare(sink: &Sink) {
    let Some(program) = PERF.filter(|_| cfg!(feature = "tap")) else {
        println!("section tap needs the features cli and tap");
        return;
    };
    let rounds = setting("ROUNDS", 3.0) as u32;
    latency(program, sink, rounds);
    throughput(program, sink, rounds);
}

fn latency(program: &str, sink: &Sink, rounds: u32) {
    let mut best = [(f64::INFINITY, f64::INFINITY); MODES.len()];
    for _ in 0..rounds {
        for ((_, mode), (p50, p99)) in MODES.iter().zip(&mut best) {
            let figures = run_in(*mode, program, "ping-pong", sink, &[scaled(20_000), 100]);
            (*p50, *p99) = (p50.min(figures["p50_ns"]), p99.min(figures["p99_ns"]));
        }
    }
    for ((name, _), (p50, p99)) in MODES.iter().zip(best) {
        let added = [p50 - best[0].0, p99 - best[0].1];
        println!(
            "closed loop, 100 B       {name:<20} p50 {:>7.1} us  p99 {:>7.1} us   added {:>+7.1} us {:>+7.1} us   {}",
            p50 / 1000.0,
            p99 / 1000.0,
            added[0] / 1000.0,
            added[1] / 1000.0,
            if added.iter().all(|added| *added < ADDED_NS_MAX) { "under 100 us" } else { "100 us or more" },
        );
    }
}

fn throughput(program: &str, sink: &Sink, rounds: u32) {
    let messages = scaled(1_000_000);
    let mut best: [Option<Figures>; MODES.len()] = Default::default();
    for _ in 0..rounds {
        for ((_, mode), best) in MODES.iter().zip(&mut best) {
            let figures = run_in(*mode, program, "produce", sink, &[messages, 100, 1, 5000, 1]);
            if best.as_ref().is_none_or(|best| figures["secs"] < best["secs"]) {
                *best = Some(figures);
            }
        }
    }
    let rate = |figures: &Figures| figures["messages"] / figures["secs"];
    let bare = best[0].as_ref().map_or(0.0, rate);
    for ((name, _), figures) in MODES.iter().zip(&best) {
        let Some(figures) = figures else { continue };
        let of_tap = figures.get("seen").map_or_else(String::new, |seen| {
            let sent = figures["messages"] * (1.0 + 1.0 / crate::work::WARM_UP_DIVISOR as f64);
            format!(
                "   tap: {:>6.3} us CPU/msg, {:>5.1} % of frames seen, {}",
                figures["tap_cpu_ns"] / sent / 1000.0,
                100.0 * seen / (2.0 * sent),
                if rate(figures) >= RATE_MIN { "100,000 msg/s hold" } else { "below 100,000 msg/s" },
            )
        });
        let rate = rate(figures);
        println!("produce, unbatched       {name:<20} {rate:>9.0} msg/s  {:>5.2} x bare{of_tap}", rate / bare);
    }
}
