//! The limit, not a client: one blocking thread that only frames, sums, writes, reads and matches the bytes that a
//! client has to. No loss, no reconnect, no API, and ids of one length.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use pulsar_native::pb;
use pulsar_native::wire::{AckFrame, AckId, AckWords, SendHead, put_ack, put_flow, put_send_head};

use crate::latency::{Latencies, PingPong};
use crate::measurement::Measurement;
use crate::sink::{ENTRY_ID_FIRST, body, fields, fixed_id, request, whole_frame};
use crate::work::{Consume, Produce, WARM_UP_DIVISOR};

/// What is framed before it is written.
const WRITE_BYTES: usize = 64 * 1024;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// The locked instructions that a message takes in the client, and nothing else: lock and unlock of its endpoint, and of a received
/// message a reference to its entry, counted and given back. A send takes over a reference of an earlier one.
pub(crate) fn locked(messages: u64, is_received: bool) -> String {
    let (endpoint, shared) = (Mutex::new(0), Arc::new(1));
    let measurement = Measurement::start();
    for _ in 0..messages {
        let reference = is_received.then(|| black_box(&shared).clone());
        *black_box(&endpoint).lock().unwrap_or_else(PoisonError::into_inner) += 1;
        drop(black_box(reference));
    }
    measurement.stop(messages)
}

/// A connection with one producer or consumer on it.
struct RawConnection {
    socket: TcpStream,
    rx: Vec<u8>,
    filled: usize,
}

impl RawConnection {
    fn open(url: &str, requests: &[Vec<u8>]) -> io::Result<Self> {
        let socket = TcpStream::connect(url.trim_start_matches("pulsar://"))?;
        socket.set_nodelay(true)?;
        let mut connection = Self { socket, rx: vec![0; 2 * READ_BYTES], filled: 0 };
        for request in requests {
            connection.socket.write_all(request)?;
            let mut answered = false;
            while !answered {
                connection.read(|_| answered = true)?;
            }
        }
        Ok(connection)
    }

