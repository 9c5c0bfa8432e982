//! The answers of the REST interface as the commands that a broker would have sent.
//!
//! | status | what | as |
//! | --- | --- | --- |
//! | 200 with JSON | the answer | the command that answers |
//! | 401 whose JSON says that the role may not | no rights | AuthorizationError |
//! | 401 | the credentials | AuthenticationError |
//! | 403 | no rights | AuthorizationError |
//! | 404 with a reason in JSON | no such topic or namespace | TopicNotFound |
//! | 412 | the name of the topic | InvalidTopicName |
//! | 429 | | TooManyRequests |
//! | 5xx | | ServiceNotReady |
//! | anything else, and what is not JSON | not the REST interface of a broker | a protocol error |

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{Error, ServerCode, ServerError};
use crate::hash::topics_hash;
use crate::machine::connection::error::RequestError;
use crate::pb;
use crate::pb::schema::Type;
use crate::topic::TopicName;
use crate::wire::command::Command;

/// Characters of a broker's text that an error shows.
const REASON_CHARS_MAX: usize = 300;
/// Beyond the most partitions that a broker makes.
const PARTITIONS_MAX: u64 = 1 << 24;

/// Reads the answer to `command`.
///
/// # Errors
/// A refusal, or a body that is no answer.
pub(crate) fn read(command: &Command, status: u16, body: &[u8]) -> Result<Command, RequestError> {
    let value = json(status, body)?;
    let answer = match command {
        Command::Lookup(_) => value.as_object().and_then(lookup),
        Command::PartitionedMetadata(_) => value.as_object().and_then(partitions),
        Command::GetTopicsOfNamespace(_) => value.as_array().and_then(|names| topics(names)),
        Command::GetSchema(request) => match value.as_object() {
            Some(answer) => Some(schema(&request.topic, answer)?),
            None => None,
        },
        _ => None,
    };
    answer.ok_or_else(|| protocol(format!("the HTTP answer to {} lacks what it is about", command.name())))
}

/// The JSON of an answer.
///
/// # Errors
/// A refusal, or a body that is no JSON.
pub(super) fn json(status: u16, body: &[u8]) -> Result<Value, RequestError> {
    if status != 200 {
        return Err(refusal(status, body));
    }
    serde_json::from_slice(body).map_err(|_| not_pulsar(status, body))
}

/// Whether an answer to the first request of a connection shows that a broker takes the credentials: one that is not
/// about them, not even if it says that the role has no rights there.
pub(super) fn accepts(status: u16, body: &[u8]) -> Result<(), RequestError> {
    if status == 200 {
        return match serde_json::from_slice::<Value>(body) {
            Ok(_) => Ok(()),
            Err(_) => Err(not_pulsar(status, body)),
        };
    }
    match refusal(status, body) {
        RequestError::Server(refused)
            if !matches!(
                refused.code,
                ServerCode::AUTHENTICATION_ERROR | ServerCode::SERVICE_NOT_READY | ServerCode::TOO_MANY_REQUESTS
            ) =>
        {
            Ok(())
        }
        error => Err(error),
    }
}

fn refusal(status: u16, body: &[u8]) -> RequestError {
    let reason = reason(body);
    let code = match (status, &reason) {
        (401, Some(reason)) if is_about_rights(reason) => ServerCode::AUTHORIZATION_ERROR,
        (401, _) => ServerCode::AUTHENTICATION_ERROR,
        (403, _) => ServerCode::AUTHORIZATION_ERROR,
        (404, Some(_)) => ServerCode::TOPIC_NOT_FOUND,
        (412, _) => ServerCode::INVALID_TOPIC_NAME,
        (429, _) => ServerCode::TOO_MANY_REQUESTS,
        (500..=599, _) => ServerCode::SERVICE_NOT_READY,
        (400..=499, Some(_)) => ServerCode::NOT_ALLOWED_ERROR,
        _ => return not_pulsar(status, body),
    };
    let text = reason.unwrap_or_else(|| advice(status).to_owned());
    RequestError::Server(ServerError { code, message: format!("HTTP {status}: {text}") })
}

fn advice(status: u16) -> &'static str {
    match status {
        401 => "the credentials are missing, or they are not valid (any more)",
        403 => "the role of these credentials may not do this",
        429 => "too many requests",
        _ => "the broker, or a proxy in front of it, is not ready",
    }
}

/// A broker answers 401 also to a role that it knows. Only then it says so in JSON.
fn is_about_rights(reason: &str) -> bool {
    ["Unauthorized to ", "permission", "not authorized"].iter().any(|words| reason.contains(words))
}

/// The member `reason`, one line of it.
fn reason(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = value.get("reason")?.as_str()?;
    // An unexpected failure comes with a stack trace; its text stands behind this word.
    let message = text.lines().find_map(|line| line.strip_prefix("Message: "));
    let line = message.or_else(|| text.lines().find(|line| !line.trim().is_empty())).unwrap_or_default();
    Some(line.trim().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect())
}

