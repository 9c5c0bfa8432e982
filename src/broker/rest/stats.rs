//! Statistics of topics. What a broker measures over time, rates and sizes of what is not kept here, is zero.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Outcome;
use super::request::Call;
use super::routes::{Route, get, put};
use super::subscriptions::Position;
use super::time::iso;
use super::topics::{is_partition, missing, missing_partitioned};
use crate::broker::connections::EndpointDescription;
use crate::broker::ids::{ConnId, ProducerKey};
use crate::broker::machine::Broker;
use crate::broker::subscription::{SubscribedConsumer, Subscription};
use crate::broker::topics::Topic;
use crate::pb::ProducerAccessMode;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/stats", of_topic),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitioned-stats", of_partitions),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/internalStats", internal),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitioned-internalStats", internal_of_partitions),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/internal-info", internal_info),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/backlogSize", backlog_size),
];

fn of_topic(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = broker.rest_topic(&call.topic()?)?;
    Ok(shown(call, topic_json(broker, &topic)).into())
}

fn of_partitions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    if name.partition_index().is_some() {
        return Err(is_partition());
    }
    let Some(partitions) = broker.topics.partitions(&name) else {
        return Err(missing_partitioned(&name));
    };
    let topics: Vec<_> = broker.topics.resolve(name.as_str());
    let each: Vec<_> = topics.iter().map(|topic| shown(call, topic_json(broker, topic))).collect();
    let mut all = sum(&each);
    all["metadata"] = json!({ "partitions": partitions, "deleted": false });
    let per_partition = call.parameter("perPartition").is_none_or(|value| value != "false");
    let named = topics.iter().map(ToString::to_string).zip(each).filter(|_| per_partition);
    all["partitions"] = Value::Object(named.collect());
    Ok(all.into())
}

/// The statistics of a topic without what the request leaves out.
fn shown(call: &Call<'_>, mut stats: Value) -> Value {
    if call.flag("excludePublishers") {
        stats["publishers"] = json!([]);
    }
    if call.flag("excludeConsumers") {
        if let Some(subscriptions) = stats["subscriptions"].as_object_mut() {
            subscriptions.values_mut().for_each(|sub| sub["consumers"] = json!([]));
        }
    }
    stats
}

/// What the partitions have together: numbers are joined by [`Join`], subscriptions by name. Publishers and consumers are joined
/// one by one where two partitions have as many of them, as on a real broker, else listed.
fn sum(each: &[Value]) -> Value {
    let mut all = json!({});
    for (before, stats) in each.iter().enumerate() {
        add(&mut all, stats, before);
    }
    all
}

/// How a number of one partition and those of the partitions before become one.
enum Join {
    Sum,
    Mean,
    /// That of the first.
    First,
    Earliest,
    Latest,
}

impl Join {
    fn of(member: &str) -> Self {
        match member {
            "averageMsgSize" => Self::Mean,
            "producerId" | "avgMessagesPerEntry" => Self::First,
            "topicCreationTimeStamp" | "earliestMsgPublishTimeInBacklog" | "earliestMsgPublishTimeInBacklogs" => {
                Self::Earliest
            }
            member if member.starts_with("last") => Self::Latest,
            _ => Self::Sum,
        }
    }

    /// `before` is the number of partitions in `one`.
    fn join(self, one: &Value, other: &Value, before: usize) -> Value {
        let whole = |value: &Value| value.as_i64().unwrap_or(0);
        let real = |value: &Value| value.as_f64().unwrap_or(0.0);
        match self {
            Self::Mean => json!((real(one) * before as f64 + real(other)) / (before + 1) as f64),
            Self::First => one.clone(),
            // A time that is 0 is none.
            Self::Earliest if whole(one) == 0 || whole(other) == 0 => json!(whole(one).max(whole(other))),
            Self::Earliest => json!(whole(one).min(whole(other))),
            Self::Latest => json!(whole(one).max(whole(other))),
            Self::Sum if one.is_i64() && other.is_i64() => json!(whole(one).saturating_add(whole(other))),
            Self::Sum => json!(real(one) + real(other)),
        }
    }
}

