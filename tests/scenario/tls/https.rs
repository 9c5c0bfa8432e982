//! `https://` service URLs.

use pulsar_native::Token;

use super::*;
use crate::common::web::{self, Web};
use crate::common::wrong_ports::{self, Ports};

const KEY: &str = "a secret of at least 32 bytes, for HS256";

fn trusting(url: &str) -> ClientBuilder {
    client_of(url).ca_file(file("ca.pem"))
}

/// A broker with all four ports, and its `https://` URL.
async fn serving(builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, String) {
    let (broker, _) = broker(builder.http(true), Clients::Anyone).await;
    let url = broker.https_url().expect("both are on");
    (broker, url)
}

/// A web server of the test, and the `https://` URL of a proxy in front of it.
async fn secured(web: &Web) -> String {
    format!("https://{}", tls_in_front_of(web.address()).await)
}

#[tokio::test]
async fn https_leads_to_the_tls_address_of_the_broker() {
    let (broker, url) = serving(EmbeddedBroker::builder()).await;
    produce(trusting(&url)).await.expect("it trusts the authority");
    let plain = broker.http_url().expect("both are on");
    produce(client_of(&plain)).await.expect("and http:// leads to the plain one");
    assert_eq!(broker.violations(), []);
    // A broker without TLS is not reached in the clear.
    let plain = EmbeddedBroker::builder().http(true).start().await.expect("free ports");
    let rest = plain.http_url().expect("it is on").trim_start_matches("http://").parse().expect("an address");
    let url = format!("https://{}", tls_in_front_of(rest).await);
    let client = within("the connection", trusting(&url).connect()).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("no TLS address");
    assert!(error.to_string().contains("no TLS address"), "{error}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn lookups_over_either_port_name_all_addresses() {
    let (broker, url) = serving(EmbeddedBroker::builder()).await;
    let (plain, tls) = (broker.http_url().expect("on"), broker.tls_url().expect("on"));
    let web_address = |url: &str| url.split("//").nth(1).expect("an address").to_owned();
    for (scheme, address) in [("http", web_address(&plain)), ("https", web_address(&url))] {
        let answer =
            within("the answer", get(scheme == "https", &address, "/lookup/v2/topic/persistent/public/default/t"))
                .await;
        for (name, wanted) in
            [("brokerUrl", &broker.url()), ("brokerUrlTls", &tls), ("httpUrl", &plain), ("httpUrlTls", &url)]
        {
            assert!(answer.contains(&format!("\"{name}\":\"{wanted}\"")), "{name} over {scheme}: {answer}");
        }
    }
}

/// The whole answer to a GET.
async fn get(is_secured: bool, address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    let mut answer = String::new();
    if is_secured {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
        let config = Arc::new(config.with_root_certificates(roots()).with_no_client_auth());
        let connecting =
            tokio_rustls::TlsConnector::from(config).connect("localhost".try_into().expect("a name"), socket);
        let mut socket = connecting.await.expect("trusted");
        socket.write_all(request.as_bytes()).await.expect("written");
        socket.read_to_string(&mut answer).await.expect("an answer");
    } else {
        socket.write_all(request.as_bytes()).await.expect("written");
        socket.read_to_string(&mut answer).await.expect("an answer");
    }
    answer
}

#[tokio::test]
async fn tokens_go_over_https_and_on_to_the_tls_address() {
    let (broker, url) = serving(EmbeddedBroker::builder().token_secret_key(KEY)).await;
    produce(trusting(&url).authentication(Token::new(broker.token("admin")))).await.expect("a good token");
    for builder in [trusting(&url), trusting(&url).authentication(Token::new("not-a-token"))] {
        let error = produce(builder).await.expect_err("no good token");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert!(!format!("{error:?}").contains("not-a-token"), "{error:?}");
    }
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_has_its_own_line_over_https_too() {
    let (_broker, url) = serving(EmbeddedBroker::builder()).await;
    let error = produce(client_of(&url).ca_file(file("self-signed.pem"))).await.expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Connection, "at once, not when the time is up: {error}");
    assert!(error.to_string().contains("an authority that is not trusted"), "{error}");
    let error = produce(trusting(&url.replace("127.0.0.1", "127.0.0.2"))).await.expect_err("nothing listens there");
    assert!(error.to_string().contains("127.0.0.2"), "{error}");
}

#[tokio::test]
async fn each_scheme_on_a_port_of_another_has_a_line_that_helps() {
    let (broker, url) = serving(EmbeddedBroker::builder()).await;
    let address = |url: &str| url.split_once("://").expect("a URL").1.to_owned();
    let ports = Ports {
        pulsar: address(&broker.url()),
        pulsar_ssl: address(&broker.tls_url().expect("on")),
        http: address(&broker.http_url().expect("on")),
        https: address(&url),
    };
    wrong_ports::each_has_a_line_that_helps(&ports, &file("ca.pem")).await;
}

#[tokio::test]
async fn a_redirect_over_https_leads_to_another_broker() {
    let builder = || EmbeddedBroker::builder().token_secret_key(KEY);
    let (broker, there) = serving(builder()).await;
    let web = Web::start(move |request| Some(web::redirect(format_args!("{there}{}", request.path())))).await;
    let client = trusting(&secured(&web).await).authentication(Token::new(broker.token("admin")));
    produce(client.http_redirect_hosts(["127.0.0.1"])).await.expect("it is followed, with the token");
    assert!(broker.stats("t").is_some());
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Web::always(web::json("{\"partitions\":2}")).await;
    let to = plain.url();
    let web = Web::start(move |request| Some(web::redirect(format_args!("{to}{}", request.path())))).await;
    let client = trusting(&secured(&web).await).authentication(Token::new("the-secret-token"));
    let error = produce(client.http_redirect_hosts(["127.0.0.1"])).await.expect_err("refused");
    assert!(error.to_string().contains("from https:// to http:// no redirect is followed"), "{error}");
    assert!(!web.seen().is_empty() && plain.seen().is_empty(), "nothing went out in the clear: {:?}", plain.seen());
}
