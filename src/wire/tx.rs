//! The bytes that wait to be written to one connection.
//!
//! Small frames are copied into one flat buffer; a large payload is chained as a separate piece, so that it
//! is written without a copy.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::command::Command;

/// A payload of at least this many bytes is chained; copying a smaller one is cheaper than a separate
/// `IoSlice`.
pub const CHAIN_MIN_BYTES: usize = 16 * 1024;

/// A whole frame ready to be written, also again on another connection: a re-send has the same bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SealedFrame {
    /// The frame up to its payload, or all of it.
    pub head: Bytes,
    /// The payload; empty when it is in `head`.
    pub payload: Bytes,
}

impl SealedFrame {
    /// The size of the frame, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Whether it has no bytes, as the default has; no frame is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for SealedFrame {
    /// Shows only lengths: it holds the application's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFrame({} and {} bytes)", self.head.len(), self.payload.len())
    }
}

/// The bytes to write, in order. It has no limit itself: its owner checks [`len`](Self::len) before it adds
/// more.
#[derive(Default)]
pub struct TxBuf {
    /// The first pieces; none is empty.
    chained: VecDeque<Bytes>,
    /// The sum of the lengths in `chained`.
    chained_bytes: usize,
    /// The last piece: small frames are appended here.
    flat: BytesMut,
}

impl fmt::Debug for TxBuf {
    /// Shows only the length: the bytes are the application's data, and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxBuf({} bytes)", self.len())
    }
}

impl TxBuf {
    /// An empty buffer, without an allocation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the frame of a command without payload.
    pub fn push_command(&mut self, command: &Command) {
        command.encode_frame(&mut self.flat);
    }

    /// The flat buffer, to append small frames to. Append only whole frames.
    pub fn flat(&mut self) -> &mut BytesMut {
        &mut self.flat
    }

    /// Appends a sealed frame; pieces of at least [`CHAIN_MIN_BYTES`] are shared, not copied.
    pub fn push_frame(&mut self, frame: &SealedFrame) {
        self.push_piece(&frame.head);
        self.push_piece(&frame.payload);
    }

    fn push_piece(&mut self, piece: &Bytes) {
        if piece.len() < CHAIN_MIN_BYTES {
            self.flat.extend_from_slice(piece);
            return;
        }
        if !self.flat.is_empty() {
            let flat = self.flat.split().freeze();
            self.chain(flat);
        }
        self.chain(piece.clone());
    }

    fn chain(&mut self, piece: Bytes) {
        self.chained_bytes += piece.len();
        self.chained.push_back(piece);
    }

    /// The number of bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chained_bytes + self.flat.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the first `n` bytes, which have been written.
    ///
    /// # Panics
    /// If `n` is more than [`len`](Self::len).
    pub fn advance(&mut self, mut n: usize) {
        assert!(n <= self.len(), "more bytes written than waited");
        while n > 0 {
            let Some(first) = self.chained.front_mut() else {
                self.flat.advance(n);
                return;
            };
            let step = n.min(first.len());
            first.advance(step);
            if first.is_empty() {
                self.chained.pop_front();
            }
            self.chained_bytes -= step;
            n -= step;
        }
    }

    /// Fills `out` with the first pieces, for a vectored write; returns how many were filled.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let flat = (!self.flat.is_empty()).then_some(&self.flat[..]);
        let pieces = self.chained.iter().map(|piece| &piece[..]).chain(flat);
        let mut filled = 0;
        for (slot, piece) in out.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Removes everything and returns it as one piece, copied if there are several.
    pub fn take_all(&mut self) -> Bytes {
        let length = self.len();
        self.copy_to_bytes(length)
    }
}

impl Buf for TxBuf {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.chained.front().map_or(&self.flat[..], |first| &first[..])
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        self.slices(out)
    }

    fn advance(&mut self, n: usize) {
        Self::advance(self, n);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        assert!(length <= self.len(), "more bytes taken than wait");
        if self.chained.is_empty() {
            return self.flat.split_to(length).freeze();
        }
        let mut all = BytesMut::with_capacity(length);
        while all.len() < length {
            let chunk = self.chunk();
            let step = chunk.len().min(length - all.len());
            all.extend_from_slice(&chunk[..step]);
            self.advance(step);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(byte: u8) -> SealedFrame {
        SealedFrame { head: Bytes::from_static(b"head"), payload: vec![byte; CHAIN_MIN_BYTES].into() }
    }

    /// A buffer of small and large frames, and the bytes it must give.
    fn mixed() -> (TxBuf, Vec<u8>) {
        let (mut tx, mut expected) = (TxBuf::new(), Vec::new());
        for byte in 0..3u8 {
            tx.flat().extend_from_slice(b"small");
            tx.push_frame(&large(byte));
            tx.push_frame(&SealedFrame { head: Bytes::from_static(b"flat"), payload: Bytes::new() });
            expected.extend_from_slice(b"smallhead");
            expected.extend_from_slice(&[byte; CHAIN_MIN_BYTES]);
            expected.extend_from_slice(b"flat");
        }
        (tx, expected)
    }

    #[test]
    fn order_is_kept_and_large_payloads_are_shared() {
        let (mut tx, expected) = mixed();
        assert_eq!(tx.len(), expected.len());
        let frame = large(7);
        tx.push_frame(&frame);
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = tx.slices(&mut slices);
        assert_eq!(slices[filled - 1].as_ptr(), frame.payload.as_ptr());
        assert_eq!(filled, 8);
        let mut all = expected;
        all.extend_from_slice(&frame.head);
        all.extend_from_slice(&frame.payload);
        assert_eq!(tx.take_all(), all);
        assert!(tx.is_empty());
    }

    #[test]
    fn every_way_of_writing_gives_the_same_bytes() {
        let steps = [1, 3, 4097, CHAIN_MIN_BYTES, CHAIN_MIN_BYTES + 9, usize::MAX];
        // Miri takes minutes for single bytes.
        for step in steps.into_iter().filter(|step| !cfg!(miri) || *step > 3) {
            let (mut tx, expected) = mixed();
            let mut written = Vec::new();
            while !tx.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = tx.slices(&mut slices);
                let before = written.len();
                for slice in &slices[..filled] {
                    let room = step - (written.len() - before);
                    written.extend_from_slice(&slice[..slice.len().min(room)]);
                }
                let n = written.len() - before;
                tx.advance(n);
                assert_eq!(tx.len(), expected.len() - written.len());
            }
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn it_is_a_buf() {
        let (mut tx, expected) = mixed();
        let part = Buf::copy_to_bytes(&mut tx, 20_000);
        assert_eq!(part, expected[..20_000]);
        assert_eq!(Buf::remaining(&tx), expected.len() - 20_000);
        assert_eq!(tx.take_all(), expected[20_000..]);
    }

    #[test]
    #[should_panic(expected = "more bytes written than waited")]
    fn advance_beyond_the_end_panics() {
        TxBuf::new().advance(1);
    }
}
