//! Statistics of topics, in the names of Pulsar's admin API.

use std::collections::BTreeMap;

use crate::broker::machine::Broker;
use crate::broker::storage::Log;
use crate::broker::subscription::{SubscribedConsumer, Subscription};
use crate::topic::TopicName;

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
    /// Entries not yet acknowledged, delivered or not: what a real broker reports as `msgBacklog`.
    pub backlog_entries: u64,
    /// Entries whose delivery time has not come.
    pub msg_delayed: u64,
    /// Messages delivered and not yet acknowledged.
    pub unacked_messages: u64,
    /// It gets nothing because too many messages are not acknowledged, over all consumers.
    pub blocked_on_unacked: bool,
    /// Messages delivered, redeliveries included.
    pub msg_out_counter: u64,
    /// Messages delivered again, each time that they were.
    pub redelivered: u64,
    /// Exclusive and Failover: the name of the consumer that gets the messages; empty if there is none.
    pub active_consumer_name: String,
    /// False for a reader's subscription, which goes with its consumer.
    pub durable: bool,
    /// The connected consumers.
    pub consumers: Vec<ConnectedConsumerStats>,
}

/// Statistics of one consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectedConsumerStats {
    /// `consumer_name` of SUBSCRIBE.
    pub consumer_name: String,
    /// Messages that may still be sent; below zero after a batch held more messages than permits.
    pub available_permits: i64,
    /// Messages delivered to this consumer and not yet acknowledged.
    pub unacked_messages: u64,
    /// Messages delivered to this consumer, redeliveries included.
    pub msg_out_counter: u64,
    /// It gets nothing because too many messages are not acknowledged.
    pub blocked_on_unacked: bool,
    /// `client_version` of CONNECT; `None` for one with a space in it, which a broker does not take.
    pub client_version: Option<String>,
}

impl Broker {
    /// Names of all topics, partitions one by one.
    pub fn topics(&self) -> Vec<String> {
        self.topics.names()
    }

    /// Statistics of one topic, or of one partition.
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        let name = TopicName::parse(topic).ok()?;
        let found = self.topics.get(name.as_str())?;
        let subscriptions = found.subscriptions.iter();
        Some(TopicStats {
            msg_in_counter: found.published.messages,
            bytes_in_counter: found.published.bytes,
            entries: found.log.len(),
            storage_size: found.log.bytes() as u64,
            publishers: found.producers.names().map(ToString::to_string).collect(),
            subscriptions: subscriptions
                .map(|(name, sub)| (name.to_string(), self.subscription_stats(sub, &found.log)))
                .collect(),
            terminated: found.is_terminated,
        })
    }

    /// A figure of a topic, or the sum over its partitions; `None` where no part has it.
    pub(in crate::broker) fn total(&self, topic: &str, figure: impl Fn(&TopicStats) -> Option<u64>) -> Option<u64> {
        let parts = self.topics.resolve(topic);
        let figures = parts.iter().filter_map(|part| figure(&self.stats(part)?));
        figures.fold(None, |sum, one| Some(sum.unwrap_or(0) + one))
    }

    fn subscription_stats(&self, sub: &Subscription, log: &Log) -> SubscriptionStats {
        let active = sub.active.active().and_then(|key| sub.consumers.get(key));
        SubscriptionStats {
            subscription_type: sub.sub_type().as_str_name().to_owned(),
            msg_backlog: sub.backlog_messages(log),
            backlog_entries: sub.backlog_entries(log),
            msg_delayed: sub.queue.delayed_entries() as u64,
            unacked_messages: sub.unacked_messages(),
            blocked_on_unacked: sub.is_blocked_on_unacked(),
            msg_out_counter: sub.msg_out(),
            redelivered: sub.redelivered(),
            active_consumer_name: active.map(|consumer| consumer.name.to_string()).unwrap_or_default(),
            durable: sub.is_durable(),
            consumers: sub.consumers.iter().map(|consumer| self.consumer_stats(consumer)).collect(),
        }
    }

    fn consumer_stats(&self, consumer: &SubscribedConsumer) -> ConnectedConsumerStats {
        let connection = self.connections.get(consumer.key.conn);
        ConnectedConsumerStats {
            consumer_name: consumer.name.to_string(),
            available_permits: consumer.permits,
            unacked_messages: consumer.unacked,
            msg_out_counter: consumer.msg_out,
            blocked_on_unacked: consumer.blocked_on_unacked,
            client_version: connection.and_then(|connection| connection.negotiated.client_version.clone()),
        }
    }
}
