//! Reading a topic from a known place to its present end, as a reader does: the position is kept by the application,
//! and the subscription is deleted afterwards.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example replay`

use pulsar_native::{Client, Error, InitialPosition, MessageId, SeekTo};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/changes";
    let producer = client.producer(topic).create().await?;
    let mut checkpoint = String::new();
    for number in 0..10 {
        let id = producer.send(format!("change {number}")).await?;
        if number == 3 {
            // An id is text, or Pulsar's own bytes (`to_bytes`), wherever the application keeps its state.
            checkpoint = id.to_string();
        }
    }
    let changes = replay(&client, topic, &checkpoint).await?;
    assert_eq!(changes.first().map(String::as_str), Some("change 4"));
    assert_eq!(changes.len(), 6);
    client.close().await
}

async fn replay(client: &Client, topic: &str, checkpoint: &str) -> Result<Vec<String>, Error> {
    let from: MessageId = checkpoint.parse().expect("what Display printed");
    let subscription = format!("replay-{}", std::process::id());
    let mut consumer =
        client.consumer(topic, subscription).initial_position(InitialPosition::Earliest).subscribe().await?;
    consumer.seek(SeekTo::Message { id: from, inclusive: false }).await?;
    let end = consumer.last_message_ids().await?.remove(0);
    let mut changes = Vec::new();
    loop {
        let message = consumer.receive().await?;
        changes.push(message.to_string_lossy().into_owned());
        if message.id() >= end {
            break;
        }
    }
    consumer.unsubscribe().await?;
    Ok(changes)
}
