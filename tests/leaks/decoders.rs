//! What a decoder can be made to allocate: for the inputs of its corpus and changes of them, all that it allocates together,
//! freed or not, stays within a multiple of the input's length. So no length field alone makes it allocate.

use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use pulsar_native::topic::TopicName;
use pulsar_native::wire::codec::PulsarCodec;
use pulsar_native::wire::{
    BatchCursor, Command, EntryParts, Limits, Metadata, SingleMetadata, cut, decompress, frames, message_properties,
};
use pulsar_native::{Checkpoint, MessageId};
use tokio_util::codec::Decoder as _;

use super::inputs::{Changes, corpus, dictionary};
use super::*;

/// Changed inputs for each decoder.
const CHANGES: usize = 2_000;

/// Error texts, and the smallest buffers that there are, bytes.
const SMALL: usize = 1024;

struct Decoder {
    name: &'static str,
    corpus: &'static str,
    /// Allocated bytes for each byte of the input.
    per_byte_max: usize,
    decode: fn(&Bytes),
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

fn read_codec(rx: &mut BytesMut) {
    let mut codec = PulsarCodec::new(Limits::default());
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

const DECODERS: &[Decoder] = &[
    Decoder { name: "frames", corpus: "frame", per_byte_max: 80, decode: |input| of_stream(input, read_frames) },
    Decoder { name: "the codec", corpus: "codec", per_byte_max: 80, decode: |input| of_stream(input, read_codec) },
    Decoder {
        name: "a command",
        corpus: "command",
        per_byte_max: 80,
        decode: |input| drop(Command::decode_base(input)),
    },
    Decoder { name: "an entry", corpus: "entry", per_byte_max: 8, decode: read_entry },
    Decoder {
        name: "a batch",
        corpus: "batch",
        per_byte_max: 8,
        decode: |input| read_batch(input.len() as i32 / 8, input),
    },
    Decoder {
        name: "the bytes of an id",
        corpus: "message_id",
        per_byte_max: 8,
        decode: |input| drop(MessageId::from_bytes(input)),
    },
    Decoder {
        name: "the text of an id",
        corpus: "message_id",
        per_byte_max: 8,
        decode: |input| drop(text(input).parse::<MessageId>()),
    },
    Decoder {
        name: "a checkpoint",
        corpus: "checkpoint",
        per_byte_max: 80,
        decode: |input| drop((Checkpoint::from_bytes(input), text(input).parse::<Checkpoint>())),
    },
    Decoder { name: "a topic", corpus: "topic", per_byte_max: 8, decode: |input| drop(TopicName::parse(text(input))) },
];

#[test]
fn no_decoder_allocates_more_than_a_multiple_of_its_input() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.is_dir() {
        println!("skipped: no corpora beside the sources");
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let words = dictionary(&fs::read_to_string(fuzz.join("pulsar.dict")).expect("the dictionary"));
    for Decoder { name, corpus: target, per_byte_max, decode } in DECODERS {
        let inputs: Vec<Vec<u8>> = corpus(target).expect("a corpus").into_iter().map(|(_, data)| data).collect();
        let mut changes = Changes::new(inputs.clone(), words.clone(), 5);
        let mut worst = 0.0_f64;
        for input in inputs.into_iter().chain(std::iter::repeat_with(|| changes.next()).take(CHANGES)) {
            let input = Bytes::from(input);
            let ((), taken) = allocating(|| decode(&input));
            worst = worst.max(taken.saturating_sub(SMALL) as f64 / input.len().max(1) as f64);
            let max = per_byte_max * input.len() + SMALL;
            assert!(taken <= max, "{name}: {} bytes made it allocate {taken}: {input:?}", input.len());
        }
        println!("{name}: at most {worst:.1} bytes for each byte, beside {SMALL}");
    }
}