fn not_pulsar(status: u16, body: &[u8]) -> RequestError {
    let is_html = body.trim_ascii_start().starts_with(b"<");
    protocol(format!(
        "{} answered with status {status} where the REST interface of a broker answers with JSON: the service URL has \
         to name the web port of a broker or of its proxy (8080, with TLS 8443), and the path of the proxy if it has one",
        if is_html { "a web page" } else { "something else" }
    ))
}

fn protocol(text: String) -> RequestError {
    RequestError::Transport(Error::protocol(text))
}

fn text_of(answer: &Map<String, Value>, names: [&str; 2]) -> Option<String> {
    let texts = names.into_iter().filter_map(|name| answer.get(name)?.as_str());
    texts.into_iter().find(|text| !text.is_empty()).map(str::to_owned)
}

/// The second name of a member is its old one.
fn lookup(answer: &Map<String, Value>) -> Option<Command> {
    let broker_service_url = text_of(answer, ["brokerUrl", "nativeUrl"]);
    let broker_service_url_tls = text_of(answer, ["brokerUrlTls", "brokerUrlSsl"]);
    if broker_service_url.is_none() && broker_service_url_tls.is_none() {
        return None;
    }
    let response = pb::CommandLookupTopicResponse {
        broker_service_url,
        broker_service_url_tls,
        response: Some(pb::command_lookup_topic_response::LookupType::Connect.into()),
        authoritative: Some(true),
        // The address of the service URL is a web port: nothing goes through it.
        proxy_through_service_url: Some(false),
        ..Default::default()
    };
    Some(response.into())
}

fn partitions(answer: &Map<String, Value>) -> Option<Command> {
    let count = answer.get("partitions")?.as_u64().filter(|count| *count <= PARTITIONS_MAX)?;
    let response = pb::CommandPartitionedTopicMetadataResponse {
        partitions: u32::try_from(count).ok(),
        response: Some(pb::command_partitioned_topic_metadata_response::LookupType::Success.into()),
        ..Default::default()
    };
    Some(response.into())
}

fn topics(names: &[Value]) -> Option<Command> {
    let topics: Vec<String> = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    let response = pb::CommandGetTopicsOfNamespaceResponse {
        topics_hash: Some(topics_hash(&topics)),
        topics,
        // There is no pattern in the request.
        filtered: Some(false),
        changed: Some(true),
        ..Default::default()
    };
    Some(response.into())
}

fn schema(topic: &str, answer: &Map<String, Value>) -> Result<Command, RequestError> {
    let lacking = || protocol("the HTTP answer about a schema lacks a member".to_owned());
    let name = answer.get("type").and_then(Value::as_str).ok_or_else(lacking)?;
    let version = answer.get("version").and_then(Value::as_i64).ok_or_else(lacking)?;
    let data = answer.get("data").and_then(Value::as_str).unwrap_or_default();
    let kind = schema_type(name).ok_or_else(|| super::request::unsupported("reading a schema of this type"))?;
    let properties = answer.get("properties").and_then(Value::as_object).into_iter().flatten();
    let properties = properties
        .filter_map(|(key, value)| Some(pb::KeyValue { key: key.clone(), value: value.as_str()?.to_owned() }));
    let schema = pb::Schema {
        name: TopicName::parse(topic).map_or_else(|_| topic.to_owned(), |topic| topic.local_name().to_owned()),
        schema_data: Bytes::copy_from_slice(data.as_bytes()),
        r#type: kind.into(),
        properties: properties.collect(),
    };
    let response = pb::CommandGetSchemaResponse {
        schema: Some(schema),
        schema_version: Some(Bytes::copy_from_slice(&version.to_be_bytes())),
        ..Default::default()
    };
    Ok(response.into())
}

