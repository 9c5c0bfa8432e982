//! How a request fails, and how a peer breaks the protocol.

use crate::error::{Error, ErrorKind, ServerError};
use crate::wire::error::DecodeError;

/// The peer broke the protocol. Its connection ends and everything on it attaches again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolViolation {
    /// What it did.
    pub what: String,
    /// Which bytes could not be read, if that is what it was.
    pub source: Option<DecodeError>,
}

impl ProtocolViolation {
    /// The peer did `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// The peer sent bytes that cannot be read.
    pub fn unreadable(what: impl Into<String>, source: DecodeError) -> Self {
        Self { what: what.into(), source: Some(source) }
    }
}

/// Why a request has no answer, or has a refusal for one.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestError {
    /// The broker refused.
    Server(ServerError),
    /// No answer came within the operation timeout.
    TimedOut,
    /// The connection ended first.
    Disconnected,
    /// It was not sent: the broker lacks what it needs.
    Unsupported(&'static str),
    /// It was not sent: the broker would not take a command of this size, and close the connection.
    TooLarge {
        /// The option that takes most of it, by its name in the builders.
        option: &'static str,
        /// The bytes of that option.
        option_bytes: usize,
        /// The bytes of the whole command.
        bytes: usize,
        /// The most that the broker takes.
        max: usize,
    },
    /// The transport has an error of its own: what came is no answer, or the request is not to be sent this way.
    Transport(Error),
}

impl RequestError {
    /// As an error of the public API; `request` names what was asked for: "the creation of the producer".
    pub fn into_error(self, request: &str) -> Error {
        match self {
            Self::Server(error) => Error::server(error, request),
            Self::TimedOut => {
                Error::local(ErrorKind::TimedOut, format!("timed out waiting for the broker to answer {request}"))
            }
            Self::Disconnected => Error::network(format!("the connection was lost during {request}")),
            Self::Unsupported(what) => Error::local(
                ErrorKind::Unsupported,
                format!("the broker does not support {what}, which {request} needs"),
            ),
            Self::TooLarge { option, option_bytes, bytes, max } => Error::local(
                ErrorKind::InvalidArgument,
                format!(
                    "{option} of {option_bytes} bytes is too large: {request} takes {bytes} bytes, and the broker at \
                     most {max}"
                ),
            ),
            Self::Transport(error) => error,
        }
    }
}
