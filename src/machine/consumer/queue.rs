//! Entries that wait to be taken, and the permits that the broker charged for them.
//!
//! The receiving side takes the whole queue under one lock and hands it out without one. What it took becomes void
//! when the broker delivers the same entries again or the application must not see them any more: at a new attach, a
//! rewind, a seek, the end. Then the *queue epoch* moves. The receiving side compares it before each message, and drops
//! what it took under an earlier one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Consumer;
use super::entry::ReceivedEntry;
use super::idle::IdleReason;
use super::permits::{Permits, ReturnedPermits};
use super::position::EntryPosition;
use super::scaling::Received;
use crate::error::Error;
use crate::id::MessagePosition;
use crate::machine::receive_memory::{ReceiveBudget, ReceiveShare};
use crate::machine::{Deferred, EndpointId, ReadyList};

/// How many entries the queue takes, as a multiple of `receiver_queue_size`, and at least [`ENTRIES_MIN`]. A broker that
/// keeps to its permits stays below twice that size.
const ENTRIES_FACTOR: usize = 4;

/// See [`ENTRIES_FACTOR`].
const ENTRIES_MIN: usize = 256;

/// What the receiving side watches without the consumer's lock.
#[derive(Debug, Clone)]
pub struct QueueSignals {
    /// Gets the consumer's id when there is something to [`take`](super::Consumer::take).
    pub inbox: Arc<ReadyList>,
    /// The queue epoch: it moves when what was taken before is void.
    pub epoch: Arc<AtomicU64>,
    /// Is told what the broker notifies.
    pub observer: Option<Arc<dyn TopicObserver>>,
}

/// Is told what the broker notifies about `topic`, the topic or partition of a consumer. Called with no lock held.
pub trait TopicObserver: fmt::Debug + Send + Sync {
    /// ACTIVE_CONSUMER_CHANGE, where it changes what was known.
    fn on_active_change(&self, topic: &Arc<str>, is_active: bool);

    /// REACHED_END_OF_TOPIC, for the first time.
    fn on_end_of_topic(&self, topic: &Arc<str>);

    /// Nothing has come for this long, although there is a backlog and the broker may send.
    fn on_stall(&self, topic: &Arc<str>, reason: IdleReason, quiet_for: Duration);

    /// Whether it is to be told of redeliveries.
    fn wants_redeliveries(&self) -> bool {
        false
    }

    /// Entries are requested again: their negative acknowledgement is due, or they were not acknowledged in time.
    fn on_redelivery(&self, topic: &Arc<str>, nacked: &[MessagePosition], timed_out: &[MessagePosition]) {
        let _ = (topic, nacked, timed_out);
    }
}

/// What [`Consumer::take`](super::Consumer::take) says besides the entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The queue epoch they belong to. When it has moved, entries taken before are to be dropped and their permits
    /// returned: they come again, or are not wanted any more.
    pub queue_epoch: u64,
    /// The attach that their permits belong to.
    pub attach_number: u64,
    /// The [cluster](crate::id::MessagePosition::cluster_number) that has delivered them.
    pub cluster_number: u32,
    /// How many seeks have moved a reader: what it was given before one says nothing of where it is after it.
    pub seek_number: u32,
    /// Permits are worth returning once they are so many.
    pub permits_step: u32,
    /// Nothing comes any more, and why.
    pub ended: Option<Error>,
}

/// The entries of one consumer that were not taken yet, and its permits.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<ReceivedEntry>,
    /// The most entries it takes. Beyond it they are dropped, and requested again once the queue has been taken.
    entries_max: usize,
    /// Entries were dropped at the bound since the last take.
    has_dropped: bool,
    permits: Permits,
    signals: QueueSignals,
    /// The consumer's id is in the inbox.
    is_in_inbox: bool,
}

impl Queue {
    /// The counter of queue epochs, shared with the receiving side.
    pub(super) fn epoch_counter(&self) -> Arc<AtomicU64> {
        self.signals.epoch.clone()
    }

