//! Recordings as scripts of frames, and where the embedded broker does otherwise.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::capture::{Segment, SegmentEvent};
use crate::pb;
use crate::tap::{Inspector, InspectorConfig};
use crate::wire::hot::{Receipt, SendHead, put_receipt, put_send_head};
use crate::wire::metadata::MetadataFields;
use crate::wire::put_entry;

const TOPIC: &str = "persistent://public/default/t";

/// Segments of connections, each a millisecond after the one before.
struct Recording {
    segments: Vec<Segment>,
    at: SystemTime,
}

impl Recording {
    fn new() -> Self {
        Self { segments: Vec::new(), at: UNIX_EPOCH + Duration::from_secs(1_000) }
    }

    fn put(mut self, connection: u64, event: SegmentEvent) -> Self {
        self.at += Duration::from_millis(1);
        self.segments.push(Segment { connection, at: self.at, event });
        self
    }

    fn wait(mut self, by: Duration) -> Self {
        self.at += by;
        self
    }

    fn open(self, connection: u64, is_partial: bool) -> Self {
        let [client, broker] = [50_000, 6650].map(|port| ([127, 0, 0, 1], port).into());
        self.put(connection, SegmentEvent::Opened { client, broker, is_partial })
    }

    fn bytes(self, connection: u64, direction: Direction, bytes: impl Into<Bytes>) -> Self {
        self.put(connection, SegmentEvent::Bytes { direction, bytes: bytes.into() })
    }

    fn command(self, connection: u64, direction: Direction, command: impl Into<Command>) -> Self {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        self.bytes(connection, direction, out)
    }

    fn up(self, command: impl Into<Command>) -> Self {
        self.command(1, Direction::ToBroker, command)
    }

    fn down(self, command: impl Into<Command>) -> Self {
        self.command(1, Direction::ToClient, command)
    }

    fn connected(self, connection: u64) -> Self {
        let connect = pb::CommandConnect { protocol_version: Some(21), ..Default::default() };
        let connected = pb::CommandConnected { protocol_version: Some(21), ..Default::default() };
        let opened = self.open(connection, false).command(connection, Direction::ToBroker, connect);
        opened.command(connection, Direction::ToClient, connected)
    }

    fn producing() -> Self {
        Self::new().connected(1).up(producer(1)).down(success(1))
    }

    fn send(self, sequence_id: u64) -> Self {
        let mut entry = BytesMut::new();
        let fields = MetadataFields { producer_name: "p", sequence_id, publish_time_ms: 1, ..Default::default() };
        put_entry(&mut entry, &fields, b"payload");
        let mut out = BytesMut::new();
        put_send_head(&mut out, &SendHead::new(1, sequence_id), entry.len());
        out.extend_from_slice(&entry);
        self.bytes(1, Direction::ToBroker, out)
    }

    fn receipt(self, sequence_id: u64) -> Self {
        let mut out = BytesMut::new();
        let ids = Receipt { producer_id: 1, sequence_id, highest_sequence_id: 0, ledger_id: 77, entry_id: 7 };
        put_receipt(&mut out, &ids);
        self.bytes(1, Direction::ToClient, out)
    }

    fn closed(self, direction: Direction) -> Self {
        self.put(1, SegmentEvent::Closed { direction, is_reset: true })
    }

    /// What the embedded broker does otherwise, as text.
    fn replay(self) -> (Vec<String>, ReplaySummary) {
        let (differences, summary) = self.differences();
        (differences.iter().map(ToString::to_string).collect(), summary)
    }

    fn differences(self) -> (Vec<ReplayDifference>, ReplaySummary) {
        let config = InspectorConfig { keep_frames: true, ..InspectorConfig::default() };
        let (mut inspector, mut replay) = (Inspector::new(config), Replay::new());
        let (mut seen, mut differences) = (Vec::new(), Vec::new());
        for segment in self.segments {
            inspector.inspect(&segment, &mut seen);
            seen.drain(..).for_each(|seen| replay.observe(&seen, &mut differences));
        }
        let summary = replay.finish(&mut differences);
        (differences, summary)
    }
}

fn producer(request_id: u64) -> pb::CommandProducer {
    let name = Some("p".to_owned());
    pb::CommandProducer { topic: TOPIC.into(), producer_id: 1, request_id, producer_name: name, ..Default::default() }
}

fn success(request_id: u64) -> pb::CommandProducerSuccess {
    pb::CommandProducerSuccess { request_id, producer_name: "p".into(), ..Default::default() }
}

fn error(request_id: u64, error: pb::ServerError) -> pb::CommandError {
    pb::CommandError { request_id, error: error.into(), message: "not now".into() }
}

#[test]
fn the_same_answers_are_no_difference_whatever_their_ids() {
    let recording = Recording::producing().send(0).send(1).receipt(0).receipt(1).closed(Direction::ToBroker);
    let (differences, summary) = recording.replay();
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!((summary.compared, summary.different, summary.uncompared), (4, 0, 0));
    assert_eq!(summary.to_string(), "4 answers compared with the embedded broker's, 0 differ");
}

