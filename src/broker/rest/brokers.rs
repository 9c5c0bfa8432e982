//! The broker itself: its health, its version, its place in the cluster.

use serde_json::json;

use super::request::Call;
use super::routes::{Access, Route, delete, get, post};
use super::{Outcome, RestAnswer};
use crate::broker::machine::Broker;

pub(super) const ROUTES: &[Route] = &[
    get("admin/v2/brokers", active),
    get("admin/v2/brokers/health", health),
    get("admin/v2/brokers/ready", health).access(Access::AnyRole),
    get("admin/v2/brokers/version", version).access(Access::AnyRole),
    get("admin/v2/brokers/leaderBroker", leader),
    get("admin/v2/brokers/backlog-quota-check", backlog_quota_check),
    get("admin/v2/brokers/configuration", dynamic_settings),
    get("admin/v2/brokers/configuration/values", configuration_values),
    post("admin/v2/brokers/configuration/{name}/{value}", configure),
    delete("admin/v2/brokers/configuration/{name}", reset),
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

/// The settings of a real broker that can be changed while it runs, one a line.
const DYNAMIC_SETTINGS: &str = include_str!("dynamic_settings.txt");

/// Bytes of the value of such a setting; a larger one is refused.
const VALUE_BYTES_MAX: usize = 4 * 1024;

fn dynamic_settings(_: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!(DYNAMIC_SETTINGS.lines().collect::<Vec<_>>()).into())
}

/// What was configured while the broker ran.
fn configuration_values(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    Ok(json!(broker.dynamic_settings).into())
}

/// The setting of a request, if it is one that can be changed.
fn dynamic_setting(call: &Call<'_>, what: &str) -> Result<&'static str, RestAnswer> {
    let name = call.segment("name");
    let known = DYNAMIC_SETTINGS.lines().find(|known| *known == name);
    known.ok_or_else(|| RestAnswer::refused(412, format!("Can't {what} non-dynamic configuration")))
}

/// Kept and shown; `allowAutoTopicCreation` alone has an effect ([`Broker::allows_auto_topic_creation`]).
fn configure(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let (name, value) = (dynamic_setting(call, "update")?, call.segment("value"));
    if value.len() > VALUE_BYTES_MAX {
        return Err(RestAnswer::refused(412, format!("this broker keeps values of {VALUE_BYTES_MAX} bytes")));
    }
    broker.dynamic_settings.insert(name, value.to_owned());
    Ok(RestAnswer::empty())
}

/// What was configured before the broker ran counts again.
fn reset(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let name = dynamic_setting(call, "delete")?;
    broker.dynamic_settings.remove(name);
    Ok(RestAnswer::empty())
}

/// Settings that clients ask for, as texts.
fn configuration(broker: &mut Broker, _: &Call<'_>) -> Outcome {
    let (config, allow_auto_topic_creation) = (&broker.config, broker.allows_auto_topic_creation());
    Ok(json!({
        "clusterName": config.cluster_name,
        "allowAutoTopicCreation": allow_auto_topic_creation.to_string(),
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
