//! The application: producers, consumers, a watcher of topics and queries, and what it is promised.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::network::Network;
use super::*;
use crate::id::{ConsumerId, MessagePosition, ProducerId, WatcherId};
use crate::machine::consumer::{
    Consumer, ConsumerConfig, QueueSignals, ReceivedEntry, ReturnedPermits, SeekTo, SubscriptionType,
};
use crate::machine::endpoint::machine::EndpointMachine as _;
use crate::machine::producer::{
    BatchingType, CapacityWaiter, Message, PendingSend, Producer, ProducerConfig, PushError,
};
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
    pending_max: usize,
    sends: Vec<Send>,
    /// A send that waits for capacity.
    waiter: Option<(CapacityWaiter, Option<Message>)>,
}

struct ConsumerPart {
    endpoint: Arc<Endpoint<Consumer>>,
    size: u64,
    /// Receives without a queue.
    requested: u64,
    held: VecDeque<ReceivedEntry>,
    attach_number: u64,
}

#[derive(Default)]
pub(super) struct Application {
    producers: Vec<ProducerPart>,
    consumers: Vec<ConsumerPart>,
    watchers: Vec<Arc<Endpoint<TopicListWatcher>>>,
    waiting: Vec<Waiting>,
    next_id: u64,
}

impl Application {
    pub(super) fn step(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        match choices.below(16) {
            0 => self.open_producer(choices, network),
            1 => self.open_consumer(choices, network),
            2 => self.open_watcher(network),
            3 => self.query(choices, network),
            4..=8 => self.use_producer(choices, network),
            _ => self.use_consumer(choices, network),
        }
    }

