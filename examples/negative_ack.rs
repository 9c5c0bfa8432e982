//! A message that cannot be handled now is asked for again after a delay, while others go on.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example negative_ack`

use std::time::Duration;

use pulsar_native::{Client, Error, InitialPosition, SubscriptionType};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/payments";
    let mut consumer = client
        .consumer(topic, "gateway")
        // On a Shared subscription the one message comes again, on Exclusive and Failover all after it do too.
        .subscription_type(SubscriptionType::Shared)
        .initial_position(InitialPosition::Earliest)
        .negative_ack_redelivery_delay(Duration::from_millis(200))
        .subscribe()
        .await?;
    // The unit of redelivery is the entry; without batching that is the message.
    let producer = client.producer(topic).batching(false).create().await?;
    for payment in ["first", "second"] {
        producer.send(payment).await?;
    }

    let mut handled = Vec::new();
    while handled.len() < 2 {
        let message = consumer.receive().await?;
        if message.to_string_lossy() == "first" && message.redelivery_count() == 0 {
            consumer.nack(&message)?;
            continue;
        }
        consumer.ack(&message)?;
        handled.push(message.to_string_lossy().into_owned());
    }
    assert_eq!(handled, ["second", "first"]);
    client.close().await
}
