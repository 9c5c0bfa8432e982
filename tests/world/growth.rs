//! Worlds of topics that get more partitions while producers and a consumer are at work, under faults.
//!
//! The consumer starts at the latest message, before anything is sent, so it has to receive whatever is stored: also what
//! was published to a partition before the consumer had found it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::sim::{Fault, Handle, InvariantViolation, Rng, Simulation};
use pulsar_native::{Client, Consumer, ErrorKind, Message, Producer, ServerCode, SubscriptionType};

use crate::harness;
use crate::table_view::Watched;
use crate::workload::{SETTLES_WITHIN, SeedReport, first};

/// One seed in so many is such a world.
const ONE_IN: u64 = 16;

const TOPIC: &str = "persistent://public/default/growing";
const SUBSCRIPTION: &str = "s";

/// Whether a seed is that of a topic that grows.
pub(crate) fn is_of(seed: u64) -> bool {
    seed % ONE_IN == 7
}

struct Plan {
    /// How many partitions there are from a time on. The first one is that of the start.
    growth: Vec<(Duration, u32)>,
    faults: Vec<(Duration, Fault)>,
    /// The last fault or growth is before it.
    ends_at: Duration,
    producers: u64,
    kind: SubscriptionType,
    queue: u32,
    batching: bool,
    lazy: bool,
    interval: Duration,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x9708);
        let mut growth = vec![(Duration::ZERO, rng.range_inclusive(1, 2) as u32)];
        for _ in 0..rng.range_inclusive(1, 4) {
            let (at, partitions) = growth[growth.len() - 1];
            growth.push((
                at + rng.duration(Duration::from_secs(1), Duration::from_secs(8)),
                partitions + rng.range_inclusive(1, 4) as u32,
            ));
        }
        let last = growth[growth.len() - 1].0;
        let mut faults = Vec::new();
        for _ in 0..rng.below(12) {
            faults.push((rng.duration(Duration::from_secs(1), last + Duration::from_secs(3)), fault(rng)));
        }
        // Where a growth and a refusal meet.
        for (at, _) in &growth[1..] {
            if rng.chance_per_mille(600) {
                faults.push((*at, refusal(rng)));
            }
        }
        Self {
            growth,
            faults,
            ends_at: last + Duration::from_secs(4),
            producers: rng.range_inclusive(1, 3),
            kind: *rng.pick(&[SubscriptionType::Exclusive, SubscriptionType::Shared, SubscriptionType::Failover]),
            queue: *rng.pick(&[1, 2, 20, 1000]),
            batching: rng.chance_per_mille(500),
            lazy: rng.chance_per_mille(250),
            interval: rng.duration(Duration::from_secs(1), Duration::from_secs(5)),
        }
    }

    fn partitions(&self) -> u32 {
        self.growth[self.growth.len() - 1].1
    }

    fn parts(&self) -> impl Iterator<Item = String> {
        (0..self.partitions()).map(|index| format!("{TOPIC}-partition-{index}"))
    }
}

/// One that ends nothing which was attached.
pub(crate) fn fault(rng: &mut Rng) -> Fault {
    let by = rng.duration(Duration::from_millis(10), Duration::from_secs(3));
    match rng.below(11) {
        0 => Fault::Restart { down_for: by },
        1 => Fault::Unload,
        2 => Fault::Transfer,
        3 => Fault::CloseProducer,
        4 => Fault::CloseConsumer,
        5 => Fault::DropRequest,
        6 => Fault::DropResponse,
        7 => Fault::DelayResponse { by },
        8 => Fault::RefuseDials { duration: by },
        9 => refusal(rng),
        _ => Fault::Disconnect,
    }
}

fn refusal(rng: &mut Rng) -> Fault {
    let code = *rng.pick(&[ServerCode::AUTHORIZATION_ERROR, ServerCode::SERVICE_NOT_READY]);
    let duration = rng.duration(Duration::from_millis(100), Duration::from_secs(4));
    match rng.below(3) {
        0 => Fault::RefuseProducers { code, duration },
        1 => Fault::RefuseConsumers { code, duration },
        _ => Fault::RefuseRequest { code },
    }
}

