//! Assembly: the chunks of a message become its payload again (PIP-37).
//!
//! Chunks of one message come in order, with those of other messages between them. What else may come, and what is done
//! with it, says [`Assembly::add`]. It knows no clock, no connection and no codec: a chunked message is compressed as a whole, so
//! its chunks are joined first.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::ConsumerConfig;
use crate::id::MessagePosition;
use crate::wire::metadata::{Metadata, text};

/// How many messages that were completed last are remembered, by which chunks that were sent again are known: after a
/// reconnect a producer sends all again that it has no receipt of.
const COMPLETED_MAX: usize = 1000;

/// One chunk, as it was delivered.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// `uuid`: the same in all chunks of a message.
    pub uuid: &'a str,
    /// `publish_time`: the same in all chunks, also where they are sent again. A producer that was restarted may use a uuid
    /// again, for another message.
    pub publish_time_ms: u64,
    /// `chunk_id`, from 0, as the producer declared it.
    pub chunk_id: i32,
    /// `num_chunks_from_msg`, as the producer declared it.
    pub num_chunks: i32,
    /// `total_chunk_msg_size`, bytes, as the producer declared it.
    pub total_bytes: i32,
    /// Its entry.
    pub position: MessagePosition,
    /// How often it was delivered before.
    pub redelivery_count: u32,
    /// Its part of the payload.
    pub payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The chunk in the entry at `position`, of which `raw` is the serialized metadata. `None` if it is no chunk.
    #[must_use]
    pub fn of(metadata: &Metadata, raw: &'a [u8], position: MessagePosition, payload: &'a [u8]) -> Option<Self> {
        let info = metadata.chunk.as_ref()?;
        Some(Self {
            uuid: text(raw, &info.uuid),
            publish_time_ms: metadata.publish_time_ms,
            chunk_id: info.chunk_id,
            num_chunks: info.num_chunks,
            total_bytes: info.total_bytes,
            position,
            redelivery_count: 0,
            payload,
        })
    }
}

/// A message all of whose chunks have come.
#[derive(PartialEq, Eq)]
pub struct Assembled {
    /// As it was before it was split.
    pub payload: Vec<u8>,
    /// The entries of its chunks, in order, less the last one.
    pub inner: Vec<MessagePosition>,
    /// How often all of it was delivered before: the least count of its chunks.
    pub redelivery_count: u32,
}

impl fmt::Debug for Assembled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assembled({} chunks of {} bytes)", self.inner.len() + 1, self.payload.len())
    }
}

/// What a chunk has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More are to come.
    Stored,
    /// It was the last one.
    Complete(Assembled),
    /// It is here already: the same entry was delivered again.
    Known,
    /// Copies of chunks that are here, or of a message that was complete: the producer sent them twice. Acknowledging
    /// them loses nothing.
    Copies(Vec<MessagePosition>),
    /// Chunks before it are missing.
    Stray,
    /// Its fields contradict themselves or those of the chunks before it.
    Invalid,
    /// The message is larger than is assembled.
    TooLarge,
}

/// Why chunks of a message were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IncompleteReason {
    /// The others did not come within
    /// [`expire_time_of_incomplete_chunked_message`](crate::ConsumerBuilder::expire_time_of_incomplete_chunked_message).
    Expired,
    /// Room was needed for others:
    /// [`max_pending_chunked_messages`](crate::ConsumerBuilder::max_pending_chunked_messages) or
    /// [`max_pending_chunked_bytes`](crate::ConsumerBuilder::max_pending_chunked_bytes) is reached.
    Evicted,
    /// A later chunk came, and one before it did not.
    Missing,
}

/// A message of which some chunks have come and the others are not waited for any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What all its chunks have in common.
    pub uuid: Box<str>,
    /// How many it has.
    pub num_chunks: i32,
    /// `publish_time`: the same in all of them.
    pub publish_time_ms: u64,
    /// Why they were dropped.
    pub reason: IncompleteReason,
    /// The entries of the chunks that have come.
    pub positions: Vec<MessagePosition>,
}

/// A message some of whose chunks have come.
struct Pending {
    uuid: Box<str>,
    publish_time_ms: u64,
    num_chunks: i32,
    total_bytes: usize,
    payload: Vec<u8>,
    positions: Vec<MessagePosition>,
    redelivery_count: u32,
    started: Instant,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} bytes", self.uuid, self.payload.len(), self.total_bytes)
    }
}

impl Pending {
    fn start(chunk: &Chunk<'_>, now: Instant) -> Self {
        Self {
            uuid: chunk.uuid.into(),
            publish_time_ms: chunk.publish_time_ms,
            num_chunks: chunk.num_chunks,
            total_bytes: usize::try_from(chunk.total_bytes).unwrap_or(0),
            payload: Vec::new(),
            positions: Vec::new(),
            redelivery_count: chunk.redelivery_count,
            started: now,
        }
    }

