//! Errors, counted by their code.

use std::collections::BTreeMap;

use crate::error::Error;

/// The most codes that are told apart. Brokers may invent new ones: beyond this they are counted together.
const CODES_MAX: usize = 64;

/// The code of the errors beyond [`CODES_MAX`].
const OTHER: &str = "Other";

/// How many errors there were of each code: the name of the broker's code (`ServerError` of the protocol) if the broker
/// refused something, else that of the [`ErrorKind`](crate::ErrorKind).
///
/// It can be merged with those of other producers and consumers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCounts {
    #[expect(clippy::box_collection, reason = "most have none, and are kept for long")]
    by_code: Option<Box<BTreeMap<String, u64>>>,
}

impl ErrorCounts {
    pub(crate) fn add(&mut self, error: &Error, count: u64) {
        let code = match error.server_error() {
            Some(refused) => refused.code.label(),
            None => format!("{:?}", error.kind()),
        };
        self.add_code(code, count);
    }

    fn add_code(&mut self, code: String, count: u64) {
        let by_code = self.by_code.get_or_insert_default();
        let is_known = by_code.contains_key(&code);
        let code = if is_known || by_code.len() < CODES_MAX { code } else { OTHER.to_owned() };
        *by_code.entry(code).or_default() += count;
    }

    /// The codes and their counts, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_code.iter().flat_map(|by_code| by_code.iter()).map(|(code, count)| (code.as_str(), *count))
    }

    /// How many there were of this code.
    pub fn of(&self, code: &str) -> u64 {
        self.by_code.as_ref().and_then(|by_code| by_code.get(code)).copied().unwrap_or(0)
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Those that came after `earlier`, which is a former state of these.
    pub fn since(&self, earlier: &Self) -> Self {
        let came = self.iter().map(|(code, count)| (code.to_owned(), count.saturating_sub(earlier.of(code))));
        let by_code: BTreeMap<_, _> = came.filter(|(_, count)| *count > 0).collect();
        Self { by_code: (!by_code.is_empty()).then(|| Box::new(by_code)) }
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (code, count) in other.iter() {
            self.add_code(code.to_owned(), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, ServerCode, ServerError};

    #[test]
    fn refusals_are_told_apart_by_the_brokers_code() {
        let mut counts = ErrorCounts::default();
        counts.add(&Error::server(ServerError::new(ServerCode::PRODUCER_BUSY.0, "no"), "a producer"), 1);
        counts.add(&Error::local(ErrorKind::TimedOut, "late"), 2);
        let mut other = ErrorCounts::default();
        other.add(&Error::local(ErrorKind::TimedOut, "late"), 3);
        counts.merge(&other);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [("ProducerBusy", 1), ("TimedOut", 5)]);
        assert_eq!(counts.since(&other).iter().collect::<Vec<_>>(), [("ProducerBusy", 1), ("TimedOut", 2)]);
        assert_eq!(counts.since(&counts), ErrorCounts::default());
        assert_eq!((counts.of("TimedOut"), counts.of("Busy"), counts.total()), (5, 0, 6));
    }

    #[test]
    fn invented_codes_are_counted_together_beyond_a_bound() {
        let mut counts = ErrorCounts::default();
        for code in 1000..1100 {
            counts.add(&Error::server(ServerError::new(code, "no"), "a producer"), 1);
        }
        assert_eq!(
            (counts.iter().count(), counts.total(), counts.of(OTHER)),
            (CODES_MAX + 1, 100, 100 - CODES_MAX as u64)
        );
    }
}
