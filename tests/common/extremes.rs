//! Values at the ends of their ranges, chosen by a seed: for each option mostly its default, now and then an extreme.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::random::Random;

/// Chooses values and keeps the names of the options that got one.
pub(crate) struct Extremes {
    random: Random,
    /// One option in so many gets an extreme value.
    rarity: u64,
    chosen: Vec<String>,
}

impl Extremes {
    pub(crate) fn new(seed: u64, rarity: u64) -> Self {
        Self { random: Random::new(seed), rarity, chosen: Vec::new() }
    }

    /// One of `values` for the option `name`, or `None`: the default stays.
    pub(crate) fn choose<T: Clone>(&mut self, name: &str, values: &[T]) -> Option<T> {
        if self.random.below(self.rarity) != 0 {
            return None;
        }
        self.chosen.push(name.to_owned());
        Some(values[self.random.below(values.len() as u64) as usize].clone())
    }

    /// `set` applied to `builder` with one of `values`, or `builder` as it is.
    pub(crate) fn set<B, T: Clone>(&mut self, builder: B, name: &str, values: &[T], set: fn(B, T) -> B) -> B {
        match self.choose(name, values) {
            Some(value) => set(builder, value),
            None => builder,
        }
    }

    /// The options that got an extreme value.
    pub(crate) fn chosen(&self) -> &[String] {
        &self.chosen
    }
}

/// Zero, and what is beyond any clock, any number of the protocol, or both.
pub(crate) fn durations() -> Vec<Duration> {
    vec![
        Duration::ZERO,
        Duration::from_millis(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_secs(u64::MAX),
        Duration::MAX,
    ]
}

/// The first and the last time of this machine, those around 1970, and those around the protocol's end of time.
pub(crate) fn times() -> Vec<SystemTime> {
    let millisecond = Duration::from_millis(1);
    let end = Duration::from_millis(i64::MAX as u64);
    let far = Duration::from_secs(i64::MAX as u64);
    vec![
        UNIX_EPOCH,
        UNIX_EPOCH - millisecond,
        UNIX_EPOCH + millisecond,
        UNIX_EPOCH + end - millisecond,
        UNIX_EPOCH + end,
        UNIX_EPOCH + far,
        UNIX_EPOCH - far,
    ]
}

/// Empty, blank, long and beyond `limit`.
pub(crate) fn texts(limit: usize) -> Vec<String> {
    vec![String::new(), " ".to_owned(), "é".repeat(1000), "n".repeat(limit + 1), "m".repeat(3 * limit)]
}
