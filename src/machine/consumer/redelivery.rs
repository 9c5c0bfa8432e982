//! Messages to be delivered again: negative acknowledgements until their delay is over, then the request for them.
//!
//! The unit is the entry: the broker delivers an entry again with all members that are not acknowledged. Exclusive and
//! Failover read in order, so there any redelivery is a *rewind*: everything after the last acknowledgement comes again,
//! and one request serves all that wait.
//!
//! The delays are kept in buckets of a quarter of the delay, 256 ms at most, so that a burst of negative
//! acknowledgements takes one timer and few frames.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Consumer;
use super::position::EntryPosition;
use crate::machine::Now;
use crate::machine::endpoint::outbox::Outbox;
use crate::pb;
use crate::wire::Command;

/// The most negative acknowledgements that wait for their delay, in entries. At the bound everything that is not
/// acknowledged is requested at once, which covers them all.
const NACKS_MAX: usize = 100_000;

/// The most ids in one REDELIVER_UNACKNOWLEDGED_MESSAGES.
const REDELIVER_IDS_MAX: usize = 1000;

/// The widest bucket, in milliseconds.
const BUCKET_MS_MAX: u64 = 256;

/// The negative acknowledgements and redelivery requests of one consumer.
#[derive(Debug)]
pub(super) struct Redelivery {
    /// Exclusive and Failover.
    is_in_order: bool,
    delay: Duration,
    bucket_ms: u64,
    /// Buckets are counted from here.
    base: Instant,
    /// Entries that wait for their delay, each with its bucket.
    nacked: BTreeMap<EntryPosition, u64>,
    /// The same by bucket; may name entries that do not wait any more.
    buckets: BTreeMap<u64, Vec<EntryPosition>>,
    /// Positions in `buckets`.
    bucketed: usize,
    /// Entries to be requested.
    due: Vec<EntryPosition>,
    /// Everything is to be requested.
    is_all_due: bool,
    /// `consumer_epoch`: grows with each rewind, and comes back in the messages sent after it.
    epoch: u64,
}

