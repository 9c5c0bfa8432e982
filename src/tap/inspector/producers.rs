//! The producers of one connection.
//!
//! ```text
//! PRODUCER -> Opening --PRODUCER_SUCCESS--> Live | Queued --PRODUCER_SUCCESS--> Live
//!             Opening --ERROR--> gone
//! any --CLOSE_PRODUCER of the client--> ClosedByClient      any --CLOSE_PRODUCER of the broker--> ClosedByBroker
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::observation::Ledger;
use super::pending::{Pending, first};
use crate::rules::Rule;
use crate::tap::budget::Share;
use crate::wire::hot::SendHead;

/// SENDs of one producer that may wait for their receipt; beyond it receipts are no longer matched.
const PENDING_MAX: usize = 100_000;

/// Sequence ids of SENDs that may be answered late or never.
const STALE_MAX: usize = 10_000;

/// What a SEND that waits, or the id of one, takes with its places in the indices, bytes.
const SENT_BYTES: usize = 192;

/// What an endpoint takes without its names and entries, bytes.
pub(super) const ENDPOINT_BYTES: usize = 512;

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
    /// The number of the next SEND.
    next: u64,
    /// SENDs whose receipts come in their order.
    ordered: Pending<Sent>,
    /// Those of a transaction, which are answered in an order of their own.
    transactional: Pending<Sent>,
    /// The last id and the number of each batch among them.
    highest_ids: BTreeSet<(u64, u64)>,
    pending_messages: u64,
    stale: Pending<()>,
    /// Something of it is forgotten.
    is_overfull: bool,
    share: Share,
}

