//! What follows the command of SEND and MESSAGE.

use std::ops::Range;

use super::schema::MessageType;
use super::walk::{Broken, Step, Walk};
use super::{CONTENT_BYTES_MAX, Value, WireType};
use crate::wire::metadata::SingleMetadata;
use crate::wire::{MAGIC_BROKER_ENTRY_METADATA, MAGIC_CRC32C, Metadata, decompress};

/// Sizes of a magic number and of a size or checksum.
const MAGIC_BYTES: usize = 2;
const SIZE_BYTES: usize = 4;

impl Walk {
    /// Everything from `at` to the end of the frame at `frame_end`, not all of which need be there.
    pub(super) fn entry(&mut self, mut at: usize, frame_end: usize) -> Step {
        let length = self.bytes.len();
        if self.u16_at(at) == Some(MAGIC_BROKER_ENTRY_METADATA) {
            self.magic(at, MAGIC_BROKER_ENTRY_METADATA, "broker entry metadata follows");
            let path = "broker_entry_metadata_size";
            let meaning = "bytes of the BrokerEntryMetadata, which the checksum does not cover";
            let inside = self.sized(at + MAGIC_BYTES, frame_end, path, meaning)?;
            let message = MessageType::named("BrokerEntryMetadata");
            self.message(inside.start..inside.end.min(length), inside.end, message, message.name, 1)?;
            at = inside.end;
        }
        let mut checksum = None;
        if self.u16_at(at) == Some(MAGIC_CRC32C) {
            self.magic(at, MAGIC_CRC32C, "a checksum follows");
            at += MAGIC_BYTES;
            let Some(sum) = self.u32_at(at, length) else {
                return self.broken(at..length, 0, "checksum", length, "4 bytes: the checksum");
            };
            checksum = Some(self.lines.len());
            self.checksum(at, sum, frame_end);
            at += SIZE_BYTES;
        }
        let inside = self.sized(at, frame_end, "metadata_size", "bytes of the MessageMetadata")?;
        let message = MessageType::named("MessageMetadata");
        self.message(inside.start..inside.end.min(length), inside.end, message, message.name, 1)?;
        let metadata = Metadata::decode(&self.bytes[inside.clone()]).unwrap_or_default();
        self.payload(&metadata, inside.end..length)?;
        self.check_end(length, frame_end, 0, "payload", "the frame")?;
        self.mark_checksum(checksum);
        Ok(())
    }

    fn magic(&mut self, at: usize, magic: u16, meaning: &'static str) {
        let value = Value::Hex(magic.into());
        self.push(at..at + MAGIC_BYTES, 0, "magic", WireType::U16, value).meaning = Some(meaning.into());
    }

    fn checksum(&mut self, at: usize, sent: u32, frame_end: usize) {
        let covered = at + SIZE_BYTES;
        let meaning = match self.bytes.get(covered..frame_end) {
            None => "CRC-32C of all that follows; not compared, for want of bytes".into(),
            Some(covered) if crc32c::crc32c(covered) == sent => "CRC-32C of all that follows: right".into(),
            Some(covered) => {
                format!("CRC-32C of all that follows: wrong, it is {:#010x}", crc32c::crc32c(covered)).into()
            }
        };
        self.push(at..covered, 0, "checksum", WireType::U32, Value::Hex(sent)).meaning = Some(meaning);
    }

    /// A checksum that does not match is the problem of an entry that is sound otherwise.
    fn mark_checksum(&mut self, line: Option<usize>) {
        let Some(line) = line.and_then(|line| self.lines.get_mut(line)) else { return };
        if line.meaning.as_ref().is_some_and(|meaning| meaning.contains("wrong")) {
            let expected = "the checksum of the bytes that follow: they have changed on the way".into();
            line.problem = Some(super::Problem { at: line.bytes.start, expected });
        }
    }

    /// A size at `at` and what it delimits.
    fn sized(&mut self, at: usize, end: usize, path: &str, meaning: &'static str) -> Step<Range<usize>> {
        let length = self.bytes.len();
        let Some(size) = self.u32_at(at, length) else {
            let expected =
                if at >= end { "an entry: the frame ends here" } else { "4 bytes: the size of what follows" };
            return self.broken(at.min(length)..length, 0, path, length, expected);
        };
        let start = at + SIZE_BYTES;
        let most = end.saturating_sub(start);
        if size as usize > most {
            let expected = format!("at most {most}: the frame ends there");
            let broken = self.broken(at..start, 0, path, at, expected);
            self.set_last(WireType::U32, Value::Uint32(size));
            return broken;
        }
        self.push(at..start, 0, path, WireType::U32, Value::Uint32(size)).meaning = Some(meaning.into());
        Ok(start..start + size as usize)
    }

