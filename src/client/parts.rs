//! The topics and partitions behind one handle: a set that may change while messages flow.
//!
//! A *part* is the unit that is attached to a broker: a topic that is not partitioned, or one partition of a topic, with
//! its endpoint. Producers, consumers and ackers keep their parts in a [`Parts`]. A part's index in the set may change,
//! so a reference that outlives a call is the [`Part`] itself or the id of its endpoint, which is never reused.
//!
//! | reader | what it reads | cost |
//! | --- | --- | --- |
//! | a send | [`Routes`](super::routing::Routes), the endpoints of a producer by partition | no lock, no reference count |
//! | a receive | the receiver's own sources; it compares [`Parts::epoch`] once nothing is buffered | none per message |
//! | an acknowledgement of a message | the part that the message holds | a comparison of pointers |
//! | an acknowledgement by id, anything else | the set, under its read lock | one lock |
//!
//! A part that was removed is freed when the last message of it is dropped, so memory does not grow with the number of
//! parts that were ever removed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::clock;
use super::state::{HandleState, PartState};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::endpoint::state_signal::StateSignal;
use crate::machine::{Deferred, Endpoint, EndpointId, EndpointMachine, Reply, ReplyTo};

/// So many parts are searched for a name one by one.
const SEARCHED_PARTS_MAX: usize = 8;

/// A topic that is not partitioned, or one partition of a topic, and its endpoint.
pub(super) struct Part<M> {
    /// The full name of the topic or partition.
    pub(super) topic: Arc<str>,
    /// The index of the partition, -1 for a topic that is not partitioned.
    pub(super) partition: i32,
    pub(super) endpoint: Arc<Endpoint<M>>,
    /// That of its set, which it identifies for as long as the set or a part of it exists.
    set_signal: Arc<StateSignal>,
    /// See [`Self::report_end`].
    end_reported: AtomicBool,
}

impl<M: EndpointMachine> Part<M> {
    /// The id of its endpoint: never reused by another part of this client.
    pub(super) fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// Calls `read` with its machine, under the endpoint's lock.
    pub(super) fn read<R>(&self, read: impl FnOnce(&M) -> R) -> R {
        self.endpoint.with(|machine| read(machine))
    }

    /// Its end is not to be reported: it joins a handle that is in use, until it [has](Self::set_joined); or it is one of a
    /// set whose members come and go.
    pub(super) fn set_joining(&self) {
        self.end_reported.store(true, Ordering::Relaxed);
    }

    /// It has joined, and its end is to be reported if `reports_end`. `false` if it has ended already.
    pub(super) fn set_joined(&self, reports_end: bool) -> bool {
        self.endpoint.with(|machine| {
            self.end_reported.store(!reports_end, Ordering::Relaxed);
            !machine.is_finished()
        })
    }

    /// To be called before the end of this part is reported to the application; `true` for the first call only.
    pub(super) fn report_end(&self) -> bool {
        !self.end_reported.swap(true, Ordering::Relaxed)
    }

    /// Asks its machine, under the endpoint's lock.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut M, ReplyTo<T>, &mut Deferred)) -> Reply<T> {
        let (to, reply) = Reply::pair();
        self.endpoint.with_deferred(&mut Deferred::new(), |machine, deferred| ask(machine, to, deferred));
        reply
    }

    fn close(&self) -> Reply<()> {
        self.ask(|machine, to, deferred| machine.close(Some(to), clock::now(), deferred))
    }
}

/// The parts of one producer or consumer. Dropping the set closes them.
pub(super) struct Parts<M: EndpointMachine> {
    /// Incremented by every change of the set, under its lock.
    epoch: AtomicU64,
    /// Told of every change of the set, and of the state of a part.
    signal: Arc<StateSignal>,
    list: RwLock<List<M>>,
}

type ByTopic<M> = HashMap<Arc<str>, Arc<Part<M>>>;

struct List<M> {
    parts: Vec<Arc<Part<M>>>,
    /// The same parts by their full names, once there were more than [`SEARCHED_PARTS_MAX`].
    by_topic: Option<Box<ByTopic<M>>>,
    /// No more parts are added.
    is_closed: bool,
}

