//! The producers and consumers that one connection has named, open or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::pb::KeyValue;

/// What statistics show of a producer or consumer, and nothing else needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndpointDescription {
    /// `metadata` of its request.
    pub(crate) metadata: Vec<KeyValue>,
    /// When it was opened, ms since 1970.
    pub(crate) connected_ms: u64,
    /// `ProducerAccessMode` of a producer.
    pub(crate) access_mode: i32,
}

/// ```text
///   PRODUCER ─► PendingTakeover ─► Live ─► ClosedByBroker | FencedOut | ClosedByClient
///           └─► Queued ─────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProducerSlot {
    /// PRODUCER was received; the connection that holds its name is being asked whether it is alive.
    PendingTakeover,
    /// WaitForExclusive: answered with `producer_ready` = false.
    Queued { topic: Arc<str> },
    /// `is_answered`: PRODUCER_SUCCESS was handed to the socket. `closed_at`: the broker closed this id before that.
    Live { topic: Arc<str>, is_answered: bool, closed_at: Option<Instant> },
    /// An ExclusiveWithFencing producer took over; the client is not notified.
    FencedOut,
    /// The broker sent CLOSE_PRODUCER; SENDs in flight are ignored for a keep-alive interval.
    ClosedByBroker { at: Instant },
    /// The client sent CLOSE_PRODUCER.
    ClosedByClient,
}

impl ProducerSlot {
    /// The topic of a live or queued producer.
    pub(crate) fn topic(&self) -> Option<&Arc<str>> {
        match self {
            Self::Live { topic, .. } | Self::Queued { topic } => Some(topic),
            Self::PendingTakeover | Self::FencedOut | Self::ClosedByBroker { .. } | Self::ClosedByClient => None,
        }
    }
}

/// ```text
///   SUBSCRIBE ─► PendingTakeover ─► Live ─► ClosedByBroker | Unsubscribed | ClosedByClient
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsumerSlot {
    /// SUBSCRIBE was received; the connection that holds the subscription is being asked whether it is alive.
    PendingTakeover,
    /// `is_answered`: SUCCESS was handed to the socket.
    Live { topic: Arc<str>, subscription: Arc<str>, is_answered: bool },
    /// The broker sent CLOSE_CONSUMER.
    ClosedByBroker,
    /// The client sent UNSUBSCRIBE, and no CLOSE_CONSUMER yet.
    Unsubscribed,
    /// The client sent CLOSE_CONSUMER.
    ClosedByClient,
}

impl ConsumerSlot {
    /// Topic and subscription of a live consumer.
    pub(crate) fn subscription(&self) -> Option<(Arc<str>, Arc<str>)> {
        match self {
            Self::Live { topic, subscription, .. } => Some((Arc::clone(topic), Arc::clone(subscription))),
            Self::PendingTakeover | Self::ClosedByBroker | Self::Unsubscribed | Self::ClosedByClient => None,
        }
    }
}

/// By `producer_id` and `consumer_id`. Closed ones stay, so that a command after a CLOSE is
/// told from one for an id that never was.
#[derive(Debug, Default)]
pub(crate) struct ConnectionEndpoints {
    producers: BTreeMap<u64, ProducerSlot>,
    consumers: BTreeMap<u64, ConsumerSlot>,
    /// Ids whose response has not been handed to the socket.
    unanswered_producers: Vec<u64>,
    unanswered_consumers: Vec<u64>,
}

impl ConnectionEndpoints {
    pub(crate) fn len(&self) -> usize {
        self.producers.len() + self.consumers.len()
    }

    pub(crate) fn producer(&self, id: u64) -> Option<&ProducerSlot> {
        self.producers.get(&id)
    }

    pub(crate) fn consumer(&self, id: u64) -> Option<&ConsumerSlot> {
        self.consumers.get(&id)
    }

    pub(super) fn set_producer(&mut self, id: u64, slot: ProducerSlot) -> Option<ProducerSlot> {
        self.producers.insert(id, slot)
    }

    pub(super) fn set_consumer(&mut self, id: u64, slot: ConsumerSlot) -> Option<ConsumerSlot> {
        self.consumers.insert(id, slot)
    }

    pub(super) fn remove_producer(&mut self, id: u64) {
        self.producers.remove(&id);
    }

    pub(super) fn remove_consumer(&mut self, id: u64) {
        self.consumers.remove(&id);
    }

    /// A producer is live; SENDs are expected once its response is handed to the socket.
    pub(super) fn open_producer(&mut self, id: u64, topic: Arc<str>) {
        let closed_at = match self.producers.get(&id) {
            Some(ProducerSlot::ClosedByBroker { at }) => Some(*at),
            _ => None,
        };
        self.producers.insert(id, ProducerSlot::Live { topic, is_answered: false, closed_at });
        self.unanswered_producers.push(id);
    }

    /// A consumer is live; FLOWs are expected once its response is handed to the socket.
    pub(super) fn open_consumer(&mut self, id: u64, topic: Arc<str>, subscription: Arc<str>) {
        self.consumers.insert(id, ConsumerSlot::Live { topic, subscription, is_answered: false });
        self.unanswered_consumers.push(id);
    }

    /// All responses were handed to the socket.
    pub(super) fn mark_answered(&mut self) {
        for id in self.unanswered_producers.drain(..) {
            if let Some(ProducerSlot::Live { is_answered, .. }) = self.producers.get_mut(&id) {
                *is_answered = true;
            }
        }
        for id in self.unanswered_consumers.drain(..) {
            if let Some(ConsumerSlot::Live { is_answered, .. }) = self.consumers.get_mut(&id) {
                *is_answered = true;
            }
        }
    }

    /// Live and queued producers, by their id.
    pub(crate) fn topics_of_producers(&self) -> Vec<(u64, Arc<str>)> {
        self.producers.iter().filter_map(|(id, slot)| slot.topic().map(|topic| (*id, Arc::clone(topic)))).collect()
    }

    /// Live consumers, by their id.
    pub(crate) fn subscriptions_of_consumers(&self) -> Vec<(u64, Arc<str>, Arc<str>)> {
        let live = |(id, slot): (&u64, &ConsumerSlot)| slot.subscription().map(|(topic, sub)| (*id, topic, sub));
        self.consumers.iter().filter_map(live).collect()
    }
}
