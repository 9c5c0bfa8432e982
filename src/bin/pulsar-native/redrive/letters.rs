//! What becomes of a dead letter: where it goes, what is sent, under which number.

use pulsar_native::topic::TopicName;
use pulsar_native::{Message, MessageId, ReceivedMessage};

pub(super) const REAL_TOPIC: &str = "REAL_TOPIC";

/// What clients add to a message that they give up. Without it, deliveries and retries are counted anew.
const ADDED: [&str; 7] = [
    REAL_TOPIC,
    "REAL_SUBSCRIPTION",
    "ORIGIN_MESSAGE_ID",
    "ORIGIN_MESSAGE_IDY_TIME",
    "RECONSUMETIMES",
    "DELAY_TIME",
    "DEAD_LETTER_REASON",
];

/// The bits of a sequence id that are the entry, and the place in the batch. 30 are left for the ledger.
const ENTRY_BITS: u32 = 22;
const BATCH_BITS: u32 = 11;

/// In a letter whose payload is a stored entry that could not be read: as a message it would be noise.
const UNREADABLE_METADATA: &str = "UNREADABLE_METADATA";

/// `to`, or the topic that the letter names; in full. `None`: it cannot be sent back.
pub(super) fn target(letter: &ReceivedMessage, to: Option<&TopicName>) -> Option<String> {
    if letter.property(UNREADABLE_METADATA).is_some() {
        return None;
    }
    let named = || TopicName::parse(letter.property(REAL_TOPIC)?).ok();
    to.cloned().or_else(named).map(|topic| topic.to_string())
}

/// The message as it was before it was given up.
pub(super) fn message(letter: &ReceivedMessage) -> Message {
    letter.to_message(letter.properties().filter(|(name, _)| !ADDED.contains(name)))
}

/// A number that grows with the place of a letter in its topic, and is the same in each run. `None`: it does not fit into
/// a sequence id.
pub(super) fn sequence_id(id: &MessageId) -> Option<u64> {
    let (ledger, entry, index) = (id.ledger_id()?, id.entry_id()?, u64::from(id.batch_index().unwrap_or(0)));
    let fits = ledger >> (63 - ENTRY_BITS - BATCH_BITS) == 0 && entry >> ENTRY_BITS == 0 && index >> BATCH_BITS == 0;
    fits.then_some(ledger << (ENTRY_BITS + BATCH_BITS) | entry << BATCH_BITS | index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_ids_grow_with_the_place_and_fit_into_63_bits() {
        let largest = [(1 << 30) - 1, (1 << 22) - 1, (1 << 11) - 1];
        let id = |[ledger, entry, index]: [u64; 3]| MessageId::new(ledger, entry).with_batch(index as u32, 2048);
        let places = [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, largest[1], largest[2]], [1, 0, 0], largest];
        let numbers = places.map(|place| sequence_id(&id(place)).expect("it fits"));
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        assert_eq!(numbers[5], i64::MAX as u64);
        for at in 0..3 {
            let mut place = [0; 3];
            place[at] = largest[at] + 1;
            assert_eq!(sequence_id(&id(place)), None, "{place:?}");
        }
    }
}
