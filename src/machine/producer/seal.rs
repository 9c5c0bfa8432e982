//! Sealing: what leaves for the connection is compressed, summed and framed by jobs, with no lock held; small batches, and a
//! few framed messages, are sealed where they are closed.
//!
//! What a job does is the [pipeline](super::pipeline). This file says which entries wait for a job, who takes it, and
//! what becomes of the result:
//!
//! ```text
//!            close_batch, close_group       take_closed_job, take_job     SealJob::run      put_job
//!  open batch or group ----------> queue ---------------------------> job ------------> Sealed -----> in flight
//! ```
//!
//! | who | calls | when |
//! | --- | --- | --- |
//! | the task whose push has closed a batch or group | [`take_closed_job`](Producer::take_closed_job) | after the push |
//! | the owner | [`take_job`](Producer::take_job), which also closes what is open and due | each time it serves the endpoint |
//!
//! Several jobs may be out at once, and come back in any order; what is written keeps the order of acceptance.
//!
//! | closed | up to [`SEALED_AT_ONCE_BYTES_MAX`], uncompressed and unencrypted | otherwise |
//! | --- | --- | --- |
//! | a batch | at once | by a job |
//! | the batch of one of several keys, which has to be gathered | by a job, unless it is one message | by a job |
//! | a group of framed messages, by the owner | at once | by a job |
//! | the same, full | by a job: it is larger | by a job |

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use super::batch::{EntryContent, OpenBatch};
use super::buffers::{BufferPool, DeferredDrops};
use super::group::{GroupFrames, GroupKind, PendingEntry, SendGroup};
use super::one_or_more::OneOrMore;
use super::payload_limits::PayloadLimits;
use super::pipeline::{self, EntryStamp, Scratch, SealContext, SealedEntry, can_seal_small, seal_small, stamp_frames};
use super::{AttachPhase, Producer};
use crate::error::Error;
use crate::machine::{Deferred, Dirty, Now};
use crate::wire::send_template::SendTemplate;

/// Framed messages, and batches, up to this size are sealed under the lock: a job for them takes longer than to sum so few bytes.
const SEALED_AT_ONCE_BYTES_MAX: usize = 2048;

/// With this many payloads to be dropped there is a job in any case, which drops them.
const DROPS_AT_ONCE_MAX: usize = 64;

/// What sealing needs, and what waits for it.
#[derive(Debug)]
pub(super) struct Sealing {
    /// There from the first attach on. Until then nothing is sealed.
    pub(super) framing: Option<Framing>,
    /// What may be accepted; beside `framing` because each push reads it.
    limits: PayloadLimits,
    /// What no job was taken for yet, by the number of its group.
    queue: VecDeque<(u64, ToSeal)>,
    /// What jobs write small frames into; with the last job until that is put back.
    segment: BytesMut,
    pub(super) buffers: BufferPool,
    pub(super) drops: DeferredDrops,
}

/// What all frames of a producer have in common, for the pipeline and for its fast path.
#[derive(Debug)]
pub(super) struct Framing {
    pub(super) context: Arc<SealContext>,
    pub(super) template: SendTemplate,
}

/// What a [`SealJob`] makes frames of.
#[derive(Debug)]
pub(super) enum ToSeal {
    /// A batch, or a single message.
    Messages(EntryContent),
    /// Frames that lack publish time and checksum.
    Frames(BytesMut),
}

impl Sealing {
    /// Seals nothing before it is started.
    pub(super) fn new(limits: PayloadLimits) -> Self {
        Self {
            framing: None,
            limits,
            queue: VecDeque::new(),
            segment: BytesMut::new(),
            buffers: BufferPool::new(),
            drops: DeferredDrops::default(),
        }
    }

    /// Seals with `context` from now on: a broker has opened the producer.
    pub(super) fn start(&mut self, context: SealContext, limits: PayloadLimits) {
        let template =
            SendTemplate::new(context.producer_id, &context.producer_name, context.schema_version.as_deref());
        self.limits = limits;
        self.framing = Some(Framing { context: Arc::new(context), template });
    }

