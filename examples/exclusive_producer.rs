//! One producer at a time: with exclusive access a second one is refused.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example exclusive_producer`

use pulsar_native::{AccessMode, Client, Error, ErrorKind};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/configuration";
    let producer = client.producer(topic).access_mode(AccessMode::Exclusive).create().await?;
    producer.send("written by the only producer").await?;

    let refused = client.producer(topic).access_mode(AccessMode::Exclusive).create().await;
    let refused = refused.expect_err("the topic has its one producer");
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
    println!("{refused}");
    client.close().await
}