    /// Of this size, which may grow up to `size_max`.
    pub(super) fn new(receiver_queue_size: u32, size_max: u32, signals: QueueSignals) -> Self {
        Self {
            entries: VecDeque::new(),
            entries_max: entries_max(receiver_queue_size),
            has_dropped: false,
            permits: Permits::new(receiver_queue_size, size_max),
            signals,
            is_in_inbox: false,
        }
    }

    /// See [`Permits::resize`]. The queue takes what was granted before.
    pub(super) fn resize(&mut self, receiver_queue_size: u32, size_max: u32) {
        self.permits.resize(receiver_queue_size, size_max);
        self.make_room();
    }

    fn make_room(&mut self) {
        self.entries_max = self.entries_max.max(entries_max(self.permits.size()));
    }

    /// The size at the moment, messages.
    pub(super) fn size(&self) -> u32 {
        self.permits.size()
    }

    /// A new attach: permits start anew, and the broker delivers again what is here or was taken.
    pub(super) fn restart(&mut self) {
        self.has_dropped = false;
        self.permits.restart();
        self.entries_max = entries_max(self.permits.size());
        self.entries.clear();
        self.start_epoch();
    }

    /// The number of the present attach.
    pub(super) fn attach_number(&self) -> u64 {
        self.permits.attach_number()
    }

    pub(super) fn epoch(&self) -> u64 {
        // The receiving side reads it again under the consumer's lock before it uses what it takes.
        self.signals.epoch.load(Ordering::Relaxed)
    }

