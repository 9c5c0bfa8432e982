//! The state that a consumer shares with its receiver and its ackers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::dead_letter::{DeadLetters, LetterQueue, LetterTopics, Producers};
use super::drain::InHand;
use super::encryption::Decryption;
use super::events::{ConsumerEvent, EventQueue};
use super::interceptors::{ConsumerInterceptors, RedeliverySource};
use super::joining::Joining;
use super::parts::{Part, Parts};
use super::reader::Positions;
use super::runtime::AsyncTimer;
use super::subscribe::random_name;
use super::workers::Tasks;
use super::{Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::id::MessageId;
use crate::machine::consumer::{Consumer as Machine, ConsumerConfig, QueueSignals, SeekTo, TopicObserver};
use crate::machine::{Deferred, Endpoint, EndpointId, ReadyList, Reply};
use crate::topic::TopicName;

/// The state that a consumer, its receiver and its ackers share. Dropping it closes the consumer at the broker.
pub(super) struct ConsumerShared {
    pub(super) parts: Parts<Machine>,
    /// The full names that the consumer was created for; not empty.
    pub(super) topics: Vec<Arc<str>>,
    /// Where the parts of a reader begin.
    pub(super) positions: Option<Arc<Positions>>,
    /// That of the parts it began with.
    pub(super) config: Arc<ConsumerConfig>,
    /// Its name, where `config` has none. Its parts share it.
    pub(super) random_name: Option<Arc<str>>,
    /// What parts that join later have of their own.
    pub(super) joining: Joining,
    /// Its topics that have partitions.
    pub(super) partitioned: Mutex<Vec<TopicName>>,
    /// The subscription is being deleted: no part may make it anew.
    pub(super) is_leaving: AtomicBool,
    /// Its topics follow a pattern, and the client is closed.
    pub(super) is_pattern_over: AtomicBool,
    /// Held while parts are opened that join, so that each joins once, and while the set gets another size.
    pub(super) opening: Mutex<()>,
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
    pub(super) client: Arc<Shared>,
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
            positions: None,
            random_name: config.name.is_none().then(|| random_name().into()),
            config,
            joining,
            partitioned: Mutex::default(),
            is_leaving: AtomicBool::new(false),
            is_pattern_over: AtomicBool::new(false),
            opening: Mutex::new(()),
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
        let ConsumerConfig { subscription, schema, .. } = &*self.config;
        let consumer = self.name().to_owned();
        let producers = Producers::new(self.client.clone(), subscription.clone(), consumer, schema.clone());
        let (letters, queue) =
            DeadLetters::new(topics, subscription.clone(), producers, self.events.clone(), self.interceptors.clone());
        self.dead_letters = Some(letters);
        queue
    }

    /// The name of the consumer.
    pub(super) fn name(&self) -> &str {
        self.config.name.as_deref().or(self.random_name.as_deref()).unwrap_or_default()
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`Self::stop_receiving`] was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.intake().is_stopped
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
        self.wake_receiver();
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

    /// The part that an id belongs to: found by its topic, of which it names the partition if the topic does not; or by its
    /// partition alone if it has no topic.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): there is no such part, or it takes the topic to know which.
    pub(super) fn part_of_id(&self, id: &MessageId) -> Result<Arc<Part<Machine>>> {
        let has_one_topic = self.topics.len() == 1 && !self.joining.follows_pattern;
        let (found, missing) = match id.topic() {
            Some(topic) => {
                let of_its_partition =
                    || self.parts.of_topic(TopicName::parse(topic).ok()?.partition(id.partition()?).as_str());
                let found = self.parts.of_topic(topic).or_else(of_its_partition);
                (found, format!("is of {topic}, which this consumer does not read"))
            }
            None if has_one_topic => {
                (self.parts.of_partition(id.partition()), "names no partition of this consumer".to_owned())
            }
            None => (None, "does not say which of several topics it is of: see MessageId::with_topic".to_owned()),
        };
        found.ok_or_else(|| {
            let error = Error::local(ErrorKind::InvalidArgument, format!("message id {id} {missing}"));
            error.with_topic(&self.topics[0])
        })
    }

    fn observer(&self, partition: i32) -> Arc<dyn TopicObserver> {
        let events = self.events.clone();
        match self.interceptors.clone() {
            None => events,
            Some(interceptors) => Arc::new(RedeliverySource { events, partition, interceptors }),
        }
    }

    /// Creates the consumer of one part and starts attaching it. The reply gets the result of the first attach.
    pub(super) fn open_part(&self, topic: Arc<str>, partition: i32) -> Result<(EndpointId, Reply<()>)> {
        let from = self.positions.as_ref().map(|positions| positions.of_first(&topic));
        self.open_with(topic, partition, self.config.clone(), from, self.joining.follows_pattern)
    }

    /// `from`: where a reader begins, unless that is the beginning.
    pub(super) fn open_with(
        &self,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ConsumerConfig>,
        from: Option<SeekTo>,
        has_quiet_end: bool,
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
                observer: Some(self.observer(partition)),
            },
            subscribed,
            clock::now(),
        );
        machine.set_receive_budget(self.client.receive_memory());
        machine.set_random_name(self.random_name.clone());
        if let Some(from) = from {
            machine.read_from(from);
        }
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
            if has_quiet_end {
                part.set_joining();
            }
        }
        self.client.open(endpoint)?;
        Ok((EndpointId::Consumer(id), reply))
    }
}
