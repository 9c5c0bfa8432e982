//! The Java client of the distribution reads what this one sends, and the other way round.
//!
//! Each call of `bin/pulsar-client` starts a virtual machine and takes seconds, so that few calls check much each.

use pulsar_native::{Basic, Compression, SchemaInfo, SchemaType, TlsAuthentication};

use crate::broker::Real;
use crate::common::java;
use crate::common::temp_file::TempFile;
use crate::runner::Test;
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("interop::java_reads_what_we_send", |real| Box::pin(java_reads_what_we_send(real))),
    ("interop::we_read_what_java_sends", |real| Box::pin(we_read_what_java_sends(real))),
    ("interop::schemas_both_ways", |real| Box::pin(schemas_both_ways(real))),
    ("interop::the_same_certificate_both_ways", |real| Box::pin(the_same_certificate_both_ways(real))),
    ("interop::the_same_password_from_java", |real| Box::pin(the_same_password_from_java(real))),
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

/// Settings of the Java client over TLS, with this method of authentication.
fn java_settings(real: &Real, name: &str, plugin: &str, parameters: &str) -> TempFile {
    let (url, web, ca_file) = (&real.tls_url, &real.web_tls_url, real.ca_file.display());
    let settings = format!(
        "brokerServiceUrl={url}\nwebServiceUrl={web}\ntlsTrustCertsFilePath={ca_file}\n\
         tlsEnableHostnameVerification=true\nauthPlugin=org.apache.pulsar.client.impl.auth.{plugin}\n\
         authParams={parameters}\n"
    );
    TempFile::new(name, settings)
}

async fn the_same_certificate_both_ways(real: Real) {
    let (certificate, key) = (crate::tls::file("client-admin.pem"), crate::tls::file("client-admin-key.pem"));
    let parameters = format!("tlsCertFile:{},tlsKeyFile:{}", certificate.display(), key.display());
    let java = java_settings(&real, "java-tls.conf", "AuthenticationTls", &parameters);
    let client = Client::builder(&real.tls_url).ca_file(&real.ca_file).client_cert_file(certificate, key);
    let client = within("the connection", client.authentication(TlsAuthentication).connect()).await.expect("a client");
    let topic = real.target().topic("java-tls");
    let mut consumer = subscribed(client.consumer(&topic, "ours")).await;
    let theirs = subscribed(client.consumer(&topic, "java")).await;
    within("the close", theirs.close()).await.expect("closed");
    send(&created(client.producer(&topic)).await, "ours").await;
    java::run_with(java.text(), "pulsar-client", &["produce", "-m", "theirs", &topic]).await;
    let read = java::run_with(java.text(), "pulsar-client", &["consume", "-s", "java", "-n", "2", &topic]).await;
    for text in ["ours", "theirs"] {
        assert_eq!(receive(&mut consumer).await.to_string_lossy(), text);
        assert!(read.contains(&format!("content:{text}")), "{read}");
    }
    within("the close", client.close()).await.expect("closed");
}

/// The parameters of the Java client are what a file of ours may hold as well.
async fn the_same_password_from_java(real: Real) {
    let parameters = r#"{"userId":"admin","password":"open sesame"}"#;
    let java = java_settings(&real, "java-basic.conf", "AuthenticationBasic", parameters);
    let file = TempFile::new("java-basic.json", parameters);
    let client = Client::builder(&real.tls_url).ca_file(&real.ca_file).authentication(Basic::from_file(file.path()));
    let client = within("the connection", client.connect()).await.expect("a client");
    let topic = real.target().topic("java-basic");
    let mut consumer = subscribed(client.consumer(&topic, "ours")).await;
    java::run_with(java.text(), "pulsar-client", &["produce", "-m", "theirs", &topic]).await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "theirs");
    within("the close", client.close()).await.expect("closed");
}
