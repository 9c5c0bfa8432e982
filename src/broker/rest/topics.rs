//! Topics: made, listed, unloaded, ended and deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Access, Route, delete, get, post, put};
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;
use crate::broker::storage::EntryPosition;
use crate::broker::topics::{PARTITIONS_MAX, too_many_topics};
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::topic::TopicName;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/namespaces/{tenant}/{namespace}/topics", of_namespace).access(Access::InNamespace),
    get("admin/v2/{domain}/{tenant}/{namespace}", list).access(Access::InNamespace),
    get("admin/v2/{domain}/{tenant}/{namespace}/partitioned", list_partitioned).access(Access::InNamespace),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}", create).access(Access::Namespace),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}", remove).access(Access::Namespace),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitions", create_partitioned).access(Access::Namespace),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitions", add_partitions),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitions", remove_partitioned),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/createMissedPartitions", create_missed_partitions),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/properties", properties),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/properties", set_properties),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/properties", remove_property),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/unload", unload),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/terminate", terminate),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/terminate/partitions", terminate_partitioned),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/truncate", truncate),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/compaction", compaction),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/compaction", compact),
];

/// That a topic is not there.
pub(super) fn missing(name: &TopicName) -> RestAnswer {
    RestAnswer::refused(404, format!("Topic {name} not found"))
}

/// That a partition has no partitions.
pub(super) fn is_partition() -> RestAnswer {
    RestAnswer::refused(412, "Partitioned Topic Name should not contain '-partition-'")
}

/// That a topic without partitions is not one with partitions.
pub(super) fn missing_partitioned(name: &TopicName) -> RestAnswer {
    RestAnswer::refused(404, format!("Partitioned Topic {name} not found"))
}

impl Broker {
    /// The topics that a request about this name means: the partitions of a partitioned topic, or the topic itself.
    pub(super) fn rest_targets(&self, name: &TopicName) -> Result<Vec<Arc<str>>, RestAnswer> {
        match self.topics.partitions(name) {
            Some(_) => Ok(self.topics.resolve(name.as_str())),
            None => self.rest_topic(name).map(|topic| vec![topic]),
        }
    }

    /// The topic of this name, which is not partitioned.
    pub(super) fn rest_topic(&self, name: &TopicName) -> Result<Arc<str>, RestAnswer> {
        self.topics.key(name.as_str()).ok_or_else(|| missing(name))
    }

    /// Whether the namespace is there, as what creates topics says it.
    pub(super) fn rest_namespace_found(&self, namespace: &str) -> Result<(), RestAnswer> {
        self.rest_namespace(namespace).map_err(|_| RestAnswer::refused(404, "Namespace not found"))
    }

    /// Whether the namespace is there.
    pub(super) fn rest_namespace(&self, namespace: &str) -> Result<(), RestAnswer> {
        if self.config.has_namespace(namespace) {
            return Ok(());
        }
        Err(RestAnswer::refused(404, "Namespace does not exist"))
    }
}

fn of_namespace(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let namespace = call.namespace();
    broker.rest_namespace(&namespace)?;
    let mode = match call.parameter("mode").as_deref() {
        Some("ALL") => Mode::All,
        Some("NON_PERSISTENT") => Mode::NonPersistent,
        _ => Mode::Persistent,
    };
    Ok(json!(broker.topics.names_of(&namespace, mode, None)).into())
}

fn list(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let namespace = call.namespace();
    broker.rest_namespace(&namespace)?;
    let mode = if call.segment("domain") == "persistent" { Mode::Persistent } else { Mode::NonPersistent };
    Ok(json!(broker.topics.names_of(&namespace, mode, None)).into())
}

fn list_partitioned(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    broker.rest_namespace(&call.namespace())?;
    let prefix = format!("{}://{}/", call.segment("domain"), call.namespace());
    let names: Vec<_> = broker.topics.partitioned_names().filter(|name| name.starts_with(&prefix)).collect();
    Ok(json!(names).into())
}

