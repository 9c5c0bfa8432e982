//! A description of a frame for people: every byte, field by field, with the names of `PulsarApi.proto`.
//!
//! For study and for bug reports, not for speed. It never fails: bytes that cannot be decoded are described as such.
//! For credentials only the length is shown.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::MAX_UNCOMPRESSED_SIZE_DEFAULT;
use super::batch::BatchCursor;
use super::command::Command;
use super::compress::decompress;
use super::entry::EntryParts;
use super::metadata::Metadata;
use super::proto::{Reader, Value};

include!(concat!(env!("OUT_DIR"), "/explain_fields.rs"));

/// The most bytes shown in hex on one line.
const SHOWN_BYTES_MAX: usize = 16;

/// How deep nested messages are followed; those of the protocol nest four deep.
const DEPTH_MAX: usize = 12;

/// One line of an [`explain`]ed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The bytes of the frame that it describes.
    pub bytes: Range<usize>,
    /// How deep the message of this field is nested.
    pub depth: usize,
    /// The description.
    pub text: String,
    /// Whether the bytes are a secret, which is not shown.
    pub is_secret: bool,
}

/// Describes one frame, from its `total_size` on.
#[must_use]
pub fn explain(frame: &[u8]) -> Explanation {
    let mut explained = Explanation { frame: frame.to_vec(), lines: Vec::new() };
    explained.frame();
    explained
}

/// The lines of a frame. `Display` prints them with offset and hex.
#[derive(Clone, PartialEq, Eq)]
pub struct Explanation {
    frame: Vec<u8>,
    /// In the order of the bytes.
    pub lines: Vec<Line>,
}

