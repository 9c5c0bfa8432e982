//! Chunked messages that were handed out: a message id names the entry of the last chunk, and what is said of the message
//! holds for the entries of all its chunks.

use std::collections::BTreeMap;
use std::time::Instant;

use super::position::EntryPosition;
use super::{Consumer, Now};
use crate::id::MessagePosition;
use crate::machine::Deferred;
use crate::machine::EndpointId;

/// How many messages are remembered. Beyond it the one that lies first in the topic is forgotten: then its last chunk is
/// acknowledged alone, and the others are delivered again to a later attach.
const MESSAGES_MAX: usize = 64 * 1024;

/// The entries of the messages that are not acknowledged, and when an incomplete one expires.
#[derive(Debug, Default)]
pub(super) struct ChunkedMessages {
    /// The entries of all chunks but the last, by that of the last.
    inner: BTreeMap<EntryPosition, Box<[EntryPosition]>>,
    /// When the receiving side is to drop an incomplete message.
    expires_at: Option<Instant>,
}

impl ChunkedMessages {
    fn insert(&mut self, last: EntryPosition, inner: Box<[EntryPosition]>) {
        self.inner.insert(last, inner);
        if self.inner.len() > MESSAGES_MAX {
            self.inner.pop_first();
        }
    }

    /// The entries before that of the last chunk, if it is one.
    pub(super) fn inner(&self, last: EntryPosition) -> &[EntryPosition] {
        self.inner.get(&last).map_or(&[], |inner| inner)
    }

    /// The message is acknowledged.
    pub(super) fn remove(&mut self, last: EntryPosition) -> Option<Box<[EntryPosition]>> {
        if self.inner.is_empty() { None } else { self.inner.remove(&last) }
    }

    /// All messages up to there are acknowledged.
    pub(super) fn remove_up_to(&mut self, up_to: EntryPosition) {
        while self.inner.first_entry().is_some_and(|first| *first.key() <= up_to) {
            self.inner.pop_first();
        }
    }

    /// The positions are of another cluster.
    pub(super) fn reset(&mut self) {
        self.inner.clear();
    }

    /// Adds the entries of all chunks of the messages among `due`, and keeps it sorted.
    pub(super) fn extend_with_inner(&self, due: &mut Vec<EntryPosition>) {
        if self.inner.is_empty() {
            return;
        }
        let inner: Vec<_> = due.iter().flat_map(|position| self.inner(*position)).copied().collect();
        if !inner.is_empty() {
            due.extend(inner);
            due.sort_unstable();
            due.dedup();
        }
    }

    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }
}

impl Consumer {
    /// A message is about to be handed out whose chunks lie in the entries `inner` and, the last one, `last`. False: a
    /// reader was given it before.
    pub fn on_assembled(&mut self, last: &MessagePosition, inner: &[MessagePosition]) -> bool {
        if self.has_read(EntryPosition::of(last)) {
            return false;
        }
        if self.acks.are_needed() && last.cluster_number == self.cluster_number {
            self.chunked.insert(EntryPosition::of(last), inner.iter().map(EntryPosition::of).collect());
        }
        true
    }

    /// The producer sent these chunks twice, and the other copies are here.
    pub fn ack_copies(&mut self, chunks: &[MessagePosition], now: Now) {
        if mutation!(CopiesOfChunksStay) {
            return;
        }
        for chunk in chunks {
            // Refused beyond the bound of what waits to be sent: then it comes again, to the same end.
            let _ = self.ack(chunk, || now);
        }
    }

    /// Chunks of a message that is not complete were dropped: they are acknowledged, or requested again after the delay of a
    /// negative acknowledgement. On Exclusive and Failover, where only everything could be requested again, they come with
    /// the next attach.
    pub fn on_chunks_dropped(&mut self, chunks: &[MessagePosition], acknowledge: bool, now: Now) {
        self.counters.incomplete_messages += 1;
        if acknowledge {
            self.ack_copies(chunks, now);
        } else if !self.config.subscription_type.is_in_order() {
            chunks.iter().for_each(|chunk| self.nack(chunk, 0, now));
        }
    }

    /// When the receiving side is to look for incomplete messages that have expired.
    pub fn set_chunks_expire_at(&mut self, at: Option<Instant>) {
        self.dirty.at_deadline_if(self.chunked.expires_at != at);
        self.chunked.expires_at = at;
    }

    /// Has the receiving side look, once it is time.
    pub(super) fn check_chunks(&mut self, now: Now, deferred: &mut Deferred) {
        if self.chunked.expires_at.take_if(|at| *at <= now.at).is_some() {
            self.queue.notify(EndpointId::Consumer(self.id), deferred);
        }
    }
}
