//! What is needed to find and to fold observations, by number: the last ones in memory, the others in a file.

use std::collections::VecDeque;
use std::io;

use super::spill::Spill;

/// Time since the first observation, in units of [`TICK_MICROS`].
pub(super) type Ticks = u32;

/// What 32 bits count for five days.
pub(super) const TICK_MICROS: u64 = 100;

/// Entries that are written and read as one.
pub(super) const PIECE: usize = 1 << 14;

/// Full pieces that are in memory: the last ones, to which most links lead.
const RECENT_MAX: usize = 8;

/// Pieces that were read from the file last.
const READ_MAX: usize = 8;

/// Bytes of an entry in the file.
const ENTRY_BYTES: usize = 14;

/// Of these, where `after` is.
const AFTER: std::ops::Range<usize> = 8..12;

/// Bytes of the file: for two thousand million entries.
const FILE_BYTES_MAX: u64 = 32 << 30;

/// No observation.
pub(super) const NONE: u32 = u32::MAX;

/// What is kept of an observation to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Ticks,
    pub(super) subject: u32,
    /// The observation that answers or follows it, or [`NONE`].
    pub(super) after: u32,
    /// Index of the name in the store's `kinds`.
    pub(super) kind: u8,
    pub(super) flags: u8,
}

impl Entry {
    pub(super) const UP: u8 = 1;
    pub(super) const ERROR: u8 = 2;
    pub(super) const PLAIN: u8 = 4;

    pub(super) fn is_up(self) -> bool {
        self.flags & Self::UP != 0
    }

    /// A violation, or a frame that refuses something.
    pub(super) fn is_error(self) -> bool {
        self.flags & Self::ERROR != 0
    }

    /// A frame of the data path that nothing is remarkable about: runs of them are folded.
    pub(super) fn is_plain(self) -> bool {
        self.flags & Self::PLAIN != 0
    }

    fn put(self, out: &mut Vec<u8>) {
        for number in [self.at, self.subject, self.after] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[self.kind, self.flags]);
    }

    /// Of [`ENTRY_BYTES`] bytes.
    fn read(bytes: &[u8]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { at: number(0), subject: number(4), after: number(8), kind: bytes[12], flags: bytes[13] }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Entries {
    spill: Spill,
    /// Where each piece in the file is.
    places: Vec<u64>,
    /// The pieces behind those; the last one grows.
    recent: VecDeque<Vec<Entry>>,
    /// Pieces of the file, by index; the one that was used last is at the end.
    read: Vec<(usize, Vec<Entry>)>,
}

impl Entries {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { spill: Spill::new(FILE_BYTES_MAX)?, places: Vec::new(), recent: VecDeque::new(), read: Vec::new() })
    }

    pub(super) fn len(&self) -> u32 {
        let full = self.places.len() + self.recent.len().saturating_sub(1);
        (full * PIECE + self.recent.back().map_or(0, Vec::len)) as u32
    }

    /// Makes room for one more, so that [`push`](Self::push) cannot fail.
    ///
    /// # Errors
    /// The file cannot be written. What is there stays.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        if self.recent.back().is_some_and(|piece| piece.len() < PIECE) {
            return Ok(());
        }
        if let Some(piece) = self.recent.front().filter(|_| self.recent.len() > RECENT_MAX) {
            let mut bytes = Vec::with_capacity(PIECE * ENTRY_BYTES);
            piece.iter().for_each(|entry| entry.put(&mut bytes));
            self.places.push(self.spill.append(&bytes)?);
            self.recent.pop_front();
        }
        self.recent.push_back(Vec::with_capacity(PIECE));
        Ok(())
    }

    /// Adds one, after [`make_room`](Self::make_room).
    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(piece) = self.recent.back_mut() {
            piece.push(entry);
        }
    }

    /// The pieces from entry `n` to the end of its piece.
    pub(super) fn from(&mut self, n: u32) -> io::Result<&[Entry]> {
        let (index, offset) = (n as usize / PIECE, n as usize % PIECE);
        let piece = match index.checked_sub(self.places.len()) {
            Some(recent) => self.recent.get(recent),
            None => Some(self.read(index)?),
        };
        Ok(piece.and_then(|piece| piece.get(offset..)).unwrap_or_default())
    }

    pub(super) fn get(&mut self, n: u32) -> io::Result<Option<Entry>> {
        Ok(self.from(n)?.first().copied())
    }

    /// Sets what follows entry `n`.
    pub(super) fn set_after(&mut self, n: u32, after: u32) -> io::Result<()> {
        let (index, offset) = (n as usize / PIECE, n as usize % PIECE);
        let set = |piece: Option<&mut Vec<Entry>>| {
            if let Some(entry) = piece.and_then(|piece| piece.get_mut(offset)) {
                entry.after = after;
            }
        };
        let Some(place) = self.places.get(index) else {
            set(self.recent.get_mut(index - self.places.len()));
            return Ok(());
        };
        set(self.read.iter_mut().find(|(known, _)| *known == index).map(|(_, piece)| piece));
        self.spill.write(place + (offset * ENTRY_BYTES + AFTER.start) as u64, &after.to_le_bytes())
    }

    fn read(&mut self, index: usize) -> io::Result<&Vec<Entry>> {
        let piece = match self.read.iter().position(|(known, _)| *known == index) {
            Some(position) => self.read.remove(position).1,
            None => {
                let bytes = self.spill.read(self.places[index], PIECE * ENTRY_BYTES)?;
                bytes.chunks_exact(ENTRY_BYTES).map(Entry::read).collect()
            }
        };
        if self.read.len() >= READ_MAX {
            self.read.remove(0);
        }
        self.read.push((index, piece));
        Ok(&self.read[self.read.len() - 1].1)
    }

    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.spill.fill_disk();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_in_memory_and_in_the_file_are_the_same() {
        let mut entries = Entries::new().expect("a file");
        let count = ((RECENT_MAX + 4) * PIECE + 100) as u32;
        let entry = |n: u32| Entry { at: n * 3, subject: n / 7, after: NONE, kind: n as u8, flags: (n % 5) as u8 };
        for n in 0..count {
            entries.make_room().expect("written");
            entries.push(entry(n));
        }
        assert_eq!((entries.len(), entries.places.len()), (count, 4));
        for n in [0, 1, 40_000, 70_000, count - 1] {
            assert_eq!(entries.get(n).expect("read"), Some(entry(n)));
            entries.set_after(n, n + 5).expect("written");
            assert_eq!(entries.get(n).expect("read"), Some(Entry { after: n + 5, ..entry(n) }));
        }
        entries.read.clear();
        assert_eq!(entries.get(1).expect("read"), Some(Entry { after: 6, ..entry(1) }));
        assert_eq!(entries.get(count).expect("read"), None);
    }
}
