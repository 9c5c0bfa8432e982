//! OAuth2: a real OpenID Connect provider, and a broker that takes its tokens. `scripts/real-oauth2` starts both and says
//! what is in the environment; without a provider these tests are not in the list.

use std::time::Duration;

use pulsar_native::{Client, ClientBuilder, ErrorKind, OAuth2, Token};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::broker::{Real, variable};
use crate::common::expiries::{Counted, Load, assert_no_gap};
use crate::common::java;
use crate::common::temp_file::TempFile;
use crate::runner::Test;
use crate::suite::{InitialPosition, created, receive, send, subscribed, within};

const ISSUER: &str = "PULSAR_OAUTH2_ISSUER";

/// None without a provider.
pub fn tests() -> &'static [Test] {
    const TESTS: &[Test] = &[
        ("oauth2::messages", |real| Box::pin(messages(real))),
        ("oauth2::certificate_in_place_of_a_secret", |real| Box::pin(certificate_in_place_of_a_secret(real))),
        ("oauth2::refusals_of_the_provider", |real| Box::pin(refusals_of_the_provider(real))),
        ("oauth2::refusals_of_the_broker", |real| Box::pin(refusals_of_the_broker(real))),
        ("oauth2::expiries_under_load", |real| Box::pin(expiries_under_load(real))),
        ("oauth2::java_with_the_same_settings", |real| Box::pin(java_with_the_same_settings(real))),
    ];
    if std::env::var_os(ISSUER).is_some() { TESTS } else { &[] }
}

fn key_file(name: &str, client_id: &str, secret: &str) -> TempFile {
    let key = serde_json::json!({ "type": "client_credentials", "client_id": client_id, "client_secret": secret });
    TempFile::new(&format!("oauth2-{name}.json"), key.to_string())
}

/// The credentials of a client, and the file that they are in.
fn source(name: &str, client_id: &str) -> (OAuth2, TempFile) {
    let key_file = key_file(name, client_id, &variable("PULSAR_OAUTH2_SECRET"));
    let source = OAuth2::client_credentials(variable(ISSUER), format!("file://{}", key_file.text()));
    (source.audience(variable("PULSAR_OAUTH2_AUDIENCE")).scope("produce consume"), key_file)
}

fn client_of(url: &str, source: OAuth2) -> ClientBuilder {
    Client::builder(url).authentication(source)
}

async fn connected(builder: ClientBuilder) -> Client {
    within("the connection", builder.connect()).await.expect("a client")
}

/// How often a client has asked the provider for a token.
async fn token_requests(client_id: &str) -> u64 {
    let address = variable(ISSUER).trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.expect("the provider");
    let request = format!("GET /token-requests HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    within("the provider", socket.read_to_string(&mut answer)).await.expect("an answer");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let counts: Value = serde_json::from_str(body).expect("JSON");
    counts[client_id].as_u64().unwrap_or_default()
}

/// A message there and back.
async fn exchange(real: &Real, builder: ClientBuilder) {
    let topic = real.target().topic("oauth2");
    let client = connected(builder).await;
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    send(&producer, "hello").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "hello");
    within("the close", client.close()).await.expect("closed");
}

/// Over the binary protocol and with lookups over HTTP, each with TLS and without.
async fn messages(real: Real) {
    let (source, _file) = source("messages", "app");
    let client = |url: &str| client_of(url, source.clone()).ca_file(&real.ca_file);
    for builder in [client(&real.url), client(&real.tls_url), client(&real.http_url()), client(&real.web_tls_url)] {
        exchange(&real, builder).await;
    }
}

/// The provider is reached over TLS, with trust roots of its own, and knows the client by its certificate.
async fn certificate_in_place_of_a_secret(real: Real) {
    let (issuer, folder) = (variable("PULSAR_OAUTH2_TLS_ISSUER"), variable("PULSAR_OAUTH2_CERTIFICATES"));
    let file = |name: &str| format!("{folder}/{name}.pem");
    let certified = OAuth2::tls_client_auth(&issuer, file("client"), file("client-key"))
        .client_id("certified")
        .ca_file(file("ca"))
        .audience(variable("PULSAR_OAUTH2_AUDIENCE"))
        .scope("produce consume");
    exchange(&real, client_of(&real.url, certified.clone())).await;
    let said = connected_error(&real, certified.client_id("app")).await;
    assert!(said.contains("to the client `app`: invalid_client"), "{said}");
}

