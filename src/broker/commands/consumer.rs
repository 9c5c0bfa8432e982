//! SUBSCRIBE, CLOSE_CONSUMER, UNSUBSCRIBE, and how consumers come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::commands::handshake::NO_REQUEST;
use crate::broker::commands::schema;
use crate::broker::conformance::Rule;
use crate::broker::connections::{ConsumerSlot, ENDPOINTS_MAX, ProducerSlot};
use crate::broker::machine::timers::Timer;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::storage::log::{Log, Position};
use crate::broker::subscription::{Consumer, ConsumerKey, Subscription};
use crate::broker::topics::topic::ProducerKey;
use crate::pb::command_subscribe::{InitialPosition, SubType};
use crate::pb::{self, KeySharedMode, ServerError};

/// Consumers of one subscription; one more gets ConsumerBusy.
const CONSUMERS_MAX: usize = 10_000;

/// Subscriptions of one topic; one more gets NotAllowedError.
const SUBSCRIPTIONS_MAX: usize = 10_000;

const TOO_MANY_SUBSCRIPTIONS: &str = "Exceed the maximum number of subscriptions";

const NAMING: &str = "org.apache.pulsar.broker.service.BrokerServiceException$NamingException: ";

type Refusal = (ServerError, String);

/// The enum fields of a SUBSCRIBE, all known.
#[derive(Clone, Copy)]
struct Kinds {
    sub_type: SubType,
    position: InitialPosition,
    sticky: bool,
    out_of_order: bool,
}

impl Kinds {
    fn of(request: &pb::CommandSubscribe) -> Option<Self> {
        let meta = request.key_shared_meta.as_ref();
        let mode =
            meta.map_or(Ok(KeySharedMode::AutoSplit), |meta| KeySharedMode::try_from(meta.key_shared_mode)).ok()?;
        Some(Self {
            sub_type: SubType::try_from(request.sub_type).ok()?,
            position: request.initial_position.map_or(Ok(InitialPosition::Latest), InitialPosition::try_from).ok()?,
            sticky: mode == KeySharedMode::Sticky,
            out_of_order: meta.is_some_and(|meta| meta.allow_out_of_order_delivery()),
        })
    }
}

impl Broker {
    /// `probed`: the connection that holds an Exclusive subscription was asked and is alive.
    pub(crate) fn on_subscribe(&mut self, conn: ConnId, request: pb::CommandSubscribe, probed: bool) {
        let Some(kinds) = Kinds::of(&request).filter(|_| schema::is_known(request.schema.as_ref())) else {
            return self.fail(conn, Rule::UnreadableFrame, || "unknown enum value in SUBSCRIBE".to_owned());
        };
        let request_id = request.request_id;
        match self.conns.get(conn).and_then(|found| found.consumers.get(&request.consumer_id)) {
            Some(ConsumerSlot::Parked) => {
                let text = "Consumer is already present on the connection";
                return self.error(conn, request_id, ServerError::ServiceNotReady, text);
            }
            Some(ConsumerSlot::Live { .. }) => return self.success(conn, request_id),
            _ => {}
        }
        if self.conns.get(conn).is_none_or(|found| found.endpoints() >= ENDPOINTS_MAX) {
            return self.fail(conn, Rule::IncompleteRequest, || format!("more than {ENDPOINTS_MAX} endpoints"));
        }
        let topic = match self.subscribable(conn, &request, kinds) {
            Ok(topic) => topic,
            Err((error, text)) => return self.error(conn, request_id, error, text),
        };
        let name: Arc<str> = Arc::from(request.subscription.as_str());
        let holder = self.topics.get(&topic).and_then(|topic| topic.subscriptions.get(&name)).and_then(|sub| {
            let exclusive = sub.sub_type == SubType::Exclusive && kinds.sub_type == SubType::Exclusive;
            sub.consumers.first().filter(|_| exclusive).map(|consumer| consumer.key.conn)
        });
        if let Some(holder) = holder {
            if !probed && self.park(conn, holder, request.clone().into()) {
                return;
            }
        }
        let key = ConsumerKey { conn, id: request.consumer_id };
        match self.open_consumer(key, &topic, &name, &request, kinds) {
            Err((error, text)) => self.error(conn, request_id, error, text),
            Ok(()) => {
                if let Some(connection) = self.conns.get_mut(conn) {
                    let slot = ConsumerSlot::Live { topic: Arc::clone(&topic), subscription: name, answered: false };
                    connection.consumers.insert(key.id, slot);
                    connection.unanswered_consumers.push(key.id);
                }
                self.success(conn, request_id);
            }
        }
    }

