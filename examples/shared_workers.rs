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
    let acker = consumer.acker();
    let work = consumer.process(8, move |message| {
        let (done, acker) = (done.clone(), acker.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let acknowledged = acker.ack_confirmed(&message).await;
            let _ = done.send(acknowledged).await;
            // `Outcome::Ack` would acknowledge it, `Outcome::Nack` would have it delivered again.
            Outcome::Keep
        }
    });
    let all_done = async {
        for _ in 0..20 {
            finished.recv().await.expect("a worker has the sender")?;
        }
        Ok::<(), Error>(())
    };
    // `process` returns when the consumer has ended; here its future is dropped after the last job.
    tokio::select! {
        ended = work => ended?,
        done = all_done => done?,
    }
    client.close().await
}
