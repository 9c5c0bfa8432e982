//! What `pulsar-native perf` costs beyond this bench for the same work: section `perf`, with the feature `cli`.
//!
//! Both run against the same sink in turns, each in a process of its own, on the same kind of runtime. Compared is the CPU
//! time of whole processes, user and system; of all rounds the one with the least counts.

use std::fs;
use std::process::{Command, Stdio};

use crate::sink::Sink;
use crate::work::{Consume, WARM_UP_DIVISOR};
use crate::{scaled, setting};

/// Set where the binary is built, which is with the feature `cli`.
pub(crate) const PERF: Option<&str> = option_env!("CARGO_BIN_EXE_pulsar-native");

/// Nanoseconds of a tick, in which Linux tells CPU time: `USER_HZ` is 100.
pub(crate) const TICK_NS: f64 = 10_000_000.0;

/// The same work for both commands.
struct Work {
    name: &'static str,
    /// Subcommand of both.
    kind: &'static str,
    bench: String,
    /// Messages of the bench, its warm-up included.
    bench_messages: u64,
    perf: String,
    perf_messages: u64,
}

/// Compares every kind of work on one thread and on two workers.
pub(crate) fn compare(sink: &Sink) {
    let Some(perf) = PERF else {
        println!("section perf needs the feature cli");
        return;
    };
    let bench = std::env::current_exe().expect("the path of this program");
    for (subject, threads) in [("pulsar-native", "1"), ("pulsar-native-multi", "2")] {
        for work in [produce(1000), produce(1), consume(100), consume(0)] {
            let (mut bench_ns, mut perf_ns) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..setting("ROUNDS", 3.0) as u32 {
                let mut command = Command::new(&bench);
                command.args(["child", subject, work.kind, &sink.url]).args(work.bench.split(' '));
                bench_ns = bench_ns.min(cpu_ns(command) / work.bench_messages as f64);
                let mut command = Command::new(perf);
                command.args(["perf", work.kind, &sink.url, "--threads", threads]).args(work.perf.split(' '));
                perf_ns = perf_ns.min(cpu_ns(command) / work.perf_messages as f64);
            }
            println!(
                "{:<26} {subject:<20} bench {bench_ns:>6.1} ns CPU/msg   perf {perf_ns:>6.1} ns CPU/msg   {:>+6.1} ns",
                work.name,
                perf_ns - bench_ns
            );
        }
    }
}

fn produce(batch: u64) -> Work {
    let messages = scaled(if batch > 1 { 10_000_000 } else { 4_000_000 });
    Work {
        name: if batch > 1 { "produce, batches of 1000" } else { "produce, unbatched" },
        kind: "produce",
        bench: format!("{messages} 100 {batch} 5000 1"),
        bench_messages: messages + messages / WARM_UP_DIVISOR,
        perf: format!(
            "--topic t --messages {messages} --size 100 --max-pending-messages 5000 --batching-max-messages {batch} \
             --batching-max-publish-delay 1"
        ),
        perf_messages: messages,
    }
}

fn consume(members: u64) -> Work {
    let messages = scaled(if members > 0 { 10_000_000 } else { 4_000_000 });
    let work = Consume { messages, size: 100, members, queue: 1000, topics: 1 };
    let topic = work.topics().next().expect("it has one");
    Work {
        name: if members > 0 { "consume, entries of 100" } else { "consume, single entries" },
        kind: "consume",
        bench: format!("{messages} 100 {members} 1000"),
        bench_messages: messages,
        perf: format!(
            "--topic {topic} --subscription s --subscription-type shared --messages {messages} \
             --receiver-queue-size 1000"
        ),
        perf_messages: messages,
    }
}

/// Runs a command to its end; the CPU time of its process, user and system, to a tick.
fn cpu_ns(mut command: Command) -> f64 {
    let before = ticks_of_children();
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    (ticks_of_children() - before) as f64 * TICK_NS
}

/// CPU time of all processes that were started here and have ended, as `getrusage(RUSAGE_CHILDREN)` tells it.
pub(crate) fn ticks_of_children() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("the kernel's figures of this process");
    // Behind the name, which may hold anything: state is field 3, cutime 16, cstime 17.
    let (_, fields) = stat.rsplit_once(") ").expect("the name in parentheses");
    let ticks: Vec<u64> = fields.split(' ').skip(13).take(2).map(|field| field.parse().expect("ticks")).collect();
    let [user, system] = ticks[..] else { panic!("no cutime and cstime: {stat}") };
    user + system
}
