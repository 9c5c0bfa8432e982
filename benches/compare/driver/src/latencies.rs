//! End to end through a real Pulsar: from the moment a message was due at its producer to its arrival at a consumer in
//! the same process, at fixed rates. `scripts/real-pulsar` starts the broker and stops it.

use std::process::Command;

use crate::child::{self, Figures};
use crate::results::Results;
use crate::{CLIENTS, setting, takes_part};

/// Messages per second.
pub(crate) const RATES: [u64; 2] = [1_000, 50_000];

/// From this rate on the peers batch: without, none of them keeps up. Below it, batching only delays them.
const BATCHING_RATE_MIN: u64 = 10_000;

/// How long an incomplete batch waits with each peer, milliseconds: what gave it the lowest latencies at the high rate.
/// pulsar-rs awaits each batch's receipt before it sends the next, so small batches fall behind.
fn batch_delay_ms(subject: &str) -> u64 {
    if subject == "pulsar-rs" { 10 } else { 2 }
}

/// How long each rate lasts, with the two seconds that do not count.
const SECONDS: f64 = 6.0;

/// How the broker's process hands a result over.
const MARK: &str = "latency-of";

/// Whether there was a broker to measure with.
pub(crate) fn section(results: &mut Results) -> bool {
    println!("latency, end to end");
    let this = std::env::current_exe().expect("the path of this program");
    let output = Command::new(crate::repo().join("scripts/real-pulsar")).arg("run").arg(this).arg("latencies").output();
    let output = output.expect("scripts/real-pulsar starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Vec<&str>> =
        text.lines().filter(|line| line.starts_with(MARK)).map(|line| line.split('\t').collect()).collect();
    if !output.status.success() || lines.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().filter(|line| line.starts_with("real-pulsar:")).for_each(|line| eprintln!("    {line}"));
        eprintln!("    no latencies without a real Pulsar: the report keeps earlier ones");
        return false;
    }
    results.begin("latency");
    for fields in lines {
        if let [_, rate, subject, figures] = fields[..] {
            let figures = child::parse(figures);
            let ms = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN) / 1e6;
            println!(
                "    {rate:>6} msg/s {subject:<21} p50 {:>8.2} ms  p99 {:>8.2} ms  p99.9 {:>8.2} ms  max {:>8.2} ms",
                ms("p50_ns"),
                ms("p99_ns"),
                ms("p999_ns"),
                ms("max_ns"),
            );
            results.put_all("latency", rate, subject, &figures);
        }
    }
    results.save();
    true
}

/// The part that runs beside the broker. All take turns; of the rounds the one with the lowest p99 counts.
pub(crate) fn beside_broker() {
    let url = std::env::var("PULSAR_URL").expect("PULSAR_URL: scripts/real-pulsar sets it");
    let subjects: Vec<&str> =
        CLIENTS.into_iter().filter(|subject| *subject != "pulsar-native-current" && takes_part(subject)).collect();
    let mut topics = 0;
    let mut run = |subject: &str, rate: u64, seconds: f64| {
        topics += 1;
        let messages = (rate as f64 * seconds) as u64;
        let topic = format!("persistent://public/default/latency-{topics}");
        let batch = if rate < BATCHING_RATE_MIN { 1 } else { 1000 };
        let words = format!(
            "latency {url} topic={topic} messages={messages} size=100 rate={rate} queue=5000 batch={batch} delay_ms={}",
            batch_delay_ms(subject),
        );
        child::run(subject, &words.split(' ').map(str::to_owned).collect::<Vec<_>>(), || true)
    };
    // A broker that has just started is slow to everyone: what it is warmed up with does not count.
    for subject in &subjects {
        run(subject, RATES[1], 3.0);
    }
    for rate in RATES {
        let mut best: Vec<Option<Figures>> = vec![None; subjects.len()];
        for _ in 0..setting("LATENCY_ROUNDS", 2.0) as u32 {
            for (subject, best) in subjects.iter().zip(&mut best) {
                let Some(figures) = run(subject, rate, SECONDS * setting("SCALE", 1.0).max(0.5)) else { continue };
                if best.as_ref().is_none_or(|best| figures["p99_ns"] < best["p99_ns"]) {
                    *best = Some(figures);
                }
            }
        }
        for (subject, figures) in subjects.iter().zip(best) {
            let words: Vec<String> =
                figures.unwrap_or_default().iter().map(|(name, value)| format!("{name}={value}")).collect();
            println!("{MARK}\t{rate}\t{subject}\t{}", words.join(" "));
        }
    }
}
