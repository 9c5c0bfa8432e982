//! A receiver queue that grows while it holds the application up, and shrinks while the application holds it up.
//!
//! A queue of a thousand messages is one or two entries where producers batch, so each entry costs a round trip to the broker:
//! the application is done with one before the next has come. A larger queue for all would let one slow consumer of a Shared
//! subscription keep what others could have. So the size follows what is seen:
//!
//! | seen when a FLOW is written | the size |
//! | --- | --- |
//! | the broker had no permit left, and the application has received all there was, within [`BUSY_MAX`] | doubles |
//! | since the last FLOW messages have waited here, or were being received, for longer than that | is halved |
//! | anything else | stays |
//!
//! That a slow application runs dry for a moment is no reason to grow: what is taken back from it may cause that.
//!
//! It stays between two bounds, and doubles only while what it then holds is within [`BYTES_MAX`] by the mean size of the
//! messages since it last changed. Permits that were granted stay granted, so a smaller size is reached as messages are received. A new attach
//! begins with the lower bound.
//!
//! The idea is that of PIP-74 (`autoScaledReceiverQueueSizeEnabled` of the Java client), which begins with one message and shrinks
//! only where memory is short.

use std::time::{Duration, Instant};

/// What waits beyond the lower bound is what the application receives in about twice this time.
const BUSY_MAX: Duration = Duration::from_millis(100);

/// What a queue beyond its lower bound may hold, bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Messages that were received, and their bytes, since a consumer was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scaling {
    min: u32,
    max: u32,
    /// The broker had no permit left, since the application last had received all there was.
    is_exhausted: bool,
    /// Both, in this order.
    is_starved: bool,
    /// Since when something is here, or was taken.
    busy_since: Option<Instant>,
    flow_at: Option<Instant>,
    /// When the size last changed.
    received: Received,
}

impl Scaling {
    /// Between these sizes; `None` where they leave nothing to choose.
    pub(super) fn new(min: u32, max: u32) -> Option<Box<Self>> {
        let scaling = Self {
            min,
            max,
            is_exhausted: false,
            is_starved: false,
            busy_since: None,
            flow_at: None,
            received: Received::default(),
        };
        (0 < min && min < max).then(|| Box::new(scaling))
    }

    /// Other bounds. `false`: they leave nothing to choose.
    pub(super) fn set_bounds(&mut self, min: u32, max: u32) -> bool {
        (self.min, self.max) = (min, max);
        0 < min && min < max
    }

    /// The size within the bounds.
    pub(super) fn clamp(&self, size: u32) -> u32 {
        size.clamp(self.min, self.max)
    }

    /// A new attach.
    pub(super) fn restart(&mut self) -> u32 {
        (self.is_exhausted, self.is_starved, self.busy_since) = (false, false, None);
        self.min
    }

    /// The broker has no permit left.
    #[inline]
    pub(super) fn on_exhausted(&mut self) {
        self.is_exhausted = true;
    }

