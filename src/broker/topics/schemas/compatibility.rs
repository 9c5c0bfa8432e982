//! Whether a new version of a schema fits those before it, as Pulsar 4.0.8 sees it.
//!
//! | type | fits if |
//! | --- | --- |
//! | AVRO, PROTOBUF, JSON with an Avro schema | one schema reads what the other writes ([`avro`]) |
//! | PROTOBUF_NATIVE | the root message is the same |
//! | KEY_VALUE | key and value fit, each by its own type |
//! | JSON of another kind, and any other | always |

use serde_json::Value;

use super::SchemaVersion;
use super::avro::{self, AvroSchema};
use crate::broker::policies::SchemaCompatibilityStrategy as Strategy;
use crate::pb::Schema;
use crate::pb::schema::Type;

/// Whether the definition is one of its type; the error says what is wrong.
pub(super) fn validate(schema: &Schema) -> Result<(), String> {
    let (kind, data) = (schema.r#type(), &schema.schema_data);
    let invalid =
        |error: &str| Err(format!("Invalid schema definition data for {} schema: {error}", schema_type_name(kind)));
    match kind {
        Type::Avro | Type::Protobuf => AvroSchema::parse(data).map(drop).or_else(|error| invalid(&error)),
        Type::Json => match AvroSchema::parse(data) {
            // One that Jackson made, as old Java clients do.
            Err(_) if serde_json::from_slice::<Value>(data).is_ok_and(|json| json.is_object()) => Ok(()),
            Err(error) => invalid(&error),
            Ok(_) => Ok(()),
        },
        Type::KeyValue if data.is_empty() => Ok(()),
        Type::KeyValue => match key_and_value(schema) {
            Some((key, value)) => validate(&key).and_then(|()| validate(&value)),
            None => invalid("key and value cannot be told apart"),
        },
        Type::ProtobufNative if root_message(schema).is_none() => invalid("it has no rootMessageTypeName"),
        // C++ writes it where there is no definition.
        Type::String if data == "null" => Ok(()),
        Type::None | Type::ProtobufNative | Type::AutoConsume => Ok(()),
        _ if data.is_empty() => Ok(()),
        _ => invalid(&format!("its data has {} bytes and should have none", data.len())),
    }
}

/// Whether two schemas are one: of Avro's definitions what they say of the data, else their bytes.
pub(super) fn is_same(known: &Schema, schema: &Schema) -> bool {
    if known.r#type != schema.r#type {
        return false;
    }
    known.schema_data == schema.schema_data
        || matches!(schema.r#type(), Type::Avro | Type::Json | Type::Protobuf)
            && undocumented(&known.schema_data).is_some_and(|json| Some(json) == undocumented(&schema.schema_data))
}

/// A definition without what is for people.
fn undocumented(data: &[u8]) -> Option<Value> {
    let mut json = serde_json::from_slice(data).ok()?;
    remove_docs(&mut json);
    Some(json)
}

fn remove_docs(json: &mut Value) {
    match json {
        Value::Object(object) => {
            object.remove("doc");
            object.values_mut().for_each(remove_docs);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_docs),
        _ => {}
    }
}

/// Checks a schema against `known`, oldest first; the error says what does not fit.
pub(super) fn check(known: &[&SchemaVersion], schema: &Schema, strategy: Strategy) -> Result<(), String> {
    let Some((latest, _)) = known.split_last().filter(|_| strategy != Strategy::AlwaysCompatible) else {
        return Ok(());
    };
    if latest.schema.r#type != schema.r#type {
        let (exists, new) = (schema_type_name(latest.schema.r#type()), schema_type_name(schema.r#type()));
        return Err(format!("Incompatible schema: exists schema type {exists}, new schema type {new}"));
    }
    let is_transitive =
        matches!(strategy, Strategy::BackwardTransitive | Strategy::ForwardTransitive | Strategy::FullTransitive);
    let checked = if is_transitive { known } else { std::slice::from_ref(latest) };
    let fits = |version: &&SchemaVersion| check_pair(&version.schema, schema, strategy);
    checked.iter().rev().try_for_each(fits).map_err(|error| {
        format!("Error during schema compatibility check with strategy {strategy}: Unable to read schema: {error}")
    })
}

fn check_pair(known: &Schema, schema: &Schema, strategy: Strategy) -> Result<(), String> {
    if strategy == Strategy::AlwaysIncompatible {
        return Err("no new version is taken".to_owned());
    }
    match schema.r#type() {
        Type::Avro | Type::Protobuf | Type::Json => {
            match (AvroSchema::parse(&known.schema_data), AvroSchema::parse(&schema.schema_data)) {
                (Ok(known), Ok(schema)) => check_avro(&known, &schema, strategy),
                _ => Ok(()),
            }
        }
        Type::ProtobufNative => {
            let is_changed = root_message(known).is_some_and(|root| root_message(schema) != Some(root));
            if is_changed { Err("Protobuf root message isn't allow change!".to_owned()) } else { Ok(()) }
        }
        Type::KeyValue => {
            let (Some((key, value)), Some((new_key, new_value))) = (key_and_value(known), key_and_value(schema)) else {
                return Ok(());
            };
            if key.r#type != new_key.r#type || value.r#type != new_value.r#type {
                return Err("Key schemas or Value schemas are different schema type".to_owned());
            }
            check_pair(&key, &new_key, strategy)
                .map_err(|error| format!("key: {error}"))
                .and_then(|()| check_pair(&value, &new_value, strategy).map_err(|error| format!("value: {error}")))
        }
        _ => Ok(()),
    }
}

