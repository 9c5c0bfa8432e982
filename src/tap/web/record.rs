//! An observation as one line of JSON, and the words that it is found by. Numbers of 64 bits are strings: JavaScript has 53.
//!
//! Written as text at once: of a million observations most are never looked at.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use super::contents::Contents;
use crate::capture::Direction;
use crate::tap::{Endpoint, FrameObservation, Ledger, Observation, ObservedEvent, Violation};

/// The most characters of a text of a peer.
const TEXT_CHARS_MAX: usize = 2_000;

/// The most bytes of the words that a record is found by.
const WORDS_BYTES_MAX: usize = 4_000;

/// Properties that a record has; it is found by all of them.
const PROPERTIES_SHOWN: usize = 8;

/// An object of JSON that grows member by member.
#[derive(Debug)]
pub(super) struct Record {
    json: String,
    /// In lower case, each between spaces, on one line.
    words: String,
}

impl Record {
    /// What happened, without its number and its place in time, which the store adds.
    pub(super) fn new(observation: &Observation) -> Self {
        let json = format!("{{\"connection\":{}", observation.connection);
        let mut record = Self { json, words: " ".to_owned() };
        match &observation.event {
            ObservedEvent::Opened { client, broker, is_partial } => {
                record.text("event", "opened");
                record.said("client", &client.to_string());
                record.said("broker", &broker.to_string());
                record.put("partial", is_partial);
            }
            ObservedEvent::Frame(frame) => record.frame(frame),
            ObservedEvent::Violation(violation) => record.violation(violation),
            ObservedEvent::Missing { direction, count } => record.gap("missing", *direction, *count),
            ObservedEvent::Skipped { direction, count } => record.gap("skipped", *direction, *count),
            ObservedEvent::OtherProtocol { direction, protocol } => {
                record.text("event", "other");
                record.put("up", is_up(*direction));
                record.text("detail", &protocol.to_string());
            }
            ObservedEvent::Closed { direction, is_reset } => {
                record.text("event", "closed");
                record.put("up", is_up(*direction));
                record.put("reset", is_reset);
            }
        }
        record
    }

    /// A member whose value is JSON as it is displayed.
    pub(super) fn put(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.json, ",\"{name}\":{value}");
    }

    /// A member that is a text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        let text = cut(text);
        let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if text.bytes().all(is_plain) {
            self.put(name, format_args!("\"{text}\""));
        } else {
            self.put(name, serde_json::Value::from(&*text));
        }
    }

    /// A member that is a text, and that it is found by.
    fn said(&mut self, name: &str, text: &str) {
        self.text(name, text);
        self.find_by(text);
    }

    fn find_by(&mut self, text: &str) {
        for word in text.split_whitespace() {
            if self.words.len() + word.len() > WORDS_BYTES_MAX {
                break;
            }
            let from = self.words.len();
            if word.is_ascii() {
                self.words.push_str(word);
                self.words[from..].make_ascii_lowercase();
            } else {
                self.words.push_str(&word.to_lowercase());
            }
            self.words.push(' ');
        }
    }

    /// The ids of several messages.
    pub(super) fn ids(&mut self, ids: &[(u64, u64)]) {
        let ids: Vec<_> = ids.iter().copied().map(message_id).collect();
        ids.iter().for_each(|id| self.find_by(id));
        self.put("ids", serde_json::json!(ids));
    }

    pub(super) fn contents(&mut self, contents: &Contents) {
        let Contents { keys, properties } = contents;
        keys.iter().for_each(|key| self.find_by(key));
        for (name, value) in properties {
            self.find_by(name);
            self.find_by(value);
        }
        if let Some(key) = keys.first() {
            self.text("key", key);
        }
        if !properties.is_empty() {
            let shown = &properties[..properties.len().min(PROPERTIES_SHOWN)];
            self.put("properties", serde_json::json!(shown));
        }
    }

    /// The whole of it, and the words that it is found by.
    pub(super) fn end(mut self) -> (String, String) {
        self.json.push('}');
        (self.json, self.words)
    }

    fn gap(&mut self, event: &str, direction: Direction, count: u64) {
        self.text("event", event);
        self.put("up", is_up(direction));
        self.put("bytes", count);
    }

    fn frame(&mut self, frame: &FrameObservation) {
        self.text("event", "frame");
        self.put("up", is_up(frame.direction));
        self.text("command", frame.command);
        self.put("size", frame.size);
        self.subject(frame.endpoint, frame.topic.as_deref());
        let mut long = |name: &str, number: Option<u64>| {
            if let Some(number) = number {
                self.put(name, format_args!("\"{number}\""));
            }
        };
        long("request", frame.request_id);
        long("sequence", frame.sequence_id);
        long("highest", frame.highest_sequence_id);
        if let Some(answered) = frame.answers {
            let (command, micros) = (answered.command, answered.after.as_micros());
            self.put("answers", format_args!("{{\"command\":\"{command}\",\"micros\":{micros}}}"));
        }
        let mut counted = |name: &str, count: u64| {
            if count > 0 {
                self.put(name, count);
            }
        };
        counted("messages", frame.messages.into());
        counted("redelivered", frame.redelivery_count.into());
        counted("payload", frame.payload_bytes as u64);
        if let Some(id) = frame.message_id {
            self.said("id", &message_id(id));
        }
        if let Some(error) = &frame.error {
            let message = cut(&error.message);
            self.find_by(error.name);
            self.find_by(&message);
            self.put("error", serde_json::json!({ "code": error.code, "name": error.name, "message": message }));
        }
        if !frame.detail.is_empty() {
            self.said("detail", &frame.detail);
        }
        match frame.ledger {
            Some(Ledger::Producer { pending_sends, pending_messages }) => {
                self.put("ledger", format_args!("{{\"pending\":{pending_sends},\"messages\":{pending_messages}}}"));
            }
            Some(Ledger::Consumer { granted, delivered, permits, unacknowledged }) => {
                let ledger = serde_json::json!({
                    "granted": granted,
                    "delivered": delivered,
                    "permits": permits,
                    "unacknowledged": unacknowledged,
                });
                self.put("ledger", ledger);
            }
            None => {}
        }
    }

    fn violation(&mut self, violation: &Violation) {
        self.text("event", "violation");
        self.said("rule", violation.rule.name());
        self.text("by", &violation.by.to_string());
        self.text("chapter", violation.rule.chapter());
        self.subject(violation.endpoint, violation.topic.as_deref());
        self.said("detail", &violation.detail);
    }

    fn subject(&mut self, endpoint: Option<Endpoint>, topic: Option<&str>) {
        if let Some(endpoint) = endpoint {
            self.put("endpoint", format_args!("\"{endpoint}\""));
        }
        if let Some(topic) = topic {
            self.text("topic", topic);
        }
    }
}

/// Whether it goes to the broker.
pub(super) fn is_up(direction: Direction) -> bool {
    direction == Direction::ToBroker
}

/// `ledger:entry`, as Pulsar prints it; -1 for none.
pub(super) fn message_id((ledger, entry): (u64, u64)) -> String {
    format!("{}:{}", ledger as i64, entry as i64)
}

/// At most [`TEXT_CHARS_MAX`] characters.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT_CHARS_MAX {
        return text.into();
    }
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
