//! One seed's worth of life: clients, producers and consumers that behave as badly as users may, faults, and what must
//! hold whatever happens.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use pulsar_native::broker::BrokerConfig;
use pulsar_native::sim::{Fault, FaultCounts, Handle, Rng, Simulation, Violation};
use pulsar_native::{
    Client, Consumer, ErrorKind, InitialPosition, Message, MessageId, PendingSend, Producer, ReceivedMessage,
    SendError, SubscriptionType, TryEnqueueError,
};

/// After the last fault, everything is sent, received and acknowledged within this time: the silence of a dead link
/// (twice the keep-alive), a frozen one (90 s), the longest back-off (60 s), one operation (30 s), and the sends.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(300);

/// A client closes within its operation timeout, and the keep-alive of a dead link.
pub(crate) const CLOSES_WITHIN: Duration = Duration::from_secs(120);

/// What came of one seed.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) faults: FaultCounts,
    pub(crate) fingerprint: u64,
    pub(crate) events: u64,
    pub(crate) stored: usize,
    pub(crate) trace: Vec<String>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> Outcome {
    let plan = Plan::of(seed);
    let sim = Simulation::with_broker(seed, plan.broker.clone());
    if trace {
        sim.record();
    }
    let violation = live(&sim, &plan).err();
    Outcome {
        violation,
        faults: sim.fault_counts(),
        fingerprint: sim.fingerprint(),
        events: sim.events(),
        stored: plan.parts().iter().map(|topic| sim.stored(topic).len()).sum(),
        trace: sim.take_trace(),
    }
}

struct Plan {
    broker: BrokerConfig,
    topics: Vec<TopicPlan>,
    clients: usize,
    faults: Vec<(Duration, Fault)>,
    operation_timeout: Duration,
    keep_alive_interval: Duration,
}

#[derive(Clone)]
struct TopicPlan {
    name: String,
    partitions: u32,
    producers: Vec<ProducerPlan>,
    subscriptions: Vec<SubscriptionPlan>,
}

#[derive(Clone)]
struct ProducerPlan {
    name: Option<String>,
    client: usize,
    messages: u64,
    batching: bool,
    batching_max_publish_delay: Duration,
    send_timeout: Duration,
    pending_max: usize,
    pace: Duration,
}

#[derive(Clone)]
struct SubscriptionPlan {
    name: String,
    kind: SubscriptionType,
    queue: u32,
    index_acks: bool,
    consumers: Vec<usize>,
}

