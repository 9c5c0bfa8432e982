//! PARTITIONED_METADATA and LOOKUP: one broker owns everything, once it was asked about it.

use std::sync::Arc;

use crate::broker::machine::{Broker, ConnId};
use crate::pb::command_lookup_topic_response::LookupType;
use crate::pb::command_partitioned_topic_metadata_response::LookupType as MetadataResult;
use crate::pb::{self, ServerError};
use crate::topic::TopicName;

/// Looked-up topics that are remembered for the judge; when they are full, the judge asks for no more lookups.
pub(crate) const LOOKED_UP_MAX: usize = 100_000;

/// Namespaces this broker owns at once; lookups in further ones do not make it their owner.
const NAMESPACES_MAX: usize = 10_000;

const NOT_AUTHORIZED: &str = "Client is not authorized to use this topic";
const NO_NAMESPACE: &str = "Namespace not found";

impl Broker {
    pub(crate) fn on_partitioned_metadata(&mut self, conn: ConnId, request: &pb::CommandPartitionedTopicMetadata) {
        let answer = self.partitions_of(conn, &request.topic, request.metadata_auto_creation_enabled());
        let (partitions, error, message, response) = match answer {
            Ok(partitions) => (Some(partitions), None, None, MetadataResult::Success),
            Err((error, text)) => (None, Some(error.into()), Some(text.to_owned()), MetadataResult::Failed),
        };
        let response = pb::CommandPartitionedTopicMetadataResponse {
            partitions,
            request_id: request.request_id,
            response: Some(response.into()),
            error,
            message,
        };
        self.conns.send(conn, &response.into());
    }

    fn partitions_of(&self, conn: ConnId, topic: &str, create: bool) -> Result<u32, (ServerError, &'static str)> {
        let name = TopicName::parse(topic).map_err(|_| (ServerError::InvalidTopicName, "Invalid topic name"))?;
        if !self.is_authorized(conn) {
            return Err((ServerError::AuthorizationError, NOT_AUTHORIZED));
        }
        if !self.namespace_exists(name.namespace()) {
            return Err((ServerError::TopicNotFound, NO_NAMESPACE));
        }
        if let Some(partitions) = self.partitioned.get(name.as_str()) {
            return Ok(*partitions);
        }
        if let Some(index) = name.partition_index() {
            match self.partitioned.get(name.base().as_str()) {
                Some(partitions) if index < *partitions => return Ok(0),
                Some(_) => return Err((ServerError::TopicNotFound, "")),
                None => {}
            }
        }
        let known = self.topics.contains_key(name.as_str()) || (create && self.config.auto_create_topics);
        if known { Ok(0) } else { Err((ServerError::TopicNotFound, "")) }
    }

    /// Always Connect to this broker, for a topic that exists or not, as a standalone broker answers.
    pub(crate) fn on_lookup(&mut self, conn: ConnId, request: &pb::CommandLookupTopic) {
        let failed = self.look_up(conn, request).err();
        let response = match failed {
            None => pb::CommandLookupTopicResponse {
                broker_service_url: Some(self.url.clone()),
                response: Some(LookupType::Connect.into()),
                request_id: request.request_id,
                authoritative: Some(true),
                proxy_through_service_url: Some(true),
                ..Default::default()
            },
            Some((error, text)) => pb::CommandLookupTopicResponse {
                response: Some(LookupType::Failed.into()),
                request_id: request.request_id,
                error: Some(error.into()),
                message: Some(text.to_owned()),
                ..Default::default()
            },
        };
        self.conns.send(conn, &response.into());
    }

    fn look_up(&mut self, conn: ConnId, request: &pb::CommandLookupTopic) -> Result<(), (ServerError, &'static str)> {
        let name =
            TopicName::parse(&request.topic).map_err(|_| (ServerError::InvalidTopicName, "Invalid topic name"))?;
        if !self.is_authorized(conn) {
            return Err((ServerError::AuthorizationError, NOT_AUTHORIZED));
        }
        if !request.advertised_listener_name().is_empty() {
            return Err((ServerError::ServiceNotReady, "the broker do not have this listener"));
        }
        if !self.namespace_exists(name.namespace()) {
            return Err((ServerError::TopicNotFound, NO_NAMESPACE));
        }
        if self.owned.len() < NAMESPACES_MAX {
            self.owned.insert(name.namespace().to_owned());
        }
        if self.looked_up.len() < LOOKED_UP_MAX {
            self.looked_up.insert(Arc::from(name.as_str()));
        }
        Ok(())
    }

    pub(crate) fn namespace_exists(&self, namespace: &str) -> bool {
        self.config.any_namespace || self.config.namespaces.contains(namespace)
    }
}
