//! SUBSCRIBE, CLOSE_CONSUMER and UNSUBSCRIBE, and how consumers come and go.

use std::sync::Arc;

use super::position::start_at;
use super::takeover::HolderState;
use super::{CLOSE_VERSION, Rejection, by_scheme, consumer_not_found};
use crate::broker::config::BrokerConfig;
use crate::broker::conformance::Rule;
use crate::broker::connections::{ConsumerSlot, EndpointDescription};
use crate::broker::ids::{ConnId, ConsumerKey, NO_REQUEST};
use crate::broker::machine::{Broker, BrokerTimer};
use crate::broker::policies::Access;
use crate::broker::refusal::{NAMING_EXCEPTION, refuse};
use crate::broker::storage::{CompactedLog, Log};
use crate::broker::subscription::{KeyRange, SharingMode, SubscribedConsumer, Subscription};
use crate::broker::topics::schemas::SchemaRules;
use crate::pb::command_subscribe::{InitialPosition, SubType};
use crate::pb::{self, KeySharedMode, ServerError};
use crate::wire::command::Refusal;

/// The protocol version from which on clients know ACTIVE_CONSUMER_CHANGE.
const ACTIVE_CONSUMER_CHANGE_VERSION: i32 = 12;

/// The enum fields of a SUBSCRIBE, all known.
#[derive(Clone, Copy)]
struct SubscribeModes {
    sharing: SharingMode,
    initial_position: InitialPosition,
}

impl SubscribeModes {
    /// `None` if one of the fields has a value that is not known.
    fn of(request: &pb::CommandSubscribe, config: &BrokerConfig) -> Option<Self> {
        let meta = request.key_shared_meta.as_ref();
        let key_shared_mode = match meta {
            Some(meta) => KeySharedMode::try_from(meta.key_shared_mode).ok()?,
            None => KeySharedMode::AutoSplit,
        };
        let initial_position = match request.initial_position {
            Some(position) => InitialPosition::try_from(position).ok()?,
            None => InitialPosition::Latest,
        };
        let sharing = SharingMode {
            sub_type: SubType::try_from(request.sub_type).ok()?,
            is_sticky: key_shared_mode == KeySharedMode::Sticky,
            allows_out_of_order: meta.is_some_and(|meta| meta.allow_out_of_order_delivery()),
            ring_points: config
                .subscription_key_shared_use_consistent_hashing
                .then_some(config.subscription_key_shared_consistent_hashing_replica_points),
        };
        Some(Self { sharing, initial_position })
    }
}

/// SUBSCRIBE.
impl Broker {
    /// `holder` is what is known of the connection that holds the subscription, if it is Exclusive.
    pub(super) fn on_subscribe(
        &mut self,
        conn: ConnId,
        request: &pb::CommandSubscribe,
        holder: HolderState,
    ) -> Result<(), Rejection> {
        let Some(modes) = SubscribeModes::of(request, &self.config) else {
            return Err(Rejection::violation(Rule::UnreadableFrame, "unknown enum value in SUBSCRIBE"));
        };
        let key = ConsumerKey { conn, id: request.consumer_id };
        match self.connections.consumer(key) {
            Some(ConsumerSlot::PendingTakeover) => {
                let text = "Consumer is already present on the connection";
                return Err(refuse(ServerError::ServiceNotReady, text).into());
            }
            Some(ConsumerSlot::Live { .. }) => {
                self.send_success(conn, request.request_id);
                return Ok(());
            }
            Some(ConsumerSlot::ClosedByBroker | ConsumerSlot::Unsubscribed | ConsumerSlot::ClosedByClient) | None => {}
        }
        self.check_endpoint_count(conn)?;
        Ok(self.try_subscribe(key, request, modes, holder)?)
    }

    fn try_subscribe(
        &mut self,
        key: ConsumerKey,
        request: &pb::CommandSubscribe,
        modes: SubscribeModes,
        holder: HolderState,
    ) -> Result<(), Refusal> {
        let topic = self.subscribable_topic(key.conn, request, modes)?;
        let name: Arc<str> = Arc::from(request.subscription.as_str());
        if self.migrates_consumer(&topic, &name, key) {
            return Ok(());
        }
        let other = self.exclusive_holder(&topic, &name, modes.sharing);
        if let Some(other) = other.filter(|_| holder != HolderState::Alive) {
            if self.await_takeover(key.conn, other, request.clone().into()) {
                return Ok(());
            }
        }
        self.open_consumer(key, &topic, &name, request, modes)?;
        self.connections.open_consumer(key, &topic, &name);
        self.send_success(key.conn, request.request_id);
        Ok(())
    }

