//! Seeks over the parts of a consumer: which of them moves, and where to.

use std::sync::Arc;

use super::clock;
use super::consumer_shared::ConsumerShared;
use super::parts::{Part, all};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessageId;
use crate::machine::Reply;
use crate::machine::consumer::{Consumer as Machine, SeekTo};

impl ConsumerShared {
    /// See [`Consumer::seek`](super::Consumer::seek).
    pub(super) async fn seek(&self, to: SeekTo) -> Result<()> {
        let parts = match &to {
            SeekTo::Message { id, .. } if !is_end_of_any(id) => vec![self.part_of_id(id)?],
            _ => self.parts.asked(|_| false),
        };
        // All are asked before the first reply is awaited.
        all(parts.iter().map(|part| ask(part, to.clone())).collect()).await
    }

    /// See [`Consumer::seek_each`](super::Consumer::seek_each).
    pub(super) async fn seek_each(&self, mut position: impl FnMut(&str) -> Option<SeekTo>) -> Result<()> {
        let mut moves = Vec::new();
        for part in self.parts.asked(|_| false) {
            let Some(to) = position(&part.topic) else { continue };
            self.check_is_of(&part, &to)?;
            moves.push((part, to));
        }
        all(moves.into_iter().map(|(part, to)| ask(&part, to)).collect()).await
    }

    /// An id of another part would be taken for a position of this one.
    fn check_is_of(&self, part: &Arc<Part<Machine>>, to: &SeekTo) -> Result<()> {
        let SeekTo::Message { id, .. } = to else { return Ok(()) };
        let is_of_it = match (id.topic(), id.partition()) {
            (Some(_), _) => self.part_of_id(id).is_ok_and(|found| found.id() == part.id()),
            (None, Some(partition)) => part.partition < 0 || part.partition.unsigned_abs() == partition,
            (None, None) => true,
        };
        if is_of_it {
            return Ok(());
        }
        let of = id.topic().map_or_else(String::new, |topic| format!(" of {topic}"));
        let what = format!("a seek to message id {id}{of}, which is not of this topic");
        Err(Error::local(ErrorKind::InvalidArgument, what).with_topic(&part.topic))
    }
}

fn ask(part: &Part<Machine>, to: SeekTo) -> Reply<()> {
    part.ask(|consumer, reply, deferred| consumer.seek(to, reply, clock::now(), deferred))
}

/// Whether it is the start or the end of whichever topic.
pub(super) fn is_end_of_any(id: &MessageId) -> bool {
    id.topic().is_none() && [MessageId::EARLIEST, MessageId::LATEST].contains(id)
}
