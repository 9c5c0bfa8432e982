//! The users: clients, producers and consumers that use the API in every way that is allowed, and their notes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use pulsar_native::sim::{Handle, Rng, Simulation};
use pulsar_native::{
    Client, Consumer, ConsumerEvent, Error, ErrorKind, InitialPosition, Message, MessageId, PendingSend, Producer,
    ReceivedMessage, SendError, SubscriptionType, TryEnqueueError,
};

use super::plan::{Plan, ProducerPlan, SubscriptionPlan, TopicPlan};

/// The state of one message that a user tried to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Handed over; no result yet.
    Pending,
    Stored,
    /// Failed, or never accepted.
    Failed {
        may_be_stored: bool,
    },
    /// The future was dropped: it is not known.
    Unknown,
}

/// The notes of all users.
#[derive(Default)]
pub(super) struct Notes {
    /// By payload, in the order of the pushes: `topic.producer.instance.number`.
    pub(super) sends: BTreeMap<String, Sent>,
    /// The id each send ended with.
    pub(super) ids: BTreeMap<String, MessageId>,
    pub(super) producers_left: usize,
    pub(super) consumers_left: usize,
    pub(super) clients_left: usize,
    /// What each subscription (topic, name) was given: message -> how often.
    pub(super) received: BTreeMap<(String, String), BTreeMap<Key, usize>>,
    /// What was acknowledged, confirmed or not, and up to where cumulatively.
    pub(super) acked: BTreeMap<(String, String), (BTreeSet<Key>, Option<Key>)>,
    /// When an acknowledgement was confirmed.
    pub(super) confirmed: BTreeMap<(String, String), BTreeMap<Key, Duration>>,
}

/// Results that came by callback, with their payload.
type Callbacks = Arc<Mutex<Vec<(String, Result<MessageId, SendError>)>>>;

/// Ledger, entry, member.
pub(super) type Key = (u64, u64, u32);

pub(super) fn key(id: &MessageId) -> Key {
    (id.position().ledger_id, id.position().entry_id, id.batch_index().unwrap_or(0))
}

#[derive(Clone)]
pub(super) struct Users {
    pub(super) handle: Handle,
    pub(super) notes: Rc<RefCell<Notes>>,
    pub(super) callbacks: Callbacks,
    pub(super) is_draining: Rc<Cell<bool>>,
    pub(super) is_over: Rc<Cell<bool>>,
    pub(super) may_close: Rc<Cell<bool>>,
    /// No fault is injected in this run.
    pub(super) is_clean: bool,
}

pub(super) fn spawn_all(sim: &Simulation, plan: &Plan, users: &Users) {
    for client in 0..plan.clients {
        let (users, topics) = (users.clone(), plan.topics.clone());
        let (operation_timeout, keep_alive_interval) = (plan.operation_timeout, plan.keep_alive_interval);
        users.notes.borrow_mut().clients_left += 1;
        for topic in &topics {
            let mine = topic.producers.iter().filter(|producer| producer.client == client).count();
            users.notes.borrow_mut().producers_left += mine;
            let consumers = topic.subscriptions.iter().flat_map(|subscription| &subscription.consumers);
            users.notes.borrow_mut().consumers_left += consumers.filter(|at| **at == client).count();
        }
        sim.spawn(async move {
            let connected = loop {
                let handle = &users.handle;
                let builder =
                    handle.builder().operation_timeout(operation_timeout).keep_alive_interval(keep_alive_interval);
                match handle.connect(builder).await {
                    Ok(connected) => break connected,
                    Err(error) => handle.trace(|| format!("client {client} did not connect: {error}")),
                }
                handle.sleep(Duration::from_millis(500)).await;
            };
            for (number, topic) in topics.iter().enumerate() {
                for (index, plan) in topic.producers.iter().enumerate().filter(|(_, plan)| plan.client == client) {
                    let name = format!("{number}.{index}");
                    users.handle.spawn(produce(users.clone(), connected.clone(), topic.clone(), plan.clone(), name));
                }
                for plan in &topic.subscriptions {
                    for (index, _) in plan.consumers.iter().enumerate().filter(|(_, at)| **at == client) {
                        let (topic, plan) = (topic.clone(), plan.clone());
                        users.handle.spawn(consume(users.clone(), connected.clone(), topic, plan, index));
                    }
                }
            }
            while !users.may_close.get() {
                users.handle.sleep(Duration::from_millis(200)).await;
            }
            if let Err(error) = connected.close().await {
                users.handle.trace(|| format!("client {client}: close: {error}"));
            }
            users.notes.borrow_mut().clients_left -= 1;
        });
    }
}

