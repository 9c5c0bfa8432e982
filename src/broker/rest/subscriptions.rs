//! Subscriptions: made, deleted, moved.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::request::Call;
use super::routes::{Route, delete, get, post, put};
use super::topics::{missing, texts};
use super::{Outcome, RestAnswer};
use crate::broker::admin::unacknowledged;
use crate::broker::machine::Broker;
use crate::broker::storage::{EntryPosition, Log, StoredEntry};
use crate::broker::subscription::Subscription;
use crate::pb::ServerError;
use crate::topic::TopicName;
use crate::wire::command::Refusal;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscriptions", list),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}", create),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}", remove),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/properties", properties),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/analyzeBacklog", analyze_backlog),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/properties", set_properties),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/skip/{count}", skip),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/skip_all", skip_all),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/resetcursor", reset_to_id),
    post(
        "admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/resetcursor/{time}",
        reset_to_time,
    ),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/expireMessages", expire_to_id),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/subscription/{subscription}/expireMessages/{seconds}", expire),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/all_subscription/expireMessages/{seconds}", expire_all),
];

/// The id that stands for the end of a topic, in both of its numbers.
const LATEST: i64 = i64::MAX;

/// Where a subscription is to stand: a message id, and whether reading starts behind it.
pub(super) struct Position {
    at: EntryPosition,
    is_excluded: bool,
}

impl Position {
    /// `null`, and the names of both ends, are understood where a body may be absent.
    pub(super) fn of(body: &Value) -> Result<Self, RestAnswer> {
        let at = match body.as_str() {
            Some("earliest") => EntryPosition::NONE,
            Some("latest") => EntryPosition { ledger: LATEST, entry: LATEST },
            Some(_) => return Err(RestAnswer::refused(400, "A position is an id, \"earliest\" or \"latest\"")),
            None if body.is_null() => EntryPosition { ledger: LATEST, entry: LATEST },
            None => {
                let number = |name: &str| body[name].as_i64().unwrap_or(0);
                EntryPosition { ledger: number("ledgerId"), entry: number("entryId") }
            }
        };
        let is_excluded = body["isExcluded"].as_bool().or(body["excluded"].as_bool()).unwrap_or(false);
        Ok(Self { at, is_excluded })
    }

    /// The offset that is read next.
    pub(super) fn offset(&self, log: &Log) -> u64 {
        let Some(offset) = log.offset_at_or_after(self.at) else { return log.end() };
        let is_there = log.position(offset) == self.at;
        if self.is_excluded && is_there { offset + 1 } else { offset }
    }

    /// The first offset that is left when all up to here is expired: behind the message of the id, if it is there and does not
    /// stay.
    fn expired_end(&self, log: &Log) -> u64 {
        let Some(offset) = log.offset_at_or_after(self.at) else { return log.end() };
        let is_there = log.position(offset) == self.at;
        if is_there && !self.is_excluded { offset + 1 } else { offset }
    }
}

pub(super) fn missing_subscription(name: &TopicName, subscription: &str) -> RestAnswer {
    RestAnswer::refused(404, format!("Subscription {subscription} not found for topic {name}"))
}

fn not_loaded(name: &TopicName, refusal: Refusal) -> RestAnswer {
    if refusal.code == i32::from(ServerError::TopicNotFound) {
        return missing(name);
    }
    RestAnswer::refused(412, refusal.message)
}

/// A subscription of one topic, by name.
struct Subscribed {
    topic: Arc<str>,
    sub: Arc<str>,
}

/// The subscriptions of this name that a request means, at least one.
fn subscribed(broker: &Broker, call: &Call<'_>) -> Result<Vec<Subscribed>, RestAnswer> {
    let (name, subscription) = (call.topic()?, call.segment("subscription"));
    let targets = broker.rest_targets(&name)?;
    let named = |topic: Arc<str>| {
        let (key, _) = broker.topics.get(&topic)?.subscriptions.get_key_value(subscription)?;
        let sub = Arc::clone(key);
        Some(Subscribed { topic, sub })
    };
    let found: Vec<_> = targets.into_iter().filter_map(named).collect();
    match broker.topics.partitions(&name) {
        _ if !found.is_empty() => Ok(found),
        Some(_) => Err(RestAnswer::refused(404, "Subscription not found")),
        None => Err(missing_subscription(&name, subscription)),
    }
}