    fn start_epoch(&self) {
        self.signals.epoch.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages, not entries.
    pub(super) fn messages(&self) -> u64 {
        self.permits.queued()
    }

    /// Messages that are here or were taken, and whose permits have not come back.
    pub(super) fn waiting_messages(&self) -> u64 {
        self.permits.queued().saturating_add(self.permits.taken())
    }

    /// Whether nothing waits for the application: it has looked for more since it took the last messages, or has taken none.
    pub(super) fn is_used_up(&self) -> bool {
        self.is_empty() && (self.permits.taken() == 0 || self.signals.inbox.was_empty())
    }

    /// See [`Permits::outstanding`]; what is below zero is 0.
    pub(super) fn outstanding_permits(&self) -> u64 {
        u64::try_from(self.permits.outstanding()).unwrap_or(0)
    }

    /// Whether there is room for one more entry behind `ahead` others. If not, the entry will be asked for again.
    #[inline]
    pub(super) fn has_room(&mut self, ahead: usize) -> bool {
        let has_room = ahead < self.entries_max;
        self.has_dropped |= !has_room;
        has_room
    }

    /// Books the permits of an entry that arrived: the broker charged `charged`, and `queued` of its members are about
    /// to be [appended](Self::append).
    #[inline]
    pub(super) fn book(&mut self, charged: u32, queued: u32) {
        if queued > 0 {
            self.permits.arrived(queued);
        }
        if charged > queued {
            self.permits.refused(charged - queued);
        }
    }

    /// What is delivered counts against this budget from now on; `None`: against none any more.
    pub(super) fn set_budget(&mut self, budget: Option<Arc<ReceiveBudget>>) {
        self.permits.memory = budget.map(|budget| Box::new(ReceiveShare::new(budget)));
    }

    /// Entries have arrived, with the permits that the broker has charged for them.
    #[inline]
    pub(super) fn observe(&mut self, run: &[ReceivedEntry], now: Instant) {
        self.permits.on_arrival(now);
        if let Some(memory) = &mut self.permits.memory {
            memory.on_input();
            run.iter().for_each(|entry| memory.observe(entry.raw.len(), entry.permits));
        }
    }

    /// See [`Permits::step`].
    pub(super) fn permits_step(&self) -> u32 {
        self.permits.step()
    }

    /// Adds entries whose permits are booked. Leaves `run` empty.
    #[inline]
    pub(super) fn append(&mut self, run: &mut Vec<ReceivedEntry>) {
        // One move for each entry, from place to place.
        self.entries.extend(run.drain(..));
        self.permits.count_memory();
    }

    /// Moves everything behind what `into` holds. Says whether entries were dropped since the last time.
    pub(super) fn take(&mut self, into: &mut VecDeque<ReceivedEntry>) -> bool {
        self.check();
        self.is_in_inbox = false;
        self.permits.take_all();
        if into.is_empty() {
            std::mem::swap(&mut self.entries, into);
        } else {
            into.append(&mut self.entries);
        }
        std::mem::take(&mut self.has_dropped)
    }

    /// See [`Permits::return_taken`].
    pub(super) fn return_permits(&mut self, returned: ReturnedPermits) {
        self.permits.return_taken(returned);
    }

    /// See [`Permits::request_one`].
    pub(super) fn request_one(&mut self) {
        self.permits.request_one();
    }

    /// See [`Permits::is_flow_due`].
    pub(super) fn is_flow_due(&self) -> bool {
        self.permits.is_flow_due()
    }

    /// See [`Permits::take_flow`].
    pub(super) fn take_flow(&mut self, received: Received, now: Instant) -> Option<u32> {
        let permits = self.permits.take_flow(received, now)?;
        self.make_room();
        Some(permits)
    }

    /// Drops everything, here and where it was taken; the permits of what is here come back.
    pub(super) fn clear(&mut self) {
        self.check();
        self.permits.cleared(self.permits.queued());
        self.entries.clear();
        self.start_epoch();
    }

    /// Asks of each entry, from the first one on, whether it stays, until the answer is `None`: then all others do.
    pub(super) fn filter_front(&mut self, mut stays: impl FnMut(&mut ReceivedEntry) -> Option<bool>) {
        let (mut kept, mut permits) = (Vec::new(), 0u64);
        while let Some(stays) = self.entries.front_mut().and_then(&mut stays) {
            let entry = self.entries.pop_front();
            match stays {
                true => kept.extend(entry),
                false => permits += entry.map_or(0, |entry| entry.permits.into()),
            }
        }
        kept.into_iter().rev().for_each(|entry| self.entries.push_front(entry));
        if permits > 0 {
            self.permits.cleared(permits);
        }
    }

    /// Drops the entries that `dropped` names, with their permits.
    pub(super) fn drop_entries(&mut self, dropped: impl Fn(EntryPosition) -> bool) {
        let mut permits = 0u64;
        self.entries.retain(|entry| {
            let is_dropped = dropped(entry.position());
            permits += if is_dropped { entry.permits.into() } else { 0 };
            !is_dropped
        });
        self.permits.cleared(permits);
    }

    /// Whether the observer is to be told of redeliveries.
    pub(super) fn wants_redeliveries(&self) -> bool {
        self.signals.observer.as_ref().is_some_and(|observer| observer.wants_redeliveries())
    }

    /// Puts `id`, the consumer's, in the inbox, once until the next take.
    pub(super) fn notify(&mut self, id: EndpointId, deferred: &mut Deferred) {
        if !std::mem::replace(&mut self.is_in_inbox, true) {
            if let Some(waker) = self.signals.inbox.notify(id) {
                deferred.wake(waker);
            }
        }
    }

    /// The queue holds what its permits say. Where entries leave it, so that each is counted once; in debug builds.
    fn check(&self) {
        debug_assert_eq!(
            self.entries.iter().map(|entry| u64::from(entry.permits)).sum::<u64>(),
            self.permits.queued(),
            "the queue does not hold what its permits say"
        );
    }
}

fn entries_max(receiver_queue_size: u32) -> usize {
    (receiver_queue_size as usize).saturating_mul(ENTRIES_FACTOR).max(ENTRIES_MIN)
}

impl Consumer {
    /// Tells the observer later, once no lock is held.
    pub(super) fn tell(
        &self,
        deferred: &mut Deferred,
        tell: impl FnOnce(&dyn TopicObserver, &Arc<str>) + Send + 'static,
    ) {
        if let Some(observer) = self.queue.signals.observer.clone() {
            let topic = self.topic.clone();
            deferred.run(move || tell(&*observer, &topic));
        }
    }

    /// Drops what is queued or was taken; the permits of what is queued are granted again.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
        self.notify_flow();
    }

    /// Has the owner write a FLOW if one is due.
    #[inline]
    pub(super) fn notify_flow(&mut self) {
        self.dirty.now_if(self.lifecycle.is_attached() && self.may_grant() && self.queue.is_flow_due());
    }
}
