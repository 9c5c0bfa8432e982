//! The schemas of topics: versions in order of arrival, each compatible with those before it as the strategy says.

pub(crate) mod avro;
mod compatibility;

use std::collections::BTreeMap;

use bytes::Bytes;

pub(crate) use self::compatibility::schema_type_name;

use crate::broker::policies::{PolicySet, SchemaCompatibilityStrategy};
use crate::broker::refusal::refuse;
use crate::pb::schema::Type;
use crate::pb::{Schema, ServerError};
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// Versions of one topic; one more is refused.
const VERSIONS_MAX: usize = 1_000;

/// What the policies of a topic say about its schemas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchemaRules {
    pub(crate) strategy: SchemaCompatibilityStrategy,
    /// A producer without a schema is refused where there is one.
    is_enforced: bool,
    /// A new version may be registered.
    may_register: bool,
}

impl SchemaRules {
    pub(crate) fn of(policies: &PolicySet) -> Self {
        let strategy = policies.schema_compatibility_strategy;
        Self {
            strategy: strategy
                .filter(|strategy| *strategy != SchemaCompatibilityStrategy::Undefined)
                .unwrap_or(SchemaCompatibilityStrategy::Full),
            is_enforced: policies.schema_validation_enforced.unwrap_or(false),
            may_register: policies.is_allow_auto_update_schema.unwrap_or(true),
        }
    }
}

/// One version of a topic's schema.
#[derive(Debug, Clone)]
pub(crate) struct SchemaVersion {
    /// Its name is `tenant/namespace/topic`.
    pub(crate) schema: Schema,
    pub(crate) version: u64,
    /// When it was registered, ms since 1970.
    pub(crate) registered_ms: u64,
    /// Not a schema but the place where all before it were deleted. Shown to clients as one of type NONE.
    pub(crate) is_deletion: bool,
}

/// Schemas by `tenant/namespace/topic`, without the suffix of a partition.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    by_topic: BTreeMap<String, Vec<SchemaVersion>>,
}

/// What producers and consumers bring.
impl Schemas {
    /// The version of a producer's schema, registered now if it is new; empty where there is none to register.
    ///
    /// | schema of the request | topic without schemas | topic with schemas |
    /// | --- | --- | --- |
    /// | absent | none | none, or IncompatibleSchema where a schema is enforced |
    /// | AUTO_CONSUME | IncompatibleSchema | IncompatibleSchema |
    /// | malformed | IncompatibleSchema | IncompatibleSchema |
    /// | known to the topic | - | its version |
    /// | another one, NONE as well | version 0 | the next version if the strategy lets it, else IncompatibleSchema |
    pub(crate) fn register(
        &mut self,
        topic: &str,
        schema: Option<&Schema>,
        rules: SchemaRules,
        now_ms: u64,
    ) -> Result<Bytes, Refusal> {
        let Some(schema) = schema else {
            if rules.is_enforced && self.latest(topic).is_some() {
                return Err(incompatible(
                    "Producers cannot connect or send message without a schema to topics with a schema\
                     when SchemaValidationEnforced is enabled",
                ));
            }
            return Ok(Bytes::new());
        };
        if schema.r#type() == Type::AutoConsume {
            return Err(incompatible("Schema AUTO_CONSUME is a client-side schema type"));
        }
        self.add(topic, schema, rules, now_ms).map(version_bytes).map_err(|text| incompatible(&text))
    }

    /// Registers a schema that is compatible; the version, also of one that is known. The error says why it is refused.
    pub(crate) fn add(&mut self, topic: &str, schema: &Schema, rules: SchemaRules, now_ms: u64) -> Result<u64, String> {
        compatibility::validate(schema)?;
        let name = schema_name(topic).ok_or("Invalid topic name")?;
        if let Some(known) = self.find(topic, schema) {
            return Ok(known);
        }
        if !rules.may_register {
            return Err("Schema not found and schema auto updating is disabled.".to_owned());
        }
        self.check(topic, schema, rules.strategy)?;
        let versions = self.by_topic.entry(name.clone()).or_default();
        if versions.len() >= VERSIONS_MAX {
            return Err(format!("{name} has {VERSIONS_MAX} versions of its schema, and can have no more"));
        }
        let version = versions.len() as u64;
        let schema = Schema { name, ..schema.clone() };
        versions.push(SchemaVersion { schema, version, registered_ms: now_ms, is_deletion: false });
        Ok(version)
    }

    /// Whether a new version is compatible by this strategy; the error says why not.
    pub(crate) fn check(
        &self,
        topic: &str,
        schema: &Schema,
        strategy: SchemaCompatibilityStrategy,
    ) -> Result<(), String> {
        compatibility::check(&self.versions(topic), schema, strategy)
    }

    /// What SUBSCRIBE does with its schema.
    ///
    /// | schema of the request | topic without schemas, idle | topic without schemas, in use | topic with schemas |
    /// | --- | --- | --- | --- |
    /// | absent, AUTO_CONSUME | none | none | none |
    /// | any other, NONE as well | version 0 | IncompatibleSchema | not registered; has to read what is written |
    ///
    /// It has to read what the latest version writes; under ALWAYS_INCOMPATIBLE, BACKWARD_TRANSITIVE and FULL_TRANSITIVE it has
    /// to fit all versions by that strategy, and under ALWAYS_COMPATIBLE none.
    pub(crate) fn check_consumer(
        &mut self,
        topic: &str,
        schema: Option<&Schema>,
        is_in_use: bool,
        rules: SchemaRules,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        use SchemaCompatibilityStrategy::{Backward, Forward, ForwardTransitive, Full};
        let Some(schema) = schema.filter(|schema| schema.r#type() != Type::AutoConsume) else { return Ok(()) };
        let result = match self.latest(topic) {
            Some(_) => {
                let is_of_latest = matches!(rules.strategy, Backward | Forward | ForwardTransitive | Full);
                self.check(topic, schema, if is_of_latest { Backward } else { rules.strategy })
            }
            None if is_in_use => Err("Topic does not have schema to check".to_owned()),
            None => self.add(topic, schema, rules, now_ms).map(drop),
        };
        result.map_err(|text| incompatible(&text))
    }
}