    /// One read; gives the whole frames that are there by then.
    fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        if self.filled == self.rx.len() {
            self.rx.resize(2 * self.filled, 0);
        }
        let n = self.socket.read(&mut self.rx[self.filled..])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += n;
        let mut at = 0;
        while let Some(frame) = whole_frame(&self.rx[at..self.filled]) {
            each(frame);
            at += frame.len();
        }
        self.rx.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

fn connect() -> Vec<u8> {
    request(pb::CommandConnect {
        client_version: "baseline".to_owned(),
        protocol_version: Some(21),
        ..Default::default()
    })
}

pub(crate) fn producer() -> [Vec<u8>; 2] {
    let producer = pb::CommandProducer { topic: "persistent://public/default/t".to_owned(), ..Default::default() };
    [connect(), request(producer)]
}

/// Requests that are on their way at the same time, while endpoints are attached.
const REQUESTS_IN_FLIGHT: u64 = 128;

pub(crate) fn producer_of(topic: &str, id: u64) -> Vec<u8> {
    request(pb::CommandProducer { topic: topic.to_owned(), producer_id: id, request_id: id, ..Default::default() })
}

pub(crate) fn consumer_of(topic: &str, id: u64) -> Vec<u8> {
    request(pb::CommandSubscribe {
        topic: topic.to_owned(),
        subscription: "s".to_owned(),
        sub_type: pb::command_subscribe::SubType::Shared as i32,
        consumer_id: id,
        request_id: id,
        ..Default::default()
    })
}

/// What a client asks before it has so many producers or consumers: the partitions of each topic, its broker, and to open it.
pub(crate) fn attach(url: &str, count: u64, open: fn(&str, u64) -> Vec<u8>) -> io::Result<String> {
    let topic = |id: u64| format!("persistent://public/default/bare-{}-{id}", std::process::id());
    let partitions = |topic: &str, request_id| {
        let topic = topic.to_owned();
        request(pb::CommandPartitionedTopicMetadata { topic, request_id, ..Default::default() })
    };
    let lookup = |topic: &str, request_id| {
        request(pb::CommandLookupTopic { topic: topic.to_owned(), request_id, ..Default::default() })
    };
    let mut connection = RawConnection::open(url, &[connect()])?;
    let start = Instant::now();
    for ask in [&partitions as &dyn Fn(&str, u64) -> Vec<u8>, &lookup, &open] {
        let (mut asked, mut answered) = (0, 0);
        while answered < count {
            let mut out = Vec::new();
            while asked < count && asked - answered < REQUESTS_IN_FLIGHT {
                out.extend_from_slice(&ask(&topic(asked), asked));
                asked += 1;
            }
            connection.socket.write_all(&out)?;
            connection.read(|_| answered += 1)?;
        }
    }
    Ok(format!("secs={:.6}", start.elapsed().as_secs_f64()))
}

/// SEND frames: what does not change is copied as it is, records are written one by one, each from a payload.
pub(crate) struct Framer {
    /// All before the first record, or before the payload of a message outside a batch.
    head: Vec<u8>,
    /// Where sequence ids lie in the head, and which: that of the first message, or of the one so many behind it.
    ids: Vec<(usize, u64)>,
    /// Where the checksum lies; it covers all behind it.
    checksum_at: usize,
    /// What stands before each payload of a batch, ending with the sequence id.
    record: Vec<u8>,
    payload: Vec<u8>,
    members: u64,
}

impl Framer {
    pub(crate) fn new(batch: u64, payload_bytes: usize) -> Self {
        let entry = crate::sink::entry(if batch > 1 { batch } else { 0 }, payload_bytes);
        let mut head = SendHead::new(0, ENTRY_ID_FIRST);
        if batch > 1 {
            head.num_messages = batch as i32;
            head.highest_sequence_id = Some(ENTRY_ID_FIRST + batch - 1);
        }
        let mut frame = BytesMut::new();
        put_send_head(&mut frame, &head, entry.len());
        let checksum_at = frame.len() + 2;
        let metadata_bytes = u32::from_be_bytes([entry[6], entry[7], entry[8], entry[9]]) as usize;
        let behind = &entry[10 + metadata_bytes..];
        frame.extend_from_slice(&entry[..10 + metadata_bytes]);
        let mut ids = Vec::new();
        for at in 0..frame.len() - 3 {
            for (id, place) in [(ENTRY_ID_FIRST, 0), (ENTRY_ID_FIRST + batch - 1, batch - 1)] {
                if frame[at..at + 4] == fixed_id(id) && !ids.contains(&(at, place)) {
                    ids.push((at, place));
                }
            }
        }
        let record_bytes = if batch > 1 { behind.len() / batch as usize - payload_bytes } else { 0 };
        Self {
            head: frame.to_vec(),
            ids,
            checksum_at,
            record: behind[..record_bytes].to_vec(),
            payload: vec![b'x'; payload_bytes],
            members: batch,
        }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>, first: u64) {
        let start = out.len();
        out.extend_from_slice(&self.head);
        for &(at, behind) in &self.ids {
            out[start + at..start + at + 4].copy_from_slice(&fixed_id(first + behind));
        }
        if self.record.is_empty() {
            out.extend_from_slice(&self.payload);
        } else {
            let unchanged = &self.record[..self.record.len() - 4];
            for member in 0..self.members {
                out.extend_from_slice(unchanged);
                out.extend_from_slice(&fixed_id(first + member));
                out.extend_from_slice(std::hint::black_box(&self.payload));
            }
        }
        let at = start + self.checksum_at;
        let sum = crc32c::crc32c(&out[at + 4..]);
        out[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Sends and matches receipts.
pub(crate) fn produce(url: &str, work: &Produce) -> io::Result<String> {
    let framer = Framer::new(work.batch, work.size);
    let mut connection = RawConnection::open(url, &producer())?;
    produce_some(&mut connection, &framer, work, work.messages / WARM_UP_DIVISOR)?;
    let measurement = Measurement::start();
    produce_some(&mut connection, &framer, work, work.messages)?;
    Ok(measurement.stop(work.messages))
}

fn produce_some(connection: &mut RawConnection, framer: &Framer, work: &Produce, messages: u64) -> io::Result<()> {
    let last = ENTRY_ID_FIRST + messages;
    let (mut next, mut settled) = (ENTRY_ID_FIRST, ENTRY_ID_FIRST);
    let mut out = Vec::with_capacity(WRITE_BYTES + framer.members as usize * framer.payload.len());
    while settled < last {
        while next < last && next - settled + framer.members <= work.in_flight.max(framer.members) {
            framer.put(&mut out, next);
            next += framer.members;
            if out.len() >= WRITE_BYTES {
                connection.socket.write_all(&out)?;
                out.clear();
            }
        }
        connection.socket.write_all(&out)?;
        out.clear();
        connection.read(|frame| {
            let id = fields(body(frame)).find(|&(number, _)| number == 2).map(|(_, id)| id);
            assert_eq!(id, Some(settled), "receipts come in order");
            settled += framer.members;
        })?;
    }
    Ok(())
}

/// Receives, sums, walks batches, and acknowledges every entry.
pub(crate) fn consume(url: &str, work: &Consume) -> io::Result<String> {
    let subscribe = pb::CommandSubscribe {
        topic: work.topics().next().expect("it has one"),
        subscription: "s".to_owned(),
        sub_type: pb::command_subscribe::SubType::Shared.into(),
        consumer_name: Some("c".to_owned()),
        ..Default::default()
    };
    let mut connection = RawConnection::open(url, &[connect(), request(subscribe)])?;
    let mut out = BytesMut::new();
    put_flow(&mut out, 0, work.queue);
    let mut measurement = Measurement::start();
    let (mut received, mut credits, mut entries) = (0, 0, 0u64);
    let (warm_up, mut warm) = (work.messages / WARM_UP_DIVISOR, false);
    let mut ids = Vec::new();
    while received < work.messages {
        connection.socket.write_all(&out)?;
        out.clear();
        connection.read(|frame| {
            let (id, members) = take_message(frame);
            assert_eq!(id, ENTRY_ID_FIRST + entries, "entries come in order");
            entries += 1;
            ids.push(AckId { ledger_id: crate::sink::LEDGER_ID, entry_id: id, ack_set: AckWords::NONE });
            received += members;
            credits += members as u32;
        })?;
        if !ids.is_empty() {
            let ack =
                AckFrame { consumer_id: 0, cumulative: false, ids: &ids, validation_error: None, request_id: None };
            put_ack(&mut out, &ack);
            ids.clear();
        }
        if credits >= work.queue / 2 {
            put_flow(&mut out, 0, credits);
            credits = 0;
        }
        if !warm && received >= warm_up {
            (warm, measurement) = (true, Measurement::start());
        }
    }
    connection.socket.write_all(&out)?;
    let figures = measurement.stop(work.messages - warm_up);
    // The answer to the last request says that all before it was taken.
    connection.socket.write_all(&request(pb::CommandCloseConsumer::default()))?;
    connection.read(|_| {})?;
    Ok(figures)
}

/// The entry id of a MESSAGE, and how many messages it holds.
fn take_message(frame: &[u8]) -> (u64, u64) {
    let command_end = 8 + u32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
    let body = body(frame);
    // consumer_id, then the message id with its length.
    let id = fields(&body[4..4 + usize::from(body[3])]).find(|&(number, _)| number == 2).map_or(0, |(_, id)| id);
    let entry = &frame[command_end..];
    let sum = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
    assert_eq!(crc32c::crc32c(&entry[6..]), sum, "the sum is right");
    let metadata_bytes = u32::from_be_bytes([entry[6], entry[7], entry[8], entry[9]]) as usize;
    let (metadata, mut payload) = entry[10..].split_at(metadata_bytes);
    let Some((_, count)) = fields(metadata).find(|&(number, _)| number == 11) else { return (id, 1) };
    for _ in 0..count {
        let size = u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]) as usize;
        let (single, behind) = payload[4..].split_at(size);
        let bytes = fields(single).find(|&(number, _)| number == 3).map_or(0, |(_, bytes)| bytes as usize);
        payload = std::hint::black_box(&behind[bytes..]);
    }
    (id, count)
}

/// One SEND, its receipt, the next.
pub(crate) fn ping_pong(url: &str, work: &PingPong) -> io::Result<String> {
    let framer = Framer::new(1, work.size);
    let mut connection = RawConnection::open(url, &producer())?;
    let mut latencies = Latencies::default();
    let mut out = Vec::new();
    for round in 0..work.messages + work.messages / WARM_UP_DIVISOR {
        let start = Instant::now();
        out.clear();
        framer.put(&mut out, ENTRY_ID_FIRST + round);
        connection.socket.write_all(&out)?;
        let mut answered = false;
        while !answered {
            connection.read(|_| answered = true)?;
        }
        if round >= work.messages / WARM_UP_DIVISOR {
            latencies.add(start.elapsed());
        }
    }
    Ok(latencies.words())
}