fn add(to: &mut Value, value: &Value, before: usize) {
    match (to, value) {
        (Value::Object(to), Value::Object(members)) => {
            for (name, value) in members {
                match to.entry(name.clone()).or_insert(Value::Null) {
                    known if known.is_number() => *known = Join::of(name).join(known, value, before),
                    known => add(known, value, before),
                }
            }
        }
        (Value::Array(to), Value::Array(members)) if to.len() == members.len() => {
            to.iter_mut().zip(members).for_each(|(to, value)| add(to, value, before));
        }
        (Value::Array(to), Value::Array(members)) => to.extend(members.iter().cloned()),
        (to, value) => *to = value.clone(),
    }
}

fn topic_json(broker: &Broker, topic: &str) -> Value {
    let Some(found) = broker.topics.get(topic) else { return Value::Null };
    let publishers: Vec<_> =
        found.producers.iter().map(|(key, name)| publisher_json(broker, found, key, name)).collect();
    let subscriptions: Map<_, _> = found
        .subscriptions
        .iter()
        .map(|(name, sub)| (name.to_string(), subscription_json(broker, found, sub)))
        .collect();
    let out = |member: &str| subscriptions.values().filter_map(|sub| sub[member].as_u64()).sum::<u64>();
    let published = found.published;
    let last = found.log.end().checked_sub(1).and_then(|last| found.log.get(last));
    let average = if published.messages == 0 { 0.0 } else { published.bytes as f64 / published.messages as f64 };
    json!({
        "msgRateIn": 0.0,
        "msgThroughputIn": 0.0,
        "msgRateOut": 0.0,
        "msgThroughputOut": 0.0,
        "msgInCounter": published.messages,
        "bytesInCounter": published.bytes,
        "msgOutCounter": out("msgOutCounter"),
        "bytesOutCounter": out("bytesOutCounter"),
        "averageMsgSize": average,
        "msgChunkPublished": false,
        "storageSize": found.log.bytes(),
        "backlogSize": out("backlogSize"),
        "publishRateLimitedTimes": 0,
        "earliestMsgPublishTimeInBacklogs": 0,
        "offloadedStorageSize": 0,
        "waitingPublishers": found.producers.waiting(),
        "publishers": publishers,
        "subscriptions": subscriptions,
        "replication": {},
        "deduplicationStatus": if found.policies.deduplication_enabled == Some(true) { "Enabled" } else { "Disabled" },
        "nonContiguousDeletedMessagesRanges": 0,
        "nonContiguousDeletedMessagesRangesSerializedSize": 0,
        "ownerBroker": broker.web_address(),
        "topicCreationTimeStamp": found.created_ms,
        "lastPublishTimeStamp": last.map_or(0, |last| last.stored_ms),
    })
}

/// What producers and consumers share: where they are, and what they said of themselves.
fn describe(broker: &Broker, conn: ConnId, description: &EndpointDescription, stats: &mut Value) {
    if let Some(connection) = broker.connections.get(conn) {
        if let Some(address) = connection.address {
            stats["address"] = json!(format!("/{address}"));
        }
        if let Some(version) = &connection.negotiated.client_version {
            stats["clientVersion"] = json!(version);
        }
        if let Some(identity) = &connection.credentials.identity {
            stats["appId"] = json!(identity.role);
        }
    }
    stats["connectedSince"] = json!(iso(description.connected_ms));
    let metadata = description.metadata.iter().map(|pair| (pair.key.clone(), json!(pair.value)));
    stats["metadata"] = Value::Object(metadata.collect());
}

fn publisher_json(broker: &Broker, topic: &Topic, key: ProducerKey, name: &str) -> Value {
    let description = topic.producers.description(key).cloned().unwrap_or_default();
    let mode = ProducerAccessMode::try_from(description.access_mode).unwrap_or_default();
    let mut stats = json!({
        "accessMode": mode.as_str_name(),
        "msgRateIn": 0.0,
        "msgThroughputIn": 0.0,
        "averageMsgSize": 0.0,
        "chunkedMessageRate": 0.0,
        "producerId": key.id,
        "producerName": name,
        "supportsPartialProducer": false,
    });
    describe(broker, key.conn, &description, &mut stats);
    stats
}

