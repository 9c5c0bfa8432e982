//! FLOW, ACK and REDELIVER_UNACKNOWLEDGED_MESSAGES. None of them has an answer, but for an ACK that asks for one.

use std::sync::Arc;

use crate::broker::conformance::Rule;
use crate::broker::connections::ConsumerSlot;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::storage::log::Position;
use crate::broker::subscription::ConsumerKey;
use crate::broker::topics::topic::Topic;
use crate::pb::command_ack::AckType;
use crate::pb::{self, MessageIdData, ServerError};

impl Broker {
    pub(crate) fn on_flow(&mut self, conn: ConnId, flow: &pb::CommandFlow) {
        if flow.message_permits == 0 || flow.message_permits > i32::MAX as u32 {
            return self.fail(conn, Rule::FlowPermits, || format!("{} permits", flow.message_permits));
        }
        let Some((topic, name)) = self.live_consumer(conn, flow.consumer_id, "FLOW") else { return };
        let slot = self.conns.get(conn).and_then(|found| found.consumers.get(&flow.consumer_id));
        if let Some(ConsumerSlot::Live { answered: false, .. }) = slot {
            let detail = || format!("FLOW for consumer {} before SUCCESS: lost", flow.consumer_id);
            return self.judge.record(conn.0, Rule::BeforeAnswer, detail);
        }
        let key = ConsumerKey { conn, id: flow.consumer_id };
        let sub = self.topics.get_mut(&topic).and_then(|topic| topic.subscriptions.get_mut(&name));
        if let Some(consumer) = sub.and_then(|sub| sub.consumer_mut(key)) {
            consumer.permits = consumer.permits.saturating_add(i64::from(flow.message_permits));
            consumer.flowed = true;
            self.pump(&topic, Some(&name));
        }
    }

    pub(crate) fn on_ack(&mut self, conn: ConnId, ack: &pb::CommandAck) {
        let Ok(ack_type) = AckType::try_from(ack.ack_type) else {
            return self.fail(conn, Rule::UnreadableFrame, || "unknown ack_type".to_owned());
        };
        // An unknown consumer gets no answer, not even to a request id.
        let Some((topic, name)) = self.live_consumer(conn, ack.consumer_id, "ACK") else { return };
        let mut response = pb::CommandAckResponse {
            consumer_id: ack.consumer_id,
            txnid_least_bits: None,
            txnid_most_bits: None,
            error: None,
            message: None,
            request_id: ack.request_id,
        };
        if ack.txnid_least_bits.is_some() && ack.txnid_most_bits.is_some() {
            response.error = Some(ServerError::NotAllowedError.into());
            response.message = Some("Transactions are off".to_owned());
        } else {
            let key = ConsumerKey { conn, id: ack.consumer_id };
            match ack_type {
                AckType::Individual => self.ack_each(key, &topic, &name, &ack.message_id),
                AckType::Cumulative => self.ack_cumulative(key, &topic, &name, &ack.message_id),
            }
            self.pump(&topic, Some(&name));
        }
        if ack.request_id.is_some() {
            self.conns.send(conn, &response.into());
        }
    }

    fn ack_each(&mut self, key: ConsumerKey, topic: &Arc<str>, name: &Arc<str>, ids: &[MessageIdData]) {
        let index_ack = self.config.batch_index_acknowledgment;
        let Some(Topic { log, subscriptions, name: topic, .. }) = self.topics.get_mut(topic) else { return };
        let Some(sub) = subscriptions.get_mut(name).filter(|_| topic.is_persistent()) else { return };
        for id in ids {
            let position = Position::from_wire(id.ledger_id, id.entry_id);
            let Some(offset) = log.offset(position) else {
                let detail = || format!("{}:{} is not an entry of {topic}", position.ledger, position.entry);
                self.judge.record(key.conn.0, Rule::AckNotDelivered, detail);
                continue;
            };
            if !sub.was_delivered(offset, key) {
                let detail = || format!("{}:{} on {topic} {name}", position.ledger, position.entry);
                self.judge.record(key.conn.0, Rule::AckNotDelivered, detail);
            }
            if id.ack_set.is_empty() {
                sub.cursor.ack(offset);
                sub.settle(offset);
            } else if index_ack {
                let members = log.get(offset).map_or(1, |entry| entry.facts.messages());
                if sub.cursor.ack_members(offset, &id.ack_set, members) {
                    sub.settle(offset);
                } else {
                    sub.shrink(offset, sub.cursor.left(offset, members));
                }
            }
        }
    }