fn list(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let mut names = BTreeSet::new();
    for topic in broker.rest_targets(&call.topic()?)? {
        let found = broker.topics.get(&topic);
        names.extend(found.into_iter().flat_map(|found| found.subscriptions.keys().map(ToString::to_string)));
    }
    Ok(json!(names).into())
}

fn create(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (name, subscription) = (call.topic()?, call.segment("subscription"));
    let body = call.body()?;
    let (position, properties) = (Position::of(&body)?, texts(&body["properties"])?);
    broker.rest_namespace_found(name.namespace())?;
    if !name.is_persistent() {
        let reason = "Create subscription on non-persistent topic can only be done through client";
        return Err(RestAnswer::refused(400, reason));
    }
    let targets = match broker.topics.partitions(&name) {
        Some(_) => broker.rest_targets(&name)?,
        None => vec![broker.load_topic(&name, true).map_err(|refusal| not_loaded(&name, refusal))?],
    };
    let exists = |topic: &Arc<str>| broker.topics.subscription(topic, subscription).is_some();
    if targets.iter().all(exists) {
        return Err(RestAnswer::refused(409, "Subscription already exists for topic"));
    }
    for topic in targets {
        let Some(found) = broker.topics.get_mut(&topic) else { continue };
        if found.subscriptions.contains_key(subscription) {
            continue;
        }
        found.check_new_subscription().map_err(|refusal| RestAnswer::refused(412, refusal.message))?;
        let mut sub = Subscription::new(true, position.offset(&found.log));
        sub.properties.clone_from(&properties);
        found.subscriptions.insert(Arc::from(subscription), sub);
    }
    Ok(RestAnswer::done())
}

fn remove(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let found = subscribed(broker, call)?;
    let has_consumers = |Subscribed { topic, sub }: &Subscribed| {
        broker.topics.subscription(topic, sub).is_some_and(|sub| !sub.consumers.is_empty())
    };
    if !call.flag("force") && found.iter().any(has_consumers) {
        return Err(RestAnswer::refused(412, "Subscription has active connected consumers"));
    }
    for Subscribed { topic, sub } in found {
        broker.remove_subscription(&topic, &sub);
    }
    Ok(RestAnswer::done())
}

fn properties(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let found = subscribed(broker, call)?;
    let sub = found.first().and_then(|Subscribed { topic, sub }| broker.topics.subscription(topic, sub));
    Ok(json!(sub.map(|sub| &sub.properties)).into())
}

fn set_properties(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let properties = texts(&call.body()?)?;
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        if let Some(sub) = broker.topics.subscription_mut(&topic, &sub) {
            sub.properties.clone_from(&properties);
        }
    }
    Ok(RestAnswer::done())
}

/// What a subscription has not acknowledged, from a position on if one is given.
fn analyze_backlog(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let body = call.body()?;
    let found = subscribed(broker, call)?;
    let one = found.first().and_then(|Subscribed { topic, sub }| Some((broker.topics.get(topic)?, sub)));
    let Some((topic, sub)) = one.and_then(|(topic, sub)| Some((topic, topic.subscriptions.get(sub)?))) else {
        return Ok(RestAnswer::empty());
    };
    let offsets: Vec<u64> = match body {
        Value::Null => unacknowledged(sub, &topic.log).collect(),
        body => (Position::of(&body)?.offset(&topic.log)..topic.log.end()).collect(),
    };
    let entries: Vec<_> = offsets.iter().filter_map(|offset| topic.log.get(*offset)).collect();
    let messages: u64 = entries.iter().map(|entry| u64::from(entry.info.messages())).sum();
    let id =
        |entry: Option<&&StoredEntry>| entry.map_or_else(|| "-1:-1".to_owned(), |entry| entry.position.to_string());
    Ok(json!({
        "entries": entries.len(),
        "messages": messages,
        "filterRejectedEntries": 0,
        "filterAcceptedEntries": entries.len(),
        "filterRescheduledEntries": 0,
        "filterRejectedMessages": 0,
        "filterAcceptedMessages": messages,
        "filterRescheduledMessages": 0,
        "aborted": false,
        "firstMessageId": id(entries.first()),
        "lastMessageId": id(entries.last()),
    })
    .into())
}

