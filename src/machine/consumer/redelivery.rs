//! Messages to be delivered again: negative acknowledgements until their delay has passed, then what the broker is
//! asked for.
//!
//! The unit is the entry: the broker delivers an entry again with all members that are not acknowledged. Exclusive and
//! Failover read in order, so there any redelivery is "everything after the last acknowledgement", and one request
//! serves all that wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::position::EntryPosition;
use crate::machine::Now;
use crate::machine::endpoint::outbox::Outbox;
use crate::pb;
use crate::wire::Command;

/// The most negative acknowledgements that wait for their delay, in entries. At the bound everything that is not
/// acknowledged is asked for again at once, which covers them all.
pub(super) const NACKS_MAX: usize = 100_000;

/// The most ids in one REDELIVER_UNACKNOWLEDGED_MESSAGES.
pub(super) const REDELIVER_IDS_MAX: usize = 1000;

/// Times are grouped in steps of a quarter of the delay, this at most, in milliseconds.
const STEP_MS_MAX: u64 = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Redelivery {
    in_order: bool,
    delay: Duration,
    step_ms: u64,
    /// Steps count from here.
    base: Instant,
    /// Entries that wait, each with its step.
    waiting: BTreeMap<EntryPosition, u64>,
    /// The same by step; may name entries that do not wait any more.
    steps: BTreeMap<u64, Vec<EntryPosition>>,
    /// Positions in `steps`.
    stepped: usize,
    /// Entries to be asked for.
    ids: Vec<EntryPosition>,
    /// Everything is to be asked for.
    all: bool,
    /// `consumer_epoch`: grows with each rewind, and comes back in the messages sent after it.
    epoch: u64,
}

impl Redelivery {
    pub(super) fn new(in_order: bool, delay: Duration, now: Now) -> Self {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self {
            in_order,
            delay,
            step_ms: (delay_ms / 4).clamp(1, STEP_MS_MAX),
            base: now.at,
            waiting: BTreeMap::new(),
            steps: BTreeMap::new(),
            stepped: 0,
            ids: Vec::new(),
            all: false,
            epoch: 0,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Notes an entry, once: its delay counts from the first time. False if there is no room for it.
    pub(super) fn nack(&mut self, position: EntryPosition, now: Now) -> bool {
        if self.waiting.contains_key(&position) {
            return true;
        }
        if self.stepped >= NACKS_MAX {
            return false;
        }
        let due = now.at.saturating_duration_since(self.base).saturating_add(self.delay);
        // Up, so that no redelivery comes before its delay.
        let step = u64::try_from(due.as_millis()).unwrap_or(u64::MAX).div_ceil(self.step_ms);
        self.waiting.insert(position, step);
        self.steps.entry(step).or_default().push(position);
        self.stepped += 1;
        true
    }

    /// The entry is acknowledged, or gone.
    pub(super) fn forget(&mut self, position: EntryPosition) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&position);
        }
    }

    /// Everything up to and including `up_to` is acknowledged.
    pub(super) fn forget_up_to(&mut self, up_to: EntryPosition) {
        if self.waiting.first_key_value().is_some_and(|(first, _)| *first <= up_to) {
            self.waiting.retain(|position, _| *position > up_to);
        }
    }

    /// Nothing waits any more; what was asked for already stands.
    pub(super) fn forget_all(&mut self) {
        self.waiting.clear();
        self.steps.clear();
        self.stepped = 0;
    }

    /// A new attach, or a seek: the broker delivers everything again anyway.
    pub(super) fn restart(&mut self) {
        self.forget_all();
        self.ids.clear();
        self.all = false;
    }

    /// When the next step is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let (step, _) = self.steps.first_key_value()?;
        self.base.checked_add(Duration::from_millis(step.saturating_mul(self.step_ms)))
    }

    /// Takes the entries that are due. In order, that is one for all.
    pub(super) fn take_due(&mut self, now: Now) -> Vec<EntryPosition> {
        let mut due = Vec::new();
        while self.due_at().is_some_and(|at| at <= now.at) {
            let Some((step, positions)) = self.steps.pop_first() else { break };
            self.stepped -= positions.len();
            for position in positions {
                if self.waiting.get(&position) == Some(&step) {
                    self.waiting.remove(&position);
                    due.push(position);
                }
            }
        }
        due
    }

    /// The broker is to be asked for these.
    pub(super) fn ask_for(&mut self, positions: &[EntryPosition]) {
        if self.all {
            return;
        }
        if self.ids.len() + positions.len() > NACKS_MAX {
            self.ask_for_all();
        } else {
            self.ids.extend_from_slice(positions);
        }
    }

    /// The broker is to be asked for everything that is not acknowledged.
    pub(super) fn ask_for_all(&mut self) {
        self.forget_all();
        self.ids.clear();
        self.all = true;
        if self.in_order {
            self.epoch += 1;
        }
    }

    /// Whether there is something to ask for.
    pub(super) fn has_pending(&self) -> bool {
        self.all || !self.ids.is_empty()
    }

    /// Asks, about `out.quantum_bytes` at most. True if nothing is left.
    pub(super) fn transmit(&mut self, consumer_id: u64, out: &mut Outbox<'_>) -> bool {
        if self.all {
            self.all = false;
            put(out, consumer_id, &[], self.in_order.then_some(self.epoch));
        }
        let start = out.tx.len();
        let mut sent = 0;
        while sent < self.ids.len() && out.tx.len() - start < out.quantum_bytes {
            let count = (self.ids.len() - sent).min(REDELIVER_IDS_MAX);
            put(out, consumer_id, &self.ids[sent..sent + count], None);
            sent += count;
        }
        self.ids.drain(..sent);
        self.ids.is_empty()
    }
}

fn put(out: &mut Outbox<'_>, consumer_id: u64, ids: &[EntryPosition], consumer_epoch: Option<u64>) {
    let message_ids = ids
        .iter()
        .map(|id| pb::MessageIdData { ledger_id: id.ledger_id, entry_id: id.entry_id, ..Default::default() })
        .collect();
    let redeliver = pb::CommandRedeliverUnacknowledgedMessages { consumer_id, message_ids, consumer_epoch };
    out.tx.command(&Command::RedeliverUnacknowledgedMessages(redeliver));
}
