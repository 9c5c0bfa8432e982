//! The producers of one connection.
//!
//! ```text
//! PRODUCER -> Opening --PRODUCER_SUCCESS--> Live | Queued --PRODUCER_SUCCESS--> Live
//!             Opening --ERROR--> gone
//! any --CLOSE_PRODUCER of the client--> ClosedByClient      any --CLOSE_PRODUCER of the broker--> ClosedByBroker
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::observation::Ledger;
use crate::rules::Rule;
use crate::wire::hot::SendHead;

/// SENDs of one producer that may wait for their receipt; beyond it receipts are no longer matched.
const PENDING_MAX: usize = 100_000;

/// Sequence ids of SENDs that may be answered late or never.
const STALE_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProducerState {
    Opening,
    /// It waits to be the exclusive one.
    Queued,
    Live,
    ClosedByClient,
    ClosedByBroker,
}

#[derive(Debug)]
pub(super) struct Producer {
    pub(super) topic: Arc<str>,
    /// The number of its topic's sequence ids.
    pub(super) history: Option<usize>,
    pub(super) name: Option<Arc<str>>,
    pub(super) state: ProducerState,
    /// Of the last PRODUCER that opened it.
    pub(super) request_id: u64,
    pub(super) epoch: u64,
    /// The name was chosen by the application.
    pub(super) is_chosen: bool,
    /// The client had closed it before.
    was_closed: bool,
    /// When the broker closed it last.
    closed_at: Option<SystemTime>,
    pending: VecDeque<Sent>,
    pending_messages: u64,
    stale: VecDeque<u64>,
    is_overfull: bool,
}

/// A SEND that waits for its receipt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) sequence_id: u64,
    /// What SEND_ERROR may name instead.
    highest_sequence_id: u64,
    messages: u32,
    pub(super) at: SystemTime,
    /// Those of a transaction are answered in an order of their own.
    is_transactional: bool,
    /// Its id had been used for other bytes.
    pub(super) is_repeated: bool,
}

/// What a receipt turned out to be.
#[derive(Debug)]
pub(super) enum Settled {
    /// The oldest SEND that waits, or one that may overtake.
    InOrder(Sent),
    OutOfOrder(Sent),
    /// It is for a SEND of an earlier life, or one that was skipped.
    Late,
    Unknown,
}

impl Producer {
    pub(super) fn new(topic: Arc<str>, history: Option<usize>, request_id: u64) -> Self {
        Self {
            topic,
            history,
            name: None,
            state: ProducerState::Opening,
            request_id,
            epoch: 0,
            is_chosen: false,
            was_closed: false,
            closed_at: None,
            pending: VecDeque::new(),
            pending_messages: 0,
            stale: VecDeque::new(),
            is_overfull: false,
        }
    }

    /// PRODUCER for an id that this connection had before: what is still on its way may come.
    pub(super) fn reopened(mut self, earlier: Self) -> Self {
        self.was_closed = earlier.state == ProducerState::ClosedByClient;
        self.closed_at = earlier.closed_at;
        self.is_overfull = earlier.is_overfull;
        self.stale = earlier.stale;
        self.pending = earlier.pending;
        self.give_up_pending(usize::MAX);
        self
    }

    /// PRODUCER was refused; false for one that is not known any longer.
    pub(super) fn refused(&mut self) -> bool {
        if self.was_closed {
            self.state = ProducerState::ClosedByClient;
        }
        self.was_closed
    }

    /// Why a SEND is wrong now, if it is.
    pub(super) fn judge_send(&self, at: SystemTime, keep_alive: Duration) -> Option<(Rule, &'static str)> {
        let is_recent = |closed: SystemTime| at.duration_since(closed).is_ok_and(|since| since <= keep_alive);
        let was_closed_lately = self.closed_at.is_some_and(is_recent);
        match self.state {
            ProducerState::Live => None,
            ProducerState::Opening | ProducerState::ClosedByBroker if was_closed_lately => None,
            ProducerState::Opening => Some((Rule::BeforeResponse, "SEND before PRODUCER_SUCCESS")),
            ProducerState::Queued => Some((Rule::SendWithoutProducer, "SEND while waiting for exclusivity")),
            ProducerState::ClosedByClient => Some((Rule::AfterClose, "SEND after CLOSE_PRODUCER")),
            ProducerState::ClosedByBroker => {
                Some((Rule::AfterBrokerClose, "SEND long after the broker's CLOSE_PRODUCER"))
            }
        }
    }

    pub(super) fn send(&mut self, head: &SendHead, at: SystemTime, is_repeated: bool) {
        let messages = u32::try_from(head.num_messages).unwrap_or(0);
        let sent = Sent {
            sequence_id: head.sequence_id,
            highest_sequence_id: head.highest_sequence_id.unwrap_or(head.sequence_id),
            messages,
            at,
            is_transactional: head.txnid_least_bits.is_some(),
            is_repeated,
        };
        if self.state != ProducerState::Live {
            return self.remember_stale(head.sequence_id);
        }
        if self.pending.len() >= PENDING_MAX {
            self.is_overfull = true;
            self.give_up_pending(1);
        }
        self.pending.push_back(sent);
        self.pending_messages += u64::from(messages);
    }

    /// SEND_RECEIPT, or SEND_ERROR, which may overtake receipts and may name the last id of a batch.
    pub(super) fn settle(&mut self, sequence_id: u64, is_error: bool) -> Settled {
        let is_it =
            |sent: &Sent| sent.sequence_id == sequence_id || (is_error && sent.highest_sequence_id == sequence_id);
        let Some(index) = self.pending.iter().position(is_it) else {
            if let Some(index) = self.stale.iter().position(|stale| *stale == sequence_id) {
                self.stale.remove(index);
                return Settled::Late;
            }
            return if self.is_overfull { Settled::Late } else { Settled::Unknown };
        };
        let may_overtake = is_error || self.pending.iter().take(index).all(|sent| sent.is_transactional);
        let Some(sent) = self.pending.remove(index) else { return Settled::Unknown };
        self.pending_messages -= u64::from(sent.messages);
        if may_overtake || sent.is_transactional {
            return Settled::InOrder(sent);
        }
        // The skipped ones may come late: told once.
        self.give_up_pending(index);
        Settled::OutOfOrder(sent)
    }

    pub(super) fn closed_by_client(&mut self) {
        self.state = ProducerState::ClosedByClient;
    }

    /// SENDs that are on their way are ignored by the broker.
    pub(super) fn closed_by_broker(&mut self, at: SystemTime) {
        self.state = ProducerState::ClosedByBroker;
        self.closed_at = Some(at);
        self.give_up_pending(usize::MAX);
    }

    /// No receipt is expected for the oldest so many.
    fn give_up_pending(&mut self, count: usize) {
        for _ in 0..count.min(self.pending.len()) {
            let Some(sent) = self.pending.pop_front() else { return };
            self.pending_messages = self.pending_messages.saturating_sub(u64::from(sent.messages));
            self.remember_stale(sent.sequence_id);
        }
    }

    fn remember_stale(&mut self, sequence_id: u64) {
        if self.stale.len() >= STALE_MAX {
            self.stale.pop_front();
        }
        self.stale.push_back(sequence_id);
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::Producer { pending_sends: self.pending.len() as u64, pending_messages: self.pending_messages }
    }
}
