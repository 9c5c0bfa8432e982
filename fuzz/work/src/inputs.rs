//! What each parser is given: n parts of one kind, in one input that it reads as a whole.

use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use pulsar_native::capture::recording::Recording;
use pulsar_native::capture::{Direction, FrameReader, Segment, SegmentEvent, SegmentReader, read_dump};
use pulsar_native::fuzzing;
use pulsar_native::machine::consumer::{Assembly, Chunk, ChunkLimits};
use pulsar_native::pb;
use pulsar_native::topic::TopicName;
use pulsar_native::wire::codec::PulsarCodec;
use pulsar_native::wire::explain::explain;
use pulsar_native::wire::{
    BatchCursor, Command, Compression, EntryParts, Frame, Limits, Metadata, MetadataFields, SingleFields, compress,
    cut, decompress, frames, message_properties, put_entry, put_record,
};
use pulsar_native::{Checkpoint, MessageId};
use tokio_util::codec::Decoder as _;

/// How many bytes the input has, and the call that is measured.
type Run = (usize, Box<dyn FnOnce()>);

/// Makes the input of so many parts.
type Parser = fn(usize) -> Run;

pub const PARSERS: &[(&str, Parser)] = &[
    ("frames", frames_whole),
    ("frames, byte by byte", frames_by_bytes),
    ("one frame, byte by byte", frame_by_bytes),
    ("codec, byte by byte", codec_by_bytes),
    ("command, repeated texts", command_of_topics),
    ("command, repeated fields", command_of_one_field),
    ("ids in ids", ids_in_ids),
    ("metadata, properties", metadata),
    ("metadata, unknown fields", metadata_unknown),
    ("batch", batch),
    ("chunks", chunks),
    ("chunks, one message each", chunks_of_many),
    ("decompress lz4", |n| codec(Compression::Lz4, n)),
    ("decompress zlib", |n| codec(Compression::Zlib, n)),
    ("decompress snappy", |n| codec(Compression::Snappy, n)),
    ("decompress zstd", |n| codec(Compression::Zstd, n)),
    ("explain, many frames", explain_frames),
    ("explain, one frame", explain_fields),
    ("frame reader, by bytes", reader_by_bytes),
    ("frame reader, noise", reader_of_noise),
    ("dump, hexdump -C", dump_rows),
    ("dump, one line", dump_line),
    ("capture, packets", capture),
    ("capture, connections", capture_connections),
    ("topic name", topic),
    ("service URL", service_url),
    ("checkpoint", checkpoint),
    ("message id, text", message_id),
    ("certificate", certificate),
    ("avro", avro),
    ("token", token),
    ("admin, one body", admin),
    ("http answer", http_answer),
];

fn run(bytes: usize, call: impl FnOnce() + 'static) -> Run {
    (bytes, Box::new(call))
}

fn written(command: impl Into<Command>) -> BytesMut {
    let mut out = BytesMut::new();
    Frame::Other(command.into()).encode(&mut out);
    out
}

fn pings(count: usize) -> Vec<u8> {
    written(pb::CommandPing::default()).repeat(count)
}

fn read(rx: &mut BytesMut) -> usize {
    let mut count = 0;
    while let Some(all) = cut(rx, &Limits::default()).expect("frames") {
        count += frames(all).map(|frame| frame.expect("a frame")).count();
    }
    count
}

fn frames_whole(n: usize) -> Run {
    let stream = pings(n);
    run(stream.len(), move || assert_eq!(read(&mut BytesMut::from(&stream[..])), n))
}

fn by_bytes(stream: Vec<u8>, count: usize) -> Run {
    run(stream.len(), move || {
        let (mut rx, mut seen) = (BytesMut::new(), 0);
        for byte in stream {
            rx.extend_from_slice(&[byte]);
            seen += read(&mut rx);
        }
        assert_eq!(seen, count);
    })
}

