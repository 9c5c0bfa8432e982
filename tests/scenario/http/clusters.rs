//! Which of two clusters a web server names.

use pulsar_native::Producer;
use pulsar_native::client::AttachState;

use super::*;
use crate::suite::clusters::{Named, Told, of_token};
use crate::suite::{created, receive, subscribed, until};

/// A broker whose tokens are its own.
async fn cluster(key: &'static str) -> EmbeddedBroker {
    EmbeddedBroker::builder().token_secret_key(key).start().await.expect("a free port")
}

async fn uses(client: &Client, broker: &EmbeddedBroker) {
    let url = broker.url();
    until("the cluster", || async { client.state().service_url.to_string() }, |used| *used == url).await;
}

#[tokio::test]
async fn what_is_named_is_used_at_once_and_an_equal_answer_changes_nothing() {
    let (first, second) = (cluster("of the first").await, cluster("of the second").await);
    // The builder's own cluster: nothing to do.
    let (named, told) = (Named::new(json(&format!(r#"{{"serviceUrl":"{}"}}"#, first.url()))), Told::default());
    let web = named.serve().await;
    let client = Client::builder(first.url()).authentication(Token::new(first.token("admin")));
    let client = client.service_url_provider(told.by(&web)).connect();
    let client = within("the connection", client).await.expect("a client");
    let producer = created(client.producer("t")).await;
    let mut consumer = subscribed(client.consumer("t", "s").initial_position(InitialPosition::Earliest)).await;
    send(&producer, "1").await;
    let message = receive(&mut consumer).await;
    within("the answer", consumer.ack_confirmed(&message)).await.expect("confirmed");
    let attached = state(&producer);
    asked_again(&web).await;
    assert_eq!(state(&producer), attached, "it was not detached");

    named.set(of_token(&second.url(), &second.token("admin")));
    uses(&client, &second).await;
    send(&producer, "2").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "2");
    let attached = state(&producer);
    asked_again(&web).await;
    assert_eq!(state(&producer), attached, "it was not detached");

    // Without credentials of its own: those of the builder.
    named.set(json(&format!(r#"{{"serviceUrl":"{}"}}"#, first.url())));
    uses(&client, &first).await;
    send(&producer, "3").await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "3");
    assert_eq!(told.seen(), [""; 0]);
    within("the close", client.close()).await.expect("closed");
    assert_eq!((first.violations(), second.violations()), (vec![], vec![]));
}

fn state(producer: &Producer) -> AttachState {
    producer.state().parts[0].state.clone()
}

/// The server has given an answer since.
async fn asked_again(web: &Web) {
    let before = web.seen().len();
    until("three more requests", || async { web.seen().len() }, |seen| *seen >= before + 3).await;
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_headers() {
    let broker = cluster("of the first").await;
    let there = Named::new(of_token(&broker.url(), &broker.token("admin"))).serve().await;
    let to = format!("{}/clusters", there.url());
    let web = Web::start(move |_| Some(redirect(&to))).await;
    let failover = Told::default().by(&web).header("Authorization", "Bearer hunter2").expect("a header");
    let client = Client::builder("pulsar://127.0.0.1:1").service_url_provider(failover).build().expect("a client");
    let producer = created(client.producer("t")).await;
    send(&producer, "1").await;
    assert_eq!(web.seen()[0].header("Authorization"), Some("Bearer hunter2"));
    assert_eq!(there.seen()[0].header("Authorization"), None);
    within("the close", client.close()).await.expect("closed");
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn a_failure_is_one_warning_until_there_is_another() {
    let (lines, _listens) = crate::common::trace_lines::Lines::listen();
    let (named, told) = (Named::new(page("404 Not Found")), Told::default());
    let web = named.serve().await;
    let client = Client::builder("pulsar://127.0.0.1:1").service_url_provider(told.by(&web)).build().expect("a client");
    told.wait_for("status 404").await;
    asked_again(&web).await;
    named.set(page("503 Service Unavailable"));
    told.wait_for("status 503").await;
    within("the close", client.close()).await.expect("closed");
    let warned = lines.at_least(tracing::Level::WARN);
    let warned: Vec<_> = warned.iter().filter(|line| line.message.starts_with("no cluster")).collect();
    let why = |status| {
        format!("the provider of service URLs at {}/clusters gives no cluster to use: status {status}", web.url())
    };
    assert_eq!(warned.iter().map(|line| line.field("error")).collect::<Vec<_>>(), [why(404), why(503)]);
}
