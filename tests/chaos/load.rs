//! The application under test: one producer for each topic, and the members of each subscription.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pulsar_native::{
    Client, Consumer, InitialPosition, Message, Producer, ReceivedMessage, SendError, SubscriptionType,
};

use crate::deliveries::{DeliveryLog, SendState};
use crate::rng::Rng;

/// How many messages each producer sends in a tick.
const MESSAGES_PER_TICK: u64 = 4;
const TICK: Duration = Duration::from_millis(20);
/// For each partition. All of it is sent again after each cut.
const PENDING_MESSAGES_MAX: usize = 1_000;
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
const KEYS: u64 = 24;
/// How long a `receive` is waited for before its future is dropped and a new one made.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(50);
const NACK_DELAY: Duration = Duration::from_secs(1);
const NACK_ONE_IN: u64 = 200;
const CONFIRM_ONE_IN: u64 = 20;
const CUMULATIVE_EVERY: u64 = 25;

/// A topic with its one producer and its subscriptions.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    /// 0: not partitioned.
    pub(crate) partitions: u32,
    pub(crate) deduplicated: bool,
    pub(crate) batching: bool,
    pub(crate) subscriptions: &'static [SubscriptionType],
}

impl Topic {
    /// The topics that brokers serve: the partitions, or itself.
    pub(crate) fn parts(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![self.name.to_owned()],
            count => (0..count).map(|index| format!("{}-partition-{index}", self.name)).collect(),
        }
    }
}

pub(crate) fn subscription_name(kind: SubscriptionType) -> &'static str {
    match kind {
        SubscriptionType::Exclusive => "exclusive",
        SubscriptionType::Failover => "failover",
        SubscriptionType::Shared => "shared",
        _ => "key-shared",
    }
}

/// An exclusive subscription has one consumer, the others two.
pub(crate) fn members(kind: SubscriptionType) -> usize {
    if kind == SubscriptionType::Exclusive { 1 } else { 2 }
}

pub(crate) type Shared = Arc<Mutex<DeliveryLog>>;

fn key_of(number: u64) -> String {
    // Not in step with the number, so that neighbours of a key are unevenly far apart.
    format!("key-{}", Rng::new(number).next() % KEYS)
}

/// Number, key and a filler that follows from the number, so that a wrong byte shows.
fn payload_of(number: u64) -> String {
    let mut rng = Rng::new(!number);
    let words = if rng.one_in(500) { 4_000 } else { rng.between(1, 40) };
    let mut text = format!("{number} {}", key_of(number));
    for _ in 0..words {
        let _ = write!(text, " {:x}", rng.next());
    }
    text
}

/// Creates the topic's producer.
pub(crate) async fn producer(client: &Client, topic: &Topic) -> Result<Producer, pulsar_native::Error> {
    // With deduplication a send may take as long as it likes: giving up is what makes a double possible.
    let timeout = if topic.deduplicated { Duration::ZERO } else { SEND_TIMEOUT };
    client
        .producer(topic.name)
        .name(format!("chaos-{}", topic.name.rsplit('/').next().unwrap_or("")))
        .batching(topic.batching)
        .batching_max_messages(20)
        .batching_max_publish_delay(if topic.batching { Duration::from_millis(5) } else { Duration::ZERO })
        .max_pending_messages(PENDING_MESSAGES_MAX)
        .send_timeout(timeout)
        .create()
        .await
}

/// Sends until told to stop, and then waits until nothing is pending.
pub(crate) async fn produce(producer: Producer, log: Shared, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        for _ in 0..MESSAGES_PER_TICK {
            let number = log.lock().unwrap().next();
            let message = Message::new(payload_of(number)).with_key(key_of(number));
            let outcomes = log.clone();
            let done = move |result: Result<_, SendError>| {
                let state = result.map_or_else(|error| state_of(number, &error), |_| SendState::Confirmed);
                outcomes.lock().unwrap().resolve(number, state);
            };
            if let Err(error) = producer.enqueue_with(message, done).await {
                log.lock().unwrap().resolve(number, state_of(number, &error));
            }
        }
    }
    // Whether one of the sends failed is in the log; this only waits for the last of them.
    let _ = producer.flush().await;
    producer.close().await.map_err(|error| format!("{producer:?} close: {error}"))
}

