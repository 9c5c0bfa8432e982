//! `http://` and `https://` service URLs: on the REST interface of the embedded broker, and on web servers whose answers
//! are written by the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use pulsar_native::client::{AuthContext, AuthData, Authentication, CredentialsFuture, HttpHeaders, HttpHeadersFuture};
use pulsar_native::{Client, ErrorKind, IdleReason, InitialPosition, Message, SubscriptionType, Token};

use crate::common::web::{Web, broker, json, page, redirect};
use crate::suite::{Duration, send, within};

mod clusters;
mod redirects;
mod refusals;
mod user_code;

const KEY: &str = "a secret of at least 32 bytes, for HS256";

async fn start(builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, String) {
    let broker = builder.http(true).start().await.expect("free ports");
    let url = broker.http_url().expect("the REST interface was asked for");
    (broker, url)
}

/// A broker that serves these topics already: the web servers of the tests answer lookups, so that it hears of none.
async fn serving<T: Into<String>>(topics: impl IntoIterator<Item = T>) -> EmbeddedBroker {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    let client = within("the connection", Client::builder(broker.url()).connect()).await.expect("a client");
    for topic in topics {
        within("a producer", client.producer(topic).create()).await.expect("a producer");
    }
    within("the close", client.close()).await.expect("closed");
    broker
}

/// Sends a message and receives it.
async fn exchange(client: &Client, topic: &str) {
    let mut consumer = within("a consumer", client.consumer(topic, "s").subscribe()).await.expect("a consumer");
    let producer = within("a producer", client.producer(topic).create()).await.expect("a producer");
    send(&producer, "hello").await;
    let message = within("the message", consumer.receive()).await.expect("a message");
    assert_eq!(message.to_string_lossy(), "hello");
}

#[tokio::test]
async fn the_quickstart_works_over_http() {
    let (broker, url) = start(EmbeddedBroker::builder().token_secret_key(KEY).namespace("cluster/namespace")).await;
    let topic = "persistent://cluster/namespace/topic";
    crate::quickstart::example::walk_through(&url, &broker.token("admin"), topic).await.expect("every step");
    assert_eq!(broker.stats(topic).expect("the topic is there").msg_in_counter, 2);
    assert_eq!(broker.violations(), []);
    within("the broker to stop", broker.stop()).await;
}

#[tokio::test]
async fn partitions_are_looked_up_over_http() {
    let (broker, url) = start(EmbeddedBroker::builder().partitioned_topic("parts", 3)).await;
    let client = within("the connection", Client::builder(url).connect()).await.expect("a client");
    assert_eq!(client.partitions("parts").await.expect("partitions"), 3);
    assert_eq!(client.partitions("plain").await.expect("no partitions"), 0);
    let mut consumer = client
        .consumer("parts", "s")
        .initial_position(InitialPosition::Earliest)
        .subscribe()
        .await
        .expect("a consumer");
    let producer = client.producer("parts").create().await.expect("a producer");
    for key in 0..10 {
        send(&producer, pulsar_native::Message::new("m").with_key(key.to_string())).await;
    }
    for _ in 0..10 {
        within("a message", consumer.receive()).await.expect("a message");
    }
    // What needs percent-encoding arrives as it is.
    exchange(&client, "persistent://public/default/a b%c?d#e+ü").await;
    assert!(broker.topics().iter().any(|topic| topic.ends_with("/a b%c?d#e+ü")), "{:?}", broker.topics());
    within("the close", client.close()).await.expect("closed");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_web_port_of_the_embedded_broker_is_named_as_such() {
    let (_broker, url) = start(EmbeddedBroker::builder()).await;
    let error = Client::builder(url.replace("http://", "pulsar://")).connect().await.expect_err("a web port");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().contains("web port"), "{error}");
}

#[tokio::test]
async fn the_path_of_a_proxy_is_kept_and_the_listener_is_asked_for() {
    let embedded = serving(["t"]).await;
    let url = embedded.url();
    let web = Web::start(move |request| Some(broker(request, &url))).await;
    let client = Client::builder(format!("{}/clusters/one/", web.url())).listener_name("custom:vpc/1");
    let client = within("the connection", client.connect()).await.expect("a client");
    exchange(&client, "t").await;
    let paths: Vec<_> = web.seen().iter().map(|request| request.path().to_owned()).collect();
    assert!(paths.iter().all(|path| path.starts_with("/clusters/one/")), "{paths:?}");
    let lookup =
        "/clusters/one/lookup/v2/topic/persistent/public/default/t?authoritative=false&listenerName=custom%3Avpc%2F1";
    assert!(paths.iter().any(|path| path == lookup), "{paths:?}");
    let host = web.address().to_string();
    assert!(web.seen().iter().all(|request| request.header("host") == Some(&host)));
}

#[tokio::test]
async fn connections_are_reused_and_few() {
    let embedded = serving((0..100).map(|n| format!("t{n}"))).await;
    let url = embedded.url();
    let web = Web::start(move |request| Some(broker(request, &url))).await;
    let client = within("the connection", Client::builder(web.url()).connect()).await.expect("a client");
    let producers: Vec<_> = (0..100)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.producer(format!("t{n}")).create().await })
        })
        .collect();
    for producer in producers {
        within("a producer", producer).await.expect("no panic").expect("a producer");
    }
    assert!(web.seen().len() >= 200, "{}", web.seen().len());
    assert!(web.connections() <= 8, "{} connections", web.connections());
}

