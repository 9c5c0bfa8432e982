//! The task of a table view: applies each message to the table, and ends a refresh once the positions it asked for are read.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

use super::super::message::ReceivedMessage;
use super::super::parts::Part;
use super::super::reader::{Reader, is_ahead};
use super::table::Table;
use crate::error::{Error, ErrorKind};
use crate::machine::consumer::{Consumer as Machine, LastMessageId};
use crate::machine::{Deferred, ReplyTo};

/// How many refreshes wait for their targets; further calls wait for one of them to end.
pub(super) const REFRESHES_MAX: usize = 64;

/// Messages after which other tasks have their turn.
const TURN_MESSAGES: usize = 128;

/// The last message of a topic or partition.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) part: Arc<Part<Machine>>,
    pub(super) last: LastMessageId,
}

/// A call that waits until everything up to the targets is in the table.
pub(super) struct Refresh {
    pub(super) targets: Vec<Target>,
    pub(super) done: ReplyTo<()>,
}

/// Why the view has ended.
#[derive(Default)]
pub(super) struct End(Mutex<Option<Error>>);

impl End {
    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn get(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the task works on.
pub(super) struct Follower {
    pub(super) reader: Reader,
    pub(super) table: Arc<Table>,
    pub(super) refreshes: mpsc::Receiver<Refresh>,
    pub(super) end: Arc<End>,
}

impl Follower {
    /// Reads until the reader ends.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::new();
        let error = poll_fn(|cx| self.poll(&mut waiting, cx)).await;
        self.end.set(error.clone());
        // Those that come now find the channel closed.
        self.refreshes.close();
        while let Ok(refresh) = self.refreshes.try_recv() {
            waiting.push(refresh);
        }
        let mut deferred = Deferred::new();
        waiting.into_iter().for_each(|refresh| refresh.done.send(Err(error.clone()), &mut deferred));
    }

    fn poll(&mut self, waiting: &mut Vec<Refresh>, cx: &mut Context<'_>) -> Poll<Error> {
        // Until the channel has none, so that the next one wakes this task. Of calls that wait there are at most `REFRESHES_MAX`,
        // and what earlier ones have left is forgotten below.
        while let Poll::Ready(Some(refresh)) = self.refreshes.poll_recv(cx) {
            waiting.push(refresh);
        }
        for _ in 0..TURN_MESSAGES {
            match Pin::new(&mut self.reader).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => apply(&self.table, &message),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(error),
                Poll::Ready(None) => return Poll::Ready(Error::local(ErrorKind::Closed, "the table view is closed")),
                Poll::Pending => {
                    self.settle(waiting);
                    return Poll::Pending;
                }
            }
        }
        self.settle(waiting);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends the refreshes whose targets are read, and forgets those that were given up.
    fn settle(&mut self, waiting: &mut Vec<Refresh>) {
        if waiting.is_empty() {
            return;
        }
        let mut deferred = Deferred::new();
        let positions = self.reader.reading_positions().into_iter();
        let positions: HashMap<_, _> = positions.map(|(part, position)| (part.id(), position)).collect();
        let is_read = |target: &Target| {
            let position = positions.get(&target.part.id());
            position.is_none_or(|position| !is_ahead(&target.last, position)) || mutation!(RefreshDoesNotWait)
        };
        for refresh in std::mem::take(waiting) {
            match refresh.targets.iter().all(is_read) {
                true => refresh.done.send(Ok(()), &mut deferred),
                false if refresh.done.is_abandoned() => {}
                false => waiting.push(refresh),
            }
        }
    }
}

/// A message without a key says nothing, and one without a payload removes its key.
fn apply(table: &Table, message: &ReceivedMessage) {
    let Some(key) = message.key().filter(|_| !message.key_is_null()) else { return };
    match message.payload() {
        [] => table.apply(key, None),
        // A copy: a slice would keep the whole read buffer.
        payload => table.apply(key, Some(Bytes::copy_from_slice(payload))),
    }
}
