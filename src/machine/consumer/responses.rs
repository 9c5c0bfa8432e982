//! Responses to the consumer's requests, and notifications of the broker.

use super::Consumer;
use super::operations::{LastMessageId, Operation};
use super::position::EntryPosition;
use crate::error::Error;
use crate::machine::Deferred;
use crate::machine::Dirty;
use crate::machine::connection::error::RequestError;
use crate::machine::endpoint::outbox::{Op, OpKind, Response};
use crate::wire::{AckId, Command};

impl Consumer {
    /// ACTIVE_CONSUMER_CHANGE.
    pub fn on_active_change(&mut self, is_active: bool, deferred: &mut Deferred) {
        if self.topic_status.is_active.replace(is_active) != Some(is_active) {
            self.tell(deferred, move |observer, topic| observer.on_active_change(topic, is_active));
        }
    }

    /// REACHED_END_OF_TOPIC.
    pub fn on_end_of_topic(&mut self, deferred: &mut Deferred) {
        if !std::mem::replace(&mut self.topic_status.has_reached_end, true) {
            self.tell(deferred, |observer, topic| observer.on_end_of_topic(topic));
        }
    }

    /// The response to a request that [`poll_transmit`](Self::poll_transmit) made, on this connection or an earlier one.
    ///
    /// | response | what is done |
    /// | --- | --- |
    /// | to an operation that has ended, or a close that was not sent under this number | nothing |
    /// | to the close | the consumer is finished |
    /// | success | the caller has its result; a seek on a persistent topic after the next attach |
    /// | connection lost; no such consumer any more, for the last message id | the operation is sent again with the next attach |
    /// | refused, timed out | the caller has the error, and what was done in advance is undone |
    pub fn on_response(&mut self, op: Op, response: Response, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.dirty = Dirty::Now;
        if op.kind == OpKind::Close {
            return self.on_close_response(op.number, response, deferred);
        }
        match response {
            Ok(response) => self.on_success(op, &response, deferred),
            Err(RequestError::Disconnected) => self.operations.retry(op.number),
            // The question has crossed the broker's CLOSE_CONSUMER, and is asked again.
            Err(RequestError::Server(_)) if op.kind == OpKind::LastMessageId && !self.lifecycle.is_attached() => {
                self.operations.retry(op.number);
            }
            Err(error) => {
                let Some(operation) = self.operations.take(op.number) else { return };
                let error = error.into_error(operation.description());
                self.fail_operation(operation, error, deferred);
            }
        }
    }

    fn on_success(&mut self, op: Op, response: &Command, deferred: &mut Deferred) {
        if op.kind == OpKind::Seek {
            return self.on_seek_success(op.number, deferred);
        }
        let Some(operation) = self.operations.take(op.number) else { return };
        match (operation, response) {
            (Operation::Ack { ids, cumulative, reply, .. }, _) => {
                self.on_acks_confirmed(&ids, cumulative);
                reply.send(Ok(()), deferred);
            }
            (Operation::Unsubscribe { reply, .. }, _) => {
                reply.send(Ok(()), deferred);
                self.on_unsubscribed(deferred);
            }
            (Operation::LastMessageId { seek_number, reply }, Command::GetLastMessageIdResponse(response)) => {
                let last = LastMessageId::read(response, self.partition);
                self.resolve_position(&last, seek_number);
                reply.send(Ok(last), deferred);
            }
            (Operation::Stats { reply }, Command::ConsumerStatsResponse(response)) => {
                reply.send(Ok(response.clone()), deferred);
            }
            (Operation::StallStats, Command::ConsumerStatsResponse(response)) => self.on_stall_stats(response),
            (Operation::StallLastMessageId, Command::GetLastMessageIdResponse(response)) => {
                self.on_stall_last_message_id(LastMessageId::read(response, self.partition), deferred);
            }
            (operation, response) => {
                let what = format!("the broker answered {} with {}", operation.description(), response.name());
                operation.fail(Error::protocol(what).with_topic(&self.topic), deferred);
            }
        }
    }

    /// Makes negative acknowledgements void of what is acknowledged. Not before: had it failed, they would have to come
    /// again.
    fn on_acks_confirmed(&mut self, acks: &[AckId], cumulative: bool) {
        for ack in acks {
            let (position, is_whole_entry) = (EntryPosition::of_ack(ack), ack.ack_set.is_empty());
            if cumulative {
                self.acks.on_cumulative_confirmed(ack);
            }
            match (is_whole_entry, cumulative) {
                (true, true) => {
                    self.redelivery.remove_up_to(position);
                    self.chunked.remove_up_to(position);
                }
                (true, false) => {
                    self.redelivery.remove(position);
                    self.chunked.remove(position);
                }
                (false, _) => {}
            }
        }
    }

    /// On a persistent topic the broker has closed this consumer by now, and the seek ends with the next attach. On a
    /// non-persistent one the consumer stays attached, and the seek ends here.
    fn on_seek_success(&mut self, number: u64, deferred: &mut Deferred) {
        let Some(Operation::Seek { to, .. }) = self.operations.set_answered(number) else { return };
        self.seek.set_start(to);
        if let Some(reading) = &mut self.reading {
            reading.seek(to.clone());
        }
        if !self.lifecycle.is_attached() {
            return;
        }
        let Some(Operation::Seek { reply, .. }) = self.operations.take(number) else { return };
        self.seek.end();
        reply.send(Ok(()), deferred);
    }

    /// Ends an operation with an error, and undoes what was done in advance for its success.
    pub(super) fn fail_operation(&mut self, operation: Operation, error: Error, deferred: &mut Deferred) {
        match &operation {
            Operation::Seek { .. } => {
                self.seek.end();
                if self.lifecycle.is_attached() {
                    // What was dropped for it is wanted after all.
                    self.redeliver_everything();
                }
            }
            Operation::Ack { ids, members, .. } => {
                self.acks.restore_members(ids, members);
                self.acks.flush();
            }
            Operation::StallStats | Operation::StallLastMessageId => self.stall.on_no_answer(),
            Operation::Unsubscribe { .. } | Operation::LastMessageId { .. } | Operation::Stats { .. } => {}
        }
        operation.fail(error.with_topic(&self.topic), deferred);
    }
}
