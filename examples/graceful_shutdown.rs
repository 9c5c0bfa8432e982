//! An orderly end: where the process is asked to stop, what it has in hand is finished and confirmed, and the rest is handed
//! back.
//!
//! `PULSAR_URL=pulsar://localhost:6650 cargo run --example graceful_shutdown`, then `kill` or Ctrl-C.

use std::future::Future;
use std::time::Duration;

use pulsar_native::{Client, DrainReport, Error, ErrorKind, InitialPosition, SubscriptionType};

/// Less than what is between SIGTERM and SIGKILL: Kubernetes' `terminationGracePeriodSeconds` is 30.
const LIMIT: Duration = Duration::from_secs(25);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    let report = run(&url, asked_to_stop()).await?;
    println!("{report}");
    std::process::exit(if report.is_complete() { 0 } else { 1 });
}

/// SIGTERM or Ctrl-C.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    let _ctrl_c = tokio::signal::ctrl_c().await;
}

pub(crate) async fn run(url: &str, stop: impl Future<Output = ()>) -> Result<DrainReport, Error> {
    let client = Client::builder(url).connect().await?;
    let receipts = client.producer("persistent://public/default/receipts").create().await?;
    let mut orders = client
        .consumer("persistent://public/default/orders", "receipts")
        .subscription_type(SubscriptionType::Shared)
        .initial_position(InitialPosition::Earliest)
        .subscribe()
        .await?;
    let working = tokio::spawn(async move {
        // Each order is acknowledged once its receipt is accepted; the drain waits until that is stored.
        let work = move |order: pulsar_native::ReceivedMessage| {
            let receipts = receipts.clone();
            async move { receipts.enqueue(format!("receipt of {}", order.to_string_lossy())).await.map(drop) }
        };
        orders.process(8, work).await
    });
    stop.await;
    let report = client.drain(LIMIT).await;
    // The pool ends with its consumer; any other end was a failure before.
    match working.await.expect("the work does not panic") {
        Err(error) if error.kind() != ErrorKind::Closed => Err(error),
        _ => Ok(report),
    }
}