fn frames_by_bytes(n: usize) -> Run {
    by_bytes(pings(n), n)
}

/// A frame with n topics.
fn topics(n: usize) -> BytesMut {
    let topics = (0..n).map(|number| format!("persistent://public/default/t{number}")).collect();
    written(pb::CommandGetTopicsOfNamespaceResponse { request_id: 1, topics, ..Default::default() })
}

fn frame_by_bytes(n: usize) -> Run {
    by_bytes(topics(n).to_vec(), 1)
}

fn codec_by_bytes(n: usize) -> Run {
    let stream = [&topics(n)[..], &pings(n)].concat();
    run(stream.len(), move || {
        let (mut codec, mut rx, mut seen) = (PulsarCodec::new(Limits::default()), BytesMut::new(), 0);
        for byte in stream {
            rx.extend_from_slice(&[byte]);
            while codec.decode(&mut rx).expect("frames").is_some() {
                seen += 1;
            }
        }
        assert_eq!(seen, n + 1);
    })
}

fn command_of_topics(n: usize) -> Run {
    let frame = topics(n).freeze();
    run(frame.len(), move || assert_eq!(frames(frame).filter(Result::is_ok).count(), 1))
}

/// One field again and again: the last one counts.
fn command_of_one_field(n: usize) -> Run {
    let body = [&[0x08, 1][..], &[0x10, 2].repeat(n), &[0x10, 1]].concat();
    let mut command = vec![0x08, 11, 0x5a];
    put_varint(&mut command, body.len());
    command.extend(&body);
    run(command.len(), move || assert!(Command::decode_base(&command).is_ok()))
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Deeper than anything may nest: refused.
fn ids_in_ids(n: usize) -> Run {
    let mut id = vec![0x08, 1, 0x10, 2];
    for _ in 0..n / 10 {
        let mut outer = vec![0x08, 1, 0x10, 2, 0x3a];
        put_varint(&mut outer, id.len());
        outer.extend(&id);
        id = outer;
    }
    run(id.len(), move || drop(MessageId::from_bytes(&id)))
}

fn properties(n: usize) -> Vec<(String, String)> {
    (0..n).map(|number| (format!("key {number}"), "value".to_owned())).collect()
}

fn metadata(n: usize) -> Run {
    let mut out = BytesMut::new();
    let fields = MetadataFields { producer_name: "p", properties: &properties(n), ..MetadataFields::default() };
    put_entry(&mut out, &fields, b"payload");
    let entry = out.freeze();
    run(entry.len(), move || {
        let parts = EntryParts::split(&entry).expect("an entry");
        parts.verify(&entry).expect("as it was made");
        let serialized = &entry[parts.metadata];
        Metadata::decode(serialized).expect("metadata");
        assert_eq!(message_properties(serialized).count(), n);
    })
}

fn metadata_unknown(n: usize) -> Run {
    let serialized = [&[0x0a, 1, b'p', 0x10, 1, 0x18, 1][..], &[0xf8, 0x3f, 1].repeat(n)].concat();
    run(serialized.len(), move || drop(Metadata::decode(&serialized).expect("metadata")))
}

fn batch(n: usize) -> Run {
    let mut out = BytesMut::new();
    let pairs = properties(2);
    let single = SingleFields { payload_size: 4, properties: &pairs, ..SingleFields::default() };
    (0..n).for_each(|_| put_record(&mut out, &single, b"1234"));
    run(out.len(), move || {
        let mut cursor = BatchCursor::new(n as i32, out.len()).expect("a batch");
        while let Some(record) = cursor.next(&out) {
            record.expect("a record");
        }
        assert_eq!(cursor.index() as usize, n);
    })
}

fn chunk_limits() -> ChunkLimits {
    ChunkLimits {
        message_bytes_max: 1 << 20,
        pending_max: 100,
        pending_bytes_max: 1 << 20,
        expire_after: Duration::from_secs(60),
    }
}

fn chunk(uuid: &str, chunk_id: usize, num_chunks: usize, entry: usize) -> Chunk<'_> {
    Chunk {
        uuid,
        publish_time_ms: 1,
        chunk_id: chunk_id as i32,
        num_chunks: num_chunks as i32,
        total_bytes: num_chunks as i32 * 10,
        position: pulsar_native::id::MessagePosition::new(1, entry as u64),
        redelivery_count: 0,
        payload: b"0123456789",
    }
}

