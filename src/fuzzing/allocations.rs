//! What a decoder can be made to allocate: for the inputs of its corpus, those repeated, and changes of them, all that it allocates
//! together, freed or not, stays within a multiple of the input's length. So no length field alone makes it allocate. Compressed
//! payloads are held to the declared size and its limit by `tests/leaks/bombs.rs`.
//!
//! The counts are those of a whole process: the test runs itself in a process of its own.

use std::alloc::System;
use std::env;
use std::process::Command as Process;

use bytes::{Bytes, BytesMut};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use super::inputs::{Changes, corpus, dictionary, folder};
use crate::checkpoint::Checkpoint;
use crate::id::MessageId;
use crate::topic::TopicName;
use crate::wire::explain::generate;
use crate::wire::{
    BatchCursor, Command, EntryParts, Limits, Metadata, SingleMetadata, cut, decompress, frames, message_properties,
};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Changed inputs for each decoder.
const CHANGES: usize = 1_000;

/// How often an input is repeated to make a long one, in which what is allocated once counts little.
const REPEATED: usize = 24;

/// Error texts, and the smallest buffers that there are, bytes.
const SMALL: usize = 512;

/// Set in the process that counts: `1`, or the name of the bug that is planted there.
const ALONE: &str = "FUZZ_ALLOCATIONS_ALONE";

struct Decoder {
    name: &'static str,
    corpus: &'static str,
    /// Allocated bytes for each byte of the input, beside [`SMALL`]: twice what is seen.
    per_byte_max: usize,
    /// Allocated whatever the input, beside [`SMALL`], bytes.
    fixed_max: usize,
    decode: fn(&Bytes),
}

/// Of one that allocates this much whatever the input, beside [`SMALL`]: tables and buffers of a fixed size.
const fn beside(fixed_max: usize, decoder: Decoder) -> Decoder {
    Decoder { fixed_max, ..decoder }
}

const fn decoder(name: &'static str, corpus: &'static str, per_byte_max: usize, decode: fn(&Bytes)) -> Decoder {
    Decoder { name, corpus, per_byte_max, fixed_max: 0, decode }
}

/// The read buffer is made beforehand: what arrives is in it already.
fn of_stream(input: &Bytes, read: impl FnOnce(&mut BytesMut)) {
    let mut rx = BytesMut::from(&input[..]);
    read(&mut rx);
}

fn read_frames(rx: &mut BytesMut) {
    while let Ok(Some(run)) = cut(rx, &Limits::default()) {
        frames(run).for_each(drop);
    }
}

#[cfg(feature = "client")]
fn read_codec(rx: &mut BytesMut) {
    use tokio_util::codec::Decoder as _;
    let mut codec = crate::wire::codec::PulsarCodec::new(Limits::default());
    while let Ok(Some(_)) = codec.decode(rx) {}
}

fn read_entry(entry: &Bytes) {
    let Ok(parts) = EntryParts::split(entry) else { return };
    let _ = parts.verify(entry);
    let serialized = &entry[parts.metadata.clone()];
    let Ok(metadata) = Metadata::decode(serialized) else { return };
    message_properties(serialized).for_each(drop);
    let payload = entry.slice(parts.payload);
    // What is declared is allocated: see `bombs`.
    let Ok(payload) = decompress(metadata.compression, &payload, metadata.uncompressed_size, payload.len()) else {
        return;
    };
    read_batch(metadata.num_messages_in_batch.unwrap_or(1), &payload);
}

fn read_batch(count: i32, payload: &[u8]) {
    let Ok(mut cursor) = BatchCursor::new(count, payload.len()) else { return };
    while let Some(Ok(_)) = cursor.next(payload) {}
    let _ = SingleMetadata::decode(payload);
}

fn text(input: &Bytes) -> &str {
    std::str::from_utf8(input).unwrap_or_default()
}

/// The body of an answer, to a request that the first byte chooses.
#[cfg(feature = "http")]
fn read_answer(input: &Bytes) {
    let [request, _, _, body @ ..] = &input[..] else { return };
    let topic = "persistent://public/default/t".to_owned();
    let asked: Command = match request % 4 {
        0 => crate::pb::CommandLookupTopic { topic, ..Default::default() }.into(),
        1 => crate::pb::CommandPartitionedTopicMetadata { topic, ..Default::default() }.into(),
        2 => crate::pb::CommandGetTopicsOfNamespace { namespace: topic, ..Default::default() }.into(),
        _ => crate::pb::CommandGetSchema { topic, ..Default::default() }.into(),
    };
    let _ = crate::client::http::response::read(&asked, 200, body);
}

#[cfg(feature = "broker")]
fn read_avro(input: &Bytes) {
    for line in input.splitn(2, |byte| *byte == b'\n') {
        let _ = crate::broker::avro::AvroSchema::parse(line);
    }
}

#[cfg(feature = "broker")]
fn read_token(input: &Bytes) {
    let _ = crate::broker::authentication::token::check(b"a key for fuzzing", input, 1_700_000_000_000);
}

