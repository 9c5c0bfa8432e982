//! Which partition a message goes to, and the endpoint of that partition.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::clock;
use crate::hash::{java_string_hash, murmur3_32};
use crate::machine::Endpoint;
use crate::machine::producer::Message;

/// The partition of messages without a key. The partition of a message with a key follows from the key's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MessageRoutingMode {
    /// The partitions in turn. Without batching, each message goes to the next partition; with batching, all messages of
    /// a short time slot go to the same one, so that they share a batch, as in the Java client.
    #[default]
    RoundRobinPartition,
    /// One partition for all messages, chosen when the producer is created. It stays that one where partitions are added.
    SinglePartition,
}

/// The hash of keys. All clients that write keyed messages to a topic must use the same one, or the messages of a key go
/// to different partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HashingScheme {
    /// Java's `String.hashCode()`: the default of the Java and Go clients.
    #[default]
    JavaStringHash,
    /// Murmur3, 32 bits, seed 0.
    #[doc(alias = "Murmur3_32Hash")]
    Murmur3Hash32,
}

impl HashingScheme {
    fn hash(self, key: &str) -> u32 {
        match self {
            Self::JavaStringHash => java_string_hash(key),
            Self::Murmur3Hash32 => murmur3_32(key.as_bytes()),
        }
    }
}

/// Chooses the partition of each message of one producer.
#[derive(Debug)]
pub(super) struct Router {
    routing: MessageRoutingMode,
    hashing_scheme: HashingScheme,
    /// The partition to start at. It stays the same one where partitions are added.
    start: u64,
    /// Messages without a key so far, if round-robin moves with each message.
    sent: AtomicU64,
    /// How long round-robin stays on a partition, milliseconds; `None`: it moves with each message.
    slot_ms: Option<u64>,
}

impl Router {
    pub(super) fn new(
        routing: MessageRoutingMode,
        hashing_scheme: HashingScheme,
        (seed, partitions): (u64, usize),
        batching: bool,
        batching_max_publish_delay: Duration,
    ) -> Self {
        // Ten times the delay, at least a millisecond, as in the Java client.
        let slot_ms =
            batching.then(|| u64::try_from(batching_max_publish_delay.as_millis() * 10).unwrap_or(u64::MAX).max(1));
        Self {
            routing,
            hashing_scheme,
            start: (seed >> 1) % partitions.max(1) as u64,
            sent: AtomicU64::new(0),
            slot_ms,
        }
    }

    /// The partition of `message` among `count`, which is above zero. The key is hashed in the form of the metadata: a
    /// binary key as its base64 text.
    #[inline]
    pub(super) fn partition(&self, message: &Message, count: usize) -> usize {
        if count == 1 {
            return 0;
        }
        let number = match (message.key(), self.routing) {
            (Some(key), _) => u64::from(self.hashing_scheme.hash(key)),
            (None, MessageRoutingMode::SinglePartition) => self.start,
            (None, MessageRoutingMode::RoundRobinPartition) => self.start.wrapping_add(self.step()),
        };
        (number % count as u64) as usize
    }

    /// The partition where messages without a key begin.
    pub(super) fn first(&self) -> usize {
        self.start as usize
    }

