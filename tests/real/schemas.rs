//! Schemas, as the registry of a real broker keeps and compares them.

use pulsar_native::{SchemaInfo, SchemaType};

use crate::broker::{Real, receive_after};
use crate::runner::Test;
use crate::suite::*;

pub const TESTS: &[Test] = &[("schemas::the_registry_has_it", |real| Box::pin(the_registry_has_it(real)))];

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#;
const ORDER_WITH_TEXT_ID: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}"#;

async fn the_registry_has_it(real: Real) {
    let target = real.target();
    let client = target.client().await;
    for (schema_type, name) in [(SchemaType::Json, "JSON"), (SchemaType::Avro, "AVRO")] {
        let topic = target.topic("registry");
        assert_eq!(real.admin.schema(&topic).await, None);
        let schema = SchemaInfo::new("Order", schema_type, ORDER).with_property("owner", "billing");
        let producer = within("a producer", client.producer(&topic).schema(schema.clone()).create()).await;
        let producer = producer.expect("a producer");

        let registered = real.admin.schema(&topic).await.expect("a schema");
        assert_eq!((&registered["type"], &registered["version"]), (&name.into(), &0.into()), "{registered}");
        assert_eq!(registered["properties"]["owner"], "billing", "{registered}");
        let data = registered["data"].as_str().expect("a definition");
        let definition: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(definition, serde_json::from_str::<serde_json::Value>(ORDER).expect("JSON"));

        // Of the same type: the definitions themselves are compared.
        let other = SchemaInfo::new("Order", schema_type, ORDER_WITH_TEXT_ID);
        let error = within("the refusal", client.producer(&topic).schema(other.clone()).create()).await;
        let error = error.expect_err("another type of the field");
        assert_eq!((error.kind(), error.topic()), (ErrorKind::IncompatibleSchema, Some(topic.as_str())), "{error}");
        let error = within("the refusal", client.consumer(&topic, "s").schema(other).subscribe()).await;
        assert_eq!(error.expect_err("the same").kind(), ErrorKind::IncompatibleSchema);

        // It goes with the producer when the topic moves.
        let builder = client.consumer(&topic, "s").schema(schema);
        let mut consumer = within("a consumer", builder.subscribe()).await.expect("it fits");
        for text in ["before", "after"] {
            send(&producer, text).await;
            for message in receive_after(&mut consumer, "before", text).await {
                assert_eq!(message.schema_version(), Some(&0_u64.to_be_bytes()[..]));
            }
            target.unload(&topic).await;
        }
        assert_eq!(real.admin.schema(&topic).await.expect("still there")["version"], 0);
    }
}
