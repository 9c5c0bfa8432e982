//! Frames, and what the page is told of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::WebView;
use super::source::{Opening, Source};
use super::store::Store;
use super::view::Page;
use crate::capture::Direction::{self, ToBroker, ToClient};
use crate::capture::{Segment, SegmentEvent};
use crate::pb;
use crate::tap::{Inspector, InspectorConfig, Observation};
use crate::wire::command::Command;
use crate::wire::hot::{MessageHead, Receipt, SendHead, put_message, put_receipt, put_send_head};
use crate::wire::metadata::MetadataFields;
use crate::wire::put_entry;

const TOPIC: &str = "persistent://public/default/<img src=x onerror=alert(1)>";

/// A tap's traffic, a frame each millisecond.
struct Traffic {
    inspector: Inspector,
    seen: Vec<Observation>,
    at: u64,
}

impl Traffic {
    fn new() -> Self {
        Self {
            inspector: Inspector::new(InspectorConfig { keep_frames: true, ..InspectorConfig::default() }),
            seen: Vec::new(),
            at: 0,
        }
    }

    fn event(&mut self, connection: u64, event: SegmentEvent) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(self.at);
        self.at += 1;
        self.inspector.inspect(&Segment { connection, at, event }, &mut self.seen);
    }

    fn bytes(&mut self, connection: u64, direction: Direction, bytes: BytesMut) {
        self.event(connection, SegmentEvent::Bytes { direction, bytes: bytes.freeze() });
    }

    fn command(&mut self, connection: u64, direction: Direction, command: impl Into<Command>) {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        self.bytes(connection, direction, out);
    }

    /// With a producer and a consumer, both with the id 1, on the topic.
    fn connected(&mut self, connection: u64) {
        let (client, broker) = (([127, 0, 0, 1], 50_000).into(), ([127, 0, 0, 1], 6650).into());
        self.event(connection, SegmentEvent::Opened { client, broker, is_partial: false });
        let auth_data = Some(Bytes::from_static(b"TOPSECRET"));
        let connect = pb::CommandConnect { protocol_version: Some(21), auth_data, ..Default::default() };
        self.command(connection, ToBroker, connect);
        let connected = pb::CommandConnected { protocol_version: Some(21), ..Default::default() };
        self.command(connection, ToClient, connected);
        let producer = pb::CommandProducer { topic: TOPIC.into(), producer_id: 1, request_id: 1, ..Default::default() };
        self.command(connection, ToBroker, producer);
        let success = pb::CommandProducerSuccess { request_id: 1, producer_name: "p".into(), ..Default::default() };
        self.command(connection, ToClient, success);
        let (topic, subscription) = (TOPIC.to_owned(), "s".to_owned());
        let subscribe =
            pb::CommandSubscribe { topic, subscription, consumer_id: 1, request_id: 2, ..Default::default() };
        self.command(connection, ToBroker, subscribe);
        self.command(connection, ToClient, pb::CommandSuccess { request_id: 2, schema: None });
        self.command(connection, ToBroker, pb::CommandFlow { consumer_id: 1, message_permits: 1000 });
    }

    fn send(&mut self, connection: u64, sequence_id: u64) {
        let mut out = BytesMut::new();
        let entry = entry(sequence_id);
        put_send_head(&mut out, &SendHead::new(1, sequence_id), entry.len());
        out.put_slice(&entry);
        self.bytes(connection, ToBroker, out);
        let mut out = BytesMut::new();
        let receipt =
            Receipt { producer_id: 1, sequence_id, highest_sequence_id: 0, ledger_id: 7, entry_id: sequence_id };
        put_receipt(&mut out, &receipt);
        self.bytes(connection, ToClient, out);
    }

    fn message(&mut self, connection: u64, entry_id: u64) {
        let mut out = BytesMut::new();
        put_message(&mut out, &MessageHead::new(1, 7, entry_id), &entry(entry_id));
        self.bytes(connection, ToClient, out);
    }

    fn store(&self) -> Store {
        let mut store = Store::new().expect("a temporary file");
        self.seen.iter().for_each(|seen| store.take(seen));
        store
    }
}

fn entry(sequence_id: u64) -> Bytes {
    let mut out = BytesMut::new();
    let fields = MetadataFields { producer_name: "p", sequence_id, ..MetadataFields::default() };
    put_entry(&mut out, &fields, b"PAYLOAD");
    out.freeze()
}

