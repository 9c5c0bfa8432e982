//! Statistics as JSON, with the names of Pulsar's admin API.

use pulsar_native::{ConnectedConsumerStatistics, SubscriptionStatistics, TopicStatistics};
use serde_json::{Map, Value, json};

use super::table::type_name;

/// An array with an object for each topic.
pub(super) fn topics(topics: &[TopicStatistics]) -> String {
    format!("{:#}", topics.iter().map(topic).collect::<Value>())
}

fn topic(stats: &TopicStatistics) -> Value {
    let publishers: Vec<_> = stats.publishers.iter().map(|name| json!({ "producerName": name })).collect();
    let subscriptions = stats.subscriptions.iter().map(|(name, stats)| (name.clone(), subscription(stats)));
    json!({
        "topic": stats.topic,
        "msgInCounter": stats.msg_in_counter,
        "bytesInCounter": stats.bytes_in_counter,
        "msgRateIn": stats.msg_rate_in,
        "msgRateOut": stats.msg_rate_out,
        "storageSize": stats.storage_size,
        "publishers": publishers,
        "subscriptions": subscriptions.collect::<Map<_, _>>(),
    })
}

fn subscription(stats: &SubscriptionStatistics) -> Value {
    json!({
        "type": stats.subscription_type.map(type_name),
        "msgBacklog": stats.msg_backlog,
        "unackedMessages": stats.unacked_messages,
        "msgDelayed": stats.msg_delayed,
        "msgOutCounter": stats.msg_out_counter,
        "msgRateOut": stats.msg_rate_out,
        "activeConsumerName": stats.active_consumer_name,
        "blockedSubscriptionOnUnackedMsgs": stats.blocked_subscription_on_unacked_msgs,
        "isDurable": stats.is_durable,
        "consumers": stats.consumers.iter().map(consumer).collect::<Value>(),
    })
}

fn consumer(stats: &ConnectedConsumerStatistics) -> Value {
    json!({
        "consumerName": stats.consumer_name,
        "availablePermits": stats.available_permits,
        "unackedMessages": stats.unacked_messages,
        "msgOutCounter": stats.msg_out_counter,
        "msgRateOut": stats.msg_rate_out,
        "blockedConsumerOnUnackedMsgs": stats.blocked_consumer_on_unacked_msgs,
        "address": stats.address,
        "clientVersion": stats.client_version,
        "connectedSince": stats.connected_since,
    })
}
