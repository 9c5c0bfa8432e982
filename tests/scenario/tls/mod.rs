//! TLS, as the embedded broker serves it. The certificates beside this file are for `localhost` and 127.0.0.1, good for
//! a hundred years, and the authority's key is gone. So is that of `clients-ca.pem`, which has signed `client-*.pem`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pulsar_native::broker::{EmbeddedBroker, EmbeddedBrokerBuilder};
use pulsar_native::client::rustls::crypto::ring;
use pulsar_native::client::rustls::pki_types::pem::PemObject;
use pulsar_native::client::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use pulsar_native::client::rustls::server::WebPkiClientVerifier;
use pulsar_native::client::rustls::{ClientConfig, RootCertStore, ServerConfig};
use pulsar_native::{Client, ClientBuilder, Cluster, Error, ErrorKind, Token};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::suite::{created, send, within};

mod certificates;
mod client_certificates;
#[cfg(feature = "http")]
mod https;
mod listener;
mod provider;
mod proxies;

/// Which clients the broker lets in.
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

/// A broker that serves TLS, and its `pulsar+ssl://` URL.
pub async fn broker(builder: EmbeddedBrokerBuilder, clients: Clients) -> (EmbeddedBroker, String) {
    broker_with(server_config(clients), builder).await
}

async fn broker_with(config: ServerConfig, builder: EmbeddedBrokerBuilder) -> (EmbeddedBroker, String) {
    let broker = builder.tls_config(Arc::new(config)).start().await.expect("free ports");
    let url = broker.tls_url().expect("TLS is on");
    (broker, url)
}

/// The address of a proxy that ends TLS in front of something that speaks none, as the broker's certificate names it.
async fn tls_in_front_of(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let own = listener.local_addr().expect("an address");
    end_tls(listener, address);
    own
}

/// The same at a listener that is there.
pub fn end_tls(listener: TcpListener, address: SocketAddr) {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(Clients::Anyone)));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let mut behind = TcpStream::connect(address).await.expect("what is behind it");
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut behind).await;
            });
        }
    });
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
    assert_eq!(error.kind(), ErrorKind::Authentication, "at once, not when the time is up: {error}");
    assert!(error.to_string().contains("name it as `client_cert_file`"), "{error}");
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

/// The second cluster has TLS and a key of its own, which the client's builder knows nothing of.
#[tokio::test]
async fn another_cluster_has_trust_roots_and_credentials_of_its_own() {
    let (first, other) = ("the key of the first cluster, 32 bytes", "the key of the other cluster, 32 bytes");
    let first = EmbeddedBroker::builder().token_secret_key(first).start().await.expect("free ports");
    let (second, url) = broker(EmbeddedBroker::builder().token_secret_key(other), Clients::Certified).await;
    let client = client_of(&first.url()).authentication(Token::new(first.token("admin"))).connect();
    let client = within("the connection", client).await.expect("a client");
    let producer = created(client.producer("t")).await;
    send(&producer, "to the first").await;
    let cluster = Cluster::new(&*url).authentication(Token::new(second.token("admin"))).ca_file(file("ca.pem"));
    let certified = cluster.client_cert_file(file("client.pem"), file("client-key.pem"));
    client.service_url_control().switch_to(certified).expect("a good cluster");
    send(&producer, "to the second").await;
    assert_eq!(second.stats("persistent://public/default/t").map(|stats| stats.msg_in_counter), Some(1));
    within("the close", client.close()).await.expect("closed");
    assert_eq!((first.violations(), second.violations()), (Vec::new(), Vec::new()));
}
