//! What happens to the cluster while it is worked on.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::Run;
use crate::load::Topic;
use crate::report::say;
use crate::rng::Rng;

const UNLOADS: u64 = 3;
const TRANSFERS: u64 = 3;
/// How many messages are confirmed, if any still are, while a broker stays dead or stopped.
const AWAY: Pause = Pause { confirmed: 0..=3_000, time_max: Duration::from_secs(4) };
/// Between two faults.
const PAUSE: Pause = Pause { confirmed: 150..=1_200, time_max: Duration::from_millis(1_500) };

/// Faults strike in the midst of work: the next one waits until this number of further messages is confirmed. It waits no longer
/// than this, for the last one may have left no broker that could confirm any.
struct Pause {
    confirmed: RangeInclusive<u64>,
    time_max: Duration,
}

/// The rounds, after a quiet start.
pub(crate) async fn rounds(run: &mut Run, rounds: u64, rng: &mut Rng) {
    let parts: Vec<String> = crate::TOPICS.iter().flat_map(Topic::parts).collect();
    spread(run, &parts).await;
    run.cutter.arm(true);
    for round in 0..rounds {
        let (killed, other) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        say(format_args!("round {} of {rounds}", round + 1));
        shuffle(run, &parts, rng).await;
        pause(run, rng, PAUSE).await;
        bounce(run, killed, "kill", rng).await;
        shuffle(run, &parts, rng).await;
        pause(run, rng, PAUSE).await;
        run.cutter.cut_all();
        say("all connections through the proxy are cut");
        pause(run, rng, PAUSE).await;
        bounce(run, other, "stop", rng).await;
        spread(run, &parts).await;
        progress(run);
    }
}

/// Gives each broker every second topic, so that each has something to lose.
async fn spread(run: &mut Run, parts: &[String]) {
    let mut owned = [0; 2];
    for (index, part) in parts.iter().enumerate() {
        // A bundle may hold several of them, so the owners are looked at afterwards.
        let given = run.cluster.admin.transfer(part, index % 2).await;
        run.problems.extend(given.err());
    }
    for part in parts {
        match run.cluster.admin.owner(part).await {
            Ok(owner) => owned[owner] += 1,
            Err(error) => run.problems.push(error),
        }
    }
    say(format_args!("broker 1 serves {} topics and partitions, broker 2 {}", owned[0], owned[1]));
    if owned.contains(&0) {
        run.problems.push("a broker serves nothing: there is nothing to fail over".to_owned());
    }
}

/// Unloads topics where they are, and moves bundles. Either may be refused while brokers change: then it just does not
/// happen.
async fn shuffle(run: &Run, parts: &[String], rng: &mut Rng) {
    for _ in 0..UNLOADS {
        let _ = run.cluster.admin.unload(rng.pick(parts).as_str()).await;
    }
    for _ in 0..TRANSFERS {
        let _ = run.cluster.admin.transfer(rng.pick(parts).as_str(), rng.between(0, 1) as usize).await;
    }
}

/// Ends a broker, `how` being `kill` or `stop`, and starts it again.
async fn bounce(run: &mut Run, broker: usize, how: &str, rng: &mut Rng) {
    let ended = run.cluster.broker(broker, how).await;
    run.problems.extend(ended.err());
    say(format_args!("broker {}: {how}", broker + 1));
    pause(run, rng, AWAY).await;
    let started = run.cluster.broker(broker, "start").await;
    run.problems.extend(started.err());
    say(format_args!("broker {} is back", broker + 1));
}

async fn pause(run: &Run, rng: &mut Rng, pause: Pause) {
    let goal = run.confirmed() + rng.between(*pause.confirmed.start(), *pause.confirmed.end());
    run.until(Instant::now() + pause.time_max, |run| run.confirmed() >= goal).await;
}

fn progress(run: &Run) {
    let sent: u64 = run.logs.iter().map(|log| log.lock().unwrap().sent()).sum();
    say(format_args!("{sent} sent, {} deliveries outstanding", run.outstanding()));
}