    /// Something has arrived.
    #[inline]
    pub(super) fn on_arrival(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// The application has received all there was.
    pub(super) fn on_waiting(&mut self) {
        if std::mem::take(&mut self.is_exhausted) {
            // The FLOW that follows at once knows for how long it was busy.
            self.is_starved = true;
        } else {
            self.busy_since = None;
        }
    }

    /// Whether a larger size is worth a FLOW.
    pub(super) fn is_starved(&self, size: u32) -> bool {
        self.is_starved && size < self.max
    }

    /// The size from the FLOW on that is written now.
    pub(super) fn next_size(&mut self, size: u32, received: Received, now: Instant) -> u32 {
        let flow_at = self.flow_at.replace(now);
        let busy_for = self.busy_since.max(flow_at.filter(|_| self.busy_since.is_some()));
        let is_slow = busy_for.is_some_and(|since| now.saturating_duration_since(since) > BUSY_MAX);
        let next = if is_slow && !mutation!(QueueNeverShrinks) {
            (size / 2).max(self.min)
        } else if self.is_starved && !is_slow {
            let doubled = size.saturating_mul(2).min(self.max);
            if self.bytes_of(doubled, received) <= BYTES_MAX { doubled } else { size }
        } else {
            size
        };
        if std::mem::take(&mut self.is_starved) {
            self.busy_since = None;
        }
        if next != size {
            self.received = received;
        }
        next
    }

    /// So many messages of the mean size since the size last changed.
    fn bytes_of(&self, messages: u32, received: Received) -> u64 {
        let bytes = received.bytes.saturating_sub(self.received.bytes);
        let count = received.messages.saturating_sub(self.received.messages).max(1);
        (bytes / count).saturating_mul(messages.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    struct Queue {
        scaling: Box<Scaling>,
        size: u32,
        received: Received,
        now: Instant,
    }

    impl Queue {
        fn new(min: u32, max: u32) -> Self {
            let scaling = Scaling::new(min, max).expect("a choice");
            Self { scaling, size: min, received: Received::default(), now: Instant::now() }
        }

        /// The application has received half the queue.
        fn flow(&mut self, took: Duration, message_bytes: u64) -> u32 {
            self.scaling.on_arrival(self.now);
            self.now += took;
            self.received.messages += u64::from(self.size / 2);
            self.received.bytes += u64::from(self.size / 2) * message_bytes;
            self.size = self.scaling.next_size(self.size, self.received, self.now);
            self.size
        }

        fn starve(&mut self) {
            self.scaling.on_exhausted();
            self.scaling.on_waiting();
            assert!(self.scaling.is_starved(self.size) || self.size == self.scaling.max);
        }
    }

    #[test]
    fn it_doubles_while_the_application_waits_for_permits() {
        let mut queue = Queue::new(1000, 5000);
        for expected in [2000, 4000, 5000, 5000] {
            queue.starve();
            assert_eq!(queue.flow(MS(10), 100), expected);
        }
        assert!(!queue.scaling.is_starved(5000));
    }

    #[test]
    fn one_that_waits_for_the_producers_does_not_grow() {
        let mut queue = Queue::new(1000, 5000);
        queue.scaling.on_waiting();
        queue.scaling.on_exhausted();
        assert!(!queue.scaling.is_starved(1000), "something has come since it waited");
        assert_eq!(queue.flow(MS(10), 100), 1000);
    }

    #[test]
    fn it_is_halved_while_the_application_is_slow() {
        let mut queue = Queue::new(1000, 8000);
        (0..3).for_each(|_| {
            queue.starve();
            queue.flow(MS(1), 100);
        });
        assert_eq!(queue.size, 8000);
        assert_eq!(queue.flow(MS(99), 100), 8000);
        assert_eq!(queue.flow(MS(101), 100), 4000);
        queue.starve();
        assert_eq!(queue.flow(MS(101), 100), 2000, "also where it runs dry for a moment");
        for expected in [1000, 1000] {
            assert_eq!(queue.flow(MS(101), 100), expected);
        }
    }

    #[test]
    fn a_far_broker_is_no_slow_application() {
        let mut queue = Queue::new(1000, 8000);
        for expected in [2000, 4000] {
            // Nothing is here until the answer to the last FLOW has come.
            queue.now += MS(300);
            queue.scaling.on_arrival(queue.now);
            queue.starve();
            assert_eq!(queue.flow(MS(1), 100), expected);
        }
        queue.scaling.on_waiting();
        queue.now += MS(5000);
        assert_eq!(queue.flow(MS(1), 100), 4000, "no messages came for a time");
    }

    #[test]
    fn it_grows_within_the_bytes() {
        let mut queue = Queue::new(1000, 50_000);
        (0..10).for_each(|_| {
            queue.starve();
            queue.flow(MS(1), 4096);
        });
        assert_eq!(queue.size, 4000, "of 4 KiB, 16 MiB take 4,096");
        let mut queue = Queue::new(1000, 50_000);
        queue.starve();
        assert_eq!(queue.flow(MS(1), 65_536), 1000);
    }

    #[test]
    fn a_new_attach_begins_below() {
        let mut queue = Queue::new(10, 50);
        queue.starve();
        queue.flow(MS(1), 1);
        queue.starve();
        assert_eq!(queue.scaling.restart(), 10);
        assert!(!queue.scaling.is_starved(10));
        assert!(Scaling::new(10, 10).is_none() && Scaling::new(0, 10).is_none());
    }
}
