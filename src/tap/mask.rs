//! Secrets in traffic that is written down, overwritten: the credentials in commands, the payloads of SEND and MESSAGE.
//!
//! Lengths stay, and a checksum that was right is right again, so that a recording has the same frames. The inspector finds the same
//! violations in it but for those that depend on payloads, such as a SEND that repeats a sequence ID with another payload. A frame is held until it is whole.
//!
//! | bytes | what they become |
//! | --- | --- |
//! | credentials, payloads, what is behind a command that has no payload | `x` |
//! | a frame of which bytes are missing, or that cannot be decoded | 0, but for its lengths |
//! | what follows, up to the next frame | 0; where the inspector reads on behind it, so does this |
//! | a frame for which there is no room, because all connections hold too much | missing, but for its lengths |
//!
//! Where bytes are missing across the border of two frames, the next frame is found by its looks. What looks like a command within a
//! payload is then left as a command, without its credentials.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::budget::Budget;
use super::cutter::{Cutter, LENGTHS_BYTES, Piece};
use crate::capture::{Direction, Segment, SegmentEvent};
use crate::wire::command::split_envelope;
use crate::wire::entry::EntryParts;
use crate::wire::proto::{Reader, Value};

/// What secrets become.
const MASK: u8 = b'x';

/// What all connections hold of frames that are not whole, bytes.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Fields with credentials, as paths of field numbers in `BaseCommand`: overwritten whatever type the command has.
const SECRETS: &[&[u32]] = &[
    // CONNECT: auth_data, original_auth_data.
    &[2, 3],
    &[2, 8],
    // AUTH_CHALLENGE: challenge.auth_data.
    &[36, 2, 2],
    // AUTH_RESPONSE: response.auth_data.
    &[37, 2, 2],
    // PARTITIONED_METADATA and LOOKUP: original_auth_data.
    &[21, 4],
    &[23, 5],
];

const SEND: i32 = 6;
const MESSAGE: i32 = 9;

/// What is overwritten.
#[derive(Debug, Clone, Copy)]
pub struct Masking {
    /// Credentials.
    pub tokens: bool,
    /// Payloads.
    pub payloads: bool,
}

/// Overwrites secrets in the segments of many connections. It holds one frame of each direction until that is whole, up to 64 MiB of one and
/// 256 MiB of all.
#[derive(Debug)]
pub struct Masker {
    masking: Masking,
    streams: BTreeMap<(u64, Direction), Stream>,
    held: Budget,
}

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    cutter: Cutter,
    /// Bytes that came and were not given out.
    owed: usize,
}

impl Masker {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(masking: Masking) -> Self {
        Self { masking, streams: BTreeMap::new(), held: Budget::new(HELD_BYTES_MAX) }
    }

    /// Takes a segment, and gives those that may be written down now.
    pub fn mask(&mut self, segment: Segment, out: &mut Vec<Segment>) {
        if !self.masking.tokens && !self.masking.payloads {
            return out.push(segment);
        }
        let Segment { connection, at, event } = segment;
        let mut put = |event| out.push(Segment { connection, at, event });
        match event {
            SegmentEvent::Opened { is_partial, .. } => {
                for direction in [Direction::ToBroker, Direction::ToClient] {
                    self.streams.insert((connection, direction), Stream::new(is_partial, &self.held));
                }
                put(event);
            }
            SegmentEvent::Bytes { direction, bytes } => {
                let Some(stream) = self.streams.get_mut(&(connection, direction)) else { return };
                put_bytes(direction, stream.push(&bytes, self.masking), &mut put);
                let (lengths, missing) = stream.settle();
                put_bytes(direction, lengths, &mut put);
                if missing > 0 {
                    put(SegmentEvent::Missing { direction, count: missing });
                }
            }
            SegmentEvent::Missing { direction, count } => {
                if let Some(stream) = self.streams.get_mut(&(connection, direction)) {
                    put_bytes(direction, stream.give_up(), &mut put);
                    stream.cutter.lose(count);
                }
                put(event);
            }
            SegmentEvent::Closed { direction, is_reset } => {
                let other = is_reset.then(|| direction.reversed());
                for direction in [Some(direction), other].into_iter().flatten() {
                    if let Some(mut stream) = self.streams.remove(&(connection, direction)) {
                        put_bytes(direction, stream.give_up(), &mut put);
                    }
                }
                put(event);
            }
        }
    }
}

