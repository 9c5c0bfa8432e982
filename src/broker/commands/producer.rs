//! PRODUCER and CLOSE_PRODUCER: names, epochs, access modes.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::commands::lookup::LOOKED_UP_MAX;
use crate::broker::commands::schema;
use crate::broker::conformance::Rule;
use crate::broker::connections::{ENDPOINTS_MAX, ProducerSlot};
use crate::broker::machine::{Broker, ConnId};
use crate::broker::topics::topic::{Producer, ProducerKey, Topic, Waiting};
use crate::pb::{self, ProducerAccessMode, ServerError};
use crate::topic::TopicName;

/// Producers of one topic; one more gets ProducerBusy.
const PRODUCERS_MAX: usize = 100_000;

const FENCED: &str = "org.apache.pulsar.broker.service.BrokerServiceException$ProducerFencedException: ";
const BUSY: &str = "org.apache.pulsar.broker.service.BrokerServiceException$ProducerBusyException: ";

type Refusal = (ServerError, String);

/// What came of the access mode.
enum Access {
    Granted { topic_epoch: Option<u64> },
    Queued,
}

impl Broker {
    /// `holder_alive`: what came of asking the connection that holds the wanted name; `None` when the request has just
    /// come in.
    pub(crate) fn on_producer(&mut self, conn: ConnId, request: pb::CommandProducer, holder_alive: Option<bool>) {
        let mode = request.producer_access_mode.map_or(Ok(ProducerAccessMode::Shared), ProducerAccessMode::try_from);
        let (Ok(mode), true) = (mode, schema::is_known(request.schema.as_ref())) else {
            return self.fail(conn, Rule::UnreadableFrame, || "unknown enum value in PRODUCER".to_owned());
        };
        let request_id = request.request_id;
        match self.conns.get(conn).and_then(|found| found.producers.get(&request.producer_id)) {
            Some(ProducerSlot::Parked | ProducerSlot::Waiting { .. }) => {
                let text = "Producer is already present on the connection";
                return self.error(conn, request_id, ServerError::ServiceNotReady, text);
            }
            Some(ProducerSlot::Live { .. }) => return self.repeat_producer(conn, &request),
            _ => {}
        }
        if self.conns.get(conn).is_none_or(|found| found.endpoints() >= ENDPOINTS_MAX) {
            return self.fail(conn, Rule::IncompleteRequest, || format!("more than {ENDPOINTS_MAX} endpoints"));
        }
        let name = match self.admit(conn, &request.topic, "PRODUCER") {
            Ok(name) => name,
            Err((error, text)) => return self.error(conn, request_id, error, text),
        };
        let Some(topic) = self.load_topic(&name, true) else {
            return self.error(conn, request_id, ServerError::TopicNotFound, format!("Topic {name} does not exist"));
        };
        if holder_alive.is_none() {
            self.judge_epoch(conn, &topic, &request);
        }
        let holder = request
            .producer_name
            .as_deref()
            .and_then(|wanted| self.topics.get(&topic)?.producer_named(wanted))
            .filter(|holder| holder.conn != conn);
        if let Some(holder) = holder {
            if holder_alive != Some(true) && self.park(conn, holder.conn, request.clone().into()) {
                return;
            }
        }
        if let Err((error, text)) = self.open_producer(conn, &topic, &request, mode) {
            self.error(conn, request_id, error, text);
        }
    }

    /// The checks that PRODUCER and SUBSCRIBE share, up to the name of the topic.
    pub(crate) fn admit(&mut self, conn: ConnId, topic: &str, command: &str) -> Result<TopicName, Refusal> {
        let name = TopicName::parse(topic).map_err(|error| (ServerError::InvalidTopicName, error.to_string()))?;
        if !self.is_authorized(conn) {
            return Err((ServerError::AuthorizationError, "Client is not authorized to use this topic".to_owned()));
        }
        if !self.looked_up.contains(name.as_str()) && self.looked_up.len() < LOOKED_UP_MAX {
            self.judge.record(conn.0, Rule::LookupMissing, || format!("{command} for {name}"));
        }
        if !self.owned.contains(name.namespace()) {
            let text = format!(
                "Namespace bundle for topic ({name}) not served by this instance. Please redo the lookup. \
                 Request is denied: namespace={}",
                name.namespace()
            );
            return Err((ServerError::ServiceNotReady, text));
        }
        Ok(name)
    }

    fn repeat_producer(&mut self, conn: ConnId, request: &pb::CommandProducer) {
        let key = ProducerKey { conn, id: request.producer_id };
        let slot = self.conns.get(conn).and_then(|found| found.producers.get(&request.producer_id));
        let Some(ProducerSlot::Live { topic, .. }) = slot else { return };
        let Some(producer) = self.topics.get(topic).and_then(|topic| topic.producers.get(&key)) else { return };
        let success = pb::CommandProducerSuccess {
            request_id: request.request_id,
            producer_name: producer.name.to_string(),
            last_sequence_id: Some(-1),
            schema_version: Some(Bytes::new()),
            topic_epoch: None,
            producer_ready: Some(true),
        };
        self.conns.send(conn, &success.into());
    }

