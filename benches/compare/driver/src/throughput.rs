//! Every client against the sink or a real broker, and against the baseline: what the same bytes cost one thread that
//! does nothing else.
//!
//! All take turns. A first, short run of each finds how many messages it gets through in the time of a round. A Rust
//! peer goes through the first round on both runtimes, and stays on the faster. Of the rounds the fastest gives the
//! throughput and the one with the least CPU the cost, for everyone alike.

use std::cell::Cell;

use crate::child::{self, Figures};
use crate::results::Results;
use crate::sink::Sink;
use crate::work::{Consume, Produce};
use crate::works::{Kind, MAIN_WORKS, Work, leaves_out};
use crate::{CLIENTS, baseline, setting, takes_part};

/// How long a round of one client lasts, about: a broker takes longer to find its pace, and the scale of a plot of growth
/// shows less of a difference.
fn round_seconds(section: &str) -> f64 {
    match section {
        "broker" => 1.5,
        "growth" => 0.5,
        _ => 0.8,
    }
}

/// The bound of a round's messages.
const MESSAGES_MAX: f64 = 8_000_000.0;

/// How long the warm-up of the Java client lasts, about: until the JVM has compiled what runs often.
const JVM_WARM_UP_SECONDS: f64 = 3.0;

/// And of its first, short run: so many times what is measured then.
const JVM_PROBE_WARM_UP: u64 = 5;

/// What the clients talk to.
pub(crate) struct Target {
    url: String,
    sink: Option<Sink>,
    /// How many subscriptions there have been: each run has its own.
    subscriptions: Cell<u64>,
}

impl Target {
    pub(crate) fn sink() -> Self {
        let sink = Sink::start().expect("a free port on 127.0.0.1");
        Self { url: sink.url.clone(), sink: Some(sink), subscriptions: Cell::new(0) }
    }

    pub(crate) fn broker(url: &str) -> Self {
        Self { url: url.to_owned(), sink: None, subscriptions: Cell::new(0) }
    }

    /// Runs a client once. It is told to close when every entry has been acknowledged, which a broker does not tell.
    /// With the figures: whether it was.
    fn run(
        &self,
        subject: &str,
        runtime: &str,
        work: &Work,
        (warm_up, messages): (u64, u64),
    ) -> Option<(Figures, bool)> {
        self.subscriptions.set(self.subscriptions.get() + 1);
        let words = work.words(&self.url, runtime, self.subscriptions.get(), warm_up, messages);
        let Some(sink) = self.sink.as_ref().filter(|_| work.kind == Kind::Consume) else {
            return Some((child::run(subject, &words, || true)?, true));
        };
        sink.take_acked();
        let entries = (warm_up + messages) / work.batch;
        let figures = child::run(subject, &words, || sink.acked() >= entries)?;
        Some((figures, sink.take_acked() >= entries))
    }
}

/// Runs the works of a section and notes what they gave. The first works of `sink`, which the README shows, have the
/// most rounds.
pub(crate) fn section<'a>(
    name: &str,
    works: impl IntoIterator<Item = &'a Work>,
    target: &Target,
    results: &mut Results,
) {
    let only = std::env::var("WORK").unwrap_or_default();
    if only.is_empty() {
        results.begin(name);
    }
    for (number, work) in works.into_iter().enumerate().filter(|(_, work)| work.name.contains(&only)) {
        println!("{name}: {}", work.name);
        if work.backlog > 0 {
            child::run("pulsar-native", &work.fill(&target.url), || true).expect("the backlog is filled");
        }
        let mut entrants = enter(work, target);
        let rounds = match name {
            "sink" if number < MAIN_WORKS => setting("ROUNDS", 5.0),
            "growth" => 1.0,
            _ => setting("ROUNDS", 5.0).min(2.0),
        };
        for round in 0..rounds as u32 {
            for entrant in &mut entrants {
                entrant.round(work, target);
            }
            if round == 0 {
                entrants = without_slower_runtimes(entrants);
            }
        }
        for entrant in entrants {
            entrant.note(work, results);
        }
        results.save();
    }
}

/// All who take part in a work, on all runtimes that come into question.
fn enter(work: &Work, target: &Target) -> Vec<Entrant> {
    let mut entrants = Vec::new();
    let subjects = ["baseline"].into_iter().chain(CLIENTS);
    for subject in subjects.filter(|subject| takes_part(subject) && leaves_out(work, subject).is_none()) {
        let runtimes: &[&str] = match subject {
            "baseline" if !work.has_baseline() => &[],
            "pulsar-native" => &["multi"],
            "pulsar-native-current" => &["current"],
            "magnetar" | "pulsar-rs" => &["multi", "current"],
            _ => &["own"],
        };
        entrants.extend(runtimes.iter().filter_map(|runtime| Entrant::probe(subject, runtime, work, target)));
    }
    entrants
}