impl<M: EndpointMachine> List<M> {
    fn add(&mut self, part: Arc<Part<M>>) {
        if self.parts.is_empty() {
            // Most handles have one part.
            self.parts.reserve_exact(1);
        }
        if let Some(by_topic) = &mut self.by_topic {
            by_topic.insert(part.topic.clone(), part.clone());
        }
        self.parts.push(part);
        if self.by_topic.is_none() && self.parts.len() > SEARCHED_PARTS_MAX {
            let by_topic = self.parts.iter().map(|part| (part.topic.clone(), part.clone())).collect();
            self.by_topic = Some(Box::new(by_topic));
        }
    }

    fn remove(&mut self, id: EndpointId) -> Option<Arc<Part<M>>> {
        let at = self.parts.iter().position(|part| part.id() == id)?;
        let part = self.parts.remove(at);
        if let Some(by_topic) = &mut self.by_topic {
            by_topic.remove(&part.topic);
        }
        Some(part)
    }

    fn of_topic(&self, topic: &str) -> Option<&Arc<Part<M>>> {
        match &self.by_topic {
            Some(by_topic) => by_topic.get(topic),
            None => self.parts.iter().find(|part| *part.topic == *topic),
        }
    }
}

impl<M: EndpointMachine> Parts<M> {
    pub(super) fn new() -> Self {
        let list = List { parts: Vec::new(), by_topic: None, is_closed: false };
        Self { epoch: AtomicU64::new(0), signal: StateSignal::new(), list: RwLock::new(list) }
    }

