//! PARTITIONED_METADATA and LOOKUP: the owner of a topic serves it, once a broker was asked about it.

use super::Rejection;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::broker::policies::Access;
use crate::broker::refusal::refuse;
use crate::broker::topics::Directions;
use crate::pb::command_lookup_topic_response::LookupType;
use crate::pb::command_partitioned_topic_metadata_response::LookupType as MetadataType;
use crate::pb::{self, ServerError};
use crate::topic::TopicName;
use crate::wire::command::Refusal;

impl Broker {
    pub(super) fn on_partitioned_metadata(
        &mut self,
        conn: ConnId,
        request: &pb::CommandPartitionedTopicMetadata,
    ) -> Result<(), Rejection> {
        let creates = request.metadata_auto_creation_enabled();
        let is_stranger = |_: &_| !self.is_authorized(conn, &request.topic, Access::LookUp);
        if let Some(name) = TopicName::parse(&request.topic).ok().filter(is_stranger) {
            return Err(self.no_partitions_for_a_stranger(&name).into());
        }
        let partitions = self.count_partitions(&request.topic, creates)?;
        let response = pb::CommandPartitionedTopicMetadataResponse {
            partitions: Some(partitions),
            request_id: request.request_id,
            response: Some(MetadataType::Success.into()),
            ..Default::default()
        };
        self.connections.send(conn, response);
        Ok(())
    }

    /// What a role without rights on a topic is told: also whether there is its tenant.
    fn no_partitions_for_a_stranger(&self, name: &TopicName) -> Refusal {
        if self.tenants.get(name.tenant()).is_none() && !self.config.has_namespace(name.namespace()) {
            let text = format!("Tenant or namespace or topic does not exist: {}", name.namespace());
            return refuse(ServerError::TopicNotFound, text);
        }
        refuse(ServerError::AuthorizationError, "Client is not authorized to Get Partition Metadata")
    }

    /// The number of partitions a name stands for:
    ///
    /// | name | response |
    /// | --- | --- |
    /// | of a partitioned topic | its partitions |
    /// | of a partition of a partitioned topic | 0; beyond the last one TopicNotFound |
    /// | of any other topic that exists, or would be created by PRODUCER where `create` is asked for | 0 |
    /// | any other | TopicNotFound |
    ///
    /// That the role may ask is the caller's to check.
    pub(in crate::broker) fn count_partitions(&self, topic: &str, create: bool) -> Result<u32, Refusal> {
        let name = self.check_lookup(true, topic, "")?;
        if let Some(partitions) = self.topics.partitions(&name) {
            return Ok(partitions);
        }
        let missing = || refuse(ServerError::TopicNotFound, "");
        if let Some(index) = name.partition_index() {
            match self.topics.partitions(&name.base()) {
                Some(partitions) if index < partitions => return Ok(0),
                Some(_) => return Err(missing()),
                None => {}
            }
        }
        let exists = self.topics.contains(name.as_str()) || (create && self.allows_auto_topic_creation());
        if exists { Ok(0) } else { Err(missing()) }
    }

    /// Connect to the owner, for a topic that exists or not, as a standalone broker responds; or Redirect to the broker that
    /// picks one.
    pub(super) fn on_lookup(&mut self, conn: ConnId, request: &pb::CommandLookupTopic) -> Result<(), Rejection> {
        let is_authorized = self.is_authorized(conn, &request.topic, Access::LookUp);
        let name = self.check_lookup(is_authorized, &request.topic, request.advertised_listener_name())?;
        self.ownership.acquire(&name);
        let asked = self.connections.get(conn).map_or(0, |connection| connection.broker);
        let (kind, url, authoritative) = match self.brokers.look_up(asked, name.as_str(), request.authoritative()) {
            Directions::Connect(url) => (LookupType::Connect, url.to_owned(), true),
            Directions::Redirect { url, authoritative } => (LookupType::Redirect, url.to_owned(), authoritative),
        };
        let response = pb::CommandLookupTopicResponse {
            broker_service_url: Some(url),
            broker_service_url_tls: self.config.broker_service_url_tls.clone(),
            response: Some(kind.into()),
            request_id: request.request_id,
            authoritative: Some(authoritative),
            // As of a standalone broker, which is reached where its client has reached it.
            proxy_through_service_url: Some(self.brokers.is_standalone()),
            ..Default::default()
        };
        self.connections.send(conn, response);
        Ok(())
    }

    /// What both requests, and those over HTTP, check, in this order: the name, the role, the listener, the namespace.
    pub(in crate::broker) fn check_lookup(
        &self,
        is_authorized: bool,
        topic: &str,
        listener: &str,
    ) -> Result<TopicName, Refusal> {
        let bad_name = |_| refuse(ServerError::InvalidTopicName, "Invalid topic name");
        let name = TopicName::parse(topic).map_err(bad_name)?;
        if !is_authorized {
            let text = "Client is not authorized to Lookup";
            return Err(refuse(ServerError::AuthorizationError, text));
        }
        if !listener.is_empty() {
            return Err(refuse(ServerError::ServiceNotReady, "the broker do not have this listener"));
        }
        if !self.config.has_namespace(name.namespace()) {
            return Err(refuse(ServerError::TopicNotFound, "Namespace not found"));
        }
        Ok(name)
    }
}
