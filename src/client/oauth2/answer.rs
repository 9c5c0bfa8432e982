//! What an identity provider answers.

use std::time::Duration;

use serde_json::Value;

use crate::client::http::endpoint::Endpoint;

/// Characters of the provider's text that an error shows.
const TEXT_CHARS_MAX: usize = 300;
/// The longest lifetime that counts: beyond it an expiry is no matter of this process.
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A token, and how long it is good from when it was asked for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) token: String,
    /// Zero where the answer does not say.
    pub(super) lifetime: Duration,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The provider says no: the next request would end the same way.
    Final(String),
    /// It cannot at the moment.
    Passing(String),
}

/// The token endpoint of a discovery document (`token_endpoint`).
///
/// # Errors
/// The status is not 200, or the document has no usable one: of `http://`, where the document came over TLS, is none.
pub(super) fn token_endpoint(from: &Endpoint, status: u16, body: &[u8]) -> Result<Endpoint, Refused> {
    if status != 200 {
        return Err(refused(status, body, None));
    }
    let unusable = |what: &str| Refused::Final(format!("its discovery document {what}"));
    let document: Value = serde_json::from_slice(body).map_err(|_| unusable("is not JSON"))?;
    let Some(url) = document.get("token_endpoint").and_then(Value::as_str) else {
        return Err(unusable("has no token_endpoint"));
    };
    let endpoint = Endpoint::parse(url).map_err(|what| unusable(&format!("has an unusable token_endpoint: {what}")))?;
    if from.origin.tls && !endpoint.origin.tls {
        return Err(unusable("came over https:// and names a token_endpoint of http://, which gets no secret"));
    }
    Ok(endpoint)
}

/// The token of a token endpoint's answer (RFC 6749, sections 5.1 and 5.2). `secret` is hidden where the provider
/// repeats it.
///
/// # Errors
/// No token.
pub(super) fn token(status: u16, body: &[u8], secret: Option<&str>) -> Result<Granted, Refused> {
    if status != 200 {
        return Err(refused(status, body, secret));
    }
    let unusable = |what: &str| Refused::Final(format!("its answer {what}"));
    let answer: Value = serde_json::from_slice(body).map_err(|_| unusable("is not JSON"))?;
    let token = answer.get("access_token").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if token.is_empty() {
        return Err(unusable("has no access_token"));
    }
    Ok(Granted { token: token.to_owned(), lifetime: lifetime(answer.get("expires_in")) })
}

/// Seconds, as a number or, as some providers have it, a number in a text.
fn lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite()).unwrap_or_default();
    Duration::from_secs_f64(seconds.clamp(0.0, LIFETIME_MAX.as_secs_f64()))
}

/// | status | as |
/// | --- | --- |
/// | 408, 429, 5xx | passing |
/// | anything else | final |
fn refused(status: u16, body: &[u8], secret: Option<&str>) -> Refused {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let text = |name: &str| answer.as_ref()?.get(name)?.as_str().map(|text| shortened(text, secret));
    let what = match (text("error"), text("error_description")) {
        (Some(error), Some(description)) => format!("{error}: {description} (status {status})"),
        (Some(error), None) => format!("{error} (status {status})"),
        _ => format!("status {status}"),
    };
    match status {
        408 | 429 | 500.. => Refused::Passing(what),
        _ => Refused::Final(what),
    }
}

/// On one line, without the secret.
fn shortened(text: &str, secret: Option<&str>) -> String {
    let text = match secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => text.replace(secret, "<hidden>"),
        None => text.to_owned(),
    };
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("a URL")
    }

    #[test]
    fn a_discovery_document_names_the_token_endpoint() {
        let (plain, secured) = (endpoint("http://a/x"), endpoint("https://a/x"));
        let document = br#"{"issuer":"https://b","token_endpoint":"https://b/token?p=1","jwks_uri":7}"#;
        assert_eq!(token_endpoint(&secured, 200, document), Ok(endpoint("https://b/token?p=1")));
        let in_the_clear = br#"{"token_endpoint":"http://a/token"}"#;
        assert_eq!(token_endpoint(&plain, 200, in_the_clear), Ok(endpoint("http://a/token")));
        for (from, status, body, said) in [
            (&secured, 200, &in_the_clear[..], "gets no secret"),
            (&plain, 200, b"<html>", "not JSON"),
            (&plain, 200, b"{}", "no token_endpoint"),
            (&plain, 200, br#"{"token_endpoint":"a"}"#, "unusable token_endpoint"),
            (&plain, 404, b"", "status 404"),
        ] {
            match token_endpoint(from, status, body) {
                Err(Refused::Final(text)) => assert!(text.contains(said), "{text}"),
                other => panic!("{said}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_token_comes_with_its_lifetime() {
        for (expires_in, seconds) in [
            (r#","expires_in":3600"#, 3600.0),
            (r#","expires_in":"3600""#, 3600.0),
            (r#","expires_in":1.5"#, 1.5),
            ("", 0.0),
            (r#","expires_in":-1"#, 0.0),
            (r#","expires_in":"soon""#, 0.0),
            (r#","expires_in":"NaN""#, 0.0),
            (r#","expires_in":1e300"#, LIFETIME_MAX.as_secs_f64()),
        ] {
            let body = format!(r#"{{"access_token":" abc\n","token_type":"Bearer"{expires_in}}}"#);
            let granted = token(200, body.as_bytes(), None).unwrap_or_else(|refused| panic!("{refused:?}"));
            assert_eq!((&*granted.token, granted.lifetime.as_secs_f64()), ("abc", seconds), "{expires_in}");
        }
    }

    #[test]
    fn a_refusal_is_what_the_provider_says() {
        let no = |status, body: &str| token(status, body.as_bytes(), Some("hunter2")).map(|_| ()).expect_err(body);
        let unknown = r#"{"error":"invalid_client","error_description":"client\nhunter2\u0000 is unknown"}"#;
        let text = "invalid_client: client <hidden>  is unknown (status 401)";
        assert_eq!(no(401, unknown), Refused::Final(text.to_owned()));
        assert_eq!(no(400, r#"{"error":"invalid_scope"}"#), Refused::Final("invalid_scope (status 400)".to_owned()));
        assert_eq!(no(403, "hunter2"), Refused::Final("status 403".to_owned()));
        assert_eq!(no(302, ""), Refused::Final("status 302".to_owned()));
        let unavailable = r#"{"error":"temporarily_unavailable"}"#;
        for status in [408, 429, 500, 503, 599] {
            let text = format!("temporarily_unavailable (status {status})");
            assert_eq!(no(status, unavailable), Refused::Passing(text));
        }
        assert_eq!(no(200, "{}"), Refused::Final("its answer has no access_token".to_owned()));
        assert_eq!(no(200, "hunter2"), Refused::Final("its answer is not JSON".to_owned()));
        let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(10_000));
        match no(400, &long) {
            Refused::Final(text) => assert!(text.chars().count() < 400, "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
