//! What the broker does on each command of a client.
//!
//! | file | commands |
//! | --- | --- |
//! | `session` | CONNECT, AUTH_RESPONSE, and the keep-alive |
//! | `lookup` | PARTITIONED_METADATA, LOOKUP |
//! | `topic_list` | GET_TOPICS_OF_NAMESPACE, WATCH_TOPIC_LIST, WATCH_TOPIC_LIST_CLOSE |
//! | `schema` | GET_SCHEMA, GET_OR_CREATE_SCHEMA |
//! | `producer` | PRODUCER, CLOSE_PRODUCER |
//! | `send` | SEND |
//! | `consumer` | SUBSCRIBE, CLOSE_CONSUMER, UNSUBSCRIBE |
//! | `delivery` | FLOW, ACK, REDELIVER_UNACKNOWLEDGED_MESSAGES |
//! | `position` | SEEK, GET_LAST_MESSAGE_ID, CONSUMER_STATS |
//! | `oauth2` | none: tokens over HTTP |
//! | `migration` | TOPIC_MIGRATED, to all clients of a cluster that has migrated |
//! | `takeover` | PRODUCER and SUBSCRIBE for what another connection holds |
//!
//! Each is an `impl Broker` over the parts of the machine. A command's method queues its response itself, or gives a
//! [`Rejection`]: a refusal is put into the response that the command has for it, a violation ends the connection, as at
//! a real broker.

mod consumer;
mod delivery;
mod lookup;
mod migration;
mod oauth2;
mod position;
mod producer;
mod schema;
mod send;
mod session;
mod takeover;
mod topic_list;

pub(super) use self::migration::MigratedTo;
pub(super) use self::oauth2::{IdentityProvider, OAuth2Client};
use self::takeover::HolderState;
#[cfg(feature = "tap")]
pub(crate) use self::topic_list::is_namespace;
use super::conformance::Rule;
use super::connections::{ConnectionEndpoints, ConnectionState};
use super::ids::{ConnId, ConsumerKey, ProducerKey};
use super::machine::Broker;
use super::policies::Access;
use super::refusal::refuse;
use crate::pb::command_subscribe::SubType;
use crate::pb::schema::Type;
use crate::pb::{ProducerAccessMode, ServerError};
use crate::topic::TopicName;
use crate::wire::command::{Command, Refusal, Sender};
use crate::wire::frame::Frame;

/// Producers, consumers and watchers, open or closed, that one connection may name; one more ends the connection.
const ENDPOINTS_MAX: usize = 100_000;

/// The protocol version from which on clients know CLOSE_PRODUCER and CLOSE_CONSUMER of a broker.
const CLOSE_VERSION: i32 = 5;

/// The address that a CLOSE_PRODUCER or CLOSE_CONSUMER names, in the field of its scheme: without TLS, or with it.
fn by_scheme(url: Option<&str>) -> (Option<String>, Option<String>) {
    let url = url.map(str::to_owned);
    if url.as_ref().is_some_and(|url| url.starts_with("pulsar+ssl:")) { (None, url) } else { (url, None) }
}

/// Why a command is not served.
#[derive(Debug)]
enum Rejection {
    /// It is answered with an error.
    Refused(Refusal),
    /// It breaks the protocol: the connection ends without a response.
    Violation(Rule, String),
}

