//! Messages to be delivered again: negative acknowledgements until their delay is over, messages that are not
//! acknowledged in time, then the request for them.
//!
//! The unit is the entry: the broker delivers an entry again with all members that are not acknowledged. Exclusive and
//! Failover read in order, so there any redelivery is a *rewind*: everything after the last acknowledgement comes again,
//! and one request serves all that wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::delayed::{Delayed, Due, WaitReason};
use super::position::EntryPosition;
use super::{Consumer, ConsumerConfig};
use crate::machine::Dirty;
use crate::machine::endpoint::outbox::Outbox;
use crate::machine::{Deferred, Now};
use crate::pb;
use crate::wire::Command;

/// The most entries to be requested. At the bound everything that is not acknowledged is requested at once, which covers
/// them all.
const DUE_MAX: usize = 1 << 21;

/// The most ids in one REDELIVER_UNACKNOWLEDGED_MESSAGES.
const REDELIVER_IDS_MAX: usize = 1000;

/// The delays of one consumer, and its redelivery requests.
#[derive(Debug)]
pub(super) struct Redelivery {
    /// Exclusive and Failover.
    is_in_order: bool,
    /// Entries that wait for their delay or timeout; `None` while there were none yet.
    delayed: Option<Box<Delayed>>,
    /// Entries to be requested.
    due: VecDeque<EntryPosition>,
    /// Everything is to be requested.
    is_all_due: bool,
    /// `consumer_epoch`: grows with each rewind, and comes back in the messages sent after it.
    epoch: u64,
}

impl Redelivery {
    pub(super) fn new(config: &ConsumerConfig) -> Self {
        Self {
            is_in_order: config.subscription_type.is_in_order(),
            delayed: None,
            due: VecDeque::new(),
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
    pub(super) fn is_outdated(&self, consumer_epoch: u64) -> bool {
        self.is_in_order && consumer_epoch < self.epoch
    }

    fn delayed(&mut self, config: &ConsumerConfig, now: Now) -> &mut Delayed {
        self.delayed.get_or_insert_with(|| {
            let first = config.negative_ack_redelivery_backoff.first();
            let shortest = config.ack_timeout.map_or(first, |timeout| timeout.min(first));
            Box::new(Delayed::new(shortest, now))
        })
    }

    /// Notes an entry, once: its delay counts from the first time. False if there is no room for it.
    pub(super) fn nack(&mut self, position: EntryPosition, delay: Duration, config: &ConsumerConfig, now: Now) -> bool {
        self.delayed(config, now).insert(position, WaitReason::Nacked, delay, now)
    }

    /// The application has been given the entry: its timeout, if there is one, counts from now. False if there is no room
    /// for it.
    pub(super) fn on_given(
        &mut self,
        position: EntryPosition,
        redelivery_count: u32,
        config: &ConsumerConfig,
        now: Now,
    ) -> bool {
        let Some(timeout) = config.ack_timeout else { return true };
        let backoff = config.ack_timeout_redelivery_backoff;
        let more = backoff.map_or(Duration::ZERO, |backoff| backoff.delay_of(position, redelivery_count));
        self.delayed(config, now).insert(position, WaitReason::Delivered, timeout.saturating_add(more), now)
    }

    /// The entry is acknowledged: it does not come again.
    pub(super) fn remove(&mut self, position: EntryPosition) {
        if let Some(delayed) = &mut self.delayed {
            delayed.remove(position);
        }
    }

    /// Everything up to and including `up_to` is acknowledged.
    pub(super) fn remove_up_to(&mut self, up_to: EntryPosition) {
        if let Some(delayed) = &mut self.delayed {
            delayed.remove_up_to(up_to);
        }
    }

    /// A new attach, a seek, or the end: the broker delivers everything again anyway.
    pub(super) fn reset(&mut self) {
        self.delayed = None;
        self.due.clear();
        self.is_all_due = false;
    }

    /// When the next delay or timeout is over.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.delayed.as_ref()?.due_at()
    }

    /// Takes the entries whose delay or timeout is over.
    pub(super) fn take_due(&mut self, now: Now) -> Due {
        self.delayed.as_mut().map(|delayed| delayed.take_due(now)).unwrap_or_default()
    }

    /// Requests these entries; beyond the bound, everything.
    pub(super) fn request(&mut self, positions: &[EntryPosition]) {
        if self.is_all_due {
            return;
        }
        if self.due.len() + positions.len() > DUE_MAX {
            self.request_all();
        } else {
            self.due.extend(positions);
        }
    }

    /// Requests everything that is not acknowledged.
    pub(super) fn request_all(&mut self) {
        self.delayed = None;
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
        while !self.due.is_empty() && out.tx.len() - start < out.quantum_bytes {
            let ids: Vec<_> = self.due.drain(..self.due.len().min(REDELIVER_IDS_MAX)).collect();
            put(out, consumer_id, &ids, None);
        }
        self.due.is_empty()
    }
}

impl Consumer {
    /// Requests everything that is not acknowledged, and drops what is queued or was taken: it comes again.
    pub(super) fn redeliver_everything(&mut self) {
        self.redelivery.request_all();
        self.clear_queue();
        self.dirty = Dirty::Now;
    }

    /// The application has been given the first message of an entry. With an acknowledgement timeout, it counts from now.
    pub fn on_given(&mut self, ledger_id: u64, entry_id: u64, redelivery_count: u32, now: Now) {
        if !self.lifecycle.is_receiving() || self.seek.is_running() {
            return;
        }
        let before = self.redelivery.due_at();
        if !self.redelivery.on_given(EntryPosition { ledger_id, entry_id }, redelivery_count, &self.config, now) {
            self.redeliver_everything();
        }
        self.dirty.at_deadline_if(self.redelivery.due_at() != before);
    }

    /// Requests the entries whose delay or timeout is over. In order there is one request for everything.
    pub(super) fn handle_due_redeliveries(&mut self, now: Now, deferred: &mut Deferred) {
        let Due { positions: mut due, timed_out } = self.redelivery.take_due(now);
        if due.is_empty() {
            return;
        }
        self.counters.ack_timeouts += timed_out.len() as u64;
        if self.queue.wants_redeliveries() {
            let is_nacked = |position: &&EntryPosition| timed_out.binary_search(position).is_err();
            let nacked: Vec<_> = due.iter().filter(is_nacked).map(|position| position.to_id()).collect();
            let timed_out: Vec<_> = timed_out.iter().map(|position| position.to_id()).collect();
            self.tell(deferred, move |observer, topic| observer.on_redelivery(topic, &nacked, &timed_out));
        }
        self.dirty = Dirty::Now;
        if self.config.subscription_type.is_in_order() {
            return self.redeliver_everything();
        }
        self.chunked.extend_with_inner(&mut due);
        self.redelivery.request(&due);
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
