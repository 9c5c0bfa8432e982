//! One connection's protocol: handshake, credentials, keep-alive, requests and their answers.
//!
//! It owns no producer and no consumer. One frame goes in, at most one [`Event`] comes out, and nothing is queued in
//! between except requests that wait to be written.

pub mod peer;
mod requests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Deadline, EndpointId, Now};
use crate::error::ServerError;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::connection::peer::{PeerInfo, ProtocolViolation, RequestError};
use crate::machine::connection::requests::{answer_of, expected_answer};
use crate::machine::control::{Attempt, AuthData, CloseReason, RequestToken};
use crate::machine::endpoint::outbox::{Op, Response};
use crate::pb;
use crate::wire::command::Command;
use crate::wire::frame::{Frame, Limits};
use crate::wire::hot::{MessageHead, Receipt, put_ping, put_pong};
use crate::wire::tx::TxBuf;

/// The highest protocol version this library speaks (`ProtocolVersion.v21`).
pub const PROTOCOL_VERSION: i32 = 21;

/// Brokers below this version are refused: several ids in one ACK and GET_LAST_MESSAGE_ID need it (Pulsar 2.1).
pub const PROTOCOL_VERSION_MIN: i32 = 12;

/// Pongs owed at most; a peer that pings faster than it reads gets one answer for several.
const PONGS_OWED_MAX: u32 = 16;

/// No pong is added while this much waits to be written: a peer that pings and does not read gets its answer later.
const PONG_TX_BYTES_MAX: usize = 256 * 1024;

/// What a connection is told at the start.
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
    /// Idle time after which the peer is pinged, and silence after a ping that ends the connection.
    pub keep_alive_interval: Duration,
    /// How long a request may wait for its answer.
    pub operation_timeout: Duration,
}

/// Who asked, and so who gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// The supervisor.
    Supervisor(RequestToken),
    /// The session itself, to open an endpoint.
    Open(EndpointId, Attempt),
    /// An endpoint's operation.
    Endpoint(EndpointId, Op),
    /// Nobody: a close that only has to be said.
    Nobody,
}

/// What a frame meant.
#[derive(Debug)]
pub enum Event {
    /// The handshake is done.
    Ready(PeerInfo),
    /// The broker wants fresh credentials.
    Challenge,
    /// A request has its answer.
    Answer(Requester, Response),
    /// A producer waits for exclusive access (`producer_ready = false`); the answer to its request follows when it is
    /// its turn.
    Waits(ProducerId, Box<pb::CommandProducerSuccess>),
    /// A message for a consumer.
    Message(MessageHead, Bytes),
    /// A message is stored.
    Receipt(Receipt),
    /// A message is refused.
    SendError(ProducerId, u64, ServerError),
    /// The broker closed an endpoint; the address that has it now, if named.
    Closed(EndpointId, Option<String>),
    /// The consumer became, or ceased to be, the active one of a Failover subscription.
    ActiveChange(ConsumerId, bool),
    /// The topic was terminated and all of it is acknowledged.
    EndOfTopic(ConsumerId),
}

/// ```text
///            CONNECT sent            CONNECTED
/// (new) ---------------> Handshake -----------> Up
///                            |                   |
///                            +---> the session ends with a CloseReason
/// ```
#[derive(Debug)]
enum State {
    Handshake,
    Up(PeerInfo),
}

#[derive(Debug)]
struct Pending {
    asker: Requester,
    expects: pb::base_command::Type,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    state: State,
    limits: Limits,
    /// Control commands to write; bounded by the endpoints' operations and the supervisor's asks, one each.
    out: VecDeque<Command>,
    pending: HashMap<u64, Pending>,
    /// Every request waits equally long, so the order of asking is the order of deadlines. An answered one stays as
    /// long as an earlier one waits, and is skipped.
    request_deadlines: VecDeque<(Deadline, u64)>,
    next_request_id: u64,
    pongs_owed: u32,
    ping_due: bool,
    ping_unanswered: bool,
    keep_alive_at: Deadline,
    heard: bool,
}

impl Connection {
    /// A connection that has just been made; CONNECT is its first frame.
    pub fn new(config: ConnectionConfig, credentials: AuthData, now: Now) -> Self {
        let connect = Command::Connect(connect(&config, credentials));
        let keep_alive_at = Deadline::new(now.at + config.keep_alive_interval, "handshake");
        Self {
            config,
            state: State::Handshake,
            limits: Limits::default(),
            out: VecDeque::from([connect]),
            pending: HashMap::new(),
            request_deadlines: VecDeque::new(),
            next_request_id: 0,
            pongs_owed: 0,
            ping_due: false,
            ping_unanswered: false,
            keep_alive_at,
            heard: false,
        }
    }

