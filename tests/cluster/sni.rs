//! A proxy that routes by the server name of TLS, in front of brokers whose names nobody resolves.

use pulsar_native::{ClientBuilder, ProxyProtocol};

use crate::Test;
use crate::common::java;
use crate::common::sni_proxy::SniProxy;
use crate::environment::Environment;
use crate::steps::{exchange, moves};
use crate::suite::*;

pub const TESTS: &[Test] = &[
    ("sni::both_brokers_are_behind_it", |cluster| Box::pin(both_brokers(cluster))),
    ("sni::lookups_over_https_go_past_it", |cluster| Box::pin(lookups_over_https(cluster))),
    ("sni::java_goes_the_same_way", |cluster| Box::pin(java_goes_the_same_way(cluster))),
    ("sni::a_broker_that_is_named_by_an_address", |cluster| Box::pin(named_by_an_address(cluster))),
    ("sni::a_certificate_of_another_server", |cluster| Box::pin(another_certificate(cluster))),
];

const NAMES: [&str; 2] = ["broker-1.pulsar.test", "broker-2.pulsar.test"];
const URL: &str = "pulsar+ssl://broker-1.pulsar.test:6651";

async fn proxy(cluster: &Environment) -> SniProxy {
    let routes = NAMES.iter().zip(&cluster.brokers).map(|(name, broker)| ((*name).to_owned(), broker.tls.clone()));
    SniProxy::start(routes).await
}

fn builder(cluster: &Environment, url: &str, proxy: &SniProxy) -> ClientBuilder {
    cluster.builder(url).listener_name("public").proxy_service_url(proxy.url(), ProxyProtocol::Sni)
}

fn names_of(proxy: &SniProxy) -> BTreeSet<String> {
    proxy.names().into_iter().collect()
}

async fn both_brokers(cluster: Environment) {
    let namespace = cluster.namespace("sni").await;
    let proxy = proxy(&cluster).await;
    let client = within("the connection", builder(&cluster, URL, &proxy).connect()).await.expect("a client");
    for topic in cluster.topic_of_each(&namespace).await {
        exchange(&client, &topic).await;
    }
    moves(&cluster, &client, &format!("persistent://{namespace}/moves")).await;
    within("the close", client.close()).await.expect("closed");
    assert_eq!(names_of(&proxy), NAMES.map(str::to_owned).into());
}

async fn lookups_over_https(cluster: Environment) {
    let namespace = cluster.namespace("sni-https").await;
    let proxy = proxy(&cluster).await;
    let url = format!("https://{}", cluster.brokers[0].web_tls);
    let client = builder(&cluster, &url, &proxy).http_redirect_hosts(["127.0.0.2"]).connect();
    let client = within("the connection", client).await.expect("a client");
    assert!(proxy.names().is_empty(), "{:?}", proxy.names());
    for topic in cluster.topic_of_each(&namespace).await {
        exchange(&client, &topic).await;
    }
    within("the close", client.close()).await.expect("closed");
    assert_eq!(names_of(&proxy), NAMES.map(str::to_owned).into());
}

async fn java_goes_the_same_way(cluster: Environment) {
    let namespace = cluster.namespace("sni-java").await;
    let proxy = proxy(&cluster).await;
    let [_, topic] = cluster.topic_of_each(&namespace).await;
    let client = within("the connection", builder(&cluster, URL, &proxy).connect()).await.expect("a client");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let ours = proxy.names();
    let ca_file = cluster.ca_file.display().to_string();
    let through = ["--proxy-url", &proxy.url(), "--proxy-protocol", "SNI", "--listener-name", "public"];
    let trusting = ["--url", URL, "--tlsTrustCertsFilePath", &ca_file];
    java::run("pulsar-client", &[&through[..], &trusting, &["produce", "-m", "from Java", &topic]].concat()).await;
    assert_eq!(receive(&mut consumer).await.to_string_lossy(), "from Java");
    let theirs: BTreeSet<_> = proxy.names().into_iter().skip(ours.len()).collect();
    assert_eq!(theirs, ours.into_iter().collect(), "the same names");
    within("the close", client.close()).await.expect("closed");
}

/// The brokers' own listener has addresses, for which TLS has no server name.
async fn named_by_an_address(cluster: Environment) {
    let proxy = proxy(&cluster).await;
    let builder = cluster.builder(URL).proxy_service_url(proxy.url(), ProxyProtocol::Sni);
    let client = within("the connection", builder.connect()).await.expect("the service URL has a name");
    let error = within("a failure", client.producer("persistent://public/many/sni").create()).await;
    let line = error.expect_err("no way").to_string();
    assert!(line.contains("have to be host names") && !line.contains('\n'), "{line}");
}

async fn another_certificate(cluster: Environment) {
    let proxy = SniProxy::start([(NAMES[0].to_owned(), cluster.proxy.tls.clone())]).await;
    let error = within("a refusal", builder(&cluster, URL, &proxy).connect()).await.expect_err("another server");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.to_string().contains("for another host: localhost"), "{error}");
}