impl TopicPlan {
    fn parts(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![self.name.clone()],
            count => (0..count).map(|index| format!("{}-partition-{index}", self.name)).collect(),
        }
    }
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let rng = &mut rng;
        let mut broker = BrokerConfig::default();
        broker.broker_deduplication_enabled = rng.chance(500);
        broker.acknowledgment_at_batch_index_level_enabled = rng.chance(700);
        let tokens = rng.chance(400);
        broker.token_secret_key = tokens.then(|| b"a secret of the simulation, long enough".to_vec());
        let clients = rng.range(1, 3) as usize;
        let mut topics = Vec::new();
        for number in 0..rng.range(1, 2) {
            let topic = Self::topic(rng, number, clients, broker.acknowledgment_at_batch_index_level_enabled);
            if topic.partitions > 0 {
                broker.partitioned_topics.insert(topic.name.clone(), topic.partitions);
            }
            topics.push(topic);
        }
        let count = if rng.chance(100) { 0 } else { rng.range(1, 12) };
        let span = Duration::from_secs(rng.range(1, 40));
        let mut faults = Vec::new();
        for _ in 0..count {
            // Many of them while everything is being set up.
            let within = if rng.chance(300) { Duration::from_millis(80) } else { span };
            faults.push((rng.duration(Duration::ZERO, within), Fault::any(rng, tokens)));
        }
        let operation_timeout = Duration::from_secs(*rng.pick(&[5, 30]));
        let keep_alive_interval = Duration::from_secs(*rng.pick(&[10, 30]));
        Self { broker, topics, clients, faults, operation_timeout, keep_alive_interval }
    }

    fn topic(rng: &mut Rng, number: u64, clients: usize, index_acks: bool) -> TopicPlan {
        let any_client = |rng: &mut Rng| rng.below(clients as u64) as usize;
        let mut subscriptions = Vec::new();
        for number in 0..rng.range(1, 2) {
            let kind = *rng.pick(&[
                SubscriptionType::Exclusive,
                SubscriptionType::Shared,
                SubscriptionType::Failover,
                SubscriptionType::KeyShared,
            ]);
            let consumers = if kind == SubscriptionType::Exclusive { 1 } else { rng.range(1, 3) };
            subscriptions.push(SubscriptionPlan {
                name: format!("s{number}"),
                kind,
                queue: *rng.pick(&[0, 1, 2, 5, 20, 1000]),
                index_acks: index_acks && rng.chance(800),
                consumers: (0..consumers).map(|_| any_client(rng)).collect(),
            });
        }
        let by_key = subscriptions.iter().any(|subscription| subscription.kind == SubscriptionType::KeyShared);
        let partitions = if rng.chance(200) { rng.range(1, 3) as u32 } else { 0 };
        // Without a queue there is one consumer per topic, so no partitions.
        for subscription in subscriptions.iter_mut().filter(|_| partitions > 0) {
            subscription.queue = subscription.queue.max(1);
        }
        let mut producers = Vec::new();
        for producer in 0..rng.range(1, 2) {
            producers.push(ProducerPlan {
                name: rng.chance(500).then(|| format!("p{number}-{producer}")),
                client: any_client(rng),
                messages: rng.range(5, 50),
                batching: !by_key && rng.chance(700),
                batching_max_publish_delay: Duration::from_millis(*rng.pick(&[0, 0, 1, 50])),
                send_timeout: Duration::from_secs(*rng.pick(&[0, 5, 30, 30])),
                pending_max: *rng.pick(&[1, 3, 10, 1000]),
                pace: Duration::from_millis(*rng.pick(&[0, 10, 300, 1000])),
            });
        }
        TopicPlan { name: format!("persistent://public/default/t{number}"), partitions, producers, subscriptions }
    }

    fn parts(&self) -> Vec<String> {
        self.topics.iter().flat_map(TopicPlan::parts).collect()
    }
}

/// What became of one message that a user tried to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Handed over; no result yet.
    Pending,
    Stored,
    /// Failed, or never accepted.
    Failed {
        may_be_stored: bool,
    },
    /// The future was dropped: nobody knows.
    Unknown,
}

/// The notes of all users.
#[derive(Default)]
struct Notes {
    /// By payload, in the order of the pushes: `topic.producer.life.number`.
    sends: BTreeMap<String, Sent>,
    /// The id each send ended with.
    ids: BTreeMap<String, MessageId>,
    producers_left: usize,
    consumers_left: usize,
    clients_left: usize,
    /// What each subscription (topic, name) was given: message -> how often.
    received: BTreeMap<(String, String), BTreeMap<Key, usize>>,
    /// What was acknowledged, confirmed or not, and up to where cumulatively.
    acked: BTreeMap<(String, String), (BTreeSet<Key>, Option<Key>)>,
    /// When an acknowledgement was confirmed.
    confirmed: BTreeMap<(String, String), BTreeMap<Key, Duration>>,
}

/// Results that came by callback, with their payload.
type Callbacks = Arc<Mutex<Vec<(String, Result<MessageId, SendError>)>>>;

/// Ledger, entry, member.
type Key = (u64, u64, i32);

fn key(id: &MessageId) -> Key {
    (id.ledger_id, id.entry_id, id.batch_index.max(0))
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    notes: Rc<RefCell<Notes>>,
    callbacks: Callbacks,
    is_draining: Rc<Cell<bool>>,
    is_over: Rc<Cell<bool>>,
    may_close: Rc<Cell<bool>>,
    /// Nothing goes wrong in this run.
    is_clean: bool,
}

