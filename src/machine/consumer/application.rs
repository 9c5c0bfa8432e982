//! What the application asks of the consumer, through [`Endpoint::with`](crate::machine::Endpoint::with). The close is
//! in `lifecycle`.

use std::collections::VecDeque;
use std::time::Duration;

use super::operations::Operation;
use super::position::EntryPosition;
use super::{
    CONFIRMED_IDS_MAX, Consumer, Deferred, LastMessageId, Now, ReceivedEntry, ReplyTo, ReturnedPermits, SeekTo, Taken,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessagePosition;
use crate::machine::Dirty;
use crate::pb;
use crate::wire::{AckId, AckWords, EntryError};

/// Why a request about a position in another cluster is refused.
pub(super) fn cluster_changed() -> Error {
    Error::local(ErrorKind::NotAllowed, "it is about a message of another cluster, which this consumer has left")
}

/// Receiving.
impl Consumer {
    /// Returns `permits`, then moves the whole queue behind what `into` holds. An empty `into` is swapped with the queue,
    /// so that both buffers are used in turn. Permits of what is taken are held until they are returned.
    pub fn take(&mut self, permits: ReturnedPermits, into: &mut VecDeque<ReceivedEntry>) -> Taken {
        self.return_permits(permits);
        self.drop_read();
        if self.queue.take(into) && !self.lifecycle.is_stopped() {
            self.redeliver_everything();
        }
        // With nothing queued one permit is granted, whatever those that were taken use of the memory.
        self.notify_flow();
        Taken {
            queue_epoch: self.queue.epoch(),
            attach_number: self.queue.attach_number(),
            cluster_number: self.cluster_number,
            seek_number: self.seek_number(),
            permits_step: self.queue.permits_step(),
            ended: self.lifecycle.end_of_receiving().cloned(),
        }
    }

    /// Returns permits: their messages were handed out, or dropped. Once they are half the queue they are granted again.
    pub fn return_permits(&mut self, permits: ReturnedPermits) {
        if permits.count > 0 {
            self.queue.return_permits(permits);
            self.notify_flow();
        }
    }

    /// With a `receiver_queue_size` of 0: a receive waits, so one permit is granted unless one is outstanding. If that
    /// receive is dropped, the message waits for the next one. With any other size it does nothing.
    pub fn request_one(&mut self) {
        self.queue.request_one();
        self.notify_flow();
    }

    /// The receiver queue has this size from now on, messages, and may grow up to `messages_max`. A broker takes no permit
    /// back: a lower size is reached as messages are received. Does nothing where the size is 0, or is to be 0.
    pub fn set_receiver_queue_size(&mut self, messages: u32, messages_max: u32) {
        self.queue.resize(messages, messages_max);
        self.notify_flow();
    }

    /// Grants no more permits until [`resume`](Self::resume). What was granted before still comes.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// Grants permits again, unless it was [stopped](Self::stop_receiving).
    pub fn resume(&mut self) {
        self.is_paused = self.lifecycle.is_stopped();
        self.notify_flow();
    }

    /// An entry turned out damaged when it was opened: it is acknowledged with the reason (`validation_error`), and its
    /// `permits` are returned. Does nothing if they are of an earlier attach: the entry is delivered again.
    pub fn reject(&mut self, ledger_id: u64, entry_id: u64, error: &EntryError, permits: ReturnedPermits) {
        if permits.attach_number != self.queue.attach_number() || self.lifecycle.is_finished() {
            return;
        }
        let position = EntryPosition { ledger_id, entry_id };
        self.redelivery.remove(position);
        self.acks.reject(position, error.validation_error().into());
        self.counters.damaged_entries += 1;
        self.dirty = Dirty::Now;
        self.return_permits(permits);
    }
}

/// Acknowledging.
impl Consumer {
    /// Acknowledges one message: it is noted, grouped with others, and written when the group is due. `now` is only
    /// called when a group begins.
    ///
    /// Without a connection it waits for the next one. Of a message that another cluster has delivered, before a switch to
    /// the present one, it does nothing: that cluster delivers it again.
    ///
    /// # Errors
    /// The reason why the consumer has ended; [`ErrorKind::InvalidArgument`] if the id names a member of a batch without
    /// the size of the batch, and nothing is known of that batch; [`ErrorKind::QueueFull`] if too many acknowledgements
    /// wait.
    #[inline]
    pub fn ack(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        let is_noted = self.lifecycle.ended().is_none() && self.acks.are_needed() && !self.seek.is_running();
        if is_noted && id.cluster_number == self.cluster_number && self.acks.ack_fast(id) {
            self.counters.acks += 1;
            return Ok(());
        }
        self.ack_slow(id, now)
    }

    #[inline(never)]
    fn ack_slow(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        if !self.notes_acks()? || self.is_of_other_cluster(id) {
            return Ok(());
        }
        let is_done = self.acks.ack_slow(id).map_err(|error| error.with_topic(&self.topic))?;
        if is_done || mutation!(TimeoutForgetsBatch) {
            let position = EntryPosition::of(id);
            self.redelivery.remove(position);
            if let Some(inner) = self.chunked.remove(position).filter(|_| !mutation!(AckLastChunkOnly)) {
                inner.iter().for_each(|chunk| self.acks.ack_entry(*chunk));
            }
        }
        self.counters.acks += 1;
        self.dirty.raise(self.acks.schedule(now));
        Ok(())
    }

    /// Acknowledges everything up to and including the message.
    ///
    /// # Errors
    /// As [`ack`](Self::ack), and [`ErrorKind::NotAllowed`] on Shared and Key_Shared subscriptions, where a broker
    /// would ignore it without a word.
    pub fn ack_cumulative(&mut self, id: &MessagePosition, now: impl FnOnce() -> Now) -> Result<()> {
        self.check_cumulative()?;
        if !self.notes_acks()? || self.is_of_other_cluster(id) {
            return Ok(());
        }
        let finished = self.acks.ack_cumulative(id).map_err(|error| error.with_topic(&self.topic))?;
        self.redelivery.remove_up_to(finished);
        self.chunked.remove_up_to(finished);
        self.counters.cumulative_acks += 1;
        self.dirty.raise(self.acks.schedule(now));
        Ok(())
    }

    /// Acknowledges, and answers once the broker has confirmed it (ACK with a `request_id`, ACK_RESPONSE). If the
    /// connection is lost meanwhile it is sent again, until `operation_timeout` has passed.
    ///
    /// Members of a batch that need not be sent yet (no batch index acknowledgement, and others of the
    /// batch are open) are noted and confirmed immediately. `cumulative` takes exactly one id. At most
    /// [`CONFIRMED_IDS_MAX`].
    pub fn ack_confirmed(
        &mut self,
        ids: &[MessagePosition],
        cumulative: bool,
        reply: ReplyTo<()>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        match self.prepare_confirmed(ids, cumulative) {
            Err(error) => reply.send(Err(error.with_topic(&self.topic)), deferred),
            Ok(ids) if ids.is_empty() => reply.send(Ok(()), deferred),
            Ok(entries) => {
                match cumulative {
                    true => self.counters.cumulative_acks += 1,
                    false => self.counters.acks += ids.len() as u64,
                }
                let members = if cumulative { Vec::new() } else { ids.to_vec() };
                self.begin_operation(Operation::Ack { ids: entries, members, cumulative, reply }, now, deferred);
            }
        }
    }

    fn prepare_confirmed(&mut self, ids: &[MessagePosition], cumulative: bool) -> Result<Vec<AckId>> {
        if cumulative {
            self.check_cumulative()?;
        }
        if ids.len() > CONFIRMED_IDS_MAX {
            let why = format!("more than {CONFIRMED_IDS_MAX} ids in one acknowledgement");
            return Err(Error::local(ErrorKind::InvalidArgument, why));
        }
        if !self.notes_acks()? {
            return Ok(Vec::new());
        }
        if ids.iter().any(|id| self.is_of_other_cluster(id)) {
            return Err(cluster_changed());
        }
        let mut acks = self.acks.resolve(ids, cumulative)?;
        if !cumulative {
            let inner = ids.iter().flat_map(|id| self.chunked.inner(EntryPosition::of(id)));
            acks.extend(inner.map(|chunk| chunk.ack_id(AckWords::NONE)));
        }
        Ok(acks)
    }

    /// Whether the message came from a cluster that this consumer has left. Its id names another message here, if any.
    #[inline]
    fn is_of_other_cluster(&self, id: &MessagePosition) -> bool {
        !matches!(id.cluster_number, 0) && id.cluster_number != self.cluster_number && !mutation!(AcksCrossClusters)
    }

    /// Requests the message's entry again after the delay of `negative_ack_redelivery_backoff` for so many redeliveries (0
    /// where the number is not known): the entry with all its members that are not acknowledged. On Exclusive and Failover everything after the last acknowledgement comes again.
    ///
    /// Without a connection it does nothing: the next attach delivers everything that is not acknowledged.
    pub fn nack(&mut self, id: &MessagePosition, redelivery_count: u32, now: Now) {
        let delay = self.config.negative_ack_redelivery_backoff.delay_of(EntryPosition::of(id), redelivery_count);
        self.nack_after(id, delay, now);
    }

    /// [`nack`](Self::nack) with this delay.
    pub fn nack_after(&mut self, id: &MessagePosition, delay: Duration, now: Now) {
        if !self.lifecycle.is_receiving() || self.seek.is_running() || self.is_of_other_cluster(id) {
            return;
        }
        self.counters.nacks += 1;
        let before = self.redelivery.due_at();
        if !self.redelivery.nack(EntryPosition::of(id), delay, &self.config, now) {
            self.redeliver_everything();
        }
        self.dirty.at_deadline_if(self.redelivery.due_at() != before);
    }

    /// Requests everything again that is not acknowledged. What is queued is dropped, for it comes again too.
    pub fn redeliver_unacknowledged_messages(&mut self) {
        if self.lifecycle.is_receiving() && !self.seek.is_running() {
            self.redeliver_everything();
        }
    }

    /// Whether acknowledgements are noted: not on a non-persistent topic, and not of messages from before a seek.
    fn notes_acks(&self) -> Result<bool> {
        match self.lifecycle.ended() {
            Some(ended) => Err(ended.clone()),
            None => Ok(self.acks.are_needed() && !self.seek.is_running()),
        }
    }

    fn check_cumulative(&self) -> Result<()> {
        if self.config.subscription_type.is_in_order() {
            return Ok(());
        }
        let why = "cumulative acknowledgement needs an Exclusive or Failover subscription";
        Err(Error::local(ErrorKind::NotAllowed, why).with_topic(&self.topic))
    }
}

/// Operations.
impl Consumer {
    /// Deletes the subscription, and this consumer with it (UNSUBSCRIBE). The broker refuses while others are
    /// connected to it, unless `force`.
    pub fn unsubscribe(&mut self, force: bool, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        self.acks.flush();
        self.begin_operation(Operation::Unsubscribe { force, reply }, now, deferred);
    }

    /// Has the acknowledgements that wait sent with the next that is written.
    pub fn flush_acks(&mut self) {
        self.acks.flush();
        self.dirty = Dirty::Now;
    }

    /// Requests the id of the last message of the topic (GET_LAST_MESSAGE_ID).
    pub fn last_message_id(&mut self, reply: ReplyTo<LastMessageId>, now: Now, deferred: &mut Deferred) {
        let seek_number = self.seek_number();
        self.begin_operation(Operation::LastMessageId { seek_number, reply }, now, deferred);
    }

    /// Requests the broker's statistics of this consumer (CONSUMER_STATS).
    pub fn broker_stats(
        &mut self,
        reply: ReplyTo<pb::CommandConsumerStatsResponse>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        self.begin_operation(Operation::Stats { reply }, now, deferred);
    }

    /// Moves the subscription (SEEK). From this call on until the answer no message is delivered; acknowledgements made
    /// before it are sent first, those made during it are ignored. The broker disconnects all consumers of the
    /// subscription, and they attach again. One seek at a time: a second one is refused with [`ErrorKind::Busy`].
    pub fn seek(&mut self, to: SeekTo, reply: ReplyTo<()>, now: Now, deferred: &mut Deferred) {
        if self.seek.is_running() {
            let busy = Error::local(ErrorKind::Busy, "another seek of this consumer is under way");
            return reply.send(Err(busy.with_topic(&self.topic)), deferred);
        }
        if let SeekTo::Message { id, .. } = &to {
            if self.is_of_other_cluster(&id.position()) {
                return reply.send(Err(cluster_changed().with_topic(&self.topic)), deferred);
            }
        }
        if self.lifecycle.ended().is_none() {
            self.seek.begin();
            self.clear_queue();
            self.redelivery.reset();
            self.acks.flush();
        }
        self.begin_operation(Operation::Seek { to, reply }, now, deferred);
    }

    pub(super) fn begin_operation(&mut self, operation: Operation, now: Now, deferred: &mut Deferred) {
        if let Some(ended) = self.lifecycle.ended() {
            return operation.fail(ended.clone(), deferred);
        }
        self.operations.push(operation, self.config.operation_timeout, now, deferred);
        self.dirty = Dirty::Now;
    }
}
