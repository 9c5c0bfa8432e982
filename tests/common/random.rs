//! Seeded choices, the same everywhere.

#[path = "../../src/splitmix.rs"]
pub(crate) mod splitmix;

use splitmix::SplitMix64;

/// The library's own generator.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next()
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