fn live(sim: &Simulation, plan: &Plan) -> Result<(), Violation> {
    let users = Users {
        handle: sim.handle(),
        notes: Rc::default(),
        callbacks: Arc::default(),
        is_draining: Rc::default(),
        is_over: Rc::default(),
        may_close: Rc::default(),
        is_clean: plan.faults.is_empty(),
    };
    let mut last_fault = Duration::ZERO;
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
        last_fault = last_fault.max(*at);
    }
    spawn_all(sim, plan, &users);
    sim.run_for(last_fault + Duration::from_secs(10))?;

    check_acked(sim, plan, &users);
    sim.calm();
    users.is_draining.set(true);
    let settled = sim.run_until(SETTLES_WITHIN, || is_settled(sim, plan, &users))?;
    if !settled {
        let what = unsettled(sim, plan, &users);
        users.handle.violation("settles in time", || what);
        return sim.run_for(Duration::ZERO);
    }
    check_log(sim, plan, &users);
    sim.run_for(Duration::ZERO)?;

    users.is_over.set(true);
    // Connections that died unnoticed keep their ghosts until the brokers' keep-alive.
    let patience = if users.is_clean { Duration::from_secs(10) } else { CLOSES_WITHIN };
    let left = sim.run_until(patience, || is_left_alone(sim, plan, &users))?;
    if !left {
        let who: Vec<_> = plan.parts().iter().map(|part| sim.stats(part)).collect();
        users.handle.violation("a close leaves nothing at the broker", || format!("{who:?}"));
    }
    users.may_close.set(true);
    let closed = sim.run_until(CLOSES_WITHIN, || sim.left() == (0, 0, 0))?;
    if !closed {
        let left = sim.left();
        users.handle.violation("nothing is left after close", || format!("clients, connections, tasks: {left:?}"));
    }
    // What the brokers still have to say of the closes.
    sim.run_for(Duration::from_secs(1))
}

fn spawn_all(sim: &Simulation, plan: &Plan, users: &Users) {
    for client in 0..plan.clients {
        let (users, topics) = (users.clone(), plan.topics.clone());
        let (operation_timeout, keep_alive_interval) = (plan.operation_timeout, plan.keep_alive_interval);
        users.notes.borrow_mut().clients_left += 1;
        for topic in &topics {
            let mine = topic.producers.iter().filter(|producer| producer.client == client).count();
            users.notes.borrow_mut().producers_left += mine;
            let consumers = topic.subscriptions.iter().flat_map(|subscription| &subscription.consumers);
            users.notes.borrow_mut().consumers_left += consumers.filter(|at| **at == client).count();
        }
        sim.spawn(async move {
            let connected = loop {
                let handle = &users.handle;
                let builder =
                    handle.builder().operation_timeout(operation_timeout).keep_alive_interval(keep_alive_interval);
                match handle.connect(builder).await {
                    Ok(connected) => break connected,
                    Err(error) => handle.note(|| format!("client {client} did not connect: {error}")),
                }
                handle.sleep(Duration::from_millis(500)).await;
            };
            for (number, topic) in topics.iter().enumerate() {
                for (index, plan) in topic.producers.iter().enumerate().filter(|(_, plan)| plan.client == client) {
                    let name = format!("{number}.{index}");
                    users.handle.spawn(produce(users.clone(), connected.clone(), topic.clone(), plan.clone(), name));
                }
                for plan in &topic.subscriptions {
                    for (index, _) in plan.consumers.iter().enumerate().filter(|(_, at)| **at == client) {
                        let (topic, plan) = (topic.clone(), plan.clone());
                        users.handle.spawn(consume(users.clone(), connected.clone(), topic, plan, index));
                    }
                }
            }
            while !users.may_close.get() {
                users.handle.sleep(Duration::from_millis(200)).await;
            }
            if let Err(error) = connected.close().await {
                users.handle.note(|| format!("client {client}: close: {error}"));
            }
            users.notes.borrow_mut().clients_left -= 1;
        });
    }
}