impl fmt::Debug for Explanation {
    /// Does not show the frame, which may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explanation").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Explanation {
    fn push(&mut self, bytes: Range<usize>, depth: usize, text: impl Into<String>) {
        self.lines.push(Line { bytes, depth, text: text.into(), is_secret: false });
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.frame.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    fn frame(&mut self) {
        let length = self.frame.len();
        let Some(total) = self.u32_at(0) else { return self.push(0..length, 0, "too short for total_size") };
        self.push(0..4, 0, format!("total_size = {total}: bytes after this field"));
        if total as usize + 4 != length {
            self.push(0..4, 0, format!("this frame has {} instead", length - 4));
        }
        let Some(command) = self.u32_at(4) else { return self.push(4..length, 0, "too short for command_size") };
        self.push(4..8, 0, format!("command_size = {command}"));
        let end = 8usize.saturating_add(command as usize);
        if end > length {
            return self.push(8..length, 0, "the command is truncated");
        }
        self.message(8..end, "BaseCommand", 1);
        if end < length {
            self.entry(end);
        }
    }

    /// The fields of one protobuf message.
    fn message(&mut self, bytes: Range<usize>, name: &'static str, depth: usize) {
        let body = self.frame[bytes.clone()].to_vec();
        let mut reader = Reader::new(&body, bytes.start);
        loop {
            let start = reader.offset();
            match reader.next("field") {
                Ok(None) => return,
                Ok(Some((number, value))) => {
                    self.field(start..reader.offset(), bytes.start, name, number, value, depth)
                }
                Err(error) => return self.push(start..bytes.end, depth, format!("not protobuf: {error}")),
            }
        }
    }

    fn field(&mut self, all: Range<usize>, base: usize, message: &str, number: u32, value: Value, depth: usize) {
        let known = FIELDS.iter().find(|field| field.0 == message && field.1 == number);
        let Some(&(_, _, name, type_name)) = known else {
            return self.push(all, depth, format!("field {number}: unknown to {message}"));
        };
        match value {
            Value::Varint(value) => {
                let text = number_text(value, type_name);
                self.push(all, depth, format!("{name} = {text}"));
            }
            Value::Fixed32(value) => self.push(all, depth, format!("{name} = {value:#010x}")),
            Value::Fixed64(value) => self.push(all, depth, format!("{name} = {:?}", f64::from_bits(value))),
            Value::Bytes(range) => {
                let inside = base + range.start..base + range.end;
                if name.contains("auth_data") && type_name != "AuthData" {
                    let text = format!("{name} = <{} bytes>", inside.len());
                    self.lines.push(Line { bytes: all, depth, text, is_secret: true });
                } else if let Some(inner) = message_name(type_name).filter(|_| depth < DEPTH_MAX) {
                    self.push(all.start..inside.start, depth, format!("{name}: {inner}, {} bytes", inside.len()));
                    self.message(inside, inner, depth + 1);
                } else {
                    let text = bytes_text(&self.frame[inside]);
                    self.push(all, depth, format!("{name} = {text}"));
                }
            }
        }
    }

    /// Everything after the command of SEND and MESSAGE.
    fn entry(&mut self, start: usize) {
        let length = self.frame.len();
        let parts = match EntryParts::split(&self.frame[start..]) {
            Ok(parts) => parts,
            Err(error) => return self.push(start..length, 0, format!("not an entry: {error}")),
        };
        let shifted = |range: &Range<usize>| start + range.start..start + range.end;
        if let Some(broker) = &parts.broker_metadata {
            let broker = shifted(broker);
            self.push(start..broker.start, 0, format!("magic 0x0e02: broker entry metadata, {} bytes", broker.len()));
            self.message(broker, "BrokerEntryMetadata", 1);
        }
        if let Some(checksum) = parts.checksum {
            let verdict = if parts.verify(&self.frame[start..]).is_ok() { "right" } else { "wrong" };
            let at = start + parts.checksummed_from;
            self.push(
                at - 6..at,
                0,
                format!("magic 0x0e01: CRC-32C {checksum:08x} of everything that follows, {verdict}"),
            );
        }
        let metadata = shifted(&parts.metadata);
        self.push(metadata.start - 4..metadata.start, 0, format!("metadata_size = {}", metadata.len()));
        self.message(metadata.clone(), "MessageMetadata", 1);
        let payload = shifted(&parts.payload);
        let parsed = Metadata::decode(&self.frame[metadata]).unwrap_or_default();
        match parsed.num_messages_in_batch.filter(|_| parsed.compression == 0 && !parsed.encrypted) {
            Some(count) => self.batch(payload, count),
            None => {
                let text = payload_text(&parsed, &self.frame[payload.clone()]);
                self.push(payload, 0, format!("payload = {text}"));
            }
        }
    }

    fn batch(&mut self, payload: Range<usize>, count: i32) {
        let bytes = self.frame[payload.clone()].to_vec();
        let mut cursor = match BatchCursor::new(count, bytes.len()) {
            Ok(cursor) => cursor,
            Err(error) => return self.push(payload, 0, format!("not a batch: {error}")),
        };
        while let Some(record) = cursor.next(&bytes) {
            let record = match record {
                Ok(record) => record,
                Err(error) => return self.push(payload, 0, format!("damaged batch: {error}")),
            };
            let shifted = |range: &Range<usize>| payload.start + range.start..payload.start + range.end;
            let own = shifted(&record.metadata_range);
            let text = format!("record {}: metadata size = {}", cursor.index() - 1, own.len());
            self.push(own.start - 4..own.start, 0, text);
            self.message(own, "SingleMessageMetadata", 1);
            let text = bytes_text(&bytes[record.payload.clone()]);
            self.push(shifted(&record.payload), 1, format!("payload = {text}"));
        }
    }
}

fn message_name(type_name: &str) -> Option<&'static str> {
    FIELDS.iter().find(|field| field.0 == type_name).map(|field| field.0)
}

fn number_text(value: u64, type_name: &str) -> String {
    let named = ENUM_VALUES.iter().find(|known| known.0 == type_name && i64::from(known.1) == value as i64);
    match named {
        Some((_, _, name)) => format!("{value} ({name})"),
        None if type_name == "bool" => (value != 0).to_string(),
        None if value > i64::MAX as u64 => format!("{value} ({})", value as i64),
        None => value.to_string(),
    }
}

/// The text of printable UTF-8; for anything else the length, since the hex is shown too.
fn bytes_text(bytes: &[u8]) -> String {
    const TEXT_MAX: usize = 60;
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control()) && text.chars().count() <= TEXT_MAX => format!("{text:?}"),
        _ => format!("{} bytes", bytes.len()),
    }
}

/// A payload as it is, and what it decompresses to where that is a message or a batch by itself.
fn payload_text(metadata: &Metadata, payload: &[u8]) -> String {
    let (text, codec) = (bytes_text(payload), metadata.compression);
    let is_part = metadata.encrypted || metadata.chunk.as_ref().is_some_and(|chunk| chunk.num_chunks > 1);
    if codec == 0 || is_part {
        return text;
    }
    let payload = Bytes::copy_from_slice(payload);
    match decompress(codec, &payload, metadata.uncompressed_size, MAX_UNCOMPRESSED_SIZE_DEFAULT) {
        Ok(content) => format!("{text}, decompressed {}", bytes_text(&content)),
        Err(error) => format!("{text}: {error}"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let bytes = self.frame.get(line.bytes.clone()).unwrap_or_default();
            let shown = if line.is_secret { &[][..] } else { &bytes[..bytes.len().min(SHOWN_BYTES_MAX)] };
            let mut hex: String = shown.iter().map(|byte| format!("{byte:02x} ")).collect();
            if shown.len() < bytes.len() {
                hex.push_str("..");
            }
            writeln!(f, "{:>6}  {hex:<50}  {:indent$}{}", line.bytes.start, "", line.text, indent = 2 * line.depth)?;
        }
        Ok(())
    }
}

