//! The messages between the supervisor, the sessions, and the runtime that carries out their actions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::supervisor::query::PendingQuery;
use super::supervisor::service_url::ServiceUrl;
use super::{EndpointId, EndpointRef, ReplyTo};
use crate::error::{Error, ErrorKind, Result, ServerCode, ServerError};
use crate::machine::connection::error::{ProtocolViolation, RequestError};
use crate::machine::connection::peer::PeerInfo;
use crate::machine::endpoint::outbox::Response;
use crate::wire::command::Command;

pub use super::credentials::{AuthContext, AuthData};

/// Names one connection, from its dial to its end. Never used again, so that a late event of an old connection cannot be
/// taken for one of the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One attempt to attach an endpoint; grows with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// Names one request of the supervisor to a broker.
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

/// Names the options by which a cluster is dialed: credentials, TLS, dialer. A client begins with 0, and each switch to
/// another cluster takes a number that was never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ClusterId(pub u32);

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// The binary protocol.
    Pulsar,
    /// The REST interface (`http://` service URLs): requests only. An endpoint cannot be opened on it.
    Http,
}

/// Which connection: two endpoints with the same key share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerKey {
    /// The broker that answers.
    pub logical: HostPort,
    /// Where to connect: a proxy's address, or the same as `logical`.
    pub physical: HostPort,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// What is spoken over it.
    pub transport: Transport,
    /// Which of several connections to the same broker.
    pub index: u32,
    /// Whose credentials and TLS options it is made with.
    pub cluster: ClusterId,
}

impl BrokerKey {
    /// The first connection to a host itself, without TLS, of the cluster that a client begins with.
    pub fn of_host(host: HostPort, transport: Transport) -> Self {
        let cluster = ClusterId::default();
        Self { logical: host.clone(), physical: host, tls: false, transport, index: 0, cluster }
    }

    /// The broker as `host:port`, with the proxy's address if there is one: its name in states and errors.
    pub fn name(&self) -> Arc<str> {
        match self.proxy_to_broker_url() {
            Some(broker) => format!("{broker} through {}", self.physical).into(),
            None => self.logical.to_string().into(),
        }
    }

