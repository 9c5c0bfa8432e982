//! One connection's protocol: handshake, credentials, keep-alive, requests and their responses.
//!
//! It owns no producer and no consumer. One frame goes in, at most one [`ConnectionEvent`] comes out, and nothing is queued in
//! between except requests that wait to be written.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the state, and what each command of the broker means |
//! | `requests.rs` | requests that have no response yet, and what a response has to be |
//! | `keep_alive.rs` | PING and PONG, the end of a silent peer |
//! | `peer.rs` | what the broker said of itself |
//! | `older.rs` | commands that an older broker does not know |
//! | `oversized.rs` | commands that are larger than the broker takes |
//! | `error.rs` | how a request fails, how a peer breaks the protocol |

pub mod error;
mod keep_alive;
mod older;
mod oversized;
pub mod peer;
mod requests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Deadline, EndpointId, Now};
use crate::error::ServerError;
use crate::id::{ConsumerId, ProducerId, WatcherId};
use crate::machine::connection::error::{ProtocolViolation, RequestError};
use crate::machine::connection::keep_alive::KeepAlive;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::connection::requests::{PendingRequest, Requests, check_response};
use crate::machine::control::{Attempt, AuthData, CloseReason, RequestToken};
use crate::machine::endpoint::outbox::{Op, Response};
use crate::pb;
use crate::wire::command::Command;
use crate::wire::frame::Limits;
use crate::wire::tx::TxBuf;

/// The highest protocol version this library speaks (`ProtocolVersion.v21`).
pub const PROTOCOL_VERSION: i32 = 21;

/// Brokers below this version are refused: several ids in one ACK and GET_LAST_MESSAGE_ID need it (Pulsar 2.1).
pub const PROTOCOL_VERSION_MIN: i32 = 12;

/// The configuration of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// The broker's address, `host:port`, for errors.
    pub address: Arc<str>,
    /// Whether TLS is spoken: decides which assigned broker URL is followed.
    pub tls: bool,
    /// `CONNECT.proxy_to_broker_url`.
    pub proxy_to_broker_url: Option<String>,
    /// `CONNECT.client_version`.
    pub client_version: String,
    /// The peer is pinged once in each interval. One that sends nothing but PINGs for an interval after that has gone.
    pub keep_alive_interval: Duration,
    /// How long the peer may take to answer CONNECT, at most `keep_alive_interval`.
    pub handshake_timeout: Duration,
    /// How long a request may wait for its response.
    pub operation_timeout: Duration,
}

/// Who asked for something, and so gets the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// The supervisor.
    Supervisor(RequestToken),
    /// The session, to open an endpoint.
    Open(EndpointId, Attempt),
    /// An endpoint, for one of its operations.
    Endpoint(EndpointId, Op),
    /// None: the response changes nothing.
    Unattended,
}

/// What a command of the broker meant.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// CONNECTED: the handshake is done.
    Connected(PeerInfo),
    /// AUTH_CHALLENGE: fresh credentials are required.
    Challenge(AuthData),
    /// A request has its response.
    Response(Requester, Response),
    /// A command about one endpoint that answers no request. PRODUCER_SUCCESS with `producer_ready = false` is one: the
    /// answer to the PRODUCER follows when exclusive access is free.
    Notification(EndpointId, Box<Command>),
    /// CLOSE_PRODUCER or CLOSE_CONSUMER of the broker; with the address that has the endpoint now, if named.
    Closed(EndpointId, Option<String>),
    /// TOPIC_MIGRATED: the endpoint's topic is in another cluster now; with its service URL, if named for plain connections
    /// or TLS as this one is.
    Migrated(EndpointId, Option<String>),
}

/// ```text
///            CONNECT sent            CONNECTED
/// (new) ---------------> Handshake -----------> Up
///                            |                   |
///                            +---> the session ends with a CloseReason
/// ```
#[derive(Debug)]
enum ConnectionState {
    Handshake,
    Up(PeerInfo),
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    state: ConnectionState,
    limits: Limits,
    /// Control commands to write; bounded by the endpoints' operations and the supervisor's asks, one each.
    out: VecDeque<Command>,
    requests: Requests,
    keep_alive: KeepAlive,
}

