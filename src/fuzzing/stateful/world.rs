//! Whole clients, two brokers and a network in virtual time: what the application does and which faults happen comes from the
//! input, and the checkers of the simulator watch.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::Choices;
use crate::broker::BrokerConfig;
use crate::client::Client;
use crate::error::ServerCode;
use crate::machine::consumer::SubscriptionType;
use crate::machine::producer::BatchingType;
use crate::sim::{Fault, Handle, InvariantViolation, Rng, Simulation};

const TOPIC: &str = "persistent://public/default/t";

/// Until everything is received, once no fault happens any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(900);

/// Until nothing is left once everything is closed.
const CLOSES_WITHIN: Duration = Duration::from_secs(180);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// The first bytes are the seed and the cluster; then come producers, subscriptions and faults.
pub fn world(data: &[u8]) {
    let mut choices = Choices::new(data);
    let plan = Plan::new(&mut choices);
    let sim = Simulation::with_broker_config(plan.seed, plan.broker.clone());
    if let Err(violation) = run(&sim, Rc::new(plan)) {
        panic!("{violation}");
    }
}

/// What one input says.
#[derive(Debug)]
struct Plan {
    seed: u64,
    broker: BrokerConfig,
    partitions: u32,
    producers: Vec<ProducerPlan>,
    subscriptions: Vec<SubscriptionPlan>,
    faults: Vec<(Duration, Fault)>,
}

#[derive(Debug)]
struct ProducerPlan {
    messages: usize,
    padding: usize,
    batching: bool,
    by_key: bool,
    send_timeout: Duration,
    pending_max: usize,
    pace: Duration,
}

#[derive(Debug)]
struct SubscriptionPlan {
    kind: SubscriptionType,
    queue: u32,
    consumers: usize,
    /// What is done with the messages, one after the other and again from the front.
    handling: Vec<u8>,
}

impl Plan {
    fn new(choices: &mut Choices<'_>) -> Self {
        let seed = u64::from(choices.byte());
        let mut broker = BrokerConfig::default();
        broker.broker_deduplication_enabled = choices.flag();
        broker.acknowledgment_at_batch_index_level_enabled = choices.flag();
        broker.token_secret_key = choices.flag().then(|| b"a secret of the simulation, long enough".to_vec());
        let has_tokens = broker.token_secret_key.is_some();
        let partitions = choices.below(6).saturating_sub(3) as u32;
        if partitions > 0 {
            broker.partitioned_topics.insert(TOPIC.to_owned(), partitions);
        }
        let producers = (0..=choices.below(2)).map(|_| ProducerPlan::new(choices)).collect();
        let by_key = |producers: &Vec<ProducerPlan>| producers.iter().all(|plan| !plan.batching || plan.by_key);
        let subscriptions =
            (0..=choices.below(2)).map(|_| SubscriptionPlan::new(choices, by_key(&producers), partitions)).collect();
        let mut faults = Vec::new();
        while !choices.is_over() && faults.len() < 12 {
            let at = choices.time();
            let mut rng = Rng::new(u64::from(choices.byte()) << 8 | u64::from(choices.byte()));
            match Fault::random(&mut rng, has_tokens) {
                // What ends producers and consumers for good says nothing about those that are left.
                Fault::RefuseProducers { .. }
                | Fault::RefuseConsumers { .. }
                | Fault::RefuseSend { .. }
                | Fault::RefuseRequest {
                    code: ServerCode::TOPIC_NOT_FOUND | ServerCode::TOPIC_TERMINATED_ERROR | ServerCode::PRODUCER_FENCED,
                }
                | Fault::TakeName => {}
                fault => faults.push((at, fault)),
            }
        }
        Self { seed, broker, partitions, producers, subscriptions, faults }
    }

    fn parts(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![TOPIC.to_owned()],
            count => (0..count).map(|index| format!("{TOPIC}-partition-{index}")).collect(),
        }
    }
}

impl ProducerPlan {
    fn new(choices: &mut Choices<'_>) -> Self {
        let batching = choices.below(3) > 0;
        Self {
            messages: 1 + choices.below(24),
            padding: *choices.pick(&[0, 0, 500, 20_000]),
            batching,
            by_key: batching && choices.flag(),
            send_timeout: Duration::from_secs(*choices.pick(&[30, 0, 5])),
            pending_max: *choices.pick(&[1000, 1, 3]),
            pace: Duration::from_millis(*choices.pick(&[0, 10, 300, 1000])),
        }
    }
}

