//! How long a message that comes again waits, by how often it has come.

use std::time::Duration;

use super::position::EntryPosition;
use crate::splitmix::SplitMix64;

/// The delay of a redelivery by the number of deliveries before it: it starts at a first delay, is multiplied with each,
/// and ends at the longest.
///
/// The number is the broker's (`CommandMessage.redelivery_count`). It is 0 for every delivery on Exclusive and Failover
/// subscriptions, and after the topic has moved to another broker, so the first delay applies there. Java:
/// `MultiplierRedeliveryBackoff`.
///
/// ```
/// use std::time::Duration;
///
/// use pulsar_native::RedeliveryBackoff;
///
/// let backoff = RedeliveryBackoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// assert_eq!(backoff.delay(0), Duration::from_secs(1));
/// assert_eq!(backoff.delay(3), Duration::from_secs(8));
/// assert_eq!(backoff.delay(100), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RedeliveryBackoff {
    first: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
}

impl Default for RedeliveryBackoff {
    /// As Java's: 10 s, doubled with each delivery, up to 10 minutes; no jitter.
    fn default() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(600))
    }
}

impl RedeliveryBackoff {
    /// From `first` to `max`, doubled with each delivery, without jitter.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, multiplier: 2.0, jitter: 0.0 }
    }

    /// The same delay each time.
    #[must_use]
    pub const fn constant(delay: Duration) -> Self {
        Self { first: delay, max: delay, multiplier: 1.0, jitter: 0.0 }
    }

    /// By how much the delay grows with each delivery; at least 1. Default: 2.
    #[must_use]
    pub const fn with_multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// By which part of itself a delay is prolonged at most, from 0 to 1, so that messages that failed together do not
    /// come again together. Each message has its own share, which is the same each time. Default: 0.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay after so many redeliveries, without jitter.
    #[must_use]
    pub fn delay(&self, redelivery_count: u32) -> Duration {
        let exponent = i32::try_from(redelivery_count).unwrap_or(i32::MAX);
        // Infinity, if it comes to that, is above every limit.
        scaled(self.first, self.multiplier.powi(exponent)).min(self.max)
    }

    /// The delay with the jitter of this entry.
    pub(super) fn delay_of(&self, position: EntryPosition, redelivery_count: u32) -> Duration {
        let delay = self.delay(redelivery_count);
        if self.jitter == 0.0 {
            return delay;
        }
        let seed = position.ledger_id.rotate_left(32) ^ position.entry_id ^ u64::from(redelivery_count);
        let share = SplitMix64::new(seed).next() as f64 / u64::MAX as f64;
        delay.saturating_add(scaled(delay, self.jitter * share))
    }

    pub(super) fn first(&self) -> Duration {
        self.first
    }

    /// What is wrong with it, if anything is.
    pub(super) fn refused(&self) -> Option<&'static str> {
        if self.max < self.first {
            return Some("the longest delay is shorter than the first");
        }
        if !self.multiplier.is_finite() || self.multiplier < 1.0 {
            return Some("the multiplier must be at least 1");
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Some("the jitter must be from 0 to 1");
        }
        None
    }
}

/// `duration * factor`; the longest duration where that is too much.
fn scaled(duration: Duration, factor: f64) -> Duration {
    if duration.is_zero() {
        return duration;
    }
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_whatever_the_count() {
        let backoff = RedeliveryBackoff::new(Duration::from_millis(100), Duration::from_secs(1)).with_multiplier(3.0);
        let delays: Vec<u128> = [0, 1, 2, 3, u32::MAX].map(|count| backoff.delay(count).as_millis()).into();
        assert_eq!(delays, [100, 300, 900, 1000, 1000]);
        assert_eq!(RedeliveryBackoff::constant(Duration::MAX).delay(7), Duration::MAX);
        assert_eq!(RedeliveryBackoff::new(Duration::ZERO, Duration::from_secs(1)).delay(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn jitter_prolongs_and_differs_by_entry_alone() {
        let second = Duration::from_secs(1);
        let backoff = RedeliveryBackoff::constant(second).with_jitter(0.5);
        let of = |entry_id| backoff.delay_of(EntryPosition { ledger_id: 7, entry_id }, 0);
        let mut delays: Vec<_> = (0..100).map(of).collect();
        assert!(delays.iter().all(|delay| (second..=second * 3 / 2).contains(delay)), "{delays:?}");
        assert_eq!(of(5), of(5));
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 90, "{delays:?}");
    }

    #[test]
    fn each_bad_number_is_named() {
        let good = RedeliveryBackoff::default();
        assert_eq!(good.refused(), None);
        for multiplier in [0.9, f64::NAN, f64::INFINITY] {
            assert!(good.with_multiplier(multiplier).refused().is_some_and(|why| why.contains("multiplier")));
        }
        for jitter in [-0.1, 1.1, f64::NAN] {
            assert!(good.with_jitter(jitter).refused().is_some_and(|why| why.contains("jitter")));
        }
        let shrinking = RedeliveryBackoff::new(Duration::from_secs(2), Duration::from_secs(1));
        assert!(shrinking.refused().is_some_and(|why| why.contains("longest")));
    }
}
