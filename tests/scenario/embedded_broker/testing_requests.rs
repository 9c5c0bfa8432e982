//! The requests over HTTP by which tests in other languages move the clock, script faults and look at what is stored.

use std::time::{Duration, Instant};

use pulsar_native::broker::EmbeddedBroker;
use pulsar_native::testing::TestBroker;
use pulsar_native::{ErrorKind, InitialPosition, Message, SubscriptionType};
use serde_json::{Value, json};

use crate::common::admin_http::{Answer, address_of, request};

const TOPIC: &str = "persistent://public/default/orders";

async fn started() -> TestBroker {
    TestBroker::start_with(EmbeddedBroker::builder().http(true)).await
}

async fn ask(broker: &EmbeddedBroker, method: &str, path: &str, body: &str) -> Answer {
    let url = broker.http_url().expect("HTTP is on");
    request(address_of(&url), "", method, path, body).await.expect("an answer")
}

async fn done(broker: &EmbeddedBroker, method: &str, path: &str, body: &str) {
    let answer = ask(broker, method, path, body).await;
    assert_eq!(answer.status, 204, "{method} {path}: {}", answer.body);
}

async fn value(broker: &EmbeddedBroker, path: &str) -> Value {
    let answer = ask(broker, "GET", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test]
async fn a_day_passes_by_a_request() {
    let broker = started().await;
    let (client, day) = (broker.client(), Duration::from_secs(24 * 3600));
    let builder = client.consumer(TOPIC, "s").subscription_type(SubscriptionType::Shared);
    let mut consumer = builder.initial_position(InitialPosition::Earliest).subscribe().await.expect("subscribed");
    let producer = client.producer(TOPIC).create().await.expect("created");
    let start = Instant::now();
    producer.send(Message::new("tomorrow").with_deliver_after(day)).await.expect("sent");
    done(&broker, "POST", &format!("/testing/advance?millis={}", day.as_millis()), "").await;
    assert_eq!(consumer.receive().await.expect("received").payload(), b"tomorrow");
    assert!(start.elapsed() < Duration::from_secs(3600));
    assert_eq!(ask(&broker, "POST", "/testing/advance?millis=soon", "").await.status, 400);
}

#[tokio::test]
async fn a_fault_is_scripted_by_a_request() {
    let broker = started().await;
    let refused = json!({ "on": "Producer", "effect": "RefuseRequest", "code": "TopicTerminatedError" });
    done(&broker, "POST", "/testing/faults", &refused.to_string()).await;
    let error = broker.client().producer(TOPIC).create().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::TopicTerminated, "{error}");

    let lost = json!({ "on": "Send", "effect": "DropResponse", "topic": TOPIC, "after": 1, "times": 0 });
    done(&broker, "POST", "/testing/faults", &lost.to_string()).await;
    let builder = broker.client().producer(TOPIC).send_timeout(Duration::from_millis(300));
    let producer = builder.create().await.expect("created");
    producer.send("one").await.expect("the first is spared");
    producer.send("two").await.expect_err("its receipt is withheld");
    assert_eq!(value(&broker, "/testing/faults").await, json!({ "injected": 2 }));
    done(&broker, "DELETE", "/testing/faults", "").await;
    producer.send("three").await.expect("sent");
    done(&broker, "POST", "/testing/connections/drop", "").await;
    producer.send("four").await.expect("over another connection");
}

