//! The ledger of permits: what the broker may send, and where each message is that it was charged for.
//!
//! ```text
//!            FLOW                MESSAGE             take            return
//!   due ------------> outstanding ----------> queued ------> taken ------------+
//!    ^                                |          |                             |
//!    |                       refused  |          | cleared                     |
//!    +--------------------------------+----------+-----------------------------+
//! ```
//!
//! Within one attach nothing leaves this circle, so the sum of the four is the window: the size of the receiver queue.
//! A new attach starts a new ledger, and permits taken under an earlier one are void. Where the size is lowered meanwhile,
//! what was granted stays granted: permits that come back leave the circle until the window has the new size.
//!
//! `outstanding` goes below zero when a batch is larger than the permits that were left, which is no error: a broker
//! never splits an entry.
//!
//! With a receive budget fewer are granted than are due, as long as those that are here take their share: see
//! [`receive_memory`](crate::machine::receive_memory).
//!
//! The size itself may follow the application: see [`scaling`](super::scaling).
//!
//! With a queue size of 0 the window is opened by each receive: it raises what is outstanding to one, and what is
//! returned is not granted again.

use std::time::Instant;

use super::scaling::{Received, Scaling};
use crate::machine::receive_memory::ReceiveShare;

/// FLOW counts as a signed 32-bit number.
const FLOW_MAX: u64 = i32::MAX as u64;

/// Permits that the receiving side gives back: the messages it is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReturnedPermits {
    /// The attach their entries were taken in ([`Taken::attach_number`](super::Taken::attach_number)). Permits of an earlier one
    /// are void.
    pub attach_number: u64,
    /// How many, messages.
    pub count: u32,
}

/// Permits of one consumer in one attach.
#[derive(Debug)]
pub(super) struct Permits {
    /// The number of the attach, from 1; 0 before the first.
    attach_number: u64,
    /// The size of the receiver queue, messages.
    size: u32,
    /// What the size follows; `None`: it is fixed.
    scaling: Option<Box<Scaling>>,
    /// The sum of the four below. The size, or more until a size that was lowered is reached; with a size of 0 what
    /// receives have requested and not been given.
    window: i64,
    /// Permits granted and not used by deliveries that have arrived, messages.
    outstanding: i64,
    /// Messages in the queue.
    queued: i64,
    /// Messages that were taken and have not been returned.
    taken: i64,
    /// Messages to be granted by the next FLOW.
    due: i64,
    /// Queue size 0: a receive waits, and has not taken a message yet.
    is_requested: bool,
    /// What the memory of the client allows; `None`: everything.
    pub(super) memory: Option<Box<ReceiveShare>>,
}

impl Permits {
    /// Of a queue of this size, which may grow up to `size_max`.
    pub(super) fn new(size: u32, size_max: u32) -> Self {
        let window = i64::from(size);
        Self {
            attach_number: 0,
            size,
            scaling: Scaling::new(size, size_max),
            window,
            outstanding: 0,
            queued: 0,
            taken: 0,
            due: window,
            is_requested: false,
            memory: None,
        }
    }

    /// The size of the receiver queue from now on, or what it may not fall below where it follows the application. A size of
    /// 0 stays one, and no other becomes one.
    pub(super) fn resize(&mut self, size: u32, size_max: u32) {
        if self.size == 0 || size == 0 {
            return;
        }
        self.scaling = match self.scaling.take() {
            Some(mut scaling) => scaling.set_bounds(size, size_max).then_some(scaling),
            None => Scaling::new(size, size_max),
        };
        self.set_size(self.scaling.as_ref().map_or(size, |scaling| scaling.clamp(self.size)));
    }

    fn set_size(&mut self, size: u32) {
        self.size = size;
        let more = (i64::from(size) - self.window).max(0);
        self.window += more;
        self.due += more;
        self.shed_excess();
        self.check();
    }

    /// Has the window come down to a size that was lowered, as far as permits are here.
    fn shed_excess(&mut self) {
        let excess = (self.window - i64::from(self.size)).clamp(0, self.due);
        self.window -= excess;
        self.due -= excess;
    }

