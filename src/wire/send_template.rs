//! SEND frames of small messages, consecutive in a buffer, made in two steps.
//!
//! A frame is written when its message is accepted, except for two fields: `publish_time`, because reading the clock
//! costs as much as the rest, and the checksum, which covers it. [`stamp`] sets both for all frames of the buffer when
//! they are sent.
//!
//! ```text
//! total_size command_size BaseCommand(SEND) 0e01 crc metadata_size producer_name sequence_id publish_time ... payload
//!                                                ~~~                                         ~~~~~~~~~~~~ stamped
//! ```

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::entry::{ENTRY_HEAD_BYTES, put_entry_head};
use super::hot::{SendHead, put_send_head};
use super::metadata::MetadataFields;
use super::proto::{bytes_len, varint_len};

/// The size of `total_size` and `command_size`.
const SIZES_BYTES: usize = 8;

/// The space for `publish_time`, bytes. A shorter number is padded, which protobuf allows.
const TIME_BYTES: usize = 6;

/// The latest `publish_time` that fits: in the year 2109. A later one is written as this.
const TIME_MAX: u64 = (1 << (7 * TIME_BYTES)) - 1;

/// Appends one frame without publish time and checksum; the time in `metadata` is ignored.
pub(crate) fn put_unstamped(out: &mut BytesMut, head: &SendHead, metadata: &MetadataFields<'_>, payload: &[u8]) {
    let metadata = MetadataFields { publish_time_ms: TIME_MAX, ..*metadata };
    let metadata_len = metadata.encoded_len();
    put_send_head(out, head, ENTRY_HEAD_BYTES + metadata_len + payload.len());
    out.reserve(ENTRY_HEAD_BYTES + metadata_len + payload.len());
    put_entry_head(out, &metadata, metadata_len);
    out.put_slice(payload);
}

/// The frame of a producer's plain messages: everything but sequence id and payload.
#[derive(Debug)]
pub(crate) struct SendTemplate {
    producer_id: u64,
    producer_name: Arc<str>,
    schema_version: Option<Box<[u8]>>,
    /// A frame without payload, for sequence ids of `id_bytes` bytes.
    frame: Vec<u8>,
    id_bytes: usize,
    /// The offsets of the sequence id in `frame`: in the command, and in the metadata.
    id_at: [usize; 2],
}

impl SendTemplate {
    /// The template of one producer, valid as long as its name and schema do not change.
    #[must_use]
    pub(crate) fn new(producer_id: u64, producer_name: &Arc<str>, schema_version: Option<&[u8]>) -> Self {
        let mut this = Self {
            producer_id,
            producer_name: producer_name.clone(),
            schema_version: schema_version.map(Into::into),
            frame: Vec::new(),
            id_bytes: 0,
            id_at: [0; 2],
        };
        this.rebuild(0);
        this
    }

    /// Rebuilds the frame for sequence ids of the same encoded length as this one.
    #[cold]
    fn rebuild(&mut self, sequence_id: u64) {
        let metadata = MetadataFields {
            producer_name: &self.producer_name,
            sequence_id,
            schema_version: self.schema_version.as_deref(),
            ..MetadataFields::default()
        };
        let mut frame = BytesMut::new();
        put_unstamped(&mut frame, &SendHead::new(self.producer_id, sequence_id), &metadata, &[]);
        self.id_bytes = varint_len(sequence_id);
        let command_end = SIZES_BYTES + size_at(&frame, 4);
        // The sequence id is the last field of the command, and in the metadata the one after producer_name.
        self.id_at =
            [command_end - self.id_bytes, command_end + ENTRY_HEAD_BYTES + bytes_len(1, self.producer_name.len()) + 1];
        self.frame = frame.to_vec();
    }

    /// Appends the frame of one message, without publish time and checksum.
    #[inline]
    pub(crate) fn encode(&mut self, out: &mut BytesMut, sequence_id: u64, payload: &[u8]) {
        if varint_len(sequence_id) != self.id_bytes {
            self.rebuild(sequence_id);
        }
        let start = out.len();
        out.reserve(self.frame.len() + payload.len());
        out.put_slice(&self.frame);
        let total = (self.frame.len() - 4 + payload.len()) as u32;
        let frame = &mut out[start..];
        frame[..4].copy_from_slice(&total.to_be_bytes());
        for at in self.id_at {
            put_padded(&mut frame[at..at + self.id_bytes], sequence_id);
        }
        out.put_slice(payload);
    }
}

