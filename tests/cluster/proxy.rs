//! `bin/pulsar proxy` in front of both brokers, with and without TLS, over the binary protocol and over HTTP.

use pulsar_native::Error;

use crate::Test;
use crate::environment::Environment;
use crate::steps::{Dials, exchange, moves, quickstart_on_both, tokens_are_the_clients_own};
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("proxy::quickstart", |cluster| Box::pin(quickstart(cluster))),
    ("proxy::quickstart_over_tls", |cluster| Box::pin(quickstart_over_tls(cluster))),
    ("proxy::quickstart_over_http", |cluster| Box::pin(quickstart_over_http(cluster))),
    ("proxy::quickstart_over_https", |cluster| Box::pin(quickstart_over_https(cluster))),
    ("proxy::a_topic_moves_behind_it", |cluster| Box::pin(a_topic_moves(cluster))),
    ("proxy::no_broker_is_dialed", |cluster| Box::pin(no_broker_is_dialed(cluster))),
    ("proxy::tokens_are_the_clients_own", |cluster| Box::pin(tokens(cluster))),
    ("proxy::wrong_certificate", |cluster| Box::pin(wrong_certificate(cluster))),
    ("proxy::a_watch_of_topics_is_refused", |cluster| Box::pin(a_watch_is_refused(cluster))),
];

/// All of the suite but what writes frames of its own to a broker, for there is none to be reached here; what is to be announced at
/// once, for a proxy refuses watches, and a list is asked for instead; and what finds topics that are not persistent, for the
/// broker that is asked for a list knows its own alone; and the admin API, where statistics show the proxy and a broker
/// refuses what its roles may not.
pub fn takes_of_suite(test: &str) -> bool {
    let left_out = [
        "::admin_api::",
        "::unreadable::",
        "::chunks::incomplete_ones_are_dropped",
        "::chunks::young_ones_with_a_gap_stay",
        "::chunks::a_reader_passes_an_incomplete_one",
        "::chunks::checkpoints_within_messages",
        "::chunks::limits_of_a_reader",
        "::metadata::replicated_from_another_cluster",
        "::metadata::markers_are_not_delivered",
        "::patterns::announced_at_once",
        "::patterns::topics_that_are_not_persistent",
        "::patterns::a_reader_of_topics_of_both_kinds",
        "::reader_ends::of_a_truncated_topic",
    ];
    !left_out.iter().any(|name| test.contains(name))
}

async fn quickstart(cluster: Environment) {
    quickstart_on_both(&cluster, "proxy", &format!("pulsar://{}", cluster.proxy.plain)).await;
}

/// The script has named the authority as the system's.
async fn quickstart_over_tls(cluster: Environment) {
    quickstart_on_both(&cluster, "proxy-tls", &format!("pulsar+ssl://{}", cluster.proxy.tls)).await;
}

async fn quickstart_over_http(cluster: Environment) {
    quickstart_on_both(&cluster, "proxy-http", &format!("http://{}", cluster.proxy.web)).await;
}

async fn quickstart_over_https(cluster: Environment) {
    quickstart_on_both(&cluster, "proxy-https", &format!("https://{}", cluster.proxy.web_tls)).await;
}

async fn a_topic_moves(cluster: Environment) {
    let namespace = cluster.namespace("proxy-moves").await;
    for (name, url) in ways(&cluster) {
        let client = cluster.client(url).await;
        moves(&cluster, &client, &format!("persistent://{namespace}/{name}")).await;
        within("the close", client.close()).await.expect("closed");
    }
}

fn ways(cluster: &Environment) -> [(&'static str, String); 4] {
    let proxy = &cluster.proxy;
    [
        ("plain", format!("pulsar://{}", proxy.plain)),
        ("tls", format!("pulsar+ssl://{}", proxy.tls)),
        ("http", format!("http://{}", proxy.web)),
        ("https", format!("https://{}", proxy.web_tls)),
    ]
}

/// A client behind a firewall reaches the proxy and nothing else.
async fn no_broker_is_dialed(cluster: Environment) {
    let namespace = cluster.namespace("proxy-alone").await;
    let dials = Dials::default();
    let client = cluster.builder(format!("pulsar://{}", cluster.proxy.plain)).dialer(dials.clone()).connect();
    let client = within("the connection", client).await.expect("a client");
    for topic in cluster.topic_of_each(&namespace).await {
        exchange(&client, &topic).await;
    }
    within("the close", client.close()).await.expect("closed");
    assert_eq!(dials.seen(), BTreeSet::from([cluster.proxy.plain.clone()]));
}

async fn tokens(cluster: Environment) {
    for (_, url) in ways(&cluster) {
        tokens_are_the_clients_own(&cluster, &url, "persistent://public/many/proxy-tokens").await;
    }
}

/// It is for `localhost` alone, so that no broker's name would do.
async fn wrong_certificate(cluster: Environment) {
    let elsewhere = |address: &str| address.replace("localhost", "127.0.0.1");
    let connect = |url| within("the connection or its refusal", cluster.builder(url).connect());
    for url in [
        format!("pulsar+ssl://{}", elsewhere(&cluster.proxy.tls)),
        format!("https://{}", elsewhere(&cluster.proxy.web_tls)),
    ] {
        let error: Error = connect(url).await.expect_err("another name");
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        let line = error.to_string();
        assert!(line.contains("for another host: localhost") && !line.contains('\n'), "{line}");
    }
}

async fn a_watch_is_refused(cluster: Environment) {
    let client = cluster.client(format!("pulsar://{}", cluster.proxy.plain)).await;
    let error = within("a refusal", client.watch_topics("public/many", ".*")).await.expect_err("no watch");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    within("the close", client.close()).await.expect("closed");
}
