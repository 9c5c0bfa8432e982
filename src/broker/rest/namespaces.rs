//! Namespaces.

use serde_json::{Value, json};

use super::lookup::BUNDLE;
use super::request::Call;
use super::routes::{Access, Route, delete, get, post, put};
use super::tenants::is_name;
use super::{Outcome, RestAnswer, policies};
use crate::broker::machine::Broker;
use crate::broker::policies::PolicySet;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/namespaces/{tenant}", of_tenant).access(Access::Tenant),
    get("admin/v2/namespaces/{tenant}/{namespace}", all_policies),
    put("admin/v2/namespaces/{tenant}/{namespace}", create).access(Access::Tenant),
    delete("admin/v2/namespaces/{tenant}/{namespace}", remove).access(Access::Tenant),
    get("admin/v2/namespaces/{tenant}/{namespace}/bundles", bundles).access(Access::InNamespace),
    get("admin/v2/namespaces/{tenant}/{namespace}/replication", replication),
    post("admin/v2/namespaces/{tenant}/{namespace}/replication", set_replication),
    put("admin/v2/namespaces/{tenant}/{namespace}/unload", unload).access(Access::SuperUser),
    put("admin/v2/namespaces/{tenant}/{namespace}/{bundle}/unload", unload).access(Access::SuperUser),
];

/// Namespaces of one broker; creating one more is refused.
const NAMESPACES_MAX: usize = 10_000;

fn no_tenant() -> RestAnswer {
    RestAnswer::refused(404, "Tenant does not exist")
}

fn of_tenant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let tenant = call.segment("tenant");
    broker.tenants.get(tenant).ok_or_else(|| RestAnswer::refused(404, "Tenant not found"))?;
    let prefix = format!("{tenant}/");
    let namespaces = broker.config.namespaces.iter().filter(|namespace| namespace.starts_with(&prefix));
    Ok(json!(namespaces.collect::<Vec<_>>()).into())
}

fn bundles_json() -> Value {
    let (first, last) = BUNDLE.split_once('_').unwrap_or_default();
    json!({ "boundaries": [first, last], "numBundles": 1 })
}

fn all_policies(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    broker.rest_namespace(&call.namespace())?;
    let (own, cluster) = (broker.namespace_policies(&call.namespace()), broker.config.cluster_name.as_str());
    let mut answer = policies::whole_json(&own, cluster);
    answer["bundles"] = bundles_json();
    answer["replication_clusters"] = json!([cluster]);
    answer["clusterThatCanDeleteNamespace"] = json!(cluster);
    Ok(answer.into())
}

fn create(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (tenant, namespace) = (call.segment("tenant"), call.namespace());
    let body = call.body()?;
    if !is_name(call.segment("namespace")) || !is_name(tenant) {
        return Err(RestAnswer::refused(412, "Namespace name is not valid"));
    }
    broker.tenants.get(tenant).ok_or_else(no_tenant)?;
    let clusters = body["replication_clusters"].as_array().map_or(&[][..], Vec::as_slice);
    let unknown = |cluster: &&Value| cluster.as_str().is_none_or(|name| broker.tenants.cluster(name).is_none());
    if let Some(cluster) = clusters.iter().find(unknown) {
        let cluster = cluster.as_str().unwrap_or_default();
        let reason = format!("Cluster [{cluster}] is not in the list of allowed clusters list for tenant [{tenant}]");
        return Err(RestAnswer::refused(403, reason));
    }
    if broker.config.namespaces.contains(&namespace) {
        return Err(RestAnswer::refused(409, "Namespace already exists"));
    }
    if broker.config.namespaces.len() >= NAMESPACES_MAX {
        let reason = format!("Exceed the maximum number of namespaces: {NAMESPACES_MAX}");
        return Err(RestAnswer::refused(412, reason));
    }
    let own = policies::from_whole(&body, &broker.config.cluster_name)?;
    broker.config.namespaces.insert(namespace.clone());
    if own != PolicySet::default() && !broker.set_namespace_policies(&namespace, |set| *set = own) {
        broker.config.namespaces.remove(&namespace);
        return Err(policies::too_many());
    }
    Ok(RestAnswer::done())
}

fn remove(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let namespace = call.namespace();
    if !broker.config.has_namespace(&namespace) {
        return Err(RestAnswer::refused(404, format!("Namespace {namespace} does not exist.")));
    }
    let prefixes = ["persistent", "non-persistent"].map(|domain| format!("{domain}://{namespace}/"));
    let is_inside = |topic: &String| prefixes.iter().any(|prefix| topic.starts_with(prefix.as_str()));
    let mut topics: Vec<_> = broker.topics.names();
    topics.extend(broker.topics.partitioned_names().map(str::to_owned));
    topics.retain(is_inside);
    if call.flag("force") {
        // As with forceDeleteNamespaceAllowed=false, the default.
        return Err(RestAnswer::refused(405, "Broker doesn't allow forced deletion of namespaces"));
    }
    if !topics.is_empty() {
        return Err(RestAnswer::refused(409, "Cannot delete non empty namespace"));
    }
    broker.config.namespaces.remove(&namespace);
    broker.forget_namespace_policies(&namespace);
    broker.kept_policies.forget(&namespace);
    Ok(RestAnswer::done())
}

fn bundles(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    broker.rest_namespace(&call.namespace())?;
    Ok(bundles_json().into())
}

fn replication(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    broker.rest_namespace(&call.namespace())?;
    Ok(json!([broker.config.cluster_name]).into())
}

/// There is one cluster, whatever is asked for.
fn set_replication(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    broker.rest_namespace(&call.namespace())?;
    Ok(RestAnswer::empty())
}

fn unload(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let namespace = call.namespace();
    broker.rest_namespace(&namespace)?;
    for topic in broker.topics.names_of(&namespace, crate::pb::command_get_topics_of_namespace::Mode::All, None) {
        broker.unload(&topic);
    }
    Ok(RestAnswer::done())
}