fn without_slower_runtimes(entrants: Vec<Entrant>) -> Vec<Entrant> {
    let mut kept: Vec<Entrant> = Vec::new();
    for entrant in entrants {
        match kept.last_mut().filter(|last| last.subject == entrant.subject) {
            Some(last) if last.rate >= entrant.rate => {}
            Some(last) => *last = entrant,
            None => kept.push(entrant),
        }
    }
    kept
}

/// One client on one runtime in one work.
struct Entrant {
    subject: &'static str,
    runtime: &'static str,
    /// Messages before those that are measured.
    warm_up: u64,
    messages: u64,
    /// Messages per second, the best of the rounds; 0 before.
    rate: f64,
    /// Nanoseconds of CPU per message, the least of the rounds.
    cpu_ns: f64,
    rss_kib: f64,
    /// Whether some entry was not acknowledged by the end.
    unacknowledged: bool,
}

impl Entrant {
    fn probe(subject: &'static str, runtime: &'static str, work: &Work, target: &Target) -> Option<Self> {
        let warm_up = if subject == "java" { work.probe * JVM_PROBE_WARM_UP } else { work.probe / 10 };
        let (figures, _) = target.run(subject, runtime, work, (warm_up, work.probe))?;
        let rate = figures["messages"] / figures["secs"];
        // Whole batches on every topic, also in the part that is done beforehand.
        let during = |seconds: f64| ((rate * seconds).min(MESSAGES_MAX) as u64 / 10_000).max(1) * 10_000;
        let scale = setting("SCALE", 1.0);
        let mut messages = during(round_seconds(work.section) * scale);
        let mut warm_up = if subject == "java" { during(JVM_WARM_UP_SECONDS * scale) } else { messages / 10 };
        if work.backlog > 0 {
            warm_up = warm_up.min(work.backlog / 2);
            messages = messages.min(work.backlog - warm_up);
        }
        let (cpu_ns, rss_kib) = (f64::MAX, 0.0);
        Some(Self { subject, runtime, warm_up, messages, rate: 0.0, cpu_ns, rss_kib, unacknowledged: false })
    }

    fn round(&mut self, work: &Work, target: &Target) {
        let run = target.run(self.subject, self.runtime, work, (self.warm_up, self.messages));
        let Some((figures, acknowledged)) = run else { return };
        self.unacknowledged |= !acknowledged;
        self.rate = self.rate.max(figures["messages"] / figures["secs"]);
        self.cpu_ns = self.cpu_ns.min(figures["cpu_ns"] / figures["messages"]);
        self.rss_kib = self.rss_kib.max(figures["rss_kib"]);
    }

    fn note(self, work: &Work, results: &mut Results) {
        if self.rate == 0.0 {
            return;
        }
        let note = if self.unacknowledged { "  (entries left unacknowledged)" } else { "" };
        println!(
            "    {:<21} {:<7} {:>11.0} msg/s {:>9.3} us CPU/msg {:>8.0} KiB{note}",
            self.subject,
            self.runtime,
            self.rate,
            self.cpu_ns / 1000.0,
            self.rss_kib,
        );
        let mut figures = Figures::new();
        figures.insert("rate".to_owned(), self.rate);
        figures.insert("cpu_ns".to_owned(), self.cpu_ns);
        figures.insert("rss_kib".to_owned(), self.rss_kib);
        results.put_all(work.section, work.name, self.subject, &figures);
        results.put(work.section, work.name, self.subject, "runtime", self.runtime.to_owned());
        if self.unacknowledged {
            results.put(work.section, work.name, self.subject, "unacknowledged", "yes".to_owned());
        }
    }
}

/// The baseline, in a process of its own; it takes the words that clients take.
pub(crate) fn baseline(words: &[String]) -> String {
    let number = |name: &str| {
        let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let (messages, size, batch, url) = (number("messages"), number("size") as usize, number("batch"), &words[1]);
    let figures = match words[0].as_str() {
        "produce" => {
            let in_flight = number("in_flight");
            let (keys, fill_ms, by_key) = (0, 0, false);
            baseline::produce(url, &Produce { messages, size, batch, in_flight, producers: 1, keys, fill_ms, by_key })
        }
        _ => {
            // It warms up by the first of them.
            let messages = messages + number("warm_up");
            let members = if batch > 1 { batch } else { 0 };
            baseline::consume(url, &Consume { messages, size, members, queue: number("queue") as u32, topics: 1 })
        }
    };
    figures.expect("the sink stays")
}

/// A sink until it is killed, for running a client by hand.
pub(crate) fn serve() {
    println!("{}", Target::sink().url);
    loop {
        std::thread::park();
    }
}
