//! Scripts of frames, and what is seen of them.

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::capture::Direction::{self, ToBroker, ToClient};
use crate::capture::FrameReader;
use crate::pb;
use crate::tap::{Masker, Masking};
use crate::wire::command::Command;
use crate::wire::hot::{MessageHead, Receipt, SendHead, put_message, put_receipt, put_send_head};
use crate::wire::metadata::MetadataFields;
use crate::wire::put_entry;

const TOPIC: &str = "persistent://public/default/t";

/// Bytes of one connection, in order.
#[derive(Default)]
struct Script(Vec<(Direction, Bytes)>);

impl Script {
    fn raw(mut self, direction: Direction, bytes: impl Into<Bytes>) -> Self {
        self.0.push((direction, bytes.into()));
        self
    }

    fn frame(self, direction: Direction, command: impl Into<Command>) -> Self {
        let mut out = BytesMut::new();
        command.into().encode_frame(&mut out);
        self.raw(direction, out)
    }

    fn up(self, command: impl Into<Command>) -> Self {
        self.frame(ToBroker, command)
    }

    fn down(self, command: impl Into<Command>) -> Self {
        self.frame(ToClient, command)
    }

    fn connected() -> Self {
        let connect = pb::CommandConnect { protocol_version: Some(21), ..Default::default() };
        let connected = pb::CommandConnected { protocol_version: Some(21), ..Default::default() };
        Self::default().up(connect).down(connected)
    }

    fn producer() -> Self {
        let producer = pb::CommandProducer { topic: TOPIC.into(), producer_id: 1, request_id: 1, ..Default::default() };
        let success = pb::CommandProducerSuccess { request_id: 1, producer_name: "p".into(), ..Default::default() };
        Self::connected().up(producer).down(success)
    }

    fn consumer(permits: u32) -> Self {
        let subscribe = pb::CommandSubscribe {
            topic: TOPIC.into(),
            subscription: "s".into(),
            consumer_id: 2,
            request_id: 1,
            ..Default::default()
        };
        let success = pb::CommandSuccess { request_id: 1, schema: None };
        let flow = pb::CommandFlow { consumer_id: 2, message_permits: permits };
        Self::connected().up(subscribe).down(success).up(flow)
    }

    fn send(self, sequence_id: u64) -> Self {
        let entry = entry(sequence_id, 1);
        let mut out = BytesMut::new();
        put_send_head(&mut out, &SendHead::new(1, sequence_id), entry.len());
        out.put_slice(&entry);
        self.raw(ToBroker, out)
    }

    fn receipt(self, sequence_id: u64) -> Self {
        let mut out = BytesMut::new();
        let receipt =
            Receipt { producer_id: 1, sequence_id, highest_sequence_id: 0, ledger_id: 7, entry_id: sequence_id };
        put_receipt(&mut out, &receipt);
        self.raw(ToClient, out)
    }

    fn message(self, entry_id: u64, members: u32) -> Self {
        let mut out = BytesMut::new();
        put_message(&mut out, &MessageHead::new(2, 7, entry_id), &entry(entry_id, members));
        self.raw(ToClient, out)
    }

    fn ack(self, entry_id: u64) -> Self {
        let id = pb::MessageIdData { ledger_id: 7, entry_id, ..Default::default() };
        self.up(pb::CommandAck { consumer_id: 2, message_id: vec![id], ..Default::default() })
    }

    /// What is seen with the bytes broken into pieces of at most so many.
    fn seen(&self, piece: usize) -> Vec<Observation> {
        let mut inspector = Inspector::new(InspectorConfig::default());
        let mut out = Vec::new();
        let (client, broker) = ("127.0.0.1:50000", "127.0.0.1:6650");
        let opened = SegmentEvent::Opened {
            client: client.parse().expect("an address"),
            broker: broker.parse().expect("an address"),
            is_partial: false,
        };
        let segment = |event| Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event };
        inspector.inspect(&segment(opened), &mut out);
        for (direction, bytes) in &self.0 {
            for bytes in bytes.chunks(piece) {
                let bytes = Bytes::copy_from_slice(bytes);
                inspector.inspect(&segment(SegmentEvent::Bytes { direction: *direction, bytes }), &mut out);
            }
        }
        out
    }

    fn rules(&self) -> Vec<Rule> {
        let rule = |seen: Observation| match seen.event {
            ObservedEvent::Violation(violation) => Some(violation.rule),
            _ => None,
        };
        self.seen(usize::MAX).into_iter().filter_map(rule).collect()
    }

    fn last(&self) -> FrameObservation {
        let frame = |seen: Observation| match seen.event {
            ObservedEvent::Frame(frame) => Some(*frame),
            _ => None,
        };
        self.seen(usize::MAX).into_iter().filter_map(frame).next_back().expect("a frame")
    }
}

