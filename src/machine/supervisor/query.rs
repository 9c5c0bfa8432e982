//! What a client asks of the cluster rather than of an endpoint: is a broker there, how many partitions has a topic,
//! which topics has a namespace, which schema.
//!
//! A [`Query`] is a command, the broker that can answer it, and a function that reads the answer. Which command answers
//! which, and where an answer carries a refusal, stands in the table of commands. `query_driver.rs` carries queries out.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::endpoint::machine::AttachRoute;
use crate::machine::{Deferred, ReplyTo};
use crate::pb;
use crate::wire::command::Command;

/// A question to the cluster with an answer of type `T`.
#[derive(Clone)]
pub struct Query<T> {
    description: &'static str,
    topic: Option<Arc<str>>,
    route: AttachRoute,
    command: Option<Command>,
    read: fn(&PeerInfo, Option<Command>) -> Option<T>,
}

impl<T: Send + 'static> Query<T> {
    /// A query that any broker can answer. `description` is a noun for errors; `read` gives `None` where the answer is not of
    /// the kind that it expects.
    fn new(description: &'static str, command: Command, read: fn(&PeerInfo, Option<Command>) -> Option<T>) -> Self {
        Self { description, topic: None, route: AttachRoute::AnyBroker, command: Some(command), read }
    }

    /// Names the topic in errors.
    fn about(mut self, topic: &Arc<str>) -> Self {
        self.topic = Some(topic.clone());
        self
    }

    /// Only the broker that owns the topic can answer.
    fn at_owner_of(mut self, topic: &Arc<str>) -> Self {
        self.route = AttachRoute::TopicOwner;
        self.about(topic)
    }

    /// The query with the place where its answer goes.
    pub fn with_reply(self, reply: ReplyTo<T>) -> PendingQuery {
        PendingQuery(Box::new(Replying { query: self, reply }))
    }
}

/// CONNECT: is there a broker that takes the credentials? Answered by its CONNECTED.
pub fn connect() -> Query<PeerInfo> {
    Query {
        description: "the connection to the service URL",
        topic: None,
        route: AttachRoute::AnyBroker,
        command: None,
        read: |peer, _| Some(peer.clone()),
    }
}

/// PARTITIONED_METADATA: how many partitions the topic has; 0 means that it is not partitioned.
pub fn partitions(topic: &Arc<str>) -> Query<u32> {
    let command = pb::CommandPartitionedTopicMetadata { topic: topic.to_string(), ..Default::default() };
    let query = Query::new("the lookup of the topic's partitions", command.into(), |_, response| match response? {
        Command::PartitionedMetadataResponse(response) => Some(response.partitions.unwrap_or(0)),
        _ => None,
    });
    query.about(topic)
}

/// PARTITIONED_METADATA without the topic being created (PIP-344): how many partitions it has, 0 if it is not partitioned;
/// `None` from a broker that might have created it, so the number says nothing. A topic that does not exist is refused as
/// not found.
pub fn existing_partitions(topic: &Arc<str>) -> Query<Option<u32>> {
    let command = pb::CommandPartitionedTopicMetadata {
        topic: topic.to_string(),
        metadata_auto_creation_enabled: Some(false),
        ..Default::default()
    };
    let query = Query::new("the lookup of the topic's partitions", command.into(), |peer, response| match response? {
        Command::PartitionedMetadataResponse(response) => {
            Some(peer.supports_partitions_without_creation.then(|| response.partitions.unwrap_or(0)))
        }
        _ => None,
    });
    query.about(topic)
}

/// PARTITIONED_METADATA of a topic that is known to exist, or to have existed: a broker that can is not to create it
/// (PIP-344). How many partitions it has; 0: it is not partitioned any more.
pub fn partitions_of_existing(topic: &Arc<str>) -> Query<u32> {
    let command = pb::CommandPartitionedTopicMetadata {
        topic: topic.to_string(),
        metadata_auto_creation_enabled: Some(false),
        ..Default::default()
    };
    Query { command: Some(command.into()), ..partitions(topic) }
}

/// GET_TOPICS_OF_NAMESPACE: the topics of `tenant/namespace`; `request` says of which domain, and by which pattern.
pub fn topics_of_namespace(request: pb::CommandGetTopicsOfNamespace) -> Query<pb::CommandGetTopicsOfNamespaceResponse> {
    Query::new("the list of the namespace's topics", request.into(), |_, response| match response? {
        Command::GetTopicsOfNamespaceResponse(response) => Some(response),
        _ => None,
    })
}