    fn ack_cumulative(&mut self, key: ConsumerKey, topic: &Arc<str>, name: &Arc<str>, ids: &[MessageIdData]) {
        let index_ack = self.config.batch_index_acknowledgment;
        let Some(Topic { log, subscriptions, name: topic, .. }) = self.topics.get_mut(topic) else { return };
        let Some(sub) = subscriptions.get_mut(name).filter(|_| topic.is_persistent()) else { return };
        let [id] = ids else {
            return self.judge.record(key.conn.0, Rule::CumulativeAck, || format!("with {} ids", ids.len()));
        };
        if !sub.is_single_active() {
            return self.judge.record(key.conn.0, Rule::CumulativeAck, || format!("on {:?}", sub.sub_type));
        }
        let position = Position::from_wire(id.ledger_id, id.entry_id);
        let Some(offset) = log.offset(position) else {
            // Entry −1 of a ledger: nothing of that ledger. Anything else is beyond the end or long gone.
            let before = log.offset_at_or_after(position).filter(|_| position.entry < 0 && position.ledger >= 0);
            match before {
                Some(offset) => {
                    sub.cursor.ack_below(offset);
                    sub.settle_below(sub.cursor.mark());
                }
                None => {
                    let detail = || format!("{}:{} is not an entry of {topic}", position.ledger, position.entry);
                    self.judge.record(key.conn.0, Rule::AckNotDelivered, detail);
                }
            }
            return;
        };
        if offset >= sub.read_max {
            let detail = || format!("cumulative {}:{} on {topic} {name}", position.ledger, position.entry);
            self.judge.record(key.conn.0, Rule::AckNotDelivered, detail);
        }
        if id.ack_set.is_empty() {
            sub.cursor.ack_below(offset + 1);
        } else {
            sub.cursor.ack_below(offset);
            if index_ack {
                let members = log.get(offset).map_or(1, |entry| entry.facts.messages());
                if !sub.cursor.ack_members(offset, &id.ack_set, members) {
                    sub.shrink(offset, sub.cursor.left(offset, members));
                }
            }
        }
        sub.settle_below(sub.cursor.mark());
    }

    /// Shared and Key_Shared: the entries named, or all of this consumer, are sent again, one delivery counted.
    /// Exclusive and Failover: reading starts again at the first unacknowledged entry, whatever is named.
    pub(crate) fn on_redeliver(&mut self, conn: ConnId, request: &pb::CommandRedeliverUnacknowledgedMessages) {
        let Some((topic, name)) = self.live_consumer(conn, request.consumer_id, "REDELIVER") else { return };
        let key = ConsumerKey { conn, id: request.consumer_id };
        let Some(found) = self.topics.get_mut(&topic) else { return };
        let Some(sub) = found.subscriptions.get_mut(&name) else { return };
        if sub.is_single_active() {
            // One that is not served keeps its epoch all the same: it drops what has a lower one when it is served.
            if let Some(consumer) = sub.consumer_mut(key) {
                consumer.epoch = consumer.epoch.map(|epoch| epoch.max(request.consumer_epoch.unwrap_or(0)));
            }
            if sub.active != Some(key) {
                return;
            }
            sub.rewind();
        } else {
            let held = if request.message_ids.is_empty() {
                sub.held_by(key)
            } else {
                let ids = request.message_ids.iter();
                let offsets = ids.filter_map(|id| found.log.offset(Position::from_wire(id.ledger_id, id.entry_id)));
                offsets.filter(|offset| sub.pending.get(offset).is_some_and(|held| held.consumer == key)).collect()
            };
            for offset in held {
                sub.release(offset, true);
            }
        }
        self.pump(&topic, Some(&name));
    }
}