/// What a future gives, unless its owner loses patience: after some polls, or some time.
async fn maybe<T>(users: &Users, rng: &mut Rng, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let (mut polls, time) = match rng.below(12) {
        0 => (rng.range(1, 3), Duration::from_secs(3600)),
        1 => (u64::MAX, rng.duration(Duration::ZERO, Duration::from_secs(3))),
        // About as long as one answer takes.
        2 => (u64::MAX, rng.duration(Duration::ZERO, Duration::from_millis(25))),
        _ => (u64::MAX, Duration::from_secs(3600)),
    };
    let mut timer: Pin<Box<dyn Future<Output = ()>>> = Box::pin(users.handle.sleep(time));
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if !users.handle.is_probing() {
            polls -= 1;
        }
        if polls == 0 || timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

// Producers.

async fn produce(users: Users, client: Client, topic: TopicPlan, plan: ProducerPlan, name: String) {
    let mut rng = users.handle.rng();
    let (mut life, mut names) = (0, 0);
    let mut number = 0;
    while number < plan.messages {
        let mut builder = client
            .producer(topic.name.as_str())
            .batching(plan.batching)
            .batching_max_publish_delay(plan.batching_max_publish_delay)
            .send_timeout(plan.send_timeout)
            .max_pending_messages(plan.pending_max);
        if let Some(name) = &plan.name {
            // A name is free again once its producer is known to be closed: before that, the ids of two producers
            // run into each other, and deduplication drops messages of one.
            builder = builder.name(format!("{name}-{names}"));
        }
        let producer = match maybe(&users, &mut rng, builder.create()).await {
            Some(Ok(producer)) => producer,
            Some(Err(error)) => {
                users.handle.note(|| format!("producer {name}.{life} was not created: {error}"));
                names += 1;
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => {
                names += 1;
                continue;
            }
        };
        users.handle.note(|| format!("producer {name}.{life} is created"));
        while number < plan.messages {
            let payload = format!("{name}.{life}.{number:04}");
            number += 1;
            let alive = send_one(&users, &mut rng, &producer, &plan, payload).await;
            if !alive || rng.chance(10) {
                break;
            }
        }
        names += 1;
        if rng.chance(500) {
            let closed = maybe(&users, &mut rng, producer.close()).await;
            if matches!(closed, Some(Ok(()))) {
                names -= 1;
            }
            users.handle.note(|| format!("producer {name}.{life} is closed: {closed:?}"));
        }
        drop(producer);
        life += 1;
    }
    users.notes.borrow_mut().producers_left -= 1;
}

/// Sends one message somehow; whether the producer is still good.
async fn send_one(users: &Users, rng: &mut Rng, producer: &Producer, plan: &ProducerPlan, payload: String) -> bool {
    let padding = match rng.below(20) {
        0 => 20_000,
        1..=3 => rng.below(3000) as usize,
        _ => 0,
    };
    let message = Message::new(format!("{payload}|{:padding$}", "")).key(format!("k{}", rng.below(5)));
    let note = |sent: Sent| {
        users.handle.note(|| format!("send {payload}: {sent:?}"));
        users.notes.borrow_mut().sends.insert(payload.clone(), sent);
    };
    let mut alive = true;
    match rng.below(10) {
        0..=3 => match maybe(users, rng, producer.enqueue(message)).await {
            Some(Ok(pending)) => {
                note(Sent::Pending);
                users.handle.spawn(watch(users.clone(), payload.clone(), pending));
            }
            Some(Err(error)) => {
                note(failed(&error));
                alive = is_alive(&error);
            }
            // Dropped before it was accepted: not sent.
            None => note(Sent::Failed { may_be_stored: false }),
        },
        4..=5 => match maybe(users, rng, producer.send(message)).await {
            Some(Ok(id)) => {
                note(Sent::Stored);
                users.notes.borrow_mut().ids.insert(payload.clone(), id);
            }
            Some(Err(error)) => {
                note(failed(&error));
                alive = is_alive(&error);
            }
            None => note(Sent::Unknown),
        },
        6..=7 => {
            note(Sent::Pending);
            let (callbacks, name) = (users.callbacks.clone(), payload.clone());
            let callback = move |result| callbacks.lock().expect("not poisoned").push((name, result));
            match maybe(users, rng, producer.enqueue_with(message, callback)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    note(failed(&error));
                    alive = is_alive(&error);
                }
                None => note(Sent::Failed { may_be_stored: false }),
            }
        }
        _ => match producer.try_enqueue(message) {
            Ok(pending) => {
                note(Sent::Pending);
                users.handle.spawn(watch(users.clone(), payload.clone(), pending));
            }
            Err(TryEnqueueError::Full(_)) => note(Sent::Failed { may_be_stored: false }),
            Err(TryEnqueueError::Refused(error)) => {
                note(failed(&error));
                alive = is_alive(&error);
            }
        },
    }
    if rng.chance(100) {
        let flushed = maybe(users, rng, producer.flush()).await;
        users.handle.note(|| format!("flush: {flushed:?}"));
    }
    if !plan.pace.is_zero() && !users.is_draining.get() {
        let pause = rng.duration(Duration::ZERO, plan.pace);
        users.handle.sleep(pause).await;
    }
    alive
}

async fn watch(users: Users, payload: String, pending: PendingSend) {
    let result = pending.await;
    settle(&users, &payload, &result);
}

fn settle(users: &Users, payload: &str, result: &Result<MessageId, SendError>) {
    let sent = match result {
        Ok(id) => {
            users.notes.borrow_mut().ids.insert(payload.to_owned(), *id);
            Sent::Stored
        }
        Err(error) => failed(error),
    };
    users.handle.note(|| format!("settled {payload}: {sent:?}"));
    let before = users.notes.borrow_mut().sends.insert(payload.to_owned(), sent);
    if before != Some(Sent::Pending) {
        users.handle.violation("a send resolves once", || format!("{payload}: {sent:?} after {before:?}"));
    }
}

fn failed(error: &SendError) -> Sent {
    Sent::Failed { may_be_stored: error.may_be_stored() }
}

/// Whether the producer goes on after this error of one send.
fn is_alive(error: &SendError) -> bool {
    matches!(error.error().kind(), ErrorKind::TimedOut | ErrorKind::QueueFull | ErrorKind::MessageTooLarge)
}

// Consumers.

async fn consume(users: Users, client: Client, topic: TopicPlan, plan: SubscriptionPlan, index: usize) {
    let mut rng = users.handle.rng();
    while !users.is_over.get() {
        let builder = client
            .consumer(topic.name.as_str(), plan.name.as_str())
            .subscription_type(plan.kind)
            .initial_position(InitialPosition::Earliest)
            .receiver_queue_size(plan.queue)
            .batch_index_acknowledgment(plan.index_acks)
            .negative_ack_redelivery_delay(Duration::from_secs(1))
            .name(format!("c{index}"));
        let consumer = match maybe(&users, &mut rng, builder.subscribe()).await {
            Some(Ok(consumer)) => consumer,
            Some(Err(error)) => {
                users.handle.note(|| format!("consumer {}/{index} was not made: {error}", plan.name));
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => continue,
        };
        users.handle.note(|| format!("consumer {}/{index} is made", plan.name));
        receive_all(&users, &mut rng, consumer, &plan).await;
    }
    users.notes.borrow_mut().consumers_left -= 1;
}

/// Receives until the consumer or its user is over.
async fn receive_all(users: &Users, rng: &mut Rng, mut consumer: Consumer, plan: &SubscriptionPlan) {
    let mut held: Vec<ReceivedMessage> = Vec::new();
    let mut left: u64 = if rng.chance(300) { rng.range(1, 60) } else { u64::MAX };
    loop {
        if users.is_over.get() || (left == 0 && !users.is_draining.get()) {
            break;
        }
        left = left.saturating_sub(1);
        if users.is_draining.get() {
            for message in held.drain(..) {
                ack(users, plan, &consumer, &message);
            }
        }
        // A pause in which messages pile up.
        if rng.chance(60) && !users.is_draining.get() {
            users.handle.sleep(rng.duration(Duration::ZERO, Duration::from_secs(2))).await;
        }
        let wait = users.handle.sleep(Duration::from_millis(700));
        let message = match first(maybe(users, rng, consumer.receive()), wait).await.flatten() {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                users.handle.note(|| format!("consumer of {} has ended: {error}", plan.name));
                users.handle.sleep(Duration::from_millis(100)).await;
                return;
            }
            None => continue,
        };
        note_received(users, plan, &message);
        if users.is_draining.get() {
            ack(users, plan, &consumer, &message);
            continue;
        }
        match rng.below(10) {
            0..=4 => ack(users, plan, &consumer, &message),
            5 => confirm(users, rng, &consumer, plan, message, &mut held).await,
            6 if is_in_order(plan) => {
                note_acked(users, plan, &message, true);
                if consumer.ack_cumulative(&message).is_err() {
                    held.push(message);
                }
            }
            6 => {
                let kind = consumer.ack_cumulative(&message).err().map(|error| error.kind());
                if !matches!(kind, Some(ErrorKind::NotAllowed | ErrorKind::Closed)) {
                    users.handle.violation("no cumulative ack on a shared subscription", || format!("{kind:?}"));
                }
                held.push(message);
            }
            7 => drop(consumer.nack(&message)),
            8 => held.push(message),
            _ => {
                consumer.redeliver_unacknowledged();
                ack(users, plan, &consumer, &message);
            }
        }
    }
    let mut acked = Vec::new();
    for message in held.drain(..).filter(|_| rng.chance(500)) {
        ack(users, plan, &consumer, &message);
        acked.push(message);
    }
    if rng.chance(700) {
        let closed = maybe(users, rng, consumer.close()).await;
        users.handle.note(|| format!("consumer of {} is closed: {closed:?}", plan.name));
        // Where nothing goes wrong, what was acknowledged just before the close has arrived.
        for message in acked.iter().filter(|_| users.is_clean && matches!(closed, Some(Ok(())))) {
            let id = message.id();
            let known = plan.index_acks || id.batch_size <= 1;
            if known && users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
                users.handle.violation("a close sends the acknowledgements", || format!("{id} of {}", plan.name));
            }
        }
    }
}