/// What is registered.
impl Schemas {
    /// Those that count: after the latest deletion, oldest first.
    pub(crate) fn versions(&self, topic: &str) -> Vec<&SchemaVersion> {
        let all = schema_name(topic).and_then(|name| self.by_topic.get(&name)).map_or(&[][..], Vec::as_slice);
        let start = all.iter().rposition(|version| version.is_deletion).map_or(0, |deletion| deletion + 1);
        all[start..].iter().collect()
    }

    fn latest(&self, topic: &str) -> Option<&SchemaVersion> {
        self.versions(topic).pop()
    }

    /// The version of a schema that counts.
    pub(crate) fn find(&self, topic: &str, schema: &Schema) -> Option<u64> {
        let versions = self.versions(topic);
        versions.iter().find(|known| compatibility::is_same(&known.schema, schema)).map(|known| known.version)
    }

    /// A version that counts, or the latest; the latest may be the place of a deletion.
    pub(crate) fn get(&self, topic: &str, version: Option<u64>) -> Option<&SchemaVersion> {
        match version {
            Some(version) => self.versions(topic).into_iter().find(|known| known.version == version),
            None => self.by_topic.get(&schema_name(topic)?)?.last(),
        }
    }

    /// Deletes all versions; the number of the deletion, which counts as a version, also where there is nothing to delete.
    /// `None` if that is one too many, or the name is no topic's.
    pub(crate) fn delete(&mut self, topic: &str, now_ms: u64) -> Option<u64> {
        let name = schema_name(topic)?;
        let has_schema = self.latest(topic).is_some();
        let versions = self.by_topic.entry(name.clone()).or_default();
        if versions.len() >= VERSIONS_MAX && !has_schema {
            return None;
        }
        let version = versions.len() as u64;
        let schema = Schema { name, ..Schema::default() };
        versions.push(SchemaVersion { schema, version, registered_ms: now_ms, is_deletion: true });
        Some(version)
    }

    /// Removes all versions and deletions; what comes next is version 0.
    pub(crate) fn remove(&mut self, topic: &str) {
        if let Some(name) = schema_name(topic) {
            self.by_topic.remove(&name);
        }
    }
}

fn incompatible(text: &str) -> Refusal {
    refuse(ServerError::IncompatibleSchema, text)
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
