//! A callback for each message instead of a future: for code that hands messages over and moves on.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example send_with_callback`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsar_native::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url).await
}

pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let client = Client::builder(url).connect().await?;
    let producer = client.producer("persistent://public/default/metrics").create().await?;

    let stored = Arc::new(AtomicUsize::new(0));
    for number in 0..100 {
        let stored = stored.clone();
        let callback = move |result: Result<_, pulsar_native::SendError>| match result {
            Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
            // It runs on the connection's task, so it must not block.
            Err(error) if error.may_be_stored() => eprintln!("metric {number} may be there: {error}"),
            Err(error) => eprintln!("metric {number} is lost: {error}"),
        };
        producer.enqueue_with(format!("metric {number}"), callback).await?;
    }
    // Closing waits for every message, and each callback is called exactly once.
    producer.close().await?;
    assert_eq!(stored.load(Ordering::Relaxed), 100);
    client.close().await
}
