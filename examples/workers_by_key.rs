//! Many workers, and still one after the other for each key: Key_Shared across processes, `process_by_key` within one.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example workers_by_key`

use std::collections::HashMap;

use pulsar_native::{BatchingType, Client, Error, InitialPosition, Message, Outcome, SubscriptionType};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let topic = "persistent://public/default/accounts";
    // The broker takes a batch by the key of its first message, so each key needs one of its own.
    let producer = client.producer(topic).batching_type(BatchingType::KeyBased).create().await?;
    for step in 0..5 {
        for account in ["alice", "bob", "carol"] {
            drop(producer.enqueue(Message::new(step.to_string()).with_key(account)).await?);
        }
    }
    producer.flush().await?;

    let mut consumer = client
        .consumer(topic, "ledger")
        .subscription_type(SubscriptionType::KeyShared)
        .initial_position(InitialPosition::Earliest)
        .subscribe()
        .await?;
    let (seen, mut steps) = mpsc::channel(15);
    let work = consumer.process_by_key(4, move |message| {
        let seen = seen.clone();
        async move {
            let step = (message.key().unwrap_or_default().to_owned(), message.to_string_lossy().into_owned());
            let _ = seen.send(step).await;
            Outcome::Ack
        }
    });
    let in_order = async {
        let mut of_account = HashMap::<_, Vec<_>>::new();
        for _ in 0..15 {
            let (account, step) = steps.recv().await.expect("a worker has the sender");
            of_account.entry(account).or_default().push(step);
        }
        assert!(of_account.values().all(|steps| steps[..] == ["0", "1", "2", "3", "4"]), "{of_account:?}");
        Ok::<(), Error>(())
    };
    tokio::select! { ended = work => ended?, done = in_order => done? }
    client.close().await
}
