//! What only some producers do with a message on its way to a partition: hooks, a router of the application, partitions
//! that are attached by their first message. Producers without any of it have no detour, and look at nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::interceptors::SendHooks;
use super::producer_shared::ProducerShared;
use super::user_code;
use crate::machine::producer::results::SendCallback;
use crate::machine::producer::{Message, Producer as Machine};
use crate::machine::{Deferred, Endpoint, EndpointId};

/// Chooses the partition of each message, keyed or not: see
/// [`ProducerBuilder::message_router`](super::ProducerBuilder::message_router). A closure is one, too.
pub trait MessageRouter: Send + Sync + 'static {
    /// The partition of `message`, below `partitions`, which is how many the producer sends to at the moment: at least 1,
    /// and more than at an earlier call where partitions were added meanwhile.
    ///
    /// It is called in the call that hands the message to the producer, on that task, with no lock held; for a message that
    /// [`try_enqueue`](super::Producer::try_enqueue) gave back, again with the next try. Interceptors have seen the message
    /// before.
    fn choose_partition(&self, message: &Message, partitions: u32) -> u32;
}

impl<F: Fn(&Message, u32) -> u32 + Send + Sync + 'static> MessageRouter for F {
    fn choose_partition(&self, message: &Message, partitions: u32) -> u32 {
        self(message, partitions)
    }
}

/// See the module.
pub(super) struct Detour {
    pub(super) hooks: Option<SendHooks>,
    pub(super) router: Option<Arc<dyn MessageRouter>>,
    /// Partitions that no message has come to yet; `None`: all are attached from the start.
    pub(super) lazy: Option<LazyPartitions>,
}

impl Detour {
    /// Itself, unless there is nothing to do.
    pub(super) fn if_any(self) -> Option<Box<Self>> {
        (self.hooks.is_some() || self.router.is_some() || self.lazy.is_some()).then(|| Box::new(self))
    }

    /// The message that is sent instead, and what gets its outcome instead of `callback`.
    pub(super) fn prepare(
        &self,
        topic: &Arc<str>,
        message: Message,
        callback: Option<SendCallback>,
    ) -> (Message, Option<SendCallback>) {
        match &self.hooks {
            Some(hooks) => hooks.prepare(topic, message, callback),
            None => (message, callback),
        }
    }

    /// The endpoint that the message goes to. A message without one is marked so that any refuses it.
    pub(super) fn route<'a>(&self, shared: &'a ProducerShared, message: &mut Message) -> &'a Arc<Endpoint<Machine>> {
        let routes = &shared.routes;
        let partition = match self.router.as_ref().filter(|_| shared.is_partitioned()) {
            None => shared.partition_of(message),
            Some(router) => choose(&**router, message, routes.len()),
        };
        let endpoint = routes.get(partition);
        if let Some(lazy) = self.lazy.as_ref().filter(|lazy| lazy.has_some.load(Ordering::Acquire)) {
            lazy.start(shared, endpoint);
        }
        endpoint
    }
}

/// Asks the application. A partition that is not there, and a panic, refuse the message.
fn choose(router: &dyn MessageRouter, message: &mut Message, count: usize) -> usize {
    let partitions = u32::try_from(count).unwrap_or(u32::MAX);
    let why = match user_code::call(|| router.choose_partition(message, partitions)) {
        Ok(partition) if partition < partitions => return partition as usize,
        Ok(_) => "the message router chose a partition that is not there",
        Err(_) => "the message router panicked",
    };
    message.refuse(why);
    0
}

/// The partitions of a producer that no message has come to.
#[derive(Default)]
pub(super) struct LazyPartitions {
    /// With their full names and numbers.
    waiting: Mutex<HashMap<EndpointId, (Arc<str>, i32)>>,
    /// Whether there are any.
    has_some: AtomicBool,
}

impl LazyPartitions {
    /// This endpoint is opened with its first message.
    pub(super) fn add(&self, id: EndpointId, topic: Arc<str>, partition: i32) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (topic, partition));
        self.has_some.store(true, Ordering::Release);
    }

    /// A message comes to this endpoint: it is opened, if it is not yet.
    #[cold]
    fn start(&self, shared: &ProducerShared, endpoint: &Arc<Endpoint<Machine>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((topic, partition)) = waiting.remove(&endpoint.id()) else { return };
        self.has_some.store(!waiting.is_empty(), Ordering::Release);
        // What is told of the new part wakes tasks. A message that comes before it is opened waits in the endpoint.
        drop(waiting);
        if let Err(error) = shared.start_part(endpoint, topic, partition) {
            // It was closed meanwhile: the endpoint refuses the message.
            endpoint.with_deferred(&mut Deferred::new(), |machine, deferred| machine.fail(error, deferred));
        }
    }
}