/// GET_SCHEMA: a schema of the topic, the latest one unless `version` names another.
pub fn schema(topic: &Arc<str>, version: Option<bytes::Bytes>) -> Query<pb::CommandGetSchemaResponse> {
    let command = pb::CommandGetSchema { topic: topic.to_string(), schema_version: version, ..Default::default() };
    let query = Query::new("the lookup of the topic's schema", command.into(), |_, response| match response? {
        Command::GetSchemaResponse(response) => Some(response),
        _ => None,
    });
    query.about(topic)
}

/// GET_OR_CREATE_SCHEMA: the version of `schema` on the topic, which is registered there if it is new.
pub fn get_or_create_schema(topic: &Arc<str>, schema: pb::Schema) -> Query<bytes::Bytes> {
    let command = pb::CommandGetOrCreateSchema { topic: topic.to_string(), schema, ..Default::default() };
    let query = Query::new("the registration of the topic's schema", command.into(), |_, response| match response? {
        Command::GetOrCreateSchemaResponse(response) => Some(response.schema_version.unwrap_or_default()),
        _ => None,
    });
    query.about(topic)
}

/// TC_CLIENT_CONNECT_REQUEST: opens the session with the transaction coordinator `tc_id`, at the broker that owns its
/// partition of the coordinators' topic.
pub fn coordinator(tc_id: u64) -> Query<()> {
    let topic = format!("persistent://pulsar/system/transaction_coordinator_assign-partition-{tc_id}").into();
    let command = pb::CommandTcClientConnectRequest { tc_id, ..Default::default() };
    let query =
        Query::new("the session with the transaction coordinator", command.into(), |_, response| match response? {
            Command::TcClientConnectResponse(_) => Some(()),
            _ => None,
        });
    query.at_owner_of(&topic)
}

/// A query of any answer type, with the place where its answer goes.
pub struct PendingQuery(Box<dyn AnyQuery>);

trait AnyQuery: Send {
    fn description(&self) -> &'static str;
    fn topic(&self) -> Option<&Arc<str>>;
    fn route(&self) -> &AttachRoute;
    fn command(&self) -> Option<&Command>;
    fn complete(self: Box<Self>, peer: &PeerInfo, response: Option<Command>, deferred: &mut Deferred);
    fn fail(self: Box<Self>, error: Error, deferred: &mut Deferred);
    fn is_abandoned(&self) -> bool;
}

struct Replying<T> {
    query: Query<T>,
    reply: ReplyTo<T>,
}

impl<T: Send + 'static> AnyQuery for Replying<T> {
    fn description(&self) -> &'static str {
        self.query.description
    }

    fn topic(&self) -> Option<&Arc<str>> {
        self.query.topic.as_ref()
    }

    fn route(&self) -> &AttachRoute {
        &self.query.route
    }

    fn command(&self) -> Option<&Command> {
        self.query.command.as_ref()
    }

    fn complete(self: Box<Self>, peer: &PeerInfo, response: Option<Command>, deferred: &mut Deferred) {
        let name = self.query.description;
        let read = (self.query.read)(peer, response);
        // The connection lets only an answer of the right type through, so this is a query that names the wrong one.
        let result = read.ok_or_else(|| Error::protocol(format!("the broker's answer to {name} is of another kind")));
        self.reply.send(result, deferred);
    }

    fn fail(self: Box<Self>, error: Error, deferred: &mut Deferred) {
        self.reply.send(Err(error), deferred);
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }
}

impl PendingQuery {
    /// What is asked for, as a noun for errors.
    pub(super) fn description(&self) -> &'static str {
        self.0.description()
    }

    /// The topic whose owner has to answer; `None` if any broker can.
    pub(super) fn owner_of(&self) -> Option<&Arc<str>> {
        self.0.topic().filter(|_| *self.0.route() == AttachRoute::TopicOwner)
    }

    /// What is sent; `None` if the handshake is the answer.
    pub(super) fn command(&self) -> Option<&Command> {
        self.0.command()
    }

    /// Whether it asks for the handshake alone.
    pub(super) fn is_connect(&self) -> bool {
        self.0.command().is_none()
    }

    pub(super) fn complete(self, peer: &PeerInfo, response: Option<Command>, deferred: &mut Deferred) {
        self.0.complete(peer, response, deferred);
    }

    pub(super) fn fail(self, error: Error, deferred: &mut Deferred) {
        let error = match self.0.topic() {
            Some(topic) => error.with_topic(topic),
            None => error,
        };
        self.0.fail(error, deferred);
    }

    /// Whether the caller does not wait any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned()
    }
}

impl fmt::Debug for PendingQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingQuery({})", self.description())
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({})", self.description)
    }
}
