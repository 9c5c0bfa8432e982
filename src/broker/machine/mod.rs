//! The broker without sockets: frames of connections in, frames for connections and deadlines out.
//!
//! Call order: any input ([`connect`](Broker::connect), [`receive`](Broker::receive), [`handle`](Broker::handle),
//! [`disconnect`](Broker::disconnect), [`handle_deadline`](Broker::handle_deadline), or one of the administrative
//! calls), then [`take_ready`](Broker::take_ready) and for each connection it names
//! [`poll_transmit`](Broker::poll_transmit) and [`closing`](Broker::closing), then
//! [`poll_deadline`](Broker::poll_deadline).
//!
//! The state lies in parts that own their rules; what a command does with them is in `commands`, what an administrator
//! does in `admin`. This is the interface of the simulator and of tests without a runtime; it may change in any
//! release.

mod request_faults;
mod takeovers;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

pub(crate) use self::takeovers::{PendingTakeover, PendingTakeovers};
pub(crate) use self::timers::{BrokerTimer, BrokerTimers};
use crate::broker::commands::MigratedTo;
use crate::broker::config::BrokerConfig;
use crate::broker::conformance::{Conformance, ConformanceViolation, Rule};
pub use crate::broker::connections::Peer;
use crate::broker::connections::{ConnectionState, Connections};
use crate::broker::dispatch::{DispatchContext, Dispatched, Dispatcher, UnackedLimits};
pub use crate::broker::ids::ConnId;
use crate::broker::like::Capability;
use crate::broker::policies::{Access, Policies};
use crate::broker::refusal::refuse;
use crate::broker::rest::KeptPolicies;
pub use crate::broker::rest::{BrokerSwitch, RestAnswer, RestRequest};
use crate::broker::tenants::Tenants;
use crate::broker::topics::{Brokers, Ownership, Schemas, TopicListWatchers, TopicTable, too_many_topics};
use crate::machine::{Deadline, Now};
use crate::pb::{self, ServerError};
use crate::topic::TopicName;
use crate::wire::command::Refusal;
use crate::wire::error::DecodeError;
use crate::wire::frame::{Frame, Limits, cut, frames};
use crate::wire::tx::TxBuf;

/// Until a subscription that got as much as the dispatch rates allow is looked at again, as on a real broker.
const DISPATCH_BACKOFF: Duration = Duration::from_secs(1);

/// A whole broker. See the [module](self).
pub struct Broker {
    pub(super) config: BrokerConfig,
    pub(super) brokers: Brokers,
    pub(super) connections: Connections,
    pub(super) topics: TopicTable,
    pub(super) ownership: Ownership,
    pub(super) schemas: Schemas,
    pub(super) policies: Policies,
    pub(super) tenants: Tenants,
    pub(super) kept_policies: KeptPolicies,
    /// What was configured over the admin API, by name.
    pub(super) dynamic_settings: BTreeMap<&'static str, String>,
    pub(super) watchers: TopicListWatchers,
    pub(super) takeovers: PendingTakeovers,
    pub(super) conformance: Conformance,
    /// Requests to the token endpoint so far.
    pub(super) token_requests: u64,
    pub(super) migrated_to: Option<MigratedTo>,
    /// The latest reading any input brought, on the broker's own clock.
    pub(super) now: Now,
    /// How far the broker's own clock is ahead of the wall clock of the inputs, ms.
    pub(super) advanced_ms: u64,
    /// What a request wants of the sockets.
    pub(super) switch: Option<BrokerSwitch>,
    timers: BrokerTimers,
    /// Producer names generated so far.
    generated_names: u64,
    /// A timer for the next check of policies is set.
    pub(super) checks_policies: bool,
    limits: Limits,
}

