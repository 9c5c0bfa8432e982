//! SEND: checks, deduplication, the log, the receipt.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::commands::handshake::NO_REQUEST;
use crate::broker::config::DamagedEntries;
use crate::broker::conformance::Rule;
use crate::broker::connections::ProducerSlot;
use crate::broker::machine::{Broker, ConnId};
use crate::broker::storage::entry_info::{self as facts, Received};
use crate::broker::storage::log::EntryFacts;
use crate::broker::topics::topic::ProducerKey;
use crate::pb::{self, ServerError};
use crate::wire::hot::{Receipt, SendHead};

/// `highest_sequence_id` of a receipt for a SEND that had none. A real broker writes this or 0.
const NO_HIGHEST: u64 = u64::MAX;

/// What the checks of an entry found.
struct Checked {
    facts: EntryFacts,
    sum: u32,
}

impl Broker {
    pub(crate) fn on_send(&mut self, conn: ConnId, head: &SendHead, entry: &Bytes) {
        let Some(topic) = self.sending_topic(conn, head) else { return };
        let checked = match facts::receive(entry) {
            Received::Headless => {
                return self.fail(conn, Rule::UnreadableFrame, || "SEND shorter than its headers".to_owned());
            }
            Received::ChecksumMismatch => {
                self.judge.record(conn.0, Rule::Checksum, || format!("sequence id {}", head.sequence_id));
                return self.send_error(conn, head, ServerError::ChecksumError, "Checksum failed on the broker");
            }
            Received::Sound { facts, sum, producer_name } => {
                self.judge_metadata(conn, &topic, head, &facts, &producer_name);
                Checked { facts: *facts, sum }
            }
        };
        if head.message_id.is_some() {
            let text = "Only shadow topic supports sending messages with messageId";
            return self.send_error(conn, head, ServerError::NotAllowedError, text);
        }
        if head.txnid_least_bits.is_some() && head.txnid_most_bits.is_some() {
            return self.send_error(conn, head, ServerError::NotAllowedError, "Transaction is not enabled");
        }
        if !checked.facts.readable && self.config.damaged_entries == DamagedEntries::Refuse {
            let text = "MessageMetadata cannot be read";
            return self.send_error(conn, head, ServerError::NotAllowedError, text);
        }
        self.store(conn, &topic, head, entry, checked);
    }

    /// The topic of a producer that may send now. Whoever may not is dropped, or ignored while it cannot know yet.
    fn sending_topic(&mut self, conn: ConnId, head: &SendHead) -> Option<Arc<str>> {
        let slot = self.conns.get(conn)?.producers.get(&head.producer_id);
        let grace =
            |at: std::time::Instant| self.now.at.saturating_duration_since(at) <= self.config.keep_alive_interval;
        let (rule, what) = match slot {
            Some(ProducerSlot::Live { topic, answered: true, .. }) => return Some(Arc::clone(topic)),
            Some(ProducerSlot::Live { closed_at: Some(at), .. }) if grace(*at) => return None,
            Some(ProducerSlot::ClosedByBroker { at }) if grace(*at) => return None,
            Some(ProducerSlot::Live { .. } | ProducerSlot::Parked) => {
                (Rule::BeforeAnswer, "SEND before PRODUCER_SUCCESS")
            }
            Some(ProducerSlot::ClosedByClient) => (Rule::AfterClose, "SEND after CLOSE_PRODUCER"),
            Some(ProducerSlot::FencedOut) => {
                // The client cannot know: it is not told until this.
                self.conns.close(conn);
                return None;
            }
            Some(ProducerSlot::Waiting { .. }) => (Rule::SendWithoutProducer, "SEND while waiting for exclusivity"),
            Some(ProducerSlot::ClosedByBroker { .. }) => {
                (Rule::AfterClose, "SEND long after the broker's CLOSE_PRODUCER")
            }
            None => (Rule::SendWithoutProducer, "SEND for an unknown producer"),
        };
        self.fail(conn, rule, || format!("{what} {}", head.producer_id));
        None
    }

    fn judge_metadata(&mut self, conn: ConnId, topic: &Arc<str>, head: &SendHead, facts: &EntryFacts, named: &str) {
        if !facts.readable {
            return;
        }
        let key = ProducerKey { conn, id: head.producer_id };
        let name = self.topics.get(topic).and_then(|topic| topic.producers.get(&key)).map(|producer| &*producer.name);
        let messages = u32::try_from(head.num_messages).unwrap_or(0);
        let same = facts.sequence_id == head.sequence_id && name == Some(named) && facts.messages() == messages;
        if !same {
            let detail = || {
                format!(
                    "SEND {}:{} x {messages}, metadata {named:?}:{} x {}",
                    head.producer_id,
                    head.sequence_id,
                    facts.sequence_id,
                    facts.messages()
                )
            };
            self.judge.record(conn.0, Rule::MetadataMismatch, detail);
        }
    }