fn entry(sequence_id: u64, members: u32) -> Bytes {
    let mut out = BytesMut::new();
    let batch = (members > 1).then_some(members as i32);
    let fields =
        MetadataFields { producer_name: "p", sequence_id, num_messages_in_batch: batch, ..MetadataFields::default() };
    put_entry(&mut out, &fields, b"payload");
    out.freeze()
}

#[test]
fn an_ordinary_day_breaks_nothing() {
    let sends = Script::producer().send(0).send(1).receipt(0).receipt(1);
    assert_eq!(sends.rules(), []);
    let last = sends.last();
    assert_eq!(last.topic.as_deref(), Some(TOPIC));
    assert_eq!(last.ledger, Some(Ledger::Producer { pending_sends: 0, pending_messages: 0 }));
    assert_eq!(last.answers.map(|answered| answered.command), Some("SEND"));
    let messages = Script::consumer(4).message(0, 1).message(1, 3).ack(0);
    assert_eq!(messages.rules(), []);
    let ledger = Ledger::Consumer { granted: 4, delivered: 4, permits: 0, unacknowledged: 3 };
    assert_eq!(messages.last().ledger, Some(ledger));
}

#[test]
fn what_clients_break_is_named() {
    let flow = |permits| pb::CommandFlow { consumer_id: 2, message_permits: permits };
    let close = pb::CommandCloseProducer { producer_id: 1, request_id: 2, ..Default::default() };
    let cases = [
        (Script::default().send(0), vec![Rule::Handshake]),
        (Script::connected().up(pb::CommandConnect::default()), vec![Rule::Handshake]),
        (Script::connected().send(0), vec![Rule::SendWithoutProducer]),
        (Script::producer().up(close).send(0), vec![Rule::AfterClose]),
        (Script::consumer(1).up(flow(0)), vec![Rule::FlowPermits]),
        (Script::connected().up(flow(0)), vec![]),
        (Script::consumer(1).ack(3), vec![Rule::AckNotDelivered]),
        (Script::consumer(1).up(pb::CommandSuccess { request_id: 9, schema: None }), vec![Rule::ServerOnlyCommand]),
        (Script::consumer(1).raw(ToBroker, vec![0, 0, 0, 1]), vec![Rule::UnreadableFrame]),
        (Script::producer().send(4).receipt(4).send(3).receipt(3), vec![Rule::SequenceNotGrowing]),
        (Script::producer().send(4).receipt(4).send(4).receipt(4), vec![]),
    ];
    for (index, (script, rules)) in cases.into_iter().enumerate() {
        assert_eq!(script.rules(), rules, "case {index}");
    }
}

#[test]
fn what_brokers_break_is_named() {
    let success = |request_id| pb::CommandSuccess { request_id, schema: None };
    let close = pb::CommandCloseConsumer { consumer_id: 2, request_id: 2, ..Default::default() };
    let unsubscribe = pb::CommandUnsubscribe { consumer_id: 2, request_id: 2, ..Default::default() };
    let closing = |permits| Script::consumer(permits).up(close.clone());
    let closed = |permits| closing(permits).down(success(2));
    let unsubscribed = |permits| Script::consumer(permits).up(unsubscribe).down(success(2));
    let cases = [
        (Script::default().down(pb::CommandConnected::default()), vec![Rule::Handshake]),
        (Script::connected().down(success(5)), vec![Rule::ResponseToNoRequest]),
        (Script::consumer(1).down(success(1)), vec![Rule::ResponseTwice]),
        (Script::connected().down(pb::CommandConnect::default()), vec![Rule::ClientOnlyCommand]),
        (Script::producer().receipt(0), vec![Rule::ReceiptWithoutSend]),
        (Script::producer().send(0).send(1).receipt(1).receipt(0), vec![Rule::ReceiptOutOfOrder]),
        (Script::consumer(1).message(0, 1).message(1, 1), vec![Rule::PermitsExceeded]),
        (Script::connected().message(0, 1), vec![Rule::MessageWithoutConsumer]),
        // What was on its way to a consumer when it was closed may come behind the answer, but no more than it had permits for.
        (closed(1).message(0, 1), vec![]),
        (closed(1).message(0, 1).message(1, 1), vec![Rule::MessageWithoutConsumer]),
        (unsubscribed(1).message(0, 1).message(1, 1), vec![Rule::MessageWithoutConsumer]),
        (closing(1).message(0, 1).down(success(2)).message(1, 1), vec![Rule::MessageWithoutConsumer]),
    ];
    for (index, (script, rules)) in cases.into_iter().enumerate() {
        assert_eq!(script.rules(), rules, "case {index}");
    }
    let seek = pb::CommandSeek { consumer_id: 2, request_id: 2, message_publish_time: Some(1), ..Default::default() };
    let wrong = pb::CommandProducerSuccess { request_id: 2, ..Default::default() };
    assert_eq!(Script::consumer(1).up(seek).down(wrong).rules(), [Rule::WrongResponse]);
}