impl Broker {
    /// A broker without connections; `url` is the URL in responses to LOOKUP, as in `pulsar://127.0.0.1:6650`.
    pub fn new(config: BrokerConfig, url: impl Into<String>, now: Now) -> Self {
        let mut broker = Self {
            brokers: Brokers::new(url.into()),
            connections: Connections::new(config.pulsar_channel_write_buffer_high_water_mark, config.like),
            topics: TopicTable::new(config.max_stored_bytes),
            ownership: Ownership::default(),
            schemas: Schemas::default(),
            policies: config.initial_policies(),
            kept_policies: KeptPolicies::default(),
            dynamic_settings: BTreeMap::new(),
            tenants: Tenants::new(&config.cluster_name, &config.namespaces),
            watchers: TopicListWatchers::default(),
            takeovers: PendingTakeovers::default(),
            conformance: Conformance::default(),
            token_requests: 0,
            migrated_to: None,
            now,
            advanced_ms: 0,
            switch: None,
            timers: BrokerTimers::default(),
            generated_names: 0,
            checks_policies: false,
            limits: Limits::for_message_size(config.max_message_size),
            config,
        };
        broker.plan_policy_check();
        for (topic, partitions) in broker.config.partitioned_topics.clone() {
            broker.create_partitioned_topic(&topic, partitions);
        }
        broker
    }

    /// Bytes waiting for one connection at which delivery to it stops; its driver stops reading there as well.
    pub fn write_buffer_high_water_mark(&self) -> usize {
        self.config.pulsar_channel_write_buffer_high_water_mark
    }

    /// The limits of a frame on this broker's connections.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The rules that clients broke so far, in order; at most 1,000 are kept.
    pub fn violations(&self) -> &[ConformanceViolation] {
        self.conformance.violations()
    }

    /// Clears the recorded violations.
    pub fn clear_violations(&mut self) {
        self.conformance.clear();
    }
}

/// Inputs.
impl Broker {
    /// A client connected.
    pub fn connect(&mut self, now: Now) -> ConnId {
        self.set_clock(now);
        let conn = self.connections.add();
        self.set_keep_alive_timer(conn);
        conn
    }