/// Polls a future to its end, or drops it after some polls or some time: then `None`.
async fn maybe<T>(users: &Users, rng: &mut Rng, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let (mut polls, time) = match rng.below(12) {
        0 => (rng.range_inclusive(1, 3), Duration::from_secs(3600)),
        1 => (u64::MAX, rng.duration(Duration::ZERO, Duration::from_secs(3))),
        // About as long as one response takes.
        2 => (u64::MAX, rng.duration(Duration::ZERO, Duration::from_millis(25))),
        _ => (u64::MAX, Duration::from_secs(3600)),
    };
    let mut timer: Pin<Box<dyn Future<Output = ()>>> = Box::pin(users.handle.sleep(time));
    std::future::poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if !users.handle.is_probing() {
            polls -= 1;
        }
        if polls == 0 || timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

// Producers.

async fn produce(users: Users, client: Client, topic: TopicPlan, plan: ProducerPlan, name: String) {
    let mut rng = users.handle.rng();
    let (mut instance, mut names) = (0, 0);
    let mut number = 0;
    while number < plan.messages {
        let mut builder = client
            .producer(topic.name.as_str())
            .batching(plan.batching)
            .batching_max_publish_delay(plan.batching_max_publish_delay)
            .send_timeout(plan.send_timeout)
            .max_pending_messages(plan.pending_max);
        if let Some(name) = &plan.name {
            // A name is reused once its producer is known to be closed: before that, the sequence ids of two producers
            // overlap, and deduplication drops messages of one.
            builder = builder.name(format!("{name}-{names}"));
        }
        let producer = match maybe(&users, &mut rng, builder.create()).await {
            Some(Ok(producer)) => producer,
            Some(Err(error)) => {
                users.handle.trace(|| format!("producer {name}.{instance} was not created: {error}"));
                names += 1;
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => {
                names += 1;
                continue;
            }
        };
        users.handle.trace(|| format!("producer {name}.{instance} is created"));
        while number < plan.messages {
            let payload = format!("{name}.{instance}.{number:04}");
            number += 1;
            let alive = send_one(&users, &mut rng, &producer, &plan, payload).await;
            if !alive || rng.chance_per_mille(10) {
                break;
            }
        }
        names += 1;
        if rng.chance_per_mille(500) {
            let closed = maybe(&users, &mut rng, producer.close()).await;
            if matches!(closed, Some(Ok(()))) {
                names -= 1;
            }
            users.handle.trace(|| format!("producer {name}.{instance} is closed: {closed:?}"));
        }
        drop(producer);
        instance += 1;
    }
    users.notes.borrow_mut().producers_left -= 1;
}

/// Sends one message in a random way; whether the producer still works.
async fn send_one(users: &Users, rng: &mut Rng, producer: &Producer, plan: &ProducerPlan, payload: String) -> bool {
    let padding = match rng.below(20) {
        0 => 20_000,
        1..=3 => rng.below(3000) as usize,
        _ => 0,
    };
    let message = Message::new(format!("{payload}|{:padding$}", "")).with_key(format!("k{}", rng.below(5)));
    let note = |sent: Sent| {
        users.handle.trace(|| format!("send {payload}: {sent:?}"));
        users.notes.borrow_mut().sends.insert(payload.clone(), sent);
    };
    let mut alive = true;
    match rng.below(10) {
        0..=3 => match maybe(users, rng, producer.enqueue(message)).await {
            Some(Ok(pending)) => {
                note(Sent::Pending);
                users.handle.spawn(watch(users.clone(), payload.clone(), pending));
            }
            Some(Err(error)) => {
                note(failed(&error));
                alive = is_alive(users, &error);
            }
            // Dropped before it was accepted: not sent.
            None => note(Sent::Failed { may_be_stored: false }),
        },
        4..=5 => match maybe(users, rng, producer.send(message)).await {
            Some(Ok(id)) => {
                note(Sent::Stored);
                users.notes.borrow_mut().ids.insert(payload.clone(), id);
            }
            Some(Err(error)) => {
                note(failed(&error));
                alive = is_alive(users, &error);
            }
            None => note(Sent::Unknown),
        },
        6..=7 => {
            note(Sent::Pending);
            let (callbacks, name) = (users.callbacks.clone(), payload.clone());
            let callback = move |result| callbacks.lock().expect("not poisoned").push((name, result));
            match maybe(users, rng, producer.enqueue_with(message, callback)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    note(failed(&error));
                    alive = is_alive(users, &error);
                }
                None => note(Sent::Failed { may_be_stored: false }),
            }
        }
        _ => match producer.try_enqueue(message) {
            Ok(pending) => {
                note(Sent::Pending);
                users.handle.spawn(watch(users.clone(), payload.clone(), pending));
            }
            Err(TryEnqueueError::Full(_)) => note(Sent::Failed { may_be_stored: false }),
            Err(TryEnqueueError::Refused(error)) => {
                note(failed(&error));
                alive = is_alive(users, &error);
            }
            Err(other) => unreachable!("{other}"),
        },
    }
    if rng.chance_per_mille(100) {
        let flushed = maybe(users, rng, producer.flush()).await;
        users.handle.trace(|| format!("flush: {flushed:?}"));
    }
    if !plan.pace.is_zero() && !users.is_draining.get() {
        let pause = rng.duration(Duration::ZERO, plan.pace);
        users.handle.sleep(pause).await;
    }
    alive
}

async fn watch(users: Users, payload: String, pending: PendingSend) {
    let result = pending.await;
    settle(&users, &payload, &result);
}

pub(super) fn settle(users: &Users, payload: &str, result: &Result<MessageId, SendError>) {
    let sent = match result {
        Ok(id) => {
            users.notes.borrow_mut().ids.insert(payload.to_owned(), id.clone());
            Sent::Stored
        }
        Err(error) => failed(error),
    };
    users.handle.trace(|| format!("settled {payload}: {sent:?}"));
    let before = users.notes.borrow_mut().sends.insert(payload.to_owned(), sent);
    if before != Some(Sent::Pending) {
        users.handle.report_violation("a send resolves once", || format!("{payload}: {sent:?} after {before:?}"));
    }
}

fn failed(error: &SendError) -> Sent {
    Sent::Failed { may_be_stored: error.may_be_stored() }
}

/// Whether the producer still works after this error of one send. A quota, and a generated name that was taken, fail
/// what is pending and not the producer.
fn is_alive(users: &Users, error: &SendError) -> bool {
    let kind = error.error().kind();
    let passing = [
        ErrorKind::TimedOut,
        ErrorKind::QueueFull,
        ErrorKind::MessageTooLarge,
        ErrorKind::BacklogQuotaExceeded,
        ErrorKind::Busy,
    ];
    let is_alive = passing.contains(&kind);
    if !is_alive && kind != ErrorKind::NotAllowed {
        check_end(users, error.error());
    }
    is_alive
}

/// What has been attached ends by a final refusal, or because the application or the client's close ends it.
fn check_end(users: &Users, error: &Error) {
    let ends = [ErrorKind::TopicNotFound, ErrorKind::TopicTerminated, ErrorKind::Fenced, ErrorKind::Closed];
    if !ends.contains(&error.kind()) {
        users.handle.report_violation("ends by a final refusal", || error.to_string());
    }
}

// Consumers.

async fn consume(users: Users, client: Client, topic: TopicPlan, plan: SubscriptionPlan, index: usize) {
    let mut rng = users.handle.rng();
    while !users.is_over.get() {
        let builder = client
            .consumer(topic.name.as_str(), plan.name.as_str())
            .subscription_type(plan.kind)
            .initial_position(InitialPosition::Earliest)
            .receiver_queue_size(plan.queue)
            .batch_index_acknowledgment(plan.index_acks)
            .negative_ack_redelivery_delay(Duration::from_secs(1))
            .name(format!("c{index}"));
        let consumer = match maybe(&users, &mut rng, builder.subscribe()).await {
            Some(Ok(consumer)) => consumer,
            Some(Err(error)) => {
                users.handle.trace(|| format!("consumer {}/{index} was not created: {error}", plan.name));
                users.handle.sleep(Duration::from_millis(300)).await;
                continue;
            }
            None => continue,
        };
        users.handle.trace(|| format!("consumer {}/{index} is created", plan.name));
        receive_all(&users, &mut rng, consumer, &plan).await;
    }
    users.notes.borrow_mut().consumers_left -= 1;
}

/// Receives until the consumer or the run ends.
async fn receive_all(users: &Users, rng: &mut Rng, mut consumer: Consumer, plan: &SubscriptionPlan) {
    let mut events = consumer.events();
    let mut held: Vec<ReceivedMessage> = Vec::new();
    let mut left: u64 = if rng.chance_per_mille(300) { rng.range_inclusive(1, 60) } else { u64::MAX };
    loop {
        if users.is_over.get() || (left == 0 && !users.is_draining.get()) {
            break;
        }
        // A partition that has ended gets no further messages: the user starts again with all of them.
        if let Some(ConsumerEvent::TopicEnded { topic, error, .. }) = events.try_recv() {
            users.handle.trace(|| format!("consumer {} of {topic} has ended: {error}", plan.name));
            check_end(users, &error);
            users.handle.sleep(Duration::from_millis(100)).await;
            break;
        }
        left = left.saturating_sub(1);
        if users.is_draining.get() {
            for message in held.drain(..) {
                ack(users, plan, &consumer, &message);
            }
        }
        // A pause in which messages pile up.
        if rng.chance_per_mille(60) && !users.is_draining.get() {
            users.handle.sleep(rng.duration(Duration::ZERO, Duration::from_secs(2))).await;
        }
        let wait = users.handle.sleep(Duration::from_millis(700));
        let message = match first(maybe(users, rng, consumer.receive()), wait).await.flatten() {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                users.handle.trace(|| format!("consumer of {} has ended: {error}", plan.name));
                check_end(users, &error);
                users.handle.sleep(Duration::from_millis(100)).await;
                return;
            }
            None => continue,
        };
        note_received(users, plan, &message);
        if users.is_draining.get() {
            ack(users, plan, &consumer, &message);
            continue;
        }
        match rng.below(10) {
            0..=4 => ack(users, plan, &consumer, &message),
            5 => confirm(users, rng, &consumer, plan, message, &mut held).await,
            6 if is_in_order(plan) => {
                note_acked(users, plan, &message, true);
                if consumer.ack_cumulative(&message).is_err() {
                    held.push(message);
                }
            }
            6 => {
                let kind = consumer.ack_cumulative(&message).err().map(|error| error.kind());
                if !matches!(kind, Some(ErrorKind::NotAllowed | ErrorKind::Closed)) {
                    users.handle.report_violation("no cumulative ack on a shared subscription", || format!("{kind:?}"));
                }
                held.push(message);
            }
            7 => drop(consumer.nack(&message)),
            8 => held.push(message),
            _ => {
                consumer.redeliver_unacknowledged_messages();
                ack(users, plan, &consumer, &message);
            }
        }
    }
    let mut acked = Vec::new();
    for message in held.drain(..).filter(|_| rng.chance_per_mille(500)) {
        ack(users, plan, &consumer, &message);
        acked.push(message);
    }
    if rng.chance_per_mille(700) {
        let closed = maybe(users, rng, consumer.close()).await;
        users.handle.trace(|| format!("consumer of {} is closed: {closed:?}", plan.name));
        // Where nothing goes wrong, what was acknowledged just before the close has arrived.
        for message in acked.iter().filter(|_| users.is_clean && matches!(closed, Some(Ok(())))) {
            let id = message.id();
            let known = plan.index_acks || id.batch_size().is_none_or(|size| size == 1);
            if known && users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
                users
                    .handle
                    .report_violation("a close sends the acknowledgements", || format!("{id} of {}", plan.name));
            }
        }
    }
}

