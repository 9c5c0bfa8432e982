//! The ledger of permits: what the broker may send, and where each message it was charged for is.
//!
//! ```text
//!            FLOW                MESSAGE             take             credit
//!   due ------------> outstanding ----------> queued ------> taken ------------+
//!    ^                                |          |                             |
//!    |                                | damaged, | cleared                     |
//!    |                                | stale    |                             |
//!    +--------------------------------+----------+-----------------------------+
//! ```
//!
//! Within one attach nothing leaves this circle, so the sum of the four is the window: the size of the receiver queue.
//! `outstanding` goes below zero when a batch is larger than the permits that were left, which is no error.
//!
//! With a queue size of 0 the window opens by hand: a waiting receive raises what is outstanding to one, and what comes
//! home is not granted again.

/// FLOW counts as a signed 32-bit number.
const FLOW_MAX: u64 = i32::MAX as u64;

/// Permits of one consumer in one attach.
#[derive(Debug)]
pub(super) struct Permits {
    /// `receiver_queue_size`, messages.
    size: u32,
    /// The sum of the four below. The size, or with a size of 0 what receives have asked for and not got.
    window: i64,
    /// What the broker may still send, as far as this side knows, messages.
    outstanding: i64,
    /// Messages in the machine's queue.
    queued: i64,
    /// Messages that were taken out and have not been credited.
    taken: i64,
    /// Messages that came home and are not granted again yet.
    due: i64,
    /// Queue size 0: a receive waits.
    wanted: bool,
}

impl Permits {
    pub(super) fn new(size: u32) -> Self {
        let mut permits = Self { size, window: 0, outstanding: 0, queued: 0, taken: 0, due: 0, wanted: false };
        permits.restart();
        permits
    }

    /// A new attach: the broker starts from zero, and so does everything here. A receive that waits goes on waiting.
    pub(super) fn restart(&mut self) {
        if self.size == 0 && self.queued > 0 {
            // A receive was about to get these.
            self.wanted = true;
        }
        (self.outstanding, self.queued, self.taken) = (0, 0, 0);
        self.due = i64::from(self.size);
        self.window = self.due;
        self.serve_wanted();
    }

    /// The broker sent an entry and charged `members` for it.
    pub(super) fn arrived(&mut self, members: u32) {
        self.outstanding -= i64::from(members);
        self.queued += i64::from(members);
        self.wanted = false;
    }

    /// The same for an entry, or for the part of one, that does not enter the queue.
    pub(super) fn arrived_for_nothing(&mut self, members: u32) {
        self.outstanding -= i64::from(members);
        self.home(members.into());
        self.serve_wanted();
    }

    /// Entries with `members` left the queue for the application.
    pub(super) fn take_all(&mut self) {
        self.taken += self.queued;
        self.queued = 0;
    }

    /// `members` of the queue were thrown away.
    pub(super) fn cleared(&mut self, members: u64) {
        let members = i64::try_from(members).unwrap_or(i64::MAX).min(self.queued);
        self.queued -= members;
        if members > 0 && self.size == 0 {
            self.wanted = true;
        }
        self.home(members);
        self.serve_wanted();
    }

    /// The application is done with `members` of this attach.
    pub(super) fn credit(&mut self, members: u32) {
        // Who credits more than was taken must not make the broker send more than the window.
        let members = i64::from(members).min(self.taken);
        self.taken -= members;
        self.home(members);
    }

    /// Queue size 0: a receive waits.
    pub(super) fn want_one(&mut self) {
        if self.size == 0 && self.queued == 0 {
            self.wanted = true;
            self.serve_wanted();
        }
    }

    fn home(&mut self, members: i64) {
        if self.size == 0 {
            self.window -= members;
        } else {
            self.due += members;
        }
    }

    /// Queue size 0: raises what is outstanding to one, unless it is that already.
    fn serve_wanted(&mut self) {
        if self.size == 0 && self.wanted {
            let missing = (1 - self.outstanding - self.due).max(0);
            self.due += missing;
            self.window += missing;
        }
    }