impl Connection {
    /// A connection that has just been made; CONNECT is its first frame.
    pub fn new(config: ConnectionConfig, credentials: AuthData, now: Now) -> Self {
        let connect = Command::Connect(connect(&config, credentials));
        let keep_alive = KeepAlive::new(config.keep_alive_interval, config.handshake_timeout, now);
        Self {
            config,
            state: ConnectionState::Handshake,
            limits: Limits::default(),
            out: VecDeque::from([connect]),
            requests: Requests::default(),
            keep_alive,
        }
    }

    /// The bounds of frames: the default before the handshake, the broker's after.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the broker said of itself, once the handshake is done.
    pub fn peer(&self) -> Option<&PeerInfo> {
        match &self.state {
            ConnectionState::Up(peer) => Some(peer),
            ConnectionState::Handshake => None,
        }
    }

    /// How it was set up.
    pub fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Asks the broker. The response, a refusal or a time-out comes as [`ConnectionEvent::Response`].
    ///
    /// # Errors
    /// [`RequestError::TooLarge`], [`RequestError::Unsupported`]: nothing was sent, and there will be no response.
    pub fn request(&mut self, mut command: Command, requester: Requester, now: Now) -> Result<(), RequestError> {
        if let Some(peer) = self.peer() {
            older::fit(&mut command, peer.protocol_version)?;
        }
        let response_type = command.response_type();
        if response_type.is_some() {
            command.set_request_id(self.requests.next_id());
        }
        oversized::check_size(&command, &self.limits)?;
        if let Some(expected) = response_type {
            self.requests.add(PendingRequest { requester, expected }, self.config.operation_timeout, now);
        }
        // Else nothing will answer it.
        self.out.push_back(command);
        Ok(())
    }

    /// Answers AUTH_CHALLENGE.
    pub fn respond_to_challenge(&mut self, credentials: AuthData) {
        self.out.push_back(Command::AuthResponse(pb::CommandAuthResponse {
            client_version: Some(self.config.client_version.clone()),
            response: Some(pb::AuthData {
                auth_method_name: Some(credentials.method),
                auth_data: Some(credentials.data),
            }),
            protocol_version: Some(PROTOCOL_VERSION),
        }));
    }

    /// A receipt or a message has come. Only after CONNECTED may they: `name` is for the error.
    ///
    /// # Errors
    /// Why the connection has to end.
    #[inline]
    pub fn handle_data_frame(&mut self, name: &'static str) -> Result<(), CloseReason> {
        self.keep_alive.on_frame();
        match self.state {
            ConnectionState::Up(_) => Ok(()),
            ConnectionState::Handshake => Err(violation(format!("sent {name} before CONNECTED"))),
        }
    }

    /// SEND has come, which no broker may send.
    pub fn handle_send(&self) -> CloseReason {
        violation("sent SEND, which only clients send")
    }

    /// A command of a type that this library does not know has come. It is skipped.
    pub fn handle_unknown(&mut self) {
        self.keep_alive.on_frame();
    }

    /// Takes one command, other than those of [`handle_data_frame`](Self::handle_data_frame).
    ///
    /// # Errors
    /// Why the connection has to end.
    pub fn handle_command(&mut self, command: Command) -> Result<Option<ConnectionEvent>, CloseReason> {
        if !matches!(command, Command::Ping(_)) {
            self.keep_alive.on_frame();
        }
        match (&self.state, command) {
            (_, Command::Ping(_)) => {
                self.keep_alive.on_ping();
                Ok(None)
            }
            (_, Command::Pong(_)) => Ok(None),
            (ConnectionState::Handshake, command) => self.handle_handshake(command),
            (ConnectionState::Up(_), command) => self.handle_up(command),
        }
    }

