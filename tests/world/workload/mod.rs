//! One simulated run of a seed: clients, producers and consumers that use the API in every way that is allowed, faults, and
//! the invariants that must hold.

mod by_key;
mod checks;
mod consumers;
mod drains;
mod failures;
mod overdue;
mod plan;
mod producers;
mod stalls;
mod told;
mod users;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pulsar_native::sim::{Fault, FaultCounts, InvariantViolation, Simulation};

use checks::{check_acked, check_log, check_now, has_no_endpoints, is_settled, memory_in_use, unsettled};
pub(crate) use consumers::first;
use failures::check_counts;
use plan::Plan;
pub(crate) use users::{Key, Sent, key};
use users::{Users, spawn_all};

/// After the last fault, everything is sent, received and acknowledged within this time: the detection of a dead
/// connection (twice the keep-alive), a stalled one (90 s), the longest back-off (60 s), one operation (30 s), and the sends.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(300);

/// A client closes within its operation timeout, and the keep-alive of a dead connection.
pub(crate) const CLOSES_WITHIN: Duration = Duration::from_secs(120);

/// The result of one seed.
pub(crate) struct SeedReport {
    pub(crate) violation: Option<InvariantViolation>,
    pub(crate) faults: FaultCounts,
    pub(crate) fingerprint: u64,
    pub(crate) events: u64,
    pub(crate) stored: usize,
    pub(crate) trace: Vec<String>,
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Plan::of(seed);
    let sim = Simulation::with_broker_config(seed, plan.broker.clone());
    if trace {
        sim.enable_trace();
    }
    if plan.receive_memory_limit > 0 {
        sim.let_permits_grow();
    }
    let violation = run_plan(&sim, &plan).err();
    SeedReport {
        violation,
        faults: sim.fault_counts(),
        fingerprint: sim.fingerprint(),
        events: sim.events(),
        stored: plan.parts().iter().map(|topic| sim.stored_messages(topic).len()).sum(),
        trace: sim.take_trace(),
    }
}

fn is_refusal(fault: &Fault) -> bool {
    matches!(fault, Fault::RefuseProducers { .. } | Fault::RefuseConsumers { .. } | Fault::TakeName)
}

fn run_plan(sim: &Simulation, plan: &Plan) -> Result<(), InvariantViolation> {
    let users = Users {
        handle: sim.handle(),
        notes: Rc::default(),
        callbacks: Arc::default(),
        letter_producers: Arc::default(),
        is_draining: Rc::default(),
        is_over: Rc::default(),
        may_close: Rc::default(),
        may_unstick: Rc::default(),
        has_lost_broker_only: plan.faults.iter().all(|(at, fault)| at.is_zero() && *fault == Fault::LoseBroker),
        reuses_names: !plan.broker.broker_deduplication_enabled,
        closes_are_quick: plan.faults.iter().all(|(_, fault)| matches!(fault, Fault::SlowReceipts { .. })),
        has_refusals_only: plan.faults.iter().all(|(_, fault)| is_refusal(fault)),
        is_clean: plan.faults.is_empty(),
    };
    let mut last_fault = Duration::ZERO;
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
        last_fault = last_fault.max(*at);
    }
    spawn_all(sim, plan, &users);
    let check = || {
        check_now(&users);
        false
    };
    sim.run_until(last_fault + Duration::from_secs(10), check)?;

    check_acked(sim, plan, &users);
    sim.clear_faults();
    users.is_draining.set(true);
    let settled = sim.run_until(SETTLES_WITHIN, || is_settled(sim, plan, &users))?;
    if !settled {
        let what = unsettled(sim, plan, &users);
        users.handle.report_violation("settles in time", || what);
        return sim.run_for(Duration::ZERO);
    }
    check_log(sim, plan, &users);
    check_acked(sim, plan, &users);
    sim.run_for(Duration::ZERO)?;

    users.is_over.set(true);
    // Endpoints of connections that carry nothing remain until the brokers' keep-alive.
    let timeout = if users.is_clean { Duration::from_secs(10) } else { CLOSES_WITHIN };
    let is_empty = sim.run_until(timeout, || has_no_endpoints(sim, plan, &users))?;
    if !is_empty {
        let stats: Vec<_> = plan.parts().iter().map(|part| sim.stats(part)).collect();
        users.handle.report_violation("a close leaves nothing at the broker", || format!("{stats:?}"));
    }
    plan.topics.iter().for_each(|topic| check_counts(sim, &users, topic));
    // What is no longer waited for may still be on its way.
    let is_given_back = sim.run_until(CLOSES_WITHIN, || memory_in_use(&users).is_empty())?;
    if !is_given_back {
        let used = memory_in_use(&users);
        users.handle.report_violation("memory is given back", || format!("{used:?}"));
    }
    users.may_close.set(true);
    let closed = sim.run_until(CLOSES_WITHIN, || sim.live_resources().is_empty())?;
    if !closed {
        let live = sim.live_resources();
        users.handle.report_violation("nothing is left after close", || format!("{live:?}"));
    }
    // The brokers may still respond to the closes.
    sim.run_for(Duration::from_secs(1))
}
