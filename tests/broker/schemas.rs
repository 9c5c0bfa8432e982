//! Schemas of producers and consumers: what Pulsar 4.0.8 answered to the same requests.

use bytes::Bytes;
use pulsar_native::broker::SchemaCompatibilityStrategy as Strategy;
use pulsar_native::broker::machine::ConnId;
use pulsar_native::pb::command_subscribe::SubType;
use pulsar_native::pb::schema::Type;
use pulsar_native::pb::{self, KeyValue, Schema, ServerError};
use pulsar_native::wire::Command;

use crate::support::{BrokerHarness, TOPIC, error_of, producer_command, subscribe_command};

const A: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
const A_AGAIN: &str = r#"{"name":"R","doc":"d", "fields":[{"type":"string","name":"a"}], "type":"record"}"#;
/// Fits `A` both ways.
const A_OR_B: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"string","default":""}]}"#;
/// Reads no `A`, and is read by it.
const A_AND_B: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"string"}]}"#;
/// Reads `A`, and is not read by it.
const NOTHING: &str = r#"{"type":"record","name":"R","fields":[]}"#;

fn schema(kind: Type, data: impl Into<Bytes>) -> Schema {
    Schema { r#type: kind.into(), schema_data: data.into(), ..Schema::default() }
}

struct Schemas {
    harness: BrokerHarness,
    conn: ConnId,
    latest: u64,
}

impl Schemas {
    fn new() -> Self {
        let mut harness = BrokerHarness::new();
        let conn = harness.connect();
        harness.look_up(conn, TOPIC);
        Self { harness, conn, latest: 0 }
    }

    fn with(strategy: Strategy) -> Self {
        let mut schemas = Self::new();
        let set = |own: &mut pulsar_native::broker::PolicySet| own.schema_compatibility_strategy = Some(strategy);
        assert!(schemas.harness.broker.set_namespace_policies("public/default", set));
        schemas
    }

    /// The version that a producer gets, −1 for none; or the error.
    fn producer(&mut self, schema: Option<Schema>) -> Result<i64, String> {
        self.latest += 1;
        let command = producer_command(self.harness.request_id(), self.latest, TOPIC);
        let producer_name = Some(format!("p{}", self.latest));
        let answer = self.harness.ask(self.conn, pb::CommandProducer { schema, producer_name, ..command });
        match answer {
            Command::ProducerSuccess(success) => Ok(version(&success.schema_version.unwrap_or_default())),
            other => Err(refusal(&other)),
        }
    }

    fn consumer(&mut self, schema: Schema) -> Result<(), String> {
        self.latest += 1;
        let command = subscribe_command(self.harness.request_id(), self.latest, SubType::Shared);
        match self.harness.ask(self.conn, pb::CommandSubscribe { schema: Some(schema), ..command }) {
            Command::Success(_) => Ok(()),
            other => Err(refusal(&other)),
        }
    }

    fn get(&mut self) -> Option<(Type, i64)> {
        let request = pb::CommandGetSchema { request_id: 1, topic: TOPIC.to_owned(), schema_version: None };
        match self.harness.ask(self.conn, request) {
            Command::GetSchemaResponse(found) => {
                let kind = found.schema.as_ref().map(Schema::r#type);
                kind.map(|kind| (kind, version(&found.schema_version.unwrap_or_default())))
            }
            other => panic!("no GET_SCHEMA_RESPONSE: {other:?}"),
        }
    }
}

fn version(bytes: &[u8]) -> i64 {
    <[u8; 8]>::try_from(bytes).map_or(-1, i64::from_be_bytes)
}

fn refusal(answer: &Command) -> String {
    let (code, text) = error_of(answer);
    assert_eq!(code, ServerError::IncompatibleSchema, "{text}");
    text.to_owned()
}

#[test]
fn none_is_a_schema_like_any_other() {
    let mut schemas = Schemas::new();
    let none = || schema(Type::None, "");
    assert_eq!(schemas.producer(Some(none())), Ok(0));
    assert_eq!(schemas.get(), Some((Type::None, 0)));
    assert_eq!(schemas.producer(Some(none())), Ok(0));
    assert_eq!(schemas.producer(None), Ok(-1));
    let text = "Incompatible schema: exists schema type NONE, new schema type AVRO";
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Err(text.to_owned()));
    assert_eq!(schemas.consumer(none()), Ok(()));
    assert_eq!(schemas.producer(Some(schema(Type::None, "abc"))), Ok(1));

    let mut schemas = Schemas::new();
    assert_eq!(schemas.consumer(none()), Ok(()), "an idle topic");
    assert_eq!(schemas.get(), Some((Type::None, 0)));
    let create = pb::CommandGetOrCreateSchema { request_id: 1, topic: TOPIC.to_owned(), schema: none() };
    let Command::GetOrCreateSchemaResponse(answer) = schemas.harness.ask(schemas.conn, create) else {
        panic!("refused")
    };
    assert_eq!(answer.schema_version.as_deref(), Some(&b""[..]));

    let mut schemas = Schemas::new();
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    let text = "Incompatible schema: exists schema type AVRO, new schema type NONE".to_owned();
    assert_eq!(schemas.producer(Some(none())), Err(text.clone()));
    assert_eq!(schemas.consumer(none()), Err(text));
}

#[test]
fn strategies_say_which_new_version_fits() {
    let cases = [
        (Strategy::Full, [true, false, false]),
        (Strategy::Backward, [true, false, true]),
        (Strategy::Forward, [true, true, false]),
        (Strategy::FullTransitive, [true, false, false]),
        (Strategy::BackwardTransitive, [true, false, true]),
        (Strategy::ForwardTransitive, [true, true, false]),
        (Strategy::AlwaysCompatible, [true, true, true]),
        (Strategy::AlwaysIncompatible, [false, false, false]),
    ];
    for (strategy, fit) in cases {
        for kind in [Type::Avro, Type::Json, Type::Protobuf] {
            for (definition, fits) in [A_OR_B, A_AND_B, NOTHING].into_iter().zip(fit) {
                let mut schemas = Schemas::with(strategy);
                assert_eq!(schemas.producer(Some(schema(kind, A))), Ok(0));
                assert_eq!(schemas.producer(Some(schema(kind, A_AGAIN))), Ok(0), "the same");
                let result = schemas.producer(Some(schema(kind, definition)));
                assert_eq!(result.is_ok(), fits, "{strategy} {kind:?} {definition}: {result:?}");
            }
        }
    }
}

#[test]
fn transitive_strategies_look_at_all_versions() {
    for (strategy, fits) in [(Strategy::Backward, true), (Strategy::BackwardTransitive, false)] {
        let mut schemas = Schemas::with(strategy);
        assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
        assert_eq!(schemas.producer(Some(schema(Type::Avro, A_OR_B))), Ok(1));
        // What the latest version has written has a `b`, what the first has written has none.
        let result = schemas.producer(Some(schema(Type::Avro, A_AND_B)));
        assert_eq!(result.is_ok(), fits, "{strategy}: {result:?}");
    }
}

#[test]
fn consumers_read_the_latest_version_whatever_producers_have_to_do() {
    let mut schemas = Schemas::with(Strategy::Forward);
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    assert_eq!(schemas.consumer(schema(Type::Avro, NOTHING)), Ok(()));
    let error = schemas.consumer(schema(Type::Avro, A_AND_B)).expect_err("there is no b");
    assert!(error.starts_with("Error during schema compatibility check with strategy BACKWARD: "), "{error}");
    assert_eq!(schemas.get(), Some((Type::Avro, 0)), "a consumer registers nothing");

    let mut schemas = Schemas::with(Strategy::AlwaysCompatible);
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    assert_eq!(schemas.producer(Some(schema(Type::String, ""))), Ok(1), "of another type");
    assert_eq!(schemas.consumer(schema(Type::Int32, "")), Ok(()));
    let mut schemas = Schemas::with(Strategy::AlwaysIncompatible);
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    assert!(schemas.consumer(schema(Type::Avro, A)).is_err(), "not even the same");
}

#[test]
fn malformed_definitions_are_refused_by_their_type() {
    let key_value = |key: &str| schema(Type::KeyValue, [&(key.len() as i32).to_be_bytes(), key.as_bytes()].concat());
    let cases = [
        (schema(Type::Avro, ""), "Invalid schema definition data for AVRO schema"),
        (schema(Type::Avro, "{nope"), "Invalid schema definition data for AVRO schema"),
        (schema(Type::Json, "nope"), "Invalid schema definition data for JSON schema"),
        (schema(Type::String, "abc"), "Invalid schema definition data for STRING schema"),
        (schema(Type::Int32, "null"), "Invalid schema definition data for INT32 schema"),
        (schema(Type::ProtobufNative, "{}"), "Invalid schema definition data for PROTOBUF_NATIVE schema"),
        (key_value("abc"), "Invalid schema definition data for KEY_VALUE schema"),
        (schema(Type::AutoConsume, ""), "Schema AUTO_CONSUME is a client-side schema type"),
    ];
    for (malformed, text) in cases {
        let error = Schemas::new().producer(Some(malformed)).expect_err(text);
        assert!(error.starts_with(text), "{error}");
    }
    assert_eq!(Schemas::new().producer(Some(schema(Type::Json, r#"{"type":"object"}"#))), Ok(0), "as Jackson makes it");
    assert_eq!(Schemas::new().producer(Some(schema(Type::Avro, r#""string""#))), Ok(0));
    assert_eq!(Schemas::new().producer(Some(schema(Type::String, "null"))), Ok(0), "as C++ writes it");
}

#[test]
fn key_and_value_fit_each_by_its_own() {
    let pair = |value: &str| {
        let parts = [&0_i32.to_be_bytes()[..], &(value.len() as i32).to_be_bytes(), value.as_bytes()];
        let property = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: value.to_owned() };
        let properties = vec![property("key.schema.type", "STRING"), property("value.schema.type", "JSON")];
        Schema { properties, ..schema(Type::KeyValue, parts.concat()) }
    };
    let mut schemas = Schemas::new();
    assert_eq!(schemas.producer(Some(pair(A))), Ok(0));
    assert!(schemas.producer(Some(pair(A_AND_B))).expect_err("FULL").contains("value: "));
    assert_eq!(schemas.producer(Some(pair(A_OR_B))), Ok(1));
}

#[test]
fn the_root_message_of_protobuf_may_not_change() {
    let native =
        |root: &str| schema(Type::ProtobufNative, format!(r#"{{"rootMessageTypeName":"{root}","x":"{root}"}}"#));
    let mut schemas = Schemas::new();
    assert_eq!(schemas.producer(Some(native("Order"))), Ok(0));
    let error = schemas.producer(Some(native("Invoice"))).expect_err("another message");
    assert!(error.ends_with("Protobuf root message isn't allow change!"), "{error}");
}

#[test]
fn a_deletion_is_a_version_and_what_comes_next_is_free() {
    let mut schemas = Schemas::new();
    assert_eq!(schemas.harness.broker.delete_schema("a/b/c/d/e"), None);
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    assert_eq!(schemas.harness.broker.delete_schema(TOPIC), Some(1));
    assert_eq!(schemas.get(), Some((Type::None, 1)));
    assert_eq!(schemas.harness.broker.delete_schema(TOPIC), Some(2));
    assert_eq!(schemas.producer(Some(schema(Type::Avro, NOTHING))), Ok(3));
    assert!(schemas.producer(Some(schema(Type::Avro, A))).is_err());
}

#[test]
fn policies_enforce_schemas_and_keep_new_ones_out() {
    let mut schemas = Schemas::new();
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
    let is_set = schemas.harness.broker.set_topic_policies(TOPIC, |own| {
        own.schema_validation_enforced = Some(true);
        own.is_allow_auto_update_schema = Some(false);
    });
    assert!(is_set);
    assert!(schemas.producer(None).expect_err("enforced").starts_with("Producers cannot connect"));
    let text = "Schema not found and schema auto updating is disabled.".to_owned();
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A_OR_B))), Err(text));
    assert_eq!(schemas.producer(Some(schema(Type::Avro, A))), Ok(0));
}