fn create(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let properties = texts(&call.body()?)?;
    broker.rest_namespace_found(name.namespace())?;
    let base = name.base();
    if broker.topics.contains(name.as_str()) || broker.topics.partitions(&name).is_some() {
        return Err(RestAnswer::refused(409, "This topic already exists"));
    }
    if let Some(index) = name.partition_index() {
        let (topic, base) = (name.local_name(), base.local_name());
        let partitions = broker.topics.partitions(&name.base());
        let reason = match partitions {
            Some(partitions) if index < partitions => None,
            Some(_) => Some(format!(
                "Can't create topic {topic} with \"-partition-\" followed by a number smaller than number of partition \
                 of partitioned topic {base}"
            )),
            None => Some(format!(
                "Can't create topic {topic} with \"-partition-\" followed by numeric value if there isn't a partitioned \
                 topic {base} created."
            )),
        };
        if let Some(reason) = reason {
            return Err(RestAnswer::refused(412, reason));
        }
    }
    if !broker.create_topic(name.as_str()) {
        return Err(is_full());
    }
    broker.topics.set_properties(name.as_str(), properties);
    Ok(RestAnswer::done())
}

/// The number of partitions and the properties of a body: a number, or an object with both.
fn partitioned_body(call: &Call<'_>) -> Result<(i64, BTreeMap<String, String>), RestAnswer> {
    let body = call.body()?;
    let properties = texts(&body["properties"])?;
    let partitions = if body.is_object() { &body["partitions"] } else { &body };
    let partitions = match partitions {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    };
    let partitions = partitions.ok_or_else(|| RestAnswer::refused(400, "The number of partitions is no number"))?;
    Ok((partitions, properties))
}

fn create_partitioned(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let (partitions, properties) = partitioned_body(call)?;
    broker.rest_namespace_found(name.namespace())?;
    if name.partition_index().is_some() {
        return Err(is_partition());
    }
    let partitions = checked_partitions(partitions)?;
    if broker.topics.partitions(&name).is_some() || broker.topics.contains(name.as_str()) {
        return Err(RestAnswer::refused(409, "This topic already exists"));
    }
    if !broker.create_partitioned_topic(name.as_str(), partitions) {
        return Err(is_full());
    }
    broker.topics.set_properties(name.as_str(), properties);
    Ok(RestAnswer::done())
}

fn is_full() -> RestAnswer {
    RestAnswer::refused(412, too_many_topics())
}

fn checked_partitions(partitions: i64) -> Result<u32, RestAnswer> {
    if partitions <= 0 {
        return Err(RestAnswer::refused(406, "Number of partitions should be more than 0"));
    }
    match u32::try_from(partitions) {
        Ok(count) if count <= PARTITIONS_MAX => Ok(count),
        _ => {
            let reason =
                format!("The number of partitions should be greater than 0 and less than or equal to {PARTITIONS_MAX}");
            Err(RestAnswer::refused(406, reason))
        }
    }
}

fn add_partitions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let wanted = partitioned_body(call)?.0;
    let Some(before) = broker.topics.partitions(&name) else {
        return Err(RestAnswer::refused(409, format!("Topic {name} is not the partitioned topic.")));
    };
    if wanted < i64::from(before) {
        let reason = format!("Desired partitions {wanted} can't be less than the current partitions {before}.");
        return Err(RestAnswer::refused(422, reason));
    }
    let wanted = checked_partitions(wanted)?;
    if !broker.create_partitioned_topic(name.as_str(), wanted) {
        return Err(is_full());
    }
    broker.copy_subscriptions(&name, before);
    Ok(RestAnswer::done())
}

fn create_missed_partitions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let Some(partitions) = broker.topics.partitions(&name) else {
        return Err(RestAnswer::refused(404, format!("Topic {name} does not exist")));
    };
    for partition in (0..partitions).map(|index| name.partition(index)) {
        broker.create_topic(partition.as_str());
    }
    Ok(RestAnswer::done())
}

fn remove(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    if broker.topics.partitions(&name).is_some() {
        let reason = format!(
            "{name} is a partitioned topic, instead of calling delete topic, please call delete-partitioned-topic."
        );
        return Err(RestAnswer::refused(409, reason));
    }
    let topic = broker.rest_topic(&name)?;
    if !call.flag("force") {
        check_unused(broker, &topic)?;
    }
    broker.delete_topic(&topic);
    Ok(RestAnswer::done())
}

