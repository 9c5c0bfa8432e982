//! A file for one test.

use std::path::{Path, PathBuf};

/// A file with an absolute path, gone with the value.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    /// `name` is the end of the file's name, one for each use in a process.
    pub(crate) fn new(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("pulsar-native-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a file can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn text(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
