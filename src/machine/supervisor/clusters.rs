//! The client goes to another cluster, or one topic does (TOPIC_MIGRATED, PIP-188).
//!
//! | what | at once | later |
//! | --- | --- | --- |
//! | a query, and an endpoint that no session has | starts anew with the new hosts, without a back-off | |
//! | an endpoint that a session has | its session is to end | starts anew when that has ended, or has reported anything about it |
//! | a connection of the cluster before | is not handed out any more; without endpoints it is closed | ends |
//!
//! An endpoint whose topic has migrated gets hosts of its own. They are used for its lookups alone: numbers of partitions and
//! schemas are asked for at the service URL, as by the Java client. A switch of the client's cluster removes them.
//!
//! Positions of one cluster mean nothing in another, so an endpoint is told before it is opened in another one than the time
//! before ([`EndpointMachine::on_cluster_changed`](crate::machine::EndpointMachine::on_cluster_changed)).

use std::sync::Arc;

use super::Supervisor;
use super::managed_endpoint::{AfterFailure, ManagedState};
use super::notice::{EndpointNotice, Notice};
use super::pool::Holder;
use super::service_hosts::{Place, ServiceHosts};
use super::service_url::ServiceUrl;
use crate::error::Error;
use crate::machine::control::{Attempt, ClusterId, ConnectionId, Transport, topic_migrated};
use crate::machine::{Deferred, EndpointId, Now};

impl Supervisor {
    /// Everything goes to this cluster from now on. Does nothing if a later one is in use already, or the client is closed.
    pub(super) fn switch_cluster(&mut self, cluster: ClusterId, url: ServiceUrl, now: Now, deferred: &mut Deferred) {
        if self.closing.is_some() || cluster <= self.hosts.place().cluster {
            return;
        }
        let service_url: Arc<str> = url.to_string().into();
        self.hosts = self.hosts_at(url, cluster);
        self.pool.take_notices(&mut self.notices);
        self.notices.push(Notice::ClusterSwitched { service_url });
        self.pool.retire_all();
        let ids: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in ids {
            let Some(managed) = self.endpoints.get_mut(&id) else { continue };
            managed.on_cluster_switched();
            if managed.is_with_session() {
                continue;
            }
            if let ManagedState::LookingUp { request: Some(request), .. } = &managed.state {
                self.requests.forget(*request);
            }
            self.attach(id, now);
            self.poll_endpoint(id, now, deferred);
        }
        self.restart_queries(now);
        if !mutation!(SwitchLeavesAttached) {
            self.pool.end_retired(cluster);
        }
    }

    /// The hosts of another place.
    fn hosts_at(&mut self, url: ServiceUrl, cluster: ClusterId) -> ServiceHosts {
        let place = Place { number: self.next_place, cluster };
        self.next_place += 1;
        ServiceHosts::new(url, place, self.config.quarantine, self.random.next())
    }

    /// Whether a connection is of a cluster that is not used any more.
    pub(super) fn is_retired(&self, connection: ConnectionId) -> bool {
        self.pool.key(connection).is_some_and(|key| key.cluster != self.hosts.place().cluster)
    }

    /// An endpoint has left a connection of a cluster that is not used any more: it attaches without a back-off.
    pub(super) fn reattach(&mut self, id: EndpointId, error: &Error, now: Now, deferred: &mut Deferred) {
        let Some(managed) = self.endpoints.get(&id) else { return };
        if matches!(managed.state, ManagedState::Attached) {
            let topic = managed.subject.clone();
            self.notice(id, topic, EndpointNotice::Detached { error: error.clone() });
        }
        self.attach(id, now);
        self.poll_endpoint(id, now, deferred);
    }

    /// The topic of an endpoint has migrated to the cluster at `url`: it is looked up there, at once unless that cluster
    /// has sent it on without opening it.
    pub(super) fn on_migrated(
        &mut self,
        connection: ConnectionId,
        id: EndpointId,
        attempt: Attempt,
        url: Option<String>,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let is_retired = self.is_retired(connection);
        let tls = self.pool.key(connection).is_some_and(|key| key.tls);
        if self.current(connection, id, attempt).is_none() {
            return;
        }
        if is_retired {
            return self.reattach(id, &topic_migrated(), now, deferred);
        }
        let Some(managed) = self.endpoints.get_mut(&id) else { return };
        let (topic, is_first) = (managed.subject.clone(), managed.count_migration(&self.config));
        let error = match migrated_url(url, tls) {
            Ok(url) => {
                let service_url: Arc<str> = url.to_string().into();
                let hosts = self.hosts_at(url, self.hosts.place().cluster);
                if let Some(managed) = self.endpoints.get_mut(&id) {
                    managed.hosts = Some(Box::new(hosts));
                }
                self.notice(id, topic.clone(), EndpointNotice::Migrated { service_url });
                if is_first {
                    return self.reattach(id, &topic_migrated(), now, deferred);
                }
                topic_migrated()
            }
            Err(why) => topic_migrated().with_source(why),
        };
        self.pool.leave(Holder::Endpoint(id), now);
        if let Some(managed) = self.endpoints.get_mut(&id) {
            if let AfterFailure::RetryAt(at) = managed.back_off(&self.config, &mut self.random, now) {
                let report = managed.report_failure(&error, at, now, deferred);
                self.notice(id, topic, report);
                self.set_retry(Holder::Endpoint(id), at);
            }
        }
        self.poll_endpoint(id, now, deferred);
    }
}

/// The service URL that TOPIC_MIGRATED names. Where TLS is spoken, only one with TLS is followed: the credentials are not
/// to be shown over a plain connection because a broker says so.
fn migrated_url(url: Option<String>, tls: bool) -> Result<ServiceUrl, String> {
    let form = if tls { "TLS" } else { "plain (non-TLS)" };
    let url = url.ok_or_else(|| format!("the broker names no {form} address of that cluster"))?;
    let parsed = ServiceUrl::parse(&url).map_err(|error| error.to_string())?;
    if parsed.transport() != Transport::Pulsar || parsed.tls() != tls {
        return Err(format!("the broker names `{url}` as that cluster's {form} address"));
    }
    Ok(parsed)
}