async fn refusals_of_the_provider(real: Real) {
    let (audience, issuer) = (variable("PULSAR_OAUTH2_AUDIENCE"), variable(ISSUER));
    let at = format!("the identity provider at {issuer}/token refused a token for the audience");
    let (good, _file) = source("unknown-audience", "app");
    let expired = key_file("expired", "app", "hunter2");
    let said = connected_error(&real, OAuth2::client_credentials(&issuer, expired.text()).audience(&audience)).await;
    let line =
        format!("{at} `{audience}` to the client `app`: invalid_client: client authentication failed (status 401)");
    assert!(said.starts_with(&line), "{said}");
    let said = connected_error(&real, good.audience("urn:no-such")).await;
    let line =
        format!("{at} `urn:no-such` to the client `app`: invalid_target: resource indicator is missing, or unknown");
    assert!(said.starts_with(&line), "{said}");
}

async fn connected_error(real: &Real, source: OAuth2) -> String {
    let error = within("the refusal", client_of(&real.url, source).connect()).await.expect_err("no token");
    assert_eq!((error.kind(), error.is_retriable()), (ErrorKind::Authentication, false), "{error}");
    assert!(!error.to_string().contains("hunter2") && !error.to_string().contains('\n'), "{error}");
    error.to_string()
}

async fn refusals_of_the_broker(real: Real) {
    let (source_of_app, _file) = source("other-audience", "app");
    let other = source_of_app.audience(variable("PULSAR_OAUTH2_OTHER_AUDIENCE"));
    let said = connected_error(&real, other).await;
    assert!(said.contains("the broker refused"), "{said}");
    let (nobody, _file) = source("nobody", "nobody");
    let client = connected(client_of(&real.url, nobody)).await;
    let topic = real.target().topic("oauth2-nobody");
    let error = within("the refusal", client.producer(&topic).create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
}

/// The broker asks for three fresh tokens, and one source is asked by two clients.
async fn expiries_under_load(real: Real) {
    const LONG_ENOUGH: Duration = Duration::from_secs(6);
    let target = real.target();
    let control = connected(target.builder()).await;
    let (control_gap, count) = Load::start(&control, &target.topic("control")).await.run_for(LONG_ENOUGH).await;
    println!("control: {count} messages, the longest took {control_gap:?}");
    let (source, _file) = source("load", "app-short");
    let (source, before) = (Counted::new(source), token_requests("app-short").await);
    let client = connected(Client::builder(&real.url).authentication(source.clone())).await;
    let mut load = Load::start(&client, &target.topic("load")).await.with_source(&source);
    let (gap, count) = load.run(|| source.challenges() == 3).await;
    let (end_gap, _) = load.run_for(Duration::from_millis(500)).await;
    println!("three expiries: {count} messages, the longest took {:?}", gap.max(end_gap));
    assert_no_gap(gap.max(end_gap), control_gap);
    assert_eq!((source.dials(), source.challenges()), (1, 3), "on one connection");
    assert_eq!(token_requests("app-short").await - before, 3 + 1);
    within("the close", client.close()).await.expect("closed");
}

/// The Java client and this one, from the same parameters.
async fn java_with_the_same_settings(real: Real) {
    const PLUGIN: &str = "org.apache.pulsar.client.impl.auth.oauth2.AuthenticationOAuth2";
    let (_, key_file) = source("java", "app");
    let params = serde_json::json!({
        "type": "client_credentials",
        "issuerUrl": variable(ISSUER),
        "privateKey": format!("file://{}", key_file.text()),
        "audience": variable("PULSAR_OAUTH2_AUDIENCE"),
        "scope": "produce consume",
    });
    let params = params.to_string();
    let before = token_requests("app").await;
    let java = ["--url", &real.url, "--auth-plugin", PLUGIN, "--auth-params", &params];
    let topic = real.target().topic("oauth2-java");
    let client = connected(client_of(&real.url, OAuth2::from_params(&params).expect("good parameters"))).await;
    let consumer = client.consumer(&topic, "ours").initial_position(InitialPosition::Earliest);
    let mut consumer = subscribed(consumer).await;
    java::run("pulsar-client", &[&java[..], &["produce", &topic, "-m", "from Java", "-n", "1"]].concat()).await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "from Java");
    let producer = created(client.producer(&topic)).await;
    send(&producer, "from us").await;
    let consume = ["consume", &topic, "-s", "theirs", "-p", "Earliest", "-n", "2"];
    let printed = java::run("pulsar-client", &[&java[..], &consume].concat()).await;
    assert!(printed.contains("content:from Java") && printed.contains("content:from us"), "{printed}");
    assert!(token_requests("app").await - before >= 3, "each of the three clients has asked");
    let by_token = Client::builder(&real.url).authentication(Token::new("not one of the provider's"));
    let error = within("the refusal", by_token.connect()).await.expect_err("no good token");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
}
