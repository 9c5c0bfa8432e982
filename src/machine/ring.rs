//! Whose turn it is: a queue in which everyone stands at most once.

use std::collections::{HashSet, VecDeque};

use super::EndpointId;

/// Endpoints in turn. One that is in it already keeps its place, so that neither the number of its marks nor what it
/// still has to write gives it more turns than the others, and the ring is bounded by the endpoints.
#[derive(Debug, Default)]
pub(super) struct Ring {
    queue: VecDeque<EndpointId>,
    inside: HashSet<EndpointId>,
}

impl Ring {
    /// Puts it at the end, unless it is in the ring already.
    pub(super) fn push_back(&mut self, id: EndpointId) {
        if self.inside.insert(id) {
            self.queue.push_back(id);
        }
    }

    /// Takes who is first.
    pub(super) fn pop_front(&mut self) -> Option<EndpointId> {
        let id = self.queue.pop_front()?;
        self.inside.remove(&id);
        Some(id)
    }

    /// How many are in it.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody is.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Extend<EndpointId> for Ring {
    fn extend<I: IntoIterator<Item = EndpointId>>(&mut self, ids: I) {
        ids.into_iter().for_each(|id| self.push_back(id));
    }
}