fn subscription_json(broker: &Broker, topic: &Topic, sub: &Subscription) -> Value {
    let active = sub.active.active().and_then(|key| sub.consumers.get(key));
    let backlog = sub.backlog_entries(&topic.log);
    let consumers: Vec<_> = sub.consumers.iter().map(|consumer| consumer_json(broker, topic, sub, consumer)).collect();
    let delayed = sub.queue.delayed_entries() as u64;
    let mut stats = json!({
        "msgRateOut": 0.0,
        "msgThroughputOut": 0.0,
        "bytesOutCounter": 0,
        "msgOutCounter": sub.msg_out(),
        "msgRateRedeliver": 0.0,
        "messageAckRate": 0.0,
        "chunkedMessageRate": 0,
        "msgBacklog": backlog,
        "backlogSize": sub.backlog_bytes(&topic.log),
        "earliestMsgPublishTimeInBacklog": 0,
        "msgBacklogNoDelayed": backlog.saturating_sub(delayed),
        "blockedSubscriptionOnUnackedMsgs": sub.is_blocked_on_unacked(),
        "msgDelayed": delayed,
        "unackedMessages": sub.unacked_messages(),
        "type": sub.sub_type().as_str_name(),
        "msgRateExpired": 0.0,
        "totalMsgExpired": 0,
        "lastExpireTimestamp": 0,
        "lastConsumedFlowTimestamp": sub.activity().flow_ms,
        "lastConsumedTimestamp": sub.activity().consumed_ms,
        "lastAckedTimestamp": sub.activity().acked_ms,
        "lastMarkDeleteAdvancedTimestamp": 0,
        "consumers": consumers,
        "isDurable": sub.is_durable(),
        "isReplicated": false,
        "allowOutOfOrderDelivery": false,
        "consumersAfterMarkDeletePosition": {},
        "nonContiguousDeletedMessagesRanges": 0,
        "nonContiguousDeletedMessagesRangesSerializedSize": 0,
        "subscriptionProperties": sub.properties,
        "replicated": false,
        "durable": sub.is_durable(),
    });
    if sub.is_single_active() {
        stats["activeConsumerName"] = json!(active.map_or("", |consumer| &consumer.name));
    }
    stats
}

fn consumer_json(broker: &Broker, topic: &Topic, sub: &Subscription, consumer: &SubscribedConsumer) -> Value {
    let first = sub.held_by(consumer.key).first().and_then(|offset| topic.log.get(*offset));
    let mut stats = json!({
        "msgRateOut": 0.0,
        "msgThroughputOut": 0.0,
        "bytesOutCounter": 0,
        "msgOutCounter": consumer.msg_out,
        "msgRateRedeliver": 0.0,
        "messageAckRate": 0.0,
        "chunkedMessageRate": 0.0,
        "consumerName": *consumer.name,
        "availablePermits": consumer.permits,
        "unackedMessages": consumer.unacked,
        "avgMessagesPerEntry": 0,
        "blockedConsumerOnUnackedMsgs": consumer.blocked_on_unacked,
        "lastAckedTimestamp": consumer.activity.acked_ms,
        "lastConsumedTimestamp": consumer.activity.consumed_ms,
        "lastConsumedFlowTimestamp": consumer.activity.flow_ms,
    });
    if let Some(entry) = first {
        stats["readPositionWhenJoining"] = json!(entry.position.to_string());
    }
    describe(broker, consumer.key.conn, &consumer.description, &mut stats);
    stats
}

fn internal(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let topic = broker.rest_topic(&name)?;
    let found = broker.topics.get(&topic).ok_or_else(|| missing(&name))?;
    Ok(internal_json(found).into())
}

fn internal_of_partitions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let Some(partitions) = broker.topics.partitions(&name) else {
        return Err(missing_partitioned(&name));
    };
    let topics: Vec<Arc<str>> = broker.topics.resolve(name.as_str());
    let each = topics.iter().filter_map(|topic| Some((topic.to_string(), internal_json(broker.topics.get(topic)?))));
    let each = Value::Object(each.collect());
    Ok(json!({ "metadata": { "partitions": partitions, "deleted": false }, "partitions": each }).into())
}

