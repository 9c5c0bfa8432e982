//! The broker over HTTP: Pulsar's admin API, and the lookups of clients with an `http://` service URL. Paths, bodies and
//! status codes are those of Pulsar 4.0.8.
//!
//! A request goes through [`Broker::rest`]: credentials, then the table of routes, then one function of an area, which is
//! pure: no socket, no clock. A path below `/admin` that no route has is answered with 501 and names itself.
//!
//! | file | what it answers |
//! | --- | --- |
//! | `request`, `answer` | none: what the functions take and give |
//! | `routes` | none: the table, and what a path matches |
//! | `lookup` | where a topic is served, its partitions |
//! | `topics` | topics: made, listed, unloaded, ended, deleted |
//! | `subscriptions` | subscriptions: made, deleted, moved |
//! | `messages` | stored messages, and ids of messages |
//! | `stats` | statistics of topics |
//! | `tenants`, `namespaces` | tenants, clusters and namespaces |
//! | `policies`, `policy_values` | policies of namespaces and topics, and their JSON |
//! | `permissions` | what roles may do |
//! | `kept` | policies without an effect here |
//! | `schemas` | schemas of topics |
//! | `brokers` | the broker itself: health, version |
//! | `testing` | requests that no real broker has, for tests in other languages |
//! | `time` | none: times as the admin API writes them |

mod answer;
mod brokers;
mod kept;
mod lookup;
mod messages;
mod namespaces;
mod permissions;
mod policies;
mod policy_values;
mod request;
mod routes;
mod schemas;
mod stats;
mod subscriptions;
mod tenants;
mod testing;
mod time;
mod topics;

pub use self::answer::RestAnswer;
pub(in crate::broker) use self::kept::KeptPolicies;
use self::request::Call;
pub use self::request::RestRequest;
pub(in crate::broker) use self::request::parameter;
use self::routes::{Access, Found};
pub use self::testing::BrokerSwitch;
#[cfg(feature = "tls")]
pub(in crate::broker) use self::time::iso;
use super::authentication;
use super::machine::Broker;
use super::policies::Access as TopicAccess;
use crate::topic::TopicName;

/// How a request that is not served is answered.
type Outcome = Result<RestAnswer, RestAnswer>;

impl Broker {
    /// Answers a request to the web port.
    pub fn rest(&mut self, request: &RestRequest<'_>) -> RestAnswer {
        // Without valid credentials every path is answered alike, whether it is served or not.
        let Ok(role) = self.rest_role(request) else {
            return RestAnswer::page(401, "Authentication required");
        };
        let Found { answer, access, captured } = match routes::find(request) {
            Ok(found) => found,
            Err(refusal) => return refusal,
        };
        let RestRequest { method, path, query, body, .. } = *request;
        let mut call = Call { method, path, captured, query, body, is_authorized: true };
        if let Some(role) = role.filter(|role| !self.config.super_user_roles.contains(role)) {
            let wanted = if let Access::Granted(wanted) = access { wanted } else { TopicAccess::LookUp };
            let topic = TopicName::parse(&call.topic_text()).ok();
            call.is_authorized = topic.is_some_and(|topic| self.is_granted(&role, &topic, wanted));
            if !self.is_let_in(&role, access, &call) {
                return self.refusal_of_a_stranger(access, &call);
            }
        }
        answer(self, &call).unwrap_or_else(|refusal| refusal)
    }

    /// Whether a role that is no super user may send a request.
    fn is_let_in(&self, role: &str, access: Access, call: &Call<'_>) -> bool {
        match access {
            Access::AnyRole => true,
            Access::Granted(_) => call.is_authorized,
            Access::InNamespace => self.may_look_into(role, &call.namespace()),
            Access::Topic | Access::Namespace | Access::Tenant => {
                self.tenants.is_administered_by(call.segment("tenant"), role)
            }
            Access::SuperUser => false,
        }
    }

    /// What a role without rights is told: also whether there is the tenant.
    fn refusal_of_a_stranger(&self, access: Access, call: &Call<'_>) -> RestAnswer {
        let tenant = call.segment("tenant");
        let has_tenant = self.tenants.get(tenant).is_some() || self.config.has_namespace(&call.namespace());
        if tenant.is_empty() || has_tenant || access == Access::SuperUser {
            return access.refusal(call);
        }
        RestAnswer::refused(404, "Tenant does not exist")
    }

    /// The role of a request, `None` while authentication is off. An error if the credentials are not good.
    fn rest_role(&self, request: &RestRequest<'_>) -> Result<Option<String>, ()> {
        if !self.config.authenticates() {
            return Ok(None);
        }
        let (certified, authorization) = (request.certified, request.authorization);
        let identity = authentication::of_request(&self.config, certified, authorization, self.now.wall_ms);
        let anonymous = || self.config.anonymous_user_role.clone().filter(|_| authorization.is_none());
        identity.map(|identity| identity.role).or_else(anonymous).map(Some).ok_or(())
    }
}
