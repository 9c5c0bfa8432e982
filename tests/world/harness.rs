//! What the worlds of one topic, or a few, share: how a seed is run and reported, and how clients come and go.

use std::cell::Cell;
use std::time::Duration;

use pulsar_native::sim::{Handle, InvariantViolation, Simulation};
use pulsar_native::{Client, Error};

use crate::workload::{CLOSES_WITHIN, SeedReport};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// Runs a world from start to end. `parts`: the topics and partitions of which the stored messages are counted.
pub(crate) fn run_seed(
    seed: u64,
    trace: bool,
    world: impl FnOnce(&Simulation) -> Result<(), InvariantViolation>,
    parts: impl IntoIterator<Item = String>,
) -> SeedReport {
    let sim = Simulation::new(seed);
    if trace {
        sim.enable_trace();
    }
    let violation = world(&sim).err();
    SeedReport {
        violation,
        faults: sim.fault_counts(),
        fingerprint: sim.fingerprint(),
        events: sim.events(),
        stored: parts.into_iter().map(|part| sim.stored_messages(&part).len()).sum(),
        trace: sim.take_trace(),
    }
}

/// Tells the users that it is over, and sees that nothing of them is left.
pub(crate) fn end(sim: &Simulation, handle: &Handle, is_over: &Cell<bool>) -> Result<(), InvariantViolation> {
    is_over.set(true);
    if !sim.run_until(CLOSES_WITHIN, || sim.live_resources().is_empty())? {
        let live = sim.live_resources();
        handle.report_violation("nothing is left after close", || format!("{live:?}"));
    }
    // The brokers may still respond to the closes.
    sim.run_for(Duration::from_secs(1))
}

/// Tries until it succeeds.
pub(crate) async fn retried<T>(handle: &Handle, what: &str, attempt: impl AsyncFn() -> Result<T, Error>) -> T {
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => handle.trace(|| format!("{what}: {error}")),
        }
        handle.sleep(PAUSE).await;
    }
}

pub(crate) async fn connect(handle: &Handle) -> Client {
    let connect = async || {
        let builder = handle.builder().operation_timeout(Duration::from_secs(10));
        handle.connect(builder.keep_alive_interval(Duration::from_secs(10))).await
    };
    retried(handle, "not connected", connect).await
}

/// Closes the client once it is over.
pub(crate) async fn close_at_end(handle: &Handle, client: &Client, is_over: &Cell<bool>) {
    while !is_over.get() {
        handle.sleep(Duration::from_millis(200)).await;
    }
    if let Err(error) = client.close().await {
        handle.trace(|| format!("the close: {error}"));
    }
}