#[tokio::test]
async fn faults_that_cannot_be_are_refused_by_name() {
    let broker = started().await;
    for (fault, text) in [
        (json!({ "effect": "DropResponse" }), "on has to be an event, such as Send"),
        (json!({ "on": "Sent", "effect": "DropResponse" }), "there is no event Sent, only Any, Connect"),
        (json!({ "on": "Send" }), "there is no effect without a name, only RefuseRequest"),
        (json!({ "on": "Send", "effect": "RefuseRequest", "code": "Never" }), "RefuseRequest needs a code"),
        (json!({ "on": "Send", "effect": "DelayResponse" }), "DelayResponse needs millis"),
        (json!({ "on": "Send", "effect": "ReverseResponses", "count": 1 }), "ReverseResponses needs a count from 2"),
        (json!({ "on": "Lookup", "effect": "Redirect" }), "Redirect needs a url"),
        (json!({ "on": "Send", "effect": "RespondWith", "bytes": "?" }), "RespondWith needs bytes, as base64"),
        (json!({ "on": "Send", "effect": "Close", "after": "one" }), "after has to be a number"),
    ] {
        let answer = ask(&broker, "POST", "/testing/faults", &fault.to_string()).await;
        assert!(answer.status == 400 && answer.body.contains(text), "{fault}: {} {}", answer.status, answer.body);
    }
    assert_eq!(ask(&broker, "POST", "/testing/connections/cut", "").await.status, 400);
}

#[tokio::test]
async fn what_is_stored_and_what_became_of_it_is_shown() {
    let broker = started().await;
    let producer = broker.client().producer(TOPIC).create().await.expect("created");
    let message = Message::new("one").with_key("k").with_property("a", "b");
    let id = producer.send(message).await.expect("sent");
    let stored = value(&broker, "/testing/messages/persistent/public/default/orders").await;
    let first = &stored[0];
    assert_eq!(first["id"], id.to_string());
    assert_eq!(
        (&first["key"], &first["properties"], &first["payload"]),
        (&json!("k"), &json!({ "a": "b" }), &json!("b25l"))
    );
    let story = ask(&broker, "GET", "/testing/story/persistent/public/default/orders", "").await;
    assert!(story.body.contains("1 messages published, 1 entries stored"), "{}", story.body);
    assert_eq!(value(&broker, "/testing/violations").await, json!([]));
}

#[tokio::test]
async fn a_broker_of_a_cluster_dies_and_comes_back() {
    let cluster = TestBroker::start_with(EmbeddedBroker::builder().http(true).brokers(2)).await;
    let producer = cluster.client().producer(TOPIC).create().await.expect("created");
    done(&cluster, "POST", "/testing/brokers/1/persistent/public/default/orders", "").await;
    assert_eq!(cluster.owner(TOPIC), Some(1));
    done(&cluster, "POST", "/testing/brokers/1/stop", "").await;
    producer.send("to the other one").await.expect("sent");
    assert_eq!(cluster.owner(TOPIC), Some(0));
    let runs = |all: Value| [&all[0]["isRunning"], &all[1]["isRunning"]].map(|runs| runs == &json!(true));
    assert_eq!(runs(value(&cluster, "/testing/brokers").await), [true, false]);
    for (path, status, reason) in [
        ("brokers/0/stop", 409, "broker 0 does not run, or is the last one that does"),
        ("brokers/0/start", 409, "broker 0 runs"),
        ("brokers/1/persistent/public/default/orders", 409, "broker 1 does not run"),
        ("brokers/2/stop", 404, "there is no broker 2"),
    ] {
        let answer = ask(&cluster, "POST", &format!("/testing/{path}"), "").await;
        assert_eq!((answer.status, answer.body), (status, json!({ "reason": reason }).to_string()), "{path}");
    }
    done(&cluster, "POST", "/testing/brokers/1/start", "").await;
    assert_eq!(runs(value(&cluster, "/testing/brokers").await), [true, true]);
}

#[cfg(feature = "self-signed")]
#[tokio::test]
async fn the_authority_of_a_certificate_that_was_made_is_handed_out() {
    let broker = TestBroker::start_with(EmbeddedBroker::builder().http(true).tls_self_signed()).await;
    let answer = ask(&broker, "GET", "/testing/ca", "").await;
    assert_eq!((answer.status, Some(answer.body.as_str())), (200, broker.ca_pem()));
    let plain = started().await;
    assert_eq!(ask(&plain, "GET", "/testing/ca", "").await.status, 404);
}
