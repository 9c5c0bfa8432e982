//! The chart of a run: the distribution of latencies, and messages per second over time.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::report::{Point, Report};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 870.0;
const INK: &str = "#1f2933";
const GRID: &str = "#d9e2ec";
const BAR: &str = "#3e7cb1";
const CURVE: &str = "#c2542d";

/// Bars of the latency chart for each power of ten.
const BARS_PER_DECADE: f64 = 25.0;

/// One of the two charts, by its place on the page, from top to bottom.
struct Panel {
    top: f64,
    bottom: f64,
    title: &'static str,
    /// The value at the top.
    max: f64,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * value / self.max
    }

    fn frame(&self, out: &mut String) {
        text(out, LEFT, self.top - 14.0, "start", 15, self.title);
        for step in 0..=4 {
            let value = self.max * f64::from(step) / 4.0;
            let y = self.y(value);
            let _ = writeln!(out, r#"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="{GRID}"/>"#);
            text(out, LEFT - 8.0, y + 4.0, "end", 12, &short(value));
        }
    }
}

/// Draws the run.
pub(super) fn draw(title: &str, report: &Report) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
"#
    );
    text(&mut out, LEFT, 30.0, "start", 18, title);
    text(&mut out, LEFT, 52.0, "start", 12, &subtitle(report));
    distribution(&mut out, report.latencies());
    over_time(&mut out, report.points());
    out.push_str("</svg>\n");
    out
}

fn subtitle(report: &Report) -> String {
    let counts = report.counts();
    let sampled = match report.sample_interval() {
        1 => String::new(),
        interval => format!("; latency of 1 message in {interval}"),
    };
    format!(
        "{} messages in {:.3} s, {:.0} per second, {} failed{sampled}",
        counts.done,
        report.secs(),
        report.rate(),
        counts.failed
    )
}

/// Bars by latency on a logarithmic scale.
fn distribution(out: &mut String, latencies: &Histogram<u64>) {
    let mut bars: Vec<(i32, u64)> = Vec::new();
    for step in latencies.iter_recorded() {
        let us = step.value_iterated_to().max(1) as f64;
        let bar = (us.log10() * BARS_PER_DECADE).floor() as i32;
        match bars.last_mut().filter(|(last, _)| *last == bar) {
            Some((_, sum)) => *sum += step.count_at_value(),
            None => bars.push((bar, step.count_at_value())),
        }
    }
    let highest = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let panel = Panel { top: 100.0, bottom: 290.0, title: "Latency: samples by latency", max: nice(highest as f64) };
    panel.frame(out);
    // Powers of ten at the two ends of the axis.
    let power = |bar: i32| f64::from(bar) / BARS_PER_DECADE;
    let low = bars.first().map_or(0.0, |(bar, _)| power(*bar).floor());
    let high = bars.last().map_or(1.0, |(bar, _)| power(*bar + 1).ceil()).max(low + 1.0);
    let x_of_power = |power: f64| LEFT + (RIGHT - LEFT) * (power - low) / (high - low);
    for (bar, count) in &bars {
        let (from, to, y) = (x_of_power(power(*bar)), x_of_power(power(*bar + 1)), panel.y(*count as f64));
        let (width, height) = ((to - from - 0.6).max(0.8), panel.bottom - y);
        let _ =
            writeln!(out, r#"<rect x="{from:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{BAR}"/>"#);
    }
    for power in low as i32..=high as i32 {
        let label = time(10f64.powi(power));
        text(out, x_of_power(power.into()), panel.bottom + 18.0, "middle", 12, &label);
    }
    for (row, (name, quantile)) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].into_iter().enumerate() {
        let us = (latencies.value_at_quantile(quantile) as f64).max(1.0);
        let (x, top) = (x_of_power(us.log10()).clamp(LEFT, RIGHT), panel.top);
        let _ = writeln!(out, r#"<path d="M{x:.1} {top}V{}" stroke="{CURVE}" stroke-dasharray="4 3"/>"#, panel.bottom);
        let anchor = if x > RIGHT - 110.0 { "end" } else { "start" };
        let beside = if anchor == "end" { x - 4.0 } else { x + 4.0 };
        text(out, beside, top + 14.0 + 16.0 * row as f64, anchor, 12, &format!("{name} {}", time(us)));
    }
}

/// A curve of messages per second.
fn over_time(out: &mut String, points: &[Point]) {
    let highest = points.iter().map(|point| point.rate).fold(1.0, f64::max);
    let panel =
        Panel { top: 370.0, bottom: 560.0, title: "Throughput: messages per second over time", max: nice(highest) };
    panel.frame(out);
    let span = points.last().map_or(1.0, |point| point.secs).max(0.001);
    let x = |secs: f64| LEFT + (RIGHT - LEFT) * secs / span;
    let mut path = String::new();
    for (index, point) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let (x, y) = (x(point.secs), panel.y(point.rate));
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        if points.len() <= 60 {
            let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{CURVE}"/>"#);
        }
    }
    let _ = writeln!(out, r#"<path d="{path}" fill="none" stroke="{CURVE}" stroke-width="2"/>"#);
    for step in 0..=4u32 {
        let secs = span * f64::from(step) / 4.0;
        let label = if span < 10.0 { format!("{secs:.1} s") } else { format!("{secs:.0} s") };
        text(out, x(secs), panel.bottom + 18.0, "middle", 12, &label);
    }
}

/// The next round number, for the top of an axis.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

/// A count, as a label of an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e4 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

/// A time, with up to three decimals.
fn time(us: f64) -> String {
    let three = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{:.3}", value) };
    let trimmed = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match us {
        us if us >= 1e6 => format!("{} s", trimmed(three(us / 1e6))),
        us if us >= 1e3 => format!("{} ms", trimmed(three(us / 1e3))),
        us => format!("{us:.0} us"),
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">{escaped}</text>"#
    );
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::recorder::Recorder;
    use super::*;

    fn report(latencies: &[u64], seconds: u64) -> Report {
        let (recorder, start) = (Recorder::new(1, 61).expect("valid bounds"), Instant::now());
        let mut report = Report::new(start).expect("valid bounds");
        for second in 1..=seconds {
            recorder.counters(0).set_done(1000 * second, 0);
            recorder.record(latencies.iter().copied().map(Duration::from_micros));
            report.tick(&recorder, start + Duration::from_secs(second));
        }
        report.finish(&recorder, start + Duration::from_secs(seconds));
        report
    }

    #[test]
    fn a_chart_shows_percentiles_seconds_and_that_it_is_of_a_sample() {
        let chart = draw("a < b & c", &report(&[90, 90, 1500, 1500, 1500, 20_000], 3));
        for expected in ["a &lt; b &amp; c", "3000 messages in 3.000 s", "1 message in 61", "p50 1.5 ms", ">100 ms<"] {
            assert!(chart.contains(expected), "{expected} in {chart}");
        }
        // Three latencies apart, and the background.
        assert_eq!(chart.matches("<rect").count(), 4);
        assert_eq!(chart.matches("<circle").count(), 3);
    }

    #[test]
    fn a_chart_of_nothing_or_of_extremes_has_no_infinite_coordinates() {
        for report in [report(&[], 0), report(&[0], 1), report(&[0, 1, u64::MAX], 100)] {
            let chart = draw("t", &report);
            assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
        }
    }
}
