//! The messages whose letters are on their way.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::drain::{Held, InHand};
use crate::client::message::ReceivedMessage;
use crate::id::MessagePosition;
use crate::machine::EndpointId;

/// A message of the consumer: the part that got it, the cluster, and its place there.
type Place = (EndpointId, u32, MessagePosition);

/// Letters that are not stored and not given back, each message once.
#[derive(Default)]
pub(super) struct HeldLetters {
    count: Arc<InHand>,
    places: Mutex<HashSet<Place>>,
}

/// One of them, until it is dropped.
pub(super) struct HeldLetter {
    held: Arc<HeldLetters>,
    place: Place,
    _counted: Held,
}

impl HeldLetters {
    /// `None`: there is a letter of the message already.
    pub(super) fn hold(self: &Arc<Self>, message: &ReceivedMessage) -> Option<Arc<HeldLetter>> {
        let place = place_of(message);
        let is_new = self.places().insert(place);
        is_new.then(|| Arc::new(HeldLetter { held: self.clone(), place, _counted: self.count.hold() }))
    }

    pub(super) fn contains(&self, message: &ReceivedMessage) -> bool {
        self.places().contains(&place_of(message))
    }

    /// How many there are.
    pub(super) fn count(&self) -> &InHand {
        &self.count
    }

    fn places(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldLetter {
    fn drop(&mut self) {
        self.held.places().remove(&self.place);
    }
}

fn place_of(message: &ReceivedMessage) -> Place {
    let position = message.position();
    (message.part().id(), position.cluster_number, position)
}
