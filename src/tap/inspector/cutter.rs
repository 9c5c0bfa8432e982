//! The bytes of one direction, cut into frames; and the next frame found where bytes are missing.
//!
//! ```text
//! Synced --cannot be read--> Broken          nothing more is read
//! Synced --bytes missing---> Lost --a frame that can be read--> Synced
//! ```

use bytes::{Bytes, BytesMut};

use crate::capture::likeness::{Likeness, looks_like};
use crate::wire::error::DecodeError;
use crate::wire::frame::{Limits, cut};

/// The largest frame that is put together, whatever the broker says it takes, bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Synced,
    Lost,
    Broken,
}

/// What comes next in a direction.
#[derive(Debug)]
pub(super) enum Piece {
    /// Whole frames, to be decoded by `wire::frame::frames`.
    Run(Bytes),
    /// So many bytes belong to no frame that can be read.
    Skipped(u64),
    Unreadable(DecodeError),
}

#[derive(Debug)]
pub(super) struct Cutter {
    state: State,
    buffer: BytesMut,
    limits: Limits,
    skipped: u64,
}

impl Cutter {
    /// `is_partial`: the first bytes may be from within a frame.
    pub(super) fn new(is_partial: bool) -> Self {
        let state = if is_partial { State::Lost } else { State::Synced };
        Self { state, buffer: BytesMut::new(), limits: Limits::default(), skipped: 0 }
    }

    /// The size that CONNECTED names.
    pub(super) fn set_message_size(&mut self, max_message_size: u32) {
        let limits = Limits::for_message_size(max_message_size);
        self.limits = Limits { frame_bytes_max: limits.frame_bytes_max.min(FRAME_BYTES_MAX) };
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Broken {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes are missing here. Those that are missing within one frame lose that frame alone.
    pub(super) fn lose(&mut self) {
        if self.state != State::Broken {
            self.skipped += self.buffer.len() as u64;
            self.buffer.clear();
            self.state = State::Lost;
        }
    }

    /// Nothing of this direction can be read any more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Broken;
        self.buffer = BytesMut::new();
    }

    /// The next piece; `None` until more bytes are there.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.state == State::Lost && self.find_frame() {
            self.state = State::Synced;
            let skipped = std::mem::take(&mut self.skipped);
            if skipped > 0 {
                return Some(Piece::Skipped(skipped));
            }
        }
        if self.state != State::Synced {
            return None;
        }
        match cut(&mut self.buffer, &self.limits) {
            Ok(run) => run.map(Piece::Run),
            Err(error) => {
                self.give_up();
                Some(Piece::Unreadable(error))
            }
        }
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
        let _ = self.buffer.split_to(at);
        self.skipped += at as u64;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use crate::wire::command::Command;

    fn ping() -> BytesMut {
        let mut out = BytesMut::new();
        Command::from(pb::CommandPing {}).encode_frame(&mut out);
        out
    }

    #[test]
    fn the_next_frame_is_found_from_within_another() {
        for garbage in 0..40usize {
            let mut cutter = Cutter::new(true);
            let mut skipped = 0;
            let noise: Vec<u8> = (0..garbage).map(|index| (index * 37) as u8).collect();
            let mut runs = 0;
            for byte in noise.iter().chain(&ping()).chain(&ping()) {
                cutter.push(&[*byte]);
                while let Some(piece) = cutter.next() {
                    match piece {
                        Piece::Run(run) => runs += run.len() / ping().len(),
                        Piece::Skipped(count) => skipped += count,
                        Piece::Unreadable(error) => panic!("{error}"),
                    }
                }
            }
            assert_eq!((runs, skipped), (2, garbage as u64));
        }
    }

    #[test]
    fn after_a_length_that_cannot_be_nothing_more_is_read() {
        let mut cutter = Cutter::new(false);
        cutter.push(&[0, 0, 0, 3]);
        assert!(matches!(cutter.next(), Some(Piece::Unreadable(_))));
        cutter.push(&ping());
        assert!(cutter.next().is_none());
    }
}
