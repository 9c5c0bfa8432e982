//! `pulsar-native broker`, as the tests of other languages start it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use pulsar_native::{Client, ErrorKind, InitialPosition};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{TOPIC, end, run, start};

/// The lines that the broker prints when it is up.
async fn broker(options: &str, lines: usize) -> (Child, Vec<String>) {
    let mut child = start(&format!("broker --listen 127.0.0.1:0 {options}"));
    let read = read_lines(&mut child, lines).await;
    (child, read)
}

async fn read_lines(child: &mut Child, lines: usize) -> Vec<String> {
    let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut read = Vec::new();
    for _ in 0..lines {
        let line = tokio::time::timeout(Duration::from_secs(60), stdout.next_line()).await;
        read.push(line.expect("it starts").expect("UTF-8").expect("one line more"));
    }
    read
}

#[tokio::test]
async fn the_broker_serves_tls_and_http_with_a_certificate_of_its_own() {
    let ca_file = std::env::temp_dir().join(format!("pulsar-native-cli-ca-{}.pem", std::process::id()));
    let ca_file = ca_file.to_str().expect("UTF-8");
    let ports = "--http 127.0.0.1:0 --tls-listen 127.0.0.1:0 --https-listen 127.0.0.1:0";
    let (broker, lines) = broker(&format!("{ports} --tls-self-signed {ca_file} --token-key secret"), 5).await;
    let (urls, token) = (&lines[..4], &lines[4]);
    let schemes: Vec<_> = urls.iter().map(|url| url.split("://").next().expect("a scheme")).collect();
    assert_eq!(schemes, ["pulsar", "http", "pulsar+ssl", "https"]);
    for url in urls {
        run(&format!("produce {url} --token {token} --ca-file {ca_file} --topic {TOPIC} hello")).await;
    }
    let consume = format!("consume {} --token {token} --ca-file {ca_file} --topic {TOPIC}", urls[2]);
    let received = run(&format!("{consume} --subscription s --messages 4")).await;
    assert_eq!(received.lines().filter(|line| line.ends_with(" hello")).count(), 4, "{received}");
    drop(broker);
    std::fs::remove_file(ca_file).expect("it was written");
}

#[tokio::test]
async fn the_broker_plays_an_older_release() {
    let (_broker, lines) = broker("--like 2.10", 1).await;
    let client = Client::builder(&lines[0]).connect().await.expect("connected");
    let error = client.watch_topics("public/default", ".*").await.expect_err("since 2.11");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    client.close().await.expect("closed");
}

#[tokio::test]
async fn the_broker_announces_itself_as_one_line_of_json() {
    let (broker, lines) = broker("--http 127.0.0.1:0 --token-key secret --json", 1).await;
    let announced: Value = serde_json::from_str(&lines[0]).expect("JSON");
    let text = |name: &str| announced[name].as_str().unwrap_or_else(|| panic!("{name} in {announced}")).to_owned();
    assert_eq!(announced["pid"].as_u64(), broker.id().map(u64::from));
    for url in [text("brokerServiceUrl"), text("serviceUrl")] {
        run(&format!("produce {url} --token {} --topic {TOPIC} hello", text("token"))).await;
    }
}

/// As on a real broker, unless it is told otherwise.
#[tokio::test]
async fn a_namespace_that_nobody_made_does_not_exist() {
    for (options, is_known) in [
        ("", false),
        ("--any-namespace", true),
        ("--set namespaces=a/b", true),
        ("--set anyNamespace=true --set maxMessageSize=1000", true),
    ] {
        let (_broker, lines) = broker(options, 1).await;
        let client = Client::builder(&lines[0]).operation_timeout(Duration::from_secs(2)).build().expect("a client");
        let created = client.producer("persistent://a/b/t").create().await;
        assert_eq!(created.is_ok(), is_known, "{options}: {:?}", created.err());
    }
}

