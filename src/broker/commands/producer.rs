//! PRODUCER and CLOSE_PRODUCER, and how producers come and go.

use std::sync::Arc;

use bytes::Bytes;

use super::takeover::HolderState;
use super::{CLOSE_VERSION, Rejection, by_scheme};
use crate::broker::conformance::Rule;
use crate::broker::connections::{EndpointDescription, ProducerSlot};
use crate::broker::ids::{ConnId, NO_REQUEST, ProducerKey};
use crate::broker::machine::Broker;
use crate::broker::policies::Access;
use crate::broker::refusal::{PRODUCER_FENCED_EXCEPTION, refuse};
use crate::broker::topics::schemas::SchemaRules;
use crate::broker::topics::{Admission, OpeningProducer};
use crate::pb::{self, ProducerAccessMode, ServerError};
use crate::wire::command::Refusal;

impl Broker {
    /// `holder` is what is known of the connection that holds the wanted name.
    pub(super) fn on_producer(
        &mut self,
        conn: ConnId,
        request: &pb::CommandProducer,
        holder: HolderState,
    ) -> Result<(), Rejection> {
        let key = ProducerKey { conn, id: request.producer_id };
        match self.connections.producer(key) {
            Some(ProducerSlot::PendingTakeover | ProducerSlot::Queued { .. }) => {
                let text = "Producer is already present on the connection";
                return Err(refuse(ServerError::ServiceNotReady, text).into());
            }
            Some(ProducerSlot::Live { .. }) => {
                self.repeat_producer(key, request.request_id);
                return Ok(());
            }
            Some(ProducerSlot::FencedOut | ProducerSlot::ClosedByBroker { .. } | ProducerSlot::ClosedByClient)
            | None => {}
        }
        self.check_endpoint_count(conn)?;
        Ok(self.try_producer(key, request, request.producer_access_mode(), holder)?)
    }

    fn try_producer(
        &mut self,
        key: ProducerKey,
        request: &pb::CommandProducer,
        mode: ProducerAccessMode,
        holder: HolderState,
    ) -> Result<(), Refusal> {
        let name = self.check_topic(key.conn, &request.topic, Access::Produce)?;
        let topic = self.load_topic(&name, true)?;
        if self.migrates_producer(&topic, key) {
            return Ok(());
        }
        if holder == HolderState::NotChecked {
            self.check_epoch(key.conn, &topic, request);
        }
        let other = self.holder_of_name(&topic, request).filter(|other| other.conn != key.conn);
        if let Some(other) = other.filter(|_| holder != HolderState::Alive) {
            if self.await_takeover(key.conn, other.conn, request.clone().into()) {
                return Ok(());
            }
        }
        self.open_producer(key, &topic, request, mode)
    }

    fn holder_of_name(&self, topic: &str, request: &pb::CommandProducer) -> Option<ProducerKey> {
        self.topics.get(topic)?.producers.holder_of(request.producer_name.as_deref()?)
    }

    /// A PRODUCER that names an earlier producer has to carry a higher epoch. Epoch 0 with a name the application
    /// chose is a new producer.
    fn check_epoch(&mut self, conn: ConnId, topic: &Arc<str>, request: &pb::CommandProducer) {
        let Some(name) = request.producer_name.as_deref() else { return };
        let Some(found) = self.topics.get_mut(topic) else { return };
        let (epoch, is_chosen) = (request.epoch(), request.user_provided_producer_name());
        match found.sequence_ids.epoch(name) {
            Some(last) if epoch > 0 || !is_chosen => {
                found.sequence_ids.raise_epoch(name, epoch);
                if epoch <= last {
                    let detail = || format!("epoch {epoch} after {last}");
                    self.conformance.record_of_producer(conn, Rule::EpochNotGrowing, name, detail);
                }
            }
            _ => found.sequence_ids.start(Arc::from(name), epoch),
        }
    }

    /// A PRODUCER for an id that is live is answered again; its other fields are ignored.
    fn repeat_producer(&mut self, key: ProducerKey, request_id: u64) {
        let Some(topic) = self.connections.producer(key).and_then(ProducerSlot::topic) else { return };
        let Some(name) = self.topics.get(topic).and_then(|found| found.producers.name_of(key)) else { return };
        self.connections.send(key.conn, producer_success(request_id, name, Bytes::new()));
    }

    fn open_producer(
        &mut self,
        key: ProducerKey,
        topic: &Arc<str>,
        request: &pb::CommandProducer,
        mode: ProducerAccessMode,
    ) -> Result<(), Refusal> {
        let Some(found) = self.topics.get(topic) else { return Ok(()) };
        let rules = SchemaRules::of(&found.policies);
        let schema_version = self.schemas.register(topic, request.schema.as_ref(), rules, self.now.wall_ms)?;
        if let Some(name) = request.initial_subscription_name.as_deref() {
            self.create_initial_subscription(topic, name)?;
        }
        let name = self.name_producer(topic, request)?;
        let Some(found) = self.topics.get_mut(topic) else { return Ok(()) };
        let admission = found.producers.admit(mode, request.topic_epoch)?;
        let (request_id, topic_epoch) = (request.request_id, request.topic_epoch);
        let description = EndpointDescription {
            metadata: request.metadata.clone(),
            connected_ms: self.now.wall_ms,
            access_mode: mode.into(),
        };
        let opening = OpeningProducer { key, request_id, name, topic_epoch, schema_version, description };
        match admission {
            Admission::Shared => self.install_producer(topic, opening, None),
            Admission::Exclusive { topic_epoch, fenced } => {
                self.fence_out(topic, &fenced);
                self.install_producer(topic, opening, Some(topic_epoch));
            }
            Admission::Queued => self.queue_producer(topic, opening),
        }
        Ok(())
    }

