//! The bytes of one direction, cut into runs of frames; and the next frame found where bytes are missing.
//!
//! ```text
//! Start --cannot be another protocol--> Synced | Lost    Start --TLS, HTTP--> Over
//! Synced --cannot be read--> Over                        nothing more is read
//! Synced --bytes missing within a frame--> Rest --its end--> Synced
//! Synced --bytes missing otherwise--> Lost --a frame that can be read--> Synced
//! ```
//!
//! `capture::FrameReader` is for people: it cuts frame by frame and goes on behind what is none. Here a run of frames is split off at
//! once, the size that CONNECTED names is the limit, and what cannot be read is the sender's fault, unless the place was lost before.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::budget::Share;
use crate::capture::Traffic;
use crate::capture::likeness::{Likeness, looks_like};
use crate::wire::error::DecodeError;
use crate::wire::frame::{Limits, cut};

/// The largest frame that is put together, whatever the broker says it takes, bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The largest buffer that is kept for little, bytes.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// `total_size`.
const SIZE_FIELD_BYTES: usize = 4;

/// `total_size` and `command_size`.
pub(super) const LENGTHS_BYTES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start {
        is_partial: bool,
    },
    Synced,
    /// So many bytes of a frame are left, whose middle is missing.
    Rest(u64),
    Lost,
    Over,
}

/// What comes next in a direction.
#[derive(Debug)]
pub(super) enum Piece {
    /// Whole frames, to be decoded by `wire::frame::frames`.
    Run(Bytes),
    /// So many bytes belong to no frame that can be read.
    Skipped(u64),
    /// Nothing more is read.
    Unreadable(DecodeError),
    /// It is not Pulsar's protocol; nothing more is read.
    Other(Traffic),
}

pub(super) struct Cutter {
    state: State,
    buffer: BytesMut,
    limits: Limits,
    skipped: u64,
    /// Every frame begins where the one before ends, and nothing was missing.
    is_sure: bool,
    /// What the buffer holds.
    share: Share,
}

impl fmt::Debug for Cutter {
    /// Shows only the length of the buffer: it may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("state", &self.state).field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Cutter {
    /// `is_partial`: the first bytes may be from within a frame.
    pub(super) fn new(is_partial: bool, share: Share) -> Self {
        let state = State::Start { is_partial };
        Self { state, buffer: BytesMut::new(), limits: Limits::default(), skipped: 0, is_sure: !is_partial, share }
    }