impl Redelivery {
    pub(super) fn new(is_in_order: bool, delay: Duration, now: Now) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self {
            is_in_order,
            delay,
            bucket_ms: (delay_ms / 4).clamp(1, BUCKET_MS_MAX),
            base: now.at,
            nacked: BTreeMap::new(),
            buckets: BTreeMap::new(),
            bucketed: 0,
            due: Vec::new(),
            is_all_due: false,
            epoch: 0,
        }
    }

    /// `consumer_epoch` of SUBSCRIBE.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a message with this `consumer_epoch` was sent before the broker knew of the last rewind. Then it comes
    /// again.
    #[inline]
    pub(super) fn is_outdated(&self, consumer_epoch: Option<u64>) -> bool {
        self.is_in_order && consumer_epoch.is_some_and(|epoch| epoch < self.epoch)
    }

    /// Notes an entry, once: its delay counts from the first time. False if there is no room for it.
    pub(super) fn nack(&mut self, position: EntryPosition, now: Now) -> bool {
        if self.nacked.contains_key(&position) {
            return true;
        }
        if self.bucketed >= NACKS_MAX {
            return false;
        }
        let due = now.at.saturating_duration_since(self.base).saturating_add(self.delay);
        // Rounded up, so that no redelivery comes before its delay.
        let bucket = u64::try_from(due.as_millis()).unwrap_or(u64::MAX).div_ceil(self.bucket_ms);
        self.nacked.insert(position, bucket);
        self.buckets.entry(bucket).or_default().push(position);
        self.bucketed += 1;
        true
    }

    /// The entry is acknowledged: its negative acknowledgement is void.
    pub(super) fn remove(&mut self, position: EntryPosition) {
        if !self.nacked.is_empty() {
            self.nacked.remove(&position);
        }
    }

    /// Everything up to and including `up_to` is acknowledged.
    pub(super) fn remove_up_to(&mut self, up_to: EntryPosition) {
        if self.nacked.first_key_value().is_some_and(|(first, _)| *first <= up_to) {
            self.nacked.retain(|position, _| *position > up_to);
        }
    }

    fn clear_nacks(&mut self) {
        self.nacked.clear();
        self.buckets.clear();
        self.bucketed = 0;
    }

    /// A new attach, a seek, or the end: the broker delivers everything again anyway.
    pub(super) fn reset(&mut self) {
        self.clear_nacks();
        self.due.clear();
        self.is_all_due = false;
    }

    /// When the delay of the next bucket is over.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let (bucket, _) = self.buckets.first_key_value()?;
        self.base.checked_add(Duration::from_millis(bucket.saturating_mul(self.bucket_ms)))
    }

    /// Takes the entries whose delay is over. In order, that is one for all.
    pub(super) fn take_due(&mut self, now: Now) -> Vec<EntryPosition> {
        let mut due = Vec::new();
        while self.due_at().is_some_and(|at| at <= now.at) {
            let Some((bucket, positions)) = self.buckets.pop_first() else { break };
            self.bucketed -= positions.len();
            for position in positions {
                // Acknowledged meanwhile, it is gone from `nacked`; negatively acknowledged once more after that, it
                // is there with a later bucket.
                if self.nacked.get(&position) == Some(&bucket) {
                    self.nacked.remove(&position);
                    due.push(position);
                }
            }
        }
        due
    }

    /// Requests these entries; beyond the bound, everything.
    pub(super) fn request(&mut self, positions: &[EntryPosition]) {
        if self.is_all_due {
            return;
        }
        if self.due.len() + positions.len() > NACKS_MAX {
            self.request_all();
        } else {
            self.due.extend_from_slice(positions);
        }
    }

    /// Requests everything that is not acknowledged.
    pub(super) fn request_all(&mut self) {
        self.clear_nacks();
        self.due.clear();
        self.is_all_due = true;
        if self.is_in_order {
            self.epoch += 1;
        }
    }

    /// Whether a request is to be written.
    pub(super) fn has_pending(&self) -> bool {
        self.is_all_due || !self.due.is_empty()
    }

    /// Writes requests, about `out.quantum_bytes` at most. True if nothing is left.
    pub(super) fn transmit(&mut self, consumer_id: u64, out: &mut Outbox<'_>) -> bool {
        if self.is_all_due {
            self.is_all_due = false;
            put(out, consumer_id, &[], self.is_in_order.then_some(self.epoch));
        }
        let start = out.tx.len();
        let mut sent = 0;
        while sent < self.due.len() && out.tx.len() - start < out.quantum_bytes {
            let count = (self.due.len() - sent).min(REDELIVER_IDS_MAX);
            put(out, consumer_id, &self.due[sent..sent + count], None);
            sent += count;
        }
        self.due.drain(..sent);
        self.due.is_empty()
    }
}

impl Consumer {
    /// Requests everything that is not acknowledged, and drops what is queued or was taken: it comes again.
    pub(super) fn redeliver_everything(&mut self) {
        self.redelivery.request_all();
        self.clear_queue();
        self.is_dirty = true;
    }

    /// Requests the entries whose delay is over. In order there is one request for everything.
    pub(super) fn handle_due_nacks(&mut self, now: Now) {
        let mut due = self.redelivery.take_due(now);
        if due.is_empty() {
            return;
        }
        self.is_dirty = true;
        if self.config.subscription_type.is_in_order() {
            return self.redeliver_everything();
        }
        self.redelivery.request(&due);
        due.sort_unstable();
        // A copy in the queue of what comes again would be delivered twice.
        self.queue.drop_entries(|position| due.binary_search(&position).is_ok());
        self.notify_flow();
    }
}

/// REDELIVER_UNACKNOWLEDGED_MESSAGES; without ids, of everything.
fn put(out: &mut Outbox<'_>, consumer_id: u64, ids: &[EntryPosition], consumer_epoch: Option<u64>) {
    let message_ids = ids
        .iter()
        .map(|id| pb::MessageIdData { ledger_id: id.ledger_id, entry_id: id.entry_id, ..Default::default() })
        .collect();
    let redeliver = pb::CommandRedeliverUnacknowledgedMessages { consumer_id, message_ids, consumer_epoch };
    out.tx.push_command(&Command::RedeliverUnacknowledgedMessages(redeliver));
}