    /// A client connected to one of the cluster's brokers, numbered from 0.
    pub fn connect_to(&mut self, broker: usize, peer: Peer, now: Now) -> ConnId {
        let conn = self.connect(now);
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.broker = broker;
            connection.address = peer.address;
            connection.credentials.certified = peer.common_name;
        }
        if !self.brokers.is_running(broker) {
            self.connections.close(conn);
        }
        conn
    }

    /// Received bytes: whole frames are taken off `rx` and handled. Bad bytes end the connection.
    pub fn receive(&mut self, conn: ConnId, rx: &mut BytesMut, now: Now) {
        let is_cut = self.inject_into_received(rx);
        let before = rx.len();
        self.receive_frames(conn, rx, now);
        self.connections.faults.count_received(before - rx.len());
        if is_cut {
            self.connections.cut(conn);
        }
    }

    fn receive_frames(&mut self, conn: ConnId, rx: &mut BytesMut, now: Now) {
        loop {
            match cut(rx, &self.limits) {
                Ok(Some(run)) => {
                    for frame in frames(run) {
                        match frame {
                            Ok(frame) => self.handle(conn, frame, now),
                            Err(error) => return self.on_unreadable(conn, &error),
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => return self.on_unreadable(conn, &error),
            }
        }
    }

    /// One received frame.
    pub fn handle(&mut self, conn: ConnId, frame: Frame, now: Now) {
        self.set_clock(now);
        self.handle_received(conn, frame);
    }

    /// The same, at the time of the latest input.
    pub(super) fn handle_received(&mut self, conn: ConnId, frame: Frame) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.state == ConnectionState::Closing {
            return;
        }
        if connection.throttle.is_on() {
            return connection.throttle.hold(frame);
        }
        if let Some(check) = connection.liveness.on_frame() {
            self.on_holder_alive(check);
        }
        match self.request_fault(conn, &frame) {
            None => self.handle_frame(conn, frame),
            Some(effect) => self.handle_with_fault(conn, frame, effect),
        }
    }

    /// The connection has ended. Its producers and consumers are removed, at the time of the latest input.
    pub fn disconnect(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.remove(conn) else { return };
        self.watchers.remove_connection(conn);
        self.drop_endpoints(conn, &connection.endpoints);
        self.on_holder_gone(conn);
    }

    /// Does what is due at `now`.
    pub fn handle_deadline(&mut self, now: Now) {
        self.set_clock(now);
        self.run_timers();
    }

    fn run_timers(&mut self) {
        while let Some(timer) = self.timers.take_due(self.now) {
            match timer {
                BrokerTimer::KeepAlive(conn) => self.on_keep_alive(conn),
                BrokerTimer::CredentialsCheck(conn) => self.on_credentials_check(conn),
                BrokerTimer::LivenessCheck { conn, check } => self.on_holder_silent(conn, check),
                BrokerTimer::Failover { topic, subscription, generation } => {
                    self.on_failover_delay(&topic, &subscription, generation);
                }
                BrokerTimer::DelayedMessages { topic, subscription } => {
                    self.on_delayed_messages(&topic, &subscription);
                }
                BrokerTimer::DispatchRate { topic, subscription } => self.on_dispatch_backoff(&topic, &subscription),
                BrokerTimer::PublishRate(conn) => self.on_publish_rate(conn),
                BrokerTimer::PolicyCheck => self.on_policy_check(),
                BrokerTimer::DelayedByFault { conn, bytes } => self.connections.send_raw(conn, &bytes),
            }
        }
    }

    /// Moves the broker's own clock, in ms since 1970, ahead by `by`, at the time of the latest input. What is due then happens
    /// at once: delayed messages, time to live, retention, backlog quotas by age, checks of credentials. What connections need
    /// to live stays as it is: keep-alive, liveness checks, the delay of a failover.
    pub fn advance(&mut self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.advanced_ms = self.advanced_ms.saturating_add(by_ms);
        self.now.wall_ms = self.now.wall_ms.saturating_add(by_ms);
        self.timers.advance(self.now.at, by);
        self.run_timers();
        self.enforce_policies();
    }

    fn set_clock(&mut self, now: Now) {
        self.now = Now { at: now.at, wall_ms: now.wall_ms.saturating_add(self.advanced_ms) };
    }

    fn on_delayed_messages(&mut self, topic: &Arc<str>, subscription: &Arc<str>) {
        if let Some(sub) = self.topics.subscription_mut(topic, subscription) {
            sub.queue.wake_delayed(self.now.wall_ms);
            self.dispatch(topic, Some(subscription));
        }
    }

    fn on_dispatch_backoff(&mut self, topic: &Arc<str>, subscription: &Arc<str>) {
        if let Some(sub) = self.topics.subscription_mut(topic, subscription) {
            sub.is_throttled = false;
            self.dispatch(topic, Some(subscription));
        }
    }

    fn on_unreadable(&mut self, conn: ConnId, error: &DecodeError) {
        self.close_on_violation(conn, Rule::UnreadableFrame, || error.to_string());
    }
}

/// Outputs.
impl Broker {
    /// Connections that have got something to write, or have to be closed, since the last call.
    pub fn take_ready(&mut self) -> Vec<ConnId> {
        self.run_deferred_faults();
        self.connections.take_ready()
    }

    /// Moves what is to be written to the end of `out`, and delivers what had been waiting for room.
    pub fn poll_transmit(&mut self, conn: ConnId, out: &mut TxBuf) {
        while out.len() < self.config.pulsar_channel_write_buffer_high_water_mark {
            let Some(connection) = self.connections.get_mut(conn).filter(|found| !found.writes_paused()) else {
                return;
            };
            let needs_dispatch = connection.take_needs_dispatch();
            let mut bytes = connection.take_output();
            self.inject_into_sent(conn, &mut bytes);
            out.flat().extend_from_slice(&bytes);
            if !needs_dispatch {
                return;
            }
            self.dispatch_connection(conn);
        }
    }

    /// Whether the connection ends as soon as the output of [`poll_transmit`](Self::poll_transmit) is written.
    pub fn closing(&self, conn: ConnId) -> bool {
        self.connections.state(conn).is_none_or(|state| state == ConnectionState::Closing)
    }

    /// When [`handle_deadline`](Self::handle_deadline) has something to do.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        self.timers.deadline()
    }
}

/// What all commands need.
impl Broker {
    /// Whether the release that this broker plays has it.
    pub(super) fn can(&self, capability: Capability) -> bool {
        self.config.like.can(capability)
    }

