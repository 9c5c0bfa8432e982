//! Decisions out of the bytes of an input.

use std::time::Duration;

/// Reads decisions. Behind the end of the input every decision is 0.
pub(super) struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// Whether a bit is set in the next byte.
    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Below `bound`, which is at most 256 and not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(super) fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    pub(super) fn wide(&mut self) -> u64 {
        (0..8).fold(0, |sum, _| sum << 8 | u64::from(self.byte()))
    }

    /// Mostly small, at times one of the numbers where counting goes wrong, at times any.
    pub(super) fn number(&mut self) -> u64 {
        const EDGES: [u64; 8] =
            [1 << 31, (1 << 31) - 1, u32::MAX as u64, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
        match self.byte() {
            small @ 0..=199 => u64::from(small % 16),
            edge @ 200..=229 => EDGES[usize::from(edge) % EDGES.len()],
            230..=244 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            _ => self.wide(),
        }
    }

    /// A length, then so many bytes, as far as there are any.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        bytes
    }

    /// From a millisecond to some minutes.
    pub(super) fn time(&mut self) -> Duration {
        let byte = self.byte();
        Duration::from_millis(1 << (byte % 18))
    }
}
