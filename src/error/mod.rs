//! What can go wrong, said so that a program can act on it and a person can mend it.
//!
//! One [`Error`] serves the whole public API: it is cheap to clone, because one cause (a lost link, a
//! terminated topic) reaches many waiters. It answers *who* ([`Origin`]), *what* ([`ErrorKind`], and the
//! broker's own [`ServerError`] where there is one), *where* (topic, broker address) and *whether
//! trying again can help* ([`Error::is_retriable`]).

use std::fmt;
use std::sync::Arc;

mod server;

pub use server::{Disposition, ServerCode, ServerError};

/// The result type of the public API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who found or caused the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// This library, before or without asking the broker.
    Local,
    /// The broker said no.
    Broker,
    /// The peer sent bytes that the protocol does not allow.
    Peer,
    /// The network or the operating system.
    Network,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, URL or topic name is not usable as it is.
    InvalidArgument,
    /// The credentials were refused, or could not be fetched.
    Authentication,
    /// The role may not do this.
    Authorization,
    /// No connection to the broker could be made, or it was lost.
    Connection,
    /// The peer does not speak the protocol, or broke it.
    Protocol,
    /// The topic, its namespace or its tenant does not exist.
    TopicNotFound,
    /// The subscription does not exist and may not be created.
    SubscriptionNotFound,
    /// The topic was terminated: nothing can be published to it any more.
    TopicTerminated,
    /// Another producer or consumer holds what was asked for.
    Busy,
    /// Another producer took exclusive access; this one is over for good.
    Fenced,
    /// The schema does not fit the topic's.
    IncompatibleSchema,
    /// A quota or rate limit of the broker.
    Quota,
    /// The broker refuses the operation as such.
    NotAllowed,
    /// The broker cannot serve this at the moment.
    NotReady,
    /// Any other error code of the broker.
    Server,
    /// The answer did not come in time.
    TimedOut,
    /// The message is larger than the broker takes.
    MessageTooLarge,
    /// The pending queue is full.
    QueueFull,
    /// The handle, or the client it came from, is closed.
    Closed,
    /// The peer, or this build, lacks the feature.
    Unsupported,
}

impl ErrorKind {
    fn is_retriable(self) -> bool {
        matches!(
            self,
            Self::Connection | Self::Quota | Self::NotReady | Self::TimedOut | Self::QueueFull | Self::Server
        )
    }
}

/// A failure of the public API.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    message: String,
    topic: Option<Arc<str>>,
    address: Option<Arc<str>>,
    server: Option<ServerError>,
    retriable: Option<bool>,
}

impl Error {
    /// An error of this library's own finding.
    pub(crate) fn local(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, Origin::Local, message.into())
    }

    /// The network or the operating system failed.
    pub(crate) fn network(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Connection, Origin::Network, message.into())
    }

    /// The peer's bytes broke the protocol.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, Origin::Peer, message.into())
    }

    /// The broker's own refusal; `doing` says what was asked of it.
    pub(crate) fn server(error: ServerError, doing: &str) -> Self {
        let mut made = Self::new(error.code.kind(), Origin::Broker, format!("the broker refused {doing}"));
        Arc::make_mut(&mut made.inner).server = Some(error);
        made
    }

    fn new(kind: ErrorKind, origin: Origin, message: String) -> Self {
        let inner = Inner { kind, origin, message, topic: None, address: None, server: None, retriable: None };
        Self { inner: Arc::new(inner) }
    }

    /// Names the topic, unless one is named already.
    #[must_use]
    pub(crate) fn with_topic(mut self, topic: &Arc<str>) -> Self {
        if self.inner.topic.is_none() {
            Arc::make_mut(&mut self.inner).topic = Some(topic.clone());
        }
        self
    }

    /// Names the broker's address, unless one is named already.
    #[must_use]
    pub(crate) fn with_address(mut self, address: &Arc<str>) -> Self {
        if self.inner.address.is_none() {
            Arc::make_mut(&mut self.inner).address = Some(address.clone());
        }
        self
    }

    /// Overrides whether trying again can help.
    #[cfg(feature = "client")]
    #[must_use]
    pub(crate) fn retriable(mut self, retriable: bool) -> Self {
        Arc::make_mut(&mut self.inner).retriable = Some(retriable);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Who found or caused it.
    pub fn origin(&self) -> Origin {
        self.inner.origin
    }

    /// The full name of the topic it is about, if it is about one.
    pub fn topic(&self) -> Option<&str> {
        self.inner.topic.as_deref()
    }

    /// The address of the broker it is about, as `host:port`.
    pub fn address(&self) -> Option<&str> {
        self.inner.address.as_deref()
    }

    /// The broker's error code and text, where the broker answered with one (`ServerError` of the protocol).
    pub fn server_error(&self) -> Option<&ServerError> {
        self.inner.server.as_ref()
    }

    /// Whether the same call may succeed later without a change of its arguments.
    ///
    /// The client itself retries such failures of producers and consumers that have been attached once; what
    /// reaches the application has outlived its deadline.
    pub fn is_retriable(&self) -> bool {
        self.inner.retriable.unwrap_or_else(|| match &self.inner.server {
            Some(error) => error.code.disposition() == Disposition::Retry,
            None => self.inner.kind.is_retriable(),
        })
    }
}

/// What the operating system says of a socket or a name: a [`Connection`](ErrorKind::Connection) error, for a dialer of
/// one's own.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::network(error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(topic) = &self.inner.topic {
            write!(f, " [topic {topic}]")?;
        }
        if let Some(address) = &self.inner.address {
            write!(f, " [broker {address}]")?;
        }
        match &self.inner.server {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {:?}: {self})", self.inner.kind, self.inner.origin)
    }
}

impl std::error::Error for Error {}

impl PartialEq for Error {
    /// Equal in kind, origin, text, topic, address and broker's answer.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.inner, &other.inner);
        a.kind == b.kind
            && a.origin == b.origin
            && a.message == b.message
            && a.topic == b.topic
            && a.address == b.address
            && a.server == b.server
    }
}

/// Why a message was not confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct SendError {
    error: Error,
    may_be_stored: bool,
}

impl SendError {
    pub(crate) fn new(error: Error, may_be_stored: bool) -> Self {
        Self { error, may_be_stored }
    }

    /// The cause.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Whether the broker may have stored the message all the same: its bytes went out and no answer to them came.
    ///
    /// `false` means that the message is not in the topic.
    pub fn may_be_stored(&self) -> bool {
        self.may_be_stored
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.may_be_stored {
            true => "the message was not confirmed, and may be stored",
            false => "the message was not stored",
        };
        write!(f, "{what}: {}", self.error)
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        error.error
    }
}
