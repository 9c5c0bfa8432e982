//! One direction of a connection, cut into frames for a reader of captures: also where bytes are missing.
//!
//! ```text
//! Start --a frame starts--> Synced --bytes missing within a frame--> Rest --its end--> Synced
//!   |                         |--bytes missing, or not a frame--> Lost --a frame is found--> Synced
//!   |--TLS, HTTP--> Other     nothing more is read
//! ```

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::Traffic;
use super::likeness::{Likeness, looks_like};
use crate::wire::Limits;

/// The largest frame that is put together, bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// How much of what is no frame is shown, bytes.
const SHOWN_BYTES: usize = 16;

/// What comes next in a direction, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePiece {
    /// The offset of its first byte in the direction, counted from the first byte of the capture.
    pub offset: u64,
    /// What it is.
    pub kind: FramePieceKind,
}

/// What a [`FramePiece`] is. Its `Debug` shows how many bytes there are, and none of them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramePieceKind {
    /// A whole frame.
    Frame(Bytes),
    /// The start of a frame whose end the capture lacks.
    Cut(Bytes),
    /// The first bytes of what cannot be a frame. What follows is skipped up to the next frame.
    NoFrame(Bytes),
    /// So many bytes are of no frame that can be told.
    Skipped(u64),
    /// The direction does not carry Pulsar's protocol; nothing more is told of it.
    Other(Traffic),
}

