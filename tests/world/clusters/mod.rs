//! Worlds of two clusters: clients fail over from one that is lost to the other and back, use the one that is named to them,
//! are moved by the application, or follow topics that migrate.

mod checks;
mod plan;
mod users;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::sim::{Fault, InvariantViolation, Simulation};

use crate::workload::{CLOSES_WITHIN, SeedReport};
use checks::{check_acked, check_log, check_now, is_drained, is_settled, unsettled};
use plan::{Outage, Plan, Theme};
use users::{Users, spawn_all};

/// One seed in so many is a world of two clusters.
pub(crate) const ONE_IN: u64 = 16;

/// After the last fault, everything is sent, received and acknowledged within this time: a send may wait for its time-out,
/// a request for its own, and for the longest back-off.
const SETTLES_WITHIN: Duration = Duration::from_secs(180);

/// How often the state of everything is looked at, and how often what is acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_AT_ACKS_EVERY: Duration = Duration::from_secs(1);

/// Whether a seed is that of a world of two clusters.
pub(crate) fn is_of(seed: u64) -> bool {
    seed % ONE_IN == ONE_IN - 1
}

/// Runs one seed from start to end.
pub(crate) fn run(seed: u64, trace: bool) -> SeedReport {
    let plan = Plan::of(seed);
    let [first, second] = plan.brokers.clone();
    let sim = Simulation::with_two_clusters(seed, first, second);
    if trace {
        sim.enable_trace();
    }
    let topics: Vec<_> = plan.topics.iter().map(|topic| topic.name.clone()).collect();
    let violation = run_plan(&sim, plan).err();
    let stored =
        |cluster: usize| topics.iter().map(|topic| sim.cluster(cluster).stored_messages(topic).len()).sum::<usize>();
    SeedReport {
        violation,
        faults: sim.fault_counts(),
        fingerprint: sim.fingerprint(),
        events: sim.events(),
        stored: stored(0) + stored(1),
        trace: sim.take_trace(),
    }
}

fn run_plan(sim: &Simulation, plan: Plan) -> Result<(), InvariantViolation> {
    let users = Users {
        handle: sim.handle(),
        plan: Rc::new(plan),
        notes: Rc::default(),
        is_draining: Rc::default(),
        is_over: Rc::default(),
        may_close: Rc::default(),
    };
    let plan = &users.plan;
    for (at, fault) in &plan.faults {
        sim.inject_at(*at, fault.clone());
    }
    for outage in &plan.outages {
        sim.inject_at(outage.from, outage.fault());
    }
    for (at, cluster) in &plan.names {
        sim.inject_at(*at, Fault::NameCluster { cluster: *cluster });
    }
    spawn_all(&users);
    let looks = Looks::default();
    sim.run_until(plan.ends_at.saturating_sub(users.handle.elapsed()), || looks.look(sim, &users))?;
    if matches!(plan.theme, Theme::Failover | Theme::Named) {
        let longest = plan.switch_back_delay + 3 * plan.check_interval;
        sim.run_until(longest, || looks.look(sim, &users))?;
    }

    sim.clear_faults();
    users.is_draining.set(true);
    if plan.theme == Theme::Migration {
        settle(sim, &users, &looks, 1)?;
        if !is_drained(sim, &users, 0) {
            let what = unsettled(sim, &users, 0);
            users.handle.report_violation("nothing is left in a cluster that has migrated", || what);
        }
    } else {
        for cluster in [0, 1] {
            // The provider is back in the first one by itself.
            let is_there = plan.theme == Theme::Failover && cluster == 0;
            for client in users.notes.borrow().clients.iter().filter(|_| !is_there) {
                client.service_url_control().switch_to(sim.cluster(cluster).address()).expect("a good cluster");
            }
            settle(sim, &users, &looks, cluster)?;
        }
    }
    check_acked(sim, &users);
    check_log(sim, &users);
    sim.run_for(Duration::ZERO)?;

    users.is_over.set(true);
    sim.run_until(CLOSES_WITHIN, || users.notes.borrow().consumers_left == 0)?;
    users.may_close.set(true);
    if !sim.run_until(CLOSES_WITHIN, || sim.live_resources().is_empty())? {
        let live = sim.live_resources();
        users.handle.report_violation("nothing is left after close", || format!("{live:?}"));
    }
    // The brokers may still respond to the closes.
    sim.run_for(Duration::from_secs(1))
}

/// Waits until everything is done in a cluster that all clients use.
fn settle(sim: &Simulation, users: &Users, looks: &Looks, cluster: usize) -> Result<(), InvariantViolation> {
    let settled =
        sim.run_until(SETTLES_WITHIN, || looks.look(sim, users) || looks.is_new() && is_settled(sim, users, cluster))?;
    if !settled {
        let what = unsettled(sim, users, cluster);
        users.handle.report_violation("settles in time", || what);
    }
    sim.run_for(Duration::ZERO)
}

/// Not all checks are made whenever no task is woken.
#[derive(Default)]
struct Looks {
    next: Cell<Duration>,
    next_at_acks: Cell<Duration>,
    is_new: Cell<bool>,
}

impl Looks {
    /// Never done.
    fn look(&self, sim: &Simulation, users: &Users) -> bool {
        let now = users.handle.elapsed();
        let is_due = |next: &Cell<Duration>, every: Duration| {
            let is_due = now >= next.get();
            if is_due {
                next.set(now + every);
            }
            is_due
        };
        self.is_new.set(is_due(&self.next, LOOK_EVERY));
        if self.is_new() {
            check_now(users);
        }
        if is_due(&self.next_at_acks, LOOK_AT_ACKS_EVERY) {
            check_acked(sim, users);
        }
        false
    }

    /// Whether the last look was made.
    fn is_new(&self) -> bool {
        self.is_new.get()
    }
}

impl Outage {
    fn fault(&self) -> Fault {
        Fault::LoseCluster { cluster: self.cluster, down_for: self.to - self.from }
    }
}
