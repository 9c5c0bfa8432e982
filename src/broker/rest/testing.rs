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
//! | `GET /testing/ca` | the authority of the broker's certificate, if that was made on the spot |
//! | `GET /testing/brokers` | the brokers of the cluster: their URLs, and whether they run |
//! | `POST /testing/brokers/{broker}/stop`, `start` | one dies, or comes back at its address |
//! | `POST /testing/brokers/{broker}/{domain}/{tenant}/{namespace}/{topic}` | moves a topic to it |
//! | `POST /testing/connections/drop`, `blackhole`, `stall`, `challenge` | what happens to all connections at once |

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Access, Route, delete, get, post};
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
    get("testing/ca", authority).access(Access::AnyRole),
    get("testing/brokers", brokers),
    post("testing/brokers/{broker}/stop", |broker, call| switch(broker, call, BrokerSwitch::Stop)),
    post("testing/brokers/{broker}/start", |broker, call| switch(broker, call, BrokerSwitch::Start)),
    post("testing/brokers/{broker}/{domain}/{tenant}/{namespace}/{topic}", move_topic),
];

/// Stored messages in one answer, the last ones.
const MESSAGES_MAX: usize = 10_000;

/// What a request wants of the sockets of one broker of the cluster, by its number. The machine has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerSwitch {
    /// It dies.
    Stop(usize),
    /// It listens again.
    Start(usize),
}

impl Broker {
    /// What the latest request wants of the sockets; its answer is for a success.
    pub fn take_switch(&mut self) -> Option<BrokerSwitch> {
        self.switch.take()
    }
}

/// The broker of the cluster that a request is about.
fn numbered(broker: &Broker, call: &Call<'_>) -> Result<usize, RestAnswer> {
    let number = usize::try_from(call.number("broker")?).ok().filter(|number| broker.brokers.url(*number).is_some());
    number.ok_or_else(|| RestAnswer::refused(404, format!("there is no broker {}", call.segment("broker"))))
}

fn switch(broker: &mut Broker, call: &Call<'_>, switch: fn(usize) -> BrokerSwitch) -> Outcome {
    broker.switch = Some(switch(numbered(broker, call)?));
    Ok(RestAnswer::done())
}

fn brokers(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    let all = (0..).map_while(|number| Some((number, broker.brokers.url(number)?)));
    let all = all.map(|(number, url)| json!({ "brokerServiceUrl": url, "isRunning": broker.runs(number) }));
    Ok(Value::Array(all.collect()).into())
}

fn move_topic(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (number, topic) = (numbered(broker, call)?, call.topic()?);
    match broker.move_topic(topic.as_str(), number) {
        true => Ok(RestAnswer::done()),
        false => Err(RestAnswer::refused(409, format!("broker {number} does not run"))),
    }
}

fn authority(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    let missing = || RestAnswer::refused(404, "the certificate of this broker was not made on the spot");
    let pem = broker.config.ca_pem.clone().ok_or_else(missing)?;
    Ok(RestAnswer::new(200, "application/x-pem-file", pem))
}

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