impl Rejection {
    fn violation(rule: Rule, detail: impl Into<String>) -> Self {
        Self::Violation(rule, detail.into())
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Broker {
    /// Carries a frame out.
    pub(super) fn handle_frame(&mut self, conn: ConnId, frame: Frame) {
        match frame {
            Frame::Send { head, entry } => {
                if self.is_connected(conn, "SEND") {
                    self.on_send(conn, &head, &entry);
                }
            }
            Frame::Other(command) => self.on_command(conn, command),
            Frame::Receipt(_) | Frame::Message { .. } => {
                self.close_on_violation(conn, Rule::ServerOnlyCommand, || frame.name().to_owned());
            }
            Frame::Unknown { command_type } => {
                let detail = || format!("unknown command type {command_type}");
                self.close_on_violation(conn, Rule::UnreadableFrame, detail);
            }
        }
    }

    fn on_command(&mut self, conn: ConnId, mut command: Command) {
        // These three need no handshake.
        match command {
            Command::Ping(_) => return self.connections.send_pong(conn),
            Command::Pong(_) => return,
            Command::Connect(_) => {}
            Command::AuthResponse(_) if self.is_authenticating(conn) => {}
            _ if !self.is_connected(conn, command.name()) => return,
            _ => {}
        }
        if command.sender() == Sender::Broker {
            return self.close_on_violation(conn, Rule::ServerOnlyCommand, || command.name().to_owned());
        }
        self.check_version(conn, &command);
        let like = self.config.like;
        if !like.read(&mut command) {
            let detail = || format!("{} that Pulsar {like} cannot read", command.name());
            return self.close_on_violation(conn, Rule::UnreadableFrame, detail);
        }
        if let Command::Connect(connect) = command {
            return self.on_connect(conn, connect);
        }
        self.handle_command(conn, &command, HolderState::NotChecked);
    }

    /// Handles a command, or refuses it in its own response. `holder` is what is known of the connection
    /// that holds the name or subscription of a PRODUCER or SUBSCRIBE.
    fn handle_command(&mut self, conn: ConnId, command: &Command, holder: HolderState) {
        match self.try_command(conn, command, holder) {
            Ok(()) => {}
            Err(Rejection::Refused(refusal)) => {
                if let Some(response) = command.refused(&refusal) {
                    self.connections.send(conn, response);
                }
            }
            Err(Rejection::Violation(rule, detail)) => self.close_on_violation(conn, rule, || detail),
        }
    }

    fn try_command(&mut self, conn: ConnId, command: &Command, holder: HolderState) -> Result<(), Rejection> {
        match command {
            Command::AuthResponse(response) => self.on_auth_response(conn, response),
            Command::PartitionedMetadata(request) => self.on_partitioned_metadata(conn, request),
            Command::Lookup(request) => self.on_lookup(conn, request),
            Command::Producer(request) => self.on_producer(conn, request, holder),
            Command::CloseProducer(request) => self.on_close_producer(conn, request),
            Command::Subscribe(request) => self.on_subscribe(conn, request, holder),
            Command::CloseConsumer(request) => self.on_close_consumer(conn, request),
            Command::Unsubscribe(request) => self.on_unsubscribe(conn, request),
            Command::Flow(flow) => self.on_flow(conn, flow),
            Command::Ack(ack) => self.on_ack(conn, ack),
            Command::RedeliverUnacknowledgedMessages(request) => self.on_redeliver(conn, request),
            Command::Seek(request) => self.on_seek(conn, request),
            Command::GetLastMessageId(request) => self.on_get_last_message_id(conn, request),
            Command::ConsumerStats(request) => self.on_consumer_stats(conn, request),
            Command::GetTopicsOfNamespace(request) => self.on_get_topics(conn, request),
            Command::WatchTopicList(request) => self.on_watch_topic_list(conn, request),
            Command::WatchTopicListClose(request) => self.on_watch_topic_list_close(conn, request),
            Command::GetSchema(request) => self.on_get_schema(conn, request),
            Command::GetOrCreateSchema(request) => self.on_get_or_create_schema(conn, request),
            Command::EndTxn(request) if request.txn_action.is_none() => {
                Err(Rejection::violation(Rule::IncompleteRequest, "END_TXN without txn_action"))
            }
            other => self.on_unserved(conn, other),
        }
    }

    /// Requests of transactions get ERROR, also where their response has fields for it; a client may send nothing else.
    fn on_unserved(&mut self, conn: ConnId, command: &Command) -> Result<(), Rejection> {
        let name = command.name();
        let Some(request_id) = command.request_id() else {
            return Err(Rejection::violation(Rule::UnreadableFrame, format!("{name} from a client")));
        };
        let text = format!("{name} is not served: transactions are off");
        self.send_refusal(conn, request_id, refuse(ServerError::NotAllowedError, text));
        Ok(())
    }

    /// Whether the handshake is done; ends the connection if not.
    fn is_connected(&mut self, conn: ConnId, name: &'static str) -> bool {
        let is_connected = self.connections.state(conn) == Some(ConnectionState::Connected);
        if !is_connected {
            self.close_on_violation(conn, Rule::Handshake, || format!("{name} before CONNECTED"));
        }
        is_connected
    }

    fn check_version(&mut self, conn: ConnId, command: &Command) {
        let (needed, version) = (version_of(command), self.connections.version(conn));
        if version < needed {
            let detail = || format!("{} needs version {needed}, not {version}", command.name());
            self.conformance.record(conn, Rule::AboveVersion, detail);
        }
    }

    /// Whether the connection may name one more producer, consumer or watcher.
    fn check_endpoint_count(&self, conn: ConnId) -> Result<(), Rejection> {
        let named = self.connections.get(conn).map_or(0, |connection| connection.endpoints.len());
        if named + self.watchers.count_of(conn) < ENDPOINTS_MAX {
            return Ok(());
        }
        let detail = format!("more than {ENDPOINTS_MAX} endpoints");
        Err(Rejection::violation(Rule::IncompleteRequest, detail))
    }

    /// The checks that PRODUCER and SUBSCRIBE share, up to the name of the topic.
    fn check_topic(&mut self, conn: ConnId, topic: &str, access: Access) -> Result<TopicName, Refusal> {
        let name = TopicName::parse(topic).map_err(|error| refuse(ServerError::InvalidTopicName, error.to_string()))?;
        if !self.is_authorized(conn, topic, access) {
            let what = if access == Access::Produce { "Produce" } else { "subscribe" };
            let text = format!("Client is not authorized to {what}");
            return Err(refuse(ServerError::AuthorizationError, text));
        }
        if !self.ownership.was_looked_up(&name, self.now.at) {
            self.conformance.record(conn, Rule::LookupMissing, || {
                let command = if access == Access::Produce { "PRODUCER" } else { "SUBSCRIBE" };
                format!("{command} for {name}")
            });
        }
        let asked = self.connections.get(conn).map_or(0, |connection| connection.broker);
        if !self.ownership.owns(&name) || !self.brokers.serves(asked, name.as_str()) {
            let text = format!(
                "Namespace bundle for topic ({name}) not served by this instance. Please redo the lookup. \
                 Request is denied: namespace={}",
                name.namespace()
            );
            return Err(refuse(ServerError::ServiceNotReady, text));
        }
        Ok(name)
    }
}

/// The endpoints of a connection that ends or starts again.
impl Broker {
    /// Takes all producers and consumers of a connection off their topics; the connection itself may stay.
    pub(super) fn detach_endpoints(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let endpoints = std::mem::take(&mut connection.endpoints);
        self.drop_endpoints(conn, &endpoints);
    }

    /// Takes these producers and consumers off their topics; their connection may be out of the table already.
    pub(in crate::broker) fn drop_endpoints(&mut self, conn: ConnId, endpoints: &ConnectionEndpoints) {
        for (id, topic) in endpoints.topics_of_producers() {
            self.remove_producer(&topic, ProducerKey { conn, id });
        }
        for (id, topic, subscription) in endpoints.subscriptions_of_consumers() {
            self.remove_consumer(&topic, &subscription, ConsumerKey { conn, id });
        }
    }
}

fn consumer_not_found() -> Refusal {
    refuse(ServerError::MetadataError, "Consumer not found")
}

/// The protocol version that brought a command, or what it carries.
pub(crate) fn version_of(command: &Command) -> i32 {
    match command {
        Command::RedeliverUnacknowledgedMessages(_) => 2,
        Command::Lookup(_) | Command::PartitionedMetadata(_) => 7,
        Command::ConsumerStats(_) => 8,
        Command::GetLastMessageId(_) | Command::GetTopicsOfNamespace(_) => 12,
        Command::Ack(ack) if ack.request_id.is_some() => 17,
        Command::Ack(ack) if ack.message_id.len() > 1 => 12,
        Command::AuthResponse(_) => 14,
        Command::Subscribe(subscribe) if subscribe.sub_type() == SubType::KeyShared => 14,
        Command::GetOrCreateSchema(_) => 15,
        Command::Producer(producer) if producer.producer_access_mode() != ProducerAccessMode::Shared => 17,
        Command::Subscribe(request)
            if request.schema.as_ref().is_some_and(|schema| schema.r#type() == Type::AutoConsume) =>
        {
            21
        }
        Command::TcClientConnectRequest(_) => 19,
        _ => 0,
    }
}
