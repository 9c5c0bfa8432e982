//! Whether the process that started this one is still there.

use std::io;
use std::time::Duration;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// The process that started this one, by its id.
pub(super) struct Parent(u32);

impl Parent {
    /// `id` is what its parent says of itself: that one may have ended before this process looks.
    #[cfg(unix)]
    #[allow(clippy::unnecessary_wraps, reason = "elsewhere it fails")]
    pub(super) fn of_this_process(id: Option<u32>) -> io::Result<Self> {
        Ok(Self(id.unwrap_or_else(std::os::unix::process::parent_id)))
    }

    #[cfg(not(unix))]
    pub(super) fn of_this_process(_: Option<u32>) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "--exit-with-parent is for Unix alone"))
    }

    /// A process whose parent has ended gets another one.
    #[cfg(unix)]
    fn is_there(&self) -> bool {
        std::os::unix::process::parent_id() == self.0
    }

    #[cfg(not(unix))]
    fn is_there(&self) -> bool {
        self.0 != 0
    }
}

/// Returns when the parent has ended; without one to look after, never.
pub(super) async fn ended(parent: Option<Parent>) {
    let Some(parent) = parent else { return std::future::pending().await };
    while parent.is_there() {
        tokio::time::sleep(INTERVAL).await;
    }
}