    /// Whether a chunk says of the message what those before it said, and has no more than what is left.
    fn admits(&self, chunk: &Chunk<'_>) -> bool {
        let is_last = chunk.chunk_id + 1 == self.num_chunks;
        let bytes = self.payload.len() + chunk.payload.len();
        let fits = if is_last { bytes == self.total_bytes } else { bytes < self.total_bytes };
        chunk.num_chunks == self.num_chunks && usize::try_from(chunk.total_bytes) == Ok(self.total_bytes) && fits
    }

    /// The buffer grows with what has come, not with what is declared.
    fn append(&mut self, chunk: &Chunk<'_>) {
        let (len, needed) = (self.payload.len(), self.payload.len() + chunk.payload.len());
        if self.payload.capacity() < needed {
            let capacity = needed.saturating_mul(2).min(self.total_bytes).max(needed);
            self.payload.reserve_exact(capacity - len);
        }
        self.payload.extend_from_slice(chunk.payload);
        self.positions.push(chunk.position);
        self.redelivery_count = self.redelivery_count.min(chunk.redelivery_count);
    }

    fn is_complete(&self) -> bool {
        usize::try_from(self.num_chunks) == Ok(self.positions.len())
    }

    fn dropped(self, reason: IncompleteReason) -> Dropped {
        let Self { uuid, publish_time_ms, num_chunks, positions, .. } = self;
        Dropped { uuid, num_chunks, publish_time_ms, reason, positions }
    }
}

/// A message that was complete.
#[derive(Debug)]
struct Completed {
    uuid: Box<str>,
    publish_time_ms: u64,
    /// The entry of its last chunk.
    last: MessagePosition,
}

impl Completed {
    /// Whether a chunk is a copy of one of its chunks: it lies behind them. Positions of another cluster say nothing.
    fn has_copy(&self, chunk: &Chunk<'_>) -> bool {
        self.publish_time_ms == chunk.publish_time_ms
            && *self.uuid == *chunk.uuid
            && self.last.cluster_number == chunk.position.cluster_number
            && self.last < chunk.position
    }
}

/// What is assembled, and what waits.
#[derive(Debug, Clone, Copy)]
pub struct ChunkLimits {
    /// The largest message, bytes.
    pub message_bytes_max: usize,
    /// The most messages that are not complete.
    pub pending_max: usize,
    /// The most bytes that they have together once they are complete; a single one may have more.
    pub pending_bytes_max: usize,
    /// How long one waits to be complete. Zero: for ever.
    pub expire_after: Duration,
}

impl ChunkLimits {
    /// Those of a consumer.
    #[must_use]
    pub fn of(config: &ConsumerConfig) -> Self {
        Self {
            message_bytes_max: config.max_chunked_message_size,
            pending_max: config.max_pending_chunked_messages,
            pending_bytes_max: config.max_pending_chunked_bytes,
            expire_after: config.expire_time_of_incomplete_chunked_message,
        }
    }
}

/// The messages of one topic or partition some of whose chunks have come.
#[derive(Debug)]
pub struct Assembly {
    limits: ChunkLimits,
    /// In the order of their first chunks.
    pending: VecDeque<Pending>,
    /// What they are to have together once they are complete, bytes.
    pending_bytes: usize,
    dropped: Vec<Dropped>,
    /// The messages that were completed last.
    completed: VecDeque<Completed>,
}

impl Assembly {
    /// Without any chunk.
    #[must_use]
    pub fn new(limits: ChunkLimits) -> Self {
        Self { limits, pending: VecDeque::new(), pending_bytes: 0, dropped: Vec::new(), completed: VecDeque::new() }
    }

    /// Takes a chunk. What it costs others is in [`take_dropped`](Self::take_dropped). The first case that applies:
    ///
    /// | chunk | how it comes about | effect |
    /// | --- | --- | --- |
    /// | its fields make no sense | a broken producer | [`Step::Invalid`] |
    /// | its message is larger than is assembled | | [`Step::TooLarge`] |
    /// | of a message that was complete, and behind its last one | sent again: its receipt was lost. Where the broker deduplicates it drops only the last of these | [`Step::Copies`] of it |
    /// | the first, of a message of which some are here, as another entry | sent again | the assembly starts anew; [`Step::Copies`] of those before |
    /// | the first, of a message of which some are here, as the same entry | delivered again: so will the others be | the assembly starts anew |
    /// | the first | | the assembly starts; the oldest others are dropped where there is no room |
    /// | the one that is to come next, and says the same of the message | | appended |
    /// | the one that is to come next, and says something else | a broken producer | [`Step::Invalid`]; those before it are dropped |
    /// | one that is here, as the same entry | delivered again | [`Step::Known`] |
    /// | one that is here, as another entry | sent again | [`Step::Copies`] of it |
    /// | a later one | one is missing | [`Step::Stray`]; those before it are dropped |
    /// | any other | the subscription starts in the midst of a message, or the others went elsewhere | [`Step::Stray`] |
    pub fn add(&mut self, chunk: &Chunk<'_>, now: Instant) -> Step {
        let in_range = (0..chunk.num_chunks).contains(&chunk.chunk_id) && chunk.num_chunks > 1;
        let Some(total_bytes) = usize::try_from(chunk.total_bytes).ok().filter(|_| in_range) else {
            return Step::Invalid;
        };
        if total_bytes > self.limits.message_bytes_max && !parser_mutation!(ChunkedWithoutLimit) {
            return Step::TooLarge;
        }
        if self.completed.iter().any(|completed| completed.has_copy(chunk)) {
            return Step::Copies(vec![chunk.position]);
        }
        let is_of =
            |pending: &Pending| pending.publish_time_ms == chunk.publish_time_ms && *pending.uuid == *chunk.uuid;
        match (self.pending.iter().position(is_of), usize::try_from(chunk.chunk_id).unwrap_or(0)) {
            (Some(at), 0) => self.restart(at, chunk, now),
            (None, 0) => self.start(chunk, now),
            (Some(at), place) => self.continue_at(at, place, chunk),
            (None, _) => Step::Stray,
        }
    }

