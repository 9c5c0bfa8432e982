//! FLOW, ACK and REDELIVER_UNACKNOWLEDGED_MESSAGES. None of them has a response, but for an ACK that asks for one.

use std::sync::Arc;

use super::Rejection;
use crate::broker::conformance::{Conformance, Rule};
use crate::broker::connections::ConsumerSlot;
use crate::broker::ids::{ConnId, ConsumerKey};
use crate::broker::machine::Broker;
use crate::broker::refusal::refuse;
use crate::broker::storage::{EntryPosition, Log};
use crate::broker::subscription::Subscription;
use crate::broker::topics::Topic;
use crate::pb::command_ack::AckType;
use crate::pb::{self, MessageIdData, ServerError};
use crate::topic::TopicName;

/// FLOW.
impl Broker {
    pub(super) fn on_flow(&mut self, conn: ConnId, flow: &pb::CommandFlow) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: flow.consumer_id };
        let Some((topic, name)) = self.live_consumer(key, "FLOW") else { return Ok(()) };
        if let Some(ConsumerSlot::Live { is_answered: false, .. }) = self.connections.consumer(key) {
            let detail = || format!("FLOW for consumer {} before SUCCESS: lost", key.id);
            self.conformance.record(conn, Rule::BeforeResponse, detail);
            return Ok(());
        }
        // A real broker looks for the consumer before it looks at the number.
        if flow.message_permits == 0 || flow.message_permits > i32::MAX as u32 {
            return Err(Rejection::violation(Rule::FlowPermits, format!("{} permits", flow.message_permits)));
        }
        let Some(sub) = self.topics.subscription_mut(&topic, &name) else { return Ok(()) };
        if let Some(consumer) = sub.consumers.get_mut(key) {
            consumer.add_permits(flow.message_permits);
            sub.note(key, |activity| activity.flow_ms = self.now.wall_ms);
            self.dispatch(&topic, Some(&name));
        }
        Ok(())
    }
}

/// ACK.
impl Broker {
    pub(super) fn on_ack(&mut self, conn: ConnId, ack: &pb::CommandAck) -> Result<(), Rejection> {
        let bad_type = |_| Rejection::violation(Rule::UnreadableFrame, "unknown ack_type");
        let ack_type = AckType::try_from(ack.ack_type).map_err(bad_type)?;
        // An unknown consumer gets no response, not even to a request id.
        let key = ConsumerKey { conn, id: ack.consumer_id };
        // The official clients gather acknowledgments, and send what is left when they close after an UNSUBSCRIBE.
        if self.connections.consumer(key) == Some(&ConsumerSlot::Unsubscribed) {
            return Ok(());
        }
        let Some((topic, name)) = self.live_consumer(key, "ACK") else { return Ok(()) };
        if ack.txnid_least_bits.is_some() && ack.txnid_most_bits.is_some() {
            return Err(refuse(ServerError::NotAllowedError, "Transactions are off").into());
        }
        self.acknowledge(key, &topic, &name, ack_type, &ack.message_id);
        self.dispatch(&topic, Some(&name));
        if ack.request_id.is_some() {
            let response = pb::CommandAckResponse {
                consumer_id: ack.consumer_id,
                request_id: ack.request_id,
                ..Default::default()
            };
            self.connections.send(conn, response);
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        key: ConsumerKey,
        topic: &Arc<str>,
        name: &Arc<str>,
        ack_type: AckType,
        ids: &[MessageIdData],
    ) {
        let index_acks = self.config.acknowledgment_at_batch_index_level_enabled;
        let Some(Topic { log, subscriptions, name: topic, .. }) = self.topics.get_mut(topic) else { return };
        // Of a non-persistent topic nothing is kept that could be acknowledged.
        let Some(sub) = subscriptions.get_mut(name).filter(|_| topic.is_persistent()) else { return };
        sub.note(key, |activity| activity.acked_ms = self.now.wall_ms);
        let conformance = &mut self.conformance;
        let mut acks = AckContext { key, topic, name, sub, log, conformance, index_acks };
        match ack_type {
            AckType::Individual => ids.iter().for_each(|id| acks.acknowledge(id)),
            AckType::Cumulative => acks.acknowledge_cumulatively(ids),
        }
    }
}

/// What one ACK works on.
struct AckContext<'a> {
    key: ConsumerKey,
    topic: &'a TopicName,
    /// Of the subscription.
    name: &'a str,
    sub: &'a mut Subscription,
    log: &'a Log,
    conformance: &'a mut Conformance,
    /// Members of a batch can be acknowledged one by one. If not, an id with an `ack_set` changes nothing but, when
    /// cumulative, what is below it.
    index_acks: bool,
}