/// By the name that the REST interface has for it. `KEY_VALUE` is not among them: its definition has another form there.
fn schema_type(name: &str) -> Option<Type> {
    Some(match name {
        "NONE" => Type::None,
        "STRING" => Type::String,
        "JSON" => Type::Json,
        "PROTOBUF" => Type::Protobuf,
        "AVRO" => Type::Avro,
        "BOOLEAN" => Type::Bool,
        "INT8" => Type::Int8,
        "INT16" => Type::Int16,
        "INT32" => Type::Int32,
        "INT64" => Type::Int64,
        "FLOAT" => Type::Float,
        "DOUBLE" => Type::Double,
        "DATE" => Type::Date,
        "TIME" => Type::Time,
        "TIMESTAMP" => Type::Timestamp,
        "INSTANT" => Type::Instant,
        "LOCAL_DATE" => Type::LocalDate,
        "LOCAL_TIME" => Type::LocalTime,
        "LOCAL_DATE_TIME" => Type::LocalDateTime,
        "PROTOBUF_NATIVE" => Type::ProtobufNative,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn lookup_command() -> Command {
        pb::CommandLookupTopic { topic: "persistent://public/default/t".to_owned(), ..Default::default() }.into()
    }

    fn error(status: u16, body: &str) -> Error {
        read(&lookup_command(), status, body.as_bytes()).expect_err("a failure").into_error("the lookup")
    }

    #[test]
    fn a_lookup_of_a_broker_with_and_without_tls() {
        // As Pulsar 4.0.8 writes it.
        let body = br#"{"brokerUrl":"pulsar://b:6650","httpUrl":"http://b:8080","nativeUrl":"pulsar://b:6650","brokerUrlSsl":""}"#;
        match read(&lookup_command(), 200, body) {
            Ok(Command::LookupResponse(answer)) => {
                assert_eq!(answer.broker_service_url.as_deref(), Some("pulsar://b:6650"));
                assert_eq!(answer.broker_service_url_tls, None);
                assert!(!answer.proxy_through_service_url());
            }
            other => panic!("{other:?}"),
        }
        match read(&lookup_command(), 200, br#"{"brokerUrlTls":"pulsar+ssl://b:6651"}"#) {
            Ok(Command::LookupResponse(answer)) => {
                assert_eq!(answer.broker_service_url_tls.as_deref(), Some("pulsar+ssl://b:6651"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_have_the_codes_that_the_binary_protocol_has_for_them() {
        let rights = r#"{"reason":"Unauthorized to validateTopicOperation for operation [LOOKUP] on topic [t]"}"#;
        let missing = r#"{"reason":"Namespace not found"}"#;
        for (status, body, kind) in [
            (401, "<html>Authentication required</html>", ErrorKind::Authentication),
            (401, "", ErrorKind::Authentication),
            (401, r#"{"reason":"token expired"}"#, ErrorKind::Authentication),
            (401, rights, ErrorKind::Authorization),
            (403, "", ErrorKind::Authorization),
            (404, missing, ErrorKind::TopicNotFound),
            (412, r#"{"reason":"Topic name is not valid"}"#, ErrorKind::InvalidArgument),
            (429, "", ErrorKind::Quota),
            (503, "<html>", ErrorKind::NotReady),
            (409, r#"{"reason":"conflict"}"#, ErrorKind::NotAllowed),
            (404, "<html>", ErrorKind::Protocol),
            (200, "<html>", ErrorKind::Protocol),
            (200, "{}", ErrorKind::Protocol),
            (204, "", ErrorKind::Protocol),
        ] {
            let error = error(status, body);
            assert_eq!(error.kind(), kind, "{status} {body}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_stack_trace_is_one_line() {
        let body = r#"{"reason":"\n --- An unexpected error ---\n\nMessage: the broker do not have x listener\n\nStacktrace:\n\njava.lang"}"#;
        let text = error(500, body).to_string();
        assert!(text.ends_with("(HTTP 500: the broker do not have x listener)"), "{text}");
    }

    #[test]
    fn the_first_answer_is_about_credentials_alone() {
        let rights = br#"{"reason":"Unauthorized to validateTopicOperation"}"#;
        for (status, body) in [(401, &rights[..]), (403, b""), (404, br#"{"reason":"x"}"#), (200, b"{}")] {
            assert_eq!(accepts(status, body), Ok(()), "{status}");
        }
        for (status, body) in [(401, &b""[..]), (503, b""), (404, b"<html>"), (200, b"<html>"), (429, b"")] {
            assert!(accepts(status, body).is_err(), "{status}");
        }
    }

    #[test]
    fn partitions_topics_and_schemas() {
        let command = pb::CommandPartitionedTopicMetadata::default().into();
        match read(&command, 200, br#"{"partitions":3,"deleted":false}"#) {
            Ok(Command::PartitionedMetadataResponse(answer)) => assert_eq!(answer.partitions, Some(3)),
            other => panic!("{other:?}"),
        }
        assert!(read(&command, 200, br#"{"partitions":-1}"#).is_err());
        assert!(read(&command, 200, br#"{"partitions":4294967295}"#).is_err());
        let command = pb::CommandGetTopicsOfNamespace::default().into();
        match read(&command, 200, br#"["persistent://a/b/c"]"#) {
            Ok(Command::GetTopicsOfNamespaceResponse(answer)) => {
                assert_eq!((answer.topics.len(), answer.filtered()), (1, false));
                assert_eq!(answer.topics_hash.as_deref(), Some(&*topics_hash(&["persistent://a/b/c"])));
            }
            other => panic!("{other:?}"),
        }
        let command: Command = pb::CommandGetSchema { topic: "t".to_owned(), ..Default::default() }.into();
        match read(&command, 200, br#"{"version":2,"type":"AVRO","timestamp":0,"data":"{}","properties":{"a":"b"}}"#) {
            Ok(Command::GetSchemaResponse(answer)) => {
                let schema = answer.schema.expect("a schema");
                assert_eq!(
                    (schema.r#type(), &schema.schema_data[..], schema.name.as_str()),
                    (Type::Avro, &b"{}"[..], "t")
                );
                assert_eq!(answer.schema_version.as_deref(), Some(&2_u64.to_be_bytes()[..]));
            }
            other => panic!("{other:?}"),
        }
        assert!(read(&command, 200, br#"{"version":2,"type":"KEY_VALUE","data":"{}"}"#).is_err());
    }
}