    /// The topic of a SUBSCRIBE, if it and the name of the subscription are fit.
    fn subscribable_topic(
        &mut self,
        conn: ConnId,
        request: &pb::CommandSubscribe,
        modes: SubscribeModes,
    ) -> Result<Arc<str>, Refusal> {
        let name = self.check_topic(conn, &request.topic, Access::Consume)?;
        let subscription = request.subscription.as_str();
        if !self.may_use_subscription(conn, &name, subscription) {
            return Err(refuse(ServerError::AuthorizationError, "Client is not authorized to subscribe"));
        }
        if subscription.is_empty() || subscription == "pulsar.dedup" || subscription.starts_with("pulsar.repl") {
            let text = format!("{NAMING_EXCEPTION}Subscription with reserved subscription name attempted");
            return Err(refuse(ServerError::ProducerBusy, text));
        }
        if request.read_compacted() && !(modes.sharing.is_single_active() && name.is_persistent()) {
            let text = "readCompacted only allowed on failover or exclusive subscriptions of persistent topics";
            return Err(refuse(ServerError::NotAllowedError, text));
        }
        let topic = self.load_topic(&name, request.force_topic_creation())?;
        if let Some(found) = self.topics.get(&topic) {
            let (is_in_use, rules) = (found.is_in_use(), SchemaRules::of(&found.policies));
            self.schemas.check_consumer(&topic, request.schema.as_ref(), is_in_use, rules, self.now.wall_ms)?;
        }
        Ok(topic)
    }

    /// The connection whose Exclusive consumer prevents another one.
    fn exclusive_holder(&self, topic: &str, name: &str, wanted: SharingMode) -> Option<ConnId> {
        let sub = self.topics.subscription(topic, name)?;
        let is_exclusive = sub.sub_type() == SubType::Exclusive && wanted.sub_type == SubType::Exclusive;
        sub.consumers.at(0).filter(|_| is_exclusive).map(|consumer| consumer.key.conn)
    }

    fn open_consumer(
        &mut self,
        key: ConsumerKey,
        topic: &Arc<str>,
        name: &Arc<str>,
        request: &pb::CommandSubscribe,
        modes: SubscribeModes,
    ) -> Result<(), Refusal> {
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        let existing = found.subscriptions.get(name);
        found.check_new_consumer()?;
        if existing.is_none() {
            found.check_new_subscription()?;
        }
        if let Some(sub) = existing {
            sub.check_join(request.durable(), modes.sharing, found.policies.max_consumers_per_subscription)?;
        }
        let ranges = sticky_ranges(request, modes.sharing)?;
        if let Some(sub) = existing {
            sub.check_ranges(&ranges)?;
        }
        let (index_acks, now_ms) = (self.config.acknowledgment_at_batch_index_level_enabled, self.now.wall_ms);
        let log = &found.log;
        let create = || {
            let mut sub = new_subscription(log, &found.compacted, request, modes.initial_position, index_acks, now_ms);
            let properties = request.subscription_properties.iter();
            sub.properties = properties.map(|pair| (pair.key.clone(), pair.value.clone())).collect();
            sub
        };
        let sub = found.subscriptions.entry(Arc::clone(name)).or_insert_with(create);
        let consumer = SubscribedConsumer {
            priority: request.priority_level(),
            epoch: request.consumer_epoch,
            ranges,
            reads_compacted: request.read_compacted(),
            description: EndpointDescription {
                metadata: request.metadata.clone(),
                connected_ms: now_ms,
                ..EndpointDescription::default()
            },
            ..SubscribedConsumer::new(key, request.consumer_name())
        };
        let before = sub.active.selected();
        sub.add(modes.sharing, consumer);
        if sub.choose_active(topic, found.name.partition_index()) {
            self.on_active_changed(topic, name);
        } else if sub.sub_type() == SubType::Failover && before.is_some() {
            self.send_active_consumer_change(key, before);
        }
        Ok(())
    }

    /// `initial_subscription_name` of PRODUCER: a durable subscription from the first message on.
    pub(in crate::broker) fn create_initial_subscription(
        &mut self,
        topic: &Arc<str>,
        name: &str,
    ) -> Result<(), Refusal> {
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        if !found.subscriptions.contains_key(name) {
            found.check_new_subscription()?;
            found.subscriptions.insert(Arc::from(name), Subscription::new(true, found.log.first()));
        }
        Ok(())
    }
}

