//! `tap`: what it refuses, shows, records and replays.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use pulsar_native::broker::EmbeddedBrokerBuilder;
use pulsar_native::capture::recording::{MASKED, Recording};
use pulsar_native::capture::{Direction, Segment, SegmentEvent};
use pulsar_native::wire::{self, MetadataFields, SendHead};
use pulsar_native::{Token, pb};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::ChildStderr;

use super::*;
use crate::common::temp_file::TempFile;

/// What is nowhere to be seen unless it is asked for.
const SECRET: &str = "SECRET";

/// A tap that listens.
struct Tap {
    child: Child,
    url: String,
    told: BufReader<ChildStderr>,
}

impl Tap {
    async fn start(options: &str) -> Self {
        let mut child = start(&format!("tap --listen 127.0.0.1:0 {options}"));
        let mut told = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        told.read_line(&mut line).await.expect("UTF-8");
        let url = line.trim_end().strip_prefix("clients go to ");
        let url = url.unwrap_or_else(|| panic!("no URL in {line}")).to_owned();
        // The CA file; by then it is about to wait for a signal.
        told.read_line(&mut String::new()).await.expect("UTF-8");
        Self { child, url, told }
    }

    /// Ends it; the lines on its stdout, and all that it told beside them.
    async fn stop(mut self) -> (Vec<String>, String) {
        let id = self.child.id().expect("it runs").to_string();
        let killed = Command::new("kill").arg(&id).status().await.expect("kill runs");
        assert!(killed.success());
        let output = end(self.child).await;
        let mut told = String::new();
        self.told.read_to_string(&mut told).await.expect("UTF-8");
        assert!(output.status.success(), "{told}");
        (lines(&String::from_utf8_lossy(&output.stdout)), told)
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// What is shown but for where the embedded broker would have answered otherwise, and all that is told beside it.
async fn replay(file: &TempFile, options: &str) -> (Vec<String>, String) {
    let output = end(start(&format!("tap --replay {} {options}", file.text()))).await;
    let [shown, told] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{options}: {told}");
    let mut shown = lines(&shown);
    shown.retain(|line| !line.contains(" ~~ ") && !line.contains(r#""event":"difference""#));
    (shown, told)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_by_name() {
    let to = "tap --to pulsar://127.0.0.1:1";
    for (code, words, why) in [
        (2, "tap".to_owned(), "<--to <URL>|--replay <FILE>>"),
        (2, format!("{to} --replay f"), "'--to <URL>' cannot be used with '--replay <FILE>'"),
        (2, "tap --replay f --listen 127.0.0.1:0".to_owned(), "cannot be used with"),
        (2, "tap --replay f --record g".to_owned(), "cannot be used with"),
        (2, "tap --replay f --ca-file g".to_owned(), "cannot be used with"),
        (2, "tap --replay f --tls-ca-out g".to_owned(), "cannot be used with"),
        (2, "tap --replay f --advertise h".to_owned(), "cannot be used with"),
        (2, format!("{to} --command SENT"), "--command SENT: PulsarApi.proto has no such command"),
        (2, format!("{to} --endpoint reader:1"), "--endpoint reader:1: producer:ID, consumer:ID or watcher:ID"),
        (2, format!("{to} --json --show-tokens"), "--show-tokens has no effect with --json"),
        (2, format!("{to} --web --show-payloads"), "--show-payloads has no effect with --web"),
        (2, format!("{to} --to pulsar://127.0.0.1:2 --listen 127.0.0.1:0"), "there is one of this scheme already"),
        (2, "tap --to ftp://127.0.0.1:1 --listen 127.0.0.1:0".to_owned(), "pulsar-native: "),
        (1, format!("{to} --listen 127.0.0.1:0 --record /no/such/file"), "cannot write /no/such/file"),
        (1, format!("{to} --listen 127.0.0.1:0 --tls-ca-out /no/such/file"), "cannot write /no/such/file"),
        (1, format!("{to} --listen 127.0.0.1:0 --web 192.0.2.1:0"), "--web 192.0.2.1:0"),
        (1, "tap --replay /no/such/file".to_owned(), "/no/such/file"),
        (1, "tap --replay Cargo.toml".to_owned(), "Cargo.toml"),
    ] {
        refused(&words, code, why).await;
    }
}

/// A client shows a token, and sends and receives messages of two topics; a third one it may not open.
async fn traffic(url: &str, token: &str) {
    let client = Client::builder(url).authentication(Token::new(token)).connect().await.expect("connected");
    for topic in ["one", "two"] {
        let mut consumer = client.consumer(topic, "s").subscribe().await.expect("subscribed");
        let producer = client.producer(topic).batching(false).create().await.expect("a producer");
        producer.send(SECRET).await.expect("stored");
        let message = consumer.receive().await.expect("a message");
        consumer.ack_confirmed(&message).await.expect("acknowledged");
    }
    let refused = client.producer("persistent://no/such/topic").create().await;
    refused.expect_err("there is no such namespace");
    client.close().await.expect("closed");
}

async fn broker(builder: EmbeddedBrokerBuilder) -> EmbeddedBroker {
    builder.token_secret_key("a secret").start().await.expect("a broker")
}

#[tokio::test]
async fn a_recording_is_replayed_as_it_was_seen() {
    let broker = broker(EmbeddedBroker::builder()).await;
    let token = broker.token("admin");
    let file = TempFile::new("replayed.pcapng", "");
    let tap = Tap::start(&format!("--to {} --record {}", broker.url(), file.text())).await;
    traffic(&tap.url, &token).await;
    let (live, told) = tap.stop().await;
    let recorded = std::fs::read(file.path()).expect("it was written");
    for secret in [SECRET, &token] {
        assert!(!contains(&recorded, secret) && !live.iter().any(|line| line.contains(secret)), "it is overwritten");
    }
    assert!(contains(&recorded, MASKED));
    let (replayed, told_of_file) = replay(&file, "").await;
    assert_eq!(replayed, live);
    let summary = told.lines().last().expect("a line");
    assert!(summary.ends_with(" frames, no rule was broken"), "{summary}");
    assert!(told_of_file.lines().any(|line| line == summary), "{told_of_file}");
    assert!(told_of_file.contains("the payloads in it are overwritten"), "{told_of_file}");

    let (json, _) = replay(&file, "--json").await;
    let json: Vec<serde_json::Value> = json.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(json.len(), live.len());
    let sends = json.iter().filter(|seen| seen["event"] == "frame" && seen["command"] == "SEND");
    assert!(sends.clone().all(|send| send["direction"] == "to_broker" && send["sequence_id"].is_u64()), "{json:?}");
    assert_eq!(sends.count(), 2);

    let (sends, _) = replay(&file, "--command send").await;
    assert!(sends.len() == 2 && sends.iter().all(|line| line.contains(" -> SEND producer ")), "{sends:#?}");
    let (one, _) = replay(&file, "--topic default/one --command SEND --command MESSAGE").await;
    assert!(one.len() == 2 && one.iter().all(|line| line.contains("public/default/one")), "{one:#?}");
    let message = live.iter().find(|line| line.contains(" <- MESSAGE ") && line.contains("default/one")).expect("one");
    let id = message.split(' ').skip_while(|word| *word != "consumer").nth(1).expect("its id");
    let (consumer, _) = replay(&file, &format!("--endpoint consumer:{id}")).await;
    let of_consumer = live.iter().filter(|line| line.contains(&format!(" consumer {id} ")));
    assert!(consumer.contains(message) && of_consumer.eq(&consumer), "{consumer:#?}");
    let (errors, _) = replay(&file, "--errors").await;
    assert!(!errors.is_empty() && errors.iter().all(|line| line.contains(" refused: ")), "{errors:#?}");
}

#[tokio::test]
async fn secrets_show_and_are_recorded_where_they_are_asked_for() {
    let broker = broker(EmbeddedBroker::builder()).await;
    let token = broker.token("admin");
    for (options, shows_token, shows_payload) in [
        ("--show-tokens", true, false),
        ("--show-payloads", false, true),
        ("--show-tokens --show-payloads", true, true),
    ] {
        let file = TempFile::new("shown.pcapng", "");
        let tap = Tap::start(&format!("--to {} --record {} {options}", broker.url(), file.text())).await;
        traffic(&tap.url, &token).await;
        let (live, _) = tap.stop().await;
        let recorded = std::fs::read(file.path()).expect("it was written");
        for (secret, is_shown) in [(token.as_str(), shows_token), (SECRET, shows_payload)] {
            let is_seen = live.iter().any(|line| line.contains(secret));
            assert_eq!((is_seen, contains(&recorded, secret)), (is_shown, is_shown), "{options}");
        }
        let (replayed, told) = replay(&file, options).await;
        assert_eq!(replayed, live, "{options}");
        assert_eq!(told.contains("overwritten"), !shows_payload, "{options}: {told}");
    }
}

fn frame(command: impl Into<wire::Command>) -> Vec<u8> {
    let mut out = BytesMut::new();
    command.into().encode_frame(&mut out);
    out.to_vec()
}

fn credentials(text: &'static str) -> pb::AuthData {
    pb::AuthData { auth_data: Some(Bytes::from_static(text.as_bytes())), auth_method_name: Some("token".to_owned()) }
}

/// Frames with credentials and a payload, and the number of secrets in them: of a client, or of a proxy for one.
fn frames_with_secrets() -> Vec<u8> {
    let connect = pb::CommandConnect {
        client_version: "a proxy".to_owned(),
        protocol_version: Some(21),
        auth_method_name: Some("token".to_owned()),
        auth_data: Some(Bytes::from_static(b"SECRET-1")),
        original_auth_data: Some("SECRET-2".to_owned()),
        ..Default::default()
    };
    let response = pb::CommandAuthResponse { response: Some(credentials("SECRET-3")), ..Default::default() };
    let lookup = pb::CommandLookupTopic {
        topic: "persistent://public/default/t".to_owned(),
        original_auth_data: Some("SECRET-4".to_owned()),
        ..Default::default()
    };
    let partitions = pb::CommandPartitionedTopicMetadata {
        topic: "persistent://public/default/t".to_owned(),
        original_auth_data: Some("SECRET-5".to_owned()),
        ..Default::default()
    };
    let mut entry = BytesMut::new();
    wire::put_entry(&mut entry, &MetadataFields { producer_name: "p", ..MetadataFields::default() }, b"SECRET-6");
    let mut send = BytesMut::new();
    wire::put_send_head(&mut send, &SendHead::new(1, 2), entry.len());
    [&frame(connect)[..], &frame(response), &frame(lookup), &frame(partitions), &send, &entry].concat()
}

async fn write(socket: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    socket.write_all(bytes).await.expect("the tap reads");
}

/// By peers that look at nothing.
#[tokio::test]
async fn credentials_of_every_command_are_masked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    for is_shown in [false, true] {
        let file = TempFile::new("credentials.pcapng", "");
        let options = if is_shown { "--show-tokens --show-payloads" } else { "" };
        let tap = Tap::start(&format!("--to pulsar://{address} --record {} {options}", file.text())).await;
        let mut client = TcpStream::connect(tap.url.trim_start_matches("pulsar://")).await.expect("it listens");
        let sent = frames_with_secrets();
        write(&mut client, &sent).await;
        let (mut broker, _) = listener.accept().await.expect("the tap comes");
        let mut received = vec![0; sent.len()];
        broker.read_exact(&mut received).await.expect("all of it");
        assert_eq!(received, sent, "bytes pass as they are");
        let challenge = pb::CommandAuthChallenge { challenge: Some(credentials("SECRET-7")), ..Default::default() };
        let challenge = frame(challenge);
        write(&mut broker, &challenge).await;
        client.read_exact(&mut received[..challenge.len()]).await.expect("all of it");
        drop((client, broker));
        let (live, _) = tap.stop().await;
        let recorded = std::fs::read(file.path()).expect("it was written");
        for number in 1..=7 {
            let secret = format!("SECRET-{number}");
            let is_seen = live.iter().any(|line| line.contains(&secret));
            assert_eq!((is_seen, contains(&recorded, &secret)), (is_shown, is_shown), "{secret} in {live:#?}");
        }
        for command in ["CONNECT", "AUTH_RESPONSE", "LOOKUP", "PARTITIONED_METADATA", "SEND", "AUTH_CHALLENGE"] {
            assert!(live.iter().any(|line| line.contains(&format!(" {command}"))), "{command} in {live:#?}");
        }
        assert_eq!(replay(&file, options).await.0, live);
    }
}

#[tokio::test]
async fn a_gap_of_a_recording_is_told_in_its_place() {
    let [client, broker] = ["127.0.0.1:50000", "127.0.0.1:6650"].map(|text| text.parse::<SocketAddr>().expect("ends"));
    let direction = Direction::ToClient;
    let ping = |direction| SegmentEvent::Bytes { direction, bytes: frame(pb::CommandPing {}).into() };
    let mut recording = Recording::new(Vec::new(), MASKED).expect("a Vec takes it");
    for event in [
        SegmentEvent::Opened { client, broker, is_partial: false },
        ping(Direction::ToClient),
        SegmentEvent::Missing { direction, count: 150_000 },
        ping(Direction::ToBroker),
        ping(Direction::ToClient),
        SegmentEvent::Missing { direction, count: 7 },
        SegmentEvent::Closed { direction, is_reset: true },
    ] {
        let segment = Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event };
        recording.write(&segment).expect("a Vec takes it");
    }
    let file = TempFile::new("gap.pcapng", recording.into_inner());
    let (shown, _) = replay(&file, "").await;
    let shown: Vec<&str> = shown.iter().map(|line| line.trim_start_matches("00:00:00.000000 #1 ")).collect();
    let expected =
        ["<- PING", "<- 150000 bytes are missing", "-> PING", "<- PING", "<- 7 bytes are missing", "<- reset"];
    assert_eq!(shown[1..], expected);
}
