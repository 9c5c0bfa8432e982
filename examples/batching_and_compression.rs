//! Throughput options: how messages share an entry, how payloads are compressed, how much may be on its way.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example batching_and_compression`

use std::time::Duration;

use pulsar_native::{Client, Compression, Error, InitialPosition};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/logs";
    let producer = client
        .producer(topic)
        // A batch leaves when it is full by one of these, or when its first message has waited for the delay.
        .batching_max_messages(500)
        .batching_max_bytes(256 * 1024)
        .batching_max_publish_delay(Duration::from_millis(5))
        // A batch is compressed as a whole.
        .compression(Compression::Lz4)
        // Beyond these a send waits for room.
        .max_pending_messages(10_000)
        .max_pending_bytes(8 * 1024 * 1024)
        .create()
        .await?;
    for number in 0..1000 {
        drop(producer.enqueue(format!("line {number}: nothing happened, as on every other day")).await?);
    }
    producer.flush().await?;

    let mut consumer =
        client.consumer(topic, "archive").initial_position(InitialPosition::Earliest).subscribe().await?;
    let message = consumer.receive().await?;
    let size = message.id().batch_size().expect("it came in a batch");
    println!("{} came in a batch of {size}", message.id());
    assert!(size > 1);
    client.close().await
}
