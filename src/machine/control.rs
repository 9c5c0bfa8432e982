//! The words between the supervisor, the sessions and whoever carries their actions out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::consumer::Consumer;
use super::producer::Producer;
use super::{Deadline, Deferred, Endpoint, EndpointId, Now, ReadyList, ReplyTo};
use crate::error::{Error, ErrorKind, Result, ServerError};
use crate::machine::connection::peer::{PeerInfo, ProtocolViolation, RequestError};
use crate::machine::endpoint::outbox::Response;
use crate::wire::command::Command;

/// One dial and what came of it; never used again, so that news of an old connection cannot pass for new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One attempt to attach an endpoint; grows with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// One question of the supervisor to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestToken(pub u64);

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A host name or an address, without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which connection: two endpoints with the same key share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerKey {
    /// The broker that shall answer.
    pub logical: HostPort,
    /// Where to connect: a proxy's address, or the same as `logical`.
    pub physical: HostPort,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Which of several connections to the same broker.
    pub index: u32,
}

impl BrokerKey {
    /// The broker as `host:port`, for `CONNECT.proxy_to_broker_url`, when a proxy stands between.
    pub fn proxy_to_broker_url(&self) -> Option<String> {
        (self.logical != self.physical).then(|| self.logical.to_string())
    }
}

/// What authenticates a connection: `auth_method_name` and `auth_data` of CONNECT and AUTH_RESPONSE.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthData {
    /// `none`, `token`, `basic` ...
    pub method: String,
    /// The credential. Never shown.
    pub data: Bytes,
}

impl AuthData {
    /// No authentication.
    pub fn none() -> Self {
        Self { method: "none".to_owned(), data: Bytes::new() }
    }
}

impl fmt::Debug for AuthData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthData({}, <{} bytes>)", self.method, self.data.len())
    }
}

/// Who ended a connection, and why.
#[derive(Debug, Clone, PartialEq)]
pub enum CloseReason {
    /// This client, on purpose.
    Local(&'static str),
    /// The broker refused the handshake, or ended the connection with an error.
    Broker(ServerError),
    /// The peer's bytes are not the protocol.
    PeerBroke(ProtocolViolation),
    /// Nothing was heard for this long.
    Silent {
        /// How long.
        after: Duration,
    },
    /// The socket failed or was closed.
    Io(Error),
    /// The connection was never made.
    Dial(Error),
}

impl CloseReason {
    /// As an error of the public API.
    pub fn to_error(&self, address: &Arc<str>) -> Error {
        let error = match self {
            Self::Local(why) => Error::local(ErrorKind::Closed, *why),
            Self::Broker(error) => Error::server(error.clone(), "the connection"),
            Self::PeerBroke(violation) => {
                let error = Error::protocol(violation.what.clone());
                match &violation.source {
                    Some(source) => error.with_source(source.clone()),
                    None => error,
                }
            }
            Self::Silent { after } => Error::network(format!("the broker was silent for {after:?}")),
            Self::Io(error) | Self::Dial(error) => error.clone(),
        };
        error.with_address(address)
    }
}

/// An endpoint of either kind.
#[derive(Debug, Clone)]
pub enum EndpointRef {
    /// A producer.
    Producer(Arc<Endpoint<Producer>>),
    /// A consumer.
    Consumer(Arc<Endpoint<Consumer>>),
}

/// The same words for either kind of machine.
macro_rules! either {
    ($self:expr, $endpoint:ident => $work:expr) => {
        match $self {
            EndpointRef::Producer($endpoint) => $work,
            EndpointRef::Consumer($endpoint) => $work,
        }
    };
}

impl EndpointRef {
    /// Its name.
    pub fn id(&self) -> EndpointId {
        either!(self, endpoint => endpoint.id())
    }

    /// The full name of its topic.
    pub fn topic(&self) -> Arc<str> {
        either!(self, endpoint => endpoint.with(&mut Deferred::new(), |machine, _| machine.topic().clone()))
    }

    /// A producer's send timeout; `None` for a consumer, and for a producer without one.
    pub fn send_timeout(&self) -> Option<Duration> {
        match self {
            Self::Producer(endpoint) => endpoint.with(&mut Deferred::new(), |producer, _| producer.send_timeout()),
            Self::Consumer(_) => None,
        }
    }

    /// Hands it to another server.
    pub fn move_to(&self, server: &Arc<ReadyList>, deferred: &mut Deferred) {
        either!(self, endpoint => endpoint.move_to(server, deferred));
    }

