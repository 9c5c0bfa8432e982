//! The set of unacknowledged messages of one batch: `ack_set` of `MessageIdData` and CommandMessage.
//!
//! Bit `i % 64` of word `i / 64` is message `i`. **A set bit means unacknowledged.** On the wire,
//! trailing zero words are omitted, and no words at all mean that nothing is acknowledged.

use std::fmt;
use std::ops::Deref;

/// The words of a set as a message or an acknowledgement carries them. Nearly always there are none, and then they take
/// one pointer, because the size of a queued entry decides what receiving from many topics costs.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AckWords(Option<Box<SomeWords>>);

/// At least one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SomeWords(Vec<i64>);

impl AckWords {
    /// No words: nothing is acknowledged, or, in an acknowledgement, everything.
    pub const NONE: Self = Self(None);
}

impl From<Vec<i64>> for AckWords {
    fn from(words: Vec<i64>) -> Self {
        Self((!words.is_empty()).then(|| Box::new(SomeWords(words))))
    }
}

impl Deref for AckWords {
    type Target = [i64];

    #[inline]
    fn deref(&self) -> &[i64] {
        self.0.as_ref().map_or(&[], |some| &some.0)
    }
}

impl fmt::Debug for AckWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

/// Which messages of a batch are still unacknowledged.
///
/// Batches of up to 64 messages live in one word without an allocation.
#[derive(Debug, Clone)]
pub struct AckSet {
    words: Words,
}

/// Compares the words, wherever they are stored.
impl PartialEq for AckSet {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for AckSet {}

#[derive(Debug, Clone)]
enum Words {
    One(u64),
    Many(Vec<u64>),
}

impl AckSet {
    /// A set with nothing acknowledged. `batch_size` is in messages. It takes one bit of memory for each,
    /// so check a peer's number against the size of the payload first.
    #[must_use]
    pub fn full(batch_size: u32) -> Self {
        if batch_size <= 64 {
            return Self { words: Words::One(low_bits(batch_size)) };
        }
        let mut words = vec![u64::MAX; batch_size.div_ceil(64) as usize];
        if let (Some(last), 1..) = (words.last_mut(), batch_size % 64) {
            *last = low_bits(batch_size % 64);
        }
        Self { words: Words::Many(words) }
    }

    /// Makes this the set of a new batch, reusing its memory.
    pub(crate) fn refill(&mut self, batch_size: u32) {
        let Words::Many(words) = &mut self.words else { return *self = Self::full(batch_size) };
        if batch_size == 0 {
            return *self = Self::full(0);
        }
        words.clear();
        words.resize(batch_size.div_ceil(64) as usize, u64::MAX);
        if let (Some(last), 1..) = (words.last_mut(), batch_size % 64) {
            *last = low_bits(batch_size % 64);
        }
    }

    /// The set that a peer's words describe, for a batch of `batch_size` messages. Bits beyond the batch
    /// are ignored, and no words mean that nothing is acknowledged.
    #[must_use]
    pub fn from_words(words: &[i64], batch_size: u32) -> Self {
        let mut set = Self::full(batch_size);
        set.and_with(words);
        set
    }