/// Sets `publish_time`, milliseconds since 1970, and the checksum of every frame in `frames`.
pub(crate) fn stamp(frames: &mut [u8], publish_time_ms: u64) {
    let mut time = [0; TIME_BYTES];
    put_padded(&mut time, publish_time_ms.min(TIME_MAX));
    let mut rest = frames;
    while !rest.is_empty() {
        let (frame, following) = rest.split_at_mut(4 + size_at(rest, 0));
        let entry_at = SIZES_BYTES + size_at(frame, 4);
        let entry = &mut frame[entry_at..];
        let name = varint_at(entry, ENTRY_HEAD_BYTES + 1);
        let id = varint_at(entry, name.1 + name.0 + 1);
        let time_at = id.1 + 1;
        entry[time_at..time_at + TIME_BYTES].copy_from_slice(&time);
        let sum = crc32c::crc32c(&entry[6..]);
        entry[2..6].copy_from_slice(&sum.to_be_bytes());
        rest = following;
    }
}

/// The size that the broker compares with `max_message_size`, for the whole frame of a single message: metadata and
/// payload.
#[must_use]
pub(crate) fn limited_len(frame: &[u8]) -> usize {
    frame.len().saturating_sub(SIZES_BYTES + ENTRY_HEAD_BYTES + size_at(frame, 4))
}

#[inline]
fn size_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk().map_or(0, |size| u32::from_be_bytes(*size) as usize)
}

/// Fills `out` with `value` as a padded varint; it must fit.
#[inline]
fn put_padded(out: &mut [u8], mut value: u64) {
    let Some((last, before)) = out.split_last_mut() else { return };
    for byte in before {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    *last = value as u8;
}

/// The varint at `at`, and its end.
#[inline]
fn varint_at(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[at];
        value |= usize::from(byte & 0x7f) << shift;
        at += 1;
        shift += 7;
        if byte & 0x80 == 0 || shift >= usize::BITS {
            return (value, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::entry::seal_copied;

    const NOW_MS: u64 = 1_700_000_000_123;

    fn sealed(id: u64, name: &str, version: Option<&[u8]>, properties: &[(String, String)], payload: &[u8]) -> Vec<u8> {
        let metadata = MetadataFields {
            producer_name: name,
            sequence_id: id,
            publish_time_ms: NOW_MS,
            schema_version: version,
            properties,
            ..MetadataFields::default()
        };
        seal_copied(&mut BytesMut::new(), &SendHead::new(3, id), &metadata, payload).to_vec()
    }

    #[test]
    fn stamped_frames_are_those_made_at_once() {
        let names = ["p".to_owned(), "n".repeat(200), "m".repeat(20_000)];
        for (name, version) in names.iter().map(|name| Arc::from(&**name)).zip([None, Some(&[1, 2][..]), None]) {
            let name: &Arc<str> = &name;
            let mut plain = SendTemplate::new(3, name, version);
            let (mut run, mut expected) = (BytesMut::new(), Vec::new());
            for id in [0, 127, 128, 5, 1 << 21, (1 << 63) - 1, u64::MAX] {
                for payload in [&b""[..], b"x", &[7; 5000]] {
                    plain.encode(&mut run, id, payload);
                    expected.extend(sealed(id, name, version, &[], payload));
                }
                let properties = [("k".to_owned(), "v".to_owned())];
                let metadata = MetadataFields {
                    producer_name: name,
                    sequence_id: id,
                    schema_version: version,
                    properties: &properties,
                    ..MetadataFields::default()
                };
                put_unstamped(&mut run, &SendHead::new(3, id), &metadata, b"rich");
                expected.extend(sealed(id, name, version, &properties, b"rich"));
            }
            stamp(&mut run, NOW_MS);
            assert_eq!(run, expected);
        }
    }

    #[test]
    fn a_shorter_time_is_padded() {
        use crate::wire::{Frame, frames};
        for (time, expected) in [(0, 0), (1, 1), (TIME_MAX, TIME_MAX), (u64::MAX, TIME_MAX)] {
            let mut run = BytesMut::new();
            SendTemplate::new(3, &Arc::from("p"), None).encode(&mut run, 9, b"x");
            stamp(&mut run, time);
            let Some(Ok(Frame::Send { entry, .. })) = frames(run.freeze()).next() else { panic!("a SEND") };
            let parts = crate::wire::EntryParts::split(&entry).expect("whole");
            parts.verify(&entry).expect("a checksum");
            let metadata = crate::wire::Metadata::decode(&entry[parts.metadata]).expect("readable");
            assert_eq!(metadata.publish_time_ms, expected);
        }
    }

    #[test]
    fn metadata_and_payload_are_what_brokers_compare() {
        let frame = sealed(1, "p", None, &[], b"payload");
        let parts = crate::wire::EntryParts::split(&frame[SIZES_BYTES + size_at(&frame, 4)..]).expect("whole");
        assert_eq!(limited_len(&frame), parts.metadata.len() + 7);
    }
}
