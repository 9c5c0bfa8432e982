//! Proxies in front of brokers: one that ends TLS and says so in its lookups, and one that routes by the server name.

use pulsar_native::ProxyProtocol;

use super::*;
use crate::common::sni_proxy::SniProxy;

/// A broker that lookups name by this URL, and the address of a port in front of it that ends TLS with a certificate for
/// `localhost` and 127.0.0.1.
async fn broker_named(url: impl Into<String>) -> (EmbeddedBroker, String) {
    let broker = EmbeddedBroker::builder().broker_service_url_tls(url).start().await.expect("a free port");
    let address = tls_in_front_of(broker.address()).await.to_string();
    (broker, address)
}

/// A proxy of Pulsar names the broker by the URL by which it reaches it, here without TLS, in both fields.
#[tokio::test]
async fn a_proxy_that_ends_tls_is_verified_by_its_own_name() {
    for url in ["pulsar://broker-7.internal:6650", "pulsar+ssl://broker-7.internal:6651"] {
        let (broker, address) = broker_named(url).await;
        produce(client_of(&format!("pulsar+ssl://{address}")).ca_file(file("ca.pem"))).await.expect("by the proxy");
        assert_eq!(broker.violations(), []);
    }
}

#[tokio::test]
async fn an_sni_proxy_is_dialed_for_every_broker_by_its_host_name() {
    // Nothing listens there: only the proxy knows the way.
    let (broker, address) = broker_named("pulsar+ssl://localhost:6651").await;
    let proxy = SniProxy::start([("localhost".to_owned(), address)]).await;
    for url in ["pulsar+ssl://localhost:1", "pulsar+ssl://localhost:6651"] {
        // The proxy is for the brokers; the REST interface is plain here.
        let client = client_of(url).proxy_service_url(proxy.url(), ProxyProtocol::Sni).admin_url("http://127.0.0.1:1");
        produce(client.ca_file(file("ca.pem"))).await.expect("through the proxy");
    }
    assert!(proxy.names().iter().all(|name| name == "localhost"), "{:?}", proxy.names());
    assert_eq!(broker.stats("t").expect("the topic is there").msg_in_counter, 2);
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn what_an_sni_proxy_cannot_reach_is_one_clear_line() {
    let proxy = SniProxy::start([]).await;
    let failure = async |url: &str| {
        let client = client_of(url).proxy_service_url(proxy.url(), ProxyProtocol::Sni).ca_file(file("ca.pem"));
        produce(client).await.expect_err("no way")
    };
    let error = failure("pulsar+ssl://broker.example.com").await;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let text = error.to_string();
    assert!(text.contains("the proxy may have no route to this name") && text.contains("broker.example.com"), "{text}");
    let error = failure("pulsar+ssl://127.0.0.1").await;
    assert_eq!(error.kind(), ErrorKind::Connection, "at once: {error}");
    assert!(error.to_string().contains("have to be host names"), "{error}");
    assert_eq!(proxy.names().iter().filter(|name| *name != "broker.example.com").count(), 0, "{:?}", proxy.names());
}

#[tokio::test]
async fn a_proxy_without_tls_or_of_another_form_is_refused() {
    for (service, proxy, said) in [
        ("pulsar://a", "pulsar+ssl://proxy:443", "pulsar+ssl:// or https:// service URL"),
        ("http://a", "pulsar+ssl://proxy:443", "pulsar+ssl:// or https:// service URL"),
        ("pulsar+ssl://a", "proxy:443", "`proxy:443` is not of the form pulsar+ssl://host:port"),
        ("pulsar+ssl://a", "pulsar://proxy:443", "is not of the form"),
        ("pulsar+ssl://a", "https://proxy:443", "is not of the form"),
        ("pulsar+ssl://a", "pulsar+ssl://one:443,two:443", "is not of the form"),
        ("pulsar+ssl://a", "pulsar+ssl://me:hunter2@proxy:443", "`...@proxy:443` is not of the form"),
    ] {
        let error = Client::builder(service).proxy_service_url(proxy, ProxyProtocol::Sni).build().expect_err(proxy);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