fn chunks(n: usize) -> Run {
    run(n * 10, move || {
        let (mut assembly, now) = (Assembly::new(chunk_limits()), Instant::now());
        (0..n).for_each(|number| drop(assembly.add(&chunk("u", number, n, number), now)));
        assert_eq!(assembly.len(), 0);
    })
}

/// Messages of which none is ever complete.
fn chunks_of_many(n: usize) -> Run {
    run(n * 10, move || {
        let (mut assembly, now) = (Assembly::new(chunk_limits()), Instant::now());
        for number in 0..n {
            drop(assembly.add(&chunk(&format!("u{number}"), 0, 2, number), now));
            drop(assembly.take_dropped());
        }
    })
}

fn codec(codec: Compression, n: usize) -> Run {
    let data: Vec<u8> = (0..n).flat_map(|number| format!("record {number} of many; ").into_bytes()).collect();
    let packed = compress(codec, None, &data).expect("a codec that is built in");
    run(data.len(), move || {
        let output = decompress(codec.to_pb(), &packed, data.len() as u32, 1 << 24).expect("what was compressed");
        assert_eq!(output, data);
    })
}

fn explain_frames(n: usize) -> Run {
    let stream = pings(n);
    run(stream.len(), move || assert_eq!(explain(&stream).len(), n))
}

fn explain_fields(n: usize) -> Run {
    let stream = topics(n);
    run(stream.len(), move || {
        let frame = explain(&stream).remove(0);
        drop((frame.to_string(), frame.to_json(), frame.text().all_bytes(true).to_string()));
    })
}

fn reader_by_bytes(n: usize) -> Run {
    let stream = [&topics(n)[..], &pings(n)].concat();
    run(stream.len(), move || {
        let (mut reader, mut seen) = (FrameReader::new(false), 0);
        for byte in stream {
            reader.push(&[byte]);
            seen += std::iter::from_fn(|| reader.next_piece()).count();
        }
        assert_eq!(seen, n + 1);
    })
}

/// What might be the start of a frame, again and again.
fn reader_of_noise(n: usize) -> Run {
    let stream = [0, 0, 0, 5, 0, 0, 0, 5].repeat(n);
    run(stream.len(), move || {
        let mut reader = FrameReader::new(true);
        for piece in stream.chunks(100) {
            reader.push(piece);
            std::iter::from_fn(|| reader.next_piece()).for_each(drop);
        }
    })
}

fn dump_rows(n: usize) -> Run {
    let bytes = pings(n);
    let row = |(at, row): (usize, &[u8])| {
        let pairs: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:08x}  {}\n", at * 16, pairs.join(" "))
    };
    let text: String = bytes.chunks(16).enumerate().map(row).collect();
    run(text.len(), move || assert!(read_dump(&text).is_ok()))
}

fn dump_line(n: usize) -> Run {
    let text: String = pings(n).iter().map(|byte| format!("{byte:02x}")).collect();
    run(text.len(), move || assert!(read_dump(&text).is_ok()))
}

fn opened(connection: u64) -> Segment {
    let port = 1024 + (connection % 60_000) as u16;
    let client = SocketAddr::from(([127, 0, (connection / 60_000) as u8, 1], port));
    let broker = SocketAddr::from(([127, 0, 0, 1], 6650));
    Segment { connection, at: UNIX_EPOCH, event: SegmentEvent::Opened { client, broker, is_partial: false } }
}

