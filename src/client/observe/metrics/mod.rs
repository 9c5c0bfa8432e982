//! The metrics of a client, for a recorder of the `metrics` facade. Nothing outside this folder knows that.
//!
//! What happens to connections and what is opened and closed is counted when it happens. What producers and consumers
//! count themselves is copied at an interval, one short lock for each, and what has come since the last time is added:
//! there is nothing for a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};

use crate::machine::control::{ConnectionId, Input};
use crate::machine::endpoint::machine::EndpointStats;
use crate::machine::memory::{MemoryBudget, MemoryUsage};
use crate::machine::supervisor::notice::{ConnectionNotice, EndpointNotice, Notice};
use crate::machine::{Deadline, EndpointId, EndpointRef, Now};

mod groups;
mod names;

use groups::{EndpointKind, Gauges, Group, Labels, publish_gauges};

/// How the metrics of a client are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricsConfig {
    /// How often what producers and consumers count is added. Zero: only once they have ended.
    pub(crate) interval: Duration,
    /// Whether they carry topic and partition.
    pub(crate) per_topic: bool,
}

impl MetricsConfig {
    fn next(self, now: Now) -> Option<Deadline> {
        let interval = Some(self.interval).filter(|interval| !interval.is_zero())?;
        Deadline::after(now, interval, "metrics")
    }
}

/// The metrics of one client.
pub(super) struct Metrics {
    config: MetricsConfig,
    transport: &'static str,
    /// Bounded by the connections of the client.
    connections: BTreeMap<ConnectionId, Counted>,
    /// Bounded by the endpoints of the client.
    endpoints: BTreeMap<EndpointId, Live>,
    gauges: Gauges,
    /// `None`: the client has no limit.
    memory: Option<Arc<MemoryBudget>>,
    memory_told: MemoryUsage,
    /// `None`: never.
    next_publish: Option<Deadline>,
}

/// A connection that is made or in use.
#[derive(Default)]
struct Counted {
    /// Its socket is there.
    is_dialed: Arc<AtomicBool>,
    is_open: bool,
}

/// A producer or consumer that has not ended.
struct Live {
    endpoint: EndpointRef,
    labels: Labels,
    /// What was told of it.
    told: EndpointStats,
    /// Since when it is looked up.
    lookup_sent: Option<Instant>,
    /// A broker has opened it before.
    is_open: bool,
}

impl Metrics {
    pub(super) fn new(service_url: &str, config: MetricsConfig, memory: Option<Arc<MemoryBudget>>, now: Now) -> Self {
        names::describe();
        // So that they are there before the first happens.
        counter!(names::CONNECTION_OPENED).increment(0);
        counter!(names::CONNECTION_CLOSED).increment(0);
        ["tcp-failed", "handshake"].into_iter().for_each(|how| count_failures(how, 0));
        Self {
            config,
            transport: if service_url.starts_with("http") { "http" } else { "binary" },
            connections: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            gauges: Gauges::new(),
            memory,
            memory_told: MemoryUsage::default(),
            next_publish: config.next(now),
        }
    }

    pub(super) fn poll_deadline(&self) -> Option<Deadline> {
        self.next_publish
    }

    pub(super) fn handle_deadline(&mut self, now: Now) {
        if self.next_publish.is_some_and(|deadline| deadline.is_due(now)) {
            self.next_publish = self.config.next(now);
            self.publish();
        }
    }

    pub(super) fn on_input(&mut self, input: &Input) {
        let Input::Open(endpoint) = input else { return };
        let kind = match endpoint.id() {
            EndpointId::Producer(_) => EndpointKind::Producer,
            EndpointId::Consumer(_) => EndpointKind::Consumer,
            EndpointId::TopicList(_) => return,
        };
        let labels = Labels::new(kind, &endpoint.subject(), endpoint.subscription(), self.config.per_topic);
        if let Some(labels) = labels {
            let endpoint = endpoint.clone();
            let told = EndpointStats::None;
            self.endpoints.insert(endpoint.id(), Live { endpoint, labels, told, lookup_sent: None, is_open: false });
        }
    }

    pub(super) fn on_notice(&mut self, notice: &Notice, now: Now) {
        match notice {
            Notice::Connection { connection, event, .. } => self.on_connection(*connection, event),
            Notice::ClusterSwitched { .. } => {}
            Notice::Endpoint { endpoint, event, .. } => self.on_endpoint(*endpoint, event, now),
        }
    }

    /// To be set once the socket of this connection is there.
    pub(super) fn is_dialed(&self, id: ConnectionId) -> Arc<AtomicBool> {
        self.connections.get(&id).map(|counted| counted.is_dialed.clone()).unwrap_or_default()
    }