impl SubscriptionPlan {
    fn new(choices: &mut Choices<'_>, is_by_key: bool, partitions: u32) -> Self {
        let kinds = [
            SubscriptionType::Exclusive,
            SubscriptionType::Shared,
            SubscriptionType::Failover,
            SubscriptionType::KeyShared,
        ];
        let kind = *choices.pick(if is_by_key { &kinds } else { &kinds[..3] });
        let consumers = if kind == SubscriptionType::Exclusive { 1 } else { 1 + choices.below(3) };
        let queue: u32 = *choices.pick(&[1000, 0, 1, 5]);
        let handling = (0..=choices.below(8)).map(|_| choices.byte()).collect();
        Self { kind, queue: queue.max(partitions.min(1)), consumers, handling }
    }
}

#[derive(Default)]
struct Notes {
    /// What was sent; whether it is confirmed.
    sends: BTreeMap<String, bool>,
    /// By subscription.
    received: BTreeMap<usize, BTreeSet<String>>,
    producers_left: usize,
    consumers_left: usize,
    /// Nothing is done wrong with messages any more.
    is_draining: Cell<bool>,
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    plan: Rc<Plan>,
    notes: Rc<RefCell<Notes>>,
    is_over: Rc<Cell<bool>>,
}

fn run(sim: &Simulation, plan: Rc<Plan>) -> Result<(), InvariantViolation> {
    let users = Users { handle: sim.handle(), plan: plan.clone(), notes: Rc::default(), is_over: Rc::default() };
    let last_fault = plan.faults.iter().map(|(at, _)| *at).max().unwrap_or_default();
    plan.faults.iter().for_each(|(at, fault)| sim.inject_at(*at, fault.clone()));
    {
        let mut notes = users.notes.borrow_mut();
        notes.producers_left = plan.producers.len();
        notes.consumers_left = plan.subscriptions.iter().map(|plan| plan.consumers).sum();
    }
    // Subscriptions exist before the first message.
    sim.spawn(start(users.clone()));
    sim.run_for(last_fault.min(Duration::from_secs(60)) + Duration::from_secs(10))?;
    sim.clear_faults();
    users.notes.borrow().is_draining.set(true);
    if !sim.run_until(SETTLES_WITHIN, || is_settled(sim, &users))? {
        let what = || {
            let notes = users.notes.borrow();
            let stats: Vec<_> = plan.parts().iter().map(|part| sim.stats(part)).collect();
            format!("producers left {}, {} sent, {stats:?}", notes.producers_left, notes.sends.len())
        };
        users.handle.report_violation("settles in time", what);
    }
    check_log(sim, &users);
    users.is_over.set(true);
    if !sim.run_until(CLOSES_WITHIN, || sim.live_resources().is_empty())? {
        let live = sim.live_resources();
        users.handle.report_violation("nothing is left after close", || format!("{live:?}"));
    }
    sim.run_for(Duration::from_secs(1))
}

fn is_settled(sim: &Simulation, users: &Users) -> bool {
    let is_drained = |part: &String| {
        let stats = sim.stats(part).map(|stats| stats.subscriptions).unwrap_or_default();
        stats.len() == users.plan.subscriptions.len() && stats.values().all(|found| found.msg_backlog == 0)
    };
    users.notes.borrow().producers_left == 0 && users.plan.parts().iter().all(is_drained)
}

/// What is confirmed is stored, what is stored was sent, and every subscription has received it.
fn check_log(sim: &Simulation, users: &Users) {
    let fail = |checker: &'static str, detail: String| users.handle.report_violation(checker, || detail);
    let notes = users.notes.borrow();
    let mut stored = BTreeMap::new();
    for part in users.plan.parts() {
        for message in sim.stored_messages(&part) {
            let name = name_of(&message.payload);
            for (number, received) in &notes.received {
                let is_damaged = sim.delivery_was_corrupted(&part, &format!("s{number}"), &message.id);
                if !received.contains(&name) && !is_damaged {
                    fail("everything stored is received", format!("{name} by s{number}"));
                }
            }
            *stored.entry(name).or_insert(0) += 1;
        }
    }
    for (name, _) in notes.sends.iter().filter(|(name, is_confirmed)| **is_confirmed && !stored.contains_key(*name)) {
        fail("what is confirmed is stored", name.clone());
    }
    for (name, times) in stored {
        if !notes.sends.contains_key(&name) {
            fail("what is stored was sent", name);
        } else if times > 1 && users.plan.broker.broker_deduplication_enabled {
            fail("deduplication: stored once", format!("{name}: {times} times"));
        }
    }
}

fn name_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).split('|').next().unwrap_or_default().to_owned()
}

async fn retried<T>(users: &Users, attempt: impl AsyncFn() -> Result<T, crate::Error>) -> Option<T> {
    while !users.is_over.get() {
        match attempt().await {
            Ok(done) => return Some(done),
            Err(error) => users.handle.trace(|| error.to_string()),
        }
        users.handle.sleep(PAUSE).await;
    }
    None
}

