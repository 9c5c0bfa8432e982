//! Worlds of a receiver queue that follows its consumer, on a Shared subscription with a backlog of batches, under faults: the consumer
//! is quick, then slow, then quick again. While it is slow it must not keep what it took ahead of itself when it was quick.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::sim::{Fault, Handle, InvariantViolation, Rng, Simulation};
use pulsar_native::{Client, Consumer, InitialPosition, SubscriptionType};

use crate::growth::fault;
use crate::harness;
use crate::workload::{SETTLES_WITHIN, SeedReport, first};

/// One seed in so many is such a world.
const ONE_IN: u64 = 64;

const TOPIC: &str = "persistent://public/default/scaled";
const SUBSCRIPTION: &str = "s";

const MESSAGES: usize = 3000;

/// Up to which a queue may grow, as a multiple of its first size.
const GROWTH_MAX: u32 = 8;

/// Whether a seed is that of a queue that follows its consumer.
pub(crate) fn is_of(seed: u64) -> bool {
    seed % ONE_IN == 2
}

struct Plan {
    queue: u32,
    batch: u32,
    /// For each message of a slow consumer: half a queue takes longer than the client tolerates.
    pause: Duration,
    faults: Vec<(Duration, Fault)>,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x5ca1);
        let queue = rng.range_inclusive(8, 40) as u32;
        let count = if rng.chance_per_mille(500) { 0 } else { rng.range_inclusive(1, 8) };
        let at = |rng: &mut Rng| rng.duration(Duration::from_millis(100), Duration::from_secs(20));
        Self {
            queue,
            batch: rng.range_inclusive(2, u64::from(queue) * 2) as u32,
            pause: Duration::from_millis(400 / u64::from(queue))
                + rng.duration(Duration::ZERO, Duration::from_millis(20)),
            faults: (0..count).map(|_| (at(rng), fault(rng))).collect(),
        }
    }
}

#[derive(Clone)]
struct Users {
    handle: Handle,
    plan: Rc<Plan>,
    stored: Rc<Cell<bool>>,
    received: Rc<RefCell<BTreeSet<usize>>>,
    is_over: Rc<Cell<bool>>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Rc::new(Plan::of(seed));
    harness::run_seed(seed, trace, |sim| run_plan(sim, &plan), [TOPIC.to_owned()])
}

fn run_plan(sim: &Simulation, plan: &Rc<Plan>) -> Result<(), InvariantViolation> {
    sim.let_permits_grow();
    let (stored, received, is_over) = (Rc::default(), Rc::default(), Rc::default());
    let users = Users { handle: sim.handle(), plan: plan.clone(), stored, received, is_over };
    let application = users.clone();
    sim.spawn(async move { work(application).await });
    if !sim.run_until(SETTLES_WITHIN, || users.stored.get())? {
        users.handle.report_violation("settles in time", || "the backlog".to_owned());
    }
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
    }
    let is_settled = sim.run_until(SETTLES_WITHIN, || {
        let backlog = sim.stats(TOPIC).and_then(|stats| Some(stats.subscriptions.get(SUBSCRIPTION)?.msg_backlog));
        users.received.borrow().len() == MESSAGES && backlog == Some(0)
    })?;
    if !is_settled {
        let count = users.received.borrow().len();
        users.handle.report_violation("settles in time", || format!("{count} of {MESSAGES} are received"));
    }
    sim.clear_faults();
    harness::end(sim, &users.handle, &users.is_over)
}

async fn work(users: Users) {
    let client = harness::connect(&users.handle).await;
    publish(&users, &client).await;
    users.stored.set(true);
    let receiver = users.clone();
    let consumer = subscribe(&users, &client).await;
    users.handle.spawn(async move { receive_all(receiver, consumer).await });
    harness::close_at_end(&users.handle, &client, &users.is_over).await;
}

async fn publish(users: &Users, client: &Client) {
    drop(subscribe(users, client).await);
    let builder = client.producer(TOPIC).batching_max_messages(users.plan.batch).send_timeout(Duration::ZERO);
    let builder = builder.batching_max_publish_delay(Duration::from_millis(20));
    let producer = harness::retried(&users.handle, "not created", async || builder.clone().create().await).await;
    for number in 0..MESSAGES {
        let _ = producer.enqueue(number.to_string()).await;
    }
    harness::retried(&users.handle, "not stored", async || producer.flush().await).await;
}

async fn subscribe(users: &Users, client: &Client) -> Consumer {
    let queue = users.plan.queue;
    let builder = client.consumer(TOPIC, SUBSCRIPTION).subscription_type(SubscriptionType::Shared).name("c");
    let builder = builder.initial_position(InitialPosition::Earliest).receiver_queue_size(queue);
    let builder = builder.auto_scaled_receiver_queue_size(true);
    let builder = builder.max_total_receiver_queue_size_across_partitions(queue * GROWTH_MAX);
    harness::retried(&users.handle, "not subscribed", async || builder.clone().subscribe().await).await
}

/// Quick for the first third, then slow until the queue must be as small as it was, then quick for the rest.
async fn receive_all(users: Users, mut consumer: Consumer) {
    let size = |consumer: &Consumer| usize::try_from(consumer.stats().receiver_queue_size).expect("a size");
    let (queue, mut slow, mut grown) = (users.plan.queue as usize, 0, 0);
    while !users.is_over.get() {
        let Some(received) = first(consumer.receive(), users.handle.sleep(Duration::from_millis(500))).await else {
            continue;
        };
        let Ok(message) = received else { return };
        let number = message.to_string_lossy().parse().expect("a number");
        users.received.borrow_mut().insert(number);
        let _ = consumer.ack(&message);
        let count = users.received.borrow().len();
        if count < MESSAGES / 3 {
            continue;
        }
        if slow == 0 {
            grown = size(&consumer);
            users.handle.trace(|| format!("slow from now on, with a queue of {grown}"));
            if users.plan.faults.is_empty() && grown <= queue {
                users.handle.report_violation("a queue grows for a quick consumer", || format!("it has {grown}"));
            }
        }
        slow += 1;
        // What was granted is received first, and a batch more than that.
        let slow_max = 2 * grown + 4 * queue;
        if slow <= slow_max {
            users.handle.sleep(users.plan.pause).await;
        }
        if slow == slow_max && size(&consumer) > queue {
            let now = size(&consumer);
            users
                .handle
                .report_violation("a slow consumer keeps no grown queue", || format!("it has {now} of {grown}"));
        }
    }
}
