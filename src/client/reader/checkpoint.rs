//! Checkpoints of readers and consumers.

use super::start::{before, set};
use super::{Found, Reader, SeekTo};
use crate::checkpoint::Checkpoint;
use crate::client::clock;
use crate::client::consumer::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Deferred;
use crate::machine::consumer::Consumer as Machine;

impl Reader {
    /// How far it has read: of each topic and partition the last message that [`read_next`](Self::read_next) and its like
    /// have returned. A reader that begins there reads on behind them. Costs one lock for each topic and partition.
    ///
    /// Partitions that the reader began with a position of, and that are not there, are in it too. A topic that is not
    /// persistent has no position.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let positions = self.consumer.reading_positions();
        let mut checkpoint = match &self.consumer.shared().positions {
            Some(positions) => positions.known().clone(),
            None => Checkpoint::new(),
        };
        for (part, from) in positions {
            set(&mut checkpoint, &part.topic, &from);
        }
        for Found { message: found, .. } in self.current_found().filter(|_| !mutation!(CheckpointForgetsFound)) {
            // It was taken, but is still to be returned.
            let mut id = before(&found.id());
            let first_chunk = checkpoint.position(found.topic()).and_then(|read| read.first_chunk());
            if let Some(first) = first_chunk.into_iter().chain(id.first_chunk()).min() {
                id = id.with_first_chunk(&first);
            }
            set(&mut checkpoint, &found.topic().into(), &SeekTo::Message { id, inclusive: false });
        }
        checkpoint
    }

    /// Goes to the positions of a checkpoint: each topic and partition behind its position, those that have none to their
    /// beginning.
    ///
    /// # Errors
    /// Same as [`Consumer::seek`].
    ///
    /// # Cancel safety
    /// Once it was polled, the seeks are requested even if the future is dropped.
    pub async fn seek_to_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.set_known(checkpoint.clone());
        self.consumer.seek_to_checkpoint(checkpoint).await?;
        self.resolve_position().await
    }
}

impl Consumer {
    /// What its subscription has acknowledged, of each topic and partition everything up to a message
    /// (`consumer_mark_delete_position` of GET_LAST_MESSAGE_ID): a reader or another subscription that begins there gets
    /// what was acknowledged beyond that once more, and misses nothing. What is acknowledged by this consumer and not sent
    /// yet is sent first.
    ///
    /// A topic or partition that has [ended](crate::ConsumerEvent::TopicEnded) cannot be asked: it is left out, and what
    /// begins at the checkpoint would read it from its beginning. Once all have ended, that is the error.
    ///
    /// # Errors
    /// - The broker's refusal: on a non-persistent topic, which stores nothing, `UnknownError`.
    /// - [`NotAllowed`](ErrorKind::NotAllowed): the broker is older than Pulsar 2.7, which says nothing of the subscription.
    /// - [`TimedOut`](ErrorKind::TimedOut) after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request.
    pub async fn checkpoint(&self) -> Result<Checkpoint> {
        let ask = |consumer: &mut Machine, reply, deferred: &mut Deferred| {
            consumer.flush_acks();
            consumer.last_message_id(reply, clock::now(), deferred);
        };
        let mut checkpoint = Checkpoint::new();
        for (part, answer) in self.parts().ask_those(|_| false, ask) {
            let older = || Error::local(ErrorKind::NotAllowed, "the broker does not say what is acknowledged");
            let id = answer.await?.mark_delete.ok_or_else(|| older().with_topic(&part.topic))?.into();
            set(&mut checkpoint, &part.topic, &SeekTo::Message { id, inclusive: false });
        }
        Ok(checkpoint)
    }

    /// Moves the subscription to the positions of a checkpoint: each topic and partition behind its position, those that have
    /// none to their beginning. What is before them counts as acknowledged. Of a topic with messages in chunks that are not
    /// complete there, those are lost to the subscription: a [reader](crate::Reader) keeps them.
    ///
    /// # Errors
    /// Same as [`seek_each`](Self::seek_each).
    ///
    /// # Cancel safety
    /// Once it was polled, the seeks are requested even if the future is dropped.
    pub async fn seek_to_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.seek_each(|topic| Some(checkpoint.seek_to(topic))).await
    }
}
