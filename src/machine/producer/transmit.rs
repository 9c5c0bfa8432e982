//! Writing to the connection.

use super::group::PendingEntry;
use super::pipeline::check_sizes;
use super::{AttachPhase, OpenBatch, Producer};
use crate::machine::endpoint::outbox::{More, Outbox};
use crate::machine::{Deferred, Now};

impl Producer {
    /// Writes sealed frames to the connection, and, once a closing producer has nothing left, CLOSE_PRODUCER.
    ///
    /// `More::Yes` asks to be served again, that is [`take_job`](Self::take_job) and then this.
    pub fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        if self.attach.phase() != AttachPhase::Attached || self.is_finished() {
            return More::No;
        }
        let mut written = 0;
        while let Some(frame_bytes) = self.in_flight.write_next(out.tx) {
            written += frame_bytes;
            if written >= out.quantum_bytes && self.in_flight.has_unsent() {
                return More::Yes;
            }
        }
        self.request_close(out, now);
        let unsealed = self.sealing.has_work() || self.in_flight.has_open_group() || self.is_batch_due(now);
        if unsealed { More::Yes } else { More::No }
    }

    /// Whether the open batch need not wait for more messages: it can be written at once, because everything before it
    /// has been written, and it was open for its publish delay.
    pub(super) fn is_batch_due(&self, now: Now) -> bool {
        let is_due = |batch: &OpenBatch| batch.is_due(self.config.batching_max_publish_delay, now);
        self.is_attached() && !self.in_flight.has_unsent() && self.oldest_batch().is_some_and(is_due)
    }

    /// Fails the entries that are too large for this broker: it may take less than the last one.
    pub(super) fn fail_too_large(&mut self, max_message_size: u32, deferred: &mut Deferred) {
        let too_large = |entry: &PendingEntry| {
            check_sizes(max_message_size, entry.frame_bytes(), entry.limited_bytes as usize).err()
        };
        // What is not framed yet has no size yet, and is checked once it has: by its job, or by `put_job`.
        while let Some(at) = self.in_flight.find(|_, entry| too_large(entry).is_some()) {
            let Some(error) = self.in_flight.entry_mut(at).and_then(|entry| too_large(entry)) else { break };
            let may_be_stored = self.in_flight.is_transmitted(at);
            self.settle_failed(at, error.with_topic(&self.topic), may_be_stored, deferred);
        }
        self.after_settling(deferred);
    }
}