    /// It has no connection any more, or did not get one.
    pub fn detach(&self, now: Now, deferred: &mut Deferred) {
        either!(self, endpoint => endpoint.with(deferred, |machine, deferred| machine.on_detached(now, deferred)));
    }

    /// It is over: all that waits on it ends with `error`.
    pub fn fail(&self, error: Error, deferred: &mut Deferred) {
        either!(self, endpoint => endpoint.with(deferred, |machine, deferred| machine.fail(error, deferred)));
    }

    /// It shall close as if its last handle were dropped.
    pub fn close(&self, now: Now, deferred: &mut Deferred) {
        either!(self, endpoint => endpoint.with(deferred, |machine, deferred| machine.close(None, now, deferred)));
    }

    /// Whether it is closed or failed, so that its server can forget it.
    pub fn is_finished(&self) -> bool {
        either!(self, endpoint => endpoint.with(&mut Deferred::new(), |machine, _| machine.is_finished()))
    }

    /// Whether the broker has confirmed its close, so that nothing is left to close there.
    pub fn is_closed_at_broker(&self) -> bool {
        either!(self, endpoint => endpoint.with(&mut Deferred::new(), |machine, _| machine.is_closed_at_broker()))
    }

    /// Lets `server` do what is due while there is no connection; `None` if another one serves it by now, else the
    /// next deadline.
    pub fn serve_detached(
        &self,
        server: &Arc<ReadyList>,
        now: Now,
        deferred: &mut Deferred,
    ) -> Option<Option<Deadline>> {
        either!(self, endpoint => endpoint.serve(server, |machine| {
            machine.handle_deadline(now, deferred);
            machine.poll_deadline()
        }))
    }
}

/// What reaches the supervisor.
#[derive(Debug)]
pub enum Input {
    /// Connect to the service URL, to see that address and credentials are good.
    Connect(ReplyTo<PeerInfo>),
    /// Attach this endpoint and keep it attached.
    Open(EndpointRef),
    /// How many partitions the topic has; 0 means that it is not partitioned.
    Partitions {
        /// The topic's full name.
        topic: Arc<str>,
        /// Where the answer goes.
        reply: ReplyTo<u32>,
    },
    /// The credentials that [`Action::FetchCredentials`] asked for.
    Credentials(ConnectionId, Result<AuthData>),
    /// News of a session.
    From(ConnectionId, SessionEvent),
    /// Close every endpoint, then every connection.
    CloseClient(ReplyTo<()>),
}

/// What the supervisor wants done.
#[derive(Debug)]
pub enum Action {
    /// Ask the credential source; the answer is [`Input::Credentials`].
    FetchCredentials(ConnectionId),
    /// Connect and run a session; its news are [`Input::From`], its failure [`SessionEvent::Ended`].
    Dial {
        /// The name of the connection from now on.
        link: ConnectionId,
        /// Where to.
        key: BrokerKey,
        /// What to show in CONNECT.
        credentials: AuthData,
    },
    /// Pass this to the session.
    Tell(ConnectionId, SessionCommand),
    /// End the connection; no more news of it are wanted.
    HangUp(ConnectionId),
}

/// What the supervisor tells a session.
#[derive(Debug)]
pub enum SessionCommand {
    /// Ask the broker; the answer is [`SessionEvent::Answer`].
    Ask(RequestToken, Box<Command>),
    /// Open this endpoint at the broker.
    Open(EndpointRef, Attempt),
    /// Answer the broker's AUTH_CHALLENGE with these.
    Challenge(AuthData),
}

/// What a session tells the supervisor.
///
/// A session that gives an endpoint up has moved it to the supervisor's list and called its `on_detached` before it
/// says so.
#[derive(Debug)]
pub enum SessionEvent {
    /// The handshake is done.
    Up(PeerInfo),
    /// The broker wants fresh credentials (AUTH_CHALLENGE).
    Challenged,
    /// The endpoint is open.
    Opened(EndpointId, Attempt),
    /// The broker did not open the endpoint.
    OpenFailed(EndpointId, Attempt, RequestError),
    /// The broker closed the endpoint, or it asked to be attached afresh; with the address of the broker that has
    /// it now, if one was named.
    Detached(EndpointId, Attempt, Option<String>),
    /// The endpoint is closed; nothing of it is left.
    Finished(EndpointId),
    /// The answer to [`SessionCommand::Ask`].
    Answer(RequestToken, Response),
    /// The connection is over, and everything that was on it is detached.
    Ended(CloseReason),
}
