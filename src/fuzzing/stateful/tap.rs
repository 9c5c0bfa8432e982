//! The tap between two streams of any bytes: inspector, mask, rewriter and queue.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};

use super::Choices;
use super::frames::{entry, put_any_command};
use crate::capture::{Direction, Segment, SegmentEvent};
use crate::pb;
use crate::tap::proxy::rewrite::{NamedBroker, Rewriter};
use crate::tap::{Inspector, InspectorConfig, Masker, Masking, Observation, ObservedEvent, TapItem, TapQueue};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, frames};
use crate::wire::hot::{MessageHead, SendHead, put_message, put_send_head};

/// Steps of one script.
const STEPS_MAX: usize = 200;

/// Stands in credentials and payloads; nothing else has it.
const SECRET: &[u8] = b"a-secret-token";

/// What the queue holds, bytes.
const QUEUE_BYTES_MAX: usize = 2_000;

/// Where the tap listens.
const TAP: &str = "pulsar://tap:1";

/// A script of connections: they open, carry bytes both ways, lose some, and close.
pub fn tap(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut traffic = Traffic::default();
    let (tokens, payloads) = (choices.flag(), choices.flag());
    for _ in 0..STEPS_MAX {
        if choices.is_over() {
            break;
        }
        traffic.step(&mut choices);
    }
    traffic.close_all();
    let in_pieces = pieces(&traffic.segments);
    assert_eq!(observed(&traffic.segments), observed(&in_pieces), "how bytes are split changes nothing");
    check_mask(&traffic, &in_pieces, Masking { tokens, payloads });
    check_rewriter(&traffic);
    check_queue(&traffic.segments, &mut choices);
}

#[derive(Default)]
struct Traffic {
    segments: Vec<Segment>,
    /// Which directions of each connection are open.
    open: BTreeMap<u64, [bool; 2]>,
    at: Duration,
    next: u64,
    /// Bytes that are no frame went by, or are missing: what follows them may be read as anything.
    has_noise: bool,
}

impl Traffic {
    fn put(&mut self, connection: u64, event: SegmentEvent) {
        self.segments.push(Segment { connection, at: SystemTime::UNIX_EPOCH + self.at, event });
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() {
            0..=19 => self.open(choices),
            20..=34 => self.at += choices.time(),
            35..=39 => {
                let (Some(connection), direction) = self.some_place(choices) else { return };
                self.has_noise = true;
                let count = choices.number().max(1) & 0xffff_ffff;
                self.put(connection, SegmentEvent::Missing { direction, count: count.max(1) });
            }
            40..=47 => {
                let (Some(connection), direction) = self.some_place(choices) else { return };
                self.close(connection, direction, choices.flag());
            }
            _ => self.carry(choices),
        }
    }

    fn open(&mut self, choices: &mut Choices<'_>) {
        self.next += 1;
        let (connection, is_partial) = (self.next, choices.below(8) == 7);
        self.has_noise |= is_partial;
        let [client, broker] = [50_000, 6650].map(|port| std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        self.put(connection, SegmentEvent::Opened { client, broker, is_partial });
        self.open.insert(connection, [true; 2]);
    }

    fn some_place(&self, choices: &mut Choices<'_>) -> (Option<u64>, Direction) {
        let direction = if choices.flag() { Direction::ToBroker } else { Direction::ToClient };
        let open = self.open.iter().filter(|(_, open)| open[direction as usize]);
        (open.map(|(connection, _)| *connection).nth(choices.below(3)), direction)
    }

    fn close(&mut self, connection: u64, direction: Direction, is_reset: bool) {
        self.put(connection, SegmentEvent::Closed { direction, is_reset });
        let Some(open) = self.open.get_mut(&connection) else { return };
        open[direction as usize] = false;
        if is_reset || *open == [false; 2] {
            self.open.remove(&connection);
        }
    }

    fn close_all(&mut self) {
        for connection in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(connection, Direction::ToBroker, true);
        }
    }

    /// A frame, or what is none, in one or two pieces.
    fn carry(&mut self, choices: &mut Choices<'_>) {
        let (Some(connection), direction) = self.some_place(choices) else { return };
        let mut out = BytesMut::new();
        match choices.below(12) {
            0 => {
                self.has_noise = true;
                out.extend_from_slice(choices.bytes());
            }
            1..=3 => {
                self.has_noise = true;
                put_any_command(choices, &mut out);
            }
            _ => put_sound_frame(choices, &mut out),
        }
        let bytes = out.freeze();
        let at = bytes.len() * usize::from(choices.byte()) / 256;
        for bytes in [bytes.slice(..at), bytes.slice(at..)] {
            if !bytes.is_empty() {
                self.put(connection, SegmentEvent::Bytes { direction, bytes });
            }
        }
    }
}

