//! One direction of a TCP connection: its bytes put in order.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The most bytes of a direction that wait for earlier ones; then those count as lost by the capture.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The same as pieces.
const WAITING_MAX: usize = 4096;

/// How many packets of the connection may follow the acknowledgement of bytes that are not there: a capture can have packets
/// out of order. Then the bytes count as lost by the capture.
const PACKETS_BEHIND_ACK_MAX: u32 = 64;

/// The largest distance that two ends can have: TCP's largest window. Whatever is farther off is not of this stream.
const WINDOW_MAX: i64 = 1 << 30;

/// What comes next in the direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Bytes(Bytes),
    Missing(u64),
}

/// Bytes of one packet, and how many behind them the capture cut off.
#[derive(Debug, Clone)]
struct Piece {
    bytes: Bytes,
    cut: u32,
}

impl Piece {
    fn len(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.cut)
    }
}

/// Positions count the bytes from the first one that was seen, on 64 bits.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence number of the position `at`.
    sequence: Option<u32>,
    /// Everything before is given out.
    at: u64,
    /// By position, all behind `at`.
    waiting: BTreeMap<u64, Piece>,
    waiting_bytes: usize,
    /// Everything before it has reached the other side.
    acknowledged: u64,
    /// Packets of the connection since that is beyond what waits.
    packets_behind_ack: u32,
    end: Option<u64>,
    is_ended: bool,
}

impl Stream {
    /// The sequence number of the first byte.
    pub(super) fn start(&mut self, sequence: u32) {
        self.sequence.get_or_insert(sequence);
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The bytes of a packet, and whether the stream ends behind them.
    pub(super) fn push(&mut self, sequence: u32, bytes: Bytes, cut: u32, is_end: bool, out: &mut Vec<Item>) {
        self.start(sequence);
        let Some(at) = self.position(sequence) else { return };
        let piece = Piece { bytes, cut };
        if is_end {
            self.end.get_or_insert((at + piece.len() as i64).max(0) as u64);
        }
        match u64::try_from(at) {
            Ok(at) if at > self.at => self.wait(at, piece),
            // What is before the first byte that was seen is left out.
            _ => self.give(piece, self.at.saturating_add_signed(-at), out),
        }
        self.give_waiting(out);
        while self.waiting_bytes > WAITING_BYTES_MAX || self.waiting.len() > WAITING_MAX {
            self.skip(out);
        }
    }

    /// The other side has everything before `sequence`.
    pub(super) fn acknowledge(&mut self, sequence: u32, out: &mut Vec<Item>) {
        if let Some(at) = self.position(sequence).and_then(|at| u64::try_from(at).ok()) {
            self.acknowledged = self.acknowledged.max(at);
        }
        let is_lost = self.waiting.first_key_value().is_some_and(|(&at, _)| at <= self.acknowledged);
        self.packets_behind_ack = if is_lost { self.packets_behind_ack + 1 } else { 0 };
        if self.packets_behind_ack > PACKETS_BEHIND_ACK_MAX {
            self.skip(out);
        }
    }

    /// Gives out all that waits: nothing follows.
    pub(super) fn finish(&mut self, out: &mut Vec<Item>) {
        while !self.waiting.is_empty() {
            self.skip(out);
        }
        // Without the end, one more than is there may be the end itself, which is acknowledged too.
        let end = match self.end {
            Some(end) => end,
            None if self.acknowledged == self.at + 1 => self.at,
            None => self.acknowledged,
        };
        if end > self.at && self.sequence.is_some() {
            self.miss(end - self.at, out);
        }
    }

    /// Whether the end has just been reached.
    pub(super) fn ends_now(&mut self) -> bool {
        let is_end = !self.is_ended && self.end.is_some_and(|end| end <= self.at);
        self.is_ended |= is_end;
        is_end
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    fn position(&self, sequence: u32) -> Option<i64> {
        let distance = i64::from(sequence.wrapping_sub(self.sequence?) as i32);
        (distance.abs() <= WINDOW_MAX).then_some(self.at as i64 + distance)
    }

    fn wait(&mut self, at: u64, piece: Piece) {
        let known = self.waiting.get(&at).map_or(0, |known| known.bytes.len() as u64 * 2 + u64::from(known.cut > 0));
        // Of two with the same start the one with more bytes.
        if piece.bytes.len() as u64 * 2 < known || piece.len() == 0 {
            return;
        }
        self.waiting_bytes += piece.bytes.len();
        if let Some(old) = self.waiting.insert(at, piece) {
            self.waiting_bytes -= old.bytes.len();
        }
    }

    /// Gives out a piece at or before `at`, without its first `known` bytes.
    fn give(&mut self, mut piece: Piece, known: u64, out: &mut Vec<Item>) {
        if known >= piece.len() {
            return;
        }
        let given = piece.bytes.len().min(usize::try_from(known).unwrap_or(usize::MAX));
        let bytes = piece.bytes.split_off(given);
        let cut = u64::from(piece.cut) - (known - given as u64);
        if !bytes.is_empty() {
            self.advance(bytes.len() as u64);
            out.push(Item::Bytes(bytes));
        }
        self.miss(cut, out);
    }

    fn give_waiting(&mut self, out: &mut Vec<Item>) {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() <= self.at) {
            let (at, piece) = entry.remove_entry();
            self.waiting_bytes -= piece.bytes.len();
            self.give(piece, self.at - at, out);
        }
    }

    /// What is missing before the first that waits is lost.
    fn skip(&mut self, out: &mut Vec<Item>) {
        if let Some((&at, _)) = self.waiting.first_key_value() {
            self.miss(at - self.at, out);
            self.give_waiting(out);
        }
        self.packets_behind_ack = 0;
    }

    fn miss(&mut self, count: u64, out: &mut Vec<Item>) {
        if count > 0 {
            self.advance(count);
            match out.last_mut() {
                Some(Item::Missing(before)) => *before += count,
                _ => out.push(Item::Missing(count)),
            }
        }
    }

    fn advance(&mut self, count: u64) {
        self.at += count;
        self.sequence = self.sequence.map(|sequence| sequence.wrapping_add(count as u32));
    }
}
