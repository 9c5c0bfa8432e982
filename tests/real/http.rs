//! The web port of the real broker as the service URL.

use pulsar_native::{Client, Error, ErrorKind, Message, Token};

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::{Cluster, Role};
use crate::suite::{Duration, created, receive, send, subscribed, within};

pub const TESTS: &[Test] = &[
    ("http::messages", |real| Box::pin(messages(real))),
    ("http::partitions", |real| Box::pin(partitions(real))),
    ("http::credentials_and_rights", |real| Box::pin(credentials_and_rights(real))),
    ("http::missing_topics", |real| Box::pin(missing_topics(real))),
    ("http::odd_names", |real| Box::pin(odd_names(real))),
    ("http::a_topic_that_moves", |real| Box::pin(a_topic_that_moves(real))),
    ("http::the_port_of_the_binary_protocol", |real| Box::pin(the_port_of_the_binary_protocol(real))),
];

async fn connect(real: &Real, token: String) -> Result<Client, Error> {
    within(
        "the connection or its refusal",
        Client::builder(real.http_url()).authentication(Token::new(token)).connect(),
    )
    .await
}

async fn client(real: &Real) -> Client {
    connect(real, real.token(Role::Admin)).await.expect("a client over HTTP")
}

/// Sends a message and receives it.
async fn exchange(client: &Client, topic: &str) {
    let mut consumer = subscribed(client.consumer(topic, "s")).await;
    let producer = created(client.producer(topic)).await;
    for text in ["one", "two"] {
        send(&producer, text).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.to_string_lossy(), text);
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    }
    within("the close", consumer.close()).await.expect("closed");
}

async fn messages(real: Real) {
    let client = client(&real).await;
    exchange(&client, &real.target().topic("http")).await;
    within("the close", client.close()).await.expect("closed");
}

async fn partitions(real: Real) {
    let target = real.target();
    let topic = target.partitioned_topic("http", 3).await;
    let client = client(&real).await;
    assert_eq!(within("the partitions", client.partitions(&topic)).await.expect("partitions"), 3);
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    for key in 0..10 {
        send(&producer, Message::new("m").with_key(key.to_string())).await;
    }
    for _ in 0..10 {
        receive(&mut consumer).await;
    }
    let plain = within("the partitions", client.partitions(target.topic("plain"))).await;
    assert_eq!(plain.expect("a topic that may be created"), 0);
    within("the close", client.close()).await.expect("closed");
}

async fn credentials_and_rights(real: Real) {
    for token in ["not-a-token".to_owned(), real.expired_token()] {
        let error = connect(&real, token.clone()).await.expect_err("a bad token");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert!(error.to_string().contains(real.admin.address()), "{error}");
        assert!(!format!("{error:?}").contains(&token), "shows no token");
    }
    let nobody = connect(&real, real.token(Role::Nobody)).await.expect("the role is known");
    let error = within("a refusal", nobody.producer(real.target().topic("http")).create()).await;
    let error = error.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    within("the close", nobody.close()).await.expect("closed");
}

async fn missing_topics(real: Real) {
    let client = client(&real).await;
    for topic in ["persistent://public/strict/no-such-topic", "persistent://public/no-such-namespace/t"] {
        let error = within("a refusal", client.producer(topic).create()).await.expect_err("no topic");
        assert_eq!(error.kind(), ErrorKind::TopicNotFound, "{error}");
        assert!(error.to_string().contains(topic), "{error}");
    }
    within("the close", client.close()).await.expect("closed");
}

/// What has to be percent-encoded in a path.
async fn odd_names(real: Real) {
    let client = client(&real).await;
    for name in ["a b", "p%c", "q?d#e", "f+g&h=i", "ü"] {
        exchange(&client, &real.target().topic(name)).await;
    }
    within("the close", client.close()).await.expect("closed");
}

async fn a_topic_that_moves(real: Real) {
    let (client, target) = (client(&real).await, real.target());
    let topic = target.topic("http");
    let producer = created(client.producer(&topic)).await;
    send(&producer, "before").await;
    target.unload(&topic).await;
    send(&producer, "after").await;
    within("the close", client.close()).await.expect("closed");
}

async fn the_port_of_the_binary_protocol(real: Real) {
    let url = real.url.replace("pulsar://", "http://");
    let client = Client::builder(url).operation_timeout(Duration::from_secs(2)).connect();
    let error = within("a failure", client).await.expect_err("no web port");
    assert!(error.to_string().contains("whose URL is pulsar://"), "{error}");
}
