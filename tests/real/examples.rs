//! Examples on the real broker: over its web port, which is what a hosted console gives; and a method of authentication that
//! `HmacProvider.java` gives it.
#![allow(dead_code, reason = "the `main` of an example is not called here")]

use crate::broker::Real;
use crate::runner::Test;
use crate::suite::target::{Cluster, Role};
use crate::suite::within;
use challenge_response::SharedSecret;
use pulsar_native::ErrorKind;

#[path = "../../examples/challenge_response.rs"]
mod challenge_response;
#[path = "../../examples/hosted.rs"]
mod hosted;
#[path = "../../examples/quickstart.rs"]
mod quickstart;
#[path = "../../examples/socks5.rs"]
pub mod socks5;

pub const TESTS: &[Test] = &[
    ("examples::hosted_over_http", |real| Box::pin(hosted_over_http(real))),
    ("examples::quickstart_over_http", |real| Box::pin(quickstart_over_http(real))),
    ("examples::challenge_and_response", |real| Box::pin(challenge_and_response(real))),
];

/// A topic in a namespace of another tenant, as hosted clusters have it.
fn topic(real: &Real, name: &str) -> String {
    real.target().topic(name).replace("public/default", "cluster/namespace")
}

async fn hosted_over_http(real: Real) {
    let (token, topic) = (real.token(Role::Admin), topic(&real, "hosted"));
    within("the example", hosted::run(&real.http_url(), &token, &topic, "sub_topic1")).await.expect("the example runs");
    let subscription = real.target().subscription(&topic, "sub_topic1").await;
    assert_eq!((subscription.backlog, subscription.unacked), (0, 0), "both are acknowledged");
    // Without the domain it is the same topic.
    let path = topic.trim_start_matches("persistent://");
    within("the example", hosted::run(&real.http_url(), &token, path, "sub_topic1")).await.expect("the example runs");
}

async fn quickstart_over_http(real: Real) {
    let (token, topic) = (real.token(Role::Admin), topic(&real, "quickstart"));
    within("the example", quickstart::walk_through(&real.http_url(), &token, &topic)).await.expect("the example runs");
    let subscription = real.target().subscription(&topic, "my-subscription").await;
    assert_eq!((subscription.backlog, subscription.unacked), (0, 0), "both are acknowledged");
}

async fn challenge_and_response(real: Real) {
    let of = |user: &str, secret: &str| SharedSecret { user: user.to_owned(), secret: secret.to_owned() };
    within("the example", challenge_response::run(&real.url, of("admin", "a shared secret"))).await.expect("it runs");
    for secret in [of("admin", "another secret"), of("stranger", "a shared secret")] {
        let error = within("the refusal", challenge_response::run(&real.url, secret)).await.expect_err("not known");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    }
}