/// Frames of both sides with secrets in them, and those that name brokers.
fn put_sound_frame(choices: &mut Choices<'_>, out: &mut BytesMut) {
    let secret = || Some(Bytes::from_static(SECRET));
    let url = |choices: &mut Choices<'_>| choices.flag().then(|| "pulsar://broker.example.com:6650".to_owned());
    let request_id = choices.below(8) as u64;
    let (producer_id, consumer_id) = (choices.below(3) as u64, choices.below(3) as u64);
    let topic = "persistent://public/default/t".to_owned();
    let command: Command = match choices.below(17) {
        0 => pb::CommandConnect {
            client_version: "fuzz".to_owned(),
            auth_data: secret(),
            protocol_version: Some(21),
            ..Default::default()
        }
        .into(),
        1 => {
            let response = Some(pb::AuthData { auth_data: secret(), auth_method_name: Some("token".to_owned()) });
            pb::CommandAuthResponse { response, ..Default::default() }.into()
        }
        2 => {
            pb::CommandConnected { server_version: "4.0".to_owned(), protocol_version: Some(21), ..Default::default() }
                .into()
        }
        3 => pb::CommandLookupTopic { topic, request_id, ..Default::default() }.into(),
        4 => pb::CommandLookupTopicResponse {
            broker_service_url: url(choices),
            broker_service_url_tls: url(choices),
            response: Some(1),
            request_id,
            proxy_through_service_url: Some(choices.flag()),
            ..Default::default()
        }
        .into(),
        5 => pb::CommandCloseProducer { producer_id, assigned_broker_service_url: url(choices), ..Default::default() }
            .into(),
        6 => pb::CommandCloseConsumer {
            consumer_id,
            assigned_broker_service_url_tls: url(choices),
            ..Default::default()
        }
        .into(),
        7 => pb::CommandTopicMigrated { resource_id: 1, broker_service_url: url(choices), ..Default::default() }.into(),
        8 => pb::CommandProducer { topic, producer_id, request_id, ..Default::default() }.into(),
        9 => pb::CommandProducerSuccess { request_id, producer_name: "p".to_owned(), ..Default::default() }.into(),
        10 => {
            pb::CommandSubscribe { topic, subscription: "s".to_owned(), consumer_id, request_id, ..Default::default() }
                .into()
        }
        11 => pb::CommandSuccess { request_id, schema: None }.into(),
        12 => pb::CommandFlow { consumer_id, message_permits: choices.number() as u32 }.into(),
        13 => pb::CommandSendReceipt { producer_id, sequence_id: choices.below(8) as u64, ..Default::default() }.into(),
        14 => {
            let message_id =
                vec![pb::MessageIdData { ledger_id: 1, entry_id: choices.below(8) as u64, ..Default::default() }];
            pb::CommandAck { consumer_id, message_id, ..Default::default() }.into()
        }
        15 => {
            let entry = secret_entry(choices);
            put_send_head(out, &SendHead::new(producer_id, choices.below(8) as u64), entry.len());
            return out.extend_from_slice(&entry);
        }
        _ => {
            let entry = secret_entry(choices);
            return put_message(out, &MessageHead::new(consumer_id, 1, choices.below(8) as u64), &entry);
        }
    };
    command.encode_frame(out);
}

fn secret_entry(choices: &mut Choices<'_>) -> BytesMut {
    if choices.below(4) == 3 {
        return entry(choices);
    }
    let mut out = BytesMut::new();
    let fields = crate::wire::MetadataFields { producer_name: "p", ..Default::default() };
    crate::wire::put_entry(&mut out, &fields, SECRET);
    out
}

/// The same segments, with one to three bytes in each.
fn pieces(segments: &[Segment]) -> Vec<Segment> {
    let mut out = Vec::new();
    for segment in segments {
        let SegmentEvent::Bytes { direction, bytes } = &segment.event else {
            out.push(segment.clone());
            continue;
        };
        let mut bytes = bytes.clone();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(1 + bytes.len() % 3));
            out.push(Segment { event: SegmentEvent::Bytes { direction: *direction, bytes: piece }, ..*segment });
        }
    }
    out
}

/// What an inspector tells; bytes that are skipped piece by piece are told of together.
fn observed(segments: &[Segment]) -> Vec<Observation> {
    let mut inspector = Inspector::new(InspectorConfig::default());
    let (mut all, mut new): (Vec<Observation>, _) = (Vec::new(), Vec::new());
    for segment in segments {
        inspector.inspect(segment, &mut new);
        for observation in new.drain(..) {
            let _ = observation.to_string();
            let before = all.iter_mut().rev().find(|before| before.connection == observation.connection);
            match (before.map(|before| &mut before.event), &observation.event) {
                (
                    Some(ObservedEvent::Skipped { direction: before, count }),
                    ObservedEvent::Skipped { direction, count: more },
                ) if before == direction => *count += more,
                _ => all.push(observation),
            }
        }
    }
    all
}

type Streams = BTreeMap<(u64, Direction), Vec<u8>>;

fn streams<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Streams {
    let mut out = Streams::new();
    for segment in segments {
        if let SegmentEvent::Bytes { direction, bytes } = &segment.event {
            out.entry((segment.connection, *direction)).or_default().extend_from_slice(bytes);
        }
    }
    out
}