    pub(super) fn set_timer(&mut self, after: Duration, timer: BrokerTimer) {
        // A time beyond the clock's range needs no timer.
        if let Some(at) = self.now.at.checked_add(after) {
            self.timers.set(at, timer);
        }
    }

    pub(super) fn generated_name_prefix(&self) -> String {
        format!("{}-0-", self.config.cluster_name)
    }

    pub(super) fn generate_producer_name(&mut self) -> Arc<str> {
        self.generated_names += 1;
        Arc::from(format!("{}{}", self.generated_name_prefix(), self.generated_names))
    }

    /// Records what the client did and ends its connection without a response.
    pub(super) fn close_on_violation(&mut self, conn: ConnId, rule: Rule, detail: impl FnOnce() -> String) {
        self.conformance.record(conn, rule, detail);
        self.connections.close(conn);
    }

    pub(super) fn send_refusal(&mut self, conn: ConnId, request_id: u64, refusal: Refusal) {
        let error = pb::CommandError { request_id, error: refusal.code, message: refusal.message };
        self.connections.send(conn, error);
    }

    pub(super) fn send_success(&mut self, conn: ConnId, request_id: u64) {
        self.connections.send(conn, pb::CommandSuccess { request_id, schema: None });
    }

    /// Whether the role of a connection may use a topic so.
    pub(super) fn is_authorized(&self, conn: ConnId, topic: &str, access: Access) -> bool {
        let may = |role: &str| TopicName::parse(topic).is_ok_and(|name| self.is_granted(role, &name, access));
        self.is_super_user_or(conn, may)
    }

    /// Whether the role of a connection may list the topics of a namespace.
    pub(super) fn may_list(&self, conn: ConnId, namespace: &str) -> bool {
        self.is_super_user_or(conn, |role| self.may_look_into(role, namespace))
    }

    /// Whether a role that is no super user may use a topic so: by its permissions, or as one that administers the tenant.
    pub(super) fn is_granted(&self, role: &str, topic: &TopicName, access: Access) -> bool {
        access.is_granted(self.policies.effective(topic), role) || self.tenants.is_administered_by(topic.tenant(), role)
    }

    /// Whether the role of a connection may use a subscription. One with roles of its own is for these alone.
    pub(super) fn may_use_subscription(&self, conn: ConnId, topic: &TopicName, subscription: &str) -> bool {
        let roles = &self.policies.effective_of_namespace(topic.namespace()).subscription_permissions;
        roles.get(subscription).is_none_or(|roles| {
            let may = |role: &str| roles.contains(role) || self.tenants.is_administered_by(topic.tenant(), role);
            self.is_super_user_or(conn, may)
        })
    }

    /// The same for the list of a namespace's topics.
    pub(super) fn may_look_into(&self, role: &str, namespace: &str) -> bool {
        let tenant = namespace.split('/').next().unwrap_or_default();
        Access::LookUp.is_granted(self.policies.effective_of_namespace(namespace), role)
            || self.tenants.is_administered_by(tenant, role)
    }

    /// Without authentication everyone may do everything.
    fn is_super_user_or(&self, conn: ConnId, may: impl FnOnce(&str) -> bool) -> bool {
        let Some(connection) = self.connections.get(conn) else { return false };
        let identity = connection.credentials.identity.as_ref();
        identity.is_none_or(|identity| self.config.super_user_roles.contains(&identity.role) || may(&identity.role))
    }

    /// The topic, created if it does not exist and `create` allows it. Refused as by a real broker: where it does not exist,
    /// and where there are too many.
    pub(super) fn load_topic(&mut self, name: &TopicName, create: bool) -> Result<Arc<str>, Refusal> {
        if let Some(known) = self.topics.key(name.as_str()) {
            return Ok(known);
        }
        if !create || !self.creates_on_demand(name) || self.topics.is_beyond_last(name) {
            return Err(refuse(ServerError::TopicNotFound, format!("Topic {name} does not exist")));
        }
        if !self.topics.has_room_for(1) {
            return Err(refuse(ServerError::NotAllowedError, too_many_topics()));
        }
        Ok(self.insert_topic(name))
    }

