//! Policies of namespaces and topics: one table of them, with GET, POST and DELETE for each, and the paths of quotas.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::policy_values as values;
use super::request::Call;
use super::routes::{Route, delete, get, post, put};
use super::{Outcome, RestAnswer, kept, permissions};
use crate::broker::machine::Broker;
use crate::broker::policies::{BacklogQuotaType, PolicySet};

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/namespaces/{tenant}/{namespace}/backlogQuotaMap", quotas),
    post("admin/v2/namespaces/{tenant}/{namespace}/backlogQuota", set_quota),
    delete("admin/v2/namespaces/{tenant}/{namespace}/backlogQuota", remove_quota),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/backlogQuotaMap", quotas),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/backlogQuota", set_quota),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/backlogQuota", remove_quota),
    get("admin/v2/namespaces/{tenant}/{namespace}/persistence/bookieAffinity", |broker, call| kept::read(broker, call)),
    post("admin/v2/namespaces/{tenant}/{namespace}/persistence/bookieAffinity", kept::write),
    delete("admin/v2/namespaces/{tenant}/{namespace}/persistence/bookieAffinity", kept::clear),
    get("admin/v2/namespaces/{tenant}/{namespace}/{policy}", read),
    post("admin/v2/namespaces/{tenant}/{namespace}/{policy}", write),
    put("admin/v2/namespaces/{tenant}/{namespace}/{policy}", write),
    delete("admin/v2/namespaces/{tenant}/{namespace}/{policy}", clear),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/{policy}", read),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/{policy}", write),
    put("admin/v2/{domain}/{tenant}/{namespace}/{topic}/{policy}", write),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/{policy}", clear),
];

/// One policy: its paths, and its value in JSON, null for one that is not set.
struct Policy {
    /// The last segment of its path at a namespace; empty if there is none.
    of_namespace: &'static str,
    /// The same at a topic.
    of_topic: &'static str,
    read: fn(&PolicySet) -> Value,
    write: fn(&mut PolicySet, &Value) -> Result<(), String>,
    /// The value where no level sets it.
    default: fn() -> Value,
}

