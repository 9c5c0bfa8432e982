//! Publishing many messages: enqueue them all, then wait once. They travel together, in batches.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example produce_many`

use pulsar_native::{Client, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let producer = client.producer("persistent://public/default/events").create().await?;

    let mut last = None;
    for number in 0..1000 {
        // Waits only while too many messages are on their way: that is the back-pressure.
        last = Some(producer.enqueue(Message::new(format!("event {number}"))).await?);
    }
    // Everything accepted so far is stored once this returns, or the first failure is reported.
    producer.flush().await?;

    // Awaiting a `PendingSend` gives the id or the error of that message.
    if let Some(last) = last {
        println!("the last one is stored as {}", last.await?);
    }
    client.close().await
}
