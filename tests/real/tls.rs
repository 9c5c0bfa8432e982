//! TLS, as the real broker speaks it: who is trusted, and for which name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pulsar_native::client::rustls::crypto::{CryptoProvider, ring};
use pulsar_native::client::rustls::pki_types::pem::PemObject;
use pulsar_native::client::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use pulsar_native::client::rustls::{ClientConfig, RootCertStore};
use pulsar_native::{Basic, Client, ClientBuilder, Error, ErrorKind, TlsAuthentication, Token};

use crate::broker::Real;
use crate::common::socks5::Socks5Proxy;
use crate::common::temp_file::TempFile;
use crate::examples::socks5::Socks5;
use crate::runner::Test;
use crate::suite::credentials::password;
use crate::suite::target::{Cluster, Role};
use crate::suite::{created, receive, send, subscribed, within};

pub const TESTS: &[Test] = &[
    ("tls::trusted_authority", |real| Box::pin(trusted_authority(real))),
    ("tls::unknown_authority", |real| Box::pin(unknown_authority(real))),
    ("tls::wrong_host_name", |real| Box::pin(wrong_host_name(real))),
    ("tls::plain_port", |real| Box::pin(plain_port(real))),
    ("tls::bad_ca_file", |real| Box::pin(bad_ca_file(real))),
    ("tls::the_common_name_is_the_role", |real| Box::pin(the_common_name_is_the_role(real))),
    ("tls::certificates_that_are_not_taken", |real| Box::pin(certificates_that_are_not_taken(real))),
    ("tls::a_renewed_certificate", |real| Box::pin(a_renewed_certificate(real))),
    ("tls::a_skipped_host_name", |real| Box::pin(a_skipped_host_name(real))),
    ("tls::an_own_configuration", |real| Box::pin(an_own_configuration(real))),
    ("tls::behind_a_socks5_proxy", |real| Box::pin(behind_a_socks5_proxy(real))),
    ("tls::aws_lc_rs", |real| Box::pin(aws_lc_rs(real))),
    ("tls::user_and_password_over_https", |real| Box::pin(user_and_password_over_https(real))),
];

async fn connect(real: &Real, url: &str, ca_file: Option<PathBuf>) -> Result<Client, Error> {
    let token = Token::new(real.token(Role::Admin));
    // A failure that is tried again is reported once the operation timeout has passed.
    let mut builder = Client::builder(url).authentication(token).operation_timeout(Duration::from_secs(10));
    if let Some(ca_file) = ca_file {
        builder = builder.ca_file(ca_file);
    }
    within("the connection or its refusal", builder.connect()).await
}

fn address(url: &str) -> &str {
    url.trim_start_matches("pulsar+ssl://")
}

async fn trusted_authority(real: Real) {
    let client = connect(&real, &real.tls_url, Some(real.ca_file.clone())).await.expect("a client over TLS");
    let topic = real.target().topic("tls");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    // Larger than a TLS record, and larger than the buffers of a socket.
    for size in [1, 20_000, 3_000_000] {
        send(&producer, vec![7; size]).await;
        let message = receive(&mut consumer).await;
        assert_eq!(message.payload().len(), size);
        within("the confirmation", consumer.ack_confirmed(&message)).await.expect("confirmed");
    }
    within("the close", client.close()).await.expect("closed");
}

/// The example's dialer, with the client's own TLS over it.
async fn behind_a_socks5_proxy(real: Real) {
    let proxy = Socks5Proxy::start("me", "a password").await;
    let dialer = Socks5 { proxy: proxy.address().to_owned(), user: Some(("me".to_owned(), "a password".to_owned())) };
    let builder = Client::builder(&*real.tls_url).ca_file(real.ca_file.clone()).dialer_under_tls(dialer);
    let builder = builder.authentication(Token::new(real.token(Role::Admin)));
    let client = within("the connection", builder.connect()).await.expect("a client");
    let topic = real.target().topic("socks5");
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    let producer = created(client.producer(&topic)).await;
    for size in [1, 3_000_000] {
        send(&producer, vec![7; size]).await;
        assert_eq!(receive(&mut consumer).await.payload().len(), size);
    }
    assert!(proxy.reached().iter().any(|reached| reached == address(&real.tls_url)), "{:?}", proxy.reached());
    within("the close", client.close()).await.expect("closed");
}

