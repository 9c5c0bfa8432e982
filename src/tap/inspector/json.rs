//! Observations as JSON, for programs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::observation::{Endpoint, FrameObservation, Ledger, Observation, ObservedEvent, Violation};
use crate::capture::Direction;

pub(in crate::tap) type Object = Map<String, Value>;

impl Observation {
    /// One line of JSON, without a line break. Absent fields are left out; `at` is nanoseconds since 1970 UTC, `after_us` are
    /// microseconds. Ids of a broker that are −1 on the wire are −1 here. Secrets and payloads are not in it.
    ///
    /// Fields may be added in any release.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Object::new();
        out.insert("connection".to_owned(), json!(self.connection));
        out.insert("at".to_owned(), json!(nanoseconds(self.at)));
        let event = match &self.event {
            ObservedEvent::Opened { client, broker, is_partial } => {
                out.insert("client".to_owned(), json!(client.to_string()));
                out.insert("broker".to_owned(), json!(broker.to_string()));
                out.insert("is_partial".to_owned(), json!(is_partial));
                "opened"
            }
            ObservedEvent::Frame(frame) => {
                put_frame(&mut out, frame);
                "frame"
            }
            ObservedEvent::Violation(violation) => {
                put_violation(&mut out, violation);
                "violation"
            }
            ObservedEvent::Missing { direction, count } => {
                put_direction(&mut out, *direction);
                out.insert("count".to_owned(), json!(count));
                "missing"
            }
            ObservedEvent::Skipped { direction, count } => {
                put_direction(&mut out, *direction);
                out.insert("count".to_owned(), json!(count));
                "skipped"
            }
            ObservedEvent::OtherProtocol { direction, protocol } => {
                put_direction(&mut out, *direction);
                out.insert("protocol".to_owned(), json!(protocol.to_string()));
                "other"
            }
            ObservedEvent::Closed { direction, is_reset } => {
                put_direction(&mut out, *direction);
                out.insert("is_reset".to_owned(), json!(is_reset));
                "closed"
            }
        };
        out.insert("event".to_owned(), json!(event));
        Value::Object(out).to_string()
    }
}

pub(in crate::tap) fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn put_direction(out: &mut Object, direction: Direction) {
    let name = match direction {
        Direction::ToBroker => "to_broker",
        Direction::ToClient => "to_client",
    };
    out.insert("direction".to_owned(), json!(name));
}

pub(in crate::tap) fn put_endpoint(out: &mut Object, endpoint: Option<Endpoint>) {
    let (name, id) = match endpoint {
        Some(Endpoint::Producer(id)) => ("producer_id", id),
        Some(Endpoint::Consumer(id)) => ("consumer_id", id),
        Some(Endpoint::Watcher(id)) => ("watcher_id", id),
        None => return,
    };
    out.insert(name.to_owned(), json!(id));
}

fn put_frame(out: &mut Object, frame: &FrameObservation) {
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("command", Some(json!(frame.command)));
    put("size", Some(json!(frame.size)));
    put("topic", frame.topic.as_deref().map(|topic| json!(topic)));
    put("request_id", frame.request_id.map(|id| json!(id)));
    put("sequence_id", frame.sequence_id.map(|id| json!(id)));
    put("highest_sequence_id", frame.highest_sequence_id.map(|id| json!(id)));
    put("messages", Some(frame.messages).filter(|count| *count > 0).map(|count| json!(count)));
    put("message_id", frame.message_id.map(|(ledger, entry)| json!([ledger as i64, entry as i64])));
    put("redelivery_count", Some(frame.redelivery_count).filter(|count| *count > 0).map(|count| json!(count)));
    put("payload_bytes", Some(frame.payload_bytes).filter(|count| *count > 0).map(|count| json!(count)));
    put("detail", Some(&frame.detail).filter(|detail| !detail.is_empty()).map(|detail| json!(detail)));
    if let Some(answered) = &frame.answers {
        put("answers", Some(json!(answered.command)));
        put("after_us", Some(json!(answered.after.as_secs_f64() * 1e6)));
    }
    if let Some(error) = &frame.error {
        put("error", Some(json!({ "code": error.code, "name": error.name, "message": error.message })));
    }
    put("ledger", frame.ledger.map(ledger));
    put_direction(out, frame.direction);
    put_endpoint(out, frame.endpoint);
}

fn ledger(ledger: Ledger) -> Value {
    match ledger {
        Ledger::Producer { pending_sends, pending_messages } => {
            json!({ "pending_sends": pending_sends, "pending_messages": pending_messages })
        }
        Ledger::Consumer { granted, delivered, permits, unacknowledged } => json!({
            "granted": granted, "delivered": delivered, "permits": permits, "unacknowledged": unacknowledged,
        }),
    }
}

fn put_violation(out: &mut Object, violation: &Violation) {
    out.insert("rule".to_owned(), json!(violation.rule.name()));
    out.insert("by".to_owned(), json!(violation.by.to_string()));
    out.insert("detail".to_owned(), json!(violation.detail));
    out.insert("chapter".to_owned(), json!(violation.rule.chapter()));
    if let Some(topic) = &violation.topic {
        out.insert("topic".to_owned(), json!(**topic));
    }
    put_endpoint(out, violation.endpoint);
}
