//! Schemas of topics.

use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Access, Route, delete, get, post};
use super::topics::texts;
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;
use crate::broker::policies::Access as TopicAccess;
use crate::broker::topics::schemas::{SchemaRules, SchemaVersion, schema_type_name};
use crate::pb::schema::Type;
use crate::pb::{KeyValue, Schema};
use crate::topic::TopicName;

const LOOK_UP: Access = Access::Granted(TopicAccess::LookUp);
const PRODUCE: Access = Access::Granted(TopicAccess::Produce);

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/schemas/{tenant}/{namespace}/{topic}/schema", latest).access(LOOK_UP),
    get("admin/v2/schemas/{tenant}/{namespace}/{topic}/schema/{version}", of_version).access(LOOK_UP),
    get("admin/v2/schemas/{tenant}/{namespace}/{topic}/schemas", all).access(LOOK_UP),
    post("admin/v2/schemas/{tenant}/{namespace}/{topic}/schema", register).access(PRODUCE),
    delete("admin/v2/schemas/{tenant}/{namespace}/{topic}/schema", remove),
    post("admin/v2/schemas/{tenant}/{namespace}/{topic}/compatibility", compatibility).access(LOOK_UP),
    post("admin/v2/schemas/{tenant}/{namespace}/{topic}/version", version_of).access(LOOK_UP),
];

fn missing() -> RestAnswer {
    RestAnswer::refused(404, "Schema not found")
}

fn latest(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    let latest = broker.schemas.get(topic.as_str(), None).filter(|found| !found.is_deletion);
    Ok(schema_json(latest.ok_or_else(missing)?).into())
}

fn of_version(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    let version = u64::try_from(call.number("version")?).map_err(|_| missing())?;
    Ok(schema_json(broker.schemas.get(topic.as_str(), Some(version)).ok_or_else(missing)?).into())
}

fn all(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    let schemas: Vec<_> = broker.schemas.versions(topic.as_str()).into_iter().map(schema_json).collect();
    Ok(json!({ "getSchemaResponses": schemas }).into())
}

fn rules(broker: &Broker, topic: &TopicName) -> SchemaRules {
    SchemaRules::of(broker.policies.effective(topic))
}

/// An administrator registers also where producers may not; what is not compatible is refused all the same.
fn register(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    broker.rest_namespace(topic.namespace())?;
    let schema = schema_of(&call.body()?)?;
    let (rules, now_ms) = (rules(broker, &topic), broker.now.wall_ms);
    let added = broker.schemas.add(topic.as_str(), &schema, rules, now_ms);
    let version = added.map_err(|reason| {
        // What is malformed has a status of its own.
        let status = if reason.starts_with("Invalid schema definition") { 422 } else { 409 };
        RestAnswer::refused(status, reason)
    })?;
    Ok(json!({ "version": { "version": version } }).into())
}

/// A deletion is a version itself; with `force` nothing is left.
fn remove(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    broker.rest_namespace(topic.namespace())?;
    if call.flag("force") {
        broker.schemas.remove(topic.as_str());
        return Ok(json!({ "version": -1 }).into());
    }
    let too_many =
        || RestAnswer::refused(412, "this topic can have no more versions of its schema: delete them by force");
    let deleted = broker.delete_schema(topic.as_str()).ok_or_else(too_many)?;
    Ok(json!({ "version": deleted }).into())
}

fn compatibility(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    let schema = schema_of(&call.body()?)?;
    let strategy = rules(broker, &topic).strategy;
    let is_compatible = broker.schemas.check(topic.as_str(), &schema, strategy).is_ok();
    let answer = json!({ "schemaCompatibilityStrategy": strategy.as_str(), "compatibility": is_compatible });
    Ok(RestAnswer::failed(202, &answer))
}

fn version_of(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = call.topic()?;
    let found = broker.schemas.find(topic.as_str(), &schema_of(&call.body()?)?);
    Ok(json!({ "version": found.map_or(-1, |version| i64::try_from(version).unwrap_or(-1)) }).into())
}

fn schema_of(body: &Value) -> Result<Schema, RestAnswer> {
    let bad = |text: String| RestAnswer::refused(422, text);
    let name = body["type"].as_str().ok_or_else(|| bad("a schema needs its type".to_owned()))?;
    let kind = type_named(name).ok_or_else(|| bad(format!("no type of schema is called {name}")))?;
    let text = body["schema"].as_str().unwrap_or_default();
    let data = if kind == Type::KeyValue { key_value_data(text) } else { Some(text.as_bytes().to_vec()) };
    let properties = texts(&body["properties"])?.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
    Ok(Schema {
        r#type: kind.into(),
        schema_data: data.ok_or_else(|| bad("the schema has no key or no value".to_owned()))?.into(),
        properties,
        ..Schema::default()
    })
}

fn schema_json(found: &SchemaVersion) -> Value {
    let schema = &found.schema;
    let properties: serde_json::Map<_, _> =
        schema.properties.iter().map(|pair| (pair.key.clone(), json!(pair.value))).collect();
    let data = match schema.r#type() {
        Type::KeyValue => key_value_text(&schema.schema_data),
        _ => None,
    };
    let data = data.unwrap_or_else(|| String::from_utf8_lossy(&schema.schema_data).into_owned());
    json!({
        "version": found.version,
        "type": schema_type_name(schema.r#type()),
        "timestamp": found.registered_ms,
        "data": data,
        "properties": properties,
    })
}

/// The bytes of a schema of keys and values: each with its length in front.
fn key_value_data(text: &str) -> Option<Vec<u8>> {
    let both: Value = serde_json::from_str(text).ok()?;
    let mut data = Vec::new();
    for part in [both.get("key")?, both.get("value")?] {
        let part = match part {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        data.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
        data.extend(part.into_bytes());
    }
    Some(data)
}

/// The other way: what is JSON stays JSON, and anything else is a text.
fn key_value_text(data: &[u8]) -> Option<String> {
    let mut rest = data;
    let mut part = || {
        let (length, behind) =
            rest.split_first_chunk().map(|(length, behind)| (i32::from_be_bytes(*length), behind))?;
        let (part, behind) = behind.split_at_checked(usize::try_from(length).unwrap_or(0))?;
        rest = behind;
        let text = String::from_utf8_lossy(part);
        Some(serde_json::from_str(&text).unwrap_or_else(|_| json!(text)))
    };
    let (key, value): (Value, Value) = (part()?, part()?);
    Some(json!({ "key": key, "value": value }).to_string())
}

fn type_named(name: &str) -> Option<Type> {
    (0..64).filter_map(|number| Type::try_from(number).ok()).find(|kind| schema_type_name(*kind) == name)
}
