//! The Java client beside this one: both have a producer and a consumer of one topic, and what each sends is read by the other
//! one, wherever the two of them are.

use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Real, SECOND, failing_over, moves_to, pair, receive, send, switches_back, within};
use pulsar_native::{Consumer, Producer};

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
