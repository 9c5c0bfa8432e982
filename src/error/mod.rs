//! The error type of the public API.
//!
//! One [`Error`] serves the whole API. It is cheap to clone, because one cause (a lost connection, a terminated topic)
//! is returned to many callers. It says *who* found it ([`Origin`]), *what* it is ([`ErrorKind`], and the broker's own
//! [`ServerError`] if there is one), *where* (topic, broker address) and *whether trying again can help*
//! ([`Error::is_retriable`]).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

mod server;

pub(crate) use server::RetryPolicy;
pub use server::{ServerCode, ServerError};

/// The cause of an error, passed in by the application's code.
type Cause = Box<dyn StdError + Send + Sync>;

/// The result type of the public API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who found or caused the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// This library, before or without asking the broker.
    Local,
    /// The broker refused.
    Broker,
    /// The peer sent bytes that the protocol does not allow.
    Peer,
    /// The network or the operating system.
    Network,
    /// Code of the application that this library calls: it panicked.
    Application,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, URL, topic name, message or message id is not usable as it is.
    InvalidArgument,
    /// The credentials were refused, or could not be fetched.
    Authentication,
    /// The role may not do this.
    Authorization,
    /// No connection to the broker could be made, or it was lost.
    Connection,
    /// The peer does not speak the protocol, or violated it.
    Protocol,
    /// The topic, its namespace or its tenant does not exist.
    TopicNotFound,
    /// The subscription does not exist and may not be created.
    SubscriptionNotFound,
    /// The topic was terminated: nothing more can be published to it.
    TopicTerminated,
    /// Another producer or consumer holds what was asked for.
    Busy,
    /// Another producer took exclusive access; this one has ended.
    Fenced,
    /// The schema does not fit the topic's.
    IncompatibleSchema,
    /// A quota or rate limit of the broker.
    Quota,
    /// The backlog quota of the namespace is exceeded, and its policy is to refuse producers
    /// (ProducerBlockedQuotaExceededError and ProducerBlockedQuotaExceededException).
    BacklogQuotaExceeded,
    /// The broker does not allow the operation.
    NotAllowed,
    /// The broker cannot serve this at the moment.
    NotReady,
    /// Any other error code of the broker.
    Server,
    /// The answer did not come in time.
    TimedOut,
    /// The message is larger than the broker takes.
    MessageTooLarge,
    /// A message cannot be encrypted or decrypted: a key is missing, cannot be read or does not fit (Java: `CryptoException`).
    Crypto,
    /// Too much waits already: messages of a producer, acknowledgments or requests of a consumer.
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
            Self::Connection
                | Self::Quota
                | Self::BacklogQuotaExceeded
                | Self::NotReady
                | Self::TimedOut
                | Self::QueueFull
                | Self::Server
        )
    }
}

/// A failure of the public API.
///
/// [`Display`](fmt::Display) says in one line what happened, to which topic, at which broker, and what caused it, down to
/// the first cause: `{error}` is enough for a log. The causes are also there as [`source`](StdError::source), so a
/// reporter that prints an error and then walks its sources shows them twice.
///
/// ```
/// use pulsar_native::{Error, ErrorKind};
///
/// let refused = Error::authentication("the vault knows no such role");
/// assert_eq!(refused.kind(), ErrorKind::Authentication);
/// assert!(!refused.is_retriable());
/// assert_eq!(refused.to_string(), "no credentials: the vault knows no such role");
/// ```
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
    source: Option<Source>,
    retriable: Option<bool>,
    may_be_stored: bool,
}

#[derive(Clone)]
enum Source {
    /// Separate from other causes, for [`Error::server_error`].
    Server(ServerError),
    Other(Arc<dyn StdError + Send + Sync>),
}

impl Source {
    fn get(&self) -> &(dyn StdError + 'static) {
        match self {
            Self::Server(error) => error,
            Self::Other(error) => &**error,
        }
    }
}

impl Error {
    /// No credentials, for a custom [`Authentication`](crate::client::Authentication): of kind
    /// [`Authentication`](ErrorKind::Authentication), which is not retriable. For a passing failure, such as a source
    /// that cannot be reached, use [`Error::connection`].
    #[must_use]
    pub fn authentication(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::local(ErrorKind::Authentication, "no credentials").caused_by(cause.into())
    }