fn put_bytes(direction: Direction, bytes: BytesMut, put: &mut impl FnMut(SegmentEvent)) {
    if !bytes.is_empty() {
        put(SegmentEvent::Bytes { direction, bytes: bytes.freeze() });
    }
}

impl Stream {
    fn new(is_partial: bool, held: &Budget) -> Self {
        let mut cutter = Cutter::new(is_partial, held.share());
        // The limit of the connection is not applied here: the inspector applies it when it reads the recording.
        cutter.set_message_size(u32::MAX);
        Self { cutter, owed: 0 }
    }

    fn push(&mut self, bytes: &[u8], masking: Masking) -> BytesMut {
        let mut out = BytesMut::with_capacity(bytes.len());
        self.cutter.push(bytes);
        self.owed += bytes.len();
        loop {
            let lengths = BytesMut::from(self.cutter.lengths());
            match self.cutter.next() {
                None => break,
                Some(Piece::Run(run)) => {
                    self.overwrite(run.len(), &mut out);
                    self.put_run(&run, masking, &mut out);
                }
                // Nothing more is read, by what its first bytes are.
                Some(Piece::Unreadable(_) | Piece::Other(_)) => self.give(&lengths, &mut out),
                Some(Piece::Skipped(_)) => {}
            }
        }
        self.overwrite(0, &mut out);
        out
    }

    fn give(&mut self, bytes: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(bytes);
        self.owed -= bytes.len();
    }

    /// Gives zeros for all that is not held, but for the last `kept` bytes of it.
    fn overwrite(&mut self, kept: usize, out: &mut BytesMut) {
        let zeros = self.owed - self.cutter.held() - kept;
        out.resize(out.len() + zeros, 0);
        self.owed -= zeros;
    }

    fn put_run(&mut self, run: &[u8], masking: Masking, out: &mut BytesMut) {
        let mut at = out.len();
        self.give(run, out);
        while let Some(size) = out.get(at..).and_then(|rest| rest.first_chunk()) {
            let end = at.saturating_add(u32::from_be_bytes(*size) as usize + size.len());
            if out.get_mut(at..end).and_then(|frame| mask_frame(frame, masking)).is_none() {
                self.cutter.reject();
                return out[at..].iter_mut().skip(LENGTHS_BYTES).for_each(|byte| *byte = 0);
            }
            at = end;
        }
    }

    /// Where all connections hold too much: the lengths of what is held, and how many bytes of it are missing.
    fn settle(&mut self) -> (BytesMut, u64) {
        let lengths = BytesMut::from(self.cutter.lengths());
        if self.cutter.settle() {
            return (BytesMut::new(), 0);
        }
        let missing = std::mem::take(&mut self.owed) - lengths.len();
        (lengths, missing as u64)
    }

    /// What is held of a frame that does not become whole, overwritten but for its lengths.
    fn give_up(&mut self) -> BytesMut {
        let mut out = BytesMut::from(self.cutter.lengths());
        out.resize(std::mem::take(&mut self.owed), 0);
        out
    }
}

/// Overwrites the secrets of a whole frame; `None` if it cannot be read.
fn mask_frame(frame: &mut [u8], masking: Masking) -> Option<()> {
    let command_bytes = u32::from_be_bytes(*frame.get(4..)?.first_chunk()?) as usize;
    let command_end = command_bytes.checked_add(8).filter(|end| *end <= frame.len())?;
    let (command, entry) = frame.split_at_mut(command_end);
    let command = command.get_mut(8..)?;
    let kind = split_envelope(command, 0).ok()?.command_type;
    if masking.tokens {
        for path in SECRETS {
            mask_field(command, path)?;
        }
    }
    match kind {
        SEND | MESSAGE if masking.payloads => mask_payload(entry),
        SEND | MESSAGE => {}
        // No broker or client reads it.
        _ => entry.fill(MASK),
    }
    Some(())
}

