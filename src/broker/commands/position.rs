//! SEEK, GET_LAST_MESSAGE_ID and CONSUMER_STATS: requests about one consumer's place in the log.

use crate::broker::conformance::Rule;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::storage::log::Position;
use crate::broker::subscription::ConsumerKey;
use crate::pb::{self, MessageIdData, ServerError};

const NOT_FOUND: &str = "Consumer not found";

impl Broker {
    /// All consumers of the subscription get CLOSE_CONSUMER, the seeker SUCCESS after it. The next message is the one
    /// at the position; beyond the end means latest.
    pub(crate) fn on_seek(&mut self, conn: ConnId, request: &pb::CommandSeek) {
        let Some((topic, name)) = self.live_consumer(conn, request.consumer_id, "SEEK") else {
            return self.error(conn, request.request_id, ServerError::MetadataError, NOT_FOUND);
        };
        let index_ack = self.config.batch_index_acknowledgment;
        let Some(found) = self.topics.get_mut(&topic) else { return };
        let (log, Some(sub)) = (&found.log, found.subscriptions.get_mut(&name)) else { return };
        let (offset, words) = match (&request.message_id, request.message_publish_time) {
            (Some(id), _) => {
                let offset = log.offset_at_or_after(Position::from_wire(id.ledger_id, id.entry_id));
                let words = if index_ack { id.ack_set.as_slice() } else { &[] };
                offset.map_or((log.end(), &[][..]), |offset| (offset, words))
            }
            (None, Some(time_ms)) => (log.offset_at_time(time_ms), &[][..]),
            (None, None) => {
                let text = "Message id and message publish time were not present";
                self.judge.record(conn.0, Rule::IncompleteRequest, || "SEEK without a target".to_owned());
                return self.error(conn, request.request_id, ServerError::MetadataError, text);
            }
        };
        if found.name.is_persistent() {
            let facts = log.get(offset).map(|entry| entry.facts.clone());
            sub.reset(offset, words, facts.as_ref());
            let keys: Vec<ConsumerKey> = sub.consumers.iter().map(|consumer| consumer.key).collect();
            for key in &keys {
                sub.remove(*key);
            }
            sub.active = None;
            for key in keys {
                self.close_consumer(key, None);
            }
        }
        self.success(conn, request.request_id);
    }

    /// −1:−1 for a topic without entries. The batch index is that of the entry's last message, −1 outside a batch.
    pub(crate) fn on_get_last_message_id(&mut self, conn: ConnId, request: &pb::CommandGetLastMessageId) {
        let Some((topic, name)) = self.live_consumer(conn, request.consumer_id, "GET_LAST_MESSAGE_ID") else {
            return self.error(conn, request.request_id, ServerError::MetadataError, NOT_FOUND);
        };
        let Some(found) = self.topics.get(&topic) else { return };
        let Some(sub) = found.subscriptions.get(&name) else { return };
        if !found.name.is_persistent() {
            let text = "GetLastMessageId is not supported on a non-persistent topic";
            return self.error(conn, request.request_id, ServerError::UnknownError, text);
        }
        let last = found.log.end().checked_sub(1).and_then(|last| found.log.get(last));
        let (position, batch_index) = match last {
            None => (Position { ledger: -1, entry: -1 }, -1),
            Some(entry) if !entry.facts.readable => {
                let text = "Failed to parse the metadata of the last message";
                return self.error(conn, request.request_id, ServerError::MetadataError, text);
            }
            Some(entry) => (entry.position, entry.facts.batch.map_or(-1, |count| count as i32 - 1)),
        };
        let mark = found.log.position_before(sub.cursor.mark());
        let id = |position: Position| MessageIdData {
            ledger_id: position.ledger as u64,
            entry_id: position.entry as u64,
            ..Default::default()
        };
        let response = pb::CommandGetLastMessageIdResponse {
            last_message_id: MessageIdData {
                partition: Some(found.partition()),
                batch_index: Some(batch_index),
                ..id(position)
            },
            request_id: request.request_id,
            consumer_mark_delete_position: Some(id(mark)),
        };
        self.conns.send(conn, &response.into());
    }

    /// An unknown consumer costs the connection, as on a real broker.
    pub(crate) fn on_consumer_stats(&mut self, conn: ConnId, request: &pb::CommandConsumerStats) {
        let Some((topic, name)) = self.live_consumer(conn, request.consumer_id, "CONSUMER_STATS") else {
            return self.conns.close(conn);
        };
        let key = ConsumerKey { conn, id: request.consumer_id };
        let backlog = self.topics.get(&topic).map_or(0, |found| found.backlog_entries(&name));
        let sub = self.topics.get(&topic).and_then(|found| found.subscriptions.get(&name));
        let Some((sub, consumer)) = sub.and_then(|sub| sub.consumer(key).map(|consumer| (sub, consumer))) else {
            return;
        };
        let connected_at_ms = self.conns.get(conn).map_or(0, |found| found.connected_at_ms);
        let response = pb::CommandConsumerStatsResponse {
            request_id: request.request_id,
            msg_rate_out: Some(0.0),
            msg_throughput_out: Some(0.0),
            msg_rate_redeliver: Some(0.0),
            consumer_name: Some(consumer.name.to_string()),
            available_permits: Some(consumer.permits as u64),
            unacked_messages: Some(consumer.unacked),
            blocked_consumer_on_unacked_msgs: Some(consumer.over_unacked),
            address: Some(format!("connection {conn}")),
            connected_since: Some(format!("{connected_at_ms} ms since 1970")),
            r#type: Some(sub.sub_type.as_str_name().to_owned()),
            msg_rate_expired: Some(0.0),
            msg_backlog: Some(backlog),
            message_ack_rate: Some(0.0),
            ..Default::default()
        };
        self.conns.send(conn, &response.into());
    }
}
