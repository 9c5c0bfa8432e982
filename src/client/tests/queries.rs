//! Each query of `machine/supervisor/query.rs`, carried out by a broker.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::error::ErrorKind;
use crate::machine::supervisor::query;
use crate::pb;

const DEFINITION: &[u8] = br#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"}]}"#;

#[tokio::test(start_paused = true)]
async fn each_query_is_answered() {
    let (broker, client) = stage().await;
    let topic: Arc<str> = full("t").into();
    let producer = producer(&client, &topic).await;

    let peer = within("CONNECTED", client.shared.query(query::connect())).await.expect("a broker");
    assert!(peer.max_message_size > 0, "{peer:?}");
    let partitions = within("a number", client.shared.query(query::partitions(&topic))).await;
    assert_eq!(partitions.expect("it has none"), 0);

    let request = pb::CommandGetTopicsOfNamespace { namespace: "public/default".to_owned(), ..Default::default() };
    let listed = within("a list", client.shared.query(query::topics_of_namespace(request))).await.expect("a list");
    assert_eq!(listed.topics, [topic.to_string()]);

    let error = within("a refusal", client.shared.query(query::schema(&topic, None))).await.expect_err("no schema yet");
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicNotFound, Some(&*topic)), "{error}");
    let schema = pb::Schema {
        name: "R".to_owned(),
        schema_data: Bytes::from_static(DEFINITION),
        r#type: pb::schema::Type::Json.into(),
        ..Default::default()
    };
    let created = client.shared.query(query::get_or_create_schema(&topic, schema.clone()));
    let version = within("a version", created).await.expect("registered");
    let found = within("the schema", client.shared.query(query::schema(&topic, Some(version.clone())))).await;
    let found = found.expect("it is there");
    assert_eq!(
        (found.schema_version, found.schema.map(|schema| schema.schema_data)),
        (Some(version), Some(schema.schema_data))
    );

    drop(producer);
    within("the close", client.close()).await.expect("closed");
    assert_eq!(broker.violations(), []);
}
