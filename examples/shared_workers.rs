//! A work queue: a Shared subscription, and several messages at work at the same time.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example shared_workers`

use std::time::Duration;

use pulsar_native::{Client, Error, InitialPosition, Outcome, SubscriptionType};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/jobs";
    let producer = client.producer(topic).create().await?;
    for number in 0..20 {
        drop(producer.enqueue(format!("job {number}")).await?);
    }
    producer.flush().await?;

    let mut consumer = client
        .consumer(topic, "workers")
        .subscription_type(SubscriptionType::Shared)
        .initial_position(InitialPosition::Earliest)
        .subscribe()
        .await?;
    let (done, mut finished) = mpsc::channel(20);
    let work = consumer.process(8, move |_message| {
        let done = done.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let _ = done.send(()).await;
            // Acknowledges the message; `Outcome::Nack` would have it delivered again.
            Outcome::Ack
        }
    });
    let all_done = async {
        for _ in 0..20 {
            finished.recv().await.expect("a worker has the sender");
        }
    };
    // `process` returns when the consumer has ended; here its future is dropped after the last job. A message that is
    // not acknowledged by then is delivered again.
    tokio::select! {
        ended = work => ended?,
        () = all_done => {}
    }
    client.close().await
}
