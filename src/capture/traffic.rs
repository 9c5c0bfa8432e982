//! What is spoken on a connection, by its first bytes.

use std::fmt;
use std::ops::RangeInclusive;

use super::Direction;
use crate::wire::command::{Command, Sender};

/// What is spoken on a connection, as the first bytes of one direction tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Traffic {
    /// Pulsar's binary protocol: a frame starts here.
    Pulsar,
    /// TLS: what is inside cannot be read.
    Tls,
    /// HTTP/1, such as lookups over a broker's REST interface.
    Http,
    /// Something else, or the middle of a stream.
    Unknown,
}

/// How many bytes it takes to tell.
const BYTES_TO_TELL: usize = 11;

/// How HTTP/1 begins.
const HTTP_REQUESTS: [&[u8]; 7] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH "];
const HTTP_RESPONSE: &[u8] = b"HTTP/1.";

/// The types of TLS records, and that of the handshake, whose messages have their type in the sixth byte.
const TLS_RECORDS: RangeInclusive<u8> = 0x14..=0x17;
const TLS_HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;

impl Traffic {
    /// What `first` are the first bytes of. `None` if it takes more bytes to tell.
    #[must_use]
    pub fn of(first: &[u8]) -> Option<Self> {
        let is_start = |pattern: &[u8]| first.starts_with(pattern);
        if matches!(first, [kind, 3, 0..=4, ..] if TLS_RECORDS.contains(kind)) {
            Some(Self::Tls)
        } else if is_start(HTTP_RESPONSE) || HTTP_REQUESTS.iter().any(|method| is_start(method)) {
            Some(Self::Http)
        } else if command_type(first).is_some() {
            Some(Self::Pulsar)
        } else if first.len() >= BYTES_TO_TELL {
            Some(Self::Unknown)
        } else {
            None
        }
    }

    /// Whether `first` are the first bytes of HTTP/1, as far as they go.
    #[cfg(feature = "tap")]
    pub(crate) fn may_be_http(first: &[u8]) -> bool {
        let is_like = |pattern: &[u8]| first.iter().zip(pattern).all(|(byte, expected)| byte == expected);
        is_like(HTTP_RESPONSE) || HTTP_REQUESTS.iter().any(|method| is_like(method))
    }

    /// Which way `first` goes if it is the start of what only one side sends.
    #[must_use]
    pub fn sender(first: &[u8]) -> Option<Direction> {
        match Self::of(first)? {
            Self::Pulsar => match Command::sender_of(command_type(first)?)? {
                Sender::Client => Some(Direction::ToBroker),
                Sender::Broker => Some(Direction::ToClient),
                Sender::Both => None,
            },
            Self::Tls if first[0] != TLS_HANDSHAKE => None,
            Self::Tls if *first.get(5)? == CLIENT_HELLO => Some(Direction::ToBroker),
            Self::Tls => Some(Direction::ToClient),
            Self::Http if first.starts_with(HTTP_RESPONSE) => Some(Direction::ToClient),
            Self::Http => Some(Direction::ToBroker),
            Self::Unknown => None,
        }
    }
}

/// The type of the command, if a frame starts here: two sizes that fit, and a BaseCommand that starts with its type.
fn command_type(bytes: &[u8]) -> Option<i32> {
    let (sizes, command) = bytes.split_first_chunk::<8>()?;
    let size = |at: usize| u32::from_be_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]);
    let (total, command_size) = (size(0), size(4));
    match *command {
        [0x08, kind @ ..0x80, ..] if command_size >= 2 && command_size.checked_add(4)? <= total => {
            Command::is_known(kind.into()).then_some(kind.into())
        }
        _ => None,
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pulsar => "Pulsar",
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Unknown => "unknown",
        })
    }
}
