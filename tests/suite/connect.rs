//! Getting in, and being told clearly why not.

use tokio::net::TcpListener;

use super::target::{Feature, Role};
use super::wait::within_time;
use super::*;
use pulsar_native::{AttachState, ClientBuilder, ConnectionPhase, Error};

/// How long a permanent error may take to be reported.
const SOON: Duration = Duration::from_secs(10);

async fn refused(builder: ClientBuilder) -> Error {
    within_time(SOON, "the refusal", builder.connect()).await.expect_err("a refusal")
}

/// Producing to and consuming from the topic both fail alike.
async fn topic_is_refused(client: &Client, topic: &str, kind: ErrorKind) {
    let create = client.producer(topic).create();
    let error = within_time(SOON, "the producer to be refused", create).await.expect_err("a producer");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(topic), "names the topic: {error}");
    let subscribe = client.consumer(topic, "s").subscribe();
    let error = within_time(SOON, "the consumer to be refused", subscribe).await.expect_err("a consumer");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(topic), "names the topic: {error}");
}

pub async fn wrong_token(target: &Target) {
    let error = refused(target.builder_without_token().authentication(Token::new("not.a.token"))).await;
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(!error.is_retriable(), "{error}");
    assert!(error.to_string().contains(&target.address()), "names the address: {error}");
    assert!(!format!("{error} {error:?}").contains("not.a.token"), "keeps the token to itself: {error:?}");
}

pub async fn no_token(target: &Target) {
    let error = refused(target.builder_without_token()).await;
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains(&target.address()), "names the address: {error}");
}

pub async fn expired_token(target: &Target) {
    let token = target.cluster().expired_token();
    let error = refused(target.builder_without_token().authentication(Token::new(token))).await;
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
}

pub async fn role_without_rights(target: &Target) {
    let token = Token::new(target.cluster().token(Role::Nobody));
    let client = within("the connection", target.builder_without_token().authentication(token).connect())
        .await
        .expect("a client");
    topic_is_refused(&client, &target.topic("no-rights"), ErrorKind::Authorization).await;
}

/// A port that was free a moment ago.
async fn unused_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

pub async fn unreachable_port(_: &Target) {
    let address = unused_address().await;
    let builder = Client::builder(format!("pulsar://{address}")).operation_timeout(Duration::from_millis(500));
    let error = refused(builder).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.is_retriable(), "{error}");
    assert!(error.to_string().contains(&address), "names the address: {error}");
    let last = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<pulsar_native::Error>());
    assert_eq!(last.map(pulsar_native::Error::kind), Some(ErrorKind::Connection), "the last failure: {error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

pub async fn http_port(target: &Target) {
    let address = within("an HTTP server", target.cluster().http_address()).await;
    let error = refused(Client::builder(format!("pulsar://{address}"))).await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains(&address), "names the address: {error}");
}

pub async fn silent_peer(_: &Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let accepting = tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            silent.push(socket);
        }
    });
    let builder = Client::builder(format!("pulsar://{address}"))
        .connection_timeout(Duration::from_secs(1))
        .operation_timeout(Duration::from_secs(2));
    let error = refused(builder).await;
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Connection), "{error:?}");
    assert!(error.to_string().contains(&address), "names the address: {error}");
    accepting.abort();
}

pub async fn missing_topic(target: &Target) {
    let target = target.with(Feature::NoTopicCreation).await;
    topic_is_refused(&target.client().await, &target.topic("missing"), ErrorKind::TopicNotFound).await;
}

pub async fn missing_namespace(target: &Target) {
    let client = target.client().await;
    topic_is_refused(&client, "persistent://public/no-such-namespace/t", ErrorKind::TopicNotFound).await;
}

pub async fn bad_url(_: &Target) {
    for url in [
        "",
        "localhost:6650",
        "http://",
        "http://localhost?a=b",
        "pulsar://",
        "pulsar://localhost:99999",
        "pulsar://a/b",
    ] {
        let error = refused(Client::builder(url)).await;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url:?}: {error}");
        // A query may hold a credential, so the error shows the URL up to it.
        let shown = url.split('?').next().expect("the part before a query");
        assert!(error.to_string().contains(shown), "{url:?}: {error}");
        assert!(!error.to_string().contains("a=b"), "{url:?}: {error}");
    }
}

pub async fn bad_topic(target: &Target) {
    let client = target.client().await;
    for topic in ["a/b", "persistent://a/b", "persistent://a/b/c/d", "queue://a/b/c", "persistent://a//c"] {
        topic_is_refused(&client, topic, ErrorKind::InvalidArgument).await;
    }
}

pub async fn bad_options(target: &Target) {
    let client = target.client().await;
    let topic = target.topic("bad-options");
    let error = client.consumer(&topic, "").subscribe().await.expect_err("a subscription without a name");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = client.producer(&topic).name("").create().await.expect_err("a producer with an empty name");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = target.builder().keep_alive_interval(Duration::ZERO).connect().await.expect_err("no keep-alive at all");
    assert!(error.to_string().contains("keep_alive_interval"), "{error}");
}

pub async fn second_host_of_the_url(target: &Target) {
    let url = target.url_of(&format!("{},{}", unused_address().await, target.address()));
    let token = Token::new(target.cluster().token(Role::Admin));
    let client =
        within("the second host", Client::builder(url).authentication(token).connect()).await.expect("a client");
    let producer = created(client.producer(target.topic("second-host"))).await;
    send(&producer, "through the second host").await;
}

/// How many connections a client has to the broker that serves this producer.
fn connections(client: &Client, producer: &Producer) -> usize {
    let state = producer.state();
    let AttachState::Attached { broker, .. } = &state.parts[0].state else { panic!("{state}") };
    let is_one = |phase: &ConnectionPhase| matches!(phase, ConnectionPhase::Connected { .. });
    client.state().connections.iter().filter(|one| one.broker == *broker && is_one(&one.phase)).count()
}

pub async fn several_connections_to_one_broker(target: &Target) {
    let builder = target.builder().connections_per_broker(3);
    let client = within("the connection", builder.connect()).await.expect("a client");
    let topic = target.topic("several-connections");
    let mut producers = Vec::new();
    for _ in 0..6 {
        producers.push(created(client.producer(&topic)).await);
    }
    assert_eq!(connections(&client, &producers[0]), 3, "{}", client.state());
    let mut consumer = subscribed(client.consumer(&topic, "s").initial_position(InitialPosition::Earliest)).await;
    for producer in &producers {
        send(producer, "x").await;
        receive(&mut consumer).await;
    }
}

pub async fn an_unused_connection_is_closed(target: &Target) {
    let builder = target.builder().connection_max_idle(Duration::from_millis(200));
    let client = within("the connection", builder.connect()).await.expect("a client");
    let topic = target.topic("unused-connection");
    let producer = created(client.producer(&topic)).await;
    send(&producer, "x").await;
    assert_eq!(connections(&client, &producer), 1, "{}", client.state());
    within("the close", producer.close()).await.expect("closed");
    let is_unused = |state: &pulsar_native::ClientState| state.connections.is_empty();
    until("the connection to be closed", || async { client.state() }, is_unused).await;
    send(&created(client.producer(&topic)).await, "made again when it is needed").await;
}
