//! End to end through a real Pulsar: from the moment a message was due at its producer to its arrival at a consumer in
//! the same process, at fixed rates.

use crate::child::{self, Figures};
use crate::results::Results;
use crate::{ONCE, setting, takes_part};

/// Messages per second.
pub(crate) const RATES: [u64; 2] = [1_000, 50_000];

/// From this rate on the peers batch: without, none of them keeps up. Below it, batching only delays them.
const BATCHING_RATE_MIN: u64 = 10_000;

/// How long an incomplete batch waits with each peer, milliseconds; README.md beside `run` says why.
/// pulsar-rs awaits each batch's receipt before it sends the next, so small batches fall behind.
fn batch_delay_ms(client: &str) -> u64 {
    if client == "pulsar-rs" { 10 } else { 2 }
}

/// Messages that go through before, as fast as they may: until the JVM has compiled what runs often.
fn warm_up(client: &str) -> u64 {
    if client == "java" { 200_000 } else { 0 }
}

/// How long each rate lasts, with the two seconds that do not count.
const SECONDS: f64 = 6.0;

/// Runs beside the broker. All take turns; of the rounds the one with the lowest p99 counts.
pub(crate) fn section(url: &str, results: &mut Results) {
    results.begin("latency");
    let clients: Vec<&str> = ONCE.into_iter().filter(|client| takes_part(client)).collect();
    let mut topics = 0;
    let mut run = |client: &str, rate: u64, seconds: f64| {
        topics += 1;
        let messages = (rate as f64 * seconds) as u64;
        let batch = if rate < BATCHING_RATE_MIN { 1 } else { 1000 };
        let words = format!(
            "latency {url} topic=persistent://public/default/latency-{topics} subscription=s messages={messages} \
             warm_up={} size=100 rate={rate} queue=5000 batch={batch} delay_ms={}",
            warm_up(client),
            batch_delay_ms(client),
        );
        child::run(client, &words.split(' ').map(str::to_owned).collect::<Vec<_>>(), || true)
    };
    // A broker that has just started is slow to everyone: what it is warmed up with does not count.
    for client in &clients {
        run(client, RATES[1], 3.0);
    }
    for rate in RATES {
        println!("latency: {rate} msg/s");
        let mut best: Vec<Option<Figures>> = vec![None; clients.len()];
        for _ in 0..setting("LATENCY_ROUNDS", 2.0) as u32 {
            for (client, best) in clients.iter().zip(&mut best) {
                let Some(figures) = run(client, rate, SECONDS * setting("SCALE", 1.0).max(0.5)) else { continue };
                if best.as_ref().is_none_or(|best| figures["p99_ns"] < best["p99_ns"]) {
                    *best = Some(figures);
                }
            }
        }
        for (client, figures) in clients.iter().zip(best).filter_map(|(client, best)| Some((client, best?))) {
            let ms = |name: &str| figures[name] / 1e6;
            println!(
                "    {client:<21} p50 {:>8.2} ms  p99 {:>8.2} ms  p99.9 {:>8.2} ms  max {:>8.2} ms",
                ms("p50_ns"),
                ms("p99_ns"),
                ms("p999_ns"),
                ms("max_ns"),
            );
            results.put_all("latency", &rate.to_string(), client, &figures);
        }
    }
    results.save();
}