    /// The topic of a SUBSCRIBE that may go on.
    fn subscribable(
        &mut self,
        conn: ConnId,
        request: &pb::CommandSubscribe,
        kinds: Kinds,
    ) -> Result<Arc<str>, Refusal> {
        let name = self.admit(conn, &request.topic, "SUBSCRIBE")?;
        let subscription = request.subscription.as_str();
        if subscription.is_empty() || subscription == "pulsar.dedup" || subscription.starts_with("pulsar.repl") {
            return Err((
                ServerError::ProducerBusy,
                format!("{NAMING}Subscription with reserved subscription name attempted"),
            ));
        }
        let single = matches!(kinds.sub_type, SubType::Exclusive | SubType::Failover);
        if request.read_compacted() && !(single && name.is_persistent()) {
            let text = "readCompacted only allowed on failover or exclusive subscriptions of persistent topics";
            return Err((ServerError::NotAllowedError, text.to_owned()));
        }
        let missing = || (ServerError::TopicNotFound, format!("Topic {name} does not exist"));
        let topic = self.load_topic(&name, request.force_topic_creation()).ok_or_else(missing)?;
        self.schemas.register(&topic, request.schema.as_ref())?;
        Ok(topic)
    }

    fn open_consumer(
        &mut self,
        key: ConsumerKey,
        topic: &Arc<str>,
        name: &Arc<str>,
        request: &pb::CommandSubscribe,
        kinds: Kinds,
    ) -> Result<(), Refusal> {
        let now_ms = self.now.wall_ms;
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        let partition = found.name.partition_index();
        let index_ack = self.config.batch_index_acknowledgment;
        match found.subscriptions.get(name) {
            Some(sub) => may_join(sub, request, kinds)?,
            None if found.subscriptions.len() >= SUBSCRIPTIONS_MAX => {
                return Err((ServerError::NotAllowedError, TOO_MANY_SUBSCRIPTIONS.to_owned()));
            }
            None => {}
        }
        let ranges = sticky_ranges(found.subscriptions.get(name), request, kinds)?;
        let sub = found.subscriptions.entry(Arc::clone(name)).or_insert_with(|| {
            let (start, words) = starting_offset(&found.log, request, kinds, now_ms);
            let mut sub = Subscription::new(request.durable(), start);
            if let Some(entry) = found.log.get(start).filter(|_| index_ack && !words.is_empty()) {
                sub.reset(start, &words, Some(&entry.facts));
            }
            sub
        });
        if sub.consumers.is_empty() {
            sub.sub_type = kinds.sub_type;
            sub.sticky = kinds.sticky;
            sub.out_of_order = kinds.out_of_order;
        }
        sub.add(Consumer {
            key,
            name: Arc::from(request.consumer_name()),
            priority: request.priority_level(),
            permits: 0,
            unacked: 0,
            over_unacked: false,
            msg_out: 0,
            epoch: request.consumer_epoch.filter(|_| sub.is_single_active()),
            ranges,
            flowed: false,
            told_end: false,
        });
        let before = sub.active;
        let changed = sub.choose_active(topic, partition);
        let failover = sub.sub_type == SubType::Failover;
        if changed {
            self.active_changed(topic, name);
        } else if failover && before.is_some() && self.conns.get(key.conn).is_some_and(|found| found.version >= 12) {
            let notice = pb::CommandActiveConsumerChange { consumer_id: key.id, is_active: Some(before == Some(key)) };
            self.conns.send(key.conn, &notice.into());
        }
        Ok(())
    }

