//! The body of the fuzz target: what is read from applications and identity providers.

use super::answer::{Refused, token, token_endpoint};
use super::discovery::{OPENID_CONFIGURATION, discovery};
use super::form::encode;
use super::key_file::{Key, data};
use super::settings::Settings;
use crate::client::http::endpoint::Endpoint;
use crate::percent;

/// What must not be in an error.
const SECRET: &str = "hunter2-0f9d";

/// Any bytes: the first says what they are.
pub(crate) fn read_any(bytes: &[u8]) {
    let [what, status, rest @ ..] = bytes else { return };
    let text = String::from_utf8_lossy(rest);
    match what % 6 {
        0 => drop(Settings::from_params(&text)),
        1 => {
            let _ = discovery(&text, OPENID_CONFIGURATION).map(|found| found.follow(Some(&text)));
        }
        2 => drop(data(&text).map(|key| Key::parse(&key))),
        3 => drop(Key::parse(rest)),
        4 => {
            let body = encode(&[("a", &text)]);
            let value = body.strip_prefix("a=").expect("the only field").replace('+', " ");
            assert_eq!(percent::decoded(&value).as_deref(), Some(text.as_bytes()), "what is encoded can be decoded");
        }
        _ => {
            let status = [200, 400, 401, 403, 408, 429, 500, 503][usize::from(*status) % 8];
            let from = Endpoint::parse("https://a").expect("a URL");
            if let Ok(found) = token_endpoint(&from, status, rest) {
                assert!(found.origin.tls, "no secret goes to http://");
            }
            if let Err(Refused::Final(text) | Refused::Passing(text)) = token(status, rest, Some(SECRET)) {
                assert!(!text.contains(SECRET) && !text.contains('\n') && text.len() < 4096, "{text}");
            }
        }
    }
}