    /// A PRODUCER that names an earlier producer has to carry a higher epoch. Epoch 0 with a name the application
    /// chose is a new producer.
    fn judge_epoch(&mut self, conn: ConnId, topic: &Arc<str>, request: &pb::CommandProducer) {
        let Some(name) = request.producer_name.as_deref() else { return };
        let Some(topic) = self.topics.get_mut(topic) else { return };
        let (epoch, chosen) = (request.epoch(), request.user_provided_producer_name());
        match topic.session(name) {
            Some(session) if epoch > 0 || !chosen => {
                let last = session.epoch;
                session.epoch = last.max(epoch);
                if epoch <= last {
                    self.judge.record(conn.0, Rule::EpochNotGrowing, || format!("{name}: {epoch} after {last}"));
                }
            }
            _ => topic.start_session(Arc::from(name), epoch),
        }
    }

    fn open_producer(
        &mut self,
        conn: ConnId,
        topic: &Arc<str>,
        request: &pb::CommandProducer,
        mode: ProducerAccessMode,
    ) -> Result<(), Refusal> {
        let schema_version = self.schemas.register(topic, request.schema.as_ref())?;
        if let Some(initial) = request.initial_subscription_name.as_deref() {
            self.make_initial_subscription(topic, initial)?;
        }
        let room = self.make_room(topic, 1);
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        found.over_quota &= !room;
        if found.terminated {
            let text = "Topic was already terminated".to_owned();
            return Err((ServerError::TopicTerminatedError, text));
        }
        if found.over_quota {
            let text = "Cannot create producer on topic with backlog quota exceeded".to_owned();
            return Err((ServerError::ProducerBlockedQuotaExceededException, text));
        }
        if found.producers.len() >= PRODUCERS_MAX {
            return Err((ServerError::ProducerBusy, format!("{BUSY}Topic '{topic}' reached max producers limit")));
        }
        let key = ProducerKey { conn, id: request.producer_id };
        let name: Arc<str> = match request.producer_name.as_deref() {
            Some(name) if found.producer_named(name).is_some() => {
                let text = format!(
                    "org.apache.pulsar.broker.service.BrokerServiceException$NamingException: \
                     Producer with name '{name}' is already connected to topic '{topic}'"
                );
                return Err((ServerError::ProducerBusy, text));
            }
            Some(name) => Arc::from(name),
            None => {
                self.next_name += 1;
                Arc::from(format!("{}-0-{}", self.config.cluster, self.next_name))
            }
        };
        if request.producer_name.is_none() {
            found.start_session(Arc::clone(&name), request.epoch());
        }
        let mut fenced = Vec::new();
        match access(found, mode, request.topic_epoch, &mut fenced)? {
            Access::Queued => {
                found.waiting.push_back(Waiting {
                    key,
                    request_id: request.request_id,
                    name: Arc::clone(&name),
                    topic_epoch: request.topic_epoch,
                    schema_version: schema_version.clone(),
                });
                if let Some(connection) = self.conns.get_mut(conn) {
                    connection.producers.insert(key.id, ProducerSlot::Waiting { topic: Arc::clone(topic) });
                }
                let success = pb::CommandProducerSuccess {
                    request_id: request.request_id,
                    producer_name: name.to_string(),
                    last_sequence_id: Some(-1),
                    schema_version: Some(schema_version),
                    topic_epoch: None,
                    producer_ready: Some(false),
                };
                self.conns.send(conn, &success.into());
            }
            Access::Granted { topic_epoch } => {
                self.fence_out(topic, &fenced);
                self.install(topic, key, request.request_id, name, topic_epoch, schema_version);
            }
        }
        Ok(())
    }

