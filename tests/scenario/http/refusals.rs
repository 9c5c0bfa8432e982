//! What goes wrong over HTTP is one clear line.

use super::*;
use crate::common::web::answer;
use pulsar_native::Error;
use pulsar_native::client::{DialFuture, Dialer, Socket, Target};

/// A line that contains `words`.
fn line(error: &Error, words: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// How `connect` fails if the host gives this answer, with little time.
async fn connecting(answer: String) -> Error {
    let web = Web::always(answer).await;
    let client = Client::builder(web.url()).operation_timeout(Duration::from_secs(1));
    let error = within("a failure", client.connect()).await.expect_err("a failure");
    line(&error, &[&web.address().to_string()]);
    error
}

/// How a producer fails if lookups get this answer.
async fn looking_up(lookup: String) -> Error {
    let web = Web::start(move |request| match request.path().contains("/lookup/") {
        true => Some(lookup.clone()),
        false => Some(json("{\"partitions\":0}")),
    })
    .await;
    let client = Client::builder(web.url()).operation_timeout(Duration::from_secs(1)).connect();
    let client = within("the connection", client).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("a failure");
    line(&error, &["persistent://public/default/t"]);
    error
}

#[tokio::test]
async fn what_is_no_broker_is_named_at_once() {
    let error = connecting(page("200 OK")).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    line(&error, &["a web page", "8080"]);
    let error = connecting(page("404 Not Found")).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    line(&error, &["404", "path of the proxy"]);
    let error = connecting("SSH-2.0-OpenSSH_9.6\r\n".to_owned()).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    line(&error, &["does not speak HTTP"]);
    let error = connecting(answer("200 OK", "", &" ".repeat(1024 * 1024 + 1))).await;
    assert_eq!(error.kind(), ErrorKind::Protocol);
    line(&error, &["longer than 1048576 bytes"]);
}

#[tokio::test]
async fn refusals_of_credentials_and_rights() {
    let (broker, url) = start(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    let connect = |token: &str| Client::builder(&url).authentication(Token::new(token)).connect();
    for token in ["not-a-token", &broker.token_expiring("admin", Duration::ZERO)] {
        let error = within("a failure", connect(token)).await.expect_err("a bad token");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        line(&error, &["AuthenticationError", "401", "127.0.0.1"]);
        assert!(!format!("{error:?}").contains(token), "{error:?}");
    }
    let error = within("a failure", Client::builder(&url).connect()).await.expect_err("no token");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    // The role is known, and has no rights: the connection stands.
    let client = within("the connection", connect(&broker.token("nobody"))).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    line(&error, &["Unauthorized to", "persistent://public/default/t"]);
    // From something in front of the broker, without a reason.
    let error = looking_up(page("403 Forbidden")).await;
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    line(&error, &["HTTP 403", "the role of these credentials may not do this"]);
}

#[tokio::test]
async fn missing_topics_and_namespaces() {
    let (_broker, url) = start(EmbeddedBroker::builder().allow_auto_topic_creation(false)).await;
    let client = within("the connection", Client::builder(url).connect()).await.expect("a client");
    for topic in ["persistent://no/where/t", "persistent://public/default/missing"] {
        let error = within("a failure", client.producer(topic).create()).await.expect_err("no topic");
        assert_eq!(error.kind(), ErrorKind::TopicNotFound, "{error}");
        line(&error, &[topic, "not found"]);
    }
    let error = looking_up(answer("404 Not Found", "", r#"{"reason":"Topic not found t"}"#)).await;
    assert_eq!(error.kind(), ErrorKind::TopicNotFound, "{error}");
}

#[tokio::test]
async fn what_passes_is_retried_until_there_is_no_time_left() {
    let error = connecting(page("503 Service Unavailable")).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    line(&error, &["ServiceNotReady", "503", "not ready"]);
    let error = looking_up(answer("500 Server Error", "", r#"{"reason":"Message: no owner"}"#)).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    line(&error, &["HTTP 500: no owner"]);
}

#[tokio::test]
async fn a_host_that_is_starting_is_waited_for() {
    let embedded = serving(["t"]).await;
    let (url, asked) = (embedded.url(), AtomicUsize::new(0));
    let web = Web::start(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0..3 => Some(page("503 Service Unavailable")),
        _ => Some(broker(request, &url)),
    })
    .await;
    let client = within("the connection", Client::builder(web.url()).connect()).await.expect("a client");
    exchange(&client, "t").await;
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let web = Web::start(|_| None).await;
    let client = Client::builder(web.url()).operation_timeout(Duration::from_millis(300));
    let error = within("a failure", client.connect()).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    line(&error, &[&web.address().to_string(), "still waiting for", "firewalls"]);
}

#[tokio::test]
async fn the_port_of_the_binary_protocol_is_named_as_such() {
    let broker = EmbeddedBroker::builder().start().await.expect("a free port");
    let url = format!("http://{}", broker.address());
    let client = Client::builder(url).operation_timeout(Duration::from_secs(1));
    let error = within("a failure", client.connect()).await.expect_err("no web port");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    line(&error, &["closed without an HTTP answer", "6650", "pulsar://"]);
}

#[tokio::test]
async fn answers_that_say_nothing_of_a_broker() {
    for body in ["{}", "[]", r#"{"brokerUrl":17}"#, r#"{"brokerUrl":""}"#] {
        let error = looking_up(json(body)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}: {error}");
    }
    let error = looking_up(json(r#"{"brokerUrlTls":"pulsar+ssl://b:6651"}"#)).await;
    line(&error, &["plain (non-TLS)"]);
}

/// Reaches the web server and nothing else, as from outside of a private network whose web port alone is public.
struct Outside(String);

impl Dialer for Outside {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async {
            if target.address.to_string() != self.0 {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(tokio::net::TcpStream::connect(&self.0).await?) as Box<dyn Socket>)
        })
    }
}

#[tokio::test]
async fn a_broker_inside_of_a_private_network_is_named() {
    let web = Web::start(|request| match request.path().contains("/lookup/") {
        true => Some(json(r#"{"brokerUrl":"pulsar://10.0.0.5:6650"}"#)),
        false => Some(json("{\"partitions\":0}")),
    })
    .await;
    let builder = Client::builder(web.url()).dialer(Outside(web.address().to_string()));
    let builder = builder.connection_timeout(Duration::from_millis(100)).operation_timeout(Duration::from_millis(500));
    let client = within("the connection", builder.connect()).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("out of reach");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    line(&error, &["persistent://public/default/t", "timed out after 100ms connecting to 10.0.0.5:6650"]);
}

#[tokio::test]
async fn a_watch_of_topics_needs_the_binary_protocol() {
    let (_broker, url) = start(EmbeddedBroker::builder()).await;
    let client = within("the connection", Client::builder(url).connect()).await.expect("a client");
    let error = within("a failure", client.watch_topics("public/default", ".*")).await.expect_err("no watch");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    line(&error, &["http://", "pulsar://"]);
}
