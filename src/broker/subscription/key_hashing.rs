//! Which consumer of a Key_Shared subscription a key belongs to, and which of a Failover one is active.

use std::collections::BTreeMap;

use crate::broker::subscription::{Consumer, ConsumerKey};
use crate::hash::murmur3_32;

/// Points of each consumer on a ring.
const RING_POINTS: usize = 100;

/// Slots of the sticky mode: 0 to 65,535.
const STICKY_SLOTS: u32 = 65_536;

/// Slot of a masked murmur3 hash under auto-split: 1 to 65,535.
pub(crate) fn auto_split_slot(hash: u32) -> u32 {
    hash % (STICKY_SLOTS - 1) + 1
}

/// Slot of a masked murmur3 hash in the sticky mode; 0 is avoided.
pub(crate) fn sticky_slot(hash: u32) -> u32 {
    (hash % STICKY_SLOTS).max(1)
}

/// Consistent hashing: a consumer that comes or goes moves only the keys next to its points.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    points: BTreeMap<u32, ConsumerKey>,
}

impl Ring {
    pub(crate) fn of(consumers: &[Consumer]) -> Self {
        let mut points = BTreeMap::new();
        for (index, consumer) in consumers.iter().enumerate() {
            let twins = consumers.iter().take(index).filter(|other| other.name == consumer.name).count();
            for point in 0..RING_POINTS {
                let label = format!("{}\0{twins}\0{point}", consumer.name);
                points.entry(auto_split_slot(murmur3_32(label.as_bytes()))).or_insert(consumer.key);
            }
        }
        Self { points }
    }

    pub(crate) fn owner(&self, slot: u32) -> Option<ConsumerKey> {
        self.points.range(slot..).next().or_else(|| self.points.first_key_value()).map(|(_, key)| *key)
    }
}

/// Index of the active consumer among the candidates of a Failover subscription, given in order.
///
/// A partition picks by its number; a plain topic looks its name up on a ring of the candidates.
pub(crate) fn active_candidate(topic: &str, partition: Option<u32>, candidates: &[&Consumer]) -> Option<usize> {
    if let Some(partition) = partition {
        return (partition as usize).checked_rem(candidates.len());
    }
    let mut ring = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for point in 0..RING_POINTS {
            ring.entry(murmur3_32(format!("{}{point}", candidate.name).as_bytes())).or_insert(index);
        }
    }
    let hash = murmur3_32(topic.as_bytes());
    ring.range(hash..).next().or_else(|| ring.first_key_value()).map(|(_, index)| *index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stay_in_their_ranges() {
        assert_eq!((auto_split_slot(0), auto_split_slot(65_534), auto_split_slot(65_535)), (1, 65_535, 1));
        assert_eq!((sticky_slot(0), sticky_slot(65_535), sticky_slot(65_536)), (1, 65_535, 1));
    }
}
