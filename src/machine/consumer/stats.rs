//! What a consumer counts.

use std::time::{Duration, Instant};

use super::Consumer;
use super::entry::ReceivedEntry;
use super::position::EntryPosition;
use super::scaling::Received;
use crate::machine::Now;
use crate::stats::{ErrorCounts, Histogram};
use crate::wire::metadata::publish_time_ms;

/// Statistics of a consumer since it was created; of several topics and partitions, their sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages that were delivered to this client for the application.
    pub received_messages: u64,
    /// Entries of which they are the members: a batch is one.
    pub received_entries: u64,
    /// Bytes of those entries: metadata and payload as stored, so before decompression.
    pub received_bytes: u64,
    /// Entries that were delivered before (`CommandMessage.redelivery_count`).
    pub redelivered_entries: u64,
    /// Entries that were damaged, and acknowledged as such.
    pub damaged_entries: u64,
    /// Chunked messages that were given up before their last chunk came, and chunks that came without those before them.
    pub incomplete_chunked_messages: u64,
    /// Acknowledgements of single messages.
    pub acknowledged_messages: u64,
    /// Cumulative acknowledgements.
    pub cumulative_acknowledgements: u64,
    /// Negative acknowledgements.
    pub negative_acknowledgements: u64,
    /// Entries that were not acknowledged within [`ack_timeout`](crate::ConsumerBuilder::ack_timeout).
    pub acknowledgement_timeouts: u64,
    /// Messages that were sent to a dead-letter topic, and stored there.
    pub dead_lettered_messages: u64,
    /// Messages that wait in this client for the application. Up to half of the receiver queue may count as waiting
    /// although the application has just received it.
    pub queued_messages: u64,
    /// Messages that the broker may still send (FLOW).
    pub available_permits: u64,
    /// The size of the receiver queue at the moment, messages: it may
    /// [grow](crate::ConsumerBuilder::auto_scaled_receiver_queue_size).
    pub receiver_queue_size: u64,
    /// How often it was attached again after the first time.
    pub reconnects: u64,
    /// From the publish time of a message, by the producer's clock, to its arrival here: of one entry in each read from
    /// the socket. A producer's clock that is ahead counts as 0.
    pub publish_latency: Histogram,
    /// From the hand-out of a message to its acknowledgement by
    /// [`Acker::ack`](crate::Acker::ack): of the first message of an entry, for one entry in 64 at least.
    pub processing_latency: Histogram,
    /// Failed attempts to attach it and ends of an attach, by the code of their error.
    pub errors: ErrorCounts,
}

impl ConsumerStats {
    /// Adds those of another consumer.
    pub fn merge(&mut self, other: &Self) {
        self.received_messages += other.received_messages;
        self.received_entries += other.received_entries;
        self.received_bytes += other.received_bytes;
        self.redelivered_entries += other.redelivered_entries;
        self.damaged_entries += other.damaged_entries;
        self.incomplete_chunked_messages += other.incomplete_chunked_messages;
        self.acknowledged_messages += other.acknowledged_messages;
        self.cumulative_acknowledgements += other.cumulative_acknowledgements;
        self.negative_acknowledgements += other.negative_acknowledgements;
        self.acknowledgement_timeouts += other.acknowledgement_timeouts;
        self.dead_lettered_messages += other.dead_lettered_messages;
        self.queued_messages += other.queued_messages;
        self.available_permits += other.available_permits;
        self.receiver_queue_size += other.receiver_queue_size;
        self.reconnects += other.reconnects;
        self.publish_latency.merge(&other.publish_latency);
        self.processing_latency.merge(&other.processing_latency);
        self.errors.merge(&other.errors);
    }
}

