//! Requests that no real broker has, below `/testing`: what a test in another language does to the embedded broker and asks of
//! it. Rust has methods of [`EmbeddedBroker`](crate::broker::EmbeddedBroker) for each of them.
//!
//! | request | what it does |
//! | --- | --- |
//! | `POST /testing/advance?millis=…` | moves the broker's clock |
//! | `GET /testing/violations` | the rules that clients broke |
//! | `GET /testing/story/{domain}/{tenant}/{namespace}/{topic}` | what became of each message, as text |
//! | `GET /testing/messages/{domain}/{tenant}/{namespace}/{topic}` | the stored messages |
//! | `POST /testing/faults` | arms a fault |
//! | `GET /testing/faults` | on how many events a fault took effect |
//! | `DELETE /testing/faults` | disarms all |
//! | `POST /testing/connections/drop`, `blackhole`, `stall`, `challenge` | what happens to all connections at once |

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Route, delete, get, post};
use super::{Outcome, RestAnswer};
use crate::broker::admin::StoredMessage;
use crate::broker::faults::{FaultEffect, FaultEvent, ScriptedFault};
use crate::broker::machine::Broker;
use crate::error::ServerCode;
use crate::pb::ServerError;

pub(super) const ROUTES: &[Route] = &[
    post("testing/advance", advance),
    get("testing/violations", violations),
    get("testing/story/{domain}/{tenant}/{namespace}/{topic}", story),
    get("testing/messages/{domain}/{tenant}/{namespace}/{topic}", messages),
    post("testing/faults", arm),
    get("testing/faults", injected),
    delete("testing/faults", clear),
    post("testing/connections/{what}", connections),
];

/// Stored messages in one answer, the last ones.
const MESSAGES_MAX: usize = 10_000;

fn advance(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let millis = call.parameter("millis").and_then(|text| text.parse().ok());
    let millis = millis.ok_or_else(|| refused("millis has to be a number"))?;
    broker.advance(Duration::from_millis(millis));
    Ok(RestAnswer::done())
}

fn violations(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    let all = broker.violations().iter().map(|violation| {
        let rule = format!("{:?}", violation.rule);
        json!({ "connection": violation.connection, "rule": rule, "detail": violation.detail })
    });
    Ok(Value::Array(all.collect()).into())
}

fn story(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    Ok(RestAnswer::new(200, "text/plain; charset=utf-8", broker.story(name.as_str())))
}

fn messages(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let all = broker.stored_messages(name.as_str());
    let last = all.len().saturating_sub(MESSAGES_MAX);
    Ok(Value::Array(all[last..].iter().map(message).collect()).into())
}

fn message(message: &StoredMessage) -> Value {
    let mut properties = serde_json::Map::new();
    for (key, value) in &message.properties {
        properties.insert(key.clone(), json!(value));
    }
    json!({
        "id": message.id.to_string(),
        "producerName": message.producer_name,
        "sequenceId": message.sequence_id,
        "key": message.key,
        "properties": properties,
        "eventTime": message.event_time_ms,
        "publishTime": message.publish_time_ms,
        "payload": STANDARD.encode(&message.payload),
        "isOpen": message.is_open,
    })
}

/// `{"on": "Send", "effect": "DropResponse"}`, and if wanted `topic`, `after`, `times` (1; 0: until they are cleared). The names
/// are those of [`FaultEvent`] and [`FaultEffect`]; what an effect needs stands beside it.
fn arm(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let body = call.body()?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let on = text("on").ok_or_else(|| refused("on has to be an event, such as Send"))?;
    let event = FaultEvent::ALL.into_iter().find(|event| format!("{event:?}") == on);
    let event = event.ok_or_else(|| {
        let known: Vec<_> = FaultEvent::ALL.iter().map(|event| format!("{event:?}")).collect();
        refused(&format!("there is no event {on}, only {}", known.join(", ")))
    })?;
    let number = |name: &str, default: u64| match body.get(name) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| refused(&format!("{name} has to be a number"))),
    };
    let effect = effect(&body)?;
    // Of responses that are reversed, so many are held back.
    let usual = if let FaultEffect::ReverseResponses { count } = effect { count as u64 } else { 1 };
    let fault = ScriptedFault::new(event, effect).after(number("after", 0)?);
    let fault = match number("times", usual)? {
        0 => fault.always(),
        times => fault.times(times),
    };
    broker.arm_fault(if let Some(topic) = text("topic") { fault.on_topic(topic) } else { fault });
    Ok(RestAnswer::done())
}

