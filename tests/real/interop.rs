//! The Java client of the distribution reads what this one sends, and the other way round.
//!
//! Each call of `bin/pulsar-client` starts a virtual machine and takes seconds, so that few calls check much each.

use pulsar_native::{Compression, SchemaInfo, SchemaType};

use crate::broker::Real;
use crate::common::java;
use crate::runner::Test;
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("interop::java_reads_what_we_send", |real| Box::pin(java_reads_what_we_send(real))),
    ("interop::we_read_what_java_sends", |real| Box::pin(we_read_what_java_sends(real))),
    ("interop::schemas_both_ways", |real| Box::pin(schemas_both_ways(real))),
];

/// Runs `bin/pulsar-client` and gives what it printed.
pub async fn pulsar_client(arguments: &[&str]) -> String {
    java::run("pulsar-client", arguments).await
}

async fn java_reads_what_we_send(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("to-java");
    // The subscription stands before the first message.
    let consumer = subscribed(client.consumer(&topic, "java")).await;
    within("the close", consumer.close()).await.expect("closed");

    let long = "long ".repeat(2000);
    let decorated =
        |text: &str| Message::new(text.to_owned()).with_key("the key").with_property("p", "v").with_property("q", "w");
    for (name, batching, compression) in [
        ("plain", false, Compression::None),
        ("batched", true, Compression::None),
        ("lz4", false, Compression::Lz4),
        ("batched lz4", true, Compression::Lz4),
    ] {
        let builder = client.producer(&topic).batching(batching).compression(compression);
        let producer = created(builder.batching_max_publish_delay(Duration::from_millis(200))).await;
        let messages = [decorated(&format!("{name} 0")), Message::new(format!("{name} 1")), Message::new(long.clone())];
        send_all(&producer, messages).await;
    }

    let printed = pulsar_client(&["consume", "-s", "java", "-n", "12", "-p", "Earliest", &topic]).await;
    for name in ["plain", "batched", "lz4", "batched lz4"] {
        let line = format!("content:{name} 0");
        let line = printed.lines().find(|one| one.ends_with(&line)).unwrap_or_else(|| panic!("no {line}:\n{printed}"));
        assert!(line.contains("key:[the key]"), "{line}");
        assert!(line.contains("p=v") && line.contains("q=w"), "{line}");
        assert!(printed.lines().any(|one| one.ends_with(&format!("content:{name} 1"))), "{printed}");
    }
    assert_eq!(printed.matches(&format!("content:{long}")).count(), 4, "{printed}");
    drained(&target, &topic, "java").await;
}

async fn we_read_what_java_sends(real: Real) {
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("from-java");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let long = "long ".repeat(2000);
    let plain = ["produce", "-m", "alone", "-k", "the key", "-p", "p=v", "-p", "q=w", "-db", &topic];
    pulsar_client(&plain).await;
    let several = ["produce", "-m", "one", "-m", &long, "-m", "three", "-k", "the key", "-p", "p=v", "-n", "2", &topic];
    pulsar_client(&several).await;

    let expected = ["alone", "one", &long, "three", "one", &long, "three"];
    let messages = receive_all(&mut consumer, expected.len()).await;
    assert_eq!(messages.iter().map(ReceivedMessage::to_string_lossy).collect::<Vec<_>>(), expected);
    assert!(messages.iter().all(|message| message.key() == Some("the key")));
    assert!(messages.iter().all(|message| message.property("p") == Some("v")));
    assert_eq!(messages[0].property("q"), Some("w"));
    for message in &messages {
        assert!(!message.producer_name().is_empty() && message.publish_time() > std::time::UNIX_EPOCH);
        within("the confirmation", consumer.ack_confirmed(message)).await.expect("confirmed");
    }
    drained(&target, &topic, "s").await;
}

/// The Java client decodes by the schema that the message's version names, and writes by one that was registered here.
async fn schemas_both_ways(real: Real) {
    let definition = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#;
    let target = real.target();
    let client = target.client().await;
    let topic = target.topic("schemas");
    let schema = SchemaInfo::new("Order", SchemaType::Json, definition);
    let builder = client.consumer(&topic, "ours").schema(schema.clone());
    let mut consumer = subscribed(builder).await;
    let java = subscribed(client.consumer(&topic, "java")).await;
    within("the close", java.close()).await.expect("closed");

    let producer = created(client.producer(&topic).schema(schema)).await;
    send(&producer, r#"{"id":7}"#).await;
    let printed = pulsar_client(&["consume", "-s", "java", "-n", "1", "-st", "auto_consume", &topic]).await;
    assert!(printed.contains("content:{id=7}"), "{printed}");

    pulsar_client(&["produce", "-vs", &format!("json:{definition}"), "-m", r#"{"id":8}"#, &topic]).await;
    let messages = receive_all(&mut consumer, 2).await;
    let texts: Vec<_> = messages.iter().map(ReceivedMessage::to_string_lossy).collect();
    assert_eq!(texts, [r#"{"id":7}"#, r#"{"id":8}"#]);
    assert!(messages.iter().all(|message| message.schema_version() == Some(&[0; 8])), "one schema, one version");
}
