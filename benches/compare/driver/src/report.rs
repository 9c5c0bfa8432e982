//! What is written of the figures: all of them to `docs/compare.md`, the main ones to README.md, a chart of those.

use std::fmt::Write;
use std::fs;

use crate::latencies::RATES;
use crate::results::Results;
use crate::throughput::{CODEC_WORKS, WORKS, Work, leaves_out};
use crate::{PEERS, build, repo, svg};

/// How many works, from the first, the README and the chart show.
pub(crate) const MAIN_WORKS: usize = 4;

const BEGIN: &str = "<!-- benches/compare/run writes from here -->";
const END: &str = "<!-- to here -->";

/// How each is called in the tables and in the chart.
pub(crate) fn title(subject: &str) -> &str {
    match subject {
        "pulsar-native-current" => "pulsar-native, one thread",
        "pulsar-rs" => "pulsar-rs 6.9.1",
        "magnetar" => "magnetar 1.7.4",
        "go" => "Go client 0.19.0",
        other => other,
    }
}

/// Writes it all, from the results.
pub(crate) fn write(results: &Results) {
    let docs = repo().join("docs");
    fs::write(docs.join("compare.md"), whole(results)).expect("docs/ can be written to");
    fs::write(docs.join("compare.svg"), svg::chart(results)).expect("docs/ can be written to");
    let readme = repo().join("README.md");
    let text = fs::read_to_string(&readme).expect("README.md can be read");
    match between_marks(&text, &summary(results)) {
        Some(text) => fs::write(&readme, text).expect("README.md can be written to"),
        None => eprintln!("README.md has no lines `{BEGIN}` and `{END}`: it stays as it is"),
    }
    println!("\n{}", targets(results));
    println!("written: docs/compare.md, docs/compare.svg, README.md, benches/compare/figures.tsv");
}

fn between_marks(text: &str, summary: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{summary}\n{END}{after}"))
}

/// The best of the peers in a work.
fn best_peer(results: &Results, work: &Work, name: &str, best: fn(f64, f64) -> f64) -> Option<f64> {
    PEERS.iter().filter_map(|peer| results.number(work.section, work.name, peer, name)).reduce(best)
}

/// This client's messages per second over those of the best peer; on the default runtime, or on one thread.
pub(crate) fn ratio(results: &Results, work: &Work, subject: &str) -> Option<f64> {
    Some(results.number(work.section, work.name, subject, "rate")? / best_peer(results, work, "rate", f64::max)?)
}

fn ratios(results: &Results, work: &Work) -> String {
    format!(
        "{} / {}",
        times(ratio(results, work, "pulsar-native")),
        times(ratio(results, work, "pulsar-native-current"))
    )
}

fn cost_over_baseline(results: &Results, work: &Work, subject: &str) -> Option<f64> {
    let cpu = |subject| results.number(work.section, work.name, subject, "cpu_ns");
    Some(cpu(subject)? / cpu("baseline")?)
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "–".to_owned())
}