    /// Whether message `index` is unacknowledged; false beyond the batch.
    #[must_use]
    pub fn is_set(&self, index: u32) -> bool {
        let word = self.words().get(index as usize / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Acknowledges message `index`; returns whether it was unacknowledged before.
    pub fn clear(&mut self, index: u32) -> bool {
        let bit = 1u64 << (index % 64);
        match self.words_mut().get_mut(index as usize / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    /// Acknowledges message `index` if another one in the same word stays unacknowledged, so that this cannot be the
    /// last one of the batch; returns whether it did. Otherwise nothing changes.
    #[inline]
    pub(crate) fn clear_unless_last(&mut self, index: u32) -> bool {
        match self.words_mut().get_mut(index as usize / 64) {
            Some(word) if *word & !(1 << (index % 64)) != 0 => {
                *word &= !(1 << (index % 64));
                true
            }
            _ => false,
        }
    }

    /// Acknowledges all messages up to and including `index`; returns how many were unacknowledged
    /// before.
    pub fn clear_up_to(&mut self, index: u32) -> u32 {
        let (whole, rest) = (index as usize / 64, index % 64);
        let mut cleared = 0;
        for (at, word) in self.words_mut().iter_mut().enumerate().take(whole + 1) {
            let mask = if at < whole { u64::MAX } else { low_bits(rest + 1) };
            cleared += (*word & mask).count_ones();
            *word &= !mask;
        }
        cleared
    }

    /// Whether the whole batch is acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|&word| word == 0)
    }

    /// How many messages are unacknowledged.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }

    /// The [`count`](Self::count) of [`from_words`](Self::from_words), without building the set.
    pub(crate) fn count_words(words: &[i64], batch_size: u32) -> u32 {
        if words.is_empty() {
            return batch_size;
        }
        let mut left = batch_size;
        let mut count = 0;
        for &word in words {
            count += (word as u64 & low_bits(left)).count_ones();
            left = left.saturating_sub(64);
        }
        count
    }

    /// The words for the wire, without trailing zero words.
    ///
    /// For a completely acknowledged batch there are none, which a peer reads as "nothing acknowledged":
    /// send the id of the entry without a set then. A peer without batch index acknowledgment ignores sets.
    #[must_use]
    pub fn to_words(&self) -> Vec<i64> {
        let words = self.words();
        let used = words.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        words.iter().take(used).map(|&word| word as i64).collect()
    }

    /// Acknowledges every message that is acknowledged in a peer's `words`. Words omitted at the end are
    /// zero; no words at all change nothing.
    pub fn and_with(&mut self, words: &[i64]) {
        if words.is_empty() {
            return;
        }
        let theirs = words.iter().map(|&word| word as u64).chain(std::iter::repeat(0));
        for (word, theirs) in self.words_mut().iter_mut().zip(theirs) {
            *word &= theirs;
        }
    }

    fn words(&self) -> &[u64] {
        match &self.words {
            Words::One(word) => std::slice::from_ref(word),
            Words::Many(words) => words,
        }
    }

    #[inline]
    fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.words {
            Words::One(word) => std::slice::from_mut(word),
            Words::Many(words) => words,
        }
    }
}

/// The lowest `count` bits; all for a count of 64 and more.
fn low_bits(count: u32) -> u64 {
    match count {
        0 => 0,
        1..=63 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_seen_from_official_clients() {
        let mut three = AckSet::full(3);
        assert!(three.clear(1));
        assert_eq!(three.to_words(), [5]);
        assert_eq!(three.clear_up_to(1), 1);
        assert_eq!(three.to_words(), [4]);

        let mut many = AckSet::full(130);
        assert!([0, 64, 129].into_iter().all(|index| many.clear(index)));
        assert_eq!(many.to_words(), [-2, -2, 1]);
    }

    #[test]
    fn every_index_of_every_size_is_cleared_once() {
        for size in [1, 2, 63, 64, 65, 127, 128, 129, 200] {
            let mut set = AckSet::full(size);
            assert_eq!(set.count(), size);
            for index in 0..size {
                assert!(set.is_set(index) && set.clear(index) && !set.clear(index) && !set.is_set(index));
                assert_eq!(set.is_empty(), index + 1 == size);
            }
            assert!(!set.is_set(size) && !set.clear(size) && !set.clear(u32::MAX));
            assert!(set.to_words().is_empty());
        }
    }

    #[test]
    fn a_set_in_used_memory_is_like_a_fresh_one() {
        let mut set = AckSet::full(1);
        for size in [200, 65, 64, 0, 1, 128, 1000, 3] {
            set.clear_up_to(u32::MAX);
            set.refill(size);
            assert_eq!((set.count(), set.to_words()), (size, AckSet::full(size).to_words()));
            assert_eq!(set, AckSet::full(size));
            assert!(!set.is_set(size));
        }
    }

    #[test]
    fn what_might_finish_the_batch_is_left_alone() {
        let mut set = AckSet::full(66);
        assert!((0..63).all(|index| set.clear_unless_last(index)));
        assert!(set.clear_unless_last(0), "acknowledged already, and others are not");
        assert!(!set.clear_unless_last(63) && set.is_set(63));
        assert!(set.clear_unless_last(65) && !set.clear_unless_last(64) && !set.clear_unless_last(128));
        assert_eq!(set.count(), 2);
    }

    #[test]
    fn clearing_up_to_counts_what_was_set() {
        for size in [1, 5, 64, 65, 130, 192] {
            for index in 0..size {
                let mut set = AckSet::full(size);
                assert!(set.clear(index / 2));
                assert_eq!(set.clear_up_to(index), index);
                assert_eq!(set.count(), size - index - 1);
                assert_eq!(set.is_set(index + 1), index + 1 < size);
            }
            assert_eq!(AckSet::full(size).clear_up_to(u32::MAX), size);
        }
    }

    #[test]
    fn a_peers_words_are_trimmed_to_the_batch() {
        assert_eq!(AckSet::from_words(&[], 70), AckSet::full(70));
        assert_eq!(AckSet::from_words(&[-1, -1, -1], 70), AckSet::full(70));
        assert_eq!(AckSet::from_words(&[-1, -1], 3).to_words(), [7]);
        assert_eq!(AckSet::from_words(&[2], 70).count(), 1);
        assert!(AckSet::from_words(&[0], 70).is_empty());
    }

    #[test]
    fn sets_of_two_peers_meet() {
        let mut set = AckSet::from_words(&[0b1101], 4);
        set.and_with(&[0b0111]);
        assert_eq!(set.to_words(), [0b0101]);
        set.and_with(&[]);
        assert_eq!(set.to_words(), [0b0101]);
        set.and_with(&[0]);
        assert!(set.is_empty());
    }

    #[test]
    fn a_batch_of_none_is_done() {
        assert!(AckSet::full(0).is_empty());
    }
}
