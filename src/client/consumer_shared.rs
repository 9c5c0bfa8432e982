//! The state that a consumer shares with its receiver and its ackers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::dead_letter::{DeadLetters, LetterQueue, LetterTopics, Producers};
use super::drain::InHand;
use super::encryption::Decryption;
use super::events::{ConsumerEvent, EventQueue, EventSource};
use super::growth::{Attached, Grows, Opened};
use super::interceptors::{ConsumerInterceptors, RedeliverySource};
use super::parts::Parts;
use super::runtime::AsyncTimer;
use super::workers::Tasks;
use super::{Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::{Consumer as Machine, ConsumerConfig, InitialPosition, QueueSignals, TopicObserver};
use crate::machine::{Deferred, Endpoint, EndpointId, ReadyList, Reply};
use crate::topic::TopicName;

/// The most messages in the queues of all parts together: the Java client's
/// `maxTotalReceiverQueueSizeAcrossPartitions`.
const TOTAL_RECEIVER_QUEUE_SIZE_MAX: u32 = 50_000;

/// The state that a consumer, its receiver and its ackers share. Dropping it closes the consumer at the broker.
pub(super) struct ConsumerShared {
    pub(super) parts: Parts<Machine>,
    /// The full names that the consumer was created for; not empty.
    pub(super) topics: Vec<Arc<str>>,
    /// That of the parts it began with. They share the name.
    pub(super) config: Arc<ConsumerConfig>,
    /// What parts that join later have of their own.
    pub(super) joining: Joining,
    /// Its topics that have partitions.
    partitioned: Mutex<Vec<TopicName>>,
    /// The subscription is being deleted: no part may make it anew.
    is_leaving: AtomicBool,
    /// Endpoints that have something for the receiver.
    pub(super) inbox: Arc<ReadyList>,
    pub(super) events: Arc<EventQueue<ConsumerEvent>>,
    pub(super) decryption: Arc<Decryption>,
    pub(super) dead_letters: Option<Arc<DeadLetters>>,
    /// What sees each message; `None` for nothing.
    pub(super) interceptors: Option<Arc<ConsumerInterceptors>>,
    intake: Mutex<Intake>,
    /// The messages that worker pools have, and what [`Self::has_message_in_hand`] says.
    in_hand: Arc<InHand>,
    is_receiver_dropped: AtomicBool,
    /// Keeps the client's tasks alive, which carry out what the endpoints decide.
    client: Arc<Shared>,
}

/// The options of parts that join later, as far as they differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    /// Where the subscription starts if it is not there yet.
    pub(super) initial_position: InitialPosition,
    /// As it was set, messages.
    pub(super) receiver_queue_size: u32,
}

/// The receiver queue of each of so many parts, messages. A single part gets the configured size.
pub(super) fn queue_share(receiver_queue_size: u32, parts: usize) -> u32 {
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    match (receiver_queue_size, parts) {
        (0, _) | (_, 1) => receiver_queue_size,
        _ => receiver_queue_size.min((TOTAL_RECEIVER_QUEUE_SIZE_MAX / parts).max(1)),
    }
}

/// What the broker is asked for.
#[derive(Default)]
struct Intake {
    /// See [`ConsumerShared::set_paused`].
    is_paused: bool,
    /// See [`ConsumerShared::stop_receiving`].
    is_stopped: bool,
    /// See [`ConsumerShared::is_stopped_or_wakes`].
    full_pool: Option<Waker>,
}

impl ConsumerShared {
    /// Without parts yet.
    pub(super) fn new(
        client: Arc<Shared>,
        topics: Vec<Arc<str>>,
        config: Arc<ConsumerConfig>,
        joining: Joining,
    ) -> Self {
        let events = Arc::default();
        Self {
            parts: Parts::new(),
            topics,
            config,
            joining,
            partitioned: Mutex::default(),
            is_leaving: AtomicBool::new(false),
            inbox: ReadyList::new(),
            events,
            decryption: Arc::default(),
            dead_letters: None,
            interceptors: None,
            intake: Mutex::default(),
            in_hand: Arc::default(),
            is_receiver_dropped: AtomicBool::new(false),
            client,
        }
    }