fn skip(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let count = call.number("count")?;
    let name = call.topic()?;
    if broker.topics.partitions(&name).is_some() {
        return Err(RestAnswer::refused(405, "Skip messages on a partitioned topic is not allowed"));
    }
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        broker.skip_entries(&topic, &sub, u64::try_from(count).unwrap_or(0));
    }
    Ok(RestAnswer::done())
}

fn skip_all(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        broker.skip_entries(&topic, &sub, u64::MAX);
    }
    Ok(RestAnswer::done())
}

fn reset_to_time(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let time_ms = u64::try_from(call.number("time")?).unwrap_or(0);
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        let offset = broker.topics.get(&topic).map_or(0, |found| found.log.offset_at_time(time_ms));
        broker.reset_subscription(&topic, &sub, offset, &[]);
    }
    Ok(RestAnswer::done())
}

fn reset_to_id(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.topic()?;
    if broker.topics.partitions(&name).is_some() {
        let reason = "Reset-cursor at position is not allowed for partitioned-topic";
        return Err(RestAnswer::refused(405, reason));
    }
    let position = Position::of(&call.body()?)?;
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        let offset = broker.topics.get(&topic).map_or(0, |found| position.offset(&found.log));
        broker.reset_subscription(&topic, &sub, offset, &[]);
    }
    Ok(RestAnswer::done())
}

/// From how many entries on a subscription with consumers is looked through for old ones, whatever its oldest is.
const BACKLOG_MIN: u64 = 1_000;

/// Acknowledges what was published before a time. That is refused where nothing is left to be delivered, or the consumers
/// are close behind and nothing is that old.
fn expire_before(broker: &mut Broker, found: Vec<Subscribed>, seconds: i64) -> Outcome {
    let age_ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let time_ms = broker.now.wall_ms.saturating_sub(age_ms);
    for Subscribed { topic, sub } in found {
        let Some((log, state)) =
            broker.topics.get(&topic).and_then(|found| Some((&found.log, found.subscriptions.get(&sub)?)))
        else {
            continue;
        };
        let (offset, backlog) = (log.offset_at_time(time_ms), state.backlog_entries(log));
        let is_close = !state.consumers.is_empty() && backlog < BACKLOG_MIN && state.cursor.mark_delete() >= offset;
        if backlog == 0 || is_close {
            let reason = format!(
                "Expire message by timestamp not issued on topic {topic} for subscription {sub} due to ongoing message \
                 expiration not finished or subscription almost catch  up. If it's performed on a partitioned topic \
                 operation might succeeded on other partitions, please check stats of individual partition."
            );
            return Err(RestAnswer::refused(409, reason));
        }
        broker.acknowledge_below(&topic, &sub, offset);
    }
    Ok(RestAnswer::done())
}

fn expire(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let seconds = call.number("seconds")?;
    let found = subscribed(broker, call)?;
    expire_before(broker, found, seconds)
}

fn expire_to_id(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let position = Position::of(&call.body()?)?;
    for Subscribed { topic, sub } in subscribed(broker, call)? {
        let end = broker.topics.get(&topic).map(|found| position.expired_end(&found.log));
        broker.acknowledge_below(&topic, &sub, end.unwrap_or(0));
    }
    Ok(RestAnswer::done())
}

fn expire_all(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let seconds = call.number("seconds")?;
    let mut found = Vec::new();
    for topic in broker.rest_targets(&call.topic()?)? {
        let subscriptions = broker.topics.get(&topic).into_iter().flat_map(|found| found.subscriptions.keys().cloned());
        found.extend(subscriptions.map(|sub| Subscribed { topic: Arc::clone(&topic), sub }));
    }
    expire_before(broker, found, seconds)
}
