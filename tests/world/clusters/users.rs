//! The users: clients that go from one cluster to the other, their producers and consumers, and their notes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use pulsar_native::sim::{Handle, Rng};
use pulsar_native::{
    AutoClusterFailover, Client, Consumer, HandleState, InitialPosition, Message, MessageId, Producer, ReceivedMessage,
    StateWatch, SubscriptionType,
};

use super::checks::check_switch;
use super::plan::{Plan, ProducerPlan, Theme, TopicPlan};
use crate::workload::{Key, Sent, first, key};

/// The subscription of every topic.
pub(super) const SUBSCRIPTION: &str = "s";

/// A topic and a payload.
pub(super) type Payload = (String, String);

/// The cluster that a client uses, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) cluster: usize,
    pub(super) since: Duration,
}

/// A producer or consumer, as it tells its state.
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) client: usize,
    pub(super) watch: StateWatch<HandleState>,
    pub(super) present: Option<HandleState>,
    /// Since when its parts are attached, once they were all.
    pub(super) attached: Vec<SystemTime>,
}

#[derive(Default)]
pub(super) struct Notes {
    /// By client.
    pub(super) uses: BTreeMap<usize, Use>,
    pub(super) clients: Vec<Client>,
    pub(super) handles: Vec<Watched>,
    pub(super) sends: BTreeMap<Payload, Sent>,
    pub(super) ids: BTreeMap<Payload, MessageId>,
    pub(super) received: BTreeSet<Payload>,
    pub(super) acked: BTreeSet<Payload>,
    /// What was acknowledged with all before it in its cluster.
    pub(super) acked_up_to: Vec<(Payload, Key)>,
    pub(super) producers_left: usize,
    pub(super) consumers_left: usize,
}

#[derive(Clone)]
pub(super) struct Users {
    pub(super) handle: Handle,
    pub(super) plan: Rc<Plan>,
    pub(super) notes: Rc<RefCell<Notes>>,
    pub(super) is_draining: Rc<Cell<bool>>,
    pub(super) is_over: Rc<Cell<bool>>,
    pub(super) may_close: Rc<Cell<bool>>,
}

pub(super) fn spawn_all(users: &Users) {
    for client in 0..users.plan.clients {
        let of_client = |at: &usize| *at == client;
        {
            let mut notes = users.notes.borrow_mut();
            for topic in &users.plan.topics {
                notes.producers_left += topic.producers.iter().filter(|plan| of_client(&plan.client)).count();
                notes.consumers_left += topic.consumers.iter().filter(|at| of_client(at)).count();
            }
        }
        let users = users.clone();
        users.handle.clone().spawn(async move { use_client(users, client).await });
    }
}

async fn use_client(users: Users, number: usize) {
    let (handle, plan) = (users.handle.clone(), users.plan.clone());
    let connected = loop {
        let mut builder = handle.builder().operation_timeout(Duration::from_secs(10));
        if plan.theme == Theme::Failover {
            let failover = AutoClusterFailover::new(handle.cluster(1).address()).check_interval(plan.check_interval);
            let failover = failover.failover_delay(plan.failover_delay).switch_back_delay(plan.switch_back_delay);
            builder = builder.service_url_provider(failover);
        }
        if plan.theme == Theme::Named {
            builder = builder.service_url_provider(handle.named_cluster(plan.check_interval));
        }
        match handle.connect(builder).await {
            Ok(connected) => break connected,
            Err(error) => handle.trace(|| format!("client {number} did not connect: {error}")),
        }
    };
    users.notes.borrow_mut().clients.push(connected.clone());
    watch_client(&users, number, &connected);
    for (index, (at, cluster)) in plan.switches.iter().copied().enumerate() {
        let (client, handle) = (connected.clone(), handle.clone());
        users.handle.spawn(async move {
            // Not all clients at once.
            let after = at + Duration::from_millis(50) * number as u32;
            handle.sleep(after.saturating_sub(handle.elapsed())).await;
            handle.trace(|| format!("switch {index} of client {number} to cluster {cluster}"));
            client.service_url_control().switch_to(handle.cluster(cluster).address()).expect("a good cluster");
        });
    }
    for (topic_number, topic) in plan.topics.iter().enumerate() {
        for (index, producer) in topic.producers.iter().enumerate().filter(|(_, plan)| plan.client == number) {
            let name = format!("{topic_number}.{index}");
            handle.spawn(produce(users.clone(), connected.clone(), topic.clone(), producer.clone(), name));
        }
        for (index, _) in topic.consumers.iter().enumerate().filter(|(_, at)| **at == number) {
            handle.spawn(consume(users.clone(), connected.clone(), topic.clone(), number, index));
        }
    }
    while !users.may_close.get() {
        handle.sleep(Duration::from_millis(200)).await;
    }
    users.notes.borrow_mut().clients.clear();
    if let Err(error) = connected.close().await {
        handle.trace(|| format!("client {number}: close: {error}"));
    }
}