async fn unknown_authority(real: Real) {
    let error = connect(&real, &real.tls_url, None).await.expect_err("nobody vouches for the certificate");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let text = error.to_string();
    assert!(text.contains(address(&real.tls_url)), "names the address: {text}");
    assert!(text.contains("certificate"), "says what is wrong: {text}");
}

async fn wrong_host_name(real: Real) {
    // The certificate is for `localhost` and 127.0.0.1; the same broker answers at 127.0.0.2 only by its port.
    let port = real.tls_url.rsplit(':').next().expect("a port");
    let relay = relay_to(port).await;
    let url = format!("pulsar+ssl://{relay}");
    let error = connect(&real, &url, Some(real.ca_file.clone())).await.expect_err("the name does not fit");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    let text = error.to_string();
    assert!(text.contains(&relay) && text.contains("certificate"), "says what is wrong: {text}");
}

/// Another address for the broker's port: 127.0.0.2, which its certificate does not name.
async fn relay_to(port: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a second loopback address");
    let address = listener.local_addr().expect("an address").to_string();
    let broker = format!("127.0.0.1:{port}");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(&broker).await.expect("the broker");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

async fn plain_port(real: Real) {
    let url = real.url.replacen("pulsar://", "pulsar+ssl://", 1);
    let error = connect(&real, &url, Some(real.ca_file.clone())).await.expect_err("the port speaks no TLS");
    assert!(error.to_string().contains(address(&url)), "names the address: {error}");
}

async fn bad_ca_file(real: Real) {
    let error = connect(&real, &real.tls_url, Some("/no/such/file.pem".into())).await.expect_err("no such file");
    assert!(error.to_string().contains("/no/such/file.pem"), "names the file: {error}");
}

/// A file of the embedded broker's tests, whose clients this broker takes as well.
pub fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/scenario/tls", name].iter().collect()
}

fn trusting(real: &Real, url: &str) -> ClientBuilder {
    Client::builder(url).ca_file(&real.ca_file).operation_timeout(Duration::from_secs(10))
}

/// A client that shows this certificate, and says so.
fn certified(real: &Real, url: &str, certificate: &str, key: &str) -> ClientBuilder {
    trusting(real, url).client_cert_file(file(certificate), file(key)).authentication(TlsAuthentication)
}

/// Whether the client may produce to a topic of its own.
async fn produce(real: &Real, builder: ClientBuilder) -> Result<(), Error> {
    let client = within("the connection or its refusal", builder.connect()).await?;
    let producer = client.producer(real.target().topic("certified")).create();
    send(&within("a producer or its refusal", producer).await?, "hello").await;
    within("the close", client.close()).await
}

async fn the_common_name_is_the_role(real: Real) {
    for url in [&real.tls_url, &real.web_tls_url] {
        let client = |certificate| certified(&real, url, certificate, "client-admin-key.pem");
        produce(&real, client("client-admin.pem")).await.expect("the superuser");
        let error = produce(&real, client("client-nobody.pem")).await.expect_err("no rights");
        assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
        let none = trusting(&real, url).authentication(TlsAuthentication);
        let error = produce(&real, none).await.expect_err("no certificate");
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    }
}

