//! The report of a run: figures for people while it lasts, a line at the end for programs.

use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};

use super::recorder::{Counts, Recorder, latency_histogram};
use crate::progress::Figures;

/// The most seconds of throughput that are kept for the chart; a longer run shows its first day.
const POINTS_MAX: usize = 24 * 3600;

/// The end of a run adds a point to the chart if at least this much has passed since the last one: over a shorter time
/// a rate says little.
const POINT_MIN: Duration = Duration::from_millis(500);

/// Messages per second at a time of the run.
pub(super) struct Point {
    pub(super) secs: f64,
    pub(super) rate: f64,
}

pub(super) struct Report {
    start: Instant,
    /// The last time at which messages were found done.
    last: Instant,
    /// The last time the recorder was read, and what it said.
    read_at: Instant,
    counts: Counts,
    sample_interval: u32,
    latencies: Histogram<u64>,
    /// Latencies between the last two readings.
    recent: Histogram<u64>,
    /// When figures were last asked for, what was counted then, and the latencies since.
    shown_at: Instant,
    shown: Counts,
    unshown: Histogram<u64>,
    points: Vec<Point>,
}

impl Report {
    pub(super) fn new(start: Instant) -> Result<Self, CreationError> {
        Ok(Self {
            start,
            last: start,
            read_at: start,
            counts: Counts::default(),
            sample_interval: 1,
            latencies: latency_histogram()?,
            recent: latency_histogram()?,
            shown_at: start,
            shown: Counts::default(),
            unshown: latency_histogram()?,
            points: Vec::new(),
        })
    }

    /// Reads the recorder; messages per second since the last time.
    fn read(&mut self, recorder: &Recorder, now: Instant) -> f64 {
        let counts = recorder.counts();
        let secs = now.saturating_duration_since(self.read_at).as_secs_f64();
        let done = counts.done.saturating_sub(self.counts.done);
        if done > 0 {
            self.last = now;
        }
        (self.read_at, self.counts) = (now, counts);
        self.sample_interval = recorder.sample_interval();
        recorder.take_latencies(&mut self.recent);
        // Cannot overflow: both have the same bounds.
        self.latencies += &self.recent;
        self.unshown += &self.recent;
        if secs > 0.0 { done as f64 / secs } else { 0.0 }
    }

    fn add_point(&mut self, rate: f64) {
        if self.points.len() < POINTS_MAX {
            self.points.push(Point { secs: self.read_at.duration_since(self.start).as_secs_f64(), rate });
        }
    }

    /// Reads the recorder, and adds a point to the chart.
    pub(super) fn tick(&mut self, recorder: &Recorder, now: Instant) {
        let rate = self.read(recorder, now);
        self.add_point(rate);
    }

    /// The figures, as of the last reading; speeds and latencies are those since the last call.
    pub(super) fn figures(&mut self, now: Instant) -> Figures {
        let secs = now.saturating_duration_since(self.shown_at).as_secs_f64();
        let per_second = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
        let latencies = Some(&self.unshown).filter(|latencies| !latencies.is_empty());
        let quantile = |share| latencies.map(|all| Duration::from_micros(all.value_at_quantile(share)));
        let figures = Figures {
            elapsed: now.saturating_duration_since(self.start),
            messages: self.counts.done,
            messages_per_s: per_second(self.counts.done.saturating_sub(self.shown.done)),
            bytes_per_s: per_second(self.counts.bytes.saturating_sub(self.shown.bytes)),
            p50: quantile(0.5),
            p99: quantile(0.99),
            waiting: ("pending", self.counts.pending),
            failed: self.counts.failed,
        };
        self.unshown.reset();
        (self.shown_at, self.shown) = (now, self.counts);
        figures
    }

    /// Reads the recorder for the last time.
    pub(super) fn finish(&mut self, recorder: &Recorder, now: Instant) {
        let since = now.saturating_duration_since(self.read_at);
        let rate = self.read(recorder, now);
        if since >= POINT_MIN || self.points.is_empty() {
            self.add_point(rate);
        }
    }

