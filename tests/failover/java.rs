//! The Java client beside this one: both have a producer and a consumer of one topic, and what each sends is read by the other
//! one, wherever the two of them are.

use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::replication::replicated_namespace;
use super::{Real, SECOND, failing_over, moves_to, pair, receive, send, switches_back, within};
use pulsar_native::{Consumer, Message, Producer};

/// A request waits for a failover, and a first one for a virtual machine that starts.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// The program `Peer.java`.
struct Java {
    _process: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Java {
    fn start(topic: &str, how: &str) -> Self {
        let jars = format!("{}/lib/*", std::env::var("PULSAR_DIST").expect("scripts/real-failover says it"));
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/failover/Peer.java");
        let mut process = Command::new("java");
        // OpenTelemetry tells java.util.logging that it is there: in the middle of a line of the test's.
        let quiet = ["-Dlog4j2.level=ERROR", "-Djava.util.logging.config.file=/dev/null"];
        process.args(["-cp", &jars]).args(quiet).arg(program).args([topic, how]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = process.spawn().expect("java starts");
        let requests = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { _process: process, requests, answers }
    }

    /// `send` or `receive` these.
    async fn ask(&mut self, word: &str, numbers: &Range<u32>) {
        let request = format!("{word} {} {}\n", numbers.start, numbers.end);
        self.requests.write_all(request.as_bytes()).await.expect("it reads");
        let answer = async {
            loop {
                // It also logs to standard output.
                match self.answers.next_line().await.expect("it writes") {
                    Some(line) if line == "done" => return,
                    Some(line) if line.starts_with("failed") => panic!("{word} {numbers:?}: {line}"),
                    Some(_) => {}
                    None => panic!("{word} {numbers:?}: the Java client has ended"),
                }
            }
        };
        within(word, ANSWER_TIME_MAX, answer).await;
    }

    /// So many messages from each of the two to the other.
    async fn exchange(&mut self, producer: &Producer, consumer: &mut Consumer, numbers: Range<u32>) {
        let java = async {
            self.ask("send", &numbers).await;
            self.ask("receive", &numbers).await;
        };
        let ours = async {
            send(producer, "ours", numbers.clone()).await;
            receive(consumer, "java", numbers.clone()).await;
        };
        tokio::join!(java, ours);
    }
}

/// Both clients go to the secondary by `AutoClusterFailover`, and both come back.
#[tokio::test]
async fn both_clients_fail_over_and_come_back() {
    let Some([primary, secondary]) = Real::both() else { return };
    let topic = format!("failover-java-{}", std::process::id());
    let client = failing_over(&primary, &secondary).await;
    let (producer, mut consumer) = pair(&client, &topic).await;
    let mut java = Java::start(&topic, "failover");
    java.exchange(&producer, &mut consumer, 0..50).await;

    primary.script("kill").await;
    let lost = Instant::now();
    java.exchange(&producer, &mut consumer, 50..100).await;
    println!("each reads the other on the secondary after {:?}", lost.elapsed());
    assert!(secondary.has(&producer.state()), "{}", producer.state());

    primary.script("restart").await;
    let back = Instant::now();
    switches_back(&client, &primary).await;
    java.exchange(&producer, &mut consumer, 100..150).await;
    println!("each reads the other on the primary {:?} after it was healthy", back.elapsed());
    assert!(primary.has(&producer.state()), "{}", producer.state());
    within("the close", 30 * SECOND, client.close()).await.expect("closed");
}

/// The Java client of `tests/interop/`, for one request to this cluster.
async fn ask_java(cluster: &Real, request: Value) -> Value {
    let jars = format!("{}/lib/*", std::env::var("PULSAR_DIST").expect("scripts/real-failover says it"));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients/java/Peer.java");
    let mut process = Command::new("java");
    let quiet = ["-Dlog4j2.level=ERROR", "-Djava.util.logging.config.file=/dev/null"];
    process.args(["-cp", &jars]).args(quiet).arg(program);
    process.env("PULSAR_URL", &cluster.url).env("PULSAR_TOKEN", &cluster.token);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = process.spawn().expect("java starts");
    // Without another line it ends.
    let line = format!("{request}\n");
    process.stdin.take().expect("a pipe").write_all(line.as_bytes()).await.expect("it reads");
    let output = within("the Java client", ANSWER_TIME_MAX, process.wait_with_output()).await.expect("it ends");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = output.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no answer: {output}"));
    serde_json::from_str(answer).expect("JSON")
}

/// Both clients send to one cluster and read from the other what is meant for it: they agree on what is there, on where it
/// was published, and on the clusters of each message.
#[tokio::test]
async fn both_clients_choose_clusters_and_see_where_messages_come_from() {
    let Some(both) = Real::both() else { return };
    let topic = format!("persistent://{}/java", replicated_namespace(&both, "java").await);
    let [first, second] = &both;
    let clients = [first, second].map(|cluster| cluster.builder().build().expect("a client"));
    let (producer, _consumer) = pair(&clients[0], &topic).await;
    for message in [
        Message::new("ours everywhere"),
        Message::new("ours here").with_replication_disabled(),
        Message::new("ours there").with_replication_clusters(["second"]),
    ] {
        within("a receipt", 30 * SECOND, producer.send(message)).await.expect("stored");
    }
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let messages = json!([
        {"payload": hex("java everywhere")},
        {"payload": hex("java here"), "replicate_to": ["__local__"]},
        {"payload": hex("java there"), "replicate_to": ["second"]},
    ]);
    let produce = json!({
        "do": "produce", "topic": topic, "batching": false, "chunking": false, "compression": "NONE", "hashing": "java",
        "messages": messages,
    });
    let sent = ask_java(first, produce).await;
    assert_eq!(sent["ids"].as_array().map(Vec::len), Some(3), "{sent}");

    let (_, mut consumer) = pair(&clients[1], &topic).await;
    let expected = ["ours everywhere", "ours there", "java everywhere", "java there"];
    let mut seen = Vec::new();
    for text in expected {
        let message = within("a message", 30 * SECOND, consumer.receive()).await.expect("a message");
        assert_eq!((message.to_string_lossy(), message.replicated_from()), (text.into(), Some("standalone")));
        let clusters: Vec<_> = message.replication_clusters().collect();
        seen.push(json!([hex(text), "standalone", clusters]));
    }
    let consume = json!({"do": "consume", "topic": topic, "subscription": "java", "count": 4});
    let read = ask_java(second, consume).await;
    let read = read["messages"].as_array().unwrap_or_else(|| panic!("{read}"));
    let read: Vec<_> =
        read.iter().map(|one| json!([one["payload"], one["replicated_from"], one["replicate_to"]])).collect();
    assert_eq!(read, seen);
    for client in clients {
        within("the close", 30 * SECOND, client.close()).await.expect("closed");
    }
}

/// Both clients are told by one broker that the topic has migrated, and follow it.
#[tokio::test]
async fn both_clients_follow_a_migration() {
    let Some([blue, green]) = Real::both() else { return };
    let topic = format!("migrating-java-{}", std::process::id());
    let client = within("a client", 30 * SECOND, blue.builder().connect()).await.expect("a client");
    let (producer, mut consumer) = pair(&client, &topic).await;
    let mut java = Java::start(&topic, "follow");
    java.exchange(&producer, &mut consumer, 0..50).await;

    blue.migrate(&green, true).await;
    let started = Instant::now();
    moves_to(&green, "the producer to move", producer.watch_state()).await;
    java.exchange(&producer, &mut consumer, 50..100).await;
    println!("each reads the other in the new cluster after {:?}", started.elapsed());
    moves_to(&green, "the consumer to move", consumer.watch_state()).await;
    within("the close", 60 * SECOND, client.close()).await.expect("closed");
    blue.migrate(&green, false).await;
}