/// JSSE says less in its alerts than rustls: the line names what can be wrong.
async fn certificates_that_are_not_taken(real: Real) {
    for url in [&real.tls_url, &real.web_tls_url] {
        for (certificate, key) in [("client.pem", "client-key.pem"), ("client-expired.pem", "client-admin-key.pem")] {
            let error = produce(&real, certified(&real, url, certificate, key)).await.expect_err("not taken");
            let text = error.to_string();
            println!("{certificate}, {url}: {text}");
            let port = url.rsplit(':').next().expect("a port");
            assert!(text.contains("the client's certificate") && text.contains(port), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

async fn a_renewed_certificate(real: Real) {
    let copy = |name: &str| std::fs::read(file(name)).expect("a file");
    let certificate = TempFile::new("real-renewed.pem", copy("client-admin.pem"));
    let key = TempFile::new("real-renewed-key.pem", copy("client-admin-key.pem"));
    let client = trusting(&real, &real.tls_url).client_cert_file(certificate.path(), key.path());
    let client = within("the connection", client.authentication(TlsAuthentication).connect()).await.expect("a client");
    let topic = real.target().topic("renewed");
    let producer = created(client.producer(&topic)).await;
    let mut consumer = subscribed(client.consumer(&topic, "s")).await;
    // One that the broker does not take: what is up stays up, and a new client is refused.
    std::fs::write(certificate.path(), copy("client-expired.pem")).expect("written");
    send(&producer, "before").await;
    let late = trusting(&real, &real.tls_url).client_cert_file(certificate.path(), key.path());
    let late = produce(&real, late.authentication(TlsAuthentication)).await;
    assert!(late.expect_err("expired").to_string().contains("the client's certificate"));
    // Another one of the same name, with another key.
    std::fs::write(key.path(), copy("client-renewed-key.pem")).expect("written");
    std::fs::write(certificate.path(), copy("client-renewed.pem")).expect("written");
    let renewed = trusting(&real, &real.tls_url).client_cert_file(certificate.path(), key.path());
    produce(&real, renewed.authentication(TlsAuthentication)).await.expect("the renewed one");
    send(&producer, "after").await;
    for text in ["before", "after"] {
        assert_eq!(receive(&mut consumer).await.to_string_lossy(), text);
    }
    within("the close", client.close()).await.expect("closed");
}

async fn a_skipped_host_name(real: Real) {
    let port = real.tls_url.rsplit(':').next().expect("a port");
    // Lookups lead to the broker's own name; the service URL has one that its certificate does not have.
    let url = format!("pulsar+ssl://{}", relay_to(port).await);
    let builder = || Client::builder(&url).authentication(Token::new(real.token(Role::Admin)));
    let error = within("the refusal", builder().ca_file(&real.ca_file).connect()).await.expect_err("another name");
    assert!(error.to_string().contains("is for another host"), "{error}");
    produce(&real, builder().ca_file(&real.ca_file).danger_skip_hostname_verification()).await.expect("any name");
    let other = builder().ca_file(file("ca.pem")).danger_skip_hostname_verification();
    let error = produce(&real, other).await.expect_err("another authority");
    assert!(error.to_string().contains("an authority that is not trusted"), "{error}");
}

async fn an_own_configuration(real: Real) {
    own_configuration(&real, ring::default_provider()).await;
}

/// The cryptography of another library, as an application's own configuration brings it along.
async fn aws_lc_rs(real: Real) {
    #[cfg(feature = "aws-lc-rs")]
    own_configuration(&real, pulsar_native::client::rustls::crypto::aws_lc_rs::default_provider()).await;
    #[cfg(not(feature = "aws-lc-rs"))]
    drop(real);
}

async fn own_configuration(real: &Real, provider: CryptoProvider) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&real.ca_file).expect("the authority")).expect("a certificate");
    let certificate = CertificateDer::from_pem_file(file("client-admin.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("client-admin-key.pem")).expect("a key");
    let config = ClientConfig::builder_with_provider(Arc::new(provider));
    let config = config.with_safe_default_protocol_versions().expect("the provider has these versions");
    let config = config.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key);
    let config = Arc::new(config.expect("they belong together"));
    for url in [&real.tls_url, &real.web_tls_url] {
        let builder = Client::builder(url).tls_config(config.clone()).authentication(TlsAuthentication);
        produce(real, builder).await.expect("the superuser");
    }
}

async fn user_and_password_over_https(real: Real) {
    let as_user = |(user, password)| trusting(&real, &real.web_tls_url).authentication(Basic::new(user, password));
    produce(&real, as_user(password(Role::Admin))).await.expect("the superuser");
    let error = produce(&real, as_user(password(Role::Nobody))).await.expect_err("no rights");
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    let error = produce(&real, as_user(("admin", "a wrong word"))).await.expect_err("not let in");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
}
