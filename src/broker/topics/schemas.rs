//! The schemas of topics: versions in order of arrival, all of one type. Compatibility is not checked further.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::broker::refusal::refuse;
use crate::pb::schema::Type;
use crate::pb::{Schema, ServerError};
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// Versions of one topic; one more is refused.
const VERSIONS_MAX: usize = 1_000;

/// Schemas by `tenant/namespace/topic`, without the suffix of a partition.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    by_topic: BTreeMap<String, Vec<Schema>>,
}

impl Schemas {
    /// The version of `schema` on `topic`, registered now if it is new; empty where there is none to register.
    ///
    /// | schema of the request | topic without schemas | topic with schemas |
    /// | --- | --- | --- |
    /// | absent | none | none |
    /// | NONE | none | IncompatibleSchema |
    /// | AUTO_CONSUME | none | none |
    /// | known to the topic | - | its version |
    /// | another one of the topic's type | version 0 | the next version |
    /// | of another type | version 0 | IncompatibleSchema |
    pub(crate) fn register(&mut self, topic: &str, schema: Option<&Schema>) -> Result<Bytes, Refusal> {
        let Some(schema) = schema else { return Ok(Bytes::new()) };
        let incompatible = |text: &str| Err(refuse(ServerError::IncompatibleSchema, text));
        let Some(name) = schema_name(topic) else { return incompatible("Invalid topic name") };
        let versions = self.by_topic.entry(name).or_default();
        match Type::try_from(schema.r#type) {
            Ok(Type::None) if versions.is_empty() => return Ok(Bytes::new()),
            Ok(Type::None) => {
                return incompatible(
                    "Producers cannot connect or send message without a schema to topics with a schema",
                );
            }
            Ok(Type::AutoConsume) => return Ok(Bytes::new()),
            _ => {}
        }
        let same = |known: &Schema| known.r#type == schema.r#type && known.schema_data == schema.schema_data;
        let index = match versions.iter().position(same) {
            Some(index) => index,
            None if versions.first().is_some_and(|first| first.r#type != schema.r#type) => {
                return incompatible("Incompatible schema: the topic has one of another type");
            }
            None if versions.len() >= VERSIONS_MAX => return incompatible("too many schema versions"),
            None => {
                versions.push(schema.clone());
                versions.len() - 1
            }
        };
        Ok(version_bytes(index as u64))
    }

    /// What SUBSCRIBE does with its schema.
    ///
    /// | schema of the request | topic without schemas, idle | topic without schemas, in use | topic with schemas |
    /// | --- | --- | --- | --- |
    /// | absent, NONE, AUTO_CONSUME | none | none | none |
    /// | of the topic's type | - | - | fits, and is not registered |
    /// | any other | version 0 | IncompatibleSchema | IncompatibleSchema |
    pub(crate) fn check_consumer(
        &mut self,
        topic: &str,
        schema: Option<&Schema>,
        is_in_use: bool,
    ) -> Result<(), Refusal> {
        let is_plain = |schema: &&Schema| matches!(schema.r#type(), Type::None | Type::AutoConsume);
        let Some(schema) = schema.filter(|schema| !is_plain(schema)) else { return Ok(()) };
        let incompatible = |text: &str| Err(refuse(ServerError::IncompatibleSchema, text));
        match self.get(topic, None) {
            Some((known, _)) if known.r#type == schema.r#type => Ok(()),
            Some(_) => incompatible("Incompatible schema: the topic has one of another type"),
            None if is_in_use => incompatible("Topic does not have schema to check"),
            None => self.register(topic, Some(schema)).map(drop),
        }
    }

    /// The schema of a version, or the latest, and its version.
    pub(crate) fn get(&self, topic: &str, version: Option<u64>) -> Option<(Schema, u64)> {
        let name = schema_name(topic)?;
        let versions = self.by_topic.get(&name)?;
        let index = version.unwrap_or(versions.len().checked_sub(1)? as u64);
        let schema = versions.get(usize::try_from(index).ok()?)?;
        Some((Schema { name, ..schema.clone() }, index))
    }
}

/// A schema version as commands carry it.
pub(crate) fn version_bytes(version: u64) -> Bytes {
    Bytes::copy_from_slice(&version.to_be_bytes())
}

/// Reads a schema version; `None` if it has not 8 bytes.
pub(crate) fn parse_version(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes)
}

fn schema_name(topic: &str) -> Option<String> {
    let base = TopicName::parse(topic).ok()?.base();
    Some(format!("{}/{}", base.namespace(), base.local_name()))
}