    /// The broker as `host:port`, for `CONNECT.proxy_to_broker_url`, when a proxy stands between.
    pub fn proxy_to_broker_url(&self) -> Option<String> {
        (self.logical != self.physical).then(|| self.logical.to_string())
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq)]
pub enum CloseReason {
    /// This client, on purpose.
    Local(&'static str),
    /// The broker refused the handshake, or ended the connection with an error.
    Broker(ServerError),
    /// The peer's bytes are not the protocol.
    ProtocolViolation(ProtocolViolation),
    /// No frame but PING came for this long, or no CONNECTED.
    Silent {
        /// How long.
        after: Duration,
    },
    /// The socket failed or was closed.
    Io(Error),
    /// The connection was never made.
    Dial(Error),
    /// This client, because it uses another cluster now.
    ClusterSwitched,
}

impl CloseReason {
    /// As an error of the public API.
    pub fn to_error(&self, address: &Arc<str>) -> Error {
        let error = match self {
            Self::Local(why) => Error::local(ErrorKind::Closed, *why),
            Self::Broker(error) if error.code == ServerCode::AUTHENTICATION_ERROR => {
                Error::server(error.clone(), REFUSED_CREDENTIALS)
            }
            Self::Broker(error) => Error::server(error.clone(), "the connection"),
            Self::ProtocolViolation(violation) => {
                let error = Error::protocol(violation.what.clone());
                match &violation.source {
                    Some(source) => error.with_source(source.clone()),
                    None => error,
                }
            }
            Self::Silent { after } => Error::network(format!("the broker was silent for {after:?}")),
            Self::Io(error) | Self::Dial(error) => error.clone(),
            Self::ClusterSwitched => Error::local(ErrorKind::NotReady, "the client uses another cluster now"),
        };
        error.with_address(address)
    }
}

/// Brokers say no more than that they refuse them.
const REFUSED_CREDENTIALS: &str = "the credentials: they have expired or are not valid yet by its clock, are of another key \
                                   or cluster, or of a method that it does not take; its log says which";

/// Why an endpoint is detached whose broker sent CLOSE_PRODUCER or CLOSE_CONSUMER.
pub(crate) fn closed_by_broker() -> Error {
    Error::local(ErrorKind::NotReady, "its broker closed it, as when a topic moves")
}

/// Why an endpoint is detached whose broker sent TOPIC_MIGRATED.
pub(crate) fn topic_migrated() -> Error {
    Error::local(ErrorKind::NotReady, "its topic has migrated to another cluster")
}

/// What reaches the supervisor.
#[derive(Debug)]
pub enum Input {
    /// Attach this endpoint and keep it attached.
    Open(EndpointRef),
    /// Ask the cluster something.
    Query(PendingQuery),
    /// The credentials that [`Action::FetchCredentials`] asked for.
    Credentials(ConnectionId, Result<AuthData>),
    /// An event of a session.
    Session(ConnectionId, SessionEvent),
    /// Use another cluster: every endpoint and query goes there. Its number is above that of any cluster before it.
    SwitchCluster(ClusterId, ServiceUrl),
    /// Close every endpoint, then every connection.
    CloseClient(ReplyTo<()>),
}

/// An action of the supervisor, carried out by its driver.
#[derive(Debug)]
pub enum Action {
    /// Ask the credential source of the cluster; the answer is [`Input::Credentials`].
    FetchCredentials(ConnectionId, ClusterId, AuthContext),
    /// Connect and run a session; its events are [`Input::Session`], its failure [`SessionEvent::Ended`].
    Dial {
        /// The name of the connection from now on.
        connection: ConnectionId,
        /// Where to.
        key: BrokerKey,
        /// What CONNECT shows. None for [`Transport::Http`], whose driver asks the credential source for headers itself.
        credentials: AuthData,
    },
    /// Pass this to the session.
    Command(ConnectionId, SessionCommand),
    /// End the connection; no more events of it are wanted.
    Disconnect(ConnectionId),
}

/// A command of the supervisor to a session.
#[derive(Debug)]
pub enum SessionCommand {
    /// Send this request; the response is [`SessionEvent::Response`].
    Request(RequestToken, Box<Command>),
    /// Open this endpoint at the broker.
    Open(EndpointRef, Attempt),
    /// Answer the broker's AUTH_CHALLENGE with these.
    AuthResponse(AuthData),
    /// End the connection because of this; [`SessionEvent::Ended`] follows.
    End(CloseReason),
}

/// An event of a session, for the supervisor.
///
/// A session that detaches an endpoint has moved it to the supervisor's list and called its `on_detached` before it
/// reports that.
#[derive(Debug)]
pub enum SessionEvent {
    /// The handshake is done.
    Connected(PeerInfo),
    /// Fresh credentials are required (AUTH_CHALLENGE).
    Challenged(AuthData),
    /// The endpoint is open.
    Opened(EndpointId, Attempt),
    /// The broker did not open the endpoint.
    OpenFailed(EndpointId, Attempt, RequestError),
    /// The broker closed the endpoint, or it asked to be attached afresh; with the address of the broker that has
    /// it now, if one was named.
    Detached(EndpointId, Attempt, Option<String>),
    /// The endpoint's topic has moved to another cluster (TOPIC_MIGRATED): it is detached, and looked up at this service
    /// URL from now on. `None` if the broker named none for the way that this connection has, plain or TLS.
    Migrated(EndpointId, Attempt, Option<String>),
    /// The endpoint is closed; nothing of it is left.
    Finished(EndpointId),
    /// The response to [`SessionCommand::Request`].
    Response(RequestToken, Response),
    /// The connection has ended, and everything that was attached to it is detached.
    Ended(CloseReason),
}
