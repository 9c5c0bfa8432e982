//! What must hold in a world of two clusters.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pulsar_native::sim::Simulation;
use pulsar_native::{AttachState, HandleState};

use super::plan::Theme;
use super::users::{Payload, SUBSCRIPTION, Use, Users, Watched};
use crate::workload::{Key, Sent, key};

/// How long the probes of one round take, and the clock's milliseconds.
const ROUND: Duration = Duration::from_millis(30);

/// After a switch, nothing is attached to the cluster before for longer than this.
const LEFT_WITHIN: Duration = Duration::from_secs(1);

/// After a switch, everything is attached to the other cluster within this, where there are no faults.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// A switch that the application has not made has its reason.
pub(super) fn check_switch(users: &Users, client: usize, from: Use, now: Duration) {
    match users.plan.theme {
        _ if users.is_draining.get() => {}
        Theme::Failover => check_failover(users, client, from, now),
        Theme::Named if users.plan.named(now).1 != Some(1 - from.cluster) => {
            let what = || format!("client {client} left cluster {} at {now:?}: {:?}", from.cluster, users.plan.names);
            users.handle.report_violation("a cluster is left for the one that is named", what);
        }
        _ => {}
    }
}

/// A switch of `AutoClusterFailover` has a reason that has lasted for the whole delay. It was probed up to a round earlier.
fn check_failover(users: &Users, client: usize, from: Use, now: Duration) {
    let plan = &users.plan;
    let lasted = |cluster: usize, is_down: bool| {
        [now, now.saturating_sub(ROUND)]
            .into_iter()
            .filter_map(|at| plan.since(cluster, is_down, at))
            .map(|since| now.saturating_sub(since.max(from.since)))
            .max()
    };
    let is_lost = lasted(from.cluster, true).is_some_and(|time| time >= plan.failover_delay);
    let is_back = from.cluster == 1 && lasted(0, false).is_some_and(|time| time >= plan.switch_back_delay);
    if !is_lost && !is_back {
        let what = || format!("client {client} left cluster {} at {now:?}: {:?}", from.cluster, plan.outages);
        users.handle.report_violation("a cluster is left after the delay", what);
    }
}

/// Checks what holds whenever no task is woken.
pub(super) fn check_now(users: &Users) {
    let now = users.handle.elapsed();
    let check: fn(&Users, usize, Use, Duration) = match users.plan.theme {
        _ if users.is_draining.get() => |_, _, _, _| {},
        Theme::Failover => check_in_use,
        Theme::Named => check_named,
        _ => |_, _, _, _| {},
    };
    users.notes.borrow().uses.iter().for_each(|(client, used)| check(users, *client, *used, now));
    check_attached(users, now);
}

/// A client has left a cluster that is lost, and is back in the primary, in time.
fn check_in_use(users: &Users, client: usize, used: Use, now: Duration) {
    let plan = &users.plan;
    let round = plan.check_interval + ROUND;
    let other = 1 - used.cluster;
    let other_up = plan.since(other, false, now);
    if let (Some(down), Some(up)) = (plan.since(used.cluster, true, now), other_up) {
        let latest = (down.max(used.since) + plan.failover_delay + 2 * round).max(up + round);
        if now > latest {
            let what = || format!("client {client} is in cluster {} at {now:?}: {:?}", used.cluster, plan.outages);
            users.handle.report_violation("a lost cluster is left in time", what);
        }
    }
    if let (1, Some(up)) = (used.cluster, other_up) {
        if now > up.max(used.since) + plan.switch_back_delay + 2 * round {
            let what = || format!("client {client} is in cluster 1 at {now:?}: {:?}", plan.outages);
            users.handle.report_violation("the primary is in use again in time", what);
        }
    }
}

/// A client uses the cluster that is named, in time.
fn check_named(users: &Users, client: usize, used: Use, now: Duration) {
    let (since, named) = users.plan.named(now);
    if named.is_some_and(|named| named != used.cluster) && now > since + users.plan.check_interval + ROUND {
        let what = || format!("client {client} is in cluster {} at {now:?}: {:?}", used.cluster, users.plan.names);
        users.handle.report_violation("the cluster that is named is in use in time", what);
    }
}

