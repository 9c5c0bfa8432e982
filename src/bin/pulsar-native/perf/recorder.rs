//! What the tasks of a run write and its report reads: counters of all messages, latencies of a sample of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

/// One message in this many has its latency measured, unless the command line sets another interval. A prime, so that samples
/// do not keep landing on the same place of a batch.
pub(super) const SAMPLE_INTERVAL: u32 = 61;

/// Significant decimal digits of a latency.
const PRECISION: u8 = 3;

/// The highest latency that is distinguished from higher ones, in microseconds: 30 days, for a backlog that is consumed late. A
/// histogram up to it takes 256 KiB.
const LATENCY_MAX_US: u64 = 30 * 24 * 3600 * 1_000_000;

/// A histogram of latencies in microseconds; two of them can always be added.
pub(super) fn latency_histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, PRECISION)
}

/// Counters of one task, published by that task alone: a plain store is enough, and costs no locked instruction. On
/// cache lines of their own, so that tasks on different cores do not contend for them.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Counters {
    done: AtomicU64,
    failed: AtomicU64,
    pending: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// What is done since the start of the task.
    #[inline]
    pub(super) fn set_done(&self, messages: u64, bytes: u64) {
        self.done.store(messages, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// What failed since the start of the task, and what is pending now.
    pub(super) fn set_not_done(&self, failed: u64, pending: u64) {
        self.failed.store(failed, Ordering::Relaxed);
        self.pending.store(pending, Ordering::Relaxed);
    }
}

/// Messages of a task, or of all tasks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Confirmed by the broker, or received.
    pub(super) done: u64,
    pub(super) failed: u64,
    /// Sent and not confirmed yet.
    pub(super) pending: u64,
    /// Payload bytes of what is done.
    pub(super) bytes: u64,
}

pub(super) struct Recorder {
    counters: Vec<Counters>,
    sample_interval: u32,
    /// Sampled latencies since the last [`Self::take_latencies`].
    latencies: Mutex<Histogram<u64>>,
}

impl Recorder {
    pub(super) fn new(tasks: usize, sample_interval: u32) -> Result<Self, CreationError> {
        let counters = (0..tasks).map(|_| Counters::default()).collect();
        Ok(Self { counters, sample_interval, latencies: Mutex::new(latency_histogram()?) })
    }

    /// The counters of one task.
    pub(super) fn counters(&self, task: usize) -> &Counters {
        &self.counters[task]
    }

    /// The sum over all tasks.
    pub(super) fn counts(&self) -> Counts {
        self.counters.iter().fold(Counts::default(), |sum, counters| Counts {
            done: sum.done + counters.done.load(Ordering::Relaxed),
            failed: sum.failed + counters.failed.load(Ordering::Relaxed),
            pending: sum.pending + counters.pending.load(Ordering::Relaxed),
            bytes: sum.bytes + counters.bytes.load(Ordering::Relaxed),
        })
    }

    pub(super) fn sampler(&self) -> Sampler {
        Sampler { interval: self.sample_interval, left: 1 }
    }

    pub(super) fn sample_interval(&self) -> u32 {
        self.sample_interval
    }

    /// Records the latencies of sampled messages.
    pub(super) fn record(&self, latencies: impl IntoIterator<Item = Duration>) {
        let mut histogram = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for latency in latencies {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Replaces `recent` by the latencies since the last call.
    pub(super) fn take_latencies(&self, recent: &mut Histogram<u64>) {
        recent.reset();
        std::mem::swap(recent, &mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Chooses the messages of one task whose latency is measured: the first, then one in `interval`.
pub(super) struct Sampler {
    interval: u32,
    left: u32,
}

impl Sampler {
    /// Whether the next message is one of them.
    #[inline]
    pub(super) fn choose(&mut self) -> bool {
        self.left -= 1;
        let is_sampled = self.left == 0;
        if is_sampled {
            self.left = self.interval;
        }
        is_sampled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_in_so_many_is_sampled_and_the_first_is() {
        let mut sampler = Recorder::new(1, 61).expect("valid bounds").sampler();
        let sampled: Vec<_> = (0..200).filter(|_| sampler.choose()).collect();
        assert_eq!(sampled, [0, 61, 122, 183]);
        let mut all = Recorder::new(1, 1).expect("valid bounds").sampler();
        assert_eq!((0..100).filter(|_| all.choose()).count(), 100);
    }

    #[test]
    fn samples_do_not_keep_step_with_batches() {
        for batch in [10, 100, 128, 1000, 1024] {
            let mut sampler = Recorder::new(1, SAMPLE_INTERVAL).expect("valid bounds").sampler();
            let mut is_hit = vec![false; batch];
            for number in 0..batch * SAMPLE_INTERVAL as usize {
                is_hit[number % batch] |= sampler.choose();
            }
            assert!(is_hit.iter().all(|hit| *hit), "every place of a batch of {batch} is sampled");
        }
    }

    #[test]
    fn counts_add_up_over_tasks_and_replace_those_of_the_same_task() {
        let recorder = Recorder::new(2, 1).expect("valid bounds");
        recorder.counters(0).set_done(5, 500);
        recorder.counters(0).set_done(7, 700);
        recorder.counters(0).set_not_done(1, 0);
        recorder.counters(1).set_done(10, 1000);
        recorder.counters(1).set_not_done(0, 3);
        assert_eq!(recorder.counts(), Counts { done: 17, failed: 1, pending: 3, bytes: 1700 });
    }

    #[test]
    fn latencies_are_taken_once() {
        let recorder = Recorder::new(1, 1).expect("valid bounds");
        let mut recent = latency_histogram().expect("valid bounds");
        recorder.record([Duration::from_micros(10), Duration::from_micros(20)]);
        recorder.take_latencies(&mut recent);
        assert_eq!((recent.len(), recent.min(), recent.max()), (2, 10, 20));
        recorder.take_latencies(&mut recent);
        assert_eq!(recent.len(), 0);
        recorder.record([Duration::from_micros(30)]);
        recorder.take_latencies(&mut recent);
        assert_eq!((recent.len(), recent.min(), recent.max()), (1, 30, 30));
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_highest() {
        let recorder = Recorder::new(1, 1).expect("valid bounds");
        let mut recent = latency_histogram().expect("valid bounds");
        recorder.record([Duration::ZERO, Duration::MAX]);
        recorder.take_latencies(&mut recent);
        assert_eq!((recent.len(), recent.min()), (2, 0));
        assert!(recent.max() >= LATENCY_MAX_US);
    }
}