    fn expect<T: 'static>(&mut self, what: &'static str, within: Duration, network: &Network) -> ReplyTo<T> {
        let (to, mut reply) = Reply::pair();
        let is_done = Box::new(move || Pin::new(&mut reply).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        self.waiting.push(Waiting { what, until: network.now.at + within + SLACK, is_done });
        to
    }

    fn open_producer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.producers.len() >= ENDPOINTS_MAX {
            return;
        }
        let by_key = choices.below(4) == 3;
        let config = ProducerConfig {
            batching: by_key || choices.flag(),
            batching_type: if by_key { BatchingType::KeyBased } else { BatchingType::Default },
            batching_max_messages: 1 + choices.below(5) as u32,
            batching_max_publish_delay: Duration::from_millis(choices.below(3) as u64 * 20),
            max_pending_messages: 1 + choices.below(40),
            send_timeout: TIMEOUT,
            operation_timeout: TIMEOUT,
            chunking: false,
            ..ProducerConfig::default()
        };
        let pending_max = config.max_pending_messages;
        let id = ProducerId(self.producers.len() as u64);
        let created = self.expect("the creation of a producer", TIMEOUT, network);
        let producer = Producer::new(id, TOPIC.into(), -1, Arc::new(config), created, network.now);
        let endpoint = Endpoint::new(EndpointId::Producer(id), producer, network.ready.clone());
        network.input(Input::Open(endpoint.clone()));
        self.producers.push(ProducerPart { endpoint, pending_max, sends: Vec::new(), waiter: None });
    }

    fn open_consumer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.consumers.len() >= ENDPOINTS_MAX {
            return;
        }
        let id = ConsumerId(self.consumers.len() as u64);
        // Each has a subscription of its own, so that none keeps another one out.
        let mut config = ConsumerConfig::new(format!("s{}", id.0));
        config.subscription_type =
            *choices.pick(&[SubscriptionType::Exclusive, SubscriptionType::Shared, SubscriptionType::KeyShared]);
        config.receiver_queue_size = *choices.pick(&[10, 1, 0, 1000]);
        config.receiver_queue_size_max = *choices.pick(&[0, 50]);
        if config.receiver_queue_size == 0 {
            config.receiver_queue_size_max = 0;
        }
        config.ack_timeout = choices.flag().then_some(Duration::from_secs(2));
        config.batch_index_acknowledgment = choices.flag();
        config.operation_timeout = TIMEOUT;
        config.acknowledgment_group_time = Duration::from_millis(choices.below(3) as u64 * 50);
        let size = u64::from(config.receiver_queue_size.max(config.receiver_queue_size_max));
        let signals = QueueSignals { inbox: ReadyList::new(), epoch: Arc::new(AtomicU64::new(0)), observer: None };
        let created = self.expect("the creation of a consumer", TIMEOUT, network);
        let consumer = Consumer::new(id, TOPIC.into(), -1, Arc::new(config), signals, created, network.now);
        let endpoint = Endpoint::new(EndpointId::Consumer(id), consumer, network.ready.clone());
        network.input(Input::Open(endpoint.clone()));
        self.consumers.push(ConsumerPart { endpoint, size, requested: 0, held: VecDeque::new(), attach_number: 0 });
    }

    fn open_watcher(&mut self, network: &mut Network) {
        if self.watchers.len() >= ENDPOINTS_MAX {
            return;
        }
        let id = WatcherId(self.watchers.len() as u64);
        let config = TopicListConfig {
            namespace: "public/default".to_owned(),
            pattern: "persistent://public/default/.*".to_owned(),
            via: None,
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
        let pending = match choices.below(6) {
            0 => query::connect().with_reply(self.expect("a connect", TIMEOUT, network)),
            1 => query::partitions(&topic).with_reply(self.expect("a query", TIMEOUT, network)),
            2 => query::existing_partitions(&topic).with_reply(self.expect("a query", TIMEOUT, network)),
            3 => query::schema(&topic, None).with_reply(self.expect("a query", TIMEOUT, network)),
            4 => query::coordinator(choices.below(2) as u64).with_reply(self.expect("a query", TIMEOUT, network)),
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
        match choices.below(12) {
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
            10 => self.poll_waiter(number, network),
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
        let key = choices.below(4);
        let mut message = Message::new(Bytes::from(vec![b'm'; choices.below(200)])).with_key(format!("k{key}"));
        match choices.below(16) {
            0 => message = message.with_batching(false),
            1 => message = message.with_sequence_id(choices.number()),
            2 => message = message.with_deliver_after(choices.time()),
            _ => {}
        }
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
            Err(PushError::Refused(..)) => assert_eq!(called.load(Ordering::Relaxed), 0),
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

    fn use_consumer(&mut self, choices: &mut Choices<'_>, network: &mut Network) {
        if self.consumers.is_empty() {
            return;
        }
        let (number, now) = (choices.below(self.consumers.len()), network.now);
        let endpoint = self.consumers[number].endpoint.clone();
        match choices.below(20) {
            0..=4 => self.receive(number, now),
            5..=9 => self.handle_messages(number, choices, network),
            10 => endpoint.with(Consumer::redeliver_unacknowledged_messages),
            11 => {
                let reply = self.expect("a seek", TIMEOUT, network);
                let to = if choices.flag() { SeekTo::Earliest } else { SeekTo::Latest };
                endpoint
                    .with_deferred(network.deferred(), |consumer, deferred| consumer.seek(to, reply, now, deferred));
            }
            12 => {
                let reply = self.expect("the last message id", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.last_message_id(reply, now, deferred)
                });
            }
            13 => {
                let reply = self.expect("statistics", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.broker_stats(reply, now, deferred)
                });
            }
            14 => endpoint.with(Consumer::pause),
            15 => endpoint.with(Consumer::resume),
            16 => endpoint.with(Consumer::flush_acks),
            17 if choices.below(3) == 2 => {
                let reply = self.expect("an unsubscribe", TIMEOUT, network);
                endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                    consumer.unsubscribe(false, reply, now, deferred)
                });
            }
            18 => {
                let reply = self.expect("the close of a consumer", 2 * TIMEOUT, network);
                endpoint
                    .with_deferred(network.deferred(), |consumer, deferred| consumer.close(Some(reply), now, deferred));
            }
            _ => {
                self.consumers[number].requested += 1;
                endpoint.with(Consumer::request_one);
            }
        }
    }

    fn receive(&mut self, number: usize, now: crate::machine::Now) {
        let part = &mut self.consumers[number];
        let mut taken = VecDeque::new();
        let none = ReturnedPermits::default();
        let of = part.endpoint.with(|consumer| consumer.take(none, &mut taken));
        if of.attach_number != part.attach_number {
            part.held.clear();
            part.attach_number = of.attach_number;
        }
        for entry in &taken {
            part.endpoint.with(|consumer| {
                consumer.on_given(entry.ledger_id, entry.entry_id, entry.redelivery_count, now);
            });
        }
        part.held.extend(taken);
    }

    /// Acknowledges, or not, and returns permits.
    fn handle_messages(&mut self, number: usize, choices: &mut Choices<'_>, network: &mut Network) {
        let now = network.now;
        for _ in 0..=choices.below(8) {
            let part = &mut self.consumers[number];
            let Some(entry) = part.held.pop_front() else { break };
            let mut position = MessagePosition::new(entry.ledger_id, entry.entry_id);
            if let Some(size) = entry.batch_size().filter(|size| *size > 0) {
                position.batch_size = size as i32;
                position.batch_index = choices.below(256) as i32 % size as i32;
            }
            let endpoint = part.endpoint.clone();
            let attach_number = part.attach_number;
            match choices.below(8) {
                0..=3 => drop(endpoint.with(|consumer| consumer.ack(&position, || now))),
                4 => drop(endpoint.with(|consumer| consumer.ack_cumulative(&position, || now))),
                5 => endpoint.with(|consumer| consumer.nack(&position, entry.redelivery_count, now)),
                6 => {
                    let reply = self.expect("a confirmed acknowledgement", TIMEOUT, network);
                    endpoint.with_deferred(network.deferred(), |consumer, deferred| {
                        consumer.ack_confirmed(&[position], false, reply, now, deferred);
                    });
                }
                _ => {}
            }
            let permits = ReturnedPermits { attach_number, count: entry.permits };
            endpoint.with(|consumer| consumer.return_permits(permits));
        }
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
