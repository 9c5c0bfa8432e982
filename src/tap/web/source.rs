//! Where the observations of a page come from: the live tap, or a recording.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::store::Store;
use crate::capture::SegmentReader;
use crate::tap::{Inspector, InspectorConfig, Observation};

/// Pieces of an upload that wait to be read.
const PIECES: usize = 8;

/// All of a recording, per cent.
const WHOLE: u8 = 100;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Source {
    store: Mutex<Store>,
    /// The version of what the page shows. A request for news names the version that the page has, and is answered once there is
    /// another.
    news: watch::Sender<u64>,
    /// Why there is no more than there is.
    ended: Mutex<Option<String>>,
    /// How much of a recording was read, per cent; a live tap has nothing to be read.
    percent: AtomicU8,
}

impl Source {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            store: Mutex::new(Store::new()?),
            news: watch::Sender::new(0),
            ended: Mutex::new(None),
            percent: AtomicU8::new(WHOLE),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with<R>(&self, ask: impl FnOnce(&mut Store) -> R) -> R {
        ask(&mut self.lock())
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Takes what was seen. Where it cannot be kept, the page says so.
    pub(super) fn take(&self, seen: &[Observation]) {
        let mut store = self.lock();
        seen.iter().for_each(|seen| store.take(seen));
        drop(store);
        self.tell_news();
    }

    /// So much of a recording was read, per cent.
    pub(super) fn progress(&self, percent: u8) {
        let percent = percent.min(WHOLE);
        if self.percent.swap(percent, Ordering::Relaxed) != percent {
            self.tell_news();
        }
    }

    /// There is no more than there is, for this reason, and nothing more is read.
    pub(super) fn end(&self, why: String) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.percent.store(WHOLE, Ordering::Relaxed);
        self.tell_news();
    }

    fn tell_news(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    pub(super) fn state(&self) -> Value {
        // Before what it counts: what changes meanwhile is news again.
        let news = *self.news.borrow();
        let mut state = self.lock().state();
        state["news"] = json!(news);
        state["read"] = json!(self.percent.load(Ordering::Relaxed));
        state["ended"] = json!(*self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        state
    }

    /// Reads a recording to its end, or to what cannot be read.
    pub(super) fn read(&self, recording: impl Read) {
        let mut inspector = Inspector::new(InspectorConfig { keep_frames: true, ..InspectorConfig::default() });
        let mut seen = Vec::new();
        for segment in SegmentReader::new(recording) {
            match segment {
                Ok(segment) => inspector.inspect(&segment, &mut seen),
                Err(error) => {
                    self.end(error.to_string());
                    break;
                }
            }
            self.take(&seen);
            seen.clear();
        }
        self.progress(WHOLE);
    }
}

/// A recording that comes in pieces, read by a thread of its own.
pub(super) struct Opening {
    source: Arc<Source>,
    /// Bytes that it has, where the browser says that, and those that came.
    size: Option<u64>,
    came: u64,
    pieces: mpsc::Sender<Bytes>,
    reader: tokio::task::JoinHandle<()>,
}

impl Opening {
    pub(super) fn new(source: Arc<Source>, size: Option<u64>) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES);
        source.progress(0);
        let read = Arc::clone(&source);
        let reader = tokio::task::spawn_blocking(move || read.read(Pieces { waiting, piece: Bytes::new() }));
        Self { source, size, came: 0, pieces, reader }
    }

    /// Hands over a piece; `false` where nobody reads on.
    pub(super) async fn push(&mut self, piece: Bytes) -> bool {
        self.came += piece.len() as u64;
        let is_read = self.pieces.send(piece).await.is_ok();
        if let Some(size) = self.size.filter(|_| is_read) {
            self.source.progress(percent_so_far(self.came, size));
        }
        is_read
    }

    /// Waits until all is read.
    pub(super) async fn end(self) {
        drop(self.pieces);
        let _ = self.reader.await;
    }
}

/// Less than all: that is what the end says.
fn percent_so_far(came: u64, size: u64) -> u8 {
    (u128::from(came) * u128::from(WHOLE) / u128::from(size.max(1))).min(u128::from(WHOLE - 1)) as u8
}

struct Pieces {
    waiting: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.waiting.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}
