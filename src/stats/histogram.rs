//! How long something took, as counts in buckets of growing width.

use std::time::Duration;

/// Each doubling of the time has `1 << STEP_BITS` buckets, so a bucket is at most an eighth of its times wide.
const STEP_BITS: u32 = 3;
const STEPS: u64 = 1 << STEP_BITS;

/// Times above this, some 19 hours, count as this, microseconds.
const MICROS_MAX: u64 = (1 << 36) - 1;

/// A histogram of times: how often something took how long.
///
/// A time is known to an eighth of itself, or to a microsecond. Histograms can be merged, so that those of many
/// producers make up one, and subtracted, so that two of one producer give what came between. One takes about 8 bytes
/// for each bucket up to that of the longest time: some 1.2 KiB for times up to a second, nothing while it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Up to the last bucket that is not empty.
    counts: Vec<u64>,
    count: u64,
    sum_micros: u64,
}

impl Histogram {
    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        self.record_many(time, 1);
    }

    /// Counts a time that `count` things took.
    pub fn record_many(&mut self, time: Duration, count: u64) {
        if count == 0 {
            return;
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX).min(MICROS_MAX);
        let bucket = bucket_of(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
        self.count += count;
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(count));
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of the times.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// The mean; `None` without times.
    pub fn mean(&self) -> Option<Duration> {
        self.sum_micros.checked_div(self.count).map(Duration::from_micros)
    }

    /// The time that this share of all times does not exceed, by the upper end of its bucket: 0.5 gives the median, 1 the
    /// longest. `None` without times. A share outside 0 to 1 counts as the nearer of the two.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.count as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut below = 0;
        self.buckets().find_map(|(upper, count)| {
            below += count;
            (below >= rank).then_some(upper)
        })
    }

    /// The buckets that are not empty: the longest time of each, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (Duration::from_micros(upper_end(bucket)), *count))
    }

    /// Adds the times of `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// The times that came after `earlier`, which is a former state of this histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before).map(|(count, before)| count.saturating_sub(before)).collect();
        Self {
            counts,
            count: self.count.saturating_sub(earlier.count),
            sum_micros: self.sum_micros.saturating_sub(earlier.sum_micros),
        }
    }
}

/// The first 8 buckets are a microsecond wide each, then each 8 are twice as wide as those before.
fn bucket_of(micros: u64) -> usize {
    let bucket = match micros.checked_ilog2().unwrap_or(0) {
        exponent if exponent < STEP_BITS => micros,
        exponent => {
            let shift = exponent - STEP_BITS;
            u64::from(shift + 1) * STEPS + ((micros >> shift) - STEPS)
        }
    };
    bucket as usize
}

/// The longest time of a bucket, microseconds.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_lies_in_a_bucket_no_wider_than_an_eighth_of_it() {
        let mut last = 0;
        for micros in (0..5000).chain((13..36).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let bucket = bucket_of(micros);
            assert!(bucket >= last, "{micros}: buckets follow each other");
            last = bucket;
            let upper = upper_end(bucket);
            assert!(micros <= upper && upper - micros <= micros / 8, "{micros} in the bucket up to {upper}");
        }
        assert_eq!(upper_end(bucket_of(MICROS_MAX)), MICROS_MAX);
    }

    #[test]
    fn quantiles_and_mean() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.mean()), (None, None));
        for ms in 1..=100 {
            histogram.record(Duration::from_millis(ms));
        }
        let ms = |share| histogram.quantile(share).expect("times").as_micros() as f64 / 1000.0;
        for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (7.0, 100.0)] {
            assert!((expected..=expected * 1.125).contains(&ms(share)), "{share}: {} ms", ms(share));
        }
        assert_eq!(histogram.mean(), Some(Duration::from_micros(50_500)));
        assert_eq!(histogram.count(), 100);
    }

    #[test]
    fn merged_and_subtracted() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_micros(5));
        other.record_many(Duration::from_secs(2), 3);
        let before = one.clone();
        one.merge(&other);
        assert_eq!((one.count(), one.sum()), (4, Duration::from_micros(6_000_005)));
        assert_eq!(one.since(&before).buckets().collect::<Vec<_>>(), other.buckets().collect::<Vec<_>>());
    }

    #[test]
    fn times_without_end_count_as_the_longest() {
        let mut histogram = Histogram::default();
        histogram.record_many(Duration::MAX, 2);
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_micros(MICROS_MAX)));
    }
}
