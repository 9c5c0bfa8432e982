//! What the Rust programs of the comparison share: their arguments, payloads, figures, and the pace of open loops.

// Each program uses its part.
#![allow(dead_code)]

#[path = "../../end_to_end/latency.rs"]
pub(crate) mod latency;
#[path = "../../end_to_end/measurement.rs"]
pub(crate) mod measurement;
#[path = "../../end_to_end/text.rs"]
mod text;

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

pub(crate) use latency::Latencies;
pub(crate) use measurement::Measurement;

/// Before latencies count, brokers and connections warm up for this time.
const LATENCY_WARM_UP_SECS: u64 = 2;

/// One run: `<what> <url> <name>=<value>...`; a token may come in the environment, as `PULSAR_TOKEN`.
pub(crate) struct Job {
    pub(crate) workload: String,
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    words: HashMap<String, String>,
    started: Measurement,
}

impl Job {
    pub(crate) fn from_args() -> Self {
        let started = Measurement::start();
        let mut args = std::env::args().skip(1);
        let (workload, url) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
        let pair = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let token = std::env::var("PULSAR_TOKEN").ok().filter(|token| !token.is_empty());
        Self { workload, url, token, words: args.filter_map(pair).collect(), started }
    }

    fn word(&self, name: &str) -> &str {
        self.words.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.word(name).parse().unwrap_or(0)
    }

    /// To consume from; when producing, numbers follow it.
    pub(crate) fn topic(&self) -> String {
        self.word("topic").to_owned()
    }

    /// To consume from: one, or as many as there are, numbered.
    pub(crate) fn topics(&self) -> Vec<String> {
        match self.number("topics") {
            0 | 1 => vec![self.topic()],
            count => (0..count).map(|number| format!("{}-{number}", self.topic())).collect(),
        }
    }

    pub(crate) fn subscription(&self) -> &str {
        self.word("subscription")
    }

    pub(crate) fn messages(&self) -> u64 {
        self.number("messages")
    }

    /// Messages that come before those that are measured.
    pub(crate) fn warm_up(&self) -> u64 {
        self.number("warm_up")
    }

    /// Messages per batch; 1: no batching.
    pub(crate) fn batch(&self) -> u64 {
        self.number("batch").max(1)
    }

    /// Sends in flight, at most, of all producers together.
    pub(crate) fn in_flight(&self) -> usize {
        self.number("in_flight").max(1) as usize
    }

    pub(crate) fn producers(&self) -> u64 {
        self.number("producers").max(1)
    }

    /// Of the one topic that is produced to; 0: it has none.
    pub(crate) fn partitions(&self) -> u64 {
        self.number("partitions")
    }

    /// Permits.
    pub(crate) fn queue(&self) -> u32 {
        self.number("queue").max(1) as u32
    }

    /// What payloads are compressed by: `lz4`, `zlib`, `zstd`, `snappy`, or nothing.
    pub(crate) fn codec(&self) -> &str {
        self.word("codec")
    }

    /// What is sent, in turns: under a codec texts, else one payload.
    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        let size = self.number("size") as usize;
        if !self.codec().is_empty() {
            return (0..text::TEXTS).map(|number| text::text(number, size)).collect();
        }
        vec![vec![b'x'; size]]
    }

    /// How long an incomplete batch waits for more messages, at most.
    pub(crate) fn batch_delay(&self) -> Duration {
        Duration::from_millis(self.number("delay_ms").max(1))
    }

    pub(crate) fn pace(&self) -> Pace {
        let rate = self.number("rate").max(1);
        Pace {
            start: Instant::now(),
            gap: Duration::from_secs(1) / rate as u32,
            messages: self.messages(),
            warm_up: (LATENCY_WARM_UP_SECS * rate).min(self.messages() / 2),
            size: self.number("size") as usize,
        }
    }

    /// What the process has cost since it began.
    pub(crate) fn so_far(&self) -> String {
        self.started.stop(1)
    }

    /// Runs the program on the runtime of the arguments: `#[tokio::main]`'s with two workers, or the current thread.
    pub(crate) fn run<E: std::fmt::Debug>(&self, program: impl Future<Output = Result<String, E>>) {
        let mut builder = match self.word("runtime") {
            "current" => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        match runtime.block_on(program) {
            Ok(figures) => println!("{figures}"),
            Err(error) => {
                eprintln!("{error:?}");
                std::process::exit(1);
            }
        }
        // Clients whose tasks never end do not hold the process up.
        std::process::exit(0);
    }
}

/// An open loop: messages at a fixed rate, however long each takes. Each carries the moment it was due, so that a
/// stall shows in all the messages that it held up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    start: Instant,
    gap: Duration,
    pub(crate) messages: u64,
    warm_up: u64,
    size: usize,
}

impl Pace {
    /// Sleeps until that message is due, on a thread that may block; its payload.
    pub(crate) fn wait(&self, number: u64) -> Vec<u8> {
        let due = self.gap * number as u32;
        if let Some(early) = (self.start + due).checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        let mut payload = vec![b'x'; self.size.max(8)];
        payload[..8].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
        payload
    }

    /// Notes the arrival of the message received as that number.
    pub(crate) fn arrived(&self, number: u64, payload: &[u8], latencies: &mut Latencies) {
        let due = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if number >= self.warm_up {
            latencies.add(self.start.elapsed().saturating_sub(Duration::from_nanos(due)));
        }
    }
}
