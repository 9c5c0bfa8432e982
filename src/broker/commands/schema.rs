//! A registry of schemas by topic: versions in order of arrival, one kind a topic. Compatibility is not checked further.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::broker::conformance::Rule;
use crate::broker::machine::{Broker, ConnId};
use crate::pb::{self, Schema, ServerError, schema::Type};
use crate::topic::TopicName;

/// Versions of one topic; one more is refused.
const VERSIONS_MAX: usize = 1_000;

/// Bytes of a schema version: a big-endian counter.
const VERSION_BYTES: usize = 8;

type Refusal = (ServerError, String);

/// Schemas by `tenant/namespace/topic`, without the suffix of a partition.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    by_topic: BTreeMap<String, Vec<Schema>>,
}

impl Schemas {
    /// The version of `schema` on `topic`, registered now if it is new; empty for none.
    pub(crate) fn register(&mut self, topic: &str, schema: Option<&Schema>) -> Result<Bytes, Refusal> {
        let Some(schema) = schema else { return Ok(Bytes::new()) };
        let refuse = |text: &str| Err((ServerError::IncompatibleSchema, text.to_owned()));
        let Some(name) = schema_name(topic) else { return refuse("Invalid topic name") };
        let versions = self.by_topic.entry(name).or_default();
        match Type::try_from(schema.r#type) {
            Ok(Type::None) if versions.is_empty() => return Ok(Bytes::new()),
            Ok(Type::None) => {
                return refuse("Producers cannot connect or send message without a schema to topics with a schema");
            }
            Ok(Type::AutoConsume) => return Ok(Bytes::new()),
            _ => {}
        }
        let same = |known: &Schema| known.r#type == schema.r#type && known.schema_data == schema.schema_data;
        let index = match versions.iter().position(same) {
            Some(index) => index,
            None if versions.first().is_some_and(|first| first.r#type != schema.r#type) => {
                return refuse("Incompatible schema: the topic has one of another type");
            }
            None if versions.len() >= VERSIONS_MAX => return refuse("too many schema versions"),
            None => {
                versions.push(schema.clone());
                versions.len() - 1
            }
        };
        Ok(Bytes::copy_from_slice(&(index as u64).to_be_bytes()))
    }

    /// The schema of a version, or the latest.
    fn get(&self, topic: &str, version: Option<u64>) -> Option<(Schema, u64)> {
        let name = schema_name(topic)?;
        let versions = self.by_topic.get(&name)?;
        let index = version.unwrap_or(versions.len().checked_sub(1)? as u64);
        let schema = versions.get(usize::try_from(index).ok()?)?;
        Some((Schema { name, ..schema.clone() }, index))
    }
}

/// Whether Pulsar 4.0.8 knows the type of this schema. A command with another one cannot be read.
pub(crate) fn is_known(schema: Option<&Schema>) -> bool {
    schema
        .is_none_or(|schema| Type::try_from(schema.r#type).is_ok_and(|known| known as i32 <= Type::AutoConsume as i32))
}

fn schema_name(topic: &str) -> Option<String> {
    let base = TopicName::parse(topic).ok()?.base();
    Some(format!("{}/{}", base.namespace(), base.local_name()))
}

impl Broker {
    pub(crate) fn on_get_schema(&mut self, conn: ConnId, request: &pb::CommandGetSchema) {
        let version = match request.schema_version.as_deref() {
            None => None,
            Some([]) => {
                return self.no_schema(
                    conn,
                    request.request_id,
                    ServerError::IncompatibleSchema,
                    "Empty schema version",
                );
            }
            Some(bytes) => match <[u8; VERSION_BYTES]>::try_from(bytes) {
                Ok(bytes) => Some(u64::from_be_bytes(bytes)),
                Err(_) => {
                    let detail = || format!("schema_version of {} bytes", bytes.len());
                    return self.fail(conn, Rule::IncompleteRequest, detail);
                }
            },
        };
        let Some((schema, version)) = self.schemas.get(&request.topic, version) else {
            return self.no_schema(
                conn,
                request.request_id,
                ServerError::TopicNotFound,
                "Topic not found or no-schema",
            );
        };
        let response = pb::CommandGetSchemaResponse {
            request_id: request.request_id,
            error_code: None,
            error_message: None,
            schema: Some(schema),
            schema_version: Some(Bytes::copy_from_slice(&version.to_be_bytes())),
        };
        self.conns.send(conn, &response.into());
    }

    fn no_schema(&mut self, conn: ConnId, request_id: u64, error: ServerError, text: &str) {
        let response = pb::CommandGetSchemaResponse {
            request_id,
            error_code: Some(error.into()),
            error_message: Some(text.to_owned()),
            schema: None,
            schema_version: None,
        };
        self.conns.send(conn, &response.into());
    }

    pub(crate) fn on_get_or_create_schema(&mut self, conn: ConnId, request: pb::CommandGetOrCreateSchema) {
        let Ok(name) = TopicName::parse(&request.topic) else {
            return self
                .fail(conn, Rule::IncompleteRequest, || "GET_OR_CREATE_SCHEMA with a bad topic name".to_owned());
        };
        let result = if !self.is_authorized(conn) {
            Err((ServerError::AuthorizationError, "Client is not authorized".to_owned()))
        } else if !self.topics.contains_key(name.as_str()) {
            Err((ServerError::TopicNotFound, format!("Topic {name} does not exist")))
        } else {
            self.schemas.register(name.as_str(), Some(&request.schema))
        };
        let (schema_version, error_code, error_message) = match result {
            Ok(version) => (Some(version), None, None),
            Err((error, text)) => (None, Some(error.into()), Some(text)),
        };
        let response = pb::CommandGetOrCreateSchemaResponse {
            request_id: request.request_id,
            error_code,
            error_message,
            schema_version,
        };
        self.conns.send(conn, &response.into());
    }
}
