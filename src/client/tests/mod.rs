//! Handles against the embedded broker, over pipes and on a paused clock: what only the crate itself can reach.

use std::future::IntoFuture;
use std::time::Duration;

use super::{Client, Consumer, DialFuture, Dialer, Producer, ReceivedMessage, Socket, Target};
use crate::broker::EmbeddedBroker;
use crate::machine::consumer::{InitialPosition, SubscriptionType};

mod consumer_parts;
#[cfg(feature = "patterns")]
mod patterns;
mod producer_parts;
mod queries;
mod workers;

/// How long anything may take, in virtual time: more than any time-out of the client.
const PATIENCE: Duration = Duration::from_secs(300);

async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

struct Pipes(EmbeddedBroker);

impl Dialer for Pipes {
    fn dial<'a>(&'a self, _target: &'a Target) -> DialFuture<'a> {
        Box::pin(async { Ok(Box::new(self.0.connect()) as Box<dyn Socket>) })
    }
}

async fn connected(broker: &EmbeddedBroker) -> Client {
    let client = Client::builder(broker.url()).dialer(Pipes(broker.clone())).seed(7).connect();
    within("the connection", client).await.expect("a client")
}

async fn stage() -> (EmbeddedBroker, Client) {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    let client = connected(&broker).await;
    (broker, client)
}

fn full(topic: &str) -> String {
    format!("persistent://public/default/{topic}")
}

async fn producer(client: &Client, topic: &str) -> Producer {
    within("a producer", client.producer(topic).batching(false).create()).await.expect("a producer")
}

async fn consumer(client: &Client, topic: &str, queue_size: u32) -> Consumer {
    let builder = client.consumer(topic, "s").initial_position(InitialPosition::Earliest);
    let builder = builder.subscription_type(SubscriptionType::Shared).receiver_queue_size(queue_size);
    within("a consumer", builder.subscribe()).await.expect("a consumer")
}

async fn receive(consumer: &mut Consumer) -> ReceivedMessage {
    within("a message", consumer.receive()).await.expect("a message")
}

async fn send_numbers(producer: &Producer, numbers: std::ops::Range<u32>) {
    for number in numbers {
        within("a receipt", producer.send(number.to_string())).await.expect("stored");
    }
}

/// Messages of the subscription `s` that are not acknowledged.
fn backlog(broker: &EmbeddedBroker, topic: &str) -> u64 {
    broker.stats(topic).map_or(0, |topic| topic.subscriptions.get("s").map_or(0, |one| one.msg_backlog))
}

fn consumers(broker: &EmbeddedBroker, topic: &str) -> usize {
    broker.stats(topic).map_or(0, |topic| topic.subscriptions.get("s").map_or(0, |one| one.consumers.len()))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