impl ConsumerStats {
    /// What came after `earlier`, which is a former state of these. What is queued or may still come is as it is now.
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            received_messages: since(self.received_messages, earlier.received_messages),
            received_entries: since(self.received_entries, earlier.received_entries),
            received_bytes: since(self.received_bytes, earlier.received_bytes),
            redelivered_entries: since(self.redelivered_entries, earlier.redelivered_entries),
            damaged_entries: since(self.damaged_entries, earlier.damaged_entries),
            incomplete_chunked_messages: since(self.incomplete_chunked_messages, earlier.incomplete_chunked_messages),
            acknowledged_messages: since(self.acknowledged_messages, earlier.acknowledged_messages),
            cumulative_acknowledgements: since(self.cumulative_acknowledgements, earlier.cumulative_acknowledgements),
            negative_acknowledgements: since(self.negative_acknowledgements, earlier.negative_acknowledgements),
            acknowledgement_timeouts: since(self.acknowledgement_timeouts, earlier.acknowledgement_timeouts),
            dead_lettered_messages: since(self.dead_lettered_messages, earlier.dead_lettered_messages),
            queued_messages: self.queued_messages,
            available_permits: self.available_permits,
            receiver_queue_size: self.receiver_queue_size,
            reconnects: since(self.reconnects, earlier.reconnects),
            publish_latency: self.publish_latency.since(&earlier.publish_latency),
            processing_latency: self.processing_latency.since(&earlier.processing_latency),
            errors: self.errors.since(&earlier.errors),
        }
    }
}

/// What one consumer has received and acknowledged.
#[derive(Debug, Default)]
pub(super) struct ReceiveCounters {
    messages: u64,
    entries: u64,
    bytes: u64,
    redelivered_entries: u64,
    pub(super) damaged_entries: u64,
    pub(super) incomplete_messages: u64,
    pub(super) acks: u64,
    pub(super) cumulative_acks: u64,
    pub(super) nacks: u64,
    pub(super) ack_timeouts: u64,
    pub(super) dead_letters: u64,
    publish_latency: Histogram,
    processing_latency: Histogram,
    pub(super) last_arrival: Option<Instant>,
    /// The newest entry that was delivered in the present attach.
    newest: Option<EntryPosition>,
}

impl ReceiveCounters {
    /// An entry is about to be queued, with so many members.
    #[inline]
    pub(super) fn on_entry(&mut self, entry: &ReceivedEntry, members: u32) {
        self.messages += u64::from(members);
        self.entries += 1;
        self.bytes += entry.raw.len() as u64;
        self.redelivered_entries += u64::from(entry.redelivery_count > 0);
    }

    pub(super) fn received(&self) -> Received {
        Received { messages: self.messages, bytes: self.bytes }
    }

    /// What is delivered from now on starts anew.
    pub(super) fn on_attached(&mut self) {
        self.newest = None;
    }

    /// The newest entry that was delivered.
    pub(super) fn newest(&self) -> Option<EntryPosition> {
        self.newest
    }

    /// Entries have arrived together.
    pub(super) fn on_run(&mut self, run: &[ReceivedEntry], now: Now) {
        let [entry, ..] = run else { return };
        self.last_arrival = Some(now.at);
        self.newest = self.newest.max(run.last().map(ReceivedEntry::position));
        let Ok(body) = &entry.body else { return };
        let metadata = entry.raw.get(body.metadata());
        if let Some(published) = metadata.and_then(publish_time_ms) {
            self.publish_latency.record(Duration::from_millis(now.wall_ms.saturating_sub(published)));
        }
    }
}

impl Consumer {
    /// Statistics, as of now.
    pub fn stats(&self) -> ConsumerStats {
        let counters = &self.counters;
        ConsumerStats {
            received_messages: counters.messages,
            received_entries: counters.entries,
            received_bytes: counters.bytes,
            redelivered_entries: counters.redelivered_entries,
            damaged_entries: counters.damaged_entries,
            incomplete_chunked_messages: counters.incomplete_messages,
            acknowledged_messages: counters.acks,
            cumulative_acknowledgements: counters.cumulative_acks,
            negative_acknowledgements: counters.nacks,
            acknowledgement_timeouts: counters.ack_timeouts,
            dead_lettered_messages: counters.dead_letters,
            queued_messages: self.queue.waiting_messages(),
            available_permits: self.queue.outstanding_permits(),
            receiver_queue_size: self.queue.size().into(),
            reconnects: self.attach_status.reconnects(),
            publish_latency: counters.publish_latency.clone(),
            processing_latency: counters.processing_latency.clone(),
            errors: self.attach_status.errors().clone(),
        }
    }

    /// A message is stored in a dead-letter topic.
    pub fn count_dead_letter(&mut self) {
        self.counters.dead_letters += 1;
    }

    /// A message was acknowledged so long after it was handed out.
    pub fn record_processing(&mut self, took: Duration) {
        self.counters.processing_latency.record(took);
    }
}
