//! A record of the frames so far, for the checkers of the simulation and of the application.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::{Duration, Instant};

use super::Origin;
use crate::error::{RetryPolicy, ServerCode};
use crate::id::MessageId;
use crate::machine::EndpointId;
use crate::pb;
use crate::sim::network::PairId;
use crate::sim::violations::ViolationLog;
use crate::wire::entry::EntryParts;
use crate::wire::hot::SendHead;
use crate::wire::metadata::{Metadata, text};

/// For at least this long a producer asks for the name it had, while it is refused because another one has it.
const NAME_KEPT_MIN: Duration = Duration::from_secs(6);

/// Topic, subscription, ledger, entry.
pub(in crate::sim) type SubscribedEntry = (String, String, u64, u64);

/// See the module. It grows with the traffic of one run.
#[derive(Debug, Default)]
pub(in crate::sim) struct Records {
    /// A hash of each SEND, by client, producer and its name, sequence id, and place among the chunks of a message.
    sends: BTreeMap<(usize, u64, String, u64, i32), u64>,
    /// When each entry was delivered, and with which of its members.
    deliveries: BTreeMap<SubscribedEntry, Vec<(Instant, Vec<i64>)>>,
    /// Entries with a damaged delivery.
    pub(in crate::sim) corrupted: BTreeSet<SubscribedEntry>,
    /// The first FLOW of a consumer, which is the size of its queue, by client and consumer.
    queue_sizes: BTreeMap<(usize, u64), i64>,
    /// It is not: permits are bounded by memory too, and grow.
    pub(in crate::sim) permits_grow: bool,
    /// Producers that are new ask again where they are refused.
    pub(in crate::sim) lazy_producers: bool,
    /// The producer that last used a name, by topic and name: its client and id.
    names: BTreeMap<(String, String), (usize, u64)>,
    /// New producers, by client and id, that follow another one under this name.
    successors: BTreeMap<(usize, u64), String>,
    /// Names that a new producer took over without the broker's knowledge: its checks take the two for one producer.
    pub(in crate::sim) taken_over: BTreeSet<String>,
    /// Topics and the codes that a client was refused with there.
    refusals: BTreeSet<(String, i32)>,
    /// Producers, by client and id, that have asked for a name they were given, and the highest epoch that did.
    named: BTreeMap<(usize, u64), u64>,
    /// Producers and consumers, by client and id, whose open has reached a broker: they may be attached.
    opened: BTreeSet<(usize, EndpointId)>,
    /// Those that were not when they were refused for good, and on which connection.
    refused_new: BTreeMap<(usize, EndpointId), (PairId, ServerCode)>,
    /// When such a producer was refused for its name for the first time.
    busy_since: BTreeMap<(usize, u64), Instant>,
}

impl Records {
    /// Checks that a SEND with a sequence id that was sent before has the same bytes.
    pub(super) fn check_send(&mut self, origin: Origin, head: &SendHead, entry: &[u8], violations: &mut ViolationLog) {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(entry);
        hasher.write_i32(head.num_messages);
        hasher.write_u64(head.highest_sequence_id.unwrap_or(0));
        let hash = hasher.finish();
        let (name, chunk_id) = name_and_place(entry).unwrap_or_default();
        let key = (origin.client, head.producer_id, name, head.sequence_id, chunk_id);
        if *self.sends.entry(key).or_insert(hash) != hash {
            let (client, producer, sequence_id) = (origin.client, head.producer_id, head.sequence_id);
            let what = || format!("client {client} producer {producer} sequence {sequence_id}");
            violations.report("resend is byte-identical", what);
        }
    }

    /// Records the producer that attaches under a name. The broker recognises a new producer by its first PRODUCER, of epoch
    /// 0; where that was dropped, or refused while the other one went on, it takes the next one, of a higher epoch, for the
    /// producer that had the name before.
    /// A producer that asks for a name starts its sequence ids afresh.
    pub(super) fn record_name(&mut self, origin: Origin, producer: &pb::CommandProducer) {
        let user = (origin.client, producer.producer_id);
        let Some(name) = &producer.producer_name else {
            self.sends.retain(|(client, producer, ..), _| (*client, *producer) != user);
            return;
        };
        let before = self.names.insert((producer.topic.clone(), name.clone()), user);
        if before != Some(user) {
            if producer.epoch() > 0 {
                self.taken_over.insert(name.clone());
            } else if before.is_some() {
                self.successors.insert(user, name.clone());
            }
        }
    }

    pub(super) fn record_refusal(
        &mut self,
        origin: Origin,
        endpoint: Option<EndpointId>,
        topic: &str,
        code: ServerCode,
        now: Instant,
    ) {
        self.refusals.insert((topic.to_owned(), code.0));
        if let (Some(EndpointId::Producer(producer)), ServerCode::PRODUCER_BUSY) = (endpoint, code) {
            let user = (origin.client, producer.0);
            self.busy_since.entry(user).or_insert(now);
            self.taken_over.extend(self.successors.remove(&user));
        }
    }

