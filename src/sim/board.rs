//! Who wants to run: the wakers of everything in a simulation write here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::rng::Rng;
use crate::machine::control::ConnectionId;

/// Something that runs when it is woken: a user's task, a client's supervisor, a connection's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnitId(pub(super) u64);

#[derive(Debug, Default)]
struct Woken {
    order: Vec<UnitId>,
    noted: BTreeSet<UnitId>,
    /// Clients' connections whose credentials have come.
    fetched: Vec<(usize, ConnectionId)>,
}

/// The units that were woken and have not run since. Bounded by the units.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Woken>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self, unit: UnitId) {
        let mut woken = self.lock();
        if woken.noted.insert(unit) {
            woken.order.push(unit);
        }
    }

    /// Any one of those that were woken.
    pub(super) fn take(&self, rng: &mut Rng) -> Option<UnitId> {
        let mut woken = self.lock();
        let count = woken.order.len();
        if count == 0 {
            return None;
        }
        let at = if count == 1 { 0 } else { rng.below(count as u64) as usize };
        let unit = woken.order.swap_remove(at);
        woken.noted.remove(&unit);
        Some(unit)
    }

    pub(super) fn fetched(&self, client: usize, link: ConnectionId) {
        self.lock().fetched.push((client, link));
    }

    pub(super) fn take_fetched(&self) -> Vec<(usize, ConnectionId)> {
        std::mem::take(&mut self.lock().fetched)
    }

    pub(super) fn waker(self: &Arc<Self>, unit: UnitId) -> Waker {
        Waker::from(Arc::new(UnitWaker { unit, board: self.clone() }))
    }
}

struct UnitWaker {
    unit: UnitId,
    board: Arc<Board>,
}

impl Wake for UnitWaker {
    fn wake(self: Arc<Self>) {
        self.board.wake(self.unit);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.wake(self.unit);
    }
}
