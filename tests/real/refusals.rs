//! Refusals of a real broker that come and go: rights that are taken away, quotas that are exceeded.

use std::time::Duration;

use pulsar_native::{Client, ErrorKind, InitialPosition, Producer, ServerCode, Token};

use crate::broker::{Real, receive_after};
use crate::runner::Test;
use crate::suite::seen::Seen;
use crate::suite::target::{Cluster, Role};
use crate::suite::{receive, send, subscribed, until, within};

pub const TESTS: &[Test] = &[
    ("refusals::rights_that_are_taken_away_and_given_back", |real| Box::pin(rights_taken_and_given_back(real))),
    ("refusals::a_backlog_quota_fails_what_is_pending", |real| Box::pin(quota(real))),
];

/// Waits until the last attempt to attach was refused with this code.
async fn refused(producer: &Producer, code: ServerCode) {
    let last = || async {
        let error = producer.connection_error();
        error.and_then(|error| error.server_error().map(|refused| refused.code))
    };
    until("the refusal", last, |last| *last == Some(code)).await;
}

async fn namespace(real: &Real, name: &str) -> String {
    let namespace = format!("public/{name}");
    real.admin.change_namespace("PUT", &namespace, "", r#"{"bundles":{"numBundles":1}}"#).await;
    namespace
}

async fn rights_taken_and_given_back(real: Real) {
    let namespace = namespace(&real, "rights").await;
    let grant = || real.admin.change_namespace("POST", &namespace, "/permissions/nobody", r#"["produce","consume"]"#);
    grant().await;
    let client = Client::builder(&real.url).authentication(Token::new(real.token(Role::Nobody)));
    let client = within("the connection", client.connect()).await.expect("a client");
    let topic = format!("persistent://{namespace}/t");
    let producer = within("a producer", client.producer(&topic).create()).await.expect("it may produce");
    let mut consumer = within("a consumer", client.consumer(&topic, "s").subscribe()).await.expect("it may consume");
    let of_both = [Seen::of(producer.watch_state()), Seen::of(consumer.watch_state())];
    send(&producer, "before").await;
    let message = receive(&mut consumer).await;
    within("the confirmation", consumer.ack_confirmed(&message)).await.expect("acknowledged");

    real.admin.change_namespace("DELETE", &namespace, "/permissions/nobody", "").await;
    real.admin.change("PUT", &topic, "/unload", "").await;
    refused(&producer, ServerCode::AUTHORIZATION_ERROR).await;
    let held = within("capacity", producer.enqueue("held")).await.expect("accepted");
    let error = within("the refusal", client.producer(&topic).create()).await.expect_err("new ones end at once");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");

    grant().await;
    within("a receipt", held).await.expect("sent once it may be");
    receive_after(&mut consumer, "before", "held").await;
    within("the close", client.close()).await.expect("closed");
    for states in of_both {
        assert_eq!(states.to_the_end().await, ["attached", "NotReady", "Authorization", "attached", "closed"]);
    }
}

async fn quota(real: Real) {
    let namespace = namespace(&real, "quota").await;
    let topic = format!("persistent://{namespace}/t");
    let client = within("the connection", real.target().builder().connect()).await.expect("a client");
    let builder = client.consumer(&topic, "s").initial_position(InitialPosition::Earliest);
    let consumer = subscribed(builder).await;
    let producer = client.producer(&topic).batching(false).send_timeout(Duration::from_secs(60)).create();
    let producer = within("a producer", producer).await.expect("a producer");
    for _ in 0..20 {
        send(&producer, vec![1; 10_000]).await;
    }
    let limit = r#"{"limitSize":1000,"limit":1000,"limitTime":-1,"policy":"producer_exception"}"#;
    let quota = "/backlogQuota?backlogQuotaType=destination_storage";
    real.admin.change_namespace("POST", &namespace, quota, limit).await;
    real.admin.change("PUT", &topic, "/unload", "").await;
    refused(&producer, ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION).await;
    let pending = within("capacity", producer.enqueue("pending")).await.expect("accepted");
    let error = within("the outcome", pending).await.expect_err("the quota is exceeded");
    assert_eq!(error.error().kind(), ErrorKind::BacklogQuotaExceeded, "{error}");
    assert!(!error.may_be_stored(), "it never left: {error}");

    real.admin.change_namespace("DELETE", &namespace, quota, "").await;
    until("the attach", || async { producer.is_connected() }, |connected| *connected).await;
    send(&producer, "after").await;
    drop(consumer);
    within("the close", client.close()).await.expect("closed");
}
