//! Which consumer of a Key_Shared subscription a key belongs to.
//!
//! A key hashes to a slot. Under AUTO_SPLIT the slots are divided among the consumers by consistent hashing
//! ([`KeyRing`]); under STICKY each consumer chooses its ranges.

use std::collections::BTreeMap;

use super::consumer::SubscribedConsumers;
use crate::broker::ids::ConsumerKey;
use crate::hash::murmur3_32;

/// Points of each consumer on a ring.
pub(super) const RING_POINTS: usize = 100;

/// Slots of the sticky mode: 0 to 65,535.
const STICKY_SLOTS: u32 = 65_536;

/// Slot of a masked murmur3 hash under AUTO_SPLIT: 1 to 65,535.
pub(crate) fn auto_split_slot(key_hash: u32) -> u32 {
    key_hash % (STICKY_SLOTS - 1) + 1
}

/// Slot of a masked murmur3 hash under STICKY; 0 is avoided.
pub(crate) fn sticky_slot(key_hash: u32) -> u32 {
    (key_hash % STICKY_SLOTS).max(1)
}

/// Consistent hashing: a consumer that joins or leaves moves only the keys next to its points.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    points: BTreeMap<u32, ConsumerKey>,
}

impl KeyRing {
    /// A consumer's points follow from its name, so that it gets its keys back when it returns. Consumers that share
    /// a name are told apart by their order of arrival.
    pub(super) fn of(consumers: &SubscribedConsumers) -> Self {
        let mut points = BTreeMap::new();
        for (index, consumer) in consumers.iter().enumerate() {
            let namesakes = consumers.iter().take(index).filter(|other| other.name == consumer.name).count();
            for point in 0..RING_POINTS {
                let label = format!("{}\0{namesakes}\0{point}", consumer.name);
                points.entry(auto_split_slot(murmur3_32(label.as_bytes()))).or_insert(consumer.key);
            }
        }
        Self { points }
    }

    pub(super) fn owner(&self, slot: u32) -> Option<ConsumerKey> {
        self.points.range(slot..).next().or_else(|| self.points.first_key_value()).map(|(_, key)| *key)
    }
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