    fn payload(&mut self, metadata: &Metadata, payload: Range<usize>) -> Step {
        let bytes = self.bytes.slice(payload.clone());
        let is_chunk = metadata.chunk.as_ref().is_some_and(|chunk| chunk.num_chunks > 1);
        let is_batch = metadata.num_messages_in_batch.is_some();
        let whole = if metadata.encrypted {
            "encrypted"
        } else if is_chunk {
            "a part of a larger message"
        } else if metadata.compression != 0 {
            self.compressed(metadata, payload);
            return Ok(());
        } else if is_batch {
            return self.batch(payload, metadata.num_messages_in_batch.unwrap_or(0));
        } else {
            "the message"
        };
        self.push(payload, 0, "payload", WireType::Raw, Value::Bytes(bytes)).meaning = Some(whole.into());
        Ok(())
    }

    /// A compressed payload, and what is in it as content with offsets of its own.
    fn compressed(&mut self, metadata: &Metadata, payload: Range<usize>) {
        let packed = self.bytes.slice(payload.clone());
        let opened = decompress(metadata.compression, &packed, metadata.uncompressed_size, CONTENT_BYTES_MAX);
        let meaning = match &opened {
            Ok(content) => format!("compressed; opened below: {} bytes", content.len()),
            Err(error) => format!("compressed; cannot be opened: {error}"),
        };
        self.push(payload, 0, "payload", WireType::Raw, Value::Bytes(packed)).meaning = Some(meaning.into());
        let Ok(content) = opened else { return };
        let frame = std::mem::replace(&mut self.bytes, content.clone());
        self.content = Some(self.contents.len());
        let all = 0..content.len();
        match metadata.num_messages_in_batch {
            Some(count) => {
                let _ = self.batch(all, count);
            }
            None => {
                let line = self.push(all, 0, "payload", WireType::Raw, Value::Bytes(content.clone()));
                line.meaning = Some("the message".into());
            }
        }
        self.contents.push(content);
        (self.bytes, self.content) = (frame, None);
    }

    /// The records of a batch, up to the end of what is walked over.
    fn batch(&mut self, payload: Range<usize>, count: i32) -> Step {
        let mut at = payload.start;
        if count < 1 {
            let expected = format!("a batch of at least one record: num_messages_in_batch is {count}");
            return self
                .broken(at..at, 1, "records", at, expected)
                .or_else(|broken| self.end_batch(at..payload.end, broken));
        }
        for index in 0..count {
            if self.is_full() {
                self.rest(at..payload.end, 1, "not described: too many fields");
                return Ok(());
            }
            match self.record(at..payload.end, index) {
                Ok(end) => at = end,
                Err(broken) => return self.end_batch(at..payload.end, broken),
            }
        }
        self.rest(at..payload.end, 1, "skipped: behind the last record");
        Ok(())
    }

    /// The rest of a batch that is broken; `unread` starts with the record that breaks it.
    fn end_batch(&mut self, unread: Range<usize>, broken: Broken) -> Step {
        let own = |line: &&super::Line| line.content == self.content;
        let end = self.lines.iter().rev().find(own).map_or(unread.start, |line| line.bytes.end);
        self.rest(end.max(unread.start)..unread.end, 1, "not read: what stands before it is broken");
        Err(broken)
    }

    /// One record at the front of `rest`; gives where it ends.
    fn record(&mut self, rest: Range<usize>, index: i32) -> Step<usize> {
        let (at, end) = (rest.start, rest.end);
        let prefix = format!("records[{index}]");
        let size_path = format!("{prefix}.metadata_size");
        let Some(size) = self.u32_at(at, end) else {
            return self.broken(at..end, 1, size_path, end, "4 bytes: the size of a record's metadata");
        };
        let start = at + SIZE_BYTES;
        let is_inside = size as usize <= end - start;
        if !is_inside {
            let broken =
                self.broken(at..start, 1, size_path, at, format!("at most {}: the payload ends there", end - start));
            self.set_last(WireType::U32, Value::Uint32(size));
            return broken;
        }
        self.push(at..start, 1, size_path, WireType::U32, Value::Uint32(size)).meaning =
            Some("bytes of the record's SingleMessageMetadata".into());
        let own = start..start + size as usize;
        let message = MessageType::named("SingleMessageMetadata");
        let inner = format!("{prefix}.{}", message.name);
        self.message(own.clone(), own.end, message, &inner, 2)?;
        let declared = SingleMetadata::decode(&self.bytes[own.clone()]).map_or(0, |single| single.payload_size);
        let path = format!("{prefix}.payload");
        let left = end - own.end;
        match usize::try_from(declared).ok().filter(|size| *size <= left) {
            Some(size) => {
                let payload = own.end..own.end + size;
                let value = Value::Bytes(self.bytes.slice(payload.clone()));
                let end = payload.end;
                self.push(payload, 1, path, WireType::Raw, value).meaning = Some("the message".into());
                Ok(end)
            }
            None => {
                let expected = format!("{declared} bytes, as payload_size says; {left} are left");
                self.broken(own.end..own.end, 1, path, own.end, expected)
            }
        }
    }
}
