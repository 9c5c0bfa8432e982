//! What the broker and the referee read.

/// Two Avro schemas, a line each: what reads itself, and both ways between them.
#[cfg(feature = "broker")]
pub fn avro(data: &[u8]) {
    use crate::broker::avro::{AvroSchema, check_read};
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let schemas = [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()].map(AvroSchema::parse);
    for schema in schemas.iter().flatten() {
        assert_eq!(check_read(schema, schema), Ok(()), "a schema reads itself");
    }
    if let [Ok(one), Ok(other)] = &schemas {
        let _ = (check_read(one, other), check_read(other, one));
    }
}

/// A line of a glue, as the referee reads it.
#[cfg(feature = "referee")]
pub fn referee_line(data: &[u8]) {
    use crate::referee::{Line, check_line};

    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        match Line::parse(line) {
            Ok(read) => check_line(line, &read),
            Err(lacks) => assert!(!lacks.is_empty()),
        }
    }
}

/// Credentials of a request, against the broker's own users and key. The first byte says what the rest is: the header
/// `Authorization`, a token, or a header and claims, a line each, that are signed here.
#[cfg(feature = "broker")]
pub fn token(data: &[u8]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit as _, Mac as _};

    use crate::broker::BrokerConfig;
    use crate::broker::authentication::{of_request, token};

    const KEY: &[u8] = b"a key for fuzzing";
    const NOW_MS: u64 = 1_700_000_000_000;
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(header) = std::str::from_utf8(rest) else { return };
            let mut config = BrokerConfig::default();
            config.token_secret_key = Some(KEY.to_vec());
            config.basic_users.insert("user".to_owned(), "password".to_owned());
            if let Some(identity) = of_request(&config, None, Some(header), NOW_MS) {
                assert!(
                    header.starts_with("Bearer ") || header == "Basic dXNlcjpwYXNzd29yZA==" && identity.role == "user"
                );
            }
        }
        1 => {
            if let Some(identity) = token::check(KEY, rest, NOW_MS) {
                assert!(!identity.is_expired(NOW_MS));
            }
        }
        _ => {
            let mut lines = rest.splitn(2, |byte| *byte == b'\n');
            let [header, claims] = [lines.next().unwrap_or_default(), lines.next().unwrap_or_default()];
            let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let signature =
                Hmac::<sha2::Sha256>::new_from_slice(KEY).expect("any key").chain_update(&signed).finalize();
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.into_bytes()));
            let parsed = [header, claims].map(|part| serde_json::from_slice::<serde_json::Value>(part).ok());
            let [Some(header), Some(claims)] = parsed else {
                return assert_eq!(token::check(KEY, token.as_bytes(), NOW_MS), None, "no JSON");
            };
            let identity = token::check(KEY, token.as_bytes(), NOW_MS);
            let expected = header["alg"] == "HS256" && claims["sub"].is_string();
            assert!(identity.is_none() || expected, "another algorithm, or no role");
            let is_timeless = claims.get("exp").is_none() && claims.get("nbf").is_none();
            assert!(!(expected && is_timeless) || identity.is_some() || token.len() > 16 * 1024);
            assert_eq!(token::check(b"another key", token.as_bytes(), NOW_MS), None);
        }
    }
}

/// Requests to the web port of the embedded broker, one after the other: in each line a method, a path with its query, and a
/// body, with a space between them.
#[cfg(feature = "broker")]
pub fn admin(data: &[u8]) {
    use crate::broker::machine::{Broker, RestRequest};
    use crate::machine::Now;

    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = Now { at: std::time::Instant::now(), wall_ms: 1_700_000_000_000 };
    let mut broker = Broker::new(crate::broker::BrokerConfig::default(), "pulsar://broker:6650", now);
    for line in text.lines().take(20) {
        let mut words = line.splitn(3, ' ');
        let [method, target, body] = [(); 3].map(|()| words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = RestRequest { method, path, query, body: body.as_bytes(), authorization: None, certified: None };
        let answer = broker.rest(&request);
        assert!((200..600).contains(&answer.status), "{}", answer.status);
        assert_ne!(answer.status, 500, "nothing fails inside: {:?}", answer.body);
        if answer.content_type == "application/json" && answer.status >= 400 {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("a refusal in JSON");
            assert!(body.is_object() || body.is_array() || body.is_string());
        }
        for (name, value) in &answer.headers {
            assert!(!name.is_empty() && !value.contains(['\r', '\n']), "no header ends early: {value:?}");
        }
    }
}