#[tokio::test]
async fn settings_come_from_a_file_and_are_listed_like_one() {
    let listed = run("broker --list-settings").await;
    let path = std::env::temp_dir().join(format!("pulsar-native-cli-settings-{}.conf", std::process::id()));
    std::fs::write(&path, format!("{listed}\nnamespaces=a/b\n")).expect("written");
    let (_broker, lines) = broker(&format!("--config {}", path.display()), 1).await;
    run(&format!("produce {} --topic persistent://a/b/t hello", lines[0])).await;
    std::fs::remove_file(path).expect("removed");
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_wrong_usage() {
    for (options, text) in [
        ("--set maxMesageSize=1", "did you mean maxMessageSize?"),
        ("--set maxMessageSize=much", "maxMessageSize has to be a number"),
        ("--set maxMessageSize", "--set needs NAME=VALUE"),
        ("--set policyCheckIntervalSeconds=0", "policyCheckIntervalSeconds has to be a number of seconds from 1"),
        ("--config /no/such/file", "cannot read /no/such/file"),
    ] {
        let output = end(start(&format!("broker --listen 127.0.0.1:0 {options}"))).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(text), "{options}: {}: {stderr}", output.status);
    }
}

/// Over TCP, with the time of the clock: what is confirmed is received, and the broker says at its end what it did.
#[tokio::test]
async fn a_hostile_broker_loses_nothing_and_tells_what_it_did() {
    let (child, lines) = broker("--hostile 3", 1).await;
    let client = Client::builder(&lines[0]).operation_timeout(Duration::from_secs(2));
    let client = client.keep_alive_interval(Duration::from_secs(2)).build().expect("a client");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut consumer = loop {
        match client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest).subscribe().await {
            Ok(consumer) => break consumer,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    };
    let producer = loop {
        match client.producer(TOPIC).send_timeout(Duration::from_secs(20)).create().await {
            Ok(producer) => break producer,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    };
    for number in 0..20 {
        producer.send(number.to_string()).await.expect("stored in spite of the faults");
    }
    let mut left: BTreeSet<String> = (0..20).map(|number| number.to_string()).collect();
    while !left.is_empty() {
        let message = tokio::time::timeout_at(deadline, consumer.receive()).await.expect("in time").expect("a message");
        left.remove(&*message.to_string_lossy());
        consumer.ack(&message).expect("acknowledged");
    }
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").arg(&id).status().await.expect("kill runs").success());
    let output = end(child).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("hostile, seed 3") && stderr.contains("fault: "), "{stderr}");
    assert!(!stderr.contains("protocol violation"), "{stderr}");
}

#[tokio::test]
async fn the_broker_stops_by_sigterm() {
    let (child, _) = broker("", 1).await;
    let id = child.id().expect("it runs").to_string();
    let killed = Command::new("kill").arg(&id).status().await.expect("kill runs");
    assert!(killed.success());
    let output = end(child).await;
    assert!(output.status.success(), "{}", output.status);
}

#[tokio::test]
async fn the_broker_ends_at_once_if_its_parent_has_ended_before() {
    let mut other = Command::new("true").spawn().expect("true runs");
    let id = other.id().expect("it runs");
    other.wait().await.expect("it ends");
    let output = end(start(&format!("broker --listen 127.0.0.1:0 --exit-with-parent={id}"))).await;
    assert!(output.status.success(), "{}", output.status);
}

/// A shell starts it and ends, as a test runner that is killed; what then holds its stdout open is the broker alone.
#[tokio::test]
async fn the_broker_ends_with_its_parent_if_asked() {
    let program = env!("CARGO_BIN_EXE_pulsar-native");
    let script = format!("{program} broker --listen 127.0.0.1:0 --exit-with-parent & read line");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut shell = shell.spawn().expect("a shell");
    let mut stdout = BufReader::new(shell.stdout.take().expect("piped")).lines();
    let minute = Duration::from_secs(60);
    let line = tokio::time::timeout(minute, stdout.next_line()).await;
    let url = line.expect("it starts").expect("UTF-8").expect("a URL");
    assert!(url.starts_with("pulsar://"), "{url}");
    shell.kill().await.expect("killed");
    let rest = tokio::time::timeout(minute, stdout.next_line()).await;
    assert_eq!(rest.expect("it ends").expect("UTF-8"), None);
}
