//! Worlds of topics that are made and deleted while a consumer of their pattern is at work, under faults.
//!
//! In one half of them the broker's announcements are all that the consumer has, since it asks for the list once an hour; in
//! the other half brokers forget the watch without a word, and the list has to do. Each topic that is made gets messages
//! before the consumer may know of it. The consumer starts at the latest message, so what it receives of those shows that
//! a topic that comes is read from its beginning.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::sim::{Fault, Handle, InvariantViolation, Rng, Simulation};
use pulsar_native::{Client, Consumer, ServerCode, SubscriptionType, Topics};

use crate::harness;
use crate::workload::{SETTLES_WITHIN, SeedReport, first};

/// One seed in so many is such a world.
const ONE_IN: u64 = 16;

const NAMESPACE: &str = "persistent://public/default/";
const PATTERN: &str = "persistent://public/default/t-.*";
const SUBSCRIPTION: &str = "s";

/// What an unload, a restart or a slow answer may leave on its way to a broker has arrived after this time.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(5);

/// How long nothing may come back after everything has settled.
const QUIET: Duration = Duration::from_secs(20);

/// Whether a seed is that of a pattern.
pub(crate) fn is_of(seed: u64) -> bool {
    seed % ONE_IN == 11
}

/// A topic that is made, gets messages, and may be deleted, several times over.
struct TopicPlan {
    name: String,
    /// 0: it has none.
    partitions: u32,
    /// How long until it is made, and then until it is deleted. Without the last one it stays.
    lives: Vec<(Duration, Option<Duration>)>,
    messages: u64,
}

impl TopicPlan {
    fn of(rng: &mut Rng, number: u64) -> Self {
        let mut lives = Vec::new();
        for _ in 0..rng.range_inclusive(1, 3) {
            // Some come again at once, before anyone has noticed that they were gone.
            let pause = if rng.chance_per_mille(300) { 1 } else { 12_000 };
            let comes = rng.duration(Duration::from_millis(1), Duration::from_millis(pause));
            lives.push((comes, Some(rng.duration(Duration::from_millis(100), Duration::from_secs(5)))));
        }
        if let Some((_, end)) = lives.last_mut().filter(|_| rng.chance_per_mille(600)) {
            *end = None;
        }
        let partitions = if rng.chance_per_mille(200) { rng.range_inclusive(1, 3) as u32 } else { 0 };
        Self { name: format!("{NAMESPACE}t-{number}"), partitions, lives, messages: rng.range_inclusive(1, 4) }
    }

    fn parts(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![self.name.clone()],
            count => (0..count).map(|index| format!("{}-partition-{index}", self.name)).collect(),
        }
    }
}

struct Plan {
    topics: Vec<TopicPlan>,
    faults: Vec<(Duration, Fault)>,
    /// The last fault is before it.
    ends_at: Duration,
    kind: SubscriptionType,
    queue: u32,
    /// How often the list is asked for.
    period: Duration,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x9a77);
        let is_announced = rng.chance_per_mille(500);
        let topics = (0..rng.range_inclusive(1, 8)).map(|number| TopicPlan::of(rng, number)).collect();
        let ends_at = rng.duration(Duration::from_secs(5), Duration::from_secs(25));
        let mut faults = Vec::new();
        for _ in 0..rng.below(10) {
            let fault = if !is_announced && rng.chance_per_mille(400) { Fault::ForgetWatches } else { fault(rng) };
            faults.push((rng.duration(Duration::from_secs(1), ends_at), fault));
        }
        Self {
            topics,
            faults,
            ends_at,
            kind: *rng.pick(&[SubscriptionType::Exclusive, SubscriptionType::Shared, SubscriptionType::Failover]),
            queue: *rng.pick(&[1, 2, 20, 1000]),
            period: if is_announced {
                Duration::from_secs(3600)
            } else {
                Duration::from_secs(rng.range_inclusive(1, 5))
            },
        }
    }
}