/// Exclusive and Failover: changes of the active consumer.
impl Broker {
    /// An Exclusive consumer is active at once; a Failover one after a delay, when all consumers are notified.
    fn on_active_changed(&mut self, topic: &Arc<str>, name: &Arc<str>) {
        let Some(sub) = self.topics.subscription_mut(topic, name) else { return };
        if sub.sub_type() == SubType::Failover {
            let generation = sub.active.generation();
            let timer = BrokerTimer::Failover { topic: Arc::clone(topic), subscription: Arc::clone(name), generation };
            self.set_timer(self.config.active_consumer_failover_delay_time, timer);
        } else {
            sub.active.activate();
        }
    }

    pub(in crate::broker) fn on_failover_delay(&mut self, topic: &Arc<str>, name: &Arc<str>, generation: u64) {
        let Some(sub) = self.topics.subscription_mut(topic, name) else { return };
        if !sub.active.activate_after_delay(generation) {
            return;
        }
        let (active, keys) = (sub.active.selected(), sub.consumers.keys());
        for key in keys {
            self.send_active_consumer_change(key, active);
        }
        self.dispatch(topic, Some(name));
    }

    /// Notifies a consumer whether it is the active one.
    fn send_active_consumer_change(&mut self, key: ConsumerKey, active: Option<ConsumerKey>) {
        if self.connections.version(key.conn) >= ACTIVE_CONSUMER_CHANGE_VERSION {
            let is_active = Some(active == Some(key));
            self.connections.send(key.conn, pb::CommandActiveConsumerChange { consumer_id: key.id, is_active });
        }
    }
}

/// Consumers that leave.
impl Broker {
    /// SUCCESS also for an id that is unknown to the broker.
    pub(super) fn on_close_consumer(
        &mut self,
        conn: ConnId,
        request: &pb::CommandCloseConsumer,
    ) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        if self.connections.consumer(key).is_some() {
            let was = self.connections.set_consumer(key, ConsumerSlot::ClosedByClient);
            if let Some((topic, subscription)) = was.as_ref().and_then(ConsumerSlot::subscription) {
                self.remove_consumer(&topic, &subscription, key);
            }
        }
        self.send_success(conn, request.request_id);
        Ok(())
    }

    /// Deletes the subscription, if no other consumer is connected to it or the client insists.
    pub(super) fn on_unsubscribe(&mut self, conn: ConnId, request: &pb::CommandUnsubscribe) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        let (topic, name) = self.live_consumer(key, "UNSUBSCRIBE").ok_or_else(consumer_not_found)?;
        let Some(found) = self.topics.get_mut(&topic) else { return Ok(()) };
        let mut others = found.subscriptions.get(&name).map_or_else(Vec::new, |sub| sub.consumers.keys());
        others.retain(|other| *other != key);
        if !others.is_empty() && !request.force() {
            let text = "Unconnected or shared consumer attempting to unsubscribe";
            return Err(refuse(ServerError::MetadataError, text).into());
        }
        found.subscriptions.remove(&name);
        for other in others {
            self.close_consumer(other, None);
        }
        self.connections.set_consumer(key, ConsumerSlot::Unsubscribed);
        self.send_success(conn, request.request_id);
        Ok(())
    }

    /// Takes a consumer off its subscription; the others get what it held. The subscription of a reader goes with it.
    pub(in crate::broker) fn remove_consumer(&mut self, topic: &Arc<str>, name: &Arc<str>, key: ConsumerKey) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let partition = found.name.partition_index();
        let Some(sub) = found.subscriptions.get_mut(name) else { return };
        if !sub.remove(key) {
            return;
        }
        if sub.consumers.is_empty() && !sub.is_durable() {
            found.subscriptions.remove(name);
            return;
        }
        if sub.choose_active(topic, partition) && sub.active.selected().is_some() {
            self.on_active_changed(topic, name);
        }
        self.dispatch(topic, Some(name));
    }

    /// CLOSE_CONSUMER from the broker, with the address to go to if there is one. The caller takes the consumer off its
    /// subscription. Peers that do not know the command lose the connection.
    pub(in crate::broker) fn close_consumer(&mut self, key: ConsumerKey, url: Option<&str>) {
        let Some(connection) = self.connections.get(key.conn) else { return };
        let version = connection.negotiated.version;
        self.connections.set_consumer(key, ConsumerSlot::ClosedByBroker);
        if version < CLOSE_VERSION {
            return self.connections.close(key.conn);
        }
        let (plain, tls) = by_scheme(url);
        let close = pb::CommandCloseConsumer {
            consumer_id: key.id,
            request_id: NO_REQUEST,
            assigned_broker_service_url: plain,
            assigned_broker_service_url_tls: tls,
        };
        self.connections.send(key.conn, close);
    }

    /// CLOSE_CONSUMER from the broker, and the consumer leaves its subscription.
    pub(in crate::broker) fn evict_consumer(&mut self, key: ConsumerKey, url: Option<&str>) {
        let slot = self.connections.consumer(key);
        let Some((topic, subscription)) = slot.and_then(ConsumerSlot::subscription) else { return };
        self.close_consumer(key, url);
        self.remove_consumer(&topic, &subscription, key);
    }

    /// Topic and subscription of a live consumer; a command after a CLOSE or UNSUBSCRIBE is a violation.
    pub(super) fn live_consumer(&mut self, key: ConsumerKey, command: &str) -> Option<(Arc<str>, Arc<str>)> {
        let slot = self.connections.consumer(key)?;
        if matches!(slot, ConsumerSlot::Unsubscribed | ConsumerSlot::ClosedByClient) {
            let detail = || format!("{command} for consumer {}", key.id);
            self.conformance.record(key.conn, Rule::AfterClose, detail);
            return None;
        }
        slot.subscription()
    }
}

