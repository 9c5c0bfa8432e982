//! A consumer is a `Stream`: combinators apply, and it ends after the error that ends the consumer.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example consume_stream`

use pulsar_native::{Client, Error, InitialPosition};
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/readings";
    let consumer = client.consumer(topic, "stream").initial_position(InitialPosition::Earliest).subscribe().await?;
    let producer = client.producer(topic).create().await?;
    for celsius in [19, 35, 21, 40] {
        producer.send(celsius.to_string()).await?;
    }

    let acker = consumer.acker();
    let mut readings = consumer.take(4);
    let mut found = Vec::new();
    while let Some(message) = readings.try_next().await? {
        let celsius: i32 = message.to_string_lossy().parse().expect("readings are numbers");
        acker.ack(&message)?;
        if celsius > 30 {
            println!("{celsius} degrees");
            found.push(celsius);
        }
    }
    assert_eq!(found, [35, 40]);
    client.close().await
}
