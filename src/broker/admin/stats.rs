//! What a console shows of a topic, in the names of Pulsar's admin statistics.

use std::collections::BTreeMap;

/// Statistics of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicStats {
    /// Messages published since the topic was created; members of a batch count one by one.
    pub msg_in_counter: u64,
    /// Bytes of entries published since the topic was created.
    pub bytes_in_counter: u64,
    /// Entries stored now.
    pub entries: u64,
    /// Bytes of entries stored now.
    pub storage_size: u64,
    /// Names of the connected producers.
    pub publishers: Vec<String>,
    /// The subscriptions by name.
    pub subscriptions: BTreeMap<String, SubscriptionStats>,
    /// No further messages are accepted.
    pub terminated: bool,
}

/// Statistics of one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// `Exclusive`, `Shared`, `Failover`, `Key_Shared`; empty before the first consumer.
    pub subscription_type: String,
    /// Messages not yet acknowledged, delivered or not. A real broker counts entries here.
    pub msg_backlog: u64,
    /// Messages delivered and not yet acknowledged.
    pub unacked_messages: u64,
    /// Messages delivered, redeliveries included.
    pub msg_out_counter: u64,
    /// False for a reader's subscription, which goes with its consumer.
    pub durable: bool,
    /// The connected consumers.
    pub consumers: Vec<ConsumerStats>,
}

/// Statistics of one consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// `consumer_name` of SUBSCRIBE.
    pub consumer_name: String,
    /// Messages that may still be sent; below zero after a batch went out on fewer permits.
    pub available_permits: i64,
    /// Messages delivered to this consumer and not yet acknowledged.
    pub unacked_messages: u64,
    /// Messages delivered to this consumer, redeliveries included.
    pub msg_out_counter: u64,
}
