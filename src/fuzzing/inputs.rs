//! Inputs for the tests of the targets: the stored corpora, and changes of them that a seed decides. A fuzzer that sees which
//! lines an input reaches finds more; this one needs no tools.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::splitmix::SplitMix64;

/// The folder with the targets; `None` in a published package, which has none.
pub(super) fn folder() -> Option<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    fuzz.is_dir().then_some(fuzz)
}

/// The inputs of a corpus with their paths, in the order of their names.
pub(super) fn corpus(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let Some(fuzz) = folder() else { return Ok(Vec::new()) };
    let files = fs::read_dir(fuzz.join("corpus").join(target))?.map(|file| file.map(|file| file.path()));
    let mut paths = files.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|data| (path, data))).collect()
}

/// The entries of the dictionary.
pub(super) fn dictionary(text: &str) -> Vec<Vec<u8>> {
    let quoted = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("two digits");
    quoted.map(|entry| entry.split("\\x").skip(1).map(byte).collect()).collect()
}

/// Inputs without end, made of those of a corpus.
pub(super) struct Changes {
    corpus: Vec<Vec<u8>>,
    dictionary: Vec<Vec<u8>>,
    random: SplitMix64,
}

impl Changes {
    pub(super) fn new(corpus: Vec<Vec<u8>>, dictionary: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!corpus.is_empty() && !dictionary.is_empty());
        Self { corpus, dictionary, random: SplitMix64::new(seed) }
    }

    fn below(&mut self, count: usize) -> usize {
        (self.random.next() % count.max(1) as u64) as usize
    }

    /// One of the corpus with up to eight changes.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let chosen = self.below(self.corpus.len());
        let mut data = self.corpus[chosen].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut data);
        }
        data
    }

    fn change(&mut self, data: &mut Vec<u8>) {
        let (at, kind) = (self.below(data.len() + 1), self.below(9));
        let end = (at + 1 + self.below(16)).min(data.len());
        match (kind, data.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << (self.random.next() % 8),
            (1, Some(byte)) => *byte = self.random.next() as u8,
            (2, Some(byte)) => *byte = byte.wrapping_add([1, 255][(self.random.next() % 2) as usize]),
            (3, Some(_)) => drop(data.drain(at..end)),
            (4, Some(_)) => {
                let copy = data[at..end].to_vec();
                let to = self.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            (5, _) => {
                let chosen = self.below(self.dictionary.len());
                let word = self.dictionary[chosen].clone();
                let over = if self.below(2) == 1 { (at + word.len()).min(data.len()) } else { at };
                data.splice(at..over, word);
            }
            (6, _) => {
                let chosen = self.below(self.corpus.len());
                let other = self.corpus[chosen].clone();
                data.truncate(at);
                data.extend(&other[self.below(other.len() + 1)..]);
            }
            (7, Some(_)) => data.truncate(at),
            _ => {
                let random = self.random.next().to_le_bytes();
                let count = self.below(random.len() + 1);
                data.splice(at..at, random[..count].iter().copied());
            }
        }
    }
}