#[tokio::test]
async fn a_connection_that_the_host_closed_meanwhile_is_made_again() {
    let embedded = serving(["t"]).await;
    let url = embedded.url();
    // Says that it keeps the connection and closes it: an answer behind which the next request finds an end.
    let web = Web::start(move |request| Some(broker(request, &url))).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let front = format!("http://{}", listener.local_addr().expect("an address"));
    let behind = web.address();
    let relay = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(behind).await.expect("the web server");
            relay_one(&mut from, &mut to).await;
        }
    });
    let client = within("the connection", Client::builder(front).connect()).await.expect("a client");
    exchange(&client, "t").await;
    relay.abort();
}

/// One request and one answer, then the end.
async fn relay_one(from: &mut tokio::net::TcpStream, to: &mut tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = vec![0; 16 * 1024];
    let count = from.read(&mut bytes).await.expect("a request");
    to.write_all(&bytes[..count]).await.expect("the web server");
    let count = to.read(&mut bytes).await.expect("an answer");
    from.write_all(&bytes[..count]).await.expect("the client");
}

#[tokio::test]
async fn the_next_host_is_used_when_one_is_gone() {
    let embedded = serving((0..4).map(|seed| format!("t{seed}"))).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let url = embedded.url();
    let web = Web::start(move |request| Some(broker(request, &url))).await;
    for seed in 0..4 {
        let hosts = format!("http://{closed},{}", web.address());
        let client = Client::builder(hosts).seed(seed).connect();
        let client = within("the connection", client).await.expect("one host is up");
        exchange(&client, &format!("t{seed}")).await;
        within("the close", client.close()).await.expect("closed");
    }
}

#[tokio::test]
async fn a_host_that_goes_away_later_is_replaced() {
    let embedded = serving(["before", "after"]).await;
    let host = |url: String| Web::start(move |request| Some(broker(request, &url)));
    let (first, second) = (host(embedded.url()).await, host(embedded.url()).await);
    let hosts = format!("http://{},{}", first.address(), second.address());
    let client = within("the connection", Client::builder(hosts).connect()).await.expect("a client");
    exchange(&client, "before").await;
    let (in_use, other) = if first.seen().is_empty() { (second, first) } else { (first, second) };
    assert!(other.seen().is_empty(), "one host is in use");
    drop(in_use);
    exchange(&client, "after").await;
    assert!(!other.seen().is_empty(), "the other host has answered");
    within("the close", client.close()).await.expect("closed");
}

#[tokio::test]
async fn a_token_that_expired_is_fetched_again() {
    let embedded = EmbeddedBroker::builder().start().await.expect("a free port");
    let url = embedded.url();
    // The first token is good for one request.
    let web = Web::start(move |request| {
        let number: usize = request.header("authorization")?.strip_prefix("Bearer token-")?.parse().ok()?;
        let is_first = request.path().contains("pulsar-native/partitions");
        Some(if number == 1 && !is_first { page("401 Unauthorized") } else { broker(request, &url) })
    })
    .await;
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let token = Token::from_fn(move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok(format!("token-{number}")) }
    });
    let client = Client::builder(web.url()).authentication(token).connect();
    let client = within("the connection", client).await.expect("a client");
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
    within("the partitions", client.partitions("t")).await.expect("partitions");
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
    within("the partitions", client.partitions("t")).await.expect("partitions");
    assert_eq!(fetched.load(Ordering::Relaxed), 2, "the second token is kept");
}

/// Shows a header of its own.
struct Signed;

impl Authentication for Signed {
    fn credentials<'a>(&'a self, _: &'a AuthContext) -> CredentialsFuture<'a> {
        Box::pin(async { Ok(AuthData::none()) })
    }

    fn http_headers<'a>(&'a self, context: &'a AuthContext) -> HttpHeadersFuture<'a> {
        let host = context.broker().to_string();
        Box::pin(async move { Ok(HttpHeaders::new().with_header("X-Signed-For", host)) })
    }
}

#[tokio::test]
async fn a_source_of_credentials_has_headers_of_its_own() {
    let web = Web::always(json("{\"partitions\":7}")).await;
    let client = Client::builder(web.url()).authentication(Signed).connect();
    let client = within("the connection", client).await.expect("a client");
    assert_eq!(client.partitions("t").await.expect("partitions"), 7);
    let host = web.address().to_string();
    assert!(web.seen().iter().all(|request| request.header("x-signed-for") == Some(&host)), "{:?}", web.seen());
}

/// A client of the binary protocol asks the REST interface where it was told one, with its credentials.
#[tokio::test]
async fn an_admin_url_adds_what_the_binary_protocol_does_not_say() {
    let (broker, url) = start(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let delayed = |reason: &IdleReason| match reason {
        IdleReason::Withheld { backlog: 1, delayed, .. } => Some(*delayed),
        _ => None,
    };
    for (admin_url, expected) in [(None, None), (Some(&url), Some(1))] {
        let mut builder = Client::builder(broker.url()).authentication(Token::new(broker.token("admin")));
        if let Some(url) = admin_url {
            builder = builder.admin_url(url.as_str());
        }
        let client = within("the connection", builder.connect()).await.expect("a client");
        let topic = format!("delayed-{}", admin_url.is_some());
        let builder = client.consumer(&topic, "s").subscription_type(SubscriptionType::Shared);
        let consumer = within("a consumer", builder.subscribe()).await.expect("a consumer");
        let producer = within("a producer", client.producer(&topic).create()).await.expect("a producer");
        send(&producer, Message::new("later").with_deliver_after(Duration::from_secs(3600))).await;
        let why = within("the reason", consumer.why_idle()).await;
        assert_eq!(delayed(&why.parts[0].reason), Some(expected), "{why}");
        within("the close", client.close()).await.expect("closed");
    }
    let error = Client::builder(broker.url()).admin_url("pulsar://a:1").build().expect_err("no REST interface");
    assert!(error.to_string().contains("admin_url"), "{error}");
}