    /// From the start to the last message.
    pub(super) fn secs(&self) -> f64 {
        self.last.saturating_duration_since(self.start).as_secs_f64()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn per_second(&self, count: u64) -> f64 {
        let secs = self.secs();
        if secs > 0.0 { count as f64 / secs } else { 0.0 }
    }

    /// Messages per second over the whole run.
    pub(super) fn rate(&self) -> f64 {
        self.per_second(self.counts.done)
    }

    pub(super) fn sample_interval(&self) -> u32 {
        self.sample_interval
    }

    pub(super) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The result, as `name=value` words.
    pub(super) fn result_line(&self) -> String {
        let us = |quantile| self.latencies.value_at_quantile(quantile);
        format!(
            "n={} secs={:.3} msgs_per_s={:.0} mb_per_s={:.1} p50_us={} p99_us={} p999_us={} max_us={} samples={} \
             sample_interval={} failed={}",
            self.counts.done,
            self.secs(),
            self.rate(),
            self.per_second(self.counts.bytes) / 1e6,
            us(0.5),
            us(0.99),
            us(0.999),
            self.latencies.max(),
            self.latencies.len(),
            self.sample_interval,
            self.counts.failed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// The value of a word of a line.
    fn word(line: &str, name: &str) -> f64 {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} in {line}")).parse().expect("a number")
    }

    #[test]
    fn seconds_merge_into_the_percentiles_of_the_run() {
        let (recorder, start) = (Recorder::new(1, 10).expect("valid bounds"), Instant::now());
        let mut report = Report::new(start).expect("valid bounds");
        // Ten seconds of a hundred samples each: 1 to 100 us, 101 to 200 us, and so on to 1000 us.
        for second in 1..=10 {
            recorder.record((100 * (second - 1) + 1..=100 * second).map(Duration::from_micros));
            recorder.counters(0).set_done(1000 * second, 100_000 * second);
            report.tick(&recorder, after(start, 1000 * second));
            let (min, max) = (report.recent.min(), report.recent.max());
            assert_eq!((min, max), (100 * (second - 1) + 1, 100 * second), "a second has its own latencies");
        }
        report.finish(&recorder, after(start, 10_000));
        let line = report.result_line();
        assert_eq!((word(&line, "samples"), word(&line, "sample_interval")), (1000.0, 10.0), "{line}");
        assert_eq!((word(&line, "p50_us"), word(&line, "p99_us")), (500.0, 990.0), "{line}");
        assert_eq!((word(&line, "p999_us"), word(&line, "max_us")), (999.0, 1000.0), "{line}");
        assert_eq!((word(&line, "n"), word(&line, "msgs_per_s"), word(&line, "mb_per_s")), (10_000.0, 1000.0, 0.1));
        assert_eq!(report.points().len(), 10);
    }

    #[test]
    fn a_sample_gives_the_percentiles_of_all_messages() {
        let recorder = Recorder::new(1, 61).expect("valid bounds");
        let mut sampler = recorder.sampler();
        // One message in a hundred is slow, in runs of ten.
        let latency = |message: u64| if message % 1000 < 10 { 50_000 } else { 100 + message % 100 };
        let sampled: Vec<_> = (0..1_000_000).filter(|_| sampler.choose()).map(latency).collect();
        recorder.record(sampled.iter().copied().map(Duration::from_micros));
        let start = Instant::now();
        let mut report = Report::new(start).expect("valid bounds");
        report.finish(&recorder, after(start, 1000));
        let line = report.result_line();
        assert_eq!(word(&line, "samples"), 16_394.0, "{line}");
        assert!((148.0..=152.0).contains(&word(&line, "p50_us")), "{line}");
        assert!((49_950.0..=50_050.0).contains(&word(&line, "p999_us")), "{line}");
    }

    #[test]
    fn percentiles_keep_three_digits() {
        let (recorder, start) = (Recorder::new(1, 1).expect("valid bounds"), Instant::now());
        let mut report = Report::new(start).expect("valid bounds");
        for us in [7, 1234, 98_765, 3_600_000_000] {
            recorder.record([Duration::from_micros(us)]);
            report.finish(&recorder, after(start, 1));
            let max = report.latencies().max() as f64;
            assert!((max - us as f64) / us as f64 <= 0.001, "{us} us is reported as {max} us");
        }
    }

    #[test]
    fn an_empty_run_has_a_result() {
        let (recorder, start) = (Recorder::new(1, 61).expect("valid bounds"), Instant::now());
        let mut report = Report::new(start).expect("valid bounds");
        report.finish(&recorder, start);
        let expected = "n=0 secs=0.000 msgs_per_s=0 mb_per_s=0.0 p50_us=0 p99_us=0 p999_us=0 max_us=0 samples=0 \
                        sample_interval=61 failed=0";
        assert_eq!(report.result_line(), expected);
    }

    #[test]
    fn the_time_after_the_last_message_does_not_count() {
        let (recorder, start) = (Recorder::new(1, 1).expect("valid bounds"), Instant::now());
        let mut report = Report::new(start).expect("valid bounds");
        recorder.counters(0).set_done(500, 50_000);
        report.tick(&recorder, after(start, 1000));
        report.tick(&recorder, after(start, 2000));
        report.finish(&recorder, after(start, 2100));
        assert_eq!((report.secs(), report.rate()), (1.0, 500.0));
        let rates: Vec<_> = report.points().iter().map(|point| point.rate).collect();
        assert_eq!(rates, [500.0, 0.0], "a tenth of a second is no point of the chart");
    }
}
