//! OAuth2 against the embedded broker and the identity provider that it plays.

use std::time::Duration;

use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use pulsar_native::{Client, ClientBuilder, Error, ErrorKind, OAuth2};

use crate::common::expiries::{Counted, Load, assert_no_gap};
use crate::common::temp_file::TempFile;
use crate::suite::{created, receive, send, subscribed, within};

#[cfg(feature = "tls")]
mod https;

const AUDIENCE: &str = "urn:pulsar:embedded";
const SECRET: &str = "hunter2&=+";

fn broker() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder()
        .oauth2_client("app", SECRET, "admin")
        .oauth2_client("nobody", SECRET, "nobody")
        .oauth2_audience(AUDIENCE)
}

fn key_file(name: &str, client_id: &str, secret: &str) -> TempFile {
    let key = serde_json::json!({ "type": "client_credentials", "client_id": client_id, "client_secret": secret });
    TempFile::new(&format!("oauth2-{name}.json"), key.to_string())
}

fn source(broker: &EmbeddedBroker, key_file: &TempFile) -> OAuth2 {
    let issuer = broker.issuer_url().expect("it has clients");
    OAuth2::client_credentials(issuer, format!("file://{}", key_file.text())).audience(AUDIENCE)
}

fn client_of(url: &str, source: OAuth2) -> ClientBuilder {
    Client::builder(url).authentication(source).operation_timeout(Duration::from_secs(5))
}

/// Sends a message and receives it.
async fn exchange(builder: ClientBuilder) -> Result<(), Error> {
    let client = within("the connection", builder.connect()).await?;
    let mut consumer = subscribed(client.consumer("t", "s")).await;
    let producer = created(client.producer("t")).await;
    send(&producer, "hello").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "hello");
    within("the close", client.close()).await
}

#[tokio::test]
async fn a_client_gets_its_token_and_works_over_both_protocols() {
    let broker = broker().start().await.expect("free ports");
    let key_file = key_file("both", "app", SECRET);
    let source = source(&broker, &key_file).scope("produce consume");
    exchange(client_of(&broker.url(), source.clone())).await.expect("over the binary protocol");
    exchange(client_of(&broker.http_url().expect("HTTP is on"), source)).await.expect("with lookups over HTTP");
    assert_eq!(broker.oauth2_token_requests(), 1, "one for all connections of both clients");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn the_parameters_of_other_clients_do_the_same() {
    let broker = broker().start().await.expect("free ports");
    let key_file = key_file("params", "app", SECRET);
    let params = serde_json::json!({
        "type": "client_credentials",
        "issuerUrl": broker.issuer_url(),
        "privateKey": key_file.text(),
        "audience": AUDIENCE,
    });
    let source = OAuth2::from_params(params.to_string()).expect("good parameters");
    exchange(client_of(&broker.url(), source)).await.expect("it works");
}

#[tokio::test]
async fn each_fault_of_the_credentials_is_one_clear_line() {
    let broker = broker().start().await.expect("free ports");
    let issuer = broker.issuer_url().expect("it has clients");
    let (good, expired) = (key_file("good", "app", SECRET), key_file("expired", "app", "an old secret"));
    let token = format!("the identity provider at {issuer}/oauth2/token refused a token for the audience");
    for (source, expected) in [
        (
            source(&broker, &expired),
            format!(
                "{token} `{AUDIENCE}` to the client `app`: invalid_client: client authentication failed (status 401)"
            ),
        ),
        (
            source(&broker, &good).audience("urn:other"),
            format!(
                "{token} `urn:other` to the client `app`: invalid_target: the audience is missing, or unknown (status 400)"
            ),
        ),
    ] {
        let before = broker.oauth2_token_requests();
        let error = exchange(client_of(&broker.url(), source)).await.expect_err("refused");
        assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Authentication, false), "{error}");
        let address = broker.address();
        assert_eq!(error.to_string(), format!("{expected} [broker {address}]"));
        assert_eq!(broker.oauth2_token_requests() - before, 1, "it is not asked again");
    }
    let gone = OAuth2::client_credentials(&issuer, "/no/such/key.json");
    let error = exchange(client_of(&broker.url(), gone)).await.expect_err("no key");
    assert!(error.to_string().starts_with("the key file /no/such/key.json cannot be read"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_so_by_the_broker() {
    let broker = broker().start().await.expect("free ports");
    let key_file = key_file("nobody", "nobody", SECRET);
    let client = client_of(&broker.url(), source(&broker, &key_file)).connect();
    let client = within("the connection", client).await.expect("the token is good");
    let error = within("the refusal", client.producer("t").create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
}

/// Three times the broker asks for a fresh token while messages go back and forth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_under_load_leave_no_gap_and_cost_one_request_each() {
    let broker = broker()
        .oauth2_token_lifetime(Duration::from_secs(1))
        .authentication_refresh_check(Duration::from_millis(700))
        .start()
        .await
        .expect("free ports");
    let key_file = key_file("load", "app", SECRET);
    let control = Client::builder(broker.url()).authentication(pulsar_native::Token::new(broker.token("admin")));
    let control = within("the connection", control.connect()).await.expect("a client");
    let (control_gap, _) = Load::start(&control, "control").await.run_for(Duration::from_secs(2)).await;
    let source = Counted::new(source(&broker, &key_file));
    let client = Client::builder(broker.url()).authentication(source.clone()).connect();
    let client = within("the connection", client).await.expect("a client");
    let mut load = Load::start(&client, "load").await.with_source(&source);
    let (gap, _) = load.run(|| source.challenges() == 3).await;
    let (end_gap, _) = load.run_for(Duration::from_millis(300)).await;
    assert_no_gap(gap.max(end_gap), control_gap);
    assert_eq!((source.dials(), source.challenges()), (1, 3), "on one connection");
    assert_eq!(broker.oauth2_token_requests(), 3 + 1);
    within("the close", client.close()).await.expect("closed");
    within("the close", control.close()).await.expect("closed");
    assert_eq!(broker.violations(), []);
}
