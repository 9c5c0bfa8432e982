//! SEND: checks, deduplication, the log, the receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::config::DamagedEntries;
use crate::broker::conformance::Rule;
use crate::broker::connections::ProducerSlot;
use crate::broker::dispatch::{TransientEntry, dispatch_transient};
use crate::broker::ids::{ConnId, ProducerKey};
use crate::broker::like::Capability;
use crate::broker::machine::{Broker, BrokerTimer};
use crate::broker::refusal::refuse;
use crate::broker::storage::{EntryInfo, EntryPosition, Inspection, inspect};
use crate::broker::topics::SentFrame;
use crate::hash::murmur3_32;
use crate::pb::{self, ServerError};
use crate::wire::command::Refusal;
use crate::wire::hot::{Receipt, SendHead};

/// `highest_sequence_id` of a receipt for a SEND that had none. A real broker writes this or 0.
const NO_HIGHEST: u64 = u64::MAX;

/// The position in the receipt of a message that deduplication dropped.
const DROPPED: EntryPosition = EntryPosition::NONE;

/// The position in the receipt of a message that is not stored.
const NOT_STORED: EntryPosition = EntryPosition { ledger: 0, entry: 0 };

/// The sticky key of messages without a key, in releases that do not spread them.
const NO_KEY: &[u8] = b"NONE_KEY";

/// A SEND that passed the checks of its frame.
struct ValidatedSend<'a> {
    key: ProducerKey,
    head: &'a SendHead,
    entry: &'a Bytes,
    info: EntryInfo,
    crc32c: u32,
}

/// From the frame to a valid entry.
impl Broker {
    pub(super) fn on_send(&mut self, conn: ConnId, head: &SendHead, entry: &Bytes) {
        let key = ProducerKey { conn, id: head.producer_id };
        let Some(topic) = self.sending_topic(key) else { return };
        let (info, crc32c) = match inspect(entry) {
            Inspection::Truncated => {
                let detail = || "SEND shorter than its headers".to_owned();
                return self.close_on_violation(conn, Rule::UnreadableFrame, detail);
            }
            Inspection::ChecksumMismatch => {
                let detail = || format!("sequence id {}", head.sequence_id);
                self.conformance.record(conn, Rule::Checksum, detail);
                let refusal = refuse(ServerError::ChecksumError, "Checksum failed on the broker");
                return self.send_error(conn, head, refusal);
            }
            Inspection::Sound { info, crc32c, producer_name } => {
                self.check_metadata(key, &topic, head, &info, &producer_name);
                (self.on_own_clock(self.with_sticky_key(*info)), crc32c)
            }
        };
        let checked = self.check_send(head, &info).and_then(|()| self.check_policies(&topic, head, &info, entry.len()));
        if let Err(refusal) = checked {
            return self.send_error(conn, head, refusal);
        }
        self.publish(&topic, ValidatedSend { key, head, entry, info, crc32c });
    }

    /// The topic of a producer that may send now. Any other one loses its connection, unless it cannot know yet:
    ///
    /// | producer | SEND |
    /// | --- | --- |
    /// | live, PRODUCER_SUCCESS handed to the socket | is served |
    /// | closed by the broker less than a keep-alive interval ago, opened again since then or not | is ignored |
    /// | fenced out | closes the connection, which is how the client learns of it |
    /// | any other | closes the connection, and is a violation |
    fn sending_topic(&mut self, key: ProducerKey) -> Option<Arc<str>> {
        let (now, interval) = (self.now.at, self.config.keep_alive_interval);
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= interval;
        let (rule, what) = match self.connections.producer(key) {
            Some(ProducerSlot::Live { topic, is_answered: true, .. }) => return Some(Arc::clone(topic)),
            Some(ProducerSlot::Live { closed_at: Some(at), .. }) if is_recent(*at) => return None,
            Some(ProducerSlot::ClosedByBroker { at }) if is_recent(*at) => return None,
            Some(ProducerSlot::FencedOut) => {
                self.connections.close(key.conn);
                return None;
            }
            Some(ProducerSlot::Live { .. } | ProducerSlot::PendingTakeover) => {
                (Rule::BeforeResponse, "SEND before PRODUCER_SUCCESS")
            }
            Some(ProducerSlot::Queued { .. }) => (Rule::SendWithoutProducer, "SEND while waiting for exclusivity"),
            Some(ProducerSlot::ClosedByClient) => (Rule::AfterClose, "SEND after CLOSE_PRODUCER"),
            Some(ProducerSlot::ClosedByBroker { .. }) => {
                (Rule::AfterBrokerClose, "SEND long after the broker's CLOSE_PRODUCER")
            }
            None => (Rule::SendWithoutProducer, "SEND for an unknown producer"),
        };
        self.close_on_violation(key.conn, rule, || format!("{what} {}", key.id));
        None
    }

