//! A file without a name, for what is too much for memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use super::random_word;

/// Bytes that are kept in memory before they are written.
const TAIL_BYTES: usize = 256 * 1024;

/// Bytes at places that never change. The file is readable by its owner alone, has no name while it is used where the system allows
/// that, and is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    path: PathBuf,
    /// What is in the file.
    written: u64,
    /// What is behind that, not written yet.
    tail: Vec<u8>,
    limit: u64,
}

impl Spill {
    /// An empty one for at most `limit` bytes, in the system's folder for temporary files.
    pub(super) fn new(limit: u64) -> io::Result<Self> {
        let name = format!("pulsar-native-tap-{}-{:016x}", std::process::id(), random_word());
        let path = std::env::temp_dir().join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        // Where an open file cannot be removed, it is when this is dropped.
        let _ = std::fs::remove_file(&path);
        Ok(Self { file, path, written: 0, tail: Vec::new(), limit })
    }

    /// Appends bytes and gives their place; `None` where they are beyond the limit.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<Option<u64>> {
        let at = self.written + self.tail.len() as u64;
        if at + bytes.len() as u64 > self.limit {
            return Ok(None);
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= TAIL_BYTES {
            self.flush()?;
        }
        Ok(Some(at))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.written))?;
        self.file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// The bytes of one [`append`](Self::append).
    pub(super) fn read(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        if at + len as u64 > self.written {
            self.flush()?;
        }
        let mut bytes = vec![0; len];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_back_up_to_the_limit() {
        let mut spill = Spill::new(600_000).expect("a file");
        let places: Vec<_> =
            (0..5u8).map(|byte| spill.append(&[byte; 100_000]).expect("written").expect("within the limit")).collect();
        for (byte, at) in (0..5u8).zip(places).rev() {
            assert_eq!(spill.read(at, 100_000).expect("read"), vec![byte; 100_000]);
        }
        assert_eq!(spill.append(&[9; 100_001]).expect("not written"), None);
        assert_eq!(spill.append(b"more").expect("written"), Some(500_000));
        assert_eq!(spill.read(500_000, 4).expect("read"), b"more");
    }
}