impl fmt::Debug for FramePieceKind {
    /// Shows only the length of bytes: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(bytes) => f.debug_tuple("Frame").field(&bytes.len()).finish(),
            Self::Cut(bytes) => f.debug_tuple("Cut").field(&bytes.len()).finish(),
            Self::NoFrame(bytes) => f.debug_tuple("NoFrame").field(&bytes.len()).finish(),
            Self::Skipped(count) => f.debug_tuple("Skipped").field(count).finish(),
            Self::Other(traffic) => f.debug_tuple("Other").field(traffic).finish(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been told yet.
    Start {
        is_partial: bool,
    },
    Synced,
    /// So many bytes of a frame are left, whose middle is missing.
    Rest(u64),
    Lost,
    Other,
}

/// Cuts one direction of a connection into frames. What is kept is at most one frame, and no more than 64 MiB.
pub struct FrameReader {
    state: State,
    buffer: BytesMut,
    /// The offset of the front of the buffer.
    offset: u64,
    /// How many bytes before it are of no frame.
    skipped: u64,
    /// Nothing more comes.
    is_ended: bool,
}

impl fmt::Debug for FrameReader {
    /// Shows only the length of the buffer: it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("state", &self.state)
            .field("buffer", &self.buffer.len())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl FrameReader {
    /// `is_partial`: the first bytes may be from within a frame.
    #[must_use]
    pub fn new(is_partial: bool) -> Self {
        Self { state: State::Start { is_partial }, buffer: BytesMut::new(), offset: 0, skipped: 0, is_ended: false }
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.state == State::Other {
            self.drop_front(self.buffer.len());
        }
    }

    /// So many bytes are missing; what came before is to be read first. Gives the frame that is cut, if there is one.
    pub fn missing(&mut self, count: u64) -> Option<FramePiece> {
        let cut = match self.state {
            State::Rest(left) if count <= left => {
                self.state = State::Rest(left - count);
                None
            }
            State::Synced | State::Start { is_partial: false } if !self.buffer.is_empty() => {
                let left =
                    self.frame_size().and_then(|size| size.checked_sub(self.buffer.len())).map(|left| left as u64);
                let bytes = self.buffer.split().freeze();
                let piece = FramePiece { offset: self.offset, kind: FramePieceKind::Cut(bytes.clone()) };
                self.offset += bytes.len() as u64;
                self.state = match left.filter(|left| count <= *left) {
                    Some(left) => State::Rest(left - count),
                    None => State::Lost,
                };
                Some(piece)
            }
            State::Other => None,
            // Between two frames, or where the place is lost already.
            _ => {
                self.skipped += self.buffer.len() as u64;
                self.drop_front(self.buffer.len());
                self.state = State::Lost;
                None
            }
        };
        self.offset += count;
        cut
    }

    /// Nothing more comes: what is left is no whole frame.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// The next piece; `None` until more bytes are there.
    pub fn next_piece(&mut self) -> Option<FramePiece> {
        loop {
            match self.state {
                State::Other => return None,
                State::Start { is_partial } => match Traffic::of(&self.buffer) {
                    Some(traffic @ (Traffic::Tls | Traffic::Http)) => {
                        self.state = State::Other;
                        let piece = FramePiece { offset: self.offset, kind: FramePieceKind::Other(traffic) };
                        self.drop_front(self.buffer.len());
                        return Some(piece);
                    }
                    // A whole frame may be shorter than what tells the protocol.
                    None if !self.is_ended && (is_partial || !self.holds_frame()) => return None,
                    Some(Traffic::Pulsar) => self.state = State::Synced,
                    _ => self.state = if is_partial { State::Lost } else { State::Synced },
                },
                State::Rest(0) => self.state = State::Synced,
                State::Rest(left) => {
                    let count = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if count == 0 {
                        return None;
                    }
                    self.drop_front(count);
                    self.state = State::Rest(left - count as u64);
                }
                State::Lost => {
                    let is_found = self.find_frame();
                    if is_found {
                        self.state = State::Synced;
                    } else if self.is_ended {
                        self.skipped += self.buffer.len() as u64;
                        self.drop_front(self.buffer.len());
                    }
                    if is_found || self.is_ended {
                        if let Some(piece) = self.take_skipped() {
                            return Some(piece);
                        }
                    }
                    if !is_found {
                        return None;
                    }
                }
                State::Synced => return self.frame(),
            }
        }
    }

    fn frame(&mut self) -> Option<FramePiece> {
        let offset = self.offset;
        let size = match self.frame_size() {
            Some(size) if size <= self.buffer.len() => size,
            None if self.buffer.len() >= 4 => {
                let shown = Bytes::copy_from_slice(&self.buffer[..self.buffer.len().min(SHOWN_BYTES)]);
                if shown.len() < SHOWN_BYTES && !self.is_ended {
                    return None;
                }
                self.state = State::Lost;
                self.skipped += 1;
                self.drop_front(1);
                return Some(FramePiece { offset, kind: FramePieceKind::NoFrame(shown) });
            }
            _ if self.is_ended && !self.buffer.is_empty() => {
                let bytes = self.buffer.split().freeze();
                self.offset += bytes.len() as u64;
                return Some(FramePiece { offset, kind: FramePieceKind::Cut(bytes) });
            }
            _ => return None,
        };
        let bytes = self.buffer.split_to(size).freeze();
        self.offset += size as u64;
        Some(FramePiece { offset, kind: FramePieceKind::Frame(bytes) })
    }

    /// The size of the frame at the front with its length field; `None` if that is not there or cannot be.
    fn frame_size(&self) -> Option<usize> {
        let total = u32::from_be_bytes(*self.buffer.first_chunk()?) as usize;
        (4..=FRAME_BYTES_MAX).contains(&total).then(|| total + 4)
    }

    fn holds_frame(&self) -> bool {
        self.frame_size().is_some_and(|size| size <= self.buffer.len())
    }

    fn take_skipped(&mut self) -> Option<FramePiece> {
        let skipped = std::mem::take(&mut self.skipped);
        (skipped > 0).then(|| FramePiece { offset: self.offset - skipped, kind: FramePieceKind::Skipped(skipped) })
    }

    /// Drops what is in front of the next frame; false if none is there yet.
    fn find_frame(&mut self) -> bool {
        let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX };
        let mut at = 0;
        let found = loop {
            match looks_like(&self.buffer[at..], &limits) {
                Likeness::No => at += 1,
                Likeness::Yes => break true,
                Likeness::Unknown => break false,
            }
        };
        self.drop_front(at);
        self.skipped += at as u64;
        found
    }

