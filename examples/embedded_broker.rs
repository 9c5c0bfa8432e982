//! A broker on this machine for any Pulsar client, until standard input ends; then what clients did wrong.
//!
//! `cargo run --features broker --example embedded_broker [port]`

#[cfg(feature = "broker")]
#[tokio::main]
async fn main() -> std::io::Result<()> {
    use pulsar_native::broker::EmbeddedBroker;
    use tokio::io::AsyncReadExt as _;

    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(6650);
    let broker = EmbeddedBroker::builder()
        .listen(([127, 0, 0, 1], port).into())
        .token_secret_key("a secret for development, not for production")
        .partitioned_topic("partitioned", 3)
        .start()
        .await?;
    println!("url: {}", broker.url());
    println!("token: {}", broker.token("admin"));

    let mut input = Vec::new();
    tokio::io::stdin().read_to_end(&mut input).await?;
    for topic in broker.topics() {
        println!("{topic}: {:?}", broker.stats(&topic));
    }
    for violation in broker.violations() {
        println!("violation: {violation}");
    }
    broker.stop().await;
    Ok(())
}

#[cfg(not(feature = "broker"))]
fn main() {
    eprintln!("this example needs `--features broker`");
}
