//! Tables of works and clients.

use std::fmt::Write;

use crate::results::Results;
use crate::works::{Work, leaves_out};
use crate::{CLIENTS, PEERS};

/// How each is called in the tables and in the chart.
pub(crate) fn title(subject: &str) -> &str {
    match subject {
        "pulsar-native-current" => "pulsar-native, one thread",
        "pulsar-rs" => "pulsar-rs 6.9.1",
        "magnetar" => "magnetar 1.7.4",
        "go" => "Go client 0.19.0",
        "java" => "Java client 4.2.4",
        "cpp" => "C++ client 4.2.0",
        other => other,
    }
}

/// The best of the peers in a work.
fn best_peer(results: &Results, work: &Work, name: &str, best: fn(f64, f64) -> f64) -> Option<f64> {
    PEERS.iter().filter_map(|peer| results.number(work.section, work.name, peer, name)).reduce(best)
}

/// This client's messages per second over those of the best peer; on the default runtime, or on one thread.
pub(crate) fn ratio(results: &Results, work: &Work, subject: &str) -> Option<f64> {
    Some(results.number(work.section, work.name, subject, "rate")? / best_peer(results, work, "rate", f64::max)?)
}

pub(crate) fn ratios(results: &Results, work: &Work) -> String {
    format!(
        "{} / {}",
        times(ratio(results, work, "pulsar-native")),
        times(ratio(results, work, "pulsar-native-current"))
    )
}

pub(crate) fn cost_over_baseline(results: &Results, work: &Work, subject: &str) -> Option<f64> {
    let cpu = |subject| results.number(work.section, work.name, subject, "cpu_ns");
    Some(cpu(subject)? / cpu("baseline")?)
}

pub(crate) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

pub(crate) fn times(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{value:.1}")))
}

/// Millions per second, three digits of it.
pub(crate) fn millions(rate: f64) -> String {
    let millions = rate / 1e6;
    match millions {
        m if m >= 10.0 => format!("{m:.1} M"),
        m if m >= 0.1 => format!("{m:.2} M"),
        m => format!("{m:.3} M"),
    }
}

pub(crate) fn row(out: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

pub(crate) fn head(out: &mut String, cells: &[&str]) {
    row(out, cells.iter().map(|cell| (*cell).to_owned()));
    row(out, cells.iter().map(|_| "---".to_owned()));
}

/// The works' columns: everyone, after the baseline where there is one.
fn columns(works: &[&Work]) -> Vec<&'static str> {
    let baseline = works.iter().any(|work| work.has_baseline()).then_some("baseline");
    baseline.into_iter().chain(CLIENTS).collect()
}

fn titles(subjects: &[&'static str]) -> Vec<&'static str> {
    subjects.iter().map(|subject| title(subject)).collect()
}

pub(crate) fn throughput_table(out: &mut String, results: &Results, works: &[&Work], subjects: &[&'static str]) {
    head(out, &[&["work"], &titles(subjects)[..], &["over the best other"]].concat());
    for work in works {
        let rate = |subject: &&str| or_dash(results.number(work.section, work.name, subject, "rate").map(millions));
        let cells = [vec![work.name.to_owned()], subjects.iter().map(rate).collect(), vec![ratios(results, work)]];
        row(out, cells.concat());
    }
}

/// The tables of a section: throughput, CPU, memory, and what there is to say of the clients.
pub(crate) fn all(out: &mut String, results: &Results, works: &[&Work]) {
    let _ = writeln!(out, "Messages per second:\n");
    throughput_table(out, results, works, &columns(works));
    let over = if works.iter().any(|work| work.has_baseline()) {
        "; in brackets as a multiple of the baseline, which is one thread\nthat only frames, sums, writes, reads and \
         matches the same bytes"
    } else {
        ""
    };
    let _ = writeln!(out, "\nCPU per message, microseconds, all threads of the client{over}:\n");
    cpu_table(out, results, works);
    let _ = writeln!(out, "\nThe most memory resident, MiB:\n");
    memory_table(out, results, works);
    notes(out, results, works);
}

fn cpu_table(out: &mut String, results: &Results, works: &[&Work]) {
    let subjects = columns(works);
    head(out, &[&["work"], &titles(&subjects)[..], &["best peer over pulsar-native"]].concat());
    for work in works {
        let cell = |subject: &&str| {
            let cpu =
                results.number(work.section, work.name, subject, "cpu_ns").map(|ns| format!("{:.3}", ns / 1000.0));
            match cost_over_baseline(results, work, subject) {
                Some(over) if *subject != "baseline" => format!("{} ({over:.1})", or_dash(cpu)),
                _ => or_dash(cpu),
            }
        };
        let peer = best_peer(results, work, "cpu_ns", f64::min);
        let over =
            results.number(work.section, work.name, "pulsar-native", "cpu_ns").and_then(|ours| Some(peer? / ours));
        row(out, [vec![work.name.to_owned()], subjects.iter().map(cell).collect(), vec![times(over)]].concat());
    }
}

fn memory_table(out: &mut String, results: &Results, works: &[&Work]) {
    let subjects = columns(works);
    head(out, &[&["work"], &titles(&subjects)[..]].concat());
    for work in works {
        let cell = |subject: &&str| {
            or_dash(
                results.number(work.section, work.name, subject, "rss_kib").map(|kib| format!("{:.0}", kib / 1024.0)),
            )
        };
        row(out, [vec![work.name.to_owned()], subjects.iter().map(cell).collect::<Vec<_>>()].concat());
    }
}

/// Which runtime each Rust peer ran on, which works a client is left out of, and which left messages unacknowledged.
fn notes(out: &mut String, results: &Results, works: &[&Work]) {
    for subject in ["pulsar-rs", "magnetar"] {
        let on = |runtime: &str| {
            let works =
                works.iter().filter(|work| results.text(work.section, work.name, subject, "runtime") == Some(runtime));
            works.map(|work| work.name).collect::<Vec<_>>()
        };
        let (one, several) = (on("current"), on("multi"));
        if one.len() + several.len() > 0 {
            let which = if one.is_empty() { "nothing".to_owned() } else { one.join("; ") };
            let _ = writeln!(
                out,
                "\n{} was faster on a current-thread runtime, and ran on it, in: {which}.",
                title(subject)
            );
        }
    }
    for subject in PEERS {
        let out_of = works.iter().filter_map(|work| Some((work.name, leaves_out(work, subject)?)));
        let out_of: Vec<_> = out_of.collect();
        if let Some((_, why)) = out_of.first() {
            let works: Vec<&str> = out_of.iter().map(|(name, _)| *name).collect();
            let _ = writeln!(out, "\n{} is not in {}: it {why}.", title(subject), works.join("; "));
        }
    }
    for subject in columns(works) {
        let left =
            works.iter().filter(|work| results.text(work.section, work.name, subject, "unacknowledged").is_some());
        let left: Vec<&str> = left.map(|work| work.name).collect();
        if !left.is_empty() {
            let _ = writeln!(out, "\n{} did not acknowledge every entry in: {}.", title(subject), left.join("; "));
        }
    }
}
