//! TLS with a private certificate authority, and a token in a file that another process renews.
//!
//! `cargo run --example tls_and_token_file pulsar+ssl://broker.example.com:6651 ca.pem token.txt`

use std::path::Path;

use pulsar_native::{Client, Error, Token};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().unwrap_or_else(|| panic!("which {what}?"));
    let (url, ca_file, token_file) = (next("URL"), next("CA file"), next("token file"));
    run(&url, ca_file.as_ref(), token_file.as_ref()).await
}

pub(crate) async fn run(url: &str, ca_file: &Path, token_file: &Path) -> Result<(), Error> {
    let client = Client::builder(url)
        // Without it the system's trust roots count. Certificate and host name are verified always.
        .ca_file(ca_file)
        // Read for each connection, and when the broker asks for fresh credentials.
        .authentication(Token::from_file(token_file))
        .connect()
        .await?;
    let producer = client.producer("persistent://public/default/secured").create().await?;
    println!("stored as {}", producer.send("for no other eyes").await?);
    client.close().await
}