    /// Whether a FLOW is worth its frame: half the queue came home, at least one.
    pub(super) fn is_flow_due(&self) -> bool {
        self.due >= i64::from((self.size / 2).max(1))
    }

    /// The permits of the FLOW to send now, if one is due.
    pub(super) fn take_flow(&mut self) -> Option<u32> {
        if !self.is_flow_due() {
            return None;
        }
        let permits = self.due.unsigned_abs().min(FLOW_MAX) as u32;
        self.due -= i64::from(permits);
        self.outstanding += i64::from(permits);
        Some(permits)
    }

    /// Whether nothing got lost or invented.
    pub(super) fn is_balanced(&self) -> bool {
        self.outstanding + self.queued + self.taken + self.due == self.window
            && self.queued >= 0
            && self.taken >= 0
            && self.due >= 0
            && (self.size == 0 || self.window == i64::from(self.size))
    }

    /// Messages in the queue.
    pub(super) fn queued(&self) -> u64 {
        self.queued.unsigned_abs()
    }

    /// What the broker may still send.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> i64 {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_queue_is_granted_at_once() {
        let mut permits = Permits::new(10);
        assert_eq!(permits.take_flow(), Some(10));
        for _ in 0..10 {
            permits.arrived(1);
        }
        permits.take_all();
        permits.credit(4);
        assert_eq!(permits.take_flow(), None);
        permits.credit(1);
        assert_eq!(permits.take_flow(), Some(5));
        assert!(permits.is_balanced());
    }

    #[test]
    fn a_queue_of_one_refills_after_each_message() {
        let mut permits = Permits::new(1);
        assert_eq!(permits.take_flow(), Some(1));
        permits.arrived(1);
        permits.take_all();
        permits.credit(1);
        assert_eq!(permits.take_flow(), Some(1));
    }

    #[test]
    fn a_batch_beyond_the_permits_is_given_back_whole() {
        let mut permits = Permits::new(5);
        assert_eq!(permits.take_flow(), Some(5));
        for _ in 0..5 {
            permits.arrived(10);
        }
        assert_eq!(permits.outstanding(), -45);
        permits.take_all();
        permits.credit(50);
        assert_eq!(permits.take_flow(), Some(50));
        assert_eq!(permits.outstanding(), 5);
        assert!(permits.is_balanced());
    }

    #[test]
    fn more_credit_than_was_taken_opens_nothing() {
        let mut permits = Permits::new(4);
        assert_eq!(permits.take_flow(), Some(4));
        permits.credit(1000);
        assert_eq!(permits.take_flow(), None);
        assert!(permits.is_balanced());
    }

    #[test]
    fn without_a_queue_each_waiting_receive_grants_one() {
        let mut permits = Permits::new(0);
        assert_eq!(permits.take_flow(), None);
        permits.want_one();
        assert_eq!(permits.take_flow(), Some(1));
        permits.want_one();
        assert_eq!(permits.take_flow(), None, "one is out already");
        permits.arrived(10);
        permits.take_all();
        permits.credit(10);
        assert_eq!(permits.take_flow(), None);
        permits.want_one();
        assert_eq!(permits.take_flow(), Some(10), "raises -9 to 1");
        assert!(permits.is_balanced());
    }

    #[test]
    fn without_a_queue_a_receive_outlives_a_damaged_entry_and_a_new_attach() {
        let mut permits = Permits::new(0);
        permits.want_one();
        assert_eq!(permits.take_flow(), Some(1));
        permits.arrived_for_nothing(3);
        assert_eq!(permits.take_flow(), Some(3));
        permits.restart();
        assert_eq!(permits.take_flow(), Some(1));
        permits.arrived(1);
        permits.restart();
        assert_eq!(permits.take_flow(), Some(1), "what was queued never reached the receive");
        assert!(permits.is_balanced());
    }
}
