//! The command line as a process: its output, and what it does when that is no longer read.
#![cfg(unix)]

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::time::Duration;

use pulsar_native::Client;
use pulsar_native::broker::EmbeddedBroker;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

mod broker;
#[cfg(feature = "tap")]
#[path = "../common/mod.rs"]
mod common;
mod explain;
mod progress;
mod redrive;
mod status;
#[cfg(feature = "tap")]
mod tap;

const TOPIC: &str = "persistent://public/default/cli";

fn start(words: &str) -> Child {
    start_with(words, Stdio::piped())
}

fn start_with(words: &str, stdout: Stdio) -> Child {
    start_with_token(words, stdout, None)
}

/// With this value of `PULSAR_TOKEN`.
fn start_with_token(words: &str, stdout: Stdio, token: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsar-native"));
    command.env_remove("PULSAR_TOKEN").envs(token.map(|token| ("PULSAR_TOKEN", token)));
    command.args(words.split_whitespace()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

/// A stdout and its reader. Shutting a socket down takes effect at once, while the reading end of a closed pipe can live
/// on in another process for as long as that takes to start.
fn stdout_and_reader() -> (Stdio, UnixStream) {
    let (stdout, reader) = UnixStream::pair().expect("a pair of sockets");
    (OwnedFd::from(stdout).into(), reader)
}

fn stdout_without_reader() -> Stdio {
    let (stdout, reader) = stdout_and_reader();
    reader.shutdown(Shutdown::Both).expect("shut down");
    stdout
}

/// Waits for the end of a process that takes far less than a minute.
async fn end(child: Child) -> Output {
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    output.expect("it ends").expect("its output is UTF-8")
}

async fn run(words: &str) -> String {
    let output = end(start(words)).await;
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Ends with this status; `why` is part of what stands on stderr, and nothing on stdout.
async fn refused(words: &str, code: i32, why: &str) {
    let output = end(start(words)).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && stderr.contains(why), "{words}: {}: {stderr}", output.status);
    assert!(output.stdout.is_empty(), "{words}: an error goes to stderr alone");
}

fn assert_quiet_success(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
}

/// The value of `name=value` in a line of results.
fn value(line: &str, name: &str) -> f64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} in {line}")).parse().expect("a number")
}

#[tokio::test]
async fn perf_counts_every_message_and_samples_latencies() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let url = broker.url();
    // The first message of each producer is sampled, and every 61st after it.
    for (batch, producers, samples) in [(100, 1, 17), (1, 3, 3 * 6)] {
        let options = format!("--messages 1000 --batching-max-messages {batch} --producers {producers}");
        let line = run(&format!("perf produce {url} --topic {TOPIC} {options}")).await;
        assert_eq!((value(&line, "n"), value(&line, "failed")), (1000.0, 0.0), "{line}");
        assert_eq!((value(&line, "sample_interval"), value(&line, "samples")), (61.0, f64::from(samples)), "{line}");
        assert!(value(&line, "p50_us") > 0.0 && value(&line, "max_us") >= value(&line, "p99_us"), "{line}");
    }
    let line =
        run(&format!("perf consume {url} --topic {TOPIC} --subscription s --messages 2000 --sample-interval 1")).await;
    assert_eq!((value(&line, "n"), value(&line, "samples")), (2000.0, 2000.0), "{line}");
}

#[tokio::test]
async fn perf_at_a_rate_measures_every_message() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let options = "--messages 300 --rate 1000 --producers 4 --threads 1";
    let line = run(&format!("perf produce {} --topic {TOPIC} {options}", broker.url())).await;
    assert_eq!((value(&line, "n"), value(&line, "samples")), (300.0, 300.0), "{line}");
    // The last message is due after 299 ms.
    assert!(value(&line, "secs") >= 0.299, "{line}");
}

#[tokio::test]
async fn perf_refuses_fewer_messages_in_flight_than_producers() {
    let words = format!("perf produce pulsar://127.0.0.1:1 --topic {TOPIC} --producers 10 --max-pending-messages 9");
    let output = end(start(&words)).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr, "pulsar-native: --max-pending-messages 9 is not enough for --producers 10\n");
}

#[tokio::test]
async fn a_closed_pipe_ends_consume_and_loses_no_message() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let client = Client::builder(broker.url()).connect().await.expect("connected");
    let producer = client.producer(TOPIC).create().await.expect("a producer");
    producer.send("first").await.expect("stored");
    let words = format!("consume {} --topic {TOPIC} --subscription s", broker.url());
    let (stdout, reader) = stdout_and_reader();
    let child = start_with(&words, stdout);
    reader.set_nonblocking(true).expect("a socket");
    let mut reader = BufReader::new(tokio::net::UnixStream::from_std(reader).expect("a socket"));
    let mut line = String::new();
    reader.read_line(&mut line).await.expect("a line");
    assert!(line.ends_with(" first\n"), "{line}");
    reader.into_inner().into_std().expect("a socket").shutdown(Shutdown::Both).expect("shut down");
    producer.send("second").await.expect("stored");
    assert_quiet_success(&end(child).await);
    // The message that could not be printed is there for the next one, the printed one is not.
    let again = run(&format!("{words} --messages 1")).await;
    assert!(again.ends_with(" second\n"), "{again}");
}