    fn on_connection(&mut self, id: ConnectionId, event: &ConnectionNotice) {
        match event {
            ConnectionNotice::Connecting => drop(self.connections.insert(id, Counted::default())),
            ConnectionNotice::Connected { .. } => {
                self.connections.entry(id).or_default().is_open = true;
                counter!(names::CONNECTION_OPENED).increment(1);
            }
            ConnectionNotice::Challenged => {}
            ConnectionNotice::Failed { was_up, .. } => {
                let counted = self.connections.remove(&id).unwrap_or_default();
                match (was_up, counted.is_dialed.load(Ordering::Relaxed)) {
                    (true, _) => counter!(names::CONNECTION_CLOSED).increment(1),
                    (false, true) => count_failures("handshake", 1),
                    (false, false) => count_failures("tcp-failed", 1),
                }
            }
            ConnectionNotice::Closed => {
                if self.connections.remove(&id).is_some_and(|counted| counted.is_open) {
                    counter!(names::CONNECTION_CLOSED).increment(1);
                }
            }
        }
    }

    fn on_endpoint(&mut self, id: EndpointId, event: &EndpointNotice, now: Now) {
        let transport = self.transport;
        let Some(live) = self.endpoints.get_mut(&id) else { return };
        match event {
            EndpointNotice::LookupSent => drop(live.lookup_sent.get_or_insert(now.at)),
            EndpointNotice::LookedUp { is_redirect: true } => {}
            EndpointNotice::LookedUp { is_redirect: false } => looked_up(live, transport, "success", now),
            EndpointNotice::Attached { .. } => {
                if !std::mem::replace(&mut live.is_open, true) {
                    live.labels.count(opened(live.labels.kind), 1);
                }
            }
            EndpointNotice::AttachFailed { .. } => looked_up(live, transport, "failed", now),
            EndpointNotice::Opening { .. } | EndpointNotice::Detached { .. } | EndpointNotice::Migrated { .. } => {}
            EndpointNotice::Finished { .. } => {
                looked_up(live, transport, "failed", now);
                self.forget(id);
            }
        }
    }

    /// Tells the last of an endpoint that has ended.
    fn forget(&mut self, id: EndpointId) {
        let Some(live) = self.endpoints.remove(&id) else { return };
        let mut last = Group::default();
        last.add(&live.endpoint.stats(), &live.told);
        last.publish(&live.labels);
        if live.is_open {
            live.labels.count(closed(live.labels.kind), 1);
        }
    }

    /// Tells what has come since the last time, and what is.
    fn publish(&mut self) {
        // One that was opened when the client was closed already, of which nothing is noticed.
        let is_over = |live: &Live| live.endpoint.is_finished();
        let over: Vec<_> = self.endpoints.iter().filter(|(_, live)| is_over(live)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.forget(id));
        let mut groups: BTreeMap<Labels, Group> = BTreeMap::new();
        for live in self.endpoints.values_mut() {
            let stats = live.endpoint.stats();
            let group = groups.entry(live.labels.clone()).or_default();
            group.add(&stats, &live.told);
            group.add_live(live.endpoint.attach_state().is_attached());
            live.told = stats;
        }
        let mut gauges = Gauges::new();
        for (labels, group) in &groups {
            group.publish(labels);
            group.gauges(labels, &mut gauges);
        }
        publish_gauges(&mut self.gauges, gauges);
        if let Some(usage) = self.memory.as_ref().map(|budget| budget.usage()) {
            self.publish_memory(usage);
        }
    }

    /// By differences, so that the gauges of several clients add up.
    fn publish_memory(&mut self, usage: MemoryUsage) {
        let told = std::mem::replace(&mut self.memory_told, usage);
        gauge!(names::MEMORY_USAGE).increment(usage.used as f64 - told.used as f64);
        gauge!(names::MEMORY_LIMIT).increment(usage.limit as f64 - told.limit as f64);
    }
}

/// Nothing is left of the client, so it has no part in the gauges.
impl Drop for Metrics {
    fn drop(&mut self) {
        publish_gauges(&mut self.gauges, Gauges::new());
        if self.memory_told != MemoryUsage::default() {
            self.publish_memory(MemoryUsage::default());
        }
    }
}

fn count_failures(how: &'static str, count: u64) {
    counter!(names::CONNECTION_FAILED, "pulsar.failure.type" => how).increment(count);
}

/// The lookup of an endpoint, if there is one, has ended.
fn looked_up(live: &mut Live, transport: &'static str, status: &'static str, now: Now) {
    let Some(since) = live.lookup_sent.take() else { return };
    let took = now.at.saturating_duration_since(since).as_secs_f64();
    let labels = [
        ("pulsar.lookup.transport-type", transport),
        ("pulsar.lookup.type", "topic"),
        ("pulsar.response.status", status),
    ];
    histogram!(names::LOOKUP_DURATION, &labels).record(took);
}

fn opened(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Producer => names::PRODUCER_OPENED,
        EndpointKind::Consumer => names::CONSUMER_OPENED,
    }
}

fn closed(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Producer => names::PRODUCER_CLOSED,
        EndpointKind::Consumer => names::CONSUMER_CLOSED,
    }
}