/// Nothing is attached to a cluster that its client has left.
fn check_attached(users: &Users, now: Duration) {
    let mut handles = std::mem::take(&mut users.notes.borrow_mut().handles);
    handles.retain_mut(Watched::read);
    let notes = users.notes.borrow();
    if users.plan.theme != Theme::Migration {
        for handle in &handles {
            let Some(used) = notes.uses.get(&handle.client).filter(|used| now > used.since + LEFT_WITHIN) else {
                continue;
            };
            if handle.is_attached_to(users, 1 - used.cluster) {
                let what = || format!("{}, at {now:?}: {:?}", handle.name, handle.present);
                users.handle.report_violation("attached to the cluster in use", what);
            }
        }
    }
    // Without faults, nothing but a switch detaches anything; while all is drained, the application makes them.
    let is_calm = users.plan.theme == Theme::Named && users.plan.faults.is_empty() && !users.is_draining.get();
    for handle in &mut handles {
        let is_other = handle.is_attached_anew();
        let used = notes.uses.get(&handle.client).filter(|used| now > used.since + SETTLED_WITHIN);
        if is_calm && is_other && used.is_some() {
            let what = || format!("{}, at {now:?}: {:?}", handle.name, handle.present);
            users.handle.report_violation("only a switch detaches", what);
        }
    }
    drop(notes);
    users.notes.borrow_mut().handles.append(&mut handles);
}

impl Watched {
    /// Reads the present state; whether there are more to come.
    fn read(&mut self) -> bool {
        loop {
            match pin!(self.watch.changed()).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(state)) => self.present = Some(state),
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }

    /// Whether all parts are attached, and not as they were when that was asked last.
    fn is_attached_anew(&mut self) -> bool {
        let parts = self.present.iter().flat_map(|state| &state.parts);
        let attached = parts.map(|part| match &part.state {
            AttachState::Attached { since, .. } => Some(*since),
            _ => None,
        });
        let Some(attached) = attached.collect::<Option<Vec<_>>>().filter(|attached| !attached.is_empty()) else {
            return false;
        };
        let is_other = !self.attached.is_empty() && self.attached != attached;
        self.attached = attached;
        is_other
    }

    fn is_attached_to(&self, users: &Users, cluster: usize) -> bool {
        let cluster = users.handle.cluster(cluster);
        let parts = self.present.iter().flat_map(|state: &HandleState| &state.parts);
        parts.into_iter().any(|part| match &part.state {
            AttachState::Attached { broker, .. } => cluster.has_broker(broker),
            _ => false,
        })
    }
}

/// Whether all that is sent has its result, all that a cluster stores was acknowledged there, and all that the application
/// has is attached to that cluster.
pub(super) fn is_settled(sim: &Simulation, users: &Users, cluster: usize) -> bool {
    let notes = users.notes.borrow();
    notes.producers_left == 0
        && notes.sends.values().all(|sent| *sent != Sent::Pending)
        && is_drained(sim, users, cluster)
        && notes.handles.iter().all(|handle| handle.is_attached_to(users, cluster))
}

pub(super) fn is_drained(sim: &Simulation, users: &Users, cluster: usize) -> bool {
    users.plan.topics.iter().all(|topic| {
        let stats = sim.cluster(cluster).stats(&topic.name);
        let backlog = stats.and_then(|stats| Some(stats.subscriptions.get(SUBSCRIPTION)?.msg_backlog));
        backlog == Some(0)
    })
}

