//! What all endpoints share: the lock around a machine, the list of its owner, replies, deferred work.
//!
//! An endpoint is a producer, consumer or topic list watcher. Its machine lies behind its own small lock; its owner is
//! whoever drives it: the session it is attached to, else the supervisor.
//!
//! Five rules make sure that an endpoint with something to do is served:
//! 1. The pointer to an endpoint's owner lies under the endpoint's lock and is never empty.
//! 2. Notify: under that lock, if the endpoint is not `queued`, set it and push the id on the owner's [`ReadyList`]. The
//!    waker that this returns is woken after the unlock. An owner that has nothing to do but to note a deadline is left asleep
//!    if its timer wakes it by then: it says so after it has left its waker, and it counts until it takes ids again. `queued`
//!    says which of both it was: what is to be done at once, or a deadline that is earlier, is notified nevertheless.
//! 3. Serve: the owner takes all ids, or, if there are none, leaves its waker. Per id: lock; if it has another owner by
//!    now, skip it; else clear `queued` and poll it.
//! 4. Change of owner: set the pointer, set `queued`, push the id on the new list, always. A stale id in an old list is
//!    harmless.
//! 5. An endpoint that has more to write goes to the tail of its owner's run queue.

pub mod attach_status;
pub mod deferred;
pub mod machine;
pub mod outbox;
pub mod reply;
pub mod state_signal;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use machine::{Dirty, EndpointMachine};

use super::Deferred;
use crate::id::{ConsumerId, ProducerId, WatcherId};
use crate::pb;
use crate::wire::command::Command;

/// Names one endpoint of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointId {
    /// A producer of one (partition of a) topic.
    Producer(ProducerId),
    /// A consumer of one (partition of a) topic.
    Consumer(ConsumerId),
    /// A watcher of the topics of a namespace.
    TopicList(WatcherId),
}

impl EndpointId {
    /// The command that closes the endpoint at a broker, without its request id.
    pub(crate) fn close_request(self) -> Command {
        match self {
            Self::Producer(id) => pb::CommandCloseProducer { producer_id: id.0, ..Default::default() }.into(),
            Self::Consumer(id) => pb::CommandCloseConsumer { consumer_id: id.0, ..Default::default() }.into(),
            Self::TopicList(id) => pb::CommandWatchTopicListClose { watcher_id: id.0, ..Default::default() }.into(),
        }
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(id) => write!(f, "producer {id}"),
            Self::Consumer(id) => write!(f, "consumer {id}"),
            Self::TopicList(id) => write!(f, "topic list watcher {id}"),
        }
    }
}

/// A machine, its lock and its owner.
pub struct Endpoint<M> {
    id: EndpointId,
    slot: Mutex<Slot<M>>,
}

/// Beside each other stand the lock, what is read under it of each message, and the machine's first fields.
#[repr(C)]
struct Slot<M> {
    owner: Arc<ReadyList>,
    /// What the owner was notified of since it last served the endpoint.
    queued: Dirty,
    machine: M,
}

impl<M: EndpointMachine> Slot<M> {
    /// Notifies the owner, if it has something to do and does not know it. The waker is to be woken after the unlock.
    #[inline]
    fn notify_owner(&mut self, id: EndpointId) -> Option<Waker> {
        let dirty = self.machine.take_dirty();
        if dirty != Dirty::Clean && self.queued != Dirty::Now { self.notify_as(dirty, id) } else { None }
    }

    /// Notifies it of what it may not know: a deadline can be earlier than one that it was notified of.
    fn notify_as(&mut self, dirty: Dirty, id: EndpointId) -> Option<Waker> {
        let known = std::mem::replace(&mut self.queued, dirty);
        let deadline = (dirty == Dirty::AtDeadline).then(|| self.machine.poll_deadline()).flatten();
        self.owner.push((known == Dirty::Clean).then_some(id), deadline.map(|deadline| deadline.at))
    }
}