fn is_in_order(plan: &SubscriptionPlan) -> bool {
    matches!(plan.kind, SubscriptionType::Exclusive | SubscriptionType::Failover)
}

async fn first<T>(future: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => other.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Notes what the application has acknowledged, before it does so.
fn note_acked(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage, cumulative: bool) {
    let key = key(&message.id());
    let mut notes = users.notes.borrow_mut();
    let (acked, up_to) = notes.acked.entry((message.topic().to_owned(), plan.name.clone())).or_default();
    acked.insert(key);
    if cumulative {
        *up_to = (*up_to).max(Some(key));
    }
}

fn ack(users: &Users, plan: &SubscriptionPlan, consumer: &Consumer, message: &ReceivedMessage) {
    note_acked(users, plan, message, false);
    let result = consumer.ack(message);
    users.handle.note(|| format!("ack {}: {result:?}", message.id()));
}

async fn confirm(
    users: &Users,
    rng: &mut Rng,
    consumer: &Consumer,
    plan: &SubscriptionPlan,
    message: ReceivedMessage,
    held: &mut Vec<ReceivedMessage>,
) {
    let cumulative = plan.kind == SubscriptionType::Exclusive && rng.chance(300);
    note_acked(users, plan, &message, cumulative);
    let acker = consumer.acker();
    let asked = async {
        if cumulative { acker.ack_cumulative_confirmed(&message).await } else { acker.ack_confirmed(&message).await }
    };
    let result = maybe(users, rng, asked).await;
    let id = message.id();
    users.handle.note(|| format!("confirmed {id}: {result:?}"));
    if !matches!(result, Some(Ok(()))) {
        held.push(message);
        return;
    }
    // Without index acknowledgement the rest of its batch decides.
    if !plan.index_acks && id.batch_size > 1 {
        return;
    }
    if users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
        users.handle.violation("confirmed is acknowledged", || format!("{id} of {}", plan.name));
    }
    let at = users.handle.elapsed();
    let subscription = (message.topic().to_owned(), plan.name.clone());
    users.notes.borrow_mut().confirmed.entry(subscription).or_default().insert(key(&id), at);
}

