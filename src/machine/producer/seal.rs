//! Jobs: work of the outgoing payload pipeline, done outside the producer's lock because it takes time.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use super::batcher::{Content, Spent};
use super::one_or_more::OneOrMore;
use super::pipeline::{self, EntryStamp, Scratch, SealContext, SealedEntry, stamp_frames};
use crate::error::Error;

/// What a [`SealJob`] makes frames of.
#[derive(Debug)]
pub(super) enum ToSeal {
    /// A batch, or a message alone.
    Messages(Content),
    /// Frames that lack their time and sum.
    Frames(BytesMut),
}

/// [`ToSeal`], with what it takes beside it.
#[derive(Debug)]
pub(super) enum Work {
    Messages(Content, Arc<SealContext>),
    Frames(BytesMut),
}

/// A closed batch to be compressed, summed and framed, or frames to be summed: [`run`](Self::run) it with no lock held,
/// and hand the result to [`Producer::put_sealed`](super::Producer::put_sealed).
#[must_use = "the messages in it are not sent until it has run"]
pub struct SealJob {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) work: Work,
    pub(super) publish_time_ms: u64,
    pub(super) max_message_size: Option<u32>,
    /// What frames are written into.
    pub(super) segment: BytesMut,
    /// Dropped by the job.
    pub(super) spent: Spent,
}

/// What came of a [`SealJob`].
#[derive(Debug)]
#[must_use = "the messages in it are not sent until the producer has it back"]
pub struct Sealed {
    pub(super) number: u64,
    /// What is left of the segment.
    pub(super) segment: BytesMut,
    /// The buffer of the records, where the frame does not need it.
    pub(super) spare: BytesMut,
    /// Empty, for further use.
    pub(super) spent: Spent,
    /// What the frames were held against.
    pub(super) max_message_size: Option<u32>,
    pub(super) result: Result<OneOrMore<SealedEntry>, Error>,
}

impl fmt::Debug for SealJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealJob(sequence ids {} to {})", self.first, self.last)
    }
}

impl SealJob {
    /// Does the work. Takes as long as compressing and summing the batch takes; no lock may be held.
    pub fn run(mut self) -> Sealed {
        let mut scratch = Scratch { segment: self.segment, spare: BytesMut::new() };
        let stamp = EntryStamp { first: self.first, last: self.last, publish_time_ms: self.publish_time_ms };
        let result = match self.work {
            Work::Frames(frames) => Ok(OneOrMore::one(stamp_frames(frames, self.publish_time_ms))),
            Work::Messages(mut content, context) => pipeline::run(&mut content, stamp, &context, &mut scratch),
        };
        self.spent.clear();
        let Scratch { segment, spare } = scratch;
        Sealed {
            number: self.number,
            segment,
            spare,
            spent: self.spent,
            max_message_size: self.max_message_size,
            result,
        }
    }
}
