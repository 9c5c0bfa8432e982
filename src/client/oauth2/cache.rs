//! The token that is kept, and what a request for credentials makes of it. Time is an argument here.

use std::time::{Duration, Instant};

use super::answer::Granted;
use crate::error::Error;
use crate::splitmix::SplitMix64;

/// Tokens have whole seconds as their end, so a broker may take one for expired up to so much earlier than it is here.
const END_MARGIN: Duration = Duration::from_secs(1);
/// Of a short lifetime the margin is at most this part.
const END_MARGIN_PART: u32 = 10;
/// An early refresh happens up to this part of the lifetime before it is due, so that many clients that started together
/// do not ask together.
const JITTER_PART: f64 = 0.1;
/// After an early refresh that failed, the next one waits for so much of what is left of the token.
const RETRY_PART: u32 = 4;

/// What to do for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The token that is kept will do.
    Use(String),
    /// So it will, but it is time for another.
    Refresh(String),
    /// Nothing that is kept will do.
    Fetch,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Option<Kept>,
    /// How often a fetch has failed.
    failures: u64,
    last_failure: Option<Error>,
}

struct Kept {
    token: String,
    refresh_at: Instant,
    expires_at: Instant,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept(<hidden>, expires at {:?})", self.expires_at)
    }
}

impl Cache {
    /// `outdated` is the token that the broker does not take any more, where it is known.
    pub(super) fn decide(&self, outdated: Option<&[u8]>, now: Instant) -> Decision {
        match &self.kept {
            None => Decision::Fetch,
            Some(kept) if now >= kept.expires_at || outdated == Some(kept.token.as_bytes()) => Decision::Fetch,
            Some(kept) if now >= kept.refresh_at => Decision::Refresh(kept.token.clone()),
            Some(kept) => Decision::Use(kept.token.clone()),
        }
    }

    /// Keeps a token that was asked for at `asked_at`. From the part `early` of its lifetime on another is to be fetched;
    /// 1 is never before its end.
    pub(super) fn keep(&mut self, granted: Granted, early: f64, asked_at: Instant, random: &mut SplitMix64) {
        let Granted { token, lifetime } = granted;
        let margin = END_MARGIN.min(lifetime / END_MARGIN_PART);
        let until = |wait: Duration| asked_at.checked_add(wait).unwrap_or(asked_at);
        let expires_at = until(lifetime - margin);
        let refresh_at = if early < 1.0 {
            let jitter = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * JITTER_PART;
            until(lifetime.mul_f64((early - jitter).max(0.0))).min(expires_at)
        } else {
            expires_at
        };
        self.kept = Some(Kept { token, refresh_at, expires_at });
        self.last_failure = None;
    }

    /// A fetch has failed.
    pub(super) fn failed(&mut self, error: &Error, now: Instant) {
        self.failures += 1;
        self.last_failure = Some(error.clone());
        if let Some(kept) = &mut self.kept {
            let left = kept.expires_at.saturating_duration_since(now);
            kept.refresh_at = (now + left / RETRY_PART).max(kept.refresh_at);
        }
    }

    /// How often a fetch has failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// The failure of a fetch since there were `seen`.
    pub(super) fn failure_since(&self, seen: u64) -> Option<Error> {
        self.last_failure.clone().filter(|_| self.failures > seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Fetch, Refresh, Use};

    fn kept(lifetime: Duration, early: f64, at: Instant) -> Cache {
        let mut cache = Cache::default();
        let granted = Granted { token: "a".to_owned(), lifetime };
        cache.keep(granted, early, at, &mut SplitMix64::new(7));
        cache
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_used_then_refreshed_then_gone() {
        let start = Instant::now();
        let cache = kept(HOUR, 0.9, start);
        let at = |part: f64| cache.decide(None, start + HOUR.mul_f64(part));
        assert_eq!((at(0.0), at(0.79)), (Use("a".into()), Use("a".into())));
        assert_eq!((at(0.9), at(0.99)), (Refresh("a".into()), Refresh("a".into())));
        assert_eq!(cache.decide(None, start + HOUR - END_MARGIN), Fetch);
        assert_eq!(Cache::default().decide(None, start), Fetch);
    }

    #[test]
    fn refreshes_of_many_clients_are_spread_over_a_tenth_of_the_lifetime() {
        let start = Instant::now();
        let mut parts: Vec<f64> = (0..100)
            .map(|seed| {
                let mut cache = Cache::default();
                let granted = Granted { token: "a".to_owned(), lifetime: HOUR };
                cache.keep(granted, 0.9, start, &mut SplitMix64::new(seed));
                let kept = cache.kept.expect("it was kept");
                (kept.refresh_at - start).as_secs_f64() / HOUR.as_secs_f64()
            })
            .collect();
        parts.sort_by(f64::total_cmp);
        assert!(parts[0] >= 0.8 && parts[99] <= 0.9, "{parts:?}");
        assert!(parts[0] < 0.82 && parts[99] > 0.88, "{parts:?}");
    }

    #[test]
    fn without_an_early_refresh_it_is_used_to_its_end() {
        let start = Instant::now();
        let cache = kept(HOUR, 1.0, start);
        assert_eq!(cache.decide(None, start + HOUR - END_MARGIN * 2), Use("a".into()));
        assert_eq!(cache.decide(None, start + HOUR - END_MARGIN), Fetch);
    }

    #[test]
    fn what_the_broker_does_not_take_is_not_given_again() {
        let start = Instant::now();
        let cache = kept(HOUR, 0.9, start);
        assert_eq!(cache.decide(Some(b"a"), start), Fetch);
        assert_eq!(cache.decide(Some(b"the one before"), start), Use("a".into()));
    }

    #[test]
    fn a_token_without_a_lifetime_is_used_once() {
        let start = Instant::now();
        assert_eq!(kept(Duration::ZERO, 0.9, start).decide(None, start), Fetch);
        assert_eq!(kept(Duration::MAX, 0.9, start).decide(None, start), Fetch);
    }

    #[test]
    fn a_refresh_that_failed_is_put_off_and_told_to_all_that_waited() {
        let start = Instant::now();
        let mut cache = kept(HOUR, 0.9, start);
        let due = start + HOUR.mul_f64(0.9);
        let seen = cache.failures();
        cache.failed(&Error::network("away"), due);
        assert_eq!(cache.decide(None, due), Use("a".into()));
        assert_eq!(cache.decide(None, due + HOUR / 10 / 4), Refresh("a".into()));
        assert!(cache.failure_since(seen).is_some());
        assert!(cache.failure_since(cache.failures()).is_none());
        cache.keep(Granted { token: "b".to_owned(), lifetime: HOUR }, 0.9, due, &mut SplitMix64::new(7));
        assert!(cache.failure_since(seen).is_none());
    }
}
