//! Which consumer of a Key_Shared subscription a key belongs to.
//!
//! A key hashes to a slot. Under AUTO_SPLIT the slots are divided among the consumers by consistent hashing ([`KeyRing`]), or
//! into ranges ([`KeyRanges`]), as the broker's settings say; under STICKY each consumer chooses its ranges.

use std::collections::BTreeMap;

use super::consumer::SubscribedConsumers;
use crate::broker::ids::ConsumerKey;
use crate::hash::murmur3_32;

/// Points of each consumer on the ring of a Failover subscription.
pub(super) const RING_POINTS: usize = 100;

/// Slots of the sticky mode, and of ranges: 0 to 65,535.
const STICKY_SLOTS: u32 = 65_536;

/// Slot of a masked murmur3 hash under AUTO_SPLIT: 1 to 65,535.
pub(crate) fn auto_split_slot(key_hash: u32) -> u32 {
    key_hash % (STICKY_SLOTS - 1) + 1
}

/// Slot of a masked murmur3 hash under STICKY, and with ranges; 0 is avoided.
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
    pub(super) fn of(consumers: &SubscribedConsumers, points_each: u32) -> Self {
        let mut points = BTreeMap::new();
        for (index, consumer) in consumers.iter().enumerate() {
            let namesakes = consumers.iter().take(index).filter(|other| other.name == consumer.name).count();
            for point in 0..points_each {
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

/// Ranges, each up to its highest slot: a consumer that joins gets the lower half of the largest one, and one that leaves gives
/// its range to the one above, the last one to the one below.
#[derive(Debug, Default)]
pub(crate) struct KeyRanges {
    by_end: BTreeMap<u32, ConsumerKey>,
}

impl KeyRanges {
    pub(super) fn add(&mut self, key: ConsumerKey) {
        let largest = self.ranges().max_by_key(|(start, end)| (end - start, std::cmp::Reverse(*end)));
        let end = largest.map_or(STICKY_SLOTS, |(start, end)| end - (end - start) / 2);
        // There are more slots than a subscription can have consumers: the largest range has always two of them.
        self.by_end.entry(end).or_insert(key);
    }

    pub(super) fn remove(&mut self, key: ConsumerKey) {
        let Some(end) = self.by_end.iter().find(|(_, owner)| **owner == key).map(|(end, _)| *end) else { return };
        self.by_end.remove(&end);
        if end == STICKY_SLOTS {
            if let Some((_, below)) = self.by_end.pop_last() {
                self.by_end.insert(STICKY_SLOTS, below);
            }
        }
    }

    /// The end of the range below each range, and its own.
    fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        let ends = self.by_end.keys().copied();
        std::iter::once(0).chain(ends.clone()).zip(ends)
    }

    pub(super) fn owner(&self, slot: u32) -> Option<ConsumerKey> {
        self.by_end.range(slot..).next().map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::ids::ConnId;

    #[test]
    fn ranges_are_halved_and_given_back() {
        let key = |id| ConsumerKey { conn: ConnId(1), id };
        let mut ranges = KeyRanges::default();
        let ends = |ranges: &KeyRanges| ranges.by_end.iter().map(|(end, key)| (*end, key.id)).collect::<Vec<_>>();
        assert_eq!(ranges.owner(1), None);
        (0..4).for_each(|id| ranges.add(key(id)));
        assert_eq!(ends(&ranges), [(16_384, 2), (32_768, 1), (49_152, 3), (65_536, 0)]);
        assert_eq!((ranges.owner(16_384), ranges.owner(16_385)), (Some(key(2)), Some(key(1))));
        ranges.remove(key(0));
        ranges.remove(key(2));
        assert_eq!(ends(&ranges), [(32_768, 1), (65_536, 3)]);
        (1..4).for_each(|id| ranges.remove(key(id)));
        assert_eq!(ends(&ranges), []);
    }

    #[test]
    fn slots_stay_in_their_ranges() {
        assert_eq!((auto_split_slot(0), auto_split_slot(65_534), auto_split_slot(65_535)), (1, 65_535, 1));
        assert_eq!((sticky_slot(0), sticky_slot(65_535), sticky_slot(65_536)), (1, 65_535, 1));
    }
}
