//! Secrets in traffic that is written down, overwritten: the credentials in commands, the payloads of SEND and MESSAGE.
//!
//! Lengths stay, and a checksum that was right is right again, so that whoever reads the recording sees the same frames. It judges them the
//! same but for what payloads alone tell, such as whether a SEND is the one before it again. A frame is held until it is whole.
//! Bytes behind a command that has no payload are overwritten. Behind bytes that cannot be read as a frame everything is, but for what is
//! read as lengths.

use std::collections::BTreeMap;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::capture::{Direction, Segment, SegmentEvent};
use crate::wire::command::split_envelope;
use crate::wire::entry::EntryParts;
use crate::wire::proto::{Reader, Value};

/// What secrets become.
const MASK: u8 = b'x';

/// The largest frame that is held, bytes: larger than any broker takes by default. What is larger is overwritten.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// `total_size` and `command_size`.
const LENGTHS_BYTES: usize = 8;

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

/// Overwrites secrets in the segments of many connections.
#[derive(Debug)]
pub struct Masker {
    masking: Masking,
    streams: BTreeMap<(u64, Direction), Stream>,
}

#[derive(Default)]
struct Stream {
    held: BytesMut,
    is_lost: bool,
}

impl fmt::Debug for Stream {
    /// Shows only the length of what is held: it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("held", &self.held.len()).field("is_lost", &self.is_lost).finish()
    }
}

impl Masker {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(masking: Masking) -> Self {
        Self { masking, streams: BTreeMap::new() }
    }

    /// Takes a segment, and gives those that may be written down now.
    pub fn mask(&mut self, segment: Segment, out: &mut Vec<Segment>) {
        if !self.masking.tokens && !self.masking.payloads {
            return out.push(segment);
        }
        let Segment { connection, at, event } = segment;
        let put = |out: &mut Vec<Segment>, event| out.push(Segment { connection, at, event });
        match event {
            SegmentEvent::Opened { is_partial, .. } => {
                for direction in [Direction::ToBroker, Direction::ToClient] {
                    let stream = Stream { is_lost: is_partial, ..Stream::default() };
                    self.streams.insert((connection, direction), stream);
                }
                put(out, event);
            }
            SegmentEvent::Bytes { direction, bytes } => {
                let Some(stream) = self.streams.get_mut(&(connection, direction)) else { return };
                if let Some(bytes) = stream.push(&bytes, self.masking) {
                    put(out, SegmentEvent::Bytes { direction, bytes });
                }
            }
            SegmentEvent::Missing { direction, .. } => {
                if let Some(stream) = self.streams.get_mut(&(connection, direction)) {
                    let rest = stream.give_up();
                    if !rest.is_empty() {
                        put(out, SegmentEvent::Bytes { direction, bytes: rest });
                    }
                }
                put(out, event);
            }
            SegmentEvent::Closed { direction, is_reset } => {
                let ending = if is_reset { vec![direction, direction.reversed()] } else { vec![direction] };
                for direction in ending {
                    let rest = self.streams.remove(&(connection, direction)).map(|mut stream| stream.give_up());
                    if let Some(bytes) = rest.filter(|rest| !rest.is_empty()) {
                        put(out, SegmentEvent::Bytes { direction, bytes });
                    }
                }
                put(out, event);
            }
        }
    }
}

impl Stream {
    fn push(&mut self, bytes: &[u8], masking: Masking) -> Option<Bytes> {
        self.held.extend_from_slice(bytes);
        let mut whole = 0;
        while let Some(head) = self.held.get(whole..).and_then(|rest| rest.first_chunk::<4>()).filter(|_| !self.is_lost)
        {
            let frame = (u32::from_be_bytes(*head) as usize).saturating_add(4);
            let is_sound = (8..=FRAME_BYTES_MAX).contains(&frame);
            if is_sound && self.held.len() - whole < frame {
                break;
            }
            let frame = self.held.get_mut(whole..whole + frame).filter(|_| is_sound);
            match frame.and_then(|frame| mask_frame(frame, masking).map(|()| frame.len())) {
                Some(masked) => whole += masked,
                None => whole = self.lose(whole),
            }
        }
        if self.is_lost && whole == 0 {
            self.held.fill(0);
            whole = self.held.len();
        }
        Some(self.held.split_to(whole).freeze()).filter(|out| !out.is_empty())
    }

    /// Overwrites what is held from here on but for the lengths at its front, as all that follows will be. Gives the length of all.
    fn lose(&mut self, from: usize) -> usize {
        self.is_lost = true;
        if let Some(rest) = self.held.get_mut(from + LENGTHS_BYTES..) {
            rest.fill(0);
        }
        self.held.len()
    }

    /// What is held of a frame that is not whole.
    fn give_up(&mut self) -> Bytes {
        self.lose(0);
        self.held.split().freeze()
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
    use std::time::SystemTime;

    use super::*;
    use crate::pb;
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

    fn masked(bytes: &[u8], piece: usize, masking: Masking) -> Vec<u8> {
        let mut masker = Masker::new(masking);
        let mut out = Vec::new();
        let address = "127.0.0.1:1".parse().expect("an address");
        let mut put = |event| masker.mask(Segment { connection: 1, at: SystemTime::UNIX_EPOCH, event }, &mut out);
        put(SegmentEvent::Opened { client: address, broker: address, is_partial: false });
        for bytes in bytes.chunks(piece) {
            let bytes = Bytes::copy_from_slice(bytes);
            put(SegmentEvent::Bytes { direction: Direction::ToBroker, bytes });
        }
        put(SegmentEvent::Closed { direction: Direction::ToBroker, is_reset: false });
        let bytes = |segment: Segment| match segment.event {
            SegmentEvent::Bytes { bytes, .. } => bytes,
            _ => Bytes::new(),
        };
        out.into_iter().flat_map(bytes).collect()
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