    /// The bounds of frames: the default before the handshake, the broker's after.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the broker said of itself, once the handshake is done.
    pub fn peer(&self) -> Option<&PeerInfo> {
        match &self.state {
            State::Up(peer) => Some(peer),
            State::Handshake => None,
        }
    }

    /// How it was set up.
    pub fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Asks the broker. The answer, a refusal or a time-out comes as [`Event::Answer`].
    pub fn request(&mut self, mut command: Command, asker: Requester, now: Now) {
        let Some(expects) = expected_answer(&command) else {
            // Not a request: nothing will answer it.
            self.out.push_back(command);
            return;
        };
        let id = self.next_request_id;
        self.next_request_id += 1;
        command.set_request_id(id);
        self.out.push_back(command);
        self.pending.insert(id, Pending { asker, expects });
        if let Some(deadline) = Deadline::after(now, self.config.operation_timeout, "request") {
            self.request_deadlines.push_back((deadline, id));
        }
    }

    /// Answers AUTH_CHALLENGE.
    pub fn answer_challenge(&mut self, credentials: AuthData) {
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
    #[inline]
    pub fn handle_hot(&mut self, name: &'static str) -> Result<(), CloseReason> {
        self.heard = true;
        match self.state {
            State::Up(_) => Ok(()),
            State::Handshake => Err(broke(format!("sent {name} before CONNECTED"))),
        }
    }

    /// Takes one frame. An `Err` ends the connection.
    pub fn handle_frame(&mut self, frame: Frame) -> Result<Option<Event>, CloseReason> {
        // An inbound PING only says that the peer's timer runs; everything else is proof that it serves us.
        if !matches!(frame, Frame::Other(Command::Ping(_))) {
            self.heard = true;
        }
        match (&self.state, frame) {
            (_, Frame::Other(Command::Ping(_))) => {
                self.pongs_owed = (self.pongs_owed + 1).min(PONGS_OWED_MAX);
                Ok(None)
            }
            (_, Frame::Other(Command::Pong(_)) | Frame::Unknown { .. }) => Ok(None),
            (State::Handshake, Frame::Other(command)) => self.handle_handshake(command),
            (State::Handshake, frame) => Err(broke(format!("sent {} before CONNECTED", frame_name(&frame)))),
            (State::Up(_), Frame::Message { head, entry }) => Ok(Some(Event::Message(head, entry))),
            (State::Up(_), Frame::Receipt(receipt)) => Ok(Some(Event::Receipt(receipt))),
            (State::Up(_), Frame::Send { .. }) => Err(broke("sent SEND, which only clients send")),
            (State::Up(_), Frame::Other(command)) => self.handle_command(command),
        }
    }

    fn handle_handshake(&mut self, command: Command) -> Result<Option<Event>, CloseReason> {
        match command {
            Command::Connected(connected) => self.handle_connected(connected).map(Some),
            Command::AuthChallenge(_) => Ok(Some(Event::Challenge)),
            Command::Error(error) => Err(CloseReason::Broker(ServerError::new(error.error, error.message))),
            other => Err(broke(format!("sent {} before CONNECTED", other.name()))),
        }
    }

    fn handle_connected(&mut self, connected: pb::CommandConnected) -> Result<Event, CloseReason> {
        let protocol_version = connected.protocol_version().min(PROTOCOL_VERSION);
        if protocol_version < PROTOCOL_VERSION_MIN {
            return Err(broke(format!(
                "speaks protocol version {protocol_version}; this client needs {PROTOCOL_VERSION_MIN} or later \
                 (Apache Pulsar 2.1)"
            )));
        }
        let max_message_size = match connected.max_message_size {
            Some(size) => u32::try_from(size)
                .ok()
                .filter(|&size| size > 0)
                .ok_or_else(|| broke(format!("CONNECTED.max_message_size is {size}")))?,
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
        self.state = State::Up(peer.clone());
        Ok(Event::Ready(peer))
    }

    fn handle_command(&mut self, command: Command) -> Result<Option<Event>, CloseReason> {
        match command {
            Command::SendError(error) => Ok(Some(Event::SendError(
                ProducerId(error.producer_id),
                error.sequence_id,
                ServerError::new(error.error, error.message),
            ))),
            Command::CloseProducer(close) => {
                let moved_to = self.assigned(close.assigned_broker_service_url, close.assigned_broker_service_url_tls);
                Ok(Some(Event::Closed(EndpointId::Producer(ProducerId(close.producer_id)), moved_to)))
            }
            Command::CloseConsumer(close) => {
                let moved_to = self.assigned(close.assigned_broker_service_url, close.assigned_broker_service_url_tls);
                Ok(Some(Event::Closed(EndpointId::Consumer(ConsumerId(close.consumer_id)), moved_to)))
            }
            Command::ActiveConsumerChange(change) => {
                Ok(Some(Event::ActiveChange(ConsumerId(change.consumer_id), change.is_active())))
            }
            Command::ReachedEndOfTopic(end) => Ok(Some(Event::EndOfTopic(ConsumerId(end.consumer_id)))),
            Command::AuthChallenge(_) => Ok(Some(Event::Challenge)),
            // Said before a CLOSE_*: the endpoint attaches again by lookup, which names the new cluster's broker.
            Command::TopicMigrated(_) => Ok(None),
            Command::Connected(_) => Err(broke("sent CONNECTED twice")),
            command if command.request_id().is_some() => self.handle_answer(command),
            other => Err(broke(format!("sent {}, which only clients send", other.name()))),
        }
    }

    /// Deadlines of answered requests go as soon as none is before them, not only when their time comes: a fast run
    /// of requests would leave as many behind as fit into the timeout.
    fn forget_answered(&mut self) {
        while self.request_deadlines.front().is_some_and(|(_, id)| !self.pending.contains_key(id)) {
            self.request_deadlines.pop_front();
        }
    }

    fn assigned(&self, plain: Option<String>, tls: Option<String>) -> Option<String> {
        if self.config.tls { tls } else { plain }.filter(|url| !url.is_empty())
    }

    fn handle_answer(&mut self, command: Command) -> Result<Option<Event>, CloseReason> {
        let id = command.request_id().unwrap_or(u64::MAX);
        let Some(pending) = self.pending.remove(&id) else {
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
            // A waiter for exclusive access: a second PRODUCER_SUCCESS follows, however late.
            if !success.producer_ready() {
                self.request_deadlines.retain(|&(_, other)| other != id);
                let waits = match pending.asker {
                    Requester::Open(EndpointId::Producer(producer), _) => {
                        Some(Event::Waits(producer, Box::new(success.clone())))
                    }
                    _ => None,
                };
                self.pending.insert(id, pending);
                return Ok(waits);
            }
        }
        self.forget_answered();
        let result = answer_of(command, pending.expects).map_err(CloseReason::PeerBroke)?;
        Ok(Some(Event::Answer(pending.asker, result.map(Box::new).map_err(RequestError::Server))))
    }

    /// Writes what is due. Pongs are counted, not queued, and go first.
    pub fn poll_transmit(&mut self, tx: &mut TxBuf) {
        if tx.len() < PONG_TX_BYTES_MAX {
            for _ in 0..std::mem::take(&mut self.pongs_owed) {
                put_pong(tx.flat());
            }
        }
        if std::mem::take(&mut self.ping_due) {
            put_ping(tx.flat());
        }
        for command in self.out.drain(..) {
            tx.command(&command);
        }
    }

    /// When the next request or the keep-alive is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        let request = self.request_deadlines.front().map(|&(deadline, _)| deadline);
        Deadline::earlier(request, Some(self.keep_alive_at))
    }

    /// Ends a silent connection. Expired requests come one by one from [`Self::poll_expired`].
    pub fn handle_deadline(&mut self, now: Now) -> Result<(), CloseReason> {
        if !self.keep_alive_at.is_due(now) {
            return Ok(());
        }
        let silent = Err(CloseReason::Silent { after: self.config.keep_alive_interval });
        let heard = std::mem::take(&mut self.heard);
        match self.state {
            State::Handshake => return silent,
            State::Up(_) if self.ping_unanswered && !heard => return silent,
            State::Up(_) => {}
        }
        self.ping_due = true;
        self.ping_unanswered = true;
        self.keep_alive_at = Deadline::new(now.at + self.config.keep_alive_interval, "keep-alive");
        Ok(())
    }

    /// A request whose answer did not come in time.
    pub fn poll_expired(&mut self, now: Now) -> Option<Requester> {
        while let Some(&(deadline, id)) = self.request_deadlines.front() {
            let pending = self.pending.contains_key(&id);
            if pending && !deadline.is_due(now) {
                return None;
            }
            self.request_deadlines.pop_front();
            if let Some(pending) = self.pending.remove(&id) {
                return Some(pending.asker);
            }
        }
        None
    }

    /// The connection is over: who waits for an answer in vain.
    pub fn take_pending(&mut self) -> Vec<Requester> {
        self.request_deadlines.clear();
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|&(id, _)| id);
        pending.into_iter().map(|(_, pending)| pending.asker).collect()
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

fn broke(what: impl Into<String>) -> CloseReason {
    CloseReason::PeerBroke(ProtocolViolation::new(format!("the broker {}", what.into())))
}

fn frame_name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Receipt(_) => "SEND_RECEIPT",
        Frame::Message { .. } => "MESSAGE",
        Frame::Send { .. } => "SEND",
        Frame::Other(command) => command.name(),
        Frame::Unknown { .. } => "an unknown command",
    }
}

#[cfg(test)]
mod tests;