fn effect(body: &Value) -> Result<FaultEffect, RestAnswer> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let url = || text("url").map(str::to_owned);
    let millis = || body.get("millis").and_then(Value::as_u64).map(Duration::from_millis);
    let count = || body.get("count").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    Ok(match text("effect") {
        Some("RefuseRequest") => FaultEffect::RefuseRequest { code: code(body)? },
        Some("Redirect") => FaultEffect::Redirect {
            url: url().ok_or_else(|| refused("Redirect needs a url"))?,
            authoritative: body.get("authoritative").and_then(Value::as_bool).unwrap_or(false),
        },
        Some("DropRequest") => FaultEffect::DropRequest,
        Some("RespondWith") => {
            let bytes = text("bytes").and_then(|bytes| STANDARD.decode(bytes).ok());
            FaultEffect::RespondWith {
                bytes: bytes.ok_or_else(|| refused("RespondWith needs bytes, as base64"))?.into(),
            }
        }
        Some("DropResponse") => FaultEffect::DropResponse,
        Some("DelayResponse") => {
            FaultEffect::DelayResponse { by: millis().ok_or_else(|| refused("DelayResponse needs millis"))? }
        }
        Some("DuplicateResponse") => FaultEffect::DuplicateResponse,
        Some("ReverseResponses") => {
            let count = count().filter(|count| (2..=REVERSED_MAX).contains(count));
            FaultEffect::ReverseResponses {
                count: count.ok_or_else(|| refused("ReverseResponses needs a count from 2"))?,
            }
        }
        Some("Close") => FaultEffect::Close { url: url() },
        Some("Disconnect") => FaultEffect::Disconnect,
        other => {
            return Err(refused(&format!("there is no effect {}, only {EFFECTS}", other.unwrap_or("without a name"))));
        }
    })
}

/// Responses that are held back together.
const REVERSED_MAX: usize = 1_000;

const EFFECTS: &str = "RefuseRequest, Redirect, DropRequest, RespondWith, DropResponse, DelayResponse, DuplicateResponse, \
                       ReverseResponses, Close, Disconnect";

/// A number, or a name of `ServerError`.
fn code(body: &Value) -> Result<ServerCode, RestAnswer> {
    let named = |value: &Value| Some(i32::from(ServerError::from_str_name(value.as_str()?)?));
    let numbered = |value: &Value| i32::try_from(value.as_i64()?).ok();
    let code = body.get("code").and_then(|value| named(value).or_else(|| numbered(value)));
    code.map(ServerCode)
        .ok_or_else(|| refused("RefuseRequest needs a code, a number or a name such as ServiceNotReady"))
}

fn injected(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!({ "injected": broker.faults_injected() }).into())
}

fn clear(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    broker.clear_faults();
    Ok(RestAnswer::done())
}

fn connections(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    match call.segment("what") {
        "drop" => broker.close_all(),
        "blackhole" => broker.blackhole(),
        "stall" => broker.stall_reads(),
        "challenge" => broker.challenge_all(),
        other => return Err(refused(&format!("connections can drop, blackhole, stall or challenge, not {other}"))),
    }
    Ok(RestAnswer::done())
}

fn refused(reason: &str) -> RestAnswer {
    RestAnswer::refused(400, reason)
}
