//! A partitioned topic: messages of one key go to one partition and keep their order; a consumer sees all partitions.
//!
//! The topic has to be partitioned already, for example by `bin/pulsar-admin topics create-partitioned-topic -p 3`.
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example partitioned_keys`

use std::collections::BTreeMap;

use pulsar_native::{Client, Error, InitialPosition, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/partitioned";
    println!("{topic} has {} partitions", client.partitions(topic).await?);

    let producer = client.producer(topic).create().await?;
    for number in 0..30 {
        let message = Message::new(number.to_string()).with_key(format!("customer {}", number % 6));
        drop(producer.enqueue(message).await?);
    }
    producer.flush().await?;

    let mut consumer = client.consumer(topic, "all").initial_position(InitialPosition::Earliest).subscribe().await?;
    let mut partitions = BTreeMap::new();
    for _ in 0..30 {
        let message = consumer.receive().await?;
        let key = message.key().unwrap_or_default().to_owned();
        let partition = message.id().partition();
        // The id of a message says which partition it is in: the same for the same key, always.
        assert_eq!(*partitions.entry(key).or_insert(partition), partition);
        consumer.ack(&message)?;
    }
    println!("{partitions:?}");
    client.close().await
}
