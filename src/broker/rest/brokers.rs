//! The broker itself: its health, its version, its place in the cluster.

use serde_json::json;

use super::request::Call;
use super::routes::{Access, Route, get};
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/brokers", active),
    get("admin/v2/brokers/health", health),
    get("admin/v2/brokers/ready", health).access(Access::AnyRole),
    get("admin/v2/brokers/version", version).access(Access::AnyRole),
    get("admin/v2/brokers/leaderBroker", leader),
    get("admin/v2/brokers/backlog-quota-check", backlog_quota_check),
    get("admin/v2/brokers/configuration/values", configuration_values),
    get("admin/v2/brokers/configuration/runtime", configuration),
    get("admin/v2/brokers/internal-configuration", internal_configuration),
    get("admin/v2/brokers/{cluster}", active),
];

impl Broker {
    /// `host:port` of the web port, by which brokers name each other.
    pub(super) fn web_address(&self) -> &str {
        let url = self.config.web_service_url.as_deref().unwrap_or_default();
        url.trim_start_matches("http://")
    }
}

fn active(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    if !["", &broker.config.cluster_name].contains(&call.segment("cluster")) {
        return Err(RestAnswer::refused(404, "Cluster does not exist"));
    }
    Ok(json!([broker.web_address()]).into())
}

fn health(_: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(RestAnswer::text("ok"))
}

fn version(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(RestAnswer::text(broker.config.like.release_text()))
}

fn leader(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!({ "brokerId": broker.web_address(), "serviceUrl": broker.config.web_service_url }).into())
}

/// What was configured while the broker ran.
fn configuration_values(_: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!({}).into())
}

/// Settings that clients ask for, as texts.
fn configuration(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    let config = &broker.config;
    Ok(json!({
        "clusterName": config.cluster_name,
        "allowAutoTopicCreation": config.allow_auto_topic_creation.to_string(),
        "brokerDeduplicationEnabled": config.broker_deduplication_enabled.to_string(),
        "maxMessageSize": config.max_message_size.to_string(),
        "authenticationEnabled": config.authenticates().to_string(),
    })
    .into())
}

/// There is no metadata store but this process.
fn internal_configuration(_: &mut Broker, _: &Call<'_>) -> Outcome {
    let (store, ledgers) = ("memory:local", "/ledgers");
    Ok(json!({
        "metadataStoreUrl": store,
        "configurationMetadataStoreUrl": store,
        "zookeeperServers": store,
        "configurationStoreServers": store,
        "ledgersRootPath": ledgers,
    })
    .into())
}

/// Quotas are checked when something is stored.
fn backlog_quota_check(_: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(RestAnswer::done())
}