fn data(connection: u64, bytes: Bytes) -> Segment {
    Segment { connection, at: UNIX_EPOCH, event: SegmentEvent::Bytes { direction: Direction::ToBroker, bytes } }
}

fn segments(segments: impl Iterator<Item = Segment>) -> Run {
    let mut recording = Recording::new(Vec::new(), "work").expect("memory takes all");
    segments.for_each(|segment| recording.write(&segment).expect("memory takes all"));
    let file = recording.into_inner();
    run(file.len(), move || assert!(SegmentReader::new(&file[..]).all(|segment| segment.is_ok())))
}

fn capture(n: usize) -> Run {
    let ping = written(pb::CommandPing::default()).freeze();
    segments(std::iter::once(opened(1)).chain((0..n).map(|_| data(1, ping.clone()))))
}

fn capture_connections(n: usize) -> Run {
    let ping = written(pb::CommandPing::default()).freeze();
    segments((1..=n as u64).flat_map(|connection| [opened(connection), data(connection, ping.clone())]))
}

fn topic(n: usize) -> Run {
    let text = format!("persistent://public/default/{}", "-partition-1".repeat(n));
    run(text.len(), move || assert!(TopicName::parse(&text).is_ok_and(|topic| topic.partition_index() == Some(1))))
}

fn service_url(n: usize) -> Run {
    let hosts: Vec<_> = (0..n).map(|number| format!("host{number}:6650")).collect();
    let text = format!("pulsar://{}", hosts.join(","));
    run(text.len(), move || fuzzing::service_url(text.as_bytes()))
}

fn checkpoint(n: usize) -> Run {
    let mut checkpoint = Checkpoint::new();
    for number in 0..n {
        let id = MessageId::new(1, number as u64);
        checkpoint.set(&format!("persistent://public/default/t{number}"), id).expect("a topic");
    }
    let (stored, text) = (checkpoint.to_bytes(), checkpoint.to_string());
    run(stored.len() + text.len(), move || {
        let one = Checkpoint::from_bytes(&stored).expect("what was written");
        let mut other: Checkpoint = text.parse().expect("what was shown");
        other.merge(&one);
        assert_eq!(one, other);
    })
}

fn message_id(n: usize) -> Run {
    let text = "1:".repeat(n);
    run(text.len(), move || drop(text.parse::<MessageId>()))
}

/// Sequences in sequences.
fn certificate(n: usize) -> Run {
    let bytes = [0x30, 0x80].repeat(n);
    run(bytes.len(), move || fuzzing::certificate(&bytes))
}

/// A record with n fields, which reads itself.
fn avro(n: usize) -> Run {
    let fields: Vec<_> = (0..n).map(|number| format!(r#"{{"name":"f{number}","type":"int"}}"#)).collect();
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{}]}}"#, fields.join(","));
    let both = format!("{schema}\n{schema}");
    run(both.len(), move || fuzzing::avro(both.as_bytes()))
}

fn token(n: usize) -> Run {
    let claims = format!(r#"{{"sub":"a","x":[{}1]}}"#, "1,".repeat(n));
    let data = [b"\x02{\"alg\":\"HS256\"}\n", claims.as_bytes()].concat();
    run(data.len(), move || fuzzing::token(&data))
}

fn admin(n: usize) -> Run {
    let roles = vec![r#""produce""#; n].join(",");
    let text = format!("POST /admin/v2/namespaces/public/default/permissions/role [{roles}]");
    run(text.len(), move || fuzzing::admin(text.as_bytes()))
}

fn http_answer(n: usize) -> Run {
    let topics: Vec<_> = (0..n).map(|number| format!(r#""persistent://public/default/t{number}""#)).collect();
    let data = [&[2, 0, 200][..], format!("[{}]", topics.join(",")).as_bytes()].concat();
    run(data.len(), move || fuzzing::http_answer(&data))
}