fn fault(rng: &mut Rng) -> Fault {
    let by = rng.duration(Duration::from_millis(10), Duration::from_secs(3));
    match rng.below(9) {
        0 => Fault::Restart { down_for: by },
        1 => Fault::Unload,
        2 => Fault::Transfer,
        3 => Fault::CloseConsumer,
        4 => Fault::DropRequest,
        5 => Fault::DropResponse,
        6 => Fault::DelayResponse { by },
        7 => Fault::RefuseRequest { code: ServerCode::SERVICE_NOT_READY },
        _ => Fault::Disconnect,
    }
}

/// What the users have done.
#[derive(Default)]
struct Notes {
    received: BTreeSet<String>,
    /// The topics and partitions that the consumer has at the moment.
    known: BTreeSet<String>,
    are_attached: bool,
    /// Those that were deleted, and not made again.
    deleted: BTreeSet<String>,
    /// Topics whose lives are over.
    done: usize,
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    plan: Rc<Plan>,
    notes: Rc<RefCell<Notes>>,
    is_subscribed: Rc<Cell<bool>>,
    is_over: Rc<Cell<bool>>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Rc::new(Plan::of(seed));
    harness::run_seed(seed, trace, |sim| run_plan(sim, &plan), plan.topics.iter().flat_map(TopicPlan::parts))
}

fn run_plan(sim: &Simulation, plan: &Rc<Plan>) -> Result<(), InvariantViolation> {
    let users = Users {
        handle: sim.handle(),
        plan: plan.clone(),
        notes: Rc::default(),
        is_subscribed: Rc::default(),
        is_over: Rc::default(),
    };
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
    }
    let application = users.clone();
    sim.spawn(async move { work(application).await });
    let watcher = users.clone();
    sim.spawn(async move { look_for_deleted(watcher).await });
    sim.run_until(plan.ends_at, || false)?;
    sim.clear_faults();
    let is_done = || users.notes.borrow().done == plan.topics.len();
    if !sim.run_until(SETTLES_WITHIN, is_done)? {
        users.handle.report_violation("settles in time", || "topics are not made, filled or deleted".to_owned());
        return sim.run_for(Duration::ZERO);
    }
    let is_same = || users.notes.borrow().are_attached && users.notes.borrow().known == existing(&users);
    if !sim.run_until(SETTLES_WITHIN, is_same)? {
        let differ = format!("{:?} instead of {:?}", users.notes.borrow().known, existing(&users));
        users.handle.report_violation("the topics are those of the broker", || differ);
        return sim.run_for(Duration::ZERO);
    }
    sim.run_until(SETTLES_WITHIN, || missed(sim, &users).is_none())?;
    if let Some(missed) = missed(sim, &users) {
        users.handle.report_violation("everything stored is received", || missed);
    }
    // Whatever is on its way arrives, and what is tried again is tried by then.
    sim.run_for(QUIET)?;
    harness::end(sim, &users.handle, &users.is_over)
}

/// The topics and partitions that there are.
fn existing(users: &Users) -> BTreeSet<String> {
    let cluster = users.handle.cluster(0);
    users.plan.topics.iter().flat_map(TopicPlan::parts).filter(|part| cluster.stats(part).is_some()).collect()
}

fn missed(sim: &Simulation, users: &Users) -> Option<String> {
    let notes = users.notes.borrow();
    let stored = existing(users).into_iter().flat_map(|part| sim.stored_messages(&part));
    let mut texts = stored.map(|message| String::from_utf8_lossy(&message.payload).into_owned());
    texts.find(|text| !notes.received.contains(text))
}

/// What was deleted stays away until an operator makes it again.
async fn look_for_deleted(users: Users) {
    while !users.is_over.get() {
        let cluster = users.handle.cluster(0);
        let back = users.notes.borrow().deleted.iter().find(|part| cluster.stats(part).is_some()).cloned();
        if let Some(part) = back {
            users.handle.report_violation("a deleted topic is not made again", || part);
            return;
        }
        users.handle.sleep(Duration::from_millis(200)).await;
    }
}