    fn drop_front(&mut self, count: usize) {
        self.buffer.advance(count);
        self.offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use crate::wire::Command;

    fn frame(name: &str) -> Vec<u8> {
        let mut out = BytesMut::new();
        let topic = name.to_owned();
        Command::from(pb::CommandLookupTopic { topic, ..Default::default() }).encode_frame(&mut out);
        out.to_vec()
    }

    /// All pieces, as offset and a short text.
    fn pieces(reader: &mut FrameReader) -> Vec<(u64, String)> {
        let text = |kind| match kind {
            FramePieceKind::Frame(bytes) => format!("frame {}", bytes.len()),
            FramePieceKind::Cut(bytes) => format!("cut {}", bytes.len()),
            FramePieceKind::NoFrame(bytes) => format!("no frame {}", bytes.len()),
            FramePieceKind::Skipped(count) => format!("skipped {count}"),
            FramePieceKind::Other(traffic) => format!("{traffic}"),
        };
        std::iter::from_fn(|| reader.next_piece()).map(|piece| (piece.offset, text(piece.kind))).collect()
    }

    fn owned(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(offset, text)| (*offset, (*text).to_owned())).collect()
    }

    #[test]
    fn frames_are_cut_however_they_arrive() {
        let stream = [frame("a"), frame("bcd")].concat();
        let expected = owned(&[(0, "frame 18"), (18, "frame 20")]);
        for step in 1..stream.len() {
            let mut reader = FrameReader::new(false);
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                reader.push(part);
                found.extend(pieces(&mut reader));
            }
            assert_eq!(found, expected, "{step}");
        }
    }

    #[test]
    fn bytes_missing_within_a_frame_cost_that_frame_alone() {
        let mut reader = FrameReader::new(false);
        reader.push(&frame("a long name of a topic")[..20]);
        assert_eq!(pieces(&mut reader), []);
        let cut = reader.missing(10).map(|piece| piece.kind);
        assert_eq!(cut, Some(FramePieceKind::Cut(Bytes::copy_from_slice(&frame("a long name of a topic")[..20]))));
        reader.push(&frame("a long name of a topic")[30..]);
        reader.push(&frame("b"));
        assert_eq!(pieces(&mut reader), owned(&[(39, "frame 18")]));
    }

    #[test]
    fn behind_lost_bytes_the_next_frame_is_found() {
        let mut reader = FrameReader::new(false);
        reader.push(&frame("a"));
        assert_eq!(pieces(&mut reader).len(), 1);
        assert_eq!(reader.missing(100), None);
        reader.push(b"rest of a frame");
        reader.push(&frame("b"));
        assert_eq!(pieces(&mut reader), owned(&[(118, "skipped 15"), (133, "frame 18")]));
        reader.push(&frame("c")[..7]);
        reader.end();
        assert_eq!(pieces(&mut reader), owned(&[(151, "cut 7")]));
    }

    #[test]
    fn a_partial_stream_starts_with_its_first_frame() {
        let mut reader = FrameReader::new(true);
        reader.push(&[b"middle of a frame", &frame("b")[..]].concat());
        assert_eq!(pieces(&mut reader), owned(&[(0, "skipped 17"), (17, "frame 18")]));
    }

    #[test]
    fn what_is_no_frame_is_shown_and_left() {
        let mut reader = FrameReader::new(false);
        reader.push(b"SSH-2.0-something else");
        reader.push(&frame("a"));
        reader.end();
        assert_eq!(pieces(&mut reader), owned(&[(0, "no frame 16"), (0, "skipped 22"), (22, "frame 18")]));
    }

    #[test]
    fn other_protocols_are_said_once() {
        for (first, text) in
            [(&b"\x16\x03\x01\x02\x00\x01"[..], "TLS"), (b"GET / HTTP/1.1", "HTTP"), (b"\x17\x03\x03", "TLS")]
        {
            let mut reader = FrameReader::new(text == "TLS");
            reader.push(first);
            reader.push(&frame("a"));
            reader.end();
            assert_eq!(pieces(&mut reader), owned(&[(0, text)]));
        }
    }
}
