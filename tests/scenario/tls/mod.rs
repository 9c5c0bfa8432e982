//! TLS on the way to the embedded broker, which speaks none: a proxy in front of it ends it. The certificates beside this
//! file are for `localhost` and 127.0.0.1, good for a hundred years, and the authority's key is gone.

use std::path::PathBuf;
use std::sync::Arc;

use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use pulsar_native::client::rustls::crypto::ring;
use pulsar_native::client::rustls::pki_types::pem::PemObject;
use pulsar_native::client::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use pulsar_native::client::rustls::server::WebPkiClientVerifier;
use pulsar_native::client::rustls::{ClientConfig, RootCertStore, ServerConfig};
use pulsar_native::{Client, ClientBuilder, Error, ErrorKind};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::suite::{created, send, within};

mod certificates;

/// Which clients the proxy lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    Anyone,
    /// Those with a certificate of the authority.
    Certified,
}

pub fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/scenario/tls", name].iter().collect()
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect("the authority")).expect("a certificate");
    roots
}

fn server_config(clients: Clients) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.expect("the provider has these versions");
    let config = match clients {
        Clients::Anyone => config.with_no_client_auth(),
        Clients::Certified => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), provider);
            config.with_client_cert_verifier(verifier.build().expect("there is an authority"))
        }
    };
    let (certificate, key) = identity("server.pem", "server-key.pem");
    config.with_single_cert(vec![certificate], key).expect("they belong together")
}

fn identity(certificate: &str, key: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(file(certificate)).expect("a certificate");
    (certificate, PrivateKeyDer::from_pem_file(file(key)).expect("a key"))
}

/// A broker, and the `pulsar+ssl://` URL of a proxy in front of it.
pub async fn broker(builder: EmbeddedBrokerBuilder, clients: Clients) -> (EmbeddedBroker, String) {
    broker_behind(server_config(clients), builder).await
}

async fn broker_behind(config: ServerConfig, builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("pulsar+ssl://{}", listener.local_addr().expect("an address"));
    let broker = builder.broker_service_url_tls(&url).start().await.expect("a free port");
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), broker.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, mut broker) = (acceptor.clone(), behind.connect());
            tokio::spawn(async move {
                match acceptor.accept(socket).into_fallible().await {
                    Ok(mut socket) => drop(tokio::io::copy_bidirectional(&mut socket, &mut broker).await),
                    // A client that is not let in sees that itself, if the alert is not lost: a socket that is closed
                    // with bytes unread is reset.
                    Err((_, mut socket)) => drop(tokio::io::copy(&mut socket, &mut tokio::io::sink()).await),
                }
            });
        }
    });
    (broker, url)
}

async fn produce(builder: ClientBuilder) -> Result<(), Error> {
    let client = within("the connection or its refusal", builder.connect()).await?;
    let producer = created(client.producer("t")).await;
    send(&producer, "hello").await;
    within("the close", client.close()).await
}

fn client_of(url: &str) -> ClientBuilder {
    Client::builder(url).operation_timeout(std::time::Duration::from_secs(2))
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    let (broker, url) = broker(EmbeddedBroker::builder(), Clients::Certified).await;
    let certified =
        client_of(&url).ca_file(file("ca.pem")).client_cert_file(file("client.pem"), file("client-key.pem"));
    produce(certified).await.expect("the broker knows the authority");
    let error = produce(client_of(&url).ca_file(file("ca.pem"))).await.expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert_eq!(broker.violations(), []);
}

#[tokio::test]
async fn a_custom_configuration_is_used_unchanged() {
    let (_broker, url) = broker(EmbeddedBroker::builder(), Clients::Anyone).await;
    let config = |roots| {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    produce(client_of(&url).tls_config(config(roots()))).await.expect("it trusts the authority");
    let error = produce(client_of(&url).tls_config(config(RootCertStore::empty()))).await.expect_err("it trusts none");
    assert!(error.to_string().contains("certificate"), "{error}");
    let both = client_of(&url).tls_config(config(roots())).ca_file(file("ca.pem"));
    let error = produce(both).await.expect_err("two answers to one question");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn unusable_files_are_named() {
    let (_broker, url) = broker(EmbeddedBroker::builder(), Clients::Certified).await;
    for (certificate, key, named) in [
        ("none.pem", "client-key.pem", "none.pem"),
        ("client.pem", "none.pem", "none.pem"),
        ("client-key.pem", "client-key.pem", "holds no certificate"),
        ("client.pem", "server-key.pem", "server-key.pem"),
    ] {
        let builder = client_of(&url).ca_file(file("ca.pem")).client_cert_file(file(certificate), file(key));
        let error = produce(builder).await.expect_err("unusable");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

/// A TLS proxy in front of the REST interface, as `https://` URL.
#[cfg(feature = "http")]
async fn https_of(broker: &EmbeddedBroker) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let behind = broker.http_url().expect("the REST interface was asked for").replace("http://", "");
    let acceptor = TlsAcceptor::from(Arc::new(server_config(Clients::Anyone)));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let mut behind = tokio::net::TcpStream::connect(behind).await.expect("the REST interface");
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut behind).await;
            });
        }
    });
    url
}

#[cfg(feature = "http")]
#[tokio::test]
async fn https_leads_to_the_tls_address_of_the_broker() {
    let (broker, _) = broker(EmbeddedBroker::builder().http(true), Clients::Anyone).await;
    let url = https_of(&broker).await;
    produce(client_of(&url).ca_file(file("ca.pem"))).await.expect("it trusts the authority");
    let error = produce(client_of(&url)).await.expect_err("nobody vouches for the certificate");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(broker.violations(), []);
    // A broker without TLS is not reached in the clear.
    let plain = EmbeddedBroker::builder().http(true).start().await.expect("free ports");
    let url = https_of(&plain).await;
    let client = client_of(&url).ca_file(file("ca.pem"));
    let client = within("the connection", client.connect()).await.expect("a client");
    let error = within("a failure", client.producer("t").create()).await.expect_err("no TLS address");
    assert!(error.to_string().contains("no TLS address"), "{error}");
    assert_eq!(plain.connections(), 0);
}