    pub(super) fn record_forwarded_open(&mut self, origin: Origin, endpoint: EndpointId) {
        self.opened.insert((origin.client, endpoint));
    }

    /// A PRODUCER or SUBSCRIBE is refused by the proxy. A name that is taken may be one that this client is about to free.
    pub(super) fn record_refused_open(&mut self, origin: Origin, endpoint: EndpointId, code: ServerCode) {
        let key = (origin.client, endpoint);
        let is_busy = matches!(code, ServerCode::PRODUCER_BUSY | ServerCode::CONSUMER_BUSY);
        let is_final = !is_busy && code.retry_policy() != RetryPolicy::Retry;
        let is_lazy = self.lazy_producers && matches!(endpoint, EndpointId::Producer(_));
        if is_final && !is_lazy && !self.opened.contains(&key) {
            self.refused_new.insert(key, (origin.pair, code));
        }
    }

    /// Checks that what was new when it was refused for good does not ask again. On a sound connection it has read the
    /// refusal before it writes again.
    pub(super) fn check_open(&mut self, origin: Origin, endpoint: EndpointId, violations: &mut ViolationLog) {
        let refused = self.refused_new.remove(&(origin.client, endpoint));
        if let Some((_, code)) = refused.filter(|(pair, _)| *pair == origin.pair && !origin.is_faulted) {
            let client = origin.client;
            violations.report("a refusal of what is new is final", || {
                format!("client {client}: {endpoint} was refused with {code:?}, and asks again")
            });
        }
    }

    /// Whether a producer, a consumer or a lookup was refused with this code on a topic.
    pub(in crate::sim) fn was_refused(&self, topic: &str, code: ServerCode) -> bool {
        self.refusals.contains(&(topic.to_owned(), code.0))
    }

    /// Checks that a producer that asks for a new name was refused the one it had for long enough: the broker may have
    /// held it for this producer's own dead connection.
    pub(super) fn check_name(
        &mut self,
        origin: Origin,
        producer: &pb::CommandProducer,
        now: Instant,
        violations: &mut ViolationLog,
    ) {
        let key = (origin.client, producer.producer_id);
        let before = self.named.get(&key).copied();
        if producer.producer_name.is_some() {
            self.named.insert(key, producer.epoch().max(before.unwrap_or(0)));
            // One of a lower epoch comes late, on a connection that was stalled.
        } else if before.is_some_and(|epoch| producer.epoch() > epoch) {
            self.named.remove(&key);
            let refused_for = self.busy_since.remove(&key).map(|since| now - since);
            if refused_for.is_none_or(|time| time < NAME_KEPT_MIN) {
                violations.report("a name is given up after six seconds", || {
                    format!("client {} producer {}: refused for {refused_for:?}", key.0, key.1)
                });
            }
        }
    }

    pub(super) fn record_flow(&mut self, origin: Origin, consumer_id: u64, permits: i64) {
        if !self.permits_grow {
            self.queue_sizes.entry((origin.client, consumer_id)).or_insert(permits);
        }
    }

    pub(super) fn queue_size(&self, origin: Origin, consumer_id: u64) -> Option<i64> {
        self.queue_sizes.get(&(origin.client, consumer_id)).copied()
    }

    pub(super) fn record_delivery(&mut self, entry: SubscribedEntry, at: Instant, ack_set: Vec<i64>) {
        self.deliveries.entry(entry).or_default().push((at, ack_set));
    }

    /// When this message was delivered to the subscription's consumers, not counting deliveries that mark it as acknowledged.
    pub(in crate::sim) fn deliveries(&self, topic: &str, subscription: &str, id: &MessageId) -> Vec<Instant> {
        let id = id.position();
        let key = (topic.to_owned(), subscription.to_owned(), id.ledger_id, id.entry_id);
        let all = self.deliveries.get(&key).map_or(&[][..], Vec::as_slice);
        let holds = |words: &[i64]| match usize::try_from(id.batch_index) {
            Ok(index) if !words.is_empty() => words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1),
            _ => true,
        };
        all.iter().filter(|(_, words)| holds(words)).map(|(at, _)| *at).collect()
    }
}

/// The name of the producer, under which it has numbered the entry, and its place among the chunks of a message, which share
/// their number. A frame that was stalled may arrive once the producer has another name.
fn name_and_place(entry: &[u8]) -> Option<(String, i32)> {
    let parts = EntryParts::split(entry).ok()?;
    let raw = entry.get(parts.metadata)?;
    let metadata = Metadata::decode(raw).ok()?;
    let name = text(raw, &metadata.producer_name).to_owned();
    Some((name, metadata.chunk.map_or(-1, |chunk| chunk.chunk_id)))
}
