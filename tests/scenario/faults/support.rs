//! A client, brokers and pipes between them, and the few steps that every script is made of.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::{Future, IntoFuture};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

pub use std::time::Duration;

pub use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder, FaultEvent, SubscriptionStats};
pub use pulsar_native::{
    Client, ClientBuilder, Consumer, ConsumerBuilder, Error, ErrorKind, InitialPosition, Message, MessageId,
    PendingSend, Producer, ProducerBuilder, ReceivedMessage, SeekTo, ServerCode, SubscriptionType, Token,
};
pub use tokio::time::Instant;

use pulsar_native::client::{DialFuture, Dialer, Socket, Target};

pub(crate) use crate::common::paused::{VIRTUAL_WAIT_TIMEOUT, pass, until};
pub(crate) use crate::common::within::within_time;

/// The client's time-out for operations and sends, unless a script sets another.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What a bound allows for turns of the tasks on top of a time-out.
pub const SLACK: Duration = Duration::from_millis(500);

pub const TOPIC: &str = "persistent://public/default/t";

/// Brokers by address, and who was dialed.
#[derive(Clone, Default)]
pub struct Net {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    brokers: HashMap<String, EmbeddedBroker>,
    dialed: Vec<String>,
    refusing: bool,
}

impl Net {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, broker: &EmbeddedBroker) {
        self.state().brokers.insert(broker.address().to_string(), broker.clone());
    }

    /// Dials of it are refused.
    pub fn remove(&self, broker: &EmbeddedBroker) {
        self.state().brokers.remove(&broker.address().to_string());
    }

    /// The addresses that were dialed, in order.
    pub fn dialed(&self) -> Vec<String> {
        self.state().dialed.clone()
    }

    pub fn dials(&self) -> usize {
        self.state().dialed.len()
    }

    /// Whether every dial is refused.
    pub fn refuse(&self, refusing: bool) {
        self.state().refusing = refusing;
    }
}

impl Dialer for Net {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let address = target.address.to_string();
            let mut state = self.state();
            state.dialed.push(address.clone());
            match state.brokers.get(&address).filter(|_| !state.refusing) {
                Some(broker) => Ok(Box::new(broker.connect()) as Box<dyn Socket>),
                None => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            }
        })
    }
}

/// One broker, the pipes to it, and a client.
pub struct Stage {
    pub broker: EmbeddedBroker,
    pub net: Net,
    pub client: Client,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(EmbeddedBroker::builder(), |builder| builder).await
    }

    pub async fn deduplicating() -> Self {
        Self::with(EmbeddedBroker::builder().broker_deduplication_enabled(true), |builder| builder).await
    }

    pub async fn with(broker: EmbeddedBrokerBuilder, set: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let (broker, net) = broker_on_net(broker).await;
        let client = within("the connection", set(builder(&broker, &net)).connect()).await.expect("a client");
        Self { broker, net, client }
    }

    /// A broker more that the client can reach.
    pub async fn another(&self) -> EmbeddedBroker {
        let broker = EmbeddedBroker::builder().start().await.expect("a free port");
        self.net.add(&broker);
        broker
    }

    pub async fn producer(&self, topic: &str) -> Producer {
        created(self.client.producer(topic).batching(false)).await
    }

    pub async fn consumer(&self, topic: &str) -> Consumer {
        let builder = self.client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
        subscribed(builder).await
    }

    pub async fn shared(&self, topic: &str) -> Consumer {
        let builder = self.client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
        let builder = builder.subscription_type(SubscriptionType::Shared);
        subscribed(builder).await
    }

    pub fn subscription(&self, topic: &str) -> SubscriptionStats {
        let stats = self.broker.stats(topic).expect("the topic exists");
        stats.subscriptions.get("s").expect("the subscription exists").clone()
    }

    /// How many producers and consumers the broker has on the topic.
    pub fn attached(&self, topic: &str) -> (usize, usize) {
        let Some(stats) = self.broker.stats(topic) else { return (0, 0) };
        (stats.publishers.len(), stats.subscriptions.values().map(|one| one.consumers.len()).sum())
    }

    /// Waits until nothing of the subscription is left to be acknowledged.
    pub async fn drained(&self, topic: &str) {
        let left = || {
            let seen = self.subscription(topic);
            (seen.msg_backlog, seen.unacked_messages)
        };
        until("an empty backlog", left, |left| *left == (0, 0)).await;
    }

    /// What the topic stores, from its start, read by a client of its own.
    pub async fn stored(&self, topic: &str) -> Vec<String> {
        let client = builder(&self.broker, &self.net).connect();
        let client = within("the connection", client).await.expect("a client");
        let reading = client.consumer(topic, "the whole topic").initial_position(InitialPosition::Earliest);
        let mut consumer = subscribed(reading).await;
        let stats = self.broker.stats(topic).expect("the topic exists");
        let backlog = stats.subscriptions["the whole topic"].msg_backlog;
        let mut stored = Vec::new();
        for _ in 0..backlog {
            stored.push(text(&mut consumer).await);
        }
        within("the unsubscribe", consumer.unsubscribe()).await.expect("unsubscribed");
        within("the close", client.close()).await.expect("closed");
        stored
    }

    /// Closes the client: nothing of it is left, and the broker recorded no violation.
    pub async fn close_and_check(self) {
        self.broker.faults().clear();
        within("the close", self.client.close()).await.expect("closed");
        for topic in self.broker.topics() {
            assert_eq!(self.attached(&topic), (0, 0), "{topic} has producers or consumers left");
        }
        stop_and_check(&self.broker).await;
    }
}