fn times(value: Option<f64>) -> String {
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

fn row(out: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn head(out: &mut String, cells: &[&str]) {
    row(out, cells.iter().map(|cell| (*cell).to_owned()));
    row(out, cells.iter().map(|_| "---".to_owned()));
}

fn origin(results: &Results, section: &str) -> String {
    let of_run = |name| results.text(section, "run", "", name).unwrap_or("unknown");
    format!("{}, pulsar-native {}, {}", of_run("date"), of_run("version"), of_run("machine"))
}

/// What README.md shows.
fn summary(results: &Results) -> String {
    let mut out = String::from("![Messages per second of four clients, and their latencies](docs/compare.svg)\n\n");
    let _ = writeln!(
        out,
        "Messages per second, 100 bytes each, one topic, one connection, up to 5,000 sends in flight, every received\nmessage acknowledged; against a sink that answers at once. Shown on tokio's default runtime and on one thread, as is what\nthat makes over the best other ({}):\n",
        origin(results, "sink"),
    );
    let subjects = &ALL[1..];
    let titles: Vec<&str> = subjects.iter().map(|subject| title(subject)).collect();
    head(&mut out, &[&["work"], &titles[..], &["over the best other"]].concat());
    for work in &WORKS[..MAIN_WORKS] {
        let rate = |subject: &&str| or_dash(results.number(work.section, work.name, subject, "rate").map(millions));
        let cells = [vec![work.name.to_owned()], subjects.iter().map(rate).collect(), vec![ratios(results, work)]];
        row(&mut out, cells.concat());
    }
    let _ = writeln!(
        out,
        "\nFrom the moment a message is due at its producer to its arrival at a consumer, through a real Pulsar 4.0.8 on the\nsame machine, p50 / p99 ({}):\n",
        origin(results, "latency")
    );
    let subjects = LATENCY_SUBJECTS;
    head(&mut out, &[&["rate"], &subjects.map(title)[..]].concat());
    for rate in RATES {
        let cell = |subject: &&str| latency_cell(results, rate, subject, &["p50_ns", "p99_ns"]);
        row(&mut out, [vec![rate_title(rate)], subjects.iter().map(cell).collect()].concat());
    }
    out.push_str("\n`benches/compare/run` builds all and measures all, in one run; [`docs/compare.md`](docs/compare.md) has every figure,\n[`benches/compare`](benches/compare/README.md) says what is measured and how each client is set up.\n");
    out
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
    let _ = writeln!(out, "\n## Against a sink that answers at once\n\n{}.\n", origin(results, "sink"));
    throughput_table(&mut out, results, &WORKS);
    let _ = writeln!(
        out,
        "\nCPU per message, microseconds, all threads of the client; in brackets as a multiple of the baseline, which is one thread\nthat only frames, sums, writes, reads and matches the same bytes:\n"
    );
    cpu_table(&mut out, results, &WORKS);
    let _ = writeln!(out, "\nThe most memory resident, MiB:\n");
    memory_table(&mut out, results, &WORKS);
    runtimes(&mut out, results, &WORKS);
    if results.text("codecs", "run", "", "date").is_some() {
        codecs(&mut out, results, CODEC_WORKS.as_flattened());
    }
    let _ = writeln!(
        out,
        "\n## End to end through a real Pulsar\n\n{}. From due to received, p50 / p99 / p99.9:\n",
        origin(results, "latency")
    );
    let subjects = LATENCY_SUBJECTS;
    head(&mut out, &[&["rate"], &subjects.map(title)[..]].concat());
    for rate in RATES {
        let cell = |subject: &&str| latency_cell(results, rate, subject, &["p50_ns", "p99_ns", "p999_ns"]);
        row(&mut out, [vec![rate_title(rate)], subjects.iter().map(cell).collect()].concat());
    }
    if let Some(line) = build_line(results) {
        let _ = writeln!(out, "\n## Build\n\n{line}");
    }
    out
}

/// The section of the compressed works.
fn codecs(out: &mut String, results: &Results, works: &[Work]) {
    let _ = writeln!(
        out,
        "\n## Under each codec, against the sink\n\n{}. Payloads are texts; each client compresses all of them, at its default level.\n",
        origin(results, "codecs")
    );
    throughput_table(out, results, works);
    let _ = writeln!(out, "\nCPU per message, microseconds, all threads of the client:\n");
    cpu_table(out, results, works);
    runtimes(out, results, works);
}

const LATENCY_SUBJECTS: [&str; 4] = ["pulsar-native", "pulsar-rs", "magnetar", "go"];

const ALL: [&str; 6] = ["baseline", "pulsar-native", "pulsar-native-current", "pulsar-rs", "magnetar", "go"];

fn throughput_table(out: &mut String, results: &Results, works: &[Work]) {
    let _ = writeln!(out, "Messages per second:\n");
    head(out, &[&["work"], &ALL.map(title)[..], &["over the best other"]].concat());
    for work in works {
        let rate = |subject: &&str| or_dash(results.number(work.section, work.name, subject, "rate").map(millions));
        let cells = [vec![work.name.to_owned()], ALL.iter().map(rate).collect(), vec![ratios(results, work)]];
        row(out, cells.concat());
    }
}

fn cpu_table(out: &mut String, results: &Results, works: &[Work]) {
    head(out, &[&["work"], &ALL.map(title)[..], &["best peer over pulsar-native"]].concat());
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
        row(out, [vec![work.name.to_owned()], ALL.iter().map(cell).collect(), vec![times(over)]].concat());
    }
}

fn memory_table(out: &mut String, results: &Results, works: &[Work]) {
    head(out, &[&["work"], &ALL.map(title)[..]].concat());
    for work in works {
        let cell = |subject: &&str| {
            or_dash(
                results.number(work.section, work.name, subject, "rss_kib").map(|kib| format!("{:.0}", kib / 1024.0)),
            )
        };
        row(out, [vec![work.name.to_owned()], ALL.iter().map(cell).collect::<Vec<_>>()].concat());
    }
}

/// Which runtime each Rust peer ran on, who is left out, and who left something unacknowledged.
fn runtimes(out: &mut String, results: &Results, works: &[Work]) {
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
    for subject in ALL {
        let left =
            works.iter().filter(|work| results.text(work.section, work.name, subject, "unacknowledged").is_some());
        let left: Vec<&str> = left.map(|work| work.name).collect();
        if !left.is_empty() {
            let _ = writeln!(out, "\n{} did not acknowledge every entry in: {}.", title(subject), left.join("; "));
        }
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