/// An entry with any metadata, without a checksum.
fn raw_entry(metadata: &pb::MessageMetadata) -> Bytes {
    let metadata = prost::Message::encode_to_vec(metadata);
    let mut out = BytesMut::new();
    out.put_u32(metadata.len() as u32);
    out.put_slice(&metadata);
    out.put_slice(b"PAYLOAD");
    out.freeze()
}

fn id(entry_id: u64) -> pb::MessageIdData {
    pb::MessageIdData { ledger_id: 7, entry_id, ..Default::default() }
}

fn page(words: &str) -> Page {
    Page { words: words.to_owned(), fold: true, count: 100, ..Page::default() }
}

fn rows(store: &mut Store, page: &Page) -> Vec<Value> {
    let answer = store.page(page).expect("the file can be read");
    answer["rows"].as_array().expect("rows").clone()
}

#[test]
fn runs_are_folded_filtered_and_opened() {
    let mut traffic = Traffic::new();
    traffic.connected(1);
    (0..300).for_each(|sequence| traffic.send(1, sequence));
    traffic.command(1, ToBroker, pb::CommandAck { consumer_id: 1, message_id: vec![id(99)], ..Default::default() });
    let mut store = traffic.store();
    let all = rows(&mut store, &page(""));
    // Eight of the beginning, the run, the ACK of what was never delivered, and the rule that it breaks.
    let run = all.iter().find(|row| row["event"] == "run").expect("a run");
    // FLOW is the first of it, and the ACK the last.
    assert_eq!((all.len(), &run["count"]), (9, &602.into()));
    assert_eq!(run["parts"][1]["count"], 300);
    let opened =
        Page { run: Some((run["n"].as_u64().unwrap() as u32, run["last"].as_u64().unwrap() as u32)), ..page("") };
    assert_eq!(rows(&mut store, &Page { from: 600, ..opened.clone() }).len(), 2);
    assert_eq!(rows(&mut store, &opened)[1]["command"], "SEND");

    let receipts = Page { fold: false, ..page("receipt producer") };
    assert_eq!(store.page(&receipts).expect("read")["total"], 300);
    assert_eq!(store.page(&page("-send #1 <IMG")).expect("read")["total"], 7);
    assert_eq!(store.page(&page("#2")).expect("read")["total"], 0);
    let errors = rows(&mut store, &Page { errors: true, ..page("") });
    assert_eq!(errors.iter().map(|row| &row["rule"]).collect::<Vec<_>>(), ["AckNotDelivered"]);
    let span = Page { span: Some((20_000, 29_000)), fold: false, ..page("") };
    assert_eq!(store.page(&span).expect("read")["total"], 10);
    let middle = store.page(&Page { at: Some(300), fold: false, count: 1, ..page("") }).expect("read");
    assert_eq!((&middle["at"], &middle["rows"][0]["n"]), (&300.into(), &300.into()));
}

