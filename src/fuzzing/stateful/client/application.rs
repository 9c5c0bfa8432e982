//! The application: producers, consumers, a watcher of topics and queries, and what it is promised.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::network::Network;
use super::*;
use crate::id::{ConsumerId, ProducerId, WatcherId};
use crate::machine::consumer::{Assembly, ChunkLimits, Consumer, QueueSignals, ReceivedEntry};
use crate::machine::endpoint::machine::EndpointMachine as _;
use crate::machine::producer::{AccessMode, CapacityWaiter, Message, PendingSend, Producer, PushError};
use crate::machine::supervisor::query;
use crate::machine::topic_list::{TopicListConfig, TopicListWatcher};
use crate::machine::{Endpoint, EndpointId, ReadyList, Reply, ReplyTo};

pub(super) const TOPIC: &str = "persistent://public/default/t";

/// Endpoints of each kind.
const ENDPOINTS_MAX: usize = 4;

/// What is added to a deadline before its end is expected: deadlines lie behind one another.
const SLACK: Duration = Duration::from_secs(1);

/// A call of the application that waits.
struct Waiting {
    what: &'static str,
    until: Instant,
    is_done: Box<dyn FnMut() -> bool>,
}

/// A send: its result, and how often its callback was called.
struct Send {
    result: PendingSend,
    called: Arc<AtomicU32>,
    until: Instant,
}

struct ProducerPart {
    endpoint: Arc<Endpoint<Producer>>,
    key: Option<Arc<keys::Key>>,
    pending_max: usize,
    sends: Vec<Send>,
    /// A send that waits for capacity.
    waiter: Option<(CapacityWaiter, Option<Message>)>,
}

pub(super) struct ConsumerPart {
    pub(super) endpoint: Arc<Endpoint<Consumer>>,
    /// The largest queue that it was given.
    pub(super) size: u64,
    pub(super) acknowledges_incomplete: bool,
    pub(super) assembly: Assembly,
    /// Receives without a queue.
    pub(super) requested: u64,
    pub(super) held: VecDeque<ReceivedEntry>,
    pub(super) attach_number: u64,
    pub(super) seek_number: u32,
}

#[derive(Default)]
pub(super) struct Application {
    producers: Vec<ProducerPart>,
    pub(super) consumers: Vec<ConsumerPart>,
    watchers: Vec<Arc<Endpoint<TopicListWatcher>>>,
    waiting: Vec<Waiting>,
    next_id: u64,
    is_closed: bool,
}

impl Application {
    pub(super) fn step(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        match choices.below(20) {
            0 => self.open_producer(choices, network),
            1 => self.open_consumer(choices, network),
            2 => self.open_watcher(choices, network),
            3 => self.query(choices, network),
            4..=8 => self.use_producer(choices, network),
            9 => self.use_watcher(choices, network),
            10 => self.look(choices, network),
            11 if choices.below(16) == 15 && !self.is_closed => {
                self.is_closed = true;
                let reply = self.expect("the close of the client", 2 * TIMEOUT, network);
                network.input(Input::CloseClient(reply));
            }
            _ => self.use_consumer(choices, network),
        }
    }

