//! A command of the binary protocol as the path of a GET.

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind};
use crate::machine::connection::error::RequestError;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::topic::TopicName;
use crate::wire::command::Command;

/// What most answers are far below, bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// A list of topics may be as long as in the binary protocol, bytes.
const LIST_BYTES_MAX: usize = 5 * 1024 * 1024;

/// One GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RestRequest {
    /// The path and the query, behind those of the service URL.
    pub(super) path: String,
    /// The longest body that is read, bytes.
    pub(super) body_bytes_max: usize,
    /// Whether the answer names an address that is then dialed.
    pub(super) is_lookup: bool,
}

/// Asked when a connection begins. Any answer of a broker's REST interface will do, as long as it is not about the
/// credentials. It creates nothing, needs no role in particular, and is one of the paths that a client of Java uses too:
/// a hosted console may let no other through.
pub(super) fn handshake() -> RestRequest {
    let path = "/admin/v2/persistent/public/default/pulsar-native/partitions?checkAllowAutoCreation=false";
    RestRequest { path: path.to_owned(), body_bytes_max: BODY_BYTES_MAX, is_lookup: false }
}

impl RestRequest {
    /// # Errors
    /// [`RequestError::Transport`] where the REST interface has nothing like it, or the topic has no usable name.
    pub(super) fn of(command: &Command) -> Result<Self, RequestError> {
        let mut body_bytes_max = BODY_BYTES_MAX;
        let path = match command {
            Command::Lookup(lookup) => {
                let topic = topic(&lookup.topic)?;
                let listener = lookup.advertised_listener_name();
                let listener =
                    if listener.is_empty() { String::new() } else { format!("&listenerName={}", encoded(listener)) };
                format!("/lookup/v2/topic/{}?authoritative={}{listener}", segments(&topic), lookup.authoritative())
            }
            Command::PartitionedMetadata(request) => {
                let creates = request.metadata_auto_creation_enabled();
                let topic = segments(&topic(&request.topic)?);
                format!("/admin/v2/{topic}/partitions?checkAllowAutoCreation={creates}")
            }
            Command::GetTopicsOfNamespace(request) => {
                body_bytes_max = LIST_BYTES_MAX;
                let mode = match request.mode() {
                    Mode::Persistent => "PERSISTENT",
                    Mode::NonPersistent => "NON_PERSISTENT",
                    Mode::All => "ALL",
                };
                let Some((tenant, namespace)) = request.namespace.split_once('/') else {
                    return Err(invalid(format!("`{}` is not a namespace", request.namespace)));
                };
                format!("/admin/v2/namespaces/{}/{}/topics?mode={mode}", encoded(tenant), encoded(namespace))
            }
            Command::GetSchema(request) => {
                let topic = segments(&topic(&request.topic)?);
                // The REST interface of schemas has no domain in its paths.
                let topic = topic.split_once('/').map_or("", |(_, rest)| rest);
                let version = request.schema_version.as_deref().map(version_of).transpose()?;
                let version = version.map(|version| format!("/{version}")).unwrap_or_default();
                format!("/admin/v2/schemas/{topic}/schema{version}")
            }
            other => return Err(unsupported(other.name())),
        };
        Ok(Self { path, body_bytes_max, is_lookup: matches!(command, Command::Lookup(_)) })
    }
}

/// The error of what HTTP cannot do.
pub(super) fn unsupported(what: &str) -> RequestError {
    let text = format!("{what} is not possible over an http:// service URL: use the brokers' pulsar:// URL");
    RequestError::Transport(Error::local(ErrorKind::Unsupported, text))
}

fn invalid(what: String) -> RequestError {
    RequestError::Transport(Error::local(ErrorKind::InvalidArgument, what))
}

fn topic(text: &str) -> Result<TopicName, RequestError> {
    TopicName::parse(text).map_err(|error| invalid(error.to_string()))
}

/// A schema version is a number in 8 bytes.
fn version_of(bytes: &[u8]) -> Result<u64, RequestError> {
    let bytes = <[u8; 8]>::try_from(bytes);
    bytes.map(u64::from_be_bytes).map_err(|_| invalid("the schema version has not 8 bytes".to_owned()))
}

/// The path of a topic by its full name, for the paths of the admin API; `None` for what is no name.
pub(crate) fn topic_path(name: &str) -> Option<String> {
    Some(segments(&topic(name).ok()?))
}

impl RestRequest {
    /// A GET of the admin API.
    pub(super) fn admin(path: &str) -> Self {
        Self { path: path.to_owned(), body_bytes_max: LIST_BYTES_MAX, is_lookup: false }
    }
}

/// `domain/tenant/namespace/topic`, each of them percent-encoded.
fn segments(topic: &TopicName) -> String {
    let domain = if topic.is_persistent() { "persistent" } else { "non-persistent" };
    let namespace: Vec<_> = topic.namespace().split('/').map(encoded).collect();
    format!("{domain}/{}/{}", namespace.join("/"), encoded(topic.local_name()))
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    // These two would be taken for directions.
    match encoded.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => encoded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    fn path(command: impl Into<Command>) -> String {
        RestRequest::of(&command.into()).expect("there is such a path").path
    }

    fn lookup(topic: &str) -> pb::CommandLookupTopic {
        pb::CommandLookupTopic { topic: topic.to_owned(), ..Default::default() }
    }

    #[test]
    fn lookups() {
        let plain = lookup("persistent://public/default/t");
        assert_eq!(path(plain.clone()), "/lookup/v2/topic/persistent/public/default/t?authoritative=false");
        let named = pb::CommandLookupTopic { advertised_listener_name: Some("custom:a/b".to_owned()), ..plain };
        assert!(path(named).ends_with("?authoritative=false&listenerName=custom%3Aa%2Fb"));
        let odd = lookup("non-persistent://my.tenant/ns/a b?c#d%e+ü-partition-3");
        let expected = "/lookup/v2/topic/non-persistent/my.tenant/ns/a%20b%3Fc%23d%25e%2B%C3%BC-partition-3";
        assert_eq!(path(odd).split('?').next(), Some(expected));
        assert!(path(lookup("persistent://public/default/..")).contains("/default/%2E%2E?"));
    }

    #[test]
    fn partitions_topics_and_schemas() {
        let topic = "persistent://public/default/t".to_owned();
        let partitions = pb::CommandPartitionedTopicMetadata { topic: topic.clone(), ..Default::default() };
        let expected = "/admin/v2/persistent/public/default/t/partitions?checkAllowAutoCreation=true";
        assert_eq!(path(partitions), expected);
        let mut topics = pb::CommandGetTopicsOfNamespace { namespace: "a/b".to_owned(), ..Default::default() };
        assert_eq!(path(topics.clone()), "/admin/v2/namespaces/a/b/topics?mode=PERSISTENT");
        topics.mode = Some(Mode::All.into());
        assert_eq!(path(topics), "/admin/v2/namespaces/a/b/topics?mode=ALL");
        let mut schema = pb::CommandGetSchema { topic, ..Default::default() };
        assert_eq!(path(schema.clone()), "/admin/v2/schemas/public/default/t/schema");
        schema.schema_version = Some(bytes::Bytes::copy_from_slice(&7_u64.to_be_bytes()));
        assert_eq!(path(schema), "/admin/v2/schemas/public/default/t/schema/7");
    }

    #[test]
    fn what_http_cannot_do_says_what_can() {
        let register = pb::CommandGetOrCreateSchema::default();
        match RestRequest::of(&register.into()) {
            Err(RequestError::Transport(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains("pulsar://"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}
