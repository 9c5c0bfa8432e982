//! Files that are written, none of which others may read or put in our way.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

/// Read and written by the owner alone, where the system has such modes.
fn ours() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The file at a path that someone chose: made, or emptied and made the owner's alone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = ours().create(true).truncate(true).open(path)?;
    #[cfg(unix)]
    if file.metadata()?.is_file() {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(file)
}

/// A new file in the folder for temporary files, with a random name; links are not followed.
pub(super) fn temporary(suffix: &str) -> io::Result<(File, PathBuf)> {
    // Of the random keys that the standard library has for its hash tables.
    let word = std::hash::RandomState::new().build_hasher().finish();
    let path = std::env::temp_dir().join(format!("pulsar-native-tap-{}-{word:016x}{suffix}", std::process::id()));
    Ok((ours().create_new(true).open(&path)?, path))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(file: &File) -> u32 {
        file.metadata().expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_the_owners_alone() {
        let (file, path) = temporary(".test").expect("a file");
        assert_eq!(mode(&file), 0o600);
        let (_, other) = temporary(".test").expect("a file of another name");
        file.set_permissions(PermissionsExt::from_mode(0o644)).expect("it is ours");
        assert_eq!(mode(&create(&path).expect("it can be written")), 0o600);
        for path in [path, other] {
            std::fs::remove_file(path).expect("it is ours");
        }
    }
}