    /// `initial_subscription_name` of PRODUCER: a durable subscription from the first message on.
    pub(crate) fn make_initial_subscription(&mut self, topic: &Arc<str>, name: &str) -> Result<(), Refusal> {
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        if found.subscriptions.contains_key(name) {
            return Ok(());
        }
        if found.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err((ServerError::NotAllowedError, TOO_MANY_SUBSCRIPTIONS.to_owned()));
        }
        found.subscriptions.insert(Arc::from(name), Subscription::new(true, found.log.first()));
        Ok(())
    }

    /// An Exclusive consumer is served at once; a Failover one after a delay, when all are told.
    fn active_changed(&mut self, topic: &Arc<str>, name: &Arc<str>) {
        let Some(sub) = self.topics.get_mut(topic).and_then(|found| found.subscriptions.get_mut(name)) else { return };
        if sub.sub_type != SubType::Failover {
            sub.active_ready = true;
        } else if let Some(at) = self.now.at.checked_add(self.config.failover_delay) {
            let (topic, subscription, turn) = (Arc::clone(topic), Arc::clone(name), sub.active_turn);
            self.timers.set(at, Timer::Failover { topic, subscription, turn });
        }
    }

    pub(crate) fn failover_due(&mut self, topic: &Arc<str>, name: &Arc<str>, turn: u64) {
        let Some(sub) = self.topics.get_mut(topic).and_then(|found| found.subscriptions.get_mut(name)) else { return };
        if sub.active_turn != turn || sub.active_ready {
            return;
        }
        sub.active_ready = true;
        for consumer in &sub.consumers {
            if self.conns.get(consumer.key.conn).is_some_and(|found| found.version >= 12) {
                let is_active = Some(sub.active == Some(consumer.key));
                let notice = pb::CommandActiveConsumerChange { consumer_id: consumer.key.id, is_active };
                self.conns.send(consumer.key.conn, &notice.into());
            }
        }
        self.pump(topic, Some(name));
    }

    /// SUCCESS also for an id the broker does not know.
    pub(crate) fn on_close_consumer(&mut self, conn: ConnId, request: &pb::CommandCloseConsumer) {
        let slot = self.conns.get_mut(conn).and_then(|found| found.consumers.get_mut(&request.consumer_id));
        if let Some(slot) = slot {
            let was = std::mem::replace(slot, ConsumerSlot::ClosedByClient);
            if let Some((topic, subscription)) = was.subscription() {
                self.remove_consumer(&topic, &subscription, ConsumerKey { conn, id: request.consumer_id });
            }
        }
        self.success(conn, request.request_id);
    }

    /// Takes a consumer off its subscription; the others get what it held. The subscription of a reader goes with it.
    pub(crate) fn remove_consumer(&mut self, topic: &Arc<str>, name: &Arc<str>, key: ConsumerKey) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let partition = found.name.partition_index();
        let Some(sub) = found.subscriptions.get_mut(name) else { return };
        if !sub.remove(key) {
            return;
        }
        if sub.consumers.is_empty() && !sub.durable {
            found.subscriptions.remove(name);
            return;
        }
        if sub.choose_active(topic, partition) && sub.active.is_some() {
            self.active_changed(topic, name);
        }
        self.pump(topic, Some(name));
    }

    /// Deletes the subscription, if nobody else is connected to it or the client insists.
    pub(crate) fn on_unsubscribe(&mut self, conn: ConnId, request: &pb::CommandUnsubscribe) {
        let Some((topic, name)) = self.live_consumer(conn, request.consumer_id, "UNSUBSCRIBE") else {
            return self.error(conn, request.request_id, ServerError::MetadataError, "Consumer not found");
        };
        let Some(found) = self.topics.get_mut(&topic) else { return };
        let key = ConsumerKey { conn, id: request.consumer_id };
        let others: Vec<ConsumerKey> = found.subscriptions.get(&name).map_or_else(Vec::new, |sub| {
            sub.consumers.iter().map(|consumer| consumer.key).filter(|other| *other != key).collect()
        });
        if !others.is_empty() && !request.force() {
            let text = "Unconnected or shared consumer attempting to unsubscribe";
            return self.error(conn, request.request_id, ServerError::MetadataError, text);
        }
        found.subscriptions.remove(&name);
        for other in others {
            self.close_consumer(other, None);
        }
        if let Some(connection) = self.conns.get_mut(conn) {
            connection.consumers.insert(key.id, ConsumerSlot::ClosedByClient);
        }
        self.success(conn, request.request_id);
    }

    /// CLOSE_CONSUMER from this side; the subscription has to be told by the caller.
    pub(crate) fn close_consumer(&mut self, key: ConsumerKey, url: Option<&str>) {
        let Some(connection) = self.conns.get_mut(key.conn) else { return };
        connection.consumers.insert(key.id, ConsumerSlot::ClosedByBroker);
        if connection.version < 5 {
            return self.conns.close(key.conn);
        }
        let close = pb::CommandCloseConsumer {
            consumer_id: key.id,
            request_id: NO_REQUEST,
            assigned_broker_service_url: url.map(str::to_owned),
            assigned_broker_service_url_tls: None,
        };
        self.conns.send(key.conn, &close.into());
    }

    /// Topic and subscription of a live consumer; what comes after a CLOSE is noted.
    pub(crate) fn live_consumer(&mut self, conn: ConnId, id: u64, command: &str) -> Option<(Arc<str>, Arc<str>)> {
        let slot = self.conns.get(conn)?.consumers.get(&id)?;
        if *slot == ConsumerSlot::ClosedByClient {
            self.judge.record(conn.0, Rule::AfterClose, || format!("{command} for consumer {id}"));
            return None;
        }
        slot.subscription()
    }

    /// Takes all producers and consumers of a connection off their topics; the connection itself may go on.
    pub(crate) fn detach_endpoints(&mut self, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(conn) else { return };
        let producers = std::mem::take(&mut connection.producers);
        let consumers = std::mem::take(&mut connection.consumers);
        self.drop_endpoints(conn, producers, consumers);
    }

    /// The same for those of a connection that may be out of the table already.
    pub(crate) fn drop_endpoints(
        &mut self,
        conn: ConnId,
        producers: BTreeMap<u64, ProducerSlot>,
        consumers: BTreeMap<u64, ConsumerSlot>,
    ) {
        for (id, slot) in producers {
            if let ProducerSlot::Live { topic, .. } | ProducerSlot::Waiting { topic } = slot {
                self.remove_producer(&topic, ProducerKey { conn, id });
            }
        }
        for (id, slot) in consumers {
            if let Some((topic, subscription)) = slot.subscription() {
                self.remove_consumer(&topic, &subscription, ConsumerKey { conn, id });
            }
        }
    }
}

