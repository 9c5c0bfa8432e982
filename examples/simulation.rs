//! A simulation: client, brokers and network in virtual time, all of it from one seed. The same seed gives the same run,
//! so a failure can be looked at as often as it takes.
//!
//! `cargo run --features sim --example simulation [seed]`

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::InitialPosition;
use pulsar_native::sim::{Fault, Simulation};

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("all messages were there after {:?} of virtual time", run(seed));
}

/// Publishes and consumes through a broken connection and a restarted broker; how long it took, in virtual time.
pub(crate) fn run(seed: u64) -> Duration {
    const MESSAGES: usize = 50;
    let sim = Simulation::new(seed);
    let (handle, done) = (sim.handle(), Rc::new(Cell::new(false)));
    let is_done = done.clone();
    sim.spawn(async move {
        let client = handle.connect(handle.builder()).await.expect("a client");
        let producer = client.producer("orders").create().await.expect("a producer");
        let consumer = client.consumer("orders", "s").initial_position(InitialPosition::Earliest);
        let mut consumer = consumer.subscribe().await.expect("a consumer");
        for number in 0..MESSAGES {
            producer.send(format!("order {number}")).await.expect("stored, whatever happens meanwhile");
            handle.sleep(Duration::from_millis(20)).await;
        }
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < MESSAGES {
            let message = consumer.receive().await.expect("the consumer goes on");
            consumer.ack(&message).expect("a message of this consumer");
            seen.insert(message.to_string_lossy().into_owned());
        }
        done.set(true);
    });
    sim.inject_at(Duration::from_millis(300), Fault::Disconnect);
    sim.inject_at(Duration::from_millis(600), Fault::Restart { down_for: Duration::from_secs(2) });
    // Ends early with the first invariant that does not hold: a lost wake-up, too many permits, a changed frame.
    let finished = sim.run_until(Duration::from_secs(120), || is_done.get());
    assert!(finished.expect("every invariant holds"), "seed {seed}: not done in time");
    sim.handle().elapsed()
}
