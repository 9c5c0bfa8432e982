//! Every example, as it is, on the embedded broker.
#![allow(dead_code, reason = "the `main` of an example is not called here")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use pulsar_native::client::{AuthContext, Authentication, CredentialsFuture};
use pulsar_native::{Client, Error, ErrorKind};

#[cfg(feature = "tls")]
use crate::common::socks5::Socks5Proxy;
#[cfg(feature = "tls")]
use crate::common::temp_file::TempFile;
use crate::suite::within;
#[cfg(feature = "tls")]
use crate::tls;

const TOKEN_KEY: &str = "a secret of at least 32 bytes, for HS256";

#[cfg(feature = "lz4")]
#[path = "../../examples/batching_and_compression.rs"]
mod batching_and_compression;
#[path = "../../examples/challenge_response.rs"]
mod challenge_response;
#[path = "../../examples/consume_stream.rs"]
mod consume_stream;
#[path = "../../examples/exclusive_producer.rs"]
mod exclusive_producer;
#[path = "../../examples/failover.rs"]
mod failover;
#[path = "../../examples/graceful_shutdown.rs"]
mod graceful_shutdown;
#[cfg(feature = "http")]
#[path = "../../examples/hosted.rs"]
mod hosted;
#[path = "../../examples/negative_ack.rs"]
mod negative_ack;
#[cfg(feature = "oauth2")]
#[path = "../../examples/oauth2.rs"]
mod oauth2;
#[path = "../../examples/partitioned_keys.rs"]
mod partitioned_keys;
#[path = "../../examples/produce_many.rs"]
mod produce_many;
#[cfg(feature = "metrics")]
#[path = "../../examples/prometheus.rs"]
mod prometheus;
#[path = "../../examples/reader.rs"]
mod reader;
#[path = "../../examples/replay.rs"]
mod replay;
#[path = "../../examples/seek.rs"]
mod seek;
#[path = "../../examples/send_with_callback.rs"]
mod send_with_callback;
#[path = "../../examples/shared_workers.rs"]
mod shared_workers;
#[cfg(feature = "sim")]
#[path = "../../examples/simulation.rs"]
mod simulation;
#[cfg(feature = "tls")]
#[path = "../../examples/socks5.rs"]
pub(crate) mod socks5;
#[path = "../../examples/table_view.rs"]
mod table_view;
#[path = "../../examples/test_with_faults.rs"]
mod test_with_faults;
#[cfg(feature = "tls")]
#[path = "../../examples/tls_and_token_file.rs"]
mod tls_and_token_file;
#[path = "../../examples/token_supplier.rs"]
mod token_supplier;
#[path = "../../examples/workers_by_key.rs"]
mod workers_by_key;

fn broker() -> EmbeddedBrokerBuilder {
    EmbeddedBroker::builder().active_consumer_failover_delay_time(Duration::ZERO)
}

/// Runs an example on a broker of its own, whose rules it must keep.
async fn run<Fut: Future<Output = Result<(), Error>>>(
    broker: EmbeddedBrokerBuilder,
    example: impl FnOnce(String) -> Fut,
) -> EmbeddedBroker {
    let broker = broker.start().await.expect("a free port");
    within("the example", example(broker.url())).await.expect("the example runs");
    assert_eq!(broker.violations(), []);
    broker
}

fn stored(broker: &EmbeddedBroker, topic: &str) -> u64 {
    broker.stats(&format!("persistent://public/default/{topic}")).map_or(0, |stats| stats.msg_in_counter)
}

#[tokio::test]
async fn produce_many_runs() {
    let broker = run(broker(), async |url| produce_many::run(&url).await).await;
    assert_eq!(stored(&broker, "events"), 1000);
}

#[tokio::test]
async fn send_with_callback_runs() {
    let broker = run(broker(), async |url| send_with_callback::run(&url).await).await;
    assert_eq!(stored(&broker, "metrics"), 100);
}

#[tokio::test]
async fn consume_stream_runs() {
    drop(run(broker(), async |url| consume_stream::run(&url).await).await);
}

#[tokio::test]
async fn shared_workers_runs() {
    drop(run(broker(), async |url| shared_workers::run(&url).await).await);
}