    fn store(&mut self, conn: ConnId, topic: &Arc<str>, head: &SendHead, entry: &Bytes, checked: Checked) {
        let key = ProducerKey { conn, id: head.producer_id };
        let Some(found) = self.topics.get_mut(topic) else { return };
        let Some(producer) = found.producers.get(&key).map(|producer| Arc::clone(&producer.name)) else { return };
        let first = head.sequence_id as i64;
        let highest = head.highest_sequence_id.map_or(first, |highest| (highest as i64).max(first));
        if let Some(session) = found.session(&producer) {
            if !session.note(first, highest, checked.sum, head.is_chunk) {
                self.judge.record(conn.0, Rule::SequenceNotGrowing, || format!("{producer}: {first}"));
            }
        }
        if !found.name.is_persistent() {
            return self.publish_transient(conn, topic, head, entry, &checked.facts);
        }
        if self.config.deduplication {
            if head.is_chunk && !checked.facts.readable {
                return self.fail(conn, Rule::UnreadableFrame, || "chunk with unreadable metadata".to_owned());
            }
            // Of a chunked message only the last chunk is checked and recorded.
            let checks = checked.facts.chunk.as_ref().is_none_or(|chunk| chunk.last);
            if checks && first <= found.last_stored_id(&producer) {
                return self.receipt(conn, head, u64::MAX, u64::MAX);
            }
        }
        if !self.make_room(topic, entry.len()) {
            return self.hold_off(topic);
        }
        let Some(found) = self.topics.get_mut(topic) else { return };
        if self.config.deduplication && checked.facts.chunk.as_ref().is_none_or(|chunk| chunk.last) {
            found.note_stored_id(&producer, highest);
        }
        let messages = u64::try_from(head.num_messages).unwrap_or(0);
        found.msg_in += u64::from(checked.facts.messages());
        found.bytes_in += entry.len() as u64;
        self.stored_bytes += entry.len();
        let offset = found.log.append(Bytes::copy_from_slice(entry), checked.facts, messages, self.now.wall_ms);
        let position = found.log.position(offset);
        self.receipt(conn, head, position.ledger as u64, position.entry as u64);
        self.pump(topic, None);
    }

    fn receipt(&mut self, conn: ConnId, head: &SendHead, ledger_id: u64, entry_id: u64) {
        let highest = head.highest_sequence_id.filter(|highest| *highest as i64 > head.sequence_id as i64);
        let receipt = Receipt {
            producer_id: head.producer_id,
            sequence_id: head.sequence_id,
            highest_sequence_id: highest.unwrap_or(NO_HIGHEST),
            ledger_id,
            entry_id,
        };
        self.conns.receipt(conn, &receipt);
    }

    /// The id in the error is the highest of a batch that says it.
    fn send_error(&mut self, conn: ConnId, head: &SendHead, error: ServerError, message: &str) {
        let highest = head.highest_sequence_id.filter(|highest| *highest as i64 > head.sequence_id as i64);
        let error = pb::CommandSendError {
            producer_id: head.producer_id,
            sequence_id: highest.unwrap_or(head.sequence_id),
            error: error.into(),
            message: message.to_owned(),
        };
        self.conns.send(conn, &error.into());
    }

    /// A non-persistent topic: whoever has permits now gets it, nobody else ever will.
    fn publish_transient(
        &mut self,
        conn: ConnId,
        topic: &Arc<str>,
        head: &SendHead,
        entry: &Bytes,
        facts: &EntryFacts,
    ) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.msg_in += u64::from(facts.messages());
        found.bytes_in += entry.len() as u64;
        let partition = found.partition();
        for sub in found.subscriptions.values_mut() {
            crate::broker::dispatch::deliver_transient(sub, entry, facts, partition, self.now.wall_ms, &mut self.conns);
        }
        self.receipt(conn, head, 0, 0);
    }

    /// Drops entries that every subscription has acknowledged: of this topic first, then of all.
    pub(crate) fn make_room(&mut self, topic: &Arc<str>, bytes: usize) -> bool {
        if self.stored_bytes.saturating_add(bytes) <= self.config.stored_bytes_max {
            return true;
        }
        let others: Vec<Arc<str>> = self.topics.keys().filter(|other| *other != topic).map(Arc::clone).collect();
        for name in std::iter::once(Arc::clone(topic)).chain(others) {
            if let Some(found) = self.topics.get_mut(&name) {
                self.stored_bytes -= found.log.trim(found.acknowledged_by_all());
            }
            if self.stored_bytes.saturating_add(bytes) <= self.config.stored_bytes_max {
                return true;
            }
        }
        false
    }

    /// The store is full of unacknowledged entries: producers are closed, as by a backlog quota with exceptions.
    fn hold_off(&mut self, topic: &Arc<str>) {
        let Some(found) = self.topics.get_mut(topic) else { return };
        found.over_quota = true;
        let keys: Vec<ProducerKey> = found.producers.keys().copied().collect();
        for key in keys {
            self.close_producer(topic, key, None);
        }
    }

    /// CLOSE_PRODUCER from this side, with the address to go to if there is one. Peers that do not know it lose the connection.
    pub(crate) fn close_producer(&mut self, topic: &Arc<str>, key: ProducerKey, url: Option<&str>) {
        let Some(connection) = self.conns.get_mut(key.conn) else { return };
        connection.producers.insert(key.id, ProducerSlot::ClosedByBroker { at: self.now.at });
        if connection.version < 5 {
            self.conns.close(key.conn);
        } else {
            let close = pb::CommandCloseProducer {
                producer_id: key.id,
                request_id: NO_REQUEST,
                assigned_broker_service_url: url.map(str::to_owned),
                assigned_broker_service_url_tls: None,
            };
            self.conns.send(key.conn, &close.into());
        }
        if let Some(found) = self.topics.get_mut(topic) {
            found.producers.remove(&key);
            if found.exclusive == Some(key) {
                found.exclusive = None;
            }
        }
    }
}