    /// Checks that the topic takes one more producer; returns the name it chose, or a generated one.
    fn name_producer(&mut self, topic: &Arc<str>, request: &pb::CommandProducer) -> Result<Arc<str>, Refusal> {
        let has_room = self.topics.make_room(topic, 1);
        let chosen = request.producer_name.as_deref();
        if let Some(found) = self.topics.get_mut(topic) {
            found.is_over_quota &= !has_room;
            found.check_open()?;
            found.check_backlog(self.now.wall_ms)?;
            found.producers.check_connect(topic, chosen, found.policies.max_producers_per_topic)?;
        }
        if let Some(name) = chosen {
            return Ok(Arc::from(name));
        }
        let name = self.generate_producer_name();
        if let Some(found) = self.topics.get_mut(topic) {
            found.sequence_ids.start(Arc::clone(&name), request.epoch());
        }
        Ok(name)
    }

    /// WaitForExclusive: the response says that the producer is not ready; a second one follows when it is.
    fn queue_producer(&mut self, topic: &Arc<str>, opening: OpeningProducer) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let key = opening.key;
        let success = pb::CommandProducerSuccess {
            producer_ready: Some(false),
            ..producer_success(opening.request_id, &opening.name, opening.schema_version.clone())
        };
        found.producers.enqueue(opening);
        self.connections.set_producer(key, ProducerSlot::Queued { topic: Arc::clone(topic) });
        self.connections.send(key.conn, success);
    }

    /// `topic_epoch` is that of an exclusive producer.
    fn install_producer(&mut self, topic: &Arc<str>, opening: OpeningProducer, topic_epoch: Option<u64>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let OpeningProducer { key, request_id, name, schema_version, description, .. } = opening;
        let last = found.sequence_ids.last_stored(&name);
        let success = pb::CommandProducerSuccess {
            last_sequence_id: Some(last),
            topic_epoch,
            ..producer_success(request_id, &name, schema_version)
        };
        found.producers.connect(key, name, topic_epoch.is_some(), description);
        self.connections.open_producer(key, topic);
        self.connections.send(key.conn, success);
    }

    /// An exclusive producer takes the topic: connected ones are not notified, queued ones get an error.
    fn fence_out(&mut self, topic: &Arc<str>, fenced: &[ProducerKey]) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        for key in fenced {
            found.producers.disconnect(*key);
            self.connections.set_producer(*key, ProducerSlot::FencedOut);
        }
        for queued in found.producers.take_queue() {
            self.connections.remove_producer(queued.key);
            let text = format!("{PRODUCER_FENCED_EXCEPTION}Fenced out by a new producer");
            let refusal = refuse(ServerError::ProducerFenced, text);
            self.send_refusal(queued.key.conn, queued.request_id, refusal);
        }
    }

    /// SUCCESS also for an id that is unknown to the broker.
    pub(super) fn on_close_producer(
        &mut self,
        conn: ConnId,
        request: &pb::CommandCloseProducer,
    ) -> Result<(), Rejection> {
        let key = ProducerKey { conn, id: request.producer_id };
        if self.connections.producer(key).is_some() {
            let was = self.connections.set_producer(key, ProducerSlot::ClosedByClient);
            if let Some(topic) = was.as_ref().and_then(ProducerSlot::topic) {
                self.remove_producer(topic, key);
            }
        }
        self.send_success(conn, request.request_id);
        Ok(())
    }

    /// Takes a producer off its topic; the next one that waits for exclusivity may get it.
    pub(in crate::broker) fn remove_producer(&mut self, topic: &Arc<str>, key: ProducerKey) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.producers.disconnect(key);
        if found.is_terminated {
            return;
        }
        while let Some((next, epoch)) = self.topics.get_mut(topic).and_then(|found| found.producers.take_next()) {
            match epoch {
                Ok(epoch) => return self.install_producer(topic, next, Some(epoch)),
                Err(refusal) => {
                    self.connections.remove_producer(next.key);
                    self.send_refusal(next.key.conn, next.request_id, refusal);
                }
            }
        }
    }

    /// CLOSE_PRODUCER from the broker, with the address to go to if there is one. Peers that do not know the command
    /// lose the connection.
    pub(in crate::broker) fn close_producer(&mut self, topic: &Arc<str>, key: ProducerKey, url: Option<&str>) {
        let Some(connection) = self.connections.get(key.conn) else { return };
        let version = connection.negotiated.version;
        self.connections.set_producer(key, ProducerSlot::ClosedByBroker { at: self.now.at });
        if version < CLOSE_VERSION {
            self.connections.close(key.conn);
        } else {
            let (plain, tls) = by_scheme(url);
            let close = pb::CommandCloseProducer {
                producer_id: key.id,
                request_id: NO_REQUEST,
                assigned_broker_service_url: plain,
                assigned_broker_service_url_tls: tls,
            };
            self.connections.send(key.conn, close);
        }
        if let Some(found) = self.topics.get_mut(topic) {
            found.producers.disconnect(key);
        }
    }
}

/// PRODUCER_SUCCESS of a producer that is ready, with nothing known of its past.
fn producer_success(request_id: u64, name: &str, schema_version: Bytes) -> pb::CommandProducerSuccess {
    pb::CommandProducerSuccess {
        request_id,
        producer_name: name.to_owned(),
        last_sequence_id: Some(-1),
        schema_version: Some(schema_version),
        topic_epoch: None,
        producer_ready: Some(true),
    }
}
