//! Observations by number: what is needed to find and to fold them in memory, what they say in a file.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::links::{Link, Links, Why};
use super::record::{self, Record};
use super::series::Series;
use super::spill::Spill;
use super::view::{Page, Views};
use crate::tap::{Endpoint, FrameObservation, Observation, ObservedEvent};

/// Time since the first observation, in units of [`TICK_MICROS`].
pub(super) type Ticks = u32;

/// What 32 bits count for five days.
pub(super) const TICK_MICROS: u64 = 100;

/// Observations that are kept: 16 bytes of memory each.
const OBSERVATIONS_MAX: usize = 8_000_000;

/// Bytes of the file behind them.
const SPILL_BYTES_MAX: u64 = 8 << 30;

/// Entries of one piece of memory, so that growth copies nothing.
const PIECE: usize = 1 << 14;

/// Records that are written as one, and read as one.
const BLOCK: usize = 128;

/// Connections whose addresses are told; of later ones only the number is.
const CONNECTIONS_MAX: usize = 5_000;

/// Connections with an endpoint and a topic; what comes beyond them has none.
const SUBJECTS_MAX: usize = 100_000;

/// Records on either side that are searched for the life of a message.
const LIFE_RECORDS: u32 = 50_000;

/// The most steps of a life that are told.
const LIFE_STEPS: usize = 60;

const NONE: u32 = u32::MAX;

/// What is kept in memory of an observation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) at: Ticks,
    pub(super) subject: u32,
    /// The observation that answers or follows it, or [`NONE`].
    after: u32,
    /// Index of [`Store::kinds`].
    pub(super) kind: u8,
    flags: u8,
}

impl Entry {
    const UP: u8 = 1;
    const ERROR: u8 = 2;
    const PLAIN: u8 = 4;

    pub(super) fn is_up(self) -> bool {
        self.flags & Self::UP != 0
    }

    /// A violation, or a frame that refuses something.
    pub(super) fn is_error(self) -> bool {
        self.flags & Self::ERROR != 0
    }

    /// A frame of the data path that nothing is remarkable about: runs of them are folded.
    pub(super) fn is_plain(self) -> bool {
        self.flags & Self::PLAIN != 0
    }
}

/// What an observation is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) connection: u64,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) topic: Option<Arc<str>>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Store {
    began: Option<SystemTime>,
    pieces: Vec<Vec<Entry>>,
    pub(super) kinds: Vec<&'static str>,
    pub(super) subjects: Vec<Subject>,
    subject_numbers: BTreeMap<Subject, u32>,
    connections: Vec<Value>,
    links: Links,
    series: Series,
    views: Views,
    spill: Spill,
    /// Places and lengths of the full blocks.
    blocks: Vec<(u64, u32)>,
    /// The records of the last block, a line each.
    block: Vec<u8>,
    /// Observations beyond [`OBSERVATIONS_MAX`].
    left_out: u64,
    errors: u64,
}