#[cfg(feature = "capture")]
fn read_capture(input: &Bytes) {
    crate::capture::SegmentReader::new(&input[..]).for_each(drop);
}

const DECODERS: &[Decoder] = &[
    decoder("frames", "frame", 2, |input| of_stream(input, read_frames)),
    #[cfg(feature = "client")]
    decoder("the codec", "codec", 2, |input| of_stream(input, read_codec)),
    decoder("a command", "command", 36, |input| drop(Command::decode_base(input))),
    decoder("an entry", "entry", 1, read_entry),
    decoder("a batch", "batch", 1, |input| read_batch(input.len() as i32 / 8, input)),
    decoder("the bytes of an id", "message_id", 1, |input| drop(MessageId::from_bytes(input))),
    decoder("the text of an id", "message_id", 2, |input| drop(text(input).parse::<MessageId>())),
    beside(1024, decoder("the bytes of a checkpoint", "checkpoint", 2, |input| drop(Checkpoint::from_bytes(input)))),
    beside(1024, decoder("the text of a checkpoint", "checkpoint", 8, |input| drop(text(input).parse::<Checkpoint>()))),
    decoder("a topic", "topic", 3, |input| drop(TopicName::parse(text(input)))),
    decoder("a context of a trace", "trace_context", 2, |input| drop(crate::TraceContext::new(text(input)))),
    decoder("a certificate", "certificate", 1, |input| _ = crate::common_name::common_name(input)),
    beside(2048, decoder("explain", "explain", 400, |input| drop(crate::wire::explain::explain(input)))),
    #[cfg(feature = "http")]
    beside(2048, decoder("an answer over HTTP", "http_answer", 4, read_answer)),
    #[cfg(feature = "http")]
    beside(2048, decoder("an answer that names a cluster", "cluster_answer", 4, |input| super::cluster_answer(input))),
    #[cfg(feature = "oauth2")]
    beside(2048, decoder("OAuth2", "oauth2", 4, |input| super::oauth2(input))),
    #[cfg(feature = "broker")]
    decoder("a token", "token", 1, read_token),
    #[cfg(feature = "broker")]
    beside(2048, decoder("an Avro schema", "avro", 64, read_avro)),
    #[cfg(feature = "capture")]
    decoder("a dump", "dump", 16, |input| drop(crate::capture::read_dump(text(input)))),
    #[cfg(feature = "capture")]
    beside(65 * 1024, decoder("a capture file", "capture", 2, read_capture)),
    #[cfg(feature = "referee")]
    decoder("a line of a glue", "referee_line", 2, |input| drop(crate::referee::Line::parse(text(input)))),
];

/// The bytes that `work` allocates, freed or not. What is made once for a thread is there at the second run.
fn allocated(mut work: impl FnMut()) -> usize {
    let mut once = || {
        let before = MEMORY.stats().bytes_allocated;
        work();
        MEMORY.stats().bytes_allocated - before
    };
    once().min(once())
}

/// The first decoder and input that exceed their bound.
fn exceeding() -> Option<String> {
    let words = dictionary(&generate::dictionary());
    for Decoder { name, corpus: target, per_byte_max, fixed_max, decode } in DECODERS {
        let inputs: Vec<Vec<u8>> = corpus(target).expect("a corpus").into_iter().map(|(_, data)| data).collect();
        let repeated: Vec<_> = inputs.iter().map(|input| input.repeat(REPEATED)).collect();
        let mut changes = Changes::new(inputs.clone(), words.clone(), 5);
        let mut worst = 0.0_f64;
        let changed = std::iter::repeat_with(|| changes.next()).take(CHANGES);
        for input in inputs.into_iter().chain(repeated).chain(changed) {
            let input = Bytes::from(input);
            let taken = allocated(|| decode(&input));
            let beside = SMALL + fixed_max;
            worst = worst.max(taken.saturating_sub(beside) as f64 / input.len().max(1) as f64);
            if taken > per_byte_max * input.len() + beside {
                return Some(format!("{name}: {} bytes made it allocate {taken}: {input:?}", input.len()));
            }
        }
        println!("{name}: at most {worst:.1} bytes for each byte, {per_byte_max} allowed");
    }
    None
}

/// Counts in a process of its own; whether it passes there, and what it prints.
pub(super) fn alone(plant: &str) -> (bool, String) {
    let program = env::current_exe().expect("the test's own program");
    let test = "fuzzing::allocations::no_decoder_allocates_more_than_a_multiple_of_its_input";
    let output = Process::new(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, plant)
        .output()
        .expect("it runs again");
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn no_decoder_allocates_more_than_a_multiple_of_its_input() {
    if folder().is_none() {
        return println!("skipped: no corpora beside the sources");
    }
    let Ok(plant) = env::var(ALONE) else {
        let (is_good, text) = alone("1");
        println!("{text}");
        return assert!(is_good, "a decoder allocates more than it may");
    };
    #[cfg(pulsar_mutations)]
    super::mutations::activate_named(&plant);
    let exceeding = exceeding();
    assert_eq!(exceeding, None, "{plant}");
}