    /// Seals nothing until a broker opens the producer under a new name.
    pub(super) fn stop(&mut self) {
        self.framing = None;
    }

    /// Whether messages can be numbered and framed: the producer was attached once, under the name it has.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.framing.is_some()
    }

    #[inline]
    pub(super) fn context(&self) -> Option<&Arc<SealContext>> {
        self.framing.as_ref().map(|framing| &framing.context)
    }

    pub(super) fn producer_name(&self) -> Option<&Arc<str>> {
        self.context().map(|context| &context.producer_name)
    }

    /// What may be accepted.
    #[inline]
    pub(super) fn limits(&self) -> &PayloadLimits {
        &self.limits
    }

    /// Whether something waits for a job.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What waits for a job, by the number of its group.
    pub(super) fn queue_mut(&mut self) -> impl Iterator<Item = &mut (u64, ToSeal)> {
        self.queue.iter_mut()
    }

    /// Drops all that waits for a job: it will not be sent.
    pub(super) fn discard_queue(&mut self) {
        for (_, work) in std::mem::take(&mut self.queue) {
            self.discard(work);
        }
    }

    fn discard(&mut self, work: ToSeal) {
        match work {
            ToSeal::Messages(content) => content.discard(&mut self.drops),
            ToSeal::Frames(frames) => self.buffers.put(frames),
        }
    }

    /// Seals a small batch here, unless something is to be done for it that takes longer, or that may fail.
    fn seal_at_once(&mut self, content: &mut EntryContent, entry: &PendingEntry) -> Option<SealedEntry> {
        let Framing { context, .. } = self.framing.as_ref()?;
        let is_small = entry.size_bytes <= SEALED_AT_ONCE_BYTES_MAX && self.drops.len() < DROPS_AT_ONCE_MAX;
        if !is_small || !can_seal_small(context, content, entry.size_bytes) {
            return None;
        }
        let publish_time_ms = content.publish_time_ms;
        let stamp = EntryStamp { first: entry.first, last: entry.last, publish_time_ms, sealed_at: None };
        // What has other owners, or is the application's own, is dropped later. All else costs an allocation to be cloned.
        let payload = content.single().map(|message| &message.payload);
        let payload = payload.filter(|payload| !payload.is_unique()).cloned();
        let mut scratch = Scratch { segment: std::mem::take(&mut self.segment), spare: BytesMut::new() };
        let sealed = seal_small(content, stamp, context, &mut scratch);
        self.segment = scratch.segment;
        self.buffers.put(scratch.spare);
        payload.into_iter().for_each(|payload| self.drops.defer_drop(payload));
        std::mem::take(content).discard(&mut self.drops);
        Some(sealed)
    }

    /// Has the payloads that are not needed any more dropped once no lock is held.
    pub(super) fn fire_drops(&mut self, deferred: &mut Deferred) {
        if !self.drops.is_empty() {
            let drops = std::mem::take(&mut self.drops);
            deferred.run(move || drop(drops));
        }
    }
}

/// Closing.
impl Producer {
    /// Closes the open batch, or those of all keys, if there are any. Part of its caller, which is every message outside batches.
    #[inline(always)]
    pub(super) fn close_batch(&mut self) {
        if self.open_batch.is_some() {
            self.close_open_batch();
        } else if self.key_batches.is_some() {
            self.close_key_batches();
        }
    }

    #[inline(never)]
    fn close_open_batch(&mut self) {
        if let Some(mut batch) = self.open_batch.take() {
            self.references.close(&mut self.sealing.drops);
            self.push_batch(&mut batch);
        }
    }

    /// Moves a batch, of which nothing is left, to what is to be sealed.
    #[inline]
    pub(super) fn push_batch(&mut self, batch: &mut OpenBatch) {
        self.sealing.buffers.learn(batch.content.records_bytes());
        let mut entry = PendingEntry::new(batch.first, batch.index, batch.size_bytes, batch.first_slot);
        (entry.last, entry.messages) = (batch.last, batch.content.count());
        // A batch of one goes out as a single message, whose payload may be the application's own.
        let kind = if entry.messages == 1 { GroupKind::Single } else { GroupKind::Batch };
        let number = self.in_flight.next_number();
        let mut group = SendGroup::new(number, batch.index, kind, batch.results.clone(), batch.deadline);
        (group.started, group.callbacks) = (Some(batch.opened), std::mem::take(&mut batch.callbacks));
        match self.sealing.seal_at_once(&mut batch.content, &entry) {
            Some(sealed) => self.push_sealed(group, entry, sealed),
            None => self.push_to_seal(group, entry, std::mem::take(&mut batch.content)),
        }
    }

