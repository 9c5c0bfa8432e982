//! Exclusive and Failover: which consumer is active.

use std::collections::BTreeMap;

use super::consumer::{SubscribedConsumer, SubscribedConsumers};
use super::key_hashing::RING_POINTS;
use crate::broker::ids::ConsumerKey;
use crate::hash::murmur3_32;

/// ```text
///            choose                    Exclusive: at once; Failover: its delay is over
///   None ─────────────► Waiting ────────────────────────────────────────────────────► Active
///    ▲                  ▲     │                                                         │
///    │                  └─────┼────────────────── another is selected ──────────────────┤
///    └── no consumer is left ─┴─────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ActiveState {
    #[default]
    None,
    /// Selected, and sent nothing yet.
    Waiting(ConsumerKey),
    /// Selected, and sent messages.
    Active(ConsumerKey),
}

/// The one consumer of an Exclusive or Failover subscription that gets messages.
#[derive(Debug, Default)]
pub(crate) struct ActiveConsumer {
    state: ActiveState,
    /// Counts choices, so that the timer of an earlier one is recognised and ignored.
    generation: u64,
}

impl ActiveConsumer {
    /// The selected consumer, active or still waiting for its fail-over delay.
    pub(crate) fn selected(&self) -> Option<ConsumerKey> {
        match self.state {
            ActiveState::None => None,
            ActiveState::Waiting(key) | ActiveState::Active(key) => Some(key),
        }
    }

    /// The selected consumer once it may get messages.
    pub(crate) fn active(&self) -> Option<ConsumerKey> {
        match self.state {
            ActiveState::None | ActiveState::Waiting(_) => None,
            ActiveState::Active(key) => Some(key),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Exclusive: the selected consumer is active at once.
    pub(crate) fn activate(&mut self) {
        if let ActiveState::Waiting(key) = self.state {
            self.state = ActiveState::Active(key);
        }
    }

    /// Failover: the delay of a choice is over. False if there is a newer choice, or this one is active already.
    pub(crate) fn activate_after_delay(&mut self, generation: u64) -> bool {
        let is_due = self.generation == generation && matches!(self.state, ActiveState::Waiting(_));
        if is_due {
            self.activate();
        }
        is_due
    }

    /// Selects a consumer, which is not active yet; true if it differs from the one before.
    pub(super) fn choose(&mut self, selected: Option<ConsumerKey>) -> bool {
        if selected == self.selected() {
            return false;
        }
        self.state = selected.map_or(ActiveState::None, ActiveState::Waiting);
        self.generation += 1;
        true
    }

    /// All consumers were taken off the subscription.
    pub(super) fn clear(&mut self) {
        self.state = ActiveState::None;
    }
}

/// The Failover consumer to be selected: of the best priority level, in order of their names, the one that the partition
/// number picks; on a topic that is no partition, the one next to the topic's name on a ring of the candidates.
pub(super) fn failover_choice(
    consumers: &SubscribedConsumers,
    topic: &str,
    partition: Option<u32>,
) -> Option<ConsumerKey> {
    let best = consumers.iter().map(|consumer| consumer.priority).min();
    let mut candidates: Vec<_> = consumers.iter().filter(|one| Some(one.priority) == best).collect();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    let index = match partition {
        Some(partition) => (partition as usize).checked_rem(candidates.len()),
        None => next_on_ring(&candidates, topic),
    };
    candidates.get(index?).map(|consumer| consumer.key)
}

fn next_on_ring(candidates: &[&SubscribedConsumer], topic: &str) -> Option<usize> {
    let mut ring = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for point in 0..RING_POINTS {
            ring.entry(murmur3_32(format!("{}{point}", candidate.name).as_bytes())).or_insert(index);
        }
    }
    let hash = murmur3_32(topic.as_bytes());
    ring.range(hash..).next().or_else(|| ring.first_key_value()).map(|(_, index)| *index)
}