#[test]
fn a_refusal_is_told_and_taken_over() {
    let refused = Recording::new().connected(1).up(producer(1)).down(error(1, pb::ServerError::ServiceNotReady));
    // It is not open then, at either broker.
    let recording = refused.up(producer(2)).down(success(2)).send(0).receipt(0);
    let (differences, summary) = recording.differences();
    assert_eq!(summary.different, 1);
    assert_eq!(
        differences[0].to_string(),
        format!(
            "#1 ~~ PRODUCER producer 1 {TOPIC} request 1: the recorded broker: ERROR ServiceNotReady; the embedded broker: PRODUCER_SUCCESS"
        )
    );
    let json: serde_json::Value = serde_json::from_str(&differences[0].to_json()).expect("JSON");
    assert_eq!(json["event"], "difference");
    assert_eq!(json["recorded"], serde_json::json!({ "answer": "ERROR", "error": "ServiceNotReady" }));
    assert_eq!(json["embedded"], serde_json::json!({ "answer": "PRODUCER_SUCCESS" }));
}

#[test]
fn what_was_closed_may_be_opened_elsewhere() {
    let close = pb::CommandCloseProducer { producer_id: 1, request_id: u64::MAX, ..Default::default() };
    let moved = Recording::producing().down(close).connected(2);
    let again = moved.command(2, Direction::ToBroker, producer(9)).command(2, Direction::ToClient, success(9));
    assert_eq!(again.replay().0, Vec::<String>::new());
}

#[test]
fn what_crosses_the_close_of_its_producer_is_left_out() {
    let close = || pb::CommandCloseProducer { producer_id: 1, request_id: u64::MAX, ..Default::default() };
    let sent = || Recording::producing().send(0).receipt(0).send(1).send(2);
    let crossed = sent().down(close()).up(producer(9)).down(success(9)).send(1).receipt(1).send(2).receipt(2);
    assert_eq!(crossed.replay().0, Vec::<String>::new());
    let late = sent().wait(Duration::from_secs(30)).down(close()).wait(Duration::from_secs(30));
    let text = format!(
        "#1 ~~ SEND producer 1 {TOPIC} sequence 1 and 1 more: the recorded broker: no answer; the embedded broker: SEND_RECEIPT"
    );
    assert_eq!(late.closed(Direction::ToBroker).replay().0, [text]);
}

#[test]
fn answers_that_do_not_come_are_missing() {
    let sent = || Recording::producing().send(0).send(1).send(2).receipt(0);
    let at_once = sent().closed(Direction::ToBroker);
    assert_eq!(at_once.replay().0, Vec::<String>::new(), "they may have been on their way");
    let late = sent().wait(Duration::from_secs(30)).closed(Direction::ToBroker);
    let text = format!(
        "#1 ~~ SEND producer 1 {TOPIC} sequence 1 and 1 more: the recorded broker: no answer; the embedded broker: SEND_RECEIPT"
    );
    let (differences, summary) = late.replay();
    assert_eq!((differences, summary.different), (vec![text], 2));
    let cut = sent().closed(Direction::ToClient);
    let text = "#1 ~~ the recorded broker: ends the connection; the embedded broker: does not";
    assert_eq!(cut.replay().0, [text]);
}

#[test]
fn of_a_client_alone_all_answers_are_told() {
    let connect = pb::CommandConnect { protocol_version: Some(21), ..Default::default() };
    let recording = Recording::new().open(1, false).up(connect).up(producer(1));
    let answers = ["CONNECT: the recorded broker: no answer; the embedded broker: CONNECTED".to_owned(), {
        format!(
            "PRODUCER producer 1 {TOPIC} request 1: the recorded broker: no answer; the embedded broker: PRODUCER_SUCCESS"
        )
    }];
    assert_eq!(recording.replay().0, answers.map(|answer| format!("#1 ~~ {answer}")));
}

#[test]
fn a_connection_that_the_embedded_broker_ends() {
    let (differences, _) = Recording::new().connected(1).send(0).receipt(0).send(1).receipt(1).replay();
    let text = "#1 ~~ SEND producer 1 sequence 0: the recorded broker: SEND_RECEIPT; the embedded broker: ends the connection, by SendWithoutProducer";
    assert_eq!(differences, [text]);
}

#[test]
fn partitions_are_taken_over() {
    let count = |request_id| pb::CommandPartitionedTopicMetadata {
        topic: TOPIC.into(),
        request_id,
        metadata_auto_creation_enabled: Some(false),
        ..Default::default()
    };
    let counted = |request_id| pb::CommandPartitionedTopicMetadataResponse {
        request_id,
        partitions: Some(3),
        response: Some(pb::command_partitioned_topic_metadata_response::LookupType::Success.into()),
        ..Default::default()
    };
    let recording = Recording::new().connected(1).up(count(1)).down(counted(1)).up(count(2)).down(counted(2));
    let first = format!(
        "#1 ~~ PARTITIONED_METADATA {TOPIC} request 1: the recorded broker: PARTITIONED_METADATA_RESPONSE; the embedded broker: PARTITIONED_METADATA_RESPONSE TopicNotFound"
    );
    assert_eq!(recording.replay().0, [first], "it was there before the recording");

    let of_partition =
        pb::CommandProducer { topic: format!("{TOPIC}-partition-7"), producer_name: None, ..producer(1) };
    let named = Recording::new().connected(1).up(of_partition).down(success(1)).up(count(2)).down(counted(2));
    assert_eq!(named.replay().0, Vec::<String>::new());
}

#[test]
fn what_cannot_be_known_is_counted() {
    let partial = Recording::new().open(1, true).up(producer(1)).down(success(1));
    let lost = partial.connected(2).put(2, SegmentEvent::Missing { direction: Direction::ToClient, count: 9 });
    let (differences, summary) = lost.replay();
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!((summary.connections, summary.uncompared), (2, 2));
}
