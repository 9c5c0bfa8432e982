//! Seeks over the parts of a consumer: which of them moves, and where to.

use std::sync::Arc;

use super::clock;
use super::consumer_shared::ConsumerShared;
use super::parts::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessageId;
use crate::machine::Reply;
use crate::machine::consumer::{Consumer as Machine, SeekTo};

impl ConsumerShared {
    /// See [`Consumer::seek`](super::Consumer::seek). The replies are those of the parts that are asked.
    pub(super) fn seek(&self, to: &SeekTo) -> Result<Vec<Reply<()>>> {
        match to {
            SeekTo::Message { id, .. } if !moves_all(to) => Ok(vec![ask(&*self.part_of_id(id)?, to.clone(), false)]),
            _ => self.seek_each(|_| Some(to.clone())),
        }
    }

    /// See [`Consumer::seek_each`](super::Consumer::seek_each).
    pub(super) fn seek_each(&self, mut position: impl FnMut(&str) -> Option<SeekTo>) -> Result<Vec<Reply<()>>> {
        // What has ended of a pattern may join again.
        let returning = self.positions.as_ref().filter(|_| self.joining.follows_pattern && self.end_of_set().is_none());
        // So that none joins or leaves between the looks at both.
        let _opening = returning.is_some().then(|| self.opening());
        let mut moves = Vec::new();
        for part in self.parts.asked(|_| returning.is_some()) {
            let Some(to) = position(&part.topic) else { continue };
            self.check_is_of(&part, &to)?;
            moves.push((part, to));
        }
        if let Some(positions) = returning {
            positions.seek_returning(position);
        }
        // All are asked before the first reply is awaited.
        Ok(moves.into_iter().map(|(part, to)| ask(&part, to, returning.is_some())).collect())
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

/// `returns`: it joins again if it has ended.
fn ask(part: &Part<Machine>, to: SeekTo, returns: bool) -> Reply<()> {
    part.ask(|consumer, reply, deferred| {
        if returns && consumer.is_finished() {
            consumer.seek_ended(to, clock::now());
            return reply.send(Ok(()), deferred);
        }
        consumer.seek(to, reply, clock::now(), deferred);
    })
}

/// Whether a seek is one of all parts.
pub(super) fn moves_all(to: &SeekTo) -> bool {
    match to {
        SeekTo::Message { id, .. } => is_end_of_any(id),
        _ => true,
    }
}

/// Whether it is the start or the end of whichever topic.
pub(super) fn is_end_of_any(id: &MessageId) -> bool {
    id.topic().is_none() && [MessageId::EARLIEST, MessageId::LATEST].contains(id)
}