#[test]
fn receipts_repeats_and_lives_are_tied_together() {
    let mut traffic = Traffic::new();
    traffic.connected(1);
    (0..2).for_each(|sequence| traffic.send(1, sequence));
    (0..2).for_each(|entry| traffic.message(1, entry));
    let redeliver =
        pb::CommandRedeliverUnacknowledgedMessages { consumer_id: 1, message_ids: vec![id(1)], ..Default::default() };
    traffic.command(1, ToBroker, redeliver);
    traffic.message(1, 1);
    traffic.command(1, ToBroker, pb::CommandAck { consumer_id: 1, message_id: vec![id(1)], ..Default::default() });
    traffic.connected(2);
    traffic.message(2, 0);
    (2..6).for_each(|entry| traffic.message(2, entry));
    traffic.command(
        2,
        ToBroker,
        pb::CommandAck { consumer_id: 1, message_id: vec![id(2), id(3)], ..Default::default() },
    );
    let ack_type = pb::command_ack::AckType::Cumulative as i32;
    traffic.command(
        2,
        ToBroker,
        pb::CommandAck { consumer_id: 1, ack_type, message_id: vec![id(5)], ..Default::default() },
    );
    let mut store = traffic.store();
    let all = rows(&mut store, &Page { fold: false, ..page("") });
    let of = |command: &str| all.iter().filter(|row| row["command"] == command).collect::<Vec<_>>();
    let (sends, receipts) = (of("SEND"), of("SEND_RECEIPT"));
    assert_eq!((&receipts[1]["before"]["n"], &sends[1]["after"]), (&sends[1]["n"], &receipts[1]["n"]));
    let (messages, redelivers) = (of("MESSAGE"), of("REDELIVER_UNACKNOWLEDGED_MESSAGES"));
    assert_eq!(redelivers[0]["ids"][0], "7:1");
    assert_eq!((&messages[2]["before"]["why"], &messages[2]["before"]["n"]), (&"asked".into(), &redelivers[0]["n"]));
    assert_eq!(of("ACK")[0]["before"]["n"], messages[2]["n"]);
    assert_eq!((&messages[3]["before"]["why"], &messages[3]["before"]["n"]), (&"again".into(), &messages[0]["n"]));

    // Both deliveries that an ACK names, and all that a cumulative one is about.
    assert_eq!((&messages[4]["after"], &messages[5]["after"]), (&of("ACK")[1]["n"], &of("ACK")[1]["n"]));
    assert_eq!((&messages[6]["after"], &messages[7]["after"]), (&of("ACK")[2]["n"], &of("ACK")[2]["n"]));

    let life = store.life(messages[2]["n"].as_u64().expect("a number") as u32).expect("read");
    let steps: Vec<_> = life.as_array().expect("steps").iter().map(|step| step["command"].clone()).collect();
    let whole = ["SEND", "SEND_RECEIPT", "MESSAGE", "REDELIVER_UNACKNOWLEDGED_MESSAGES", "MESSAGE", "ACK"];
    assert_eq!(steps, whole);
}