    fn install(
        &mut self,
        topic: &Arc<str>,
        key: ProducerKey,
        request_id: u64,
        name: Arc<str>,
        topic_epoch: Option<u64>,
        schema_version: Bytes,
    ) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        if topic_epoch.is_some() {
            found.exclusive = Some(key);
        }
        let last = if self.config.deduplication { found.last_stored_id(&name) } else { -1 };
        found.producers.insert(key, Producer { name: Arc::clone(&name) });
        if let Some(connection) = self.conns.get_mut(key.conn) {
            let closed_at = match connection.producers.get(&key.id) {
                Some(ProducerSlot::ClosedByBroker { at }) => Some(*at),
                _ => None,
            };
            let slot = ProducerSlot::Live { topic: Arc::clone(topic), answered: false, closed_at };
            connection.producers.insert(key.id, slot);
            connection.unanswered_producers.push(key.id);
        }
        let success = pb::CommandProducerSuccess {
            request_id,
            producer_name: name.to_string(),
            last_sequence_id: Some(last),
            schema_version: Some(schema_version),
            topic_epoch,
            producer_ready: Some(true),
        };
        self.conns.send(key.conn, &success.into());
    }

    /// ExclusiveWithFencing: those that were there are not told, those that waited get an error.
    fn fence_out(&mut self, topic: &Arc<str>, fenced: &[ProducerKey]) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        for key in fenced {
            found.producers.remove(key);
            if let Some(connection) = self.conns.get_mut(key.conn) {
                connection.producers.insert(key.id, ProducerSlot::FencedOut);
            }
        }
        for waiting in std::mem::take(&mut found.waiting) {
            if let Some(connection) = self.conns.get_mut(waiting.key.conn) {
                connection.producers.remove(&waiting.key.id);
            }
            let text = format!("{FENCED}Fenced out by a new producer");
            self.error(waiting.key.conn, waiting.request_id, ServerError::ProducerFenced, text);
        }
    }

    /// SUCCESS also for an id the broker does not know.
    pub(crate) fn on_close_producer(&mut self, conn: ConnId, request: &pb::CommandCloseProducer) {
        let slot = self.conns.get_mut(conn).and_then(|found| found.producers.get_mut(&request.producer_id));
        if let Some(slot) = slot {
            let was = std::mem::replace(slot, ProducerSlot::ClosedByClient);
            if let ProducerSlot::Live { topic, .. } | ProducerSlot::Waiting { topic } = was {
                self.remove_producer(&topic, ProducerKey { conn, id: request.producer_id });
            }
        }
        self.success(conn, request.request_id);
    }

    /// Takes a producer off its topic; the next one that waits for exclusivity may get it.
    pub(crate) fn remove_producer(&mut self, topic: &Arc<str>, key: ProducerKey) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.producers.remove(&key);
        found.waiting.retain(|waiting| waiting.key != key);
        if found.exclusive == Some(key) {
            found.exclusive = None;
        }
        if !found.producers.is_empty() || found.terminated {
            return;
        }
        while let Some(next) = self.topics.get_mut(topic).and_then(|found| found.waiting.pop_front()) {
            let Some(found) = self.topics.get_mut(topic) else { return };
            match grant(found, next.topic_epoch) {
                Ok(epoch) => {
                    let Waiting { key, request_id, name, schema_version, .. } = next;
                    return self.install(topic, key, request_id, name, Some(epoch), schema_version);
                }
                Err((error, text)) => {
                    if let Some(connection) = self.conns.get_mut(next.key.conn) {
                        connection.producers.remove(&next.key.id);
                    }
                    self.error(next.key.conn, next.request_id, error, text);
                }
            }
        }
    }
}

/// The table of access modes. `fenced` gets the producers that a fencing one displaces.
fn access(
    topic: &mut Topic,
    mode: ProducerAccessMode,
    topic_epoch: Option<u64>,
    fenced: &mut Vec<ProducerKey>,
) -> Result<Access, Refusal> {
    let exclusive =
        topic.exclusive.and_then(|key| topic.producers.get(&key)).map(|producer| Arc::clone(&producer.name));
    let taken = exclusive.is_some() || !topic.producers.is_empty() || !topic.waiting.is_empty();
    let text = match &exclusive {
        Some(name) => format!("Topic has an existing exclusive producer: {name}"),
        None if !topic.producers.is_empty() => "Topic has existing shared producers".to_owned(),
        None => "Topic has producers waiting for exclusivity".to_owned(),
    };
    match mode {
        ProducerAccessMode::Shared if exclusive.is_some() || !topic.waiting.is_empty() => {
            Err((ServerError::ProducerBusy, format!("{BUSY}{text}")))
        }
        ProducerAccessMode::Shared => Ok(Access::Granted { topic_epoch: None }),
        ProducerAccessMode::Exclusive if taken => Err((ServerError::ProducerFenced, format!("{FENCED}{text}"))),
        ProducerAccessMode::WaitForExclusive if taken => Ok(Access::Queued),
        ProducerAccessMode::Exclusive | ProducerAccessMode::WaitForExclusive => {
            grant(topic, topic_epoch).map(|epoch| Access::Granted { topic_epoch: Some(epoch) })
        }
        ProducerAccessMode::ExclusiveWithFencing => {
            let epoch = grant(topic, topic_epoch)?;
            fenced.extend(topic.producers.keys());
            Ok(Access::Granted { topic_epoch: Some(epoch) })
        }
    }
}

/// The topic epoch of a new exclusive producer: the next one, or the one it brings unless that is an old one.
fn grant(topic: &mut Topic, given: Option<u64>) -> Result<u64, Refusal> {
    let epoch = match (given, topic.topic_epoch) {
        (Some(given), Some(current)) if given < current => {
            let text =
                format!("{FENCED}Topic epoch has already moved. Current epoch: {current}, Producer epoch: {given}");
            return Err((ServerError::ProducerFenced, text));
        }
        (Some(given), _) => given,
        (None, current) => current.map_or(0, |current| current.wrapping_add(1)),
    };
    topic.topic_epoch = Some(epoch);
    Ok(epoch)
}
