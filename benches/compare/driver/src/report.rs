//! What is written of the figures: all of them to `docs/compare.md`, the main ones to README.md, charts of both.

use std::fmt::Write;
use std::fs;

use crate::latencies::RATES;
use crate::results::Results;
use crate::start::START;
use crate::tables::{self, cost_over_baseline, head, or_dash, ratios, row, throughput_table, times, title};
use crate::works::{BROKER_WORKS, CODEC_WORKS, GROWTH, MAIN_WORKS, WORKS, Work};
use crate::{CLIENTS, ONCE, build, plots, repo, svg};

const BEGIN: &str = "<!-- benches/compare/run writes from here -->";
const END: &str = "<!-- to here -->";

/// Writes it all, from the results.
pub(crate) fn write(results: &Results) {
    let docs = repo().join("docs");
    let files =
        [("compare.md", whole(results)), ("compare.svg", svg::chart(results)), ("growth.svg", plots::chart(results))];
    for (name, text) in files {
        fs::write(docs.join(name), text).expect("docs/ can be written to");
    }
    let readme = repo().join("README.md");
    let text = fs::read_to_string(&readme).expect("README.md can be read");
    match between_marks(&text, &summary(results)) {
        Some(text) => fs::write(&readme, text).expect("README.md can be written to"),
        None => eprintln!("README.md has no lines `{BEGIN}` and `{END}`: it stays as it is"),
    }
    println!("\n{}", targets(results));
    println!("written: docs/compare.md and its charts, README.md, benches/compare/figures.tsv");
}

fn between_marks(text: &str, summary: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{summary}\n{END}{after}"))
}

fn origin(results: &Results, section: &str) -> String {
    let of_run = |name| results.text(section, "run", "", name).unwrap_or("unknown");
    format!("{}, pulsar-native {}, {}", of_run("date"), of_run("version"), of_run("machine"))
}

/// What README.md shows.
fn summary(results: &Results) -> String {
    let mut out = String::from("![Messages per second of six clients, and their latencies](docs/compare.svg)\n\n");
    let _ = writeln!(
        out,
        "Messages per second, 100 bytes each, one topic, one connection, up to 5,000 sends in flight, every received\nmessage acknowledged; against a sink that answers at once. Shown on tokio's default runtime and on one thread, as is what\nthat makes over the best other ({}):\n",
        origin(results, "sink"),
    );
    let works: Vec<&Work> = WORKS[..MAIN_WORKS].iter().collect();
    throughput_table(&mut out, results, &works, &CLIENTS);
    let _ = writeln!(out, "\nThrough a real Pulsar 4.0.8 on the same machine ({}):\n", origin(results, "broker"));
    broker_summary(&mut out, results);
    let _ = writeln!(
        out,
        "\nAs there are more producers, partitions and topics, against the sink ({}):\n\n![Throughput, CPU and memory of six clients with 1 to 1,000 producers, partitions and topics](docs/growth.svg)",
        origin(results, "growth")
    );
    out.push_str("\n`benches/compare/run` builds all and measures all, in one run; [`docs/compare.md`](docs/compare.md) has every figure,\n[`benches/compare`](benches/compare/README.md) says what is measured and how each client is set up.\n");
    out
}

/// A column for each client: throughput and its CPU, latencies, start.
fn broker_summary(out: &mut String, results: &Results) {
    let clients = ONCE;
    head(out, &[&[""], &clients.map(title)[..]].concat());
    for work in BROKER_WORKS.iter().filter(|work| work.batch > 1) {
        let cell = |client: &&str| {
            let number = |name| results.number("broker", work.name, client, name);
            let of = |rate, cpu: f64| format!("{} msg/s, {:.2} us", tables::millions(rate), cpu / 1e3);
            or_dash(number("rate").zip(number("cpu_ns")).map(|(rate, cpu)| of(rate, cpu)))
        };
        let name = format!("{}; CPU per message", work.name);
        row(out, [vec![name], clients.iter().map(cell).collect()].concat());
    }
    for rate in RATES {
        let cell = |client: &&str| latency_cell(results, rate, client, &["p50_ns", "p99_ns"]);
        let name = format!("from due to received at {}, p50 / p99", rate_title(rate));
        row(out, [vec![name], clients.iter().map(cell).collect()].concat());
    }
    let cell = |client: &&str| start_cell(results, client, "wall_ns", 1e6, "ms");
    row(
        out,
        [vec!["from the start of the process to its first message".to_owned()], clients.iter().map(cell).collect()]
            .concat(),
    );
}

fn start_cell(results: &Results, client: &str, name: &str, unit: f64, unit_name: &str) -> String {
    or_dash(results.number("start", START, client, name).map(|value| format!("{:.0} {unit_name}", value / unit)))
}

