//! What a run says while it goes on, its table, and its one line.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deliveries::SendState;
use crate::load::subscription_name;
use crate::{Run, TOPICS};

static STARTED: OnceLock<Instant> = OnceLock::new();

/// When the run began, which is when this is first asked.
pub(crate) fn started() -> Instant {
    *STARTED.get_or_init(Instant::now)
}

/// Says what happens, with the seconds since the run began.
pub(crate) fn say(what: impl std::fmt::Display) {
    println!("chaos: {:>6.1} s: {what}", started().elapsed().as_secs_f64());
}

/// Prints everything; says whether the run is good.
pub(crate) fn print(run: &Run) -> bool {
    let cutter = &run.cutter;
    let (cuts, silences) = (cutter.cuts.load(Ordering::Relaxed), cutter.silences.load(Ordering::Relaxed));
    say(format_args!("{cuts} connections were cut, {silences} silenced"));
    println!();
    println!(
        "{:<36} {:<11} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7}",
        "topic", "type", "arrived", "again", "stored", "missing", "doubled", "out of", "longest", "until"
    );
    println!(
        "{:<36} {:<11} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7}",
        "", "", "", "", "twice", "", "", "order", "gap ms", "s"
    );
    let (mut missing, mut doubled, mut out_of_order, mut gap) = (0, 0, 0, Duration::ZERO);
    for (topic, subscription, kind) in run.each_subscription() {
        let log = run.logs[topic].lock().unwrap();
        let (verdict, seen) = (log.verdict(subscription), &log.subscriptions[subscription]);
        println!(
            "{:<36} {:<11} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>7} {:>7.1}",
            TOPICS[topic].name,
            subscription_name(kind),
            verdict.arrived,
            seen.again,
            verdict.stored_twice,
            verdict.missing,
            verdict.doubled,
            seen.out_of_order,
            seen.longest_gap.as_millis(),
            seen.longest_gap_until.map_or(0.0, |until| (until - started()).as_secs_f64())
        );
        missing += verdict.missing;
        doubled += verdict.doubled;
        out_of_order += seen.out_of_order;
        gap = gap.max(seen.longest_gap);
        if verdict.missing > 0 {
            println!("  the first missing: {:?}", log.missing_numbers(subscription, 20));
        }
    }
    println!();
    let good = print_problems(run);
    let count = |state| run.logs.iter().map(|log| log.lock().unwrap().count(state)).sum::<u64>();
    let sent: u64 = run.logs.iter().map(|log| log.lock().unwrap().sent()).sum();
    println!(
        "sent={sent} confirmed={} failed={} missing={missing} doubled={doubled} out_of_order={out_of_order} \
         longest_gap_ms={}",
        count(SendState::Confirmed),
        count(SendState::Unknown) + count(SendState::NotStored),
        gap.as_millis()
    );
    good && sent > 0 && missing + doubled + out_of_order == 0
}

fn print_problems(run: &Run) -> bool {
    let mut problems = run.problems.clone();
    for (log, topic) in run.logs.iter().zip(&TOPICS) {
        let log = log.lock().unwrap();
        problems.extend(log.violations.iter().take(20).map(|what| format!("{}: {what}", topic.name)));
        let false_failures = log.false_failures();
        if false_failures > 0 {
            problems.push(format!("{}: {false_failures} sends failed as not stored, and arrived", topic.name));
        }
    }
    for problem in &problems {
        println!("PROBLEM {problem}");
    }
    problems.is_empty()
}

/// What matters in a subscription's statistics.
pub(crate) fn brief(stats: &Value) -> String {
    let consumers = stats["consumers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let consumers: Vec<_> = consumers
        .iter()
        .map(|consumer| {
            format!(
                "{} permits {} unacked {}",
                consumer["consumerName"], consumer["availablePermits"], consumer["unackedMessages"]
            )
        })
        .collect();
    format!("backlog {}, unacked {}, consumers {consumers:?}", stats["msgBacklog"], stats["unackedMessages"])
}
