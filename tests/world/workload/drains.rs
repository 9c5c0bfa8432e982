//! Consumers that are drained beside their loop or pool: a complete drain has left nothing, and none takes longer than its
//! limit.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use pulsar_native::sim::Rng;
use pulsar_native::{Acker, ErrorKind, ReceivedMessage};

use super::plan::SubscriptionPlan;
use super::users::Users;

/// No work takes as long, but what is stuck.
const AMPLE: Duration = Duration::from_secs(60);

/// What the application does with one consumer, as far as a drain of it goes.
#[derive(Default)]
pub(super) struct Work {
    /// What it has acknowledged.
    done: RefCell<Vec<ReceivedMessage>>,
    /// Messages that it works on.
    pub(super) running: Cell<usize>,
    /// It has given up some, or all.
    pub(super) is_aborted: Cell<bool>,
    /// A part has ended, which refuses what is acknowledged of it.
    pub(super) has_ended_parts: Cell<bool>,
    /// A drain was begun.
    pub(super) is_drained: Cell<bool>,
    /// It has ended.
    pub(super) is_over: Cell<bool>,
}

impl Work {
    /// The application has acknowledged a message, which was not refused.
    pub(super) fn acknowledged(&self, plan: &SubscriptionPlan, message: &ReceivedMessage) {
        // Without index acknowledgement the rest of its batch decides.
        if plan.index_acks || message.id().batch_size().is_none_or(|size| size == 1) {
            self.done.borrow_mut().push(message.clone());
        }
    }

    /// Drains the consumer now and then, once. `ends`: the work does not take for ever.
    pub(super) fn may_drain(
        self: &Rc<Self>,
        (users, rng): (&Users, &mut Rng),
        (acker, plan): (&Acker, &SubscriptionPlan),
        ends: bool,
    ) {
        if self.is_drained.get() || users.is_draining.get() || !rng.chance_per_mille(10) {
            return;
        }
        self.is_drained.set(true);
        let is_ample = rng.chance_per_mille(600);
        let limit = if is_ample { AMPLE } else { rng.duration(Duration::ZERO, Duration::from_secs(3)) };
        let must_complete = is_ample && ends && users.is_clean;
        let drain = drain(users.clone(), acker.clone(), plan.clone(), self.clone(), limit, must_complete);
        users.handle.spawn(drain);
    }

    /// Checks what was acknowledged on the only connection that there was: after a complete drain it does not come again.
    fn check_done(&self, users: &Users, acker: &Acker, plan: &SubscriptionPlan) {
        if self.running.get() > 0 {
            users.handle.report_violation("a complete drain has waited for the work", || plan.name.clone());
        }
        if acker.stats().reconnects > 0 || self.has_ended_parts.get() {
            return;
        }
        // A part that was refused for good meanwhile has refused the acknowledgement.
        let has_ended =
            |message: &&ReceivedMessage| acker.ack(message).is_err_and(|error| error.kind() != ErrorKind::Closed);
        for message in self.done.borrow().iter().filter(|message| !has_ended(message)) {
            if users.handle.is_acknowledged(message.topic(), &plan.name, &message.id()) != Some(true) {
                let what = || format!("{} of {} on {}", message.id(), message.topic(), plan.name);
                users.handle.report_violation("a complete drain has confirmed all", what);
            }
        }
    }
}

async fn drain(
    users: Users,
    acker: Acker,
    plan: SubscriptionPlan,
    work: Rc<Work>,
    limit: Duration,
    must_complete: bool,
) {
    users.handle.trace(|| format!("consumer of {} is drained within {limit:?}", plan.name));
    let started = users.handle.elapsed();
    let report = acker.drain(limit).await;
    let took = users.handle.elapsed() - started;
    work.is_over.set(true);
    users.handle.trace(|| format!("consumer of {} after {took:?}: {report}", plan.name));
    if took > limit {
        users.handle.report_violation("a drain ends within its limit", || format!("{took:?} of {limit:?}"));
    }
    if work.is_aborted.get() {
        return;
    }
    if report.is_complete() {
        work.check_done(&users, &acker, &plan);
    } else if must_complete {
        // Members of batches of which the application has not acknowledged others.
        let mut left = report.clone();
        left.unconfirmed_acks = 0;
        if !left.is_complete() {
            users.handle.report_violation("a drain is complete where nothing fails", || report.to_string());
        }
    }
}
