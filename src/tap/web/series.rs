//! Ledgers over time, in a fixed number of buckets whose width grows with the time that is seen.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::entries::{TICK_MICROS, Ticks};
use crate::tap::{Endpoint, FrameObservation, Ledger};

/// Buckets of each line.
const BUCKETS: usize = 240;

/// Endpoints that are charted; those that come later are not.
const ENDPOINTS_MAX: usize = 400;

/// A value within a bucket.
#[derive(Debug, Clone, Copy)]
struct Range {
    least: i64,
    most: i64,
    last: i64,
}

/// A value in each bucket that it was noted in.
#[derive(Debug, Clone, Default)]
struct Line(Vec<Option<Range>>);

impl Line {
    fn note(&mut self, bucket: usize, value: i64) {
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, None);
        }
        let noted = Range { least: value, most: value, last: value };
        self.0[bucket] = Some(self.0[bucket].map_or(noted, |before| before.and(noted)));
    }

    fn halve(&mut self) {
        let merge = |pair: &[Option<Range>]| pair.iter().copied().flatten().reduce(Range::and);
        self.0 = self.0.chunks(2).map(merge).collect();
    }

    fn json(&self, name: &str, unit: &str) -> Value {
        let side = |pick: fn(Range) -> i64| self.0.iter().map(|range| range.map(pick)).collect::<Vec<_>>();
        let (least, most, last) = (side(|range| range.least), side(|range| range.most), side(|range| range.last));
        json!({ "name": name, "unit": unit, "least": least, "most": most, "last": last })
    }
}

impl Range {
    /// The range of both, of which `later` is the later one.
    fn and(self, later: Self) -> Self {
        Self { least: self.least.min(later.least), most: self.most.max(later.most), last: later.last }
    }
}

#[derive(Debug)]
struct Charted {
    topic: Option<String>,
    /// The most permits that were open: what the client has room for.
    room: i64,
    lines: [Line; 3],
}

/// Names and units of the lines: `pending sends`, microseconds from SEND to receipt, and none.
const OF_PRODUCER: &[(&str, &str)] = &[("pending sends", ""), ("send to receipt", "µs")];

/// `queue` is what was delivered and has not been replaced by a permit: the client hands it out before it gives one.
const OF_CONSUMER: &[(&str, &str)] = &[("permits", ""), ("queue", ""), ("unacknowledged", "")];

impl Charted {
    fn new(frame: &FrameObservation) -> Self {
        let topic = frame.topic.as_deref().map(|topic| super::record::cut(topic).into_owned());
        Self { topic, room: 0, lines: Default::default() }
    }

    fn note(&mut self, bucket: usize, ledger: Ledger, frame: &FrameObservation) {
        let [first, second, third] = &mut self.lines;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        match ledger {
            Ledger::Producer { pending_sends, .. } => {
                first.note(bucket, number(pending_sends));
                if let Some(answered) = frame.answers.filter(|answered| answered.command == "SEND") {
                    second.note(bucket, number(answered.after.as_micros() as u64));
                }
            }
            Ledger::Consumer { permits, unacknowledged, .. } => {
                self.room = self.room.max(permits);
                first.note(bucket, permits);
                second.note(bucket, self.room.saturating_sub(permits));
                third.note(bucket, number(unacknowledged));
            }
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Series {
    /// Ticks of one bucket.
    width: Ticks,
    frames: Vec<u64>,
    errors: Vec<u64>,
    charted: BTreeMap<(u64, Endpoint), Charted>,
}

impl Default for Series {
    fn default() -> Self {
        Self { width: 1, frames: Vec::new(), errors: Vec::new(), charted: BTreeMap::new() }
    }
}

impl Series {
    fn bucket(&mut self, at: Ticks) -> usize {
        while (at / self.width) as usize >= BUCKETS {
            self.width *= 2;
            let halved = |counts: &Vec<u64>| counts.chunks(2).map(|pair| pair.iter().sum()).collect();
            self.frames = halved(&self.frames);
            self.errors = halved(&self.errors);
            for charted in self.charted.values_mut() {
                charted.lines.iter_mut().for_each(Line::halve);
            }
        }
        (at / self.width) as usize
    }

    /// Something happened.
    pub(super) fn count(&mut self, at: Ticks, is_error: bool) {
        let bucket = self.bucket(at);
        if self.frames.len() <= bucket {
            self.frames.resize(bucket + 1, 0);
            self.errors.resize(bucket + 1, 0);
        }
        self.frames[bucket] += 1;
        self.errors[bucket] += u64::from(is_error);
    }

    /// A frame with a ledger.
    pub(super) fn note(&mut self, at: Ticks, connection: u64, frame: &FrameObservation) {
        let (Some(endpoint), Some(ledger)) = (frame.endpoint, frame.ledger) else { return };
        let bucket = self.bucket(at);
        let is_full = self.charted.len() >= ENDPOINTS_MAX;
        if is_full && !self.charted.contains_key(&(connection, endpoint)) {
            return;
        }
        let charted = self.charted.entry((connection, endpoint)).or_insert_with(|| Charted::new(frame));
        charted.note(bucket, ledger, frame);
    }

    /// `width` of a bucket in microseconds, the `frames` and `errors` in each, and the `endpoints` with their lines.
    pub(super) fn json(&self) -> Value {
        let endpoints = self.charted.iter().map(|((connection, endpoint), charted)| {
            let names = if matches!(endpoint, Endpoint::Producer(_)) { OF_PRODUCER } else { OF_CONSUMER };
            let lines = charted.lines.iter().zip(names).map(|(line, (name, unit))| line.json(name, unit));
            let lines: Vec<_> = lines.collect();
            let (endpoint, topic) = (endpoint.to_string(), &charted.topic);
            json!({ "connection": connection, "endpoint": endpoint, "topic": topic, "lines": lines })
        });
        let endpoints: Vec<_> = endpoints.collect();
        json!({
            "width": u64::from(self.width) * TICK_MICROS,
            "buckets": BUCKETS,
            "frames": self.frames,
            "errors": self.errors,
            "endpoints": endpoints,
        })
    }
}
