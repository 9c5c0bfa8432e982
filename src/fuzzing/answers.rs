//! Answers over HTTP, certificates and keys.

#[cfg(feature = "http")]
use crate::pb;
#[cfg(feature = "http")]
use crate::wire::Command;

/// An answer of the REST interface. The first byte says to which request, the two behind it are the status.
#[cfg(feature = "http")]
pub fn http_answer(data: &[u8]) {
    let [request, high, low, body @ ..] = data else { return };
    let topic = "persistent://public/default/t".to_owned();
    let asked: Command = match request % 4 {
        0 => pb::CommandLookupTopic { topic, ..Default::default() }.into(),
        1 => pb::CommandPartitionedTopicMetadata { topic, ..Default::default() }.into(),
        2 => pb::CommandGetTopicsOfNamespace { namespace: "public/default".to_owned(), ..Default::default() }.into(),
        _ => pb::CommandGetSchema { topic, ..Default::default() }.into(),
    };
    let status = u16::from_be_bytes([*high, *low]);
    match crate::client::http::response::read(&asked, status, body) {
        Ok(answer) => {
            assert_eq!(status, 200);
            let expected = asked.response_type().map(|kind| kind as i32);
            assert_eq!(Some(answer.command_type()), expected, "it answers what was asked");
            assert!(answer.refusal().is_none(), "a refusal is an error");
        }
        Err(error) => {
            let text = error.into_error("the request").to_string();
            assert!(!text.contains('\n') && text.chars().count() < 1000, "one line: {text}");
        }
    }
}

/// What is read of an application's OAuth2 settings and of an identity provider. The first byte says what it is, the
/// second is the status of an answer.
#[cfg(feature = "oauth2")]
pub fn oauth2(data: &[u8]) {
    crate::client::oauth2::fuzz::read_any(data);
}

/// What a provider of service URLs answers. The first byte says whether its status is 200.
#[cfg(feature = "http")]
pub fn cluster_answer(data: &[u8]) {
    crate::client::failover::answer::read_any(data);
}

/// A key as PEM, and an encrypted entry: two bytes for the size of its metadata, metadata, payload.
#[cfg(feature = "encryption")]
pub fn encrypted(data: &[u8]) {
    crate::client::encryption::fuzz::open_any(data);
}

/// A certificate, of which the subject's common name is read.
pub fn certificate(data: &[u8]) {
    if let Some(name) = crate::common_name::common_name(data) {
        let is_part = data.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(is_part && !name.is_empty(), "a part of the certificate");
    }
}
