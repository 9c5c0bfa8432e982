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

    /// Appends bytes and gives their place.
    ///
    /// # Errors
    /// The limit, or what the system says of the file: then nothing is appended, and what was stays readable.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        if self.tail.len() >= TAIL_BYTES {
            self.flush()?;
        }
        let at = self.written + self.tail.len() as u64;
        if at + bytes.len() as u64 > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("it has {} MiB, the most", self.limit >> 20),
            ));
        }
        self.tail.extend_from_slice(bytes);
        Ok(at)
    }

    /// What a failed call has written of the tail, the next one writes again.
    fn flush(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.written))?;
        self.file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// The bytes of one [`append`](Self::append), or a part of them.
    pub(super) fn read(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        if let Some(offset) = at.checked_sub(self.written) {
            let bytes = usize::try_from(offset).ok().and_then(|offset| self.tail.get(offset..)?.get(..len));
            return bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes over bytes of one [`append`](Self::append).
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(offset) = at.checked_sub(self.written) {
            let place =
                usize::try_from(offset).ok().and_then(|offset| self.tail.get_mut(offset..)?.get_mut(..bytes.len()));
            place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(bytes)
    }

    /// From here on each write fails, as on a full disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = File::open("/dev/null").expect("it is there");
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
        let places: Vec<_> = (0..5u8).map(|byte| spill.append(&[byte; 100_000]).expect("within the limit")).collect();
        for (byte, at) in (0..5u8).zip(&places).rev() {
            assert_eq!(spill.read(*at, 100_000).expect("read"), vec![byte; 100_000]);
        }
        assert!(spill.append(&[9; 100_001]).is_err());
        assert_eq!(spill.append(b"more").expect("written"), 500_000);
        assert_eq!(spill.read(500_001, 2).expect("read"), b"or");
        for at in [1, 500_000] {
            spill.write(at, b"new").expect("written");
            assert_eq!(spill.read(at, 3).expect("read"), b"new");
        }
        assert!(spill.read(500_000, 5).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_full_disk_costs_no_memory() {
        let mut spill = Spill::new(1 << 30).expect("a file");
        spill.fill_disk();
        let appended = (0..1000).map(|_| spill.append(&[7; 10_000])).take_while(Result::is_ok).count();
        assert_eq!(appended, TAIL_BYTES.div_ceil(10_000));
        assert!((0..1000).all(|_| spill.append(&[8; 10_000]).is_err()));
        assert!(spill.tail.len() < TAIL_BYTES + 10_000);
        assert_eq!(spill.read(0, 10_000).expect("it is in memory"), [7; 10_000]);
    }
}