fn check_avro(known: &AvroSchema, schema: &AvroSchema, strategy: Strategy) -> Result<(), String> {
    let (backward, forward) = match strategy {
        Strategy::Backward | Strategy::BackwardTransitive => (true, false),
        Strategy::Forward | Strategy::ForwardTransitive => (false, true),
        _ => (true, true),
    };
    if backward {
        avro::check_read(known, schema)
            .map_err(|error| format!("the new one does not read the earlier one: {error}"))?;
    }
    if forward {
        avro::check_read(schema, known)
            .map_err(|error| format!("the earlier one does not read the new one: {error}"))?;
    }
    Ok(())
}

/// The full name of the root message of a PROTOBUF_NATIVE schema.
fn root_message(schema: &Schema) -> Option<String> {
    let json: Value = serde_json::from_slice(&schema.schema_data).ok()?;
    Some(json.get("rootMessageTypeName")?.as_str()?.to_owned())
}

/// The two schemas of KEY_VALUE: its data is each with its length in front, its properties have their types.
fn key_and_value(schema: &Schema) -> Option<(Schema, Schema)> {
    let (key, rest) = with_length(&schema.schema_data)?;
    let (value, rest) = with_length(rest)?;
    let part = |data: &[u8], property: &str| {
        let name = schema.properties.iter().find(|one| one.key == property).map(|one| one.value.as_str());
        let kind = (0..=TYPE_MAX)
            .filter_map(|kind| Type::try_from(kind).ok())
            .find(|kind| name == Some(&schema_type_name(*kind)));
        let (schema_data, kind) = (data.to_vec().into(), kind.unwrap_or(Type::None) as i32);
        Schema { r#type: kind, schema_data, ..Schema::default() }
    };
    rest.is_empty().then(|| (part(key, "key.schema.type"), part(value, "value.schema.type")))
}

fn with_length(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    // A schema without data has the length −1.
    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    rest.split_at_checked(length)
}

/// The highest number of a type.
const TYPE_MAX: i32 = Type::External as i32;

/// The name of a type at the admin API: `LocalDate` is `LOCAL_DATE`.
pub(crate) fn schema_type_name(kind: Type) -> String {
    let name = match kind {
        Type::Bool => "Boolean",
        other => other.as_str_name(),
    };
    let mut upper = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !upper.is_empty() {
            upper.push('_');
        }
        upper.push(letter.to_ascii_uppercase());
    }
    upper
}