    /// What SEND and `MessageMetadata` both say has to agree.
    fn check_metadata(&mut self, key: ProducerKey, topic: &str, head: &SendHead, info: &EntryInfo, named: &str) {
        if !info.readable {
            return;
        }
        let name = self.topics.get(topic).and_then(|topic| topic.producers.name_of(key)).map(|name| &**name);
        let messages = u32::try_from(head.num_messages).unwrap_or(0);
        if info.sequence_id == head.sequence_id && name == Some(named) && info.messages() == messages {
            return;
        }
        let detail = || {
            let (id, sent, meant) = (key.id, head.sequence_id, info.sequence_id);
            format!("SEND {id}:{sent} x {messages}, metadata {named:?}:{meant} x {}", info.messages())
        };
        self.conformance.record(key.conn, Rule::MetadataMismatch, detail);
    }

    /// Releases that do not spread messages without a key give them all the same.
    fn with_sticky_key(&self, info: EntryInfo) -> EntryInfo {
        match info.is_keyless && !self.can(Capability::KeylessAreSpread) {
            true => EntryInfo { key_hash: murmur3_32(NO_KEY), ..info },
            false => info,
        }
    }

    /// What this broker does not store.
    fn check_send(&self, head: &SendHead, info: &EntryInfo) -> Result<(), Refusal> {
        let text = if head.message_id.is_some() && self.can(Capability::SendWithMessageId) {
            "Only shadow topic supports sending messages with messageId"
        } else if head.txnid_least_bits.is_some() && head.txnid_most_bits.is_some() {
            "Transaction is not enabled"
        } else if !info.readable && self.config.damaged_entries == DamagedEntries::Refuse {
            "MessageMetadata cannot be read"
        } else {
            return Ok(());
        };
        Err(refuse(ServerError::NotAllowedError, text))
    }
}

/// What the policies of the topic say.
impl Broker {
    fn check_policies(&self, topic: &str, head: &SendHead, info: &EntryInfo, bytes: usize) -> Result<(), Refusal> {
        let Some(found) = self.topics.get(topic) else { return Ok(()) };
        let size_max = found.policies.max_message_size.filter(|max| *max > 0 && !head.is_chunk);
        if size_max.is_some_and(|max| bytes > max as usize) {
            return Err(refuse(ServerError::NotAllowedError, "Exceed maximum message size"));
        }
        let delay_max_ms = found.policies.delayed_delivery.map_or(0, |delayed| delayed.max_delivery_delay_in_millis);
        let is_late = |due_ms: u64| due_ms > self.now.wall_ms.saturating_add(delay_max_ms);
        if delay_max_ms > 0 && info.deliver_at_ms.is_some_and(is_late) {
            let text = format!("Exceeds max allowed delivery delay of {delay_max_ms} milliseconds");
            return Err(refuse(ServerError::NotAllowedError, text));
        }
        Ok(())
    }

    /// A client counts the time of delivery from its own clock.
    fn on_own_clock(&self, info: EntryInfo) -> EntryInfo {
        EntryInfo { deliver_at_ms: info.deliver_at_ms.map(|at| at.saturating_add(self.advanced_ms)), ..info }
    }
}

/// From a valid entry to its receipt.
impl Broker {
    fn publish(&mut self, topic: &Arc<str>, send: ValidatedSend<'_>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        let Some(producer) = found.producers.name_of(send.key).map(Arc::clone) else { return };
        found.publish_rate.follow_publish_rate(found.policies.publish_rate, self.now.wall_ms);
        found.publish_rate.take(u64::try_from(send.head.num_messages).unwrap_or(0), send.entry.len());
        if found.publish_rate.wait_ms(self.now.wall_ms) > 0 {
            self.throttle(send.key.conn, topic);
        }
        let Some(found) = self.topics.get_mut(topic) else { return };
        let first = send.head.sequence_id as i64;
        let highest = send.head.highest_sequence_id.map_or(first, |highest| (highest as i64).max(first));
        let frame = SentFrame {
            sequence_id: first,
            highest_sequence_id: highest,
            crc32c: send.crc32c,
            is_chunk: send.head.is_chunk,
        };
        let deduplicates = found.policies.deduplication_enabled == Some(true);
        // An application may repeat the ids that it chooses, for deduplication to drop them.
        let is_judged = !deduplicates || self.config.judges_deduplicated;
        if !found.sequence_ids.note_sent(&producer, &frame) && is_judged {
            let detail = || format!("sequence id {first}");
            self.conformance.record_of_producer(send.key.conn, Rule::SequenceNotGrowing, &producer, detail);
        }
        if !found.name.is_persistent() {
            return self.publish_transient(topic, send);
        }
        if deduplicates {
            if send.head.is_chunk && !send.info.readable {
                let detail = || "chunk with unreadable metadata".to_owned();
                return self.close_on_violation(send.key.conn, Rule::UnreadableFrame, detail);
            }
            // Of a chunked message only the last chunk is checked and recorded.
            if send.info.is_last_chunk() && first <= found.sequence_ids.last_stored(&producer) {
                return self.send_receipt(send.key.conn, send.head, DROPPED);
            }
        }
        if !self.topics.make_room(topic, send.entry.len()) {
            return self.close_producers_over_quota(topic);
        }
        if deduplicates && send.info.is_last_chunk() {
            if let Some(found) = self.topics.get_mut(topic) {
                found.sequence_ids.note_stored(&producer, highest);
            }
        }
        self.store(topic, send);
    }