fn remove_partitioned(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    if broker.topics.partitions(&name).is_none() {
        let (status, reason) = match broker.topics.contains(name.as_str()) {
            true => (
                409,
                format!(
                    "{name} is a non-partitioned topic. Instead of calling delete-partitioned-topic please call delete."
                ),
            ),
            false => (404, format!("Topic {name} not found.")),
        };
        return Err(RestAnswer::refused(status, reason));
    }
    for topic in broker.topics.resolve(name.as_str()).iter().filter(|_| !call.flag("force")) {
        check_unused(broker, topic)?;
    }
    broker.delete_topic(name.as_str());
    Ok(RestAnswer::done())
}

/// A topic that is in use is deleted by force alone.
fn check_unused(broker: &Broker, topic: &str) -> Result<(), RestAnswer> {
    let Some(found) = broker.topics.get(topic) else { return Ok(()) };
    let consumers: usize = found.subscriptions.values().map(|sub| sub.consumers.len()).sum();
    match found.producers.names().count() + consumers {
        0 => Ok(()),
        count => Err(RestAnswer::refused(412, format!("Topic has {count} connected producers/consumers"))),
    }
}

fn properties(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    Ok(json!(broker.topics.properties(name.as_str())).into())
}

fn set_properties(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    let mut properties = broker.topics.properties(name.as_str()).cloned().unwrap_or_default();
    properties.extend(texts(&call.body()?)?);
    broker.topics.set_properties(name.as_str(), properties);
    Ok(RestAnswer::done())
}

fn remove_property(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    let mut properties = broker.topics.properties(name.as_str()).cloned().unwrap_or_default();
    properties.remove(&call.parameter("key").unwrap_or_default());
    broker.topics.set_properties(name.as_str(), properties);
    Ok(RestAnswer::done())
}

/// An object of texts; an absent one is empty.
pub(super) fn texts(value: &Value) -> Result<BTreeMap<String, String>, RestAnswer> {
    let bad = || RestAnswer::refused(400, "Properties have to be an object of texts");
    let members = match value {
        Value::Null | Value::Number(_) | Value::String(_) => return Ok(BTreeMap::new()),
        Value::Object(members) => members,
        _ => return Err(bad()),
    };
    let text = |(key, value): (&String, &Value)| Ok((key.clone(), value.as_str().ok_or_else(bad)?.to_owned()));
    members.iter().map(text).collect()
}

fn unload(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    broker.unload(name.as_str());
    Ok(RestAnswer::done())
}

fn terminate(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    if !name.is_persistent() {
        return Err(RestAnswer::refused(406, "Need to provide a persistent topic name"));
    }
    if broker.topics.partitions(&name).is_some() {
        return Err(RestAnswer::refused(405, "Termination of a partitioned topic is not allowed"));
    }
    let topic = broker.rest_topic(&name)?;
    Ok(end(broker, &topic).into())
}

fn terminate_partitioned(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    let Some(partitions) = broker.topics.partitions(&name) else {
        let reason = "Termination of a non-partitioned topic is not allowed using partitioned-terminate, please use \
                      terminate commands";
        return Err(RestAnswer::refused(405, reason));
    };
    let mut last = serde_json::Map::new();
    for index in 0..partitions {
        let partition = name.partition(index);
        if let Some(topic) = broker.topics.key(partition.as_str()) {
            last.insert(index.to_string(), end(broker, &topic));
        }
    }
    Ok(Value::Object(last).into())
}

/// Ends a topic and says which message is its last.
fn end(broker: &mut Broker, topic: &str) -> Value {
    broker.terminate(topic);
    // A broker says nothing of the partition here.
    broker.topics.get(topic).map_or(Value::Null, |found| id_json(found.log.position_before(found.log.end()), -1))
}

/// The id of an entry.
pub(super) fn id_json(at: EntryPosition, partition: i32) -> Value {
    json!({
        "ledgerId": at.ledger,
        "entryId": at.entry,
        "partitionIndex": partition,
        "batchIndex": -1,
        "batchSize": 0,
    })
}

fn truncate(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    for topic in broker.rest_targets(&name)? {
        broker.truncate(&topic);
    }
    Ok(RestAnswer::done())
}

fn compact(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    broker.compact(name.as_str());
    Ok(RestAnswer::done())
}

/// A compaction is done when its request is answered.
fn compaction(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let topic = broker.rest_topic(&call.topic()?)?;
    let has_run = broker.topics.get(&topic).is_some_and(|found| found.compacted.horizon() > 0);
    Ok(json!({ "status": if has_run { "SUCCESS" } else { "NOT_RUN" }, "lastError": "" }).into())
}