/// Overwrites every field at this path of field numbers.
fn mask_field(message: &mut [u8], path: &[u32]) -> Option<()> {
    let Some((number, deeper)) = path.split_first() else {
        message.fill(MASK);
        return Some(());
    };
    let mut found = Vec::new();
    let mut reader = Reader::new(message, 0);
    while let Some((field, value)) = reader.next("masked").ok()? {
        if let (true, Value::Bytes(range)) = (field == *number, value) {
            found.push(range);
        }
    }
    for range in found {
        mask_field(message.get_mut(range)?, deeper)?;
    }
    Some(())
}

fn mask_payload(entry: &mut [u8]) {
    let Ok(parts) = EntryParts::split(entry) else {
        // Nobody reads it, so nothing of it is kept.
        return entry.fill(0);
    };
    let was_right = parts.checksum.is_some() && parts.verify(entry).is_ok();
    if let Some(payload) = entry.get_mut(parts.payload.clone()) {
        payload.fill(MASK);
    }
    if was_right {
        let sum = crc32c::crc32c(entry.get(parts.checksummed_from..).unwrap_or_default());
        if let Some(place) = entry.get_mut(parts.checksummed_from.saturating_sub(4)..parts.checksummed_from) {
            place.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::pb;
    use crate::tap::{Inspector, InspectorConfig, ObservedEvent};
    use crate::wire::command::Command;
    use crate::wire::frame::{Frame, frames};
    use crate::wire::hot::{SendHead, put_send_head};
    use crate::wire::metadata::MetadataFields;

    const BOTH: Masking = Masking { tokens: true, payloads: true };

    fn traffic() -> BytesMut {
        let mut out = BytesMut::new();
        let connect = pb::CommandConnect {
            auth_data: Some(Bytes::from_static(b"SECRET")),
            original_auth_data: Some("SECRET".to_owned()),
            ..Default::default()
        };
        Command::from(connect).encode_frame(&mut out);
        let data =
            pb::AuthData { auth_data: Some(Bytes::from_static(b"SECRET")), auth_method_name: Some("token".into()) };
        Command::from(pb::CommandAuthResponse { response: Some(data), ..Default::default() }).encode_frame(&mut out);
        let mut entry = BytesMut::new();
        let fields = MetadataFields { producer_name: "p", ..MetadataFields::default() };
        crate::wire::put_entry(&mut entry, &fields, b"SECRET");
        put_send_head(&mut out, &SendHead::new(1, 2), entry.len());
        out.extend_from_slice(&entry);
        out
    }

    fn segment(event: SegmentEvent) -> Segment {
        Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event }
    }

    /// What goes to a broker in pieces of a size, without the bytes of `missing`.
    fn segments(bytes: &[u8], piece: usize, missing: Range<usize>) -> Vec<Segment> {
        let (direction, address) = (Direction::ToBroker, "127.0.0.1:1".parse().expect("an address"));
        let [before, behind] = [&bytes[..missing.start], &bytes[missing.end..]].map(|bytes| {
            let event = |bytes| SegmentEvent::Bytes { direction, bytes: Bytes::copy_from_slice(bytes) };
            bytes.chunks(piece).map(event)
        });
        let opened = SegmentEvent::Opened { client: address, broker: address, is_partial: false };
        let count = missing.len() as u64;
        let lost = (count > 0).then_some(SegmentEvent::Missing { direction, count });
        let closed = SegmentEvent::Closed { direction, is_reset: false };
        let events = std::iter::once(opened).chain(before).chain(lost).chain(behind).chain([closed]);
        events.map(segment).collect()
    }

    fn masked_segments(segments: Vec<Segment>, masking: Masking) -> Vec<Segment> {
        let (mut masker, mut out) = (Masker::new(masking), Vec::new());
        segments.into_iter().for_each(|segment| masker.mask(segment, &mut out));
        out
    }

    fn bytes_of(segments: &[Segment]) -> Vec<u8> {
        let bytes = |segment: &Segment| match &segment.event {
            SegmentEvent::Bytes { bytes, .. } => bytes.clone(),
            _ => Bytes::new(),
        };
        segments.iter().flat_map(bytes).collect()
    }

    fn masked(bytes: &[u8], piece: usize, masking: Masking) -> Vec<u8> {
        bytes_of(&masked_segments(segments(bytes, piece, 0..0), masking))
    }

    /// The frames and violations that an inspector sees.
    fn seen(segments: &[Segment]) -> Vec<String> {
        let mut inspector = Inspector::new(InspectorConfig::default());
        let mut seen = Vec::new();
        segments.iter().for_each(|segment| inspector.inspect(segment, &mut seen));
        let is_told = |event: &_| matches!(event, ObservedEvent::Frame(_) | ObservedEvent::Violation(_));
        seen.iter().filter(|seen| is_told(&seen.event)).map(ToString::to_string).collect()
    }

    #[test]
    fn frames_behind_a_gap_are_masked_and_no_others() {
        let bytes = [traffic(), traffic()].concat();
        for from in 0..bytes.len() {
            for count in [1, 5, 30, 150] {
                let missing = from..(from + count).min(bytes.len());
                let sent = segments(&bytes, 7, missing.clone());
                let (expected, left) = (seen(&sent), bytes.len() - missing.len());
                let masked = masked_segments(sent, BOTH);
                assert_eq!(seen(&masked), expected, "without {missing:?}");
                let masked = bytes_of(&masked);
                assert_eq!(masked.len(), left);
                assert!(!masked.windows(6).any(|window| window == b"SECRET"), "without {missing:?}");
            }
        }
    }

    #[test]
    fn a_frame_for_which_there_is_no_room_is_missing() {
        let mut large = BytesMut::new();
        let entry = b"SECRET".repeat(50);
        put_send_head(&mut large, &SendHead::new(1, 3), entry.len());
        large.extend_from_slice(&entry);
        let bytes = [&traffic()[..], &large, &traffic()].concat();
        let mut masker = Masker { held: Budget::new(150), ..Masker::new(BOTH) };
        let mut masked = Vec::new();
        segments(&bytes, 40, 0..0).into_iter().for_each(|segment| masker.mask(segment, &mut masked));
        let missing = masked.iter().map(|segment| match segment.event {
            SegmentEvent::Missing { count, .. } => count as usize,
            _ => 0,
        });
        let missing: usize = missing.sum();
        let left = bytes_of(&masked);
        assert!(missing > 0 && missing + left.len() == bytes.len(), "{missing}");
        assert!(!left.windows(6).any(|window| window == b"SECRET"));
        let frames = seen(&masked).into_iter().filter(|text| text.contains("->")).count();
        assert_eq!(frames, 6, "all but the large one");
    }

    #[test]
    fn no_secret_is_left_and_every_frame_is() {
        let bytes = traffic();
        for piece in [1, 3, 50, 1_000] {
            let masked = masked(&bytes, piece, BOTH);
            assert_eq!(masked.len(), bytes.len());
            assert!(!masked.windows(6).any(|window| window == b"SECRET"));
            let frames: Vec<Frame> = frames(masked.into()).collect::<Result<_, _>>().expect("sound frames");
            let Some(Frame::Send { entry, .. }) = frames.last() else { panic!("a SEND") };
            let parts = EntryParts::split(entry).expect("whole");
            assert!(parts.checksum.is_some() && parts.verify(entry).is_ok());
            assert_eq!(frames.len(), 3);
        }
        assert_eq!(masked(&bytes, 7, Masking { tokens: false, payloads: false }), bytes);
    }

    #[test]
    fn secrets_where_they_do_not_belong_are_overwritten() {
        // A PING with a `connect`, whose field 3 is auth_data, and bytes behind the command.
        let command = [&[0x08, 18, 0x92, 0x01, 0, 0x12, 8, 0x1a, 6][..], b"SECRET"].concat();
        let sizes = [command.len() as u32 + 10, command.len() as u32].map(u32::to_be_bytes).concat();
        let bytes = [&sizes[..], &command, b"SECRET"].concat();
        for masking in [BOTH, Masking { tokens: true, payloads: false }] {
            let masked = masked(&bytes, 4, masking);
            assert_eq!(masked, [&sizes[..], &command[..9], &[MASK; 12]].concat());
        }
    }

    #[test]
    fn what_cannot_be_read_is_overwritten() {
        let broken = [&traffic()[..], &[0, 0, 0, 1], b"SECRET SECRET SECRET"].concat();
        for piece in [1, 5, 1_000] {
            let masked = masked(&broken, piece, BOTH);
            assert_eq!(masked.len(), broken.len());
            assert!(!masked.windows(6).any(|window| window == b"SECRET"), "pieces of {piece}");
        }
    }
}
