//! The users: clients, producers and consumers that use the API in every way that is allowed, and their notes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use pulsar_native::sim::{Handle, Rng, Simulation};
use pulsar_native::{Client, Error, ErrorKind, MessageId, SendError};

use super::by_key::StuckKey;
use super::consumers::consume;
use super::plan::Plan;
use super::producers::{LiveProducer, produce};
use super::told::{Told, watch_client};

/// The state of one message that a user tried to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
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
    /// When those that are pending were accepted.
    pub(super) accepted: BTreeMap<String, Duration>,
    /// Those that are connected, until they are to be closed.
    pub(super) clients: Vec<Client>,
    /// Producers that may be in use.
    pub(super) live: Vec<LiveProducer>,
    /// What the handles tell of themselves.
    pub(super) told: Told,
    /// Keys on which the work is stuck.
    pub(super) stuck: Vec<StuckKey>,
    /// The id each send ended with.
    pub(super) ids: BTreeMap<String, MessageId>,
    pub(super) producers_left: usize,
    pub(super) consumers_left: usize,
    pub(super) clients_left: usize,
    /// What each subscription (topic, name) was given: message -> how often.
    pub(super) received: BTreeMap<(String, String), BTreeMap<Key, usize>>,
    /// What each subscription (topic, name) was given for the first time.
    pub(super) by_key: BTreeMap<(String, String), ByKey>,
    /// The subscriptions of which a consumer has asked for all that is not acknowledged.
    pub(super) mixed_up: BTreeSet<String>,
    /// What was acknowledged, confirmed or not, and up to where cumulatively.
    pub(super) acked: BTreeMap<(String, String), (BTreeSet<Key>, Option<Key>)>,
    /// How many dead letters the consumers of a subscription (topic, name) have counted.
    pub(super) dead_letters: BTreeMap<(String, String), u64>,
    /// When an acknowledgement was confirmed.
    pub(super) confirmed: BTreeMap<(String, String), BTreeMap<Key, Duration>>,
}

/// What a Key_Shared subscription was given for the first time, by payload.
#[derive(Default)]
pub(super) struct ByKey {
    pub(super) all: BTreeSet<String>,
    /// The last one of each producer and key.
    pub(super) last: BTreeMap<(String, String), String>,
}

/// Results that came by callback, with their payload.
type Callbacks = Arc<Mutex<Vec<(String, Result<MessageId, SendError>)>>>;

/// Ledger, entry, member.
pub(crate) type Key = (u64, u64, u32);

pub(crate) fn key(id: &MessageId) -> Key {
    (id.position().ledger_id, id.position().entry_id, id.batch_index().unwrap_or(0))
}

#[derive(Clone)]
pub(super) struct Users {
    pub(super) handle: Handle,
    pub(super) notes: Rc<RefCell<Notes>>,
    pub(super) callbacks: Callbacks,
    /// How many producers of letters there were.
    pub(super) letter_producers: Arc<AtomicU64>,
    pub(super) is_draining: Rc<Cell<bool>>,
    pub(super) is_over: Rc<Cell<bool>>,
    pub(super) may_close: Rc<Cell<bool>>,
    /// Set once all but the messages of [stuck keys](StuckKey) have been worked on.
    pub(super) may_unstick: Rc<Cell<bool>>,
    /// A broker is lost from the start, and nothing else happens.
    pub(super) has_lost_broker_only: bool,
    /// No broker knows sequence ids, so a name may be used again while its last producer closes.
    pub(super) reuses_names: bool,
    /// Each close of a producer ends as soon as its messages are stored.
    pub(super) closes_are_quick: bool,
    /// The network and the brokers work, apart from refusals: a producer is refused at once or not at all.
    pub(super) has_refusals_only: bool,
    /// No fault is injected in this run.
    pub(super) is_clean: bool,
}

pub(super) fn spawn_all(sim: &Simulation, plan: &Plan, users: &Users) {
    for client in 0..plan.clients {
        let (users, topics) = (users.clone(), plan.topics.clone());
        let (operation_timeout, keep_alive_interval) = (plan.operation_timeout, plan.keep_alive_interval);
        let (memory_limit, receive_memory_limit) = (plan.memory_limit, plan.receive_memory_limit);
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
                let builder = handle
                    .builder()
                    .operation_timeout(operation_timeout)
                    .keep_alive_interval(keep_alive_interval)
                    .memory_limit(memory_limit)
                    .receive_memory_limit(receive_memory_limit);
                match handle.connect(builder).await {
                    Ok(connected) => break connected,
                    Err(error) if users.has_lost_broker_only => {
                        handle.report_violation("a client connects past a silent host", || error.to_string());
                    }
                    Err(error) => handle.trace(|| format!("client {client} did not connect: {error}")),
                }
                handle.sleep(Duration::from_millis(500)).await;
            };
            users.notes.borrow_mut().clients.push(connected.clone());
            watch_client(&users, client, &connected);
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
            users.notes.borrow_mut().clients.clear();
            if let Err(error) = connected.close().await {
                users.handle.trace(|| format!("client {client}: close: {error}"));
            }
            users.notes.borrow_mut().clients_left -= 1;
        });
    }
}

/// Polls a future to its end, or drops it after some polls or some time: then `None`.
pub(super) async fn maybe<T>(users: &Users, rng: &mut Rng, future: impl Future<Output = T>) -> Option<T> {
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

/// A part of a producer or consumer that was attached ends by a final refusal of this part, or because the application or
/// the client's close ends it.
pub(super) fn check_end(users: &Users, part: &str, error: &Error) {
    let ends = [ErrorKind::TopicNotFound, ErrorKind::TopicTerminated, ErrorKind::Fenced];
    if error.kind() == ErrorKind::Closed {
        return;
    }
    if !ends.contains(&error.kind()) {
        users.handle.report_violation("ends by a final refusal", || error.to_string());
    }
    let code = error.server_error().map(|refused| refused.code);
    let is_its_own = error.topic() == Some(part) && code.is_some_and(|code| users.handle.was_refused(part, code));
    if !is_its_own {
        users.handle.report_violation("a part ends by its own refusal", || format!("{part}: {error}"));
    }
}