async fn connect(users: &Users) -> Option<Client> {
    retried(users, async || {
        let builder = users.handle.builder().operation_timeout(Duration::from_secs(10));
        users.handle.connect(builder.keep_alive_interval(Duration::from_secs(10))).await
    })
    .await
}

/// The subscriptions, then a client for all producers and one for each subscription.
async fn start(users: Users) {
    for (number, plan) in users.plan.subscriptions.iter().enumerate() {
        let Some(client) = connect(&users).await else { return };
        for _ in 0..plan.consumers {
            users.handle.spawn(consume(users.clone(), client.clone(), number));
        }
        users.handle.spawn(close_at_end(users.clone(), client));
    }
    let subscribed = |users: &Users| {
        let are_there = |part: &String| {
            users.handle.stats(part).is_some_and(|stats| stats.subscriptions.len() == users.plan.subscriptions.len())
        };
        users.plan.parts().iter().all(are_there)
    };
    while !subscribed(&users) && !users.is_over.get() {
        users.handle.sleep(PAUSE).await;
    }
    let Some(client) = connect(&users).await else { return };
    for number in 0..users.plan.producers.len() {
        users.handle.spawn(produce(users.clone(), client.clone(), number));
    }
    users.handle.spawn(close_at_end(users.clone(), client));
}

async fn close_at_end(users: Users, client: Client) {
    while !users.is_over.get() {
        users.handle.sleep(PAUSE).await;
    }
    if let Err(error) = client.close().await {
        users.handle.trace(|| format!("the close: {error}"));
    }
}

async fn produce(users: Users, client: Client, number: usize) {
    let plan = &users.plan.producers[number];
    let create = async || {
        let kind = if plan.by_key { BatchingType::KeyBased } else { BatchingType::Default };
        let builder =
            client.producer(TOPIC).batching(plan.batching).batching_type(kind).send_timeout(plan.send_timeout);
        builder.max_pending_messages(plan.pending_max).create().await
    };
    let mut sent = 0;
    while sent < plan.messages {
        let Some(producer) = retried(&users, create).await else { return };
        while sent < plan.messages {
            let name = format!("p{number}.{sent:04}");
            sent += 1;
            users.notes.borrow_mut().sends.insert(name.clone(), false);
            let payload = format!("{name}|{:padding$}", "", padding = plan.padding);
            let message = crate::Message::new(payload).with_key(format!("k{}", sent % 5));
            match producer.send(message).await {
                Ok(_) => drop(users.notes.borrow_mut().sends.insert(name, true)),
                Err(error) => {
                    users.handle.trace(|| format!("{name}: {error}"));
                    if !matches!(error.error().kind(), crate::ErrorKind::TimedOut) {
                        break;
                    }
                }
            }
            users.handle.sleep(plan.pace).await;
        }
        if let Err(error) = producer.close().await {
            users.handle.trace(|| format!("the close of a producer: {error}"));
        }
    }
    users.notes.borrow_mut().producers_left -= 1;
}

async fn consume(users: Users, client: Client, number: usize) {
    let plan = &users.plan.subscriptions[number];
    users.notes.borrow_mut().received.entry(number).or_default();
    let subscribe = async || {
        let builder = client.consumer(TOPIC, format!("s{number}")).subscription_type(plan.kind);
        let builder = builder.initial_position(crate::InitialPosition::Earliest).receiver_queue_size(plan.queue);
        builder.negative_ack_redelivery_delay(Duration::from_millis(500)).subscribe().await
    };
    let mut step = 0;
    while let Some(mut consumer) = retried(&users, subscribe).await {
        while let Ok(message) = consumer.receive().await {
            let name = name_of(message.payload());
            users.notes.borrow_mut().received.entry(number).or_default().insert(name);
            let is_draining = users.notes.borrow().is_draining.get();
            let handling = if is_draining { 0 } else { plan.handling[step % plan.handling.len()] };
            step += 1;
            let result = match handling {
                0..=99 => consumer.ack(&message),
                100..=149 => consumer.nack(&message),
                150..=179 if plan.kind == SubscriptionType::Exclusive => consumer.ack_cumulative(&message),
                180..=219 => {
                    users.handle.sleep(Duration::from_millis(u64::from(handling))).await;
                    consumer.ack(&message)
                }
                220..=229 => break,
                _ => consumer.ack(&message),
            };
            if let Err(error) = result {
                users.handle.trace(|| format!("an acknowledgement: {error}"));
            }
        }
        if let Err(error) = consumer.close().await {
            users.handle.trace(|| format!("the close of a consumer: {error}"));
        }
        // One that gives up each message it gets would do nothing else than subscribe.
        users.handle.sleep(PAUSE).await;
    }
    users.notes.borrow_mut().consumers_left -= 1;
}
