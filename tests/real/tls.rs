//! TLS, as the real broker speaks it: who is trusted, and for which name.

use std::path::PathBuf;
use std::time::Duration;

use pulsar_native::{Client, Error, ErrorKind, Token};

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::{Cluster, Role};
use crate::suite::{created, receive, send, subscribed, within};

pub const TESTS: &[Test] = &[
    ("tls::trusted_authority", |real| Box::pin(trusted_authority(real))),
    ("tls::unknown_authority", |real| Box::pin(unknown_authority(real))),
    ("tls::wrong_host_name", |real| Box::pin(wrong_host_name(real))),
    ("tls::plain_port", |real| Box::pin(plain_port(real))),
    ("tls::bad_ca_file", |real| Box::pin(bad_ca_file(real))),
];

async fn connect(real: &Real, url: &str, ca_file: Option<PathBuf>) -> Result<Client, Error> {
    let token = Token::new(real.token(Role::Admin));
    // A failure that is tried again is reported once the operation timeout has passed.
    let mut builder = Client::builder(url).authentication(token).operation_timeout(Duration::from_secs(10));
    if let Some(ca_file) = ca_file {
        builder = builder.ca_file(ca_file);
    }
    within("the connection or its refusal", builder.connect()).await
}

fn address(url: &str) -> &str {
    url.trim_start_matches("pulsar+ssl://")
}

async fn trusted_authority(real: Real) {
    let client = connect(&real, &real.tls_url, Some(real.ca_file.clone())).await.expect("a client over TLS");
    let topic = real.target().topic("tls");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    // Larger than a TLS record, and larger than the buffers of a socket.
    for size in [1, 20_000, 3_000_000] {
        send(&producer, vec![7; size]).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.payload().len(), size);
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    }
    within("the close", client.close()).await.expect("closed");
}

async fn unknown_authority(real: Real) {
    let error = connect(&real, &real.tls_url, None).await.expect_err("nobody vouches for the certificate");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let text = error.to_string();
    assert!(text.contains(address(&real.tls_url)), "names the address: {text}");
    assert!(text.contains("certificate"), "says what is wrong: {text}");
}

async fn wrong_host_name(real: Real) {
    // The certificate is for `localhost` and 127.0.0.1; the same broker answers at 127.0.0.2 only by its port.
    let port = real.tls_url.rsplit(':').next().expect("a port");
    let relay = relay_to(port).await;
    let url = format!("pulsar+ssl://{relay}");
    let error = connect(&real, &url, Some(real.ca_file.clone())).await.expect_err("the name does not fit");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let text = error.to_string();
    assert!(text.contains(&relay) && text.contains("certificate"), "says what is wrong: {text}");
}

/// Another address for the broker's port: 127.0.0.2, which its certificate does not name.
async fn relay_to(port: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a second loopback address");
    let address = listener.local_addr().expect("an address").to_string();
    let broker = format!("127.0.0.1:{port}");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&broker).await.expect("the broker");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

async fn plain_port(real: Real) {
    let url = real.url.replacen("pulsar://", "pulsar+ssl://", 1);
    let error = connect(&real, &url, Some(real.ca_file.clone())).await.expect_err("the port speaks no TLS");
    assert!(error.to_string().contains(address(&url)), "names the address: {error}");
}

async fn bad_ca_file(real: Real) {
    let error = connect(&real, &real.tls_url, Some("/no/such/file.pem".into())).await.expect_err("no such file");
    assert!(error.to_string().contains("/no/such/file.pem"), "names the file: {error}");
}
