//! The values of policies in the JSON of the admin API; null for one that is not set.

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::policies::{
    AutoTopicCreation, BacklogQuota, BacklogQuotaPolicy, DelayedDelivery, DispatchRate, InactiveTopicDeleteMode,
    InactiveTopicPolicies, PersistencePolicies, PublishRate, RetentionPolicies,
};

/// What is read, `None` for null; the error says what is wrong.
type Read<T> = Result<Option<T>, String>;

/// A member that is a number; one that is absent is 0.
fn member<T: TryFrom<i64> + Default>(value: &Value, name: &str) -> Result<T, String> {
    match &value[name] {
        Value::Null => Ok(T::default()),
        member => {
            let number = member.as_i64().and_then(|number| T::try_from(number).ok());
            number.ok_or_else(|| format!("{name} is not a number that fits: {member}"))
        }
    }
}

/// Reads a value that is an object.
fn object<T>(value: &Value, read: impl FnOnce(&Value) -> Result<T, String>) -> Read<T> {
    match value {
        Value::Null => Ok(None),
        Value::Object(_) => read(value).map(Some),
        other => Err(format!("an object is expected, not {other}")),
    }
}

pub(super) fn number<T: TryFrom<u64>>(value: &Value) -> Read<T> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("a number of 0 or more is expected, not {value}"))
}

pub(super) fn flag(value: &Value) -> Read<bool> {
    match value {
        Value::Null => Ok(None),
        value => value.as_bool().map(Some).ok_or_else(|| format!("true or false is expected, not {value}")),
    }
}

/// A value that goes by its name.
pub(super) fn named<T: FromStr<Err = String>>(value: &Value) -> Read<T> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => name.parse().map(Some).map_err(|name| format!("no such value: {name}")),
        other => Err(format!("a name is expected, not {other}")),
    }
}

/// A time to live.
pub(super) fn seconds(value: &Value) -> Read<Duration> {
    let seconds: Result<Option<u64>, _> = number(value);
    let seconds = seconds.map_err(|_| "Invalid value for message TTL, message TTL must >= 0".to_owned())?;
    Ok(seconds.map(Duration::from_secs))
}

pub(super) fn retention(value: &Value) -> Read<RetentionPolicies> {
    object(value, |value| {
        Ok(RetentionPolicies::new(member(value, "retentionTimeInMinutes")?, member(value, "retentionSizeInMB")?))
    })
}

pub(super) fn retention_json(retention: Option<RetentionPolicies>) -> Value {
    retention.map_or(Value::Null, |retention| {
        json!({
            "retentionTimeInMinutes": retention.retention_time_in_minutes,
            "retentionSizeInMB": retention.retention_size_in_mb,
        })
    })
}

pub(super) fn publish_rate(value: &Value) -> Read<PublishRate> {
    object(value, |value| {
        Ok(PublishRate::new(
            member(value, "publishThrottlingRateInMsg")?,
            member(value, "publishThrottlingRateInByte")?,
        ))
    })
}

pub(super) fn publish_rate_json(rate: Option<PublishRate>) -> Value {
    rate.map_or(Value::Null, |rate| {
        json!({
            "publishThrottlingRateInMsg": rate.publish_throttling_rate_in_msg,
            "publishThrottlingRateInByte": rate.publish_throttling_rate_in_byte,
        })
    })
}

pub(super) fn dispatch_rate(value: &Value) -> Read<DispatchRate> {
    object(value, |value| {
        let messages = member(value, "dispatchThrottlingRateInMsg")?;
        let mut rate = DispatchRate::new(messages, member(value, "dispatchThrottlingRateInByte")?);
        rate.relative_to_publish_rate = value["relativeToPublishRate"].as_bool().unwrap_or(false);
        if !value["ratePeriodInSecond"].is_null() {
            rate.rate_period_in_second = member(value, "ratePeriodInSecond")?;
        }
        Ok(rate)
    })
}

pub(super) fn dispatch_rate_json(rate: Option<DispatchRate>) -> Value {
    rate.map_or(Value::Null, |rate| {
        json!({
            "dispatchThrottlingRateInMsg": rate.dispatch_throttling_rate_in_msg,
            "dispatchThrottlingRateInByte": rate.dispatch_throttling_rate_in_byte,
            "relativeToPublishRate": rate.relative_to_publish_rate,
            "ratePeriodInSecond": rate.rate_period_in_second,
        })
    })
}

pub(super) fn no_dispatch_rate() -> Value {
    dispatch_rate_json(Some(DispatchRate::new(0, 0)))
}

pub(super) fn delayed_delivery(value: &Value) -> Read<DelayedDelivery> {
    object(value, |value| {
        let mut delayed = DelayedDelivery::new(value["active"].as_bool().unwrap_or(false));
        delayed.tick_time = member(value, "tickTime")?;
        delayed.max_delivery_delay_in_millis = member(value, "maxDeliveryDelayInMillis")?;
        Ok(delayed)
    })
}