const POLICIES: &[Policy] = &[
    Policy {
        of_namespace: "messageTTL",
        of_topic: "messageTTL",
        read: |set| json!(set.message_ttl.map(|ttl| ttl.as_secs())),
        write: |set, value| values::seconds(value).map(|ttl| set.message_ttl = ttl),
        default: || json!(0),
    },
    Policy {
        of_namespace: "retention",
        of_topic: "retention",
        read: |set| values::retention_json(set.retention),
        write: |set, value| values::retention(value).map(|retention| set.retention = retention),
        default: || json!({ "retentionTimeInMinutes": 0, "retentionSizeInMB": 0 }),
    },
    Policy {
        of_namespace: "deduplication",
        of_topic: "deduplicationEnabled",
        read: |set| json!(set.deduplication_enabled),
        write: |set, value| values::flag(value).map(|flag| set.deduplication_enabled = flag),
        default: || json!(false),
    },
    Policy {
        of_namespace: "publishRate",
        of_topic: "publishRate",
        read: |set| values::publish_rate_json(set.publish_rate),
        write: |set, value| values::publish_rate(value).map(|rate| set.publish_rate = rate),
        default: || Value::Null,
    },
    Policy {
        of_namespace: "dispatchRate",
        of_topic: "dispatchRate",
        read: |set| values::dispatch_rate_json(set.dispatch_rate),
        write: |set, value| values::dispatch_rate(value).map(|rate| set.dispatch_rate = rate),
        default: values::no_dispatch_rate,
    },
    Policy {
        of_namespace: "subscriptionDispatchRate",
        of_topic: "subscriptionDispatchRate",
        read: |set| values::dispatch_rate_json(set.subscription_dispatch_rate),
        write: |set, value| values::dispatch_rate(value).map(|rate| set.subscription_dispatch_rate = rate),
        default: values::no_dispatch_rate,
    },
    Policy {
        of_namespace: "maxUnackedMessagesPerConsumer",
        of_topic: "maxUnackedMessagesOnConsumer",
        read: |set| json!(set.max_unacked_messages_per_consumer),
        write: |set, value| values::number(value).map(|max| set.max_unacked_messages_per_consumer = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "maxUnackedMessagesPerSubscription",
        of_topic: "maxUnackedMessagesOnSubscription",
        read: |set| json!(set.max_unacked_messages_per_subscription),
        write: |set, value| values::number(value).map(|max| set.max_unacked_messages_per_subscription = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "maxProducersPerTopic",
        of_topic: "maxProducers",
        read: |set| json!(set.max_producers_per_topic),
        write: |set, value| values::number(value).map(|max| set.max_producers_per_topic = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "maxConsumersPerTopic",
        of_topic: "maxConsumers",
        read: |set| json!(set.max_consumers_per_topic),
        write: |set, value| values::number(value).map(|max| set.max_consumers_per_topic = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "maxConsumersPerSubscription",
        of_topic: "maxConsumersPerSubscription",
        read: |set| json!(set.max_consumers_per_subscription),
        write: |set, value| values::number(value).map(|max| set.max_consumers_per_subscription = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "maxSubscriptionsPerTopic",
        of_topic: "maxSubscriptionsPerTopic",
        read: |set| json!(set.max_subscriptions_per_topic),
        write: |set, value| values::number(value).map(|max| set.max_subscriptions_per_topic = max),
        default: || json!(0),
    },
    Policy {
        of_namespace: "",
        of_topic: "maxMessageSize",
        read: |set| json!(set.max_message_size),
        write: |set, value| values::number(value).map(|max| set.max_message_size = max),
        default: || Value::Null,
    },
    Policy {
        of_namespace: "compactionThreshold",
        of_topic: "compactionThreshold",
        read: |set| json!(set.compaction_threshold),
        write: |set, value| values::number(value).map(|threshold| set.compaction_threshold = threshold),
        default: || json!(0),
    },
    Policy {
        of_namespace: "delayedDelivery",
        of_topic: "delayedDelivery",
        read: |set| values::delayed_delivery_json(set.delayed_delivery),
        write: |set, value| values::delayed_delivery(value).map(|delayed| set.delayed_delivery = delayed),
        default: || Value::Null,
    },
    Policy {
        of_namespace: "schemaCompatibilityStrategy",
        of_topic: "schemaCompatibilityStrategy",
        read: |set| json!(set.schema_compatibility_strategy.map(|strategy| strategy.as_str())),
        write: |set, value| values::named(value).map(|strategy| set.schema_compatibility_strategy = strategy),
        default: || json!("UNDEFINED"),
    },
    Policy {
        of_namespace: "schemaValidationEnforced",
        of_topic: "schemaValidationEnforced",
        read: |set| json!(set.schema_validation_enforced),
        write: |set, value| values::flag(value).map(|flag| set.schema_validation_enforced = flag),
        default: || json!(false),
    },
    Policy {
        of_namespace: "isAllowAutoUpdateSchema",
        of_topic: "",
        read: |set| json!(set.is_allow_auto_update_schema),
        write: |set, value| values::flag(value).map(|flag| set.is_allow_auto_update_schema = flag),
        default: || json!(true),
    },
    Policy {
        of_namespace: "autoTopicCreation",
        of_topic: "",
        read: |set| values::auto_topic_creation_json(set.auto_topic_creation),
        write: |set, value| values::auto_topic_creation(value).map(|creation| set.auto_topic_creation = creation),
        default: || Value::Null,
    },
    Policy {
        of_namespace: "inactiveTopicPolicies",
        of_topic: "inactiveTopicPolicies",
        read: |set| values::inactive_topics_json(set.inactive_topic_policies),
        write: |set, value| values::inactive_topics(value).map(|inactive| set.inactive_topic_policies = inactive),
        default: || Value::Null,
    },
    Policy {
        of_namespace: "persistence",
        of_topic: "persistence",
        read: |set| values::persistence_json(set.persistence),
        write: |set, value| values::persistence(value).map(|persistence| set.persistence = persistence),
        default: || Value::Null,
    },
];

/// Policies that a namespace shows also where it does not set them.
const SHOWN_UNSET: [&str; 3] = ["schemaCompatibilityStrategy", "schemaValidationEnforced", "isAllowAutoUpdateSchema"];

/// The policies of a namespace as one object, by their names there. What is not set is left out, but for what clients need.
pub(super) fn whole_json(set: &PolicySet, cluster: &str) -> Value {
    let quotas: Map<_, _> =
        set.backlog_quotas.iter().map(|(kind, quota)| (kind.to_string(), values::quota_json(*quota))).collect();
    let mut whole = json!({
        "auth_policies": {
            "namespace_auth": permissions::roles_json(set),
            "destination_auth": {},
            "subscription_auth_roles": permissions::subscriptions_json(set),
        },
        "allowed_clusters": [],
        "backlog_quota_map": quotas,
        "clusterDispatchRate": {},
        "topicDispatchRate": {},
        "subscriptionDispatchRate": {},
        "replicatorDispatchRate": {},
        "clusterSubscribeRate": {},
        "publishMaxMessageRate": {},
        "latency_stats_sample_rate": {},
        "deleted": false,
        "encryption_required": false,
        "subscription_auth_mode": "None",
        "offload_threshold": -1,
        "offload_threshold_in_seconds": -1,
        "subscription_types_enabled": [],
        "properties": {},
        "migrated": false,
        "schema_compatibility_strategy": "UNDEFINED",
        "schema_validation_enforced": false,
        "is_allow_auto_update_schema": true,
    });
    for (name, segment) in WHOLE.iter().chain(RATES) {
        let policy = POLICIES.iter().find(|policy| policy.of_namespace == *segment);
        let value = policy.map_or(Value::Null, |policy| (policy.read)(set));
        if !value.is_null() {
            whole[*name] = if RATES.contains(&(*name, *segment)) { json!({ cluster: value }) } else { value };
        }
    }
    whole
}

/// The policies of a namespace that is made, from the object of all of them. One that this broker does not have is
/// refused, unless it has the value of one that is not set.
pub(super) fn from_whole(whole: &Value, cluster: &str) -> Result<PolicySet, RestAnswer> {
    let mut set = PolicySet::default();
    let unset = whole_json(&set, cluster);
    if whole.is_null() {
        return Ok(set);
    }
    for (name, value) in members(whole).map_err(|reason| RestAnswer::refused(400, reason))? {
        // Earlier clients send the deprecated policy with its default.
        let is_deprecated = name == "schema_auto_update_compatibility_strategy" && value == "Full";
        let is_unset = value.is_null() || *value == unset[name.as_str()] || is_deprecated;
        if !is_unset && !OF_THE_BROKER.contains(&name.as_str()) {
            let result = set_member(&mut set, name, value, cluster);
            result.map_err(|reason| RestAnswer::refused(412, format!("{name}: {reason}")))?;
        }
    }
    Ok(set)
}

fn set_member(set: &mut PolicySet, name: &str, value: &Value, cluster: &str) -> Result<(), String> {
    let find = |names: &[(&str, &str)]| {
        let (_, segment) = names.iter().find(|(member, _)| *member == name)?;
        POLICIES.iter().find(|policy| policy.of_namespace == *segment)
    };
    if let Some(policy) = find(WHOLE) {
        return (policy.write)(set, value);
    }
    if let Some(policy) = find(RATES) {
        return members(value)?.iter().try_for_each(|(of, rate)| match of == cluster {
            true => (policy.write)(set, rate),
            false => Err(format!("this broker is one of {cluster}, not of {of}")),
        });
    }
    match name {
        "backlog_quota_map" => {
            for (kind, quota) in members(value)? {
                let kind = BacklogQuotaType::from_str(kind).map_err(|_| format!("no such quota: {kind}"))?;
                set.backlog_quotas.insert(kind, values::quota(quota).ok_or("a quota needs its policy")?);
            }
        }
        "auth_policies" => {
            for (part, roles) in members(value)? {
                match part.as_str() {
                    "namespace_auth" => {
                        members(roles)?.iter().for_each(|(role, names)| set.grant(role, permissions::actions(names)))
                    }
                    _ if *roles == json!({}) => {}
                    other => return Err(format!("this broker makes no namespace with {other}")),
                }
            }
        }
        _ => return Err("this broker makes no namespace with it".to_owned()),
    }
    Ok(())
}

fn members(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("an object is expected, not {value}"))
}

/// Members of the object of all policies that are the broker's to say.
const OF_THE_BROKER: [&str; 3] = ["bundles", "replication_clusters", "clusterThatCanDeleteNamespace"];

/// Rates by cluster in the object of all policies, and the last segments of their paths.
const RATES: &[(&str, &str)] = &[
    ("publishMaxMessageRate", "publishRate"),
    ("topicDispatchRate", "dispatchRate"),
    ("subscriptionDispatchRate", "subscriptionDispatchRate"),
];

/// Policies by their names in the object of all of them, and by the last segments of their paths.
const WHOLE: &[(&str, &str)] = &[
    ("message_ttl_in_seconds", "messageTTL"),
    ("retention_policies", "retention"),
    ("deduplicationEnabled", "deduplication"),
    ("max_unacked_messages_per_consumer", "maxUnackedMessagesPerConsumer"),
    ("max_unacked_messages_per_subscription", "maxUnackedMessagesPerSubscription"),
    ("max_producers_per_topic", "maxProducersPerTopic"),
    ("max_consumers_per_topic", "maxConsumersPerTopic"),
    ("max_consumers_per_subscription", "maxConsumersPerSubscription"),
    ("max_subscriptions_per_topic", "maxSubscriptionsPerTopic"),
    ("compaction_threshold", "compactionThreshold"),
    ("delayed_delivery_policies", "delayedDelivery"),
    ("schema_compatibility_strategy", "schemaCompatibilityStrategy"),
    ("schema_validation_enforced", "schemaValidationEnforced"),
    ("is_allow_auto_update_schema", "isAllowAutoUpdateSchema"),
    ("autoTopicCreationOverride", "autoTopicCreation"),
    ("inactive_topic_policies", "inactiveTopicPolicies"),
    ("persistence", "persistence"),
];

fn is_of_topic(call: &Call<'_>) -> bool {
    !call.segment("topic").is_empty()
}

fn policy(call: &Call<'_>) -> Option<&'static Policy> {
    let name = call.segment("policy");
    let is_named = |policy: &&Policy| if is_of_topic(call) { policy.of_topic } else { policy.of_namespace } == name;
    POLICIES.iter().find(is_named).filter(|_| !name.is_empty())
}

/// What a namespace or a topic sets itself, with `applied=true` what counts for the topic.
pub(super) fn set_of(broker: &Broker, call: &Call<'_>) -> Result<PolicySet, RestAnswer> {
    if !is_of_topic(call) {
        broker.rest_namespace(&call.namespace())?;
        return Ok(broker.namespace_policies(&call.namespace()));
    }
    let name = call.topic()?;
    broker.rest_targets(&name)?;
    Ok(if call.flag("applied") {
        broker.effective_policies(name.as_str())
    } else {
        broker.topic_policies(name.as_str())
    })
}

/// Changes what a namespace or a topic sets.
pub(super) fn change(
    broker: &mut Broker,
    call: &Call<'_>,
    change: impl FnOnce(&mut PolicySet) -> Result<(), RestAnswer>,
) -> Outcome {
    if broker.tenants.get(call.segment("tenant")).is_none() && !broker.config.any_namespace {
        return Err(RestAnswer::refused(404, "Tenant does not exist"));
    }
    let mut changed = set_of(broker, &Call { query: "", ..call.clone() })?;
    change(&mut changed)?;
    let is_set = if is_of_topic(call) {
        broker.set_topic_policies(call.topic()?.as_str(), |set| *set = changed)
    } else {
        broker.set_namespace_policies(&call.namespace(), |set| *set = changed)
    };
    if is_set { Ok(RestAnswer::done()) } else { Err(too_many()) }
}

pub(super) fn too_many() -> RestAnswer {
    RestAnswer::refused(412, "this broker holds the policies of 10000 namespaces and 100000 topics")
}

fn shown(value: Value) -> Outcome {
    Ok(if value.is_null() { RestAnswer::empty() } else { value.into() })
}

fn read(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let Some(policy) = policy(call) else { return kept::read(broker, call) };
    let value = (policy.read)(&set_of(broker, call)?);
    let has_default = call.flag("applied") || !is_of_topic(call) && SHOWN_UNSET.contains(&policy.of_namespace);
    shown(if value.is_null() && has_default { (policy.default)() } else { value })
}

/// The policy whose value is a parameter of the query, for topics.
const TOPIC_TTL: &str = "messageTTL";

fn write(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let Some(policy) = policy(call) else { return kept::write(broker, call) };
    // The time to live of a topic is a parameter.
    let of_query =
        call.parameter(TOPIC_TTL).filter(|_| policy.of_topic == TOPIC_TTL && !call.segment("topic").is_empty());
    let value = match of_query {
        Some(text) => text.parse().map_or(Value::String(text), |number: i64| json!(number)),
        None => call.body()?,
    };
    change(broker, call, |set| (policy.write)(set, &value).map_err(|reason| RestAnswer::refused(412, reason)))
}

fn clear(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let Some(policy) = policy(call) else { return kept::clear(broker, call) };
    change(broker, call, |set| {
        let _ = (policy.write)(set, &Value::Null);
        Ok(())
    })
}

fn quota_type(call: &Call<'_>) -> Result<BacklogQuotaType, RestAnswer> {
    let name = call.parameter("backlogQuotaType").unwrap_or_else(|| "destination_storage".to_owned());
    BacklogQuotaType::from_str(&name).map_err(|_| RestAnswer::page(404, "Not Found"))
}

fn quotas(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let set = set_of(broker, call)?;
    let mut quotas: Map<_, _> =
        set.backlog_quotas.iter().map(|(kind, quota)| (kind.to_string(), values::quota_json(*quota))).collect();
    if call.flag("applied") {
        for kind in BacklogQuotaType::ALL {
            quotas.entry(kind.to_string()).or_insert_with(values::default_quota);
        }
    }
    Ok(Value::Object(quotas).into())
}

fn set_quota(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let kind = quota_type(call)?;
    let quota = values::quota(&call.body()?).ok_or_else(|| {
        let place = call.namespace();
        RestAnswer::refused(400, format!(
            "Set namespace[{place}] backlog quota failed because the data validation failed. the attribute policy cannot \
             be null"
        ))
    })?;
    change(broker, call, |set| {
        set.backlog_quotas.insert(kind, quota);
        Ok(())
    })
}

fn remove_quota(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let kind = quota_type(call)?;
    change(broker, call, |set| {
        set.backlog_quotas.remove(&kind);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_made_with_known_policies_only() {
        let mut unset = whole_json(&PolicySet::default(), "here");
        unset["schema_auto_update_compatibility_strategy"] = json!("Full");
        assert_eq!(from_whole(&unset, "here"), Ok(PolicySet::default()));
        let cases = [
            (json!({ "encryption_required": true }), "encryption_required: this broker makes no namespace with it"),
            (json!({ "bogus": 1 }), "bogus: this broker makes no namespace with it"),
            (
                json!({ "topicDispatchRate": { "there": {} } }),
                "topicDispatchRate: this broker is one of here, not of there",
            ),
            (json!({ "backlog_quota_map": { "x": {} } }), "backlog_quota_map: no such quota: x"),
            (
                json!({ "max_producers_per_topic": "x" }),
                "max_producers_per_topic: a number of 0 or more is expected, not \"x\"",
            ),
        ];
        for (body, reason) in cases {
            assert_eq!(from_whole(&body, "here"), Err(RestAnswer::refused(412, reason)));
        }
    }
}