/// Whether a SUBSCRIBE fits a subscription that exists.
fn may_join(sub: &Subscription, request: &pb::CommandSubscribe, kinds: Kinds) -> Result<(), Refusal> {
    if sub.durable != request.durable() {
        let what = if sub.durable { "non-durable" } else { "durable" };
        return Err((
            ServerError::NotAllowedError,
            format!("Durability of the subscription differs from this {what} consumer"),
        ));
    }
    let busy = |text: &str| Err((ServerError::ConsumerBusy, text.to_owned()));
    if sub.consumers.is_empty() {
        return Ok(());
    }
    if sub.sub_type != kinds.sub_type {
        return busy("Subscription is of different type");
    }
    if sub.sub_type == SubType::Exclusive {
        return busy("Exclusive consumer is already connected");
    }
    if sub.sub_type == SubType::KeyShared && (sub.sticky, sub.out_of_order) != (kinds.sticky, kinds.out_of_order) {
        return busy("Subscription is of different type");
    }
    if sub.consumers.len() >= CONSUMERS_MAX {
        return busy("Subscription reached max consumers limit");
    }
    Ok(())
}

/// The ranges of a STICKY consumer: present, in order, apart from each other and from those of others.
fn sticky_ranges(
    sub: Option<&Subscription>,
    request: &pb::CommandSubscribe,
    kinds: Kinds,
) -> Result<Vec<(i32, i32)>, Refusal> {
    let Some(meta) = request.key_shared_meta.as_ref().filter(|_| kinds.sticky) else { return Ok(Vec::new()) };
    if !matches!(kinds.sub_type, SubType::KeyShared | SubType::Exclusive) {
        return Ok(Vec::new());
    }
    let ranges: Vec<(i32, i32)> = meta.hash_ranges.iter().map(|range| (range.start, range.end)).collect();
    let refuse = |text: String| Err((ServerError::ConsumerAssignError, text));
    if ranges.is_empty() {
        return refuse("Ranges for KeyShared policy must not be empty.".to_owned());
    }
    let overlaps = |a: (i32, i32), b: (i32, i32)| a.0 <= b.1 && b.0 <= a.1;
    for (index, range) in ranges.iter().enumerate() {
        if range.0 > range.1 || ranges.iter().take(index).any(|other| overlaps(*range, *other)) {
            return refuse("Ranges for KeyShared policy with overlap between self ranges.".to_owned());
        }
    }
    for consumer in sub.map_or(&[][..], |sub| &sub.consumers) {
        if ranges.iter().any(|range| consumer.ranges.iter().any(|other| overlaps(*range, *other))) {
            let text = format!("Range conflict with consumer {} ({})", consumer.key.id, consumer.name);
            return refuse(text);
        }
    }
    Ok(ranges)
}

/// Where a new subscription starts, and the members of that entry's batch that are left.
fn starting_offset(log: &Log, request: &pb::CommandSubscribe, kinds: Kinds, now_ms: u64) -> (u64, Vec<i64>) {
    let initial = match kinds.position {
        InitialPosition::Latest => log.end(),
        InitialPosition::Earliest => log.first(),
    };
    let rollback_ms = request.start_message_rollback_duration_sec().saturating_mul(1000);
    if rollback_ms > 0 {
        return (log.offset_at_time(now_ms.saturating_sub(rollback_ms)), Vec::new());
    }
    match &request.start_message_id {
        Some(id) if !request.durable() => {
            let start = log.offset_at_or_after(Position::from_wire(id.ledger_id, id.entry_id));
            start.map_or((initial, Vec::new()), |start| (start, id.ack_set.clone()))
        }
        _ => (initial, Vec::new()),
    }
}
