//! Tenants and clusters.

use serde_json::json;

use super::request::{Call, names};
use super::routes::{Access, Route, delete, get, post, put};
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;
use crate::broker::tenants::{CLUSTERS_MAX, ClusterUrls, TENANTS_MAX, Tenant};

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/clusters", clusters).access(Access::AnyRole),
    get("admin/v2/clusters/{cluster}", cluster),
    put("admin/v2/clusters/{cluster}", create_cluster),
    post("admin/v2/clusters/{cluster}", update_cluster),
    delete("admin/v2/clusters/{cluster}", remove_cluster),
    get("admin/v2/tenants", tenants),
    get("admin/v2/tenants/{tenant}", tenant).access(Access::Tenant),
    put("admin/v2/tenants/{tenant}", create_tenant),
    post("admin/v2/tenants/{tenant}", update_tenant).access(Access::Tenant),
    delete("admin/v2/tenants/{tenant}", remove_tenant),
];

/// The members of a cluster that are texts.
const URLS: [&str; 4] = ["serviceUrl", "serviceUrlTls", "brokerServiceUrl", "brokerServiceUrlTls"];

fn no_cluster() -> RestAnswer {
    RestAnswer::refused(404, "Cluster does not exist")
}

fn no_tenant() -> RestAnswer {
    RestAnswer::refused(404, "Tenant does not exist")
}

/// Whether a tenant, cluster or namespace may have this name.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=:.".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

fn clusters(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!(broker.tenants.cluster_names().collect::<Vec<_>>()).into())
}

fn cluster(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("cluster");
    let urls = broker.tenants.cluster(name).ok_or_else(no_cluster)?;
    let mut answer = json!({
        "brokerClientTlsEnabled": false,
        "tlsAllowInsecureConnection": false,
        "brokerClientTlsEnabledWithKeyStore": false,
    });
    for (name, url) in urls {
        answer[name] = json!(url);
    }
    if name == broker.config.cluster_name {
        let own = [
            ("serviceUrl", &broker.config.web_service_url),
            ("serviceUrlTls", &broker.config.web_service_url_tls),
            ("brokerServiceUrl", &broker.brokers.url(0).map(str::to_owned)),
            ("brokerServiceUrlTls", &broker.config.broker_service_url_tls),
        ];
        for (name, url) in own.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?))) {
            answer[name] = json!(url);
        }
    }
    Ok(answer.into())
}

fn cluster_body(call: &Call<'_>) -> Result<ClusterUrls, RestAnswer> {
    let body = call.body()?;
    let url = |name: &&str| Some(((*name).to_owned(), body[*name].as_str()?.to_owned()));
    Ok(URLS.iter().filter_map(url).collect())
}

fn create_cluster(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("cluster");
    let urls = cluster_body(call)?;
    if !is_name(name) {
        return Err(RestAnswer::refused(412, "Cluster name is not valid"));
    }
    if broker.tenants.cluster(name).is_some() {
        return Err(RestAnswer::refused(409, "Cluster already exists"));
    }
    if !broker.tenants.set_cluster(name, urls) {
        return Err(RestAnswer::refused(412, format!("Exceed the maximum number of clusters: {CLUSTERS_MAX}")));
    }
    Ok(RestAnswer::empty())
}

fn update_cluster(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (name, urls) = (call.segment("cluster"), cluster_body(call)?);
    broker.tenants.cluster(name).ok_or_else(no_cluster)?;
    broker.tenants.set_cluster(name, urls);
    Ok(RestAnswer::empty())
}

fn remove_cluster(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("cluster");
    let is_used =
        |tenant: &String| broker.tenants.get(tenant).is_some_and(|tenant| tenant.allowed_clusters.contains(name));
    broker.tenants.cluster(name).ok_or_else(no_cluster)?;
    if broker.tenants.names().any(is_used) {
        return Err(RestAnswer::refused(412, "Cluster not empty"));
    }
    broker.tenants.remove_cluster(name).ok_or_else(no_cluster)?;
    Ok(RestAnswer::done())
}

fn tenants(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!(broker.tenants.names().collect::<Vec<_>>()).into())
}

fn tenant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let Tenant { admin_roles, allowed_clusters } = broker.tenants.get(call.segment("tenant")).ok_or_else(no_tenant)?;
    Ok(json!({ "adminRoles": admin_roles, "allowedClusters": allowed_clusters }).into())
}

fn tenant_body(broker: &Broker, call: &Call<'_>) -> Result<Tenant, RestAnswer> {
    let body = call.body()?;
    if body.is_null() {
        return Err(RestAnswer::refused(412, "TenantInfo is null"));
    }
    let tenant = Tenant { admin_roles: names(&body["adminRoles"]), allowed_clusters: names(&body["allowedClusters"]) };
    if tenant.allowed_clusters.is_empty() {
        return Err(RestAnswer::refused(412, "Clusters cannot be empty or blank"));
    }
    if tenant.allowed_clusters.iter().any(|cluster| broker.tenants.cluster(cluster).is_none()) {
        return Err(RestAnswer::refused(412, "Clusters do not exist"));
    }
    Ok(tenant)
}

fn create_tenant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("tenant");
    if !is_name(name) {
        return Err(RestAnswer::refused(412, "Tenant name is not valid"));
    }
    let tenant = tenant_body(broker, call)?;
    if broker.tenants.get(name).is_some() {
        return Err(RestAnswer::refused(409, "Tenant already exist"));
    }
    if !broker.tenants.set(name, tenant) {
        return Err(RestAnswer::refused(412, format!("Exceed the maximum number of tenants: {TENANTS_MAX}")));
    }
    Ok(RestAnswer::done())
}

fn update_tenant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("tenant");
    let tenant = tenant_body(broker, call)?;
    broker.tenants.get(name).ok_or_else(|| RestAnswer::refused(404, format!("Tenant {name} not found")))?;
    broker.tenants.set(name, tenant);
    Ok(RestAnswer::done())
}

fn remove_tenant(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = call.segment("tenant");
    broker.tenants.get(name).ok_or_else(|| RestAnswer::refused(404, "Tenant doesn't exist"))?;
    let prefix = format!("{name}/");
    if broker.config.namespaces.iter().any(|namespace| namespace.starts_with(&prefix)) {
        return Err(RestAnswer::refused(409, "The tenant still has active namespaces"));
    }
    broker.tenants.remove(name);
    Ok(RestAnswer::done())
}