fn note_received(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage) {
    let id = message.id();
    let text = message.text();
    users.handle.note(|| format!("received {id} on {}: {}", plan.name, text.split('|').next().unwrap_or_default()));
    let subscription = (message.topic().to_owned(), plan.name.clone());
    let deliveries = users.handle.deliveries(message.topic(), &plan.name, &id);
    let mut notes = users.notes.borrow_mut();
    let times = notes.received.entry(subscription.clone()).or_default().entry(key(&id)).or_default();
    *times += 1;
    if *times > deliveries.len() {
        let (times, sent) = (*times, deliveries.len());
        users.handle.violation("received as often as delivered", || format!("{id}: {times} times, sent {sent} times"));
    }
    let confirmed = notes.confirmed.get(&subscription).and_then(|confirmed| confirmed.get(&key(&id)));
    if let Some(at) = confirmed {
        if deliveries.last().is_some_and(|sent| sent > at) {
            users.handle.violation("confirmed does not come back", || format!("{id} of {}", plan.name));
        }
    }
}

// What must hold in the end.

fn is_settled(sim: &Simulation, plan: &Plan, users: &Users) -> bool {
    collect_callbacks(users);
    let notes = users.notes.borrow();
    if notes.producers_left > 0 || notes.sends.values().any(|sent| *sent == Sent::Pending) {
        return false;
    }
    plan.topics.iter().all(|topic| topic.parts().iter().all(|part| is_drained(sim, topic, part)))
}

