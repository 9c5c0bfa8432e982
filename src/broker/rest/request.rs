//! Requests over HTTP, taken apart.

use std::collections::BTreeSet;

use serde_json::Value;

use super::RestAnswer;
use crate::percent;
use crate::topic::TopicName;

/// A request to the web port.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestRequest<'a> {
    /// `GET`, `PUT`, `POST`, `DELETE`.
    pub method: &'a str,
    /// The path, percent-encoded, without the query.
    pub path: &'a str,
    /// The query, without its question mark; empty for none.
    pub query: &'a str,
    /// The body; empty for none.
    pub body: &'a [u8],
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The common name of the certificate that the client has shown.
    pub certified: Option<&'a str>,
}

/// A request that a route has matched.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    /// The path as it came.
    pub(super) path: &'a str,
    /// What the route's names stand for, decoded.
    pub(super) captured: Vec<(&'static str, String)>,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
    /// The role may do everything.
    pub(super) is_authorized: bool,
}

impl Call<'_> {
    /// What a name of the route's pattern stands for.
    pub(super) fn segment(&self, name: &str) -> &str {
        self.captured.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The number that a name of the route's pattern stands for.
    pub(super) fn number(&self, name: &str) -> Result<i64, RestAnswer> {
        // As the web server of a real broker says to a path parameter of another type.
        self.segment(name).parse().map_err(|_| RestAnswer::page(404, "Not Found"))
    }

    /// The topic's name as the request has it.
    pub(super) fn topic_text(&self) -> String {
        let domain = match self.segment("domain") {
            "" => "persistent",
            domain => domain,
        };
        format!("{domain}://{}/{}", self.namespace(), self.segment("topic"))
    }

    /// The topic that the request is about.
    pub(super) fn topic(&self) -> Result<TopicName, RestAnswer> {
        TopicName::parse(&self.topic_text()).map_err(|_| RestAnswer::refused(412, "Topic name is not valid"))
    }

    /// `tenant/namespace`.
    pub(super) fn namespace(&self) -> String {
        format!("{}/{}", self.segment("tenant"), self.segment("namespace"))
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        parameter(self.query, name)
    }

    /// Whether a parameter of the query is `true`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| value == "true")
    }

    /// The body as JSON; null where there is none.
    pub(super) fn body(&self) -> Result<Value, RestAnswer> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(self.body).map_err(|error| RestAnswer::new(400, "text/plain", error.to_string()))
    }
}

/// A parameter of a query, decoded.
pub(in crate::broker) fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        // Forms write a space as a plus sign, paths do not.
        .and_then(|(_, value)| decoded(&value.replace('+', " ")))
}

/// The texts of an array; an absent one is empty.
pub(super) fn names(value: &Value) -> BTreeSet<String> {
    let members = value.as_array().map_or(&[][..], Vec::as_slice);
    members.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Percent-decodes; `None` also for what is not UTF-8 then.
pub(super) fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent::decoded(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_a_text() {
        assert_eq!(decoded("a%2fb%C3%bC").as_deref(), Some("a/bü"));
        assert_eq!(decoded("%ff"), None);
    }
}
