//! The invariants that are checked at the end of a run.

use std::collections::{BTreeMap, BTreeSet};

use pulsar_native::sim::Simulation;
use pulsar_native::{Client, MemoryUsage};

use super::by_key::StuckKey;
use super::failures::{has_no_retries, letters, payload};
use super::plan::{MESSAGE_BYTES_MAX, Plan, TopicPlan};
use super::producers::{check_live, settle};
use super::told::check_told;
use super::users::{Key, Notes, Sent, Users, key};

/// Checks what holds whenever no task is woken.
pub(super) fn check_now(users: &Users) {
    collect_callbacks(users);
    check_live(users);
    check_told(users);
    for usage in users.notes.borrow().clients.iter().map(Client::memory_usage) {
        // A message that is larger than the limit is let in alone.
        if usage.limit > 0 && usage.used > usage.limit.max(MESSAGE_BYTES_MAX) {
            users.handle.report_violation("memory stays within the limit", || usage.to_string());
        }
    }
}

/// What the producers of each client use of its memory limit, where that is something.
pub(super) fn memory_in_use(users: &Users) -> Vec<MemoryUsage> {
    let notes = users.notes.borrow();
    notes.clients.iter().map(Client::memory_usage).filter(|usage| usage.used > 0).collect()
}

pub(super) fn is_settled(sim: &Simulation, plan: &Plan, users: &Users) -> bool {
    check_now(users);
    let notes = users.notes.borrow();
    if notes.producers_left > 0 || notes.sends.values().any(|sent| *sent == Sent::Pending) {
        return false;
    }
    if !notes.stuck.is_empty() && !users.may_unstick.get() {
        users.may_unstick.set(notes.stuck.iter().all(|stuck| are_others_done(sim, plan, &notes, stuck)));
        return false;
    }
    let is_done = |topic: &TopicPlan| topic.parts().iter().all(|part| is_drained(sim, topic, part));
    plan.topics.iter().all(|topic| is_done(topic) && has_no_retries(sim, topic))
}

/// Whether a subscription has received all that is stored but messages of its stuck key.
fn are_others_done(sim: &Simulation, plan: &Plan, notes: &Notes, stuck: &StuckKey) -> bool {
    let topic = plan.topics.iter().find(|topic| topic.name == stuck.topic).expect("a topic of the plan");
    topic.parts().into_iter().all(|part| {
        let name = (part, stuck.subscription.clone());
        let received = notes.received.get(&name);
        sim.stored_messages(&name.0).iter().all(|message| {
            let text = String::from_utf8_lossy(&message.payload);
            text.split('|').nth(1) == Some(&stuck.key)
                || received.is_some_and(|received| received.contains_key(&key(&message.id)))
                || sim.delivery_was_corrupted(&name.0, &name.1, &message.id)
        })
    })
}

fn is_drained(sim: &Simulation, topic: &TopicPlan, part: &str) -> bool {
    let Some(stats) = sim.stats(part) else { return false };
    topic
        .subscriptions
        .iter()
        .all(|plan| stats.subscriptions.get(&plan.name).is_some_and(|subscription| subscription.msg_backlog == 0))
}

/// Whether the brokers have no producer and no consumer left.
pub(super) fn has_no_endpoints(sim: &Simulation, plan: &Plan, users: &Users) -> bool {
    let notes = users.notes.borrow();
    notes.producers_left + notes.consumers_left == 0
        && plan.parts().iter().filter_map(|part| sim.stats(part)).all(|stats| {
            stats.publishers.is_empty() && stats.subscriptions.values().all(|found| found.consumers.is_empty())
        })
}

/// Checks that an application has acknowledged whatever the brokers have as acknowledged.
pub(super) fn check_acked(sim: &Simulation, plan: &Plan, users: &Users) {
    let notes = users.notes.borrow();
    for topic in &plan.topics {
        let given_up: Vec<_> = topic.subscriptions.iter().map(|plan| letters(sim, topic, plan)).collect();
        for part in topic.parts() {
            for message in sim.stored_messages(&part) {
                let text = payload(&String::from_utf8_lossy(&message.payload));
                for (subscription, given_up) in topic.subscriptions.iter().zip(&given_up) {
                    let subscription = &subscription.name;
                    if sim.is_acknowledged(&part, subscription, &message.id) != Some(true)
                        || sim.delivery_was_corrupted(&part, subscription, &message.id)
                    {
                        continue;
                    }
                    let acked = notes.acked.get(&(part.clone(), subscription.clone()));
                    let key = key(&message.id);
                    let known = acked.is_some_and(|(acked, up_to)| acked.contains(&key) || Some(key) <= *up_to);
                    if !known && !given_up.contains(&text) {
                        let what = || format!("{} on {subscription}", message.id);
                        users.handle.report_violation("acknowledged only what the application did", what);
                    }
                }
            }
        }
    }
}