fn state_of(number: u64, error: &SendError) -> SendState {
    eprintln!("send {number}: {error}");
    if error.may_be_stored() { SendState::Unknown } else { SendState::NotStored }
}

/// Subscribes member `member` of the topic's subscription of this kind.
pub(crate) async fn consumer(
    client: &Client,
    topic: &Topic,
    kind: SubscriptionType,
    member: usize,
) -> Result<Consumer, pulsar_native::Error> {
    client
        .consumer(topic.name, subscription_name(kind))
        .subscription_type(kind)
        .name(format!("member-{member}"))
        .initial_position(InitialPosition::Earliest)
        .receiver_queue_size(200)
        .negative_ack_redelivery_delay(NACK_DELAY)
        .subscribe()
        .await
}

/// One member of a subscription at work.
pub(crate) struct Member {
    pub(crate) log: Shared,
    pub(crate) subscription: usize,
    pub(crate) kind: SubscriptionType,
    pub(crate) rng: Rng,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Member {
    /// Receives and acknowledges, each kind in its own way, until told to stop.
    pub(crate) async fn consume(mut self, mut consumer: Consumer) -> Result<(), String> {
        let mut unacknowledged = HashMap::new();
        let mut count = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(received) = tokio::time::timeout(RECEIVE_TIMEOUT, consumer.receive()).await else {
                acknowledge_all(&consumer, &mut unacknowledged)?;
                continue;
            };
            let message = received.map_err(|error| format!("{consumer:?} receive: {error}"))?;
            count += 1;
            self.enter(&message);
            match self.kind {
                SubscriptionType::Failover => {
                    unacknowledged.insert(message.id().partition(), message);
                    if count % CUMULATIVE_EVERY == 0 {
                        acknowledge_all(&consumer, &mut unacknowledged)?;
                    }
                }
                SubscriptionType::Shared if message.redelivery_count() == 0 && self.rng.one_in(NACK_ONE_IN) => {
                    consumer.nack(&message).map_err(|error| format!("{consumer:?} nack: {error}"))?;
                }
                SubscriptionType::Exclusive if self.rng.one_in(CONFIRM_ONE_IN) => confirm(&consumer, message),
                _ => consumer.ack(&message).map_err(|error| format!("{consumer:?} ack: {error}"))?,
            }
        }
        acknowledge_all(&consumer, &mut unacknowledged)?;
        consumer.close().await.map_err(|error| format!("close: {error}"))
    }

    fn enter(&self, message: &ReceivedMessage) {
        let text = message.to_string_lossy();
        let number = text.split(' ').next().and_then(|word| word.parse().ok());
        let mut log = self.log.lock().unwrap();
        match number {
            Some(number) if payload_of(number) == text && message.key() == Some(&key_of(number)) => {
                log.arrive(self.subscription, number, &key_of(number), message.id(), Instant::now());
            }
            _ => log.violations.push(format!("{message:?} is not what was sent")),
        }
    }
}

/// Acknowledges the last message of each partition, and with it all before.
fn acknowledge_all(consumer: &Consumer, last: &mut HashMap<Option<u32>, ReceivedMessage>) -> Result<(), String> {
    for (_, message) in last.drain() {
        consumer.ack_cumulative(&message).map_err(|error| format!("{consumer:?} ack: {error}"))?;
    }
    Ok(())
}

/// Acknowledges with the broker's word for it. Without that word the message is acknowledged once more: the first
/// acknowledgement may be lost.
fn confirm(consumer: &Consumer, message: ReceivedMessage) {
    let acker = consumer.acker();
    tokio::spawn(async move { while acker.ack_confirmed(&message).await.is_err_and(|error| error.is_retriable()) {} });
}
