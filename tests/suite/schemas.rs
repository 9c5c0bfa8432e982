//! Schemas that the application serialises for: registered, compared, and named by each message.

use super::schema_pairs::{SCHEMA_PAIRS, SchemaPair};
use super::*;
use pulsar_native::{SchemaInfo, SchemaType, SeekTo};

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#;
/// Fits `ORDER` both ways: a field that may be missing.
const ORDER_WITH_NOTE: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"note","type":["null","string"],"default":null}]}"#;

fn json(definition: &'static str) -> SchemaInfo {
    SchemaInfo::new("Order", SchemaType::Json, definition)
}

fn avro(definition: &'static str) -> SchemaInfo {
    SchemaInfo::new("Order", SchemaType::Avro, definition)
}

async fn producer(client: &Client, topic: &str, schema: SchemaInfo) -> Producer {
    within("a producer", client.producer(topic).schema(schema).create()).await.expect("a schema that fits")
}

fn refused<T>(result: Result<T, pulsar_native::Error>, topic: &str) {
    let Err(error) = result else { panic!("a schema that does not fit was taken") };
    assert_eq!((error.kind(), error.topic()), (ErrorKind::IncompatibleSchema, Some(topic)), "{error}");
}

pub async fn versions_go_with_messages(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("schema-versions");
    let builder = client.consumer(&topic, "s").schema(SchemaInfo::new("", SchemaType::AutoConsume, ""));
    let mut consumer = subscribed(builder).await;
    let first = producer(&client, &topic, json(ORDER).with_property("owner", "billing")).await;
    let second = producer(&client, &topic, json(ORDER_WITH_NOTE)).await;
    let again = producer(&client, &topic, json(ORDER)).await;
    let plain = within("a producer", client.producer(&topic).create()).await.expect("without a schema");

    let payload = r#"{"id":7}"#;
    send(&first, payload).await;
    send(&first, Message::new(payload).with_batching(false)).await;
    send(&second, payload).await;
    send(&again, payload).await;
    send(&plain, payload).await;
    let messages = receive_all(&mut consumer, 5).await;
    assert!(messages.iter().all(|message| message.payload() == payload.as_bytes()), "as it was serialised");
    let versions: Vec<_> = messages.iter().map(ReceivedMessage::schema_version).collect();
    let (old, new) = (Some(&0_u64.to_be_bytes()[..]), Some(&1_u64.to_be_bytes()[..]));
    assert_eq!(versions, [old, old, new, old, None]);
}

pub async fn incompatible_types_are_refused(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("schema-types");
    let first = producer(&client, &topic, json(ORDER)).await;
    refused(within("the refusal", client.producer(&topic).schema(avro(ORDER)).create()).await, &topic);
    refused(within("the refusal", client.consumer(&topic, "s").schema(avro(ORDER)).subscribe()).await, &topic);
    for schema_type in [SchemaType::AutoConsume, SchemaType::KeyValue] {
        let schema = SchemaInfo::new("", schema_type, "");
        let error = within("the refusal", client.producer(&topic).schema(schema).create()).await.expect_err("unusable");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    // Nothing of it touches those that fit.
    let builder = client.consumer(&topic, "s").schema(json(ORDER));
    let mut consumer = within("a consumer", builder.subscribe()).await.expect("it fits");
    send(&first, r#"{"id":1}"#).await;
    assert!(receive(&mut consumer).await.schema_version().is_some());
}

pub async fn a_consumer_registers_on_an_idle_topic_only(target: &Target) {
    let client = target.client().await;
    let idle = target.topic("schema-idle");
    let builder = client.consumer(&idle, "s").schema(json(ORDER));
    let _consumer = within("a consumer", builder.subscribe()).await.expect("nothing to compare with");
    refused(within("the refusal", client.producer(&idle).schema(avro(ORDER)).create()).await, &idle);

    let used = target.topic("schema-used");
    let plain = within("a producer", client.producer(&used).create()).await.expect("without a schema");
    send(&plain, "bytes").await;
    refused(within("the refusal", client.consumer(&used, "s").schema(json(ORDER)).subscribe()).await, &used);
}

pub async fn a_reader_names_the_schema_that_it_reads_by(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("schema-reader");
    let first = producer(&client, &topic, json(ORDER)).await;
    send(&first, r#"{"id":1}"#).await;
    let reader = |schema| client.reader(&topic, SeekTo::Earliest).schema(schema).create();
    refused(within("the refusal", reader(avro(ORDER))).await, &topic);
    for schema in [json(ORDER), SchemaInfo::new("", SchemaType::AutoConsume, "")] {
        let mut reader = within("a reader", reader(schema)).await.expect("it fits");
        let message = within("a message", reader.read_next()).await.expect("a message");
        assert_eq!(message.schema_version(), Some(&0_u64.to_be_bytes()[..]));
    }
}

/// A consumer has to read what is written; a producer has to write what both versions read (FULL).
pub async fn a_new_version_is_read_and_reads(target: &Target) {
    let client = target.client().await;
    for (index, pair) in SCHEMA_PAIRS.iter().enumerate() {
        let SchemaPair { what, one, other, other_reads_one, one_reads_other } = *pair;
        for (way, written, read, is_read) in
            [("", one, other, other_reads_one), (", back", other, one, one_reads_other)]
        {
            let topic = target.topic(&format!("schema-pair-{index}{}", way.len()));
            let first = match within("a producer", client.producer(&topic).schema(avro(written)).create()).await {
                Ok(first) => first,
                Err(error) => panic!("{what}{way}: {error}"),
            };
            let consumer = within("a consumer", client.consumer(&topic, "s").schema(avro(read)).subscribe()).await;
            assert_eq!(consumer.is_ok(), is_read, "a consumer, {what}{way}: {:?}", consumer.err());
            let second = within("a producer", client.producer(&topic).schema(avro(read)).create()).await;
            let is_taken = other_reads_one && one_reads_other;
            assert_eq!(second.is_ok(), is_taken, "a producer, {what}{way}: {:?}", second.err());
            drop((first, consumer, second));
        }
    }
}
