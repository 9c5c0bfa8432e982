//! The figures of a progress line.

use std::fmt;
use std::time::{Duration, Instant};

use pulsar_native::stats::Histogram;
use pulsar_native::{Acker, Producer};

/// What a command has done, and how fast it was lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Since the start.
    pub(crate) elapsed: Duration,
    /// Since the start.
    pub(crate) messages: u64,
    pub(crate) messages_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// `None` where no latency was measured.
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    /// What messages are that are neither done nor failed, and how many.
    pub(crate) waiting: (&'static str, u64),
    /// Since the start.
    pub(crate) failed: u64,
}

impl Figures {
    /// What still means something while nothing can be sent or received.
    pub(super) fn counts(&self) -> String {
        let Self { messages, waiting: (what, waiting), .. } = self;
        format!("{:>5.0} s {messages:>10} msg  {what} {waiting}{}", self.elapsed.as_secs_f64(), self.failures())
    }

    /// Nothing where there is none.
    fn failures(&self) -> String {
        if self.failed == 0 { String::new() } else { format!("  failed {}", self.failed) }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = |time: Option<Duration>| time.map_or("-".to_owned(), milliseconds);
        write!(
            f,
            "{:>5.0} s {:>10} msg {:>8.0} msg/s {:>6.1} MB/s  {} {:>4}  p50 {}  p99 {}{}",
            self.elapsed.as_secs_f64(),
            self.messages,
            self.messages_per_s,
            self.bytes_per_s / 1e6,
            self.waiting.0,
            self.waiting.1,
            latency(self.p50),
            latency(self.p99),
            self.failures(),
        )
    }
}

/// With three digits at least.
fn milliseconds(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// Reads the figures of a handle.
pub(crate) enum Meter {
    Producer(Producer),
    Consumer(Acker),
}

/// What a handle has counted since it was created.
struct Reading {
    messages: u64,
    bytes: u64,
    latency: Histogram,
    waiting: (&'static str, u64),
    failed: u64,
}

/// The speeds between two readings of a meter.
pub(super) struct Speeds {
    meter: Meter,
    start: Instant,
    read_at: Instant,
    last: Reading,
}

impl Meter {
    /// Messages that were confirmed or received.
    pub(super) fn messages(&self) -> u64 {
        self.read().messages
    }

    fn read(&self) -> Reading {
        match self {
            Self::Producer(producer) => {
                let stats = producer.stats();
                Reading {
                    messages: stats.confirmed_messages,
                    bytes: stats.confirmed_bytes,
                    latency: stats.send_latency,
                    waiting: ("pending", stats.pending_messages as u64),
                    failed: stats.failed_messages,
                }
            }
            Self::Consumer(acker) => {
                let stats = acker.stats();
                Reading {
                    messages: stats.received_messages,
                    bytes: stats.received_bytes,
                    latency: stats.publish_latency,
                    waiting: ("queued", stats.queued_messages),
                    failed: 0,
                }
            }
        }
    }
}

impl Speeds {
    pub(super) fn new(meter: Meter, now: Instant) -> Self {
        let last = meter.read();
        Self { meter, start: now, read_at: now, last }
    }

    /// Messages that were confirmed or received.
    pub(super) fn messages(&self) -> u64 {
        self.meter.messages()
    }

    /// Those since the last call.
    pub(super) fn read(&mut self, now: Instant) -> Figures {
        let reading = self.meter.read();
        let secs = now.saturating_duration_since(self.read_at).as_secs_f64();
        let per_second = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
        let latency = reading.latency.since(&self.last.latency);
        let figures = Figures {
            elapsed: now.saturating_duration_since(self.start),
            messages: reading.messages,
            messages_per_s: per_second(reading.messages.saturating_sub(self.last.messages)),
            bytes_per_s: per_second(reading.bytes.saturating_sub(self.last.bytes)),
            p50: latency.quantile(0.5),
            p99: latency.quantile(0.99),
            waiting: reading.waiting,
            failed: reading.failed,
        };
        (self.read_at, self.last) = (now, reading);
        figures
    }
}