fn is_drained(sim: &Simulation, topic: &TopicPlan, part: &str) -> bool {
    let Some(stats) = sim.stats(part) else { return false };
    topic
        .subscriptions
        .iter()
        .all(|plan| stats.subscriptions.get(&plan.name).is_some_and(|subscription| subscription.msg_backlog == 0))
}

/// Whether the brokers know no producer and no consumer any more.
fn is_left_alone(sim: &Simulation, plan: &Plan, users: &Users) -> bool {
    let notes = users.notes.borrow();
    notes.producers_left + notes.consumers_left == 0
        && plan.parts().iter().filter_map(|part| sim.stats(part)).all(|stats| {
            stats.publishers.is_empty() && stats.subscriptions.values().all(|found| found.consumers.is_empty())
        })
}

/// What the brokers have as acknowledged, an application has acknowledged.
fn check_acked(sim: &Simulation, plan: &Plan, users: &Users) {
    let notes = users.notes.borrow();
    for topic in &plan.topics {
        for part in topic.parts() {
            for message in sim.stored(&part) {
                for subscription in topic.subscriptions.iter().map(|subscription| &subscription.name) {
                    if sim.is_acknowledged(&part, subscription, &message.id) != Some(true)
                        || sim.was_corrupted(&part, subscription, &message.id)
                    {
                        continue;
                    }
                    let acked = notes.acked.get(&(part.clone(), subscription.clone()));
                    let key = key(&message.id);
                    let known = acked.is_some_and(|(acked, up_to)| acked.contains(&key) || Some(key) <= *up_to);
                    if !known {
                        let what = || format!("{} on {subscription}", message.id);
                        users.handle.violation("acknowledged only what the application did", what);
                    }
                }
            }
        }
    }
}

