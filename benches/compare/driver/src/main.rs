//! Runs every client, one process after the other, and writes what they did: `docs/compare.md`, `docs/compare.svg` and
//! the part of README.md between its markers. `benches/compare/run` builds all and starts this.
//!
//! Words choose sections: `sink` (against the sink, nothing compressed), `codecs` (the same under each codec), `latency` (against a real Pulsar), `build` (cold
//! builds). Without words: `sink` and `latency`, which are one comparison and run together. What an earlier run found stays in
//! the report only where its section was not asked for, with its own date.

#[path = "../../../end_to_end/baseline.rs"]
#[allow(dead_code)]
mod baseline;
mod build;
mod child;
mod latencies;
#[path = "../../../end_to_end/latency.rs"]
#[allow(dead_code)]
mod latency;
#[path = "../../../end_to_end/measurement.rs"]
mod measurement;
mod report;
mod results;
#[path = "../../../end_to_end/sink.rs"]
mod sink;
mod svg;
#[path = "../../../end_to_end/text.rs"]
mod text;
mod throughput;
#[path = "../../../end_to_end/work.rs"]
#[allow(dead_code)]
mod work;

use std::path::PathBuf;

use results::Results;

/// Everyone, in the order of the tables. The baseline is no client.
pub(crate) const CLIENTS: [&str; 5] = ["pulsar-native", "pulsar-native-current", "pulsar-rs", "magnetar", "go"];

/// Those that are compared with this client.
pub(crate) const PEERS: [&str; 3] = ["pulsar-rs", "magnetar", "go"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("baseline") => return println!("{}", throughput::baseline(&words[1..])),
        Some("latencies") => return latencies::beside_broker(),
        Some("serve") => return throughput::serve(),
        _ => {}
    }
    let asked = |section: &str| match &words[..] {
        [] => section == "sink" || section == "latency",
        _ => words.iter().any(|word| word == section),
    };
    let mut results = Results::open(repo().join("benches/compare/figures.tsv"));
    if asked("sink") {
        throughput::section("sink", &throughput::WORKS, &mut results);
    }
    if asked("codecs") {
        throughput::section("codecs", throughput::CODEC_WORKS.as_flattened(), &mut results);
    }
    let complete = !asked("latency") || latencies::section(&mut results);
    if asked("build") {
        build::section(&mut results);
    }
    report::write(&results);
    if !complete {
        std::process::exit(1);
    }
}

/// The repository.
pub(crate) fn repo() -> PathBuf {
    PathBuf::from(std::env::var("COMPARE_REPO").expect("COMPARE_REPO: benches/compare/run sets it"))
}

/// Where the programs are.
pub(crate) fn programs() -> PathBuf {
    PathBuf::from(std::env::var("COMPARE_PROGRAMS").expect("COMPARE_PROGRAMS: benches/compare/run sets it"))
}

/// A number of the environment.
pub(crate) fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Which peers run: all, or those that `PEERS` names.
pub(crate) fn takes_part(client: &str) -> bool {
    let Ok(named) = std::env::var("PEERS") else { return true };
    !PEERS.contains(&client) || named.split([' ', ',']).any(|name| name == client)
}