    fn step(&self) -> u64 {
        match self.slot_ms {
            Some(slot_ms) => clock::wall_ms() / slot_ms,
            None => self.sent.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// The endpoints of a producer by partition: read by each send, without a lock and without a reference count.
///
/// Partitions are only added to a topic, so an entry does not change until the producer is dropped. The partitions that
/// exist when the producer is created are in one slice; those that are added later are in chunks that double in size,
/// so that no entry is ever moved while a send may read it.
pub(super) struct Routes<M> {
    initial: Box<[Arc<Endpoint<M>>]>,
    added: OnceLock<Box<[Chunk<M>; CHUNKS]>>,
    /// The number of entries. Written last when some are added, so that every entry below it can be read.
    count: AtomicUsize,
    /// Held while partitions are added.
    adding: Mutex<()>,
}

/// Chunk `n` holds the 2^n endpoints from the (2^n - 1)th added one on.
type Chunk<M> = OnceLock<Box<[OnceLock<Arc<Endpoint<M>>>]>>;

/// Enough for 2^32 - 1 partitions, more than the protocol's 32-bit count can ask for.
const CHUNKS: usize = 32;

impl<M> Routes<M> {
    /// `initial`: the endpoints of the existing partitions, at least one.
    pub(super) fn new(initial: Vec<Arc<Endpoint<M>>>) -> Self {
        let count = AtomicUsize::new(initial.len());
        Self { initial: initial.into(), added: OnceLock::new(), count, adding: Mutex::new(()) }
    }

    /// How many partitions messages go to.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The endpoint of a partition below [`len`](Self::len).
    #[inline]
    pub(super) fn get(&self, partition: usize) -> &Arc<Endpoint<M>> {
        match self.initial.get(partition) {
            Some(endpoint) => endpoint,
            None => self.get_added(partition - self.initial.len()),
        }
    }

    #[inline(never)]
    fn get_added(&self, index: usize) -> &Arc<Endpoint<M>> {
        let (chunk, offset) = place(index);
        let slots = self.added.get().and_then(|chunks| chunks.get(chunk)?.get());
        let endpoint = slots.and_then(|slots| slots.get(offset)?.get());
        // Its slot is written before the count is.
        endpoint.expect("a partition below the count has its endpoint")
    }

    /// Adds the next partitions; messages are routed to all of them from now on. `false`: `first` is not the next one.
    pub(super) fn extend(&self, first: usize, endpoints: impl IntoIterator<Item = Arc<Endpoint<M>>>) -> bool {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = self.count.load(Ordering::Relaxed);
        if first != count {
            return false;
        }
        let chunks = self.added.get_or_init(|| Box::new([const { OnceLock::new() }; CHUNKS]));
        for endpoint in endpoints {
            let (chunk, offset) = place(count - self.initial.len());
            let slots = chunks[chunk].get_or_init(|| (0..1usize << chunk).map(|_| OnceLock::new()).collect());
            let is_free = slots[offset].set(endpoint).is_ok();
            debug_assert!(is_free, "each partition is added once");
            count += 1;
        }
        self.count.store(count, Ordering::Release);
        true
    }
}

/// The chunk of the `index`th added endpoint, and its place there.
fn place(index: usize) -> (usize, usize) {
    let chunk = (index + 1).ilog2() as usize;
    (chunk, index + 1 - (1 << chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(batching: bool) -> Router {
        let hashing = HashingScheme::JavaStringHash;
        Router::new(MessageRoutingMode::RoundRobinPartition, hashing, (7, 5), batching, Duration::ZERO)
    }

    #[test]
    fn one_key_goes_to_one_partition_the_java_way() {
        // "abc".hashCode() is 96354.
        for _ in 0..3 {
            assert_eq!(router(true).partition(&Message::new("x").with_key("abc"), 5), 96354 % 5);
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
        let hashing = HashingScheme::Murmur3Hash32;
        let router = Router::new(MessageRoutingMode::SinglePartition, hashing, (11, 3), false, Duration::ZERO);
        let message = Message::new("x");
        assert!((3..20).all(|partitions| router.partition(&message, partitions) == 2));
    }

    fn endpoint(id: u64) -> Arc<Endpoint<crate::machine::producer::Producer>> {
        use crate::id::ProducerId;
        use crate::machine::producer::Producer;
        use crate::machine::{EndpointId, ReadyList, Reply};
        let (created, _) = Reply::pair();
        let machine = Producer::new(ProducerId(id), "t".into(), -1, Arc::default(), created, clock::now());
        Endpoint::new(EndpointId::Producer(ProducerId(id)), machine, ReadyList::new())
    }

    fn id(number: usize) -> crate::machine::EndpointId {
        crate::machine::EndpointId::Producer(crate::id::ProducerId(number as u64))
    }

    #[test]
    fn routes_keep_their_place_as_others_are_added() {
        for initial in [1, 2, 5] {
            let routes = Routes::new((0..initial).map(|number| endpoint(number as u64)).collect());
            let first = routes.get(0);
            for next in initial..initial + 70 {
                assert_eq!(routes.len(), next);
                assert!(!routes.extend(next + 1, [endpoint(0)]) && !routes.extend(next - 1, [endpoint(0)]));
                assert!(routes.extend(next, [endpoint(next as u64)]));
                assert!((0..routes.len()).all(|number| routes.get(number).id() == id(number)));
            }
            assert!(Arc::ptr_eq(first, routes.get(0)));
        }
    }

    #[test]
    fn several_routes_are_added_at_once() {
        let routes = Routes::new(vec![endpoint(0)]);
        assert!(routes.extend(1, (1..40).map(endpoint)));
        assert!(routes.extend(40, (40..64).map(endpoint)));
        assert!((0..routes.len()).all(|number| routes.get(number).id() == id(number)));
        assert_eq!(routes.len(), 64);
    }

    #[test]
    fn a_reader_of_the_count_finds_all_routes_below_it() {
        const ROUTES: usize = 300;
        let routes = Routes::new(vec![endpoint(0)]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while routes.len() < ROUTES {
                        let count = routes.len();
                        assert!((0..count).all(|number| routes.get(number).id() == id(number)));
                    }
                });
            }
            (1..ROUTES).for_each(|number| assert!(routes.extend(number, [endpoint(number as u64)])));
        });
    }
}
