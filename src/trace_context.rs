//! W3C trace context (<https://www.w3.org/TR/trace-context/>) in the properties of messages.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The names of the properties: those of the W3C's headers, as the OpenTelemetry instrumentations of other clients have
/// them.
pub(crate) const TRACEPARENT: &str = "traceparent";
pub(crate) const TRACESTATE: &str = "tracestate";

/// Version, trace id, parent id and flags, with the dashes between them.
const TRACEPARENT_LEN: usize = 55;

/// The most members of a `tracestate`.
const TRACESTATE_MEMBERS_MAX: usize = 32;

/// The place of a message in a distributed trace, as the W3C's trace context says it. It travels in two properties of the
/// message, `traceparent` and `tracestate`.
///
/// It belongs to no version of any tracing library: it is made of texts, which each of them reads and writes.
///
/// ```
/// use pulsar_native::{Message, TraceContext};
///
/// # fn main() -> Result<(), pulsar_native::Error> {
/// let context = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")?;
/// assert!(context.is_sampled());
/// let message = Message::new("hello").with_trace_context(context.with_tracestate("vendor=1")?);
/// assert_eq!(message.property("tracestate"), Some("vendor=1"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// A context of this `traceparent`: `00-<trace id>-<parent id>-<flags>`, all in lower-case hexadecimal digits. One of a
    /// later version is taken as the specification says, by the fields that it shares with version 00.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: it is not of that form, its version is ff, or one of the ids is all zeros.
    pub fn new(traceparent: impl Into<String>) -> Result<Self> {
        let traceparent = traceparent.into();
        match is_traceparent(&traceparent) {
            true => Ok(Self { traceparent, tracestate: None }),
            false => {
                Err(invalid("traceparent must be 00-<32 digits>-<16 digits>-<2 digits>, lower-case and hexadecimal"))
            }
        }
    }

    /// Adds what tracing systems keep beside it: `key=value`, up to 32 of them, separated by commas.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`]: it is not of that form.
    pub fn with_tracestate(mut self, tracestate: impl Into<String>) -> Result<Self> {
        let tracestate = tracestate.into();
        if !is_tracestate(&tracestate) {
            return Err(invalid("tracestate must be up to 32 members `key=value`, separated by commas"));
        }
        self.tracestate = Some(tracestate);
        Ok(self)
    }

    /// That of a message with these properties. A `tracestate` that cannot be read is left out, as the specification says;
    /// without a `traceparent` that can be read there is none.
    pub(crate) fn of(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let context = Self::new(traceparent?).ok()?;
        let tracestate = tracestate.filter(|text| is_tracestate(text)).map(str::to_owned);
        Some(Self { tracestate, ..context })
    }

    /// All of `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// All of `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The id of the whole trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }

    /// The id of the span that it comes from: 16 hexadecimal digits.
    pub fn parent_id(&self) -> &str {
        &self.traceparent[36..52]
    }

    /// Whether the caller may have recorded its span (the flag `sampled`).
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.traceparent[53..55], 16).is_ok_and(|flags| flags & 1 == 1)
    }

    pub(crate) fn into_parts(self) -> (String, Option<String>) {
        (self.traceparent, self.tracestate)
    }
}

/// Its `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)
    }
}

fn invalid(what: &str) -> Error {
    Error::local(ErrorKind::InvalidArgument, what)
}

fn is_traceparent(text: &str) -> bool {
    // Of bytes, because a peer's text may have characters of several.
    let bytes = text.as_bytes();
    let Some((known, more)) = bytes.split_at_checked(TRACEPARENT_LEN) else { return false };
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_id = |id: &[u8]| id.iter().all(is_hex) && id.iter().any(|byte| *byte != b'0');
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let (version, flags) = (&known[..2], &known[53..]);
    let is_whole = match version {
        b"00" => more.is_empty(),
        _ => more.first().is_none_or(|next| *next == b'-'),
    };
    dashes
        && is_whole
        && version.iter().all(is_hex)
        && version != b"ff"
        && is_id(&known[3..35])
        && is_id(&known[36..52])
        && flags.iter().all(is_hex)
}

fn is_tracestate(text: &str) -> bool {
    let members = || text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let is_member = |member: &str| member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value));
    let count = members().count();
    (1..=TRACESTATE_MEMBERS_MAX).contains(&count) && members().all(is_member)
}

/// `simple-key`, or `tenant@system`.
fn is_key(key: &str) -> bool {
    let is_inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is_part = |part: &str, first_may_be_digit: bool, max: usize| {
        let bytes = part.as_bytes();
        let first =
            bytes.first().is_some_and(|byte| byte.is_ascii_lowercase() || first_may_be_digit && byte.is_ascii_digit());
        first && bytes.len() <= max && bytes.iter().all(is_inner)
    };
    match key.split_once('@') {
        None => is_part(key, false, 256),
        Some((tenant, system)) => is_part(tenant, true, 241) && is_part(system, false, 14),
    }
}

fn is_value(value: &str) -> bool {
    let is_char = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    !value.is_empty() && value.len() <= 256 && value.bytes().all(|byte| is_char(&byte)) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_apart() {
        let context = TraceContext::new(GOOD).expect("valid");
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.parent_id(), context.is_sampled()), ("00f067aa0ba902b7", true));
        let unsampled = TraceContext::new(GOOD.replace("-01", "-02")).expect("valid");
        assert!(!unsampled.is_sampled());
        let later = TraceContext::new(GOOD.replacen("00", "cc", 1) + "-what-will-be").expect("valid");
        assert_eq!(later.trace_id(), context.trace_id());
        assert_eq!(context.to_string(), GOOD);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let at = |at: usize, with: &str| {
            let mut text = GOOD.to_owned();
            text.replace_range(at..at + with.len(), with);
            text
        };
        let bad = [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD}0"),
            at(0, "ff"),
            at(0, "0A"),
            at(2, "_"),
            at(3, "4BF9"),
            at(3, &"0".repeat(32)),
            at(36, &"0".repeat(16)),
            at(53, "0g"),
            at(3, "é"),
            "é".repeat(28),
        ];
        for text in bad {
            assert!(TraceContext::new(text.clone()).is_err(), "{text}");
        }
        assert!(TraceContext::new(at(0, "01") + "x").is_err(), "what follows a later version starts with a dash");
    }

    #[test]
    fn the_members_of_a_tracestate_are_checked() {
        let with = |text: &str| TraceContext::new(GOOD).and_then(|context| context.with_tracestate(text)).is_ok();
        let many = |count: usize| vec!["a=1"; count].join(",");
        for good in ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, b=2\t,,", "1t@sys=x y", "a-_*/0=!"] {
            assert!(with(good), "{good}");
        }
        assert!(with(&many(32)));
        let long = format!("a={}", "v".repeat(257));
        for bad in
            ["", ",", "a", "A=1", "a=", "=1", "1a=1", "a=b=c", "a@=1", "a=é", "a@abcdefghijklmno=1", &long, &many(33)]
        {
            assert!(!with(bad), "{bad}");
        }
    }

    #[test]
    fn of_a_peers_properties_what_can_be_read_is_taken() {
        let of = |parent, state| TraceContext::of(parent, state).map(|context| context.into_parts());
        assert_eq!(of(None, Some("a=1")), None);
        assert_eq!(of(Some("00-x"), Some("a=1")), None);
        assert_eq!(of(Some(GOOD), Some("no state")), Some((GOOD.to_owned(), None)));
        assert_eq!(of(Some(GOOD), Some("a=1")), Some((GOOD.to_owned(), Some("a=1".to_owned()))));
    }
}
