//! Whole clients in a simulated world: many seeds, one checker for each invariant.
//!
//! `SIM_SEEDS=N` runs N fresh seeds, from `SIM_FIRST` on if that is set, each nth one with `SIM_STEP=n`: with 16 those of one
//! kind of world. `SIM_SEED=n` runs one exactly, with its trace; without any a fixed number runs, and every seed of
//! `sim_regressions.txt`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use pulsar_native::sim::FaultCounts;

use crate::{clusters, growth, patterns, readers, scaling, workload};

/// Seeds of a plain `cargo test`.
const SEEDS_DEFAULT: u64 = if cfg!(debug_assertions) { 150 } else { 1000 };

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs the world of a seed: that of two clusters, of a topic that grows, of a pattern, of a reader, of a queue that
/// follows its consumer, or of one cluster with all the rest.
fn run(seed: u64, trace: bool) -> workload::SeedReport {
    match seed {
        _ if clusters::is_of(seed) => clusters::run(seed, trace),
        _ if growth::is_of(seed) => growth::run(seed, trace),
        _ if patterns::is_of(seed) => patterns::run(seed, trace),
        _ if readers::is_of(seed) => readers::run(seed, trace),
        _ if scaling::is_of(seed) => scaling::run(seed, trace),
        _ => workload::run(seed, trace),
    }
}

/// The violation or panic of a seed, and its report unless it panicked.
fn failure_of(seed: u64) -> (Option<String>, Option<workload::SeedReport>) {
    match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
        Ok(report) => (report.violation.as_ref().map(ToString::to_string), Some(report)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            (Some(format!("[panic] {}", text.unwrap_or_default())), None)
        }
    }
}

fn replay(seed: u64) {
    let report = run(seed, true);
    for line in &report.trace {
        println!("{line}");
    }
    println!("faults: {:?}", report.faults.0);
    if let Some(violation) = report.violation {
        panic!("seed {seed}: {violation}");
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let started = Instant::now();
    let (mut count, mut events, mut stored) = (0u64, 0, 0);
    let mut faults = FaultCounts::default();
    let mut failed = Vec::new();
    for seed in seeds {
        count += 1;
        let (failure, report) = failure_of(seed);
        if let Some(failure) = failure {
            println!("seed {seed}: {failure}");
            println!(
                "    replay: SIM_SEED={seed} cargo test --release --all-features --test world sim:: -- --nocapture"
            );
            failed.push(seed);
        }
        if let Some(report) = report {
            faults.add(&report.faults);
            events += report.events;
            stored += report.stored;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{count} seeds in {seconds:.1} s ({:.0} a second), {events} events, {stored} messages stored",
        count as f64 / seconds
    );
    for (name, count) in &faults.0 {
        println!("{count:>8} {name}");
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
}

#[test]
fn every_invariant_holds_for_every_seed() {
    if let Some(seed) = number_of("SIM_SEED") {
        return replay(seed);
    }
    match number_of("SIM_SEEDS") {
        Some(count) => {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let first = number_of("SIM_FIRST").unwrap_or(since.as_secs() * 100_000);
            let step = number_of("SIM_STEP").unwrap_or(1).max(1);
            println!("seeds {first} to {}, each {step}", first + count * step - 1);
            run_all((0..count).map(|at| first + at * step));
        }
        None => run_all(0..SEEDS_DEFAULT),
    }
}

#[test]
fn regression_seeds_hold() {
    let seeds = include_str!("sim_regressions.txt");
    let seeds = seeds.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    run_all(seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("a seed in each line")));
}

/// Every poll of every task, every frame and every line of the application, in the same order at the same time.
#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true), run(seed, true));
        let differ = first.trace.iter().zip(&second.trace).find(|(first, second)| first != second);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert_eq!((first.fingerprint, first.events), (second.fingerprint, second.events), "seed {seed}");
    }
}
