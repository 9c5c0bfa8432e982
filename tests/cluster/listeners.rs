//! Advertised listeners: which of their addresses the brokers name to whom.

use crate::Test;
use crate::environment::Environment;
use crate::steps::{Dials, exchange};
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("listeners::by_name", |cluster| Box::pin(by_name(cluster))),
    ("listeners::by_name_over_http", |cluster| Box::pin(by_name_over_http(cluster))),
    ("listeners::by_the_port_that_is_dialed", |cluster| Box::pin(by_the_port_that_is_dialed(cluster))),
    ("listeners::one_that_is_not_there", |cluster| Box::pin(one_that_is_not_there(cluster))),
];

/// Which addresses a client dials for a topic of each broker, none of which has the bundle yet.
async fn dialed(cluster: &Environment, namespace: &str, url: String, listener: Option<&str>) -> BTreeSet<String> {
    let namespace = cluster.namespace(namespace).await;
    let dials = Dials::default();
    let mut builder = cluster.builder(url).dialer(dials.clone()).http_redirect_hosts(["127.0.0.2"]);
    if let Some(name) = listener {
        builder = builder.listener_name(name);
    }
    let client = within("the connection", builder.connect()).await.expect("a client");
    // The first lookups are redirected, those of the second round are not.
    for round in 0..2 {
        for number in 0..6 {
            exchange(&client, &format!("persistent://{namespace}/t{number}")).await;
        }
        if round == 0 {
            cluster.topic_of_each(&namespace).await;
        }
    }
    within("the close", client.close()).await.expect("closed");
    dials.seen()
}

fn set<const N: usize>(addresses: [&String; N]) -> BTreeSet<String> {
    addresses.into_iter().cloned().collect()
}

/// The service URL is dialed as it is; what lookups name is of the listener.
async fn by_name(cluster: Environment) {
    let ([first, second], [third, fourth]) = (&cluster.brokers, &cluster.external);
    let url = format!("pulsar://{}", first.plain);
    let external = dialed(&cluster, "listener-external", url.clone(), Some("external")).await;
    assert_eq!(external, set([&first.plain, third, fourth]));
    let internal = dialed(&cluster, "listener-default", url, None).await;
    assert_eq!(internal, set([&first.plain, &second.plain]));
}

async fn by_name_over_http(cluster: Environment) {
    let ([first, second], [third, fourth]) = (&cluster.brokers, &cluster.external);
    let url = format!("http://{}", first.web);
    let external = dialed(&cluster, "listener-http", url, Some("external")).await;
    let webs = set([&first.web, &second.web]);
    assert_eq!(external.difference(&webs).cloned().collect::<BTreeSet<_>>(), set([third, fourth]));
}

/// A port of a listener's own (`bindAddresses`) needs no name.
async fn by_the_port_that_is_dialed(cluster: Environment) {
    let [first, second] = &cluster.external;
    let seen = dialed(&cluster, "listener-bound", format!("pulsar://{first}"), None).await;
    assert_eq!(seen, set([first, second]));
}

async fn one_that_is_not_there(cluster: Environment) {
    let topic = "persistent://public/many/listener";
    for url in [format!("pulsar://{}", cluster.brokers[0].plain), format!("http://{}", cluster.brokers[0].web)] {
        let connect = |name: &str| {
            let builder = cluster.builder(&url).listener_name(name).http_redirect_hosts(["127.0.0.2"]);
            within("the connection", builder.operation_timeout(Duration::from_secs(3)).connect())
        };
        let client = connect("elsewhere").await.expect("a client");
        let error = within("a failure", client.producer(topic).create()).await.expect_err("no such listener");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let line = error.to_string();
        assert!(line.contains("elsewhere listener") && !line.contains('\n'), "{line}");
        // A listener that has addresses with TLS only.
        let client = connect("public").await.expect("a client");
        let error = within("a failure", client.producer(topic).create()).await.expect_err("no such address");
        assert!(error.to_string().contains("no plain (non-TLS) address"), "{error}");
    }
}
