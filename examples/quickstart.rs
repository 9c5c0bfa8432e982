//! The walk-through: connect with a token, send, send with a callback, receive, acknowledge, negatively acknowledge
//! and see the message again, then what a console would show.
//!
//! With `PULSAR_URL` (and `PULSAR_TOKEN`, `PULSAR_TOPIC`) it runs against that broker; without, it starts the
//! embedded one: `cargo run --features broker --example quickstart`

use std::time::Duration;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::{Client, Consumer, Error, InitialPosition, Message, SubscriptionType, Token};
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let outcome = match std::env::var("PULSAR_URL") {
        Ok(url) => {
            let token = std::env::var("PULSAR_TOKEN").unwrap_or_default();
            let topic = std::env::var("PULSAR_TOPIC");
            let topic =
                topic.unwrap_or_else(|_| format!("persistent://public/default/quickstart-{}", std::process::id()));
            walk_through(&url, &token, &topic).await
        }
        Err(_) => on_embedded_broker().await,
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn on_embedded_broker() -> Result<(), Error> {
    let broker = EmbeddedBroker::builder()
        .token_secret_key("a secret of at least 32 bytes, for HS256")
        .namespace("cluster/namespace");
    let broker = broker.start().await.expect("a free port on 127.0.0.1");
    println!("embedded broker at {}", broker.url());
    walk_through(&broker.url(), &broker.token("admin"), "persistent://cluster/namespace/topic").await?;
    assert_eq!(broker.violations(), [], "the client kept every rule of the protocol");
    broker.stop().await;
    Ok(())
}

/// The main job, once through.
pub(crate) async fn walk_through(url: &str, token: &str, topic: &str) -> Result<(), Error> {
    let mut builder = Client::builder(url);
    if !token.is_empty() {
        builder = builder.authentication(Token::new(token));
    }
    let client = builder.connect().await?;
    let producer = client.producer(topic).create().await?;
    let mut consumer = client
        .consumer(topic, "my-subscription")
        .subscription_type(SubscriptionType::Shared)
        .initial_position(InitialPosition::Earliest)
        .negative_ack_redelivery_delay(Duration::from_millis(500))
        .subscribe()
        .await?;

    let id = producer.send(Message::new("hello").with_property("language", "rust").with_key("order-7")).await?;
    println!("sent          {id}  with a property and a key");

    let (tell, told) = oneshot::channel();
    producer.enqueue_with("with a callback", move |outcome| drop(tell.send(outcome))).await?;
    let id = told.await.expect("the callback is always called")?;
    println!("sent          {id}  the callback got the id");

    let first = consumer.receive().await?;
    println!(
        "received      {}  {:?}, key {:?}, properties {:?}",
        first.id(),
        first.to_string_lossy(),
        first.key(),
        first.properties().collect::<Vec<_>>()
    );
    let mut consumed = 0;
    consumer.ack_confirmed(&first).await?;
    consumed += 1;
    println!("acknowledged  {}", first.id());

    let second = consumer.receive().await?;
    println!(
        "received      {}  {:?}, redelivered {} times",
        second.id(),
        second.to_string_lossy(),
        second.redelivery_count()
    );
    consumer.nack(&second)?;
    println!("nacked        {}  it is redelivered", second.id());
    show(&consumer, consumed).await?;

    let again = consumer.receive().await?;
    println!(
        "received      {}  {:?}, redelivered {} times",
        again.id(),
        again.to_string_lossy(),
        again.redelivery_count()
    );
    consumer.ack_confirmed(&again).await?;
    consumed += 1;
    show(&consumer, consumed).await?;

    consumer.close().await?;
    producer.close().await?;
    client.close().await
}

/// What a console shows of a subscription: the broker's own figures, and what it has confirmed as acknowledged.
async fn show(consumer: &Consumer, consumed: u32) -> Result<(), Error> {
    let stats = consumer.broker_stats().await?;
    println!("\n  {:<18} {:>8} {:>15} {:>9}", "subscription", "backlog", "unacknowledged", "consumed");
    println!("  {:<18} {:>8} {:>15} {consumed:>9}\n", consumer.subscription(), stats.backlog, stats.unacknowledged);
    Ok(())
}
