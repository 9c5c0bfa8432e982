//! `pulsar-native tap` before both brokers, plain and with TLS, and the Java client through it: every frame is seen, of both
//! brokers, which is held against what the client and the brokers have counted.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::Test;
use crate::common::temp_file::TempFile;
use crate::common::within::within_time;
use crate::environment::Environment;
use crate::suite::*;

pub const TESTS: &[Test] =
    &[("tapped::every_frame_of_java_with_both_brokers", |cluster| Box::pin(every_frame(cluster)))];

/// Messages to each topic.
const MESSAGES: u64 = 50;

/// A Java virtual machine starts slowly on a busy machine.
const JAVA_TIME_MAX: Duration = Duration::from_secs(90);

/// The program, as a person starts it.
struct Tap {
    process: Child,
    output: ChildStdout,
    url: String,
    tls_url: String,
    ca_file: String,
}

impl Tap {
    async fn start(cluster: &Environment, recording: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-native"));
        let [first, _] = &cluster.brokers;
        command.args(["tap", "--json", "--listen", "127.0.0.1:0", "--to", &format!("pulsar://{}", first.plain)]);
        command.args(["--to", &format!("pulsar+ssl://{}", first.tls), "--ca-file"]).arg(&cluster.ca_file);
        command.arg("--record").arg(recording);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("it starts");
        let output = process.stdout.take().expect("a pipe");
        let mut notes = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let mut next = async |before: &str| {
            let line = within("a note of the tap", notes.next_line()).await.expect("it writes").unwrap_or_default();
            line.strip_prefix(before).unwrap_or_else(|| panic!("{before:?} is not in {line:?}")).to_owned()
        };
        let url = next("clients go to ").await;
        let with_tls = next("      or to ").await;
        let (tls_url, ca_file) = with_tls.split_once(" with the CA file ").expect("a URL and a file");
        let (tls_url, ca_file) = (tls_url.to_owned(), ca_file.to_owned());
        Self { process, output, url, tls_url, ca_file }
    }

    /// Ends it, and gives the lines that it has printed.
    async fn finish(mut self) -> Vec<Value> {
        let id = self.process.id().expect("it runs").to_string();
        let ended = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill is there");
        assert!(ended.success());
        let mut printed = String::new();
        within("the tap to end", self.output.read_to_string(&mut printed)).await.expect("UTF-8");
        let status = within("the tap to end", self.process.wait()).await.expect("it ends");
        assert!(status.success(), "{status}");
        lines(&printed)
    }
}

fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// `Tapped.java`, with producers and consumers on these topics, plain on the first two, and on the others with TLS.
async fn run_java(cluster: &Environment, tap: &Tap, topics: &[String]) {
    let jars = format!("{}/lib/*", std::env::var("PULSAR_DIST").expect("scripts/real-cluster says it"));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/Tapped.java");
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR", "-cp", &jars]).arg(program);
    java.args([&MESSAGES.to_string(), &tap.url, &tap.tls_url, &tap.ca_file]).args(topics);
    java.env("PULSAR_TOKEN", &cluster.admin.token).stdin(Stdio::null()).kill_on_drop(true);
    let output = within_time(JAVA_TIME_MAX, "the Java client", java.output()).await.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

/// What the tap has seen of one topic.
struct OfTopic<'a> {
    frames: Vec<&'a Value>,
}

impl<'a> OfTopic<'a> {
    fn new(seen: &'a [Value], topic: &str) -> Self {
        Self { frames: seen.iter().filter(|seen| seen["event"] == "frame" && seen["topic"] == topic).collect() }
    }

    fn all(&self, command: &str) -> impl Iterator<Item = &'a Value> {
        self.frames.iter().copied().filter(move |frame| frame["command"] == command)
    }

    fn messages(&self, command: &str) -> u64 {
        self.all(command).map(|frame| frame["messages"].as_u64().unwrap_or(0)).sum()
    }

    fn connections(&self, command: &str) -> HashSet<u64> {
        self.all(command).filter_map(|frame| frame["connection"].as_u64()).collect()
    }
}

