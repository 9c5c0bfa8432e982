//! When a client dials, and how long it waits for a broker that is not up.

use std::time::Duration;

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::{Client, ErrorKind};

use crate::suite::within;

/// A broker that starts at `address` only now.
async fn late_broker(address: std::net::SocketAddr) -> EmbeddedBroker {
    EmbeddedBroker::builder().listen(address).start().await.expect("the port is still free")
}

fn unused_address() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_broker_that_starts_late_is_waited_for() {
    let address = unused_address();
    let connecting = tokio::spawn(client_of(address).connect());
    // Long enough for the first dial to fail; the outcome is the same if it does not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!connecting.is_finished(), "there is no broker yet");
    let broker = late_broker(address).await;
    let client = within("the connection", connecting).await.unwrap().expect("the broker is up");
    within("a producer", client.producer("t").create()).await.expect("a producer");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_built_client_dials_on_first_use() {
    let broker = EmbeddedBroker::builder().start().await.unwrap();
    let client = Client::builder(broker.url()).build().expect("no connection is needed");
    // A connection would be made by tasks that run now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(broker.connections(), 0);
    within("a producer", client.producer("t").create()).await.expect("a producer");
    assert_eq!(broker.connections(), 1);
    within("the close", client.close()).await.expect("closed");

    let address = unused_address();
    let client = client_of(address).operation_timeout(Duration::from_millis(300)).build().unwrap();
    let error = within("the failure", client.producer("t").create()).await.expect_err("nothing listens");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let error = Client::builder("http://localhost").build().expect_err("not a service URL");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

fn client_of(address: std::net::SocketAddr) -> pulsar_native::ClientBuilder {
    Client::builder(format!("pulsar://{address}"))
}