/// The ranges of a STICKY consumer: present, in order, and apart from each other. None for any other consumer.
fn sticky_ranges(request: &pb::CommandSubscribe, sharing: SharingMode) -> Result<Vec<KeyRange>, Refusal> {
    let may_have_ranges = matches!(sharing.sub_type, SubType::KeyShared | SubType::Exclusive);
    let meta = request.key_shared_meta.as_ref().filter(|_| sharing.is_sticky && may_have_ranges);
    let Some(meta) = meta else { return Ok(Vec::new()) };
    let ranges: Vec<_> = meta.hash_ranges.iter().map(|range| KeyRange { start: range.start, end: range.end }).collect();
    if ranges.is_empty() {
        let text = "Ranges for KeyShared policy must not be empty.";
        return Err(refuse(ServerError::ConsumerAssignError, text));
    }
    for (index, range) in ranges.iter().enumerate() {
        if !range.is_ordered() || ranges.iter().take(index).any(|other| range.overlaps(*other)) {
            let text = "Ranges for KeyShared policy with overlap between self ranges.";
            return Err(refuse(ServerError::ConsumerAssignError, text));
        }
    }
    Ok(ranges)
}

/// A subscription that starts where its first SUBSCRIBE says:
///
/// | `start_message_rollback_duration_sec` | `start_message_id` | starts at |
/// | --- | --- | --- |
/// | given | any | the first entry of that time |
/// | none | given, not durable | that entry, of a batch at the members of its `ack_set`; beyond the last one as below |
/// | none | none, or durable | `initial_position`: the first entry stored, or behind the last |
fn new_subscription(
    log: &Log,
    compacted: &CompactedLog,
    request: &pb::CommandSubscribe,
    initial_position: InitialPosition,
    index_acks: bool,
    now_ms: u64,
) -> Subscription {
    let initial = match initial_position {
        InitialPosition::Latest => log.end(),
        InitialPosition::Earliest if request.read_compacted() => {
            compacted.next(0).map_or(log.first(), |(first, _)| first.min(log.first()))
        }
        InitialPosition::Earliest => log.first(),
    };
    let rollback_ms = request.start_message_rollback_duration_sec().saturating_mul(1000);
    if rollback_ms > 0 {
        return Subscription::new(request.durable(), log.offset_at_time(now_ms.saturating_sub(rollback_ms)));
    }
    let start_id = request.start_message_id.as_ref().filter(|_| !request.durable());
    let (offset, words) = start_id.and_then(|id| start_at(log, id)).unwrap_or((initial, &[]));
    let mut sub = Subscription::new(request.durable(), offset);
    if let Some(entry) = log.get(offset).filter(|_| index_acks && !words.is_empty()) {
        sub.reset(offset, words, Some(&entry.info));
    }
    sub
}