    /// Adds a group of one entry, which is sealed.
    fn push_sealed(&mut self, mut group: SendGroup, mut entry: PendingEntry, sealed: SealedEntry) {
        self.close_group();
        entry.set_frame(0, &sealed);
        group.frames = GroupFrames::Sealed(OneOrMore::one(sealed));
        self.in_flight.push(group, entry);
        self.dirty = Dirty::Now;
    }

    /// Adds a group of one entry, to be sealed.
    pub(super) fn push_to_seal(&mut self, group: SendGroup, entry: PendingEntry, content: EntryContent) {
        self.close_group();
        self.sealing.queue.push_back((group.number, ToSeal::Messages(content)));
        self.in_flight.push(group, entry);
        self.dirty = Dirty::Now;
    }

    /// Closes the open group of framed messages, if there is one.
    pub(super) fn close_group(&mut self) {
        if let Some((number, frames)) = self.in_flight.close_group() {
            self.references.close(&mut self.sealing.drops);
            self.sealing.buffers.learn(frames.len());
            self.sealing.queue.push_back((number, ToSeal::Frames(frames)));
        }
    }
}

/// Jobs.
impl Producer {
    /// Closes the open group of framed messages, as [`close_group`](Self::close_group), and seals it here if it is small.
    fn close_group_for_owner(&mut self) {
        let Some((number, frames)) = self.in_flight.close_group() else { return };
        self.references.close(&mut self.sealing.drops);
        self.sealing.buffers.learn(frames.len());
        match self.in_flight.place_of(number) {
            Some(place) if frames.len() <= SEALED_AT_ONCE_BYTES_MAX && self.sealing.drops.is_empty() => {
                let publish_time_ms = self.in_flight.group_at(place).started.map_or(0, |started| started.wall_ms);
                self.in_flight.keep(place, OneOrMore::one(stamp_frames(frames, publish_time_ms)));
            }
            _ => self.sealing.queue.push_back((number, ToSeal::Frames(frames))),
        }
    }

    /// Whether [`take_closed_job`](Self::take_closed_job) may have work.
    #[inline]
    pub fn has_closed_job(&self) -> bool {
        self.sealing.has_work() && self.sealing.is_ready()
    }

    /// A job for a batch or group that is closed, for the task that has closed it: to be run with no lock held.
    pub fn take_closed_job(&mut self, now: impl Fn() -> Now) -> Option<SealJob> {
        if !self.sealing.is_ready() {
            return None;
        }
        while let Some((number, work)) = self.sealing.queue.pop_front() {
            let Some(place) = self.in_flight.place_of(number) else {
                // It has timed out meanwhile.
                self.sealing.discard(work);
                continue;
            };
            let publish_time_ms = match &work {
                ToSeal::Messages(content) => content.publish_time_ms,
                ToSeal::Frames(_) => {
                    self.start_clocks(&now);
                    self.in_flight.group_at(place).started.map_or(0, |started| started.wall_ms)
                }
            };
            let entry = self.in_flight.entry_mut(place.first_entry);
            let (first, last) = entry.map_or((0, 0), |entry| (entry.first, entry.last));
            let context = self.sealing.context()?.clone();
            let sealed_at = context.encryption.as_ref().map(|_| now().at);
            let stamp = EntryStamp { first, last, publish_time_ms, sealed_at };
            let segment = std::mem::take(&mut self.sealing.segment);
            let drops = std::mem::take(&mut self.sealing.drops);
            return Some(SealJob { group: number, stamp, work, context, segment, drops });
        }
        None
    }