impl Store {
    /// An empty one.
    ///
    /// # Errors
    /// No temporary file can be made.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            began: None,
            pieces: Vec::new(),
            kinds: Vec::new(),
            subjects: Vec::new(),
            subject_numbers: BTreeMap::new(),
            connections: Vec::new(),
            links: Links::default(),
            series: Series::default(),
            views: Views::default(),
            spill: Spill::new(SPILL_BYTES_MAX)?,
            blocks: Vec::new(),
            block: Vec::new(),
            left_out: 0,
            errors: 0,
        })
    }

    pub(super) fn len(&self) -> u32 {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        (full + self.pieces.last().map_or(0, Vec::len)) as u32
    }

    /// What was taken so far, left out or not.
    pub(super) fn taken(&self) -> u64 {
        u64::from(self.len()) + self.left_out
    }

    pub(super) fn entry(&self, n: u32) -> Option<Entry> {
        self.pieces.get(n as usize / PIECE)?.get(n as usize % PIECE).copied()
    }

    /// Takes what comes next.
    ///
    /// # Errors
    /// The temporary file cannot be written; then nothing more can be kept.
    pub(super) fn take(&mut self, seen: &Observation) -> io::Result<()> {
        let n = self.len();
        if n as usize >= OBSERVATIONS_MAX {
            self.left_out += 1;
            return Ok(());
        }
        let began = *self.began.get_or_insert(seen.at);
        let micros = seen.at.duration_since(began).unwrap_or_default().as_micros() as u64;
        let at = Ticks::try_from(micros / TICK_MICROS).unwrap_or(Ticks::MAX);
        let mut record = Record::new(seen);
        record.put("n", n);
        record.put("at", micros);
        let mut is_plain = false;
        if let ObservedEvent::Frame(frame) = &seen.event {
            let link = self.take_frame(n, at, seen.connection, frame, &mut record)?;
            is_plain = is_ordinary(frame) && !link.is_some_and(|link| matches!(link.why, Why::Asked | Why::Again));
        }
        self.meet(seen);
        self.errors += u64::from(seen.is_error());
        self.series.count(at, seen.is_error());
        let entry = self.sum_up(seen, at, is_plain);
        self.push(entry);
        self.block.extend_from_slice(record.end().as_bytes());
        self.block.push(b'\n');
        if self.len() as usize % BLOCK == 0 {
            self.end_block()?;
        }
        Ok(())
    }

    /// Keeps its bytes, and ties it to earlier ones.
    fn take_frame(
        &mut self,
        n: u32,
        at: Ticks,
        connection: u64,
        frame: &FrameObservation,
        record: &mut Record,
    ) -> io::Result<Option<Link>> {
        if let Some(bytes) = &frame.bytes {
            if let Some(place) = self.spill.append(bytes)? {
                record.put("place", format_args!("[{place},{}]", bytes.len()));
            }
        }
        let (link, ids) = self.links.take(n, connection, frame);
        if let Some(link) = link {
            self.link(n, link);
            record.put("before", format_args!("{{\"n\":{},\"why\":\"{}\"}}", link.to, link.why.name()));
        }
        if ids.len() > 1 || frame.message_id.is_none() && !ids.is_empty() {
            let ids: Vec<_> = ids.into_iter().map(record::message_id).collect();
            record.put("ids", json!(ids));
        }
        self.series.note(at, connection, frame);
        Ok(link)
    }

    fn push(&mut self, entry: Entry) {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(entry);
        }
    }

    /// Without a place in the file for it, an empty one stands for the block.
    fn end_block(&mut self) -> io::Result<()> {
        let place = self.spill.append(&self.block)?;
        let len = place.map_or(0, |_| self.block.len() as u32);
        self.blocks.push((place.unwrap_or_default(), len));
        self.block.clear();
        Ok(())
    }

    fn link(&mut self, n: u32, link: Link) {
        let to =
            self.pieces.get_mut(link.to as usize / PIECE).and_then(|piece| piece.get_mut(link.to as usize % PIECE));
        if let Some(entry) = to {
            entry.after = n;
        }
    }

    /// Remembers the two ends of a connection.
    fn meet(&mut self, seen: &Observation) {
        match &seen.event {
            ObservedEvent::Opened { client, broker, .. } if self.connections.len() < CONNECTIONS_MAX => {
                let (client, broker) = (client.to_string(), broker.to_string());
                self.connections.push(json!({ "connection": seen.connection, "client": client, "broker": broker }));
            }
            _ => {}
        }
    }

    fn sum_up(&mut self, seen: &Observation, at: Ticks, is_plain: bool) -> Entry {
        let mut flags = if is_plain { Entry::PLAIN } else { 0 };
        let (mut endpoint, mut topic, mut is_up) = (None, None, false);
        let kind = match &seen.event {
            ObservedEvent::Frame(frame) => {
                (endpoint, topic, is_up) = (frame.endpoint, frame.topic.clone(), record::is_up(frame.direction));
                frame.command
            }
            ObservedEvent::Violation(violation) => {
                (endpoint, topic) = (violation.endpoint, violation.topic.clone());
                "violation"
            }
            ObservedEvent::Opened { .. } => "opened",
            ObservedEvent::Missing { .. } => "missing",
            ObservedEvent::Skipped { .. } => "skipped",
            ObservedEvent::OtherProtocol { .. } => "other",
            ObservedEvent::Closed { direction, .. } => {
                is_up = record::is_up(*direction);
                "closed"
            }
        };
        flags |= if is_up { Entry::UP } else { 0 } | if seen.is_error() { Entry::ERROR } else { 0 };
        let subject = self.subject(Subject { connection: seen.connection, endpoint, topic });
        Entry { at, subject, after: NONE, kind: self.kind(kind), flags }
    }

    fn kind(&mut self, name: &'static str) -> u8 {
        let known = self.kinds.iter().position(|kind| *kind == name);
        let index = known.unwrap_or_else(|| {
            self.kinds.push(name);
            self.kinds.len() - 1
        });
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    fn subject(&mut self, subject: Subject) -> u32 {
        if let Some(number) = self.subject_numbers.get(&subject) {
            return *number;
        }
        let subject = if self.subjects.len() < SUBJECTS_MAX {
            subject
        } else {
            Subject { connection: 0, endpoint: None, topic: None }
        };
        let number = *self.subject_numbers.entry(subject.clone()).or_insert(self.subjects.len() as u32);
        if number as usize == self.subjects.len() {
            self.subjects.push(subject);
        }
        number
    }

    /// The records from `from` on, up to `count`.
    fn lines(&mut self, from: u32, count: u32) -> io::Result<Vec<String>> {
        let end = from.saturating_add(count).min(self.len());
        let mut out = Vec::new();
        let mut n = from;
        while n < end {
            let index = n as usize / BLOCK;
            let bytes = match self.blocks.get(index) {
                Some((place, len)) => self.spill.read(*place, *len as usize)?,
                None => self.block.clone(),
            };
            let first = (index * BLOCK) as u32;
            let until = (first + BLOCK as u32).min(end);
            let text = String::from_utf8_lossy(&bytes);
            out.extend(text.lines().skip((n - first) as usize).take((until - n) as usize).map(str::to_owned));
            n = until;
        }
        Ok(out)
    }

    /// One observation: its record, and `after`, the number of what follows it.
    pub(super) fn record(&mut self, n: u32) -> io::Result<Option<Value>> {
        let Some(entry) = self.entry(n) else { return Ok(None) };
        let Some(line) = self.lines(n, 1)?.pop() else { return Ok(None) };
        let mut record: Value = serde_json::from_str(&line)?;
        if entry.after != NONE {
            record["after"] = json!(entry.after);
        }
        Ok(Some(record))
    }

    /// The bytes of a frame, where they are kept.
    pub(super) fn bytes(&mut self, n: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(record) = self.record(n)? else { return Ok(None) };
        let place = |index: usize| record["place"][index].as_u64();
        let (Some(at), Some(len)) = (place(0), place(1)) else { return Ok(None) };
        self.spill.read(at, len as usize).map(Some)
    }

    /// A page of what a filter shows: see [`Views`].
    pub(super) fn page(&mut self, page: &Page) -> io::Result<Value> {
        let mut views = std::mem::take(&mut self.views);
        let answer = views.page(self, page);
        self.views = views;
        answer
    }

    /// What happened to the entry that observation `n` names: the records of its SEND, its deliveries, and what was said of it.
    pub(super) fn life(&mut self, n: u32) -> io::Result<Value> {
        let Some(record) = self.record(n)? else { return Ok(json!([])) };
        // Of a SEND, its receipt has the id.
        let named = match (record["id"].as_str(), record["ids"][0].as_str(), record["after"].as_u64()) {
            (Some(id), ..) | (None, Some(id), _) => Some(id.to_owned()),
            (None, None, Some(after)) => {
                let receipt = self.record(after as u32)?.unwrap_or_default();
                receipt["id"].as_str().map(str::to_owned)
            }
            _ => None,
        };
        let Some(id) = named else { return Ok(json!([])) };
        let topic = record["topic"].clone();
        let from = n.saturating_sub(LIFE_RECORDS);
        let quoted = format!("\"{id}\"");
        let mut steps = Vec::new();
        for line in self.lines(from, 2 * LIFE_RECORDS)? {
            if !line.contains(&quoted) {
                continue;
            }
            let step: Value = serde_json::from_str(&line)?;
            if step["topic"] != topic || steps.len() >= LIFE_STEPS {
                continue;
            }
            if step["command"] == "SEND_RECEIPT" {
                if let Some(sent) = step["before"]["n"].as_u64() {
                    steps.extend(self.record(sent as u32)?);
                }
            }
            steps.push(step);
        }
        Ok(json!(steps))
    }

    /// What there is: `total` observations, `left_out`, the `errors` among them, the `connections`, the beginning as milliseconds
    /// since 1970, and `last`, the microseconds from then to the last observation.
    pub(super) fn state(&self) -> Value {
        let began = self.began.and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
        let last = self.len().checked_sub(1).and_then(|n| self.entry(n)).map_or(0, |entry| entry.at);
        json!({
            "total": self.len(),
            "left_out": self.left_out,
            "errors": self.errors,
            "connections": self.connections,
            "began": began.map(|began| began.as_millis() as u64),
            "last": u64::from(last) * TICK_MICROS,
        })
    }

    pub(super) fn ledgers(&self) -> Value {
        self.series.json()
    }
}

/// Whether a run may hide it: it is of the data path, and neither refuses nor repeats anything.
fn is_ordinary(frame: &FrameObservation) -> bool {
    let is_data = matches!(
        frame.command,
        "SEND" | "SEND_RECEIPT" | "MESSAGE" | "ACK" | "ACK_RESPONSE" | "FLOW" | "PING" | "PONG"
    );
    is_data && frame.error.is_none() && frame.redelivery_count == 0
}