pub(super) fn delayed_delivery_json(delayed: Option<DelayedDelivery>) -> Value {
    delayed.map_or(Value::Null, |delayed| {
        json!({
            "active": delayed.active,
            "tickTime": delayed.tick_time,
            "maxDeliveryDelayInMillis": delayed.max_delivery_delay_in_millis,
        })
    })
}

pub(super) fn auto_topic_creation(value: &Value) -> Read<AutoTopicCreation> {
    object(value, |value| {
        let mut creation = AutoTopicCreation::new(value["allowAutoTopicCreation"].as_bool().unwrap_or(false));
        let partitions = value["defaultNumPartitions"].as_i64();
        let problem = match (value["topicType"] == "partitioned", partitions) {
            (true, None) => "cannot be null when the type is partitioned.",
            (true, Some(..1)) => "cannot be less than 1 for partition type.",
            (false, Some(_)) => "is not allowed to be set when the type is non-partition.",
            (_, partitions) => {
                creation.default_num_partitions = partitions.and_then(|count| u32::try_from(count).ok());
                return Ok(creation);
            }
        };
        Err(format!(
            "Invalid configuration for autoTopicCreationOverride. the detail is [defaultNumPartitions] {problem}"
        ))
    })
}

pub(super) fn auto_topic_creation_json(creation: Option<AutoTopicCreation>) -> Value {
    let Some(creation) = creation else { return Value::Null };
    let allowed = creation.allow_auto_topic_creation;
    match creation.default_num_partitions {
        None => json!({ "allowAutoTopicCreation": allowed, "topicType": "non-partitioned" }),
        Some(partitions) => json!({
            "allowAutoTopicCreation": allowed,
            "topicType": "partitioned",
            "defaultNumPartitions": partitions,
        }),
    }
}

pub(super) fn inactive_topics(value: &Value) -> Read<InactiveTopicPolicies> {
    object(value, |value| {
        let mode: Option<InactiveTopicDeleteMode> = named(&value["inactiveTopicDeleteMode"])?;
        Ok(InactiveTopicPolicies::new(
            mode.unwrap_or(InactiveTopicDeleteMode::DeleteWhenNoSubscriptions),
            member(value, "maxInactiveDurationSeconds")?,
            value["deleteWhileInactive"].as_bool().unwrap_or(false),
        ))
    })
}

pub(super) fn inactive_topics_json(inactive: Option<InactiveTopicPolicies>) -> Value {
    inactive.map_or(Value::Null, |inactive| {
        json!({
            "inactiveTopicDeleteMode": inactive.inactive_topic_delete_mode.as_str(),
            "maxInactiveDurationSeconds": inactive.max_inactive_duration_seconds,
            "deleteWhileInactive": inactive.delete_while_inactive,
        })
    })
}

pub(super) fn persistence(value: &Value) -> Read<PersistencePolicies> {
    object(value, |value| {
        let mut persistence = PersistencePolicies::new(
            member(value, "bookkeeperEnsemble")?,
            member(value, "bookkeeperWriteQuorum")?,
            member(value, "bookkeeperAckQuorum")?,
        );
        persistence.managed_ledger_max_mark_delete_rate =
            value["managedLedgerMaxMarkDeleteRate"].as_f64().unwrap_or(0.0);
        Ok(persistence)
    })
}

pub(super) fn persistence_json(persistence: Option<PersistencePolicies>) -> Value {
    persistence.map_or(Value::Null, |persistence| {
        json!({
            "bookkeeperEnsemble": persistence.bookkeeper_ensemble,
            "bookkeeperWriteQuorum": persistence.bookkeeper_write_quorum,
            "bookkeeperAckQuorum": persistence.bookkeeper_ack_quorum,
            "managedLedgerMaxMarkDeleteRate": persistence.managed_ledger_max_mark_delete_rate,
        })
    })
}

/// A quota. Its size has two names, and its policy has to be given.
pub(super) fn quota(value: &Value) -> Option<BacklogQuota> {
    let policy: BacklogQuotaPolicy = value["policy"].as_str()?.parse().ok()?;
    let size = integer(&value["limitSize"]).or_else(|| integer(&value["limit"])).unwrap_or(0);
    let mut quota = BacklogQuota::new(size, policy);
    quota.limit_time = integer(&value["limitTime"]).and_then(|time| i32::try_from(time).ok()).unwrap_or(0);
    Some(quota)
}

/// A number, which may be written as a text: a real broker reads both.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) fn quota_json(quota: BacklogQuota) -> Value {
    json!({
        "limit": quota.limit_size,
        "limitSize": quota.limit_size,
        "limitTime": quota.limit_time,
        "policy": quota.policy.as_str(),
    })
}

/// What a broker shows where no quota is set. Nothing is limited by it here.
pub(super) fn default_quota() -> Value {
    quota_json(BacklogQuota::new(10 * 1024 * 1024 * 1024, BacklogQuotaPolicy::ProducerRequestHold))
}
