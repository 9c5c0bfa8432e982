//! The last price of each article, in memory and current: a topic as a table.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example table_view`

use pulsar_native::{Client, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/prices";
    let producer = client.producer(topic).create().await?;
    for (article, price) in [("tea", "3.20"), ("coffee", "4.50"), ("tea", "3.40")] {
        producer.send(Message::new(price).with_key(article)).await?;
    }

    // It has read the topic to its end, and follows it from now on.
    let prices = client.table_view(topic).create().await?;
    assert_eq!(prices.get("tea").as_deref(), Some(&b"3.40"[..]));
    let _listener = prices.for_each_and_listen(|article, price| match price {
        Some(price) => println!("{article} costs {}", String::from_utf8_lossy(price)),
        None => println!("{article} is not for sale any more"),
    });

    // An empty payload removes a key. Compaction (`pulsar-admin topics compact`) then drops both from the topic.
    let before = prices.snapshot();
    producer.send(Message::new("").with_key("coffee")).await?;
    prices.refresh().await?;
    assert!(!prices.contains_key("coffee"));
    for (article, price) in &before {
        println!("{article} did cost {}", String::from_utf8_lossy(price));
    }
    assert_eq!((before.len(), prices.len()), (2, 1));
    client.close().await
}
