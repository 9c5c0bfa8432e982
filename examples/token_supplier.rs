//! Tokens from a function: asked for each connection and whenever the broker wants fresh credentials.
//!
//! `PULSAR_TOKEN=... PULSAR_URL=pulsar://localhost:6650 cargo run --example token_supplier`

use pulsar_native::{Client, Error, Token};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("PULSAR_URL").unwrap_or_else(|_| "pulsar://localhost:6650".to_owned());
    run(&url, || std::env::var("PULSAR_TOKEN").ok()).await
}

pub(crate) async fn run(
    url: &str,
    vault: impl Fn() -> Option<String> + Clone + Send + Sync + 'static,
) -> Result<(), Error> {
    let token = Token::from_fn(move || {
        let vault = vault.clone();
        async move {
            // `authentication` is final. `connection` says that a later try may succeed.
            vault().ok_or_else(|| Error::authentication("the vault has no token for this service"))
        }
    });
    let client = Client::builder(url).authentication(token).connect().await?;
    let producer = client.producer("persistent://public/default/authorized").create().await?;
    producer.send("by a known role").await?;
    client.close().await
}
