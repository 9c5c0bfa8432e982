//! What a producer counts.

use std::time::Duration;

use super::Producer;
use super::group::{PendingEntry, SendGroup};
use crate::error::Error;
use crate::machine::Now;
use crate::stats::{ErrorCounts, Histogram};

/// Statistics of a producer since it was created; of a partitioned topic, the sums over its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Messages accepted for sending.
    pub accepted_messages: u64,
    /// Messages accepted and not settled.
    pub pending_messages: usize,
    /// What they count against the bounds on pending bytes.
    pub pending_bytes: usize,
    /// Messages that the broker has confirmed (SEND_RECEIPT).
    pub confirmed_messages: u64,
    /// What they counted against the bounds on pending bytes: payload, key and properties, before compression.
    pub confirmed_bytes: u64,
    /// Receipts: one for each batch, and for each message outside of batches.
    pub confirmed_entries: u64,
    /// Messages that failed after they were accepted.
    pub failed_messages: u64,
    /// Receipts for nothing that is pending: what they confirm had timed out, or was confirmed before.
    pub stale_receipts: u64,
    /// How often it was attached again after the first time.
    pub reconnects: u64,
    /// From the acceptance of a message to its receipt; once for each confirmed message. Messages that are written
    /// together count with the acceptance of the first and the receipt of the last of them.
    pub send_latency: Histogram,
    /// Failed attempts to attach it and ends of an attach, and failed messages, by the code of their error.
    pub errors: ErrorCounts,
}

impl ProducerStats {
    /// Adds those of another producer.
    pub fn merge(&mut self, other: &Self) {
        self.accepted_messages += other.accepted_messages;
        self.pending_messages += other.pending_messages;
        self.pending_bytes += other.pending_bytes;
        self.confirmed_messages += other.confirmed_messages;
        self.confirmed_bytes += other.confirmed_bytes;
        self.confirmed_entries += other.confirmed_entries;
        self.failed_messages += other.failed_messages;
        self.stale_receipts += other.stale_receipts;
        self.reconnects += other.reconnects;
        self.send_latency.merge(&other.send_latency);
        self.errors.merge(&other.errors);
    }
}

impl ProducerStats {
    /// What came after `earlier`, which is a former state of these. What is pending is as it is now.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            accepted_messages: self.accepted_messages.saturating_sub(earlier.accepted_messages),
            pending_messages: self.pending_messages,
            pending_bytes: self.pending_bytes,
            confirmed_messages: self.confirmed_messages.saturating_sub(earlier.confirmed_messages),
            confirmed_bytes: self.confirmed_bytes.saturating_sub(earlier.confirmed_bytes),
            confirmed_entries: self.confirmed_entries.saturating_sub(earlier.confirmed_entries),
            failed_messages: self.failed_messages.saturating_sub(earlier.failed_messages),
            stale_receipts: self.stale_receipts.saturating_sub(earlier.stale_receipts),
            reconnects: self.reconnects.saturating_sub(earlier.reconnects),
            send_latency: self.send_latency.since(&earlier.send_latency),
            errors: self.errors.since(&earlier.errors),
        }
    }
}

/// What has become of the messages of one producer.
#[derive(Debug, Default)]
pub(super) struct SendCounters {
    confirmed_messages: u64,
    confirmed_bytes: u64,
    confirmed_entries: u64,
    failed_messages: u64,
    send_latency: Histogram,
    errors: ErrorCounts,
}

impl SendCounters {
    #[inline]
    pub(super) fn on_confirmed(&mut self, entry: &PendingEntry) {
        self.confirmed_messages += u64::from(entry.messages);
        self.confirmed_bytes += entry.size_bytes as u64;
        self.confirmed_entries += 1;
    }

    /// The last entry of a group was confirmed.
    pub(super) fn on_group_confirmed(&mut self, group: &SendGroup, now: Now) {
        let Some(started) = group.started else { return };
        let latency = now.at.saturating_duration_since(started.at);
        self.send_latency.record_many(latency, group.confirmed_messages.into());
    }

    pub(super) fn on_failed(&mut self, entry: &PendingEntry, error: &Error) {
        self.failed_messages += u64::from(entry.messages);
        self.errors.add(error, entry.messages.into());
    }
}

impl Producer {
    /// Statistics, as of now.
    pub fn stats(&self) -> ProducerStats {
        let counters = &self.counters;
        let mut errors = counters.errors.clone();
        errors.merge(self.attach_status.errors());
        ProducerStats {
            accepted_messages: self.sequence_ids.accepted_messages(),
            pending_messages: self.capacity.pending_messages(),
            pending_bytes: self.capacity.pending_bytes(),
            confirmed_messages: counters.confirmed_messages,
            confirmed_bytes: counters.confirmed_bytes,
            confirmed_entries: counters.confirmed_entries,
            failed_messages: counters.failed_messages,
            stale_receipts: self.receipts.stale(),
            reconnects: self.attach_status.reconnects(),
            send_latency: counters.send_latency.clone(),
            errors,
        }
    }

    /// For how long the oldest message that has no receipt has waited.
    pub fn oldest_pending(&self, now: Now) -> Option<Duration> {
        let (group, _) = self.in_flight.front()?;
        group.started.map(|started| now.at.saturating_duration_since(started.at))
    }
}
