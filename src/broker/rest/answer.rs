//! Answers over HTTP.

use std::fmt;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::pb::ServerError;
use crate::wire::command::Refusal;

/// An answer over HTTP.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestAnswer {
    /// The status code.
    pub status: u16,
    /// `Content-Type`; empty for an answer without a body.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for RestAnswer {
    /// Of the body its length alone: it may be a message that is stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestAnswer({} with {} bytes of {:?})", self.status, self.body.len(), self.content_type)
    }
}

impl RestAnswer {
    pub(in crate::broker) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// Status 200 and a value.
    pub(super) fn json(value: &Value) -> Self {
        Self::failed(200, value)
    }

    /// Another status and a value.
    pub(in crate::broker) fn failed(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// Status 200 and a text as it is, which a broker calls JSON.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::new(200, "application/json", text)
    }

    /// Status 200 and nothing, as for a policy that is not set.
    pub(super) fn empty() -> Self {
        Self::new(200, "", Bytes::new())
    }

    /// Done, and there is nothing to say: status 204.
    pub(super) fn done() -> Self {
        Self::new(204, "", Bytes::new())
    }

    /// Status and `reason`, as all of the admin API refuses.
    pub(in crate::broker) fn refused(status: u16, reason: impl Into<String>) -> Self {
        Self::failed(status, &json!({ "reason": reason.into() }))
    }

    /// What the web server in front of the interface says: status and text of a web page.
    pub(in crate::broker) fn page(status: u16, title: &str) -> Self {
        Self::new(status, "text/html", format!("<html><h1>{title}</h1></html>\n"))
    }
}

impl From<Value> for RestAnswer {
    fn from(value: Value) -> Self {
        Self::json(&value)
    }
}

/// Refusals of the binary protocol, as a lookup over HTTP gives them.
impl From<Refusal> for RestAnswer {
    fn from(refusal: Refusal) -> Self {
        let status = match ServerError::try_from(refusal.code) {
            Ok(ServerError::AuthorizationError) => {
                return Self::refused(401, "Unauthorized to validateTopicOperation for operation [LOOKUP]");
            }
            Ok(ServerError::TopicNotFound) => 404,
            Ok(ServerError::InvalidTopicName) => 412,
            _ => 500,
        };
        Self::refused(status, refusal.message)
    }
}
