//! An endpoint: a producer or consumer machine behind its own small lock, and the one who serves it.
//!
//! Five rules make sure that whatever has something to do is looked at:
//! 1. The pointer to an endpoint's server lies under the endpoint's lock and is never empty.
//! 2. Mark: under that lock, if the endpoint is not `queued`, set it and push the id on the server's list. The waker
//!    this returns is woken after the unlock.
//! 3. Serve: the server takes all ids, or, if there are none, leaves its waker. Per id: lock; if another one is the
//!    server by now, leave it alone; else clear `queued` and pull.
//! 4. Change of server: set the pointer, set `queued`, push on the new list, always. A stale id in an old list is
//!    harmless.
//! 5. An endpoint that still has more goes to the tail of its server's ring.

pub mod deferred;
pub mod outbox;
pub mod reply;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::Deferred;
use crate::id::{ConsumerId, ProducerId};

/// Names one endpoint of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointId {
    /// A producer of one (partition of a) topic.
    Producer(ProducerId),
    /// A consumer of one (partition of a) topic.
    Consumer(ConsumerId),
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(id) => write!(f, "producer {id}"),
            Self::Consumer(id) => write!(f, "consumer {id}"),
        }
    }
}

/// What lies inside an endpoint.
pub trait Machine {
    /// Whether an input since the last call gave the server something to do: bytes to write, a frame to seal, an
    /// earlier deadline, an end to notice.
    fn take_dirty(&mut self) -> bool;
}

/// A machine, its lock and its server.
pub struct Endpoint<M> {
    id: EndpointId,
    slot: Mutex<Slot<M>>,
}

struct Slot<M> {
    machine: M,
    server: Arc<ReadyList>,
    queued: bool,
}

impl<M: Machine> Endpoint<M> {
    /// A new endpoint, served by `server` from the start.
    pub fn new(id: EndpointId, machine: M, server: Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { id, slot: Mutex::new(Slot { machine, server, queued: false }) })
    }

    /// Its name.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Slot<M>> {
        // A panic under the lock means a broken invariant of one machine; the others go on, and this one answers
        // as it stands rather than taking every user task down with it.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a user's task work on the machine, and marks the endpoint if that gave its server something to do.
    #[inline]
    pub fn with<R>(&self, deferred: &mut Deferred, work: impl FnOnce(&mut M, &mut Deferred) -> R) -> R {
        let mut slot = self.lock();
        let result = work(&mut slot.machine, deferred);
        if slot.machine.take_dirty() && !slot.queued {
            slot.queued = true;
            if let Some(waker) = slot.server.mark(self.id) {
                deferred.wake(waker);
            }
        }
        result
    }

    /// [`with`](Self::with) for work that wakes nobody else, and carries no list about for it: the server is woken here,
    /// once the lock is free.
    #[inline]
    pub fn with_only<R>(&self, work: impl FnOnce(&mut M) -> R) -> R {
        let mut slot = self.lock();
        let result = work(&mut slot.machine);
        let waker = if slot.machine.take_dirty() && !slot.queued {
            slot.queued = true;
            slot.server.mark(self.id)
        } else {
            None
        };
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Lets `server` work on the machine; `None` if it is not the endpoint's server any more.
    pub fn serve<R>(&self, server: &Arc<ReadyList>, work: impl FnOnce(&mut M) -> R) -> Option<R> {
        let mut slot = self.lock();
        if !Arc::ptr_eq(&slot.server, server) {
            return None;
        }
        slot.queued = false;
        let result = work(&mut slot.machine);
        // What the server's own work made dirty is in front of its eyes already.
        slot.machine.take_dirty();
        Some(result)
    }

    /// Hands the endpoint to another server, which is told to look at it.
    pub fn move_to(&self, server: &Arc<ReadyList>, deferred: &mut Deferred) {
        let mut slot = self.lock();
        slot.server = server.clone();
        slot.queued = true;
        if let Some(waker) = server.mark(self.id) {
            deferred.wake(waker);
        }
    }
}

impl<M> fmt::Debug for Endpoint<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.id)
    }
}

/// Ids with something to do, and the task that serves them: the one primitive between tasks on the data plane.
///
/// An endpoint is on its server's list at most once (`queued`), so the list is bounded by the number of endpoints and
/// of changes of server that the server has not seen yet.
#[derive(Default)]
pub struct ReadyList {
    inner: Mutex<Ready>,
}

#[derive(Default)]
struct Ready {
    ids: Vec<EndpointId>,
    server: Option<Waker>,
}

impl ReadyList {
    /// An empty list.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an id; the waker, if any, is to be woken once no lock is held.
    pub fn mark(&self, id: EndpointId) -> Option<Waker> {
        let mut ready = self.lock();
        ready.ids.push(id);
        ready.server.take()
    }

    /// Moves all ids into `into`. If there are none and `waker` is given, it is left behind to be woken by the next
    /// mark: the check and the enrolment are one step, so no mark is lost between them.
    pub fn take(&self, into: &mut impl Extend<EndpointId>, waker: Option<&Waker>) {
        let mut ready = self.lock();
        if ready.ids.is_empty() {
            let old = match waker {
                Some(new) if !ready.server.as_ref().is_some_and(|old| old.will_wake(new)) => {
                    ready.server.replace(new.clone())
                }
                _ => None,
            };
            drop(ready);
            drop(old);
        } else {
            into.extend(ready.ids.drain(..));
        }
    }
}

impl fmt::Debug for ReadyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadyList({:?})", self.lock().ids)
    }
}
