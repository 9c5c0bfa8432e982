//! Every client against the sink, and against the baseline: what the same bytes cost one thread that does nothing else.
//!
//! All take turns. A first, short run of each finds how many messages it gets through in the time of a round. A Rust
//! peer goes through the first round on both runtimes, and stays on the faster. Of the rounds the fastest gives the
//! throughput and the one with the least CPU the cost, for everyone alike.

use crate::child::{self, Figures};
use crate::report::MAIN_WORKS;
use crate::results::Results;
use crate::sink::Sink;
use crate::work::{Consume, Produce};
use crate::{CLIENTS, baseline, setting, takes_part};

/// How long a round of one client lasts, about, and the bounds of its messages.
const ROUND_SECONDS: f64 = 0.8;
const MESSAGES_MAX: f64 = 8_000_000.0;

/// What the permits of a consumer are, for everyone.
const QUEUE: u64 = 5000;

/// One kind of work.
pub(crate) struct Work {
    /// Of the report.
    pub(crate) section: &'static str,
    /// By which the report knows it.
    pub(crate) name: &'static str,
    kind: Kind,
    size: u64,
    /// Messages per batch or entry; 1: none.
    batch: u64,
    in_flight: u64,
    producers: u64,
    /// What payloads are compressed by; empty: nothing.
    codec: &'static str,
    /// Messages of the first, short run.
    probe: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Produce,
    Consume,
}

const fn produce(name: &'static str, size: u64, batch: u64) -> Work {
    Work {
        section: "sink",
        name,
        kind: Kind::Produce,
        size,
        batch,
        in_flight: 5000,
        producers: 1,
        codec: "",
        probe: 50_000,
    }
}

const fn consume(name: &'static str, size: u64, batch: u64) -> Work {
    Work { kind: Kind::Consume, in_flight: 0, ..produce(name, size, batch) }
}

const fn producers(name: &'static str, batch: u64, producers: u64) -> Work {
    let in_flight = if batch > 1 { 20_000 } else { 5000 };
    Work { producers, in_flight, ..produce(name, 100, batch) }
}

const fn large(work: Work) -> Work {
    let in_flight = if work.in_flight > 200 { 200 } else { work.in_flight };
    Work { in_flight, probe: 5000, ..work }
}

/// All without a codec, in the order of the tables; the first four are what the targets are about.
pub(crate) const WORKS: [Work; 14] = [
    produce("produce, batches of 1,000", 100, 1000),
    produce("produce, unbatched", 100, 1),
    consume("consume, entries of 100", 100, 100),
    consume("consume, single entries", 100, 1),
    produce("produce, 1 KiB, batches of 100", 1024, 100),
    produce("produce, 1 KiB, unbatched", 1024, 1),
    consume("consume, 1 KiB, entries of 100", 1024, 100),
    consume("consume, 1 KiB, single entries", 1024, 1),
    large(produce("produce, 64 KiB, unbatched", 65_536, 1)),
    large(consume("consume, 64 KiB, single entries", 65_536, 1)),
    producers("produce, 10 producers, batches of 100", 100, 10),
    producers("produce, 100 producers, batches of 100", 100, 100),
    producers("produce, 10 producers, unbatched", 1, 10),
    producers("produce, 100 producers, unbatched", 1, 100),
];

/// The works of one codec: its name in the report, and the one by which the programs know it.
macro_rules! codec_works {
    ($title:literal, $codec:literal) => {
        [
            produce(concat!("produce, ", $title, ", batches of 1,000"), 100, 1000).under($codec),
            consume(concat!("consume, ", $title, ", entries of 100"), 100, 100).under($codec),
            produce(concat!("produce, ", $title, ", 1 KiB, unbatched"), 1024, 1).under($codec),
            consume(concat!("consume, ", $title, ", 1 KiB, single entries"), 1024, 1).under($codec),
            large(produce(concat!("produce, ", $title, ", 64 KiB, unbatched"), 65_536, 1).under($codec)),
            large(consume(concat!("consume, ", $title, ", 64 KiB, single entries"), 65_536, 1).under($codec)),
        ]
    };
}

/// Those of each codec.
pub(crate) const CODEC_WORKS: [[Work; 6]; 4] = [
    codec_works!("LZ4", "lz4"),
    codec_works!("Zlib", "zlib"),
    codec_works!("Zstandard", "zstd"),
    codec_works!("Snappy", "snappy"),
];

impl Work {
    const fn under(self, codec: &'static str) -> Self {
        Self { section: "codecs", codec, ..self }
    }

    /// Permits are given back from the first half of the queue on: a queue of large messages is smaller.
    fn queue(&self) -> u64 {
        if self.size > 10_000 { 200 } else { QUEUE }
    }

