//! What roles may do with the topics of a namespace, with one topic, and with a subscription.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::policies::{change, set_of};
use super::request::{Call, names};
use super::routes::{Access, Route, delete, get, post};
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;
use crate::broker::policies::{AuthAction, PolicySet};

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/namespaces/{tenant}/{namespace}/permissions", permissions),
    post("admin/v2/namespaces/{tenant}/{namespace}/permissions/{role}", grant),
    delete("admin/v2/namespaces/{tenant}/{namespace}/permissions/{role}", revoke),
    get("admin/v2/namespaces/{tenant}/{namespace}/permissions/subscription", of_subscriptions),
    post("admin/v2/namespaces/{tenant}/{namespace}/permissions/subscription/{subscription}", grant_subscription),
    delete("admin/v2/namespaces/{tenant}/{namespace}/permissions/{subscription}/{role}", revoke_subscription),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/permissions", permissions).access(Access::Topic),
    post("admin/v2/{domain}/{tenant}/{namespace}/{topic}/permissions/{role}", grant).access(Access::Topic),
    delete("admin/v2/{domain}/{tenant}/{namespace}/{topic}/permissions/{role}", revoke).access(Access::Topic),
];

/// The roles of a set, and what each may do.
pub(super) fn roles_json(set: &PolicySet) -> Value {
    let roles = set.permissions.iter().map(|(role, actions)| {
        let actions: BTreeSet<_> = actions.iter().map(|action| action.as_str()).collect();
        (role.clone(), json!(actions))
    });
    Value::Object(roles.collect())
}

/// Actions that are none are left out, as on a real broker.
pub(super) fn actions(array: &Value) -> BTreeSet<AuthAction> {
    names(array).iter().filter_map(|name| AuthAction::from_str(name).ok()).collect()
}

/// The subscriptions of a set with roles of their own, and these.
pub(super) fn subscriptions_json(set: &PolicySet) -> Value {
    let roles = set.subscription_permissions.iter().map(|(subscription, roles)| (subscription.clone(), json!(roles)));
    Value::Object(roles.collect::<Map<_, _>>())
}

fn permissions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    Ok(roles_json(&set_of(broker, call)?).into())
}

fn grant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let actions = actions(&call.body()?);
    let missing = |_| RestAnswer::refused(404, "Topic's namespace does not exist");
    broker.rest_namespace(&call.namespace()).map_err(missing)?;
    change(broker, call, |set| {
        set.grant(call.segment("role"), actions);
        Ok(())
    })
}

fn revoke(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    change(broker, call, |set| {
        set.revoke(call.segment("role"));
        Ok(())
    })
}

fn of_subscriptions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    Ok(subscriptions_json(&set_of(broker, call)?).into())
}

fn grant_subscription(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let roles = names(&call.body()?);
    change(broker, call, |set| {
        set.subscription_permissions.insert(call.segment("subscription").to_owned(), roles);
        Ok(())
    })
}

fn revoke_subscription(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let subscription = call.segment("subscription");
    change(broker, call, |set| {
        // A real broker fails with a stack trace.
        let missing = || RestAnswer::refused(404, format!("no roles are set for subscription {subscription}"));
        let roles = set.subscription_permissions.get_mut(subscription).ok_or_else(missing)?;
        roles.remove(call.segment("role"));
        if roles.is_empty() {
            set.subscription_permissions.remove(subscription);
        }
        Ok(())
    })
}