    fn handle_handshake(&mut self, command: Command) -> Result<Option<ConnectionEvent>, CloseReason> {
        match command {
            Command::Connected(connected) => self.handle_connected(connected).map(Some),
            Command::AuthChallenge(challenge) => Ok(Some(challenged(challenge))),
            Command::Error(error) => Err(CloseReason::Broker(ServerError::new(error.error, error.message))),
            other => Err(violation(format!("sent {} before CONNECTED", other.name()))),
        }
    }

    fn handle_connected(&mut self, connected: pb::CommandConnected) -> Result<ConnectionEvent, CloseReason> {
        let protocol_version = connected.protocol_version().min(PROTOCOL_VERSION);
        if protocol_version < PROTOCOL_VERSION_MIN {
            return Err(violation(format!(
                "speaks protocol version {protocol_version}; this client needs {PROTOCOL_VERSION_MIN} or later \
                 (Apache Pulsar 2.1)"
            )));
        }
        let max_message_size = match connected.max_message_size {
            Some(size) => u32::try_from(size)
                .ok()
                .filter(|&size| size > 0)
                .ok_or_else(|| violation(format!("CONNECTED.max_message_size is {size}")))?,
            None => crate::wire::MAX_MESSAGE_SIZE_DEFAULT,
        };
        self.limits = Limits::for_message_size(max_message_size);
        let flags = connected.feature_flags.unwrap_or_default();
        let peer = PeerInfo {
            address: self.config.address.clone(),
            server_version: connected.server_version,
            protocol_version,
            max_message_size,
            supports_topic_watchers: flags.supports_topic_watchers(),
            supports_partitions_without_creation: flags.supports_get_partitioned_metadata_without_auto_creation(),
        };
        self.state = ConnectionState::Up(peer.clone());
        Ok(ConnectionEvent::Connected(peer))
    }

    fn handle_up(&mut self, command: Command) -> Result<Option<ConnectionEvent>, CloseReason> {
        let notification = |id, command| Ok(Some(ConnectionEvent::Notification(id, Box::new(command))));
        match command {
            Command::SendError(ref error) => notification(producer(error.producer_id), command),
            Command::ActiveConsumerChange(ref change) => notification(consumer(change.consumer_id), command),
            Command::ReachedEndOfTopic(ref end) => notification(consumer(end.consumer_id), command),
            Command::WatchTopicUpdate(ref update) => notification(topic_list(update.watcher_id), command),
            Command::CloseProducer(close) => {
                let moved_to = self.assigned(close.assigned_broker_service_url, close.assigned_broker_service_url_tls);
                Ok(Some(ConnectionEvent::Closed(producer(close.producer_id), moved_to)))
            }
            Command::CloseConsumer(close) => {
                let moved_to = self.assigned(close.assigned_broker_service_url, close.assigned_broker_service_url_tls);
                Ok(Some(ConnectionEvent::Closed(consumer(close.consumer_id), moved_to)))
            }
            Command::AuthChallenge(challenge) => Ok(Some(challenged(challenge))),
            Command::TopicMigrated(migrated) => Ok(Some(self.handle_migrated(migrated))),
            Command::Connected(_) => Err(violation("sent CONNECTED twice")),
            command if command.request_id().is_some() => self.handle_response(command),
            other => Err(violation(format!("sent {}, which only clients send", other.name()))),
        }
    }

    /// The broker has closed the endpoint, or does not open it, and the CLOSE_* that follows finds it gone. An open request
    /// of it gets no other answer.
    fn handle_migrated(&mut self, migrated: pb::CommandTopicMigrated) -> ConnectionEvent {
        let id = match migrated.resource_type() {
            pb::command_topic_migrated::ResourceType::Producer => producer(migrated.resource_id),
            pb::command_topic_migrated::ResourceType::Consumer => consumer(migrated.resource_id),
        };
        self.requests.forget_open(id);
        ConnectionEvent::Migrated(id, self.assigned(migrated.broker_service_url, migrated.broker_service_url_tls))
    }