fn collect_callbacks(users: &Users) {
    let called = std::mem::take(&mut *users.callbacks.lock().expect("not poisoned"));
    for (payload, result) in called {
        settle(users, &payload, &result);
    }
}

fn unsettled(sim: &Simulation, plan: &Plan, users: &Users) -> String {
    let notes = users.notes.borrow();
    let pending: Vec<_> =
        notes.sends.iter().filter(|(_, sent)| **sent == Sent::Pending).map(|(name, _)| name).collect();
    let mut backlogs = Vec::new();
    for topic in &plan.topics {
        for part in topic.parts() {
            match sim.stats(&part) {
                Some(stats) => backlogs.push(format!("{part}: {:?}", stats.subscriptions)),
                None => backlogs.push(format!("{part}: no such topic")),
            }
        }
    }
    format!("producers left {}, sends pending {pending:?}, {backlogs:?}", notes.producers_left)
}

fn check_log(sim: &Simulation, plan: &Plan, users: &Users) {
    let fail = |checker: &'static str, detail: String| users.handle.violation(checker, || detail);
    let notes = users.notes.borrow();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut at: BTreeMap<(Key, i32), String> = BTreeMap::new();
    for topic in &plan.topics {
        for part in topic.parts() {
            let mut orders: BTreeMap<String, String> = BTreeMap::new();
            let stored = sim.stored(&part);
            for message in &stored {
                let text = String::from_utf8_lossy(&message.payload);
                let payload = text.split('|').next().unwrap_or_default().to_owned();
                let life = payload.rsplit_once('.').map_or(String::new(), |(life, _)| life.to_owned());
                at.insert((key(&message.id), message.id.partition), payload.clone());
                let times = seen.entry(payload.clone()).or_default();
                *times += 1;
                // First copies are in the order of the pushes; copies of a re-send may follow.
                if *times == 1 {
                    let last = orders.entry(life).or_default();
                    if *last >= payload {
                        fail("log in the order of the sends", format!("{payload} after {last} in {part}"));
                    }
                    *last = payload;
                }
            }
            for subscription in &topic.subscriptions {
                let name = (part.clone(), subscription.name.clone());
                let received: BTreeSet<Key> =
                    notes.received.get(&name).map(|received| received.keys().copied().collect()).unwrap_or_default();
                for message in &stored {
                    let damaged = sim.was_corrupted(&part, &subscription.name, &message.id);
                    if !received.contains(&key(&message.id)) && !damaged {
                        fail("everything stored is received", format!("{} on {}", message.id, subscription.name));
                    }
                }
            }
        }
    }
    for (payload, sent) in &notes.sends {
        let times = seen.get(payload).copied().unwrap_or(0);
        match sent {
            Sent::Stored if times == 0 => fail("what is confirmed is stored", payload.clone()),
            Sent::Failed { may_be_stored: false } if times > 0 => {
                fail("what surely failed is not stored", payload.clone());
            }
            _ => {}
        }
        if plan.broker.broker_deduplication_enabled && times > 1 {
            fail("deduplication: stored once", format!("{payload}: {times} times"));
        }
    }
    // Deduplication gives no id to what it drops. Two topics have no ledger in common.
    for (payload, id) in notes.ids.iter().filter(|(_, id)| id.ledger_id != u64::MAX) {
        let stored = at.get(&(key(id), id.partition));
        if stored != Some(payload) {
            fail("an id names the message that was sent", format!("{id} was given for {payload}, and is {stored:?}"));
        }
    }
    for payload in seen.keys().filter(|payload| !notes.sends.contains_key(*payload)) {
        fail("what is stored was sent", payload.clone());
    }
}
