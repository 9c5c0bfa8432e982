//! Where a topic is served and how many partitions it has: what clients with an `http://` service URL ask.

use serde_json::json;

use super::request::Call;
use super::routes::{Access, Route, get};
use super::{Outcome, RestAnswer};
use crate::broker::like::Capability;
use crate::broker::machine::Broker;
use crate::broker::policies::Access as TopicAccess;
use crate::broker::refusal::refuse;
use crate::pb::ServerError;
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// The range of hashes of the one bundle of each namespace.
pub(super) const BUNDLE: &str = "0x00000000_0xffffffff";

pub(super) const ROUTES: &[Route] = &[
    get("lookup/v2/topic/{domain}/{tenant}/{namespace}/{topic}", look_up),
    get("lookup/v2/topic/{domain}/{tenant}/{namespace}/{topic}/bundle", bundle).access(Access::InNamespace),
    get("admin/v2/{domain}/{tenant}/{namespace}/{topic}/partitions", partitions),
];

/// Other than LOOKUP it finds no topic that does not exist and may not be created.
fn look_up(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    let namespace = call.namespace();
    if !broker.config.has_namespace(&namespace) && TopicName::parse(&call.topic_text()).is_ok() {
        return Err(RestAnswer::refused(404, "Namespace not found"));
    }
    let listener = call.parameter("listenerName").filter(|_| broker.can(Capability::HttpListenerName));
    let name = broker.check_lookup(call.is_authorized, &call.topic_text(), &listener.unwrap_or_default())?;
    if !broker.creates_on_demand(&name) && !broker.topics.contains(name.as_str()) {
        return Err(refuse(ServerError::TopicNotFound, format!("Topic not found {name}")).into());
    }
    broker.ownership.acquire(&name);
    let url = broker.brokers.find_owner(name.as_str()).to_owned();
    let mut answer = json!({ "brokerUrl": url, "nativeUrl": url, "brokerUrlSsl": "" });
    let others = [
        ("brokerUrlTls", &broker.config.broker_service_url_tls),
        ("httpUrl", &broker.config.web_service_url),
        ("httpUrlTls", &broker.config.web_service_url_tls),
    ];
    for (name, url) in others {
        if let Some(url) = url {
            answer[name] = json!(url);
        }
    }
    Ok(answer.into())
}

fn bundle(_: &mut Broker, call: &Call<'_>) -> Outcome {
    call.topic()?;
    Ok(RestAnswer::text(BUNDLE))
}

fn partitions(broker: &mut Broker, call: &Call<'_>) -> Outcome {
    if !call.is_authorized {
        return Err(broker.refusal_of_a_stranger(Access::Granted(TopicAccess::LookUp), call));
    }
    let (topic, creates) = (call.topic_text(), call.flag("checkAllowAutoCreation"));
    let counted = broker.count_partitions(&topic, creates);
    let partitions = counted.map_err(|refusal| match refusal.message.as_str() {
        "" => Refusal { message: format!("Topic {topic} not found"), ..refusal },
        _ => refusal,
    })?;
    let mut answer = json!({ "partitions": partitions, "deleted": false });
    let properties = TopicName::parse(&topic).ok().and_then(|name| broker.topics.properties(name.as_str()).cloned());
    if let Some(properties) = properties.filter(|properties| partitions > 0 && !properties.is_empty()) {
        answer["properties"] = json!(properties);
    }
    Ok(answer.into())
}
