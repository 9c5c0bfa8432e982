//! GET_SCHEMA and GET_OR_CREATE_SCHEMA.

use bytes::Bytes;

use super::Rejection;
use crate::broker::conformance::Rule;
use crate::broker::ids::ConnId;
use crate::broker::machine::Broker;
use crate::broker::policies::Access;
use crate::broker::refusal::refuse;
use crate::broker::topics::schemas::{SchemaRules, parse_version, version_bytes};
use crate::pb::schema::Type;
use crate::pb::{self, ServerError};
use crate::topic::TopicName;

impl Broker {
    pub(super) fn on_get_schema(&mut self, conn: ConnId, request: &pb::CommandGetSchema) -> Result<(), Rejection> {
        let version = match request.schema_version.as_deref() {
            None => None,
            Some([]) => return Err(refuse(ServerError::IncompatibleSchema, "Empty schema version").into()),
            Some(bytes) => Some(parse_version(bytes).ok_or_else(|| {
                let detail = format!("schema_version of {} bytes", bytes.len());
                Rejection::violation(Rule::IncompleteRequest, detail)
            })?),
        };
        let missing = || refuse(ServerError::TopicNotFound, format!("Topic not found or no-schema {}", request.topic));
        let found = self.schemas.get(&request.topic, version).ok_or_else(missing)?;
        let (schema, version) = (found.schema.clone(), found.version);
        let response = pb::CommandGetSchemaResponse {
            request_id: request.request_id,
            schema: Some(schema),
            schema_version: Some(version_bytes(version)),
            ..Default::default()
        };
        self.connections.send(conn, response);
        Ok(())
    }

    pub(super) fn on_get_or_create_schema(
        &mut self,
        conn: ConnId,
        request: &pb::CommandGetOrCreateSchema,
    ) -> Result<(), Rejection> {
        let bad_name = |_| Rejection::violation(Rule::IncompleteRequest, "GET_OR_CREATE_SCHEMA with a bad topic name");
        let name = TopicName::parse(&request.topic).map_err(bad_name)?;
        if !self.is_authorized(conn, &request.topic, Access::LookUp) {
            return Err(refuse(ServerError::AuthorizationError, "Client is not authorized").into());
        }
        if !self.topics.contains(name.as_str()) {
            return Err(refuse(ServerError::TopicNotFound, format!("Topic {name} does not exist")).into());
        }
        // NONE is none to create, other than in PRODUCER and SUBSCRIBE.
        let schema = Some(&request.schema).filter(|schema| schema.r#type() != Type::None);
        let rules = SchemaRules::of(self.policies.effective(&name));
        let version = match schema {
            None => Bytes::new(),
            schema => self.schemas.register(name.as_str(), schema, rules, self.now.wall_ms)?,
        };
        let response = pb::CommandGetOrCreateSchemaResponse {
            request_id: request.request_id,
            schema_version: Some(version),
            ..Default::default()
        };
        self.connections.send(conn, response);
        Ok(())
    }
}
