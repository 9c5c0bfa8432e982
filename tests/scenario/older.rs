//! The suite on the embedded broker that plays older releases: a client meets brokers of them for years. Each run takes two of them and
//! one more, by a seed; `OLDER=all cargo test --test scenario older` takes every one.
//!
//! All bodies of a release run side by side, for most of them wait: each has a broker of its own.

use std::pin::Pin;

use pulsar_native::broker::PulsarVersion;
use tokio::task::JoinSet;

use crate::common::sample::sample;
use crate::embedded::run_like;

/// Bodies that run at the same time.
const BODIES_AT_ONCE: usize = 8;

/// A function, so that each is made in a frame of its own: all of them together are more than a stack holds.
type Body = (&'static str, fn(PulsarVersion) -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! bodies {
    ($($theme:ident { $($name:ident)* })*) => {
        &[$($((
            concat!(stringify!($theme), "::", stringify!($name)),
            |version| Box::pin(run_like(version, crate::suite::$theme::$name)),
        ),)*)*]
    };
}

const OF_BOTH_PROTOCOLS: &[Body] = crate::suite::with_every_test!(bodies);
const OF_THE_BINARY_PROTOCOL: &[Body] = crate::suite::with_every_test_of_the_binary_protocol!(bodies);

/// Runs every body, and names those that failed.
async fn run_all(version: PulsarVersion) {
    let mut waiting = OF_BOTH_PROTOCOLS.iter().chain(OF_THE_BINARY_PROTOCOL);
    let (mut running, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        while running.len() < BODIES_AT_ONCE {
            let Some(&(name, body)) = waiting.next() else { break };
            // The task inside catches the panic of a body.
            running.spawn(async move { tokio::spawn(body(version)).await.map_err(|_| name) });
        }
        match running.join_next().await {
            None => break,
            Some(ended) => failed.extend(ended.expect("no panic").err()),
        }
    }
    assert!(failed.is_empty(), "like Pulsar {version}, these failed: {}", failed.join(", "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_6() {
    run_all(PulsarVersion::V2_6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_10() {
    run_all(PulsarVersion::V2_10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_the_others() {
    let run_always = [PulsarVersion::V2_6, PulsarVersion::V2_10, PulsarVersion::V4_0];
    let others: Vec<_> = PulsarVersion::all().filter(|version| !run_always.contains(version)).collect();
    for version in sample("OLDER", &others, 1) {
        run_all(version).await;
    }
}
