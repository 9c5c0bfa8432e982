//! The protocol in a browser: a page on loopback that shows observations as they come, or those of a recording.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `http` | requests and answers |
//! | `guard` | who may ask |
//! | `source` | where observations come from |
//! | `store` | observations by number |
//! | `entries`, `records` | what is needed to find them, and what they say: in temporary files (`spill`) but for the end |
//! | `contents` | keys and properties of messages |
//! | `view`, `bits` | filters, and the rows that they show |
//! | `links` | which observation belongs to which |
//! | `series` | ledgers over time |
//! | `record`, `explained` | an observation, and a frame, as JSON |
//! | `assets` | the page: HTML, CSS and modules of JavaScript, as written |
//!
//! # What it keeps
//! In memory two bits of each observation for each of the last filters, and a few MiB. What observations say, and the bytes of their frames,
//! go to temporary files that their owner alone can read and that have no name. What comes once these are full, or cannot be written,
//! is counted, and the page tells so. Credentials are in no answer; payloads are in one only where the person asked for that of this frame.

mod assets;
mod bits;
mod contents;
mod entries;
mod explained;
mod guard;
mod http;
mod links;
mod record;
mod records;
mod series;
mod source;
mod spill;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::guard::Guard;
use self::source::{Opening, Source};
use super::Observation;

/// A random number, of the keys that the standard library has for its hash tables.
fn random_word() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A page in the browser that shows what a tap sees, or what is in a recording.
///
/// It is served while this lives, to whoever has its [`url`](Self::url). Dropping it ends that, and removes what was kept.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use pulsar_native::tap::WebView;
///
/// let web = WebView::bind("127.0.0.1:0".parse().expect("an address"), "orders").await?;
/// println!("{}", web.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the page is gone when this is dropped"]
pub struct WebView {
    served: Arc<Served>,
    url: String,
    task: JoinHandle<()>,
}

/// What requests are answered from.
#[derive(Debug)]
struct Served {
    guard: Guard,
    title: String,
    tapped: Arc<Source>,
    /// The recording that was dropped on the page last.
    dropped: Mutex<Option<Arc<Source>>>,
}

impl WebView {
    /// A page without observations, under a title that says where they come from. Needs a runtime of tokio.
    ///
    /// # Errors
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput): the address is not one of loopback. Who sees the traffic can read what is in it, and
    ///   the page is not encrypted.
    /// - The address cannot be listened on, or no temporary file can be made.
    pub async fn bind(address: SocketAddr, title: impl Into<String>) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let what = format!("{address} is not on loopback, such as 127.0.0.1:{}", address.port());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let token = format!("{:016x}{:016x}", random_word(), random_word());
        let url = format!("http://{address}/?token={token}");
        let served = Arc::new(Served {
            guard: Guard::new(address, token),
            title: title.into(),
            tapped: Arc::new(Source::new()?),
            dropped: Mutex::new(None),
        });
        let task = tokio::spawn(http::serve(listener, Arc::clone(&served)));
        Ok(Self { served, url, task })
    }

    /// Where the page is. Who has this URL sees the traffic.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Shows what was seen next, by an inspector that [keeps frames](super::InspectorConfig::keep_frames). It may write to the temporary
    /// file: not for a task that forwards traffic.
    pub fn observe(&self, seen: &[Observation]) {
        self.served.tapped.take(seen);
    }

    /// Says on the page how much of a recording was observed, per cent, until that is 100, which it is before the first call.
    pub fn progress(&self, percent: u8) {
        self.served.tapped.progress(percent);
    }

    /// Says on the page why there is no more than there is, such as what is wrong with a recording, which is read no further. The first reason
    /// stays.
    pub fn end(&self, why: impl Into<String>) {
        self.served.tapped.end(why.into());
    }
}

impl Drop for WebView {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    fn dropped(&self) -> MutexGuard<'_, Option<Arc<Source>>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By its name in a query: `dropped` is the recording that was dropped on the page, all else what is tapped.
    fn source(&self, name: Option<&str>) -> Arc<Source> {
        let dropped = self.dropped().clone().filter(|_| name == Some("dropped"));
        dropped.unwrap_or_else(|| Arc::clone(&self.tapped))
    }

    /// Begins to read a recording of `size` bytes, in place of the one before.
    fn open(&self, size: Option<u64>) -> io::Result<Opening> {
        let source = Arc::new(Source::new()?);
        *self.dropped() = Some(Arc::clone(&source));
        Ok(Opening::new(source, size))
    }
}