fn is_in_order(plan: &SubscriptionPlan) -> bool {
    matches!(plan.kind, SubscriptionType::Exclusive | SubscriptionType::Failover)
}

async fn first<T>(future: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => other.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Notes what the application has acknowledged, before it does so.
fn note_acked(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage, cumulative: bool) {
    let key = key(&message.id());
    let mut notes = users.notes.borrow_mut();
    let (acked, up_to) = notes.acked.entry((message.topic().to_owned(), plan.name.clone())).or_default();
    acked.insert(key);
    if cumulative {
        *up_to = (*up_to).max(Some(key));
    }
}

fn ack(users: &Users, plan: &SubscriptionPlan, consumer: &Consumer, message: &ReceivedMessage) {
    note_acked(users, plan, message, false);
    let result = consumer.ack(message);
    users.handle.trace(|| format!("ack {}: {result:?}", message.id()));
}

async fn confirm(
    users: &Users,
    rng: &mut Rng,
    consumer: &Consumer,
    plan: &SubscriptionPlan,
    message: ReceivedMessage,
    held: &mut Vec<ReceivedMessage>,
) {
    let cumulative = plan.kind == SubscriptionType::Exclusive && rng.chance_per_mille(300);
    note_acked(users, plan, &message, cumulative);
    let acker = consumer.acker();
    let asked = async {
        if cumulative { acker.ack_cumulative_confirmed(&message).await } else { acker.ack_confirmed(&message).await }
    };
    let result = maybe(users, rng, asked).await;
    let id = message.id();
    users.handle.trace(|| format!("confirmed {id}: {result:?}"));
    if !matches!(result, Some(Ok(()))) {
        held.push(message);
        return;
    }
    // Without index acknowledgement the rest of its batch decides.
    if !plan.index_acks && id.batch_size().is_some_and(|size| size > 1) {
        return;
    }
    if users.handle.is_acknowledged(message.topic(), &plan.name, &id) != Some(true) {
        users.handle.report_violation("confirmed is acknowledged", || format!("{id} of {}", plan.name));
    }
    let at = users.handle.elapsed();
    let subscription = (message.topic().to_owned(), plan.name.clone());
    users.notes.borrow_mut().confirmed.entry(subscription).or_default().insert(key(&id), at);
}

fn note_received(users: &Users, plan: &SubscriptionPlan, message: &ReceivedMessage) {
    let id = message.id();
    let text = message.to_string_lossy();
    users.handle.trace(|| format!("received {id} on {}: {}", plan.name, text.split('|').next().unwrap_or_default()));
    let subscription = (message.topic().to_owned(), plan.name.clone());
    let deliveries = users.handle.deliveries(message.topic(), &plan.name, &id);
    let mut notes = users.notes.borrow_mut();
    let times = notes.received.entry(subscription.clone()).or_default().entry(key(&id)).or_default();
    *times += 1;
    if *times > deliveries.len() {
        let (times, sent) = (*times, deliveries.len());
        users
            .handle
            .report_violation("received as often as delivered", || format!("{id}: {times} times, sent {sent} times"));
    }
    let confirmed = notes.confirmed.get(&subscription).and_then(|confirmed| confirmed.get(&key(&id)));
    if let Some(at) = confirmed {
        if deliveries.last().is_some_and(|sent| sent > at) {
            users.handle.report_violation("confirmed does not come back", || format!("{id} of {}", plan.name));
        }
    }
}
