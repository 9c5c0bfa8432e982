//! The table of routes.

use super::request::{Call, decoded};
use super::{
    Outcome, RestAnswer, RestRequest, brokers, lookup, messages, namespaces, permissions, policies, schemas, stats,
    subscriptions, tenants, testing, topics,
};
use crate::broker::machine::Broker;
use crate::broker::policies::Access as TopicAccess;

/// What answers a request.
pub(super) type Handler = fn(&mut Broker, &Call<'_>) -> Outcome;

/// One method on one path.
pub(super) struct Route {
    method: &'static str,
    /// Segments of the path; one in braces stands for any, `{domain}` for `persistent` and `non-persistent`.
    pattern: &'static str,
    pub(super) answer: Handler,
    /// Where it differs from that of the area.
    access: Option<Access>,
}

/// The rights that a request needs, beside superuser roles; and the status of its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Any role; the function checks what it may do, if that matters.
    AnyRole,
    /// Roles that may use the topic so, and those that administer its tenant.
    Granted(TopicAccess),
    /// Roles that may use topics of the namespace, and those that administer its tenant.
    InNamespace,
    /// Roles that administer the tenant: other operations on a topic.
    Topic,
    /// The same for operations on a namespace, and policies.
    Namespace,
    /// The same for the tenant and its namespaces.
    Tenant,
    /// No other role.
    SuperUser,
}

impl Access {
    /// The refusal of a role that may not do it.
    pub(super) fn refusal(self, call: &Call<'_>) -> RestAnswer {
        match self {
            Self::Namespace | Self::InNamespace => {
                let reason = format!("Unauthorized to validateNamespaceOperation on namespace [{}]", call.namespace());
                RestAnswer::refused(403, reason)
            }
            Self::Topic | Self::Granted(_) | Self::AnyRole => {
                let reason = format!("Unauthorized to validateTopicOperation on topic [{}]", call.topic_text());
                RestAnswer::refused(401, reason)
            }
            Self::Tenant => {
                let reason = format!("Unauthorized to validateTenantOperation on tenant [{}]", call.segment("tenant"));
                RestAnswer::refused(401, reason)
            }
            Self::SuperUser => RestAnswer::refused(401, "Unauthorized to validateSuperUserAccess"),
        }
    }
}

impl Route {
    const fn new(method: &'static str, pattern: &'static str, answer: Handler) -> Self {
        Self { method, pattern, answer, access: None }
    }

    /// A route with another access than the rest of its area.
    pub(super) const fn access(self, access: Access) -> Self {
        Self { access: Some(access), ..self }
    }
}

pub(super) const fn get(pattern: &'static str, answer: Handler) -> Route {
    Route::new("GET", pattern, answer)
}

pub(super) const fn put(pattern: &'static str, answer: Handler) -> Route {
    Route::new("PUT", pattern, answer)
}

pub(super) const fn post(pattern: &'static str, answer: Handler) -> Route {
    Route::new("POST", pattern, answer)
}

pub(super) const fn delete(pattern: &'static str, answer: Handler) -> Route {
    Route::new("DELETE", pattern, answer)
}

/// All routes, an area each.
const AREAS: &[(Access, &[Route])] = &[
    (Access::AnyRole, lookup::ROUTES),
    (Access::Topic, topics::ROUTES),
    (Access::Granted(TopicAccess::Consume), subscriptions::ROUTES),
    (Access::Granted(TopicAccess::Consume), messages::ROUTES),
    (Access::Granted(TopicAccess::LookUp), stats::ROUTES),
    (Access::SuperUser, tenants::ROUTES),
    (Access::Namespace, namespaces::ROUTES),
    (Access::Topic, schemas::ROUTES),
    (Access::SuperUser, brokers::ROUTES),
    (Access::SuperUser, testing::ROUTES),
    (Access::Namespace, permissions::ROUTES),
    // The last: its patterns end in any name.
    (Access::Namespace, policies::ROUTES),
];

/// A route that matches a request.
pub(super) struct Found {
    pub(super) answer: Handler,
    pub(super) access: Access,
    /// What the names of the pattern stand for.
    pub(super) captured: Vec<(&'static str, String)>,
}

/// The route of a request.
pub(super) fn find(request: &RestRequest<'_>) -> Result<Found, RestAnswer> {
    let path = request.path.trim_matches('/');
    let Some(segments) = path.split('/').map(decoded).collect::<Option<Vec<_>>>() else {
        return Err(RestAnswer::page(404, "Not Found"));
    };
    let mut is_known = false;
    let all = AREAS.iter().flat_map(|(access, routes)| routes.iter().map(|route| (*access, route)));
    for (access, route) in all {
        let Some(captured) = captured(route.pattern, &segments) else { continue };
        is_known = true;
        if route.method == request.method {
            return Ok(Found { answer: route.answer, access: route.access.unwrap_or(access), captured });
        }
    }
    match segments.first().map(String::as_str) {
        Some("admin") => Err(unserved(request.method, request.path)),
        _ if is_known => Err(RestAnswer::page(405, "Method Not Allowed")),
        _ => Err(RestAnswer::page(404, "Not Found")),
    }
}

/// That no route serves it.
pub(super) fn unserved(method: &str, path: &str) -> RestAnswer {
    RestAnswer::refused(501, format!("{method} {path} is not served by the embedded broker"))
}

fn captured(pattern: &'static str, segments: &[String]) -> Option<Vec<(&'static str, String)>> {
    let mut captured = Vec::new();
    let mut wanted = pattern.split('/');
    for segment in segments {
        let wanted = wanted.next()?;
        match wanted.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some("domain") if !matches!(segment.as_str(), "persistent" | "non-persistent") => return None,
            Some(name) => captured.push((name, segment.clone())),
            None if wanted == segment => {}
            None => return None,
        }
    }
    wanted.next().is_none().then_some(captured)
}