impl AckContext<'_> {
    fn acknowledge(&mut self, id: &MessageIdData) {
        let position = EntryPosition::of(id);
        let Some(offset) = self.log.offset(position) else { return self.record_unknown(position) };
        if !self.sub.was_delivered(offset, self.key) {
            let detail = || format!("{position} on {} {}", self.topic, self.name);
            self.conformance.record(self.key.conn, Rule::AckNotDelivered, detail);
        }
        if id.ack_set.is_empty() {
            self.sub.acknowledge(offset);
        } else if self.index_acks {
            self.sub.acknowledge_members(offset, &id.ack_set, self.members(offset));
        }
    }

    /// | id | acknowledges |
    /// | --- | --- |
    /// | of an entry | it and all below |
    /// | of an entry, with an `ack_set` | all below, and of the entry what the set leaves out |
    /// | entry −1 of a ledger | all below that ledger |
    /// | any other | nothing |
    fn acknowledge_cumulatively(&mut self, ids: &[MessageIdData]) {
        let conn = self.key.conn;
        let [id] = ids else {
            return self.conformance.record(conn, Rule::CumulativeAck, || format!("with {} ids", ids.len()));
        };
        if !self.sub.is_single_active() {
            let detail = || format!("on {:?}", self.sub.sub_type());
            return self.conformance.record(conn, Rule::CumulativeAck, detail);
        }
        let position = EntryPosition::of(id);
        let Some(offset) = self.log.offset(position) else {
            let is_before_ledger = position.entry < 0 && position.ledger >= 0;
            match self.log.offset_at_or_after(position).filter(|_| is_before_ledger) {
                Some(offset) => self.sub.acknowledge_below(offset, None),
                None => self.record_unknown(position),
            }
            return;
        };
        if !self.sub.queue.was_read(offset) {
            let detail = || format!("cumulative {position} on {} {}", self.topic, self.name);
            self.conformance.record(conn, Rule::AckNotDelivered, detail);
        }
        if id.ack_set.is_empty() {
            self.sub.acknowledge_below(offset + 1, None);
        } else {
            let words = self.index_acks.then(|| (id.ack_set.as_slice(), self.members(offset)));
            self.sub.acknowledge_below(offset, words);
        }
    }

    /// Messages of the entry; of one that is no longer stored it does not matter.
    fn members(&self, offset: u64) -> u32 {
        self.log.get(offset).map_or(1, |entry| entry.info.messages())
    }

    /// An acknowledgement that waited while the topic was deleted and made again does nothing: no client can know that.
    fn record_unknown(&mut self, position: EntryPosition) {
        if self.log.is_of_earlier_topic(position) {
            return;
        }
        let detail = || format!("{position} is not an entry of {}", self.topic);
        self.conformance.record(self.key.conn, Rule::AckNotDelivered, detail);
    }
}

/// REDELIVER_UNACKNOWLEDGED_MESSAGES.
impl Broker {
    /// Shared and Key_Shared: the entries named, or all of this consumer, are sent again, one delivery counted.
    /// Exclusive and Failover: reading starts again at the first unacknowledged entry; the ids are ignored.
    pub(super) fn on_redeliver(
        &mut self,
        conn: ConnId,
        request: &pb::CommandRedeliverUnacknowledgedMessages,
    ) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        let Some((topic, name)) = self.live_consumer(key, "REDELIVER") else { return Ok(()) };
        let Some(found) = self.topics.get_mut(&topic) else { return Ok(()) };
        let Some(sub) = found.subscriptions.get_mut(&name) else { return Ok(()) };
        if sub.is_single_active() {
            // An inactive one keeps its epoch too: once active, it drops what has a lower epoch.
            if let Some(consumer) = sub.consumers.get_mut(key) {
                consumer.epoch = consumer.epoch.map(|epoch| epoch.max(request.consumer_epoch.unwrap_or(0)));
            }
            if sub.active.selected() != Some(key) {
                return Ok(());
            }
            sub.rewind();
        } else {
            let offsets = if request.message_ids.is_empty() {
                sub.held_by(key)
            } else {
                let named = request.message_ids.iter().filter_map(|id| found.log.offset(EntryPosition::of(id)));
                named.filter(|offset| sub.is_held_by(*offset, key)).collect()
            };
            for offset in offsets {
                sub.redeliver(offset);
            }
        }
        self.dispatch(&topic, Some(&name));
        Ok(())
    }
}