/// Status and all of an answer.
async fn get(web: &WebView, path: &str, headers: &str) -> (u16, String) {
    let address = web.url().trim_start_matches("http://").split('/').next().expect("a host").to_owned();
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let request = format!("GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test]
async fn the_page_is_for_whoever_has_its_url() {
    let mut traffic = Traffic::new();
    traffic.connected(1);
    traffic.send(1, 0);
    let web = WebView::bind(([127, 0, 0, 1], 0).into(), "title").await.expect("a port");
    web.observe(&traffic.seen);
    let first = web.url().split_once("/?").map(|(_, query)| format!("/?{query}")).expect("a query");
    let (status, page) = get(&web, &first, "").await;
    assert_eq!(status, 200);
    assert!(page.contains("default-src 'none'; script-src 'self'") && page.contains("<title>Pulsar tap"), "{page}");
    let cookie = page.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().expect("its value"));

    assert_eq!(get(&web, "/", "").await.0, 403);
    assert_eq!(get(&web, "/api/rows", "").await.0, 403);
    assert_eq!(get(&web, "/main.js", "").await.0, 403);
    assert_eq!(get(&web, "/api/rows", &format!("{cookie}Origin: http://evil.example\r\n")).await.0, 403);
    assert_eq!(get(&web, &first, "Host: evil.example\r\n").await.0, 421);
    assert_eq!(get(&web, "/main.js", &cookie).await.0, 200);
    assert_eq!(get(&web, "/api/nothing", &cookie).await.0, 404);
    let (status, rows) = get(&web, "/api/rows?count=100", &cookie).await;
    assert_eq!(status, 200);
    assert!(rows.contains("<img src=x") && !rows.contains("TOPSECRET"));

    let payload = |text: &str| text.contains(&hex("PAYLOAD"));
    // The ninth is the SEND.
    for n in 0..10 {
        let path = format!("/api/frame?n={n}");
        let hidden = get(&web, &path, &cookie).await.1;
        let shown = get(&web, &format!("{path}&payload=1"), &cookie).await.1;
        assert!(!payload(&hidden) && !shown.contains(&hex("TOPSECRET")), "{path}");
        assert_eq!(payload(&shown), n == 8, "{path}");
    }
    let refused = WebView::bind(([0, 0, 0, 0], 0).into(), "").await;
    assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(std::io::ErrorKind::InvalidInput));
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_said_is_found() {
    let mut traffic = Traffic::new();
    traffic.connected(1);
    let mut metadata =
        pb::MessageMetadata { producer_name: "p".into(), partition_key: Some("Order-7".into()), ..Default::default() };
    metadata.properties.push(pb::KeyValue { key: "language".into(), value: "Two Words".into() });
    let mut out = BytesMut::new();
    let entry = raw_entry(&metadata);
    put_send_head(&mut out, &SendHead::new(1, 0), entry.len());
    out.put_slice(&entry);
    traffic.bytes(1, ToBroker, out);
    (1..200).for_each(|sequence| traffic.send(1, sequence));
    let error = pb::CommandError {
        request_id: 9,
        error: pb::ServerError::TopicNotFound as i32,
        message: "No such\nthing".into(),
    };
    traffic.command(1, ToClient, error);
    let mut store = traffic.store();
    let mut found = |words: &str| {
        let rows = rows(&mut store, &Page { fold: false, ..page(words) });
        rows.iter().map(|row| row["command"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    for words in ["order-7", "LANGUAGE", "language words", "send two"] {
        assert_eq!(found(words), ["SEND"], "{words}");
    }
    for words in ["7:12", "7:12:-1", "7:12:-1:0"] {
        assert_eq!(found(words), ["SEND_RECEIPT"], "{words}");
    }
    assert_eq!(found("such thing"), ["ERROR"]);
    assert_eq!(found("topicnotfound"), ["ERROR"]);
    assert_eq!(found("send -receipt -order-7").len(), 100, "a page of them");
    assert_eq!(found("payload"), Vec::<String>::new());
}

#[test]
fn an_answer_looks_at_a_part_of_millions() {
    let mut traffic = Traffic::new();
    traffic.connected(1);
    traffic.command(1, ToBroker, pb::CommandPing {});
    let mut store = Store::new().expect("a temporary file");
    let ping = traffic.seen.pop().expect("a PING");
    traffic.seen.iter().for_each(|seen| store.take(seen));
    let first = store.len();
    (0..600_000).for_each(|_| store.take(&ping));
    let page = Page { fold: false, ..page("ping") };
    let answer = store.page(&page).expect("read");
    assert_eq!((&answer["looked"], &answer["total"]), (&500_000.into(), &(500_000 - first).into()));
    let answer = store.page(&page).expect("read");
    assert_eq!((&answer["looked"], &answer["total"]), (&(600_000 + first).into(), &600_000.into()));
    let folded = store.page(&Page { at: Some(400_000), count: 1, fold: true, ..page.clone() }).expect("read");
    assert_eq!(folded["rows"][0]["count"], 5000);
}

#[cfg(unix)]
#[test]
fn on_a_full_disk_what_was_kept_stays_and_the_rest_is_counted() {
    for fill in [|store: &mut Store| store.records.fill_disk(), |store: &mut Store| store.entries.fill_disk()] {
        let mut traffic = Traffic::new();
        traffic.connected(1);
        traffic.command(1, ToBroker, pb::CommandPing {});
        let mut store = traffic.store();
        fill(&mut store);
        (0..300_000).for_each(|_| store.take(&traffic.seen[8]));
        let state = store.state();
        let (kept, left_out) =
            (state["total"].as_u64().expect("a number"), state["left_out"].as_u64().expect("a number"));
        assert!(kept > 1000 && left_out > 1000 && kept + left_out == 300_000 + traffic.seen.len() as u64, "{state}");
        assert!(
            state["full"].as_str().is_some_and(|why| why.starts_with("the temporary file cannot be written: ")),
            "{state}"
        );
        let last = store.record(kept as u32 - 1).expect("it is in memory").expect("the last one");
        assert_eq!(last["n"], kept - 1);
        assert_eq!(rows(&mut store, &Page { fold: false, ..page("connect") })[0]["command"], "CONNECT");
    }
}

#[tokio::test]
async fn news_is_what_has_changed_and_nothing_once_all_is_read() {
    let source = Arc::new(Source::new().expect("temporary files"));
    let told = || source.state()["news"].as_u64();
    let mut known = told();
    let mut opening = Opening::new(Arc::clone(&source), Some(8));
    for (piece, percent) in [("", 0), ("not ", 50), ("one.", 99)] {
        assert!(opening.push(Bytes::from_static(piece.as_bytes())).await);
        assert_eq!(source.state()["read"], percent);
        assert_ne!(std::mem::replace(&mut known, told()), told());
    }
    opening.end().await;
    let state = source.state();
    assert_eq!(state["read"], 100);
    assert!(state["ended"].is_string(), "{state}");
    // A request for news that names this version is answered by the next change, not at once.
    assert_eq!(Some(*source.news().borrow()), state["news"].as_u64());
}