    fn words(&self, url: &str, runtime: &str, messages: u64) -> Vec<String> {
        let (what, topic) = match self.kind {
            Kind::Produce => ("produce", "persistent://public/default/t".to_owned()),
            Kind::Consume => ("consume", self.feed(messages)),
        };
        let words = format!(
            "{what} {url} topic={topic} messages={messages} size={} batch={} in_flight={} producers={} queue={} codec={} runtime={runtime}",
            self.size,
            self.batch,
            self.in_flight,
            self.producers,
            self.queue(),
            self.codec,
        );
        words.split(' ').map(str::to_owned).collect()
    }

    /// The topic by which the sink knows what to feed.
    fn feed(&self, messages: u64) -> String {
        let members = if self.batch > 1 { self.batch } else { 0 };
        let entries = messages / self.batch;
        format!("persistent://public/default/feed-{members}-{}-{entries}-{}", self.size, self.codec)
    }

    /// Whether there is a limit to compare with: one producer or consumer, nothing compressed.
    fn has_baseline(&self) -> bool {
        self.codec.is_empty() && self.producers == 1
    }
}

/// Why a client has no part in a work.
pub(crate) fn leaves_out(work: &Work, subject: &str) -> Option<&'static str> {
    match subject {
        "magnetar" if !work.codec.is_empty() && work.batch > 1 => Some(
            "compresses the messages of a batch one by one, where Pulsar compresses the batch: it reads no other \
             client's compressed batches, nor they its",
        ),
        "pulsar-rs" if work.codec == "snappy" => Some(
            "writes and reads Snappy's framing format, where Pulsar has raw blocks: it reads no other client's \
             messages, nor they its",
        ),
        _ => None,
    }
}

/// Runs the works of a section and notes what they gave. The first works, which the README shows, have the most rounds.
pub(crate) fn section(name: &str, works: &[Work], results: &mut Results) {
    let only = std::env::var("WORK").unwrap_or_default();
    if only.is_empty() {
        results.begin(name);
    }
    let sink = Sink::start().expect("a free port on 127.0.0.1");
    for (number, work) in works.iter().enumerate().filter(|(_, work)| work.name.contains(&only)) {
        println!("{}", work.name);
        let mut entrants = enter(work, &sink);
        let rounds = if name == "sink" && number < MAIN_WORKS {
            setting("ROUNDS", 5.0)
        } else {
            setting("ROUNDS", 5.0).min(2.0)
        };
        for round in 0..rounds as u32 {
            for entrant in &mut entrants {
                entrant.round(work, &sink);
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
fn enter(work: &Work, sink: &Sink) -> Vec<Entrant> {
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
        entrants.extend(runtimes.iter().filter_map(|runtime| Entrant::probe(subject, runtime, work, sink)));
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

/// Runs a client once. It is told to close when every entry has been acknowledged.
fn run(subject: &str, runtime: &str, work: &Work, messages: u64, sink: &Sink) -> Option<Figures> {
    sink.take_acked();
    let done = || work.kind == Kind::Produce || sink.acked() >= messages / work.batch;
    child::run(subject, &work.words(&sink.url, runtime, messages), done)
}

/// One client on one runtime in one work.
struct Entrant {
    subject: &'static str,
    runtime: &'static str,
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
    fn probe(subject: &'static str, runtime: &'static str, work: &Work, sink: &Sink) -> Option<Self> {
        let figures = run(subject, runtime, work, work.probe, sink)?;
        let rate = figures["messages"] / figures["secs"];
        let round = (rate * ROUND_SECONDS * setting("SCALE", 1.0)).min(MESSAGES_MAX);
        // Whole batches, also in the part that is done beforehand.
        let messages = (round as u64 / 10_000).max(1) * 10_000;
        Some(Self { subject, runtime, messages, rate: 0.0, cpu_ns: f64::MAX, rss_kib: 0.0, unacknowledged: false })
    }

    fn round(&mut self, work: &Work, sink: &Sink) {
        let Some(figures) = run(self.subject, self.runtime, work, self.messages, sink) else { return };
        if work.kind == Kind::Consume {
            self.unacknowledged |= sink.take_acked() < self.messages / work.batch;
        }
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
            let members = if batch > 1 { batch } else { 0 };
            baseline::consume(url, &Consume { messages, size, members, queue: number("queue") as u32, topics: 1 })
        }
    };
    figures.expect("the sink stays")
}

/// A sink until it is killed, for running a client by hand.
pub(crate) fn serve() {
    let sink = Sink::start().expect("a free port on 127.0.0.1");
    println!("{}", sink.url);
    loop {
        std::thread::park();
    }
}
