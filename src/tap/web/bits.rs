//! A set of numbers that answers "how many before this one" and "which one is the n-th": a bit each, and 32 for 4,096 of them.

/// Bits of a group, before which the members are counted.
const GROUP: usize = 4096;

const WORD: usize = u64::BITS as usize;

/// Numbers from 0 on, in or not. See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// Members before each group.
    before: Vec<u32>,
    len: usize,
    count: u32,
}

impl Bits {
    /// Members.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether the next number is in.
    pub(super) fn push(&mut self, is_in: bool) {
        if self.len % GROUP == 0 {
            self.before.push(self.count);
        }
        if self.len % WORD == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut().filter(|_| is_in) {
            *word |= 1 << (self.len % WORD);
            self.count += 1;
        }
        self.len += 1;
    }

    /// Takes a member out. The nearer to the end, the faster.
    pub(super) fn remove(&mut self, n: u32) {
        let at = n as usize;
        self.words[at / WORD] &= !(1 << (at % WORD));
        self.count -= 1;
        for before in &mut self.before[at / GROUP + 1..] {
            *before -= 1;
        }
    }

    pub(super) fn has(&self, n: u32) -> bool {
        self.words.get(n as usize / WORD).is_some_and(|word| word >> (n as usize % WORD) & 1 == 1)
    }

    /// How many members are below `n`.
    pub(super) fn below(&self, n: u32) -> u32 {
        let at = (n as usize).min(self.len);
        let Some(group) = self.before.get(at / GROUP) else { return self.count };
        let first = at / GROUP * (GROUP / WORD);
        let whole: u32 = self.words[first..at / WORD].iter().map(|word| word.count_ones()).sum();
        let part = self.words.get(at / WORD).map_or(0, |word| word & ((1 << (at % WORD)) - 1));
        group + whole + part.count_ones()
    }

    /// The member that `index` others are below.
    pub(super) fn nth(&self, index: u32) -> Option<u32> {
        if index >= self.count {
            return None;
        }
        let group = self.before.partition_point(|before| *before <= index) - 1;
        let mut left = index - self.before[group];
        for (offset, word) in self.words[group * (GROUP / WORD)..].iter().enumerate() {
            let ones = word.count_ones();
            if left >= ones {
                left -= ones;
                continue;
            }
            let mut word = *word;
            for _ in 0..left {
                word &= word - 1;
            }
            return Some(((group * (GROUP / WORD) + offset) * WORD) as u32 + word.trailing_zeros());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_members_agree_with_a_list() {
        let mut bits = Bits::default();
        let mut list = Vec::new();
        for n in 0..20_000u32 {
            let is_in = n % 7 == 0 || (4090..4200).contains(&n) || n.count_ones() == 3;
            bits.push(is_in);
            list.extend(is_in.then_some(n));
            if n % 1000 == 999 {
                bits.remove(list.remove(list.len() - 3));
            }
        }
        assert_eq!(bits.count() as usize, list.len());
        for (index, n) in list.iter().enumerate() {
            assert_eq!(bits.nth(index as u32), Some(*n));
            assert!(bits.has(*n));
            assert_eq!((bits.below(*n), bits.below(n + 1)), (index as u32, index as u32 + 1));
        }
        assert_eq!((0..30_000).filter(|n| bits.has(*n)).count(), list.len());
        assert_eq!((bits.nth(bits.count()), bits.below(u32::MAX)), (None, bits.count()));
    }
}