    /// The number of the present attach.
    pub(super) fn attach_number(&self) -> u64 {
        self.attach_number
    }

    /// A new attach: the broker starts from zero, and so does everything here. A receive that waits still does.
    pub(super) fn restart(&mut self) {
        self.attach_number += 1;
        if let Some(scaling) = &mut self.scaling {
            self.size = scaling.restart();
        }
        (self.outstanding, self.queued, self.taken) = (0, 0, 0);
        self.due = i64::from(self.size);
        self.window = self.due;
        self.update_share();
        self.grant_requested();
    }

    /// The broker sent an entry and charged `permits` for it.
    #[inline]
    pub(super) fn arrived(&mut self, permits: u32) {
        self.outstanding -= i64::from(permits);
        self.queued += i64::from(permits);
        self.note_exhausted();
        self.check();
    }

    /// Entries have arrived.
    #[inline]
    pub(super) fn on_arrival(&mut self, now: Instant) {
        if let Some(scaling) = &mut self.scaling {
            scaling.on_arrival(now);
        }
    }

    #[inline]
    fn note_exhausted(&mut self) {
        if self.outstanding <= 0 {
            if let Some(scaling) = &mut self.scaling {
                scaling.on_exhausted();
            }
        }
    }

    /// The broker sent an entry and charged `permits` for members of it that are not queued.
    pub(super) fn refused(&mut self, permits: u32) {
        self.outstanding -= i64::from(permits);
        self.give_back(permits.into());
        self.grant_requested();
    }

    /// The whole queue was taken.
    pub(super) fn take_all(&mut self) {
        if self.queued > 0 {
            self.is_requested = false;
        }
        self.taken += self.queued;
        self.queued = 0;
        self.update_share();
        self.check();
    }

    /// Entries of the queue that hold `permits` were dropped.
    pub(super) fn cleared(&mut self, permits: u64) {
        let permits = i64::try_from(permits).unwrap_or(i64::MAX).min(self.queued);
        self.queued -= permits;
        self.give_back(permits);
        self.update_share();
        self.grant_requested();
    }

    /// The receiving side is done with some of what it took.
    pub(super) fn return_taken(&mut self, returned: ReturnedPermits) {
        if returned.attach_number != self.attach_number {
            return;
        }
        // A caller that returns more than it took must not make the broker send more than the window.
        let permits = i64::from(returned.count).min(self.taken);
        self.taken -= permits;
        self.give_back(permits);
        if self.taken == 0 && self.queued == 0 {
            if let Some(scaling) = &mut self.scaling {
                scaling.on_waiting();
            }
        }
        self.update_share();
        self.check();
    }

    /// Queue size 0: a receive waits.
    pub(super) fn request_one(&mut self) {
        if self.size == 0 {
            self.is_requested = true;
            self.grant_requested();
        }
    }

    /// Messages that were taken and have not been returned.
    pub(super) fn taken(&self) -> u64 {
        u64::try_from(self.taken).unwrap_or(0)
    }

    fn give_back(&mut self, permits: i64) {
        if self.size == 0 {
            self.window -= permits;
        } else {
            self.due += permits;
            self.shed_excess();
        }
    }

    /// Queue size 0: raises what is outstanding to one, unless it is that already or the message has come.
    fn grant_requested(&mut self) {
        if self.size == 0 && self.is_requested && self.queued == 0 {
            let missing = (1 - self.outstanding - self.due).max(0);
            self.due += missing;
            self.window += missing;
        }
        self.check();
    }

    /// Something has happened after which permits are granted: what the memory allows may have changed.
    fn update_share(&mut self) {
        self.count_memory();
        if let Some(memory) = &mut self.memory {
            memory.on_input();
        }
    }