async fn work(users: Users) {
    let client = harness::connect(&users.handle).await;
    for number in 0..users.plan.topics.len() {
        let users = users.clone();
        users.handle.clone().spawn(async move { live(users, number).await });
    }
    let consumer = subscribe(&users, &client).await;
    users.is_subscribed.set(true);
    let receiver = users.clone();
    users.handle.spawn(async move { receive_all(receiver, consumer).await });
    harness::close_at_end(&users.handle, &client, &users.is_over).await;
}

/// A topic comes and goes.
async fn live(users: Users, number: usize) {
    let (plan, cluster) = (users.plan.clone(), users.handle.cluster(0));
    let topic = &plan.topics[number];
    while !users.is_subscribed.get() {
        users.handle.sleep(Duration::from_millis(50)).await;
    }
    let client = harness::connect(&users.handle).await;
    for (life, (comes, goes)) in topic.lives.iter().enumerate() {
        users.handle.sleep(*comes).await;
        users.notes.borrow_mut().deleted.retain(|part| !topic.parts().contains(part));
        let is_made = match topic.partitions {
            0 => cluster.create_topic(&topic.name),
            count => cluster.create_partitioned_topic(&topic.name, count),
        };
        assert!(is_made, "{} is new", topic.name);
        users.handle.trace(|| format!("{} is there", topic.name));
        fill(&users, &client, topic, life).await;
        let Some(goes) = goes else { break };
        users.handle.sleep(*goes).await;
        cluster.delete_topic(&topic.name);
        users.notes.borrow_mut().deleted.extend(topic.parts());
        users.handle.trace(|| format!("{} is gone", topic.name));
    }
    users.notes.borrow_mut().done += 1;
    harness::close_at_end(&users.handle, &client, &users.is_over).await;
}

/// Sends the messages of one life of a topic. Afterwards no producer is there, and none is on its way, which would make the
/// topic again.
async fn fill(users: &Users, client: &Client, topic: &TopicPlan, life: usize) {
    let builder = client.producer(&topic.name).send_timeout(Duration::ZERO);
    let producer = harness::retried(&users.handle, &topic.name, async || builder.clone().create().await).await;
    for number in 0..topic.messages {
        let sent = producer.send(format!("{} {life} {number}", topic.name)).await;
        users.handle.trace(|| format!("{} {life} {number}: {sent:?}", topic.name));
    }
    let _ = producer.close().await;
    drop(producer);
    users.handle.sleep(IN_FLIGHT_MAX).await;
    let has_producer = |part: &String| users.handle.stats(part).is_some_and(|stats| !stats.publishers.is_empty());
    while topic.parts().iter().any(has_producer) {
        users.handle.sleep(Duration::from_millis(100)).await;
    }
}

async fn subscribe(users: &Users, client: &Client) -> Consumer {
    let plan = &users.plan;
    let builder = client.consumer(Topics::pattern(PATTERN), SUBSCRIPTION).subscription_type(plan.kind).name("c");
    let builder = builder.receiver_queue_size(plan.queue).pattern_auto_discovery_period(plan.period);
    harness::retried(&users.handle, "not subscribed", async || builder.clone().subscribe().await).await
}

async fn receive_all(users: Users, mut consumer: Consumer) {
    while !users.is_over.get() {
        let state = consumer.state();
        users.notes.borrow_mut().are_attached = state.parts.iter().all(|part| part.state.is_attached());
        let known: BTreeSet<_> = state.parts.iter().map(|part| part.topic.to_string()).collect();
        if known.len() < state.parts.len() {
            users.handle.report_violation("a topic of a pattern is there once", || format!("{:?}", state.parts));
        }
        users.notes.borrow_mut().known = known;
        match first(consumer.receive(), users.handle.sleep(Duration::from_millis(100))).await {
            Some(Ok(message)) => {
                users.handle.trace(|| format!("received {}", message.to_string_lossy()));
                users.notes.borrow_mut().received.insert(message.to_string_lossy().into_owned());
                let _ = consumer.ack(&message);
            }
            Some(Err(error)) => {
                if !users.is_over.get() {
                    users.handle.report_violation("a pattern does not end", || error.to_string());
                }
                return;
            }
            None => {}
        }
    }
}