async fn every_frame(cluster: Environment) {
    let mut topics = Vec::new();
    for name in ["tapped-plain", "tapped-tls"] {
        topics.extend(cluster.topic_of_each(&cluster.namespace(name).await).await);
    }
    let recording = TempFile::new("tapped-cluster", "");
    let tap = Tap::start(&cluster, recording.path()).await;
    run_java(&cluster, &tap, &topics).await;
    let seen = tap.finish().await;
    let broken: Vec<_> = seen.iter().filter(|seen| seen["event"] == "violation").collect();
    assert!(broken.is_empty(), "{broken:?}");

    let [first, second] = &cluster.brokers;
    let owners = [&first.plain, &second.plain, &first.tls, &second.tls];
    for (topic, owner) in topics.iter().zip(owners) {
        let of_topic = OfTopic::new(&seen, topic);
        agrees_with_the_broker(&cluster, &of_topic, topic).await;
        let at = of_topic.connections("SEND").into_iter().chain(of_topic.connections("MESSAGE"));
        for connection in at {
            let opened = seen.iter().find(|seen| seen["event"] == "opened" && seen["connection"] == connection);
            assert_eq!(opened.expect("it was opened")["broker"], **owner, "{topic}");
        }
    }
    replays_alike(&seen, recording.path()).await;
}

/// What the tap has counted is what the broker has, and nothing is left open.
async fn agrees_with_the_broker(cluster: &Environment, seen: &OfTopic<'_>, topic: &str) {
    let path = format!("/admin/v2/{}/stats", topic.replace("://", "/"));
    let stats = cluster.admin.ask("GET", &path, "").await.expect("statistics");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let counted = (stats["msgInCounter"].as_u64(), stats["msgOutCounter"].as_u64());
    assert_eq!(counted, (Some(seen.messages("SEND")), Some(seen.messages("MESSAGE"))), "{topic}");
    assert_eq!(counted, (Some(MESSAGES), Some(MESSAGES)), "{topic}");
    assert_eq!(seen.all("SEND").count(), seen.all("SEND_RECEIPT").count(), "{topic}");
    let last_ledger = |command| seen.all(command).last().map(|frame| frame["ledger"].clone()).expect("there are some");
    assert_eq!(last_ledger("SEND_RECEIPT")["pending_sends"], 0, "{topic}");
    assert_eq!(last_ledger("ACK")["unacknowledged"], 0, "{topic}");
    for (request, answer) in [("PRODUCER", "PRODUCER_SUCCESS"), ("SUBSCRIBE", "SUCCESS"), ("LOOKUP", "LOOKUP_RESPONSE")]
    {
        let answers = seen.all(answer).filter(|frame| frame["answers"] == request).count();
        assert!(answers > 0 && answers == seen.all(request).count(), "{topic}: {request}");
    }
}

/// The recording shows the same frames, and the embedded broker would have answered as both brokers did.
async fn replays_alike(live: &[Value], recording: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-native"));
    let replayed =
        within("the replay", command.args(["tap", "--json", "--compare", "--replay"]).arg(recording).output()).await;
    let replayed = replayed.expect("it starts");
    let notes = String::from_utf8_lossy(&replayed.stderr);
    assert!(notes.ends_with(" answers compared with the embedded broker's, 0 differ\n"), "{notes}");
    let replayed = lines(&String::from_utf8_lossy(&replayed.stdout));
    let frames = |seen: &[Value]| seen.iter().filter(|seen| seen["event"] == "frame").count();
    assert_eq!(frames(&replayed), frames(live));
    let others: Vec<_> =
        replayed.iter().filter(|seen| seen["event"] == "violation" || seen["event"] == "difference").collect();
    assert!(others.is_empty(), "{others:?}");
}