    /// Has what is delivered too often sent to a dead-letter topic, once the queue is [forwarded](DeadLetters::forward).
    pub(super) fn set_dead_letters(&mut self, topics: LetterTopics) -> LetterQueue {
        let ConsumerConfig { subscription, name, schema, .. } = &*self.config;
        let consumer = name.clone().unwrap_or_default();
        let producers = Producers::new(self.client.clone(), subscription.clone(), consumer, schema.clone());
        let (letters, queue) =
            DeadLetters::new(topics, subscription.clone(), producers, self.events.clone(), self.interceptors.clone());
        self.dead_letters = Some(letters);
        queue
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the broker is asked for messages: of all parts, and those that come.
    pub(super) fn set_paused(&self, paused: bool) {
        let mut intake = self.intake();
        intake.is_paused = paused;
        for part in self.parts.iter() {
            part.endpoint.with(|consumer| if paused { consumer.pause() } else { consumer.resume() });
        }
    }

    /// The receiving side gets no more messages, but for those of the batch that it has begun.
    pub(super) fn stop_receiving(&self) {
        let mut deferred = Deferred::new();
        {
            let mut intake = self.intake();
            intake.is_stopped = true;
            if let Some(waker) = intake.full_pool.take() {
                deferred.wake(waker);
            }
            for part in self.parts.iter() {
                part.endpoint.with_deferred(&mut deferred, |consumer, deferred| consumer.stop_receiving(deferred));
            }
        }
    }

    /// Whether [`Self::stop_receiving`] was called; if not, `waker` is woken then. For a pool that receives nothing because
    /// it is full.
    pub(super) fn is_stopped_or_wakes(&self, waker: &Waker) -> bool {
        let mut intake = self.intake();
        if !intake.is_stopped {
            intake.full_pool = Some(waker.clone());
        }
        intake.is_stopped
    }

    /// The messages that worker pools have.
    pub(super) fn in_hand(&self) -> &Arc<InHand> {
        &self.in_hand
    }

    /// Whether the receiving side has returned a message and was not called since. After [`Self::stop_receiving`]; waiters of
    /// [`Self::in_hand`] are woken when it changes.
    pub(super) fn has_message_in_hand(&self) -> bool {
        !self.inbox.was_empty() && !self.is_receiver_dropped.load(Ordering::Acquire)
    }

    /// The receiving side has found its end.
    pub(super) fn on_receiver_end(&self) {
        self.in_hand.notify();
    }

    /// The receiving side is gone.
    pub(super) fn on_receiver_drop(&self) {
        self.is_receiver_dropped.store(true, Ordering::Release);
        self.in_hand.notify();
    }

    /// The client that it is of.
    pub(super) fn client(&self) -> &Shared {
        &self.client
    }

    /// The tasks of a worker pool over this consumer.
    pub(super) fn new_tasks<T>(&self) -> Tasks<T> {
        Tasks::new(self.client.new_work_set())
    }

    /// A timer of the runtime that the client runs on.
    pub(super) fn new_timer(&self) -> Box<dyn AsyncTimer> {
        self.client.new_timer()
    }

    fn observer(&self, topic: Arc<str>, partition: i32) -> Arc<dyn TopicObserver> {
        let events = EventSource { topic, queue: self.events.clone() };
        match self.interceptors.clone() {
            None => Arc::new(events),
            Some(interceptors) => Arc::new(RedeliverySource { events, partition, interceptors }),
        }
    }

    /// The seed of the first look for new partitions: another one for each consumer of a client.
    pub(super) fn growth_seed(&self) -> u64 {
        let first = self.parts.iter().next().map_or(0, |part| match part.id() {
            EndpointId::Consumer(id) => id.0,
            _ => 0,
        });
        self.client.seed() ^ (first << 1)
    }

    /// Keeps in mind which of its topics have partitions.
    pub(super) fn set_partitioned(&self, topics: Vec<TopicName>) {
        *self.partitioned.lock().unwrap_or_else(PoisonError::into_inner) = topics;
    }

    /// While the subscription is being deleted, and afterwards, no part joins.
    pub(super) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Ordering::Release);
    }

    /// Creates the consumer of one part and starts attaching it. The reply gets the result of the first attach.
    pub(super) fn open_part(&self, topic: Arc<str>, partition: i32) -> Result<(EndpointId, Reply<()>)> {
        self.open_with(topic, partition, self.config.clone(), false)
    }

    fn open_with(
        &self,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ConsumerConfig>,
        is_joining: bool,
    ) -> Result<(EndpointId, Reply<()>)> {
        let (subscribed, reply) = Reply::pair();
        let id = self.client.next_consumer_id();
        let mut machine = Machine::new(
            id,
            topic.clone(),
            partition,
            config,
            QueueSignals {
                inbox: self.inbox.clone(),
                epoch: Arc::new(AtomicU64::new(0)),
                observer: Some(self.observer(topic.clone(), partition)),
            },
            subscribed,
            clock::now(),
        );
        machine.set_receive_budget(self.client.receive_memory());
        let endpoint = Endpoint::new(EndpointId::Consumer(id), machine, self.client.ready());
        {
            let intake = self.intake();
            if intake.is_paused {
                endpoint.with(Machine::pause);
            }
            if intake.is_stopped {
                endpoint.with_deferred(&mut Deferred::new(), |consumer, deferred| consumer.stop_receiving(deferred));
            }
            let part = self.parts.add(topic, partition, endpoint.clone())?;
            if is_joining {
                part.set_joining();
            }
        }
        self.client.open(endpoint)?;
        Ok((EndpointId::Consumer(id), reply))
    }

    /// The configuration of parts that join, if there are `parts` with them.
    fn config_of_joining(&self, parts: usize) -> Arc<ConsumerConfig> {
        let mut config = ConsumerConfig::clone(&self.config);
        config.initial_position = self.joining.initial_position;
        if mutation!(NewPartitionAtLatest) {
            config.initial_position = InitialPosition::Latest;
        }
        config.receiver_queue_size = queue_share(self.joining.receiver_queue_size, parts);
        Arc::new(config)
    }

    /// Starts attaching topics or partitions that join it.
    pub(super) fn open_joining(&self, topics: Vec<(Arc<str>, i32)>) -> Result<Vec<Opened<()>>> {
        let config = self.config_of_joining(self.parts.snapshot().1.len() + topics.len());
        let mut opened = Vec::with_capacity(topics.len());
        for (topic, partition) in topics {
            let (id, attached) = self.open_with(topic, partition, config.clone(), true)?;
            opened.push(Opened { id, attached });
            // Wakes a receive that waits already: with a queue of size 0 it has to request a message of the new part.
            if let Some(waker) = self.inbox.notify(id) {
                waker.wake();
            }
        }
        Ok(opened)
    }

    /// Keeps those that are attached, and closes the others.
    pub(super) fn settle_joining(&self, attached: Attached<()>) {
        for (id, result) in attached {
            let Some(part) = self.parts.of_id(id) else { continue };
            let topic = part.topic.clone();
            let ended = || Error::local(ErrorKind::Closed, "it ended as soon as it was attached").with_topic(&topic);
            let result = result.and_then(|()| if part.set_joined() { Ok(()) } else { Err(ended()) });
            match result {
                Ok(()) => self.events.push(ConsumerEvent::TopicAdded { topic }),
                Err(error) => {
                    part.set_joining();
                    drop(self.parts.remove(id));
                    self.events.push(ConsumerEvent::TopicNotAdded { topic, error });
                }
            }
        }
    }

    /// Closes one topic or partition at its broker and receives from it no more. Messages of it that were received can
    /// not be acknowledged any more, and are delivered again. `false` if there is no such part.
    #[cfg_attr(not(test), expect(dead_code, reason = "for topics that no longer match a pattern"))]
    pub(super) async fn remove(&self, topic: &str) -> Result<bool> {
        let Some(part) = self.parts.iter().find(|part| *part.topic == *topic) else { return Ok(false) };
        match self.parts.remove(part.id()) {
            Some(closed) => closed.await.map(|()| true),
            None => Ok(false),
        }
    }
}

impl Grows for ConsumerShared {
    type Answer = ();

    fn client(&self) -> &Shared {
        &self.client
    }

    fn is_over(&self) -> bool {
        let is_stopped = self.intake().is_stopped;
        is_stopped || self.parts.is_closed() || self.parts.are_finished()
    }

    fn partitioned_topics(&self) -> Vec<TopicName> {
        self.partitioned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_new(&self, topic: &TopicName, partitions: u32) -> Result<Vec<Opened<()>>> {
        if self.is_leaving.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let name = |index: u32| (Arc::from(topic.partition(index).as_str()), i32::try_from(index).unwrap_or(i32::MAX));
        let is_new = |(name, _): &(Arc<str>, i32)| self.parts.of_topic(name).is_none();
        self.open_joining((0..partitions).map(name).filter(is_new).collect())
    }

    fn settle(&self, _topic: &TopicName, attached: Attached<()>) {
        self.settle_joining(attached);
    }
}