    /// A job for the owner. Before it takes one, it closes what need not wait for more messages: the open group if the
    /// producer is attached, and the open batch if it is due and nothing is before it.
    ///
    /// After [`put_job`](Self::put_job) there may be another one.
    pub fn take_job(&mut self, now: Now) -> Option<SealJob> {
        self.start_clocks(|| now);
        if self.attach.phase() == AttachPhase::Attached {
            self.close_group_for_owner();
        }
        if !self.sealing.has_work() && self.is_batch_due(now) {
            self.close_batch();
        }
        self.take_closed_job(|| now)
    }

    /// Takes what came of a job.
    ///
    /// | result | group | effect |
    /// | --- | --- | --- |
    /// | frames | in flight | kept, to be written; checked again if the broker's limit has changed since |
    /// | too large | in flight | its entry fails, and no other |
    /// | any | gone: it has timed out | dropped |
    pub fn put_job(&mut self, sealed: Sealed, now: Now, deferred: &mut Deferred) {
        if self.sealing.segment.capacity() < sealed.segment.capacity() {
            self.sealing.segment = sealed.segment;
        }
        self.sealing.buffers.put(sealed.spare);
        self.sealing.drops.reuse(sealed.drops);
        let Some(place) = self.in_flight.place_of(sealed.group) else {
            if let Ok(entries) = sealed.result {
                entries.for_each(|entry| self.sealing.drops.defer_drop(entry.frame.payload));
            }
            return;
        };
        // It can be written now, and so can what is behind it.
        self.dirty = Dirty::Now;
        match sealed.result {
            Ok(entries) => {
                self.in_flight.keep(place, entries);
                let limit = self.sealing.context().map(|context| context.max_message_size);
                if let Some(limit) = limit.filter(|limit| *limit != sealed.max_message_size) {
                    self.fail_too_large(limit, deferred);
                }
            }
            Err(error) => {
                self.settle_failed(place.first_entry, error.with_topic(&self.topic), false, deferred);
                self.after_settling(deferred);
            }
        }
        self.advance_close(Some(now), deferred);
    }
}

/// A closed batch to be taken through the pipeline, or frames to be stamped: [`run`](Self::run) it with no lock held, and
/// hand the result to [`Producer::put_job`].
#[must_use = "the messages in it are not sent until it has run"]
pub struct SealJob {
    /// Number of the group.
    group: u64,
    stamp: EntryStamp,
    work: ToSeal,
    context: Arc<SealContext>,
    /// What frames are written into.
    segment: BytesMut,
    /// Dropped by the job.
    drops: DeferredDrops,
}

/// What came of a [`SealJob`].
#[must_use = "the messages in it are not sent until the producer has it back"]
pub struct Sealed {
    /// Number of the group.
    group: u64,
    /// One for each entry of the group, or one that joins those of a framed group.
    result: Result<OneOrMore<SealedEntry>, Error>,
    /// The limit that they were checked against.
    max_message_size: u32,
    /// What is left of the segment.
    segment: BytesMut,
    /// The buffer of the records, where the frame does not need it.
    spare: BytesMut,
    /// Empty, for its capacity.
    drops: DeferredDrops,
}

impl SealJob {
    /// Does the work. Takes as long as compressing and summing the batch takes; no lock may be held.
    pub fn run(mut self) -> Sealed {
        let mut scratch = Scratch { segment: self.segment, spare: BytesMut::new() };
        let result = match self.work {
            ToSeal::Frames(frames) => Ok(OneOrMore::one(stamp_frames(frames, self.stamp.publish_time_ms))),
            ToSeal::Messages(mut content) => pipeline::run(&mut content, self.stamp, &self.context, &mut scratch),
        };
        self.drops.drop_all();
        let Scratch { segment, spare } = scratch;
        let max_message_size = self.context.max_message_size;
        Sealed { group: self.group, result, max_message_size, segment, spare, drops: self.drops }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("group", &self.group).field("result", &self.result).finish_non_exhaustive()
    }
}

impl fmt::Debug for SealJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealJob(sequence ids {} to {})", self.stamp.first, self.stamp.last)
    }
}