    fn assigned(&self, plain: Option<String>, tls: Option<String>) -> Option<String> {
        if self.config.tls { tls } else { plain }.filter(|url| !url.is_empty())
    }

    fn handle_response(&mut self, command: Command) -> Result<Option<ConnectionEvent>, CloseReason> {
        let id = command.request_id().unwrap_or(u64::MAX);
        let Some(pending) = self.requests.get(id) else {
            return match command {
                // Not about a request: the broker gives the connection up and closes it next.
                Command::Error(error) if id == u64::MAX => {
                    Err(CloseReason::Broker(ServerError::new(error.error, error.message)))
                }
                // It came after its time was up.
                _ => Ok(None),
            };
        };
        if let Command::ProducerSuccess(success) = &command {
            // Queued for exclusive access: a second PRODUCER_SUCCESS follows, however late.
            if !success.producer_ready() {
                self.requests.lift_time_limit(id);
                return Ok(match pending.requester {
                    Requester::Open(endpoint, _) => Some(ConnectionEvent::Notification(endpoint, Box::new(command))),
                    _ => None,
                });
            }
        }
        self.requests.remove(id);
        let result = check_response(command, pending.expected).map_err(CloseReason::ProtocolViolation)?;
        Ok(Some(ConnectionEvent::Response(pending.requester, result.map(Box::new).map_err(RequestError::Server))))
    }

    /// Writes what is due, PONG and PING first.
    pub fn poll_transmit(&mut self, tx: &mut TxBuf) {
        self.keep_alive.poll_transmit(tx);
        for command in self.out.drain(..) {
            tx.push_command(&command);
        }
    }

    /// When the next request or the keep-alive is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.requests.poll_deadline(), self.keep_alive.poll_deadline())
    }

    /// Ends a silent connection. Expired requests come one by one from [`Self::poll_expired`].
    ///
    /// # Errors
    /// The connection has to end: the peer has been silent for too long.
    pub fn handle_deadline(&mut self, now: Now) -> Result<(), CloseReason> {
        let is_up = matches!(self.state, ConnectionState::Up(_));
        self.keep_alive.handle_deadline(is_up, now)
    }

    /// A request whose response did not come in time.
    pub fn poll_expired(&mut self, now: Now) -> Option<Requester> {
        self.requests.poll_expired(now)
    }

    /// The connection has ended: the requesters whose responses will not come.
    pub fn take_pending(&mut self) -> Vec<Requester> {
        self.requests.take_all()
    }
}

fn connect(config: &ConnectionConfig, credentials: AuthData) -> pb::CommandConnect {
    let authenticated = credentials.method != "none";
    pb::CommandConnect {
        client_version: config.client_version.clone(),
        auth_method_name: Some(credentials.method),
        auth_data: authenticated.then_some(credentials.data),
        protocol_version: Some(PROTOCOL_VERSION),
        proxy_to_broker_url: config.proxy_to_broker_url.clone(),
        feature_flags: Some(pb::FeatureFlags {
            supports_auth_refresh: Some(true),
            supports_broker_entry_metadata: Some(true),
            supports_partial_producer: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn challenged(challenge: pb::CommandAuthChallenge) -> ConnectionEvent {
    ConnectionEvent::Challenge(AuthData::from_wire(challenge.challenge.unwrap_or_default()))
}

fn violation(what: impl Into<String>) -> CloseReason {
    CloseReason::ProtocolViolation(ProtocolViolation::new(format!("the broker {}", what.into())))
}

fn producer(id: u64) -> EndpointId {
    EndpointId::Producer(ProducerId(id))
}

fn consumer(id: u64) -> EndpointId {
    EndpointId::Consumer(ConsumerId(id))
}

fn topic_list(id: u64) -> EndpointId {
    EndpointId::TopicList(WatcherId(id))
}

#[cfg(test)]
mod tests;
