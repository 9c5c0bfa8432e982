//! A reader that resumes from a stored checkpoint and reads up to the last message of the topic at that time.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example reader`

use pulsar_native::{Checkpoint, Client, Error, ReadUntil};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/audit";
    let producer = client.producer(topic).create().await?;
    // Wherever the application keeps its state: a checkpoint is text, or bytes (`to_bytes`). Without one all is read.
    let mut kept = String::new();
    let mut texts = Vec::new();
    for sitting in 0..3 {
        for number in 0..4 {
            producer.send(format!("event {sitting}.{number}")).await?;
        }
        let checkpoint: Checkpoint = kept.parse().expect("what Display printed");
        let mut reader = client.reader(topic, checkpoint).create().await?;
        let mut events = reader.until(ReadUntil::Now).await?;
        while let Some(event) = events.next().await {
            texts.push(event?.to_string_lossy().into_owned());
        }
        drop(events);
        kept = reader.checkpoint().to_string();
        reader.close().await?;
    }
    assert_eq!(texts.len(), 12);
    assert_eq!(texts.last().map(String::as_str), Some("event 2.3"));
    client.close().await
}
