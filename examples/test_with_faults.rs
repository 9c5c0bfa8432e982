//! Testing an application against the embedded broker: no server to install, and faults exactly where a test wants them.
//!
//! `cargo run --features broker --example test_with_faults`; in your project `run` is a `#[tokio::test]`.

use pulsar_native::broker::{EmbeddedBroker, FaultEvent};
use pulsar_native::{Client, InitialPosition, ServerCode};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    run().await
}

/// The code under test.
async fn place_order(client: &Client, order: &str) -> std::result::Result<(), pulsar_native::Error> {
    let producer = client.producer("persistent://public/default/orders").create().await?;
    producer.send(order).await?;
    producer.close().await
}

pub(crate) async fn run() -> Result<()> {
    let broker = EmbeddedBroker::builder().broker_deduplication_enabled(true).start().await?;
    // The broker is not ready for the first producer, and the connection breaks before the first receipt.
    broker.faults().on(FaultEvent::Producer).refuse_request(ServerCode::SERVICE_NOT_READY);
    broker.faults().on(FaultEvent::Send).disconnect();

    let client = Client::builder(broker.url()).connect().await?;
    place_order(&client, "one coffee").await?;
    assert_eq!(broker.faults().injected(), 2, "both faults happened");

    let topic = "persistent://public/default/orders";
    let mut consumer =
        client.consumer(topic, "kitchen").initial_position(InitialPosition::Earliest).subscribe().await?;
    assert_eq!(consumer.receive().await?.to_string_lossy(), "one coffee");
    assert!(consumer.try_receive()?.is_none(), "and it was placed once");
    client.close().await?;

    // Every rule of the protocol that a client breaks is recorded.
    assert_eq!(broker.violations(), []);
    broker.stop().await;
    Ok(())
}
