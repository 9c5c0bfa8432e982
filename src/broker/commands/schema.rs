//! GET_SCHEMA and GET_OR_CREATE_SCHEMA.

use crate::broker::conformance::Rule;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::broker::refusal::Refusal;
use crate::broker::topics::schemas::{parse_version, version_bytes};
use crate::pb::{self, Schema, ServerError};
use crate::topic::TopicName;

impl Broker {
    pub(super) fn on_get_schema(&mut self, conn: ConnId, request: &pb::CommandGetSchema) {
        let found = match request.schema_version.as_deref() {
            None => self.find_schema(&request.topic, None),
            Some([]) => Err(Refusal::new(ServerError::IncompatibleSchema, "Empty schema version")),
            Some(bytes) => match parse_version(bytes) {
                Some(version) => self.find_schema(&request.topic, Some(version)),
                None => {
                    let detail = || format!("schema_version of {} bytes", bytes.len());
                    return self.close_on_violation(conn, Rule::IncompleteRequest, detail);
                }
            },
        };
        let (schema, schema_version, error_code, error_message) = match found {
            Ok((schema, version)) => (Some(schema), Some(version_bytes(version)), None, None),
            Err(refusal) => (None, None, Some(refusal.code.into()), Some(refusal.message)),
        };
        let response = pb::CommandGetSchemaResponse {
            request_id: request.request_id,
            error_code,
            error_message,
            schema,
            schema_version,
        };
        self.connections.send(conn, response);
    }

    /// The schema of this version, or the latest.
    fn find_schema(&self, topic: &str, version: Option<u64>) -> Result<(Schema, u64), Refusal> {
        let missing = || Refusal::new(ServerError::TopicNotFound, "Topic not found or no-schema");
        self.schemas.get(topic, version).ok_or_else(missing)
    }

    pub(super) fn on_get_or_create_schema(&mut self, conn: ConnId, request: &pb::CommandGetOrCreateSchema) {
        let Ok(name) = TopicName::parse(&request.topic) else {
            let detail = || "GET_OR_CREATE_SCHEMA with a bad topic name".to_owned();
            return self.close_on_violation(conn, Rule::IncompleteRequest, detail);
        };
        let result = if !self.is_authorized(conn) {
            Err(Refusal::new(ServerError::AuthorizationError, "Client is not authorized"))
        } else if !self.topics.contains(name.as_str()) {
            Err(Refusal::new(ServerError::TopicNotFound, format!("Topic {name} does not exist")))
        } else {
            self.schemas.register(name.as_str(), Some(&request.schema))
        };
        let (schema_version, error_code, error_message) = match result {
            Ok(version) => (Some(version), None, None),
            Err(refusal) => (None, Some(refusal.code.into()), Some(refusal.message)),
        };
        let response = pb::CommandGetOrCreateSchemaResponse {
            request_id: request.request_id,
            error_code,
            error_message,
            schema_version,
        };
        self.connections.send(conn, response);
    }
}