#[test]
fn bytes_in_any_pieces_show_the_same() {
    let mut script = Script::producer().send(0).send(1).receipt(1).receipt(0).receipt(9);
    script.0.extend(Script::consumer(1).0.into_iter().skip(2));
    let script = script.message(0, 1).message(1, 5).ack(0).ack(77).raw(ToBroker, vec![0, 0, 0, 2, 1]);
    let whole = script.seen(usize::MAX);
    assert!(whole.iter().filter(|seen| seen.is_error()).count() > 4);
    for piece in 1..80 {
        assert_eq!(script.seen(piece), whole, "pieces of {piece}");
    }
}

#[test]
fn a_silent_peer_breaks_the_keep_alive() {
    let mut inspector = Inspector::new(InspectorConfig::default());
    let mut out = Vec::new();
    let mut ping = BytesMut::new();
    Command::from(pb::CommandPing {}).encode_frame(&mut ping);
    let address = "127.0.0.1:1".parse().expect("an address");
    let events = [
        (0, SegmentEvent::Opened { client: address, broker: address, is_partial: false }),
        (1, SegmentEvent::Bytes { direction: ToClient, bytes: ping.freeze() }),
        (40, SegmentEvent::Closed { direction: ToClient, is_reset: false }),
    ];
    for (seconds, event) in events {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        inspector.inspect(&Segment { connection: 1, at, event }, &mut out);
    }
    let text: Vec<String> = out.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|line| line.contains("the client broke PongMissing")), "{text:?}");
}

#[test]
fn no_secret_is_told() {
    let connect = pb::CommandConnect {
        auth_data: Some(Bytes::from_static(b"TOPSECRET")),
        auth_method_name: Some("token".to_owned()),
        original_auth_data: Some("TOPSECRET".to_owned()),
        ..Default::default()
    };
    let script = Script::default().up(connect);
    for seen in script.seen(usize::MAX) {
        assert!(!format!("{seen:?} {seen}").contains("TOPSECRET"));
    }
}

