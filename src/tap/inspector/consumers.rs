//! The consumers of one connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::observation::Ledger;
use super::producers::ENDPOINT_BYTES;
use crate::pb::MessageIdData;
use crate::pb::command_subscribe::SubType;
use crate::tap::budget::Share;

/// Entries of one consumer that may be unacknowledged; beyond it the first are forgotten.
const UNACKNOWLEDGED_MAX: usize = 100_000;

/// What an entry that is not acknowledged takes, bytes.
const UNACKNOWLEDGED_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsumerState {
    Opening,
    Live,
    /// CLOSE_CONSUMER was sent: what is on its way may come.
    Closing,
    ClosedByClient,
    Unsubscribed,
    ClosedByBroker,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) topic: Arc<str>,
    pub(super) sub_type: Option<SubType>,
    pub(super) state: ConsumerState,
    /// Of the last SUBSCRIBE that opened it.
    pub(super) request_id: u64,
    /// The number of what its subscription was sent.
    pub(super) delivered_index: Option<usize>,
    /// What became of it before, if this connection had it: what was on its way then may come.
    pub(super) earlier: Option<ConsumerState>,
    granted: u64,
    delivered: u64,
    entries: u64,
    /// Messages of each entry, by ledger and entry.
    unacknowledged: BTreeMap<(u64, u64), u32>,
    unacknowledged_messages: u64,
    share: Share,
}

impl Consumer {
    pub(super) fn new(
        topic: Arc<str>,
        sub_type: Option<SubType>,
        request_id: u64,
        delivered_index: Option<usize>,
        share: Share,
    ) -> Self {
        Self {
            topic,
            sub_type,
            state: ConsumerState::Opening,
            request_id,
            delivered_index,
            earlier: None,
            granted: 0,
            delivered: 0,
            entries: 0,
            unacknowledged: BTreeMap::new(),
            unacknowledged_messages: 0,
            share,
        }
    }

    /// Says what it holds.
    pub(super) fn charge(&mut self) {
        self.share.set(ENDPOINT_BYTES + self.topic.len() + self.unacknowledged.len() * UNACKNOWLEDGED_BYTES);
    }

    /// No side has closed it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, ConsumerState::Opening | ConsumerState::Live)
    }

    /// Each message costs the broker one permit, and one entry at least one message.
    pub(super) fn deliver(&mut self, id: (u64, u64), messages: u32) {
        self.delivered += u64::from(messages);
        self.entries += 1;
        let is_full = self.share.is_full();
        if is_full || self.unacknowledged.len() >= UNACKNOWLEDGED_MAX {
            match self.unacknowledged.pop_first() {
                Some((_, forgotten)) => self.unacknowledged_messages -= u64::from(forgotten),
                None if is_full => return,
                None => {}
            }
        }
        let before = self.unacknowledged.insert(id, messages).unwrap_or(0);
        self.unacknowledged_messages = self.unacknowledged_messages + u64::from(messages) - u64::from(before);
        self.charge();
    }

    /// Counts an entry that came behind CLOSE_CONSUMER or UNSUBSCRIBE, and says whether a permit was left for it: a broker that reads
    /// on one thread and answers on another may send it even behind the answer.
    pub(super) fn deliver_late(&mut self) -> bool {
        self.entries += 1;
        !self.is_overdrawn()
    }

    pub(super) fn grant(&mut self, permits: u32) {
        self.granted += u64::from(permits);
    }

    /// Whether more entries came than there were permits: one entry of several messages may overdraw them, a further
    /// one may not.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.entries > self.granted
    }

    pub(super) fn holds(&self, id: (u64, u64)) -> bool {
        self.unacknowledged.contains_key(&id)
    }

    pub(super) fn acknowledge(&mut self, id: &MessageIdData) {
        let key = (id.ledger_id, id.entry_id);
        let Some(before) = self.unacknowledged.get(&key).copied() else { return };
        let left = id.ack_set.iter().map(|word| word.count_ones()).sum::<u32>().min(before);
        self.unacknowledged_messages -= u64::from(before - left);
        if left == 0 {
            self.unacknowledged.remove(&key);
            self.charge();
        } else {
            self.unacknowledged.insert(key, left);
        }
    }

    pub(super) fn acknowledge_cumulatively(&mut self, id: &MessageIdData) {
        while let Some((key, messages)) = self.unacknowledged.first_key_value().map(|(key, messages)| (*key, *messages))
        {
            if key >= (id.ledger_id, id.entry_id) {
                break;
            }
            self.unacknowledged.remove(&key);
            self.unacknowledged_messages -= u64::from(messages);
        }
        self.charge();
        self.acknowledge(id);
    }

    /// REDELIVER_UNACKNOWLEDGED_MESSAGES: the broker takes these back, or all of them.
    pub(super) fn give_back(&mut self, ids: &[MessageIdData]) {
        let is_by_id = matches!(self.sub_type, Some(SubType::Shared | SubType::KeyShared)) && !ids.is_empty();
        if !is_by_id {
            self.unacknowledged.clear();
            self.unacknowledged_messages = 0;
            return self.charge();
        }
        for id in ids {
            let messages = self.unacknowledged.remove(&(id.ledger_id, id.entry_id)).unwrap_or(0);
            self.unacknowledged_messages -= u64::from(messages);
        }
        self.charge();
    }

    pub(super) fn close(&mut self, state: ConsumerState) {
        self.state = state;
        self.give_back(&[]);
    }

    /// SUBSCRIBE was refused; false for one that is not known any longer.
    pub(super) fn refused(&mut self) -> bool {
        let is_closed = matches!(self.earlier, Some(ConsumerState::Closing | ConsumerState::ClosedByClient));
        if is_closed {
            self.state = ConsumerState::ClosedByClient;
        }
        is_closed
    }

    pub(super) fn is_single_active(&self) -> bool {
        !matches!(self.sub_type, Some(SubType::Shared | SubType::KeyShared))
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::Consumer {
            granted: self.granted,
            delivered: self.delivered,
            permits: self.granted as i64 - self.delivered as i64,
            unacknowledged: self.unacknowledged_messages,
        }
    }
}
