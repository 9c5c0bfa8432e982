//! Where the embedded broker would have answered otherwise, as values, text and JSON.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::rules::Rule;
use crate::tap::inspector::json::{nanoseconds, put_endpoint};
use crate::tap::{Endpoint, FrameObservation, ObservedError};

/// A request to which the recorded broker and the embedded one do not say the same. Its text is for people and may change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ReplayDifference {
    /// The connection, as in the [`Observation`](crate::tap::Observation)s.
    pub connection: u64,
    /// When it showed: the time of the recorded answer, or of the end of the connection or recording that has none.
    pub at: SystemTime,
    /// The command that was sent, such as `PRODUCER`; `None` of an end of the connection that no command tells of.
    pub request: Option<&'static str>,
    /// What it was about.
    pub endpoint: Option<Endpoint>,
    /// The topic of that, or of the request.
    pub topic: Option<Arc<str>>,
    /// `request_id`.
    pub request_id: Option<u64>,
    /// `sequence_id` of SEND.
    pub sequence_id: Option<u64>,
    /// How many requests in a row it is about, of which this is the first; 1 but for missing answers.
    pub count: u64,
    /// What the recording has.
    pub recorded: Reaction,
    /// What the embedded broker does.
    pub embedded: Reaction,
}

/// What a broker does about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaction {
    /// It answers.
    Answer {
        /// By which command, such as `PRODUCER_SUCCESS`.
        command: &'static str,
        /// What it refuses.
        error: Option<ObservedError>,
    },
    /// It does not answer.
    Nothing,
    /// It ends the connection.
    Ends {
        /// The rule that the client broke, where this is known.
        rule: Option<Rule>,
    },
    /// It leaves the connection open.
    Stays,
}

impl Reaction {
    pub(super) fn answer(frame: &FrameObservation) -> Self {
        Self::Answer { command: frame.command, error: frame.error.clone() }
    }

    /// The same type, and the same error if it refuses. Texts, ids and times are the broker's own.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answer { command, error }, Self::Answer { command: other, error: other_error }) => {
                let code = |error: &Option<ObservedError>| error.as_ref().map(|error| error.code);
                command == other && code(error) == code(other_error)
            }
            _ => self == other,
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Answer { error: Some(_), .. })
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { command, error: None } => f.write_str(command),
            Self::Answer { command, error: Some(error) } => write!(f, "{command} {}", error.name),
            Self::Nothing => f.write_str("no answer"),
            Self::Ends { rule: None } => f.write_str("ends the connection"),
            Self::Ends { rule: Some(rule) } => write!(f, "ends the connection, by {rule}"),
            Self::Stays => f.write_str("does not"),
        }
    }
}

impl fmt::Display for ReplayDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ~~", self.connection)?;
        if let Some(request) = self.request {
            write!(f, " {request}")?;
        }
        if let Some(endpoint) = &self.endpoint {
            write!(f, " {endpoint}")?;
        }
        if let Some(topic) = &self.topic {
            write!(f, " {}", topic.escape_debug())?;
        }
        if let Some(id) = self.request_id {
            write!(f, " request {id}")?;
        }
        if let Some(id) = self.sequence_id {
            write!(f, " sequence {id}")?;
        }
        if self.count > 1 {
            write!(f, " and {} more", self.count - 1)?;
        }
        let colon = if self.request.is_some() { ":" } else { "" };
        write!(f, "{colon} the recorded broker: {}; the embedded broker: {}", self.recorded, self.embedded)
    }
}

impl ReplayDifference {
    /// One line of JSON, without a line break, whose `event` is `difference`. Absent fields are left out; `at` is nanoseconds since
    /// 1970 UTC. `recorded` and `embedded` have `answer` and perhaps `error`, or `ends` and perhaps `rule`, or neither where nothing
    /// is answered.
    ///
    /// Fields may be added in any release.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
        put("event", json!("difference"));
        put("connection", json!(self.connection));
        put("at", json!(nanoseconds(self.at)));
        put("count", json!(self.count));
        put("recorded", self.recorded.to_json());
        put("embedded", self.embedded.to_json());
        let topic = self.topic.as_deref().map(|topic| json!(topic));
        let request = self.request.map(|request| json!(request));
        let ids = [("request_id", self.request_id), ("sequence_id", self.sequence_id)];
        let ids = ids.map(|(name, id)| (name, id.map(|id| json!(id))));
        for (name, value) in [("request", request), ("topic", topic)].into_iter().chain(ids) {
            if let Some(value) = value {
                put(name, value);
            }
        }
        put_endpoint(&mut out, self.endpoint);
        Value::Object(out).to_string()
    }
}

impl Reaction {
    fn to_json(&self) -> Value {
        match self {
            Self::Answer { command, error: None } => json!({ "answer": command }),
            Self::Answer { command, error: Some(error) } => json!({ "answer": command, "error": error.name }),
            Self::Nothing => json!({}),
            Self::Ends { rule: None } => json!({ "ends": true }),
            Self::Ends { rule: Some(rule) } => json!({ "ends": true, "rule": rule.name() }),
            Self::Stays => json!({ "ends": false }),
        }
    }
}
