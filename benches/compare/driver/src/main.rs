//! Runs every client, one process after the other, and writes what they did: `docs/compare.md`, its charts and the part
//! of README.md between its markers. `benches/compare/run` builds all and starts this.
//!
//! Words choose sections, see [`SECTIONS`]; without words all but `codecs` and `build` run. What an earlier run found
//! stays in the report only where its section was not asked for, with its own date.

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
#[allow(dead_code)]
mod measurement;
mod plots;
mod report;
mod results;
#[path = "../../../end_to_end/sink.rs"]
mod sink;
mod start;
mod svg;
mod tables;
#[path = "../../../end_to_end/text.rs"]
mod text;
mod throughput;
#[path = "../../../end_to_end/work.rs"]
#[allow(dead_code)]
mod work;
mod works;

use std::path::PathBuf;
use std::process::Command;

use results::Results;
use throughput::Target;
use works::{BROKER_WORKS, CODEC_WORKS, GROWTH, WORKS};

/// Everyone, in the order of the tables. The baseline is no client.
pub(crate) const CLIENTS: [&str; 7] =
    ["pulsar-native", "pulsar-native-current", "pulsar-rs", "magnetar", "go", "java", "cpp"];

/// Those that are compared with this client.
pub(crate) const PEERS: [&str; 5] = ["pulsar-rs", "magnetar", "go", "java", "cpp"];

/// Each client once, on its default runtime, in the order of the charts.
pub(crate) const ONCE: [&str; 6] = ["pulsar-native", "pulsar-rs", "magnetar", "go", "java", "cpp"];

/// The parts of a run: against the sink, nothing compressed; growing numbers of producers, partitions and topics there;
/// the same works under each codec; through a real Pulsar, latencies, starts, throughput; cold builds.
const SECTIONS: [&str; 7] = ["sink", "growth", "codecs", "latency", "start", "broker", "build"];

/// Those that a real broker is started for.
const BESIDE_BROKER: [&str; 3] = ["latency", "start", "broker"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("baseline") => return println!("{}", throughput::baseline(&words[1..])),
        Some("beside-broker") => return beside_broker(&words[1..]),
        Some("serve") => return throughput::serve(),
        _ => {}
    }
    if let Some(unknown) = words.iter().find(|word| !SECTIONS.contains(&word.as_str())) {
        eprintln!("no section {unknown}; there are {}", SECTIONS.join(", "));
        std::process::exit(2);
    }
    let asked = |section: &str| match &words[..] {
        [] => !["codecs", "build"].contains(&section),
        _ => words.iter().any(|word| word == section),
    };
    let mut results = open();
    let target = Target::sink();
    if asked("sink") {
        throughput::section("sink", &WORKS, &target, &mut results);
    }
    if asked("growth") {
        throughput::section("growth", GROWTH.iter().flat_map(|axis| &axis.works), &target, &mut results);
    }
    if asked("codecs") {
        throughput::section("codecs", CODEC_WORKS.as_flattened(), &target, &mut results);
    }
    if asked("build") {
        build::section(&mut results);
    }
    let with_broker: Vec<&str> = BESIDE_BROKER.into_iter().filter(|section| asked(section)).collect();
    let complete = with_broker.is_empty() || start_broker(&with_broker);
    report::write(&open());
    if !complete {
        std::process::exit(1);
    }
}

fn open() -> Results {
    Results::open(repo().join("benches/compare/figures.tsv"))
}

/// Has `scripts/real-pulsar` run this program beside a broker. Whether it could.
fn start_broker(sections: &[&str]) -> bool {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(repo().join("scripts/real-pulsar"));
    // So that a backlog is kept until a client drains it, whichever client is first.
    command.args(["--set", "defaultRetentionTimeInMinutes=60", "--set", "defaultRetentionSizeInMB=4096", "run"]);
    let status = command.arg(this).arg("beside-broker").args(sections).status().expect("scripts/real-pulsar starts");
    if !status.success() {
        eprintln!("    not everything was measured through a real Pulsar: the report keeps what it had");
    }
    status.success()
}

/// The sections that run beside the broker.
fn beside_broker(sections: &[String]) {
    let url = std::env::var("PULSAR_URL").expect("PULSAR_URL: scripts/real-pulsar sets it");
    let mut results = open();
    let asked = |section: &str| sections.iter().any(|asked| asked == section);
    if asked("latency") {
        latencies::section(&url, &mut results);
    }
    if asked("start") {
        start::section(&url, &mut results);
    }
    if asked("broker") {
        throughput::section("broker", &BROKER_WORKS, &Target::broker(&url), &mut results);
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
