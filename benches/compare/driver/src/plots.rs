//! The chart of growth: small multiples, a column for what grows, a row for what it costs, both scales logarithmic. All
//! panels of a row share their scale.

use std::fmt::Write;

use crate::ONCE;
use crate::results::Results;
use crate::svg::{HEAD_HEIGHT, MARGIN, NOTE_STYLE, WIDTH, frame, text};
use crate::tables::title;
use crate::works::{Axis, COUNTS, GROWTH};

/// A colour for each of `ONCE`, told apart also without red or green.
const COLOURS: [&str; ONCE.len()] = ["#1a7f5a", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d1f", "#6e7781"];

/// A row: its title, the name of its figures, what one of its unit is of these, and the labels of powers of ten from
/// the first, which is that power.
struct Measure {
    title: &'static str,
    name: &'static str,
    unit: f64,
    power: i32,
    labels: &'static [&'static str],
}

const MEASURES: [Measure; 3] = [
    Measure {
        title: "Messages per second",
        name: "rate",
        unit: 1.0,
        power: 2,
        labels: &["100", "1 k", "10 k", "100 k", "1 M", "10 M", "100 M"],
    },
    Measure {
        title: "CPU per message, microseconds",
        name: "cpu_ns",
        unit: 1e3,
        power: -2,
        labels: &["0.01", "0.1", "1", "10", "100", "1,000", "10,000"],
    },
    Measure {
        title: "Resident memory, MiB",
        name: "rss_kib",
        unit: 1024.0,
        power: 0,
        labels: &["1", "10", "100", "1,000", "10,000"],
    },
];

const LEGEND_HEIGHT: f64 = 46.0;
const LABEL_WIDTH: f64 = 40.0;
const GUTTER: f64 = 14.0;
const COLUMN_WIDTH: f64 =
    (WIDTH - 2.0 * MARGIN - LABEL_WIDTH - (GROWTH.len() - 1) as f64 * GUTTER) / GROWTH.len() as f64;
const PLOT_HEIGHT: f64 = 120.0;
const ROW_HEIGHT: f64 = PLOT_HEIGHT + 58.0;
const DOT: f64 = 2.5;

/// The whole picture.
pub(crate) fn chart(results: &Results) -> String {
    let height = HEAD_HEIGHT + LEGEND_HEIGHT + MEASURES.len() as f64 * ROW_HEIGHT;
    let note = "100-byte messages to and from a sink, one connection; both scales are logarithmic.";
    let mut out = frame(results, "growth", height, "As there are more producers, partitions and topics", note);
    for (number, (client, colour)) in ONCE.iter().zip(COLOURS).enumerate() {
        let (x, y) = (MARGIN + number as f64 * 136.0, HEAD_HEIGHT + 10.0);
        line(&mut out, &[(x, y - 4.0), (x + 18.0, y - 4.0)], colour, 2.5);
        text(&mut out, (x + 24.0, y), "font-size=\"12\" fill=\"#1f2328\"", title(client));
    }
    for (number, axis) in GROWTH.iter().enumerate() {
        let middle = left_of(number) + COLUMN_WIDTH / 2.0;
        let style = "font-size=\"12\" font-weight=\"600\" fill=\"#1f2328\" text-anchor=\"middle\"";
        text(&mut out, (middle, HEAD_HEIGHT + LEGEND_HEIGHT - 10.0), style, axis.title);
    }
    for (number, measure) in MEASURES.iter().enumerate() {
        row(&mut out, results, measure, HEAD_HEIGHT + LEGEND_HEIGHT + number as f64 * ROW_HEIGHT);
    }
    out.push_str("</svg>\n");
    out
}

fn left_of(column: usize) -> f64 {
    MARGIN + LABEL_WIDTH + column as f64 * (COLUMN_WIDTH + GUTTER)
}

fn row(out: &mut String, results: &Results, measure: &Measure, top: f64) {
    text(out, (MARGIN, top + 12.0), NOTE_STYLE, measure.title);
    let top = top + 22.0;
    let logarithms = |axis: &Axis, client: &str| -> Vec<Option<f64>> {
        let value = |name| results.number("growth", name, client, measure.name);
        axis.works.iter().map(|work| Some((value(work.name)? / measure.unit).log10())).collect()
    };
    let lines: Vec<Vec<Vec<Option<f64>>>> =
        GROWTH.iter().map(|axis| ONCE.map(|client| logarithms(axis, client)).into()).collect();
    let all = || lines.iter().flatten().flatten().flatten().copied();
    let (low, high) = (all().fold(f64::MAX, f64::min).floor(), all().fold(f64::MIN, f64::max).ceil());
    if low >= high {
        return;
    }
    let y_of = |logarithm: f64| top + PLOT_HEIGHT * (high - logarithm) / (high - low);
    let x_of = |left: f64, place: usize| left + 8.0 + place as f64 * (COLUMN_WIDTH - 16.0) / (COUNTS.len() - 1) as f64;
    for power in low as i32..=high as i32 {
        let y = y_of(f64::from(power));
        for column in 0..GROWTH.len() {
            line(out, &[(left_of(column), y), (left_of(column) + COLUMN_WIDTH, y)], "#d8dee4", 1.0);
        }
        let label = usize::try_from(power - measure.power).ok().and_then(|place| measure.labels.get(place));
        let style = "font-size=\"11\" fill=\"#57606a\" text-anchor=\"end\"";
        text(out, (left_of(0) - 6.0, y + 4.0), style, label.unwrap_or(&""));
    }
    for (column, clients) in lines.iter().enumerate() {
        let left = left_of(column);
        for (place, label) in ["1", "10", "100", "1,000"].iter().enumerate() {
            let style = "font-size=\"11\" fill=\"#57606a\" text-anchor=\"middle\"";
            text(out, (x_of(left, place), top + PLOT_HEIGHT + 16.0), style, label);
        }
        // This client's line comes last, on top.
        for (values, colour) in clients.iter().zip(COLOURS).rev() {
            let points: Vec<(f64, f64)> = values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| Some((x_of(left, place), y_of((*value)?))))
                .collect();
            line(out, &points, colour, if colour == COLOURS[0] { 2.5 } else { 1.8 });
            for (x, y) in points {
                let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\" fill=\"{colour}\"/>");
            }
        }
    }
}

fn line(out: &mut String, points: &[(f64, f64)], colour: &str, width: f64) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        points.join(" ")
    );
}
