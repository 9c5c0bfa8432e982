//! OAuth2: the service account of a hosted cluster, such as StreamNative Cloud.
//!
//! | variable | what to paste | where the console of StreamNative shows it |
//! | --- | --- | --- |
//! | `PULSAR_URL` | `pulsar+ssl://cluster.o-xxx.streamnative.cloud:6651` | Cluster, details, service URL |
//! | `PULSAR_ISSUER_URL` | `https://auth.streamnative.cloud/` | in the key file: `issuer_url` |
//! | `PULSAR_KEY_FILE` | the path of the key file, or a `data:` URL of it | Service account, key file |
//! | `PULSAR_AUDIENCE` | `urn:sn:pulsar:o-xxx:instance` | Cluster, clients, OAuth2 |
//! | `PULSAR_TOPIC` | `persistent://tenant/namespace/topic` | Topics; the service account needs rights in the namespace |
//!
//! `PULSAR_URL=... PULSAR_ISSUER_URL=... PULSAR_KEY_FILE=... PULSAR_AUDIENCE=... PULSAR_TOPIC=... cargo run --features oauth2
//! --example oauth2`

use pulsar_native::{Client, Error, InitialPosition, OAuth2};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let names = ["PULSAR_URL", "PULSAR_ISSUER_URL", "PULSAR_KEY_FILE", "PULSAR_AUDIENCE", "PULSAR_TOPIC"];
    let [Ok(url), Ok(issuer), Ok(key_file), Ok(audience), Ok(topic)] = names.map(std::env::var) else {
        eprintln!("oauth2: set {} to what the console shows", names.join(", "));
        return std::process::ExitCode::from(2);
    };
    match run(&url, &issuer, &key_file, &audience, &topic).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oauth2: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

pub(crate) async fn run(url: &str, issuer: &str, key_file: &str, audience: &str, topic: &str) -> Result<(), Error> {
    // One token for all connections. It is asked for now, and again each time the broker says that it has expired.
    let oauth2 = OAuth2::client_credentials(issuer, key_file).audience(audience);
    let client = Client::builder(url).authentication(oauth2).connect().await?;

    let producer = client.producer(topic).create().await?;
    println!("sent      {}", producer.send("Hello from a service account").await?);

    let mut consumer =
        client.consumer(topic, "sub_topic1").initial_position(InitialPosition::Earliest).subscribe().await?;
    let message = consumer.receive().await?;
    println!("received  {}  {:?}", message.id(), message.to_string_lossy());
    consumer.ack_confirmed(&message).await?;
    client.close().await
}