#[tokio::test]
async fn a_closed_pipe_ends_every_other_command_without_a_panic() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let url = broker.url();
    for words in [
        format!("produce {url} --topic {TOPIC} one two"),
        format!("perf produce {url} --topic {TOPIC} --messages 100"),
        format!("perf consume {url} --topic {TOPIC} --subscription s --messages 100"),
        "broker --listen 127.0.0.1:0".to_owned(),
    ] {
        let child = start_with(&words, stdout_without_reader());
        assert_quiet_success(&end(child).await);
    }
    // A PING.
    let mut child = start_with("explain", stdout_without_reader());
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"00000009 00000005 0812 9201 00").await.expect("written");
    drop(stdin);
    assert_quiet_success(&end(child).await);
}

/// 2 for what was called wrongly, 1 for what went wrong, as of other command lines.
#[tokio::test]
async fn wrong_usage_exits_with_2_and_a_failure_with_1() {
    let broker = EmbeddedBroker::builder().start().await.expect("a broker");
    let url = broker.url();
    let consume = format!("consume {url} --topic {TOPIC} --subscription s");
    for (code, words, why) in [
        (2, String::new(), "Usage: pulsar-native <COMMAND>"),
        (2, "produse".to_owned(), "unrecognized subcommand 'produse'"),
        (2, format!("{consume} --messages 0"), "--messages"),
        (2, format!("{consume} --messages 18446744073709551616"), "--messages"),
        (2, format!("{consume} --token a --token-file b"), "'--token <JWT>' cannot be used with '--token-file <FILE>'"),
        (2, format!("{consume} --token="), "a value is required for '--token <JWT>'"),
        (2, "explain 00 --file f".to_owned(), "cannot be used with"),
        (2, "produce ftp://127.0.0.1:1 --topic t x".to_owned(), "pulsar-native: "),
        (2, format!("produce {url} --topic a/b x"), "invalid topic name"),
        (2, format!("consume {url} --topic {TOPIC} --subscription="), "subscription"),
        (1, format!("{consume} --token-file /no/such/file"), "cannot read the token file"),
        (1, format!("produce {url} --topic persistent://no/such/topic x"), "pulsar-native: "),
        (2, "broker --tls-cert a".to_owned(), "--tls-key <FILE>"),
        (2, "broker --tls-cert a --tls-key b --tls-self-signed c".to_owned(), "cannot be used with"),
        (2, "broker --like 1.22".to_owned(), "2.6, 2.7, 2.8"),
        (1, "broker --listen 127.0.0.1:0 --tls-cert /no/such/file --tls-key b".to_owned(), "/no/such/file"),
        (1, "explain 0".to_owned(), "odd number of hex digits"),
        (1, "explain --file /no/such/file".to_owned(), "cannot read /no/such/file"),
    ] {
        refused(&words, code, why).await;
    }
}

#[tokio::test]
async fn a_token_of_the_command_line_goes_before_that_of_the_environment() {
    let broker = EmbeddedBroker::builder().token_secret_key("a secret").start().await.expect("a broker");
    let (url, token) = (broker.url(), broker.token("admin"));
    let words = format!("produce {url} --topic {TOPIC}");
    for (options, variable, code) in [
        ("x".to_owned(), Some(token.as_str()), 0),
        (format!("x --token {token}"), Some("wrong"), 0),
        (format!("x --token {token}"), None, 0),
        ("x --token wrong".to_owned(), Some(token.as_str()), 1),
        ("x --token-file /no/such/file".to_owned(), Some(token.as_str()), 1),
        ("x".to_owned(), Some(""), 1),
        ("x".to_owned(), None, 1),
    ] {
        let child = start_with_token(&format!("{words} {options}"), Stdio::piped(), variable);
        let output = end(child).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options} with {variable:?}: {stderr}");
        assert!(!stderr.contains(&token), "no token shows");
    }
}

#[tokio::test]
async fn every_command_has_help_which_goes_to_stdout() {
    for command in [
        "",
        "produce",
        "consume",
        "perf",
        "perf produce",
        "perf consume",
        "status",
        "redrive",
        "explain",
        "broker",
        "tap",
    ] {
        let help = run(&format!("{command} --help")).await;
        assert!(help.contains("Usage: pulsar-native") && help.contains("--help"), "{command}: {help}");
    }
    let help = run("--help").await;
    assert!(help.contains("Exit status:") && help.contains("PULSAR_TOKEN"), "{help}");
    assert!(run("--version").await.starts_with("pulsar-native "));
    // Nobody reads it.
    assert_quiet_success(&end(start_with("--help", stdout_without_reader())).await);
}