    /// No connection, for a custom [`Dialer`](crate::client::Dialer): of kind [`Connection`](ErrorKind::Connection),
    /// which is retriable.
    #[must_use]
    pub fn connection(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::network("no connection").caused_by(cause.into())
    }

    /// No key, for a custom [`CryptoKeyReader`](crate::CryptoKeyReader): of kind [`Crypto`](ErrorKind::Crypto), which is not
    /// retriable.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn crypto(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::local(ErrorKind::Crypto, "no key").caused_by(cause.into())
    }

    /// A failure of another kind, for custom dialers and authentications. Whether it is retriable follows from the kind:
    /// see [`Error::is_retriable`].
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::local(kind, message)
    }

    /// Sets the cause, which [`source`](StdError::source) returns, instead of the one it has. An error of the broker
    /// loses its [`server_error`](Self::server_error) by it.
    #[must_use]
    pub fn with_source(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.caused_by(cause.into())
    }

    fn caused_by(mut self, cause: Cause) -> Self {
        Arc::make_mut(&mut self.inner).source = Some(Source::Other(cause.into()));
        self
    }

    /// An error found by this library.
    pub(crate) fn local(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::build(kind, Origin::Local, message.into())
    }

    /// The network or the operating system failed.
    pub(crate) fn network(message: impl Into<String>) -> Self {
        Self::build(ErrorKind::Connection, Origin::Network, message.into())
    }

    /// Code of the application failed in a way that it did not report itself.
    #[cfg(feature = "client")]
    pub(crate) fn application(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::build(kind, Origin::Application, message.into())
    }

    /// The peer violated the protocol.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::build(ErrorKind::Protocol, Origin::Peer, message.into())
    }

    /// The broker's own refusal; `doing` says what was asked of it.
    pub(crate) fn server(error: ServerError, doing: &str) -> Self {
        let mut refused = Self::build(error.code.kind(), Origin::Broker, format!("the broker refused {doing}"));
        Arc::make_mut(&mut refused.inner).source = Some(Source::Server(error));
        refused
    }

    fn build(kind: ErrorKind, origin: Origin, message: String) -> Self {
        let (topic, address, source, retriable) = (None, None, None, None);
        let inner = Inner { kind, origin, message, topic, address, source, retriable, may_be_stored: false };
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
    pub(crate) fn with_retriable(mut self, retriable: bool) -> Self {
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

    /// The broker it is about, for people to read: `host:port`, or behind a proxy
    /// `broker-host:port through proxy-host:port`.
    pub fn address(&self) -> Option<&str> {
        self.inner.address.as_deref()
    }

    /// The broker's error code and text, where the broker answered with one (`ServerError` of the protocol).
    pub fn server_error(&self) -> Option<&ServerError> {
        match &self.inner.source {
            Some(Source::Server(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the message that was not confirmed may be stored nevertheless: the value of
    /// [`SendError::may_be_stored`], kept when a [`SendError`] is converted. `false` for errors not about a message.
    pub fn may_be_stored(&self) -> bool {
        self.inner.may_be_stored
    }

    /// Whether the same call may succeed later without a change of its arguments. It follows from the broker's code if
    /// there is one, else from the kind, with exceptions: a TLS certificate that is not accepted is of kind
    /// [`Connection`](ErrorKind::Connection) and not retriable; credentials that took too long, or whose source panicked,
    /// are of kind [`Authentication`](ErrorKind::Authentication) and retriable.
    ///
    /// The client retries such failures itself when it connects, looks up and attaches, so one that comes from there has
    /// lasted for the whole time-out. [`QueueFull`](ErrorKind::QueueFull) is returned at once. Producers and consumers
    /// that were attached before also outlast most failures for which this is `false`.
    pub fn is_retriable(&self) -> bool {
        self.inner.retriable.unwrap_or_else(|| match self.server_error() {
            Some(error) => error.code.retry_policy() == RetryPolicy::Retry,
            None => self.inner.kind.is_retriable(),
        })
    }
}

/// Same as [`Error::connection`].
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::connection(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(topic) = &self.inner.topic {
            write!(f, " [topic {}]", Shortened(topic))?;
        }
        if let Some(address) = &self.inner.address {
            write!(f, " [broker {address}]")?;
        }
        write_causes(f, self.source())
    }
}

/// A text of the application's in an error: what is too long for a log is cut off.
pub(crate) struct Shortened<'a>(pub(crate) &'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most characters that are shown.
        const CHARS_MAX: usize = 300;
        match self.0.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => write!(f, "{}... ({} bytes)", &self.0[..end], self.0.len()),
            None => f.write_str(self.0),
        }
    }
}

/// Writes `: cause: cause of the cause`, down to the first cause. The text of this crate's errors contains their causes.
fn write_causes(f: &mut fmt::Formatter<'_>, mut cause: Option<&(dyn StdError + 'static)>) -> fmt::Result {
    while let Some(error) = cause {
        write!(f, ": {error}")?;
        cause = if error.is::<Error>() || error.is::<SendError>() { None } else { error.source() };
    }
    Ok(())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {:?}: {self})", self.inner.kind, self.inner.origin)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(Source::get)
    }
}