    /// Whether a topic that does not exist is created when it is used: what its namespace says goes before the setting. A
    /// partition belongs to a topic that exists.
    pub(super) fn creates_on_demand(&self, name: &TopicName) -> bool {
        let is_partition = || name.partition_index().is_some() && self.topics.partitions(&name.base()).is_some();
        let policy = self.policies.effective(name).auto_topic_creation;
        policy.map_or_else(|| self.allows_auto_topic_creation(), |policy| policy.allow_auto_topic_creation)
            || is_partition()
    }

    /// What counts where no namespace says it: configured while the broker runs, else before.
    pub(super) fn allows_auto_topic_creation(&self) -> bool {
        let set = self.dynamic_settings.get("allowAutoTopicCreation");
        set.map_or(self.config.allow_auto_topic_creation, |value| value == "true")
    }

    /// Creates a topic and notifies the topic list watchers.
    pub(super) fn insert_topic(&mut self, name: &TopicName) -> Arc<str> {
        let topic = self.topics.create(name, Arc::clone(self.policies.effective(name)));
        if let Some(found) = self.topics.get_mut(&topic) {
            found.created_ms = self.now.wall_ms;
        }
        self.on_topic_list_changed(name, true);
        topic
    }

    /// Delivers what can be delivered on a topic: to one subscription, or to all.
    pub(super) fn dispatch(&mut self, topic: &Arc<str>, only: Option<&Arc<str>>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let context = DispatchContext {
            now_ms: self.now.wall_ms,
            partition: found.partition(),
            unacked_max: UnackedLimits::of(&found.policies),
            delays: found.policies.delayed_delivery.is_none_or(|delayed| delayed.active),
            broker_entry_metadata: self.config.exposing_broker_entry_metadata_to_client_enabled
                && self.config.like.can(Capability::BrokerEntryMetadata),
            damaged_entries: self.config.damaged_entries,
        };
        let (log, compacted, is_terminated) = (&found.log, &found.compacted, found.is_terminated);
        let (mut delayed, mut throttled) = (Vec::new(), Vec::new());
        let topic_rate = &mut found.dispatch_rate;
        topic_rate.follow_dispatch_rate(found.policies.dispatch_rate, context.now_ms);
        for (name, sub) in found.subscriptions.iter_mut().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            sub.dispatch_rate.follow_dispatch_rate(found.policies.subscription_dispatch_rate, context.now_ms);
            let dispatcher = {
                let (connections, conformance) = (&mut self.connections, &mut self.conformance);
                Dispatcher { sub, log, compacted, connections, conformance, topic_rate, context, allowance: 0 }
            };
            let Dispatched { delayed_until_ms, is_throttled } = dispatcher.dispatch();
            delayed.extend(delayed_until_ms.map(|due_ms| (due_ms, Arc::clone(name))));
            throttled.extend(is_throttled.then(|| Arc::clone(name)));
            if is_terminated && sub.cursor.mark_delete() >= log.end() {
                for consumer in sub.consumers.iter_mut().filter(|one| one.has_flowed && !one.end_of_topic_sent) {
                    consumer.end_of_topic_sent = true;
                    let notice = pb::CommandReachedEndOfTopic { consumer_id: consumer.key.id };
                    self.connections.send(consumer.key.conn, notice);
                }
            }
        }
        for (due_ms, subscription) in delayed {
            let after = Duration::from_millis(due_ms.saturating_sub(self.now.wall_ms));
            self.set_timer(after, BrokerTimer::DelayedMessages { topic: Arc::clone(topic), subscription });
        }
        for subscription in throttled {
            self.set_timer(DISPATCH_BACKOFF, BrokerTimer::DispatchRate { topic: Arc::clone(topic), subscription });
        }
        self.send_drained_away(topic);
    }

    /// Delivers what can be delivered to the consumers of one connection.
    fn dispatch_connection(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get(conn) else { return };
        let of_connection = connection.endpoints.subscriptions_of_consumers();
        let subscriptions: BTreeSet<_> = of_connection.into_iter().map(|(_, topic, sub)| (topic, sub)).collect();
        for (topic, subscription) in subscriptions {
            self.dispatch(&topic, Some(&subscription));
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("url", &self.brokers.url(0))
            .field("topics", &self.topics.len())
            .field("violations", &self.conformance.violations().len())
            .finish_non_exhaustive()
    }
}