fn internal_json(topic: &Topic) -> Value {
    let log = &topic.log;
    let held: Vec<_> = log.ledgers().collect();
    let open = held.last().copied();
    // The ledger that is written to is shown without its entries.
    let ledgers: Vec<_> = held
        .iter()
        .map(|(ledger, entries, bytes)| match open {
            Some(open) if open.0 == *ledger => ledger_json(*ledger, 0, 0),
            _ => ledger_json(*ledger, *entries as i64, *bytes as i64),
        })
        .collect();
    let last = log.position_before(log.end());
    let cursors: Map<_, _> =
        topic.subscriptions.iter().map(|(name, sub)| (name.to_string(), cursor_json(topic, sub))).collect();
    json!({
        "entriesAddedCounter": log.end(),
        "numberOfEntries": log.len(),
        "totalSize": log.bytes(),
        "currentLedgerEntries": open.map_or(0, |(_, entries, _)| entries),
        "currentLedgerSize": open.map_or(0, |(_, _, bytes)| bytes),
        "waitingCursorsCount": 0,
        "pendingAddEntriesCount": 0,
        "lastConfirmedEntry": last.to_string(),
        "state": if topic.is_terminated { "Terminated" } else { "LedgerOpened" },
        "ledgers": ledgers,
        "cursors": cursors,
        "schemaLedgers": [],
        "compactedLedger": ledger_json(-1, -1, -1),
    })
}

fn ledger_json(ledger: i64, entries: i64, bytes: i64) -> Value {
    json!({ "ledgerId": ledger, "entries": entries, "size": bytes, "offloaded": false, "underReplicated": false })
}

fn cursor_json(topic: &Topic, sub: &Subscription) -> Value {
    let log = &topic.log;
    let mark = sub.cursor.mark_delete().max(log.first());
    json!({
        "markDeletePosition": log.position_before(sub.cursor.mark_delete()).to_string(),
        "readPosition": log.position(sub.queue.read_position().max(mark)).to_string(),
        "waitingReadOp": false,
        "pendingReadOps": 0,
        "messagesConsumedCounter": log.end() - sub.backlog_entries(log).min(log.end()),
        "cursorLedger": -1,
        "cursorLedgerLastEntry": -1,
        "individuallyDeletedMessages": "[]",
        "lastLedgerSwitchTimestamp": iso(0),
        "state": "NoLedger",
        "active": !sub.consumers.is_empty(),
        "numberOfEntriesSinceFirstNotAckedMessage": log.end() - mark,
        "totalNonContiguousDeletedMessagesRange": 0,
        "subscriptionHavePendingRead": false,
        "subscriptionHavePendingReplayRead": false,
        "properties": {},
    })
}

fn internal_info(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let topic = broker.rest_topic(&name)?;
    let found = broker.topics.get(&topic).ok_or_else(|| missing(&name))?;
    let ledgers: Vec<_> = found
        .log
        .ledgers()
        .map(|(ledger, entries, bytes)| json!({ "ledgerId": ledger, "entries": entries, "size": bytes }))
        .collect();
    let cursors: Map<_, _> = found
        .subscriptions
        .iter()
        .map(|(name, sub)| {
            let mark = found.log.position_before(sub.cursor.mark_delete());
            let mark = json!({ "ledgerId": mark.ledger, "entryId": mark.entry });
            (name.to_string(), json!({ "cursorsLedgerId": -1, "markDelete": mark }))
        })
        .collect();
    Ok(json!({ "version": 0, "ledgers": ledgers, "cursors": cursors }).into())
}

/// The bytes from the message of an id on.
fn backlog_size(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (name, position) = (call.topic()?, Position::of(&call.body()?)?);
    let topic = broker.rest_topic(&name)?;
    let log = &broker.topics.get(&topic).ok_or_else(|| missing(&name))?.log;
    Ok(json!(log.bytes_from(position.offset(log))).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_times_and_ids_of_partitions_are_not_added_up() {
        let partition = |average: f64, created: u64, last: u64, id: u64| {
            json!({
                "msgInCounter": 2, "averageMsgSize": average, "topicCreationTimeStamp": created, "lastPublishTimeStamp": last,
                "publishers": [{ "producerId": id, "msgRateIn": 0.5 }],
                "subscriptions": { "s": { "lastAckedTimestamp": last, "msgBacklog": 3 } },
            })
        };
        let all = sum(&[partition(1.0, 30, 0, 4), partition(2.0, 10, 70, 5), partition(6.0, 20, 60, 6)]);
        let expected = json!({
            "msgInCounter": 6, "averageMsgSize": 3.0, "topicCreationTimeStamp": 10, "lastPublishTimeStamp": 70,
            "publishers": [{ "producerId": 4, "msgRateIn": 1.5 }],
            "subscriptions": { "s": { "lastAckedTimestamp": 70, "msgBacklog": 9 } },
        });
        assert_eq!(all, expected);
    }
}