    /// A producer is beyond the publish rate of its topic: its connection is not read until there is a token again.
    fn throttle(&mut self, conn: ConnId, topic: &Arc<str>) {
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.throttle.start(topic);
            self.on_publish_rate(conn);
        }
    }

    /// Looks whether a connection that is not read may be read again. A rate that is lifted meanwhile is noticed in a second.
    pub(in crate::broker) fn on_publish_rate(&mut self, conn: ConnId) {
        let Some(topic) = self.connections.get(conn).and_then(|connection| connection.throttle.topic()) else { return };
        let wait_ms = self.topics.get_mut(&Arc::clone(topic)).map_or(0, |found| {
            found.publish_rate.follow_publish_rate(found.policies.publish_rate, self.now.wall_ms);
            found.publish_rate.wait_ms(self.now.wall_ms)
        });
        if wait_ms > 0 {
            return self.set_timer(Duration::from_millis(wait_ms.min(1_000)), BrokerTimer::PublishRate(conn));
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.throttle.end();
        }
        while let Some(frame) = self.connections.get_mut(conn).and_then(|connection| connection.throttle.next()) {
            self.handle_received(conn, frame);
        }
        self.connections.list(conn);
    }

    fn store(&mut self, topic: &Arc<str>, send: ValidatedSend<'_>) {
        let messages = u64::try_from(send.head.num_messages).unwrap_or(0);
        let stored = self.topics.store(topic, send.entry, send.info, messages, self.now.wall_ms);
        if let Some(position) = stored {
            self.send_receipt(send.key.conn, send.head, position);
            self.dispatch(topic, None);
        }
    }

    /// A non-persistent topic: consumers that can take it now get it, others never will.
    fn publish_transient(&mut self, topic: &str, send: ValidatedSend<'_>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.published.count(send.info.messages(), send.entry.len());
        let entry = TransientEntry {
            bytes: send.entry.clone(),
            info: send.info,
            partition: found.partition(),
            now_ms: self.now.wall_ms,
        };
        for sub in found.subscriptions.values_mut() {
            dispatch_transient(sub, &entry, &mut self.connections);
        }
        self.send_receipt(send.key.conn, send.head, NOT_STORED);
    }

    /// The store is full of unacknowledged entries: producers are closed, as by a backlog quota with exceptions.
    fn close_producers_over_quota(&mut self, topic: &Arc<str>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.is_over_quota = true;
        for key in found.producers.keys() {
            self.close_producer(topic, key, None);
        }
    }

    fn send_receipt(&mut self, conn: ConnId, head: &SendHead, position: EntryPosition) {
        let receipt = Receipt {
            producer_id: head.producer_id,
            sequence_id: head.sequence_id,
            highest_sequence_id: highest_of_batch(head).unwrap_or(NO_HIGHEST),
            ledger_id: position.ledger as u64,
            entry_id: position.entry as u64,
        };
        self.connections.send_receipt(conn, &receipt);
    }

    /// The id in the error is the highest of a batch that carries it.
    pub(in crate::broker) fn send_error(&mut self, conn: ConnId, head: &SendHead, refusal: Refusal) {
        let error = pb::CommandSendError {
            producer_id: head.producer_id,
            sequence_id: highest_of_batch(head).unwrap_or(head.sequence_id),
            error: refusal.code,
            message: refusal.message,
        };
        self.connections.send(conn, error);
    }
}

/// The id of the last message of a batch, where SEND carries it.
fn highest_of_batch(head: &SendHead) -> Option<u64> {
    head.highest_sequence_id.filter(|highest| *highest as i64 > head.sequence_id as i64)
}
