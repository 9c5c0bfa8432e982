//! What is measured: latencies in a histogram, messages by the second.

use std::time::{Duration, Instant};

/// Buckets for each doubling of the latency: an error of at most 3 %.
const BUCKETS_PER_DOUBLING: u64 = 32;

/// Latencies of 1 us to over an hour.
const BUCKETS: usize = 33 * BUCKETS_PER_DOUBLING as usize;

/// The seconds kept for the plot over time; a longer run shows its first day.
const SECONDS_MAX: usize = 24 * 3600;

/// Latencies, microseconds: exact below 32, then 32 buckets per doubling.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max_us: 0 }
    }

    fn bucket(us: u64) -> usize {
        if us < BUCKETS_PER_DOUBLING {
            return us as usize;
        }
        let doubling = u64::from(us.ilog2() - BUCKETS_PER_DOUBLING.ilog2());
        let within = (us >> doubling) - BUCKETS_PER_DOUBLING;
        ((doubling + 1) * BUCKETS_PER_DOUBLING + within).min(BUCKETS as u64 - 1) as usize
    }

    /// The lowest latency of a bucket, microseconds.
    pub(crate) fn floor_us(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        match bucket / BUCKETS_PER_DOUBLING {
            0 => bucket,
            doubling => (BUCKETS_PER_DOUBLING + bucket % BUCKETS_PER_DOUBLING) << (doubling - 1),
        }
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[Self::bucket(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    pub(crate) fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The latency that this part of the messages did not exceed, microseconds.
    pub(crate) fn quantile_us(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                // The top of the bucket, but never more than was seen.
                return (Self::floor_us(bucket + 1) - 1).min(self.max_us);
            }
        }
        self.max_us
    }

    /// Buckets that are not empty: the number of the bucket, and how many are in it.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }
}

/// One run.
pub(crate) struct Recorder {
    start: Instant,
    /// When the last message was done.
    last: Instant,
    pub(crate) latencies: Histogram,
    /// Of the present second, for the live line.
    recent: Histogram,
    pub(crate) per_second: Vec<u64>,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Handed in and not done, by all producers.
    pub(crate) pending: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            latencies: Histogram::new(),
            recent: Histogram::new(),
            per_second: Vec::new(),
            done: 0,
            failed: 0,
            pending: 0,
        }
    }

    pub(crate) fn done(&mut self, now: Instant, latency: Duration) {
        self.latencies.add(latency);
        self.recent.add(latency);
        self.done += 1;
        self.last = now;
        let second = now.saturating_duration_since(self.start).as_secs() as usize;
        if second < SECONDS_MAX {
            if self.per_second.len() <= second {
                self.per_second.resize(second + 1, 0);
            }
            self.per_second[second] += 1;
        }
    }

    /// The line for people, and a fresh second.
    pub(crate) fn live_line(&mut self) -> String {
        let recent = std::mem::replace(&mut self.recent, Histogram::new());
        format!(
            "{:>6.0} s {:>11} msg/s   p50 {:>9.3} ms   p99 {:>9.3} ms   pending {:>7}   failed {}",
            self.start.elapsed().as_secs_f64(),
            recent.count,
            recent.quantile_us(0.5) as f64 / 1000.0,
            recent.quantile_us(0.99) as f64 / 1000.0,
            self.pending,
            self.failed,
        )
    }

    fn secs(&self) -> f64 {
        self.last.saturating_duration_since(self.start).as_secs_f64()
    }

    /// The line for machines.
    pub(crate) fn last_line(&self) -> String {
        let secs = self.secs();
        let rate = if secs > 0.0 { self.done as f64 / secs } else { 0.0 };
        let at = |part| self.latencies.quantile_us(part);
        format!(
            "n={} secs={secs:.3} msgs_per_s={rate:.0} p50_us={} p99_us={} p999_us={} max_us={} failed={}",
            self.done,
            at(0.5),
            at(0.99),
            at(0.999),
            self.latencies.max_us(),
            self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_without_gap_and_within_three_percent() {
        for bucket in 0..BUCKETS - 1 {
            let (floor, next) = (Histogram::floor_us(bucket), Histogram::floor_us(bucket + 1));
            assert_eq!((Histogram::bucket(floor), Histogram::bucket(next - 1)), (bucket, bucket));
            assert!(next - floor <= 1 || (next - floor) as f64 / floor as f64 <= 0.0313);
        }
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_known_run() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|us| histogram.add(Duration::from_micros(us)));
        assert!((500..=515).contains(&histogram.quantile_us(0.5)), "{}", histogram.quantile_us(0.5));
        assert!((990..=1000).contains(&histogram.quantile_us(0.99)));
        assert_eq!((histogram.quantile_us(1.0), histogram.max_us()), (1000, 1000));
        assert_eq!(Histogram::new().quantile_us(0.5), 0);
    }
}