#[test]
fn other_protocols_are_told_once_and_not_judged() {
    let http = Script::default()
        .raw(ToBroker, &b"GET /lookup/v2/topic/persistent/public/default/t HTTP/1.1\r\n\r\n"[..])
        .raw(ToClient, &b"HTTP/1.1 200 OK\r\n\r\n"[..]);
    let tls = Script::default()
        .raw(ToBroker, &b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"[..])
        .raw(ToClient, &b"\x16\x03\x03\x00\x4a\x02\x00\x00\x46\x03\x03"[..]);
    for (script, name) in [(http, "HTTP"), (tls, "TLS")] {
        for piece in [1, 3, usize::MAX] {
            let told: Vec<String> = script.seen(piece).iter().skip(1).map(ToString::to_string).collect();
            assert_eq!(told, [format!("#1 -> {name}, which is not looked at")]);
        }
    }
}

#[test]
fn an_unreadable_side_does_not_blame_the_other() {
    let connect = pb::CommandConnect { protocol_version: Some(21), ..Default::default() };
    let flow = pb::CommandFlow { consumer_id: 1, message_permits: 1 };
    for unreadable in [&[0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff][..], &[0, 0, 0, 6, 0, 0, 0, 2, 0xff, 0xff]] {
        let script = Script::default().up(connect.clone()).raw(ToClient, unreadable.to_vec()).up(flow);
        assert_eq!(script.rules(), [Rule::UnreadableFrame]);
        let script = Script::producer().raw(ToBroker, unreadable.to_vec()).receipt(4);
        assert_eq!(script.rules(), [Rule::UnreadableFrame]);
    }
}

/// Bytes as `Debug` escapes them, and as a list of numbers.
fn is_in(text: &str) -> bool {
    let numbers: Vec<String> = b"TOPSECRET".iter().map(ToString::to_string).collect();
    text.contains("TOPSECRET") || text.contains(&numbers.join(", "))
}

#[test]
fn no_credential_is_in_the_debug_text_of_anything_on_its_way() {
    let connect = pb::CommandConnect { auth_data: Some(Bytes::from_static(b"TOPSECRET")), ..Default::default() };
    let mut frame = BytesMut::new();
    Command::from(connect).encode_frame(&mut frame);
    let frame = frame.freeze();
    let address = "127.0.0.1:1".parse().expect("an address");
    let segment = |event| Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event };
    let opened = segment(SegmentEvent::Opened { client: address, broker: address, is_partial: false });
    // The rest, and a second CONNECT whose last byte does not come.
    let bytes = [&frame[..], &frame[..frame.len() - 1]].concat();
    let bytes = segment(SegmentEvent::Bytes { direction: ToBroker, bytes: bytes.into() });
    let mut inspector = Inspector::new(InspectorConfig { keep_frames: true, ..InspectorConfig::default() });
    let (mut seen, mut masker) = (Vec::new(), Masker::new(Masking { tokens: true, payloads: true }));
    let mut reader = FrameReader::new(false);
    for segment in [&opened, &bytes] {
        inspector.inspect(segment, &mut seen);
        masker.mask(segment.clone(), &mut Vec::new());
        if let SegmentEvent::Bytes { bytes, .. } = &segment.event {
            reader.push(bytes);
        }
    }
    let piece = reader.next_piece();
    assert!(seen.iter().any(|seen| matches!(&seen.event, ObservedEvent::Frame(seen) if seen.bytes.is_some())));
    for text in [
        format!("{bytes:?}"),
        format!("{inspector:?}"),
        format!("{seen:?}"),
        format!("{masker:?}"),
        format!("{reader:?}"),
        format!("{piece:?}"),
    ] {
        assert!(!is_in(&text), "{text}");
    }
}

#[test]
fn what_all_connections_keep_is_bounded_together() {
    const BYTES_MAX: usize = 100_000;
    let mut inspector = Inspector::new(InspectorConfig::default());
    inspector.shared = Shared::new(BYTES_MAX, BYTES_MAX, BYTES_MAX);
    let kept = inspector.shared.kept.clone();
    let address = "127.0.0.1:1".parse().expect("an address");
    let mut out = Vec::new();
    let sends = (0..300).fold(Script::producer(), Script::send);
    let sends = (0..300).fold(sends, Script::receipt);
    let messages = (0..300).fold(Script::consumer(300), |script, entry| script.message(entry, 1));
    let messages = (0..300).fold(messages, Script::ack);
    let lookups = (0..300).fold(Script::connected(), |script, request_id| {
        script.up(pb::CommandLookupTopic { topic: "t".repeat(1_000), request_id, ..Default::default() })
    });
    let scripts = [sends, messages, lookups];
    for connection in 0..60 {
        let mut inspect = |event| {
            let at = SystemTime::UNIX_EPOCH;
            inspector.inspect(&Segment { connection, at, event }, &mut out);
            // What is known of an endpoint is not forgotten while it is used.
            assert!(kept.bytes() < BYTES_MAX + 5_000, "{}", kept.bytes());
        };
        inspect(SegmentEvent::Opened { client: address, broker: address, is_partial: false });
        for (direction, bytes) in &scripts[connection as usize % 3].0 {
            inspect(SegmentEvent::Bytes { direction: *direction, bytes: bytes.clone() });
        }
    }
    assert!(kept.is_full(), "{}", kept.bytes());
    let broken: Vec<String> = out.iter().filter(|seen| seen.is_error()).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{broken:?}");
    drop(inspector);
    assert_eq!(kept.bytes(), 0);
}