    /// The ledger has changed.
    pub(super) fn count_memory(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.count(self.outstanding, self.queued + self.taken);
        }
    }

    /// What of the permits that are due may be granted.
    fn grantable(&self) -> i64 {
        match &self.memory {
            Some(memory) if self.size > 0 => {
                let allowed = memory.outstanding_max(self.queued, self.taken).saturating_sub(self.outstanding);
                self.due.min(allowed).max(0)
            }
            _ => self.due,
        }
    }

    /// How many permits are worth a frame, and the lock to return them: half of what can be here at once, at least one.
    pub(super) fn step(&self) -> u32 {
        let half = match &self.memory {
            Some(memory) => u32::try_from(memory.entries_max() / 2).unwrap_or(u32::MAX).min(self.size / 2),
            None => self.size / 2,
        };
        half.max(1)
    }

    /// Whether a FLOW is worth its frame.
    pub(super) fn is_flow_due(&self) -> bool {
        // What was taken may hold the rest of the memory for long.
        let is_dry = self.memory.is_some() && self.outstanding <= 0 && self.queued == 0;
        let is_starved = self.scaling.as_ref().is_some_and(|scaling| scaling.is_starved(self.size));
        is_starved || self.grantable() >= if is_dry { 1 } else { i64::from(self.step()) }
    }

    /// The permits of the FLOW to send now, if one is due.
    pub(super) fn take_flow(&mut self, received: Received, now: Instant) -> Option<u32> {
        if !self.is_flow_due() {
            return None;
        }
        if let Some(scaling) = &mut self.scaling {
            let size = scaling.next_size(self.size, received, now);
            if size != self.size {
                self.set_size(size);
            }
            if !self.is_flow_due() {
                return None;
            }
        }
        let permits = self.grantable().unsigned_abs().min(FLOW_MAX) as u32;
        self.due -= i64::from(permits);
        self.outstanding += i64::from(permits);
        self.count_memory();
        self.check();
        Some(permits)
    }

    /// Nothing was lost or invented. Runs after every change, in debug builds.
    #[inline]
    fn check(&self) {
        debug_assert!(self.is_balanced(), "a permit was lost or invented: {self:?}");
    }

    fn is_balanced(&self) -> bool {
        self.outstanding + self.queued + self.taken + self.due == self.window
            && self.queued >= 0
            && self.taken >= 0
            && self.due >= 0
            && (self.size == 0 || self.window >= i64::from(self.size))
    }

    /// The size of the receiver queue, messages.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Messages in the queue.
    pub(super) fn queued(&self) -> u64 {
        self.queued.unsigned_abs()
    }

    /// What the broker may still send.
    pub(super) fn outstanding(&self) -> i64 {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(permits: &mut Permits) -> Option<u32> {
        permits.take_flow(Received::default(), Instant::now())
    }

    fn give_back(permits: &mut Permits, count: u32) {
        permits.return_taken(ReturnedPermits { attach_number: permits.attach_number(), count });
    }

    #[test]
    fn half_a_queue_is_granted_at_once() {
        let mut permits = Permits::new(10, 10);
        assert_eq!(flow(&mut permits), Some(10));
        for _ in 0..10 {
            permits.arrived(1);
        }
        permits.take_all();
        give_back(&mut permits, 4);
        assert_eq!(flow(&mut permits), None);
        give_back(&mut permits, 1);
        assert_eq!(flow(&mut permits), Some(5));
        assert!(permits.is_balanced());
    }

    #[test]
    fn a_queue_of_one_refills_after_each_message() {
        let mut permits = Permits::new(1, 1);
        assert_eq!(flow(&mut permits), Some(1));
        permits.arrived(1);
        permits.take_all();
        give_back(&mut permits, 1);
        assert_eq!(flow(&mut permits), Some(1));
    }

    #[test]
    fn a_batch_beyond_the_permits_is_given_back_whole() {
        let mut permits = Permits::new(5, 5);
        assert_eq!(flow(&mut permits), Some(5));
        for _ in 0..5 {
            permits.arrived(10);
        }
        assert_eq!(permits.outstanding(), -45);
        permits.take_all();
        give_back(&mut permits, 50);
        assert_eq!(flow(&mut permits), Some(50));
        assert_eq!(permits.outstanding(), 5);
        assert!(permits.is_balanced());
    }

    #[test]
    fn returning_more_than_was_taken_grants_nothing() {
        let mut permits = Permits::new(4, 4);
        assert_eq!(flow(&mut permits), Some(4));
        give_back(&mut permits, 1000);
        assert_eq!(flow(&mut permits), None);
        assert!(permits.is_balanced());
    }

    #[test]
    fn a_lower_size_is_reached_with_what_comes_back() {
        let mut permits = Permits::new(10, 10);
        assert_eq!(flow(&mut permits), Some(10));
        (0..8).for_each(|_| permits.arrived(1));
        permits.resize(4, 4);
        permits.take_all();
        give_back(&mut permits, 6);
        assert_eq!(flow(&mut permits), None, "2 are out and 2 are here");
        give_back(&mut permits, 2);
        assert_eq!(flow(&mut permits), Some(2));
        permits.resize(10, 10);
        assert_eq!(flow(&mut permits), Some(6));
        permits.resize(3, 3);
        permits.restart();
        assert_eq!(flow(&mut permits), Some(3));
        assert!(permits.is_balanced());
    }

    #[test]
    fn a_queue_that_follows_the_application_grants_what_it_grows_by() {
        let mut permits = Permits::new(10, 40);
        assert_eq!(flow(&mut permits), Some(10));
        permits.arrived(10);
        permits.take_all();
        give_back(&mut permits, 5);
        assert_eq!(flow(&mut permits), Some(5));
        give_back(&mut permits, 5);
        assert!(permits.is_flow_due(), "the broker had no permit, and nothing is here");
        assert_eq!(flow(&mut permits), Some(15));
        assert_eq!((permits.size(), permits.outstanding()), (20, 20));
        permits.resize(2, 4);
        assert_eq!(permits.size(), 4);
        permits.arrived(20);
        permits.take_all();
        give_back(&mut permits, 20);
        assert_eq!(flow(&mut permits), Some(4));
        permits.resize(6, 6);
        assert_eq!((flow(&mut permits), permits.size()), (None, 6));
        assert!(permits.is_balanced());
    }

    #[test]
    fn without_a_queue_each_waiting_receive_grants_one() {
        let mut permits = Permits::new(0, 0);
        assert_eq!(flow(&mut permits), None);
        permits.request_one();
        assert_eq!(flow(&mut permits), Some(1));
        permits.request_one();
        assert_eq!(flow(&mut permits), None, "one is out already");
        permits.arrived(10);
        permits.take_all();
        give_back(&mut permits, 10);
        assert_eq!(flow(&mut permits), None);
        permits.request_one();
        assert_eq!(flow(&mut permits), Some(10), "raises -9 to 1");
        assert!(permits.is_balanced());
    }

    #[test]
    fn without_a_queue_a_receive_outlives_a_damaged_entry_and_a_new_attach() {
        let mut permits = Permits::new(0, 0);
        permits.request_one();
        assert_eq!(flow(&mut permits), Some(1));
        permits.refused(3);
        assert_eq!(flow(&mut permits), Some(3));
        permits.restart();
        assert_eq!(flow(&mut permits), Some(1));
        permits.arrived(1);
        permits.restart();
        assert_eq!(flow(&mut permits), Some(1), "what was queued never reached the receive");
        assert!(permits.is_balanced());
    }

    #[test]
    fn zero_queue_asks_for_nothing_that_no_receive_waits_for() {
        let mut permits = Permits::new(0, 0);
        permits.restart();
        // Against the rules of the protocol: nothing was granted.
        permits.arrived(1);
        permits.restart();
        assert!(!permits.is_flow_due(), "{permits:?}");

        permits.request_one();
        assert_eq!(flow(&mut permits), Some(1));
        permits.arrived(1);
        // Before it was taken.
        permits.restart();
        assert_eq!(flow(&mut permits), Some(1));
    }
}