fn rate_title(rate: u64) -> String {
    format!("{},000 msg/s", rate / 1000)
}

fn latency_cell(results: &Results, rate: u64, subject: &str, names: &[&str]) -> String {
    let value = |name: &&str| results.number("latency", &rate.to_string(), subject, name);
    let values: Option<Vec<String>> = names.iter().map(|name| Some(format!("{:.2}", value(name)? / 1e6))).collect();
    or_dash(values.map(|values| values.join(" / ") + " ms"))
}

fn build_line(results: &Results) -> Option<String> {
    let of = |subject: &str| {
        let seconds = results.number("build", build::COLD, subject, "seconds")?;
        let crates = results.text("build", build::COLD, subject, "crates")?;
        Some(format!("{} {seconds:.0} s ({crates} crates)", title(subject)))
    };
    let ours = of("pulsar-native")?;
    let others: Vec<String> = ["pulsar-rs", "magnetar"].iter().filter_map(|subject| of(subject)).collect();
    Some(format!(
        "Cold release build with default features, and how many crates that compiles, for build scripts too ({}):\n{ours}, {}.",
        origin(results, "build"),
        others.join(", "),
    ))
}

/// `docs/compare.md`.
fn whole(results: &Results) -> String {
    let mut out = String::from(
        "# Compared with other clients\n\nWritten by `benches/compare/run`; [`benches/compare/README.md`](../benches/compare/README.md) says what is measured, and\nhow each client is set up. Figures move from machine to machine: only ratios taken in one run count.\n\n![The main figures](compare.svg)\n",
    );
    let mut works = |section: &str, title: &str, note: &str, works: Vec<&Work>| {
        if results.text(section, "run", "", "date").is_some() {
            let _ = writeln!(out, "\n## {title}\n\n{}.{note}\n", origin(results, section));
            tables::all(&mut out, results, &works);
        }
    };
    works("sink", "Against a sink that answers at once", "", WORKS.iter().collect());
    works(
        "growth",
        "With more producers, partitions and topics",
        " Against the sink, 100-byte messages in turns over all.\n\n![Throughput, CPU and memory as there are more](growth.svg)",
        GROWTH.iter().flat_map(|axis| &axis.works).collect(),
    );
    works(
        "codecs",
        "Under each codec, against the sink",
        " Payloads are texts; each client compresses all of them, at its default level.",
        CODEC_WORKS.as_flattened().iter().collect(),
    );
    works(
        "broker",
        "Through a real Pulsar",
        " Draining: a backlog that was there before. Broker and client share the machine.",
        BROKER_WORKS.iter().collect(),
    );
    latencies(&mut out, results);
    starts(&mut out, results);
    if let Some(line) = build_line(results) {
        let _ = writeln!(out, "\n## Build\n\n{line}");
    }
    out
}

fn latencies(out: &mut String, results: &Results) {
    let _ = writeln!(
        out,
        "\n## End to end through a real Pulsar\n\n{}. From due to received, p50 / p99 / p99.9:\n",
        origin(results, "latency")
    );
    let clients = ONCE;
    head(out, &[&["rate"], &clients.map(title)[..]].concat());
    for rate in RATES {
        let cell = |client: &&str| latency_cell(results, rate, client, &["p50_ns", "p99_ns", "p999_ns"]);
        row(out, [vec![rate_title(rate)], clients.iter().map(cell).collect()].concat());
    }
}

fn starts(out: &mut String, results: &Results) {
    let _ = writeln!(
        out,
        "\n## Start\n\n{}. From the start of the process until its first message has gone through a real Pulsar and\ncome back, the process's CPU time until then, and the most memory resident:\n",
        origin(results, "start")
    );
    let clients = ONCE;
    head(out, &[&[""], &clients.map(title)[..]].concat());
    for (title, name, unit, unit_name) in
        [("time", "wall_ns", 1e6, "ms"), ("CPU", "cpu_ns", 1e6, "ms"), ("memory", "rss_kib", 1024.0, "MiB")]
    {
        let cell = |client: &&str| start_cell(results, client, name, unit, unit_name);
        row(out, [vec![title.to_owned()], clients.iter().map(cell).collect()].concat());
    }
}

/// One line for each of the four works, for the terminal.
fn targets(results: &Results) -> String {
    let line = |work: &Work| {
        let baseline = cost_over_baseline(results, work, "pulsar-native");
        let one = cost_over_baseline(results, work, "pulsar-native-current");
        let ratios = ratios(results, work);
        format!(
            "{:<28} {ratios:>11} x the best peer's throughput, {} / {} x the baseline's CPU",
            work.name,
            times(baseline),
            times(one)
        )
    };
    let lines: Vec<String> = WORKS[..MAIN_WORKS].iter().map(line).collect();
    format!("this client, on two workers / on one thread:\n{}", lines.join("\n"))
}
