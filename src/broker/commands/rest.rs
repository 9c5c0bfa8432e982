//! The REST interface: what clients with an `http://` service URL ask of it. Answers are those of Pulsar 4.0.8.

use serde_json::{Value, json};

use crate::broker::authentication;
use crate::broker::like::Capability;
use crate::broker::machine::Broker;
use crate::broker::refusal::refuse;
use crate::broker::topics::schemas::schema_type_name;
use crate::pb::command_get_topics_of_namespace::Mode;
use crate::pb::{self, ServerError};
use crate::percent;
use crate::wire::command::Refusal;

/// An answer over HTTP.
#[derive(Debug)]
pub(in crate::broker) enum RestAnswer {
    /// Status 200.
    Json(Value),
    /// Another status.
    Failed(u16, Value),
    /// Status and `reason`.
    Refused(u16, String),
    /// What the web server in front of the interface says: status and text of a web page.
    Page(u16, &'static str),
}

const NO_SUCH_PAGE: RestAnswer = RestAnswer::Page(404, "Not Found");

impl Broker {
    /// Answers a GET. `authorization` is the header of that name, `certified` the common name of the client's certificate.
    pub(in crate::broker) fn rest(
        &mut self,
        path: &str,
        query: &str,
        authorization: Option<&str>,
        certified: Option<&str>,
    ) -> RestAnswer {
        let Some(is_authorized) = self.authorize(authorization, certified) else {
            return RestAnswer::Page(401, "Authentication required");
        };
        let Some(segments) = path.trim_start_matches('/').split('/').map(decoded).collect::<Option<Vec<_>>>() else {
            return NO_SUCH_PAGE;
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let answer = match segments[..] {
            ["lookup", "v2", "topic", domain, tenant, namespace, local] => {
                self.rest_lookup(is_authorized, &full_name(domain, tenant, namespace, local), query)
            }
            ["admin", "v2", "namespaces", tenant, namespace, "topics"] => {
                self.rest_topics(is_authorized, &format!("{tenant}/{namespace}"), query)
            }
            ["admin", "v2", "schemas", tenant, namespace, local, "schema", ref version @ ..] => {
                let topic = full_name("persistent", tenant, namespace, local);
                self.rest_schema(is_authorized, &topic, version.first().copied())
            }
            ["admin", "v2", domain, tenant, namespace, local, "partitions"] => {
                let creates = parameter(query, "checkAllowAutoCreation").is_some_and(|value| value == "true");
                let topic = full_name(domain, tenant, namespace, local);
                let counted = self.count_partitions(is_authorized, &topic, creates);
                counted.map(|partitions| json!({ "partitions": partitions, "deleted": false })).map_err(|refusal| {
                    match refusal.message.as_str() {
                        "" => Refusal { message: format!("Topic {topic} not found"), ..refusal },
                        _ => refusal,
                    }
                })
            }
            ["admin", "v2", domain, tenant, namespace, local, "stats"] => {
                self.rest_stats(is_authorized, &full_name(domain, tenant, namespace, local))
            }
            ["admin", "v2", domain, tenant, namespace, local, "maxUnackedMessagesOnConsumer"] => {
                self.rest_unacked_limit(is_authorized, &full_name(domain, tenant, namespace, local))
            }
            _ => return NO_SUCH_PAGE,
        };
        answer.map_or_else(refused, RestAnswer::Json)
    }

    /// Whether the role may do everything; `None` if the credentials are not good.
    fn authorize(&self, authorization: Option<&str>, certified: Option<&str>) -> Option<bool> {
        if !self.config.authenticates() {
            return Some(true);
        }
        let identity = authentication::of_request(&self.config, certified, authorization, self.now.wall_ms)?;
        Some(self.config.super_user_roles.contains(&identity.role))
    }

    /// Other than LOOKUP it finds no topic that does not exist and may not be created.
    fn rest_lookup(&mut self, is_authorized: bool, topic: &str, query: &str) -> Result<Value, Refusal> {
        let listener = parameter(query, "listenerName").filter(|_| self.can(Capability::HttpListenerName));
        let listener = listener.unwrap_or_default();
        let name = self.check_lookup(is_authorized, topic, &listener)?;
        if !self.creates_on_demand(&name) && !self.topics.contains(name.as_str()) {
            return Err(refuse(ServerError::TopicNotFound, format!("Topic not found {name}")));
        }
        self.ownership.acquire(&name);
        let url = self.brokers.find_owner(name.as_str());
        let mut answer = json!({ "brokerUrl": url, "nativeUrl": url, "brokerUrlSsl": "" });
        let others = [
            ("brokerUrlTls", &self.config.broker_service_url_tls),
            ("httpUrl", &self.config.web_service_url),
            ("httpUrlTls", &self.config.web_service_url_tls),
        ];
        for (name, url) in others {
            if let Some(url) = url {
                answer[name] = json!(url);
            }
        }
        Ok(answer)
    }

    fn rest_topics(&self, is_authorized: bool, namespace: &str, query: &str) -> Result<Value, Refusal> {
        if !is_authorized {
            return Err(refuse(ServerError::AuthorizationError, "Unauthorized to validateNamespaceOperation"));
        }
        if !self.config.has_namespace(namespace) {
            return Err(refuse(ServerError::TopicNotFound, "Namespace does not exist"));
        }
        let mode = match parameter(query, "mode").as_deref() {
            Some("ALL") => Mode::All,
            Some("NON_PERSISTENT") => Mode::NonPersistent,
            _ => Mode::Persistent,
        };
        Ok(json!(self.topics.names_of(namespace, mode, None)))
    }

    fn rest_schema(&self, is_authorized: bool, topic: &str, version: Option<&str>) -> Result<Value, Refusal> {
        if !is_authorized {
            return Err(refuse(ServerError::AuthorizationError, "Unauthorized to validateTopicOperation"));
        }
        let missing = || refuse(ServerError::TopicNotFound, "Schema not found");
        let version = version.map(|version| version.parse().map_err(|_| missing())).transpose()?;
        let found = self.schemas.get(topic, version).filter(|found| !found.is_deletion).ok_or_else(missing)?;
        let (schema, version) = (&found.schema, found.version);
        let properties: serde_json::Map<_, _> =
            schema.properties.iter().map(|pb::KeyValue { key, value }| (key.clone(), json!(value))).collect();
        let data = String::from_utf8_lossy(&schema.schema_data);
        let name = schema_type_name(schema.r#type());
        Ok(
            json!({ "version": version, "type": name, "timestamp": found.registered_ms, "data": data, "properties": properties }),
        )
    }
}

fn refused(refusal: Refusal) -> RestAnswer {
    let status = match ServerError::try_from(refusal.code) {
        Ok(ServerError::AuthorizationError) => {
            let reason = "Unauthorized to validateTopicOperation for operation [LOOKUP]";
            return RestAnswer::Refused(401, reason.to_owned());
        }
        Ok(ServerError::TopicNotFound) => 404,
        Ok(ServerError::InvalidTopicName) => 412,
        _ => 500,
    };
    RestAnswer::Refused(status, refusal.message)
}

fn full_name(domain: &str, tenant: &str, namespace: &str, local: &str) -> String {
    format!("{domain}://{tenant}/{namespace}/{local}")
}

/// A parameter of a query, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| decoded(value))
}

/// Percent-decodes; `None` also for what is not UTF-8 then.
fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent::decoded(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_a_text() {
        assert_eq!(decoded("a%2fb%C3%bC").as_deref(), Some("a/bü"));
        assert_eq!(decoded("%ff"), None);
    }
}