    /// The size that CONNECTED names.
    pub(super) fn set_message_size(&mut self, max_message_size: u32) {
        let limits = Limits::for_message_size(max_message_size);
        self.limits = Limits { frame_bytes_max: limits.frame_bytes_max.min(FRAME_BYTES_MAX) };
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Over {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// How many bytes wait for those that follow them.
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The lengths of the frame that waits for its end, as far as they are there; nothing where no frame is known to begin.
    pub(super) fn lengths(&self) -> &[u8] {
        match self.state {
            State::Synced | State::Start { is_partial: false } => &self.buffer[..self.buffer.len().min(LENGTHS_BYTES)],
            _ => &[],
        }
    }

    /// Says what is left for the next bytes, once all pieces are taken. False where all connections
    /// hold too much: this frame is lost.
    pub(super) fn settle(&mut self) -> bool {
        // A large frame that is gone leaves a large buffer.
        if self.buffer.capacity() > SPARE_BYTES_MAX.max(4 * self.buffer.len()) {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        self.share.set(self.buffer.len());
        if self.buffer.is_empty() || !self.share.is_full() {
            return true;
        }
        self.lose(0);
        self.buffer = BytesMut::new();
        self.share.set(0);
        false
    }

    /// So many bytes are missing here. Those that are missing within one frame lose that frame alone.
    pub(super) fn lose(&mut self, count: u64) {
        let left = match self.state {
            State::Over => return,
            State::Rest(left) => Some(left),
            State::Synced => self.frame_size().and_then(|size| size.checked_sub(self.buffer.len() as u64)),
            State::Start { .. } | State::Lost => None,
        };
        self.skip(self.buffer.len());
        // A recording whose secrets are overwritten has no frames behind missing bytes.
        self.is_sure = false;
        self.state = left.and_then(|left| left.checked_sub(count)).map_or(State::Lost, State::Rest);
    }

    /// A frame of the last run cannot be decoded. Whether that is its sender's fault: not where bytes were missing before.
    pub(super) fn reject(&mut self) -> bool {
        if self.is_sure {
            self.give_up();
        } else {
            self.state = State::Lost;
        }
        self.is_sure
    }

    /// Nothing of this direction is read any more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Over;
        self.buffer = BytesMut::new();
    }

    /// The next piece; `None` until more bytes are there.
    pub(super) fn next(&mut self) -> Option<Piece> {
        loop {
            match self.state {
                State::Over => return None,
                State::Start { is_partial } => match Traffic::of(&self.buffer) {
                    Some(traffic @ (Traffic::Tls | Traffic::Http)) => {
                        self.give_up();
                        return Some(Piece::Other(traffic));
                    }
                    None if is_partial || self.may_be_other() => return None,
                    _ => self.state = if is_partial { State::Lost } else { State::Synced },
                },
                State::Rest(left) => {
                    let count = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.skip(count);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Synced } else { State::Rest(left) };
                    if left > 0 {
                        return None;
                    }
                    if let Some(skipped) = self.take_skipped() {
                        return Some(skipped);
                    }
                }
                State::Lost => {
                    if !self.find_frame() {
                        return None;
                    }
                    self.state = State::Synced;
                    if let Some(skipped) = self.take_skipped() {
                        return Some(skipped);
                    }
                }
                State::Synced => match cut(&mut self.buffer, &self.limits) {
                    Ok(run) => return run.map(Piece::Run),
                    Err(error) => {
                        if self.reject() {
                            return Some(Piece::Unreadable(error));
                        }
                        self.skip(1);
                    }
                },
            }
        }
    }

    /// The first bytes may become those of another protocol.
    fn may_be_other(&self) -> bool {
        self.buffer.len() < SIZE_FIELD_BYTES || Traffic::may_be_http(&self.buffer)
    }

    /// The size of the frame at the front, its length field included.
    fn frame_size(&self) -> Option<u64> {
        let total = u32::from_be_bytes(*self.buffer.first_chunk()?);
        Some(u64::from(total) + SIZE_FIELD_BYTES as u64)
    }

    /// Drops what is in front of the next frame; false if none is there yet.
    fn find_frame(&mut self) -> bool {
        let mut at = 0;
        let found = loop {
            match looks_like(&self.buffer[at..], &self.limits) {
                Likeness::No => at += 1,
                Likeness::Yes => break true,
                Likeness::Unknown => break false,
            }
        };
        self.skip(at);
        found
    }

    fn skip(&mut self, count: usize) {
        self.buffer.advance(count);
        self.skipped += count as u64;
    }

    fn take_skipped(&mut self) -> Option<Piece> {
        let skipped = std::mem::take(&mut self.skipped);
        (skipped > 0).then_some(Piece::Skipped(skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use crate::tap::budget::Budget;
    use crate::wire::command::Command;

    fn cutter(is_partial: bool) -> Cutter {
        Cutter::new(is_partial, Budget::new(usize::MAX).share())
    }

    fn ping() -> BytesMut {
        let mut out = BytesMut::new();
        Command::from(pb::CommandPing {}).encode_frame(&mut out);
        out
    }

    #[test]
    fn the_next_frame_is_found_from_within_another() {
        for garbage in 0..40usize {
            let mut cutter = cutter(true);
            let mut skipped = 0;
            let noise: Vec<u8> = (0..garbage).map(|index| (index * 37) as u8).collect();
            let mut runs = 0;
            for byte in noise.iter().chain(&ping()).chain(&ping()) {
                cutter.push(&[*byte]);
                while let Some(piece) = cutter.next() {
                    match piece {
                        Piece::Run(run) => runs += run.len() / ping().len(),
                        Piece::Skipped(count) => skipped += count,
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!((runs, skipped), (2, garbage as u64));
        }
    }

    #[test]
    fn after_a_length_that_cannot_be_nothing_more_is_read() {
        let mut cutter = cutter(false);
        cutter.push(&[0, 0, 0, 3]);
        assert!(matches!(cutter.next(), Some(Piece::Unreadable(_))));
        cutter.push(&ping());
        assert!(cutter.next().is_none());
    }

    fn text(piece: Piece) -> String {
        match piece {
            Piece::Run(run) => format!("run {}", run.len()),
            Piece::Skipped(count) => format!("skipped {count}"),
            Piece::Unreadable(_) => "unreadable".to_owned(),
            Piece::Other(traffic) => traffic.to_string(),
        }
    }

    fn pieces(cutter: &mut Cutter, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for byte in bytes.chunks(1) {
            cutter.push(byte);
            found.extend(std::iter::from_fn(|| cutter.next()).map(text));
        }
        found
    }

    /// A frame whose payload is frames.
    fn envelope() -> Vec<u8> {
        let inner = [&ping()[..], &ping(), &ping()].concat();
        let mut out = ping();
        let size = (out.len() - 4 + inner.len()) as u32;
        out[..4].copy_from_slice(&size.to_be_bytes());
        [&out[..], &inner].concat()
    }

    #[test]
    fn bytes_missing_within_a_frame_lose_that_frame_alone() {
        let (whole, size) = (envelope(), ping().len());
        for from in 4..whole.len() {
            for to in from + 1..=whole.len() {
                let mut cutter = cutter(false);
                assert_eq!(pieces(&mut cutter, &ping()), [format!("run {size}")]);
                assert!(pieces(&mut cutter, &whole[..from]).is_empty());
                cutter.lose((to - from) as u64);
                let rest = [&whole[to..], &ping()].concat();
                let skipped = format!("skipped {}", whole.len() - (to - from));
                assert_eq!(pieces(&mut cutter, &rest), [skipped, format!("run {size}")], "{from}..{to}");
            }
        }
    }

    #[test]
    fn other_protocols_are_told_by_their_first_bytes() {
        for (first, name) in [
            (&b"GET /lookup HTTP/1.1"[..], "HTTP"),
            (b"OPTIONS * HTTP/1.1", "HTTP"),
            (b"HTTP/1.1 200 OK", "HTTP"),
            (b"\x16\x03\x01\x00\xc8\x01", "TLS"),
            (b"\x15\x03\x03\x00\x02\x02\x28", "TLS"),
            (b"HTTQ/1.1", "unreadable"),
            (b"SSH-2.0-x", "unreadable"),
        ] {
            let mut cutter = cutter(false);
            assert_eq!(pieces(&mut cutter, &[first, &ping()].concat()), [name]);
        }
        assert_eq!(pieces(&mut cutter(true), b"\x17\x03\x03\x00\x02\x02\x28"), ["TLS"]);
    }

    #[test]
    fn what_comes_behind_missing_bytes_is_nobodys_fault() {
        let mut cutter = cutter(true);
        let bytes = [b"middle of a frame", &ping()[..], &[0xff; 9], &ping()].concat();
        let size = ping().len();
        let expected = ["skipped 17".to_owned(), format!("run {size}"), "skipped 9".to_owned(), format!("run {size}")];
        assert_eq!(pieces(&mut cutter, &bytes), expected);
        // As in a recording whose secrets are overwritten.
        let mut cutter = self::cutter(false);
        assert!(pieces(&mut cutter, &[0, 0, 0, 20]).is_empty());
        cutter.lose(15);
        assert_eq!(pieces(&mut cutter, &[0; 50]), ["skipped 9"]);
        assert_eq!(pieces(&mut cutter, &ping()), ["skipped 45".to_owned(), format!("run {size}")]);
    }

    #[test]
    fn a_frame_for_which_there_is_no_room_is_lost_alone() {
        let budget = Budget::new(1_000);
        let mut cutters = [Cutter::new(false, budget.share()), Cutter::new(false, budget.share())];
        let mut frame = vec![0; 804];
        frame[..4].copy_from_slice(&800u32.to_be_bytes());
        for (cutter, is_kept) in cutters.iter_mut().zip([true, false]) {
            cutter.push(&frame[..700]);
            assert!(cutter.next().is_none());
            assert_eq!(cutter.settle(), is_kept);
        }
        assert_eq!(budget.bytes(), 700);
        cutters[1].push(&[&frame[700..], &ping()].concat());
        assert!(matches!(cutters[1].next(), Some(Piece::Skipped(804))));
        assert!(matches!(cutters[1].next(), Some(Piece::Run(_))));
        drop(cutters);
        assert_eq!(budget.bytes(), 0);
    }
}
