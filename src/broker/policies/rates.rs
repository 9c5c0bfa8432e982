//! Token buckets: what the publish and dispatch rates of policies let through.
//!
//! As in Pulsar 4.0: a bucket holds the tokens of one period at most, is full at the start, fills all the time, and may be
//! overdrawn. What it is asked is whether a token is left; what goes through then takes as many as it counts.

use super::{DispatchRate, PublishRate};

const MS_PER_SECOND: i128 = 1_000;

/// A bucket that gets `rate` tokens in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TokenBucket {
    rate: i128,
    period_ms: i128,
    /// Tokens times `period_ms`.
    level: i128,
    /// When `level` was brought up to date, ms since 1970.
    at_ms: u64,
}

impl TokenBucket {
    fn full(rate: i128, period_ms: i128, now_ms: u64) -> Self {
        Self { rate, period_ms, level: rate * period_ms, at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = i128::from(now_ms.saturating_sub(self.at_ms));
        self.level = (self.level + self.rate * passed).min(self.rate * self.period_ms);
        self.at_ms = now_ms.max(self.at_ms);
    }

    /// How long until a token is there, ms; 0 if one is.
    fn wait_ms(&self) -> u64 {
        let missing = (self.period_ms - self.level).max(0);
        u64::try_from((missing + self.rate - 1) / self.rate).unwrap_or(u64::MAX)
    }
}

/// Rates, by messages and by bytes; none of them without a policy.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
}

impl RateLimiter {
    /// Follows a policy on publishing.
    pub(crate) fn follow_publish_rate(&mut self, rate: Option<PublishRate>, now_ms: u64) {
        let limits = rate.map_or((0, 0), |rate| {
            (i128::from(rate.publish_throttling_rate_in_msg), i128::from(rate.publish_throttling_rate_in_byte))
        });
        self.follow(limits, MS_PER_SECOND, now_ms);
    }

    /// Follows a policy on delivery.
    pub(crate) fn follow_dispatch_rate(&mut self, rate: Option<DispatchRate>, now_ms: u64) {
        let limits = rate.map_or((0, 0), |rate| {
            (i128::from(rate.dispatch_throttling_rate_in_msg), i128::from(rate.dispatch_throttling_rate_in_byte))
        });
        let period = rate.map_or(1, |rate| rate.rate_period_in_second.max(1));
        self.follow(limits, i128::from(period) * MS_PER_SECOND, now_ms);
    }

    /// A rate that stays the same keeps its bucket; another one starts with a full bucket.
    fn follow(&mut self, (messages, bytes): (i128, i128), period_ms: i128, now_ms: u64) {
        for (bucket, rate) in [(&mut self.messages, messages), (&mut self.bytes, bytes)] {
            let is_same = bucket.is_some_and(|bucket| (bucket.rate, bucket.period_ms) == (rate, period_ms));
            if !is_same {
                *bucket = (rate > 0).then(|| TokenBucket::full(rate, period_ms, now_ms));
            }
        }
    }

    /// Tokens for messages that are left, rounded down: all that there can be without a rate, 0 without a token for bytes.
    pub(crate) fn available(&mut self, now_ms: u64) -> u64 {
        if self.wait_ms(now_ms) > 0 {
            return 0;
        }
        let left = self.messages.map(|bucket| u64::try_from(bucket.level / bucket.period_ms).unwrap_or(0));
        left.unwrap_or(u64::MAX)
    }

    /// How long nothing may go through, ms; 0 if something may now.
    pub(crate) fn wait_ms(&mut self, now_ms: u64) -> u64 {
        let buckets = [&mut self.messages, &mut self.bytes].into_iter().flatten();
        let waits = buckets.map(|bucket| {
            bucket.fill(now_ms);
            bucket.wait_ms()
        });
        waits.max().unwrap_or(0)
    }

    /// Something goes through.
    pub(crate) fn take(&mut self, messages: u64, bytes: usize) {
        for (bucket, amount) in [(&mut self.messages, i128::from(messages)), (&mut self.bytes, bytes as i128)] {
            if let Some(bucket) = bucket {
                bucket.level -= amount * bucket.period_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_period_fills_all_the_time_and_may_be_overdrawn() {
        let mut limiter = RateLimiter::default();
        let rate = Some(DispatchRate::new(10, 0));
        limiter.follow_dispatch_rate(rate, 5_000);
        assert_eq!(limiter.wait_ms(9_000), 0, "full, and no fuller");
        limiter.take(10, 1_000_000);
        assert_eq!(limiter.wait_ms(9_000), 100);
        assert_eq!(limiter.wait_ms(9_099), 1);
        assert_eq!(limiter.wait_ms(9_100), 0, "one token");
        limiter.take(16, 0);
        assert_eq!(limiter.wait_ms(9_100), 1_600, "15 too many were taken");
        limiter.follow_dispatch_rate(rate, 9_200);
        assert_eq!(limiter.wait_ms(9_200), 1_500, "the same rate");
        limiter.follow_dispatch_rate(Some(DispatchRate::new(20, 0)), 9_200);
        assert_eq!(limiter.wait_ms(9_200), 0, "another one");
        limiter.follow_dispatch_rate(None, 9_200);
        limiter.take(1_000, 0);
        assert_eq!(limiter.wait_ms(9_200), 0, "none");
    }

    #[test]
    fn bytes_count_beside_messages_and_the_largest_rates_do_not_overflow() {
        let mut limiter = RateLimiter::default();
        limiter.follow_publish_rate(Some(PublishRate::new(i32::MAX, 100)), 0);
        limiter.take(1, 150);
        assert_eq!(limiter.wait_ms(0), 510);
        let mut slow = DispatchRate::new(1, i64::MAX);
        slow.rate_period_in_second = i32::MAX;
        limiter.follow_dispatch_rate(Some(slow), 0);
        limiter.take(u64::MAX, usize::MAX);
        assert!(limiter.wait_ms(u64::MAX) > 0);
    }
}
