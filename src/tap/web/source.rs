//! Where the observations of a page come from: the live tap, or a recording.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::store::Store;
use crate::capture::SegmentReader;
use crate::tap::{Inspector, InspectorConfig, Observation};

/// Pieces of an upload that wait to be read.
const PIECES: usize = 8;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Source {
    store: Mutex<Store>,
    /// How many observations were taken; those who ask for news wait for it to change.
    news: watch::Sender<u64>,
    /// Why there is no more than there is.
    ended: Mutex<Option<String>>,
    is_reading: watch::Sender<bool>,
}

impl Source {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            store: Mutex::new(Store::new()?),
            news: watch::Sender::new(0),
            ended: Mutex::new(None),
            is_reading: watch::Sender::new(false),
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
        let total = store.taken();
        drop(store);
        self.news.send_replace(total);
    }

    fn end(&self, why: String) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    pub(super) fn state(&self) -> Value {
        let store = self.lock();
        let mut state = store.state();
        state["taken"] = json!(store.taken());
        drop(store);
        state["reading"] = json!(*self.is_reading.borrow());
        state["ended"] = json!(*self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        state
    }

    /// Reads a recording to its end, or to what cannot be read.
    pub(super) fn read(&self, recording: impl Read) {
        self.is_reading.send_replace(true);
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
        self.is_reading.send_replace(false);
        self.news.send_modify(|news| *news = news.wrapping_add(1 << 53));
    }
}

/// A recording that comes in pieces, read by a thread of its own.
pub(super) struct Opening {
    pieces: mpsc::Sender<Bytes>,
    reader: tokio::task::JoinHandle<()>,
}

impl Opening {
    pub(super) fn new(source: Arc<Source>) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES);
        let reader = tokio::task::spawn_blocking(move || source.read(Pieces { waiting, piece: Bytes::new() }));
        Self { pieces, reader }
    }

    /// Hands over a piece; `false` where nobody reads on.
    pub(super) async fn push(&mut self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until all is read.
    pub(super) async fn end(self) {
        drop(self.pieces);
        let _ = self.reader.await;
    }
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
