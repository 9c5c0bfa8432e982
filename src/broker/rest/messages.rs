//! Stored messages: one of them as it is, by its id or its place, and ids of messages.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Route, get};
use super::subscriptions::missing_subscription;
use super::time::iso;
use super::topics::{id_json, missing};
use super::{Outcome, RestAnswer};
use crate::broker::admin::unacknowledged;
use crate::broker::machine::Broker;
use crate::broker::storage::{EntryPosition, StoredEntry};
use crate::pb::MessageMetadata;
use crate::topic::TopicName;
use crate::wire::compress::decompress;
use crate::wire::entry::EntryParts;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/ledger/{ledger}/entry/{entry}", by_id),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/position/{position}", peek),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/examinemessage", examine),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/lastMessageId", last_id),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/messageid/{time}", id_by_time),
];

/// The largest payload that is decompressed for an answer, bytes.
const PAYLOAD_BYTES_MAX: usize = 128 * 1024 * 1024;

/// The topic of a request that is answered by one topic alone, with `refusal` for a partitioned one.
fn one_topic(broker: &Broker, call: &Call<'_>, refusal: &str) -> Result<(TopicName, Arc<str>), RestAnswer> {
    let name = call.topic()?;
    if broker.topics.partitions(&name).is_some() {
        return Err(RestAnswer::refused(405, refusal));
    }
    let topic = broker.rest_topic(&name)?;
    Ok((name, topic))
}

fn by_id(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let at = EntryPosition { ledger: call.number("ledger")?, entry: call.number("entry")? };
    let (_, topic) = one_topic(broker, call, "GetMessageById is not allowed on partitioned-topic")?;
    let entry = broker.topics.get(&topic).and_then(|found| found.log.get(found.log.offset(at)?));
    entry.map(message).ok_or_else(|| RestAnswer::refused(404, "Message id not found"))
}

fn peek(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let position = usize::try_from(call.number("position")?).unwrap_or(0);
    let (name, topic) = one_topic(broker, call, "Peek messages on a partitioned topic is not allowed")?;
    // As at a real broker, a subscription that is not there is made.
    let subscription = Arc::from(call.segment("subscription"));
    broker.create_initial_subscription(&topic, &subscription)?;
    let found = broker.topics.get(&topic).ok_or_else(|| missing(&name))?;
    let sub = found.subscriptions.get(&subscription).ok_or_else(|| missing_subscription(&name, &subscription))?;
    let offset = unacknowledged(sub, &found.log).nth(position.saturating_sub(1));
    let entry = offset.and_then(|offset| found.log.get(offset));
    entry.map(message).ok_or_else(|| RestAnswer::refused(404, "Message not found"))
}

fn examine(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (name, topic) = one_topic(broker, call, "Examine messages on a partitioned topic is not allowed")?;
    let position = call.parameter("messagePosition").and_then(|text| text.parse().ok()).unwrap_or(1u64).max(1);
    let log = &broker.topics.get(&topic).ok_or_else(|| missing(&name))?.log;
    let offset = match call.parameter("initialPosition").as_deref() {
        Some("earliest") => log.first().saturating_add(position - 1).min(log.end().saturating_sub(1)),
        _ => log.end().saturating_sub(position).max(log.first()),
    };
    log.get(offset)
        .map(message)
        .ok_or_else(|| RestAnswer::refused(412, "Could not examine messages due to the total message is zero"))
}

fn last_id(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let topic = broker.rest_topic(&name)?;
    if !name.is_persistent() {
        return Err(RestAnswer::refused(405, "GetLastMessageId on a non-persistent topic is not allowed"));
    }
    let found = broker.topics.get(&topic).ok_or_else(|| missing(&name))?;
    let last = found.log.end().checked_sub(1).and_then(|offset| found.log.get(offset));
    let at = last.map_or_else(|| found.log.position_before(found.log.end()), |entry| entry.position);
    let mut id = id_json(at, found.partition());
    if let Some(members) = last.and_then(|entry| entry.info.batch) {
        id["batchIndex"] = json!(i64::from(members) - 1);
        id["originalBatchSize"] = json!(0);
        id["outstandingAcksInSameBatch"] = json!(0);
    }
    Ok(id.into())
}

fn id_by_time(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let time_ms = u64::try_from(call.number("time")?).unwrap_or(0);
    let (name, topic) = one_topic(broker, call, "Get message ID by timestamp on a partitioned topic is not allowed")?;
    let found = broker.topics.get(&topic).ok_or_else(|| missing(&name))?;
    let at = found.log.position(found.log.offset_at_time(time_ms));
    Ok(id_json(at, found.partition()).into())
}

/// A stored entry: its payload, decompressed, and its metadata as headers.
fn message(entry: &StoredEntry) -> RestAnswer {
    let parts = EntryParts::split(&entry.bytes).ok();
    let read = parts.and_then(|parts| {
        let metadata = MessageMetadata::decode(entry.bytes.get(parts.metadata)?).ok()?;
        Some((metadata, entry.bytes.slice(parts.payload)))
    });
    let Some((metadata, payload)) = read else {
        return RestAnswer::refused(500, "The metadata of the message cannot be read");
    };
    let size = metadata.uncompressed_size.unwrap_or(0);
    let payload = match metadata.encryption_keys.is_empty() {
        true => decompress(metadata.compression.unwrap_or(0), &payload, size, PAYLOAD_BYTES_MAX),
        false => Ok(payload),
    };
    match payload {
        Ok(payload) => RestAnswer { headers: headers(entry, &metadata, &payload), ..RestAnswer::text(payload.clone()) },
        Err(error) => RestAnswer::refused(500, error.to_string()),
    }
}

/// The headers of an entry, in the names that the admin clients read.
fn headers(entry: &StoredEntry, metadata: &MessageMetadata, payload: &Bytes) -> Vec<(String, String)> {
    let mut headers = vec![("X-Pulsar-Message-ID".to_owned(), entry.position.to_string())];
    let mut put = |name: &str, value: Option<String>| headers.extend(value.map(|value| (name.to_owned(), value)));
    put("X-Pulsar-producer-name", Some(metadata.producer_name.clone()));
    put("X-Pulsar-sequence-id", Some(metadata.sequence_id.to_string()));
    put("X-Pulsar-publish-time", Some(iso(metadata.publish_time)));
    put("X-Pulsar-event-time", metadata.event_time.map(iso));
    put("X-Pulsar-deliver-at-time", metadata.deliver_at_time.map(|at| iso(u64::try_from(at).unwrap_or(0))));
    put("X-Pulsar-partition-key", metadata.partition_key.clone());
    put("X-Pulsar-partition-key-b64-encoded", metadata.partition_key_b64_encoded.map(|flag| flag.to_string()));
    put("X-Pulsar-null-value", metadata.null_value.map(|flag| flag.to_string()));
    put("X-Pulsar-null-partition-key", metadata.null_partition_key.map(|flag| flag.to_string()));
    put("X-Pulsar-replicated-from", metadata.replicated_from.clone());
    put("X-Pulsar-Is-Encrypted", Some((!metadata.encryption_keys.is_empty()).to_string()));
    put("X-Pulsar-txn-uncommitted", Some("false".to_owned()));
    let batch = metadata.num_messages_in_batch;
    put("X-Pulsar-num-batch-message", batch.map(|members| members.to_string()));
    put("X-Pulsar-batch-size", batch.map(|_| payload.len().to_string()));
    let properties = metadata.properties.iter().map(|pair| (pair.key.clone(), json!(pair.value)));
    put("X-Pulsar-PROPERTY", Some(Value::Object(properties.collect()).to_string()));
    headers
}
