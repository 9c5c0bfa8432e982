//! A picture of one run: how latencies are spread, and messages per second over time.

use std::fmt::Write;

use crate::live::{Histogram, Recorder};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 870.0;
const INK: &str = "#1f2933";
const GRID: &str = "#d9e2ec";
const BAR: &str = "#3e7cb1";
const CURVE: &str = "#c2542d";

/// One plot's place, from top to bottom.
struct Panel {
    top: f64,
    bottom: f64,
    title: &'static str,
    /// The highest value.
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
pub(crate) fn draw(title: &str, recorder: &Recorder) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">
<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>
"#
    );
    text(&mut out, LEFT, 30.0, "start", 18, title);
    text(&mut out, LEFT, 52.0, "start", 12, &recorder.last_line());
    histogram(&mut out, &recorder.latencies);
    over_time(&mut out, &recorder.per_second);
    out.push_str("</svg>\n");
    out
}

/// Bars by latency on a logarithmic scale, four buckets of the histogram to a bar.
fn histogram(out: &mut String, latencies: &Histogram) {
    const MERGED: usize = 4;
    let mut bars: Vec<(usize, u64)> = Vec::new();
    for (bucket, count) in latencies.filled() {
        match bars.last_mut().filter(|(last, _)| *last == bucket / MERGED) {
            Some((_, sum)) => *sum += count,
            None => bars.push((bucket / MERGED, count)),
        }
    }
    let highest = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let panel = Panel { top: 100.0, bottom: 290.0, title: "Latency: messages by latency", max: nice(highest as f64) };
    panel.frame(out);
    let floor = |bar: usize| (Histogram::floor_us(bar * MERGED) as f64).max(1.0);
    let low = bars.first().map_or(1.0, |(bar, _)| floor(*bar)).log10().floor();
    let high = bars.last().map_or(1.0, |(bar, _)| floor(*bar + 1)).log10().ceil().max(low + 1.0);
    let x = |us: f64| LEFT + (RIGHT - LEFT) * (us.log10() - low) / (high - low);
    for (bar, count) in &bars {
        let (from, to, y) = (x(floor(*bar)), x(floor(*bar + 1)), panel.y(*count as f64));
        let (width, height) = ((to - from - 0.6).max(0.8), panel.bottom - y);
        let _ =
            writeln!(out, r#"<rect x="{from:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{BAR}"/>"#);
    }
    let mut power = low;
    while power <= high {
        text(out, x(10f64.powf(power)), panel.bottom + 18.0, "middle", 12, &time(10f64.powf(power)));
        power += 1.0;
    }
    for (row, (name, part)) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].into_iter().enumerate() {
        let us = (latencies.quantile_us(part) as f64).max(1.0);
        let (x, top) = (x(us).clamp(LEFT, RIGHT), panel.top);
        let _ = writeln!(out, r#"<path d="M{x:.1} {top}V{}" stroke="{CURVE}" stroke-dasharray="4 3"/>"#, panel.bottom);
        let anchor = if x > RIGHT - 110.0 { "end" } else { "start" };
        let beside = if anchor == "end" { x - 4.0 } else { x + 4.0 };
        text(out, beside, top + 14.0 + 16.0 * row as f64, anchor, 12, &format!("{name} {}", time(us)));
    }
}

/// A curve of messages per second. The last second is rarely a whole one and is left out where there are others.
fn over_time(out: &mut String, per_second: &[u64]) {
    let whole = if per_second.len() > 2 { &per_second[..per_second.len() - 1] } else { per_second };
    let highest = whole.iter().copied().max().unwrap_or(1);
    let panel =
        Panel { top: 370.0, bottom: 560.0, title: "Throughput: messages per second", max: nice(highest as f64) };
    panel.frame(out);
    let span = (whole.len().max(2) - 1) as f64;
    let x = |second: usize| LEFT + (RIGHT - LEFT) * second as f64 / span;
    let mut path = String::new();
    for (second, count) in whole.iter().enumerate() {
        let command = if second == 0 { 'M' } else { 'L' };
        let (x, y) = (x(second), panel.y(*count as f64));
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        if whole.len() <= 60 {
            let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{CURVE}"/>"#);
        }
    }
    let _ = writeln!(out, r#"<path d="{path}" fill="none" stroke="{CURVE}" stroke-width="2"/>"#);
    let mut seconds: Vec<_> = (0..=4u32).map(|step| (span * f64::from(step) / 4.0).round()).collect();
    seconds.dedup();
    for second in seconds {
        text(out, LEFT + (RIGHT - LEFT) * second / span, panel.bottom + 18.0, "middle", 12, &format!("{second} s"));
    }
}

/// A round number not below `value`.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e4 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

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
