//! What a run says while it goes on, its table, and its one line.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ledger::Fate;
use crate::load::subscription_name;
use crate::{Run, TOPICS};

static BEGUN: OnceLock<Instant> = OnceLock::new();

/// When the run began, which is when this is first asked.
pub(crate) fn begun() -> Instant {
    *BEGUN.get_or_init(Instant::now)
}

/// Says what happens, with the seconds since the run began.
pub(crate) fn say(what: impl std::fmt::Display) {
    println!("chaos: {:>6.1} s: {what}", begun().elapsed().as_secs_f64());
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
        let ledger = run.ledgers[topic].lock().unwrap();
        let (verdict, seen) = (ledger.verdict(subscription), &ledger.subscriptions[subscription]);
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
            seen.longest_gap_until.map_or(0.0, |until| (until - begun()).as_secs_f64())
        );
        missing += verdict.missing;
        doubled += verdict.doubled;
        out_of_order += seen.out_of_order;
        gap = gap.max(seen.longest_gap);
        if verdict.missing > 0 {
            println!("  the first missing: {:?}", ledger.missing_numbers(subscription, 20));
        }
    }
    println!();
    let good = print_problems(run);
    let count = |fate| run.ledgers.iter().map(|ledger| ledger.lock().unwrap().count(fate)).sum::<u64>();
    let sent: u64 = run.ledgers.iter().map(|ledger| ledger.lock().unwrap().sent()).sum();
    println!(
        "sent={sent} confirmed={} failed={} missing={missing} doubled={doubled} out_of_order={out_of_order} \
         longest_gap_ms={}",
        count(Fate::Confirmed),
        count(Fate::Unknown) + count(Fate::NotStored),
        gap.as_millis()
    );
    good && sent > 0 && missing + doubled + out_of_order == 0
}

fn print_problems(run: &Run) -> bool {
    let mut problems = run.problems.clone();
    for (ledger, topic) in run.ledgers.iter().zip(&TOPICS) {
        let ledger = ledger.lock().unwrap();
        problems.extend(ledger.violations.iter().take(20).map(|what| format!("{}: {what}", topic.name)));
        let false_failures = ledger.false_failures();
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