/// Each order has a receipt, and is acknowledged only with it.
#[tokio::test]
async fn graceful_shutdown_runs() {
    let broker = broker().start().await.expect("a free port");
    let client = Client::builder(broker.url()).connect().await.expect("connected");
    let orders = client.producer("orders").create().await.expect("a producer");
    for number in 0..500 {
        drop(orders.enqueue(format!("order {number}")).await.expect("accepted"));
    }
    orders.flush().await.expect("stored");
    let mut receipts = client.consumer("receipts", "test").subscribe().await.expect("a consumer");
    let stop = async { drop(receipts.receive().await.expect("a receipt")) };
    let report = within("the example", graceful_shutdown::run(&broker.url(), stop)).await.expect("the example runs");
    assert!(report.is_complete(), "{report}");
    let stats = broker.stats("persistent://public/default/orders").expect("the topic is there");
    let subscription = &stats.subscriptions["receipts"];
    assert_eq!(stored(&broker, "receipts") + subscription.msg_backlog, 500);
    assert!(subscription.consumers.is_empty());
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn workers_by_key_runs() {
    drop(run(broker(), async |url| workers_by_key::run(&url).await).await);
}

#[tokio::test]
async fn negative_ack_runs() {
    drop(run(broker(), async |url| negative_ack::run(&url).await).await);
}

/// As the console gives it: a web address, a role's token, and the path of a topic, with or without its domain.
#[cfg(feature = "http")]
#[tokio::test]
async fn hosted_runs() {
    let broker = broker().token_secret_key(TOKEN_KEY).namespace("pulsar-xxx/sdk_rust").http(true);
    let broker = broker.start().await.expect("free ports");
    let url = broker.http_url().expect("the REST interface was asked for");
    let token = broker.token("admin");
    for (topic, messages) in [("persistent://pulsar-xxx/sdk_rust/topic1", 2), ("pulsar-xxx/sdk_rust/topic1", 4)] {
        within("the example", hosted::run(&url, &token, topic, "sub_topic1")).await.expect("the example runs");
        let stats = broker.stats("persistent://pulsar-xxx/sdk_rust/topic1").expect("the topic is there");
        let subscription = &stats.subscriptions["sub_topic1"];
        // One of the two is received twice.
        assert_eq!((stats.msg_in_counter, subscription.msg_out_counter), (messages, messages / 2 * 3));
        assert_eq!((subscription.msg_backlog, subscription.unacked_messages), (0, 0));
    }
    assert_eq!(broker.violations(), []);
}

#[cfg(feature = "oauth2")]
#[tokio::test]
async fn oauth2_runs() {
    let broker = broker().oauth2_client("account", "secret", "admin").oauth2_audience("urn:pulsar");
    let issuer = |broker: &EmbeddedBroker| broker.issuer_url().expect("there is a client");
    let key_file = r#"data:application/json,{"client_id":"account","client_secret":"secret"}"#;
    let broker = broker.start().await.expect("free ports");
    let example = oauth2::run(&broker.url(), &issuer(&broker), key_file, "urn:pulsar", "greetings").await;
    example.expect("the example runs");
    assert_eq!((stored(&broker, "greetings"), broker.oauth2_token_requests()), (1, 1));
    assert_eq!(broker.violations(), []);
}

/// What the README says of the errors that users of hosted clusters meet is what they are told.
#[cfg(feature = "http")]
#[tokio::test]
async fn hosted_says_what_is_wrong_as_in_the_readme() {
    let broker = broker().token_secret_key(TOKEN_KEY).namespace("pulsar-xxx/sdk_rust").http(true);
    let broker = broker.start().await.expect("free ports");
    let url = broker.http_url().expect("the REST interface was asked for");
    let (admin, nobody, topic) =
        (broker.token("admin"), broker.token("nobody"), "persistent://pulsar-xxx/sdk_rust/topic1");
    let readme = include_str!("../../README.md");
    for (url, token, topic, said) in [
        (&url, "eyJrZXlJZC...", topic, "`AuthenticationError (HTTP 401: "),
        (&url, &nobody, topic, "`AuthorizationError (HTTP 401: Unauthorized to "),
        (&url, &admin, "persistent://pulsar-yyy/sdk_rust/topic1", "`TopicNotFound (HTTP 404: "),
        (&url.replace("http://", "pulsar://"), &admin, topic, "`the peer speaks HTTP: this is the broker's web port"),
        (&format!("{url}/clusters"), &admin, topic, "`answered with status 404 where the REST interface"),
    ] {
        let error = within("the error", hosted::run(url, token, topic, "s")).await.expect_err(said);
        assert!(error.to_string().contains(&said[1..]) && readme.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn seek_runs() {
    drop(run(broker(), async |url| seek::run(&url).await).await);
}

#[tokio::test]
async fn reader_runs() {
    drop(run(broker(), async |url| reader::run(&url).await).await);
}

#[tokio::test]
async fn replay_runs() {
    drop(run(broker(), async |url| replay::run(&url).await).await);
}

#[tokio::test]
async fn table_view_runs() {
    drop(run(broker(), async |url| table_view::run(&url).await).await);
}

#[tokio::test]
async fn exclusive_producer_runs() {
    let broker = run(broker(), async |url| exclusive_producer::run(&url).await).await;
    assert_eq!(stored(&broker, "configuration"), 1);
}

#[tokio::test]
async fn failover_runs() {
    drop(run(broker(), async |url| failover::run(&url).await).await);
}

#[cfg(feature = "lz4")]
#[tokio::test]
async fn batching_and_compression_runs() {
    drop(run(broker(), async |url| batching_and_compression::run(&url).await).await);
}

#[tokio::test]
async fn partitioned_keys_runs() {
    let broker = broker().partitioned_topic("partitioned", 3);
    drop(run(broker, async |url| partitioned_keys::run(&url).await).await);
}

#[tokio::test]
async fn challenge_response_runs() {
    use challenge_response::{KnownUser, SharedSecret};
    let of = |user: &str, secret: &str| SharedSecret { user: user.to_owned(), secret: secret.to_owned() };
    let known = KnownUser { user: "admin".to_owned(), secret: "a shared secret".to_owned() };
    let broker =
        broker().token_secret_key(TOKEN_KEY).authentication_provider(known).start().await.expect("a free port");
    let url = broker.url();
    within("the example", challenge_response::run(&url, of("admin", "a shared secret"))).await.expect("it runs");
    for secret in [of("admin", "another secret"), of("stranger", "a shared secret")] {
        let error = within("the refusal", challenge_response::run(&url, secret)).await.expect_err("not known");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    // The other methods are there too, and one that the broker does not have is refused.
    let token = Client::builder(&url).authentication(pulsar_native::Token::new(broker.token("admin")));
    within("the connection", token.connect()).await.expect("a good token");
    let basic = Client::builder(&url).authentication(pulsar_native::Basic::new("admin", "a shared secret"));
    let error = within("the refusal", basic.connect()).await.expect_err("no such method");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    // Fresh credentials of a connection in use take all steps again.
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Counted { source: of("admin", "a shared secret"), asked: asked.clone() };
    let client = within("the connection", Client::builder(&url).authentication(counted).connect()).await;
    let client = client.expect("a client");
    let producer = within("a producer", client.producer("t").create()).await.expect("a producer");
    assert_eq!(asked.load(Ordering::SeqCst), 2, "the user, and the answer");
    broker.faults().challenge();
    crate::suite::until("both steps again", async || asked.load(Ordering::SeqCst), |count| *count == 4).await;
    within("a receipt", producer.send("x")).await.expect("sent");
    assert_eq!(asked.load(Ordering::SeqCst), 4, "on the same connection");
    assert_eq!(broker.violations(), []);
}

/// A source that counts how often it is asked.
struct Counted<A> {
    source: A,
    asked: Arc<AtomicUsize>,
}

impl<A: Authentication> Authentication for Counted<A> {
    fn credentials<'a>(&'a self, context: &'a AuthContext) -> CredentialsFuture<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.source.credentials(context)
    }
}

#[tokio::test]
async fn token_supplier_runs() {
    let broker = broker().token_secret_key(TOKEN_KEY).start().await.expect("a free port");
    let (url, token) = (broker.url(), broker.token("admin"));
    within("the example", token_supplier::run(&url, move || Some(token.clone()))).await.expect("the example runs");
    assert_eq!(stored(&broker, "authorized"), 1);
    let error = within("the refusal", token_supplier::run(&url, || None)).await.expect_err("no token");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_and_token_file_runs() {
    let (broker, url) = tls::broker(broker().token_secret_key(TOKEN_KEY), tls::Clients::Anyone).await;
    let token = TempFile::new("example-token", broker.token("admin"));
    let ca_file = tls::file("ca.pem");
    let running = tls_and_token_file::run(&url, &ca_file, token.path());
    within("the example", running).await.expect("the example runs");
    assert_eq!(stored(&broker, "secured"), 1);
}

/// Over the binary protocol with and without TLS, and with lookups over `https://`. Each way the proxy is what dials.
#[cfg(all(feature = "tls", feature = "http"))]
#[tokio::test]
async fn socks5_runs() {
    let proxy = Socks5Proxy::start("me", "a password").await;
    let (broker, tls_url) = tls::broker(broker().http(true), tls::Clients::Anyone).await;
    let https_url = broker.https_url().expect("both are on");
    let ca_file = tls::file("ca.pem");
    for (url, ca_file) in [(broker.url(), None), (tls_url, Some(&*ca_file)), (https_url, Some(&*ca_file))] {
        let running = socks5::run(&url, dialer(&proxy, "a password"), ca_file);
        within("the example", running).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let address = url.split_once("://").expect("a URL").1.to_owned();
        assert!(proxy.reached().contains(&address), "{address} in {:?}", proxy.reached());
    }
    assert_eq!(stored(&broker, "by-proxy"), 3);
    assert_eq!(broker.violations(), []);
}

/// What the dialer and the TLS over it say is what the application is told.
#[cfg(feature = "tls")]
#[tokio::test]
async fn socks5_says_what_is_wrong() {
    let proxy = Socks5Proxy::start("me", "a password").await;
    let (broker, url) = tls::broker(broker(), tls::Clients::Anyone).await;
    let connecting = |url: &str, password| {
        let builder = Client::builder(url).dialer_under_tls(dialer(&proxy, password));
        within("the error", builder.operation_timeout(Duration::from_secs(1)).connect())
    };
    for (url, password, kind, said) in [
        (&*url, "hunter2", ErrorKind::Authentication, "refuses user and password"),
        ("pulsar+ssl://forbidden:6651", "a password", ErrorKind::TimedOut, "its rules do not allow it"),
        ("pulsar://127.0.0.1:1", "a password", ErrorKind::TimedOut, "the connection was refused"),
        // It is not told which authority to trust.
        (&*url, "a password", ErrorKind::Connection, "certificate"),
    ] {
        let error = connecting(url, password).await.expect_err(said);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(said) && !error.to_string().contains("hunter2"), "{error}");
    }
    assert_eq!(broker.violations(), []);
}

#[cfg(feature = "tls")]
fn dialer(proxy: &Socks5Proxy, password: &str) -> socks5::Socks5 {
    socks5::Socks5 { proxy: proxy.address().to_owned(), user: Some(("me".to_owned(), password.to_owned())) }
}

#[tokio::test]
async fn test_with_faults_runs() {
    within("the example", test_with_faults::run()).await.expect("the example runs");
}

#[cfg(feature = "sim")]
#[test]
fn simulation_runs_the_same_twice() {
    assert_eq!(simulation::run(7), simulation::run(7));
}

/// The example is scraped while its broker loses the connections, and what it says has all that the board shows.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn prometheus_shows_what_the_board_asks_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let recorder = prometheus::recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(prometheus::serve(listener, recorder.handle()));
    let scrape = async || {
        let mut socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer
    };
    let broker = broker().start().await.expect("a free port");
    let (url, faults) = (broker.url(), broker.clone());
    let running = tokio::spawn(async move { prometheus::run(&url, Duration::from_millis(20), 100).await });
    crate::suite::until("messages", async || scrape().await, |text| text.contains("message_ack_total")).await;
    faults.drop_connections();
    within("the example", running).await.expect("no panic").expect("the example runs");
    let text = scrape().await;
    let board = include_str!("../../docs/grafana.json");
    let names = board.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: std::collections::BTreeSet<_> = names.filter(|name| name.starts_with("pulsar_client_")).collect();
    assert!(names.len() > 20, "the board was read");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| {
            !text.lines().any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?} of the board are not in\n{text}");
    assert!(text.contains("pulsar_client_producer_message_send_count_total{"), "{text}");
    assert_eq!(broker.violations(), []);
}