/// Lengths stay and no secret is left. How bytes are split changes nothing in front of what cannot be read; behind that it is
/// all overwritten, but for what is read as lengths.
fn check_mask(traffic: &Traffic, in_pieces: &[Segment], masking: Masking) {
    let masked = |segments: &[Segment]| {
        let (mut masker, mut out) = (Masker::new(masking), Vec::new());
        segments.iter().for_each(|segment| masker.mask(segment.clone(), &mut out));
        streams(&out)
    };
    let (plain, whole) = (streams(&traffic.segments), masked(&traffic.segments));
    let in_pieces = masked(in_pieces);
    if !traffic.has_noise {
        assert_eq!(whole, in_pieces, "how bytes are split changes nothing");
    }
    let lengths = |streams: &Streams| streams.iter().map(|(key, bytes)| (*key, bytes.len())).collect::<Vec<_>>();
    assert_eq!(lengths(&plain), lengths(&whole));
    assert_eq!(lengths(&plain), lengths(&in_pieces));
    if masking.tokens && masking.payloads && !traffic.has_noise {
        let has_secret = |bytes: &Vec<u8>| bytes.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!whole.values().any(has_secret), "a secret is left");
    }
    if !masking.tokens && !masking.payloads {
        assert_eq!(plain, whole);
    }
}

/// Every byte passes but for the addresses, however bytes are split.
fn check_rewriter(traffic: &Traffic) {
    for stream in streams(&traffic.segments).values() {
        let through = |piece: usize, rewrite: &mut dyn FnMut(&NamedBroker) -> NamedBroker| {
            let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
            for chunk in stream.chunks(piece) {
                rewriter.push(Bytes::copy_from_slice(chunk), rewrite, &mut out);
            }
            out.extend(rewriter.finish());
            out.concat()
        };
        assert_eq!(&through(7, &mut NamedBroker::clone), stream, "a broker that keeps its name");
        let mut to_tap = |named: &NamedBroker| NamedBroker {
            plain: named.plain.as_ref().map(|_| TAP.to_owned()),
            tls: named.tls.as_ref().map(|_| TAP.to_owned()),
            ..named.clone()
        };
        let whole = through(stream.len(), &mut to_tap);
        assert_eq!(whole, through(3, &mut to_tap), "how bytes are split changes nothing");
        check_rewritten(stream, &whole);
    }
}

/// Frame by frame the same but for what names a broker; behind what is no frame all is the same.
fn check_rewritten(mut before: &[u8], mut after: &[u8]) {
    loop {
        let (Some(old), Some(new)) = (front_frame(before), front_frame(after)) else {
            return assert_eq!(before, after, "behind the last frame");
        };
        if old != new {
            let command = |frame: &[u8]| match frames(Bytes::copy_from_slice(frame)).next() {
                Some(Ok(Frame::Other(command))) => command.command_type(),
                other => panic!("rewritten although it cannot be read: {other:?}"),
            };
            assert_eq!(command(old), command(new));
            assert!([15, 16, 24, 68].contains(&command(old)), "it names no broker");
        }
        before = &before[old.len()..];
        after = &after[new.len()..];
    }
}

fn front_frame(stream: &[u8]) -> Option<&[u8]> {
    let total = u32::from_be_bytes(*stream.first_chunk()?) as usize;
    let command = u32::from_be_bytes(*stream.get(4..)?.first_chunk()?) as usize;
    stream.get(..total + 4).filter(|_| total >= 4 && command <= total - 4)
}

/// It holds no more than its bound, and no byte is lost without a word.
fn check_queue(segments: &[Segment], choices: &mut Choices<'_>) {
    let (queue, mut feed) = TapQueue::with_feed(QUEUE_BYTES_MAX);
    let (mut out, mut has_unseen) = (Vec::new(), false);
    let mut put = |item| match item {
        TapItem::Segment(segment) => out.push(segment),
        TapItem::Note(_) => has_unseen = true,
    };
    for segment in segments {
        queue.push(segment.clone());
        for _ in 0..choices.below(3) {
            feed.try_next().into_iter().for_each(&mut put);
        }
    }
    drop(queue);
    feed.for_each(&mut put);
    let counts = |segments: &[Segment]| {
        let mut counts: BTreeMap<(u64, Direction), u64> = BTreeMap::new();
        for segment in segments {
            let (direction, count) = match &segment.event {
                SegmentEvent::Bytes { direction, bytes } => (*direction, bytes.len() as u64),
                SegmentEvent::Missing { direction, count } => (*direction, *count),
                _ => continue,
            };
            *counts.entry((segment.connection, direction)).or_default() += count;
        }
        counts
    };
    let (pushed, told) = (counts(segments), counts(&out));
    if !has_unseen {
        assert_eq!(pushed, told, "no byte is lost without a word");
    }
    assert!(told.iter().all(|(place, count)| pushed.get(place).is_some_and(|pushed| count <= pushed)));
    let mut opened = std::collections::BTreeSet::new();
    for segment in &out {
        let is_new = opened.insert(segment.connection);
        assert_eq!(is_new, matches!(segment.event, SegmentEvent::Opened { .. }), "a connection opens once and first");
    }
}
