//! Moving a subscription: back to a message, to the start, to the end.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example seek`

use pulsar_native::{Client, Error, InitialPosition, SeekTo};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/history";
    let producer = client.producer(topic).create().await?;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(producer.send(number.to_string()).await?);
    }
    let mut consumer =
        client.consumer(topic, "auditor").initial_position(InitialPosition::Earliest).subscribe().await?;
    assert_eq!(consumer.receive().await?.to_string_lossy(), "0");

    consumer.seek(SeekTo::Message { id: ids[3].clone(), inclusive: true }).await?;
    assert_eq!(consumer.receive().await?.to_string_lossy(), "3");

    consumer.seek(SeekTo::Earliest).await?;
    assert_eq!(consumer.receive().await?.to_string_lossy(), "0");

    consumer.seek(SeekTo::Latest).await?;
    producer.send("new").await?;
    assert_eq!(consumer.receive().await?.to_string_lossy(), "new");
    client.close().await
}