    fn start(&mut self, chunk: &Chunk<'_>, now: Instant) -> Step {
        let mut pending = Pending::start(chunk, now);
        if !pending.admits(chunk) {
            return Step::Invalid;
        }
        while self.pending.len() >= self.limits.pending_max
            || (!self.pending.is_empty() && self.pending_bytes + pending.total_bytes > self.limits.pending_bytes_max)
        {
            self.drop_at(0, IncompleteReason::Evicted);
        }
        pending.append(chunk);
        self.pending_bytes += pending.total_bytes;
        self.pending.push_back(pending);
        Step::Stored
    }

    fn restart(&mut self, at: usize, chunk: &Chunk<'_>, now: Instant) -> Step {
        let Some(before) = self.remove(at) else { return Step::Stray };
        let is_same_entry = before.positions.first() == Some(&chunk.position);
        match self.start(chunk, now) {
            Step::Stored if !is_same_entry => Step::Copies(before.positions),
            Step::Invalid => {
                self.dropped.push(before.dropped(IncompleteReason::Missing));
                Step::Invalid
            }
            step => step,
        }
    }

    fn continue_at(&mut self, at: usize, place: usize, chunk: &Chunk<'_>) -> Step {
        let Some(pending) = self.pending.get_mut(at) else { return Step::Stray };
        match pending.positions.get(place) {
            Some(position) if *position == chunk.position => return Step::Known,
            Some(_) => return Step::Copies(vec![chunk.position]),
            None if place > pending.positions.len() && !parser_mutation!(ChunkOutOfOrder) => {
                self.drop_at(at, IncompleteReason::Missing);
                return Step::Stray;
            }
            None => {}
        }
        if !pending.admits(chunk) {
            self.drop_at(at, IncompleteReason::Missing);
            return Step::Invalid;
        }
        pending.append(chunk);
        if !pending.is_complete() {
            return Step::Stored;
        }
        let Some(complete) = self.remove(at) else { return Step::Stray };
        let Pending { uuid, publish_time_ms, payload, mut positions, redelivery_count, .. } = complete;
        if self.completed.len() == COMPLETED_MAX {
            self.completed.pop_front();
        }
        self.completed.push_back(Completed { uuid, publish_time_ms, last: chunk.position });
        positions.pop();
        Step::Complete(Assembled { payload, inner: positions, redelivery_count })
    }

    fn remove(&mut self, at: usize) -> Option<Pending> {
        let pending = self.pending.remove(at)?;
        self.pending_bytes -= pending.total_bytes;
        Some(pending)
    }

    fn drop_at(&mut self, at: usize, reason: IncompleteReason) {
        let pending = self.remove(at);
        self.dropped.extend(pending.map(|pending| pending.dropped(reason)));
    }

    /// Drops what is not waited for any more.
    pub fn expire(&mut self, now: Instant) {
        while self.expires_at().is_some_and(|at| at <= now) {
            self.drop_at(0, IncompleteReason::Expired);
        }
    }

    /// When the oldest is not waited for any more.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        let oldest = self.pending.front().filter(|_| !self.limits.expire_after.is_zero())?;
        oldest.started.checked_add(self.limits.expire_after)
    }

    /// The first entry of all messages that are not complete.
    #[must_use]
    pub fn first_pending(&self) -> Option<MessagePosition> {
        self.pending.iter().filter_map(|pending| pending.positions.first()).min().copied()
    }

    /// How many messages are not complete.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether all chunks that have come are those of messages that were complete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What was dropped since the last call.
    #[must_use]
    pub fn take_dropped(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.dropped)
    }

    /// Forgets what is pending: what was delivered is delivered again. What was complete stays known, because it may be
    /// acknowledged by now, and copies of its chunks come all the same.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
        self.dropped.clear();
    }
}

#[cfg(test)]
mod tests;
