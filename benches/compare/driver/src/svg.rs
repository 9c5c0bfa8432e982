//! The chart: bars, with a background and colours of their own, so that it reads the same on light and dark pages.

use std::fmt::Write;

use crate::ONCE;
use crate::latencies::RATES;
use crate::results::Results;
use crate::tables::{millions, ratio, title};
use crate::works::{BROKER_WORKS, MAIN_WORKS, WORKS};

pub(crate) const WIDTH: f64 = 860.0;
pub(crate) const MARGIN: f64 = 24.0;
const GUTTER: f64 = 28.0;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - GUTTER) / 2.0;
const NAME_WIDTH: f64 = 118.0;
const VALUE_WIDTH: f64 = 66.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 21.0;
const PANEL_HEIGHT: f64 = 34.0 + ONCE.len() as f64 * BAR_STEP + 14.0;
pub(crate) const HEAD_HEIGHT: f64 = 76.0;

pub(crate) const NOTE_STYLE: &str = "font-size=\"12\" fill=\"#57606a\"";

/// One client's bar.
struct Bar {
    subject: &'static str,
    value: f64,
    label: String,
}

/// The whole picture.
pub(crate) fn chart(results: &Results) -> String {
    let mut panels: Vec<(String, String, Vec<Bar>)> = Vec::new();
    let drains = BROKER_WORKS.iter().filter(|work| work.batch > 1);
    for work in WORKS[..MAIN_WORKS].iter().chain(drains) {
        let bar = |subject: &&'static str| {
            let value = results.number(work.section, work.name, subject, "rate")?;
            Some(Bar { subject, value, label: format!("{}/s", millions(value)) })
        };
        let note = ratio(results, work, "pulsar-native")
            .map(|ratio| format!("{ratio:.1} x the best other"))
            .unwrap_or_default();
        let name = if work.section == "broker" { format!("Pulsar: {}", work.name) } else { work.name.to_owned() };
        panels.push((name, note, ONCE.iter().filter_map(bar).collect()));
    }
    for rate in RATES {
        let bar = |subject: &&'static str| {
            let value = results.number("latency", &rate.to_string(), subject, "p99_ns")? / 1e6;
            Some(Bar { subject, value, label: format!("{value:.1} ms") })
        };
        let name = format!("Pulsar: p99 latency at {},000 msg/s", rate / 1000);
        panels.push((name, "less is better".to_owned(), ONCE.iter().filter_map(bar).collect()));
    }
    let height = HEAD_HEIGHT + panels.len().div_ceil(2) as f64 * PANEL_HEIGHT + 12.0;
    let title = "Messages per second, one connection, 100-byte messages";
    let mut out = frame(results, "sink", height, title, "To scale within each panel; Pulsar: a real one, else a sink.");
    for (number, (name, note, bars)) in panels.iter().enumerate() {
        let x = MARGIN + (number % 2) as f64 * (PANEL_WIDTH + GUTTER);
        let y = HEAD_HEIGHT + (number / 2) as f64 * PANEL_HEIGHT;
        panel(&mut out, (x, y), name, note, bars);
    }
    out.push_str("</svg>\n");
    out
}

/// The head of a picture that shows a section.
pub(crate) fn frame(results: &Results, section: &str, height: f64, title: &str, note: &str) -> String {
    let of_run = |name| results.text(section, "run", "", name).unwrap_or_default();
    let (date, machine) = (of_run("date"), of_run("machine"));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\" role=\"img\" aria-label=\"{title}\">\n"
    );
    let (w, h) = (WIDTH - 1.0, height - 1.0);
    let _ = writeln!(
        out,
        "<rect x=\"0.5\" y=\"0.5\" width=\"{w}\" height=\"{h}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>"
    );
    text(&mut out, (MARGIN, 34.0), "font-size=\"17\" font-weight=\"600\" fill=\"#1f2328\"", title);
    let note = format!("{note} {machine}, {date}.");
    text(&mut out, (MARGIN, 55.0), NOTE_STYLE, &note);
    out
}

fn panel(out: &mut String, (x, y): (f64, f64), name: &str, note: &str, bars: &[Bar]) {
    text(out, (x, y + 20.0), "font-size=\"13\" font-weight=\"600\" fill=\"#1f2328\"", name);
    let right = "font-size=\"12\" fill=\"#57606a\" text-anchor=\"end\"";
    text(out, (x + PANEL_WIDTH, y + 20.0), right, note);
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH;
    for (number, bar) in bars.iter().enumerate() {
        let top = y + 34.0 + number as f64 * BAR_STEP;
        let base = top + BAR_HEIGHT - 4.0;
        let (colour, weight) = if bar.subject == "pulsar-native" { ("#1a7f5a", "600") } else { ("#8c959f", "400") };
        let name_style = format!("font-size=\"12\" font-weight=\"{weight}\" fill=\"#1f2328\" text-anchor=\"end\"");
        text(out, (x + NAME_WIDTH - 8.0, base), &name_style, title(bar.subject));
        let width = (bar.value / most * room).max(1.5);
        let left = x + NAME_WIDTH;
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{colour}\"/>"
        );
        let value_style = format!("font-size=\"12\" font-weight=\"{weight}\" fill=\"#1f2328\"");
        text(out, (left + width + 6.0, base), &value_style, &bar.label);
    }
}

pub(crate) fn text(out: &mut String, (x, y): (f64, f64), style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>");
}
