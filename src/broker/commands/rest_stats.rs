//! The statistics of a topic, and its limits, over the REST interface: the members that clients read.

use serde_json::{Value, json};

use crate::broker::admin::{ConnectedConsumerStats, SubscriptionStats, TopicStats};
use crate::broker::machine::Broker;
use crate::broker::refusal::refuse;
use crate::pb::ServerError;
use crate::topic::TopicName;
use crate::wire::command::Refusal;

impl Broker {
    /// `GET /admin/v2/{topic}/stats`.
    pub(super) fn rest_stats(&self, is_authorized: bool, topic: &str) -> Result<Value, Refusal> {
        self.check_reader(is_authorized, topic)?;
        self.stats(topic).map(|stats| topic_json(&stats)).ok_or_else(|| missing(topic))
    }

    /// `GET /admin/v2/{topic}/maxUnackedMessagesOnConsumer`: the limit that applies; there are no policies here.
    pub(super) fn rest_unacked_limit(&self, is_authorized: bool, topic: &str) -> Result<Value, Refusal> {
        self.check_reader(is_authorized, topic)?;
        Ok(json!(self.config.max_unacked_messages_per_consumer))
    }

    fn check_reader(&self, is_authorized: bool, topic: &str) -> Result<(), Refusal> {
        if !is_authorized {
            return Err(refuse(ServerError::AuthorizationError, "Unauthorized to validateTopicOperation"));
        }
        let name = TopicName::parse(topic).map_err(|_| missing(topic))?;
        if self.topics.contains(name.as_str()) { Ok(()) } else { Err(missing(topic)) }
    }
}

fn missing(topic: &str) -> Refusal {
    refuse(ServerError::TopicNotFound, format!("Topic {topic} not found"))
}

fn topic_json(stats: &TopicStats) -> Value {
    let subscriptions: serde_json::Map<_, _> =
        stats.subscriptions.iter().map(|(name, sub)| (name.clone(), subscription_json(sub))).collect();
    let publishers: Vec<_> = stats.publishers.iter().map(|name| json!({ "producerName": name })).collect();
    json!({
        "msgInCounter": stats.msg_in_counter,
        "bytesInCounter": stats.bytes_in_counter,
        "storageSize": stats.storage_size,
        "publishers": publishers,
        "subscriptions": subscriptions,
    })
}

fn subscription_json(stats: &SubscriptionStats) -> Value {
    json!({
        "type": stats.subscription_type,
        "msgBacklog": stats.backlog_entries,
        "msgDelayed": stats.msg_delayed,
        "unackedMessages": stats.unacked_messages,
        "msgOutCounter": stats.msg_out_counter,
        "blockedSubscriptionOnUnackedMsgs": false,
        "activeConsumerName": stats.active_consumer_name,
        "isDurable": stats.durable,
        "consumers": stats.consumers.iter().map(consumer_json).collect::<Vec<_>>(),
    })
}

fn consumer_json(stats: &ConnectedConsumerStats) -> Value {
    json!({
        "consumerName": stats.consumer_name,
        "availablePermits": stats.available_permits,
        "unackedMessages": stats.unacked_messages,
        "msgOutCounter": stats.msg_out_counter,
        "blockedConsumerOnUnackedMsgs": stats.blocked_on_unacked,
        "clientVersion": stats.client_version,
    })
}
