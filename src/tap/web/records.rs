//! What observations say, by number: blocks of lines in a file, and beside each block the words that it is found by.

use std::io;

use super::spill::Spill;

/// Records that are written as one, and read as one.
pub(super) const BLOCK: usize = 128;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 8 << 30;

/// The most bytes of a block: what is longer does not come from [`Records::push`].
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Where a block is: its words, then its records.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    words: u32,
    records: u32,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Records {
    spill: Spill,
    full: Vec<Place>,
    /// Of the last block: a line for each record, the words of each, and how many there are.
    lines: Vec<u8>,
    words: String,
    count: usize,
    /// The block that was read last.
    read: Option<(usize, Vec<u8>)>,
}

impl Records {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            spill: Spill::new(FILE_BYTES_MAX)?,
            full: Vec::new(),
            lines: Vec::new(),
            words: String::new(),
            count: 0,
            read: None,
        })
    }

    /// Makes room for one more, so that [`push`](Self::push) cannot fail.
    ///
    /// # Errors
    /// The file cannot be written. What is there stays.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        if self.count < BLOCK {
            return Ok(());
        }
        let mut bytes = self.words.clone().into_bytes();
        bytes.extend_from_slice(&lz4_flex::block::compress_prepend_size(&self.lines));
        let (words, records) = (self.words.len(), bytes.len() - self.words.len());
        let at = self.spill.append(&bytes)?;
        self.full.push(Place { at, words: words as u32, records: records as u32 });
        self.lines.clear();
        self.words.clear();
        self.count = 0;
        Ok(())
    }

    /// Adds a record and the words that it is found by, after [`make_room`](Self::make_room).
    pub(super) fn push(&mut self, record: &str, words: &str) {
        self.lines.extend_from_slice(record.as_bytes());
        self.lines.push(b'\n');
        self.words.push_str(words);
        self.words.push('\n');
        self.count += 1;
    }

    /// Bytes of a frame; they can be read by [`bytes`](Self::bytes).
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.spill.append(bytes)
    }

    pub(super) fn bytes(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.spill.read(at, len)
    }

    /// The words of a block, a line for each of its records.
    pub(super) fn words(&mut self, block: usize) -> io::Result<String> {
        let Some(place) = self.full.get(block) else { return Ok(self.words.clone()) };
        let bytes = self.spill.read(place.at, place.words as usize)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The record with this number.
    pub(super) fn line(&mut self, n: u32) -> io::Result<Option<String>> {
        let (block, offset) = (n as usize / BLOCK, n as usize % BLOCK);
        let lines = match self.full.get(block).copied() {
            Some(place) => self.block(block, place)?,
            None => &self.lines,
        };
        let line = lines.split(|byte| *byte == b'\n').nth(offset).filter(|line| !line.is_empty());
        Ok(line.map(|line| String::from_utf8_lossy(line).into_owned()))
    }

    fn block(&mut self, block: usize, place: Place) -> io::Result<&Vec<u8>> {
        let read = match self.read.take().filter(|(known, _)| *known == block) {
            Some(read) => read,
            None => {
                let bytes = self.spill.read(place.at + u64::from(place.words), place.records as usize)?;
                (block, decompressed(&bytes)?)
            }
        };
        Ok(&self.read.insert(read).1)
    }

    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.spill.fill_disk();
    }
}

fn decompressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let wrong = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let (size, block) = lz4_flex::block::uncompressed_size(bytes).map_err(|error| wrong(&error))?;
    if size > BLOCK_BYTES_MAX {
        return Err(wrong(&"a block is too long"));
    }
    lz4_flex::block::decompress(block, size).map_err(|error| wrong(&error))
}
