//! Frames that are made of the fuzzer's bytes by the schema: all fields, right lengths, right checksums. What is made so is
//! accepted, and what was put in comes out.

use bytes::{BufMut, Bytes};

use super::entries::{UNCOMPRESSED_BYTES_MAX, compare_metadata, entry};
use super::frames::{LIMITS, command, framed, read_stream};
use crate::wire::compress::{self, Compression};
use crate::wire::entry::{BrokerEntryMetadata, EntryParts};
use crate::wire::explain::explain;
use crate::wire::explain::generate::{Source, base_command, base_command_lacking, message};
use crate::wire::{BatchCursor, Command, Frame, MAGIC_BROKER_ENTRY_METADATA, MAGIC_CRC32C, Metadata};

/// Commands with any of their fields, some with an entry, as one stream that is divided anywhere.
pub fn built_stream(data: &[u8]) {
    let mut source = Source::new(data);
    let (mut stream, mut types) = (Vec::new(), Vec::new());
    for _ in 0..=source.below(4) {
        let (kind, body) = base_command(&mut source);
        command(&body);
        assert!(matches!(Command::decode_base(&body), Ok(Some(_))), "a command with what it has to have");
        let (frame, entry) = (framed(&body), source.bytes(40));
        if frame.len() + entry.len() > LIMITS.frame_bytes_max {
            return;
        }
        // Behind other commands than SEND and MESSAGE the bytes are skipped.
        stream.put_u32((frame.len() - 4 + entry.len()) as u32);
        stream.extend([&frame[4..], entry].concat());
        types.push((kind, entry));
    }
    let split = source.below(stream.len() + 1);
    let (frames, error) = read_stream(&[&stream[..split], &stream[split..]]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), types.len());
    for (frame, (kind, expected)) in frames.iter().zip(types) {
        let number = Command::ALL.iter().find(|(_, name)| *name == frame.name()).map(|(number, _)| *number);
        assert_eq!(number, Some(kind), "{}", frame.name());
        if let Frame::Send { entry, .. } | Frame::Message { entry, .. } = frame {
            assert_eq!(entry, expected);
        }
    }
    if let Some(lacking) = base_command_lacking(&mut source) {
        assert!(Command::decode_base(&lacking).is_err(), "a field that has to be there is not");
    }
    let explained = explain(&stream);
    assert_eq!(explained.len(), frames.len());
}

/// What an entry is made of.
struct Built {
    entry: Vec<u8>,
    /// Before compression.
    payload: Vec<u8>,
    /// Those of the records; `None` without a batch.
    records: Option<Vec<Vec<u8>>>,
}

/// An entry with a right checksum, any metadata, a batch or not, compressed or not; and the same with one byte changed, which
/// the checksum shows.
pub fn built_entry(data: &[u8]) {
    let mut source = Source::new(data);
    let built = build_entry(&mut source);
    let bytes = Bytes::from(built.entry.clone());
    let parts = EntryParts::split(&bytes).expect("all parts are there");
    assert_eq!(parts.verify(&bytes), Ok(()));
    let serialized = &bytes[parts.metadata.clone()];
    let metadata = Metadata::decode(serialized).expect("metadata with what it has to have");
    compare_metadata(serialized, &metadata);
    if let Some(range) = parts.broker_metadata.clone() {
        assert!(BrokerEntryMetadata::decode(&bytes[range]).is_ok());
    }
    let packed = bytes.slice(parts.payload.clone());
    let size = metadata.uncompressed_size;
    let payload = compress::decompress(metadata.compression, &packed, size, UNCOMPRESSED_BYTES_MAX);
    let payload = payload.expect("what was compressed");
    assert_eq!(payload, built.payload);
    if let Some(expected) = &built.records {
        let mut cursor = BatchCursor::new(expected.len() as i32, payload.len()).expect("a batch");
        for expected in expected {
            let record = cursor.next(&payload).expect("another record").expect("with what it has to have");
            assert_eq!(&payload[record.payload], expected);
        }
        assert!(cursor.next(&payload).is_none());
    }
    entry(&bytes);
    damaged(&mut source, &built.entry, &parts);
}

/// One byte of it is another.
fn damaged(source: &mut Source<'_>, bytes: &[u8], parts: &EntryParts) {
    let (at, change) = (source.below(bytes.len()), source.byte());
    let mut bytes = bytes.to_vec();
    bytes[at] ^= change;
    if change != 0 && at >= parts.checksummed_from && parts.checksum.is_some() {
        // The size of the metadata is under the checksum too, so the parts may be others; the start of the sum is not.
        assert!(parts.verify(&bytes).is_err(), "a byte that was changed under the checksum");
    }
    entry(&bytes);
}

fn build_entry(source: &mut Source<'_>) -> Built {
    let records: Option<Vec<Vec<u8>>> = match source.below(4) {
        0 => None,
        count => Some((0..count).map(|_| source.bytes(60).to_vec()).collect()),
    };
    let payload = match &records {
        None => source.bytes(300).to_vec(),
        Some(records) => {
            let mut payload = Vec::new();
            for record in records {
                let single = message("SingleMessageMetadata", source, &[("payload_size", Some(record.len() as u64))]);
                payload.put_u32(single.len() as u32);
                payload.extend(single);
                payload.extend(record);
            }
            payload
        }
    };
    let built_in = Compression::ALL.map(|codec| if codec.is_built_in() { codec } else { Compression::None });
    let codec = built_in[source.below(built_in.len())];
    let packed = compress::compress(codec, None, &payload).expect("a codec that is built in");
    let fixed = [
        ("compression", Some(codec.to_pb() as u64)),
        ("uncompressed_size", Some(payload.len() as u64)),
        ("num_messages_in_batch", records.as_ref().map(|records| records.len() as u64)),
    ];
    let metadata = message("MessageMetadata", source, &fixed);
    let mut rest = Vec::new();
    rest.put_u32(metadata.len() as u32);
    rest.extend([&metadata[..], &packed].concat());
    let mut entry = Vec::new();
    if source.below(2) == 1 {
        let broker = message("BrokerEntryMetadata", source, &[]);
        entry.put_u16(MAGIC_BROKER_ENTRY_METADATA);
        entry.put_u32(broker.len() as u32);
        entry.extend(broker);
    }
    if source.below(4) != 3 {
        entry.put_u16(MAGIC_CRC32C);
        entry.put_u32(crc32c::crc32c(&rest));
    }
    entry.extend(rest);
    Built { entry, payload, records }
}
