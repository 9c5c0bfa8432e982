//! An observation as one line of JSON. Numbers of 64 bits are strings: JavaScript has 53.
//!
//! Written as text at once: of a million observations most are never looked at.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use crate::capture::Direction;
use crate::tap::{Endpoint, FrameObservation, Ledger, Observation, ObservedEvent, Violation};

/// The most characters of a text of a peer.
const TEXT_CHARS_MAX: usize = 2_000;

/// An object of JSON that grows member by member.
#[derive(Debug)]
pub(super) struct Record(String);

impl Record {
    /// What happened, without its number and its place in time, which the store adds.
    pub(super) fn new(observation: &Observation) -> Self {
        let mut record = Self(format!("{{\"connection\":{}", observation.connection));
        match &observation.event {
            ObservedEvent::Opened { client, broker, is_partial } => {
                record.text("event", "opened");
                record.text("client", &client.to_string());
                record.text("broker", &broker.to_string());
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
        let _ = write!(self.0, ",\"{name}\":{value}");
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

    /// The whole of it.
    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
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
            self.text("id", &message_id(id));
        }
        if let Some(error) = &frame.error {
            let error = serde_json::json!({ "code": error.code, "name": error.name, "message": cut(&error.message) });
            self.put("error", error);
        }
        if !frame.detail.is_empty() {
            self.text("detail", &frame.detail);
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
        self.text("rule", violation.rule.name());
        self.text("by", &violation.by.to_string());
        self.text("chapter", violation.rule.chapter());
        self.subject(violation.endpoint, violation.topic.as_deref());
        self.text("detail", &violation.detail);
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