/// What the users have done.
#[derive(Default)]
struct Notes {
    /// By payload: the partition that the id names.
    stored: BTreeMap<String, Option<u32>>,
    received: BTreeSet<String>,
    /// How many partitions each producer, and the consumer, has at the moment.
    known: Rc<RefCell<BTreeMap<String, u32>>>,
    pending: usize,
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    plan: Rc<Plan>,
    notes: Rc<RefCell<Notes>>,
    /// No more is sent.
    is_draining: Rc<Cell<bool>>,
    is_over: Rc<Cell<bool>>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Rc::new(Plan::of(seed));
    harness::run_seed(seed, trace, |sim| run_plan(sim, &plan), plan.parts())
}

fn run_plan(sim: &Simulation, plan: &Rc<Plan>) -> Result<(), InvariantViolation> {
    let users = Users {
        handle: sim.handle(),
        plan: plan.clone(),
        notes: Rc::default(),
        is_draining: Rc::default(),
        is_over: Rc::default(),
    };
    if plan.lazy {
        sim.let_lazy_producers_ask_again();
    }
    assert!(sim.cluster(0).create_partitioned_topic(TOPIC, plan.growth[0].1));
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
    }
    let grower = users.clone();
    sim.spawn(async move {
        for (at, partitions) in &grower.plan.growth[1..] {
            grower.handle.sleep(at.saturating_sub(grower.handle.elapsed())).await;
            assert!(grower.handle.cluster(0).create_partitioned_topic(TOPIC, *partitions));
        }
    });
    let application = users.clone();
    sim.spawn(async move { work(application).await });
    sim.run_until(plan.ends_at, || false)?;
    sim.clear_faults();
    if !sim.run_until(SETTLES_WITHIN, || has_grown(&users))? {
        let known = format!("{:?}", users.notes.borrow().known);
        users.handle.report_violation("partitions are found", || known);
        return sim.run_for(Duration::ZERO);
    }
    users.is_draining.set(true);
    let is_settled = sim.run_until(SETTLES_WITHIN, || is_settled(sim, &users))?;
    check_log(sim, &users);
    if !is_settled {
        users.handle.report_violation("settles in time", || format!("{} sends wait", users.notes.borrow().pending));
    }
    sim.run_for(Duration::ZERO)?;
    harness::end(sim, &users.handle, &users.is_over)
}

fn has_grown(users: &Users) -> bool {
    let notes = users.notes.borrow();
    let known = notes.known.borrow();
    // The producers, the consumer and the view.
    let handles = usize::try_from(users.plan.producers).expect("a few") + 2;
    known.len() == handles && known.values().all(|known| *known == users.plan.partitions())
}

/// All that was sent has its result, and all that is stored is acknowledged.
fn is_settled(sim: &Simulation, users: &Users) -> bool {
    let is_drained = |part: String| {
        let stats = sim.stats(&part)?;
        Some(stats.subscriptions.get(SUBSCRIPTION)?.msg_backlog == 0)
    };
    users.notes.borrow().pending == 0 && users.plan.parts().all(|part| is_drained(part) == Some(true))
}

/// What is confirmed is stored where its id says, in the order of the sends; what is stored was received.
fn check_log(sim: &Simulation, users: &Users) {
    let notes = users.notes.borrow();
    let mut stored = BTreeMap::new();
    for (index, part) in users.plan.parts().enumerate() {
        let mut last = BTreeMap::new();
        for message in sim.stored_messages(&part) {
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            let (sender, number) = text.split_once('.').expect("a sender");
            let number: u64 = number.parse().expect("a number");
            // What is sent again after a reconnect is stored twice where brokers do not deduplicate.
            if stored.insert(text.clone(), u32::try_from(index).ok()).is_none() {
                let before = last.insert(sender.to_owned(), number);
                if before.is_some_and(|before| before > number) {
                    users.handle.report_violation("log in the order of the sends", || format!("{text} in {part}"));
                }
            }
        }
    }
    for (text, partition) in &notes.stored {
        if stored.get(text) != Some(partition) {
            users.handle.report_violation("what is confirmed is stored", || format!("{text} in {partition:?}"));
        }
    }
    if let Some(missed) = stored.keys().find(|text| !notes.received.contains(*text)) {
        let partition = stored[missed];
        users.handle.report_violation("everything stored is received", || format!("{missed} of {partition:?}"));
    }
}