impl<M: EndpointMachine> Endpoint<M> {
    /// A new endpoint, served by `owner` from the start.
    pub fn new(id: EndpointId, machine: M, owner: Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { id, slot: Mutex::new(Slot { machine, owner, queued: Dirty::Clean }) })
    }

    /// Its name.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Slot<M>> {
        // A panic under the lock means a broken invariant of this machine. The others are not affected, and this one
        // is used as it stands rather than making every task that touches it panic.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the machine from a task that is not its owner, and notifies the owner if that gave it something to do.
    /// The owner is woken here, after the unlock.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&mut M) -> R) -> R {
        let mut slot = self.lock();
        let result = work(&mut slot.machine);
        let waker = slot.notify_owner(self.id);
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Works like [`with`](Self::with) on a machine that has work to defer. The owner's waker is deferred too.
    #[inline]
    pub fn with_deferred<R>(&self, deferred: &mut Deferred, work: impl FnOnce(&mut M, &mut Deferred) -> R) -> R {
        let mut slot = self.lock();
        let result = work(&mut slot.machine, deferred);
        if let Some(waker) = slot.notify_owner(self.id) {
            deferred.wake(waker);
        }
        result
    }

    /// Works on the machine as its owner; `None` if `owner` is not that any more.
    pub fn serve<R>(&self, owner: &Arc<ReadyList>, work: impl FnOnce(&mut M) -> R) -> Option<R> {
        let mut slot = self.lock();
        if !Arc::ptr_eq(&slot.owner, owner) {
            return None;
        }
        slot.queued = Dirty::Clean;
        let result = work(&mut slot.machine);
        // The owner looks at what its own work made dirty before it returns.
        slot.machine.take_dirty();
        Some(result)
    }

    /// Gives the endpoint another owner, which is notified.
    pub fn move_to(&self, owner: &Arc<ReadyList>, deferred: &mut Deferred) {
        let mut slot = self.lock();
        slot.owner = owner.clone();
        slot.queued = Dirty::Now;
        if let Some(waker) = owner.notify(self.id) {
            deferred.wake(waker);
        }
    }
}

impl<M> fmt::Debug for Endpoint<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.id)
    }
}

/// Ids of endpoints with something to do, and the waker of the task that serves them: the only primitive between tasks on
/// the data plane.
///
/// An endpoint is on its owner's list at most once (`queued`), so the list is bounded by the number of endpoints and
/// of changes of owner that the owner has not seen yet.
#[derive(Default)]
pub struct ReadyList {
    inner: Mutex<Ready>,
}

struct Ready {
    ids: Vec<EndpointId>,
    waker: Option<Waker>,
    /// When the task takes ids at the latest, by its timer; not known from one take to the next sleep.
    wakes_at: Option<Instant>,
    /// The last [`ReadyList::take`] found nothing, or there was none.
    was_empty: bool,
}

impl Default for Ready {
    fn default() -> Self {
        Self { ids: Vec::new(), waker: None, wakes_at: None, was_empty: true }
    }
}

impl ReadyList {
    /// An empty list.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an id. The waker, if any, is to be woken once no lock is held.
    pub fn notify(&self, id: EndpointId) -> Option<Waker> {
        self.push(Some(id), None)
    }

    /// Adds an id, if it is not there. If all there is to do is due at a `deadline`, a task that wakes by then is left asleep.
    fn push(&self, id: Option<EndpointId>, deadline: Option<Instant>) -> Option<Waker> {
        let mut ready = self.lock();
        ready.ids.extend(id);
        let wakes_by = |deadline| ready.wakes_at.is_some_and(|at| at <= deadline || mutation!(DeadlineSleeps));
        if deadline.is_some_and(wakes_by) { None } else { ready.waker.take() }
    }

    /// The task has left its waker, and its timer wakes it at this time or before: until it takes ids again, it is not woken for a
    /// deadline that is no earlier.
    pub fn sleeps_until(&self, at: Instant) {
        self.lock().wakes_at = Some(at);
    }

    /// Moves all ids into `into`. If there are none and `waker` is given, it is registered, to be woken by the next
    /// notification of what cannot wait. The check and the registration are one step, so no notification is lost between them.
    pub fn take(&self, into: &mut impl Extend<EndpointId>, waker: Option<&Waker>) {
        let mut ready = self.lock();
        ready.was_empty = ready.ids.is_empty();
        ready.wakes_at = None;
        if ready.was_empty {
            let old = match waker {
                Some(new) if !ready.waker.as_ref().is_some_and(|old| old.will_wake(new)) => {
                    ready.waker.replace(new.clone())
                }
                _ => None,
            };
            drop(ready);
            drop(old);
        } else {
            into.extend(ready.ids.drain(..));
        }
    }

    /// Whether the last [`take`](Self::take) found nothing, so that its task is done with what it took before; also if
    /// nothing was taken yet.
    pub fn was_empty(&self) -> bool {
        self.lock().was_empty
    }
}

impl fmt::Debug for ReadyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadyList({:?})", self.lock().ids)
    }
}