/// The name of the command in a frame; `unreadable` if it cannot be decoded.
#[must_use]
pub fn command_name(frame: &[u8]) -> &'static str {
    let run = bytes::Bytes::copy_from_slice(frame);
    let first = super::frame::frames(run).next();
    first.and_then(Result::ok).map_or("unreadable", |frame| match &frame {
        super::Frame::Other(command) => Command::name(command),
        other => other.name(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::pb;
    use crate::wire::{MetadataFields, SendHead, SingleFields, put_record, seal};

    fn texts(frame: &[u8]) -> Vec<String> {
        explain(frame).lines.into_iter().map(|line| line.text).collect()
    }

    fn batch() -> Vec<u8> {
        let mut records = BytesMut::new();
        for payload in ["one", "three"] {
            let single = SingleFields { payload_size: payload.len() as i32, ..SingleFields::default() };
            put_record(&mut records, &single, payload.as_bytes());
        }
        let metadata =
            MetadataFields { producer_name: "p-1", num_messages_in_batch: Some(2), ..MetadataFields::default() };
        let frame = seal(&mut BytesMut::new(), &SendHead::new(3, 9), &metadata, records.freeze());
        [&frame.head[..], &frame.payload[..]].concat()
    }

    #[test]
    fn a_send_is_named_to_its_last_byte() {
        let frame = batch();
        let texts = texts(&frame);
        for wanted in [
            "type = 6 (SEND)",
            "producer_id = 3",
            "producer_name = \"p-1\"",
            "num_messages_in_batch = 2",
            "record 1: metadata size = 2",
            "payload = \"three\"",
        ] {
            assert!(texts.iter().any(|text| text == wanted), "{wanted} is not in {texts:#?}");
        }
        assert!(texts.iter().any(|text| text.ends_with("right")), "the checksum is compared");
        let covered: usize = explain(&frame).lines.iter().map(|line| line.bytes.len()).sum();
        assert_eq!(covered, frame.len(), "each byte is in one line");
    }

    #[test]
    fn a_compressed_payload_is_opened_or_says_why_not() {
        use crate::wire::compress::{Compression, compress};
        for codec in Compression::ALL.into_iter().filter(|codec| *codec != Compression::None) {
            let payload = compress(codec, None, b"a text").unwrap_or_else(|_| Bytes::from_static(b"?"));
            let metadata = MetadataFields {
                producer_name: "p-1",
                compression: codec.to_pb(),
                uncompressed_size: 6,
                ..MetadataFields::default()
            };
            let frame = seal(&mut BytesMut::new(), &SendHead::new(3, 9), &metadata, payload);
            let texts = texts(&[&frame.head[..], &frame.payload[..]].concat());
            let last = texts.last().expect("the payload");
            let wanted = if codec.is_built_in() { "decompressed \"a text\"" } else { "needs the crate feature" };
            assert!(last.starts_with("payload = ") && last.contains(wanted), "{last}");
        }
    }

    #[test]
    fn credentials_stay_secret() {
        let connect = pb::CommandConnect {
            client_version: "c".to_owned(),
            auth_method_name: Some("token".to_owned()),
            auth_data: Some(Bytes::from_static(b"very secret")),
            ..Default::default()
        };
        let mut frame = BytesMut::new();
        Command::from(connect).encode_frame(&mut frame);
        let shown = explain(&frame).to_string();
        assert!(shown.contains("auth_data = <11 bytes>") && !shown.contains("secret"), "{shown}");
        assert!(!shown.contains("76 65 72 79"), "{shown}");
    }

    #[test]
    fn every_cut_and_every_flipped_byte_ends_well() {
        let frame = batch();
        for end in 0..frame.len() {
            let _ = explain(&frame[..end]).to_string();
            let mut damaged = frame.clone();
            damaged[end] ^= 0xff;
            let _ = explain(&damaged).to_string();
        }
    }
}