/// Notes, and checks, each switch of a client at its moment.
fn watch_client(users: &Users, number: usize, client: &Client) {
    let (users, mut watch) = (users.clone(), client.watch_state());
    users.notes.borrow_mut().uses.insert(number, Use { cluster: 0, since: users.handle.elapsed() });
    users.handle.clone().spawn(async move {
        while let Some(state) = watch.changed().await {
            let cluster = usize::from(state.service_url.contains("broker-2"));
            let now = users.handle.elapsed();
            let mut notes = users.notes.borrow_mut();
            let Some(used) = notes.uses.get_mut(&number).filter(|used| used.cluster != cluster) else { continue };
            let before = std::mem::replace(used, Use { cluster, since: now });
            drop(notes);
            users.handle.trace(|| format!("client {number} uses cluster {cluster}"));
            check_switch(&users, number, before, now);
        }
    });
}

fn watch_handle(users: &Users, name: String, client: usize, watch: StateWatch<HandleState>) {
    users.notes.borrow_mut().handles.push(Watched { name, client, watch, present: None, attached: Vec::new() });
}

async fn produce(users: Users, client: Client, topic: TopicPlan, plan: ProducerPlan, name: String) {
    let mut rng = users.handle.rng();
    let (mut number, mut instance) = (0, 0);
    while number < plan.messages {
        let builder = client.producer(topic.name.as_str()).batching(plan.batching).send_timeout(plan.send_timeout);
        let producer = match builder.create().await {
            Ok(producer) => Rc::new(producer),
            Err(error) => {
                users.handle.trace(|| format!("producer {name} was not created: {error}"));
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
        };
        watch_handle(&users, format!("producer {name}.{instance}"), plan.client, producer.watch_state());
        while number < plan.messages {
            send_one(&users, &mut rng, &producer, (topic.name.clone(), format!("{name}.{instance}.{number:04}"))).await;
            number += 1;
            if !users.is_draining.get() {
                users.handle.sleep(rng.duration(Duration::ZERO, plan.pace)).await;
            }
            if rng.chance_per_mille(40) {
                break;
            }
        }
        instance += 1;
        if number >= plan.messages {
            users.notes.borrow_mut().producers_left -= 1;
            // It is still there, to be seen in the cluster in use.
            while !users.is_over.get() {
                users.handle.sleep(Duration::from_millis(500)).await;
            }
        }
        let closed = producer.close().await;
        users.handle.trace(|| format!("producer {name} is closed: {closed:?}"));
    }
}

async fn send_one(users: &Users, rng: &mut Rng, producer: &Rc<Producer>, payload: Payload) {
    let note = |sent: Sent| {
        users.notes.borrow_mut().sends.insert(payload.clone(), sent);
    };
    note(Sent::Pending);
    let pending = match producer.enqueue(Message::new(payload.1.clone())).await {
        Ok(pending) => pending,
        Err(error) => return note(Sent::Failed { may_be_stored: error.may_be_stored() }),
    };
    let (users, handle) = (users.clone(), users.handle.clone());
    let settle = async move {
        let result = pending.await;
        users.handle.trace(|| format!("settled {payload:?}: {result:?}"));
        let mut notes = users.notes.borrow_mut();
        let sent = match result {
            Ok(id) => {
                notes.ids.insert(payload.clone(), id);
                Sent::Stored
            }
            Err(error) => Sent::Failed { may_be_stored: error.may_be_stored() },
        };
        notes.sends.insert(payload, sent);
    };
    if rng.chance_per_mille(300) {
        settle.await;
    } else {
        handle.spawn(settle);
    }
}

async fn consume(users: Users, client: Client, topic: TopicPlan, number: usize, index: usize) {
    let mut rng = users.handle.rng();
    while !users.is_over.get() {
        let builder = client
            .consumer(topic.name.as_str(), SUBSCRIPTION)
            .subscription_type(topic.kind)
            .initial_position(InitialPosition::Earliest)
            .acknowledgment_group_time(topic.ack_group_time)
            .name(format!("c{index}"));
        let mut consumer = match builder.subscribe().await {
            Ok(consumer) => consumer,
            Err(error) => {
                users.handle.trace(|| format!("consumer {index} was not created: {error}"));
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
        };
        watch_handle(&users, format!("consumer {index} of {}", topic.name), number, consumer.watch_state());
        let until = if rng.chance_per_mille(300) { rng.range_inclusive(1, 40) } else { u64::MAX };
        receive_all(&users, &mut rng, &mut consumer, &topic, until).await;
        let closed = consumer.close().await;
        users.handle.trace(|| format!("consumer {index} is closed: {closed:?}"));
    }
    users.notes.borrow_mut().consumers_left -= 1;
}

/// Receives so many messages, or until the run is over. Some are held for a while before they are acknowledged, and so
/// maybe until the client is in the other cluster.
async fn receive_all(users: &Users, rng: &mut Rng, consumer: &mut Consumer, topic: &TopicPlan, mut left: u64) {
    let mut held: Vec<(Duration, ReceivedMessage)> = Vec::new();
    while !users.is_over.get() && (left > 0 || users.is_draining.get()) {
        let now = users.handle.elapsed();
        held.retain(|(due, message)| {
            let is_due = *due <= now || users.is_draining.get();
            if is_due {
                ack(users, consumer, topic, message, false);
            }
            !is_due
        });
        let Some(message) = first(consumer.receive(), users.handle.sleep(Duration::from_millis(400))).await else {
            continue;
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                users.handle.report_violation("a consumer goes on in the other cluster", || error.to_string());
                return;
            }
        };
        left = left.saturating_sub(1);
        users.notes.borrow_mut().received.insert(payload_of(topic, &message));
        match rng.below(10) {
            0..=2 if !users.is_draining.get() => {
                let due = now + rng.duration(Duration::ZERO, Duration::from_secs(10));
                held.push((due, message));
            }
            3 if topic.kind != SubscriptionType::Shared => ack(users, consumer, topic, &message, true),
            _ => ack(users, consumer, topic, &message, false),
        }
    }
}

fn ack(users: &Users, consumer: &Consumer, topic: &TopicPlan, message: &ReceivedMessage, is_cumulative: bool) {
    let payload = payload_of(topic, message);
    users.handle.trace(|| format!("ack {payload:?}, {}", message.id()));
    let mut notes = users.notes.borrow_mut();
    if is_cumulative {
        notes.acked_up_to.push((payload.clone(), key(&message.id())));
    }
    notes.acked.insert(payload);
    drop(notes);
    // An error says that it is of a cluster that was left.
    let _ = if is_cumulative { consumer.ack_cumulative(message) } else { consumer.ack(message) };
}

fn payload_of(topic: &TopicPlan, message: &ReceivedMessage) -> Payload {
    (topic.name.clone(), message.to_string_lossy().into_owned())
}
