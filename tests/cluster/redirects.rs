//! Lookups over HTTP at one broker for topics that the other one gets: redirects between their web ports.

use crate::Test;
use crate::common::wrong_ports::{self, Ports};
use crate::environment::{Addresses, Environment};
use crate::steps::{exchange, moves, quickstart_on_both, tokens_are_the_clients_own};
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("redirects::quickstart_over_http", |cluster| Box::pin(quickstart_over_http(cluster))),
    ("redirects::quickstart_over_https", |cluster| Box::pin(quickstart_over_https(cluster))),
    ("redirects::a_token_goes_to_hosts_that_are_named", |cluster| Box::pin(tokens_and_redirects(cluster))),
    ("redirects::a_topic_moves", |cluster| Box::pin(a_topic_moves(cluster))),
    ("redirects::wrong_ports", |cluster| Box::pin(wrong_ports(cluster))),
    ("redirects::tokens_are_the_clients_own", |cluster| Box::pin(tokens(cluster))),
];

/// Of the suite, what lookups and partitions have a part in. With other ways to the brokers than those that lookups name
/// (relays) it has to do elsewhere.
pub fn takes_of_suite(test: &str) -> bool {
    let themes = ["access", "failover", "keys", "lifecycle", "partitioned", "schemas", "several"];
    themes.iter().any(|theme| test.contains(&format!("::{theme}::")))
}

/// Both brokers are named, so both have the origin of the service URL.
async fn quickstart_over_http(cluster: Environment) {
    let url = format!("http://{},{}", cluster.brokers[0].web, cluster.brokers[1].web);
    quickstart_on_both(&cluster, "http", &url).await;
}

/// The script has named the authority as the system's.
async fn quickstart_over_https(cluster: Environment) {
    let url = format!("https://{},{}", cluster.brokers[0].web_tls, cluster.brokers[1].web_tls);
    quickstart_on_both(&cluster, "https", &url).await;
}

/// The leader of the cluster gives a new bundle to one of the brokers: whichever is asked redirects for some of them.
async fn tokens_and_redirects(cluster: Environment) {
    let [first, second] = &cluster.brokers;
    let mut redirected = 0;
    for (number, (scheme, own, other)) in [
        ("http", &first.web, "127.0.0.2"),
        ("http", &second.web, "127.0.0.1"),
        ("https", &first.web_tls, "127.0.0.2"),
        ("https", &second.web_tls, "127.0.0.1"),
    ]
    .into_iter()
    .enumerate()
    {
        let url = format!("{scheme}://{own}");
        let namespace = cluster.namespace(&format!("redirects-{number}")).await;
        let strict = cluster.client(&url).await;
        let trusting = cluster.builder(&url).http_redirect_hosts([other]).connect();
        let trusting = within("the connection", trusting).await.expect("a client");
        for number in 0..8 {
            let topic = format!("persistent://{namespace}/t{number}");
            let created = within("a producer or its refusal", strict.producer(&topic).create()).await;
            if let Err(error) = created {
                assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
                let line = error.to_string();
                let named = format!("name `{other}` in ClientBuilder::http_redirect_hosts");
                assert!(line.contains(&named) && line.contains(&topic) && !line.contains('\n'), "{line}");
                redirected += 1;
            }
            exchange(&trusting, &topic).await;
        }
        within("the close", strict.close()).await.expect("closed");
        within("the close", trusting.close()).await.expect("closed");
    }
    assert!(redirected > 0, "no lookup was redirected");
}

async fn a_topic_moves(cluster: Environment) {
    let namespace = cluster.namespace("http-moves").await;
    let [first, _] = &cluster.brokers;
    for (name, url) in [("plain", format!("http://{}", first.web)), ("tls", format!("https://{}", first.web_tls))] {
        let client = cluster.builder(url).http_redirect_hosts(["127.0.0.2"]).connect();
        let client = within("the connection", client).await.expect("a client");
        moves(&cluster, &client, &format!("persistent://{namespace}/{name}")).await;
        within("the close", client.close()).await.expect("closed");
    }
}

async fn wrong_ports(cluster: Environment) {
    let Addresses { plain, tls, web, web_tls } = cluster.brokers[0].clone();
    let ports = Ports { pulsar: plain, pulsar_ssl: tls, http: web, https: web_tls };
    wrong_ports::each_has_a_line_that_helps(&ports, &cluster.ca_file).await;
}

async fn tokens(cluster: Environment) {
    let topic = "persistent://public/many/http-tokens";
    tokens_are_the_clients_own(&cluster, &format!("http://{}", cluster.brokers[0].web), topic).await;
    tokens_are_the_clients_own(&cluster, &format!("https://{}", cluster.brokers[1].web_tls), topic).await;
}
