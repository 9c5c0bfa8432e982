//! One consumer at a time, with a stand-by: on a Failover subscription the second consumer takes over from the first.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example failover`

use pulsar_native::{Client, Error, SubscriptionType};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/leader";
    let standby = |name: &str| {
        client.consumer(topic, "leaders").subscription_type(SubscriptionType::Failover).name(name).subscribe()
    };
    let mut first = standby("a").await?;

    let producer = client.producer(topic).create().await?;
    producer.send("to the active one").await?;
    let message = first.receive().await?;
    first.ack_confirmed(&message).await?;

    // One consumer is active at a time; when it leaves, another one takes over.
    let mut second = standby("b").await?;
    first.close().await?;

    producer.send("to the one that took over").await?;
    let message = second.receive().await?;
    assert_eq!(message.to_string_lossy(), "to the one that took over");
    second.ack(&message)?;
    client.close().await
}
