//! SEEK, GET_LAST_MESSAGE_ID and CONSUMER_STATS: requests about one consumer's place in the log.

use super::{Rejection, consumer_not_found};
use crate::broker::conformance::Rule;
use crate::broker::ids::{ConnId, ConsumerKey};
use crate::broker::machine::Broker;
use crate::broker::refusal::refuse;
use crate::broker::storage::{EntryPosition, Log, compaction};
use crate::broker::topics::Topic;
use crate::pb::{self, MessageIdData, ServerError};
use crate::wire::command::Refusal;

impl Broker {
    /// All consumers of the subscription get CLOSE_CONSUMER, the one that asked SUCCESS after it. The next message is
    /// the one at the position; beyond the end means latest.
    pub(super) fn on_seek(&mut self, conn: ConnId, request: &pb::CommandSeek) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        let (topic, name) = self.live_consumer(key, "SEEK").ok_or_else(consumer_not_found)?;
        let Some(found) = self.topics.get(&topic) else { return Ok(()) };
        let Some((offset, words)) = seek_target(&found.log, request) else {
            self.conformance.record(conn, Rule::IncompleteRequest, || "SEEK without a target".to_owned());
            let text = "Message id and message publish time were not present";
            return Err(refuse(ServerError::MetadataError, text).into());
        };
        // A non-persistent topic stores nothing that could be sought.
        if found.name.is_persistent() {
            self.reset_subscription(&topic, &name, offset, words);
        }
        self.send_success(conn, request.request_id);
        Ok(())
    }

    /// −1:−1 for a topic without entries. The batch index is that of the entry's last message, −1 outside a batch.
    pub(super) fn on_get_last_message_id(
        &mut self,
        conn: ConnId,
        request: &pb::CommandGetLastMessageId,
    ) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        let (topic, name) = self.live_consumer(key, "GET_LAST_MESSAGE_ID").ok_or_else(consumer_not_found)?;
        let Some(found) = self.topics.get(&topic) else { return Ok(()) };
        let Some(sub) = found.subscriptions.get(&name) else { return Ok(()) };
        let response = pb::CommandGetLastMessageIdResponse {
            last_message_id: last_message_id(found, sub.consumers.get(key).is_some_and(|one| one.reads_compacted))?,
            request_id: request.request_id,
            consumer_mark_delete_position: Some(found.log.position_before(sub.cursor.mark_delete()).to_id()),
        };
        self.connections.send(conn, response);
        Ok(())
    }

    /// An unknown consumer costs the connection, as on a real broker.
    pub(super) fn on_consumer_stats(
        &mut self,
        conn: ConnId,
        request: &pb::CommandConsumerStats,
    ) -> Result<(), Rejection> {
        let key = ConsumerKey { conn, id: request.consumer_id };
        let Some((topic, name)) = self.live_consumer(key, "CONSUMER_STATS") else {
            self.connections.close(conn);
            return Ok(());
        };
        let Some(found) = self.topics.get(&topic) else { return Ok(()) };
        let Some(sub) = found.subscriptions.get(&name) else { return Ok(()) };
        let Some(consumer) = sub.consumers.get(key) else { return Ok(()) };
        let connected_at_ms = self.connections.get(conn).map_or(0, |found| found.negotiated.at_ms);
        let response = pb::CommandConsumerStatsResponse {
            request_id: request.request_id,
            msg_rate_out: Some(0.0),
            msg_throughput_out: Some(0.0),
            msg_rate_redeliver: Some(0.0),
            consumer_name: Some(consumer.name.to_string()),
            available_permits: Some(consumer.permits as u64),
            unacked_messages: Some(consumer.unacked),
            blocked_consumer_on_unacked_msgs: Some(consumer.blocked_on_unacked),
            address: Some(format!("connection {conn}")),
            connected_since: Some(format!("{connected_at_ms} ms since 1970")),
            r#type: Some(sub.sub_type().as_str_name().to_owned()),
            msg_rate_expired: Some(0.0),
            msg_backlog: Some(sub.backlog_entries(&found.log)),
            message_ack_rate: Some(0.0),
            ..Default::default()
        };
        self.connections.send(conn, response);
        Ok(())
    }
}

/// Where a SEEK goes, and which members of a batch there are left; `None` if it names neither an id nor a time.
fn seek_target<'a>(log: &Log, request: &'a pb::CommandSeek) -> Option<(u64, &'a [i64])> {
    match (&request.message_id, request.message_publish_time) {
        (Some(id), _) => Some(start_at(log, id).unwrap_or((log.end(), &[]))),
        (None, Some(time_ms)) => Some((log.offset_at_time(time_ms), &[])),
        (None, None) => None,
    }
}

/// The first entry at an id or behind it, and which members of it there are left: of another entry than that of the id, which
/// is not stored any more, all. `None` beyond the last one.
pub(super) fn start_at<'a>(log: &Log, id: &'a MessageIdData) -> Option<(u64, &'a [i64])> {
    let position = EntryPosition::of(id);
    let offset = log.offset_at_or_after(position)?;
    let is_stored = log.get(offset).is_some_and(|entry| entry.position == position);
    Some((offset, if is_stored { &id.ack_set } else { &[] }))
}

/// Of a consumer that reads the compacted view it is the last entry there, if nothing came after it.
fn last_message_id(topic: &Topic, reads_compacted: bool) -> Result<MessageIdData, Refusal> {
    if !topic.name.is_persistent() {
        let text = "GetLastMessageId is not supported on a non-persistent topic";
        return Err(refuse(ServerError::UnknownError, text));
    }
    let is_in_view = reads_compacted && topic.compacted.horizon() == topic.log.end();
    let last = match is_in_view {
        true => topic.compacted.last(),
        false => topic.log.end().checked_sub(1).and_then(|last| topic.log.get(last)),
    };
    let (position, batch_index) = match last {
        None => (EntryPosition::NONE, -1),
        Some(entry) if !entry.info.readable => {
            let text = "Failed to parse the metadata of the last message";
            return Err(refuse(ServerError::MetadataError, text));
        }
        Some(entry) if is_in_view => (entry.position, compaction::last_member(entry)),
        Some(entry) => (entry.position, entry.info.batch.map_or(-1, |count| count as i32 - 1)),
    };
    Ok(MessageIdData { partition: Some(topic.partition()), batch_index: Some(batch_index), ..position.to_id() })
}
