//! Latencies, kept one by one.

use std::time::Duration;

/// One message at a time, each sent when the one before is stored.
#[derive(Debug, Clone)]
pub(crate) struct PingPong {
    pub(crate) messages: u64,
    /// Payload bytes.
    pub(crate) size: usize,
}

/// Messages at a fixed rate, however long each takes.
#[derive(Debug, Clone)]
pub(crate) struct OpenLoop {
    pub(crate) messages: u64,
    /// Payload bytes.
    pub(crate) size: usize,
    /// Messages per second.
    pub(crate) rate: u64,
}

/// Latencies, nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(latency.as_nanos() as u64);
    }

    /// Percentiles as `name=value` words, nanoseconds.
    pub(crate) fn words(mut self) -> String {
        self.0.sort_unstable();
        let at = |part: f64| {
            let place = (self.0.len() as f64 * part) as usize;
            self.0.get(place.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
        format!("n={} p50_ns={p50} p99_ns={p99} p999_ns={p999} max_ns={max}", self.0.len())
    }
}