pub(super) fn unsettled(sim: &Simulation, users: &Users, cluster: usize) -> String {
    let notes = users.notes.borrow();
    let pending: Vec<_> =
        notes.sends.iter().filter(|(_, sent)| **sent == Sent::Pending).map(|(name, _)| name).collect();
    let handles: Vec<_> = notes.handles.iter().map(|handle| (&handle.name, &handle.present)).collect();
    let stats = users.plan.topics.iter().map(|topic| [0, 1].map(|cluster| sim.cluster(cluster).stats(&topic.name)));
    let stats: Vec<_> = stats.collect();
    let left = notes.producers_left;
    format!(
        "in cluster {cluster}: producers left {left}, pending {pending:?}, {:?}, {handles:?}, {stats:?}",
        notes.uses
    )
}

/// A cluster has as acknowledged only what the application has acknowledged: ids of the other one name other messages.
pub(super) fn check_acked(sim: &Simulation, users: &Users) {
    let notes = users.notes.borrow();
    for (cluster, topic) in [0, 1].into_iter().flat_map(|it| users.plan.topics.iter().map(move |topic| (it, topic))) {
        let brokers = sim.cluster(cluster);
        let stored = brokers.stored_messages(&topic.name);
        let at: BTreeMap<Key, Payload> =
            stored.iter().map(|message| (key(&message.id), (topic.name.clone(), text(&message.payload)))).collect();
        for message in &stored {
            let (here, payload) = (key(&message.id), &at[&key(&message.id)]);
            let is_behind = |(last, up_to): &(Payload, Key)| *up_to >= here && at.get(up_to) == Some(last);
            let is_known = notes.acked.contains(payload) || notes.acked_up_to.iter().any(is_behind);
            if !is_known && brokers.is_acknowledged(&topic.name, SUBSCRIPTION, &message.id) == Some(true) {
                let what = || format!("{} with {payload:?} in cluster {cluster}", message.id);
                users.handle.report_violation("acknowledged only what the application did", what);
            }
        }
    }
}

/// Once both clusters are drained: what each stores was sent and received, and what was confirmed is there.
pub(super) fn check_log(sim: &Simulation, users: &Users) {
    let fail = |checker: &'static str, detail: String| users.handle.report_violation(checker, || detail);
    let notes = users.notes.borrow();
    let mut stored: BTreeMap<Payload, Vec<(usize, Key)>> = BTreeMap::new();
    for (cluster, topic) in [0, 1].into_iter().flat_map(|it| users.plan.topics.iter().map(move |topic| (it, topic))) {
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for message in sim.cluster(cluster).stored_messages(&topic.name) {
            let payload = (topic.name.clone(), text(&message.payload));
            let places = stored.entry(payload.clone()).or_default();
            // First copies are in the order of the sends; copies of a re-send may follow.
            if places.iter().all(|(there, _)| *there != cluster) {
                let instance = payload.1.rsplit_once('.').map_or("", |(instance, _)| instance).to_owned();
                let before = last.entry(instance).or_default();
                if *before >= payload.1 {
                    fail("log in the order of the sends", format!("{payload:?} after {before} in cluster {cluster}"));
                }
                *before = payload.1;
            }
            places.push((cluster, key(&message.id)));
        }
    }
    for payload in stored.keys() {
        if !notes.sends.contains_key(payload) {
            fail("what is stored was sent", format!("{payload:?}"));
        }
        if !notes.received.contains(payload) {
            fail("everything stored is received", format!("{payload:?}, in {:?}", stored[payload]));
        }
    }
    for (payload, sent) in &notes.sends {
        let is_stored = stored.contains_key(payload);
        match sent {
            Sent::Stored if !is_stored => fail("what is confirmed is stored", format!("{payload:?}")),
            Sent::Failed { may_be_stored: false } if is_stored => {
                fail("what surely failed is not stored", format!("{payload:?}"));
            }
            _ => {}
        }
    }
    // Deduplication gives no id to what it drops.
    for (payload, id) in notes.ids.iter().filter(|(_, id)| id.ledger_id().is_some()) {
        let places = stored.get(payload);
        if places.is_none_or(|places| places.iter().all(|(_, place)| *place != key(id))) {
            fail("an id names the message that was sent", format!("{id} was given for {payload:?}, in {places:?}"));
        }
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
