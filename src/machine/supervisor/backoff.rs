//! How long to wait before the next attempt.

use std::time::Duration;

use crate::splitmix::SplitMix64;

/// Waits that double from `initial` to `max`, each shortened by a random 0 to 10 %, but never below `initial`.
///
/// The rule of the official clients: endpoints that lost the same broker at the same time do not return at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max: max.max(initial), next: initial }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self, random: &mut SplitMix64) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        // Thousandths, so that no wait is lost in rounding and none overflows.
        let shortened = wait / 1000 * u32::try_from(random.next() % 101).unwrap_or(0);
        if mutation!(NoBackoff) { Duration::from_millis(1) } else { wait.saturating_sub(shortened).max(self.initial) }
    }

    /// A success: the next failure waits `initial` again.
    pub(crate) fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_less_a_tenth_at_most() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(60));
        for seed in 0..50 {
            let mut random = SplitMix64::new(seed);
            let mut backoff = Backoff::new(initial, max);
            let mut full = initial;
            for _ in 0..20 {
                let wait = backoff.next(&mut random);
                assert!(wait <= full && wait >= (full / 10 * 9).max(initial), "{wait:?} of {full:?}");
                full = (full * 2).min(max);
            }
            assert_eq!(full, max);
            backoff.reset();
            assert_eq!(backoff.next(&mut random), initial);
        }
    }

    #[test]
    fn seeds_differ() {
        let waits = |seed| {
            let mut random = SplitMix64::new(seed);
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60));
            (0..10).map(|_| backoff.next(&mut random)).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(3), waits(3));
    }
}