    fn list(&self) -> RwLockReadGuard<'_, List<M>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut List<M>) -> R) -> R {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut list);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        drop(list);
        self.signal.changed(&mut Deferred::new());
        changed
    }

    /// Adds a part. Its endpoint is opened afterwards, so that a message finds its part in the set.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once the set was closed: no part may outlive it.
    pub(super) fn add(&self, topic: Arc<str>, partition: i32, endpoint: Arc<Endpoint<M>>) -> Result<Arc<Part<M>>> {
        endpoint.with(|machine| machine.attach_status().set_signal(self.signal.clone()));
        let (set_signal, end_reported) = (self.signal.clone(), AtomicBool::new(false));
        let part = Arc::new(Part { topic, partition, endpoint, set_signal, end_reported });
        self.change(|list| match list.is_closed {
            true => Err(Error::local(ErrorKind::Closed, "the handle is closed").with_topic(&part.topic)),
            false => {
                list.add(part.clone());
                Ok(part)
            }
        })
    }

    /// Removes a part and closes it; the reply is that of the close. `None` if it is no longer in the set.
    pub(super) fn remove(&self, id: EndpointId) -> Option<Reply<()>> {
        let part = self.change(|list| list.remove(id))?;
        // The lock of the set is released: an endpoint's lock is never taken under another one.
        Some(part.close())
    }

    /// A number that changes with every change of the set.
    ///
    /// A relaxed load is enough for the receiver: a message of a new part, or the end of a removed one, reaches it
    /// through the lock of its inbox, after the change.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The current parts and their epoch.
    pub(super) fn snapshot(&self) -> (u64, Vec<Arc<Part<M>>>) {
        let list = self.list();
        (self.epoch(), list.parts.clone())
    }

    /// The current parts.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Part<M>>> + use<M> {
        self.snapshot().1.into_iter()
    }

    /// Whether the set was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.list().is_closed
    }

    /// The part of this partition; if the set has a single part, that one.
    pub(super) fn of_partition(&self, partition: Option<u32>) -> Option<Arc<Part<M>>> {
        let list = self.list();
        if let [only] = &list.parts[..] {
            return Some(only.clone());
        }
        let partition = i32::try_from(partition?).ok()?;
        // The partitions of a topic are usually in order.
        let expected = list.parts.get(partition as usize).filter(|part| part.partition == partition);
        expected.or_else(|| list.parts.iter().find(|part| part.partition == partition)).cloned()
    }

    /// Whether all parts have ended; `false` without parts.
    pub(super) fn are_finished(&self) -> bool {
        let parts = self.snapshot().1;
        !parts.is_empty() && parts.iter().all(|part| part.read(M::is_finished))
    }

    /// The part of this endpoint.
    pub(super) fn of_id(&self, id: EndpointId) -> Option<Arc<Part<M>>> {
        self.list().parts.iter().find(|part| part.id() == id).cloned()
    }

    /// The part with this full name.
    pub(super) fn of_topic(&self, topic: &str) -> Option<Arc<Part<M>>> {
        self.list().of_topic(topic).cloned()
    }

    /// Whether the part was created for this set; it may have been removed since.
    #[inline]
    pub(super) fn owns(&self, part: &Part<M>) -> bool {
        Arc::ptr_eq(&self.signal, &part.set_signal)
    }

    /// The state of each part.
    pub(super) fn state(&self) -> HandleState {
        let state = |part: Arc<Part<M>>| {
            let state = part.endpoint.with(|machine| machine.attach_status().state().clone());
            PartState { topic: part.topic.clone(), state }
        };
        HandleState { parts: self.iter().map(state).collect() }
    }

    /// Told of every change of [`Self::state`].
    pub(super) fn state_signal(&self) -> Arc<StateSignal> {
        self.signal.clone()
    }

    /// Whether every part is attached to a broker at the moment.
    pub(super) fn are_attached(&self) -> bool {
        self.iter().all(|part| part.read(M::is_attached))
    }

    /// Asks each part that has not ended; if all have ended, asks them all, for the reasons of their ends.
    pub(super) fn ask_each<T>(&self, ask: impl Fn(&mut M, ReplyTo<T>, &mut Deferred)) -> Vec<Reply<T>> {
        self.ask_those(|_| false, ask).map(|(_, reply)| reply).collect()
    }

    /// Asks each part that has not ended, and each ended one for which `ended_too` is true; if that is none, asks all.
    /// Returns each reply with its part.
    pub(super) fn ask_those<T>(
        &self,
        ended_too: impl Fn(&Part<M>) -> bool,
        ask: impl Fn(&mut M, ReplyTo<T>, &mut Deferred),
    ) -> impl Iterator<Item = (Arc<Part<M>>, Reply<T>)> {
        let put = move |part: Arc<Part<M>>| {
            let reply = part.ask(&ask);
            (part, reply)
        };
        // All are asked before the first reply is awaited.
        self.asked(ended_too).into_iter().map(put).collect::<Vec<_>>().into_iter()
    }

    /// Each part that has not ended, and each ended one for which `ended_too` is true; if that is none, all.
    pub(super) fn asked(&self, ended_too: impl Fn(&Part<M>) -> bool) -> Vec<Arc<Part<M>>> {
        let parts: Vec<_> = self.iter().collect();
        let is_asked = |part: &&Arc<Part<M>>| !part.read(M::is_finished) || ended_too(part);
        let chosen: Vec<_> = parts.iter().filter(is_asked).cloned().collect();
        if chosen.is_empty() { parts } else { chosen }
    }

    /// Closes every part and allows no more to be added; the replies are those of the closes.
    pub(super) fn close(&self) -> Vec<Reply<()>> {
        self.change(|list| list.is_closed = true);
        self.iter().map(|part| part.close()).collect()
    }
}

impl<M: EndpointMachine> Drop for Parts<M> {
    fn drop(&mut self) {
        let mut deferred = Deferred::new();
        for part in &self.list.get_mut().unwrap_or_else(PoisonError::into_inner).parts {
            part.endpoint.with_deferred(&mut deferred, |machine, deferred| machine.close(None, clock::now(), deferred));
        }
        // Those who watch learn that the handle is gone, also where its parts have ended before.
        self.signal.changed(&mut deferred);
    }
}

/// Waits for all replies and returns the first failure, if any.
pub(super) async fn all(replies: Vec<Reply<()>>) -> Result<()> {
    let mut result = Ok(());
    for reply in replies {
        result = result.and(reply.await);
    }
    result
}