/// A SEND that waits for its receipt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) sequence_id: u64,
    /// What SEND_ERROR may name instead.
    highest_sequence_id: u64,
    messages: u32,
    pub(super) at: SystemTime,
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
    pub(super) fn new(topic: Arc<str>, history: Option<usize>, request_id: u64, share: Share) -> Self {
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
            next: 0,
            ordered: Pending::default(),
            transactional: Pending::default(),
            highest_ids: BTreeSet::new(),
            pending_messages: 0,
            stale: Pending::default(),
            is_overfull: false,
            share,
        }
    }

    /// Says what it holds.
    pub(super) fn charge(&mut self) {
        let names = self.topic.len() + self.name.as_ref().map_or(0, |name| name.len());
        let entries = self.pending_sends() + self.stale.len();
        self.share.set(ENDPOINT_BYTES + names + entries * SENT_BYTES);
    }

    /// PRODUCER for an id that this connection had before: what is still on its way may come.
    pub(super) fn reopened(mut self, earlier: Self) -> Self {
        self.was_closed = earlier.state == ProducerState::ClosedByClient;
        self.closed_at = earlier.closed_at;
        self.is_overfull = earlier.is_overfull;
        self.next = earlier.next;
        self.stale = earlier.stale;
        self.ordered = earlier.ordered;
        self.transactional = earlier.transactional;
        self.highest_ids = earlier.highest_ids;
        self.pending_messages = earlier.pending_messages;
        self.give_up_before(u64::MAX);
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
            is_repeated,
        };
        if self.state != ProducerState::Live {
            return self.remember_stale(head.sequence_id);
        }
        if self.share.is_full() {
            self.is_overfull = true;
            if self.oldest().and_then(|oldest| self.take(oldest)).is_none() {
                return;
            }
        } else if self.pending_sends() >= PENDING_MAX {
            self.is_overfull = true;
            self.give_up_oldest();
        }
        let number = self.take_number();
        if sent.highest_sequence_id != sent.sequence_id {
            self.highest_ids.insert((sent.highest_sequence_id, number));
        }
        let is_transactional = head.txnid_least_bits.is_some();
        let pending = if is_transactional { &mut self.transactional } else { &mut self.ordered };
        pending.insert(number, sent.sequence_id, sent);
        self.pending_messages += u64::from(messages);
        self.charge();
    }

    fn pending_sends(&self) -> usize {
        self.ordered.len() + self.transactional.len()
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// SEND_RECEIPT, or SEND_ERROR, which may overtake receipts and may name the last id of a batch.
    pub(super) fn settle(&mut self, sequence_id: u64, is_error: bool) -> Settled {
        let by_highest = is_error.then(|| first(&self.highest_ids, sequence_id)).flatten();
        let found = [self.ordered.find(sequence_id), self.transactional.find(sequence_id), by_highest];
        let Some(number) = found.into_iter().flatten().min() else {
            if let Some(number) = self.stale.find(sequence_id) {
                self.stale.remove(number);
                self.charge();
                return Settled::Late;
            }
            return if self.is_overfull { Settled::Late } else { Settled::Unknown };
        };
        let is_next = self.ordered.oldest().is_none_or(|oldest| number <= oldest);
        let is_transactional = self.transactional.has(number);
        let Some(sent) = self.take(number) else { return Settled::Unknown };
        if is_error || is_next || is_transactional {
            return Settled::InOrder(sent);
        }
        // The skipped ones may come late: told once.
        self.give_up_before(number);
        Settled::OutOfOrder(sent)
    }

    /// It waits no longer.
    fn take(&mut self, number: u64) -> Option<Sent> {
        let sent = self.ordered.remove(number).or_else(|| self.transactional.remove(number))?;
        self.highest_ids.remove(&(sent.highest_sequence_id, number));
        self.pending_messages -= u64::from(sent.messages);
        self.charge();
        Some(sent)
    }

    pub(super) fn closed_by_client(&mut self) {
        self.state = ProducerState::ClosedByClient;
    }

    /// SENDs that are on their way are ignored by the broker.
    pub(super) fn closed_by_broker(&mut self, at: SystemTime) {
        self.state = ProducerState::ClosedByBroker;
        self.closed_at = Some(at);
        self.give_up_before(u64::MAX);
    }

    fn oldest(&self) -> Option<u64> {
        [self.ordered.oldest(), self.transactional.oldest()].into_iter().flatten().min()
    }

    /// No receipt is expected for the oldest SEND.
    fn give_up_oldest(&mut self) {
        if let Some(sent) = self.oldest().and_then(|number| self.take(number)) {
            self.remember_stale(sent.sequence_id);
        }
    }

    /// No receipt is expected for SENDs before this one.
    fn give_up_before(&mut self, end: u64) {
        while self.oldest().is_some_and(|number| number < end) {
            self.give_up_oldest();
        }
    }

    fn remember_stale(&mut self, sequence_id: u64) {
        if self.share.is_full() {
            self.is_overfull = true;
            return;
        }
        if self.stale.len() >= STALE_MAX {
            self.is_overfull = true;
            self.stale.remove_oldest();
        }
        let number = self.take_number();
        self.stale.insert(number, sequence_id, ());
        self.charge();
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::Producer { pending_sends: self.pending_sends() as u64, pending_messages: self.pending_messages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::budget::Budget;

    /// With so many entries a search of each for each answer takes minutes.
    const MANY: u64 = PENDING_MAX as u64;

    fn producer() -> Producer {
        let mut producer = Producer::new("t".into(), None, 0, Budget::new(usize::MAX).share());
        producer.state = ProducerState::Live;
        producer
    }

    fn head(sequence_id: u64, is_transactional: bool) -> SendHead {
        SendHead { txnid_least_bits: is_transactional.then_some(1), ..SendHead::new(1, sequence_id) }
    }

    #[test]
    fn answers_to_many_sends_in_any_order_are_found() {
        for is_transactional in [false, true] {
            let mut producer = producer();
            (0..MANY).for_each(|id| producer.send(&head(id, is_transactional), SystemTime::UNIX_EPOCH, false));
            // Ids that nobody sent.
            for id in MANY..2 * MANY {
                assert!(matches!(producer.settle(id, true), Settled::Unknown));
            }
            // From the middle to both ends.
            for offset in 0..MANY / 2 {
                for id in [MANY / 2 + offset, MANY / 2 - 1 - offset] {
                    assert!(matches!(producer.settle(id, !is_transactional), Settled::InOrder(_)), "{id}");
                }
            }
            assert_eq!(producer.ledger(), Ledger::Producer { pending_sends: 0, pending_messages: 0 });
        }
    }

    #[test]
    fn what_a_receipt_skips_may_come_late_once() {
        let mut producer = producer();
        (0..4).for_each(|id| producer.send(&head(id, id == 1), SystemTime::UNIX_EPOCH, false));
        assert!(matches!(producer.settle(2, false), Settled::OutOfOrder(_)));
        for id in [0, 1] {
            assert!(matches!(producer.settle(id, false), Settled::Late));
            assert!(matches!(producer.settle(id, false), Settled::Unknown));
        }
        assert!(matches!(producer.settle(3, false), Settled::InOrder(_)));
    }

    #[test]
    fn an_error_may_name_the_last_id_of_a_batch() {
        let mut producer = producer();
        let batch = SendHead { highest_sequence_id: Some(5), ..head(3, false) };
        producer.send(&batch, SystemTime::UNIX_EPOCH, false);
        assert!(matches!(producer.settle(5, false), Settled::Unknown));
        assert!(matches!(producer.settle(5, true), Settled::InOrder(_)));
        assert!(matches!(producer.settle(5, true), Settled::Unknown));
    }
}
