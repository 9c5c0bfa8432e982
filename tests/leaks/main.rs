//! What is closed or dropped is gone, a thousand times over: no memory, no task, no socket stays behind.

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
use pulsar_native::{Client, InitialPosition, SubscriptionType};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[path = "../common/mod.rs"]
mod common;

mod bombs;
mod chunks;
mod idle;
mod memory_limit;
mod patterns;
mod redelivery;
mod table_view;
#[cfg(feature = "tap")]
mod web_view;

use common::paused::{VIRTUAL_WAIT_TIMEOUT, pass, until};
use common::within::within_time;

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The figures are those of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const TOPIC: &str = "persistent://public/default/cycles";
struct InMemory(EmbeddedBroker);

impl Dialer for InMemory {
    fn dial<'a>(&'a self, _: &'a Target) -> DialFuture<'a> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as Box<dyn Socket>) })
    }
}

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = MEMORY.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// What `work` gives, and the bytes that it allocates, freed or not. Other threads of the process, those of the test runner and of
/// tests that wait for their turn, allocate meanwhile at times, which only adds: the least of a few runs is taken.
fn allocating<T>(mut work: impl FnMut() -> T) -> (T, usize) {
    let mut once = || {
        let before = MEMORY.stats().bytes_allocated;
        let result = work();
        (result, MEMORY.stats().bytes_allocated - before)
    };
    let (result, first) = once();
    let least = (0..2).map(|_| once().1).fold(first, usize::min);
    (result, least)
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Looks after each round of the runtime, over sockets and on a clock that runs, until it is so. All that it waits for
/// happens in this runtime, and no change of the figures of the process is announced.
async fn round_by_round(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    within_time(VIRTUAL_WAIT_TIMEOUT, what, waiting).await;
}

/// How many producers and consumers the broker has.
fn attached(broker: &EmbeddedBroker) -> (usize, usize) {
    let Some(stats) = broker.stats(TOPIC) else { return (0, 0) };
    (stats.publishers.len(), stats.subscriptions.values().map(|one| one.consumers.len()).sum())
}

/// A producer and a consumer that pass a message on; every other time they are closed, else dropped.
async fn cycle(client: &Client, number: usize) {
    let producer = client.producer(TOPIC).name("p").create().await.expect("a producer");
    let builder = client.consumer(TOPIC, "s").initial_position(InitialPosition::Earliest);
    let builder = builder.subscription_type(SubscriptionType::Shared).name("c");
    let mut consumer = builder.subscribe().await.expect("a consumer");
    producer.send("x").await.expect("stored");
    let message = consumer.receive().await.expect("a message");
    consumer.ack(&message).expect("acknowledged");
    drop(message);
    if number % 2 == 0 {
        producer.close().await.expect("closed");
        consumer.close().await.expect("closed");
    } else {
        drop((producer, consumer));
    }
}

/// What a connection remembers of closed ids goes with it, and timers that are long over fire.
async fn settle(broker: &EmbeddedBroker) {
    broker.drop_connections();
    broker.delete_topic(TOPIC);
    pass(Duration::from_secs(300)).await;
}

#[test]
fn memory_is_flat_over_a_thousand_cycles_of_create_and_drop() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let own_tasks = tasks();
        let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).seed(1).connect();
        let client = client.await.expect("a client");
        for number in 0..200 {
            cycle(&client, number).await;
            until("both to go", || attached(&broker), |left| *left == (0, 0)).await;
        }
        settle(&broker).await;
        let before = held();
        for number in 0..1000 {
            cycle(&client, number).await;
            until("both to go", || attached(&broker), |left| *left == (0, 0)).await;
        }
        settle(&broker).await;
        let grown = held().saturating_sub(before);
        assert!(grown < 16 * 1024, "1,000 cycles left {grown} bytes");
        assert!(tasks() <= own_tasks + 3, "{} tasks; the client needs one and one for its connection", tasks());
        client.close().await.expect("closed");
        assert_eq!((tasks(), broker.connections()), (own_tasks, 0), "no task, no connection");
        assert!(broker.violations().is_empty(), "{:?}", broker.violations());
        drop(client);
        broker.stop().await;
        assert_eq!(tasks(), 0);
    });
}

#[test]
fn memory_is_flat_over_clients_that_come_and_go() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let own_tasks = tasks();
        let mut before = 0;
        for number in 0..300 {
            let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).seed(1).connect();
            let client = client.await.expect("a client");
            cycle(&client, number).await;
            until("both to go", || attached(&broker), |left| *left == (0, 0)).await;
            if number % 3 == 0 {
                client.close().await.expect("closed");
            }
            drop(client);
            until("every task to end", || (tasks(), broker.connections()), |left| *left == (own_tasks, 0)).await;
            if number == 99 {
                settle(&broker).await;
                before = held();
            }
        }
        settle(&broker).await;
        let grown = held().saturating_sub(before);
        assert!(grown < 16 * 1024, "200 clients left {grown} bytes");
        broker.stop().await;
    });
}

/// Sockets of the process, where the system says.
#[cfg(target_os = "linux")]
fn sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("the system says").flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[cfg(target_os = "linux")]
#[test]
fn no_socket_is_left_open() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let before = sockets();
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        let listening = sockets();
        for number in 0..50 {
            let client = Client::builder(broker.url()).connect().await.expect("a client");
            cycle(&client, number).await;
            round_by_round("both to go", || attached(&broker) == (0, 0)).await;
            assert!(sockets() > listening, "over TCP");
            if number % 2 == 0 {
                client.close().await.expect("closed");
            }
            drop(client);
        }
        round_by_round("every socket to be closed", || sockets() == listening && broker.connections() == 0).await;
        broker.stop().await;
        round_by_round("the listener to be closed", || sockets() == before).await;
        assert_eq!(tasks(), 0);
    });
}

/// A build with debug assertions checks the supervisor's tables as it goes. What that costs for each producer does not
/// grow with their number.
#[cfg(debug_assertions)]
#[test]
fn checks_of_the_supervisor_cost_each_of_many_producers_the_same() {
    use pulsar_native::machine::supervisor::checks::items_checked;

    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let checked_for = |producers: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let broker = EmbeddedBroker::builder().start().await.expect("a free port");
            let client = Client::builder(broker.url()).dialer(InMemory(broker.clone())).connect().await;
            let client = client.expect("a client");
            let before = items_checked();
            let create = |number| {
                let builder = client.producer(format!("persistent://public/default/many-{number}"));
                tokio::spawn(async move { builder.create().await })
            };
            let creating: Vec<_> = (0..producers).map(create).collect();
            let mut created = Vec::new();
            for creation in creating {
                created.push(creation.await.expect("no panic").expect("a producer"));
            }
            assert_eq!(created.len(), producers);
            let checked = items_checked() - before;
            client.close().await.expect("closed");
            broker.stop().await;
            checked as f64 / producers as f64
        })
    };
    let (few, many) = (checked_for(30), checked_for(3_000));
    assert!(many < 2.0 * few + 20.0, "items checked for each: {few} of 30 producers, {many} of 3,000");
}
