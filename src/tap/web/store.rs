//! Observations by number, and all that is known of them together.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::contents::Contents;
use super::entries::{Entries, Entry, NONE, TICK_MICROS, Ticks};
use super::links::{Link, Links, Taken, Why};
use super::record::{self, Record};
use super::records::{BLOCK, Records};
use super::series::Series;
use super::view::{Page, Views};
use crate::tap::{Endpoint, FrameObservation, Observation, ObservedEvent};

/// Observations that are kept: more than there can be in a capture of a GiB. Each costs a bit or two in memory.
const OBSERVATIONS_MAX: u32 = 100_000_000;

/// Connections whose addresses are told; of later ones only the number is.
const CONNECTIONS_MAX: usize = 5_000;

/// Connections with an endpoint and a topic; what comes beyond them has none.
const SUBJECTS_MAX: usize = 100_000;

/// Bytes of the topics of these.
const TOPIC_BYTES_MAX: usize = 16 << 20;

/// Records on either side that are searched for the life of a message.
const LIFE_RECORDS: u32 = 50_000;

/// The most steps of a life that are told.
const LIFE_STEPS: usize = 60;

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
    last: Ticks,
    pub(super) entries: Entries,
    pub(super) records: Records,
    pub(super) kinds: Vec<&'static str>,
    pub(super) subjects: Vec<Subject>,
    subject_numbers: BTreeMap<Subject, u32>,
    topic_bytes: usize,
    connections: Vec<Value>,
    links: Links,
    series: Series,
    views: Views,
    /// Why no more is kept.
    full: Option<String>,
    /// Observations since then.
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
            last: 0,
            entries: Entries::new()?,
            records: Records::new()?,
            kinds: Vec::new(),
            subjects: Vec::new(),
            subject_numbers: BTreeMap::new(),
            topic_bytes: 0,
            connections: Vec::new(),
            links: Links::default(),
            series: Series::default(),
            views: Views::default(),
            full: None,
            left_out: 0,
            errors: 0,
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.entries.len()
    }

    /// Takes what comes next. Once something cannot be kept, nothing more is, so that numbers and times have no holes; what was kept
    /// stays.
    pub(super) fn take(&mut self, seen: &Observation) {
        if self.full.is_none() {
            self.full = self.keep(seen).err();
        }
        self.left_out += u64::from(self.full.is_some());
    }

    /// Keeps an observation, or says why it cannot.
    fn keep(&mut self, seen: &Observation) -> Result<(), String> {
        let n = self.len();
        if n >= OBSERVATIONS_MAX {
            return Err(format!("{OBSERVATIONS_MAX} observations are the most that are kept"));
        }
        let place = self.make_room(seen).map_err(|error| format!("the temporary file cannot be written: {error}"))?;
        let began = *self.began.get_or_insert(seen.at);
        let micros = seen.at.duration_since(began).unwrap_or_default().as_micros() as u64;
        let at = Ticks::try_from(micros / TICK_MICROS).unwrap_or(Ticks::MAX);
        self.last = self.last.max(at);
        let mut record = Record::new(seen);
        record.put("n", n);
        record.put("at", micros);
        if let Some((place, len)) = place {
            record.put("place", format_args!("[{place},{len}]"));
        }
        let mut is_plain = false;
        if let ObservedEvent::Frame(frame) = &seen.event {
            let link = self.take_frame(n, at, seen.connection, frame, &mut record);
            is_plain = is_ordinary(frame) && !link.is_some_and(|link| matches!(link.why, Why::Asked | Why::Again));
        }
        self.meet(seen);
        self.errors += u64::from(seen.is_error());
        self.series.count(at, seen.is_error());
        let entry = self.sum_up(seen, at, is_plain);
        self.entries.push(entry);
        let (record, words) = record.end();
        self.records.push(&record, &words);
        Ok(())
    }

    /// All that may fail: room, and the bytes of a frame. Gives where these are.
    fn make_room(&mut self, seen: &Observation) -> io::Result<Option<(u64, usize)>> {
        self.entries.make_room()?;
        self.records.make_room()?;
        let ObservedEvent::Frame(frame) = &seen.event else { return Ok(None) };
        let Some(bytes) = &frame.bytes else { return Ok(None) };
        Ok(Some((self.records.append(bytes)?, bytes.len())))
    }

    /// Ties a frame to earlier ones.
    fn take_frame(
        &mut self,
        n: u32,
        at: Ticks,
        connection: u64,
        frame: &FrameObservation,
        record: &mut Record,
    ) -> Option<Link> {
        let Taken { link, others, ids } = self.links.take(n, connection, frame);
        for to in link.iter().map(|link| link.to).chain(others) {
            // Of a file that cannot be written only this link is lost.
            let _ = self.entries.set_after(to, n);
        }
        if let Some(link) = link {
            record.put("before", format_args!("{{\"n\":{},\"why\":\"{}\"}}", link.to, link.why.name()));
        }
        if ids.len() > 1 || frame.message_id.is_none() && !ids.is_empty() {
            record.ids(&ids);
        }
        record.contents(&Contents::of(frame));
        self.series.note(at, connection, frame);
        link
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
        let subject = if self.subjects.len() < SUBJECTS_MAX && self.topic_bytes < TOPIC_BYTES_MAX {
            subject
        } else {
            Subject { connection: 0, endpoint: None, topic: None }
        };
        self.topic_bytes += subject.topic.as_ref().map_or(0, |topic| topic.len());
        let number = *self.subject_numbers.entry(subject.clone()).or_insert(self.subjects.len() as u32);
        if number as usize == self.subjects.len() {
            self.subjects.push(subject);
        }
        number
    }

    /// One observation: its record, and `after`, the number of what follows it.
    pub(super) fn record(&mut self, n: u32) -> io::Result<Option<Value>> {
        let Some(entry) = self.entries.get(n)? else { return Ok(None) };
        let Some(line) = self.records.line(n)? else { return Ok(None) };
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
        self.records.bytes(at, len as usize).map(Some)
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
        let word = format!(" {id} ");
        let block = |n: u32| n as usize / BLOCK;
        let mut steps = Vec::new();
        for block in block(n.saturating_sub(LIFE_RECORDS))..=block(n.saturating_add(LIFE_RECORDS).min(self.len())) {
            let words = self.records.words(block)?;
            let named = words.lines().enumerate().filter(|(_, line)| line.contains(&word));
            for (offset, _) in named {
                let Some(step) = self.record((block * BLOCK + offset) as u32)? else { continue };
                if step["topic"] != topic || steps.len() >= LIFE_STEPS {
                    continue;
                }
                let sent = step["before"]["n"].as_u64().filter(|_| step["command"] == "SEND_RECEIPT");
                if let Some(sent) = sent {
                    steps.extend(self.record(sent as u32)?);
                }
                steps.push(step);
            }
        }
        Ok(json!(steps))
    }

    /// What there is: `total` observations, `left_out` and why it is `full`, the `errors` among them, the `connections`, the beginning as milliseconds
    /// since 1970, and `last`, the microseconds from then to the last observation.
    pub(super) fn state(&self) -> Value {
        let began = self.began.and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
        json!({
            "total": self.len(),
            "left_out": self.left_out,
            "full": self.full,
            "errors": self.errors,
            "connections": self.connections,
            "began": began.map(|began| began.as_millis() as u64),
            "last": u64::from(self.last) * TICK_MICROS,
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