/// A broker, and the pipes to it.
pub async fn broker_on_net(builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, Net) {
    let (broker, net) = (builder.start().await.expect("a free port"), Net::default());
    net.add(&broker);
    (broker, net)
}

pub fn builder(broker: &EmbeddedBroker, net: &Net) -> ClientBuilder {
    Client::builder(broker.url()).dialer(net.clone()).seed(7)
}

/// Stops the broker, which must have recorded no violation.
pub async fn stop_and_check(broker: &EmbeddedBroker) {
    let violations: Vec<_> = broker.violations().iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "the client broke rules:\n{}", violations.join("\n"));
    within("the broker to stop", broker.stop()).await;
}

/// The outcome of `future`, which must come.
pub async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    within_time(VIRTUAL_WAIT_TIMEOUT, what, future).await
}

/// Waits until this number of faults has been injected.
pub async fn struck(broker: &EmbeddedBroker, times: u64) {
    until("the fault", || broker.faults().injected(), |struck| *struck >= times).await;
}

pub async fn created(builder: ProducerBuilder) -> Producer {
    within("a producer", builder.create()).await.expect("a producer")
}

pub async fn subscribed(builder: ConsumerBuilder) -> Consumer {
    within("a consumer", builder.subscribe()).await.expect("a consumer")
}

pub async fn send(producer: &Producer, message: impl Into<Message> + Send) {
    within("a receipt", producer.send(message)).await.expect("the message is stored");
}

pub async fn enqueue(producer: &Producer, message: impl Into<Message> + Send) -> PendingSend {
    within("capacity", producer.enqueue(message)).await.expect("the message is accepted")
}

/// Accepts the numbers of a range, all of them before the first outcome is looked at.
pub async fn enqueue_numbers(producer: &Producer, range: std::ops::Range<usize>) -> Vec<PendingSend> {
    let mut pending = Vec::new();
    for number in range {
        pending.push(enqueue(producer, number.to_string()).await);
    }
    pending
}

/// All of them are stored.
pub async fn confirmed(pending: Vec<PendingSend>) {
    for one in pending {
        within("a receipt", one).await.expect("the message is stored");
    }
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The next message's text; it is not acknowledged.
pub async fn text(consumer: &mut Consumer) -> String {
    within("a message", consumer.receive()).await.expect("a message").to_string_lossy().into_owned()
}

/// Receives and acknowledges until the message with this text has come; what came before may be repetitions.
pub async fn receive_up_to(consumer: &mut Consumer, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let message = within("a message", consumer.receive()).await.expect("a message");
        consumer.ack(&message).expect("acknowledged");
        seen.push(message.to_string_lossy().into_owned());
        if message.to_string_lossy() == last {
            return seen;
        }
    }
}

/// The first arrivals, in order.
pub fn first_arrivals(seen: &[String]) -> Vec<String> {
    let mut known = std::collections::BTreeSet::new();
    seen.iter().filter(|text| known.insert((*text).clone())).cloned().collect()
}

/// Runs a future of the client in a task of its own.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

/// The error, its text naming what it is about.
pub fn failed<T: Debug>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    let error = result.expect_err("a failure");
    assert_eq!(error.kind(), kind, "{error}");
    error
}