    pub(super) fn expect<T: 'static>(&mut self, what: &'static str, within: Duration, network: &Network) -> ReplyTo<T> {
        let (to, mut reply) = Reply::pair();
        let is_done = Box::new(move || Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        self.waiting.push(Waiting { what, until: network.now.at + within + SLACK, is_done });
        to
    }

    fn open_producer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.producers.len() >= ENDPOINTS_MAX {
            return;
        }
        let number = self.producers.len();
        let (config, key) = options::producer(choices, number);
        if let Err(error) = config.validate() {
            return told::check_line(&error);
        }
        let pending_max = config.max_pending_messages;
        let id = ProducerId(number as u64);
        // One that keeps others out has a topic of its own.
        let is_alone = config.access_mode != AccessMode::Shared;
        let topic = if is_alone { format!("{TOPIC}-of-{number}") } else { TOPIC.to_owned() };
        let created = self.expect("the creation of a producer", TIMEOUT, network);
        let mut producer = Producer::new(id, topic.into(), -1, Arc::new(config), created, network.now);
        if choices.flag() {
            producer.set_memory_budget(Some(network.memory.clone()));
        }
        producer.set_observer(Arc::new(options::Observer));
        if choices.below(4) == 3 {
            producer.set_in_use();
        }
        let endpoint = Endpoint::new(EndpointId::Producer(id), producer, network.ready.clone());
        network.input(Input::Open(endpoint.clone()));
        self.producers.push(ProducerPart { endpoint, key, pending_max, sends: Vec::new(), waiter: None });
    }

    fn open_consumer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.consumers.len() >= ENDPOINTS_MAX {
            return;
        }
        let id = ConsumerId(self.consumers.len() as u64);
        let config = options::consumer(choices, id.0);
        if let Err(error) = config.validate() {
            return told::check_line(&error);
        }
        let (is_durable, limits) = (config.durable, ChunkLimits::of(&config));
        let acknowledges_incomplete = config.auto_ack_incomplete_chunked_messages;
        let size = u64::from(config.receiver_queue_size.max(config.receiver_queue_size_max));
        let signals = QueueSignals {
            inbox: ReadyList::new(),
            epoch: Arc::new(AtomicU64::new(0)),
            observer: Some(Arc::new(options::Observer)),
        };
        let created = self.expect("the creation of a consumer", TIMEOUT, network);
        let mut consumer = Consumer::new(id, TOPIC.into(), -1, Arc::new(config), signals, created, network.now);
        if !is_durable {
            consumer.read_from(options::seek(choices));
        }
        if choices.below(4) == 3 {
            consumer.set_receive_budget(Some(network.receive_memory.clone()));
        }
        let endpoint = Endpoint::new(EndpointId::Consumer(id), consumer, network.ready.clone());
        network.input(Input::Open(endpoint.clone()));
        self.consumers.push(ConsumerPart {
            endpoint,
            size,
            acknowledges_incomplete,
            assembly: Assembly::new(limits),
            requested: 0,
            held: VecDeque::new(),
            attach_number: 0,
            seek_number: 0,
        });
    }

    fn open_watcher(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.watchers.len() >= ENDPOINTS_MAX {
            return;
        }
        let id = WatcherId(self.watchers.len() as u64);
        let config = TopicListConfig {
            namespace: "public/default".to_owned(),
            pattern: "persistent://public/default/.*".to_owned(),
            via: choices.flag().then(|| TOPIC.into()),
            operation_timeout: TIMEOUT,
        };
        let created = self.expect("the creation of a watcher", TIMEOUT, network);
        let watcher = TopicListWatcher::new(id, config, created, network.now);
        let endpoint = Endpoint::new(EndpointId::TopicList(id), watcher, network.ready.clone());
        network.input(Input::Open(endpoint.clone()));
        self.watchers.push(endpoint);
    }

    fn query(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        let topic: Arc<str> = TOPIC.into();
        let pending = match choices.below(8) {
            0 => query::connect().with_reply(self.expect("a connect", TIMEOUT, network)),
            1 => query::partitions(&topic).with_reply(self.expect("a query", TIMEOUT, network)),
            2 => query::existing_partitions(&topic).with_reply(self.expect("a query", TIMEOUT, network)),
            3 => query::schema(&topic, None).with_reply(self.expect("a query", TIMEOUT, network)),
            4 => query::coordinator(choices.below(2) as u64).with_reply(self.expect("a query", TIMEOUT, network)),
            5 => {
                let schema = crate::pb::Schema { name: "s".to_owned(), r#type: 1, ..Default::default() };
                query::get_or_create_schema(&topic, schema).with_reply(self.expect("a query", TIMEOUT, network))
            }
            6 => {
                let topic: Arc<str> = "t".repeat(6_000_000 * choices.below(2)).into();
                query::partitions(&topic).with_reply(self.expect("a query", TIMEOUT, network))
            }
            _ => {
                let request = crate::pb::CommandGetTopicsOfNamespace {
                    namespace: "public/default".to_owned(),
                    ..Default::default()
                };
                query::topics_of_namespace(request).with_reply(self.expect("a query", TIMEOUT, network))
            }
        };
        network.input(Input::Query(pending));
    }

    fn use_producer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.producers.is_empty() {
            return;
        }
        let (number, now) = (choices.below(self.producers.len()), network.now);
        let endpoint = self.producers[number].endpoint.clone();
        match choices.below(16) {
            0..=7 => {
                for _ in 0..=choices.below(8) {
                    self.send(number, choices, network);
                }
            }
            8 => {
                let reply = self.expect("a flush", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |producer, deferred| producer.flush(reply, deferred));
            }
            9 => {
                let reply = self.expect("the close of a producer", 2 * TIMEOUT, network);
                endpoint
                    .with_deferred(network.deferred(), |producer, deferred| producer.close(Some(reply), now, deferred));
            }
            10 | 11 => self.poll_waiter(number, network),
            12 => {
                let key = self.producers[number].key.clone();
                let Some(key) = key else { return };
                key.is_missing.fetch_xor(choices.below(3) == 2, Ordering::Relaxed);
                key.is_used_up.fetch_xor(choices.below(3) == 2, Ordering::Relaxed);
            }
            // The task of the application seals what its push has closed.
            13 => seal_closed(&endpoint, network),
            _ => {
                // A cancelled send.
                if let Some((mut waiter, _)) = self.producers[number].waiter.take() {
                    endpoint.with_deferred(network.deferred(), |producer, deferred| {
                        producer.stop_waiting(&mut waiter, deferred)
                    });
                }
            }
        }
    }

    fn send(&mut self, number: usize, choices: &mut Choices<'_>, network: &mut Network) {
        self.next_id += 1;
        let now = network.now;
        let message = options::message(choices);
        let called = Arc::new(AtomicU32::new(0));
        let counter = called.clone();
        let callback: crate::machine::producer::SendCallback = Box::new(move |_: Result<_, _>| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let part = &mut self.producers[number];
        let until = now.at + TIMEOUT + SLACK;
        match part.endpoint.with(|producer| producer.push(message, Some(callback), || now)) {
            Ok(result) => part.sends.push(Send { result, called, until }),
            Err(PushError::Full(_, rejected)) => {
                assert_eq!(called.load(Ordering::Relaxed), 0, "a message that was not accepted has no result");
                if part.waiter.is_none() {
                    part.waiter = Some((CapacityWaiter::new(), Some(rejected.message)));
                    self.poll_waiter(number, network);
                }
            }
            Err(PushError::Refused(error, _)) => {
                told::check_line(&error);
                assert_eq!(called.load(Ordering::Relaxed), 0);
            }
        }
    }

    fn poll_waiter(&mut self, number: usize, network: &mut Network) {
        let (part, now) = (&mut self.producers[number], network.now);
        let Some((mut waiter, mut message)) = part.waiter.take() else { return };
        let called = Arc::new(AtomicU32::new(0));
        let counter = called.clone();
        let mut callback: Option<crate::machine::producer::SendCallback> = Some(Box::new(move |_: Result<_, _>| {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let polled = part.endpoint.with_deferred(network.deferred(), |producer, deferred| {
            producer.poll_push(&mut waiter, &mut message, &mut callback, Waker::noop(), || now, deferred)
        });
        match polled {
            Poll::Ready(Ok(result)) => part.sends.push(Send { result, called, until: now.at + TIMEOUT + SLACK }),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => part.waiter = Some((waiter, message)),
        }
    }

    fn use_watcher(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.watchers.is_empty() {
            return;
        }
        let (endpoint, now) = (choices.pick(&self.watchers).clone(), network.now);
        if choices.below(4) == 3 {
            let reply = self.expect("the close of a watcher", 2 * TIMEOUT, network);
            endpoint.with_deferred(network.deferred(), |watcher, deferred| watcher.close(Some(reply), now, deferred));
        }
        told::check_watcher(&endpoint, network);
    }

    /// Looks at what is counted and shown.
    fn look(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        self.producers.iter().for_each(|part| told::check_producer(&part.endpoint, network.now));
        self.consumers.iter().for_each(|part| told::check_consumer(&part.endpoint, choices));
        network.look();
    }

    /// What holds at any time.
    pub(super) fn check(&mut self, network: &Network) {
        let now = network.now.at;
        for part in &self.producers {
            let stats = part.endpoint.with(|producer| producer.stats());
            assert!(stats.pending_messages <= part.pending_max, "{} messages wait", stats.pending_messages);
            for send in &part.sends {
                let (is_over, called) = (send.result.try_result().is_some(), send.called.load(Ordering::Relaxed));
                assert_eq!(u32::from(is_over), called, "a send ends once, and its callback is called once");
                assert!(is_over || now <= send.until, "a send has waited for {:?} too long", now - send.until);
            }
        }
        for (part, id) in self.consumers.iter().zip(0..) {
            let Some(tally) = network.permits.get(&id) else { continue };
            let granted_max = part.size + part.requested + tally.used;
            assert!(tally.granted <= granted_max, "consumer {id}: {tally:?}, a queue of {}", part.size);
        }
        for waiting in &mut self.waiting {
            let is_done = (waiting.is_done)();
            assert!(
                is_done || now <= waiting.until,
                "{} has waited for {:?} too long",
                waiting.what,
                now - waiting.until
            );
            if is_done {
                waiting.until = now;
                waiting.is_done = Box::new(|| true);
            }
        }
        for part in &mut self.producers {
            part.sends.retain(|send| send.result.try_result().is_none());
        }
    }

    /// Nothing waits any more.
    pub(super) fn check_all_ended(&mut self) {
        for part in &self.producers {
            assert!(part.sends.iter().all(|send| send.result.try_result().is_some()), "a send waits for ever");
        }
        for waiting in &mut self.waiting {
            assert!((waiting.is_done)(), "{} waits for ever", waiting.what);
        }
    }

    /// What has not ended is attached, and works.
    pub(super) fn check_all_work(&mut self, network: &mut Network) {
        for (part, id) in self.consumers.iter().zip(0..) {
            let (is_attached, is_over) = part
                .endpoint
                .with(|consumer| (consumer.is_attached(), consumer.is_finished() || consumer.is_closing()));
            let failure = part.endpoint.with(|consumer| consumer.last_failure().cloned());
            assert!(is_attached || is_over, "consumer {id} does not come back: {failure:?}");
        }
        for watcher in &self.watchers {
            let is_well =
                watcher.with(|watcher| watcher.is_attached() || watcher.is_finished() || watcher.is_closing());
            assert!(is_well, "a watcher does not come back");
        }
        let mut results = Vec::new();
        for (part, id) in self.producers.iter_mut().zip(0..) {
            let (is_attached, is_over) = part
                .endpoint
                .with(|producer| (producer.is_attached(), producer.is_finished() || producer.is_closing()));
            let failure = part.endpoint.with(|producer| producer.last_failure().cloned());
            assert!(is_attached || is_over, "producer {id} does not come back: {failure:?}");
            let now = network.now;
            if let Some(key) = &part.key {
                key.is_missing.store(false, Ordering::Relaxed);
                key.is_used_up.store(false, Ordering::Relaxed);
            }
            // The broker may have said that all sequence ids are used.
            results.extend(part.endpoint.with(|producer| producer.push("works".into(), None, || now)).ok());
        }
        network.advance(TIMEOUT + SLACK);
        for result in results {
            let result = result.try_result().expect("an honest broker answers");
            assert!(result.is_ok(), "{result:?}");
        }
    }

    /// The client goes away: nothing waits behind it.
    pub(super) fn drop_all(mut self, network: Network) {
        drop(network);
        self.check_all_ended();
    }
}

/// Seals outside of the producer's lock, as the task of a push does.
fn seal_closed(endpoint: &Endpoint<Producer>, network: &mut Network) {
    let now = network.now;
    let mut job = endpoint.with(|producer| producer.take_closed_job(|| now));
    while let Some(taken) = job {
        told::check_line(&format!("{taken:?}"));
        let sealed = taken.run();
        job = endpoint.with_deferred(network.deferred(), |producer, deferred| {
            producer.put_job(sealed, now, deferred);
            producer.take_closed_job(|| now)
        });
    }
}