impl PartialEq for Error {
    /// Compares kind, origin, whether a message may be stored, the broker's error, and text.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.inner, &other.inner);
        Arc::ptr_eq(a, b)
            || a.kind == b.kind
                && a.origin == b.origin
                && a.may_be_stored == b.may_be_stored
                && self.server_error() == other.server_error()
                && self.to_string() == other.to_string()
    }
}

/// Why a message was not confirmed.
///
/// Its text is that of [`error`](Self::error) behind what became of the message; its [`source`](StdError::source) is
/// that of [`error`](Self::error).
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

    /// Whether the broker may have stored the message nevertheless: its bytes were sent and no receipt arrived.
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
        write!(f, "{what}: ")?;
        self.error.fmt(f)
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<SendError> for Error {
    /// [`Error::may_be_stored`] keeps [`SendError::may_be_stored`].
    fn from(error: SendError) -> Self {
        let SendError { mut error, may_be_stored } = error;
        if error.inner.may_be_stored != may_be_stored {
            Arc::make_mut(&mut error.inner).may_be_stored = may_be_stored;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_topic_address_and_cause() {
        let error = Error::server(ServerError::new(5, "Exclusive consumer is already connected"), "the subscription")
            .with_topic(&"persistent://a/b/c".into())
            .with_address(&"b:6650".into());
        let server = "ConsumerBusy (Exclusive consumer is already connected)";
        let text = format!("the broker refused the subscription [topic persistent://a/b/c] [broker b:6650]: {server}");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some(server));
        assert_eq!(error.source().and_then(|source| source.downcast_ref()), error.server_error());
        assert_eq!(format!("{error:?}"), format!("Error(Busy, Broker: {text})"));
    }

    #[test]
    fn each_cause_is_printed_once() {
        #[derive(Debug)]
        struct Foreign(std::io::Error);
        impl fmt::Display for Foreign {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the tunnel broke")
            }
        }
        impl StdError for Foreign {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let foreign = Foreign(std::io::ErrorKind::ConnectionReset.into());
        let outer = Error::new(ErrorKind::TimedOut, "timed out").with_source(Error::connection(foreign));
        assert_eq!(outer.to_string(), "timed out: no connection: the tunnel broke: connection reset");
    }

    #[test]
    fn causes_are_kept_as_they_are() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for error in [refused().into(), Error::connection(refused()), Error::network("x").with_source(refused())] {
            let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).expect("an io::Error");
            assert_eq!((io.kind(), error.kind()), (std::io::ErrorKind::ConnectionRefused, ErrorKind::Connection));
            assert!(error.is_retriable());
        }
        let outer = Error::new(ErrorKind::NotReady, "no token yet").with_source(Error::connection(refused()));
        assert_eq!(outer.to_string(), "no token yet: no connection: connection refused");
        assert_eq!(outer, outer.clone());
        assert_ne!(outer, Error::new(ErrorKind::NotReady, "no token yet"));
    }

    #[test]
    fn a_send_error_says_what_became_of_the_message_and_stays_so() {
        let cause = || Error::connection("reset").with_topic(&"t".into());
        for (may_be_stored, text) in [
            (true, "the message was not confirmed, and may be stored: no connection [topic t]: reset"),
            (false, "the message was not stored: no connection [topic t]: reset"),
        ] {
            let error = SendError::new(cause(), may_be_stored);
            assert_eq!(error.to_string(), text);
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("reset"));
            let error = Error::from(error);
            assert_eq!((error.may_be_stored(), error.topic()), (may_be_stored, Some("t")));
        }
        assert!(!cause().may_be_stored());
    }
}
