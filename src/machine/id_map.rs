//! A map by the ids of producers and consumers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by id. Only this client adds keys, and it counts them up: no peer can choose ones that collide, so a lookup need not
/// pay for a keyed hash. Peers may look up what they like.
pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// 2^64 divided by the golden ratio: spreads consecutive numbers evenly over the high bits, and being odd it keeps the
/// low ones apart. The map uses both.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// See [`IdMap`].
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    /// The variant of an `EndpointId`.
    #[inline]
    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(SPREAD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProducerId;

    #[test]
    fn ids_in_a_row_spread_over_low_and_high_bits() {
        let hash = |id: u64| {
            let mut hasher = IdHasher::default();
            std::hash::Hash::hash(&ProducerId(id), &mut hasher);
            hasher.finish()
        };
        for (name, part) in [("low", 0), ("high", 54)] {
            let places: std::collections::HashSet<u64> = (0..1024).map(|id| (hash(id) >> part) & 1023).collect();
            assert!(places.len() > 600, "1024 ids share {} of 1024 places by their {name} bits", places.len());
        }
    }
}
