//! Which partition a message goes to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock;
use crate::hash::{java_string_hash, murmur3_32};
use crate::machine::producer::Message;

/// Where messages without a key go. Messages with a key go by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MessageRoutingMode {
    /// Round the partitions: message by message without batching; with it, all messages of a short time slot go to
    /// one partition so that they share a batch, as in the Java client.
    #[default]
    RoundRobin,
    /// All to one partition, chosen when the producer is made.
    Single,
}

/// How a key becomes a number. All clients that write keyed messages to a topic must agree, or one key's messages go
/// to different partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HashingScheme {
    /// Java's `String.hashCode()`: the default of the Java and Go clients.
    #[default]
    JavaString,
    /// Murmur3, 32 bits, seed 0.
    Murmur3,
}

impl HashingScheme {
    fn of(self, key: &str) -> u32 {
        match self {
            Self::JavaString => java_string_hash(key),
            Self::Murmur3 => murmur3_32(key.as_bytes()),
        }
    }
}

/// The choice, for one producer.
#[derive(Debug)]
pub(super) struct Router {
    routing: MessageRoutingMode,
    hash: HashingScheme,
    start: u64,
    turn: AtomicU64,
    /// How long round-robin stays on a partition; `None` moves with each message.
    slot_ms: Option<u64>,
}

impl Router {
    pub(super) fn new(
        routing: MessageRoutingMode,
        hash: HashingScheme,
        seed: u64,
        batching: bool,
        batching_max_publish_delay: Duration,
    ) -> Self {
        // Ten times the delay, at least a millisecond: what the Java client does with its publish delay.
        let slot_ms =
            batching.then(|| u64::try_from(batching_max_publish_delay.as_millis() * 10).unwrap_or(u64::MAX).max(1));
        Self { routing, hash, start: seed >> 1, turn: AtomicU64::new(0), slot_ms }
    }

    /// The partition of `message` among `count`, which is above zero. The key is hashed as it stands in the
    /// metadata: a binary one as its base64 text.
    #[inline]
    pub(super) fn partition(&self, message: &Message, count: usize) -> usize {
        if count == 1 {
            return 0;
        }
        let number = match (message.partition_key(), self.routing) {
            (Some(key), _) => u64::from(self.hash.of(key)),
            (None, MessageRoutingMode::Single) => self.start,
            (None, MessageRoutingMode::RoundRobin) => self.start.wrapping_add(self.step()),
        };
        (number % count as u64) as usize
    }

    fn step(&self) -> u64 {
        match self.slot_ms {
            Some(slot_ms) => clock::wall_ms() / slot_ms,
            None => self.turn.fetch_add(1, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(batching: bool) -> Router {
        Router::new(MessageRoutingMode::RoundRobin, HashingScheme::JavaString, 7, batching, Duration::ZERO)
    }

    #[test]
    fn one_key_goes_to_one_partition_the_java_way() {
        // "abc".hashCode() is 96354.
        for _ in 0..3 {
            assert_eq!(router(true).partition(&Message::new("x").key("abc"), 5), 96354 % 5);
        }
    }

    #[test]
    fn without_batching_each_message_moves_on() {
        let router = router(false);
        let message = Message::new("x");
        let taken: Vec<_> = (0..4).map(|_| router.partition(&message, 4)).collect();
        let start = taken[0];
        assert_eq!(taken, (0..4).map(|n| (start + n) % 4).collect::<Vec<_>>());
    }

    #[test]
    fn single_stays_where_it_is() {
        let router = Router::new(MessageRoutingMode::Single, HashingScheme::Murmur3, 5, false, Duration::ZERO);
        let message = Message::new("x");
        let first = router.partition(&message, 8);
        assert!((0..20).all(|_| router.partition(&message, 8) == first));
    }
}