fn collect_callbacks(users: &Users) {
    let called = std::mem::take(&mut *users.callbacks.lock().expect("not poisoned"));
    for (payload, result) in called {
        settle(users, &payload, &result);
    }
}

pub(super) fn unsettled(sim: &Simulation, plan: &Plan, users: &Users) -> String {
    let notes = users.notes.borrow();
    let pending: Vec<_> =
        notes.sends.iter().filter(|(_, sent)| **sent == Sent::Pending).map(|(name, _)| name).collect();
    let mut backlogs = Vec::new();
    for topic in &plan.topics {
        for part in topic.parts() {
            match sim.stats(&part) {
                Some(stats) => backlogs.push(format!("{part}: {:?}", stats.subscriptions)),
                None => backlogs.push(format!("{part}: no such topic")),
            }
        }
    }
    format!("producers left {}, sends pending {pending:?}, {backlogs:?}", notes.producers_left)
}

pub(super) fn check_log(sim: &Simulation, plan: &Plan, users: &Users) {
    let fail = |checker: &'static str, detail: String| users.handle.report_violation(checker, || detail);
    let notes = users.notes.borrow();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut at: BTreeMap<(Key, Option<u32>), String> = BTreeMap::new();
    for topic in &plan.topics {
        for part in topic.parts() {
            let mut orders: BTreeMap<String, String> = BTreeMap::new();
            let stored = sim.stored_messages(&part);
            for message in &stored {
                let text = String::from_utf8_lossy(&message.payload);
                let payload = text.split('|').next().unwrap_or_default().to_owned();
                let mut instance = payload.rsplit_once('.').map_or(String::new(), |(instance, _)| instance.to_owned());
                // Batches of several keys overtake one another.
                if topic.producers.iter().any(|plan| plan.batches_by_key) {
                    instance.extend(text.split('|').nth(1));
                }
                at.insert((key(&message.id), message.id.partition()), payload.clone());
                let times = seen.entry(payload.clone()).or_default();
                *times += 1;
                // First copies are in the order of the pushes; copies of a re-send may follow.
                if *times == 1 {
                    let last = orders.entry(instance).or_default();
                    if *last >= payload {
                        fail("log in the order of the sends", format!("{payload} after {last} in {part}"));
                    }
                    *last = payload;
                }
            }
            for subscription in &topic.subscriptions {
                let name = (part.clone(), subscription.name.clone());
                let given_up = letters(sim, topic, subscription);
                let received: BTreeSet<Key> =
                    notes.received.get(&name).map(|received| received.keys().copied().collect()).unwrap_or_default();
                for message in &stored {
                    let given_up = || given_up.contains(&payload(&String::from_utf8_lossy(&message.payload)));
                    let damaged = sim.delivery_was_corrupted(&part, &subscription.name, &message.id);
                    if !received.contains(&key(&message.id)) && !damaged && !given_up() {
                        fail("everything stored is received", format!("{} on {}", message.id, subscription.name));
                    }
                }
            }
        }
    }
    for (payload, sent) in &notes.sends {
        let times = seen.get(payload).copied().unwrap_or(0);
        match sent {
            Sent::Stored if times == 0 => fail("what is confirmed is stored", payload.clone()),
            Sent::Failed { may_be_stored: false } if times > 0 => {
                fail("what surely failed is not stored", payload.clone());
            }
            _ => {}
        }
        if plan.broker.broker_deduplication_enabled && times > 1 {
            fail("deduplication: stored once", format!("{payload}: {times} times"));
        }
    }
    // Deduplication gives no id to what it drops. Two topics have no ledger in common.
    for (payload, id) in notes.ids.iter().filter(|(_, id)| id.ledger_id().is_some()) {
        let stored = at.get(&(key(id), id.partition()));
        // Where its receipts were lost, the id is that of a copy of the last chunk.
        let is_of_copy = stored.is_none() && id.first_chunk().is_some();
        if stored != Some(payload) && !is_of_copy {
            fail("an id names the message that was sent", format!("{id} was given for {payload}, and is {stored:?}"));
        }
    }
    for payload in seen.keys().filter(|payload| !notes.sends.contains_key(*payload)) {
        fail("what is stored was sent", payload.clone());
    }
}