async fn work(users: Users) {
    let client = harness::connect(&users.handle).await;
    let consumer = subscribe(&users, &client).await;
    let receiver = users.clone();
    users.handle.spawn(async move { receive_all(receiver, consumer).await });
    let (viewer, viewing) = (users.clone(), client.clone());
    users.handle.spawn(async move { view(viewer, viewing).await });
    for number in 0..users.plan.producers {
        let (users, client) = (users.clone(), client.clone());
        users.handle.clone().spawn(async move { send_all(users, client, format!("p{number}")).await });
    }
    harness::close_at_end(&users.handle, &client, &users.is_over).await;
}

async fn subscribe(users: &Users, client: &Client) -> Consumer {
    let plan = &users.plan;
    let builder = client.consumer(TOPIC, SUBSCRIPTION).subscription_type(plan.kind).name("c");
    let builder = builder.receiver_queue_size(plan.queue).auto_update_partitions_interval(plan.interval);
    harness::retried(&users.handle, "not subscribed", async || builder.clone().subscribe().await).await
}

async fn receive_all(users: Users, mut consumer: Consumer) {
    while !users.is_over.get() {
        let known = consumer.state().parts.iter().filter(|part| part.state.is_attached()).count();
        users.notes.borrow().known.borrow_mut().insert("consumer".to_owned(), u32::try_from(known).unwrap_or(u32::MAX));
        match first(consumer.receive(), users.handle.sleep(Duration::from_millis(100))).await {
            Some(Ok(message)) => {
                users.handle.trace(|| format!("received {} of {}", message.to_string_lossy(), message.topic()));
                users.notes.borrow_mut().received.insert(message.to_string_lossy().into_owned());
                let _ = consumer.ack(&message);
            }
            Some(Err(error)) => {
                if !users.is_over.get() {
                    users.handle.report_violation("no part ends", || error.to_string());
                }
                return;
            }
            None => {}
        }
    }
}

async fn view(users: Users, client: Client) {
    let known = users.notes.borrow().known.clone();
    let key_of = |text: &str| key(text.split_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0));
    let watched = Watched { handle: &users.handle, topic: TOPIC, key_of, known: &known };
    watched.watch(&client, users.plan.interval, users.plan.queue, || users.is_over.get()).await;
}

fn key(number: u64) -> String {
    format!("key-{}", number % 13)
}

async fn send_all(users: Users, client: Client, name: String) {
    let plan = users.plan.clone();
    let builder = client.producer(TOPIC).batching(plan.batching).send_timeout(Duration::ZERO);
    let builder = builder.lazy_start_partitioned_producers(plan.lazy).auto_update_partitions_interval(plan.interval);
    let producer = harness::retried(&users.handle, "not created", async || builder.clone().create().await).await;
    let mut number = 0;
    while !users.is_over.get() {
        users.notes.borrow().known.borrow_mut().insert(name.clone(), producer.partitions());
        if !users.is_draining.get() {
            send(&users, &producer, format!("{name}.{number}"), number).await;
            number += 1;
        }
        users.handle.sleep(Duration::from_millis(50)).await;
    }
}

/// Accepts one message; its outcome is noted by a task of its own. Without a send timeout none fails.
async fn send(users: &Users, producer: &Producer, text: String, number: u64) {
    let message = Message::new(text.clone()).with_key(key(number));
    let pending = match producer.enqueue(message).await {
        Ok(pending) => pending,
        Err(error) => return check_failure(users, &text, error.error().kind()),
    };
    users.notes.borrow_mut().pending += 1;
    let users = users.clone();
    users.handle.clone().spawn(async move {
        match pending.await {
            Ok(id) => drop(users.notes.borrow_mut().stored.insert(text, id.partition())),
            Err(error) => check_failure(&users, &text, error.error().kind()),
        }
        users.notes.borrow_mut().pending -= 1;
    });
}

fn check_failure(users: &Users, text: &str, kind: ErrorKind) {
    if !users.is_over.get() {
        users.handle.report_violation("no message goes to a partition before it is attached", || {
            format!("{text} has failed: {kind:?}")
        });
    }
}
