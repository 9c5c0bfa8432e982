//! Policies without an effect on this broker, which administrators set all the same: kept as they come, and shown again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::policy_values::no_dispatch_rate;
use super::request::Call;
use super::routes::unserved;
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;

/// Values that are kept; one more is refused.
const KEPT_MAX: usize = 10_000;

/// Bytes of one value in JSON; a larger one is refused.
const VALUE_BYTES_MAX: usize = 4 * 1024;

/// One such policy.
struct Kept {
    /// The last segment of its path.
    name: &'static str,
    of_namespaces: bool,
    of_topics: bool,
    /// What is shown where it is not set; null for nothing.
    unset: fn() -> Value,
    /// What counts for a topic where neither it nor its namespace sets it; null for nothing.
    applied: fn() -> Value,
}

const fn of_both(name: &'static str, unset: fn() -> Value, applied: fn() -> Value) -> Kept {
    Kept { name, of_namespaces: true, of_topics: true, unset, applied }
}

const fn of_namespaces(name: &'static str, unset: fn() -> Value) -> Kept {
    Kept { name, of_namespaces: true, of_topics: false, unset, applied: null }
}

fn null() -> Value {
    Value::Null
}

const KEPT: &[Kept] = &[
    of_both("subscribeRate", null, || json!({ "subscribeThrottlingRatePerConsumer": 0, "ratePeriodInSecond": 30 })),
    of_both("replicatorDispatchRate", null, no_dispatch_rate),
    of_both("deduplicationSnapshotInterval", null, null),
    of_both("autoSubscriptionCreation", null, || json!({ "allowAutoSubscriptionCreation": true })),
    of_both("offloadPolicies", null, null),
    of_both("subscriptionTypesEnabled", || json!([]), || json!([])),
    of_namespaces("subscriptionExpirationTime", null),
    of_namespaces("offloadDeletionLagMs", null),
    of_namespaces("antiAffinity", null),
    of_namespaces("bookieAffinity", null),
    of_namespaces("maxTopicsPerNamespace", || json!(0)),
    of_namespaces("offloadThreshold", || json!(-1)),
    of_namespaces("offloadThresholdInSeconds", || json!(-1)),
    of_namespaces("encryptionRequired", || json!(false)),
    of_namespaces("subscriptionAuthMode", || json!("None")),
    of_namespaces("properties", || json!({})),
    Kept { name: "replication", of_namespaces: false, of_topics: true, unset: null, applied: null },
];

/// What is kept, by the name of the namespace or topic and that of the policy.
#[derive(Debug, Default)]
pub(in crate::broker) struct KeptPolicies {
    values: BTreeMap<(String, &'static str), Value>,
}

impl KeptPolicies {
    /// A namespace or topic is deleted.
    pub(in crate::broker) fn forget(&mut self, place: &str) {
        self.values.retain(|(known, _), _| known != place);
    }
}

/// The policy of a request, and the place that it is about, which exists.
fn find(broker: &Broker, call: &Call<'_>) -> Result<(&'static Kept, String), RestAnswer> {
    let name = match call.path.rsplit('/').next() {
        // The one path with a verb in it.
        Some("removeOffloadPolicies") => "offloadPolicies",
        name => name.unwrap_or_default(),
    };
    let is_of_topic = !call.segment("topic").is_empty();
    let fits = |kept: &&Kept| kept.name == name && if is_of_topic { kept.of_topics } else { kept.of_namespaces };
    let kept = KEPT.iter().find(fits).ok_or_else(|| unserved(call.method, call.path))?;
    if !is_of_topic {
        broker.rest_namespace(&call.namespace())?;
        return Ok((kept, call.namespace()));
    }
    let topic = call.topic()?;
    broker.rest_targets(&topic)?;
    Ok((kept, topic.base().as_str().to_owned()))
}

pub(super) fn read(broker: &Broker, call: &Call<'_>) -> Outcome {
    let (kept, place) = find(broker, call)?;
    let set_at = |place: String| broker.kept_policies.values.get(&(place, kept.name)).cloned();
    let value = match set_at(place) {
        Some(value) => value,
        None if call.flag("applied") => set_at(call.namespace()).unwrap_or_else(kept.applied),
        None => (kept.unset)(),
    };
    Ok(if value.is_null() { RestAnswer::empty() } else { value.into() })
}

pub(super) fn write(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (kept, place) = find(broker, call)?;
    let value = call.body()?;
    let (values, key) = (&mut broker.kept_policies.values, (place, kept.name));
    let is_full = values.len() >= KEPT_MAX && !values.contains_key(&key);
    if is_full || call.body.len() > VALUE_BYTES_MAX {
        let reason = format!("this broker keeps {KEPT_MAX} such policies of {VALUE_BYTES_MAX} bytes each");
        return Err(RestAnswer::refused(412, reason));
    }
    values.insert(key, value);
    Ok(RestAnswer::done())
}

pub(super) fn clear(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (kept, place) = find(broker, call)?;
    broker.kept_policies.values.remove(&(place, kept.name));
    Ok(RestAnswer::done())
}
